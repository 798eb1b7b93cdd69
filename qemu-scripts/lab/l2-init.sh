#!/bin/busybox sh
# The first process of L2 (see l2.sh): does the tasks that its command line names, one after the
# other, and powers off. What comes of them goes to the 9p share "out".
#
# Around it l2.sh puts /trace-driver.sh, /use (a script that makes the network card work), /load
# (paths of modules, in the order to load them), /driver (path of e1000e) and /bin/registers.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tracefs tracefs /sys/kernel/tracing
. /trace-driver.sh
load_modules </load
mkdir /out
mount -t 9p -o trans=virtio,version=9p2000.L out /out || poweroff -f

# The passed-through card is the only one with these ids.
card=$(dirname "$(grep -l 0x10d3 /sys/bus/pci/devices/*/device)")

# What e1000e says to the card, as the kernel's mmiotrace has it, and where kernel and module are.
oracle() {
  trace_driver "$(cat /driver)" /use
  cp /trace /out/trace
}

# Known values from a program.
userspace() {
  echo 1 >"$card/enable"
  {
    for access in '0x8 4' '0x5380 4 0x12345678' '0x5380 4' '0x5384 4 0xfedcba98' '0x5384 4' \
      '0x5380 8' '0x5388 8 0x1122334455667788' '0x5388 8' '0x5390 2 0xabcd' '0x5390 2' \
      '0x5394 1 0x5a' '0x5394 1'; do
      registers "$card/resource0" $access
    done
  } >/out/userspace 2>&1
}

# Two processors at once. Both offsets are in the card's multicast table, which keeps any value.
hammer() {
  echo 1 >"$card/enable"
  registers "$card/resource0" hammer 2000 0x5200 0x5300 >/out/hammer 2>&1
}

for word in $(cat /proc/cmdline); do
  case $word in
    task=*) "${word#task=}" ;;
  esac
done
poweroff -f
