/** Numbers as people read them. */

/** `1,234,567` */
export function count(value: number): string {
  // Intl.NumberFormat would do it, and cost a tenth of the time that the program takes to start.
  return String(Math.round(value)).replace(/\B(?=(?:\d{3})+$)/g, ',');
}

/** `12.3 MiB` */
export function bytes(value: number): string {
  if (value < 1024) return `${value} B`;
  const units = ['KiB', 'MiB', 'GiB', 'TiB'];
  let scaled = value / 1024;
  let unit = 0;
  while (scaled >= 1024 && unit < units.length - 1) {
    scaled /= 1024;
    unit++;
  }
  return `${scaled.toFixed(1)} ${units[unit] ?? ''}`;
}

/** `0x1f0` */
export function hex(value: number): string {
  return `0x${value.toString(16)}`;
}

/** `0x1122334455667788`, of a value's two halves. */
export function hex64(lo: number, hi: number): string {
  const low = (lo >>> 0).toString(16);
  return hi === 0 ? `0x${low}` : `0x${(hi >>> 0).toString(16)}${low.padStart(8, '0')}`;
}

/** `1 access`, `1,234 accesses`; the plural has an s where none is given. */
export function counted(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** The ids of a PCI function as `8086:10d3`. */
export function vendorDevice(vendorId: number, deviceId: number): string {
  return `${hex4(vendorId)}:${hex4(deviceId)}`;
}

/** Four hexadecimal digits, without 0x. */
export function hex4(value: number): string {
  return value.toString(16).padStart(4, '0');
}
