/**
 * Reads, writes and interrupts per interval, a lane each: their numbers differ by orders of
 * magnitude, so each lane is as high as its own maximum, and logarithmic. Drag selects a span.
 */
import type { HistogramResult } from '../analysis/histogram.ts';
import type { Span } from '../analysis/span.ts';
import { effect } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';
import { count } from '../base/format.ts';
import { length, moment } from './format.ts';
import { clearAll, setSpan, toggleZoom } from './actions.ts';
import * as state from './state.ts';

interface Lane {
  readonly name: 'reads' | 'writes' | 'interrupts';
  readonly base: number;
  readonly height: number;
}

const LANES: readonly Lane[] = [
  { name: 'reads', base: 0.52, height: 0.44 },
  { name: 'writes', base: 0.18, height: 0.32 },
  { name: 'interrupts', base: 0, height: 0.16 },
];
const stepped =
  uPlot.paths.stepped === undefined ? {} : { paths: uPlot.paths.stepped({ align: 1 }) };
const AXIS_PX = 22;
/** What is there at all can be seen. */
const LEAST = 0.15;

export function Timeline() {
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const element = box.current;
    if (element === null) return;
    return mount(element);
  }, []);
  return (
    <section class="timeline" aria-label="Timeline">
      <div class="lanes" aria-hidden="true">
        {LANES.map(({ name }) => (
          <span class={name} key={name}>
            {name}
            <LaneMax name={name} />
          </span>
        ))}
      </div>
      <div
        class="plot"
        ref={box}
        tabIndex={0}
        role="slider"
        aria-label="Span: arrow keys move it, with shift they make it longer or shorter"
        aria-valuetext={spanText(state.span.value)}
        aria-valuemin={0}
        aria-valuemax={state.lastTimeNs.value / 1e9}
        aria-valuenow={(state.span.value?.fromNs ?? 0) / 1e9}
        onKeyDown={onKey}
      />
    </section>
  );
}

function LaneMax({ name }: { readonly name: Lane['name'] }) {
  const histogram = state.timeline.value?.histogram;
  if (histogram === undefined) return null;
  const most = histogram[name].reduce((a, b) => Math.max(a, b), 0);
  return <small>max {count(most)}</small>;
}

export function spanText(span: Span | undefined): string {
  if (span === undefined) return 'everything';
  return `${moment(span.fromNs)} – ${moment(span.toNs)} s (${length(span.toNs - span.fromNs)})`;
}

function onKey(event: KeyboardEvent): void {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { fromNs: start, toNs: stop } = state.zoom.peek() ?? {
    fromNs: 0,
    toNs: state.lastTimeNs.peek() + 1,
  };
  const step = Math.max(1, Math.round((stop - start) / (event.shiftKey ? 50 : 20)));
  const span = state.span.peek();
  const direction = event.key === 'ArrowRight' ? 1 : event.key === 'ArrowLeft' ? -1 : 0;
  if (direction === 0) return;
  event.preventDefault();
  if (span === undefined) {
    const size = Math.round((stop - start) / 10);
    setSpan(
      direction === 1 ? { fromNs: start, toNs: start + size } : { fromNs: stop - size, toNs: stop },
    );
  } else if (event.shiftKey) {
    setSpan({ ...span, toNs: Math.max(span.fromNs + 1, span.toNs + direction * step) });
  } else {
    const by = Math.max(start, span.fromNs + direction * step) - span.fromNs;
    setSpan({ fromNs: span.fromNs + by, toNs: span.toNs + by });
  }
}

