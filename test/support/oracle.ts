import { readFile } from 'node:fs/promises';
import { gunzipSync } from 'node:zlib';
import { SYSTEM_QEMU } from './qemu.ts';
import { scriptLines, words } from './scripts.ts';

/** A driver of Linux whose accesses its own kernel can trace, to hold ours against. */
export interface OracleDriver {
  readonly name: string;
  /** The module to trace from insmod to rmmod; what it depends on is loaded before. */
  readonly module: string;
  /**
   * Shell (busybox) that makes the loaded driver work. `wait_for COMMAND…` waits for a driver that
   * probes in the background.
   */
  readonly use: string;
  /** The id of the device in `argv`. */
  readonly qemuId: string;
  /** Vendor and device id as in a PCIDEV line. */
  readonly pciId: string;
  /** Arguments that add the device and what is behind it. */
  readonly argv: readonly string[];
}

export const oracleDrivers: readonly OracleDriver[] = [
  {
    name: 'e1000e',
    module: 'e1000e',
    use: 'ifconfig eth0 up; sleep 2; ifconfig eth0 down',
    qemuId: 'dut',
    pciId: '808610d3',
    argv: words('-device e1000e,id=dut,netdev=n -netdev user,id=n'),
  },
  {
    name: 'nvme',
    module: 'nvme',
    use: [
      'wait_for test -b /dev/nvme0n1',
      'dd if=/dev/nvme0n1 of=/dev/null bs=4k count=16',
      'dd if=/dev/zero of=/dev/nvme0n1 bs=4k count=4 conv=fsync',
    ].join('; '),
    qemuId: 'dut',
    pciId: '1b360010',
    argv: [
      ...words('-blockdev driver=null-co,node-name=disk,size=67108864,read-zeroes=on'),
      ...words('-device nvme,id=dut,drive=disk,serial=1'),
    ],
  },
  {
    name: 'xhci',
    module: 'xhci-pci',
    use: 'sleep 2',
    qemuId: 'dut',
    pciId: '1b36000d',
    argv: words('-device qemu-xhci,id=dut'),
  },
];

/**
 * A Linux that traces one driver, sends the trace to `outFile` and powers off: about 10 seconds.
 * One processor, since mmiotrace takes the others offline. What the guest says is in
 * `outFile.console`.
 */
export async function oracleGuest(
  driver: OracleDriver,
  outFile: string,
  qemu: string = SYSTEM_QEMU,
): Promise<string[]> {
  const script = await scriptLines('guests/oracle.sh', [driver.module, driver.use]);
  const [kernel = '', initramfs = ''] = script;
  // A comma in a value of QEMU's options is written twice.
  const path = outFile.replaceAll(',', ',,');
  return [
    qemu,
    ...words('-machine q35 -accel tcg -cpu qemu64 -smp 1 -m 256'),
    ...words('-nodefaults -display none -no-reboot'),
    '-kernel',
    kernel,
    '-initrd',
    initramfs,
    '-append',
    'console=ttyS0 quiet panic=-1 nokaslr mitigations=off',
    '-chardev',
    `file,id=console,path=${path}.console`,
    '-chardev',
    `file,id=trace,path=${path}`,
    ...words('-serial chardev:console -serial chardev:trace'),
    ...driver.argv,
  ];
}

/** The guest's own mmiotrace log, from what it sent. Throws with its console when it is not whole. */
export async function readGuestTrace(outFile: string): Promise<string> {
  const sent = await readFile(outFile, 'latin1');
  const packed = /-----BEGIN MMIOTRACE-----\n([^-]*)-----END MMIOTRACE-----\n/.exec(sent)?.[1];
  if (packed === undefined) {
    const console = await readFile(`${outFile}.console`, 'latin1');
    throw new Error(`the guest sent no whole trace; its console:\n${console}`);
  }
  return gunzipSync(Buffer.from(packed, 'base64')).toString('latin1');
}
