/** The steps of a run as JUnit XML, which CI systems read. */
import type { Manifest, StepReport } from './manifest.ts';

export function junitXml(manifest: Manifest): string {
  const { scenario, steps, seconds, started } = manifest;
  const failed = steps.filter(({ result }) => result === 'failed').length;
  const skipped = steps.filter(({ result }) => result === 'skipped').length;
  const incomplete = manifest.recording?.complete === false;
  const more = manifest.result === 'passed' ? [] : [runCase(manifest)];
  const cases = [...steps.map((step) => stepCase(step, scenario.name)), ...more];
  const runFailed = more.length > 0 && failed === 0 ? 1 : 0;
  const attributes = [
    ['name', scenario.name],
    ['tests', String(cases.length)],
    ['failures', String(failed + runFailed)],
    ['skipped', String(skipped + (more.length > 0 && failed > 0 ? 1 : 0))],
    ['time', seconds.toFixed(3)],
    ['timestamp', started.replace(/Z$/, '')],
  ] as const;
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    '<testsuites>',
    `  <testsuite ${attributes.map(([name, value]) => `${name}="${xmlText(value)}"`).join(' ')}>`,
    ...(incomplete
      ? ['    <properties><property name="recording" value="incomplete"/></properties>']
      : []),
    ...cases.map((text) => `    ${text}`),
    '  </testsuite>',
    '</testsuites>',
    '',
  ].join('\n');
}

function stepCase(step: StepReport, suite: string): string {
  const head = `<testcase classname="${xmlText(suite)}" name="${xmlText(step.name)}" time="${step.seconds.toFixed(3)}"`;
  if (step.result === 'skipped') return `${head}><skipped/></testcase>`;
  if (step.failure === null || step.result !== 'failed') return `${head}/>`;
  const { code, message, evidence, hint } = step.failure;
  const text = [message, evidence, hint === null ? null : `hint: ${hint}`]
    .filter((line) => line !== null)
    .join('\n');
  return `${head}><failure type="${xmlText(code)}" message="${xmlText(message)}">${xmlText(text)}</failure></testcase>`;
}

/** Where no step failed, the run did: interrupted, or out of time. */
function runCase({ scenario, reason, steps, seconds }: Manifest): string {
  const head = `<testcase classname="${xmlText(scenario.name)}" name="the run" time="${seconds.toFixed(3)}"`;
  if (steps.some(({ result }) => result === 'failed')) return `${head}><skipped/></testcase>`;
  return `${head}><failure message="${xmlText(reason ?? '')}"/></testcase>`;
}

/** Also what XML 1.0 cannot have at all, which guests write all the time. */
function xmlText(text: string): string {
  return text
    .replaceAll(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, '\ufffd')
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll('\n', '&#10;');
}
