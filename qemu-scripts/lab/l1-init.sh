#!/bin/busybox sh
# The first process of L1 (see l1.sh): makes the host's file system its own, and then runs what
# l1.sh asks for.
#
# Around it l1.sh puts /load (paths of modules, in the order to load them) and /settings (CHECKOUT,
# SHARE, CACHE, LINUX: paths of the host that are the same in here; STILL: of a checkout that nobody
# edits meanwhile).
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do insmod "$module"; done </load
. /settings

say() { echo "l1: $*"; }
give_up() {
  say "$*"
  poweroff -f
}

# Nothing that happens in here reaches the host but by the share: what is written lands in memory.
mkdir -p /host /memory /root /share /checkout
plan9=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o $plan9,cache=loose,ro host /host || give_up "no root"
mount -t tmpfs -o size=50% tmpfs /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work overlay /root ||
  give_up "no overlay"
for dir in tmp run var/tmp; do
  mkdir -p /root/$dir
  mount -t tmpfs -o mode=1777 tmpfs /root/$dir
done
mount -t proc proc /root/proc
mount -t sysfs sysfs /root/sys
mount -t tracefs tracefs /root/sys/kernel/tracing
mount -t debugfs debugfs /root/sys/kernel/debug
mount -t devtmpfs devtmpfs /root/dev
mkdir -p /root/dev/pts /root/dev/shm
mount -t devpts devpts /root/dev/pts
mount -t tmpfs -o mode=1777 tmpfs /root/dev/shm
ln -s /proc/self/fd /root/dev/fd
for number in 0=stdin 1=stdout 2=stderr; do
  ln -s "/proc/self/fd/${number%=*}" "/root/dev/${number#*=}"
done

if [ -n "$STILL" ]; then
  mount --bind "/host$CHECKOUT" /checkout || give_up "no checkout"
else
  # Without a cache: what is edited on the host is what runs here.
  mount -t 9p -o $plan9,ro checkout /checkout || give_up "no checkout"
fi
mount -t 9p -o $plan9 share /share || give_up "no share"
bind() {
  mkdir -p "/root$2"
  mount --bind "$1" "/root$2" || give_up "cannot put $1 at $2"
}
bind "/host$LINUX/root/lib/modules/$(uname -r)" "/lib/modules/$(uname -r)"
bind "/host$CACHE" "$CACHE"
bind /checkout "$CHECKOUT"
bind /share "$SHARE"

# What a distribution does by itself: names, network, and drivers for what is there.
# The kernel, too, asks this root for a modprobe.
mkdir -p /sbin
printf '#!/bin/sh\nexec chroot /root modprobe "$@"\n' >/sbin/modprobe
chmod 755 /sbin/modprobe
hostname l1
chroot /root modprobe -a virtio_net e1000 e1000e nvme ext4 kvm_amd
ip link set lo up
card=$(ls /sys/bus/pci/devices/0000:00:11.0/virtio*/net)
ip address add 10.0.2.15/24 dev "$card"
ip link set "$card" up
ip route add default via 10.0.2.2
tries=0
until [ -b /dev/nvme0n1 ]; do
  tries=$((tries + 1))
  [ $tries -lt 100 ] || give_up "no disk"
  usleep 100000
done
mke2fs /dev/nvme0n1 >/dev/null
mkdir -p /root/mnt/disk
mount -t ext2 /dev/nvme0n1 /root/mnt/disk || give_up "no disk"

# Jobs: l1.sh sends "run N" and "kill N SIGNAL" over the second serial port; the rest is in
# jobs/N of the share. Each is a session of its own. env undoes that a shell lets what it starts
# in the background ignore Ctrl-C.
job() {
  cd "/share/jobs/$1" || return
  setsid chroot /root /usr/bin/env --default-signal=INT,QUIT \
    /bin/sh "$SHARE/jobs/$1/script" </dev/null >stdout 2>stderr &
  echo $! >pid
  wait $!
  echo $? >status.new
  mv status.new status
}
# Without the first processor, which no guest may run on (see l1.sh).
taskset -p 6 $$ >/dev/null || give_up "no taskset"
stty -F /dev/ttyS1 raw -echo
exec 3</dev/ttyS1
cut -d' ' -f1 /proc/uptime >/share/up
while read -r word number signal <&3; do
  case $word in
    run) job "$number" & ;;
    kill) kill -"$signal" -"$(cat "/share/jobs/$number/pid")" ;;
  esac
done
give_up "the line to l1.sh is broken"
