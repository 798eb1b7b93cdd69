import type { Notice } from '../../base/notice.ts';
import type { StreamItem } from '../../model/stream.ts';
import type { OutputFormat } from '../../sinks/index.ts';
import type { TextExtra } from '../../sinks/text-extra.ts';
import type { OpenRemote, RemoteTarget } from '../session/remote.ts';
import type { SourceName } from '../source/index.ts';

/** What a user wants of a recording. */
export interface RecordOptions {
  readonly outputs: readonly string[];
  readonly remote?: RemoteTarget | undefined;
  readonly openRemote?: OpenRemote | undefined;
  readonly format?: OutputFormat | undefined;
  readonly textExtra?: readonly TextExtra[] | undefined;
  readonly selection: readonly string[];
  readonly overflow: 'pause' | 'drop';
  /** Offset in configuration space whose writes are the guest's marks. */
  readonly markRegister?: number | undefined;
  /** Bytes on tmpfs; undefined: 1 GiB, or three quarters of what is free. */
  readonly spoolLimitBytes?: number | undefined;
  /** Program counters from KVM's tracepoints. */
  readonly pc: boolean;
  readonly source: SourceName;
  /** Where QEMU may write; undefined: the session's own folder. */
  readonly spoolDir?: string | undefined;
  /** Of a QEMU that is started: interrupts of passed-through devices, too. */
  readonly interrupts: boolean;
  readonly notice: Notice;
  /** Whoever waits for it to begin does not want it any more: an output that is full is given up. */
  readonly signal?: AbortSignal | undefined;
  /** Is shown each item on its way to the outputs, in their order; a batch is valid during the call. */
  readonly observe?: ((item: StreamItem) => void) | undefined;
  /** What QEMU would have written to its standard error, had its log been its own. */
  readonly onUserLog: (bytes: Uint8Array) => void;
}

/** What is told again when a recording is resumed. */
export type ResumeOptions = Pick<
  RecordOptions,
  'notice' | 'onUserLog' | 'openRemote' | 'signal' | 'observe'
>;
