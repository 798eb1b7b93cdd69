/** The QEMU plugin that tells of each access: where it is, and whether a QEMU takes it. */
import { execFile } from 'node:child_process';
import { access } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { MmioError, messageOf } from '../base/errors.ts';
import { isObject } from '../qmp/protocol.ts';
import { scanArgv } from './argv-scan.ts';
import { shellQuote } from './dry-run.ts';
import { parseOptionValue } from './option-value.ts';
import { isOlder, versionOf } from './qemu-abilities.ts';

/** The versions of QEMU's plugin interface that there is an object for, newest first. */
const APIS = [7, 4] as const;

/** The first whose plugins can tell values. */
const OLDEST = [9, 2] as const;
const ANSWER_LIMIT_MS = 20_000;
const SOURCES = fileURLToPath(new URL('../../qemu-scripts/plugin', import.meta.url));
const LOG_INSTEAD = "record from QEMU's own log instead: --source log";

export interface Plugin {
  /** The object for `-plugin`. */
  readonly path: string;
  /** QEMU's name of what it emulates, such as `x86_64`. */
  readonly target: string;
}

/** Where the objects are: MMIOBRIDGE_PLUGIN_DIR, else beside their sources. */
export function pluginDir(): string {
  return process.env['MMIOBRIDGE_PLUGIN_DIR'] ?? SOURCES;
}

/**
 * The plugin that the QEMU of a command line takes. That QEMU is started once or twice to say so,
 * without a guest.
 *
 * @throws MmioError `not-found` where it has not been built, `refused` with QEMU's words where it
 *   does not take any, or the guest does not run on TCG
 */
export async function findPlugin(argv: readonly string[]): Promise<Plugin> {
  const { command } = scanArgv(argv);
  requireTcg(argv);
  // Before what could be mended in vain.
  await requireNewEnough(command);
  const said: string[] = [];
  for (const api of APIS) {
    const path = join(pluginDir(), `mmio-plugin-${api}.so`);
    await requireBuilt(path);
    const words = await probe(command, path);
    const target = new RegExp(`^mmio-plugin: API ${api}, target (\\S+)`, 'm').exec(words)?.[1];
    if (target !== undefined) return { path, target };
    said.push(words.trim());
  }
  const words = said.join('\n');
  const [program = ''] = command.slice(-1);
  if (/-plugin: invalid option/.test(words)) {
    throw new MmioError('refused', `${program} was built without plugins`, {
      evidence: said[0],
      hint: LOG_INSTEAD,
    });
  }
  throw new MmioError('refused', `${program} does not take the plugin`, {
    evidence: words === '' ? 'it said nothing' : words,
    hint: LOG_INSTEAD,
  });
}

async function requireNewEnough(command: readonly string[]): Promise<void> {
  const version = await versionOf(command);
  if (version === undefined || !isOlder(version, OLDEST)) return;
  throw new MmioError('refused', `QEMU ${version} is too old for the plugin`, {
    evidence: `${command.join(' ')} --version`,
    hint: `QEMU ${OLDEST.join('.')} and later has the interface that it needs; ${LOG_INSTEAD}`,
  });
}

/** Only TCG has plugins: KVM runs the guest's instructions by itself. */
function requireTcg(argv: readonly string[]): void {
  const { options } = scanArgv(argv);
  const accelerators = options.flatMap(({ name, value = '' }) => {
    if (name === 'enable-kvm') return ['kvm'];
    if (name === 'accel') return [parseOptionValue(value, 'accel').get('accel') ?? ''];
    if (name === 'machine' || name === 'M')
      return [parseOptionValue(value, 'type').get('accel') ?? ''];
    return [];
  });
  const [first] = accelerators.filter((name) => name !== '');
  if (first === undefined || first.startsWith('tcg')) return;
  throw onlyTcg(`-accel ${first}`);
}

export function onlyTcg(evidence: string): MmioError {
  return new MmioError(
    'refused',
    'a plugin sees guests of TCG only, and this one runs on another',
    {
      evidence,
      hint: 'give QEMU -accel tcg; of a guest on KVM, --pc and --source kvm tell program counters',
    },
  );
}

async function requireBuilt(path: string): Promise<void> {
  try {
    await access(path);
  } catch (error) {
    const out = dirname(path);
    const elsewhere = out === SOURCES ? '' : ` OUT=${shellQuote(out)}`;
    throw new MmioError('not-found', 'the QEMU plugin has not been built', {
      evidence: messageOf(error),
      hint: `make -C ${shellQuote(SOURCES)}${elsewhere} (needs make and a C compiler; to build elsewhere: OUT=DIR, and MMIOBRIDGE_PLUGIN_DIR=DIR for record)`,
    });
  }
}

/** What a QEMU says that is to load the plugin and end. */
async function probe(command: readonly string[], path: string): Promise<string> {
  const [program = '', ...before] = command;
  const words = ['-machine', 'none', '-display', 'none'];
  const plugin = ['-plugin', `${path.replaceAll(',', ',,')},probe=on`];
  try {
    const args = [...before, ...words, ...plugin];
    const { stdout, stderr } = await promisify(execFile)(program, args, {
      timeout: ANSWER_LIMIT_MS,
    });
    return stdout + stderr;
  } catch (error) {
    if (isObject(error) && typeof error['stdout'] === 'string') {
      const said = error['stdout'] + String(error['stderr']);
      if (said !== '') return said;
    }
    throw new MmioError('not-found', `cannot run ${program}`, {
      evidence: messageOf(error),
      hint: 'install it, or give its full path',
      cause: error,
    });
  }
}
