#!/bin/sh
# L1: a passthrough host without the hardware. An emulated computer with SVM and an IOMMU, which
# boots Debian's stock kernel and whose root is this machine's: node, QEMU and this checkout are
# there, at the same paths. In it vfio-pci binds devices and QEMU runs guests under KVM.
#
#   qemu-scripts/lab/l1.sh start STATE [--owner PID] [--limit SECONDS] [--qemu PROGRAM] [--still]
#   qemu-scripts/lab/l1.sh run STATE [--timeout SECONDS] COMMAND ARG...
#   qemu-scripts/lab/l1.sh stop STATE
#
# STATE is a directory, one for each L1. start makes it and returns when L1 is up, about 15 seconds
# later; L1 ends with stop, when the process PID has ended (by default the one that called start),
# and after SECONDS (by default an hour). PROGRAM emulates it instead of the system's QEMU: on that of
# Debian 12 L1 hung once in eight starts of a guest (not explained).
# With --still L1 keeps what it has read of the checkout: programs start faster in it, and what is
# edited meanwhile may not be seen.
#
# run runs a command as root in L1, in the checkout: its output, its exit status, Ctrl-C and
# SIGTERM go through, its input is empty. Status 124: it took longer than SECONDS and was killed;
# 125: L1 does not run, or ended meanwhile. Any number may run at once. Files go in and out by
# STATE/share, which is at the same path in L1; all else that is written in L1 lands in its memory,
# and the checkout is read-only there.
#
# What L1 has:
#   00:0f.0  the boot VGA, no driver
#   00:10.0  e1000e (8086:10d3), alone in its IOMMU group, driver e1000e: the one to pass through
#   00:11.0  virtio-net, driver virtio-pci: holds 10.0.2.15 and the only route
#   00:12.0  nvme, driver nvme: its file system is mounted at /mnt/disk
#   00:13.0  a conventional PCI bridge; the two behind it share one IOMMU group:
#     01:01.0  e1000 (8086:100e), driver e1000
#     01:02.0  edu (1234:11e8), no driver
# and KVM (SVM), tracefs at /sys/kernel/tracing, and modules of its kernel for modprobe. vfio-pci is
# not loaded.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../guests/linux.sh"

BOOT_LIMIT_S=120

usage() {
  sed -n 's/^#   \(qemu-scripts.*\)/\1/p' "$0" >&2
  exit 2
}

# Sets $pid. One that has ended and that nobody has waited for has no exe any more.
l1_running() { pid=$(cat "$state/pid" 2>/dev/null) && [ -e "/proc/$pid/exe" ]; }

l1_console() {
  printf '%s\n' "The end of its console ($state/console):"
  tail -n 30 "$state/console" | tr -d '\r'
}

l1_initramfs() {
  key=$(cat "$here/l1-init.sh" "$here/l1.sh" | linux_key)
  initramfs=$cache/l1-$key.cpio.gz
  [ ! -e "$initramfs" ] || return 0
  work=$(mktemp -d "$cache/l1.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT TERM HUP
  linux_files "$work/files" "$here/l1-init.sh"
  linux_modules "$work/files" 9p 9pnet_virtio virtio_pci overlay >"$work/load"
  mv "$work/load" "$work/files/load"
  linux_pack "$work/files" "$initramfs"
  rm -rf "$work"
  trap - EXIT INT TERM HUP
}

start() {
  owner=$PPID
  limit=3600
  qemu=qemu-system-x86_64
  still=
  while [ $# -gt 0 ]; do
    case $1 in
      --owner) owner=$2 ;;
      --limit) limit=$2 ;;
      --qemu) qemu=$2 ;;
      --still)
        still=yes
        shift
        continue
        ;;
      *) usage ;;
    esac
    shift 2
  done
  ! l1_running || fail "one runs in $state already"
  linux_need "$qemu" setsid timeout
  linux_kernel
  l1_initramfs
  rm -rf "$state"
  mkdir -p "$state/share/jobs"
  state=$(cd "$state" && pwd -P)
  checkout=$(cd "$here/../.." && pwd -P)
  mkfifo "$state/requests.in" "$state/requests.out"
  truncate -s 16M "$state/disk"
  # What belongs to this L1 alone is added to the initramfs that all have: the kernel unpacks one
  # after the other.
  mkdir "$state/files"
  cat >"$state/files/settings" <<SETTINGS
