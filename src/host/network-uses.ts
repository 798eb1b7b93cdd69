/** What the host's network would lose with a PCI device; see proc_pid_net(5). */
import { join } from 'node:path';
import { readNames, readText, resolvedPath } from './sysfs.ts';

/**
 * A line such as `eth0 carries the only default route (IPv4)`, one for each family of which the host
 * would lose its last default route if the device and those of `together` were taken away. A bond,
 * bridge or VLAN counts for the hardware below it.
 */
export function networkUses(
  root: string,
  address: string,
  together: Iterable<string> = [],
): readonly string[] {
  const families = { IPv4: defaultRoutes4(root), IPv6: defaultRoutes6(root) };
  const taken = new Set([address, ...together]);
  return Object.entries(families).flatMap(([family, interfaces]) => {
    // One that rests on no hardware, such as a tunnel, is not a way of its own.
    const ways = [...interfaces]
      .map((name) => ({ name, below: hardwareBelow(root, name).map((path) => path.split('/')) }))
      .filter(({ below }) => below.length > 0);
    const ours = ways.filter(({ below }) => below.some((parts) => parts.includes(address)));
    const lost = ways.every(({ below }) =>
      below.every((parts) => parts.some((part) => taken.has(part))),
    );
    if (ours.length === 0 || !lost) return [];
    return [
      `${ours.map(({ name }) => name).join(', ')} carries the only default route (${family})`,
    ];
  });
}

/** Where the interfaces are in sysfs that an interface comes down to. */
function hardwareBelow(root: string, name: string): readonly string[] {
  const path = resolvedPath(join(root, 'sys/class/net', name));
  if (path === undefined) return [];
  if (!path.includes('/devices/virtual/')) return [path];
  const lower = readNames(path).filter((each) => each.startsWith('lower_'));
  return lower.flatMap((each) => hardwareBelow(root, each.slice('lower_'.length)));
}

/** RTF_REJECT: a route that leads nowhere. */
const REJECT = 0x200;

/** `Iface Destination Gateway Flags RefCnt Use Metric Mask …`, numbers in hex. */
function defaultRoutes4(root: string): ReadonlySet<string> {
  const rows = readRows(root, 'proc/net/route');
  const found = rows.filter(
    ([, destination, , flags, , , , mask]) =>
      destination === '00000000' && mask === '00000000' && leadsOut(flags),
  );
  return new Set(found.map(([name]) => name ?? ''));
}

/** `destination length source length next-hop metric references use flags interface` */
function defaultRoutes6(root: string): ReadonlySet<string> {
  const rows = readRows(root, 'proc/net/ipv6_route');
  const found = rows.filter(
    ([destination, length, , , , , , , flags]) =>
      /^0{32}$/.test(destination ?? '') && length === '00' && leadsOut(flags),
  );
  return new Set(found.map(([, , , , , , , , , name]) => name ?? ''));
}

function leadsOut(flags: string | undefined): boolean {
  return flags !== undefined && (Number.parseInt(flags, 16) & REJECT) === 0;
}

function readRows(root: string, path: string): readonly (readonly string[])[] {
  const lines = readText(join(root, path))?.split('\n') ?? [];
  return lines.map((line) => line.trim().split(/\s+/));
}
