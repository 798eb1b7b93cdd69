import { expect, test } from 'vitest';
import { harmless } from '../../../src/cli/print.ts';

test('what commands a terminal is shown, and does not command it', () => {
  expect(harmless('a\u001b[2Jb\u0007\r\u007f\u009bc')).toBe('a\\x1b[2Jb\\x07\\x0d\\x7f\\x9bc');
  expect(harmless('größe ☃\tx\ny')).toBe('größe ☃\tx\ny');
});
