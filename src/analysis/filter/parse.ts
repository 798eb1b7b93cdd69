/**
 * The filter language (docs/live.md): conditions one after the other all hold; `or`, `not` and
 * parentheses as everywhere. Numbers are 64 bits, as two halves.
 */
import { MmioError } from '../../base/errors.ts';
import { Op, Space } from '../../model/access-batch.ts';

export interface Wide {
  readonly lo: number;
  readonly hi: number;
}

export type Compare = '=' | '!=' | '<' | '<=' | '>' | '>=';

/** Inclusive. */
export interface Range {
  readonly from: Wide;
  readonly to: Wide;
}

export const NUMBER_FIELDS = ['bar', 'offset', 'value', 'width', 'cpu', 'pc', 'time'] as const;
export type NumberField = (typeof NUMBER_FIELDS)[number];

export type Filter =
  | { readonly kind: 'all' }
  | { readonly kind: 'and' | 'or'; readonly left: Filter; readonly right: Filter }
  | { readonly kind: 'not'; readonly of: Filter }
  | { readonly kind: 'op' | 'space'; readonly code: number }
  | { readonly kind: 'name'; readonly of: 'device' | 'region'; readonly names: readonly string[] }
  | { readonly kind: 'in'; readonly field: NumberField; readonly ranges: readonly Range[] }
  | {
      readonly kind: 'compare';
      readonly field: NumberField;
      readonly how: Compare;
      readonly with: Wide;
    }
  | { readonly kind: 'mask'; readonly mask: Wide; readonly wanted: Wide | undefined };

/** A filter that cannot be read; `at` is where, in characters. */
export class FilterError extends MmioError {
  readonly at: number;

  constructor(message: string, at: number, hint?: string) {
    super('usage', message, { hint });
    this.at = at;
  }
}

const WORDS: Readonly<Record<string, Filter>> = {
  r: { kind: 'op', code: Op.read },
  read: { kind: 'op', code: Op.read },
  reads: { kind: 'op', code: Op.read },
  w: { kind: 'op', code: Op.write },
  write: { kind: 'op', code: Op.write },
  writes: { kind: 'op', code: Op.write },
  unknown: { kind: 'op', code: Op.unknown },
  mmio: { kind: 'space', code: Space.mmio },
  pio: { kind: 'space', code: Space.pio },
  config: { kind: 'space', code: Space.config },
};

const FIELDS: Readonly<Record<string, NumberField | 'device' | 'region' | 'op' | 'space'>> = {
  device: 'device',
  dev: 'device',
  region: 'region',
  bar: 'bar',
  offset: 'offset',
  at: 'offset',
  value: 'value',
  v: 'value',
  width: 'width',
  cpu: 'cpu',
  vcpu: 'cpu',
  pc: 'pc',
  time: 'time',
  t: 'time',
  op: 'op',
  space: 'space',
};

const EXAMPLES = 'write bar=0 offset=0x400..0x4ff value&0x8';
const MAX_CHARS = 1000;
/** Deeper than this nobody nests by hand. */
const MAX_DEPTH = 50;

interface Token {
  readonly text: string;
  readonly at: number;
  readonly quoted: boolean;
}

/** Throws FilterError. */
export function parseFilter(text: string): Filter {
  if (text.length > MAX_CHARS) throw new FilterError('the filter is too long', MAX_CHARS);
  return new Parser(tokens(text), text.length).all();
}

function tokens(text: string): Token[] {
  const found: Token[] = [];
  const pattern = /\s*(?:"([^"]*)"|(&&|\|\||!=|<=|>=|==|[()|&!=<>,])|([^\s()|&!=<>,"]+))/y;
  for (;;) {
    const start = pattern.lastIndex;
    const match = pattern.exec(text);
    if (match === null) {
      const rest = text.slice(start);
      if (rest.trim() === '') return found;
      const at = start + rest.length - rest.trimStart().length;
      throw new FilterError('a quotation mark without its other half', at);
    }
    const quoted = match[1];
    const word = quoted ?? match[2] ?? match[3] ?? '';
    const at = pattern.lastIndex - word.length - (quoted === undefined ? 0 : 2);
    found.push({ text: word, at, quoted: quoted !== undefined });
  }
}

