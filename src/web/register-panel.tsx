/** One register: its values over time, who reads and writes it, poll loops folded. */
import { effect, signal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';
import { foldPolls, type Step } from '../analysis/polls.ts';
import type { History, HistoryEntry } from '../analysis/register-history.ts';
import type { mmiobridge } from '../wire/generated/types.ts';
import { setSpan } from './actions.ts';
import { ask } from './connection.ts';
import { count, hex } from '../base/format.ts';
import { changedBits } from '../analysis/bits.ts';
import { bitList, hexDigits, length, moment, short } from './format.ts';
import { LIST } from './shown.ts';
import * as state from './state.ts';

/** Holds until the next one. */
const stepped =
  uPlot.paths.stepped === undefined ? {} : { paths: uPlot.paths.stepped({ align: 1 }) };

/** While a recording runs, the history is asked for again this often. */
const REFRESH_MS = 1000;
const MAX_STEPS = 500;

const history = signal<{ readonly of: state.Register; readonly history: History } | undefined>(
  undefined,
);
let turn = 0;
let late = 0;

async function load(register: state.Register): Promise<void> {
  const mine = ++turn;
  try {
    const { region, offset } = register;
    const reply = await ask({ history: { slot: LIST, region, offset } });
    if (mine === turn && reply.history) {
      history.value = { of: register, history: toHistory(reply.history) };
    }
  } catch {
    // The connection was lost; when it is back, the list is new, and this is asked again.
  }
}

effect(() => {
  const register = state.register.value;
  void state.listEpoch.value;
  clearTimeout(late);
  late = 0;
  if (register !== undefined) void load(register);
});
effect(() => {
  void state.list.value;
  const register = state.register.peek();
  if (register === undefined || late !== 0) return;
  late = setTimeout(() => {
    late = 0;
    void load(register);
  }, REFRESH_MS);
});

export function RegisterPanel() {
  const register = state.register.value;
  if (register === undefined) return null;
  const shown = history.value;
  const ready = shown !== undefined && state.sameRegister(shown.of, register);
  return (
    <aside class="register" aria-label="Register" id="register">
      <header>
        <h2>{state.registerName(register)}</h2>
        <span class="grow" />
        <button
          onClick={() => (state.filter.value = state.registerFilter(register))}
          title="Show only this register in the list (f)"
        >
          Filter
        </button>
        <button onClick={() => (state.register.value = undefined)} title="Close (Esc)">
          Close
        </button>
      </header>
      {ready ? <Body history={shown.history} /> : <p class="nothing">looking</p>}
    </aside>
  );
}

function toHistory({
  entries,
  leftOut,
  reads,
  writes,
}: mmiobridge.v1.History.$Properties): History {
  return {
    entries: (entries ?? []).map((entry) => ({
      write: entry.write ?? false,
      firstNs: entry.firstNs ?? 0,
      lastNs: entry.lastNs ?? 0,
      count: entry.count ?? 0,
      value: [entry.valueLow ?? 0, entry.valueHigh ?? 0],
      cpu: entry.cpu ?? -1,
      pc: [entry.pcLow ?? 0, entry.pcHigh ?? 0],
      width: entry.width ?? 4,
      rowNumber: entry.rowNumber ?? 0,
    })),
    leftOut: leftOut ?? 0,
    reads: reads ?? 0,
    writes: writes ?? 0,
  };
}

function Body({ history: shown }: { readonly history: History }) {
  const { entries } = shown;
  const steps = foldPolls(entries).toReversed();
  const polls = steps.filter(({ poll }) => poll).length;
  return (
    <>
      <p class="register-sum">
        <span class="reads">{count(shown.reads)} reads</span>{' '}
        <span class="writes">{count(shown.writes)} writes</span>
        {polls > 0 && ` · ${count(polls)} poll loops`}
        {shown.leftOut > 0 && ` · the last ${count(entries.length)} changes`}
      </p>
      <Who entries={entries} />
      <Values entries={entries} />
      <ol
        class="steps"
        id="steps"
        tabIndex={0}
        aria-label="What happened to the register, last first"
      >
        {steps.slice(0, MAX_STEPS).map((step) => (
          <StepLine step={step} key={step.rowNumber} />
        ))}
      </ol>
    </>
  );
}

/** vCPUs and, where they were seen, instructions. */
function Who({ entries }: { readonly entries: readonly HistoryEntry[] }) {
  const counts = new Map<string, { reads: number; writes: number }>();
  for (const { write, count: times, cpu, pc } of entries) {
    const at = pc[0] === 0 && pc[1] === 0 ? '' : ` at 0x${hexDigits(...pc, 8)}`;
    const who = `${cpu < 0 ? 'vCPU not known' : `vCPU ${cpu}`}${at}`;
    const found = counts.get(who) ?? { reads: 0, writes: 0 };
    found[write ? 'writes' : 'reads'] += times;
    counts.set(who, found);
  }
  const busiest = [...counts].toSorted(([, a], [, b]) => b.reads + b.writes - a.reads - a.writes);
  return (
    <ul class="who">
      {busiest.slice(0, 6).map(([who, { reads, writes }]) => (
        <li key={who}>
          {who}: {reads > 0 && <span class="reads">{short(reads)} R </span>}
          {writes > 0 && <span class="writes">{short(writes)} W</span>}
        </li>
      ))}
    </ul>
  );
}

function StepLine({ step }: { readonly step: Step }) {
  const { firstNs, lastNs } = step;
  const value = `0x${hexDigits(step.value[0], step.value[1], step.width)}`;
  const folded = step.count > 1;
  return (
    <li>
      <button
        class="moment"
        onClick={() => setSpan({ fromNs: firstNs, toNs: lastNs + 1 })}
        title="Make this the span"
      >
        {moment(firstNs)}
      </button>
      <span class={step.write ? 'writes' : 'reads'}>{step.write ? 'W' : 'R'}</span>
      {step.poll ? (
        <span class="poll">
          read {count(step.count)} times
          {step.endedBy !== undefined && ` until ${bitsText(step.endedBy)}`},{' '}
          {length(lastNs - firstNs)}
          <code>{value}</code>
        </span>
      ) : (
        <span>
          <code>{value}</code>
          {folded && ` × ${count(step.count)}, ${length(lastNs - firstNs)}`}
          {step.before !== undefined && <Change before={step.before} now={step.value} />}
        </span>
      )}
    </li>
  );
}

/** `bit 3 set, bits 0,4–7 cleared` */
function bitsText({ set, cleared }: NonNullable<Step['endedBy']>): string {
  const parts = [
    [set, 'set'],
    [cleared, 'cleared'],
  ] as const;
  return parts
    .filter(([bits]) => bits.length > 0)
    .map(([bits, how]) => `${bits.length === 1 ? 'bit' : 'bits'} ${bitList(bits)} ${how}`)
    .join(', ');
}

interface ChangeProps {
  readonly before: readonly [number, number];
  readonly now: readonly [number, number];
}

function Change({ before, now }: ChangeProps) {
  const { set, cleared } = changedBits(before, now);
  return (
    <small>
      {set.length > 0 && <span class="set"> +{bitList(set)}</span>}
      {cleared.length > 0 && <span class="cleared"> −{bitList(cleared)}</span>}
    </small>
  );
}

function Values({ entries }: { readonly entries: readonly HistoryEntry[] }) {
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const element = box.current;
    if (element === null || entries.length < 2) return;
    const style = getComputedStyle(document.documentElement);
    const color = (name: string): string => style.getPropertyValue(name).trim();
    const times: number[] = [];
    const values: number[] = [];
    for (const {
      firstNs,
      lastNs,
      value: [lo, hi],
    } of entries) {
      const value = hi * 2 ** 32 + lo;
      times.push(firstNs / 1e9, lastNs / 1e9);
      values.push(value, value);
    }
    const plot = new uPlot(
      {
        width: element.clientWidth,
        height: element.clientHeight,
        legend: { show: false },
        cursor: { show: false },
        padding: [6, 8, 0, 0],
        scales: { x: { time: false } },
        axes: [
          {
            size: 20,
            stroke: color('--muted'),
            font: '10px system-ui, sans-serif',
            grid: { show: false },
            ticks: { show: false },
            values: (_, splits) => splits.map((value) => length(value * 1e9)),
          },
          {
            size: 74,
            stroke: color('--muted'),
            font: '10px ui-monospace, monospace',
            grid: { stroke: color('--line'), width: 1 },
            ticks: { show: false },
            values: (_, splits) => splits.map((value) => hex(Math.max(0, Math.round(value)))),
          },
        ],
        series: [
          {},
          {
            stroke: color('--accent'),
            width: 1,
            points: { show: false },
            ...stepped,
          },
        ],
      },
      [times, values],
      element,
    );
    return () => plot.destroy();
  }, [entries]);
  return <div class="values" ref={box} role="img" aria-label="Values over time" />;
}
