/** What there is to look at: asked for again and again, and one of it chosen. */
import { effect } from '@preact/signals';
import { authorized, recordingInAddress } from './address.ts';
import { connect } from './connection.ts';
import * as state from './state.ts';

const ASK_MS = 2000;
const RETRY_MS = 1000;
/** Another one with each start of the server. */
const SERVER_HEADER = 'mmiobridge-server';

/** Goes on for ever. */
export async function followRecordings(): Promise<void> {
  for (;;) {
    const response = await fetch('recordings', authorized()).catch(() => undefined);
    if (response?.ok === true) {
      const server = response.headers.get(SERVER_HEADER);
      take((await response.json()) as readonly state.Listed[], server);
    } else if (response?.status === 401) {
      state.connection.value = 'refused';
      await new Promise((resolve) =>
        window.addEventListener('hashchange', resolve, { once: true }),
      );
      continue;
    } else if (state.connection.peek() !== 'open' && state.connection.peek() !== 'ended') {
      state.connection.value = state.recordings.peek() === undefined ? 'connecting' : 'lost';
    }
    await new Promise((resolve) => setTimeout(resolve, response?.ok === true ? ASK_MS : RETRY_MS));
  }
}

let served: string | null = null;

function take(listed: readonly state.Listed[], server: string | null): void {
  const before = state.recordings.peek();
  const isAnew = served !== null && served !== server;
  served = server;
  const gone = listed.every(({ id }) => id !== state.chosen.peek());
  const isGone = state.chosen.peek() !== undefined && gone;
  if (isAnew) {
    const without = isGone ? '; it does not have the recording that was shown' : '';
    state.say(`the server was started anew${without}`, isGone);
  }
  if (isGone) state.chosen.value = undefined;
  if (isAnew && state.connection.peek() !== 'open' && state.chosen.peek() === undefined) {
    state.connection.value = 'connecting';
  }
  if (JSON.stringify(before) !== JSON.stringify(listed)) state.recordings.value = listed;
  const known = new Set((before ?? []).map(({ id }) => id));
  const [more] = before === undefined || isAnew ? [] : listed.filter(({ id }) => !known.has(id));
  if (more !== undefined) state.say(`another recording: ${more.name}`);
  if (state.chosen.peek() === undefined) choose(listed);
}

/** The one in the address, or the only one. */
function choose(listed: readonly state.Listed[]): void {
  const wanted = recordingInAddress();
  const only = listed.length === 1 ? listed[0]?.id : undefined;
  state.chosen.value = listed.find(({ id }) => id === wanted)?.id ?? only;
}

window.addEventListener('hashchange', () => {
  state.chosen.value = undefined;
  choose(state.recordings.peek() ?? []);
});

effect(() => connect(state.chosen.value));
effect(() => {
  const one = state.recordings.value?.find(({ id }) => id === state.chosen.value);
  document.title = one === undefined ? 'mmiobridge' : `${one.name} – mmiobridge`;
});
