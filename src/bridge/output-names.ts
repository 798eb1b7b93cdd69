/** Names of a collector's outputs: patterns in, paths that nobody else writes to out. */
import { open, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { MmioError, messageOf, systemCodeOf } from '../base/errors.ts';
import { makeFolders } from '../base/make-folders.ts';

const WORDS = ['host', 'device', 'time', 'session'] as const;
type Word = (typeof WORDS)[number];
export type NameFacts = Readonly<Record<Word, string>>;

const MAX_WORD_CHARS = 64;
/** More recordings of one name than anyone has. */
const MAX_TRIES = 10_000;

/** Throws MmioError `usage` where it has a word in braces that there is none for. */
export function checkPattern(pattern: string): void {
  const wrong = [...pattern.matchAll(/\{([^}]*)\}/g)].find(
    (match) => !WORDS.some((word) => word === match[1]),
  );
  if (wrong === undefined) return;
  throw new MmioError('usage', `${pattern}: what is ${wrong[0]}?`, {
    evidence: `known are ${WORDS.map((word) => `{${word}}`).join(', ')}`,
    hint: 'for example {host}-{device}-{time}.mmiotrace',
  });
}

/** The facts come from elsewhere: none of them leads out of the folder that the pattern names. */
export function fillPattern(pattern: string, facts: NameFacts): string {
  return pattern.replace(/\{(\w+)\}/g, (whole, word: string) =>
    word in facts ? tame(facts[word as Word]) : whole,
  );
}

/** Letters, digits and `._-` only, not beginning with a dot. */
export function tame(text: string): string {
  const plain = text.replace(/[^A-Za-z0-9._-]+/g, '_').replace(/^\.+/, '_');
  return plain.slice(0, MAX_WORD_CHARS) || 'unknown';
}

/**
 * Makes an empty file for each pattern, and their folders. Where one of the names is taken, all get a
 * number: `x-2.mmiotrace`. Throws MmioError `io`.
 */
export async function claimNames(
  patterns: readonly string[],
  facts: NameFacts,
): Promise<readonly string[]> {
  const plain = patterns.map((pattern) => fillPattern(pattern, facts));
  for (let number = 1; number <= MAX_TRIES; number++) {
    const paths = number === 1 ? plain : plain.map((path) => numbered(path, number));
    if (await makeAll(paths)) return paths;
  }
  throw new MmioError('io', `there are ${MAX_TRIES} recordings of that name already`, {
    evidence: plain.join(', '),
    hint: 'put {time} into the pattern',
  });
}

function numbered(path: string, number: number): string {
  return path.replace(/((?:\.[A-Za-z0-9]+){1,2})$/, `-${number}$1`);
}

/** All, or none, and then false: one is there already. */
async function makeAll(paths: readonly string[]): Promise<boolean> {
  const made: string[] = [];
  for (const path of paths) {
    try {
      await makeFolders(dirname(path));
      await (await open(path, 'wx')).close();
      made.push(path);
    } catch (error) {
      for (const ours of made) await rm(ours);
      if (systemCodeOf(error) === 'EEXIST') return false;
      throw new MmioError('io', `cannot write ${path}`, {
        evidence: messageOf(error),
        cause: error,
      });
    }
  }
  return true;
}
