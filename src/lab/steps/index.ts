/** All kinds of steps, in the order in which the documentation has them. A new one: a line here. */
import { attach } from './attach.ts';
import { changeMedia, plug, unplug } from './devices.ts';
import { copyIn, copyOut, guestRun } from './guest.ts';
import { hostRun } from './host.ts';
import type { AnyStepKind } from './kind.ts';
import { mark } from './mark.ts';
import { click, keys, screendump, type, waitScreen } from './screen.ts';
import { sendSerial } from './serial.ts';
import { start } from './start.ts';
import { stop } from './stop.ts';
import { loadSnapshot, saveSnapshot } from './snapshots.ts';
import { pause, powerDown, qmp, reset, resume } from './vm.ts';
import { wait, waitAccess, waitAgent, waitEvent, waitQuiet, waitSerial } from './waits.ts';

export const STEP_KINDS: readonly AnyStepKind[] = [
  start,
  attach,
  stop,
  wait,
  waitSerial,
  waitAgent,
  waitEvent,
  waitAccess,
  waitQuiet,
  waitScreen,
  mark,
  guestRun,
  copyIn,
  copyOut,
  sendSerial,
  type,
  keys,
  click,
  screendump,
  reset,
  powerDown,
  pause,
  resume,
  saveSnapshot,
  loadSnapshot,
  plug,
  unplug,
  changeMedia,
  qmp,
  hostRun,
] as readonly AnyStepKind[];
