/** What proc(5) tells of processes, whoever asks. */
import { readFileSync, readdirSync } from 'node:fs';

/** Of all that run, and that we may see. */
export function processIds(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** The flags of open(2) of an open file (`fdinfo`). Throws what the system says. */
export function openFlagsOf(pid: number | 'self', fd: number | string): number {
  const info = readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8');
  return parseInt(/^flags:\s+([0-7]+)/m.exec(info)?.[1] ?? '0', 8);
}