function css(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Times as seconds, and each lane as a curve between 0 and 1. */
function dataOf(histogram: HistogramResult): [number[], ...number[][]] {
  const { fromNs, widthNs } = histogram;
  const times = Array.from(histogram.reads, (_, at) => (fromNs + at * widthNs) / 1e9);
  times.push((fromNs + times.length * widthNs) / 1e9);
  const lanes = LANES.map(({ name, base, height }) => {
    const counts = histogram[name];
    const most = counts.reduce((a, b) => Math.max(a, b), 1);
    const curve = Array.from(counts, (value) =>
      value === 0
        ? base
        : base + height * (LEAST + ((1 - LEAST) * Math.log1p(value)) / Math.log1p(most)),
    );
    curve.push(base);
    return curve;
  });
  return [times, ...lanes];
}

function mount(element: HTMLDivElement): () => void {
  let plot: uPlot | undefined;
  let quiet = false;

  const range = (): [number, number] => {
    const zoom = state.zoom.peek();
    if (zoom !== undefined) return [zoom.fromNs / 1e9, zoom.toNs / 1e9];
    return [0, state.lastTimeNs.peek() / 1e9];
  };

  const build = (): void => {
    plot?.destroy();
    const colors = LANES.map(({ name }) => css(`--${name}`));
    const muted = css('--muted');
    const grid = css('--line');
    plot = new uPlot(
      {
        width: element.clientWidth,
        height: element.clientHeight,
        legend: { show: false },
        padding: [4, 0, 0, 0],
        cursor: {
          y: false,
          points: { show: false },
          drag: { x: true, y: false, setScale: false },
          dataIdx: (_, __, closest) => closest,
        },
        scales: { x: { time: false, range }, y: { range: [0, 1] } },
        axes: [
          {
            size: AXIS_PX,
            stroke: muted,
            font: '11px system-ui, sans-serif',
            grid: { stroke: grid, width: 1 },
            ticks: { show: false },
            values: (_, values) => values.map((value) => (value === 0 ? '' : length(value * 1e9))),
          },
          { show: false },
        ],
        series: [
          {},
          ...LANES.map(({ name, base }, at) => ({
            label: name,
            stroke: colors[at] ?? '',
            fill: `color-mix(in srgb, ${colors[at] ?? ''} 45%, transparent)`,
            fillTo: () => base,
            width: 1,
            points: { show: false },
            ...stepped,
          })),
        ],
        hooks: {
          draw: [drawMarks],
          setSelect: [
            (u) => {
              if (quiet) return;
              const { left, width } = u.select;
              if (width < 2) setSpan(undefined);
              else {
                setSpan({
                  fromNs: Math.max(0, Math.round(u.posToVal(left, 'x') * 1e9)),
                  toNs: Math.round(u.posToVal(left + width, 'x') * 1e9),
                });
              }
            },
          ],
          setCursor: [(u) => showTip(u, element)],
        },
      },
      dataOf(state.timeline.peek()?.histogram ?? EMPTY),
      element,
    );
    plot.over.addEventListener('dblclick', () => {
      if (state.zoom.peek() !== undefined) clearAll();
      else if (state.span.peek() !== undefined) toggleZoom();
    });
    showSpan();
  };

  const showSpan = (): void => {
    if (plot === undefined) return;
    const span = state.span.peek();
    const [from, to] = range();
    const at = (seconds: number): number =>
      plot?.valToPos(Math.min(to, Math.max(from, seconds)), 'x') ?? 0;
    const left = span === undefined ? 0 : at(span.fromNs / 1e9);
    const width = span === undefined ? 0 : Math.max(2, at(span.toNs / 1e9) - left);
    quiet = true;
    plot.setSelect({ left, width, top: 0, height: plot.over.clientHeight }, false);
    quiet = false;
  };

  build();
  const stops = [
    effect(() => {
      const shown = state.timeline.value;
      void state.zoom.value;
      // While the device is quiet, the recording goes on all the same.
      void state.lastTimeNs.value;
      plot?.setData(dataOf(shown?.histogram ?? EMPTY));
      showSpan();
    }),
    effect(() => {
      void state.marks.value;
      void state.holes.value;
      plot?.redraw(false);
    }),
    effect(() => {
      void state.span.value;
      showSpan();
    }),
  ];
  const resize = new ResizeObserver(() => {
    plot?.setSize({ width: element.clientWidth, height: element.clientHeight });
    showSpan();
  });
  resize.observe(element);
  const scheme = matchMedia('(prefers-color-scheme: dark)');
  scheme.addEventListener('change', build);
  return () => {
    for (const stop of stops) stop();
    resize.disconnect();
    scheme.removeEventListener('change', build);
    plot?.destroy();
  };
}

const EMPTY: HistogramResult = {
  fromNs: 0,
  widthNs: 1,
  reads: new Uint32Array(0),
  writes: new Uint32Array(0),
  interrupts: new Uint32Array(0),
};

/** Marks as flags, holes as bands. */
function drawMarks(u: uPlot): void {
  const { ctx, bbox } = u;
  const dpr = devicePixelRatio;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.fillStyle = css('--bad');
  // What comes last stands at the very end, and is to be seen there.
  const end = bbox.left + bbox.width;
  for (const { fromNs, toNs } of state.holes.peek()) {
    const left = Math.min(u.valToPos(fromNs / 1e9, 'x', true), end - 2 * dpr);
    const right = u.valToPos(toNs / 1e9, 'x', true);
    ctx.globalAlpha = 0.5;
    ctx.fillRect(left, bbox.top, Math.max(2 * dpr, right - left), bbox.height);
  }
  ctx.globalAlpha = 1;
  ctx.font = `${11 * dpr}px system-ui, sans-serif`;
  ctx.textBaseline = 'top';
  ctx.textAlign = 'left';
  let free = -Infinity;
  for (const { timeNs, text } of state.marks.peek()) {
    const at = u.valToPos(timeNs / 1e9, 'x', true);
    if (at > end + 1) continue;
    const line = Math.min(Math.round(at), end - dpr);
    ctx.fillStyle = css('--mark');
    ctx.fillRect(line, bbox.top, dpr, bbox.height);
    const label = text.length > 28 ? `${text.slice(0, 27)}…` : text;
    const width = ctx.measureText(label).width + 8 * dpr;
    const x = Math.min(line, end - width);
    if (x < free) continue;
    ctx.fillRect(x, bbox.top, width, 15 * dpr);
    ctx.fillStyle = css('--panel');
    ctx.fillText(label, x + 4 * dpr, bbox.top + 2 * dpr);
    free = x + width + 4 * dpr;
  }
  ctx.restore();
}

function showTip(u: uPlot, element: HTMLElement): void {
  const at = u.cursor.idx;
  const histogram = state.timeline.peek()?.histogram;
  const left = u.cursor.left ?? -1;
  if (at === null || at === undefined || histogram === undefined || left < 0) {
    element.title = '';
    return;
  }
  const { fromNs, widthNs, reads, writes, interrupts } = histogram;
  element.title = [
    `${moment(fromNs + at * widthNs)} s, for ${length(widthNs)}`,
    `${count(reads[at] ?? 0)} reads`,
    `${count(writes[at] ?? 0)} writes`,
    `${count(interrupts[at] ?? 0)} interrupts`,
  ].join('\n');
}
