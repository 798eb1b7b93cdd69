/** The built program on this machine, whatever it is: what it prints, and its exit status. */
import { chmodSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { CheckResult } from '../../../src/doctor/check.ts';
import { formatChecklist } from '../../../src/cli/checklist.ts';
import { MAIN, Workplace, run, type CliResult } from '../../support/cli.ts';
import { SYSTEM_QEMU } from '../../support/qemu.ts';

interface Report {
  readonly status: string;
  readonly checks: readonly (CheckResult & { readonly group: string })[];
}

function textOf({ stdout }: CliResult): string {
  return Buffer.from(stdout, 'latin1').toString('utf8');
}

function reportOf(result: CliResult): Report {
  return JSON.parse(textOf(result)) as Report;
}

function only(report: Report, id: string): CheckResult {
  const found = report.checks.filter((check) => check.id === id);
  expect(found.map(({ title }) => title)).toHaveLength(1);
  return found[0] as CheckResult;
}

/** A program that is QEMU but for one answer. */
function wrapper(at: Workplace, script: string): string {
  const path = at.path('qemu-wrapper');
  writeFileSync(path, `#!/bin/sh\n${script}\nexec ${SYSTEM_QEMU} "$@"\n`);
  chmodSync(path, 0o755);
  return path;
}

describe('doctor on this machine', () => {
  it('says the same to people and to scripts', async () => {
    await using at = new Workplace();
    const [text, json] = [await at.cli(['doctor']), await at.cli(['doctor', '--json'])];
    const report = reportOf(json);
    const worst = ['failure', 'warning', 'ok'].find((status) =>
      report.checks.some((check) => check.status === status),
    );
    expect(report.status).toBe(worst);
    expect([text.status, json.status]).toEqual(Array(2).fill(worst === 'failure' ? 1 : 0));
    expect(text.stderr + json.stderr).toBe('');
    expect(new Set(report.checks.map(({ group }) => group))).toEqual(
      new Set(['host', 'devices', 'QEMU', 'recording']),
    );
    expect(report.checks.length).toBeGreaterThan(12);
    const lines = textOf(text).split('\n');
    for (const { title, status, evidence, remedy } of report.checks) {
      const word = status === 'ok' ? 'OK' : status === 'failure' ? 'FAILURE' : 'warning';
      const line = lines.findIndex(
        (each) => each.startsWith(`  ${word} `) && each.includes(` ${title} `),
      );
      expect(line, title).toBeGreaterThan(0);
      // How much is free changes from one look to the next.
      expect(lines[line]).toContain(evidence.replace(/^.* free /, 'free '));
      expect(remedy === '', title).toBe(status === 'ok');
      for (const each of remedy.split('\n').filter(Boolean))
        expect(lines.slice(line)).toContain(`           → ${each}`);
    }
    expect(text.stdout).not.toContain('\x1b');
  });

  it('has colours on a terminal, unless NO_COLOR is set', async () => {
    await using at = new Workplace();
    const command = `'${process.execPath}' '${MAIN}' doctor`;
    const options = { cwd: at.dir, env: { MMIOBRIDGE_RUN: at.runDir, NO_COLOR: '' } };
    const coloured = await run('script', ['-qec', command, '/dev/null'], options);
    expect(coloured.stdout).toMatch(/^ {2}\x1b\[32mOK +\x1b\[0mroom for the spool /m);
    const plain = { ...options, env: { ...options.env, NO_COLOR: '1' } };
    expect((await run('script', ['-qec', command, '/dev/null'], plain)).stdout).toMatch(
      /^ {2}OK +room for the spool /m,
    );
  });

  it('knows a QEMU without the trace backend log', async () => {
    await using at = new Workplace();
    const script = `[ "$1" != -d ] || { ${SYSTEM_QEMU} -d help | grep -v '^trace:PATTERN'; exit 1; }`;
    const qemu = wrapper(at, script);
    const report = reportOf(await at.cli(['doctor', '--json', '--qemu', qemu]));
    expect(only(report, 'qemu').evidence).toMatch(/^\d+\.\d+\.\d+ \(.*qemu-wrapper\)$/);
    const log = only(report, 'trace-log');
    expect(log.status).toBe('warning');
    expect(log.evidence).toContain('qemu-wrapper was built without the backend log');
    expect(only(report, 'tracefs').status).not.toBe('warning');
  });

  it('knows a QEMU without the options that trap', async () => {
    await using at = new Workplace();
    const script = `[ "$1" != -device ] || { ${SYSTEM_QEMU} "$@" | grep -v x-no-mmap; exit; }`;
    const report = reportOf(await at.cli(['doctor', '--json', '--qemu', wrapper(at, script)]));
    expect(only(report, 'vfio-options')).toMatchObject({
      status: 'failure',
      evidence: 'it lacks x-no-mmap: BARs are mapped into the guest',
    });
  });

  it.each([
    ['no program', 'qemu-system-vax', /^there is no program qemu-system-vax: /, /--qemu PROGRAM/],
    ['no QEMU', '/bin/echo', /^\/bin\/echo is no QEMU: /, /qemu-system-x86_64/],
  ])('says so of %s', async (_, program, evidence, remedy) => {
    await using at = new Workplace();
    const result = await at.cli(['doctor', '--json', '--qemu', program]);
    const qemu = only(reportOf(result), 'qemu');
    expect(result.status).toBe(1);
    expect(qemu.status).toBe('failure');
    expect(qemu.evidence).toMatch(evidence);
    expect(qemu.remedy).toMatch(remedy);
  });

  it('goes on where the VM cannot be reached', async () => {
    await using at = new Workplace();
    const result = await at.cli(['doctor', '--json', '--qmp', at.path('no.sock')]);
    const report = reportOf(result);
    expect(result.status).toBe(1);
    expect(only(report, 'qmp')).toMatchObject({ status: 'failure', title: 'QMP' });
    expect(only(report, 'qmp').evidence).toMatch(/^there is no QMP socket .*no\.sock/);
    expect(only(report, 'run-folder').status).toBeDefined();
  });

  it('takes host addresses alone without a VM', async () => {
    await using at = new Workplace();
    const result = await at.cli(['doctor', '--device', 'nic0']);
    expect(result.status).toBe(2);
    expect(result.stdout).toBe('');
    expect(result.stderr).toMatch(/^mmiobridge: nic0 is no address of a PCI device of the host\n/);
    expect(result.stderr).toMatch(/^ {2}hint: lspci -D lists them; with --qmp SOCKET, QEMU ids/m);
  });

  it('takes a short address, and says which one it looked for', async () => {
    await using at = new Workplace();
    const report = reportOf(await at.cli(['doctor', '--json', '--device', 'fe:1f.7']));
    expect(only(report, 'device')).toMatchObject({
      status: 'failure',
      title: 'device 0000:fe:1f.7',
      evidence: 'the host has no such PCI device',
    });
  });
});

describe('a list of checks', () => {
  const ok: CheckResult = { id: 'a', title: 'A', status: 'ok', evidence: 'fine', remedy: '' };
  const bad = (status: CheckResult['status']): CheckResult => ({
    id: 'b',
    title: 'longer',
    status,
    evidence: 'why',
    remedy: 'one\ntwo',
  });
  const format = (...results: readonly CheckResult[]) =>
    formatChecklist([{ title: 'host', results }], false);

  it('is in columns, with remedies below', () => {
    expect(format(ok, bad('warning'), bad('failure')).split('\n')).toEqual([
      'host',
      '  OK       A       fine',
      '  warning  longer  why',
      '           → one',
      '           → two',
      '  FAILURE  longer  why',
      '           → one',
      '           → two',
      '',
      '1 failure, 1 warning: a recording would not begin, or not be complete',
    ]);
  });

  it('ends with what it means', () => {
    expect(format(ok)).toMatch(/\nall OK: a recording can be complete$/);
    expect(format(bad('warning'), bad('warning'))).toMatch(
      /\n2 warnings: a recording is possible;/,
    );
  });
});
