import type { StreamItem } from '../model/stream.ts';
import { Tables, type TablesSnapshot } from '../model/tables.ts';
import { AnalysisPass } from './analysis.ts';
import { RegionCounts, type RegionTraffic } from './region-counts.ts';
import {
  RegisterCounts,
  type RegisterCountsSnapshot,
  type RegisterTraffic,
} from './register-counts.ts';
import { TotalsAnalysis, type Totals } from './totals.ts';

/** What the summary and `status` of a recording tell. */
export interface RecordingCountsResult {
  readonly totals: Totals;
  readonly regions: RegionTraffic;
  readonly registers: RegisterTraffic;
}

/** Plain JSON. */
export interface RecordingCountsSnapshot {
  readonly tables: TablesSnapshot;
  readonly totals: Totals;
  readonly regions: RegionTraffic;
  readonly registers: RegisterCountsSnapshot;
}

/** All that is counted of a recording while it is made. */
export class RecordingCounts {
  readonly tables: Tables;
  readonly #totals: TotalsAnalysis;
  readonly #regions: RegionCounts;
  readonly #registers: RegisterCounts;
  readonly #pass: AnalysisPass;

  /** @param from counts to go on from */
  constructor(from?: RecordingCountsSnapshot) {
    this.tables = new Tables(from?.tables);
    this.#totals = new TotalsAnalysis(from?.totals);
    this.#regions = new RegionCounts(from?.regions);
    this.#registers = from ? RegisterCounts.restore(from.registers) : new RegisterCounts();
    this.#pass = new AnalysisPass([this.#totals, this.#regions, this.#registers], {
      tables: this.tables,
    });
  }

  write(item: StreamItem): void {
    this.#pass.write(item);
  }

  get totals(): Totals {
    return this.#totals.result();
  }

  get regions(): RegionTraffic {
    return this.#regions.result();
  }

  result(): RecordingCountsResult {
    const { totals, regions } = this;
    return { totals, regions, registers: this.#registers.result() };
  }

  snapshot(): RecordingCountsSnapshot {
    const { totals, regions } = this;
    return {
      tables: this.tables.snapshot(),
      totals,
      regions,
      registers: this.#registers.snapshot(),
    };
  }
}
