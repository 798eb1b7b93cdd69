/** The language as JSON Schema (2020-12), for editors: made of the schemas that read it. */
import { z } from 'zod';
import { STEP_KINDS } from '../steps/index.ts';
import { headSchema, stepSchema } from './read.ts';

type Json = Record<string, unknown>;

export function labJsonSchema(): Json {
  const head = jsonOf(headSchema);
  const common = jsonOf(stepSchema)['properties'] as Json;
  const kinds = STEP_KINDS.map((kind): Json => {
    const options = jsonOf(kind.schema);
    return {
      type: 'object',
      description: kind.about,
      properties: {
        ...common,
        [kind.name]: { description: `${kind.about}\n\n${kind.example}`, ...options },
      },
      required: [kind.name],
      additionalProperties: false,
    };
  });
  const include: Json = {
    type: 'object',
    description: 'The steps of another file, in this place.',
    properties: { include: { type: 'string', minLength: 1 } },
    required: ['include'],
    additionalProperties: false,
  };
  const properties = head['properties'] as Json;
  const steps = properties['steps'] as Json;
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'A lab run of mmiobridge',
    ...head,
    properties: { ...properties, steps: { ...steps, items: { anyOf: [...kinds, include] } } },
  };
}

/** As it stands in the file. */
function jsonOf(schema: z.ZodType): Json {
  const { $schema, ...rest } = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' });
  void $schema;
  return orVariable(rest) as Json;
}

/** Text that has a variable in it, which may be any value. */
const VARIABLE = { type: 'string', pattern: '\\$\\{' };

/** Lets a variable stand where a number, or text of some form, is expected. */
function orVariable(json: unknown): unknown {
  if (Array.isArray(json)) return json.map(orVariable);
  if (typeof json !== 'object' || json === null) return json;
  const inner = Object.fromEntries(
    Object.entries(json).map(([key, value]) => [key, orVariable(value)]),
  );
  const { type, pattern } = inner;
  const isPlain = typeof type === 'string' && ['number', 'integer', 'boolean'].includes(type);
  const isText = type === 'string' && (pattern !== undefined || inner['enum'] !== undefined);
  return (isPlain || isText) && !('const' in inner) ? { anyOf: [inner, VARIABLE] } : inner;
}
