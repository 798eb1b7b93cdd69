import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { clearAll, jumpToMark, spanBetweenMarks, toggleZoom } from './actions.ts';
import { count } from '../base/format.ts';
import { moment } from './format.ts';
import * as state from './state.ts';
import { spanText } from './timeline.tsx';

const TYPING_MS = 250;

/** Filter, span, marks. */
export function ToolBar() {
  const span = state.span.value;
  const zoomed = state.zoom.value !== undefined;
  return (
    <div class="tools">
      <FilterInput />
      <Matches />
      <span class="grow" />
      {span === undefined ? (
        <span class="hint">drag on the timeline to select a span</span>
      ) : (
        <span class="span" id="span">
          {spanText(span)}
        </span>
      )}
      {(span !== undefined || zoomed) && (
        <>
          <button onClick={toggleZoom} title="Timeline of the span, or of all (z)">
            {zoomed ? 'Whole' : 'Zoom'}
          </button>
          <button onClick={clearAll} title="Show everything again (Esc)">
            Clear
          </button>
        </>
      )}
      <Marks />
    </div>
  );
}

function FilterInput() {
  const input = useRef<HTMLInputElement>(null);
  const text = useSignal(state.filter.peek());
  const timer = useRef(0);
  const set = (value: string, late: boolean): void => {
    text.value = value;
    clearTimeout(timer.current);
    if (late) timer.current = setTimeout(() => (state.filter.value = value), TYPING_MS);
    else state.filter.value = value;
  };
  const chosen = state.filter.value;
  // A click somewhere else may have set another one.
  useEffect(() => {
    clearTimeout(timer.current);
    text.value = chosen;
  }, [chosen]);
  const error = state.filterError.value;
  return (
    <div class="filter">
      <input
        id="filter"
        ref={input}
        type="text"
        value={text.value}
        spellcheck={false}
        autocomplete="off"
        placeholder="Filter: write bar0+0x400 value&0x8   (/ to type, ? for help)"
        aria-label="Filter"
        aria-invalid={error !== undefined}
        aria-describedby="filter-error"
        onInput={(event) => set(event.currentTarget.value, true)}
        onKeyDown={(event) => {
          if (event.key === 'Enter') set(text.peek(), false);
          if (event.key !== 'Escape') return;
          event.stopPropagation();
          if (text.peek() === '') input.current?.blur();
          else set('', false);
        }}
      />
      {error !== undefined && (
        <p class="filter-error" id="filter-error" role="alert">
          <code>
            {text.value.slice(0, error.at)}
            <mark>{text.value.slice(error.at) || ' '}</mark>
          </code>
          {error.message}
          {error.hint !== '' && <small>{error.hint}</small>}
        </p>
      )}
    </div>
  );
}

function Matches() {
  const shown = state.list.value;
  const summary = state.summary.value;
  const all = (summary.reads ?? 0) + (summary.writes ?? 0);
  if (shown === undefined) return <span class="matches">…</span>;
  const busy = !shown.caughtUp && all > 0;
  // While the file is read, it may still come.
  const unknown = state.reading.value ? '' : shown.unknownNames.join('. ');
  return (
    <>
      <span class="matches" id="matches" role="status" data-done={String(shown.caughtUp)}>
        <b>{count(shown.rows)}</b> of {count(all)}
        {busy && ` (looked at ${Math.floor((100 * shown.seen) / all)} %)`}
      </span>
      {unknown !== '' && (
        <span class="unknown-name" id="filter-unknown" role="status" title={unknown}>
          {unknown}
        </span>
      )}
    </>
  );
}

function Marks() {
  const marks = state.marks.value;
  const canMark = state.summary.value.canMark === true;
  return (
    <span class="marks">
      <button onClick={() => jumpToMark(-1)} title="Mark before ([)" disabled={marks.length === 0}>
        ◂
      </button>
      <select
        aria-label="Marks"
        id="marks"
        disabled={marks.length === 0}
        value=""
        onChange={(event) => {
          const mark = marks[Number(event.currentTarget.value)];
          if (mark !== undefined) spanBetweenMarks(mark.timeNs);
          event.currentTarget.value = '';
        }}
      >
        <option value="">{marks.length === 1 ? '1 mark' : `${count(marks.length)} marks`}</option>
        {marks.map(({ timeNs, text }, at) => (
          <option value={at} key={at}>
            {moment(timeNs)} {text}
          </option>
        ))}
      </select>
      <button onClick={() => jumpToMark(1)} title="Next mark (])" disabled={marks.length === 0}>
        ▸
      </button>
      <button
        id="add-mark"
        onClick={() => (state.dialog.value = 'mark')}
        disabled={!canMark}
        title={
          canMark ? 'Put a mark into the recording (m)' : 'Marks are put in while a recording runs'
        }
      >
        Mark
      </button>
    </span>
  );
}
