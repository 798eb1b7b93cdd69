import { isOlder, type QemuAbilities } from '../machine/qemu-abilities.ts';
import { NO_MMAP, VFIO_PROPERTIES } from '../machine/vfio-properties.ts';
import { MmioError } from '../base/errors.ts';
import { Check, type CheckResult } from './check.ts';

const program = new Check('qemu', 'QEMU');
const log = new Check('trace-log', 'trace backend');
const events = new Check('trace-events', 'trace events');
const options = new Check('vfio-options', 'vfio-pci options');

/** The oldest that recordings were tried on. */
const OLDEST = [7, 2] as const;

/**
 * @param name of the program, or of the QEMU that runs
 * @param abilities or why they are not known
 * @param wanted the trace events of a recording, some with `*` at their end
 */
export function checkQemu(
  name: string,
  abilities: QemuAbilities | MmioError,
  wanted: readonly string[],
): readonly CheckResult[] {
  if (abilities instanceof MmioError) {
    const evidence = [abilities.message, abilities.evidence ?? ''].filter((text) => text !== '');
    return [program.failure(evidence.join(': '), abilities.hint ?? '')];
  }
  return [
    checkVersion(name, abilities),
    checkBackend(name, abilities),
    checkEvents(abilities, wanted),
    checkOptions(abilities),
  ];
}

function checkVersion(name: string, { version }: QemuAbilities): CheckResult {
  const evidence = `${version} (${name})`;
  return isOlder(version, OLDEST)
    ? program.warning(`${evidence} is older than ${OLDEST.join('.')}`, 'use a newer QEMU')
    : program.ok(evidence);
}

function checkBackend(name: string, { tracesToLog }: QemuAbilities): CheckResult {
  if (tracesToLog) return log.ok('log');
  return log.warning(
    `${name} was built without the backend log, as Fedora and RHEL do: it prints no trace events`,
    'mmiobridge record --source kvm, which takes the accesses from the kernel',
    'or use a QEMU built with --enable-trace-backends=log',
  );
}

function checkEvents(abilities: QemuAbilities, wanted: readonly string[]): CheckResult {
  const missing = missingEvents(abilities.traceEvents, wanted);
  if (missing.length === 0)
    return events.ok(`has all that recordings need: ${wanted.length} names and patterns`);
  const remedy = 'use a QEMU 7.2 or newer, of a distribution or built with all trace events';
  return events.failure(`it lacks ${missing.join(', ')}`, remedy);
}

export function missingEvents(
  there: ReadonlySet<string>,
  wanted: readonly string[],
): readonly string[] {
  const names = [...there];
  return wanted.filter((event) =>
    event.endsWith('*')
      ? !names.some((name) => name.startsWith(event.slice(0, -1)))
      : !there.has(event),
  );
}

function checkOptions({ vfioPciOptions: there }: QemuAbilities): CheckResult {
  if (there === undefined) {
    return options.failure('it has no device vfio-pci', 'use a QEMU built with VFIO');
  }
  const all = VFIO_PROPERTIES.map(({ name }) => name);
  const missing = all.filter((name) => !there.has(name));
  if (missing.length === 0) return options.ok(`has ${all.join(', ')}`);
  const evidence = `it lacks ${missing.join(', ')}`;
  const remedy = 'use a QEMU 7.2 or newer';
  return missing.includes(NO_MMAP.name)
    ? options.failure(`${evidence}: BARs are mapped into the guest`, remedy)
    : options.warning(evidence, remedy);
}
