#!/bin/busybox sh
# The first process of the agent guest (see agent.sh): QEMU's guest agent, where the VM has a port for
# it, a shell on the first serial port, and one on the screen.
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root TERM=linux
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /tmp /run /root /dev/pts /var/run /etc
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
echo root:x:0:0:root:/root:/bin/sh >/etc/passwd

while read -r module; do insmod "$module" 2>/dev/null; done </depends
# The power button; see acpid of busybox.
mkdir -p /etc/acpi/PWRF
printf '#!/bin/sh\npoweroff -f\n' >/etc/acpi/PWRF/00000080
chmod 755 /etc/acpi/PWRF/00000080
[ ! -e /dev/input/event0 ] || acpid -l /run/acpid.log -p /run/acpid.pid
# What udev would make.
mkdir -p /dev/virtio-ports
for port in /sys/class/virtio-ports/*; do
  [ ! -e "$port/name" ] || ln -s "/dev/${port##*/}" "/dev/virtio-ports/$(cat "$port/name")"
done

if [ -e /dev/virtio-ports/org.qemu.guest_agent.0 ]; then
  # It is started again when it ends, as a service manager would.
  while :; do
    qemu-ga --method virtio-serial --path /dev/virtio-ports/org.qemu.guest_agent.0 -t /run
    sleep 1
  done 2>/run/qemu-ga.log &
fi

# busybox' own editing of lines asks the terminal where its cursor is, and takes the answer from what
# is typed: where nobody answers, from the line.
prompt() {
  while :; do
    printf '# '
    read -r line || sleep 1
    eval "$line"
  done <"$1" >"$1" 2>&1
}
[ ! -c /dev/tty1 ] || prompt /dev/tty1 &
echo 'guest is ready'
prompt /dev/ttyS0
