/** Puts together what is known of a run, at any moment of it. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { arch, cpus, hostname, release } from 'node:os';
import { accessesOf } from '../../analysis/totals.ts';
import { vendorDevice } from '../../base/format.ts';
import { TOOL } from '../../base/version.ts';
import { readSubsystem } from '../../host/pci.ts';
import { guestAddress, type Device } from '../../model/device.ts';
import type { ScenarioHead } from '../language/scenario.ts';
import type { LabRun } from '../machine/lab-run.ts';
import type { Machine, MachineEnd } from '../machine/machine.ts';
import type { BoundDevice } from './binding.ts';
import type { DeviceReport, Manifest, RunResult, StepReport } from './manifest.ts';

/** What a runner knows. */
export interface RunFacts {
  readonly run: LabRun;
  readonly scenario: ScenarioHead;
  readonly started: Date;
  readonly isEnded: boolean;
  readonly result: RunResult;
  readonly reason: string | null;
  /** undefined: the recording goes on, or there is none. */
  readonly end: MachineEnd | undefined;
  readonly steps: readonly StepReport[];
  readonly bound: readonly BoundDevice[];
  readonly left: readonly string[];
  readonly notices: readonly string[];
}

export function makeManifest(facts: RunFacts): Manifest {
  const { run, scenario, started, isEnded, end, result, reason, bound, left, notices } = facts;
  const { machine, disks, snapshots } = run;
  const now = new Date();
  return {
    version: 1,
    tool: TOOL,
    result,
    reason,
    started: started.toISOString(),
    ended: isEnded ? now.toISOString() : null,
    seconds: (now.getTime() - started.getTime()) / 1000,
    scenario: scenarioReport(scenario),
    host: hostReport(),
    qemu: machine === undefined ? null : qemuReport(machine, end),
    devices: machine === undefined ? [] : devicesOf(machine),
    bound,
    disks,
    snapshots,
    steps: placed(facts.steps, machine),
    recording: recordingReport(run, end),
    left,
    notices,
  };
}

/** The steps with their places, which the recording may tell only now. */
function placed(steps: readonly StepReport[], machine: Machine | undefined): readonly StepReport[] {
  if (machine === undefined) return steps;
  const { marks, rows } = machine.watch;
  return steps.map((step, at) => {
    const place = marks.get(step.name) ?? null;
    const next = steps
      .slice(at + 1)
      .map(({ name }) => marks.get(name))
      .find((found) => found !== undefined);
    const accesses = place === null ? null : (next?.row ?? rows) - place.row;
    return { ...step, place, accesses };
  });
}

function recordingReport(
  { machine, outputs, folder }: LabRun,
  end: MachineEnd | undefined,
): Manifest['recording'] {
  if (machine === undefined || end?.kind !== 'ended') return null;
  const { totals } = machine.started.counts.result();
  return {
    outputs: outputs.map((path) => folder.nameOf(path)),
    accesses: accessesOf(totals),
    counters: end.end.counters,
    marks: totals.marks,
    coverage: end.end.coverage,
    complete: end.end.complete && end.end.removed.length === 0,
  };
}

function qemuReport(machine: Machine, end: MachineEnd | undefined): Manifest['qemu'] {
  const { info } = machine.started;
  const exit = end?.kind === 'ended' ? end.end.vm?.exit : undefined;
  return {
    version: info.header.qemuVersion,
    argv: info.header.argv,
    started: info.launched,
    exit: exit === undefined ? null : { code: exit.code, signal: exit.signal },
    said: end?.kind === 'ended' ? end.words : '',
  };
}

function devicesOf(machine: Machine): Manifest['devices'] {
  const { tables } = machine.watch;
  const { argv } = machine.started.info.header;
  return tables.devices.filter(Boolean).map((device) => deviceReport(device, argv));
}

function scenarioReport(scenario: ScenarioHead): Manifest['scenario'] {
  const { name, about, path, files, variables } = scenario;
  return {
    name,
    about,
    file: path,
    files: files.map((file) => ({
      path: file.path,
      sha256: createHash('sha256').update(file.text).digest('hex'),
    })),
    variables,
  };
}

function hostReport(): Manifest['host'] {
  let kernel = release();
  try {
    kernel = readFileSync('/proc/version', 'utf8').trim();
  } catch {
    // The release has to do.
  }
  return { name: hostname(), kernel, processor: cpus()[0]?.model ?? '', machine: arch() };
}

function deviceReport(device: Device, argv: readonly string[]): DeviceReport {
  const { name, type, qemuId, hostAddress, vendorId, deviceId, classCode, bars } = device;
  const written = argv.filter((_, at) => /^--?device$/.test(argv[at - 1] ?? ''));
  const wordsOf = (text: string) => text.split(/[,{}"=: ]+/);
  const options = written.find((text) => {
    if (qemuId !== '') return wordsOf(text).includes(qemuId);
    return hostAddress !== '' && text.includes(hostAddress.replace(/^0000:/, ''));
  });
  return {
    name,
    type,
    ids: vendorDevice(vendorId, deviceId),
    subsystem: (hostAddress === '' ? undefined : readSubsystem('/', hostAddress)) ?? null,
    class: `0x${classCode.toString(16).padStart(6, '0')}`,
    qemuId,
    guestAddress: guestAddress(device),
    hostAddress,
    options: options ?? null,
    bars: bars
      .map(({ start, sizeBytes }, slot) => ({ slot, start, sizeBytes }))
      .filter(({ sizeBytes }) => sizeBytes > 0),
  };
}
