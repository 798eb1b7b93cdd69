/** `lab`: what a person sees of a run. */
import { existsSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, resolve as resolvePath } from 'node:path';
import { MmioError } from '../../base/errors.ts';
import { count, counted } from '../../base/format.ts';
import { checkScenario } from '../../lab/scenario/check.ts';
import { formatDuration } from '../../lab/language/duration.ts';
import { faultsError } from '../../lab/language/fault.ts';
import { labJsonSchema } from '../../lab/scenario/json-schema.ts';
import { readScenario } from '../../lab/scenario/read.ts';
import type { Scenario, ScenarioStep } from '../../lab/steps/kind.ts';
import { template } from '../../lab/scenario/template.ts';
import { cleanRuns } from '../../lab/run/clean.ts';
import type { LabRun } from '../../lab/machine/lab-run.ts';
import type { Manifest, StepReport } from '../../lab/run/manifest.ts';
import { runScenario, type Reporter } from '../../lab/run/runner.ts';
import { Interrupts } from '../interrupts.ts';
import { clearStatus, duration, EXIT, answer, hasStatusLine, say, showStatus } from '../print.ts';
import { formatMissing } from '../summary.ts';

export interface LabOptions {
  readonly set?: readonly string[] | undefined;
  readonly output?: string | undefined;
  readonly allowHostCommands?: true | undefined;
}

const REDRAW_MS = 250;
/** Longer names push the columns behind them to the right. */
const MAX_NAME_WIDTH = 36;

const WORDS: Readonly<Record<StepReport['result'], string>> = {
  passed: 'ok',
  failed: 'FAILED',
  ignored: 'ignored',
  skipped: 'skipped',
};

function read(file: string, { set, allowHostCommands }: LabOptions): Scenario {
  const here = dirname(resolvePath(file));
  const scenario = readScenario(file, set ?? [], { here });
  const faults = checkScenario(scenario, { allowHostCommands: allowHostCommands === true });
  if (faults.length > 0) throw faultsError(faults);
  return scenario;
}

/** Returns the exit status. Throws MmioError where the run could not begin. */
export async function runLab(file: string, options: LabOptions): Promise<number> {
  const scenario = read(file, options);
  using interrupts = new Interrupts();
  const stop = new AbortController();
  let interrupted = false;
  interrupts.listen((signal) => {
    if (interrupted && signal !== 'SIGHUP') {
      clearStatus();
      say('killed: `mmiobridge lab clean` puts back what the run has left');
      process.exit(EXIT.interrupted);
    }
    if (interrupted) return;
    interrupted = true;
    say('ending the run, and putting everything back (Ctrl-C again kills)');
    stop.abort(new MmioError('closed', `interrupted by ${signal}`));
  });
  // With the terminal gone the run ends in order all the same.
  process.stderr.on('error', () => undefined);
  using screen = new RunScreen(scenario);
  const { manifest, folder } = await runScenario(scenario, {
    output: resolvePath(options.output ?? 'lab-runs'),
    allowHostCommands: options.allowHostCommands === true,
    notice: (text) => say(text),
    reporter: screen,
    signal: stop.signal,
  });
  screen[Symbol.dispose]();
  if (manifest.left.length > 0) leaveSoon();
  sayOutcome(manifest);
  say(`written   ${folder.dir}`);
  if (manifest.result === 'interrupted') return EXIT.interrupted;
  if (manifest.result !== 'passed' || manifest.left.length > 0) return EXIT.failure;
  return manifest.recording?.complete === false ? EXIT.incomplete : EXIT.complete;
}

/** The steps as they are taken: on a terminal with a line of what goes on now. */
class RunScreen implements Reporter, Disposable {
  readonly #scenario: Scenario;
  readonly #live = hasStatusLine();
  readonly #beganMs = performance.now();
  #run: LabRun | undefined;
  #step:
    { readonly step: ScenarioStep; readonly number: number; readonly atMs: number } | undefined;
  #timer: NodeJS.Timeout | undefined;
  #last = { rows: 0, atMs: performance.now(), rate: 0 };

  constructor(scenario: Scenario) {
    this.#scenario = scenario;
  }

