#!/bin/sh
# Installs what mmiobridge needs beside Node, from the machine's own Debian archive.
#
#   qemu-scripts/setup.sh           what recording a guest needs
#   qemu-scripts/setup.sh --tests   and what the tests need on top
#
# Only what is missing is installed, and nothing is asked of root while nothing is missing.
# Exit status: 0 everything is there; 1 something is missing and could not be installed; 2 usage.
set -eu

# Package and reason, one a line: the reason is what a person reads before their system changes.
RUN='
qemu-system-x86 runs the guest and prints the accesses of its driver
seabios the firmware that the guest boots with
ipxe-qemu option ROMs of the emulated network cards, which are real drivers and thus test guests
'
TESTS='
binutils assembles the bare-metal test guest
binutils-aarch64-linux-gnu and the one for aarch64
busybox-static userland of the Linux test guest
cpio packs its files
ovmf UEFI, for the tests of a Windows guest
swtpm its TPM
gcc compiles the QEMU plugin, and the program that L2 of the passthrough lab runs
libc6-dev and links it statically
make builds the plugin
clang looks through the plugin with its analyser
kmod finds the modules that the Linux test guest has to load
iproute2 network namespaces, for the tests of the bridge
openssl their certificate
tmux a terminal for the tests of what a person sees on theirs
zsh a shell whose completion the tests try
fish another one
chromium the browser of the tests of the page
'
# No -t archive of its own: the lines above decide, the machine's sources say from where.
# Recommended packages of QEMU are graphical front ends, which no one needs here.
INSTALL='apt-get install -y --no-install-recommends'

say() { printf 'setup: %s\n' "$*"; }
fail() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

# Prints the packages of the list on stdin that are not installed, one a line with their reason.
missing_of() {
  while read -r package reason; do
    [ -n "$package" ] || continue
    case "$installed" in
      *" $package=installed "*) ;;
      *) printf '%s %s\n' "$package" "$reason" ;;
    esac
  done
}

# Runs a command as root, or ends with the words to type.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    # sudo drops the environment, so what matters of it is said again.
    sudo -n env DEBIAN_FRONTEND=noninteractive "$@"
  else
    fail "not root; run this, then start again:
  sudo apt-get update && sudo $INSTALL $packages"
  fi
}

wanted=$RUN
case "${1-}" in
  '') ;;
  --tests) wanted="$RUN$TESTS" ;;
  *)
    echo 'usage: qemu-scripts/setup.sh [--tests]' >&2
    exit 2
    ;;
esac
[ $# -le 1 ] || { echo 'usage: qemu-scripts/setup.sh [--tests]' >&2; exit 2; }

command -v dpkg-query >/dev/null && command -v apt-get >/dev/null ||
  fail "this is no Debian or Ubuntu; install by hand what corresponds to:$(printf '%s' "$wanted" |
    while read -r package reason; do [ -z "$package" ] || printf '\n  %-16s %s' "$package" "$reason"; done)"

names=$(printf '%s' "$wanted" | cut -d' ' -f1)
# One query for all: each costs more than the rest of this script. It fails for unknown packages,
# which are those that are missing. Word splitting makes the arguments.
# shellcheck disable=SC2086
installed=" $(dpkg-query -W -f '${Package}=${db:Status-Status} ' $names 2>/dev/null || :)"
missing=$(printf '%s' "$wanted" | missing_of)
if [ -z "$missing" ]; then
  say 'everything is there'
  exit 0
fi

say 'installing'
printf '%s\n' "$missing" | while read -r package reason; do
  printf '  %-16s %s\n' "$package" "$reason"
done
packages=$(printf '%s\n' "$missing" | cut -d' ' -f1 | tr '\n' ' ')
export DEBIAN_FRONTEND=noninteractive

updated=no
update() {
  updated=yes
  as_root apt-get update -q || fail 'apt-get update failed; its words are above'
}

# A machine that has never updated its lists knows no packages at all.
for package in $packages; do
  apt-cache show --no-all-versions "$package" >/dev/null 2>&1 || { update; break; }
done
# Lists that are too old name files that the archive no longer has: one update, one more try.
# shellcheck disable=SC2086
as_root $INSTALL -o DPkg::Lock::Timeout=300 $packages || {
  [ $updated = no ] || fail "apt-get could not install: $packages"
  say 'the package lists may be old: updating them and trying once more'
  update
  as_root $INSTALL -o DPkg::Lock::Timeout=300 $packages ||
    fail "apt-get could not install: $packages"
}
say 'done'
