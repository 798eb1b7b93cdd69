import { MmioError } from '../base/errors.ts';
import type { CoverageState, CoverageStatement } from '../model/coverage.ts';
import type { Region } from '../model/device.ts';
import type { InterruptEvent, RecordingHeader } from '../model/events.ts';
import { v1 } from './generated/mmiobridge.ts';
import type { mmiobridge } from './generated/types.ts';

/** The values of an enum in proto/mmiobridge.proto by the model's words; 0 is nobody's. */
type Values<Word extends string, Value extends number> = Readonly<Record<Word, Value>>;

const { Source, Clock } = v1.RecordingHeader;
const { Kind } = v1.Region;
const { Type } = v1.InterruptEvent;
const { Phase } = v1.CoverageStatement;
const { State } = v1.CoverageRange;

export const SOURCE: Values<RecordingHeader['source'], mmiobridge.v1.RecordingHeader.Source> = {
  'qemu-log': Source.SOURCE_QEMU_LOG,
  mmiotrace: Source.SOURCE_MMIOTRACE,
  kvm: Source.SOURCE_KVM,
  plugin: Source.SOURCE_PLUGIN,
};
export const CLOCK: Values<RecordingHeader['clock'], mmiobridge.v1.RecordingHeader.Clock> = {
  qemu: Clock.CLOCK_QEMU,
  poll: Clock.CLOCK_POLL,
  kernel: Clock.CLOCK_KERNEL,
  none: Clock.CLOCK_NONE,
};
export const REGION_KIND: Values<Region['kind'], mmiobridge.v1.Region.Kind> = {
  bar: Kind.KIND_BAR,
  rom: Kind.KIND_ROM,
  config: Kind.KIND_CONFIG,
  window: Kind.KIND_WINDOW,
};
export const INTERRUPT_TYPE: Values<InterruptEvent['type'], mmiobridge.v1.InterruptEvent.Type> = {
  intx: Type.TYPE_INTX,
  msi: Type.TYPE_MSI,
  msix: Type.TYPE_MSIX,
};
export const COVERAGE_PHASE: Values<
  CoverageStatement['phase'],
  mmiobridge.v1.CoverageStatement.Phase
> = {
  head: Phase.PHASE_HEAD,
  end: Phase.PHASE_END,
};
export const COVERAGE_STATE: Values<CoverageState, mmiobridge.v1.CoverageRange.State> = {
  trapped: State.STATE_TRAPPED,
  bypassed: State.STATE_BYPASSED,
  emulated: State.STATE_EMULATED,
  unknown: State.STATE_UNKNOWN,
};

/** The model's word for `value`. Throws MmioError `damaged` if there is none. */
export function wordOf<Word extends string>(
  values: Values<Word, number>,
  value: number | null | undefined,
  what: string,
): Word {
  for (const word in values) if (values[word] === value) return word;
  throw new MmioError('damaged', 'a frame has an impossible value', {
    evidence: `${what} ${value}`,
  });
}
