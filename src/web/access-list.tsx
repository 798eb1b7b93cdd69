/**
 * Millions of rows. No browser makes an element so high, so the scroll bar is only a dial: what is
 * shown is counted in rows, and the wheel and the keys move by rows.
 */
import { batch, computed, effect, signal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { clearAll, copyLines } from './actions.ts';
import { count } from '../base/format.ts';
import { changedBits } from '../analysis/bits.ts';
import { bitList, hexDigits, holeText, moment } from './format.ts';
import { arrived, rowAt, rowCount, type Row } from './rows.ts';
import * as state from './state.ts';

const ROW_PX = 20;
/** Below what browsers can do. */
const MAX_PX = 8_000_000;

const top = signal(0);
const fit = signal(20);
const cursor = signal(0);
/** The other end of what is selected. */
const anchor = signal(0);
/** Stay at the end as it grows. */
export const follow = signal(false);

/** To be shown as soon as it is there, in a list that has all. */
const goal = signal<{ readonly row: number; readonly epoch: number } | undefined>(undefined);

const lastTop = computed(() => Math.max(0, rowCount() - fit.value));

function show(index: number): void {
  top.value = Math.min(lastTop.peek(), Math.max(0, index));
}

function moveTo(index: number, extend: boolean): void {
  const to = Math.min(Math.max(0, rowCount() - 1), Math.max(0, index));
  batch(() => {
    cursor.value = to;
    if (!extend) anchor.value = to;
    if (to < top.peek()) show(to);
    else if (to >= top.peek() + fit.peek()) show(to - fit.peek() + 1);
    follow.value = false;
  });
}

/** Shows an access by its number in the recording, whatever hid it. */
export function goToRow(row: number): void {
  const hasAll = state.filter.peek() === '' && state.span.peek() === undefined;
  batch(() => {
    follow.value = false;
    state.filter.value = '';
    clearAll();
    goal.value = { row, epoch: state.listEpoch.peek() + (hasAll ? 0 : 1) };
  });
  document.querySelector<HTMLElement>('#list')?.focus();
}

effect(() => {
  const { rows = 0, caughtUp = false } = state.list.value ?? {};
  const isOfNow = state.listFor.value >= (goal.value?.epoch ?? Infinity);
  const row = goal.value?.row;
  if (row === undefined || !isOfNow || (rows <= row && !caughtUp)) return;
  batch(() => {
    goal.value = undefined;
    moveTo(row, false);
    show(row - Math.floor(fit.peek() / 2));
  });
});
effect(() => {
  void state.listEpoch.value;
  batch(() => {
    top.value = 0;
    cursor.value = 0;
    anchor.value = 0;
  });
});
effect(() => {
  const end = lastTop.value;
  if (follow.value) top.value = end;
  else if (top.peek() > end) top.value = end;
});

function onKey(event: KeyboardEvent): void {
  const at = cursor.peek();
  const page = Math.max(1, fit.peek() - 1);
  if ((event.ctrlKey || event.metaKey) && event.key === 'c') {
    event.preventDefault();
    copySelected();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const to = {
    ArrowDown: at + 1,
    ArrowUp: at - 1,
    PageDown: at + page,
    PageUp: at - page,
    Home: 0,
    End: rowCount() - 1,
  }[event.key];
  if (to !== undefined) {
    event.preventDefault();
    moveTo(to, event.shiftKey);
    if (event.key === 'End' && !event.shiftKey) follow.value = true;
    return;
  }
  const row = rowAt(at);
  if (row === undefined) return;
  if (event.key === 'Enter') state.register.value = row;
  else if (event.key === 'f') state.filter.value = state.registerFilter(row);
  else return;
  event.preventDefault();
}

export function copySelected(): void {
  const first = Math.min(cursor.peek(), anchor.peek());
  void copyLines(first, Math.abs(cursor.peek() - anchor.peek()) + 1);
}

export function AccessList() {
  const scroller = useRef<HTMLDivElement>(null);
  const box = useRef<HTMLDivElement>(null);
  const rows = rowCount();
  const height = Math.min(MAX_PX, rows * ROW_PX);

  useEffect(() => {
    const element = scroller.current;
    if (element === null) return;
    const measure = (): void => {
      fit.value = Math.max(1, Math.floor(element.clientHeight / ROW_PX));
    };
    measure();
    const resize = new ResizeObserver(measure);
    resize.observe(element);
    // The dial follows what is shown, and what is shown the dial.
    let ours = -1;
    const onScroll = (): void => {
      if (element.scrollTop === ours) return;
      ours = element.scrollTop;
      const room = element.scrollHeight - element.clientHeight;
      follow.value = false;
      show(room <= 0 ? 0 : Math.round((element.scrollTop / room) * lastTop.peek()));
    };
    const onWheel = (event: WheelEvent): void => {
      if (event.ctrlKey || event.shiftKey || event.deltaY === 0) return;
      event.preventDefault();
      const lines = event.deltaMode === 0 ? event.deltaY / ROW_PX : event.deltaY;
      follow.value = false;
      show(top.peek() + (Math.abs(lines) < 1 ? Math.sign(lines) : Math.round(lines)));
    };
    element.addEventListener('scroll', onScroll);
    element.addEventListener('wheel', onWheel, { passive: false });
    const stop = effect(() => {
      const room = element.scrollHeight - element.clientHeight;
      const wanted = lastTop.value === 0 ? 0 : Math.round((top.value / lastTop.value) * room);
      if (Math.abs(wanted - element.scrollTop) < 1) return;
      element.scrollTop = wanted;
      ours = element.scrollTop;
    });
    return () => {
      resize.disconnect();
      element.removeEventListener('scroll', onScroll);
      element.removeEventListener('wheel', onWheel);
      stop();
    };
  }, []);

  const from = Math.min(cursor.value, anchor.value);
  const to = Math.max(cursor.value, anchor.value);
  void arrived.value;
  const shown = [];
  for (let index = top.value; index < Math.min(rows, top.value + fit.value + 1); index++) {
    shown.push(
      <ListRow
        key={index}
        index={index}
        row={rowAt(index)}
        {...holesAt(index)}
        selected={index >= from && index <= to}
        current={index === cursor.value}
      />,
    );
  }
  return (
    <section class="list" aria-label="Accesses">
      <div class="row head" role="presentation">
        <span class="c-number">#</span>
        <span class="c-time">time s</span>
        <span class="c-cpu">cpu</span>
        <span class="c-op">op</span>
        <span class="c-register">register</span>
        <span class="c-width">B</span>
        <span class="c-value">value</span>
        <span class="c-bits">bits changed</span>
        <span class="c-pc">PC</span>
      </div>
      <div
        class="scroller"
        ref={scroller}
        id="list"
        tabIndex={0}
        role="grid"
        aria-rowcount={rows}
        aria-label="Accesses: arrow keys move, Enter shows the register, f filters by it, Ctrl+C copies"
        aria-activedescendant={`row-${cursor.value}`}
        onKeyDown={onKey}
      >
        <div class="dial" style={{ height: `${height}px` }} />
        <div class="rows" ref={box}>
          {shown}
        </div>
      </div>
      {rows === 0 && <Nothing />}
      <div class="list-foot">
        <span>
          {to > from
            ? `${count(to - from + 1)} selected`
            : rows > 0
              ? `row ${count(cursor.value + 1)}`
              : ''}
        </span>
        <button
          onClick={copySelected}
          disabled={rows === 0}
          title="Copy as mmiotrace lines (Ctrl+C)"
        >
          Copy
        </button>
        <span class="grow" />
        <label>
          <input
            type="checkbox"
            checked={follow.value}
            onChange={(event) => (follow.value = event.currentTarget.checked)}
          />
          follow the end
        </label>
      </div>
    </section>
  );
}

function Nothing() {
  const shown = state.list.value;
  const any = (state.summary.value.reads ?? 0) + (state.summary.value.writes ?? 0) > 0;
  let text = 'nothing recorded yet';
  if (shown !== undefined && !shown.caughtUp) text = 'looking';
  else if (any) text = 'no access passes the filter in this span';
  return <p class="nothing">{text}</p>;
}

interface HolesAt {
  /** What is missing before the row, and behind the last; empty: nothing. */
  readonly before: string;
  readonly behind: string;
}

function holesAt(index: number): HolesAt {
  const holes = state.holes.value;
  const row = holes.length === 0 ? undefined : rowAt(index);
  if (row === undefined) return { before: '', behind: '' };
  const last = index === 0 ? -1 : rowAt(index - 1)?.rowNumber;
  const isLast = index === rowCount() - 1;
  const text = (found: readonly state.Hole[]): string => found.map(holeText).join('; ');
  return {
    before: text(holes.filter((at) => at.row > (last ?? Infinity) && at.row <= row.rowNumber)),
    behind: isLast ? text(holes.filter((at) => at.row > row.rowNumber)) : '',
  };
}

interface ListRowProps extends HolesAt {
  readonly index: number;
  readonly row: Row | undefined;
  readonly selected: boolean;
  readonly current: boolean;
}

const OPS = ['R', 'W', '?'];
const OP_CLASSES = ['reads', 'writes', ''];

function ListRow({ index, row, selected, current, before, behind }: ListRowProps) {
  const choose = (event: MouseEvent): void => {
    moveTo(index, event.shiftKey);
    if (row !== undefined && !event.shiftKey) state.register.value = row;
  };
  const classes = `row${selected ? ' selected' : ''}${current ? ' current' : ''}`;
  if (row === undefined) {
    return (
      <div class={`${classes} late`} id={`row-${index}`} role="row" aria-rowindex={index + 1}>
        <span class="c-number">…</span>
      </div>
    );
  }
  const hole = behind !== '' ? ' hole behind' : before !== '' ? ' hole' : '';
  const missing = [before, behind].filter(Boolean).join('; ');
  const same = state.sameRegister(state.register.value, row) ? ' same' : '';
  return (
    <div
      class={classes + same + hole}
      id={`row-${index}`}
      role="row"
      aria-rowindex={index + 1}
      aria-selected={selected}
      onClick={choose}
    >
      <span class="c-number" role="gridcell">
        {count(row.rowNumber + 1)}
      </span>
      <span class="c-time" role="gridcell">
        {moment(row.timeNs)}
      </span>
      <span class="c-cpu" role="gridcell">
        {row.cpu < 0 ? '–' : row.cpu}
      </span>
      <span class={`c-op ${OP_CLASSES[row.op] ?? ''}`} role="gridcell">
        {OPS[row.op] ?? '?'}
      </span>
      <span class="c-register" role="gridcell">
        {state.registerName(row)}
      </span>
      <span class="c-width" role="gridcell">
        {row.width}
      </span>
      <span class="c-value" role="gridcell">
        <Value row={row} />
      </span>
      <span class="c-bits" role="gridcell">
        <Bits row={row} />
      </span>
      <span class="c-pc" role="gridcell">
        {row.pc[0] === 0 && row.pc[1] === 0 ? '–' : `0x${hexDigits(row.pc[0], row.pc[1], 8)}`}
      </span>
      {missing !== '' && (
        <span class="hole-text" title={missing}>
          {missing}
        </span>
      )}
    </div>
  );
}

/** The digits that differ from what the register held before stand out. */
function Value({ row }: { readonly row: Row }) {
  const digits = hexDigits(...row.value, row.width);
  const before = row.before === undefined ? digits : hexDigits(...row.before, row.width);
  return (
    <>
      <i>0x</i>
      {digits
        .split('')
        .map((digit, at) => (digit === before[at] ? digit : <b key={at}>{digit}</b>))}
    </>
  );
}

function Bits({ row }: { readonly row: Row }) {
  if (row.otherWidth) return <i title="The access before was of another width">other width</i>;
  if (row.before === undefined) return <i>first</i>;
  const { set, cleared } = changedBits(row.before, row.value);
  return (
    <>
      {set.length > 0 && <span class="set">+{bitList(set)}</span>}
      {cleared.length > 0 && <span class="cleared">−{bitList(cleared)}</span>}
    </>
  );
}
