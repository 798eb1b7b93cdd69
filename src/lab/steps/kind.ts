/** What a kind of step is: a file in this folder each, listed in index.ts. */
import type { z } from 'zod';
import type { Filter } from '../../analysis/filter/parse.ts';
import type { StepContext } from '../machine/step-context.ts';
import type { ScenarioHead, StepHead } from '../language/scenario.ts';

/** What must be there before a step of this kind can be taken. */
export type Need = 'vm' | 'recording' | 'agent';

export interface StepKind<Options> {
  /** As it is written in a scenario. */
  readonly name: string;
  /** One sentence, for help and the JSON Schema. */
  readonly about: string;
  /** YAML, as it could stand in `steps:`. */
  readonly example: string;
  readonly schema: z.ZodType<Options>;
  /** How long it may take where the scenario does not say. */
  readonly limitMs: number;
  readonly needs: readonly Need[];
  /** A name for a step that is given none. */
  nameOf?(options: Options): string | undefined;
  /** What is wrong with it in this scenario, as far as it shows without running it. */
  check?(options: Options, where: CheckContext): readonly string[];
  /** Accesses that the step waits for, counted from its own mark on or from that of `since`. */
  watches?(options: Options): { readonly filter: Filter; readonly since: string | undefined };
  /** Takes the step; what it returns is said of it. Throws MmioError where it fails. */
  run(options: Options, context: StepContext): Promise<string | undefined>;
}

export type AnyStepKind = StepKind<unknown>;

/** A step as it is taken: read, checked, with its variables in place. */
export interface ScenarioStep extends StepHead {
  readonly kind: AnyStepKind;
  readonly options: unknown;
}

export interface Scenario extends ScenarioHead {
  readonly steps: readonly ScenarioStep[];
}

/** Whether a step brings the VM. */
export function isBeginning({ kind }: ScenarioStep): boolean {
  return kind.name === 'start' || kind.name === 'attach';
}

/** The one of these steps that brings the VM. */
export function beginningOf(steps: readonly ScenarioStep[]): ScenarioStep | undefined {
  return steps.find(isBeginning);
}

export interface CheckContext {
  readonly scenario: Scenario;
  readonly step: ScenarioStep;
  /** Steps that are taken before it. */
  readonly before: readonly ScenarioStep[];
  readonly allowHostCommands: boolean;
}

export function defineStep<Options>(kind: StepKind<Options>): StepKind<Options> {
  return kind;
}
