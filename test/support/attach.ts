import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  copyFileSync,
  openSync,
  readFileSync,
  readdirSync,
  readlinkSync,
} from 'node:fs';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { readTraceState } from '../../src/machine/trace-control.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import { HAMMER_GPA, hammerGuest } from './guests.ts';
import { isListening } from './qemu.ts';
import { words } from './scripts.ts';
import { PATIENCE_MS, until } from './soon.ts';

const CLI = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

/** A process of a test, with what it has said so far. */
export class Run {
  stdout = '';
  stderr = '';
  readonly child: ChildProcess;
  readonly ended: Promise<{ readonly code: number | null; readonly signal: string | null }>;

  constructor(child: ChildProcess) {
    this.child = child;
    child.stdout?.setEncoding('utf8').on('data', (text: string) => (this.stdout += text));
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.stderr += text));
    this.ended = new Promise((resolve) => {
      child.once('error', (error) => {
        this.stderr += error.message;
        resolve({ code: null, signal: null });
      });
      child.once('close', (code, signal) => resolve({ code, signal }));
    });
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error(`it did not start: ${this.stderr}`);
    return this.child.pid;
  }

  get isRunning(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /** The exit status; throws with what was said where there is none in time. */
  async code(): Promise<number | null> {
    const late = delay(PATIENCE_MS, undefined, { ref: false });
    const end = await Promise.race([this.ended, late]);
    if (end === undefined) throw new Error(`it did not end, and said: ${this.stderr}`);
    return end.code;
  }

  async kill(): Promise<void> {
    if (this.isRunning) this.child.kill('SIGKILL');
    await this.ended;
  }
}

export interface GuestOptions {
  /** What its stderr goes to; a pipe that we read. */
  readonly stderr?: number;
  /** Runs QEMU as this user. */
  readonly user?: string;
  readonly timestamps?: boolean;
}

/** A QEMU that is not the recorder's, with a monitor for the recorder and one to watch it. */
export interface Guest extends Run {
  readonly socket: string;
  readonly watcher: QmpClient;
  /** Names of the QMP events that came so far. */
  readonly events: readonly string[];
}

/** A folder for one test, and whatever runs in it; `close` ends and removes all of it. */
export class Bench {
  readonly dir: string;
  readonly #runs: Run[] = [];
  readonly #watchers: QmpClient[] = [];
  readonly #fds: number[] = [];
  readonly #proxies: Proxy[] = [];

  private constructor(dir: string) {
    this.dir = dir;
  }

  static async open(): Promise<Bench> {
    const dir = await mkdtemp(join(tmpdir(), 'attach-'));
    // Other users may pass, as they may through the recorder's own folder.
    chmodSync(dir, 0o755);
    await mkdir(join(dir, 'run'), { mode: 0o711 });
    await mkdir(join(dir, 'qemu'));
    chmodSync(join(dir, 'qemu'), 0o777);
    return new Bench(dir);
  }

  path(...names: string[]): string {
    return join(this.dir, ...names);
  }

  read(name: string): string {
    return readFileSync(this.path(name), 'utf8');
  }

  /** Folders of recordings that are there. */
  sessions(): string[] {
    return readdirSync(this.path('run'));
  }

  start(argv: readonly string[], stderr: number | 'pipe' = 'pipe'): Run {
    const [program = '', ...args] = argv;
    const run = new Run(
      spawn(program, args, {
        stdio: ['ignore', 'pipe', stderr],
        cwd: this.dir,
        env: { ...process.env, MMIOBRIDGE_RUN: this.path('run') },
      }),
    );
    this.#runs.push(run);
    return run;
  }

  /** A pipe for a QEMU's stderr, as a shell makes it (Node's own are sockets), kept in a file. */
  pipeInto(name: string): number {
    const fifo = this.path(`${name}.fifo`);
    execFileSync('mkfifo', [fifo]);
    this.start(['sh', '-c', 'exec cat "$0" > "$1"', fifo, this.path(name)]);
    const fd = openSync(fifo, 'r+');
    this.#fds.push(fd);
    return fd;
  }

  /** Starts QEMU, and waits until its monitors answer. */
  async guest(argv: readonly string[], options: GuestOptions = {}): Promise<Guest> {
    const { stderr = 'pipe', user, timestamps = true } = options;
    const [socket, watched] = ['qmp.sock', 'watch.sock'].map((name) => this.path('qemu', name));
    const as = user === undefined ? [] : [...words('setpriv --clear-groups --reuid'), user, '--'];
    const theirs = user === undefined ? argv : argv.map((word) => this.#passable(word));
    const run = this.start(
      [
        ...as,
        ...theirs,
        ...(timestamps ? words('-msg timestamp=on') : []),
        ...[socket, watched].flatMap((path) => ['-qmp', `unix:${path},server=on,wait=off`]),
      ],
      stderr,
    );
    await until(
      () => `QEMU listens: ${run.stderr}`,
      () => {
        if (!run.isRunning) throw new Error(`QEMU ended: ${run.stderr}`);
        return isListening(watched ?? '');
      },
    );
    const watcher = await QmpClient.connect(watched ?? '');
    this.#watchers.push(watcher);
    const events: string[] = [];
    watcher.onEvent(({ name }) => events.push(name));
    return Object.assign(run, { socket: socket ?? '', watcher, events });
  }

  /** A guest's image lies in a cache that is closed to others. */
  #passable(word: string): string {
    if (!word.endsWith('.elf')) return word;
    const copy = this.path('guest.elf');
    copyFileSync(word, copy);
    chmodSync(copy, 0o755);
    return copy;
  }

