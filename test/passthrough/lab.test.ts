/** A lab run on a passthrough host: the card is borrowed for it, and given back, whatever happens. */
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
import type { Manifest } from '../../src/lab/run/manifest.ts';
import type { CliResult } from '../support/cli.ts';
import { untilL2Ends } from '../support/l2-attempts.ts';
import { Lab, LabFailure, PASSED_THROUGH, type LabPlace } from '../support/lab.ts';
import { scriptLines } from '../support/scripts.ts';

const EXAMPLE = 'docs/examples/passthrough.yaml';
/** More than three times what a run takes; the example's own limit is longer. */
const LIMIT_MS = 240_000;

let set: string[];
beforeAll(async () => {
  const [kernel = '', initrd = ''] = await scriptLines('guests/agent.sh');
  set = ['--set', `kernel=${kernel}`, '--set', `initrd=${initrd}`];
});

interface Outcome {
  readonly lab: Lab;
  readonly result: CliResult;
  readonly folder: string;
  readonly manifest: Manifest;
}

function runExample(): Promise<Outcome> {
  return untilL2Ends(async (lab) => {
    const place = lab.place();
    await lab.shell(`node dist/cli/main.js unbind ${PASSED_THROUGH}`);
    const args = ['lab', 'run', EXAMPLE, ...set, '--output', place.path('runs')];
    const result = await lab.cli(args, { timeoutMs: LIMIT_MS });
    const outcome = { lab, result, ...read(place) };
    if (outcome.manifest.result !== 'passed') throw new LabFailure(result.stderr);
    return outcome;
  });
}

function read(place: LabPlace): { readonly folder: string; readonly manifest: Manifest } {
  const [name = ''] = readdirSync(place.path('runs'));
  const folder = place.path(`runs/${name}`);
  const manifest = JSON.parse(readFileSync(`${folder}/manifest.json`, 'utf8')) as Manifest;
  return { folder, manifest };
}

async function driverOf(lab: Lab): Promise<string> {
  const path = `/sys/bus/pci/devices/${PASSED_THROUGH}/driver`;
  return (await lab.shell(`basename $(readlink ${path})`)).trim();
}

describe('the example of a passed-through card', () => {
  let outcome: Outcome;
  beforeAll(async () => {
    outcome = await runExample();
  });

  test('records the driver with the program counter of its accesses', () => {
    const { result, folder, manifest } = outcome;
    expect(result.stderr).toMatch(/^passed$/m);
    expect([0, 3]).toContain(result.status);
    const text = readFileSync(`${folder}/trace.mmiotrace`, 'latin1');
    const rows = [...text.matchAll(/^[RW] \d \S+ \d+ \S+ \S+ (0x[0-9a-f]+) /gm)].map(
      ([, pc]) => pc,
    );
    expect(rows.length).toBeGreaterThan(1000);
    const known = rows.filter((pc) => pc !== '0x0').length;
    expect(known / rows.length).toBeGreaterThan(0.9);
    expect(manifest.bound).toEqual([
      { address: PASSED_THROUGH, ids: '8086:10d3', driverBefore: 'e1000e', wasBound: false },
    ]);
    expect(manifest.devices).toMatchObject([
      {
        hostAddress: PASSED_THROUGH,
        ids: '8086:10d3',
        subsystem: '8086:0000',
        options: expect.stringMatching(/vfio-pci,host=0000:00:10\.0/) as string,
      },
    ]);
  });

  test('has the mark that the guest made by a register of the card', () => {
    const text = readFileSync(`${outcome.folder}/trace.mmiotrace`, 'latin1');
    expect(text).toMatch(/^MARK \S+ guest: 0x42 \(nic0 config\+0x3c\)$/m);
  });

  test('gives the card back', async () => {
    expect(outcome.manifest.left).toEqual([]);
    expect(await driverOf(outcome.lab)).toBe('e1000e');
  });
});

