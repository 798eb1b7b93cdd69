import { Command } from '@commander-js/extra-typings';
import type { Command as AnyCommand } from 'commander';
import { askControl } from '../../recording/control.ts';
import type { LiveStatus } from '../../recording/live.ts';
import { listSessions, runDir, type ListedSession } from '../../recording/session-dir.ts';
import { MmioError } from '../../base/errors.ts';
import { answer, bytes, count, duration } from '../print.ts';

interface Entry {
  readonly session: string;
  readonly state: string;
  readonly status?: LiveStatus;
}

export function statusCommand(): AnyCommand {
  const command = new Command('status')
    .summary('counters of the recordings that run, and of those that can be resumed')
    .option('-s, --session <id>', 'only this recording')
    .option('--json', 'for scripts: an array of objects')
    .addHelpText('after', '\nExample:\n  mmiobridge status --json | jq .[0].status.counters');
  command.action(async (options) => {
    const all = await listSessions();
    const wanted = all.filter(({ info }) => [undefined, info.id].includes(options.session));
    if (options.session !== undefined && wanted.length === 0) {
      throw new MmioError('not-found', `no recording is called ${options.session}`, {
        evidence: `there is: ${all.map(({ info }) => info.id).join(', ') || 'none'}`,
        hint: `recordings are looked for in ${runDir()}: it may be another user's that you mean`,
      });
    }
    const entries: Entry[] = await Promise.all(wanted.map(entryOf));
    if (options.json === true) answer(JSON.stringify(entries, null, 2));
    else if (entries.length === 0) answer('no recordings');
    else answer(entries.map(formatEntry).join('\n'));
  });
  return command as unknown as AnyCommand;
}

async function entryOf({ dir, info, alive }: ListedSession): Promise<Entry> {
  if (!alive) return { session: info.id, state: 'interrupted' };
  try {
    const status = (await askControl(dir.controlSocket, { request: 'status' })) as LiveStatus;
    return { session: info.id, state: status.state, status };
  } catch (error) {
    // Its socket is not there yet, or not any more.
    if (error instanceof MmioError && error.code === 'closed') {
      return { session: info.id, state: 'starting or ending' };
    }
    throw error;
  }
}

function formatEntry({ session, state, status }: Entry): string {
  if (state === 'interrupted') return `${session}  ${state}: mmiobridge resume ${session} goes on`;
  if (status === undefined) return `${session}  ${state}`;
  const { counters } = status;
  return [
    `${session}  ${state}  ${duration(status.elapsedSeconds)}`,
    `  accesses  ${count(counters.reads + counters.writes)} (${count(counters.reads)} reads, ${count(counters.writes)} writes)`,
    ...Object.entries(status.devices).map(([name, n]) => `  ${name.padEnd(8)}  ${count(n)}`),
    `  lost      ${counters.lossEvents === 0 ? '0' : `${counters.lost || 'an unknown number'}, in ${counters.lossEvents} places`}`,
    `  spool     ${bytes(status.spoolBytes)} of ${bytes(status.spoolLimitBytes)}`,
    ...(status.stalled === null ? [] : [`  stalled   ${status.stalled}`]),
    `  QEMU      process ${status.qemuPid ?? 'unknown'}, recorder ${status.recorderPid}`,
    ...status.outputs.map((path) => `  output    ${path}`),
  ].join('\n');
}
