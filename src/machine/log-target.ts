import { readlinkSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { openFlagsOf } from '../base/proc-fs.ts';
import { scanArgv } from './argv-scan.ts';
import { hasOption, valuesOf } from './argv-user.ts';
import { parseOptionValue } from './option-value.ts';

/** Where a running QEMU's log goes, as far as can be told. QMP has no command to ask. */
export type LogTarget =
  /** A file that `-D` (or `-trace file=`) names; absolute. */
  | { readonly kind: 'file'; readonly path: string }
  /**
   * No -D. `stream`: a terminal, pipe or character device; `file`: a regular file at `path`,
   * `appends` if it was opened for appending; `other`: a socket, or we may not look.
   */
  | { readonly kind: 'stderr'; readonly is: 'stream' }
  | { readonly kind: 'stderr'; readonly is: 'other' }
  | {
      readonly kind: 'stderr';
      readonly is: 'file';
      readonly path: string;
      readonly appends: boolean;
    }
  /** Daemonized and no -D: nowhere. */
  | { readonly kind: 'none' };

const O_APPEND = 0o2000;

/**
 * Reads from a QEMU's command line (`cmdlineOf`) where its log goes (util/log.c). That someone
 * moved it since, with HMP `logfile`, cannot be seen from there.
 *
 * @throws MmioError `usage` if `argv` is no command line
 */
export function logTargetOf(argv: readonly string[], pid: number): LogTarget {
  const { options } = scanArgv(argv);
  const traceFile = valuesOf(options, 'trace')
    .map((value) => parseOptionValue(value, 'enable').get('file'))
    .at(-1);
  const named = traceFile ?? valuesOf(options, 'D').at(-1);
  if (named !== undefined) {
    return { kind: 'file', path: resolve(cwdOf(pid), named.replace('%d', String(pid))) };
  }
  return hasOption(options, 'daemonize') ? { kind: 'none' } : stderrOf(pid);
}

function stderrOf(pid: number): LogTarget {
  try {
    const stat = statSync(`/proc/${pid}/fd/2`);
    if (stat.isFIFO() || stat.isCharacterDevice()) return { kind: 'stderr', is: 'stream' };
    if (!stat.isFile()) return { kind: 'stderr', is: 'other' };
    return {
      kind: 'stderr',
      is: 'file',
      path: readlinkSync(`/proc/${pid}/fd/2`),
      appends: (openFlagsOf(pid, 2) & O_APPEND) !== 0,
    };
  } catch {
    return { kind: 'stderr', is: 'other' };
  }
}

function cwdOf(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    return '/';
  }
}
