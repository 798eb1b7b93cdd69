import type { AccessBatch } from '../model/access-batch.ts';
import type { RecordingHeader } from '../model/events.ts';
import { isBatch, type Sink, type StreamItem } from '../model/stream.ts';
import { Tables, type TablesSnapshot } from '../model/tables.ts';
import { eventObject, headerObject } from './ndjson-events.ts';
import { NdjsonRows } from './ndjson-rows.ts';
import type { ByteOutput } from './output.ts';
import { TextWriter } from './text-writer.ts';

/**
 * One JSON object a line, UTF-8; the first is the header. docs/ndjson.schema.json describes each.
 * What may have more than 53 bits is a string of hexadecimal digits with 0x; `t` is nanoseconds of
 * session time.
 */
export class NdjsonSink implements Sink {
  readonly #writer: TextWriter;
  #tables = new Tables();
  #rows: NdjsonRows;

  constructor(output: ByteOutput) {
    this.#writer = new TextWriter(output);
    this.#rows = new NdjsonRows(this.#writer, this.#tables);
  }

  begin(header: RecordingHeader): void | Promise<void> {
    this.#use(new Tables());
    return this.#object(headerObject(header));
  }

  readonly leftOut = 0;

  resume(_header: RecordingHeader, tables: TablesSnapshot): void {
    this.#use(new Tables(tables));
  }

  write(item: StreamItem): void | Promise<void> {
    if (isBatch(item)) {
      const row = this.#rows.put(item, 0);
      return row < item.length ? this.#writeRest(item, row) : undefined;
    }
    this.#tables.apply(item);
    this.#rows.apply(item);
    return this.#object(eventObject(item, this.#tables));
  }

  flush(): Promise<number> {
    return this.#writer.flush();
  }

  end(): Promise<void> {
    return this.#writer.close();
  }

  #use(tables: Tables): void {
    this.#tables = tables;
    this.#rows = new NdjsonRows(this.#writer, tables);
  }

  #object(object: object): void | Promise<void> {
    return this.#writer.text(`${JSON.stringify(object)}\n`);
  }

  async #writeRest(batch: AccessBatch, from: number): Promise<void> {
    for (let row = from; row < batch.length; row = this.#rows.put(batch, row)) {
      await this.#writer.room();
    }
  }
}
