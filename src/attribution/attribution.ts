/**
 * One recording's rules: what QEMU's log says comes in, what the guest did to its devices goes out,
 * in the same order. Attribution, mapping, vCPU and time are decided here.
 *
 * Pulled like the decoder: `take` a batch or an event, then call `next` until it has no more.
 * Everything that it knows is in `snapshot`, so that a recording can go on in another process.
 */
import { hex, hex64 } from '../base/format.ts';
import { NO_CPU, NO_MAPPING, Space } from '../model/access-batch.ts';
import { isMsixTable } from '../machine/coverage.ts';
import type { Counters, RecordingEvent } from '../model/events.ts';
import type { Device, Region } from '../model/device.ts';
import type { StreamItem } from '../model/stream.ts';
import { RawBatch } from '../sources/raw-batch.ts';
import type { RawEvent, RawTarget } from '../sources/raw-events.ts';
import type { BarMapping } from './address-space.ts';
import type { DeviceState } from './device-state.ts';
import { Devices, type DevicesSnapshot } from './devices.ts';
import type { Selection } from './selection.ts';

/** Accesses of the devices themselves (DMA into another's BAR) are counted under this name. */
const DEVICE_ACCESS = 'memory_region_ops (a device, not a vCPU)';

/** So are those that KVM or the plugin saw go to no recorded BAR. */
const ELSEWHERE = 'accesses to no recorded BAR';

export interface AttributionSnapshot {
  readonly devices: DevicesSnapshot;
  readonly nextMapId: number;
  readonly announced: readonly number[];
  readonly describedRegions: readonly number[];
  readonly warnedRegions: readonly number[];
  readonly lastTimeNs: number;
  readonly deviceAccesses: number;
  readonly elsewhere: number;
  readonly configWrites: number;
}

/** What the targets of the log's lines have turned out to be; by target index. */
type Resolved =
  | { readonly kind: 'vfio'; readonly state: DeviceState; readonly slot: number }
  | { readonly kind: 'config'; readonly state: DeviceState }
  | {
      readonly kind: 'address';
      readonly name: string;
      /** A part of a passed-through device that QEMU answers by itself. */
      readonly ofTable: boolean;
    }
  | { readonly kind: 'guest-address' };

export class Attribution {
  readonly devices: Devices;
  /** The decoder's, which grow while it decodes; set before the first batch is taken. */
  targets: readonly RawTarget[] = [];
  /** vCPU of each QEMU thread. */
  vcpuOfThread: ReadonlyMap<number, number> = new Map();
  /** Time of lines that have no stamp; the last known time where it is not set. */
  pollTimeNs = NaN;

  /** Writes to this offset of a recorded device's configuration space are marks. */
  markRegister: number | undefined;

  #deviceAccesses: number;
  #elsewhere: number;
  /** Told of by `pci_cfg_write`, and no marks. */
  #configWrites: number;
  #lastTimeNs: number;
  #nextMapId: number;
  /** Devices told of, regions described, regions whose address is not known and said to be. */
  readonly #announced: Map<number, Device | undefined>;
  readonly #described: Set<number>;
  readonly #warned: Set<number>;

  readonly #resolved: (Resolved | undefined)[] = [];
  readonly #queue: RecordingEvent[] = [];
  #batch: RawBatch | undefined;
  #row = 0;
  #rows = 0;

  constructor(selection: Selection, from?: AttributionSnapshot) {
    this.devices = new Devices(selection, from?.devices);
    this.#nextMapId = from?.nextMapId ?? 1;
    this.#announced = new Map(from?.announced.map((id) => [id, undefined]));
    this.#described = new Set(from?.describedRegions);
    this.#warned = new Set(from?.warnedRegions);
    this.#lastTimeNs = from?.lastTimeNs ?? 0;
    this.#deviceAccesses = from?.deviceAccesses ?? 0;
    this.#elsewhere = from?.elsewhere ?? 0;
    this.#configWrites = from?.configWrites ?? 0;
  }

