/**
 * Where a sink's bytes go: a file, a compressed file, standard output. What is handed to `write`
 * belongs to the output until the promise settles; calls may be made without awaiting the one
 * before, and are carried out in order.
 */
export interface ByteOutput {
  write(bytes: Uint8Array): Promise<void>;
  /** Everything written is with the system, a compressed file can be cut here; the length so far. */
  flush(): Promise<number>;
  /** Everything flushed is on the disk. */
  sync(): Promise<void>;
  close(): Promise<void>;
}
