#!/bin/sh
# Builds the aarch64 hammer guest (see hammer-arm.S) into the cache, if it is not there, and prints
# its path.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mmiobridge
key=$(cat "$here/hammer-arm.S" "$here/hammer-arm.sh" | sha256sum | cut -c1-16)
elf=$cache/hammer-arm-$key.elf

if [ ! -e "$elf" ]; then
  command -v aarch64-linux-gnu-ld >/dev/null || {
    echo "${0##*/}: aarch64-linux-gnu-ld is missing; run qemu-scripts/setup.sh --tests" >&2
    exit 1
  }
  mkdir -p "$cache"
  work=$(mktemp -d "$cache/hammer-arm.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT TERM HUP
  aarch64-linux-gnu-as -o "$work/hammer.o" "$here/hammer-arm.S"
  aarch64-linux-gnu-ld -Ttext 0x40080000 -o "$work/hammer.elf" "$work/hammer.o"
  # Two that build at once make the same file; whichever is last wins.
  mv "$work/hammer.elf" "$elf"
fi
printf '%s\n' "$elf"
