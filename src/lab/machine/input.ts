/** Keyboard and mouse of the guest, through QMP's `input-send-event`. */
import { MmioError } from '../../base/errors.ts';
import type { QmpClient } from '../../qmp/client.ts';

/**
 * Between two events of a key: a PS/2 keyboard keeps 16 bytes for a guest that does not take them, and
 * a guest of an emulation may take them slowly.
 */
export const KEY_PAUSE_MS = 20;

/** `abs` axes of QEMU go from 0 to this (INPUT_EVENT_ABS_MAX). */
const ABS_MAX = 0x7fff;

type Pause = (ms: number) => Promise<void>;

/** Presses keys one after the other, and lets them go in the other order. */
export async function pressKeys(
  qmp: QmpClient,
  keys: readonly string[],
  pause: Pause,
  pauseMs = KEY_PAUSE_MS,
): Promise<void> {
  for (const key of keys) {
    await send(qmp, [keyEvent(key, true)]);
    await pause(pauseMs);
  }
  for (const key of keys.toReversed()) {
    await send(qmp, [keyEvent(key, false)]);
    await pause(pauseMs);
  }
}

function keyEvent(key: string, down: boolean): object {
  return { type: 'key', data: { down, key: { type: 'qcode', data: key } } };
}

/** Clicks at a pixel. Throws MmioError `refused` where the guest has no pointer that can be put there. */
export async function click(
  qmp: QmpClient,
  at: { readonly x: number; readonly y: number },
  screen: { readonly width: number; readonly height: number },
  button: 'left' | 'middle' | 'right',
  pause: Pause,
): Promise<void> {
  if (at.x >= screen.width || at.y >= screen.height) {
    throw new MmioError('refused', `${at.x}, ${at.y} is outside the screen`, {
      evidence: `it has ${screen.width} × ${screen.height} pixels`,
    });
  }
  const mice =
    await qmp.execute<readonly { readonly absolute?: boolean; readonly name?: string }[]>(
      'query-mice',
    );
  if (!mice.some(({ absolute }) => absolute === true)) {
    throw new MmioError('refused', 'the VM has no pointer that can be put at a place', {
      evidence: `it has ${mice.map(({ name }) => name).join(', ') || 'none'}`,
      hint: 'give it one: -device qemu-xhci -device usb-tablet; its driver must run in the guest',
    });
  }
  const axis = (name: string, pixel: number, pixels: number) => ({
    type: 'abs',
    data: { axis: name, value: Math.round((pixel * ABS_MAX) / Math.max(1, pixels - 1)) },
  });
  await send(qmp, [axis('x', at.x, screen.width), axis('y', at.y, screen.height)]);
  await pause(KEY_PAUSE_MS);
  await send(qmp, [{ type: 'btn', data: { down: true, button } }]);
  await pause(KEY_PAUSE_MS);
  await send(qmp, [{ type: 'btn', data: { down: false, button } }]);
}

async function send(qmp: QmpClient, events: readonly object[]): Promise<void> {
  await qmp.execute('input-send-event', { events });
}
