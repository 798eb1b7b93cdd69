#!/bin/busybox sh
# The first process of the oracle guest (see oracle.sh): lets the kernel's own mmiotrace watch
# drivers from insmod to rmmod, one after the other, and sends the trace out of the second serial port.
#
# Around it oracle.sh puts /trace-driver.sh, /depends (paths of modules, in the order to load them),
# and for each driver, by number, /driver/1/module (its path) and /driver/1/use (a script that makes
# it work).
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tracefs tracefs /sys/kernel/tracing
. /trace-driver.sh

load_modules </depends
set --
for driver in /driver/*; do set -- "$@" "$(cat "$driver/module")" "$driver/use"; done
trace_driver "$@"

# Each byte costs an exit of the guest: packed it is a tenth. Unless raw, LF gains a CR.
stty -F /dev/ttyS1 raw
{
  echo '-----BEGIN MMIOTRACE-----'
  gzip -c /trace | base64
  echo '-----END MMIOTRACE-----'
} >/dev/ttyS1
# The port has sent what was written when this returns.
stty -F /dev/ttyS1 raw
poweroff -f
