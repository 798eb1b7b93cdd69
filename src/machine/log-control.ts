import { rename, stat } from 'node:fs/promises';
import { MmioError, messageOf, systemCodeOf } from '../base/errors.ts';
import type { LogTarget } from './log-target.ts';
import type { QmpCommands } from './trace-control.ts';

const PROBE = 'mmiobridge-probe-';
let probes = 0;

/**
 * Has QEMU log into `path`, absolute and new, from now on. A `logfile` that fails leaves QEMU
 * logging nowhere, and there is no going back without it: so QEMU opens the file through a chardev
 * first, which fails with no harm.
 *
 * @param isStillOurs asked at the last moment: false, and it is left where it is
 * @throws MmioError `refused` with QEMU's words; its log then still goes where it went, unless the
 *   message says otherwise. `usage` for a path that QEMU cannot take
 */
export async function redirectLog(
  qmp: QmpCommands,
  path: string,
  isStillOurs: () => boolean = () => true,
): Promise<void> {
  if (!path.startsWith('/') || path.includes('%') || path.includes('\0')) {
    throw new MmioError('usage', "QEMU's log needs an absolute path without %", {
      evidence: path,
      hint: 'name another directory with --spool DIR',
    });
  }
  await probeWritable(qmp, path);
  if (!isStillOurs()) {
    throw new MmioError('refused', "somebody else has sent QEMU's log elsewhere", {
      evidence: `it was to go on in ${path}`,
    });
  }
  const words = await logfile(qmp, path);
  if (words === '') return;
  throw refused(path, words, `QEMU could not log into ${path}, and now logs nowhere`);
}

/** Where QEMU's log went when it could not go back to exactly where it was, and why. */
export interface RestoredLog {
  readonly path: string;
  /** For the user; undefined if all is as it was. */
  readonly note: string | undefined;
}

/**
 * Puts QEMU's log back. QEMU 7.2 appends to a file that it opens again; from 8.0 on it empties it
 * (util/log.c), so that what a file holds has to be put aside first. Where nothing else is left,
 * the log goes to /dev/null, and the note says so.
 *
 * @throws MmioError `refused` if QEMU takes not even /dev/null
 */
export async function restoreLog(qmp: QmpCommands, previous: LogTarget): Promise<RestoredLog> {
  await removeProbes(qmp);
  const attempts = [...(await attemptsFor(qmp, previous)), nowhere(previous)];
  let words = '';
  for (const attempt of attempts) {
    words = await logfile(qmp, attempt.path);
    if (words === '') return attempt;
  }
  throw refused('/dev/null', words, "QEMU's log could not be put back, and goes nowhere");
}

async function attemptsFor(qmp: QmpCommands, previous: LogTarget): Promise<RestoredLog[]> {
  switch (previous.kind) {
    case 'none':
      return [];
    case 'file':
      return fileAttempts(previous.path, await appends(qmp));
    case 'stderr':
      if (previous.is === 'stream') return [{ path: '/dev/stderr', note: undefined }];
      if (previous.is === 'other') return [];
      // Opened a second time it has a place of its own to write at: only appending keeps both apart.
      if (previous.appends && (await appends(qmp)))
        return [{ path: '/dev/stderr', note: undefined }];
      return besideAttempt(previous.path);
    default:
      return previous satisfies never;
  }
}

async function fileAttempts(path: string, appending: boolean): Promise<RestoredLog[]> {
  if (appending || (await isEmpty(path))) return [{ path, note: undefined }];
  try {
    const aside = await freeName(`${path}.before-mmiobridge`);
    await rename(path, aside);
    return [{ path, note: `QEMU logs into ${path} again; what was in it is in ${aside}` }];
  } catch {
    return besideAttempt(path);
  }
}

async function besideAttempt(path: string): Promise<RestoredLog[]> {
  const beside = await freeName(`${path}.after-mmiobridge`);
  return [
    {
      path: beside,
      note: `QEMU's log goes on in ${beside}: opening ${path} again would damage it`,
    },
  ];
}

function nowhere(previous: LogTarget): RestoredLog {
  if (previous.kind === 'none') return { path: '/dev/null', note: undefined };
  const where = previous.kind === 'file' ? previous.path : "QEMU's standard error";
  return {
    path: '/dev/null',
    note: `QEMU logs nowhere now: its log could not go back to ${where}`,
  };
}

/** Whether `logfile` keeps what a file holds: measured on 7.2; changed for 8.0. */
async function appends(qmp: QmpCommands): Promise<boolean> {
  const answer: unknown = await qmp.execute('query-version');
  const major = /"major":(\d+)/.exec(JSON.stringify(answer))?.[1];
  return major !== undefined && Number(major) < 8;
}

/**
 * Has QEMU open a file for writing, absolute and new, and close it again. Its log is left alone.
 *
 * @throws MmioError `refused` with QEMU's words
 */
export async function probeWritable(qmp: QmpCommands, path: string): Promise<void> {
  const id = `${PROBE}${process.pid}-${++probes}`;
  try {
    await qmp.execute('chardev-add', { id, backend: { type: 'file', data: { out: path } } });
  } catch (error) {
    const words = (error instanceof MmioError ? error.evidence : undefined) ?? messageOf(error);
    throw refused(path, words, `QEMU cannot write ${path}`, error);
  }
  await qmp.execute('chardev-remove', { id });
}

/** A recorder that is killed may leave one behind, and with it an open file. */
async function removeProbes(qmp: QmpCommands): Promise<void> {
  const answer = await qmp.execute('query-chardev');
  const chardevs = Array.isArray(answer) ? (answer as readonly { readonly label?: unknown }[]) : [];
  for (const { label } of chardevs) {
    if (typeof label !== 'string' || !label.startsWith(PROBE)) continue;
    await qmp.execute('chardev-remove', { id: label });
  }
}

function refused(path: string, words: string, message: string, cause?: unknown): MmioError {
  return new MmioError('refused', message, {
    evidence: words,
    hint:
      `QEMU opens ${path} itself, as the user that it runs as and under its confinement ` +
      '(AppArmor, SELinux, a sandbox or container): name a directory where it may write with --spool DIR',
    cause,
  });
}

/** What QEMU has to complain about; empty if it did as it was told. */
async function logfile(qmp: QmpCommands, path: string): Promise<string> {
  return (await qmp.hmp(`logfile ${hmpQuote(path)}`)).trim();
}

/** A word as `get_str` (monitor/hmp.c) reads it back. */
function hmpQuote(word: string): string {
  const escaped = word
    .replaceAll('\\', String.raw`\\`)
    .replaceAll('"', String.raw`\"`)
    .replaceAll('\n', String.raw`\n`)
    .replaceAll('\r', String.raw`\r`);
  return `"${escaped}"`;
}

async function isEmpty(path: string): Promise<boolean> {
  try {
    return (await stat(path)).size === 0;
  } catch (error) {
    // Not to be seen from here: it may hold something.
    return systemCodeOf(error) === 'ENOENT';
  }
}

async function freeName(wanted: string): Promise<string> {
  for (let number = 1; ; number++) {
    const name = number === 1 ? wanted : `${wanted}.${number}`;
    try {
      await stat(name);
    } catch {
      return name;
    }
  }
}
