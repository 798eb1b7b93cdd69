#!/bin/sh
# Builds the agent guest: Debian's kernel with QEMU's guest agent, a shell on the first serial port and
# one on the screen, and the modules of the devices that lab runs use, not loaded.
#
#   qemu-scripts/guests/agent.sh
#
# Prints the path of the kernel and of the initramfs, a line each. In the guest the modules lie in
# /modules; `load NAME` loads one with what it needs, `unload NAME` takes it out again, `mark TEXT` is
# qemu-scripts/guest/mark.sh, and `peek FILE OFFSET` and `poke FILE OFFSET VALUE` read and write 32 bits
# of a PCI resource file.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/linux.sh"

[ $# -eq 0 ] || {
  echo 'usage: qemu-scripts/guests/agent.sh' >&2
  exit 2
}

linux_kernel
key=$(cat "$here/agent-init.sh" "$here/agent.sh" "$here/../guest/mark.sh" | linux_key)
initramfs=$cache/agent-$key.cpio.gz

if [ ! -e "$initramfs" ]; then
  linux_need gcc apt-get dpkg-deb
  work=$(mktemp -d "$cache/agent.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT TERM HUP
  files=$work/files
  linux_files "$files" "$here/agent-init.sh"
  private_apt_setup "$work/apt" bookworm
  say 'downloading qemu-guest-agent, pciutils and what they need'
  private_apt_download qemu-guest-agent pciutils
  for package in "$work"/apt/archives/*.deb; do
    case "${package##*/}" in
      qemu-guest-agent_* | pciutils_* | lib*) dpkg-deb -x "$package" "$work/root" ;;
    esac
  done
  rm -rf "$work/root/usr/share"
  # Only what the two programs are linked with.
  mkdir -p "$files/lib64" "$files/lib" "$files/sbin"
  for program in usr/sbin/qemu-ga usr/bin/setpci usr/bin/lspci; do
    found=$(find "$work/root" -path "*/${program##*/}" -type f | head -n 1)
    cp "$found" "$files/bin/"
  done
  lib=lib/x86_64-linux-gnu
  loader=$(find -L "$work/root" -name 'ld-linux-x86-64.so.2' | head -n 1)
  cp -L "$loader" "$files/lib64/"
  path=$work/root/usr/$lib:$work/root/$lib
  for program in qemu-ga setpci lspci; do
    "$files/lib64/ld-linux-x86-64.so.2" --library-path "$path" --list "$files/bin/$program"
  done | sed -n 's/.*=> \([^ ]*\).*/\1/p' | sort -u | while read -r library; do
    cp -L "$library" "$files/lib/"
  done
  for module in virtio_pci virtio_console nvme e1000e usbhid hid_generic xhci_pci e1000 i8042 atkbd evdev button; do
    linux_modules "$files" "$module" >"$work/$module.order" || :
    case "$module" in
      virtio_pci | virtio_console | i8042 | atkbd | evdev | button) cat "$work/$module.order" ;;
    esac
  done | awk '!seen[$0]++' >"$files/depends"
  mkdir -p "$files/modules/order"
  for order in "$work"/*.order; do
    name=${order##*/}
    cp "$order" "$files/modules/order/${name%.order}"
  done
  cat >"$files/bin/load" <<'LOAD'
#!/bin/sh
while read -r module; do
  name=$(basename "$module" .ko | tr - _)
  grep -q "^$name " /proc/modules || insmod "$module" || exit 1
done <"/modules/order/$1"
LOAD
  cat >"$files/bin/unload" <<'UNLOAD'
#!/bin/sh
rmmod "$1"
UNLOAD
  cp "$here/../guest/mark.sh" "$files/bin/mark"
  cat >"$work/poke.c" <<'POKE'
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
int main(int argc, char **argv) {
  int writes = argc == 4;
  if (argc < 3) return 2;
  int fd = open(argv[1], writes ? O_RDWR : O_RDONLY);
  off_t offset = strtoull(argv[2], NULL, 0);
  char *page = fd < 0 ? MAP_FAILED
    : mmap(NULL, 4096, writes ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, offset & ~4095);
  if (page == MAP_FAILED) return perror(argv[1]), 1;
  volatile uint32_t *reg = (volatile uint32_t *)(page + (offset & 4095));
  if (writes) *reg = strtoul(argv[3], NULL, 0);
  else printf("0x%08x\n", *reg);
  return 0;
}
POKE
  gcc -O2 -static -o "$files/bin/peek" "$work/poke.c"
  strip "$files/bin/peek"
  ln -s peek "$files/bin/poke"
  chmod 755 "$files"/bin/load "$files"/bin/unload "$files"/bin/mark
  linux_pack "$files" "$initramfs"
fi
printf '%s\n' "$linux/vmlinuz" "$initramfs"
