import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { NO_CPU, Space } from '../../../src/model/access-batch.ts';
import type { StreamItem } from '../../../src/model/stream.ts';
import { Tables } from '../../../src/model/tables.ts';
import { NdjsonSink } from '../../../src/sinks/ndjson.ts';
import { faultsOf, type Schema } from '../../support/json-schema.ts';
import { MemoryOutput } from '../../support/memory-output.ts';
import {
  batchOf,
  SAMPLE_DEVICE,
  SAMPLE_EVENTS,
  SAMPLE_HEADER,
  SAMPLE_ITEMS,
} from '../../support/sample-session.ts';
import { written } from '../../support/sink-run.ts';

const schema = JSON.parse(
  readFileSync(new URL('../../../docs/ndjson.schema.json', import.meta.url), 'utf8'),
) as Schema;

const { device, bar0, map } = SAMPLE_EVENTS;

async function linesOf(items: Iterable<StreamItem>): Promise<string[]> {
  const output = new MemoryOutput();
  await written((to) => new NdjsonSink(to), SAMPLE_HEADER, items, output);
  const text = output.bytes().toString('utf8');
  expect(text.endsWith('\n')).toBe(true);
  return text.slice(0, -1).split('\n');
}

/** Accesses only. */
async function accessesOf(items: Iterable<StreamItem>): Promise<unknown[]> {
  const objects = (await linesOf(items)).map((line): unknown => JSON.parse(line));
  return objects.filter((object) => JSON.stringify(object).startsWith('{"type":"access"'));
}

describe('ndjson', () => {
  it('is this, for a recording with one of everything', async () => {
    const text = `${(await linesOf(SAMPLE_ITEMS)).join('\n')}\n`;
    await expect(text).toMatchFileSnapshot('../../golden/sample.ndjson');
  });

  it('has only lines that its schema describes, and the schema describes no others', async () => {
    const objects = (await linesOf(SAMPLE_ITEMS)).map((line): unknown => JSON.parse(line));
    expect(objects.flatMap((object) => faultsOf(object, schema, schema))).toEqual([]);
    const types = new Set(objects.map((object) => (object as { type: string }).type));
    const described = (schema['oneOf'] as { $ref: string }[]).map(({ $ref }) => $ref.slice(8));
    expect([...types].toSorted()).toEqual(described.toSorted());
  });

  it('has a schema that refuses a wrong line', () => {
    const wrong = [
      { type: 'unmap', t: 1 },
      { type: 'unmap', t: 1, mapId: -1 },
      { type: 'unmap', t: 1.5, mapId: 1 },
      { type: 'unmap', t: 1, mapId: 1, more: true },
      { type: 'mark', t: 1, text: 5 },
      { type: 'other', t: 1 },
    ];
    for (const object of wrong) expect(faultsOf(object, schema, schema)).not.toEqual([]);
  });

  it('begins with the header', async () => {
    const [line = ''] = await linesOf([]);
    expect(JSON.parse(line)).toEqual({
      type: 'header',
      format: 'mmiobridge',
      version: 1,
      ...SAMPLE_HEADER,
    });
  });

  it('goes on after a cut without a header, and still knows names', async () => {
    const output = new MemoryOutput();
    const sink = new NdjsonSink(output);
    const tables = new Tables();
    for (const event of [device, bar0, map]) tables.apply(event);
    sink.resume(SAMPLE_HEADER, tables.snapshot());
    await sink.write(batchOf({ offset: 0x400 }));
    await sink.end();
    expect(output.text()).toMatch(/^\{"type":"access".*"device":"nic0","region":"BAR0".*\}\n$/);
  });
});

describe('an access', () => {
  it('has everything in its own line', async () => {
    const access = { timeNs: 5_000_001, offset: 0x400, value: 2n ** 64n - 1n, width: 8, pc: 16n };
    expect(await accessesOf([device, bar0, map, batchOf(access)])).toEqual([
      {
        type: 'access',
        t: 5_000_001,
        op: 'R',
        space: 'mmio',
        device: 'nic0',
        region: 'BAR0',
        offset: '0x400',
        gpa: '0xfebc0400',
        width: 8,
        value: '0xffffffffffffffff',
        cpu: 0,
        pc: '0x10',
      },
    ]);
  });

  it('has null for what nobody knows', async () => {
    const access = { space: Space.config, region: 9, mapId: 0, cpu: NO_CPU };
    expect(await accessesOf([batchOf(access)])).toEqual([
      expect.objectContaining({ device: null, region: 'region9', gpa: null, cpu: null, pc: null }),
    ]);
  });

  it('has the name that its device has by then', async () => {
    const renamed: StreamItem = { ...device, device: { ...SAMPLE_DEVICE, name: 'nic1' } };
    const items = [device, bar0, batchOf({}), renamed, batchOf({})];
    expect(await accessesOf(items)).toEqual([
      expect.objectContaining({ device: 'nic0' }),
      expect.objectContaining({ device: 'nic1' }),
    ]);
  });

  it('is valid JSON and exact for any name and number', async () => {
    const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
    const row = fc.record({
      timeNs: fc.oneof(fc.maxSafeNat(), fc.maxSafeInteger()),
      op: fc.constantFrom(0, 1, 2),
      space: fc.constantFrom(0, 1, 2),
      offset: fc.nat(),
      value: u64,
      pc: u64,
      cpu: fc.integer({ min: -1, max: 32_767 }),
    });
    const name = fc.string({ unit: 'binary', maxLength: 300 });
    await fc.assert(
      fc.asyncProperty(fc.array(row), name, async (rows, named) => {
        const items = [{ ...device, device: { ...SAMPLE_DEVICE, name: named } }, bar0, map];
        const hex = (value: bigint | number): string => `0x${value.toString(16)}`;
        expect(await accessesOf([...items, batchOf(...rows)])).toEqual(
          rows.map(({ timeNs, op, space, offset, value, pc, cpu }) => ({
            type: 'access',
            t: timeNs,
            op: ['R', 'W', 'UNKNOWN'][op],
            space: ['mmio', 'pio', 'config'][space],
            device: Buffer.from(named.slice(0, 200), 'utf8').toString('utf8'),
            region: 'BAR0',
            offset: hex(offset),
            gpa: hex(0xfebc0000 + offset),
            width: 4,
            value: hex(value),
            cpu: cpu === NO_CPU ? null : cpu,
            pc: pc === 0n ? null : hex(pc),
          })),
        );
      }),
    );
  });
});
