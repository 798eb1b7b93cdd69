import { Op, type AccessBatch } from '../model/access-batch.ts';
import type { Analysis } from './analysis.ts';
import type { ReadsAndWrites } from './region-counts.ts';
import { MAX_REGISTERS, OTHERS, RegisterTable } from './register-table.ts';

/** The accesses to one register, and the last of them. */
export interface RegisterCount extends ReadsAndWrites {
  /** `Region.id` */
  readonly region: number;
  /** Bytes from the start of the region. */
  readonly offset: number;
  /** Bytes of the last access. */
  readonly width: number;
  /** The last value that was read or written, as two halves of 32 bits. */
  readonly valueLo: number;
  readonly valueHi: number;
}

export interface RegisterTraffic {
  /** Those with accesses, in order of their first. */
  readonly registers: readonly RegisterCount[];
  /** Accesses to registers that came when `MAX_REGISTERS` were known; undefined: there are none. */
  readonly others: ReadsAndWrites | undefined;
}

/** What was counted, as plain JSON: a column for each fact, so that it stays small. */
export interface RegisterCountsSnapshot {
  readonly region: readonly number[];
  readonly offset: readonly number[];
  /** These have an entry more than there are registers where there are others. */
  readonly reads: readonly number[];
  readonly writes: readonly number[];
  readonly width: readonly number[];
  readonly valueLo: readonly number[];
  readonly valueHi: readonly number[];
}

export class RegisterCounts implements Analysis<RegisterTraffic> {
  readonly #table: RegisterTable;
  // By number, the last for all others.
  readonly #reads: number[];
  readonly #writes: number[];
  readonly #valueLo: number[];
  readonly #valueHi: number[];
  readonly #width: number[];

  /**
   * @param table may be shared: then all who do number registers alike
   * @param from counts to go on from, of the same table
   */
  constructor(table = new RegisterTable(), from?: RegisterCountsSnapshot) {
    this.#table = table;
    this.#reads = [...(from?.reads ?? [])];
    this.#writes = [...(from?.writes ?? [])];
    this.#valueLo = [...(from?.valueLo ?? [])];
    this.#valueHi = [...(from?.valueHi ?? [])];
    this.#width = [...(from?.width ?? [])];
  }

  static restore(from: RegisterCountsSnapshot): RegisterCounts {
    return new RegisterCounts(new RegisterTable(from), from);
  }

  snapshot(): RegisterCountsSnapshot {
    return {
      region: [...this.#table.region],
      offset: [...this.#table.offset],
      reads: [...this.#reads],
      writes: [...this.#writes],
      width: [...this.#width],
      valueLo: [...this.#valueLo],
      valueHi: [...this.#valueHi],
    };
  }

  batch(batch: AccessBatch): void {
    this.add(batch, this.#table.column(batch));
  }

  /** @param registers the table's number for the register of each row */
  add(batch: AccessBatch, registers: Uint32Array): void {
    const { length, op, valueLo, valueHi, width } = batch;
    for (let row = 0; row < length; row++) {
      const register = registers[row]!;
      if (register >= this.#reads.length) this.#meet(register);
      if (op[row] === Op.write) this.#writes[register]!++;
      else this.#reads[register]!++;
      this.#valueLo[register] = valueLo[row]!;
      this.#valueHi[register] = valueHi[row]!;
      this.#width[register] = width[row]!;
    }
  }

  event(): void {}

  /** Arrays without holes, so that they stay fast. */
  #meet(register: number): void {
    for (let next = this.#reads.length; next <= register; next++) {
      this.#reads.push(0);
      this.#writes.push(0);
      this.#valueLo.push(0);
      this.#valueHi.push(0);
      this.#width.push(0);
    }
  }

  result(): RegisterTraffic {
    const registers: RegisterCount[] = [];
    const own = Math.min(this.#reads.length, MAX_REGISTERS);
    for (let number = 0; number < own; number++) {
      const reads = this.#reads[number]!;
      const writes = this.#writes[number]!;
      if (reads + writes === 0) continue;
      registers.push({
        region: this.#table.region[number]!,
        offset: this.#table.offset[number]!,
        reads,
        writes,
        width: this.#width[number]!,
        valueLo: this.#valueLo[number]!,
        valueHi: this.#valueHi[number]!,
      });
    }
    const reads = this.#reads[OTHERS];
    const writes = this.#writes[OTHERS] ?? 0;
    return { registers, others: reads === undefined ? undefined : { reads, writes } };
  }
}

/** The registers with the most accesses, busiest first. */
export function busiest(registers: readonly RegisterCount[], count: number): RegisterCount[] {
  return registers.toSorted((a, b) => b.reads + b.writes - (a.reads + a.writes)).slice(0, count);
}
