import { z } from 'zod';

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
/** What a timer takes: 24 days. */
const MAX_MS = 24 * 24 * 3_600_000;

/** Milliseconds of `500ms`, `30s`, `5m`, `1h`, `1m30s`; undefined if it is none. */
export function parseDuration(text: string): number | undefined {
  if (!/^(?:\d+(?:\.\d+)?(?:ms|s|m|h))+$/.test(text)) return undefined;
  let ms = 0;
  for (const [, amount = '', unit = ''] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)) {
    ms += Number(amount) * (UNITS[unit] ?? NaN);
  }
  return ms <= MAX_MS ? ms : undefined;
}

/** In the file `30s`; in the scenario milliseconds. */
export const durationSchema = z
  .string({ error: 'a time with its unit: 500ms, 30s, 5m, 1h' })
  .regex(/^(\d+(\.\d+)?(ms|s|m|h))+$/, { error: 'a time with its unit: 500ms, 30s, 5m, 1h' })
  .transform((text, context) => {
    const ms = parseDuration(text);
    if (ms !== undefined) return ms;
    context.addIssue({ code: 'custom', message: 'a time of at most 24 days' });
    return z.NEVER;
  });

/** `90 s`, `1.5 s`, `500 ms` */
export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return `${Number((ms / 1000).toFixed(1))} s`;
}
