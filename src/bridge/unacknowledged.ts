/**
 * What of a recording the collector has not on its disk yet: whole frames, by their place in the
 * capture.
 */
export class Unacknowledged {
  #start: number;
  #end: number;
  #chunks: { readonly place: number; readonly bytes: Uint8Array }[] = [];

  constructor(place: number) {
    this.#start = place;
    this.#end = place;
  }

  /** All before this place is with the collector. */
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
    this.#chunks.push({ place: this.#end, bytes });
    this.#end += bytes.length;
  }

  /** The frames that begin at this place; undefined at the end. */
  at(place: number): Uint8Array | undefined {
    return this.#chunks[this.#indexOf(place)]?.bytes;
  }

  /** False where no frame begins: then nothing has changed. */
  acknowledge(place: number): boolean {
    if (place === this.#start) return true;
    const index = this.#indexOf(place);
    if (index < 0 && place !== this.#end) return false;
    this.#chunks = index < 0 ? [] : this.#chunks.slice(index);
    this.#start = place;
    return true;
  }

  /** -1 where none begins there. */
  #indexOf(place: number): number {
    let low = 0;
    let high = this.#chunks.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#chunks[middle]?.place ?? 0) < place) low = middle + 1;
      else high = middle;
    }
    return this.#chunks[low]?.place === place ? low : -1;
  }
}
