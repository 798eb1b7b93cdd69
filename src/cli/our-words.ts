import { MmioError } from '../base/errors.ts';

/**
 * Throws MmioError `usage` for a command line of `record` whose words are QEMU's where ours belong:
 * the parser would take `-device` for `-d evice`, and `-m 4G` for a mistake of another kind.
 *
 * @param words what follows the program's name
 */
export function requireOurWords(words: readonly string[]): void {
  const [command, ...rest] = words;
  if (command !== 'record') return;
  const dashes = rest.indexOf('--');
  const ours = dashes < 0 ? rest : rest.slice(0, dashes);
  const evidence = `record ${ours.join(' ')}`;
  const program = ours.find((word) => /(?:^|\/)(?:qemu-system-\S+|qemu-kvm|kvm)$/.test(word));
  if (dashes < 0 && program !== undefined) {
    throw new MmioError('usage', "QEMU's command line stands behind --", {
      evidence,
      hint: `mmiobridge record [options] -- ${program} …`,
    });
  }
  if (!ours.includes('-device')) return;
  throw new MmioError('usage', '-device is an option of QEMU', {
    evidence,
    hint: "ours is --device; QEMU's own options stand behind --",
  });
}
