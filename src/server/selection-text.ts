import { MmiotraceSink } from '../sinks/mmiotrace.ts';
import type { ByteOutput } from '../sinks/output.ts';
import { MmioError } from '../base/errors.ts';
import type { CaptureIndex } from './capture-index.ts';
import { readRowPage } from './row-page.ts';
import type { Selection } from './selection.ts';

/** Accesses of a selection as `convert` writes them, a line each. */
export async function selectionText(
  index: CaptureIndex,
  selection: Selection,
  first: number,
  count: number,
): Promise<string> {
  if (index.header === undefined) throw new MmioError('closed', 'nothing is recorded yet');
  const { batch } = await readRowPage(index, selection, first, count);
  const output = new TextOutput();
  const sink = new MmiotraceSink(output);
  // Goes on behind a beginning that says where everything is mapped.
  sink.resume(index.header, index.tables.snapshot(), 0);
  await sink.write(batch);
  await sink.end();
  return output.text;
}

class TextOutput implements ByteOutput {
  text = '';

  async write(bytes: Uint8Array): Promise<void> {
    this.text += Buffer.from(bytes).toString('latin1');
  }

  async flush(): Promise<number> {
    return this.text.length;
  }

  async sync(): Promise<void> {}

  async close(): Promise<void> {}
}
