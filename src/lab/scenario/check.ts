/** What is wrong with a scenario as a whole, as far as it shows without running it. */
import type { Fault } from '../language/fault.ts';
import {
  beginningOf,
  isBeginning,
  type Need,
  type Scenario,
  type ScenarioStep,
} from '../steps/kind.ts';

export interface CheckOptions {
  readonly allowHostCommands: boolean;
}

/** Every fault, in the order of the steps. */
export function checkScenario(scenario: Scenario, options: CheckOptions): Fault[] {
  const faults: Fault[] = [];
  const before: ScenarioStep[] = [];
  for (const step of scenario.steps) {
    const { kind, place } = step;
    const say = (message: string, example?: string) =>
      void faults.push({ place, message: `step “${step.name}”: ${message}`, example });
    for (const need of kind.needs) {
      const missing = missingFor(need, before);
      if (missing !== undefined) say(missing.message, missing.example);
    }
    const begun = beginningOf(before);
    if (isBeginning(step) && begun !== undefined) {
      say(`a run has one VM, and “${begun.name}” has it already`);
    }
    const context = { scenario, step, before: [...before], ...options };
    for (const message of kind.check?.(step.options, context) ?? []) say(message);
    before.push(step);
  }
  return faults;
}

function missingFor(
  need: Need,
  before: readonly ScenarioStep[],
): { readonly message: string; readonly example?: string } | undefined {
  const begun = beginningOf(before);
  if (begun === undefined) {
    return {
      message: 'there is no VM yet: a step before must start one, or attach to one',
      example: '- start: { qemu: qemu-system-x86_64 … }',
    };
  }
  const stopped = before.find(({ kind }) => kind.name === 'stop-recording');
  if (stopped !== undefined) {
    return { message: `the recording, and with it the VM, has ended in “${stopped.name}”` };
  }
  if (need !== 'agent') return undefined;
  const { agent } = begun.options as { readonly agent?: boolean | string };
  if (agent !== undefined && agent !== false) return undefined;
  return begun.kind.name === 'start'
    ? { message: 'the VM has no port for the agent', example: '- start: { agent: true, qemu: … }' }
    : {
        message: "the agent's socket is not told",
        example: '- attach: { agent: /run/vm/qga.sock, qmp: … }',
      };
}
