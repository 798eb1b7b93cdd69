/** What to do about a failure, read from QEMU's own words. The texts are those of QEMU 7.2. */
interface Rule {
  readonly words: RegExp;
  readonly hint: string;
}

/** The first that fits wins: the more special ones come first. */
const RULES: readonly Rule[] = [
  {
    words: /mmio-plugin: [^\n]*another (mmiobridge|language)/,
    hint: 'the plugin that was built is not that of this mmiobridge: make -C qemu-scripts/plugin',
  },
  {
    words: /group \d+ is not viable/,
    hint: 'every device of its IOMMU group must be bound to vfio-pci (or to no driver): ls /sys/bus/pci/devices/ADDR/iommu_group/devices lists them',
  },
  {
    words:
      /\/dev\/vfio\/[^\n]*Permission denied|vfio[^\n]*(Permission denied|Operation not permitted)/,
    hint: 'the user that QEMU runs as must be able to open /dev/vfio/GROUP: change its owner, or run as root',
  },
  {
    words: /vfio[^\n]*(Device or resource busy|failed to open \/dev\/vfio\/\d+: Device)/,
    hint: 'another QEMU holds this device or one of its IOMMU group',
  },
  {
    words: /no such host device/,
    hint: 'there is no PCI device at this host address: lspci -D lists them',
  },
  {
    words: /No provided host device/,
    hint: 'give the address of the device on the host: -device vfio-pci,host=0000:01:00.0',
  },
  {
    words:
      /vfio[^\n]*(no iommu_group found|failed to get group|failed to open \/dev\/vfio\/\d+: No such file)/,
    hint: 'the device has no IOMMU group (enable the IOMMU: intel_iommu=on), or is not bound to vfio-pci: mmiobridge bind ADDR',
  },
  {
    words: /vfio[^\n]*(Cannot allocate memory|VFIO_MAP_DMA)/,
    hint: "passthrough locks all of the guest's memory: raise the limit on locked memory (ulimit -l)",
  },
  {
    words: /KVM kernel module: Permission denied/,
    hint: 'the user that QEMU runs as cannot open /dev/kvm: add it to the group kvm',
  },
  {
    words:
      /KVM kernel module: (No such file|No such device)|failed to initialize kvm|KVM is not supported/i,
    hint: 'there is no usable /dev/kvm: load kvm_intel or kvm_amd, enable virtualization in the firmware, or use -accel tcg',
  },
  {
    words: /Error opening logfile|Bad logfile template/,
    hint: 'QEMU could not open the log where the recording reads it: name a directory that it may write to with --spool DIR',
  },
  {
    words: /Failed to bind socket|UNIX socket path .* is too long/,
    hint: 'QEMU could not create its socket there: the directory must exist, and QEMU be allowed to write in it',
  },
  {
    words: /Failed to get "write" lock|Is another process using the image/,
    hint: 'another QEMU uses this disk image: end it first',
  },
  {
    words:
      /invalid option|is not a valid device model name|unsupported machine type|Property '.*' not found/,
    hint: 'this QEMU does not know that: qemu-system-x86_64 -version tells its release, -device help its devices',
  },
  {
    words: /cannot set up guest memory|Cannot allocate memory/,
    hint: 'the host has too little free memory for this guest: lower -m',
  },
  {
    words: /Display '.*' is not available|module ui-/i,
    hint: 'this QEMU has no such display here: add -display none, or -vnc :0',
  },
  {
    words: /Address already in use/,
    hint: 'another program listens on that address already; perhaps this QEMU runs already',
  },
  {
    words:
      /Could not open '.*': No such file or directory|could not load kernel|could not load PC BIOS/,
    hint: 'check the path: it is relative to the directory in which mmiobridge was started',
  },
  {
    words: /Permission denied/,
    hint: 'the user that QEMU runs as is not allowed to open that',
  },
];

/** A hint for what QEMU said, or undefined if its words are none that we know. */
export function hintFor(qemuWords: string): string | undefined {
  return RULES.find((rule) => rule.words.test(qemuWords))?.hint;
}
