/** Keys as QMP's `input-send-event` calls them (QKeyCode of QEMU's `qapi/ui.json`), US layout. */

/** Characters that need no shift. */
const PLAIN: Readonly<Record<string, string>> = {
  ' ': 'spc',
  '\n': 'ret',
  '\t': 'tab',
  '-': 'minus',
  '=': 'equal',
  '[': 'bracket_left',
  ']': 'bracket_right',
  '\\': 'backslash',
  ';': 'semicolon',
  "'": 'apostrophe',
  '`': 'grave_accent',
  ',': 'comma',
  '.': 'dot',
  '/': 'slash',
};

/** Characters that do, by the character on the same key. */
const SHIFTED: Readonly<Record<string, string>> = {
  '!': '1',
  '@': '2',
  '#': '3',
  $: '4',
  '%': '5',
  '^': '6',
  '&': '7',
  '*': '8',
  '(': '9',
  ')': '0',
  _: '-',
  '+': '=',
  '{': '[',
  '}': ']',
  '|': '\\',
  ':': ';',
  '"': "'",
  '~': '`',
  '<': ',',
  '>': '.',
  '?': '/',
};

/** Names that people use, beside QEMU's own. */
const NAMES: Readonly<Record<string, string>> = {
  enter: 'ret',
  return: 'ret',
  escape: 'esc',
  space: 'spc',
  control: 'ctrl',
  del: 'delete',
  ins: 'insert',
  pageup: 'pgup',
  pagedown: 'pgdn',
  win: 'meta_l',
  super: 'meta_l',
  backspace: 'backspace',
};

const KNOWN = new Set(
  (
    'shift shift_r alt alt_r ctrl ctrl_r menu esc minus equal backspace tab ret semicolon apostrophe ' +
    'grave_accent backslash comma dot slash asterisk spc caps_lock num_lock scroll_lock ' +
    'bracket_left bracket_right kp_divide kp_multiply kp_subtract kp_add kp_enter kp_decimal sysrq ' +
    'kp_0 kp_1 kp_2 kp_3 kp_4 kp_5 kp_6 kp_7 kp_8 kp_9 less print home pgup pgdn end left up down ' +
    'right insert delete pause meta_l meta_r compose power sleep wake'
  ).split(' '),
);

/** The keys that are held together for a character; undefined: there is none on a US keyboard. */
export function keysOfCharacter(character: string): readonly string[] | undefined {
  if (/^[a-z0-9]$/.test(character)) return [character];
  if (/^[A-Z]$/.test(character)) return ['shift', character.toLowerCase()];
  const plain = PLAIN[character];
  if (plain !== undefined) return [plain];
  const base = SHIFTED[character];
  return base === undefined ? undefined : ['shift', PLAIN[base] ?? base];
}

/** The first character of a text that a US keyboard does not have. */
export function untypable(text: string): string | undefined {
  return Array.from(text).find((character) => keysOfCharacter(character) === undefined);
}

/** `ctrl-alt-delete` as QEMU's keys; undefined where a part of it is none. */
export function parseChord(text: string): readonly string[] | undefined {
  const keys = text
    .toLowerCase()
    .split(/[-+]/)
    .map((part) => {
      const name = NAMES[part] ?? part;
      return /^(?:[a-z0-9]|f(?:[1-9]|1\d|2[0-4]))$/.test(name) || KNOWN.has(name)
        ? name
        : undefined;
    });
  return keys.every((key) => key !== undefined) ? keys : undefined;
}
