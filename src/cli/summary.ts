/** What a recording was, as a person wants to see it. */
import type { CoverageState, CoverageStatement } from '../model/coverage.ts';
import { ROM_SLOT, guestAddress, type Device } from '../model/device.ts';
import type { Counters } from '../model/events.ts';
import type { RecordingCountsResult } from '../analysis/recording-counts.ts';
import { busiest as busiestOf } from '../analysis/register-counts.ts';
import { MAX_REGISTERS } from '../analysis/register-table.ts';
import { accessesOf } from '../analysis/totals.ts';
import type { Tables } from '../model/tables.ts';
import { bytes, count, counted, hex, vendorDevice } from '../base/format.ts';
import { duration } from './print.ts';

export interface SummaryFacts {
  readonly tables: Tables;
  readonly counts: RecordingCountsResult;
  readonly counters: Counters;
  readonly coverage: CoverageStatement;
  readonly seconds: number;
  readonly busiest: number;
}

export function formatSummary(facts: SummaryFacts): string[] {
  const { tables, counts, counters } = facts;
  const { totals } = counts;
  const total = accessesOf(totals);
  const lines: string[] = [];
  const devices = tables.devices.filter(Boolean);
  for (const device of devices) lines.push(...describe(device, facts));
  const rate = facts.seconds > 0 ? `, ${count(total / facts.seconds)} a second` : '';
  lines.push(
    `accesses  ${count(total)} (${count(totals.reads)} reads, ${count(totals.writes)} writes) in ${duration(facts.seconds)}${rate}`,
  );
  const extra = [
    [totals.interrupts, 'interrupt'],
    [totals.resets, 'reset'],
    [totals.marks, 'mark'],
  ] as const;
  const also = extra.filter(([n]) => n > 0).map(([n, what]) => counted(n, what));
  if (also.length > 0) lines.push(`events    ${also.join(', ')}`);
  if (totals.failed > 0) {
    lines.push(
      `failed    ${counted(totals.failed, 'access', 'accesses')} (MARKs say which and why)`,
    );
  }
  lines.push(...formatBusiest(facts), ...formatLoss(counters), ...formatCoverage(facts.coverage));
  return lines;
}

/** On one line, what keeps a recording from being complete. */
export function formatMissing({
  counters,
  coverage,
}: Pick<SummaryFacts, 'counters' | 'coverage'>): string {
  const regionsThat = (state: CoverageState) => {
    const ranges = coverage.ranges.filter((range) => range.state === state);
    return [...new Set(ranges.map(({ device, region }) => `${device} ${region}`))].join(', ');
  };
  const bypassed = regionsThat('bypassed');
  const emulated = regionsThat('emulated');
  const unknown = regionsThat('unknown');
  const others = bypassed + emulated === '' && counters.lossEvents + counters.damagedLines === 0;
  return [
    ...(others && unknown !== ''
      ? [`whether accesses to ${unknown} bypass QEMU is not known`]
      : []),
    ...(bypassed === '' ? [] : [`accesses to ${bypassed} bypass QEMU`]),
    ...(emulated === '' ? [] : [`parts of ${emulated} are answered by QEMU`]),
    ...(counters.lossEvents === 0 ? [] : [`loss in ${counted(counters.lossEvents, 'place')}`]),
    ...(counters.damagedLines === 0 ? [] : [counted(counters.damagedLines, 'damaged line')]),
  ].join('; ');
}

