/** The QEMU plugin: accesses as the guest's instructions make them. Of a QEMU of TCG that we start. */
import { MmioError } from '../../../base/errors.ts';
import { planLaunch } from '../../../machine/argv.ts';
import { findPlugin, onlyTcg, type Plugin } from '../../../machine/plugin.ts';
import type { QmpClient } from '../../../qmp/client.ts';
import { checkSaved } from '../../session/saved.ts';
import { userLogOf } from '../log/kind.ts';
import type { SourceKind } from '../recording-source.ts';
import { BESIDE_PLUGIN } from '../trace-events.ts';
import { listenForPlugin, type PluginLink } from './link.ts';
import { logPath } from './log-tail.ts';
import { PluginSource } from './source.ts';
import { pluginInfoSchema, pluginStateSchema } from './state.ts';

export const pluginKind: SourceKind = {
  header: 'plugin',
  clock: 'qemu',

  launch: async (argv, { interrupts, overflow, notice }) => {
    const needs = { interrupts, traceEvents: BESIDE_PLUGIN };
    // What cannot be recorded at all is refused before QEMU is asked about its plugin.
    planLaunch(argv, { ...needs, qmpSocket: 'qmp.sock', logFile: 'log' });
    const plugin = await findPlugin(argv);
    const { target } = plugin;
    let link: PluginLink | undefined;
    return {
      plan: ({ qmpSocket, pluginSocket }, spoolDir) =>
        planLaunch(argv, {
          ...needs,
          qmpSocket,
          logFile: logPath(spoolDir, 1),
          plugin: { path: plugin.path, socket: pluginSocket },
        }),
      prepare: async (folder) => {
        link = await listenForPlugin(folder, { overflow, target, notice });
      },
      begin: async ({ qmp, pid, plan }) => {
        await requirePlugin(qmp, link, plugin);
        const open = link;
        return {
          userLog: userLogOf(plan, pid),
          open: (parts) => PluginSource.open(parts, { target }, { link: open }),
        };
      },
      close: () => link?.close(),
    };
  },

  requireAttachable: (address) => {
    throw new MmioError('usage', 'a running QEMU cannot load a plugin', {
      evidence: `--source plugin --qmp ${address}`,
      hint: 'start it with mmiobridge record --source plugin -- QEMU ARGV…, or leave out --source',
    });
  },

  attach: () => Promise.reject(new Error('a running QEMU cannot load a plugin')),

  giveUp: async () => undefined,

  resume: async (parts, info, state) => {
    const saved = checkSaved(pluginInfoSchema, info, 'what is kept of the plugin');
    const from = checkSaved(pluginStateSchema, state, 'the state of the plugin');
    return PluginSource.open(parts, saved, { state: from });
  },
};

/** Throws MmioError `refused` if the QEMU that has just been started has no plugin at work. */
async function requirePlugin(
  qmp: QmpClient,
  link: PluginLink | undefined,
  plugin: Plugin,
): Promise<void> {
  const kvm = await qmp.execute<{ readonly enabled?: boolean }>('query-kvm').catch(() => undefined);
  if (kvm?.enabled === true) throw onlyTcg(`query-kvm: ${JSON.stringify(kvm)}`);
  if (link?.hello !== undefined) return;
  throw new MmioError('refused', 'QEMU runs, but its plugin has not connected', {
    evidence: `-plugin ${plugin.path}`,
    hint: 'run QEMU with that option by hand to see why',
  });
}
