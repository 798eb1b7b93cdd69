import { expect, test } from 'vitest';
import {
  END_OF_TIME,
  Merge,
  type LogLine,
} from '../../../../../src/recording/source/plugin/merge.ts';
import { FrameKind, LOG_HEAD_BYTES } from '../../../../../src/sources/plugin/frames.ts';
import { HEAD_BYTES, RECORD_BYTES, RecordField } from '../../../../../src/sources/plugin/wire.ts';
import { recordBytes } from '../../../../support/plugin-records.ts';

const BASE = 1_800_000_000_000_000_000n;

const moment = (ns: number) => {
  const at = BASE + BigInt(ns);
  return { hi: Number(at >> 32n), lo: Number(at & 0xffff_ffffn) };
};
const line = (ns: number, text: string): LogLine => ({
  ...moment(ns),
  bytes: Buffer.from(`${text}\n`),
  next: { segment: 1, offset: ns },
});
const records = (vcpu: number, ...times: number[]) =>
  recordBytes(times.map((ns, number) => ({ timeNs: BASE + BigInt(ns), vcpu, number })));

/** Frames as words: `0:10` is vCPU 0's access of time 10. */
function words(frames: readonly Buffer[]): string[] {
  return frames.flatMap((frame) => {
    const body = frame.subarray(HEAD_BYTES);
    if (frame.readUInt32LE(0) === FrameKind.log) {
      return body.toString('utf8', LOG_HEAD_BYTES).trimEnd().split('\n');
    }
    return Array.from({ length: body.length / RECORD_BYTES }, (_, index) => {
      const at = RECORD_BYTES * index;
      const ns = body.readBigUInt64LE(at + RecordField.timeNs) - BASE;
      return `${body.readUInt16LE(at + RecordField.vcpu)}:${ns}`;
    });
  });
}

test('accesses of all vCPUs and lines of the log come in the order of their times', () => {
  const merge = new Merge();
  merge.addRecords(records(0, 1000, 2000, 9000));
  merge.addRecords(records(2, 1500, 2500, 2600));
  merge.addLines([line(2000, 'a'), line(2000, 'b'), line(3000, 'c')]);
  expect(words(merge.take(END_OF_TIME))).toEqual(
    '0:1000 2:1500 a b 0:2000 2:2500 2:2600 c 0:9000'.split(' '),
  );
});

test('what happened after a moment waits for the next', () => {
  const merge = new Merge();
  merge.addRecords(records(0, 1000, 5000));
  merge.addLines([line(2000, 'a'), line(6000, 'b')]);
  expect(words(merge.take(moment(4000)))).toEqual(['0:1000', 'a']);
  merge.addRecords(records(1, 4500));
  expect(words(merge.take(moment(5000)))).toEqual(['1:4500', '0:5000']);
  expect(words(merge.take(moment(5999)))).toEqual([]);
  expect(words(merge.take(moment(6000)))).toEqual(['b']);
});

test('one vCPU keeps its order when the clock is set back', () => {
  const merge = new Merge();
  merge.addRecords(records(0, 9000, 1000, 9500));
  merge.addRecords(records(1, 2000));
  expect(words(merge.take(END_OF_TIME))).toEqual(['1:2000', '0:9000', '0:1000', '0:9500']);
});

test('a frame of the log says where it goes on', () => {
  const merge = new Merge();
  merge.addLines([line(1000, 'a'), line(2000, 'b')]);
  const [frame] = merge.take(END_OF_TIME);
  expect(frame?.readDoubleLE(HEAD_BYTES + 8)).toBe(2000);
});
