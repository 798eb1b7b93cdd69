/**
 * Marks that a guest makes: lines, each the guest's clock in seconds since 1970 and a text, from a port
 * that QEMU logs into a file, or from a file in the guest that its agent reads. See
 * `qemu-scripts/guest/mark.sh`.
 */
import { describeError } from '../../base/errors.ts';
import type { Notice } from '../../base/notice.ts';
import type { GuestAgent } from '../../qmp/agent/guest-agent.ts';
import type { SerialPort } from './serial-port.ts';

const PORT_POLL_MS = 10;
/** A look through the agent takes four commands. */
const AGENT_POLL_MS = 200;
const AGENT_LIMIT_MS = 2000;
/** A mark that takes longer is no mark. */
const MAX_CHARS = 1000;

export interface GuestMark {
  readonly text: string;
  /** The guest's clock; undefined where its line has none. */
  readonly guestSeconds: number | undefined;
}

/** `1732773600.250000 the driver is loaded`; a line without a time is all text. */
export function parseMarkLine(line: string): GuestMark | undefined {
  const clean = line
    .replaceAll(/[\p{Cc}]/gu, ' ')
    .trim()
    .slice(0, MAX_CHARS);
  if (clean === '') return undefined;
  const match = /^(\d{1,12}(?:\.\d{1,9})?) (.+)$/.exec(clean);
  if (match === null) return { text: clean, guestSeconds: undefined };
  return { text: (match[2] ?? '').trim(), guestSeconds: Number(match[1]) };
}

/** As it stands in the recording: `guest: the driver is loaded (guest clock 1732773600.250000)`. */
export function markText({ text, guestSeconds }: GuestMark): string {
  const clock = guestSeconds === undefined ? '' : ` (guest clock ${guestSeconds.toFixed(6)})`;
  return `guest: ${text}${clock}`;
}

/** Calls `mark` with each line, until it is stopped. */
export class GuestMarks {
  readonly #mark: (text: string) => Promise<unknown>;
  readonly #notice: Notice;
  readonly #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #told = false;

  constructor(mark: (text: string) => Promise<unknown>, notice: Notice) {
    this.#mark = mark;
    this.#notice = notice;
  }

  fromPort(port: SerialPort): void {
    this.#every(PORT_POLL_MS, () => Promise.resolve(port.takeLines()));
  }

  fromFile(agent: GuestAgent, path: string): void {
    let offset = 0;
    let rest = Buffer.alloc(0);
    this.#every(AGENT_POLL_MS, async () => {
      let data: Buffer;
      try {
        data = await agent.readFrom(path, offset, { timeoutMs: AGENT_LIMIT_MS });
      } catch {
        // No agent yet, or no file: nothing was marked.
        return [];
      }
      offset += data.length;
      const all = Buffer.concat([rest, data]);
      const end = all.lastIndexOf(0x0a) + 1;
      rest = all.subarray(end);
      return all.subarray(0, end).toString('utf8').split('\n').slice(0, -1);
    });
  }

  #every(pauseMs: number, read: () => Promise<readonly string[]>): void {
    const { signal } = this.#stop;
    const before = this.#running;
    const look = async () => {
      for (const line of await read()) {
        const mark = parseMarkLine(line);
        if (mark !== undefined) await this.#mark(markText(mark));
      }
    };
    const loop = async () => {
      while (!signal.aborted) {
        await look();
        await new Promise((resolve) => setTimeout(resolve, pauseMs));
      }
      // What came before the end.
      await look();
    };
    const running = loop().catch((error: unknown) => {
      if (!this.#told && !signal.aborted) this.#notice(`guest marks: ${describeError(error)}`);
      this.#told = true;
    });
    this.#running = Promise.all([before, running]).then(() => undefined);
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }
}
