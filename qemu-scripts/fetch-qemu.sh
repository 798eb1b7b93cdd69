#!/bin/sh
# Unpacks another version of QEMU beside the system's and prints the path of its program.
#
#   qemu-scripts/fetch-qemu.sh 10.0     from Debian 12's backports
#   qemu-scripts/fetch-qemu.sh 11.1     from Debian 13's backports
#   qemu-scripts/fetch-qemu.sh 11.1 aarch64     the one that emulates another machine
#
# Nothing is installed and no root is needed: the packages are unpacked into a cache in the user's
# home, with every library down to libc, and run with their own dynamic loader. Asked again, it
# only prints the path. Packages that it reads: qemu-system-x86 (or -arm), ipxe-qemu and what
# they need.
set -eu
. "$(dirname "$0")/private-apt.sh"

# What a cached tree looks like; counted up when this script makes it differently.
LAYOUT=1

case "${1-}" in
  10.0) release=bookworm ;;
  11.1) release=trixie ;;
  *)
    echo 'usage: qemu-scripts/fetch-qemu.sh 10.0|11.1 [x86_64|aarch64]' >&2
    exit 2
    ;;
esac
version=$1
target=${2-x86_64}
case "$target" in
  x86_64) package=qemu-system-x86 tree=qemu-$version ;;
  aarch64) package=qemu-system-arm tree=qemu-$version-$target ;;
  *)
    echo "fetch-qemu.sh: no QEMU for $target is known here" >&2
    exit 2
    ;;
esac
name=qemu-system-$target
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mmiobridge
tree=$cache/$tree
program=$tree/$name

ready() { [ "$(cat "$tree/layout" 2>/dev/null)" = "$LAYOUT" ]; }

if ready; then
  printf '%s\n' "$program"
  exit 0
fi

[ "$(uname -m)" = x86_64 ] || fail "these packages run on x86_64 only, this is $(uname -m)"
for tool in apt-get apt-cache dpkg-deb flock; do
  command -v $tool >/dev/null || fail "$tool is missing: this needs a Debian or Ubuntu"
done

mkdir -p "$cache"
# Tests ask for a version at the same time: the first gets it, the others find it.
exec 9>"$tree.lock"
flock 9
if ready; then
  printf '%s\n' "$program"
  exit 0
fi

work=$(mktemp -d "$tree.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

private_apt_setup "$work/apt" "$release" "$release-backports"
offered=$(private_apt apt-cache madison "$package" | awk -F' *[|] *' '{ print $2 }')
case "$offered" in
  *":$version."* | *":$version+"*) ;;
  *) fail "Debian's $release-backports has no QEMU $version any more, only: $(echo $offered)" ;;
esac
say "downloading QEMU $version"
private_apt_download -t "$release-backports" "$package" ipxe-qemu

say 'unpacking'
root=$work/root
mkdir -p "$root"
for file in "$work"/apt/archives/*.deb; do
  dpkg-deb -x "$file" "$root"
done
rm -rf "$work/apt" "$root/usr/share/doc" "$root/usr/share/man" "$root/usr/share/locale"

# The kernel reads the path of the loader from the program, and would take the system's. So the
# loader is started, and told the program. It takes the program's place and name: /proc/PID/exe
# and comm then say qemu-system-x86_64, as of any QEMU.
bin=$root/usr/bin
mv "$bin/$name" "$bin/$name.program"
for loader in "$root/lib64" "$root/usr/lib64" "$root/lib/x86_64-linux-gnu" "$root/usr/lib/x86_64-linux-gnu"; do
  [ ! -e "$loader/ld-linux-x86-64.so.2" ] || break
done
cp -L "$loader/ld-linux-x86-64.so.2" "$bin/$name"

# QEMU also looks for modules where the system's QEMU has its own, and dies of finding one that is
# of another build. That path is replaced by one of the same length that nothing is at.
LC_ALL=C sed -i 's|/usr/lib/x86_64-linux-gnu/qemu\x00|/nonexistent/qemu-modules/////\x00|' \
  "$bin/$name.program"

# Debian builds QEMU to look for firmware, option ROMs and modules in fixed places, so it is told
# those in the tree. exec, so that the process that was started is QEMU itself, and signals and
# exit status are its own.
{
  printf '#!/bin/sh\nname=%s\n' "$name"
  cat <<'WRAPPER'
root=$(dirname "$(readlink -f "$0")")/root
lib=lib/x86_64-linux-gnu
export QEMU_MODULE_DIR="$root/usr/$lib/qemu"
exec "$root/usr/bin/$name" --argv0 "$0" --inhibit-cache \
  --library-path "$root/usr/$lib:$root/$lib" "$root/usr/bin/$name.program" \
  -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" -L "$root/usr/lib/ipxe/qemu" "$@"
WRAPPER
} >"$work/$name"
chmod +x "$work/$name"

runs=$("$work/$name" --version 2>&1) || fail "it does not run here: $runs"
case "$runs" in
  "QEMU emulator version $version."*) ;;
  *) fail "this is not QEMU $version: $runs" ;;
esac
# Listing the devices loads every module.
"$work/$name" -device help 2>&1 | grep -q '"e1000e"' ||
  fail "it cannot list its devices: $("$work/$name" -device help 2>&1 | head -n 3)"

printf '%s\n' "$LAYOUT" >"$work/layout"
chmod 755 "$work"
rm -rf "$tree"
mv "$work" "$tree"
say "$(du -sh "$tree" | cut -f1) in $tree"
printf '%s\n' "$program"
