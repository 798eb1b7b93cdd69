import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { MmioError } from '../../../src/base/errors.ts';
import { AgentChannel } from '../../../src/qmp/agent/channel.ts';
import { GuestAgent } from '../../../src/qmp/agent/guest-agent.ts';
import { guestText } from '../../../src/qmp/agent/text.ts';
import { AgentPeer, reply, type AgentAnswer, type AgentRequest } from '../../support/agent-peer.ts';

const SOON = { timeoutMs: 50_000 };
const b64 = (text: string | Buffer) => Buffer.from(text).toString('base64');

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'agent-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

async function failureOf(work: Promise<unknown>): Promise<MmioError> {
  const outcome = await work.then(
    (value) => value,
    (error: unknown) => error,
  );
  if (outcome instanceof MmioError) return outcome;
  throw new Error(`no MmioError, but ${JSON.stringify(outcome)}`);
}

/** A guest with files and one program, `wc`, that counts what it gets. */
function guest(files: Map<string, Buffer>): AgentAnswer {
  const open = new Map<number, { readonly path: string; at: number }>();
  const finished = new Map<number, object>();
  let next = 1000;
  return ({ execute, arguments: args }, send) => {
    const file = open.get(args['handle'] as number);
    switch (execute) {
      case 'guest-file-open': {
        const path = args['path'] as string;
        if (args['mode'] === 'wb') files.set(path, Buffer.alloc(0));
        if (!files.has(path)) {
          const desc = `failed to open file '${path}' (mode: 'rb'): No such file or directory`;
          send(`${JSON.stringify({ error: { class: 'GenericError', desc } })}\n`);
          return;
        }
        open.set(++next, { path, at: 0 });
        return send(reply(next));
      }
      case 'guest-file-write': {
        const piece = Buffer.from(args['buf-b64'] as string, 'base64').subarray(0, 100_000);
        const before = files.get(file?.path ?? '') ?? Buffer.alloc(0);
        files.set(file?.path ?? '', Buffer.concat([before, piece]));
        return send(reply({ count: piece.length, eof: false }));
      }
      case 'guest-file-read': {
        if (file === undefined) return;
        const all = files.get(file.path) ?? Buffer.alloc(0);
        const piece = all.subarray(file.at, file.at + Math.min(args['count'] as number, 70_000));
        file.at += piece.length;
        const eof = file.at >= all.length;
        return send(reply({ count: piece.length, 'buf-b64': piece.toString('base64'), eof }));
      }
      case 'guest-file-close':
        return send(reply({}));
      case 'guest-exec': {
        const input = Buffer.from((args['input-data'] as string | undefined) ?? '', 'base64');
        const told = { exited: true, exitcode: 0, 'out-data': b64(String(input.length)) };
        finished.set(++next, told);
        return send(reply({ pid: next }));
      }
      case 'guest-exec-status':
        return send(reply(finished.get(args['pid'] as number)));
      default:
        return send(reply({}));
    }
  };
}

