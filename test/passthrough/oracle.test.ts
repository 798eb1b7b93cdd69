import { describe, expect, test } from 'vitest';
import { accessesOf, firstDifference } from '../support/access-lines.ts';
import { expectWhole, recordL2 } from '../support/l2-recording.ts';

/*
 * A card passed through to a guest under KVM with vfio-pci, for real but for the hardware: what we
 * record is what the guest says it did.
 */

describe("a driver, against the guest kernel's own mmiotrace", () => {
  test('every access is the same, in op, width, address, value and order', async () => {
    const recorded = await recordL2({ processors: 1, tasks: ['oracle'] });
    expectWhole(recorded);
    const kernel = recorded.place.text('trace');
    const theirs = accessesOf(kernel);
    const ours = accessesOf(recorded.place.text('ours.mmiotrace'));
    expect(theirs.length).toBeGreaterThanOrEqual(1000);
    expect(firstDifference(ours, theirs)).toBeUndefined();
  });
});

describe('BARs that are mapped into the guest because the user wants it so', () => {
  test('are named, and the recording is not complete', async () => {
    const { result, place } = await recordL2({
      processors: 1,
      tasks: ['userspace'],
      card: ',x-no-mmap=off',
    });
    expect(result.status, result.stderr).toBe(3);
    expect(result.stderr).toMatch(
      /^coverage {2}NOT complete: nic0 BAR0\+0x0, 128.0 KiB bypass QEMU/m,
    );
    expect(result.stderr).toMatch(/INCOMPLETE: accesses to nic0 BAR0, .*bypass QEMU$/m);
    expect(result.stderr).toContain('nic0 has x-no-mmap=off: accesses to BARs that are mapped');
    const text = place.text('ours.mmiotrace');
    expect(text).toMatch(/^MARK \S+ mmiobridge: coverage end nic0 BAR0 0x0\+0x20000 bypassed: /m);
    expect(text).toMatch(/^MARK \S+ mmiobridge: end incomplete/m);
  });
});
