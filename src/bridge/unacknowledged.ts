/**
 * What of a recording the collector has not on its disk yet: whole frames, by their offset in the
 * capture.
 */
export class Unacknowledged {
  #start: number;
  #end: number;
  #chunks: { readonly captureOffset: number; readonly bytes: Uint8Array }[] = [];

  constructor(captureOffset: number) {
    this.#start = captureOffset;
    this.#end = captureOffset;
  }

  /** All before this offset is with the collector. */
  get start(): number {
    return this.#start;
  }

  get end(): number {
    return this.#end;
  }

  get bytes(): number {
    return this.#end - this.#start;
  }

  push(bytes: Uint8Array): void {
    this.#chunks.push({ captureOffset: this.#end, bytes });
    this.#end += bytes.length;
  }

  /** The frames that begin at this captureOffset; undefined at the end. */
  at(captureOffset: number): Uint8Array | undefined {
    return this.#chunks[this.#indexOf(captureOffset)]?.bytes;
  }

  /** False where no frame begins: then nothing has changed. */
  acknowledge(captureOffset: number): boolean {
    if (captureOffset === this.#start) return true;
    const index = this.#indexOf(captureOffset);
    if (index < 0 && captureOffset !== this.#end) return false;
    this.#chunks = index < 0 ? [] : this.#chunks.slice(index);
    this.#start = captureOffset;
    return true;
  }

  /** -1 where none begins there. */
  #indexOf(captureOffset: number): number {
    let low = 0;
    let high = this.#chunks.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#chunks[middle]?.captureOffset ?? 0) < captureOffset) low = middle + 1;
      else high = middle;
    }
    return this.#chunks[low]?.captureOffset === captureOffset ? low : -1;
  }
}
