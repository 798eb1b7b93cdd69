/** Two hosts on one machine, and what is between them. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MAIN, type Bench, type Running } from './death.ts';

export const TOKEN = 'a token of sufficient length';

/** A collector in a folder of its own, with a run folder of its own: another host, as it were. */
export class CollectorHost {
  readonly #bench: Bench;
  readonly #namespace: string | undefined;
  readonly dir: string;
  readonly runDir: string;

  constructor(bench: Bench, namespace?: string) {
    this.#bench = bench;
    this.#namespace = namespace;
    this.dir = bench.path('collector');
    this.runDir = bench.path('collector-run');
    mkdirSync(this.dir);
    writeFileSync(bench.path('token'), `${TOKEN}\n`, { mode: 0o600 });
  }

  /** `listen`, until it listens. */
  async listen(...args: readonly string[]): Promise<Running> {
    const output = args.includes('-o') ? [] : ['-o', join(this.dir, '{device}.mmiotrace')];
    const state = ['--state', join(this.dir, 'state')];
    const running = this.start('listen', '--token-file', 'token', ...state, ...output, ...args);
    await running.says(/^listening on/m);
    return running;
  }

  /** A command on this host. */
  start(...args: readonly string[]): Running {
    const enter = this.#namespace === undefined ? [] : ['ip', 'netns', 'exec', this.#namespace];
    const run = `MMIOBRIDGE_RUN=${this.runDir}`;
    return this.#bench.start([run, ...enter, process.execPath, MAIN, ...args], 'env');
  }

  outputs(): string[] {
    return readdirSync(this.dir).filter((name) => /\.(mmio|nd|txt)/.test(name));
  }

  read(name: string): string {
    return readFileSync(join(this.dir, name), 'latin1');
  }
}

/** Two network namespaces with a cable between them. Needs root, and says so. */
export class TwoHosts {
  readonly lab = `mmiob-lab-${process.pid}`;
  readonly desk = `mmiob-desk-${process.pid}`;
  static readonly labAddress = '10.77.0.1';
  static readonly deskAddress = '10.77.0.2';

  constructor() {
    if (process.getuid?.() !== 0) {
      throw new Error('two hosts are two network namespaces: run the tests as root');
    }
    ip('netns', 'add', this.lab);
    ip('netns', 'add', this.desk);
    ip('-n', this.lab, 'link', 'add', 'wire', 'type', 'veth', 'peer', 'wire', 'netns', this.desk);
    for (const [host, address] of [
      [this.lab, TwoHosts.labAddress],
      [this.desk, TwoHosts.deskAddress],
    ] as const) {
      ip('-n', host, 'address', 'add', `${address}/24`, 'dev', 'wire');
      ip('-n', host, 'link', 'set', 'lo', 'up');
      ip('-n', host, 'link', 'set', 'wire', 'up');
    }
  }

  /** The words that run a program on the host with the device. */
  inLab(program: readonly string[]): readonly string[] {
    return ['ip', 'netns', 'exec', this.lab, ...program];
  }

  cut(): void {
    ip('-n', this.desk, 'link', 'set', 'wire', 'down');
  }

  restore(): void {
    ip('-n', this.desk, 'link', 'set', 'wire', 'up');
  }

  close(): void {
    for (const host of [this.lab, this.desk]) ip('netns', 'delete', host);
  }
}

function ip(...args: readonly string[]): void {
  execFileSync('ip', args, { stdio: 'pipe' });
}

/** A certificate for these names, made as docs/bridge.md says. */
export function makeCertificate(bench: Bench, ...names: readonly string[]): void {
  const args =
    'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout key.pem -out cert.pem -subj /CN=collector -addext';
  const san = `subjectAltName=${names.join(',')}`;
  execFileSync('openssl', [...args.split(' '), san], { cwd: bench.dir, stdio: 'pipe' });
}

export interface BadWire {
  readonly port: number;
  /** How often it has cut connections. */
  cuts(): number;
  close(): void;
}

const DELAY_MS = 100;
const LOSS = 0.05;

/**
 * A wire of 200 ms there and back, of whose segments every twentieth is lost and comes later; after
 * each `cutAfterBytes` it breaks, wherever in a frame that is. For kernels without netem.
 */
export async function badWire(
  toPort: number,
  cutAfterBytes: number,
  delayMs = DELAY_MS,
): Promise<BadWire> {
  let cuts = 0;
  let passed = 0;
  let seed = 1;
  const random = () => {
    seed = (seed * 1103515245 + 12345) % 2 ** 31;
    return seed / 2 ** 31;
  };
  // TCP notices a lost segment after a while, and what is behind it waits.
  const pairs = new Set<Socket>();
  const server: Server = createServer((near) => {
    const far = connect(toPort, '127.0.0.1');
    const pass = (from: Socket, to: Socket) => {
      let behind = Promise.resolve();
      from.on('data', (bytes) => {
        const due = performance.now() + delayMs + (random() < LOSS ? 3 * delayMs : 0);
        behind = behind.then(async () => {
          await sleep(Math.max(0, due - performance.now()));
          const rest = cutAfterBytes - passed;
          passed += bytes.length;
          if (passed < cutAfterBytes) return void to.write(bytes);
          passed = 0;
          cuts++;
          to.write(bytes.subarray(0, rest), () => {
            near.destroy();
            far.destroy();
          });
        });
      });
      from.on('error', () => undefined);
      from.on('close', () => to.destroy());
      pairs.add(from);
    };
    pass(near, far);
    pass(far, near);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    cuts: () => cuts,
    close() {
      server.close();
      for (const socket of pairs) socket.destroy();
    },
  };
}
