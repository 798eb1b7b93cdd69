/** What a recording from the QEMU plugin keeps for `resume`. */
import { z } from 'zod';
import type { PluginDecoderSnapshot } from '../../../sources/plugin/decoder.ts';
import { positionSchema } from '../../session/saved.ts';
import { lineCountsSchema } from '../log/state.ts';

export interface PluginInfo {
  /** QEMU's name of what it emulates. */
  readonly target: string;
}

export const pluginInfoSchema: z.ZodType<PluginInfo> = z.object({ target: z.string() });

export const pluginStateSchema: z.ZodType<PluginDecoderSnapshot> = z.object({
  numbers: z.array(z.number()),
  log: positionSchema.nullable(),
  lines: lineCountsSchema,
});
