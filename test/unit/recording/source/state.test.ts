/** What each source keeps for `resume` is what it takes back. */
import type { z } from 'zod';
import { expect, test } from 'vitest';
import { kvmInfoSchema, kvmStateSchema } from '../../../../src/recording/source/kvm/state.ts';
import { logInfoSchema, logStateSchema } from '../../../../src/recording/source/log/state.ts';
import {
  pluginInfoSchema,
  pluginStateSchema,
} from '../../../../src/recording/source/plugin/state.ts';
import { checkSaved } from '../../../../src/recording/session/saved.ts';
import { KvmDecoder } from '../../../../src/sources/kvm-tracepoints/decoder.ts';
import { PluginDecoder } from '../../../../src/sources/plugin/decoder.ts';
import { QemuLogDecoder } from '../../../../src/sources/qemu-log/decoder.ts';
import { lineCountsOf } from '../../../../src/sources/spool-decoder.ts';
import { FORMATS } from '../../../support/kvm-pages.ts';

const trace = {
  instance: 'mmiobridge-1-2',
  baseNs: '12345678901234',
  originNs: -5,
  formats: FORMATS,
};
const kvm = new KvmDecoder({ formats: FORMATS, baseNs: 0n, originNs: 0, isRecorded: () => true });
kvm.vcpuOfThread = new Map([[100, 0]]);
const plugin = new PluginDecoder({ start: { sec: 1, ns: 0 } });
const read = plugin.snapshot();
const log = new QemuLogDecoder();
log.feed(Buffer.from('kvm_run_exit cpu_index 0\n'));
log.next();
const counts = { joined: 1, alone: 2, unlogged: 3, losses: 4 };
const restore = {
  events: [['vfio_region_read', true]],
  log: { kind: 'stderr', is: 'file', path: '/tmp/x', appends: true },
  wasSilent: false,
};

test.each<[string, z.ZodType, unknown]>([
  ['log', logStateSchema, { lines: lineCountsOf(log), stderrBytes: 7, pc: null }],
  [
    'log with program counters',
    logStateSchema,
    { lines: lineCountsOf(log), stderrBytes: 7, pc: counts },
  ],
  ['log, what it is', logInfoSchema, { traceEvents: ['vfio_*'], restore: null, trace: null }],
  ['log that was attached', logInfoSchema, { traceEvents: [], restore, trace }],
  ['kvm', kvmStateSchema, kvm.snapshot()],
  ['kvm, what it is', kvmInfoSchema, { trace }],
  ['plugin that has read nothing', pluginStateSchema, read],
  ['plugin', pluginStateSchema, { ...read, numbers: [7, 8], log: { segment: 2, offset: 9 } }],
  ['plugin, what it is', pluginInfoSchema, { target: 'x86_64' }],
])('%s', (what, schema, state) => {
  const saved: unknown = JSON.parse(JSON.stringify(state));
  expect(checkSaved(schema, saved, what)).toEqual(saved);
  expect(() => checkSaved(schema, { ...(saved as object), ...broken(saved) }, what)).toThrow(
    expect.objectContaining({ code: 'damaged' }),
  );
});

/** Its first field, as something else. */
function broken(saved: unknown): object {
  const [name = ''] = Object.keys(saved as object);
  return { [name]: { nonsense: true } };
}
