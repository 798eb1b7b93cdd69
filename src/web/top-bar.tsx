import type { CoverageStatement } from '../model/coverage.ts';
import { v1 } from '../wire/generated/mmiobridge.ts';
import type { mmiobridge } from '../wire/generated/types.ts';
import { bytes, count, counted } from '../base/format.ts';
import { length, short } from './format.ts';
import * as state from './state.ts';

const { State } = v1.Summary;

const WORDS: Readonly<Record<number, readonly [string, string]>> = {
  [State.STATE_RECORDING]: ['recording', 'run'],
  [State.STATE_PAUSED]: ['guest paused: no room', 'bad'],
  [State.STATE_DROPPING]: ['dropping accesses', 'bad'],
  [State.STATE_DRAINING]: ['ending', 'run'],
  [State.STATE_AWAY]: ['its host is away', 'warn'],
  [State.STATE_OPEN]: ['no end: cut off, or recorded elsewhere', 'warn'],
};

const NOT_OPEN = {
  connecting: 'connecting',
  lost: 'connection lost, trying again; what is here is from before',
  ended: 'the program has ended; what is here is from before',
} as const;

type Summary = mmiobridge.v1.Summary.$Properties;

function stateWords({ state: code, complete }: Summary): readonly [string, string] {
  if (code === State.STATE_ENDED) {
    return complete === true ? ['finished', 'ok'] : ['finished, incomplete', 'warn'];
  }
  // Its end may still come.
  if (code === State.STATE_OPEN && state.reading.value) return ['reading', 'run'];
  return WORDS[code ?? State.STATE_UNSPECIFIED] ?? ['connecting', 'warn'];
}

/** Is it running, at what rate, is anything lost or bypassed. */
export function TopBar() {
  const chosen = state.chosen.value !== undefined;
  return (
    <header class="top">
      <StateBadge />
      <Name />
      {chosen && <Figures />}
      <span class="grow" />
      {chosen && (
        <button
          onClick={() => (state.dialog.value = 'download')}
          title="Download all or the span (d)"
        >
          Download
        </button>
      )}
      <button onClick={() => (state.dialog.value = 'help')} title="Keys and filter language (?)">
        Help
      </button>
    </header>
  );
}

function Figures() {
  const summary = state.summary.value;
  const accesses = (summary.reads ?? 0) + (summary.writes ?? 0);
  const seen = summary.bytesSeen ?? 0;
  const all = summary.bytes ?? 0;
  const running = summary.state === State.STATE_RECORDING;
  return (
    <>
      <dl class="figures">
        <Figure name="time" value={length(summary.lastTimeNs ?? 0)} />
        <Figure name="accesses" value={count(accesses)} id="accesses" />
        <Figure name="reads" value={count(summary.reads ?? 0)} class="reads" />
        <Figure name="writes" value={count(summary.writes ?? 0)} class="writes" />
        <Figure name="interrupts" value={count(summary.interrupts ?? 0)} class="interrupts" />
        {running && <Figure name="rate" value={`${short(summary.rate ?? 0)}/s`} id="rate" />}
        {running && (summary.spoolLimitBytes ?? 0) > 0 && (
          <Figure
            name="spool"
            value={`${Math.round((100 * (summary.spoolBytes ?? 0)) / (summary.spoolLimitBytes ?? 1))} %`}
            title={`${bytes(summary.spoolBytes ?? 0)} of ${bytes(summary.spoolLimitBytes ?? 0)}`}
          />
        )}
      </dl>
      <LossBadge />
      <CoverageBadge />
      {seen < all && (
        <span class="badge warn" role="status">
          reading {Math.floor((100 * seen) / all)} %
        </span>
      )}
    </>
  );
}

/** Of what is looked at; with several, a way to the others. */
function Name() {
  const listed = state.recordings.value ?? [];
  const one = listed.find(({ id }) => id === state.chosen.value);
  if (one === undefined || listed.length === 1) return <h1>{one?.file ?? 'mmiobridge'}</h1>;
  return (
    <h1>
      <button
        id="others"
        onClick={() => (state.dialog.value = 'recordings')}
        title={`${one.file}; ${listed.length} recordings (o)`}
      >
        {one.name} <small>{listed.length} recordings ▾</small>
      </button>
    </h1>
  );
}

