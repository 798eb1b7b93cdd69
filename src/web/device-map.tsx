/** BARs and their registers by offset, coloured by traffic. */
import type { ReadsAndWrites } from '../analysis/region-counts.ts';
import { MAX_REGISTERS } from '../analysis/register-table.ts';
import type { RegisterCount } from '../analysis/register-counts.ts';
import { signal } from '@preact/signals';
import type { Region } from '../model/device.ts';
import { bytes, count, counted, hex, vendorDevice } from '../base/format.ts';
import { hexDigits, short } from './format.ts';
import * as state from './state.ts';

/** So many bytes of a BAR are one line of the map. */
const LINE_BYTES = 0x100;
const LINE_PX = 12;
const MAX_LINES = 400;
const BUSIEST = 14;

const hovered = signal<RegisterCount | undefined>(undefined);

export function DeviceMap() {
  const shown = state.map.value;
  const { tables } = state.tables.value;
  const traffic = shown?.registers ?? [];
  const most = traffic.reduce((a, { reads, writes }) => Math.max(a, reads + writes), 1);
  const byRegion = new Map<number, RegisterCount[]>();
  for (const one of traffic) {
    const others = byRegion.get(one.region);
    if (others === undefined) byRegion.set(one.region, [one]);
    else others.push(one);
  }
  const devices = tables.devices.filter(Boolean);
  const regions = tables.regions.filter(Boolean);
  const isOwned = (region: Region): boolean => tables.devices[region.device] !== undefined;
  const owners = regions.every(isOwned) && devices.length > 0 ? devices : [...devices, undefined];
  const undeclared = [...(shown?.regions ?? [])].filter(([id]) => tables.regions[id] === undefined);
  return (
    <section class="map" aria-label="Device map">
      <div class="map-scroll">
        {owners.map((device) => (
          <div key={device?.id ?? -1}>
            <h2>
              {device?.name ?? (devices.length === 0 ? 'no device yet' : 'of no device')}
              {device !== undefined && (
                <small>
                  {device.type} {vendorDevice(device.vendorId, device.deviceId)}
                </small>
              )}
            </h2>
            {regions
              .filter((region) =>
                device === undefined ? !isOwned(region) : region.device === device.id,
              )
              .map((region) => (
                <RegionMap
                  key={region.id}
                  region={region}
                  traffic={byRegion.get(region.id) ?? []}
                  all={shown?.regions.get(region.id)}
                  most={most}
                />
              ))}
          </div>
        ))}
        {undeclared.map(([id, { reads, writes }]) => (
          <p class="not-drawn" key={id}>
            region {id}, of which nothing was told: {counted(reads + writes, 'access', 'accesses')}
          </p>
        ))}
        <Busiest traffic={traffic} all={shown?.registerCount ?? 0} others={shown?.others} />
      </div>
      <p class="map-foot" aria-hidden="true">
        <Hovered />
      </p>
    </section>
  );
}

interface RegionMapProps {
  readonly region: Region;
  readonly traffic: readonly RegisterCount[];
  /** Of all its registers, also those that are not in `traffic`. */
  readonly all: RegionSum | undefined;
  readonly most: number;
}

type RegionSum = ReadsAndWrites & { readonly registers: number };

const NO_SUM: RegionSum = { registers: 0, reads: 0, writes: 0 };

function RegionMap({ region, traffic, all = NO_SUM, most }: RegionMapProps) {
  const lines: { readonly at: number; readonly cells: RegisterCount[] }[] = [];
  for (const one of traffic) {
    const at = Math.floor(one.offset / LINE_BYTES) * LINE_BYTES;
    const last = lines.at(-1);
    if (last?.at === at) last.cells.push(one);
    else if (lines.length < MAX_LINES) lines.push({ at, cells: [one] });
  }
  const total = all.reads + all.writes;
  const drawn = lines.flatMap(({ cells }) => cells);
  const rest = drawn.reduce((sum, { reads, writes }) => sum - reads - writes, total);
  const registers = all.registers - drawn.length;
  const name = region.name.toLowerCase();
  return (
    <div class="region">
      <h3>
        <button
          class="link"
          onClick={() =>
            (state.filter.value = /^(?:bar\d|rom)$/.test(name) ? name : `region="${region.name}"`)
          }
          title="Filter by this region"
        >
          {region.name}
        </button>
        <small>
          {bytes(region.sizeBytes)} · {total === 0 ? 'no access' : count(total)}
        </small>
      </h3>
      {lines.map(({ at, cells }, index) => {
        const gap = index > 0 && at !== (lines[index - 1]?.at ?? 0) + LINE_BYTES;
        return (
          <div class={`map-line${gap ? ' gap' : ''}`} key={at}>
            <span>{hex(at)}</span>
            <div class="cells" style={{ height: `${LINE_PX}px` }}>
              {cells.map((cell) => (
                <Cell key={cell.offset} cell={cell} lineAt={at} most={most} />
              ))}
            </div>
          </div>
        );
      })}
      {rest > 0 && (
        <p class="not-drawn">
          not drawn: {registers > 0 && `${counted(registers, 'register')}, `}
          {counted(rest, 'access', 'accesses')}
        </p>
      )}
    </div>
  );
}