  /** A way to a QMP socket that can be cut. */
  async proxy(to: string): Promise<Proxy> {
    const proxy = new Proxy(this.path('proxy.sock'), to);
    this.#proxies.push(proxy);
    await proxy.open();
    return proxy;
  }

  /** The words that start `mmiobridge`. */
  argv(...args: readonly string[]): string[] {
    return [process.execPath, CLI, ...args];
  }

  cli(...args: readonly string[]): Run {
    return this.start(this.argv(...args));
  }

  /** Runs `mmiobridge` to its end; throws with its words if it failed. */
  async answer(...args: readonly string[]): Promise<string> {
    const run = this.cli(...args);
    if ((await run.code()) !== 0) throw new Error(run.stderr);
    return run.stdout;
  }

  /** Starts a recording, and waits until it says so. */
  async record(...args: readonly string[]): Promise<Run> {
    const run = this.cli('record', ...args);
    await until('the recording begins', () => {
      if (!run.isRunning) throw new Error(`it ended: ${run.stderr}`);
      return run.stderr.includes('recording ');
    });
    return run;
  }

  async close(): Promise<void> {
    await Promise.all(this.#watchers.map((watcher) => watcher.close()));
    // The recorders first: what they put back in QEMU is no concern of a test that failed.
    for (const run of this.#runs.toReversed()) await run.kill();
    for (const proxy of this.#proxies) await proxy.cut();
    for (const fd of this.#fds) closeSync(fd);
    await rm(this.dir, { recursive: true, force: true });
  }
}

export class Proxy {
  readonly path: string;
  readonly #to: string;
  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;

  constructor(path: string, to: string) {
    this.path = path;
    this.#to = to;
  }

  async open(): Promise<void> {
    const server = createServer((near) => {
      const far = createConnection(this.#to);
      for (const [one, other] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(one);
        one.on('error', () => other.destroy());
        one.on('close', () => other.destroy());
        one.pipe(other);
      }
    });
    this.#server = server;
    await new Promise<void>((resolve) => {
      server.listen(this.path, resolve);
    });
  }

  /** Nobody gets through, and who was through is thrown out. */
  async cut(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    this.#server = undefined;
    const closed = new Promise((resolve) => {
      server.close(resolve);
    });
    for (const socket of this.#sockets) socket.destroy();
    this.#sockets.clear();
    await closed;
  }
}

/** A guest that makes about 5000 pairs a second, for ever. */
export async function steadyHammer(...more: readonly string[]): Promise<string[]> {
  return [...(await hammerGuest({ iterations: 0, pauseTurns: 40_000 })), ...more];
}

/** What a recording changes in a QEMU, and has to put back. */
export async function stateOf(guest: Guest): Promise<unknown> {
  return {
    trace: Object.fromEntries(await readTraceState(guest.watcher, ['*'])),
    status: await guest.watcher.execute('query-status'),
  };
}

/** Paths that QEMU has open, links resolved. */
export function openFiles(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
    } catch {
      return [];
    }
  });
}

/** The hammer guest's counter as a log of ours has it. */
export interface Count {
  readonly write: boolean;
  readonly value: number;
  readonly timeSec: number;
}

/** The accesses to the hammered register in mmiotrace text. */
export function countsIn(text: string): Count[] {
  const address = `0x${(HAMMER_GPA + 4).toString(16)}`;
  return text.split('\n').flatMap((line) => {
    const [op, , time, , place, value] = line.split(' ');
    if ((op !== 'R' && op !== 'W') || place !== address) return [];
    return [count(op === 'W', Number(value), Number(time))];
  });
}

/** The same in QEMU's own lines. */
export function countsInLog(text: string): Count[] {
  const lines = text.matchAll(
    /(\d+\.\d+):memory_region_ops_(read|write) .* addr 0xe1000004 value (0x[0-9a-f]+) size 4/g,
  );
  return [...lines].map(([, time, op, value]) =>
    count(op === 'write', Number(value), Number(time)),
  );
}

/** The register reads back the complement of what was written. */
function count(write: boolean, value: number, timeSec: number): Count {
  return { write, value: write ? value : ~value >>> 0, timeSec };
}

/**
 * What is wrong with a piece of the guest's endless `write n, read n, write n+1, …`; empty if
 * nothing is missing, doubled or out of order.
 */
export function faultsIn(counts: readonly Count[]): string[] {
  return counts.flatMap((now, index) => {
    const before = counts[index - 1];
    if (before === undefined) return [];
    const next = before.write ? before.value : before.value + 1;
    if (now.write !== before.write && now.value === next) return [];
    return [`${describe(before)} is followed by ${describe(now)}`];
  });
}

/** The longest time for which the counter stood still. */
export function longestStallSec(counts: readonly Count[]): number {
  return counts.reduce(
    (longest, { timeSec }, i) => Math.max(longest, timeSec - (counts[i - 1]?.timeSec ?? timeSec)),
    0,
  );
}

function describe({ write, value }: Count): string {
  return `${write ? 'write' : 'read'} ${value}`;
}