class Parser {
  readonly #tokens: readonly Token[];
  readonly #length: number;
  #next = 0;
  #depth = 0;

  constructor(list: readonly Token[], length: number) {
    this.#tokens = list;
    this.#length = length;
  }

  all(): Filter {
    if (this.#tokens.length === 0) return { kind: 'all' };
    const filter = this.#or();
    const left = this.#peek();
    if (left !== undefined) throw new FilterError(`“${left.text}” has no beginning`, left.at);
    return filter;
  }

  #or(): Filter {
    let left = this.#and();
    while (this.#take('or', '|', '||')) left = { kind: 'or', left, right: this.#and() };
    return left;
  }

  #and(): Filter {
    let left = this.#unary();
    for (;;) {
      const joined = this.#take('and', '&&');
      const next = this.#peek();
      const ends = next === undefined || (!next.quoted && /^(?:or|\|\|?|\))$/i.test(next.text));
      if (!joined && ends) return left;
      left = { kind: 'and', left, right: this.#unary() };
    }
  }

  #unary(): Filter {
    if (++this.#depth > MAX_DEPTH) throw new FilterError('nested too deeply', this.#at());
    try {
      if (this.#take('not', '!')) return { kind: 'not', of: this.#unary() };
      if (!this.#take('(')) return this.#condition();
      const inner = this.#or();
      if (!this.#take(')')) throw new FilterError('a parenthesis is not closed', this.#at());
      return inner;
    } finally {
      this.#depth--;
    }
  }

  #condition(): Filter {
    const token = this.#word('a condition');
    const name = token.text.toLowerCase();
    const how = this.#peek();
    const field = Object.hasOwn(FIELDS, name) ? FIELDS[name] : undefined;
    if (how !== undefined && /^(?:=|==|!=|<|<=|>|>=|&)$/.test(how.text) && !how.quoted) {
      if (field === undefined) {
        const known = Object.keys(FIELDS).join(', ');
        throw new FilterError(`nothing is called “${token.text}”`, token.at, `there are ${known}`);
      }
      this.#next++;
      return this.#comparison(field, how);
    }
    const word = Object.hasOwn(WORDS, name) ? WORDS[name] : undefined;
    if (word !== undefined) return word;
    const register = /^((?:bar\d|rom|config)?)\+(0x[0-9a-f]+)$/i.exec(token.text);
    if (register !== null) return this.#register(register[1] ?? '', register[2] ?? '', token);
    if (/^(?:bar\d|rom)$/.test(name)) return { kind: 'name', of: 'region', names: [name] };
    const hint = field === undefined ? `for example: ${EXAMPLES}` : `for example: ${token.text}=1`;
    throw new FilterError(`“${token.text}” is no condition`, token.at, hint);
  }

  /** `bar0+0x400` */
  #register(region: string, offset: string, token: Token): Filter {
    const at = wide(offset, 'offset', token);
    const right: Filter = { kind: 'in', field: 'offset', ranges: [{ from: at, to: at }] };
    if (region === '') return right;
    return {
      kind: 'and',
      left: { kind: 'name', of: 'region', names: [region.toLowerCase()] },
      right,
    };
  }

  #comparison(field: NonNullable<(typeof FIELDS)[string]>, how: Token): Filter {
    if (how.text === '&') return this.#mask(field, how);
    const equal = how.text === '=' || how.text === '==';
    if (!equal && how.text !== '!=') {
      if (field === 'device' || field === 'region' || field === 'op' || field === 'space') {
        throw new FilterError(`${field} has no order`, how.at, 'use = or !=');
      }
      const token = this.#word('a number');
      const number = wide(token.text, field, token);
      return { kind: 'compare', field, how: how.text as Compare, with: number };
    }
    const words = [this.#word('a value')];
    while (this.#take(',')) words.push(this.#word('a value'));
    const filter = equals(field, words);
    return equal ? filter : { kind: 'not', of: filter };
  }

  #mask(field: string, how: Token): Filter {
    if (field !== 'value') throw new FilterError('only a value has bits', how.at, 'value&0x8');
    const token = this.#word('a mask');
    const mask = wide(token.text, 'value', token);
    const next = this.#peek()?.text;
    if (next !== '=' && next !== '==' && next !== '!=')
      return { kind: 'mask', mask, wanted: undefined };
    this.#next++;
    const wanted = this.#word('the value of the bits');
    const filter: Filter = { kind: 'mask', mask, wanted: wide(wanted.text, 'value', wanted) };
    return next === '!=' ? { kind: 'not', of: filter } : filter;
  }

  #peek(): Token | undefined {
    return this.#tokens[this.#next];
  }

