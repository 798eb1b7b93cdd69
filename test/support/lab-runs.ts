import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Manifest } from '../../src/lab/run/manifest.ts';
import { Workplace, type CliResult } from './cli.ts';
import { scriptLines } from './scripts.ts';

export const E1000E = '-netdev user,id=n -device e1000e,netdev=n,id=dut,addr=10';

/** A Linux guest with QEMU's guest agent and a shell on its serial port and screen (agent.sh). */
export async function agentGuest(
  devices: string = E1000E,
  qemu = 'qemu-system-x86_64',
): Promise<string> {
  const [kernel = '', initrd = ''] = await scriptLines('guests/agent.sh');
  return [
    `${qemu} -machine pc -accel tcg,thread=multi -cpu max -m 256 -nodefaults -vga std -display none`,
    `-kernel ${kernel} -initrd ${initrd} -append "console=tty0 console=ttyS0 quiet"`,
    devices,
  ].join(' ');
}

/** Ends at once, runs for ever, and drives its e1000: what needs no Linux. */
export const FIRMWARE_GUEST =
  'qemu-system-x86_64 -machine pc -accel tcg -m 64 -nodefaults -display none -device e1000,netdev=n,id=dut -netdev user,id=n';

/** A folder for the runs of a test. */
export class LabPlace extends Workplace {
  /** Writes a scenario; its steps as YAML without their indent. */
  scenario(name: string, steps: string, head = ''): string {
    const indented = steps.trim().replaceAll(/^(?=.)/gm, '  ');
    writeFileSync(this.path(name), `lab: 1\n${head}\nsteps:\n${indented}\n`);
    return name;
  }

  run(name: string, ...more: readonly string[]): Promise<CliResult> {
    return this.cli(['lab', 'run', name, ...more], { timeoutMs: 200_000 });
  }

  /** The folders of runs so far, oldest first. */
  get folders(): string[] {
    const root = this.path('lab-runs');
    return readdirSync(root)
      .toSorted()
      .map((name) => join(root, name));
  }

  get folder(): string {
    return this.folders.at(-1) ?? '';
  }

  get manifest(): Manifest {
    return JSON.parse(readFileSync(join(this.folder, 'manifest.json'), 'utf8')) as Manifest;
  }
}

/** An empty qcow2 image (version 2, 64 KiB clusters) of QEMU's `docs/interop/qcow2`. */
export function emptyQcow2(sizeBytes: number): Buffer {
  const cluster = 65_536;
  const image = Buffer.alloc(4 * cluster);
  image.write('QFI\xfb', 'latin1');
  image.writeUInt32BE(2, 4);
  image.writeUInt32BE(16, 20);
  image.writeBigUInt64BE(BigInt(sizeBytes), 24);
  // One entry of L1 for each 512 MiB.
  image.writeUInt32BE(Math.ceil(sizeBytes / 2 ** 29), 36);
  image.writeBigUInt64BE(BigInt(3 * cluster), 40);
  image.writeBigUInt64BE(BigInt(cluster), 48);
  image.writeUInt32BE(1, 56);
  image.writeBigUInt64BE(BigInt(2 * cluster), cluster);
  for (let at = 0; at < 4; at++) image.writeUInt16BE(1, 2 * cluster + 2 * at);
  return image;
}
