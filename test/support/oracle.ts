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
    qemuId: 'nic',
    pciId: '808610d3',
    argv: words('-device e1000e,id=nic,netdev=n -netdev user,id=n'),
  },
  {
    name: 'nvme',
    module: 'nvme',
    use: [
      'wait_for test -b /dev/nvme0n1',
      'dd if=/dev/nvme0n1 of=/dev/null bs=4k count=16',
      'dd if=/dev/zero of=/dev/nvme0n1 bs=4k count=4 conv=fsync',
    ].join('; '),
    qemuId: 'nvme',
    pciId: '1b360010',
    argv: [
      ...words('-blockdev driver=null-co,node-name=disk,size=67108864,read-zeroes=on'),
      ...words('-device nvme,id=nvme,drive=disk,serial=1'),
    ],
  },
  {
    name: 'xhci',
    module: 'xhci-pci',
    use: 'sleep 2',
    qemuId: 'xhci',
    pciId: '1b36000d',
    argv: words('-device qemu-xhci,id=xhci'),
  },
];

/** Those of which QEMU's log shows what their models were asked, and not what the driver did. */
export const splitDrivers: readonly OracleDriver[] = [
  {
    name: 'usb-ehci',
    module: 'ehci-pci',
    use: 'sleep 1',
    qemuId: 'ehci',
    pciId: '808624cd',
    argv: words('-device usb-ehci,id=ehci'),
  },
  {
    name: 'megasas',
    module: 'megaraid_sas',
    use: 'sleep 1',
    qemuId: 'megasas',
    pciId: '10000060',
    argv: words('-device megasas,id=megasas'),
  },
  {
    name: 'rtl8139',
    module: '8139cp',
    use: 'ifconfig eth0 up; sleep 1; ifconfig eth0 down',
    qemuId: 'rtl',
    pciId: '10ec8139',
    argv: words('-device rtl8139,id=rtl,netdev=n2 -netdev user,id=n2'),
  },
  {
    name: 'lsi53c895a',
    module: 'sym53c8xx',
    use: 'sleep 2',
    qemuId: 'lsi',
    pciId: '10000012',
    argv: [
      ...words('-device lsi53c895a,id=lsi'),
      ...words('-blockdev driver=null-co,node-name=disk2,size=67108864,read-zeroes=on'),
      ...words('-device scsi-hd,drive=disk2,bus=lsi.0'),
    ],
  },
];

/**
 * A Linux that traces drivers, one after the other, sends the trace to `outFile` and powers off:
 * about 10 seconds, and 3 more for each further driver. One processor, since mmiotrace takes the
 * others offline. What the guest says is in `outFile.console`.
 *
 * @param kernelWords for the kernel's command line
 */
export async function oracleGuest(
  drivers: OracleDriver | readonly OracleDriver[],
  outFile: string,
  { qemu = SYSTEM_QEMU, kernelWords = '' } = {},
): Promise<string[]> {
  const all = [drivers].flat();
  const script = await scriptLines(
    'guests/oracle.sh',
    all.flatMap(({ module, use }) => [module, use]),
  );
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
    `console=ttyS0 quiet panic=-1 nokaslr mitigations=off ${kernelWords}`.trim(),
    '-chardev',
    `file,id=console,path=${path}.console`,
    '-chardev',
    `file,id=trace,path=${path}`,
    ...words('-serial chardev:console -serial chardev:trace'),
    ...all.flatMap(({ argv }) => argv),
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
