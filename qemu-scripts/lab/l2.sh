#!/bin/sh
# Builds L2: a small Linux for a guest in L1 that has L1's e1000e passed through, and prints the
# path of the kernel and of the initramfs, a line each.
#
# The kernel's command line says what it does, in this order, before it powers off; what comes of it
# is written to its 9p share "out" (-virtfs local,path=DIR,mount_tag=out,security_model=none):
#   task=oracle     trace: the kernel's own mmiotrace of e1000e, insmod to rmmod, with one processor;
#                   modules, symbols: where its code is, to tell program counters by
#   task=userspace  userspace: what a program writes and reads through sysfs' resource0, a line each
#   task=hammer     hammer: two processors write 1, 2, … 2000 to 0x5200 and to 0x5300 of BAR0 at the
#                   same time, and read after each write
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../guests/linux.sh"

linux_kernel
key=$(cat "$here/l2-init.sh" "$here/l2.sh" "$here/registers.c" "$guests/trace-driver.sh" | linux_key)
initramfs=$cache/l2-$key.cpio.gz

if [ ! -e "$initramfs" ]; then
  linux_need gcc
  work=$(mktemp -d "$cache/l2.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT TERM HUP
  files=$work/files
  linux_files "$files" "$here/l2-init.sh"
  cp "$guests/trace-driver.sh" "$files/"
  gcc -O2 -Wall -static -no-pie -pthread -o "$files/bin/registers" "$here/registers.c"
  strip "$files/bin/registers"
  linux_modules "$files" 9p 9pnet_virtio virtio_pci >"$work/load"
  linux_modules "$files" e1000e >"$work/driver"
  mv "$work/load" "$work/driver" "$files/"
  cat >"$files/use" <<'USE'
cp /proc/modules /out/modules
grep -E ' (_stext|_etext|ioread32|iowrite32|readl|writel)$|\[e1000e\]' /proc/kallsyms >/out/symbols
ifconfig eth0 up
sleep 2
ifconfig eth0 down
USE
  linux_pack "$files" "$initramfs"
fi
printf '%s\n' "$linux/vmlinuz" "$initramfs"
