import { describe, expect, it } from 'vitest';
import { hintFor } from '../../../src/machine/qemu-words.ts';

describe("a hint for QEMU's words", () => {
  // Printed by QEMU 7.2, or put together from the format strings in it where no hardware is at hand.
  it.each([
    ['Could not access KVM kernel module: Permission denied', /group kvm/],
    ['Could not access KVM kernel module: No such file or directory', /kvm_intel or kvm_amd/],
    ['qemu-system-x86_64: -device vfio-pci: No provided host device', /host=0000/],
    [
      'qemu-system-x86_64: -device vfio-pci,host=0000:01:00.0: vfio /sys/bus/pci/devices/0000:01:00.0: no such host device: No such file or directory',
      /lspci -D/,
    ],
    [
      'qemu-system-x86_64: Error opening logfile /x/spool/000001: No such file or directory',
      /--spool/,
    ],
    ['qemu-system-x86_64: -bogus: invalid option', /does not know/],
    [
      'qemu-system-x86_64: -device vfio-pci,host=01:00.0: vfio 0000:01:00.0: group 12 is not viable\nPlease ensure all devices within the iommu_group are bound to their vfio bus driver.',
      /every device of its IOMMU group.*iommu_group\/devices/,
    ],
    [
      'qemu-system-x86_64: -device vfio-pci,host=01:00.0: vfio 0000:01:00.0: failed to open /dev/vfio/12: Permission denied',
      /\/dev\/vfio\/GROUP/,
    ],
    [
      'vfio 0000:01:00.0: failed to open /dev/vfio/12: No such file or directory',
      /mmiobridge bind ADDR/,
    ],
    ['vfio 0000:01:00.0: failed to open /dev/vfio/12: Device or resource busy', /another QEMU/],
    [
      'vfio 0000:01:00.0: vfio_dma_map(0x5, 0x0, 0xa0000, 0x7) = -12 (Cannot allocate memory)',
      /ulimit -l/,
    ],
    ["qemu-system-x86_64: cannot set up guest memory 'pc.ram': Cannot allocate memory", /lower -m/],
    ["qemu-system-x86_64: Display 'gtk' is not available.", /-display none/],
  ])('%s', (words, hint) => {
    expect(hintFor(words)).toMatch(hint);
  });

  it('there is none for words that nobody knows', () => {
    expect(hintFor('')).toBeUndefined();
    expect(hintFor('terminating on signal 15 from pid 1 (systemd)')).toBeUndefined();
  });
});