interface FigureProps {
  readonly name: string;
  readonly value: string;
  readonly class?: string;
  readonly id?: string;
  readonly title?: string;
}

function Figure({ name, value, class: className, id, title }: FigureProps) {
  return (
    <div title={title}>
      <dt>{name}</dt>
      <dd class={className} id={id}>
        {value}
      </dd>
    </div>
  );
}

function StateBadge() {
  const connection = state.connection.value;
  const listed = state.recordings.value;
  if (connection === 'refused') {
    const anew = listed === undefined ? '' : 'the program was started anew; ';
    return (
      <span class="state bad" id="state" role="status">
        refused: {anew}open the address that the program printed
      </span>
    );
  }
  if (listed !== undefined && state.chosen.value === undefined && connection !== 'lost') {
    return (
      <span class="state ok" id="state" role="status">
        {listed.length === 0 ? 'waiting' : 'collecting'}
      </span>
    );
  }
  if (connection !== 'open') {
    return (
      <span
        class={`state ${connection === 'connecting' ? 'warn' : 'bad'}`}
        id="state"
        role="status"
      >
        {NOT_OPEN[connection]}
      </span>
    );
  }
  const { state: code, stalled } = state.summary.value;
  const [word, kind] = stateWords(state.summary.value);
  const why = stalled && (code === State.STATE_AWAY ? word : 'waiting for room');
  return (
    <span class={`state ${stalled ? 'bad' : kind}`} id="state" role="status">
      {why ? `${why}: ${stalled}` : word}
    </span>
  );
}

function LossBadge() {
  const { lost = 0, lossEvents = 0, damages = 0, unknownFrames = 0, doubts } = state.summary.value;
  const parts = [];
  if ((lossEvents ?? 0) > 0) {
    parts.push(
      `${(lost ?? 0) > 0 ? count(lost ?? 0) : 'unknown number'} lost, in ${counted(lossEvents ?? 0, 'place')}`,
    );
  }
  if ((damages ?? 0) > 0) parts.push(counted(damages ?? 0, 'damaged place'));
  if ((unknownFrames ?? 0) > 0) parts.push(`${unknownFrames} frames of a newer version left out`);
  if ((doubts ?? []).length > 0) parts.push('not what it says');
  const nothing = state.reading.value ? 'nothing lost so far' : 'nothing lost';
  return (
    <button
      class={`badge ${parts.length === 0 ? 'ok' : 'bad'}`}
      id="loss"
      onClick={() => (state.dialog.value = 'coverage')}
      title="What is missing, and where (c)"
    >
      {parts.length === 0 ? nothing : parts.join(', ')}
    </button>
  );
}

function CoverageBadge() {
  const [text, kind] = coverageWords(state.coverage.value);
  return (
    <button
      class={`badge ${kind}`}
      id="coverage"
      onClick={() => (state.dialog.value = 'coverage')}
      title="What the recording can and cannot see (c)"
    >
      {text}
    </button>
  );
}

function coverageWords(statement: CoverageStatement | undefined): readonly [string, string] {
  if (statement === undefined && state.reading.value) return ['coverage not read yet', 'ok'];
  if (statement === undefined || statement.ranges.length === 0) return ['coverage unknown', 'warn'];
  const bypassed = statement.ranges.filter((range) => range.state === 'bypassed');
  const unseen = statement.ranges.filter((range) => range.state === 'emulated');
  if (bypassed.length > 0) {
    const names = [...new Set(bypassed.map(({ region }) => region))];
    return [`bypassed: ${names.join(', ')}`, 'bad'];
  }
  if (unseen.length > 0) return [`not recorded: ${unseen.length} ranges`, 'bad'];
  const unknown = statement.ranges.some((range) => range.state === 'unknown');
  return unknown ? ['coverage partly unknown', 'warn'] : ['all trapped', 'ok'];
}
