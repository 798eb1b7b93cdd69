/**
 * Where the guest has its BARs, where no log tells: QMP is asked again and again, and the spool is
 * read only as far as it had grown when QMP was last asked. So no access comes before its mapping
 * is known; one through a mapping that came and went between two questions is in no BAR.
 */
import { readInventory, type PciFunction } from '../machine/inventory.ts';
import type { SourcePosition } from '../model/access-batch.ts';
import type { QmpClient } from '../qmp/client.ts';
import { readVcpus } from './look.ts';

export const BAR_POLL_MS = 50;

interface Answer {
  readonly until: SourcePosition;
  readonly functions: readonly PciFunction[];
}

export interface BarPollOptions {
  readonly connected: () => Promise<QmpClient>;
  /** Where the spool ends, all that has happened until now in it. */
  readonly end: () => Promise<SourcePosition>;
  readonly follow: (functions: readonly PciFunction[]) => void;
  readonly onVcpus: (vcpus: ReadonlyMap<number, number>) => void;
}

export class BarPoll {
  readonly #options: BarPollOptions;
  /** Up to here the spool may be read; undefined: to its end. */
  #limit: SourcePosition | undefined;
  readonly #answers: Answer[] = [];
  #last = '';
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  /** @param from where reading begins */
  constructor(from: SourcePosition, options: BarPollOptions) {
    this.#limit = from;
    this.#options = options;
    this.#schedule();
  }

  #schedule(): void {
    if (this.#stopped) return;
    this.#timer = setTimeout(() => {
      void this.#ask().finally(() => this.#schedule());
    }, BAR_POLL_MS);
  }

  async #ask(): Promise<void> {
    const { connected, end, onVcpus } = this.#options;
    try {
      const qmp = await connected();
      // Before QMP is asked: what comes behind this place may be through another mapping.
      const until = await end();
      const now = JSON.stringify(await qmp.execute('query-pci'));
      if (now === this.#last) {
        this.#reach(until);
        return;
      }
      const functions = await readInventory(qmp);
      onVcpus(await readVcpus(qmp));
      this.#last = now;
      this.#answers.push({ until, functions });
    } catch {
      // It is asked again; when QEMU is gone, `stop` is called.
    }
  }

  #reach(until: SourcePosition): void {
    const last = this.#answers.pop();
    if (last === undefined) this.#limit = until;
    else this.#answers.push({ ...last, until });
  }

  /** How far the spool may be read by who has read it up to `position`. */
  limit(position: SourcePosition): SourcePosition | undefined {
    while (
      this.#answers.length > 0 &&
      (this.#limit === undefined || !isBefore(position, this.#limit))
    ) {
      const answer = this.#answers.shift();
      if (answer === undefined) break;
      this.#options.follow(answer.functions);
      this.#limit = answer.until;
    }
    return this.#stopped && this.#answers.length === 0 ? undefined : this.#limit;
  }

  /** QEMU answers no more: the rest is read with what is known. */
  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }
}

function isBefore(a: SourcePosition, b: SourcePosition): boolean {
  return a.segment < b.segment || (a.segment === b.segment && a.offset < b.offset);
}
