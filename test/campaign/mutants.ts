/** Damaged files: what is read of them and said to be all of it is what was in them. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MmioError } from '../../src/base/errors.ts';
import { convert } from '../../src/reading/convert.ts';
import type { Random } from './random.ts';

export type MutantKind = 'capture' | 'log' | 'text';

const ACCESSES = 400;
/** Text of ours that is cut before its first MARK could be anybody's. */
const BEGINNING_BYTES = 50;

/** A log of QEMU's; the others are made of it. */
function sampleLog(): string {
  const lines = ['pci_update_mappings_add vfio-pci 00:03.0 0,0xfeb80000+0x20000'];
  for (let n = 0; n < ACCESSES; n++) {
    const at = `0x${(0x100 + 4 * (n % 64)).toString(16)}`;
    const value = `0x${((n * 2654435761) >>> 0).toString(16)}`;
    lines.push(
      n % 3 === 0
        ? `vfio_region_write  (0000:01:00.0:region0+${at}, ${value}, 4)`
        : `vfio_region_read  (0000:01:00.0:region0+${at}, 4) = ${value}`,
    );
  }
  return lines.map((line, us) => `61@1795392285.${String(us).padStart(6, '0')}:${line}\n`).join('');
}

/** What a transfer, a disk or an editor does. A digit for another no reader of text can see. */
const HARM: Readonly<Record<MutantKind, readonly ((bytes: Buffer, random: Random) => Buffer)[]>> = {
  capture: [flip, cut, remove, repeat, zero],
  log: [cutInLine, zero, noise],
  text: [cut, removeLine, repeatLine, zero, noise],
};

export interface MutantResult {
  readonly refused: number;
  readonly incomplete: number;
  readonly same: number;
  readonly faults: readonly string[];
}

export async function runMutants(
  kind: MutantKind,
  count: number,
  random: Random,
): Promise<MutantResult> {
  const dir = mkdtempSync(join(tmpdir(), 'mmiobridge-mutants-'));
  try {
    const good = await goodOf(kind, dir);
    const wanted = await accessesOf(good, dir);
    const faults: string[] = [];
    let [refused, incomplete, same] = [0, 0, 0];
    for (let n = 0; n < count; n++) {
      const harm = random.pick(HARM[kind]);
      const bad = harm(good, random);
      const found = await read(bad, dir);
      if (found === undefined) refused++;
      else if (!found.complete) incomplete++;
      else if (found.accesses === wanted.accesses) same++;
      else {
        const kept = join(tmpdir(), `mutant-${kind}-${n}`);
        writeFileSync(kept, bad);
        faults.push(`${kind} ${n} (${harm.name}) is said to be complete: ${kept}`);
      }
    }
    return { refused, incomplete, same, faults };
  } finally {
    rmSync(dir, { recursive: true });
  }
}

async function goodOf(kind: MutantKind, dir: string): Promise<Buffer> {
  const log = Buffer.from(sampleLog());
  if (kind === 'log') return log;
  const output = join(dir, kind === 'capture' ? 'good.mmiocap' : 'good.mmiotrace');
  await convertOne(log, dir, output);
  return readFileSync(output);
}

async function convertOne(bytes: Buffer, dir: string, output: string) {
  const input = join(dir, 'in');
  writeFileSync(input, bytes);
  const none = { selection: [], barBases: [], from: undefined, format: undefined };
  return convert([input], [output], { ...none, textExtra: [] });
}

/** undefined where nothing can be read at all. Throws what is no refusal. */
async function read(bytes: Buffer, dir: string) {
  const output = join(dir, 'out.mmiotrace');
  rmSync(output, { force: true });
  try {
    const { complete } = await convertOne(bytes, dir, output);
    const text = readFileSync(output, 'latin1');
    const accesses = text.match(/^[RW] .*$/gm)?.join('\n') ?? '';
    return { complete, accesses };
  } catch (error) {
    if (error instanceof MmioError) return undefined;
    throw error;
  }
}

async function accessesOf(bytes: Buffer, dir: string): Promise<{ readonly accesses: string }> {
  const found = await read(bytes, dir);
  if (found?.complete !== true) throw new Error('the good one is not good');
  return found;
}

function flip(bytes: Buffer, random: Random): Buffer {
  const bad = Buffer.from(bytes);
  const at = random.below(bad.length);
  bad[at]! ^= 1 << random.below(8);
  return bad;
}

function cut(bytes: Buffer, random: Random): Buffer {
  return bytes.subarray(0, BEGINNING_BYTES + random.below(bytes.length - BEGINNING_BYTES));
}

function cutInLine(bytes: Buffer, random: Random): Buffer {
  const end = random.below(bytes.length);
  return bytes[end - 1] === 0x0a ? bytes.subarray(0, Math.max(0, end - 3)) : bytes.subarray(0, end);
}

function range(bytes: Buffer, random: Random): [number, number] {
  const from = random.below(bytes.length);
  return [from, Math.min(bytes.length, from + 1 + random.below(400))];
}

function remove(bytes: Buffer, random: Random): Buffer {
  const [from, to] = range(bytes, random);
  return Buffer.concat([bytes.subarray(0, from), bytes.subarray(to)]);
}

function repeat(bytes: Buffer, random: Random): Buffer {
  const [from, to] = range(bytes, random);
  return Buffer.concat([bytes.subarray(0, to), bytes.subarray(from)]);
}

function zero(bytes: Buffer, random: Random): Buffer {
  const [from, to] = range(bytes, random);
  return Buffer.from(bytes).fill(0, from, to);
}

/** Bytes that no line has. */
function noise(bytes: Buffer, random: Random): Buffer {
  const bad = Buffer.from(bytes);
  for (let n = 1 + random.below(3); n > 0; n--) bad[random.below(bad.length)] = random.below(8);
  return bad;
}

function removeLine(bytes: Buffer, random: Random): Buffer {
  const lines = bytes.toString('latin1').split('\n');
  return Buffer.from(lines.toSpliced(accessLine(lines, random), 1).join('\n'), 'latin1');
}

function repeatLine(bytes: Buffer, random: Random): Buffer {
  const lines = bytes.toString('latin1').split('\n');
  const at = accessLine(lines, random);
  return Buffer.from(lines.toSpliced(at, 0, lines[at]!).join('\n'), 'latin1');
}

function accessLine(lines: readonly string[], random: Random): number {
  const found = lines.flatMap((line, at) => (/^[RW] /.test(line) ? [at] : []));
  return random.pick(found);
}
