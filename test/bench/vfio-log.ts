import { closeSync, openSync, writeSync } from 'node:fs';

/** Two BARs of one device, as QEMU 7.2 tells of them at the head of a log. */
const HEAD = [
  'vfio_region_setup Device 0000:00:10.0, region 0 "0000:00:10.0 BAR 0", flags: 0x7, offset: 0x0, size: 0x20000',
  'vfio_region_setup Device 0000:00:10.0, region 3 "0000:00:10.0 BAR 3", flags: 0x7, offset: 0x60000000000, size: 0x4000',
  'pci_update_mappings_add vfio-pci 00:04.0 0,0xfeb80000+0x20000',
  'pci_update_mappings_add vfio-pci 00:04.0 3,0xfebd0000+0x4000',
];
const OFFSETS = [0x0, 0x8, 0xc0, 0xd0, 0x100, 0x400, 0xf00, 0x2818, 0x3810, 0x5008];
const SECOND = 1_795_392_285;
const BLOCK_BYTES = 1 << 20;

/**
 * Writes a QEMU log of `lines` accesses, reads and writes of a few registers in two BARs, 85 bytes
 * each: the shape and the mixture of what a network card's driver does. The first stamp is a whole
 * second, so that who converts it by hand has less to do.
 */
export function writeVfioLog(path: string, lines: number): void {
  const file = openSync(path, 'w');
  let text = HEAD.map((line) => `6103@${SECOND}.000000:${line}\n`).join('');
  let random = 1;
  for (let line = 0; line < lines; line++) {
    random = (Math.imul(random, 1_103_515_245) + 12_345) >>> 0;
    const us = 1 + line * 2;
    const sec = SECOND + Math.floor(us / 1_000_000);
    const bar = random >>> 28 < 13 ? 0 : 3;
    const offset = (OFFSETS[(random >>> 8) % OFFSETS.length] ?? 0) & (bar === 0 ? 0x1ffff : 0xfff);
    const value = (random >>> ((random >>> 5) & 31)).toString(16);
    const place = `(0000:00:10.0:region${bar}+0x${offset.toString(16)}`;
    const access =
      (random & 0x10000) === 0
        ? `vfio_region_read  ${place}, 4) = 0x${value}`
        : `vfio_region_write  ${place}, 0x${value}, 4)`;
    text += `6103@${sec}.${String(us % 1_000_000).padStart(6, '0')}:${access}\n`;
    if (text.length > BLOCK_BYTES) {
      writeSync(file, text);
      text = '';
    }
  }
  writeSync(file, text);
  closeSync(file);
}
