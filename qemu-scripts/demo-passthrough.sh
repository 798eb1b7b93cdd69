#!/bin/sh
# Recording a passed-through card, as on a real host but without its hardware, in some minutes: in
# the lab's L1 (see lab/l1.sh) a network card is bound to vfio-pci, a Linux guest under KVM gets it
# and drives it, mmiobridge records what the guest says to it, and the card goes back to its driver.
set -eu
cd "$(dirname "$0")/.."
sh qemu-scripts/prepare.sh --tests

out=${1:-recordings}
mkdir -p "$out"
card=0000:00:10.0
guest=$(sh qemu-scripts/lab/l2.sh)
# On Debian 12's L1 hangs at times.
qemu=$(sh qemu-scripts/fetch-qemu.sh 11.1)
work=$(mktemp -d)
lab=$work/l1
share=$lab/share
trap 'sh qemu-scripts/lab/l1.sh stop "$lab"; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

# Runs a command in L1 and says so.
in_l1() {
  printf '\nl1# %s\n\n' "$*"
  sh qemu-scripts/lab/l1.sh run "$lab" --timeout 900 "$@"
}
printf '\nStarting a passthrough host in QEMU:\n\n'
sh qemu-scripts/lab/l1.sh start "$lab" --owner $$ --still --qemu "$qemu"

in_l1 node dist/cli/main.js bind "$card"

set -- qemu-system-x86_64 -machine q35,accel=kvm -cpu host -m 256 \
  -nodefaults -display none -no-reboot \
  -kernel "$(printf '%s\n' "$guest" | head -n 1)" -initrd "$(printf '%s\n' "$guest" | tail -n 1)" \
  -append 'console=ttyS0 loglevel=4 panic=-1 nokaslr mitigations=off task=oracle' \
  -serial "file:$share/console" -virtfs "local,path=$share,mount_tag=out,security_model=none" \
  -device "vfio-pci,host=$card,rombar=0,id=nic0"
set -- record --pc -o "$share/passthrough.mmiotrace" -o "$share/passthrough.mmiocap" -- "$@"
status=0
in_l1 node dist/cli/main.js "$@" || status=$?
if [ $status != 0 ]; then
  printf '\nThe demo failed: the lines above say why and what to do.\n' >&2
  exit 1
fi

in_l1 node dist/cli/main.js unbind "$card"

# All hardware is emulated here, and the guest may crash in it.
[ -e "$share/trace" ] || {
  printf '\nThe demo failed: the guest did not come to its end. Its console ends so; try again.\n\n' >&2
  tail -n 20 "$share/console" >&2
  exit 1
}
cp "$share/passthrough.mmiotrace" "$share/passthrough.mmiocap" "$out/"
cp "$share/trace" "$out/passthrough.guest.mmiotrace"
printf '\nThe first accesses in %s, with the program counters of those who made them:\n\n' \
  "$out/passthrough.mmiotrace"
grep -m 20 '^[RW] .* 0x[0-9a-f]* 0x[0-9a-f]*[1-9a-f][0-9a-f]* 0$' "$out/passthrough.mmiotrace"
printf "  …\n\nThe same accesses as the guest's own kernel saw them: %s\n" "$out/passthrough.guest.mmiotrace"
printf 'Everything, for other formats: %s\n' "$out/passthrough.mmiocap"
