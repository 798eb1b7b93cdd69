/** Takes the steps of a scenario one after the other, and puts everything back whatever happens. */
import { readdir, rm } from 'node:fs/promises';
import { basename } from 'node:path';
import { MmioError, describeError, messageOf, systemCodeOf } from '../../base/errors.ts';
import { log } from '../../base/log.ts';
import type { Notice } from '../../base/notice.ts';
import { formatDuration } from '../language/duration.ts';
import { isBeginning, type Scenario, type ScenarioStep } from '../steps/kind.ts';
import { bindOne, checkBindable, unbindOne, type BoundDevice } from './binding.ts';
import { RunFolder } from '../machine/folder.ts';
import { junitXml } from './junit.ts';
import { LabRun } from '../machine/lab-run.ts';
import type { MachineEnd } from '../machine/machine.ts';
import type { Manifest, RunResult, StepFailure, StepReport } from './manifest.ts';
import { makeManifest } from './make-manifest.ts';
import { photograph } from '../machine/picture.ts';
import { StateFile } from './state.ts';
import { StepContext } from '../machine/step-context.ts';

/** A step that does not end when its time is over is left to itself after this. */
const GRACE_MS = 5000;
const PHOTO_LIMIT_MS = 3000;

export interface Reporter {
  /** A run has its folder. */
  begun(run: LabRun): void;
  step(step: ScenarioStep, number: number): void;
  stepEnded(report: StepReport): void;
}

export interface RunnerOptions {
  /** Where the run's folder is made. */
  readonly output: string;
  readonly allowHostCommands: boolean;
  readonly notice: Notice;
  readonly reporter: Reporter;
  /** Ctrl-C, with the error that says so. */
  readonly signal: AbortSignal;
}

export interface RunOutcome {
  readonly manifest: Manifest;
  readonly folder: RunFolder;
}

/** Runs a scenario that has been checked. Throws MmioError only where it could not begin. */
export async function runScenario(scenario: Scenario, options: RunnerOptions): Promise<RunOutcome> {
  await checkBindable(scenario.bind);
  const started = new Date();
  const folder = await RunFolder.create(options.output, scenario.name, started);
  for (const [at, { text }] of scenario.files.entries()) {
    await folder.write(at === 0 ? 'scenario.yaml' : `scenario-${at + 1}.yaml`, text);
  }
  const runner = new Runner(scenario, folder, options, started);
  return { manifest: await runner.run(), folder };
}

class Runner {
  readonly #scenario: Scenario;
  readonly #options: RunnerOptions;
  readonly #run: LabRun;
  readonly #started: Date;
  readonly #steps: StepReport[] = [];
  readonly #notices: string[] = [];
  readonly #left: string[] = [];
  readonly #bound: BoundDevice[] = [];
  #result: RunResult = 'running';
  #reason: string | null = null;
  #end: MachineEnd | undefined;
  /** No further step is taken. */
  #stops = false;