CHECKOUT=$(quoted "$checkout")
STILL=$still
SHARE=$(quoted "$state/share")
CACHE=$(quoted "$(cd "$cache" && pwd -P)")
LINUX=$(quoted "$(cd "$linux" && pwd -P)")
SETTINGS
  linux_pack "$state/files" "$state/settings"
  cat "$initramfs" "$state/settings" >"$state/initramfs"

  # SVM and the IOMMU are emulated, so it needs no hardware of any kind.
  #
  # Three processors, of which programs get the second and the third (l1-init.sh). In QEMU's
  # emulation FLDENV, FRSTOR, FXRSTOR and XRSTOR, on any processor, clear a flag of the *first* one
  # (cpu_clear_ignne), and not atomically. In the same word are the flags of SVM: if the first one
  # enters or leaves a guest at that moment, its change is undone. Then an interrupt comes between
  # VMEXIT and VMLOAD, and L1 crashes, or L2 does.
  set -- "$qemu" -name l1 -nodefaults -display none -no-reboot \
    -machine q35,kernel-irqchip=split -accel tcg,thread=multi -cpu max -smp 3 -m 4096 \
    -device intel-iommu,intremap=on,caching-mode=on \
    -kernel "$linux/vmlinuz" -initrd "$state/initramfs" \
    -append 'console=ttyS0 loglevel=4 panic=-1 mitigations=off intel_iommu=on iommu=pt' \
    -chardev "file,id=console,path=$(escaped "$state/console")" -serial chardev:console \
    -chardev "pipe,id=requests,path=$(escaped "$state/requests")" -serial chardev:requests \
    -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
    -virtfs "local,path=$(escaped "$checkout"),mount_tag=checkout,security_model=none,readonly=on,multidevs=remap" \
    -virtfs "local,path=$(escaped "$state/share"),mount_tag=share,security_model=none" \
    -device VGA,addr=0xf \
    -netdev user,id=passed -device e1000e,netdev=passed,addr=0x10 \
    -netdev user,id=route -device virtio-net-pci,netdev=route,addr=0x11,romfile= \
    -drive "if=none,id=disk,format=raw,file=$(escaped "$state/disk")" \
    -device nvme,drive=disk,serial=l1,addr=0x12 \
    -device pcie-pci-bridge,id=shared,addr=0x13 \
    -netdev user,id=other -device e1000,netdev=other,bus=shared,addr=0x1,romfile= -device edu,bus=shared,addr=0x2
  # What outlives this script must hold no file of the caller open, who may wait for its end.
  exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
  began=$(date +%s)
  # In a session of its own, so that a Ctrl-C at a command's terminal is the command's alone.
  setsid timeout -k 5 "$limit" "$@" </dev/null >"$state/qemu.out" 2>&1 &
  echo $! >"$state/pid"
  setsid sh -c 'while [ -e "/proc/$1/exe" ]; do [ -e "/proc/$2" ] || kill "$1"; sleep 1; done' \
    sh "$(cat "$state/pid")" "$owner" </dev/null >/dev/null 2>&1 &

  until [ -e "$state/share/up" ]; do
    l1_running || fail "L1 did not boot: $(cat "$state/qemu.out")
$(l1_console)"
    [ $(($(date +%s) - began)) -lt $BOOT_LIMIT_S ] || {
      kill "$pid"
      fail "L1 was not up after $BOOT_LIMIT_S seconds.
$(l1_console)"
    }
    sleep 0.1
  done
  printf 'L1 is up after %s seconds: %s\n' "$(($(date +%s) - began))" "$state"
}

# A word of shell that stands for this argument.
quoted() { printf '%s\n' "$1" | sed "s/'/'\\\\''/g; 1s/^/'/; \$s/\$/'/"; }

# A value in QEMU's options: its commas are doubled.
escaped() { printf '%s\n' "$1" | sed 's/,/,,/g'; }

# request WORD...: opened for reading, too, the pipe cannot make us wait for a QEMU that is gone.
request() { printf '%s\n' "$*" 1<>"$state/requests.in" >&1; }

# pour FILE FROM: prints a growing file from a byte on, and sets $poured to where it goes on.
pour() {
  poured=$(wc -c <"$1" 2>/dev/null || echo 0)
  [ "$poured" -le "$2" ] || tail -c "+$(($2 + 1))" "$1" | head -c $((poured - $2))
}

run() {
  timeout=
  if [ "${1-}" = --timeout ]; then
    timeout=$2
    shift 2
  fi
  [ $# -gt 0 ] || usage
  state=$(cd "$state" 2>/dev/null && pwd -P) && l1_running || {
    say "no L1 runs in $state"
    exit 125
  }
  # mkdir is what makes a number ours alone.
  number=1
  until mkdir "$state/share/jobs/$number" 2>/dev/null; do number=$((number + 1)); done
  job=$state/share/jobs/$number
  : >"$job/stdout"
  : >"$job/stderr"
  {
    for name in PATH HOME LANG XDG_CACHE_HOME; do
      eval "[ -z \"\${$name+set}\" ] || printf 'export %s=%s\n' $name \"\$(quoted \"\$$name\")\""
    done
    printf 'cd %s && exec' "$(quoted "$(cd "$here/../.." && pwd -P)")"
    for word in "$@"; do printf ' %s' "$(quoted "$word")"; done
    echo
  } >"$job/script"

  for signal in INT TERM HUP; do trap "request kill $number $signal" $signal; done
  request run "$number"
  out=0
  err=0
  began=$(date +%s)
  late=
  while :; do
    # Looked for first: what was written before it is then there.
    status=$(cat "$job/status" 2>/dev/null) || status=
    pour "$job/stdout" $out
    out=$poured
    pour "$job/stderr" $err >&2
    err=$poured
    [ -z "$status" ] || break
    l1_running || {
      say "L1 ended meanwhile: $(cat "$state/qemu.out")
$(l1_console)"
      exit 125
    }
    if [ -n "$timeout" ] && [ -z "$late" ] && [ $(($(date +%s) - began)) -ge "$timeout" ]; then
      late=yes
      request kill "$number" KILL
    fi
    sleep 0.1
  done
  [ -z "$late" ] || {
    say "killed after $timeout seconds: $*"
    exit 124
  }
  exit "$status"
}

stop() {
  state=$(cd "$state" 2>/dev/null && pwd -P) || return 0
  l1_running || return 0
  kill "$pid"
  while l1_running; do sleep 0.1; done
}

[ $# -ge 2 ] || usage
command=$1
state=$2
shift 2
case $command in
  start | run | stop) "$command" "$@" ;;
  *) usage ;;
esac
