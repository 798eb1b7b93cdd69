#!/bin/sh
# Builds the hammer guest (see hammer.S) into the cache, if it is not there, and prints its path.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mmiobridge
key=$(cat "$here/hammer.S" "$here/hammer.sh" | sha256sum | cut -c1-16)
elf=$cache/hammer-$key.elf

if [ ! -e "$elf" ]; then
  command -v as >/dev/null && command -v ld >/dev/null || {
    echo "${0##*/}: as and ld are missing; run qemu-scripts/setup.sh --tests" >&2
    exit 1
  }
  mkdir -p "$cache"
  work=$(mktemp -d "$cache/hammer.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT TERM HUP
  as --32 -o "$work/hammer.o" "$here/hammer.S"
  ld -m elf_i386 -Ttext 0x100000 -o "$work/hammer.elf" "$work/hammer.o"
  # Two that build at once make the same file; whichever is last wins.
  mv "$work/hammer.elf" "$elf"
fi
printf '%s\n' "$elf"
