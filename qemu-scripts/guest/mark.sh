#!/bin/sh
# Puts a mark into the recording of the virtual machine that this runs in:
#
#   mark.sh TEXT...
#
# A line with the guest's clock goes to the first of these that is there: the virtio-serial port
# org.mmiobridge.mark, the device that MMIOBRIDGE_MARK_PORT names (/dev/ttyS1, say), or, for a recording
# that reads it through the guest agent, the end of the file MMIOBRIDGE_MARK_FILE.
set -eu
[ $# -gt 0 ] || {
  echo 'usage: mark.sh TEXT...' >&2
  exit 2
}

port=/dev/virtio-ports/org.mmiobridge.mark
if [ ! -e "$port" ]; then
  # Where no udev makes names.
  for known in /sys/class/virtio-ports/*; do
    [ "$(cat "$known/name" 2>/dev/null)" != org.mmiobridge.mark ] || port=/dev/${known##*/}
  done
fi
[ -e "$port" ] || port=${MMIOBRIDGE_MARK_PORT-}
[ -n "$port" ] || port=${MMIOBRIDGE_MARK_FILE-}
[ -n "$port" ] || {
  echo 'mark.sh: no virtio-serial port org.mmiobridge.mark; set MMIOBRIDGE_MARK_PORT or MMIOBRIDGE_MARK_FILE' >&2
  exit 1
}

# Seconds since 1970; busybox has no %N, and leaves it as it is.
now=$(date +%s.%N)
case "$now" in *N) now=$(date +%s) ;; esac
printf '%s %s\n' "$now" "$*" >>"$port"
