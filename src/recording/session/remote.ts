/**
 * What a recording knows of a collector: an output that takes the bytes of a capture, and through
 * which the other end may ask what `mark` and `status` ask. `bridge/` has the one there is.
 */
import type { ByteOutput } from '../../sinks/output.ts';
import type { ControlRequest } from './control-socket.ts';

/** Where a recording goes; kept with the session, so that `resume` can go on. Holds no secret. */
export interface RemoteTarget {
  /** `unix:PATH`, `tcp://HOST:PORT`, `tls://HOST:PORT` */
  readonly address: string;
  /** Absolute. undefined: the environment has the token. */
  readonly tokenFile: string | undefined;
  /** Certificates to trust instead of the system's; absolute. */
  readonly caFile: string | undefined;
  /** The token may go to another host unencrypted. */
  readonly insecurePlaintext: boolean;
  /** Names the recording for as long as it lives: 32 hexadecimal digits. */
  readonly recording: string;
}

/** What the collector is told of the recording. */
export interface RemoteSession {
  readonly id: string;
  readonly devices: readonly string[];
  /** Length of the capture to go on from. */
  readonly resumeAt: number | undefined;
  readonly notice: (message: string) => void;
}

export interface RemoteState {
  readonly address: string;
  /** null: all is well. */
  readonly problem: string | null;
  /** Bytes of the capture that the collector has on its disk. */
  readonly acknowledgedBytes: number;
  /** Bytes that are kept here until it has. */
  readonly waitingBytes: number;
}

export interface RemoteOutput extends ByteOutput {
  readonly state: RemoteState;
  /** Lets go of the collector at once: the recording can be resumed. */
  drop(): void;
  /** From now on the collector's requests are answered. */
  serve(handle: (request: ControlRequest) => Promise<unknown>): void;
}

/** Throws MmioError where the collector cannot be reached, or does not take the recording. */
export type OpenRemote = (target: RemoteTarget, session: RemoteSession) => Promise<RemoteOutput>;
