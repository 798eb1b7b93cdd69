#!/bin/busybox sh
# The first process of the oracle guest (see oracle.sh): lets the kernel's own mmiotrace watch one
# driver from insmod to rmmod, and sends the trace out of the second serial port.
#
# Around it oracle.sh puts /driver/depends (paths of modules, in the order to load them),
# /driver/module (path of the driver) and /driver/use (a script that makes the driver work).
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tracefs tracefs /sys/kernel/tracing
cd /sys/kernel/tracing || poweroff -f

# For the use scripts: wait_for COMMAND… gives a driver that probes in the background 20 seconds.
wait_for() {
  tries=0
  until "$@" >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 200 ] || { echo "gave up waiting: $*"; return 1; }
    usleep 100000
  done
}

# Some are for processors that this one is not, and refuse. Of one that is truly missed the driver's
# own insmod will speak.
while read -r module; do insmod "$module" 2>/dev/null; done </driver/depends

echo 65536 >buffer_size_kb
echo mmiotrace >current_tracer
cat trace_pipe >/trace &
reader=$!
sleep 1 # the header comes when the reader opens the pipe, and has to come first

driver=$(cat /driver/module)
insmod "$driver"
. /driver/use
# Files are named with dashes or underscores as their authors pleased; the kernel knows underscores.
rmmod "$(basename "${driver%.ko}" | tr - _)"

# The reader wakes up a few times a second: the trace is whole when it has not grown for a while.
size=-1
while [ "$(wc -c </trace)" != $size ]; do
  size=$(wc -c </trace)
  sleep 1
done
# As long as the pipe is open the tracer cannot be switched off.
kill $reader
wait $reader
echo nop >current_tracer

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