  begun(run: LabRun): void {
    this.#run = run;
    say(
      `${this.#scenario.name}: ${counted(this.#scenario.steps.length, 'step')}, into ${run.folder.dir}`,
    );
    if (this.#live) this.#timer = setInterval(() => this.#draw(), REDRAW_MS);
  }

  step(step: ScenarioStep, number: number): void {
    this.#step = { step, number, atMs: performance.now() };
    if (this.#live) this.#draw();
    else say(`${this.#clock()}  ${this.#place(number)}  ${step.name} …`);
  }

  stepEnded(report: StepReport): void {
    this.#step = undefined;
    const { number, name, result, seconds, detail, failure } = report;
    const took = result === 'skipped' ? '' : duration(seconds).padStart(8);
    const how = `${WORDS[result].padEnd(7)}${took}${detail === null ? '' : `  ${detail}`}`;
    say(`${this.#clock()}  ${this.#place(number)}  ${this.#padded(name)}  ${how.trimEnd()}`);
    if (failure === null) return;
    const { message, evidence, hint } = failure;
    say(`    ${message}`);
    if (evidence !== null && evidence !== '') say(`      ${evidence.replaceAll('\n', '\n      ')}`);
    if (hint !== null) say(`      hint: ${hint.replaceAll('\n', '\n      ')}`);
  }

  #padded(name: string): string {
    const widths = this.#scenario.steps.map((step) => step.name.length);
    return name.padEnd(Math.min(MAX_NAME_WIDTH, Math.max(...widths)));
  }

  /** `2/9`, as wide as the last. */
  #place(number: number): string {
    const of = String(this.#scenario.steps.length);
    return `${String(number).padStart(of.length)}/${of}`;
  }

  /** Since the run began: `0:01:12.3` */
  #clock(): string {
    const seconds = (performance.now() - this.#beganMs) / 1000;
    const whole = Math.floor(seconds);
    const minutes = String(Math.floor(whole / 60)).padStart(2, '0');
    return `${minutes}:${(seconds - 60 * Math.floor(whole / 60)).toFixed(1).padStart(4, '0')}`;
  }

  #draw(): void {
    const { machine, watch } = this.#run ?? {};
    const now = performance.now();
    const rows = watch?.rows ?? 0;
    if (now - this.#last.atMs >= 1000) {
      const rate = ((rows - this.#last.rows) * 1000) / (now - this.#last.atMs);
      this.#last = { rows, atMs: now, rate };
    }
    const step = this.#step;
    const doing =
      step === undefined
        ? 'putting everything back'
        : `${this.#place(step.number)}  ${step.step.name}  ${duration((now - step.atMs) / 1000)} of ${formatDuration(step.step.limitMs)}`;
    const recording =
      machine === undefined
        ? 'no VM yet'
        : machine.end === undefined
          ? `${count(rows)} accesses  ${count(this.#last.rate)}/s`
          : `${count(rows)} accesses, ended`;
    showStatus(`${this.#clock()}  ${doing}  |  ${recording}`);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    if (this.#live) clearStatus();
  }
}

function sayOutcome(manifest: Manifest): void {
  const { result, reason, recording, left, steps, seconds } = manifest;
  const passed = steps.filter(({ result: each }) => each === 'passed').length;
  say(`${result}${reason === null ? '' : `: ${reason}`}`);
  say(`steps     ${count(passed)} of ${count(steps.length)} passed, in ${duration(seconds)}`);
  if (recording !== null) {
    const { accesses, marks, counters, coverage, complete } = recording;
    say(`recorded  ${counted(accesses, 'access', 'accesses')}, ${counted(marks, 'mark')}`);
    if (!complete)
      say(`mmiobridge: the recording is INCOMPLETE: ${formatMissing({ counters, coverage })}`);
  }
  for (const text of left) say(`LEFT      ${text}`);
  if (left.length > 0) say('          `mmiobridge lab clean` tries it again');
}

/** Says what is wrong, by throwing; or what it would do. */
export function checkLab(file: string, options: LabOptions): void {
  const scenario = read(file, options);
  const { name, steps, bind, limitMs } = scenario;
  const width = Math.max(...steps.map((step) => step.name.length));
  answer(
    [
      `${name}: ${counted(steps.length, 'step')}${limitMs === undefined ? '' : `, at most ${formatDuration(limitMs)}`}`,
      ...bind.map((address) => `  bind ${address}, and give it back`),
      ...steps.map(
        ({ name: step, kind, limitMs: limit }, at) =>
          `${String(at + 1).padStart(3)}  ${step.padEnd(width)}  ${kind.name}, at most ${formatDuration(limit)}`,
      ),
    ].join('\n'),
  );
}

/** Writes a scenario to begin with. Throws MmioError `refused` where there is one. */
export function newLab(name: string): void {
  const path = `${name.replace(/\.ya?ml$/, '')}.yaml`;
  if (existsSync(path)) {
    throw new MmioError('refused', `${path} is there already`, {
      hint: 'give the new one another name',
    });
  }
  const schema = join(dirname(path), 'lab.schema.json');
  const text = template(basename(path, '.yaml')).replace('SCHEMA', './lab.schema.json');
  writeFileSync(path, text, { flag: 'wx' });
  writeFileSync(schema, `${JSON.stringify(labJsonSchema(), null, 2)}\n`);
  answer(`${path} and lab.schema.json, which editors read`);
}

/** Returns the exit status. */
export async function cleanLab(): Promise<number> {
  const cleaned = await cleanRuns((text) => say(text));
  const isLeft = cleaned.some(({ left }) => left.length > 0);
  if (isLeft) leaveSoon();
  if (cleaned.length === 0) answer('nothing to clean');
  for (const { folder, done, left } of cleaned) {
    answer(
      [folder, ...done.map((text) => `  ${text}`), ...left.map((text) => `  LEFT ${text}`)].join(
        '\n',
      ),
    );
  }
  return isLeft ? EXIT.failure : EXIT.complete;
}

/** A recording that has no room would keep us here for good. The exit status is that which is returned. */
function leaveSoon(): void {
  setImmediate(() => process.exit());
}
