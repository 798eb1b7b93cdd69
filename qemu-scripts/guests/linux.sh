# Sourced by the scripts that build a Linux guest: Debian 12's stock kernel, which has mmiotrace, its
# modules, and an initramfs of busybox. They are unpacked into the cache, not installed.
#
# linux_kernel gets the kernel; then linux_modules and linux_pack put an initramfs together.
# shellcheck shell=sh
guests=$(cd "$(dirname "$0")/../guests" && pwd)
. "$guests/../private-apt.sh"

busybox=/bin/busybox
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mmiobridge
linux=$cache/linux-bookworm

# linux_need TOOL...: ends with what to do where one is missing.
linux_need() {
  for tool in "$@"; do
    [ -n "$(command -v "$tool")" ] || fail "$tool is missing; run qemu-scripts/setup.sh --tests"
  done
}

linux_fetch() (
  linux_need apt-get apt-cache dpkg-deb depmod
  work=$(mktemp -d "$linux.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT TERM HUP
  private_apt_setup "$work/apt" bookworm
  # linux-image-amd64 is an empty package that depends on the newest kernel's.
  package=$(private_apt apt-cache show --no-all-versions linux-image-amd64 |
    sed -n 's/^Depends: \([^ ,]*\).*/\1/p')
  say "downloading $package"
  # The package alone: what it depends on is for a machine that boots from it.
  (cd "$work" && private_apt apt-get download -q "$package") >>"$work/apt/log" 2>&1 ||
    fail "apt-get could not download $package:
$(tail -n 5 "$work/apt/log")"
  say 'unpacking'
  dpkg-deb -x "$work/$package"_*.deb "$work/root"
  version=${package#linux-image-}
  depmod -b "$work/root" "$version"
  mv "$work/root/boot/vmlinuz-$version" "$work/vmlinuz"
  printf '%s\n' "$version" >"$work/version"
  rm -rf "$work/apt" "$work"/*.deb "$work/root/usr" "$work/root/boot"
  rm -rf "$linux"
  chmod 755 "$work"
  mv "$work" "$linux"
  trap - EXIT
)

# Sets $version, and has the kernel at $linux/vmlinuz and its modules in $linux/root.
linux_kernel() {
  mkdir -p "$cache"
  [ -x $busybox ] || fail "$busybox is missing; run qemu-scripts/setup.sh --tests"
  # The version is written last but one, and the directory gets its name last.
  if [ ! -e "$linux/version" ]; then
    exec 9>"$linux.lock"
    flock 9
    [ -e "$linux/version" ] || linux_fetch
    exec 9>&-
  fi
  version=$(cat "$linux/version")
}

# linux_key WORD...: 16 digits which differ when the kernel, busybox, these words or the files on
# stdin do: for the name of what is built of them.
linux_key() {
  {
    printf '%s\n' "$version" "$@"
    cat - "$guests/linux.sh" $busybox
  } | sha256sum | cut -c1-16
}

# linux_files DIR INIT: begins an initramfs in DIR whose first process is the script INIT.
linux_files() {
  mkdir -p "$1/bin" "$1/proc" "$1/sys" "$1/dev" "$1/modules"
  cp $busybox "$1/bin/busybox"
  cp "$2" "$1/init"
  chmod 755 "$1/init"
}

# linux_modules DIR MODULE...: copies modules and what they need into DIR/modules, and prints their
# paths in the guest in the order to load them. What is built in needs no loading.
linux_modules() {
  linux_need modprobe
  modules_dir=$1
  shift
  for wanted in "$@"; do
    modprobe -d "$linux/root" -S "$version" --show-depends "$wanted" ||
      fail "Debian's kernel $version has no module $wanted"
  done >"$modules_dir.order"
  # A module that two others need is named twice.
  sed -n 's/^insmod \(.*\.ko\)\( .*\)*$/\1/p' "$modules_dir.order" | awk '!seen[$0]++' |
    while read -r path; do
      cp "$path" "$modules_dir/modules/"
      printf '/modules/%s\n' "${path##*/}"
    done
  rm "$modules_dir.order"
}

# linux_pack DIR FILE: makes FILE, an initramfs, of DIR.
linux_pack() {
  linux_need cpio
  (cd "$1" && find . | cpio -o -H newc -R 0:0 --quiet) | gzip -1 >"$1.cpio"
  # Two that build at once make the same file; whichever is last wins.
  mv "$1.cpio" "$2"
}
