import { z } from 'zod';

const portName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,30}$/, { error: 'a name of small letters, digits and -' })
  .refine((name) => name !== 'marks', { error: 'another name: marks is the port of the marks' });

/** Serial ports of the guest, in its order: the first is COM1, or ttyS0. */
export const portNames = z.array(portName).max(4);

/** Where the guest's own marks come from. */
export const marksSchema = z.union(
  [z.literal('virtio-serial'), z.literal('serial'), z.strictObject({ file: z.string().min(1) })],
  { error: 'virtio-serial, serial, or { file: PATH IN THE GUEST }' },
);
