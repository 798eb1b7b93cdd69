import { mkdtempSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { tmpdir } from 'node:os';
import { Command } from '@commander-js/extra-typings';
import type { Command as AnyCommand } from 'commander';
import { Interrupts } from '../interrupts.ts';
import { parsePort } from '../parse.ts';
import { EXIT, answer, say } from '../print.ts';

const HELP = `
Prints the page's address, which has a token in it: who has the address sees the recording.
The page is served on this machine's loopback alone; from another one, go through ssh:
  ssh -L 8080:localhost:8080 labhost mmiobridge view --port 8080 trace.mmiocap

Examples:
  A finished capture, or one that is being recorded:
    mmiobridge view trace.mmiocap
  Anything that convert reads:
    mmiobridge view mydump.txt

Exit status: 130 when Ctrl-C ended it; 1 failure; 2 usage.`;

export function viewCommand(): AnyCommand {
  const command = new Command('view')
    .summary('show a capture in a browser, also while it grows')
    .argument('<file>', 'a capture; anything else that convert reads is converted first')
    .option('--port <n>', 'where to serve (default: any free port)', parsePort, 0)
    .addHelpText('after', HELP);
  command.action(async (file, { port }) => {
    const { newToken } = await import('../../server/access-control.ts');
    const { Recordings } = await import('../../server/recordings.ts');
    const { servePage } = await import('../../server/serve.ts');
    const { linkToRecorderOf } = await import('../recorder-link.ts');
    using interrupts = new Interrupts();
    const capture = await captureOf(file);
    try {
      const { path } = capture;
      const recordings = new Recordings(say);
      const link = linkToRecorderOf(path);
      recordings.put({ id: '1', path, name: basename(path), state: 'finished', link });
      const server = await servePage({ recordings, port, token: newToken(), log: say });
      answer(server.url);
      say('open it in a browser; Ctrl-C ends');
      await new Promise<void>((resolve) => {
        interrupts.listen(() => resolve());
      });
      await server.close();
    } finally {
      capture.remove();
    }
    process.exitCode = EXIT.interrupted;
  });
  return command as unknown as AnyCommand;
}

interface Capture {
  readonly path: string;
  readonly remove: () => void;
}

/** The file itself if it is a capture; else a capture of it, for as long as it is looked at. */
async function captureOf(file: string): Promise<Capture> {
  if (file !== '-' && (await isCapture(file))) return { path: file, remove: () => undefined };
  const { convert } = await import('../../reading/convert.ts');
  const dir = mkdtempSync(join(tmpdir(), 'mmiobridge-view-'));
  const remove = () => rmSync(dir, { recursive: true, force: true });
  try {
    const path = join(dir, `${file === '-' ? 'stdin' : basename(file)}.mmiocap`);
    const options = {
      selection: [],
      barBases: [],
      from: undefined,
      format: undefined,
      textExtra: [],
    };
    say(`converting ${file}`);
    const { doubts } = await convert([file], [path], options);
    for (const doubt of doubts) say(`the input is INCOMPLETE: ${doubt}`);
    return { path, remove };
  } catch (error) {
    remove();
    throw error;
  }
}

/** A file with nothing in it may become one. Throws MmioError `not-found`. */
async function isCapture(file: string): Promise<boolean> {
  const { openInput } = await import('../../sources/input.ts');
  const { detectFormat } = await import('../../sources/detect.ts');
  const input = await openInput(file);
  await input.close();
  const plain = input.head.length === 0 || detectFormat(input.head) === 'capture';
  return plain && !file.endsWith('.gz');
}
