import { z } from 'zod';

const UNITS: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 };

/** In the file `512M`; in the scenario bytes. */
export const sizeSchema = z
  .string({ error: 'a size: 512M, 2G' })
  .regex(/^\d+[KMG]?$/, { error: 'a size: 512M, 2G' })
  .transform((text) => {
    const [, amount = '', unit = ''] = /^(\d+)([KMG]?)$/.exec(text) ?? [];
    return Number(amount) * (UNITS[unit] ?? 1);
  });
