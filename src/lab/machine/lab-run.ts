/** One run while it goes on: its folder, its VM, what it has been told. */
import type { Notice } from '../../base/notice.ts';
import { MmioError } from '../../base/errors.ts';
import type { ScenarioHead } from '../language/scenario.ts';
import type { RunFolder } from './folder.ts';
import { describeEnd, type Machine } from './machine.ts';
import type { DiskImage } from './disk-images.ts';
import { StreamWatch, type AccessWatch } from './stream-watch.ts';

export class LabRun {
  readonly scenario: ScenarioHead;
  readonly folder: RunFolder;
  readonly allowHostCommands: boolean;
  readonly notice: Notice;
  /** undefined before the step that starts a VM or attaches to one. */
  machine: Machine | undefined;
  /** Settles when a VM that is being started is there, or is not. */
  starting: Promise<void> = Promise.resolve();
  /** Where the sockets of its ports are; gone with the run. */
  socketDir: string | undefined;
  /** Shown the recording from its first item on. */
  readonly watch = new StreamWatch();
  /** What steps wait for in the recording, by their names. */
  readonly watches = new Map<string, AccessWatch>();
  /** What the VM was started from. */
  disks: readonly DiskImage[] = [];
  /** Outputs of the recording, absolute. */
  outputs: readonly string[] = [];
  /** Snapshots that were saved or loaded, in their order. */
  readonly snapshots: string[] = [];

  constructor(
    scenario: ScenarioHead,
    folder: RunFolder,
    options: { readonly allowHostCommands: boolean; readonly notice: Notice },
  ) {
    this.scenario = scenario;
    this.folder = folder;
    this.allowHostCommands = options.allowHostCommands;
    this.notice = options.notice;
  }

  requireMachine(): Machine {
    const { machine } = this;
    if (machine === undefined) throw new MmioError('refused', 'there is no VM yet');
    if (machine.end === undefined) return machine;
    throw new MmioError('closed', describeEnd(machine.end), {
      evidence: machine.end.kind === 'ended' ? machine.end.words : undefined,
      hint: 'the step before may have ended it, or the guest has',
    });
  }

  /** How the VM ended, with QEMU's last words. */
  async lastWords(): Promise<string> {
    const { machine } = this;
    if (machine === undefined) return '';
    const end = machine.end ?? (await machine.ended);
    const words = end.kind === 'ended' && end.words !== '' ? `: ${end.words}` : '';
    return `${describeEnd(end)}${words}`;
  }
}