describe('a guest agent', () => {
  test('runs a program, with input, and keeps both its outputs and its status', async () => {
    const asked: AgentRequest[] = [];
    let polls = 0;
    await using peer = await AgentPeer.open((request, send) => {
      asked.push(request);
      if (request.execute === 'guest-exec') return send(reply({ pid: 7 }));
      const done = { exited: true, exitcode: 3, 'out-data': b64('one'), 'err-data': b64('two') };
      send(reply(++polls < 3 ? { exited: false } : done));
    });
    await using agent = await GuestAgent.connect(peer.path);
    const input = Buffer.from('hello');
    const args = ['/c', 'dir "C:\\Program Files"'];
    const exit = await agent.run({ path: 'C:\\Windows\\cmd.exe', args, env: ['A=1'], input }, SOON);
    expect({ ...exit, stdout: exit.stdout.toString(), stderr: exit.stderr.toString() }).toEqual({
      code: 3,
      signal: undefined,
      stdout: 'one',
      stderr: 'two',
      cut: false,
    });
    expect(asked[0]?.arguments).toEqual({
      path: 'C:\\Windows\\cmd.exe',
      arg: args,
      env: ['A=1'],
      'input-data': b64('hello'),
      'capture-output': true,
    });
  });

  test('copies files in pieces, however few bytes the agent takes at once', async () => {
    const files = new Map<string, Buffer>();
    await using peer = await AgentPeer.open(guest(files));
    await using agent = await GuestAgent.connect(peer.path);
    const data = Buffer.from(Array.from({ length: 700_001 }, (_, at) => (at * 7) % 251));
    await writeFile(join(dir, 'in'), data);
    expect(await agent.copyIn(join(dir, 'in'), 'C:\\a b\\ü.bin', SOON)).toBe(data.length);
    expect(files.get('C:\\a b\\ü.bin')?.equals(data)).toBe(true);
    expect(await agent.copyOut('C:\\a b\\ü.bin', join(dir, 'out'), SOON)).toBe(data.length);
    expect((await readFile(join(dir, 'out'))).equals(data)).toBe(true);
    expect(peer.commands.filter((name) => name === 'guest-file-close')).toHaveLength(2);
  });

  test("says the guest's own words where a file is not there", async () => {
    await using peer = await AgentPeer.open(guest(new Map()));
    await using agent = await GuestAgent.connect(peer.path);
    const error = await failureOf(agent.copyOut('/none', join(dir, 'out'), SOON));
    expect(error).toMatchObject({
      code: 'refused',
      message: 'the guest agent refused guest-file-open',
    });
    expect(error.evidence).toContain("failed to open file '/none'");
  });

  test('answers after noise, and after replies to what somebody asked before', async () => {
    await using peer = await AgentPeer.open(({ execute, arguments: args }, send) => {
      if (execute !== 'guest-sync-delimited') return send(reply(42));
      send('half a li\n{"return": {"pid": 1}}\n{"error": {"class": "A", "desc": "old"}}\n\xff\n');
      send(Buffer.concat([Buffer.from('{"retu\xff', 'latin1'), reply(args['id'])]));
    }, false);
    await using agent = await GuestAgent.connect(peer.path);
    expect(await agent.timeNs()).toBe(42);
  });

  test('waits for an agent that is only starting', async () => {
    let syncs = 0;
    await using peer = await AgentPeer.open(({ execute, arguments: args }, send) => {
      if (execute === 'guest-info') {
        return send(reply({ version: '7.2.22', supported_commands: [] }));
      }
      if (++syncs > 2) send(Buffer.concat([Buffer.of(0xff), reply(args['id'])]));
    }, false);
    await using agent = await GuestAgent.connect(peer.path);
    expect(await agent.ready(SOON)).toBe('7.2.22');
    expect(syncs).toBe(3);
  });

  test('says that nobody answers, and how an agent gets into a guest', async () => {
    await using peer = await AgentPeer.open(() => undefined, false);
    await using agent = await GuestAgent.connect(peer.path);
    const error = await failureOf(agent.ready({ timeoutMs: 300 }));
    expect(error).toMatchObject({ code: 'timeout' });
    expect(error.hint).toContain('qemu-guest-agent');
  });

  test('does not take a late reply for that of the next command', async () => {
    let late: (() => void) | undefined;
    await using peer = await AgentPeer.open(({ execute }, send) => {
      if (execute === 'guest-get-time') return send(reply(2));
      late = () => send(reply({ version: 'late', supported_commands: [] }));
    });
    await using agent = await GuestAgent.connect(peer.path);
    expect(await failureOf(agent.ready({ timeoutMs: 100 }))).toMatchObject({ code: 'timeout' });
    late?.();
    expect(await agent.timeNs()).toBe(2);
  });

  test('says that the agent was restarted while a command ran', async () => {
    await using peer = await AgentPeer.open(({ execute }, send) => {
      if (execute === 'guest-exec') return send(reply({ pid: 9 }));
      const desc = "Invalid parameter 'pid'";
      send(`${JSON.stringify({ error: { class: 'GenericError', desc } })}\n`);
    });
    await using agent = await GuestAgent.connect(peer.path);
    const error = await failureOf(agent.run({ path: 'sleep' }, SOON));
    expect(error.message).toBe('the guest agent was restarted while a command ran');
  });

  test('names the process of a command that does not end', async () => {
    await using peer = await AgentPeer.open(({ execute }, send) =>
      send(reply(execute === 'guest-exec' ? { pid: 9 } : { exited: false })),
    );
    await using agent = await GuestAgent.connect(peer.path);
    const error = await failureOf(agent.run({ path: 'sleep' }, { timeoutMs: 200 }));
    expect(error).toMatchObject({
      code: 'timeout',
      evidence: 'process 9 of the guest still runs',
    });
  });

  test('fails what waits at once, when the port is closed and when QEMU hangs up', async () => {
    await using peer = await AgentPeer.open(() => undefined);
    await using agent = await GuestAgent.connect(peer.path);
    const waiting = agent.timeNs({ timeoutMs: 60_000 });
    while (peer.commands.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    agent.lost('the guest was reset');
    expect(await failureOf(waiting)).toMatchObject({
      code: 'closed',
      message: 'the guest agent has gone: the guest was reset',
    });
    const next = agent.timeNs({ timeoutMs: 60_000 });
    while (peer.commands.length === 1) await new Promise((resolve) => setTimeout(resolve, 5));
    peer.drop();
    expect(await failureOf(next)).toMatchObject({ code: 'closed' });
    expect(await failureOf(agent.timeNs())).toMatchObject({ code: 'closed' });
  });

  test('ends a wait by its signal', async () => {
    await using peer = await AgentPeer.open(() => undefined);
    await using agent = await GuestAgent.connect(peer.path);
    const stop = new AbortController();
    const waiting = agent.run({ path: 'x' }, { timeoutMs: 60_000, signal: stop.signal });
    stop.abort(new MmioError('closed', 'Ctrl-C'));
    expect(await failureOf(waiting)).toMatchObject({ message: 'Ctrl-C' });
  });

  test('is told apart from something else that listens', async () => {
    expect(await failureOf(GuestAgent.connect(join(dir, 'none')))).toMatchObject({
      code: 'not-found',
    });
    await using peer = await AgentPeer.open(({ execute }, send) =>
      send(execute === 'guest-info' ? reply(['not it']) : 'no JSON\n'),
    );
    await using agent = await GuestAgent.connect(peer.path);
    expect(await failureOf(agent.ready(SOON))).toMatchObject({ code: 'protocol' });
    expect(await failureOf(agent.timeNs())).toMatchObject({ code: 'protocol' });
  });
});

/** What a peer may do with one command. */
type Behaviour = 'answer' | 'refuse' | 'silence' | 'late' | 'twice' | 'garbage' | 'noise' | 'huge';

describe('an agent that misbehaves', () => {
  test('never has one command take the reply of another', async () => {
    const behaviours: fc.Arbitrary<Behaviour> = fc.constantFrom(
      'answer',
      'refuse',
      'silence',
      'late',
      'twice',
      'garbage',
      'noise',
      'huge',
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(behaviours, { minLength: 1, maxLength: 8 }),
        fc.integer({ min: 1, max: 40 }),
        async (plan, pieceBytes) => {
          const steps = [...plan];
          const owed: (() => void)[] = [];
          await using peer = await AgentPeer.open(({ execute, arguments: args }, whole) => {
            // In pieces that end anywhere.
            const send = (data: string | Buffer) => {
              const bytes = Buffer.from(data);
              const size = bytes.length > 1000 ? 65_536 : pieceBytes;
              for (let at = 0; at < bytes.length; at += size) whole(bytes.subarray(at, at + size));
            };
            // An agent does one thing after the other: what is late comes before what is next.
            for (const late of owed.splice(0)) late();
            if (execute === 'guest-sync-delimited') {
              return send(Buffer.concat([Buffer.of(0xff), reply(args['id'])]));
            }
            const answer = reply(execute);
            switch (steps.shift() ?? 'answer') {
              case 'answer':
                return send(answer);
              case 'refuse':
                return send('{"error": {"class": "GenericError", "desc": "no"}}\n');
              case 'silence':
                return undefined;
              case 'late':
                return void owed.push(() => send(answer));
              case 'twice':
                return send(Buffer.concat([answer, answer]));
              case 'garbage':
                return send('{"return": \x00 }\n');
              case 'noise':
                send(Buffer.of(0xff, 0x00, 0xfe, 0xff));
                return send(answer);
              case 'huge':
                return send(reply(execute.padEnd(300_000)));
            }
          }, false);
          await using channel = await AgentChannel.connect(peer.path);
          for (const [index] of plan.entries()) {
            const name = `command-${index}`;
            const outcome = await channel.execute(name, undefined, { timeoutMs: 60 }).then(
              (value) => String(value).trimEnd(),
              (error: unknown) => (error instanceof MmioError ? error.code : error),
            );
            expect([name, 'refused', 'timeout', 'protocol']).toContain(outcome);
          }
          // Whatever was before, one that answers is understood again.
          expect(await channel.execute('last', undefined, SOON)).toBe('last');
        },
      ),
      { numRuns: 60 },
    );
  });

  test('may say an endless line: that is refused, and nothing grows without bound', async () => {
    await using peer = await AgentPeer.open((_, send) => {
      const piece = Buffer.alloc(2 ** 20, 'x');
      for (let at = 0; at < 66; at++) send(piece);
    });
    await using channel = await AgentChannel.connect(peer.path);
    const error = await failureOf(channel.execute('a', undefined, SOON));
    expect(error).toMatchObject({ code: 'protocol' });
  });
});

describe('what a guest writes', () => {
  test.each([
    ['UTF-8', Buffer.from('grün\r\n'), 'grün\n'],
    ['UTF-16 with its mark', Buffer.from('\ufeffgrün\r\n', 'utf16le'), 'grün\n'],
    ['UTF-16 without', Buffer.from('Treiber\r\n', 'utf16le'), 'Treiber\n'],
    ['Windows-1252', Buffer.from([0x67, 0x72, 0xfc, 0x6e]), 'grün'],
    ['nothing', Buffer.alloc(0), ''],
  ])('is read as text: %s', (_, bytes, text) => {
    expect(guestText(bytes)).toBe(text);
  });
});
