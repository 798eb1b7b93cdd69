import { MmioError } from '../../base/errors.ts';
import { counted } from '../../base/format.ts';
import { accessesOf } from '../../analysis/totals.ts';
import { describeEnd } from '../machine/machine.ts';
import { defineStep } from './kind.ts';
import { nothing } from './schemas.ts';

export const stop = defineStep({
  name: 'stop-recording',
  about:
    'Ends the recording; a VM that was started ends with it, one that was attached to goes on.',
  example: '- stop-recording: {}',
  schema: nothing,
  limitMs: 60_000,
  needs: ['recording'],
  async run(_, { lab }) {
    const { machine } = lab;
    if (machine === undefined) throw new MmioError('refused', 'there is no recording');
    const end = await machine.stop();
    if (end.kind === 'failed') throw new MmioError('io', describeEnd(end));
    const { totals } = machine.started.counts.result();
    return counted(accessesOf(totals), 'access', 'accesses');
  },
});
