#!/bin/sh
# Builds the oracle guest: a Linux that traces one of its own drivers with the kernel's mmiotrace.
# What we record of it from outside must be the same.
#
#   qemu-scripts/guests/oracle.sh MODULE USE
#
# MODULE is the driver's module, USE a line of shell that makes the driver work once it is loaded.
# Prints the path of the kernel and of the initramfs, a line each.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/linux.sh"

[ $# -eq 2 ] || {
  echo 'usage: qemu-scripts/guests/oracle.sh MODULE USE' >&2
  exit 2
}
module=$1
use=$2

linux_kernel
key=$(cat "$here/oracle-init.sh" "$here/trace-driver.sh" "$here/oracle.sh" | linux_key "$module" "$use")
initramfs=$cache/oracle-$module-$key.cpio.gz

if [ ! -e "$initramfs" ]; then
  work=$(mktemp -d "$cache/oracle.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT TERM HUP
  files=$work/files
  linux_files "$files" "$here/oracle-init.sh"
  cp "$here/trace-driver.sh" "$files/"
  linux_modules "$files" "$module" >"$work/order"
  [ -s "$work/order" ] || fail "$module is built into Debian's kernel $version: nothing to load"
  mkdir "$files/driver"
  # The driver comes last.
  sed '$d' "$work/order" >"$files/driver/depends"
  sed -n '$p' "$work/order" >"$files/driver/module"
  printf '%s\n' "$use" >"$files/driver/use"
  linux_pack "$files" "$initramfs"
fi
printf '%s\n' "$linux/vmlinuz" "$initramfs"
