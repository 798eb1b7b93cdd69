#!/bin/sh
# Gives PCI devices to vfio-pci without Node, as `mmiobridge bind` does: for early boot, before a
# driver of the host has them. `mmiobridge unbind`, or -u here, gives them back.
#
#   qemu-scripts/vfio-bind.sh [-u] ADDRESS…      0000:01:00.0 or 01:00.0
#
# It does not ask what the host uses a device for: name none that the host needs.
#
# From systemd, before udev loads drivers; a graphics card is best taken from the initramfs.
# /etc/systemd/system/vfio-bind.service:
#
#   [Unit]
#   DefaultDependencies=no
#   RequiresMountsFor=/usr/local
#   Before=systemd-udev-trigger.service
#   [Service]
#   Type=oneshot
#   ExecStart=/usr/local/sbin/vfio-bind.sh 01:00.0 01:00.1
#   [Install]
#   WantedBy=sysinit.target
#
# From the initramfs of Debian and Ubuntu: two executable files, then `update-initramfs -u`. The
# second has a name that comes before `udev`, which loads the drivers.
#
#   /etc/initramfs-tools/hooks/vfio-bind
#     #!/bin/sh
#     [ "$1" != prereqs ] || exit 0
#     . /usr/share/initramfs-tools/hook-functions
#     manual_add_modules vfio_pci
#     copy_file script /usr/local/sbin/vfio-bind.sh /bin/vfio-bind.sh
#
#   /etc/initramfs-tools/scripts/init-top/a-vfio-bind
#     #!/bin/sh
#     [ "$1" != prereqs ] || exit 0
#     sh /bin/vfio-bind.sh 01:00.0 01:00.1
#
# Needs a kernel with the IOMMU on. What each device was is kept in /run/mmiobridge/drivers, which
# the initramfs hands on to the host.
set -eu

pci=/sys/bus/pci
records=/run/mmiobridge/drivers

say() { printf 'vfio-bind: %s\n' "$*" >&2; }

driver_of() {
  # Not basename: busybox in an initramfs may come without.
  driver=$(readlink "$pci/devices/$1/driver") || return 0
  printf '%s' "${driver##*/}"
}

override_of() {
  override=$(cat "$pci/devices/$1/driver_override")
  [ "$override" = '(null)' ] || printf '%s' "$override"
}

recorded() {
  [ -e "$records/$1" ] || return 0
  while IFS='=' read -r key value; do
    [ "$key" != "$2" ] || printf '%s' "$value"
  done <"$records/$1"
}

take() {
  driver=$(driver_of "$1")
  case $driver in
    *vfio-pci | *vfio_pci)
      say "$1 is bound to $driver already"
      return
      ;;
  esac
  unsafe=$(cat /sys/module/vfio/parameters/enable_unsafe_noiommu_mode 2>/dev/null || :)
  if [ ! -e "$pci/devices/$1/iommu_group" ] && [ "$unsafe" != Y ]; then
    say "$1 is in no IOMMU group: switch VT-d or AMD-Vi on, and boot with intel_iommu=on (Intel)"
    return 1
  fi
  [ -e "$pci/drivers/vfio-pci" ] || modprobe vfio-pci || return 1
  # What an earlier attempt that was cut off knew, and we cannot see any more, stays.
  was=${driver:-$(recorded "$1" driver)}
  override=$(override_of "$1")
  [ "$override" != vfio-pci ] || override=$(recorded "$1" driver_override)
  mkdir -p "$records"
  printf 'driver=%s\ndriver_override=%s\n' "$was" "$override" >"$records/$1.new"
  mv "$records/$1.new" "$records/$1"
  echo vfio-pci >"$pci/devices/$1/driver_override" || return 1
  [ -z "$driver" ] || echo "$1" >"$pci/devices/$1/driver/unbind" || return 1
  echo "$1" >"$pci/drivers_probe" || return 1
  now=$(driver_of "$1")
  if [ "$now" != vfio-pci ]; then
    say "vfio-pci does not take $1, see dmesg"
    give_back "$1"
    return 1
  fi
  say "$1: ${driver:-no driver} -> vfio-pci"
}

give_back() {
  driver=$(driver_of "$1")
  held=
  case $driver in *vfio-pci | *vfio_pci) held=yes ;; esac
  override=$(override_of "$1")
  if [ -z "$held" ] && [ ! -e "$records/$1" ] && [ "$override" != vfio-pci ]; then
    say "$1 is not bound to vfio-pci; its driver: ${driver:-none}"
    return
  fi
  was=$(recorded "$1" driver)
  before=$(recorded "$1" driver_override)
  echo "$before" >"$pci/devices/$1/driver_override" || return 1
  [ -z "$held" ] || echo "$1" >"$pci/devices/$1/driver/unbind" || return 1
  if [ -n "$held" ] || [ -z "$driver" ]; then
    if [ -n "$was" ] && [ -e "$pci/drivers/$was/bind" ]; then
      echo "$1" >"$pci/drivers/$was/bind" || return 1
    else
      [ -z "$was" ] || modprobe "$(cat "$pci/devices/$1/modalias")" || return 1
      echo "$1" >"$pci/drivers_probe" || return 1
    fi
  fi
  now=$(driver_of "$1")
  if [ -n "$was" ] && [ -z "$now" ]; then
    say "$was does not take $1 back, see dmesg"
    return 1
  fi
  rm -f "$records/$1"
  say "$1: its driver is ${now:-none}"
}

undo=
if [ "${1-}" = -u ]; then
  undo=yes
  shift
fi
case "${1-}" in
  '' | -*)
    echo 'usage: vfio-bind.sh [-u] ADDRESS…' >&2
    exit 2
    ;;
esac
status=0
for address; do
  case $address in *:*:*) ;; *) address=0000:$address ;; esac
  if [ ! -e "$pci/devices/$address/vendor" ]; then
    say "there is no PCI device $address"
    status=1
    continue
  fi
  # One that cannot be had must not keep the others from being taken.
  if [ -n "$undo" ]; then give_back "$address"; else take "$address"; fi || status=1
done
exit $status
