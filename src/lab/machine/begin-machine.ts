/** Makes the VM of a run: starts a QEMU with the ports that the run needs, or attaches to one. */
import { join } from 'node:path';
import { MmioError } from '../../base/errors.ts';
import { makeFolders } from '../../base/make-folders.ts';
import { requireShort } from '../../base/socket-path.ts';
import { recordAttach } from '../../recording/begin/attach.ts';
import type { Started } from '../../recording/begin/assemble.ts';
import { recordLaunch } from '../../recording/begin/launch.ts';
import type { RecordOptions } from '../../recording/begin/options.ts';
import { makeRunDir, runDir } from '../../recording/session/session-folder.ts';
import { escapeCommas } from '../../machine/option-value.ts';
import { GuestMarks } from './guest-marks.ts';
import type { LabRun } from './lab-run.ts';
import { Machine } from './machine.ts';
import { SerialPort } from './serial-port.ts';
import type { StreamWatch } from './stream-watch.ts';

/** Where marks of the guest come from. */
export type MarkWay = 'virtio-serial' | 'serial' | { readonly file: string };

export interface PortsWanted {
  readonly agent: boolean;
  /** Serial ports, by name, in the guest's order. */
  readonly serial: readonly string[];
  readonly marks: MarkWay | undefined;
}

/** The name of the port whose lines are marks. */
const MARK_PORT = 'marks';
const AGENT_PORT = 'org.qemu.guest_agent.0';
const MARK_PORT_NAME = 'org.mmiobridge.mark';

/** What is put behind the user's own words, and where its other ends are. */
export interface AddedPorts {
  readonly argv: readonly string[];
  readonly agentSocket: string | undefined;
  readonly ports: ReadonlyMap<string, SerialPort>;
}

/** @param dir a folder of short path, where the sockets are made */
async function addPorts(wanted: PortsWanted, lab: LabRun, dir: string): Promise<AddedPorts> {
  const argv: string[] = [];
  const ports = new Map<string, SerialPort>();
  const addChardev = (id: string, logged: string | undefined): string => {
    const socket = join(dir, `${id}.sock`);
    requireShort(socket);
    const log = logged === undefined ? '' : `,logfile=${escapeCommas(logged)},logappend=off`;
    argv.push('-chardev', `socket,id=${id},path=${escapeCommas(socket)},server=on,wait=off${log}`);
    return socket;
  };
  for (const name of wanted.serial) {
    const log = await lab.folder.path(`serial/${name}.log`);
    const socket = addChardev(`lab-${name}`, log);
    argv.push('-serial', `chardev:lab-${name}`);
    ports.set(name, new SerialPort(name, log, socket));
  }
  const virtio = wanted.agent || wanted.marks === 'virtio-serial';
  if (virtio) argv.push('-device', 'virtio-serial,id=lab-virtio');
  let agentSocket: string | undefined;
  if (wanted.agent) {
    agentSocket = addChardev('lab-qga', undefined);
    argv.push(
      '-device',
      `virtserialport,bus=lab-virtio.0,chardev=lab-qga,name=${AGENT_PORT},id=lab-agent`,
    );
  }
  if (wanted.marks === 'virtio-serial' || wanted.marks === 'serial') {
    const log = await lab.folder.path(`serial/${MARK_PORT}.log`);
    // A guest waits to write into a virtio port that nobody has open; a file always is.
    argv.push('-chardev', `file,id=lab-marks,path=${escapeCommas(log)}`);
    ports.set(MARK_PORT, new SerialPort(MARK_PORT, log, undefined));
    if (wanted.marks === 'serial') argv.push('-serial', 'chardev:lab-marks');
    else {
      argv.push(
        '-device',
        `virtserialport,bus=lab-virtio.0,chardev=lab-marks,name=${MARK_PORT_NAME},id=lab-marks`,
      );
    }
  }
  return { argv, agentSocket, ports };
}

/** A folder for sockets, short enough for their paths. */
async function socketDir(lab: LabRun): Promise<string> {
  await makeRunDir();
  const dir = join(runDir(), 'lab', `${process.pid}`);
  await makeFolders(dir, 0o711);
  lab.socketDir = dir;
  return dir;
}

export async function startMachine(
  argv: readonly string[],
  wanted: PortsWanted,
  options: RecordOptions,
  lab: LabRun,
): Promise<void> {
  const added = await addPorts(wanted, lab, await socketDir(lab));
  const started = recordLaunch([...argv, ...added.argv], {
    ...options,
    observe: (item) => lab.watch.take(item),
  });
  await take(started, added, wanted.marks, lab);
}

export async function attachMachine(
  qmp: string,
  added: Omit<AddedPorts, 'argv'>,
  marks: MarkWay | undefined,
  options: RecordOptions,
  lab: LabRun,
): Promise<void> {
  for (const port of added.ports.values()) port.skip();
  const started = recordAttach(qmp, { ...options, observe: (item) => lab.watch.take(item) });
  await take(started, added, marks, lab);
}

/** One that only comes when the run is over is ended by who cleans up. */
async function take(
  starting: Promise<Started>,
  { agentSocket, ports }: Omit<AddedPorts, 'argv'>,
  marks: MarkWay | undefined,
  lab: LabRun,
): Promise<void> {
  const { watch }: { readonly watch: StreamWatch } = lab;
  const begun = starting.then(async (started) => {
    if (started.vm === undefined) throw new MmioError('closed', 'the VM ended at once');
    const machine = new Machine({ started, vm: started.vm, watch, ports, agentSocket });
    lab.machine = machine;
    const markPort = ports.get(MARK_PORT);
    if (marks === undefined) return;
    machine.marks = new GuestMarks((text) => machine.recording.mark(text), lab.notice);
    if (markPort !== undefined) machine.marks.fromPort(markPort);
    else if (typeof marks === 'object') {
      machine.marks.fromFile(await machine.agent(), marks.file);
    }
  });
  lab.starting = begun.catch(() => undefined);
  await begun;
}