  #at(): number {
    return this.#peek()?.at ?? this.#length;
  }

  #take(...words: readonly string[]): boolean {
    const token = this.#peek();
    if (token === undefined || token.quoted || !words.includes(token.text.toLowerCase()))
      return false;
    this.#next++;
    return true;
  }

  #word(what: string): Token {
    const token = this.#peek();
    if (token === undefined || (!token.quoted && /^[()|&!=<>,]/.test(token.text))) {
      const found = token === undefined ? 'the end' : `“${token.text}”`;
      throw new FilterError(
        `${what} should stand where ${found} is`,
        this.#at(),
        `for example: ${EXAMPLES}`,
      );
    }
    this.#next++;
    return token;
  }
}

function equals(field: NonNullable<(typeof FIELDS)[string]>, words: readonly Token[]): Filter {
  if (field === 'device' || field === 'region') {
    return { kind: 'name', of: field, names: words.map(({ text }) => text.toLowerCase()) };
  }
  if (field === 'op' || field === 'space') {
    const codes = words.map((token): Filter => {
      const word = WORDS[token.text.toLowerCase()];
      if (word?.kind === field) return word;
      const known = Object.entries(WORDS).flatMap(([name, { kind }]) =>
        kind === field ? [name] : [],
      );
      throw new FilterError(
        `“${token.text}” is no ${field}`,
        token.at,
        `one of ${known.join(', ')}`,
      );
    });
    return codes.reduce((left, right) => ({ kind: 'or', left, right }));
  }
  if (field === 'bar' && words.some(({ text }) => !/^[0-6]$/.test(text))) {
    const names = words.map(({ text }) => (/^\d$/.test(text) ? `bar${text}` : text.toLowerCase()));
    return { kind: 'name', of: 'region', names };
  }
  return { kind: 'in', field, ranges: words.map((token) => rangeOf(token, field)) };
}

/** `0x400`, `0x400..0x4ff`, `0x400+0x100` */
function rangeOf(token: Token, field: NumberField): Range {
  const [from = '', to, more] = token.text.split('..');
  if (to !== undefined && more === undefined) {
    return { from: wide(from, field, token), to: wide(to, field, token) };
  }
  const plus = /^([^+]+)\+([^+]+)$/.exec(token.text);
  if (plus !== null) {
    const start = big(plus[1] ?? '', field, token);
    const length = big(plus[2] ?? '', field, token);
    if (length === 0n) throw new FilterError('a range of no length', token.at);
    return { from: halves(start, token), to: halves(start + length - 1n, token) };
  }
  const only = wide(token.text, field, token);
  return { from: only, to: only };
}

function wide(text: string, field: NumberField, token: Token): Wide {
  return halves(big(text, field, token), token);
}

const UNITS: Readonly<Record<string, number>> = {
  s: 1e9,
  ms: 1e6,
  us: 1e3,
  µs: 1e3,
  ns: 1,
  '': 1e9,
};

function big(text: string, field: NumberField, token: Token): bigint {
  if (field === 'time') {
    const time = /^(\d+(?:\.\d*)?|\.\d+)(s|ms|us|µs|ns|)$/.exec(text);
    if (time === null)
      throw new FilterError(`“${text}” is no time`, token.at, 'write 1.5, 20ms or 300us');
    return BigInt(Math.round(Number(time[1]) * (UNITS[time[2] ?? ''] ?? 1)));
  }
  if (!/^(?:0x[0-9a-f]+|0b[01]+|\d+)$/i.test(text)) {
    throw new FilterError(`“${text}” is no number`, token.at, 'write 0x400, 1024 or 0b100');
  }
  return BigInt(text);
}

function halves(value: bigint, token: Token): Wide {
  if (value >= 2n ** 64n) throw new FilterError('a number of more than 64 bits', token.at);
  return { lo: Number(value & 0xffff_ffffn), hi: Number(value >> 32n) };
}
