#!/bin/sh
# Builds the oracle guest: a Linux that traces one of its own drivers with the kernel's mmiotrace.
# What we record of it from outside must be the same.
#
#   qemu-scripts/guests/oracle.sh MODULE USE
#
# MODULE is the driver's module, USE a line of shell that makes the driver work once it is loaded.
# Prints the path of the kernel and of the initramfs, a line each. Kernel and modules are those of
# Debian 12, whose stock kernel has mmiotrace; they are unpacked into the cache, not installed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../private-apt.sh"

[ $# -eq 2 ] || {
  echo 'usage: qemu-scripts/guests/oracle.sh MODULE USE' >&2
  exit 2
}
module=$1
use=$2
busybox=/bin/busybox
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mmiobridge
linux=$cache/linux-bookworm
mkdir -p "$cache"

fetch_kernel() {
  for tool in apt-get apt-cache dpkg-deb depmod; do
    [ -n "$(command -v $tool)" ] || fail "$tool is missing; run qemu-scripts/setup.sh --tests"
  done
  kernel_work=$(mktemp -d "$linux.XXXXXX")
  trap 'rm -rf "$kernel_work"' EXIT
  trap 'exit 130' INT TERM HUP
  private_apt_setup "$kernel_work/apt" bookworm
  # linux-image-amd64 is an empty package that depends on the newest kernel's.
  package=$(private_apt apt-cache show --no-all-versions linux-image-amd64 |
    sed -n 's/^Depends: \([^ ,]*\).*/\1/p')
  say "downloading $package"
  # The package alone: what it depends on is for a machine that boots from it.
  (cd "$kernel_work" && private_apt apt-get download -q "$package") >>"$kernel_work/apt/log" 2>&1 ||
    fail "apt-get could not download $package:
$(tail -n 5 "$kernel_work/apt/log")"
  say 'unpacking'
  dpkg-deb -x "$kernel_work/$package"_*.deb "$kernel_work/root"
  version=${package#linux-image-}
  depmod -b "$kernel_work/root" "$version"
  mv "$kernel_work/root/boot/vmlinuz-$version" "$kernel_work/vmlinuz"
  printf '%s\n' "$version" >"$kernel_work/version"
  rm -rf "$kernel_work/apt" "$kernel_work"/*.deb "$kernel_work/root/usr" "$kernel_work/root/boot"
  rm -rf "$linux"
  chmod 755 "$kernel_work"
  mv "$kernel_work" "$linux"
  trap - EXIT
}

# The version is written last but one, and the directory gets its name last.
if [ ! -e "$linux/version" ]; then
  exec 9>"$linux.lock"
  flock 9
  [ -e "$linux/version" ] || fetch_kernel
  exec 9>&-
fi
version=$(cat "$linux/version")

[ -x $busybox ] || fail "$busybox is missing; run qemu-scripts/setup.sh --tests"
key=$({
  printf '%s\n' "$version" "$module" "$use"
  cat "$here/oracle-init.sh" "$here/oracle.sh" $busybox
} | sha256sum | cut -c1-16)
initramfs=$cache/oracle-$module-$key.cpio.gz

if [ ! -e "$initramfs" ]; then
  for tool in cpio modprobe; do
    [ -n "$(command -v $tool)" ] || fail "$tool is missing; run qemu-scripts/setup.sh --tests"
  done
  work=$(mktemp -d "$cache/oracle.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT TERM HUP
  files=$work/files
  mkdir -p "$files/bin" "$files/proc" "$files/sys" "$files/dev" "$files/driver" "$files/modules"
  cp $busybox "$files/bin/busybox"
  cp "$here/oracle-init.sh" "$files/init"
  chmod 755 "$files/init"

  # "insmod PATH" in the order to load, the driver last; what is built in needs no loading.
  modprobe -d "$linux/root" -S "$version" --show-depends "$module" >"$work/modules" ||
    fail "Debian's kernel $version has no module $module"
  # A module that two others need is named twice.
  sed -n 's/^insmod \(.*\.ko\)\( .*\)*$/\1/p' "$work/modules" | awk '!seen[$0]++' | while read -r path; do
    cp "$path" "$files/modules/"
    printf '/modules/%s\n' "${path##*/}"
  done >"$work/order"
  [ -s "$work/order" ] || fail "$module is built into Debian's kernel $version: nothing to load"
  sed '$d' "$work/order" >"$files/driver/depends"
  sed -n '$p' "$work/order" >"$files/driver/module"
  printf '%s\n' "$use" >"$files/driver/use"

  (cd "$files" && find . | cpio -o -H newc -R 0:0 --quiet) | gzip -1 >"$work/initramfs"
  mv "$work/initramfs" "$initramfs"
fi
printf '%s\n' "$linux/vmlinuz" "$initramfs"
