/**
 * A serial port of the guest, by the file into which QEMU logs what the guest writes to it: complete
 * from its first byte on, whoever looks when.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { MmioError, messageOf } from '../../base/errors.ts';

/** What is matched against is so much of the end; a text that spans more is nobody's. */
const KEPT_CHARS = 2 ** 20;
const PIECE_BYTES = 2 ** 18;
const SHOWN_LINES = 8;

export class SerialPort {
  readonly name: string;
  readonly #path: string;
  readonly #socket: string | undefined;
  #fd: number | undefined;
  #offset = 0;
  #text = '';
  /** How much of `#text` earlier steps have seen. */
  #seen = 0;
  readonly #decoder = new TextDecoder('utf-8');
  #peer: Socket | undefined;

  /** @param socket where it can be written to, if it can */
  constructor(name: string, path: string, socket: string | undefined) {
    this.name = name;
    this.#path = path;
    this.#socket = socket;
  }

  /** Reads what has come. Throws MmioError `io`. */
  #read(): void {
    try {
      this.#fd ??= openSync(this.#path, 'r');
      const { size } = fstatSync(this.#fd);
      // Somebody has emptied it.
      if (size < this.#offset) this.#offset = 0;
      for (const piece = Buffer.alloc(PIECE_BYTES); this.#offset < size;) {
        const length = readSync(this.#fd, piece, 0, PIECE_BYTES, this.#offset);
        if (length === 0) return;
        this.#offset += length;
        this.#text += this.#decoder.decode(piece.subarray(0, length), { stream: true });
      }
    } catch (error) {
      throw new MmioError('io', `cannot read the serial port ${this.name}`, {
        evidence: messageOf(error),
        hint: 'QEMU writes it: may we read it, and is it still there?',
        cause: error,
      });
    }
    const over = this.#text.length - KEPT_CHARS;
    if (over <= 0) return;
    this.#text = this.#text.slice(over);
    this.#seen = Math.max(0, this.#seen - over);
  }

  /** What came before is not looked at any more. */
  skip(): void {
    this.#read();
    this.#seen = this.#text.length;
  }

  /** The first match in what no step before has matched; the text up to its end is then seen. */
  match(pattern: RegExp): string | undefined {
    this.#read();
    const found = pattern.exec(this.#text.slice(this.#seen));
    if (found === null) return undefined;
    this.#seen += found.index + found[0].length;
    return found[0];
  }

  /** Whole lines that have come since it was asked last. */
  takeLines(): string[] {
    this.#read();
    const rest = this.#text.slice(this.#seen);
    const end = rest.lastIndexOf('\n');
    if (end === -1) return [];
    this.#seen += end + 1;
    return rest
      .slice(0, end)
      .split('\n')
      .map((line) => line.replace(/\r$/, ''));
  }

  /** The last lines, for people. */
  tail(): string {
    try {
      this.#read();
    } catch {
      return '';
    }
    const lines = this.#text.trimEnd().split(/\r?\n/).slice(-SHOWN_LINES);
    if (lines.join('') === '') return `the serial port ${this.name} has said nothing`;
    return [`the serial port ${this.name} said last:`, ...lines.map((line) => `  ${line}`)].join(
      '\n',
    );
  }

  /** Types into it. Throws MmioError `refused` where nobody can. */
  async send(text: string): Promise<void> {
    const path = this.#socket;
    if (path === undefined) {
      throw new MmioError('refused', `the serial port ${this.name} can only be read`, {
        hint: 'ports that `start` adds can be written to; of a VM that runs, name their socket',
      });
    }
    this.#peer ??= await open(path);
    const peer = this.#peer;
    await new Promise<void>((resolve, reject) => {
      peer.write(text, (error) => {
        if (error) reject(lost(path, error));
        else resolve();
      });
    });
  }

  close(): void {
    this.#peer?.destroy();
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}

async function open(path: string): Promise<Socket> {
  const socket = connect(path);
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve);
    socket.once('error', (error) => reject(lost(path, error)));
  });
  // What the guest says stands in the log.
  socket.resume();
  socket.on('error', () => undefined);
  return socket;
}

function lost(path: string, error: Error): MmioError {
  return new MmioError('closed', 'cannot write to the serial port', {
    evidence: `${path}: ${error.message}`,
    cause: error,
  });
}
