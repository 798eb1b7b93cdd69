/** Numbers, and what is missing, as people read them. */
import { count } from '../base/format.ts';
import type { Hole } from './state.ts';

/** At most four digits: `1.24M` */
export function short(value: number): string {
  const units = ['', 'k', 'M', 'G'];
  let unit = 0;
  let scaled = value;
  while (scaled >= 1000 && unit < units.length - 1) {
    scaled /= 1000;
    unit++;
  }
  if (unit === 0) return String(Math.round(scaled));
  return `${scaled.toFixed(scaled < 10 ? 2 : scaled < 100 ? 1 : 0)}${units[unit] ?? ''}`;
}

/** A length of time in the unit that suits it: `18.2 ms` */
export function length(ns: number): string {
  const abs = Math.abs(ns);
  if (abs < 1e3) return `${Math.round(ns)} ns`;
  if (abs < 1e6) return `${digits(ns / 1e3)} µs`;
  if (abs < 1e9) return `${digits(ns / 1e6)} ms`;
  if (abs < 60e9) return `${digits(ns / 1e9)} s`;
  const seconds = Math.floor(ns / 1e9);
  const two = (value: number): string => String(value).padStart(2, '0');
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor(seconds / 60) % 60;
  return hours > 0
    ? `${hours}:${two(minutes)}:${two(seconds % 60)}`
    : `${minutes}:${two(seconds % 60)}`;
}

function digits(value: number): string {
  const abs = Math.abs(value);
  return value.toFixed(abs < 10 ? 2 : abs < 100 ? 1 : 0);
}

/** A moment, in seconds with microseconds. */
export function moment(ns: number): string {
  return (ns / 1e9).toFixed(6);
}

/** All digits of a value of `width` bytes, without 0x. */
export function hexDigits(lo: number, hi: number, width: number): string {
  const low = (lo >>> 0).toString(16).padStart(8, '0');
  const all = (hi >>> 0).toString(16).padStart(8, '0') + low;
  return all.slice(16 - 2 * Math.min(8, Math.max(1, width)));
}

/** `3, 7–10` */
export function bitList(bits: readonly number[]): string {
  const parts: string[] = [];
  for (let at = 0; at < bits.length;) {
    const first = bits[at] ?? 0;
    let last = first;
    while (bits[at + 1] === last + 1) {
      last++;
      at++;
    }
    parts.push(first === last ? `${first}` : `${first}–${last}`);
    at++;
  }
  return parts.join(',');
}

/** `3,120 accesses are missing within 1.20 ms: the spool was full` */
export function holeText({ damage, fromNs, toNs, count: number, reason }: Hole): string {
  const within = toNs > fromNs ? ` within ${length(toNs - fromNs)}` : '';
  if (damage) return `damaged${within}: ${reason}`;
  const many = number < 0 ? 'an unknown number of' : count(number);
  return `${many} accesses are missing${within}: ${reason}`;
}
