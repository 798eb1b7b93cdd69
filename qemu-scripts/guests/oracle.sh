#!/bin/sh
# Builds the oracle guest: a Linux that traces drivers of its own with the kernel's mmiotrace.
# What we record of it from outside must be the same.
#
#   qemu-scripts/guests/oracle.sh MODULE USE [MODULE USE]...
#
# MODULE is the driver's module, USE a line of shell that makes the driver work once it is loaded.
# Prints the path of the kernel and of the initramfs, a line each.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/linux.sh"

[ $# -ge 2 ] && [ $(($# % 2)) -eq 0 ] || {
  echo 'usage: qemu-scripts/guests/oracle.sh MODULE USE [MODULE USE]...' >&2
  exit 2
}

linux_kernel
key=$(cat "$here/oracle-init.sh" "$here/trace-driver.sh" "$here/oracle.sh" | linux_key "$@")
initramfs=$cache/oracle-$1-$key.cpio.gz

if [ ! -e "$initramfs" ]; then
  work=$(mktemp -d "$cache/oracle.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT TERM HUP
  files=$work/files
  linux_files "$files" "$here/oracle-init.sh"
  cp "$here/trace-driver.sh" "$files/"
  number=0
  while [ $# -ge 2 ]; do
    number=$((number + 1))
    driver=$files/driver/$number
    mkdir -p "$driver"
    linux_modules "$files" "$1" >"$work/order"
    [ -s "$work/order" ] || fail "$1 is built into Debian's kernel $version: nothing to load"
    # The driver comes last.
    sed '$d' "$work/order" >>"$work/depends"
    sed -n '$p' "$work/order" >"$driver/module"
    printf '%s\n' "$2" >"$driver/use"
    shift 2
  done
  awk '!seen[$0]++' "$work/depends" >"$files/depends"
  linux_pack "$files" "$initramfs"
fi
printf '%s\n' "$linux/vmlinuz" "$initramfs"
