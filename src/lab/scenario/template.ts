/** What `lab new` writes: a whole scenario to begin with, whose every line says what it is for. */
import { LAB_VERSION } from './read.ts';

export function template(name: string): string {
  return `# yaml-language-server: $schema=SCHEMA
# A lab run of mmiobridge: what to start, what to do in it, what to mark.
#   mmiobridge lab check ${name}.yaml     is it right?
#   mmiobridge lab run ${name}.yaml       run it; what comes of it lies in lab-runs/
lab: ${LAB_VERSION}
name: ${name}
about: The driver is loaded, used and unloaded.

# \${NAME} stands for it below; \`lab run --set disk=…\` changes it for one run.
variables:
  disk: \${here}/disk.qcow2

# The whole run takes no longer.
time-limit: 10m

# Given to vfio-pci before the first step, and given back after the last, whatever happens.
# bind: ['0000:01:00.0']

# Each step's name becomes a mark in the recording. A step that fails ends the run,
# unless it says on-failure: continue (the run has failed) or ignore.
steps:
  - name: start
    start:
      qemu: >-
        qemu-system-x86_64 -machine pc -m 1G -nodefaults -display none -vga std
        -drive file=\${disk},if=virtio
        -netdev user,id=net0 -device e1000e,netdev=net0,id=nic0
      # Serial ports by name, in the guest's order: the first is COM1, ttyS0.
      serial: [console]
      # A port for qemu-guest-agent; guest-run, copy-in and copy-out go through it.
      agent: true
      # A port for the guest's own marks: qemu-scripts/guest/mark.sh, mark.ps1.
      marks: virtio-serial
      # Everything that \`mmiobridge record\` takes.
      record:
        device: nic0

  - name: the guest is up
    wait-agent: {}
    time-limit: 3m

  - name: load
    guest-run: modprobe e1000e

  # Counted from the mark of the step "load" on: nothing is missed between the two.
  - name: the driver has reset the device
    wait-access: { filter: 'write bar0+0x0 value&0x4000000', since: load }

  - name: the driver is ready
    wait-quiet: 500ms

  - name: unload
    guest-run: rmmod e1000e

  - name: shut down
    power-down: {}
    on-failure: ignore
`;
}
