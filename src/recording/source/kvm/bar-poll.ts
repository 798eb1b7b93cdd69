/**
 * Where the guest has its BARs, where no log tells: QMP is asked again and again, and the spool is
 * read only as far as it had grown when QMP was last asked. So no access comes before its mapping
 * is known; one through a mapping that came and went between two questions is in no BAR.
 *
 * What QMP answers is written down when it is new, so that a recorder that is killed loses none.
 */
import { appendFileSync, readFileSync } from 'node:fs';
import { systemCodeOf } from '../../../base/errors.ts';
import { readInventory, type PciFunction } from '../../../machine/inventory.ts';
import { isBefore, type SourcePosition } from '../../../model/position.ts';
import type { QmpClient } from '../../../qmp/client.ts';

export const BAR_POLL_MS = 50;

interface Answer {
  /** It holds for what lies in the spool from here on. */
  readonly from: SourcePosition;
  /** What `query-pci` said. */
  readonly said: string;
  readonly functions: readonly PciFunction[];
}

export interface BarPollOptions {
  /** A file for the answers. */
  readonly path: string;
  readonly follow: (functions: readonly PciFunction[]) => void;
}

export interface BarQuestions {
  readonly connected: () => Promise<QmpClient>;
  /** Where the spool ends, all that has happened until now in it. */
  readonly end: () => Promise<SourcePosition>;
  /** Called when something is new. */
  readonly onNews: (qmp: QmpClient) => Promise<void>;
}

export class BarPoll {
  readonly #options: BarPollOptions;
  /** Up to here it is known where the BARs were. */
  #knownUntil: SourcePosition;
  /** Answers not yet applied. */
  readonly #answers: Answer[];
  #said = '';
  #timer: NodeJS.Timeout | undefined;
  #asks = false;

  /** @param from where reading begins */
  constructor(from: SourcePosition, options: BarPollOptions) {
    this.#options = options;
    const before = readAnswers(options.path);
    this.#answers = before.filter((answer) => !isBefore(answer.from, from));
    const last = before.at(-1);
    this.#said = last?.said ?? '';
    this.#knownUntil = this.#answers.at(-1)?.from ?? from;
  }

  /** Asks until `stop`. */
  start(questions: BarQuestions): void {
    this.#asks = true;
    const schedule = () => {
      if (!this.#asks) return;
      this.#timer = setTimeout(() => {
        // One that fails is asked again; when QEMU is gone, `stop` is called.
        void this.#ask(questions)
          .catch(() => undefined)
          .finally(schedule);
      }, BAR_POLL_MS);
    };
    schedule();
  }

  async #ask({ connected, end, onNews }: BarQuestions): Promise<void> {
    const qmp = await connected();
    // Before QMP is asked: what comes behind this place may be through another mapping.
    const until = await end();
    const said = JSON.stringify(await qmp.execute('query-pci'));
    if (said !== this.#said) {
      const answer = { from: this.#knownUntil, said, functions: await readInventory(qmp) };
      await onNews(qmp);
      appendFileSync(this.#options.path, `${JSON.stringify(answer)}\n`, { mode: 0o600 });
      this.#said = said;
      this.#answers.push(answer);
    }
    this.#knownUntil = until;
  }

  /** How far the spool may be read by who has read it up to `position`; undefined: to its end. */
  limit(position: SourcePosition): SourcePosition | undefined {
    for (;;) {
      const [next] = this.#answers;
      if (next === undefined) return this.#asks ? this.#knownUntil : undefined;
      if (isBefore(position, next.from)) return next.from;
      this.#answers.shift();
      this.#options.follow(next.functions);
    }
  }

  /** QEMU answers no more: the rest is read with what is known. */
  stop(): void {
    this.#asks = false;
    clearTimeout(this.#timer);
  }
}

function readAnswers(path: string): Answer[] {
  try {
    // Half a line is of a recorder that was killed.
    const lines = readFileSync(path, 'utf8').split('\n').slice(0, -1);
    return lines.map((line) => JSON.parse(line) as Answer);
  } catch (error) {
    if (systemCodeOf(error) === 'ENOENT') return [];
    throw error;
  }
}
