import { expect, test, vi } from 'vitest';
import { Devices } from '../../../../src/attribution/devices.ts';
import { MmioError } from '../../../../src/base/errors.ts';
import type { Device } from '../../../../src/model/device.ts';
import type { QmpClient } from '../../../../src/qmp/client.ts';
import { learnPatiently, requireSelected } from '../../../../src/recording/begin/device-queries.ts';
import { GPU, NIC } from '../../../support/recorded.ts';

/** A QEMU whose QMP answers like this, in turn; the last answer holds. */
function vmOf(...answers: readonly (MmioError | readonly unknown[])[]) {
  const left = [...answers];
  const execute = vi.fn<() => Promise<unknown>>(() => {
    const answer = left.length > 1 ? left.shift() : left[0];
    return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
  });
  const qmp = { state: 'ready', execute, hmp: async () => '' } as unknown as QmpClient;
  return { vm: { qmp, isAlive: true, connected: async () => qmp }, execute };
}
const TIMEOUT = new MmioError('timeout', 'QEMU did not answer within 5000 ms');

test('a QEMU that does not answer is asked again, and once said to be', async () => {
  const { vm, execute } = vmOf(TIMEOUT, TIMEOUT, TIMEOUT, []);
  const notices: string[] = [];
  await learnPatiently(vm, new Devices([]), (message) => void notices.push(message));
  expect(execute.mock.calls.length).toBeGreaterThanOrEqual(4);
  expect(notices).toEqual([
    'QEMU does not answer, and is asked again: QEMU did not answer within 5000 ms',
  ]);
});

test('what QEMU refuses is said, and the recording goes on', async () => {
  const { vm } = vmOf(new MmioError('refused', 'QEMU refused', { evidence: 'GenericError: no' }));
  const notices: string[] = [];
  await learnPatiently(vm, new Devices([]), (message) => void notices.push(message));
  expect(notices).toEqual(['QEMU does not tell its devices: QEMU refused (GenericError: no)']);
});

test('a VM that is gone has nothing to say', async () => {
  const { vm } = vmOf(TIMEOUT);
  const notice = vi.fn<(message: string) => void>();
  await learnPatiently({ ...vm, isAlive: false }, new Devices([]), notice);
  expect(notice).not.toHaveBeenCalled();
});

test('a name that is one device by this and another by that is not guessed', () => {
  const devices = (...all: readonly Device[]) => {
    const states = all.map((device) => ({ device, selected: false }));
    return { states, selected: states, answers: () => true } as unknown as Devices;
  };
  const refused = (name: string, ...all: readonly Device[]) =>
    expect(() => requireSelected(devices(...all), [name])).toThrow('fits more than one device');
  const taken = (name: string, ...all: readonly Device[]) =>
    expect(() => requireSelected(devices(...all), [name])).not.toThrow();
  // Its address on the host, and in the guest.
  const onHost = { ...GPU, bus: 0 };
  refused('01:00.0', onHost, { ...NIC, bus: 1, devfn: 0 });
  taken('01:00.0', onHost, { ...NIC, bus: 2, devfn: 0 });
  // Its id, and the type of others.
  const called = { ...NIC, qemuId: 'e1000e' };
  refused('e1000e', called, { ...NIC, id: 1, qemuId: 'nic1' });
  taken('e1000e', called, GPU);
  // A type may be meant to be all of them.
  taken('e1000e', NIC, { ...NIC, id: 1, qemuId: 'nic1' });
});
