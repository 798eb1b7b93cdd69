import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { openFlagsOf, processIds } from '../base/proc-fs.ts';

/** The process that a thread belongs to, and who runs it. */
export interface ThreadOwner {
  readonly pid: number;
  /** Effective user id. */
  readonly uid: number;
}

/**
 * From a host thread id, as `query-cpus-fast` gives it, to QEMU's process (proc(5), `status`).
 * undefined if there is no such thread here: QEMU is on another host or in another PID namespace.
 */
export function processOfThread(threadId: number): ThreadOwner | undefined {
  const status = read(`/proc/${threadId}/status`);
  const pid = /^Tgid:\s+(\d+)/m.exec(status)?.[1];
  const uid = /^Uid:\s+\d+\s+(\d+)/m.exec(status)?.[1];
  if (pid === undefined || uid === undefined) return undefined;
  return { pid: Number(pid), uid: Number(uid) };
}

/**
 * Paths of the files that a process has open, links resolved; one that was deleted ends in
 * ` (deleted)`. undefined if we are not permitted to look, or there is no such process.
 */
export function openFilesOf(pid: number): readonly string[] | undefined {
  return descriptorsOf(pid, (_, path) => path);
}

const ACCESS_MODE = 0o3;
const WRITE_ONLY = 0o1;

/**
 * The files that a process has open for writing alone, each by its descriptor and path: `7 /tmp/log`.
 * undefined as with `openFilesOf`.
 */
export function filesWrittenBy(pid: number): readonly string[] | undefined {
  return descriptorsOf(pid, (fd, path) =>
    (openFlagsOf(pid, fd) & ACCESS_MODE) === WRITE_ONLY ? `${fd} ${path}` : undefined,
  );
}

function descriptorsOf(
  pid: number,
  take: (fd: string, path: string) => string | undefined,
): readonly string[] | undefined {
  let names: string[];
  try {
    names = readdirSync(`/proc/${pid}/fd`);
  } catch {
    return undefined;
  }
  return names.flatMap((name) => {
    try {
      const path = readlinkSync(`/proc/${pid}/fd/${name}`);
      const taken = path.startsWith('/') ? take(name, path) : undefined;
      return taken === undefined ? [] : [taken];
    } catch {
      // Closed since it was listed.
      return [];
    }
  });
}

/** The words of its command line; empty if it is gone, or a kernel thread. */
export function cmdlineOf(pid: number): string[] {
  const text = read(`/proc/${pid}/cmdline`);
  return text === '' ? [] : text.replace(/\0$/, '').split('\0');
}

/** Processes whose command line has `text` in one of its words. */
export function processesOf(text: string): number[] {
  return processIds().filter((pid) => cmdlineOf(pid).some((word) => word.includes(text)));
}

/**
 * When a process began, in clock ticks since the host booted (proc(5), field 22 of `stat`): with
 * the pid it names a process for good. undefined if it is gone.
 */
export function startTimeOf(pid: number): number | undefined {
  const fields = statFields(pid);
  const time = Number(fields[19]);
  return fields.length > 19 && Number.isFinite(time) ? time : undefined;
}

/** Whether the process that began at `startTime` still runs; one that only waits to be reaped does not. */
export function isAlive(pid: number, startTime: number): boolean {
  const state = statFields(pid)[0];
  return state !== undefined && !/[ZX]/.test(state) && startTimeOf(pid) === startTime;
}

/** Fields from the third on; the second is the program's name, which may hold spaces and brackets. */
function statFields(pid: number): string[] {
  const text = read(`/proc/${pid}/stat`);
  if (text === '') return [];
  return text.slice(text.lastIndexOf(')') + 2).split(' ');
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** A process that may be gone, and whose number may have been given to another since. */
export interface ProcessRef {
  readonly pid: number;
  readonly startTime: number;
}

/** Ourselves, as others may look for us. */
export function ourselves(): ProcessRef {
  return processRef(process.pid);
}

export function processRef(pid: number): ProcessRef {
  return { pid, startTime: startTimeOf(pid) ?? 0 };
}