interface CellProps {
  readonly cell: RegisterCount;
  readonly lineAt: number;
  readonly most: number;
}

/** Its colour says what is done to it, its strength how often. */
function Cell({ cell, lineAt, most }: CellProps) {
  const { reads, writes, offset, width } = cell;
  const kind = writes === 0 ? 'reads' : reads === 0 ? 'writes' : 'both';
  const strength = 0.45 + (0.55 * Math.log1p(reads + writes)) / Math.log1p(most);
  const chosen = state.sameRegister(state.register.value, cell);
  return (
    <button
      class={`cell ${kind}${chosen ? ' chosen' : ''}`}
      style={{
        left: `${((offset - lineAt) / LINE_BYTES) * 100}%`,
        width: `max(4px, ${(Math.max(4, width) / LINE_BYTES) * 100}%)`,
        opacity: strength,
      }}
      tabIndex={-1}
      aria-label={`${state.registerName(cell)}: ${reads} reads, ${writes} writes`}
      onMouseEnter={() => (hovered.value = cell)}
      onMouseLeave={() => (hovered.value = undefined)}
      onClick={() => choose(cell)}
    />
  );
}

/** A click filters by it; another one on the same shows all again. */
function choose(cell: state.Register): void {
  const filter = state.registerFilter(cell);
  state.filter.value = state.filter.peek() === filter ? '' : filter;
  state.register.value = cell;
}

function Hovered() {
  const cell = hovered.value;
  if (cell === undefined) {
    return (
      <>
        <i class="key reads" /> read <i class="key writes" /> written <i class="key both" /> both
      </>
    );
  }
  return (
    <>
      {state.registerName(cell)}: <span class="reads">{short(cell.reads)} R</span>{' '}
      <span class="writes">{short(cell.writes)} W</span>, last 0x
      {hexDigits(cell.valueLo, cell.valueHi, cell.width)}
    </>
  );
}

interface BusiestProps {
  readonly traffic: readonly RegisterCount[];
  readonly all: number;
  readonly others: ReadsAndWrites | undefined;
}

function Busiest({ traffic, all, others = { reads: 0, writes: 0 } }: BusiestProps) {
  const top = traffic.toSorted((a, b) => b.reads + b.writes - a.reads - a.writes).slice(0, BUSIEST);
  return (
    <>
      <h2>
        busiest <small>of {count(all)} registers</small>
      </h2>
      <table class="busiest" id="busiest">
        <thead>
          <tr>
            <th>register</th>
            <th>reads</th>
            <th>writes</th>
            <th>last value</th>
          </tr>
        </thead>
        <tbody>
          {top.map((one) => (
            <tr
              key={`${one.region} ${one.offset}`}
              class={state.sameRegister(state.register.value, one) ? 'same' : ''}
            >
              <td>
                <button class="link" onClick={() => choose(one)}>
                  {state.registerName(one)}
                </button>
              </td>
              <td class="reads">{one.reads === 0 ? '·' : short(one.reads)}</td>
              <td class="writes">{one.writes === 0 ? '·' : short(one.writes)}</td>
              <td>{hexDigits(one.valueLo, one.valueHi, one.width)}</td>
            </tr>
          ))}
          {others.reads + others.writes > 0 && (
            <tr>
              <td title={`Registers that came when ${count(MAX_REGISTERS)} were known`}>others</td>
              <td class="reads">{short(others.reads)}</td>
              <td class="writes">{short(others.writes)}</td>
              <td />
            </tr>
          )}
        </tbody>
      </table>
    </>
  );
}
