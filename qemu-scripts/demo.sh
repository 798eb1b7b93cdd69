#!/bin/sh
# The main job on a real driver, in half a minute: the iPXE option ROM that Debian ships drives an
# emulated e1000 (it probes the card, brings the link up and asks for an address by DHCP), and
# mmiobridge records what it says to the card.
set -eu
cd "$(dirname "$0")/.."
sh qemu-scripts/prepare.sh

out=${1:-recordings}
mkdir -p "$out"
text=$out/demo.mmiotrace
capture=$out/demo.mmiocap

set -- qemu-system-x86_64 -machine pc -accel tcg -m 64 -nodefaults -display none \
  -netdev user,id=n -device e1000,netdev=n,id=nic0

printf '\nRecording the guest for 12 seconds:\n\n  mmiobridge record --device nic0 -o %s -o %s -- %s\n\n' \
  "$text" "$capture" "$*"
if ! node dist/cli/main.js record --for 12 --device nic0 -o "$text" -o "$capture" -- "$@"; then
  printf '\nThe demo failed: the lines above say why and what to do.\n' >&2
  exit 1
fi

printf '\nThe first lines of %s:\n\n' "$text"
head -n 20 "$text"
printf '  …\n\nAsk it something, or look at it in another way:\n\n'
printf "  grep -m 10 '^W' %s\n" "$text"
printf '  node dist/cli/main.js convert %s -o %s/demo.ndjson\n' "$capture" "$out"
printf '  node dist/cli/main.js --help\n'
