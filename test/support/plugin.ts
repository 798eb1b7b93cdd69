import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { qemuVersions } from './qemu.ts';
import { scriptPath } from './scripts.ts';

const SOURCES = scriptPath('plugin');

/** What `make` prints. Throws with its words where it fails. */
export function makePlugin(...args: readonly string[]): Buffer {
  return execFileSync('make', ['-s', '-C', SOURCES, ...args], { stdio: 'pipe' });
}

export interface PluginVariant {
  readonly name: string;
  readonly version: string;
  /** The program and, for a sanitizer, what goes before it. */
  readonly qemu: readonly string[];
  /** Where its objects are. */
  readonly env: { readonly MMIOBRIDGE_PLUGIN_DIR: string };
}

/** The QEMUs that have the interface, with the plugin as it is built for users and with sanitizers. */
export function pluginVariants(): PluginVariant[] {
  const cache = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'mmiobridge');
  const build = (name: string, ...args: readonly string[]) => {
    const out = join(cache, name);
    mkdirSync(out, { recursive: true });
    makePlugin(`OUT=${out}`, ...args);
    return { MMIOBRIDGE_PLUGIN_DIR: out };
  };
  const env = build('plugin');
  const sanitized = build('plugin-san', 'SAN=1');
  const asan = execFileSync('cc', ['-print-file-name=libasan.so'], { encoding: 'utf8' }).trim();
  // What QEMU itself does not free is none of ours.
  const words = ['env', `LD_PRELOAD=${asan}`, 'ASAN_OPTIONS=detect_leaks=0:abort_on_error=1'];
  return qemuVersions().flatMap(({ version, path }) => {
    const plain = { name: `QEMU ${version}`, version, qemu: [path], env };
    if (version === '10.0') {
      const name = `QEMU ${version}, ASan and UBSan`;
      return [plain, { name, version, qemu: [...words, path], env: sanitized }];
    }
    return version === '11.1' ? [plain] : [];
  });
}
