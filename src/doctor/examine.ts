/** All checks, in the order in which one thing needs the other. */
import { MmioError } from '../base/errors.ts';
import { fullPciAddress } from '../host/pci.ts';
import {
  QEMU_PROGRAMS,
  askProgram,
  askRunning,
  type QemuAbilities,
} from '../machine/qemu-abilities.ts';
import { QmpClient } from '../qmp/client.ts';
import { checkTrapped } from './bars.ts';
import { Check, type CheckGroup, type CheckResult } from './check.ts';
import { checkConfinement } from './confinement.ts';
import { checkDevices } from './devices.ts';
import { checkInterruptRemapping } from './interrupt-remapping.ts';
import { checkIommu } from './iommu.ts';
import { checkKvm } from './kvm.ts';
import { checkLockedMemory } from './locked-memory.ts';
import { checkQemu } from './qemu.ts';
import { checkRunFolder } from './run-folder.ts';
import { checkSelection, lookAtVm, type RunningVm } from './running-vm.ts';
import type { System } from './system.ts';
import { checkTracefs } from './tracefs.ts';
import { checkVfioModules } from './vfio-modules.ts';
import { checkVirtualization } from './virtualization.ts';
import { checkLog, checkTimestamps } from './vm-log.ts';

export interface Examination {
  /** Devices that are meant: host addresses; with `qmp` also QEMU ids and guest addresses. */
  readonly selection: readonly string[];
  /** Where a QEMU listens. */
  readonly qmp: string | undefined;
  /** The program to ask; by default the QEMU that runs, or the one that is installed. */
  readonly qemu: string | undefined;
  /** Where recordings are. */
  readonly runFolder: string;
  /** The trace events of a recording, some with `*` at their end. */
  readonly traceEvents: readonly string[];
}

/** Throws MmioError `usage` for an address that is none; all else is among the results. */
export async function examine(system: System, what: Examination): Promise<readonly CheckGroup[]> {
  const { selection } = what;
  if (what.qmp === undefined) requireHostAddresses(selection);
  const connection = await connect(what.qmp);
  try {
    const vm = connection instanceof QmpClient ? await lookAtVm(connection, selection) : undefined;
    const addresses = hostAddressesOf(vm?.selected.map((it) => it.hostAddress) ?? selection);
    const passesThrough = vm === undefined || addresses.length > 0;
    const [program, abilities] = await askQemu(what.qemu, vm);
    const needsTracefs = !(abilities instanceof MmioError) && !abilities.tracesToLog;
    const inVm = [
      ...(connection instanceof MmioError ? [unreachable(connection)] : []),
      ...(vm === undefined ? [] : await checkVm(system, vm, what)),
    ];
    const groups = [
      { title: 'host', results: checkHost(system, vm, passesThrough) },
      { title: 'devices', results: passesThrough ? checkDevices(system, addresses) : [] },
      { title: 'QEMU', results: checkQemu(program, abilities, what.traceEvents) },
      {
        title: 'recording',
        results: [
          checkRunFolder(system, what.runFolder),
          checkTracefs(system, needsTracefs),
          checkConfinement(system),
        ],
      },
      { title: 'VM', results: inVm },
    ];
    return groups.filter(({ results }) => results.length > 0);
  } finally {
    if (connection instanceof QmpClient) await connection.close();
  }
}

function requireHostAddresses(selection: readonly string[]): void {
  const wrong = selection.find((name) => fullPciAddress(name) === undefined);
  if (wrong === undefined) return;
  throw new MmioError('usage', `${wrong} is no address of a PCI device of the host`, {
    evidence: 'it would look like 0000:01:00.0 or 01:00.0',
    hint: 'lspci -D lists them; with --qmp SOCKET, QEMU ids and guest addresses are taken, too',
  });
}

function hostAddressesOf(names: readonly string[]): string[] {
  return names.map(fullPciAddress).filter((address) => address !== undefined);
}

async function connect(address: string | undefined): Promise<QmpClient | MmioError | undefined> {
  if (address === undefined) return undefined;
  try {
    return await QmpClient.connect(address);
  } catch (error) {
    if (error instanceof MmioError && error.code !== 'usage') return error;
    throw error;
  }
}

function unreachable(error: MmioError): CheckResult {
  const evidence = `${error.message} (${error.evidence ?? ''})`;
  return new Check('qmp', 'QMP').failure(evidence, error.hint ?? 'give QEMU a -qmp of its own');
}

async function askQemu(
  program: string | undefined,
  vm: RunningVm | undefined,
): Promise<readonly [name: string, abilities: QemuAbilities | MmioError]> {
  if (program !== undefined) return [program, await unlessFailed(askProgram(program))];
  if (vm !== undefined) return ['the one that runs', await unlessFailed(askRunning(vm.qmp))];
  for (const each of QEMU_PROGRAMS) {
    const abilities = await unlessFailed(askProgram(each));
    if (!(abilities instanceof MmioError && abilities.code === 'not-found'))
      return [each, abilities];
  }
  const [first] = QEMU_PROGRAMS;
  return [first, await unlessFailed(askProgram(first))];
}

async function unlessFailed<T>(answer: Promise<T>): Promise<T | MmioError> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof MmioError) return error;
    throw error;
  }
}

function checkHost(
  system: System,
  vm: RunningVm | undefined,
  passesThrough: boolean,
): readonly CheckResult[] {
  if (!passesThrough) return [checkKvm(system)];
  const guest =
    vm?.process === undefined ? undefined : { pid: vm.process.pid, guestBytes: vm.memoryBytes };
  return [
    checkVirtualization(system),
    checkKvm(system),
    checkIommu(system),
    checkInterruptRemapping(system),
    ...checkVfioModules(system),
    checkLockedMemory(system, guest),
  ];
}

async function checkVm(
  system: System,
  vm: RunningVm,
  { selection, runFolder }: Examination,
): Promise<readonly CheckResult[]> {
  return [
    ...checkSelection(vm, selection),
    ...(await checkTrapped(vm)),
    checkTimestamps(vm),
    await checkLog(system, vm, runFolder),
  ];
}
