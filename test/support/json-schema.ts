/*
 * As much of JSON Schema 2020-12 as docs/ndjson.schema.json and docs/lab.schema.json use. A keyword that is not known here
 * is an error, so that no part of the schema goes unchecked.
 */
export type Schema = { readonly [keyword: string]: unknown };

const NOTES = new Set(['$schema', '$defs', 'title', 'description']);

/** What is wrong with `value`, each with its place; empty if it is valid. */
export function faultsOf(value: unknown, schema: Schema, root: Schema, place = '$'): string[] {
  return Object.entries(schema).flatMap(([keyword, rule]): string[] => {
    if (NOTES.has(keyword)) return [];
    const fault = (what: string): string[] => [`${place}: ${what}`];
    switch (keyword) {
      case '$ref': {
        const name = String(rule).replace('#/$defs/', '');
        return faultsOf(value, asSchema(asSchema(root['$defs'])[name]), root, place);
      }
      case 'oneOf': {
        const tries = asList(rule).map((one) => faultsOf(value, asSchema(one), root, place));
        const valid = tries.filter((faults) => faults.length === 0).length;
        return valid === 1 ? [] : fault(`${valid} of oneOf are valid: ${tries.flat().join('; ')}`);
      }
      case 'anyOf': {
        const tries = asList(rule).map((one) => faultsOf(value, asSchema(one), root, place));
        const valid = tries.some((faults) => faults.length === 0);
        return valid ? [] : fault(`none of anyOf is valid: ${tries.flat().join('; ')}`);
      }
      case 'type': {
        const types = Array.isArray(rule) ? rule : [rule];
        return types.some((type) => isOfType(value, type)) ? [] : fault(`not ${types.join('|')}`);
      }
      case 'const':
        return value === rule ? [] : fault(`not ${String(rule)}`);
      case 'enum':
        return asList(rule).includes(value) ? [] : fault(`not one of ${asList(rule).join(', ')}`);
      case 'pattern':
        return typeof value !== 'string' || new RegExp(String(rule), 'u').test(value)
          ? []
          : fault(`not like ${String(rule)}`);
      case 'minimum':
        return typeof value !== 'number' || value >= Number(rule) ? [] : fault('too small');
      case 'maximum':
        return typeof value !== 'number' || value <= Number(rule) ? [] : fault('too large');
      case 'minLength':
        return typeof value !== 'string' || value.length >= Number(rule) ? [] : fault('too short');
      case 'maxLength':
        return typeof value !== 'string' || value.length <= Number(rule) ? [] : fault('too long');
      case 'propertyNames':
        return !isObject(value)
          ? []
          : Object.keys(value).flatMap((name) => faultsOf(name, asSchema(rule), root, place));
      case 'minItems':
        return !Array.isArray(value) || value.length >= Number(rule) ? [] : fault('too few');
      case 'maxItems':
        return !Array.isArray(value) || value.length <= Number(rule) ? [] : fault('too many');
      case 'items':
        return !Array.isArray(value)
          ? []
          : value.flatMap((item, i) => faultsOf(item, asSchema(rule), root, `${place}[${i}]`));
      case 'required': {
        if (!isObject(value)) return [];
        const missing = asList(rule).filter((name) => !(String(name) in value));
        return missing.length === 0 ? [] : fault(`without ${missing.join(', ')}`);
      }
      case 'properties':
        return !isObject(value)
          ? []
          : Object.entries(asSchema(rule)).flatMap(([name, of]) =>
              name in value ? faultsOf(value[name], asSchema(of), root, `${place}.${name}`) : [],
            );
      case 'additionalProperties': {
        if (!isObject(value)) return [];
        const known = isObject(schema['properties']) ? schema['properties'] : {};
        const more = Object.keys(value).filter((name) => !(name in known));
        if (rule === false) return more.length === 0 ? [] : fault(`has ${more.join(', ')}`);
        return more.flatMap((name) =>
          faultsOf(value[name], asSchema(rule), root, `${place}.${name}`),
        );
      }
      default:
        throw new TypeError(`keyword ${keyword} is not known`);
    }
  });
}

function isOfType(value: unknown, type: unknown): boolean {
  switch (type) {
    case 'null':
      return value === null;
    case 'array':
      return Array.isArray(value);
    case 'object':
      return isObject(value);
    case 'integer':
      return Number.isInteger(value);
    default:
      return typeof value === type;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function asSchema(value: unknown): Schema {
  if (!isObject(value)) throw new TypeError('not a schema');
  return value;
}

function asList(value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) throw new TypeError('not a list');
  return value;
}