  constructor(scenario: Scenario, folder: RunFolder, options: RunnerOptions, started: Date) {
    this.#scenario = scenario;
    this.#options = options;
    this.#started = started;
    const notice: Notice = (text) => {
      this.#notices.push(text);
      options.notice(text);
    };
    this.#run = new LabRun(scenario, folder, {
      allowHostCommands: options.allowHostCommands,
      notice,
    });
  }

  async run(): Promise<Manifest> {
    const { folder } = this.#run;
    const id = `${basename(folder.dir)}-${process.pid}`;
    const state = await StateFile.create(id, folder.dir, this.#scenario.path);
    await this.#save();
    this.#options.reporter.begun(this.#run);
    try {
      await this.#bind(state);
      await this.#takeSteps();
    } catch (error) {
      this.#fail(error);
    } finally {
      await this.#cleanUp();
    }
    if (this.#result === 'running') this.#result = 'passed';
    const manifest = await this.#save(true);
    await this.#write('junit.xml', junitXml(manifest));
    // What could not be put back is left to `lab clean`.
    if (this.#left.length === 0) await state.remove();
    return manifest;
  }

  async #bind(state: StateFile): Promise<void> {
    const ours: string[] = [];
    for (const address of this.#scenario.bind) {
      // Written down before it is taken; what somebody else has bound is not ours to give back.
      const device = await bindOne(address, () => state.setBound([...ours, address]));
      if (!device.wasBound) ours.push(address);
      this.#bound.push(device);
    }
  }

  async #takeSteps(): Promise<void> {
    const { steps, limitMs } = this.#scenario;
    for (const { kind, name, options } of steps) {
      const wanted = kind.watches?.(options);
      if (wanted === undefined) continue;
      const since = steps.find((step) => step.name === wanted.since);
      // The mark of a VM's start stands behind the first accesses.
      const after = since && isBeginning(since) ? undefined : (since?.name ?? name);
      const watch = this.#run.watch.watch(after, wanted.filter);
      this.#run.watches.set(name, watch);
    }
    const stop = new AbortController();
    const { signal } = this.#options;
    const interrupt = () => stop.abort(signal.reason);
    if (signal.aborted) interrupt();
    signal.addEventListener('abort', interrupt);
    const timer =
      limitMs === undefined
        ? undefined
        : setTimeout(() => {
            const message = `the run took longer than ${formatDuration(limitMs)}`;
            stop.abort(new MmioError('timeout', message, { hint: 'its time-limit says so' }));
          }, limitMs);
    try {
      for (const [at, step] of steps.entries()) {
        if (this.#stops) this.#skip(step, at + 1);
        else await this.#takeStep(step, at + 1, stop.signal);
      }
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', interrupt);
    }
  }

  #skip(step: ScenarioStep, number: number): void {
    const report: StepReport = { ...this.#blank(step, number), result: 'skipped' };
    this.#steps.push(report);
    this.#options.reporter.stepEnded(report);
  }

  #blank(step: ScenarioStep, number: number): StepReport {
    const { file, line } = step.place;
    return {
      number,
      name: step.name,
      kind: step.kind.name,
      at: `${file}:${line}`,
      result: 'passed',
      started: null,
      seconds: 0,
      limitSeconds: step.limitMs / 1000,
      detail: null,
      failure: null,
      files: [],
      place: null,
      accesses: null,
    };
  }

  async #takeStep(step: ScenarioStep, number: number, signal: AbortSignal): Promise<void> {
    this.#options.reporter.step(step, number);
    log('lab', () => `step ${number} ${step.name}: ${step.kind.name}`);
    const started = new Date();
    const beganMs = performance.now();
    const context = new StepContext(this.#run, step, number, signal);
    let detail: string | undefined;
    let failure: StepFailure | null = null;
    const { machine } = this.#run;
    machine?.eventsAt.set(step.name, machine.events.length);
    try {
      signal.throwIfAborted();
      await this.#mark(step.name, step.kind.name === 'mark');
      detail = await limited(step.kind.run(step.options, context), step, signal);
      // VM starts are marked behind them: there was no recording before.
      if (machine === undefined) await this.#mark(step.name);
    } catch (thrown) {
      const error = asMmioError(thrown);
      const interrupted = signal.aborted && error === signal.reason;
      failure = await this.#describeFailure(error, context);
      await this.#mark(`${step.name} failed: ${error.message}`).catch(() => undefined);
      if (interrupted) this.#interrupt(error);
      else if (step.onFailure !== 'ignore') this.#fail(error, step.name);
      if (interrupted || step.onFailure === 'stop') this.#stops = true;
    }
    const ignored = failure !== null && step.onFailure === 'ignore' && !signal.aborted;
    const report: StepReport = {
      ...this.#blank(step, number),
      result: failure === null ? 'passed' : ignored ? 'ignored' : 'failed',
      started: started.toISOString(),
      seconds: (performance.now() - beganMs) / 1000,
      detail: detail ?? null,
      failure,
      files: await filesOf(this.#run.folder, context.dir),
    };
    this.#steps.push(report);
    this.#options.reporter.stepEnded(report);
    await this.#save();
  }

  /**
   * A VM may end by itself, at any time: then there is nothing to stand a mark in. Throws MmioError
   * `closed` where that is what the user `wants`.
   */
  async #mark(text: string, wants = false): Promise<void> {
    const { machine } = this.#run;
    if (machine === undefined) return;
    try {
      if (machine.end !== undefined) throw new MmioError('closed', 'the recording has ended');
      await machine.recording.mark(text);
    } catch (error) {
      if (wants || !(error instanceof MmioError && error.code === 'closed')) throw error;
    }
  }

  /** With what the guest showed just then. */
  async #describeFailure(error: MmioError, context: StepContext): Promise<StepFailure> {
    const { machine } = this.#run;
    let { evidence } = error;
    if (machine !== undefined && machine.end === undefined) {
      const photo = await context.saved('failed.png');
      const taken = await photograph(machine, photo, PHOTO_LIMIT_MS).catch(() => undefined);
      if (taken !== undefined) {
        evidence = [evidence, `the screen: ${this.#run.folder.nameOf(photo)}`]
          .filter(Boolean)
          .join('\n');
      }
    }
    return {
      code: error.code,
      message: error.message,
      evidence: evidence ?? null,
      hint: error.hint ?? null,
    };
  }

  #interrupt(error: MmioError): void {
    this.#result = error.code === 'timeout' ? 'failed' : 'interrupted';
    this.#reason ??= error.message;
  }

  #fail(error: unknown, step?: string): void {
    if (this.#result === 'running') this.#result = 'failed';
    this.#reason ??= step === undefined ? describeError(error) : `${step}: ${describeError(error)}`;
    if (!(error instanceof MmioError)) log('lab', () => String((error as Error).stack ?? error));
  }

  async #cleanUp(): Promise<void> {
    await this.#run.starting;
    const { machine, socketDir } = this.#run;
    if (machine !== undefined) {
      this.#end = await machine.stop();
      await machine.close();
      if (this.#end.kind === 'failed') {
        const { error } = this.#end;
        this.#fail(error);
        const { id } = machine.started.info;
        // Also of a run that has failed by something else before.
        this.#left.push(`the recording ${id}: ${describeError(error)}`);
      }
    }
    if (socketDir !== undefined) await rm(socketDir, { recursive: true, force: true });
    for (const { address, wasBound } of this.#bound.toReversed()) {
      if (wasBound) continue;
      try {
        await unbindOne(address);
      } catch (error) {
        this.#left.push(`${address} is still bound to vfio-pci: ${describeError(error)}`);
        this.#fail(error);
      }
    }
  }

  async #save(ended = false): Promise<Manifest> {
    const manifest = this.#manifest(ended);
    await this.#write('manifest.json', `${JSON.stringify(manifest, null, 2)}\n`);
    return manifest;
  }

  /** Without room for what is said of it, a run goes on all the same. */
  async #write(name: string, text: string): Promise<void> {
    const { folder, notice } = this.#run;
    await folder.write(name, text).catch((error: unknown) => {
      notice(`${name} could not be written: ${describeError(error)}`);
    });
  }

  #manifest(ended: boolean): Manifest {
    return makeManifest({
      run: this.#run,
      scenario: this.#scenario,
      started: this.#started,
      isEnded: ended,
      result: this.#result,
      reason: this.#reason,
      end: this.#end,
      steps: this.#steps,
      bound: this.#bound,
      left: this.#left,
      notices: this.#notices,
    });
  }
}

