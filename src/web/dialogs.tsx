import type { Span } from '../analysis/span.ts';
import { useLayoutEffect, useRef } from 'preact/hooks';
import type { ComponentChildren } from 'preact';
import { goToRow } from './access-list.tsx';
import { addMark, download, type Format } from './actions.ts';
import { bytes, count, hex } from '../base/format.ts';
import { holeText, moment } from './format.ts';
import { RecordingList } from './recording-list.tsx';
import * as state from './state.ts';
import { spanText } from './timeline.tsx';

export function Dialogs() {
  switch (state.dialog.value) {
    case 'help':
      return <Help />;
    case 'coverage':
      return <Coverage />;
    case 'mark':
      return <NewMark />;
    case 'download':
      return <Download />;
    case 'recordings':
      return (
        <Box title="Recordings">
          <RecordingList />
        </Box>
      );
    case undefined:
      return null;
  }
}

const close = (): void => void (state.dialog.value = undefined);

interface BoxProps {
  readonly title: string;
  readonly children: ComponentChildren;
}

function Box({ title, children }: BoxProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  // Before the next key is pressed. What had the focus has it again afterwards.
  useLayoutEffect(() => {
    dialog.current?.showModal();
  }, []);
  return (
    <dialog
      ref={dialog}
      onClose={close}
      onClick={(event) => event.target === event.currentTarget && dialog.current?.close()}
      aria-label={title}
    >
      <header>
        <h2>{title}</h2>
        <span class="grow" />
        <button onClick={() => dialog.current?.close()}>Close</button>
      </header>
      {children}
    </dialog>
  );
}

const KEYS = [
  ['/', 'type a filter; Esc empties it'],
  ['↑ ↓ PgUp PgDn Home End', 'move in the list; with Shift select; End follows what comes'],
  ['Enter', 'the history of the register in the list'],
  ['f', 'filter by that register'],
  ['Ctrl+C', 'copy the selected rows as mmiotrace lines'],
  ['t, l, r', 'to the timeline, the list, the register'],
  ['← →', 'on the timeline: select a span and move it; with Shift its end'],
  ['z', 'timeline of the span, or of all'],
  ['[ ]', 'span from one mark to the next'],
  ['m', 'put a mark into a running recording'],
  ['c, d, o', 'coverage and loss; download; other recordings'],
  ['Esc', 'close what is open, then show everything again'],
] as const;

const FILTERS = [
  ['write', 'writes; also read, w, r, mmio, pio, config'],
  ['bar0+0x400', 'one register'],
  ['bar=0 offset=0x400..0x4ff', 'a range; also 0x400+0x100, or a list 0x10,0x14'],
  ['value&0x8', 'any of the bits set; value&0xf=0x3 these exactly'],
  ['value>=0x1000 width=4', 'numbers compare with = != < <= > >='],
  ['cpu=1 pc!=0', 'vCPU and instruction'],
  ['time>=1.5 time<1600ms', 'session time, in seconds without a unit'],
  ['device=nic0', 'a device by any of its names; quote "odd ones"'],
  ['not read or (write bar1)', 'not, or, parentheses; side by side means and'],
] as const;

function Help() {
  return (
    <Box title="Keys and filters">
      <div class="columns">
        <div>
          <h3>Keys</h3>
          <dl class="keys">
            {KEYS.map(([key, what]) => (
              <div key={key}>
                <dt>
                  <kbd>{key}</kbd>
                </dt>
                <dd>{what}</dd>
              </div>
            ))}
          </dl>
        </div>
        <div>
          <h3>Filters</h3>
          <dl class="keys">
            {FILTERS.map(([text, what]) => (
              <div key={text}>
                <dt>
                  <button
                    class="link"
                    onClick={() => {
                      state.filter.value = text;
                      close();
                    }}
                  >
                    <code>{text}</code>
                  </button>
                </dt>
                <dd>{what}</dd>
              </div>
            ))}
          </dl>
        </div>
      </div>
    </Box>
  );
}

