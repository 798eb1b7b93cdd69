import { Command, Option } from '@commander-js/extra-typings';
import { InvalidArgumentError, type Command as AnyCommand } from 'commander';
import type { BarBase } from '../../attribution/devices.ts';
import { INPUT_FORMATS } from '../../sources/detect.ts';
import { formatOfPath } from '../../sinks/index.ts';
import { formatOption, gather, textExtraOption } from '../parse.ts';
import { counted } from '../../base/format.ts';
import { accessesOf } from '../../analysis/totals.ts';
import { positionText } from '../../model/position.ts';
import { Interrupts } from '../interrupts.ts';
import { EXIT, say } from '../print.ts';

const HELP = `
Reads QEMU trace logs of any origin (also in pieces, given in order), captures and
mmiotrace text, compressed or not; what an input is shows in its first bytes.

Examples:
  A capture as text for envytools' demmio:
    mmiobridge convert trace.mmiocap -o trace.mmiotrace
  A log that somebody made by hand, with -trace 'vfio_region_*' and no mappings:
    mmiobridge convert qemu.log --bar-base 0000:01:00.0:0=0xf0000000 -o trace.mmiotrace
  The kernel's own mmiotrace, for scripts:
    mmiobridge convert mydump.txt --format ndjson -o - | jq -c 'select(.op=="W")'

Exit status: 0 all of it; 1 failure; 2 usage; 3 the input is damaged, tells of loss, or is
not all of what it says that it is.`;

export function convertCommand(): AnyCommand {
  const command = new Command('convert')
    .summary('convert a recording to another format')
    .argument('<input...>', 'files; - is standard input')
    .requiredOption(
      '-o, --output <file>',
      'as for record: .mmiotrace, .txt, .mmiocap, .ndjson, .gz, -. May be given several times',
      gather,
    )
    .option(
      '-d, --device <id>',
      'of a QEMU log: what to take (default: all vfio devices). May be given several times',
      gather,
    )
    .option(
      '--bar-base <device:bar=addr>',
      'of a QEMU log without mappings: where a BAR is (+SIZE may follow). May be given several times',
      gatherBase,
    )
    .addOption(
      new Option(
        '--input-format <format>',
        'what the input is (default: what its first bytes say)',
      ).choices(INPUT_FORMATS),
    )
    .addOption(formatOption())
    .addOption(textExtraOption())
    .addHelpText('after', HELP);
  command.action(async (inputs, options) => {
    for (const path of options.output) formatOfPath(path, options.format);
    using interrupts = new Interrupts();
    // What is half written goes with the process.
    interrupts.listen(() => process.exit(EXIT.interrupted));
    const { convert } = await import('../../reading/convert.ts');
    const result = await convert(inputs, options.output, {
      selection: options.device ?? [],
      barBases: options.barBase ?? [],
      from: options.inputFormat,
      format: options.format,
      textExtra: options.textExtra,
    });
    const { totals, damages, unknownFrames, doubts, complete } = result;
    say(counted(accessesOf(totals), 'access', 'accesses'));
    if (totals.failed > 0) {
      say(`${counted(totals.failed, 'access', 'accesses')} of them failed, as the log says`);
    }
    if (totals.lossEvents > 0) {
      say(`${counted(totals.lossEvents, 'place')} where accesses were lost`);
    }
    if (totals.damages > 0) {
      say(`${counted(totals.damages, 'damaged place')}, stepped over:`);
      for (const { position, reason, evidence } of damages) {
        say(`  ${positionText(position)}: ${reason}: ${evidence}`);
      }
    }
    for (const [field, frames] of unknownFrames) {
      say(
        `${counted(frames, 'frame')} of a kind that this version does not know (field ${field}), left out`,
      );
    }
    for (const doubt of doubts) say(`the input is INCOMPLETE: ${doubt}`);
    process.exitCode = complete ? EXIT.complete : EXIT.incomplete;
  });
  return command as unknown as AnyCommand;
}

function gatherBase(text: string, before: readonly BarBase[] | undefined): BarBase[] {
  const match = /^(.+):(\d)=(0x[0-9a-f]+)(?:\+(0x[0-9a-f]+))?$/i.exec(text);
  const [, device = '', bar, gpa, size] = match ?? [];
  if (match === null || Number(bar) > 5) {
    throw new InvalidArgumentError('write 0000:01:00.0:0=0xf0000000, or …=0xf0000000+0x20000.');
  }
  const sizeBytes = size === undefined ? undefined : Number(size);
  return [...(before ?? []), { device, bar: Number(bar), gpa: Number(gpa), sizeBytes }];
}
