/**
 * Reads an option's value as QEMU's QemuOpts does (util/qemu-option.c): `key=value` parts between
 * commas, a doubled comma is one of the value's own, a first part without `=` belongs to the
 * implied key, a later one means `on` (`nokey` is read as a key of that name: what it negates
 * depends on the option). A value that begins with `{` is JSON, as `-device` and some others take
 * it; JSON that cannot be read gives an empty map, since QEMU will complain about it better.
 */
export function parseOptionValue(value: string, impliedKey: string): Map<string, string> {
  const pairs = new Map<string, string>();
  if (value.startsWith('{')) {
    for (const [key, item] of jsonEntries(value)) {
      pairs.set(key, typeof item === 'string' ? item : JSON.stringify(item));
    }
    return pairs;
  }
  for (const [index, part] of splitAtCommas(value).entries()) {
    const equals = part.indexOf('=');
    if (equals >= 0) pairs.set(part.slice(0, equals), part.slice(equals + 1));
    else if (index === 0) pairs.set(impliedKey, part);
    else pairs.set(part, 'on');
  }
  return pairs;
}

/** Doubles commas, so that a path stays one value. */
export function escapeCommas(value: string): string {
  return value.replaceAll(',', ',,');
}

/** QEMU's idea of yes: `on`, `yes`, `true`, `y`. */
export function isOn(value: string | undefined): boolean {
  return value === 'on' || value === 'yes' || value === 'true' || value === 'y';
}

function splitAtCommas(value: string): string[] {
  const parts: string[] = [];
  let part = '';
  for (let at = 0; at < value.length; at++) {
    const char = value.charAt(at);
    if (char !== ',') part += char;
    else if (value.charAt(at + 1) === ',') {
      part += ',';
      at++;
    } else {
      parts.push(part);
      part = '';
    }
  }
  parts.push(part);
  return parts;
}

function jsonEntries(text: string): [string, unknown][] {
  try {
    const parsed: unknown = JSON.parse(text);
    return typeof parsed === 'object' && parsed !== null ? Object.entries(parsed) : [];
  } catch {
    return [];
  }
}
