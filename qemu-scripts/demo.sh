#!/bin/sh
# The main job on a real driver, in half a minute: the iPXE option ROM that Debian ships drives an
# emulated e1000 (it probes the card, brings the link up and asks for an address by DHCP), and
# mmiobridge records what it says to the card. It can be watched in a browser meanwhile.
#
#   npm run demo                  for 12 seconds
#   npm run demo -- --keep        the page stays open afterwards, until Ctrl-C
#   npm run demo -- [--keep] DIR  writes into DIR instead of recordings
set -eu
cd "$(dirname "$0")/.."
sh qemu-scripts/prepare.sh

keep=
if [ "${1-}" = --keep ]; then
  keep=--keep-page
  shift
fi
out=${1:-recordings}
mkdir -p "$out"
text=$out/demo.mmiotrace
capture=$out/demo.mmiocap

set -- qemu-system-x86_64 -machine pc -accel tcg -m 64 -nodefaults -display none \
  -netdev user,id=n -device e1000,netdev=n,id=nic0

printf '\nRecording the guest for 12 seconds:\n\n  mmiobridge record --live --device nic0 -o %s -o %s -- %s\n\n' \
  "$text" "$capture" "$*"
printf 'Open the address of the page, which comes next, in a browser to watch it.\n\n'
# shellcheck disable=SC2086 # one word, or none
if ! node dist/cli/main.js record --live $keep --duration 12 --device nic0 -o "$text" -o "$capture" -- "$@"; then
  printf '\nThe demo failed: the lines above say why and what to do.\n' >&2
  exit 1
fi

printf '\nThe first lines of %s:\n\n' "$text"
head -n 20 "$text"
printf '  …\n\nAsk it something, or look at it in another way:\n\n'
printf "  grep -m 10 '^W' %s\n" "$text"
printf '  node dist/cli/main.js view %s\n' "$capture"
printf '  node dist/cli/main.js convert %s -o %s/demo.ndjson\n' "$capture" "$out"
printf '  node dist/cli/main.js --help\n'