describe('a run that fails', () => {
  test('gives the card back', async () => {
    const lab = await Lab.start();
    const place = lab.place();
    await lab.shell(`node dist/cli/main.js unbind ${PASSED_THROUGH}
cat >${place.path('fails.yaml')} <<'EOF'
lab: 1
bind: ['${PASSED_THROUGH}']
steps:
  - start: { qemu: 'qemu-system-x86_64 -nodefaults -display none -device nonsense' }
EOF`);
    const result = await lab.cli([
      'lab',
      'run',
      place.path('fails.yaml'),
      '-o',
      place.path('runs'),
    ]);
    expect(result.stderr).toContain("'nonsense' is not a valid device model");
    expect(result.status).toBe(1);
    expect(await driverOf(lab)).toBe('e1000e');
  });

  test('refuses snapshots of such a VM before it begins', async () => {
    const lab = await Lab.start();
    const place = lab.place();
    await lab.shell(`cat >${place.path('snapshot.yaml')} <<'EOF'
lab: 1
bind: ['${PASSED_THROUGH}']
steps:
  - start: { qemu: 'qemu-system-x86_64 -device vfio-pci,host=${PASSED_THROUGH}' }
  - save-snapshot: a
EOF`);
    const args = ['lab', 'run', place.path('snapshot.yaml'), '-o', place.path('runs')];
    const { status, stderr } = await lab.cli(args);
    expect(stderr).toContain('a VM with vfio-pci can have no snapshot');
    expect(status).toBe(2);
    expect(existsSync(place.path('runs'))).toBe(false);
    expect(await driverOf(lab)).toBe('e1000e');
  });
});

describe('a run that is killed', () => {
  /** One that its user has bound before, with the other of its group. */
  const BEFORE = ['0000:01:01.0', '0000:01:02.0'];

  test('`lab clean` gives back what the run has bound, and that alone, when no VM has it', async () => {
    const lab = await Lab.start();
    const place = lab.place();
    const stdout = await lab.shell(
      `export MMIOBRIDGE_RUN=$(mktemp -d)
main='node dist/cli/main.js'
$main unbind ${PASSED_THROUGH}
$main bind ${BEFORE.join(' ')}
cat >${place.path('killed.yaml')} <<'EOF'
lab: 1
bind: ['${BEFORE[0]}', '${PASSED_THROUGH}']
steps:
  - start:
      qemu: qemu-system-x86_64 -accel tcg -m 64 -nodefaults -display none -device vfio-pci,host=${PASSED_THROUGH},rombar=0,id=nic0
      record: { device: nic0 }
  - name: long
    wait: 1h
EOF
$main lab run ${place.path('killed.yaml')} -o ${place.path('runs')} 2>${place.path('said')} &
until grep -q 'long …' ${place.path('said')}; do kill -0 $!; sleep 0.5; done
kill -9 $!
# As if somebody had resumed the recording, whose VM it then is.
mkdir $MMIOBRIDGE_RUN.theirs
mv $MMIOBRIDGE_RUN/*T* $MMIOBRIDGE_RUN.theirs
! $main lab clean
mv $MMIOBRIDGE_RUN.theirs/* $MMIOBRIDGE_RUN
$main lab clean
$main unbind ${BEFORE.join(' ')} 2>&1
ls $MMIOBRIDGE_RUN`,
      { timeoutMs: 400_000 },
    );
    expect(stdout).toMatch(
      new RegExp(
        [
          `^\\S+/runs/killed-\\S+`,
          `  LEFT ${PASSED_THROUGH}: ${PASSED_THROUGH} is in use by a VM \\(process \\d+ .*`,
          `\\S+/runs/killed-\\S+`,
          `  recording \\S+ is written to its end; its VM is ended`,
          `  ${PASSED_THROUGH} is given back; its driver: e1000e`,
          `${BEFORE[0]}.*`,
        ].join('\n'),
      ),
    );
    // They were bound until now.
    expect(stdout.match(/given back; its driver: (e1000|none)\n/g)).toHaveLength(2);
    expect(await driverOf(lab)).toBe('e1000e');
  });
});
