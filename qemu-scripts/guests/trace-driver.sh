# Sourced by the first process of a Linux guest: the kernel's own mmiotrace over one driver, from
# insmod to rmmod. Give the guest one processor, since mmiotrace takes the others offline.
# shellcheck shell=sh

# wait_for COMMAND…: gives a driver that probes in the background 20 seconds.
wait_for() {
  tries=0
  until "$@" >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 200 ] || { echo "gave up waiting: $*"; return 1; }
    usleep 100000
  done
}

# load_modules: those whose paths are on stdin. Some are for processors that this one is not, and
# refuse. Of one that is truly missed the next one's insmod will speak.
load_modules() { while read -r module; do insmod "$module" 2>/dev/null; done; }

# trace_driver [MODULE USE]...: traces drivers, one after the other, into /trace: that at the path
# MODULE, which the script USE makes work.
trace_driver() {
  cd /sys/kernel/tracing || poweroff -f
  echo 65536 >buffer_size_kb
  echo mmiotrace >current_tracer
  cat trace_pipe >/trace &
  reader=$!
  sleep 1 # the header comes when the reader opens the pipe, and has to come first

  while [ $# -ge 2 ]; do
    insmod "$1"
    . "$2"
    # Files are named with dashes or underscores as their authors pleased; the kernel knows underscores.
    rmmod "$(basename "${1%.ko}" | tr - _)"
    shift 2
  done

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
}