function Coverage() {
  const statement = state.coverage.value;
  const notices = state.notices.value.slice(-100);
  const header = state.header.value;
  const { doubts } = state.summary.value;
  return (
    <Box title="What the recording has and has not">
      {statement === undefined || statement.ranges.length === 0 ? (
        <p>The recording says nothing about what it could see.</p>
      ) : (
        <table class="plain" id="coverage-table">
          <thead>
            <tr>
              <th>range</th>
              <th />
              <th>why</th>
            </tr>
          </thead>
          <tbody>
            {statement.ranges.map((range) => (
              <tr key={`${range.device} ${range.region} ${range.offset}`}>
                <td>
                  {range.device} {range.region}{' '}
                  <small>
                    {hex(range.offset)}, {bytes(range.lengthBytes)}
                  </small>
                </td>
                <td>
                  <span
                    class={`badge ${range.state === 'trapped' ? 'ok' : range.state === 'unknown' ? 'warn' : 'bad'}`}
                  >
                    {range.state}
                  </span>
                </td>
                <td>{range.why}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {statement !== undefined && statement.notes.length > 0 && (
        <ul>
          {statement.notes.map((note) => (
            <li key={note}>{note}</li>
          ))}
        </ul>
      )}
      {statement?.phase === 'head' && (
        <p class="muted">As known at the beginning; the end may say more.</p>
      )}
      <h3>Lost or damaged</h3>
      <Missing />
      {(doubts ?? []).length > 0 && (
        <>
          <h3>It is not what it says</h3>
          <ul id="doubts">
            {(doubts ?? []).map((doubt) => (
              <li key={doubt}>{doubt}</li>
            ))}
          </ul>
        </>
      )}
      {notices.length > 0 && (
        <>
          <h3>Also</h3>
          <ul>
            {notices.map(({ timeNs, text }, at) => (
              <li key={at}>
                {moment(timeNs)} s: {text}
              </li>
            ))}
          </ul>
        </>
      )}
      {header !== undefined && (
        <p class="muted">
          Recorded by {header.tool}, begun{' '}
          {new Date(header.startSec * 1000).toISOString().replace('.000', '')}, clock {header.clock}
          {header.qemuVersion !== '' && `, QEMU ${header.qemuVersion}`}.
        </p>
      )}
    </Box>
  );
}

/** The places where something is missing; each leads there. */
function Missing() {
  const holes = state.holes.value;
  const { lossEvents = 0, damages = 0 } = state.summary.value;
  const more = (lossEvents ?? 0) + (damages ?? 0) - holes.length;
  if (holes.length === 0 && more <= 0) {
    const soFar = state.reading.value ? 'so far' : 'as far as the recording knows';
    return <p>Nothing, {soFar}.</p>;
  }
  return (
    <ul id="holes">
      {holes.map((hole, at) => (
        <li key={at}>
          <button
            class="link"
            title="Show this place in the list"
            onClick={() => {
              close();
              goToRow(hole.row);
            }}
          >
            {moment(hole.fromNs)} s
          </button>
          : {holeText(hole)}
        </li>
      ))}
      {more > 0 && <li>and {count(more)} more</li>}
    </ul>
  );
}

function NewMark() {
  const input = useRef<HTMLInputElement>(null);
  return (
    <Box title="Mark this moment">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          const text = input.current?.value.trim() ?? '';
          if (text === '') return;
          void addMark(text);
          close();
        }}
      >
        <input
          ref={input}
          id="mark-text"
          autofocus
          type="text"
          maxLength={200}
          placeholder="what you are about to do"
          aria-label="Text of the mark"
        />
        <button type="submit">Mark</button>
      </form>
    </Box>
  );
}

const FORMATS: readonly (readonly [Format, string])[] = [
  ['mmiotrace', 'text, as the kernel prints it'],
  ['ndjson', 'a JSON object a line'],
  ['capture', 'everything, for mmiobridge'],
];

function Download() {
  const span = state.span.value;
  const button = (format: Format, of: Span | undefined, name: string) => (
    <button
      id={`download-${format}-${of === undefined ? 'all' : 'span'}`}
      onClick={() => {
        close();
        void download(format, of);
      }}
    >
      {name}
    </button>
  );
  return (
    <Box title="Download">
      <table class="plain">
        <tbody>
          {FORMATS.map(([format, what]) => (
            <tr key={format}>
              <td>
                <b>{format}</b> <small>{what}</small>
              </td>
              <td>{button(format, undefined, 'All')}</td>
              <td>{span !== undefined && button(format, span, 'Span')}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <p class="muted">
        {span === undefined
          ? 'With a span selected on the timeline, the span alone can be downloaded.'
          : `Span: ${spanText(span)}. Its filter does not matter here.`}
      </p>
    </Box>
  );
}