  snapshot(): AttributionSnapshot {
    return {
      devices: this.devices.snapshot(),
      nextMapId: this.#nextMapId,
      announced: [...this.#announced.keys()],
      describedRegions: [...this.#described],
      warnedRegions: [...this.#warned],
      lastTimeNs: this.#lastTimeNs,
      deviceAccesses: this.#deviceAccesses,
      elsewhere: this.#elsewhere,
      configWrites: this.#configWrites,
    };
  }

  /** Time of the latest line. */
  get lastTimeNs(): number {
    return this.#lastTimeNs;
  }

  /** What was read and is no access to a recorded BAR, by name; lines of the decoder's among it. */
  otherLines(ofDecoder: ReadonlyMap<string, number>): Counters['otherLines'] {
    return {
      ...Object.fromEntries(ofDecoder),
      ...(this.#deviceAccesses > 0 && { [DEVICE_ACCESS]: this.#deviceAccesses }),
      ...(this.#configWrites > 0 && { pci_cfg_write: this.#configWrites }),
      ...(this.#elsewhere > 0 && { [ELSEWHERE]: this.#elsewhere }),
    };
  }

  /** Hands over what the decoder gave. All that came before must have been taken by `next`. */
  take(item: RawBatch | RawEvent): void {
    if (item instanceof RawBatch) {
      this.#batch = item;
      this.#row = 0;
      this.#rows = item.length;
    } else {
      this.#takeEvent(item);
    }
  }

  /** Something that did not come from the log; it stands at this place in the stream. */
  note(event: RecordingEvent): void {
    this.#lastTimeNs = Math.max(this.#lastTimeNs, event.timeNs);
    this.#queue.push(event);
  }

  /** The next item for the sinks; a batch is valid until the next call. */
  next(): StreamItem | undefined {
    const event = this.#queue.shift();
    if (event !== undefined) return event;
    const batch = this.#batch;
    if (batch === undefined) return undefined;
    const rows = this.#resolveRows(batch);
    if (rows > 0) {
      batch.length = rows;
      return batch;
    }
    return this.#queue.length > 0 || this.#batch !== undefined ? this.next() : undefined;
  }

  /** Attributes rows from #row on until an event must go first; how many are ready. */
  #resolveRows(batch: RawBatch): number {
    const rows = this.#rows;
    const { target, thread, cpu, op, width, space, timeNs, offset, valueLo, valueHi } = batch;
    const { pcLo, pcHi } = batch;
    let out = 0;
    // PERF: most rows go where the one before went, by the same thread. Nothing that is decided
    // here for a vfio region can change before the next event, so it is kept from row to row.
    let keptTarget = -1;
    let keptThread = -1;
    let keptCpu = NO_CPU;
    let barMapping: BarMapping | undefined;
    let introduced: BarMapping | undefined;
    let regionId = 0;
    let rowSpace: number = Space.mmio;
    for (; this.#row < rows; this.#row++) {
      const row = this.#row;
      let at = offset[row]!;
      let time = timeNs[row]!;
      if (time !== time) time = this.#unstampedTimeNs();
      if (target[row] === keptTarget && thread[row] === keptThread) {
        cpu[row] = keptCpu;
      } else {
        const resolved = this.#resolve(target[row]!);
        let region: Region | undefined;
        keptTarget = -1;
        rowSpace = Space.mmio;
        if (resolved.kind === 'address') {
          if (cpu[row] === NO_CPU) {
            this.#deviceAccesses++;
            continue;
          }
          at = this.devices.addresses.guestAddressOf(resolved.name, at);
          barMapping = this.devices.addresses.mappingAt(at);
          if (barMapping === undefined) continue;
          // The same access is in vfio's own lines, but for what QEMU emulates of the device.
          if (!resolved.ofTable && this.devices.hasVfioLines(barMapping)) continue;
          at -= barMapping.gpa;
          region = barMapping.region;
        } else if (resolved.kind === 'guest-address') {
          barMapping = this.devices.addresses.mappingAt(at);
          if (barMapping === undefined) {
            this.#elsewhere++;
            continue;
          }
          at -= barMapping.gpa;
          region = barMapping.region;
        } else {
          if (!resolved.state.selected) continue;
          if (resolved.kind === 'config') {
            barMapping = undefined;
            region = this.devices.configRegion(resolved.state);
            rowSpace = Space.config;
            if (op[row] === 0) {
              this.devices.learnConfig(resolved.state, at, width[row]!, valueLo[row]!);
            }
          } else {
            barMapping = resolved.state.barMappings[resolved.slot];
            region = barMapping?.region ?? this.devices.region(resolved.state, resolved.slot);
          }
          const known = this.vcpuOfThread.get(thread[row]!);
          if (known !== undefined) cpu[row] = known;
        }
        if (barMapping?.io === true) rowSpace = Space.pio;
        this.#lastTimeNs = time;
        if (barMapping === undefined || barMapping !== introduced) {
          if (!this.#isIntroduced(region, barMapping)) {
            if (out > 0) break;
            if (this.#introduce(region, barMapping, rowSpace, time)) return 0;
          }
          introduced = barMapping;
        }
        regionId = region.id;
        if (resolved.kind === 'vfio') {
          keptTarget = target[row]!;
          keptThread = thread[row]!;
          keptCpu = cpu[row]!;
        }
      }
      this.#lastTimeNs = time;

      timeNs[out] = time;
      op[out] = op[row]!;
      space[out] = rowSpace;
      width[out] = width[row]!;
      batch.region[out] = regionId;
      batch.mapId[out] = barMapping === undefined ? NO_MAPPING : barMapping.mapId;
      offset[out] = at;
      valueLo[out] = valueLo[row]!;
      valueHi[out] = valueHi[row]!;
      cpu[out] = cpu[row]!;
      thread[out] = thread[row]!;
      pcLo[out] = pcLo[row]!;
      pcHi[out] = pcHi[row]!;
      out++;
    }
    if (this.#row === rows) this.#batch = undefined;
    return out;
  }

  #unstampedTimeNs(): number {
    return Number.isNaN(this.pollTimeNs) ? this.#lastTimeNs : this.pollTimeNs;
  }

  #resolve(target: number): Resolved {
    const known = this.#resolved[target];
    if (known !== undefined) return known;
    const resolved = this.#resolveTarget(this.targets[target]!);
    this.#resolved[target] = resolved;
    return resolved;
  }

  #resolveTarget(target: RawTarget): Resolved {
    switch (target.kind) {
      case 'memory-region':
        return { kind: 'address', name: target.name, ofTable: isMsixTable(target.name) };
      case 'vfio-config':
        return { kind: 'config', state: this.devices.vfio(target.device) };
      case 'vfio-rom':
        return { kind: 'vfio', state: this.devices.vfio(target.device), slot: 6 };
      case 'guest-address':
        return { kind: 'guest-address' };
      case 'vfio-region':
        return { kind: 'vfio', state: this.devices.vfio(target.device), slot: target.region };
    }
  }

  /** Queues what must be said before the first access to a region, or through a barMapping. */
  #introduce(
    region: Region,
    barMapping: BarMapping | undefined,
    space: number,
    timeNs: number,
  ): boolean {
    const state = this.devices.states[region.device];
    if (state === undefined) return false;
    const first = this.#nextMapId === 1;
    if (barMapping !== undefined && barMapping.mapId === NO_MAPPING) {
      const before = state.usedMappings[region.bar];
      if (before !== undefined) this.#queue.push({ kind: 'unmap', timeNs, mapId: before.mapId });
      // Before the very first MAP stand the PCIDEV lines of all devices of the recording.
      if (first) for (const other of this.devices.selected) this.#announce(other, timeNs);
      else this.#announce(state, timeNs);
      this.#describe(region, timeNs);
      barMapping.mapId = this.#nextMapId++;
      state.usedMappings[region.bar] = barMapping;
      this.#queue.push({ kind: 'map', timeNs, mapping: this.devices.mapping(barMapping) });
      if (this.devices.isSizeGuessed(region)) {
        const text = `${state.device.name} ${region.name}: size not known, taken as the most that its address allows`;
        this.#queue.push({ kind: 'notice', timeNs, text });
      }
    } else {
      if (!this.#announced.has(state.device.id)) this.#announce(state, timeNs);
      this.#describe(region, timeNs);
      if (barMapping === undefined && space !== Space.config && !this.#warned.has(region.id)) {
        const text = `${state.device.name} ${region.name}: no mapping known, addresses are offsets within the BAR`;
        this.#queue.push({ kind: 'notice', timeNs, text });
      }
      if (barMapping === undefined) this.#warned.add(region.id);
    }
    return this.#queue.length > 0;
  }

  #announce(state: DeviceState, timeNs: number): void {
    // The same PCIDEV twice says nothing.
    if (this.#announced.get(state.device.id) === state.device) return;
    this.#announced.set(state.device.id, state.device);
    this.#queue.push({ kind: 'device', timeNs, device: state.device });
  }

  #describe(region: Region, timeNs: number): void {
    if (this.#described.has(region.id)) return;
    this.#described.add(region.id);
    this.#queue.push({ kind: 'region', timeNs, region });
  }

  #takeFailure(event: Extract<RawEvent, { kind: 'failed' }>, timeNs: number): void {
    const resolved = this.#resolveTarget(event.target);
    if ((resolved.kind !== 'vfio' && resolved.kind !== 'config') || !resolved.state.selected)
      return;
    const { state } = resolved;
    const barMapping = resolved.kind === 'vfio' ? state.barMappings[resolved.slot] : undefined;
    const region =
      resolved.kind === 'config'
        ? this.devices.configRegion(state)
        : (barMapping?.region ?? this.devices.region(state, resolved.slot));
    const space =
      resolved.kind === 'config' ? Space.config : barMapping?.io === true ? Space.pio : Space.mmio;
    // QEMU complains of a write before its log tells of it.
    if (!this.#isIntroduced(region, barMapping)) this.#introduce(region, barMapping, space, timeNs);
    const { write, address, width, valueLo, valueHi, reason } = event;
    this.#queue.push({
      kind: 'failed',
      timeNs,
      write,
      region: region.id,
      offset: address,
      width,
      value: hex64(valueLo, valueHi),
      reason,
    });
  }

  /** The guest's own mark: any program in it can write there. */
  #takeConfigWrite(event: Extract<RawEvent, { kind: 'config-write' }>, timeNs: number): void {
    const { offset, value } = event;
    const state = offset === this.markRegister ? this.devices.at(event) : undefined;
    if (state?.selected !== true) {
      this.#configWrites++;
      return;
    }
    const text = `guest: ${hex(value)} (${state.device.name} config+${hex(offset)})`;
    this.#queue.push({ kind: 'mark', timeNs, text });
  }

  #isIntroduced(region: Region, barMapping: BarMapping | undefined): boolean {
    const isReady =
      barMapping === undefined ? this.#warned.has(region.id) : barMapping.mapId !== NO_MAPPING;
    return isReady && this.#described.has(region.id);
  }

