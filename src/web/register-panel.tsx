/** One register: its values over time, who reads and writes it, poll loops folded. */
import { effect, signal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';
import type { mmiobridge } from '../wire/generated/types.ts';
import { setSpan } from './actions.ts';
import { ask } from './connection.ts';
import { foldPolls, type Step } from './fold.ts';
import { bitList, changedBits, count, hexDigits, length, moment, short } from './format.ts';
import { LIST } from './shown.ts';
import * as state from './state.ts';

type History = mmiobridge.v1.History.$Properties;

/** While a recording runs, the history is asked for again this often. */
/** Holds until the next one. */
const stepped =
  uPlot.paths.stepped === undefined ? {} : { paths: uPlot.paths.stepped({ align: 1 }) };

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
    if (mine === turn && reply.history) history.value = { of: register, history: reply.history };
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

function Body({ history: shown }: { readonly history: History }) {
  const entries = shown.entries ?? [];
  const steps = foldPolls(entries).toReversed();
  const polls = steps.filter(({ poll }) => poll).length;
  return (
    <>
      <p class="register-sum">
        <span class="reads">{count(shown.reads ?? 0)} reads</span>{' '}
        <span class="writes">{count(shown.writes ?? 0)} writes</span>
        {polls > 0 && ` · ${count(polls)} poll loops`}
        {(shown.leftOut ?? 0) > 0 && ` · the last ${count(entries.length)} changes`}
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
          <StepLine step={step} key={step.number} />
        ))}
      </ol>
    </>
  );
}

/** vCPUs and, where they were seen, instructions. */
function Who({ entries }: { readonly entries: readonly mmiobridge.v1.HistoryEntry.$Properties[] }) {
  const counts = new Map<string, { reads: number; writes: number }>();
  for (const { write, count: times = 1, cpu = -1, pcLow = 0, pcHigh = 0 } of entries) {
    const pc = pcLow === 0 && pcHigh === 0 ? '' : ` at 0x${hexDigits(pcLow ?? 0, pcHigh ?? 0, 8)}`;
    const who = `${(cpu ?? -1) < 0 ? 'vCPU not known' : `vCPU ${cpu}`}${pc}`;
    const found = counts.get(who) ?? { reads: 0, writes: 0 };
    found[write === true ? 'writes' : 'reads'] += times ?? 1;
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
          read {count(step.count)} times{step.until !== undefined && ` until ${step.until}`},{' '}
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

function Values({
  entries,
}: {
  readonly entries: readonly mmiobridge.v1.HistoryEntry.$Properties[];
}) {
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const element = box.current;
    if (element === null || entries.length < 2) return;
    const style = getComputedStyle(document.documentElement);
    const color = (name: string): string => style.getPropertyValue(name).trim();
    const times: number[] = [];
    const values: number[] = [];
    for (const { firstNs, lastNs, valueLow, valueHigh } of entries) {
      const value = (valueHigh ?? 0) * 2 ** 32 + (valueLow ?? 0);
      times.push((firstNs ?? 0) / 1e9, (lastNs ?? 0) / 1e9);
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
            values: (_, splits) =>
              splits.map((value) => `0x${Math.max(0, Math.round(value)).toString(16)}`),
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