/** Also what nobody has put into words is this step's failure, and no reason to lose what it did. */
function asMmioError(thrown: unknown): MmioError {
  if (thrown instanceof MmioError) return thrown;
  log('lab', () => (thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown)));
  const isSystems = systemCodeOf(thrown) !== undefined;
  const hint = isSystems
    ? undefined
    : 'this is a defect of mmiobridge itself: --log FILE shows where';
  return new MmioError('io', messageOf(thrown), { hint, cause: thrown });
}

/** A step that does not heed its time is told it from outside. */
async function limited<T>(work: Promise<T>, step: ScenarioStep, signal: AbortSignal): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  let stop = () => {};
  const late = new Promise<never>((_, reject) => {
    stop = () => {
      // It may be in the middle of something that is better finished.
      setTimeout(() => reject(signal.reason as Error), GRACE_MS).unref();
    };
    if (signal.aborted) stop();
    signal.addEventListener('abort', stop, { once: true });
    timer = setTimeout(() => {
      reject(
        new MmioError('timeout', `the step took longer than ${formatDuration(step.limitMs)}`, {
          hint: 'give it a longer time-limit',
        }),
      );
    }, step.limitMs + GRACE_MS);
  });
  work.catch(() => undefined);
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', stop);
  }
}

async function filesOf(folder: RunFolder, dir: string): Promise<string[]> {
  const names = await readdir(`${folder.dir}/${dir}`).catch(() => []);
  return names.toSorted().map((name) => `${dir}/${name}`);
}
