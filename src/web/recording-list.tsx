/** Several recordings at once: one is chosen. */
import { addressOf } from './address.ts';
import { bytes } from '../base/format.ts';
import * as state from './state.ts';

const STATES = {
  recording: ['recording', 'run'],
  waiting: ['its host is away', 'warn'],
  finished: ['finished', 'ok'],
} as const;

/** In place of everything, while none is chosen. */
export function Choice() {
  const listed = state.recordings.value;
  if (listed === undefined) return null;
  return (
    <main class="choice">
      {listed.length === 0 ? (
        <div class="empty">
          <h2>No recording has come yet</h2>
          <p>
            It appears here as soon as somebody runs <code>mmiobridge record --send-to</code> with
            the address of this collector.
          </p>
        </div>
      ) : (
        <>
          <h2>Which recording?</h2>
          <RecordingList />
        </>
      )}
    </main>
  );
}

/** The last that came first. */
export function RecordingList() {
  const listed = (state.recordings.value ?? []).toReversed();
  return (
    <ul class="recordings" id="recordings">
      {listed.map(({ id, name, file, bytes: size, changedMs, state: of }, at) => {
        const [word, kind] = STATES[of];
        return (
          <li key={id}>
            <a
              autofocus={at === 0}
              href={addressOf(id)}
              aria-current={state.chosen.value === id}
              onClick={() => (state.dialog.value = undefined)}
            >
              <span class={`state ${kind}`}>{word}</span>
              <b>{name}</b>
              <span class="muted">{file}</span>
              <span class="muted">
                {bytes(size)}, {new Date(changedMs).toLocaleTimeString()}
              </span>
            </a>
          </li>
        );
      })}
    </ul>
  );
}