  #takeEvent(event: RawEvent): void {
    const timeNs = Number.isNaN(event.timeNs) ? this.#unstampedTimeNs() : event.timeNs;
    this.#lastTimeNs = timeNs;
    switch (event.kind) {
      case 'mapping':
        this.devices.map(event);
        return;
      case 'region-setup':
        this.devices.setRegionSize(event.device, event.region, event.sizeBytes);
        return;
      case 'msix-use':
        this.devices.vfio(event.device).usesMsix = true;
        return;
      case 'loss':
        this.note({ ...event, timeNs });
        return;
      case 'failed':
        this.#takeFailure(event, timeNs);
        return;
      case 'damage':
        this.#queue.push({ ...event, timeNs });
        return;
      case 'ioeventfd': {
        const place = `${event.region}+${hex(event.offset)}`;
        const reason = `QEMU leaves writes of ${event.value} to ${place} to the kernel from here on`;
        this.note({ kind: 'loss', timeNs, count: -1, durationNs: 0, reason });
        return;
      }
      case 'config-write':
        this.#takeConfigWrite(event, timeNs);
        return;
      case 'reset':
      case 'interrupt': {
        const state = this.devices.vfio(event.device);
        if (!state.selected) return;
        if (!this.#announced.has(state.device.id)) this.#announce(state, timeNs);
        const device = state.device.id;
        if (event.kind === 'reset') this.#queue.push({ kind: 'reset', timeNs, device });
        else {
          const type = event.type === 'msi' && state.usesMsix ? 'msix' : event.type;
          this.#queue.push({ kind: 'interrupt', timeNs, device, type, vector: event.vector });
        }
        return;
      }
    }
  }
}
