/** A QEMU trace log of any origin, as a recording: the decoder and attribution, without a VM. */
import { MmioError } from '../base/errors.ts';
import { TOOL } from '../base/version.ts';
import { guestAddress } from '../model/device.ts';
import { AnalysisPass } from '../analysis/analysis.ts';
import { countersOf, TotalsAnalysis } from '../analysis/totals.ts';
import type { Counters, RecordingHeader } from '../model/events.ts';
import type { Recording, StreamItem } from '../model/stream.ts';
import type { DecodedSoFar } from '../sources/qemu-log/decoder.ts';
import type { RawBatch } from '../sources/raw-batch.ts';
import type { RawEvent } from '../sources/raw-events.ts';
import type { BarBase } from '../attribution/devices.ts';
import { Attribution } from '../attribution/attribution.ts';

export interface LogOptions {
  /** What `--device` named; empty: all vfio devices. */
  readonly selection: readonly string[];
  readonly barBases: readonly BarBase[];
}

/**
 * @param items of the decoder: all of its log
 * Throws MmioError `damaged` where the input has no line of a QEMU log; while it is read,
 * `not-found` at its end if no device of the log was selected.
 */
export async function openQemuLog(
  decoder: DecodedSoFar,
  items: AsyncGenerator<RawBatch | RawEvent>,
  options: LogOptions,
): Promise<Recording> {
  const attribution = new Attribution(options.selection);
  attribution.targets = decoder.targets;
  for (const base of options.barBases) attribution.devices.placeByHand(base);
  // The first item is decoded before the header is made: it tells when the recording began.
  const first = await items.next();
  const start = decoder.start;
  const header: RecordingHeader = {
    tool: TOOL,
    source: 'qemu-log',
    startSec: start?.sec ?? 0,
    startNs: start?.ns ?? 0,
    textBaseSec: 0,
    clock: start === undefined ? 'none' : 'qemu',
    qemuVersion: '',
    argv: [],
  };
  const totals = new TotalsAnalysis();
  const pass = new AnalysisPass([totals]);
  async function* stream(): AsyncGenerator<StreamItem> {
    for (let next = first; next.done !== true; next = await items.next()) {
      attribution.take(next.value);
      for (let item; (item = attribution.next()) !== undefined;) {
        pass.write(item);
        yield item;
      }
    }
    requireAny(attribution, decoder, options);
    const counters = countersOf(totals.result(), attribution.otherLines(decoder.otherLines));
    yield* ending(attribution.lastTimeNs, counters, start === undefined);
  }
  return { header, items: stream };
}

function* ending(timeNs: number, counters: Counters, timeless: boolean): Generator<StreamItem> {
  const notes = ['converted from a QEMU log: which accesses bypassed QEMU is not known'];
  if (timeless) notes.push('the log has no time stamps: all times are 0');
  yield { kind: 'coverage', timeNs, statement: { phase: 'end', ranges: [], notes } };
  const complete = counters.damagedLines === 0 && counters.lossEvents === 0;
  yield { kind: 'end', timeNs, complete, counters };
}

/** Throws where nothing came out because nothing was selected: tells what there would be. */
function requireAny(attribution: Attribution, decoder: DecodedSoFar, options: LogOptions): void {
  if (attribution.devices.selected.length > 0) return;
  const devices = attribution.devices.states.map(({ device }) =>
    device.hostAddress === ''
      ? `${device.type} at ${guestAddress(device)}`
      : `${device.type || 'vfio'} ${device.hostAddress}`,
  );
  const wanted = options.selection.join(', ');
  if (devices.length === 0 && decoder.targets.length === 0) {
    const names = [...decoder.otherLines.keys()].slice(0, 10).join(', ');
    throw new MmioError('damaged', 'the input has no line of a known QEMU trace event', {
      evidence: names === '' ? 'it is empty' : `it has lines of: ${names}`,
      hint: "QEMU must trace vfio_region_* or memory_region_ops_*, and 'pci_update_mappings_*'",
    });
  }
  throw new MmioError(
    'not-found',
    wanted === '' ? 'the log has no passed-through device' : `the log has no device ${wanted}`,
    {
      evidence: `it has: ${devices.join('; ') || 'memory regions, and no mapping of a PCI device'}`,
      hint:
        devices.length === 0
          ? 'say where the BARs are with --bar-base DEVICE:BAR=ADDR+SIZE'
          : 'name one with --device: its type or its address',
    },
  );
}
