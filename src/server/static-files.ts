/** The page's own files, as the build left them in dist/web. */
import { readFileSync, readdirSync } from 'node:fs';
import { extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MmioError, messageOf } from '../base/errors.ts';

export interface StaticFile {
  readonly type: string;
  readonly bytes: Buffer;
}

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
};

const WEB = fileURLToPath(new URL('../web/', import.meta.url));

/** By path. Throws MmioError `not-found` where the page was not built. */
export function readStaticFiles(): ReadonlyMap<string, StaticFile> {
  try {
    const names = readdirSync(WEB, { recursive: true, encoding: 'utf8' });
    const files = names.flatMap((name): [string, StaticFile][] => {
      const type = TYPES[extname(name)];
      return type === undefined
        ? []
        : [[`/${name}`, { type, bytes: readFileSync(join(WEB, name)) }]];
    });
    const index = files.find(([path]) => path === '/index.html');
    if (index === undefined) throw new Error(`${WEB} has no index.html`);
    return new Map([['/', index[1]], ...files]);
  } catch (error) {
    throw new MmioError('not-found', 'the page is not there', {
      evidence: messageOf(error),
      hint: 'build it: npm run build',
      cause: error,
    });
  }
}
