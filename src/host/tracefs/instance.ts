/**
 * A trace instance of our own: its events, buffers and settings are nobody else's
 * (Documentation/trace/ftrace.rst, "Instances").
 */
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { MmioError, messageOf } from '../../base/errors.ts';

export interface InstanceOptions {
  /** Host thread ids whose events are wanted. */
  readonly threads: readonly number[];
  /** By name below `events/kvm`: the filter of an event, or `undefined` for all of it. */
  readonly events: Readonly<Record<string, string | undefined>>;
  /** Ring buffer of each CPU. */
  readonly bufferKb: number;
}

export class TraceInstance {
  readonly name: string;
  readonly path: string;

  private constructor(dir: string, name: string) {
    this.name = name;
    this.path = join(dir, 'instances', name);
  }

  /**
   * Makes an instance, which traces at once. Its clock is CLOCK_MONOTONIC.
   *
   * @throws MmioError `refused` with the kernel's word; then nothing is left of it
   */
  static create(dir: string, name: string, options: InstanceOptions): TraceInstance {
    const instance = new TraceInstance(dir, name);
    try {
      mkdirSync(instance.path);
      instance.#write('trace_clock', 'mono');
      instance.#write('buffer_size_kb', String(options.bufferKb));
      instance.addThreads(options.threads);
      for (const [event, filter] of Object.entries(options.events)) {
        if (filter !== undefined) instance.#write(`events/kvm/${event}/filter`, filter);
        instance.#write(`events/kvm/${event}/enable`, '1');
      }
      return instance;
    } catch (error) {
      instance.remove();
      throw new MmioError('refused', 'the kernel refuses a trace instance', {
        evidence: messageOf(error),
        hint: 'look at dmesg; its buffers want 1 to 16 MiB of memory for each processor',
        cause: error,
      });
    }
  }

  /** An instance that another process has made; undefined if it is gone. */
  static find(dir: string, name: string): TraceInstance | undefined {
    const instance = new TraceInstance(dir, name);
    return existsSync(instance.path) ? instance : undefined;
  }

  /** Names of the instances that begin so. */
  static names(dir: string, prefix: string): readonly string[] {
    return readdirSync(join(dir, 'instances')).filter((name) => name.startsWith(prefix));
  }

  #write(file: string, text: string): void {
    writeFileSync(join(this.path, file), text);
  }

  /**
   * Wants these threads, too. Never all again: while the list is emptied the events of everybody are
   * taken, and behind it none of a thread until it is scheduled again.
   */
  addThreads(threads: readonly number[]): void {
    appendFileSync(join(this.path, 'set_event_pid'), threads.join(' '));
  }

  trace(on: boolean): void {
    this.#write('tracing_on', on ? '1' : '0');
  }

  /** Which of `tracing_on` and the switches of these events are off. */
  switchedOff(events: readonly string[]): readonly string[] {
    return switchesOf(events).filter(
      (file) => readFileSync(join(this.path, file), 'latin1').trim() === '0',
    );
  }

  switchOn(events: readonly string[]): void {
    for (const file of switchesOf(events)) this.#write(file, '1');
  }

  get cpus(): readonly number[] {
    return readdirSync(join(this.path, 'per_cpu'))
      .map((name) => Number(/^cpu(\d+)$/.exec(name)?.[1]))
      .filter((cpu) => Number.isInteger(cpu))
      .toSorted((a, b) => a - b);
  }

  /** Events that have been read out of the ring buffers, ever. */
  get eventsRead(): number {
    return this.#sum('read events');
  }

  #sum(what: string): number {
    return this.cpus
      .map((cpu) => readFileSync(join(this.path, `per_cpu/cpu${cpu}/stats`), 'latin1'))
      .map((stats) => Number(new RegExp(`^${what}: (\\d+)`, 'm').exec(stats)?.[1] ?? 0))
      .reduce((sum, count) => sum + count, 0);
  }

  /** False where somebody still reads from it. */
  remove(): boolean {
    try {
      rmdirSync(this.path);
      return true;
    } catch {
      return !existsSync(this.path);
    }
  }
}

function switchesOf(events: readonly string[]): string[] {
  return ['tracing_on', ...events.map((event) => `events/kvm/${event}/enable`)];
}

/** The texts of the kernel's own description of its events, by file below `events`. */
export function readFormats(dir: string, events: readonly string[]): Record<string, string> {
  const read = (name: string) => readFileSync(join(dir, 'events', name), 'latin1');
  return {
    header_page: read('header_page'),
    ...Object.fromEntries(events.map((event) => [event, read(`kvm/${event}/format`)])),
  };
}
