import { createHash, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { MmioError, messageOf } from '../base/errors.ts';

const VARIABLE = 'MMIOBRIDGE_TOKEN';
const MIN_CHARS = 16;
const MAX_CHARS = 4096;

/**
 * The secret that a sender shows and a collector knows: from the file, or the environment where none
 * is named. Throws MmioError `usage` where there is none, or it could be guessed.
 */
export function readToken(file: string | undefined): string {
  const from = file ?? VARIABLE;
  const token = (file === undefined ? (process.env[VARIABLE] ?? '') : readTokenFile(file)).trim();
  const hint = `make one with: openssl rand -hex 32 > FILE; both sides take --token-file FILE or ${VARIABLE}`;
  if (token === '') {
    throw new MmioError('usage', 'a token is needed on every network connection', {
      evidence: `${from} is ${file === undefined ? 'not set' : 'empty'}`,
      hint,
    });
  }
  if (token.length < MIN_CHARS || token.length > MAX_CHARS) {
    throw new MmioError('usage', 'the token is too short or too long', {
      evidence: `${from} holds ${token.length} characters; ${MIN_CHARS} to ${MAX_CHARS} are needed`,
      hint,
    });
  }
  return token;
}

function readTokenFile(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new MmioError('usage', `cannot read the token`, {
      evidence: messageOf(error),
      hint: 'make one with: openssl rand -hex 32 > FILE',
      cause: error,
    });
  }
}

/** In the same time wherever, and however much, they differ. */
export function tokensEqual(a: string, b: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}
