/** What a check comes to, and how it is said. */

/** `warning`: a recording is possible, but something would be missing from it, or may go wrong. */
export type Status = 'ok' | 'warning' | 'failure';

export interface CheckResult {
  /** Which check it is; docs/doctor.md has a line for each. Several results may share one. */
  readonly id: string;
  /** What was looked at, for people. */
  readonly title: string;
  readonly status: Status;
  /** What was seen, and where. */
  readonly evidence: string;
  /** What to do, a command a line where there is one; empty if nothing is to be done. */
  readonly remedy: string;
}

export interface CheckGroup {
  readonly title: string;
  readonly results: readonly CheckResult[];
}

/** Makes the results of one check. */
export class Check {
  readonly #id: string;
  readonly #title: string;

  constructor(id: string, title: string) {
    this.#id = id;
    this.#title = title;
  }

  ok(evidence: string): CheckResult {
    return this.result('ok', evidence, '');
  }

  warning(evidence: string, ...remedy: readonly string[]): CheckResult {
    return this.result('warning', evidence, ...remedy);
  }

  failure(evidence: string, ...remedy: readonly string[]): CheckResult {
    return this.result('failure', evidence, ...remedy);
  }

  /** @param remedy its lines */
  result(status: Status, evidence: string, ...remedy: readonly string[]): CheckResult {
    return { id: this.#id, title: this.#title, status, evidence, remedy: remedy.join('\n') };
  }
}
