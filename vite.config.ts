import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vite';

/** Builds the page from src/web into dist/web: one script, one style sheet. */
export default defineConfig({
  root: fileURLToPath(new URL('src/web', import.meta.url)),
  base: './',
  build: {
    outDir: fileURLToPath(new URL('dist/web', import.meta.url)),
    emptyOutDir: true,
    target: 'es2023',
    modulePreload: false,
    assetsInlineLimit: 0,
  },
});
