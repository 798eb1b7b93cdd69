import { hex } from '../base/format.ts';
import type { AccessBatch } from '../model/access-batch.ts';
import type { LineEvent, MarkEvent, RecordingEvent, RecordingHeader } from '../model/events.ts';
import { positionText } from '../model/position.ts';
import { isBatch, type Sink, type StreamItem } from '../model/stream.ts';
import { Tables, type TablesSnapshot } from '../model/tables.ts';
import {
  asciiOnly,
  asField,
  asUsers,
  coverageTexts,
  damageText,
  endText,
  lossText,
  MAX_LINE_BYTES,
  ours,
  pcidevLine,
  pieces,
  headerText,
  singleSpaced,
} from './mmiotrace-lines.ts';
import { MmiotraceRows } from './mmiotrace-rows.ts';
import type { TextExtra, SinkOptions } from './text-extra.ts';
import type { ByteOutput } from './output.ts';
import { TextTime } from './text-time.ts';
import { TextWriter } from './text-writer.ts';

/** Line that would be read as an access, or (`#`) as a comment, which this format has not. */
const MISLEADING = /^(?:[RW#]|UNKNOWN)/;
/** Low flag bit of a BAR that is I/O ports. */
const IO_BAR = 1;
const ADDRESS = /^0x[0-9a-f]{1,16}$/;
const PRINTABLE = /^[\x20-\x7e]+$/;

/**
 * mmiotrace text, version 20070824, as Linux kernel/trace/trace_mmiotrace.c prints it; what that
 * has no line for is a MARK that begins with `mmiobridge: ` (docs/formats.md). A recording that was
 * read from such text comes out as it went in: nothing is added to it.
 */
export class MmiotraceSink implements Sink {
  readonly #writer: TextWriter;
  readonly #textExtra: readonly TextExtra[];
  #tables = new Tables();
  #time = new TextTime(0);
  #rows: MmiotraceRows;
  /** The recording is one of the kernel's: leave its spaces alone, and add nothing. */
  #asItWas = false;

  constructor(output: ByteOutput, options: SinkOptions = {}) {
    this.#writer = new TextWriter(output);
    this.#textExtra = options.textExtra ?? [];
    this.#rows = this.#newRows();
  }

  begin(header: RecordingHeader): void | Promise<void> {
    this.#use(header, new Tables());
    const head = this.#asItWas ? '' : this.#mark(0, headerText(header));
    return this.#writer.text(`VERSION 20070824\n${head}`);
  }

  resume(header: RecordingHeader, tables: TablesSnapshot, leftOut: number): void {
    this.#use(header, new Tables(tables));
    this.#rows.leftOut = leftOut;
  }

  get leftOut(): number {
    return this.#rows.leftOut;
  }

  write(item: StreamItem): void | Promise<void> {
    if (isBatch(item)) {
      const row = this.#rows.put(item, 0);
      return row < item.length ? this.#writeRest(item, row) : undefined;
    }
    this.#tables.apply(item);
    this.#rows.apply(item);
    const lines = this.#lines(item);
    return lines === '' ? undefined : this.#writer.text(lines);
  }

  flush(): Promise<number> {
    return this.#writer.flush();
  }

  end(): Promise<void> {
    return this.#writer.close();
  }

  #use(header: RecordingHeader, tables: Tables): void {
    this.#asItWas = header.source === 'mmiotrace';
    this.#tables = tables;
    this.#time = new TextTime(header.textBaseSec);
    this.#rows = this.#newRows();
  }

  #newRows(): MmiotraceRows {
    return new MmiotraceRows(
      this.#writer,
      this.#tables,
      this.#time,
      this.#asItWas ? undefined : this.#textExtra,
    );
  }

  async #writeRest(batch: AccessBatch, from: number): Promise<void> {
    for (let row = from; row < batch.length; row = this.#rows.put(batch, row)) {
      await this.#writer.room();
    }
  }

  /** What an event is in mmiotrace text: whole lines, none, or several. */
  #lines(event: RecordingEvent): string {
    const { timeNs } = event;
    switch (event.kind) {
      case 'device': {
        // Before firmware has given it an address there is nothing that R and W could refer to.
        const placed = event.device.bars.some((bar) => bar.start !== 0);
        return placed || this.#asItWas ? `${pcidevLine(event.device)}\n` : '';
      }
      case 'region':
        return '';
      case 'map': {
        if (this.#isPorts(event.mapping.region)) return '';
        const { mapId, gpa, lengthBytes } = event.mapping;
        const virt = ADDRESS.test(event.mapping.virt) ? event.mapping.virt : '0x0';
        const fields = `${hex(gpa)} ${virt} ${hex(lengthBytes)} 0x0 0`;
        return `MAP ${this.#time.text(timeNs)} ${mapId | 0} ${fields}\n`;
      }
      case 'unmap':
        if (this.#isPorts(this.#tables.mappings.get(event.mapId)?.region)) return '';
        return `UNMAP ${this.#time.text(timeNs)} ${event.mapId | 0} 0x0 0\n`;
      case 'mark':
        return this.#userMark(event);
      case 'notice':
        return this.#mark(timeNs, ours(event.text));
      case 'loss':
        return this.#mark(timeNs, lossText(event));
      case 'failed': {
        const { write, region, offset, width, value, reason } = event;
        const { device, name } = this.#regionName(region);
        const access = `${write ? 'W' : 'R'} ${width} ${device} ${name}+${hex(offset)} ${value}`;
        return this.#mark(timeNs, ours(`failed ${access}: ${reason}`));
      }
      case 'interrupt': {
        const name = this.#deviceName(event.device);
        return this.#mark(timeNs, ours(`interrupt ${name} ${event.type} ${event.vector}`));
      }
      case 'reset':
        return this.#mark(timeNs, ours(`reset ${this.#deviceName(event.device)}`));
      case 'vm-state':
        return this.#mark(timeNs, ours(`vm-state ${asField(event.state)}`));
      case 'coverage':
        if (this.#asItWas) return '';
        return coverageTexts(event.statement)
          .map((text) => this.#mark(timeNs, text))
          .join('');
      case 'damage': {
        const at = positionText(event.position);
        return this.#mark(timeNs, damageText(at, event.reason, event.evidence));
      }
      case 'line':
        return this.#line(event);
      case 'end':
        return this.#asItWas ? '' : this.#mark(timeNs, endText(event, this.leftOut));
    }
  }

  /** I/O ports are not mapped, and mmiotrace has no word for them. */
  #isPorts(regionId: number | undefined): boolean {
    const region = this.#tables.regions[regionId ?? -1];
    const flags = this.#tables.devices[region?.device ?? -1]?.bars[region?.bar ?? -1]?.flags ?? 0;
    // In the ROM's slot the same bit means that it is enabled.
    return !this.#asItWas && region?.kind === 'bar' && (flags & IO_BAR) !== 0;
  }

  #regionName(id: number): { readonly device: string; readonly name: string } {
    const region = this.#tables.regions[id];
    if (region === undefined) return { device: '-', name: `region${id}` };
    return { device: this.#deviceName(region.device), name: asField(region.name) };
  }

  #deviceName(id: number): string {
    return asField(this.#tables.deviceName(id));
  }

  /** One MARK, or as many as the text needs. */
  #mark(timeNs: number, text: string): string {
    return this.#marks(timeNs, asciiOnly(singleSpaced(text)) || '-', false);
  }

  #userMark(event: MarkEvent): string {
    if (!this.#asItWas) return this.#mark(event.timeNs, asUsers(event.text));
    return this.#marks(event.timeNs, asciiOnly(event.text), true);
  }

  #marks(timeNs: number, text: string, exact: boolean): string {
    const head = `MARK ${this.#time.text(timeNs)} `;
    return pieces(text, MAX_LINE_BYTES - 1 - head.length, exact)
      .map((piece) => `${head}${piece}\n`)
      .join('');
  }

  #line(event: LineEvent): string {
    const text = event.text.trimEnd();
    if (text === '') return '';
    const harmless = PRINTABLE.test(text) && text.length < MAX_LINE_BYTES && !MISLEADING.test(text);
    return harmless ? `${text}\n` : this.#mark(event.timeNs, text);
  }
}
