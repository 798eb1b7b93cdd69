import { useEffect } from 'preact/hooks';
import { AccessList } from './access-list.tsx';
import { clearAll, jumpToMark, toggleZoom } from './actions.ts';
import { DeviceMap } from './device-map.tsx';
import { Dialogs } from './dialogs.tsx';
import { count } from '../base/format.ts';
import { Choice } from './recording-list.tsx';
import { RegisterPanel } from './register-panel.tsx';
import * as state from './state.ts';
import { Timeline } from './timeline.tsx';
import { ToolBar } from './tool-bar.tsx';
import { TopBar } from './top-bar.tsx';

export function App() {
  useEffect(() => {
    document.addEventListener('keydown', onKey);
    return () => document.removeEventListener('keydown', onKey);
  }, []);
  return (
    <>
      <TopBar />
      {state.chosen.value === undefined ? <Choice /> : <Recording />}
      <Dialogs />
      <Notes />
    </>
  );
}

function Recording() {
  return (
    <>
      <Timeline />
      <ToolBar />
      <main class={state.register.value === undefined ? '' : 'with-register'}>
        <DeviceMap />
        <AccessList />
        <RegisterPanel />
      </main>
    </>
  );
}

function Notes() {
  const toast = state.toast.value;
  const missed = state.missed.value;
  return (
    <div class="notes" aria-live="polite">
      {missed !== undefined && (
        <p class="bad" id="missed">
          This page did not keep up: {count(missed.accesses)} accesses went by unseen. The recording
          has them.
          <button onClick={() => (state.missed.value = undefined)}>Close</button>
        </p>
      )}
      {toast !== undefined && <p class={toast.bad ? 'bad' : ''}>{toast.text}</p>}
    </div>
  );
}

const focus = (selector: string): void => document.querySelector<HTMLElement>(selector)?.focus();

/** Keys that are the same everywhere, but where text is typed. */
function onKey(event: KeyboardEvent): void {
  const { target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || state.dialog.peek() !== undefined) return;
  if (target instanceof HTMLInputElement && target.type === 'text') return;
  if (target instanceof HTMLSelectElement) return;
  const action = ACTIONS[event.key];
  if (action === undefined || event.defaultPrevented) return;
  event.preventDefault();
  action();
}

const ACTIONS: Readonly<Record<string, () => void>> = {
  '/': () => focus('#filter'),
  '?': () => (state.dialog.value = 'help'),
  c: () => (state.dialog.value = 'coverage'),
  d: () => (state.dialog.value = 'download'),
  m: () => {
    if (state.summary.peek().canMark === true) state.dialog.value = 'mark';
    else state.say('marks are put in while a recording runs', true);
  },
  o: () => {
    if ((state.recordings.peek()?.length ?? 0) > 1) state.dialog.value = 'recordings';
  },
  z: toggleZoom,
  '[': () => jumpToMark(-1),
  ']': () => jumpToMark(1),
  t: () => focus('.plot'),
  l: () => focus('#list'),
  r: () => focus('#steps'),
  Escape: () => {
    if (state.register.peek() === undefined) clearAll();
    else state.register.value = undefined;
  },
};