function describe(device: Device, { tables, counts, coverage }: SummaryFacts): string[] {
  const ids = vendorDevice(device.vendorId, device.deviceId);
  const host = ['', device.name].includes(device.hostAddress)
    ? ''
    : `, on the host ${device.hostAddress}`;
  const type = device.type === '' ? '' : `${device.type}, `;
  const trafficOf = (region: number) => {
    const { reads, writes } = counts.regions[region] ?? { reads: 0, writes: 0 };
    return `${count(reads)} reads, ${count(writes)} writes`;
  };
  const lines = [`device    ${device.name}: ${type}${ids} at ${guestAddress(device)}${host}`];
  for (const [slot, bar] of device.bars.entries()) {
    const region = tables.regions.find((it) => it?.device === device.id && it.bar === slot);
    if (region === undefined && (bar.sizeBytes === 0 || slot === ROM_SLOT)) continue;
    const space = (bar.flags & 1) === 1 ? 'I/O ports' : 'memory';
    const where = bar.start === 0 ? 'address not known' : `at ${hex(bar.start)}`;
    const name = slot === ROM_SLOT ? 'ROM' : `BAR${slot}`;
    const bypassed = coverage.ranges.some(
      (range) =>
        range.device === device.name && range.region === name && range.state === 'bypassed',
    );
    const unseen = bypassed ? 'its accesses bypass QEMU' : 'no access';
    const traffic = region === undefined ? unseen : trafficOf(region.id);
    lines.push(`  ${name.padEnd(7)} ${space} ${where}, ${bytes(bar.sizeBytes)}: ${traffic}`);
  }
  const config = tables.regions.find((it) => it?.device === device.id && it.kind === 'config');
  if (config !== undefined) lines.push(`  config  configuration space: ${trafficOf(config.id)}`);
  return lines;
}

function formatBusiest({ tables, counts, busiest }: SummaryFacts): string[] {
  const { registers, others } = counts.registers;
  if (busiest === 0 || registers.length === 0) return [];
  const rows = busiestOf(registers, busiest).map(({ region, offset, reads, writes }) => {
    const found = tables.regions[region];
    const name = found === undefined ? '?' : `${tables.deviceName(found.device)} ${found.name}`;
    return { register: `${name}+${hex(offset)}`, reads, writes };
  });
  if (others !== undefined) rows.push({ register: 'all others', ...others });
  const more =
    others === undefined ? '' : `, and others that came after these ${count(MAX_REGISTERS)}`;
  const width = Math.max(22, ...rows.map(({ register }) => register.length));
  return [
    `busiest   of ${count(registers.length)} registers${more}`,
    ...rows.map(
      ({ register, reads, writes }) =>
        `  ${register.padEnd(width)} ${count(reads).padStart(12)} reads ${count(writes).padStart(12)} writes`,
    ),
  ];
}

function formatLoss(counters: Counters): string[] {
  const lines: string[] = [];
  if (counters.lossEvents === 0) lines.push('loss      none');
  else {
    const known = counters.lost > 0 ? `${count(counters.lost)} accesses` : 'an unknown number';
    lines.push(`loss      ${known}, in ${counted(counters.lossEvents, 'place')} (MARKs say where)`);
  }
  if (counters.damagedLines > 0) {
    lines.push(`damaged   ${count(counters.damagedLines)} lines of the log could not be read`);
  }
  return lines;
}

function formatCoverage(coverage: CoverageStatement): string[] {
  const lines: string[] = [];
  const bad = coverage.ranges.filter(({ state }) => state === 'bypassed');
  const trapped = coverage.ranges.filter(({ state }) => state === 'trapped');
  const emulated = coverage.ranges.filter(({ state }) => state === 'emulated');
  if (bad.length === 0 && emulated.length === 0 && trapped.length > 0) {
    const regions = [...new Set(trapped.map((range) => `${range.device} ${range.region}`))];
    lines.push(`coverage  complete: every access to ${regions.join(', ')} is trapped`);
  } else if (bad.length === 0 && emulated.length === 0) {
    lines.push('coverage  unknown: QEMU could not be asked how the BARs are mapped');
  }
  for (const range of bad) {
    const part = `${range.device} ${range.region}+${hex(range.offset)}`;
    lines.push(`coverage  NOT complete: ${part}, ${bytes(range.lengthBytes)} bypass QEMU`);
    lines.push(`          ${range.why}`);
  }
  for (const range of emulated) {
    const part = `${range.device} ${range.region}+${hex(range.offset)}`;
    lines.push(`coverage  NOT complete: ${part}, ${bytes(range.lengthBytes)} are answered by QEMU`);
    lines.push(`          ${range.why}`);
  }
  for (const note of coverage.notes) lines.push(`note      ${note}`);
  return lines;
}
