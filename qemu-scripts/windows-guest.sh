#!/bin/sh
# A Windows 10 or 11 guest with a passed-through PCI device, ready to be recorded. Every choice is
# explained where it is made; docs/passthrough.md tells the whole way.
#
#   install:  windows-guest.sh --disk win.qcow2 --iso Win11.iso
#   record:   windows-guest.sh --disk win.qcow2 --device 0000:01:00.0 -- -o trace.mmiocap
#   look:     the same with --print
#
# Words behind -- are options of "mmiobridge record", which then starts QEMU; without -- QEMU is
# started alone. Exit status: that of mmiobridge or QEMU; 1 something is missing; 2 usage.
set -eu

usage() {
  cat <<'USAGE'
usage: windows-guest.sh --disk FILE [OPTIONS] [-- OPTIONS OF mmiobridge record]

  --disk FILE          the guest's disk, qcow2 or raw
  --iso FILE           Windows' installation medium
  --virtio-iso FILE    virtio-win drivers; the disk and the network are virtio then, else AHCI and e1000e
  --device ADDR[,OPT]  pass this host device through, with more options of vfio-pci; repeatable
  --memory SIZE        the guest's memory (8G)
  --cpus N             its CPUs (4)
  --state DIR          its UEFI variables, TPM and QMP socket (DISK.state)
  --display WHAT       as QEMU's -display (vnc=127.0.0.1:0, which is port 5900)
  --no-net             no network card
  --no-tpm             no TPM: Windows 10 does without
  --no-secure-boot     firmware without Secure Boot: for test-signed drivers
  --hide-kvm           do not say that this is KVM: old GeForce drivers
  --no-avx             a CPU without AVX: for "KVM internal error. Suberror: 1"
  --ovmf-code FILE     UEFI firmware, where this script does not find it
  --ovmf-vars FILE     the template of its variables
  --qemu PROGRAM       (qemu-system-x86_64)
  --qemu-arg WORD      one more word for QEMU's command line; repeatable
  --tcg                without KVM: only to try this script, Windows takes for ever
  --print              print the commands, and do nothing
USAGE
}

fail() {
  printf 'windows-guest: %s\n' "$*" >&2
  exit 1
}
wrong() {
  printf 'windows-guest: %s\n' "$*" >&2
  echo 'hint: windows-guest.sh --help' >&2
  exit 2
}

# The separator of lists: no word may hold it.
newline='
'

disk='' iso='' virtio_iso='' devices='' memory=8G cpus=4 state='' display=vnc=127.0.0.1:0
network=yes tpm=yes secure_boot=yes hide_kvm=no avx=yes ovmf_code='' ovmf_vars=''
qemu=qemu-system-x86_64 qemu_args='' accel=kvm print=no record=no

while [ $# -gt 0 ]; do
  option=$1
  shift
  case $option in
    --*=*)
      set -- "${option#*=}" "$@"
      option=${option%%=*}
      ;;
  esac
  case $option in
    --disk | --iso | --virtio-iso | --device | --memory | --cpus | --state | --display | \
      --ovmf-code | --ovmf-vars | --qemu | --qemu-arg)
      [ $# -gt 0 ] || wrong "$option lacks its value"
      value=$1
      shift
      case $value in
        '') wrong "$option lacks its value" ;;
        --*) [ "$option" = --qemu-arg ] || wrong "$option lacks its value: $value is an option" ;;
        *"$newline"*) wrong "$option: a value cannot hold a line break" ;;
      esac
      ;;
  esac
  case $option in
    --disk) disk=$value ;;
    --iso) iso=$value ;;
    --virtio-iso) virtio_iso=$value ;;
    --device) devices=$devices$value$newline ;;
    --memory) memory=$value ;;
    --cpus) cpus=$value ;;
    --state) state=$value ;;
    --display) display=$value ;;
    --ovmf-code) ovmf_code=$value ;;
    --ovmf-vars) ovmf_vars=$value ;;
    --qemu) qemu=$value ;;
    --qemu-arg) qemu_args=$qemu_args$value$newline ;;
    --no-net) network=no ;;
    --no-tpm) tpm=no ;;
    --no-secure-boot) secure_boot=no ;;
    --hide-kvm) hide_kvm=yes ;;
    --no-avx) avx=no ;;
    --tcg) accel=tcg ;;
    --print) print=yes ;;
    -h | --help)
      usage
      exit
      ;;
    --)
      record=yes
      break
      ;;
    *) wrong "there is no option $option" ;;
  esac
done

[ -n "$disk" ] || wrong 'name the disk of the guest with --disk FILE'
[ -n "$state" ] || state=$disk.state
# swtpm goes to / when it becomes a daemon.
case $state in /*) ;; *) state=$PWD/$state ;; esac
case $state in
  *,*) wrong "swtpm takes no folder with a comma: $state; name another one with --state" ;;
esac
case $cpus in
  '' | *[!0-9]*) wrong "--cpus takes a number, not $cpus" ;;
esac
case $memory in
  *[0-9][MGmg]) ;;
  *) wrong "--memory takes a size such as 8G or 4096M, not $memory" ;;
esac

# In QEMU's option values a comma is written twice.
escaped() { printf '%s\n' "$1" | sed 's/,/,,/g'; }

# --- What must be there ----------------------------------------------------------------------

# With --print nothing is made and nothing need be there: the line may be for another machine.
need_file() {
  [ "$print" = yes ] || [ -r "$1" ] || fail "cannot read $2 $1
$3"
}

need_file "$disk" 'the disk' \
  "hint: make one with: qemu-img create -f qcow2 '$disk' 64G   (Debian: apt install qemu-utils)"
[ -z "$iso" ] || need_file "$iso" 'the installation medium' 'hint: Microsoft offers it as a download'
[ -z "$virtio_iso" ] || need_file "$virtio_iso" 'the drivers' \
  'hint: virtio-win.iso of the virtio-win project; without it leave --virtio-iso out'

if [ "$accel" = kvm ] && [ "$print" = no ]; then
  [ -e /dev/kvm ] || fail 'there is no /dev/kvm
hint: switch virtualization on in the firmware (VT-x, SVM) and load kvm_intel or kvm_amd'
  [ -w /dev/kvm ] || fail 'not allowed to use /dev/kvm
hint: run as root, or join the group kvm'
fi

# UEFI: Windows 11 asks for it, and a GPU's option ROM of today knows nothing else. The code is
# shared and read-only; each guest has its own copy of the variables. Secure Boot needs code that
# was built for it, and variables that hold Microsoft's keys
# (Arch's hold none: enrol them in the firmware's own menu).
if [ -z "$ovmf_code" ]; then
  # Debian and Ubuntu; Fedora and RHEL; Arch.
  if [ $secure_boot = yes ]; then
    pairs='/usr/share/OVMF/OVMF_CODE_4M.secboot.fd /usr/share/OVMF/OVMF_VARS_4M.ms.fd
/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd /usr/share/edk2/ovmf/OVMF_VARS.secboot.fd
/usr/share/edk2/x64/OVMF_CODE.secboot.4m.fd /usr/share/edk2/x64/OVMF_VARS.4m.fd'
  else
    pairs='/usr/share/OVMF/OVMF_CODE_4M.fd /usr/share/OVMF/OVMF_VARS_4M.fd
/usr/share/edk2/ovmf/OVMF_CODE.fd /usr/share/edk2/ovmf/OVMF_VARS.fd
/usr/share/edk2/x64/OVMF_CODE.4m.fd /usr/share/edk2/x64/OVMF_VARS.4m.fd'
  fi
  found=$(printf '%s\n' "$pairs" | while read -r code vars; do
    if [ -r "$code" ] && [ -r "$vars" ]; then
      printf '%s %s\n' "$code" "$vars"
      break
    fi
  done)
  if [ -z "$found" ]; then
    [ "$print" = yes ] || fail "there is no UEFI firmware (OVMF) for the guest
hint: Debian and Ubuntu: apt install ovmf; Fedora: dnf install edk2-ovmf; Arch: pacman -S edk2-ovmf;
      or name it with --ovmf-code and --ovmf-vars"
    found=$(printf '%s\n' "$pairs" | head -n 1)
  fi
  ovmf_code=${found%% *}
  [ -n "$ovmf_vars" ] || ovmf_vars=${found#* }
fi
[ -n "$ovmf_vars" ] || wrong '--ovmf-code needs --ovmf-vars, the variables that belong to it'
need_file "$ovmf_code" 'the firmware' 'hint: --ovmf-code names it'
need_file "$ovmf_vars" "the firmware's variables" 'hint: --ovmf-vars names them'

if [ $secure_boot = yes ]; then vars=$state/vars-secure-boot.fd; else vars=$state/vars.fd; fi
qmp=$state/qmp.sock
tpm_socket=$state/tpm.sock
for socket in "$qmp" "$tpm_socket"; do
  [ "$(printf %s "$socket" | wc -c)" -le 107 ] ||
    fail "the path of a socket is longer than 107 bytes: $socket
hint: name a shorter folder with --state"
done

[ $tpm = no ] || [ "$print" = yes ] || command -v swtpm >/dev/null || fail 'there is no swtpm
hint: Debian and Ubuntu: apt install swtpm; Windows 10 does without: --no-tpm'

# --- The command line ------------------------------------------------------------------------

if [ $record = yes ]; then
  # In a checkout and in the installed package the program lies beside this folder.
  main=$(cd "$(dirname "$0")/.." && pwd)/dist/cli/main.js
  if [ -e "$main" ]; then
    set -- node "$main" record "$@" -- "$qemu"
  elif [ "$print" = yes ] || command -v mmiobridge >/dev/null; then
    set -- mmiobridge record "$@" -- "$qemu"
  else
    fail 'mmiobridge is not built
hint: npm run build'
  fi
else
  set -- "$qemu"
fi

# Nothing but what stands here: no floppy, no second network card, no settings of /etc.
set -- "$@" -name "$(escaped "$(basename "$disk")")" -nodefaults -no-user-config

# q35 has PCI Express, which drivers of PCI Express cards look for. smm=on keeps the Secure Boot
# variables from the guest's hands. vmport is VMware's, and confuses drivers that look for VMware.
machine=q35,accel=$accel,vmport=off,memory-backend=ram
[ $secure_boot = no ] || machine=$machine,smm=on
set -- "$@" -machine "$machine"

# All memory at the start. VFIO locks it all anyway, since the device may write anywhere: so a host
# with too little of it says so now, and no page fault of the host disturbs the times in the log.
set -- "$@" -m "$memory" -object "memory-backend-ram,id=ram,size=$memory,prealloc=on"

# One socket: client editions of Windows use no more than one or two.
set -- "$@" -smp "$cpus,sockets=1,cores=$cpus,threads=1"

if [ $accel = kvm ]; then
  # The host's own model: drivers choose their ways by it, and no other is as fast.
  cpu=host,migratable=off
  # Hyper-V enlightenments: what Windows knows to ask a hypervisor for. Clock and timers without
  # exits are the ones that matter beside a traced device, which costs exits enough.
  #   relaxed          no watchdog bug check when the guest stood still for a while
  #   vapic            end of interrupt without an exit
  #   spinlocks        says to the hypervisor that it waits, after so many tries
  #   vpindex, synic   what the next ones need
  #   time, stimer     clock and timers without the HPET's exits; frequencies spares measuring
  #   runtime          time stolen by the host
  #   tlbflush, ipi    to other CPUs in one exit
  cpu=$cpu,hv-relaxed=on,hv-vapic=on,hv-spinlocks=0x1fff,hv-vpindex=on,hv-synic=on,hv-time=on
  cpu=$cpu,hv-stimer=on,hv-frequencies=on,hv-runtime=on,hv-tlbflush=on,hv-ipi=on
else
  cpu=max
fi
# GeForce drivers before 465 refuse to run (code 43) where they find a hypervisor that they know.
[ $hide_kvm = no ] || cpu=$cpu,kvm=off,hv-vendor-id=mmiobridge
# A driver that asks the CPU then moves with instructions which KVM can do on trapped memory.
[ $avx = yes ] ||
  cpu=$cpu,avx=off,avx2=off,fma=off,f16c=off,vaes=off,vpclmulqdq=off,avx-vnni=off,avx512f=off
set -- "$@" -cpu "$cpu"

# Windows keeps the clock in local time. Lost timer ticks are made up for slowly.
set -- "$@" -rtc base=localtime,driftfix=slew
[ $accel = tcg ] || set -- "$@" -global kvm-pit.lost_tick_policy=delay

set -- "$@" \
  -drive "if=pflash,unit=0,format=raw,readonly=on,file=$(escaped "$ovmf_code")" \
  -drive "if=pflash,unit=1,format=raw,file=$(escaped "$vars")"
if [ $secure_boot = yes ]; then
  # Only SMM code may write the variables; and S3 would open a way around that.
  set -- "$@" -global driver=cfi.pflash01,property=secure,value=on -global ICH9-LPC.disable_s3=1
fi

[ $tpm = no ] || set -- "$@" -chardev "socket,id=tpm,path=$tpm_socket" \
  -tpmdev emulator,id=tpm0,chardev=tpm -device tpm-crb,tpmdev=tpm0

# QEMU is told the format: one that guesses can be fooled by what the guest writes.
format=raw
if [ -r "$disk" ]; then
  [ "$(head -c 3 "$disk" | tr -d '\000')" != QFI ] || format=qcow2
else
  case $disk in *.qcow2) format=qcow2 ;; esac
fi
set -- "$@" -drive "if=none,id=disk,format=$format,discard=unmap,file=$(escaped "$disk")"
if [ -n "$virtio_iso" ]; then
  # The installer must be given the driver from the second CD ("Load driver", viostor).
  set -- "$@" -device virtio-blk-pci,drive=disk,bootindex=2
else
  # AHCI and e1000e: Windows brings drivers for both.
  set -- "$@" -device ide-hd,drive=disk,bus=ide.0,bootindex=2
fi
[ -z "$iso" ] || set -- "$@" \
  -drive "if=none,id=install,media=cdrom,format=raw,readonly=on,file=$(escaped "$iso")" \
  -device ide-cd,drive=install,bus=ide.1,bootindex=1
[ -z "$virtio_iso" ] || set -- "$@" \
  -drive "if=none,id=drivers,media=cdrom,format=raw,readonly=on,file=$(escaped "$virtio_iso")" \
  -device ide-cd,drive=drivers,bus=ide.2

# Behind QEMU's own NAT: no root, no bridge. For a recording --no-net is quieter: a Windows that is
# online may change the driver under you.
if [ $network = yes ]; then
  card=e1000e
  [ -z "$virtio_iso" ] || card=virtio-net-pci
  set -- "$@" -netdev user,id=net -device "$card,netdev=net,id=nic"
fi

# A tablet: the pointer is where you put it, over VNC too. A screen that Windows has a driver for,
# beside a GPU that may be passed through.
set -- "$@" -device qemu-xhci,id=usb -device usb-kbd,bus=usb.0 -device usb-tablet,bus=usb.0 \
  -device VGA -display "$display"

# For you: "mmiobridge record --qmp" attaches here. A recording that starts QEMU adds its own.
set -- "$@" -qmp "unix:$qmp,server=on,wait=off"

# address_of ADDR[,OPTIONS]: with the domain, without the options.
address_of() {
  case ${1%%,*} in
    ????:??:??.[0-7]) printf '%s\n' "${1%%,*}" ;;
    ??:??.[0-7]) printf '0000:%s\n' "${1%%,*}" ;;
    *) return 1 ;;
  esac
}

set -f
IFS=$newline
addresses=' '
for device in $devices; do
  address=$(address_of "$device") ||
    wrong "--device takes a host address such as 0000:01:00.0 (lspci -D lists them), not $device"
  addresses="$addresses$address "
  [ "$print" = no ] || continue
  [ -e "/sys/bus/pci/devices/$address" ] || fail "there is no PCI device at $address
hint: lspci -D lists them"
  driver=$(readlink "/sys/bus/pci/devices/$address/driver" || :)
  [ "${driver##*/}" = vfio-pci ] ||
    fail "$address is not bound to vfio-pci${driver:+, but to ${driver##*/}}
hint: mmiobridge bind $address"
done

# Each card behind a root port of its own, as on a board: drivers look at the link above them. The
# functions of one card stay together if the first of them is passed through.
number=0
ports=' '
for device in $devices; do
  address=$(address_of "$device")
  case $device in
    *,*) options=,${device#*,} ;;
    *) options='' ;;
  esac
  card=$address
  function=0
  case "$addresses" in
    *" ${address%.*}.0 "*)
      card=${address%.*}
      function=${address##*.}
      ;;
  esac
  port=port-$(printf %s "$card" | tr : -)
  case "$ports" in
    *" $port "*) ;;
    *)
      chassis=$(($(printf %s "$ports" | wc -w) + 1))
      set -- "$@" -device "pcie-root-port,id=$port,chassis=$chassis"
      ports="$ports$port "
      ;;
  esac
  # "mmiobridge record" adds what makes every access visible (x-no-mmap=on and the like).
  set -- "$@" -device \
    "vfio-pci,host=$address,id=vfio$number,bus=$port,addr=0.$function,multifunction=on$options"
  number=$((number + 1))
done

for word in $qemu_args; do
  set -- "$@" "$word"
done
unset IFS
set +f

# --- Go --------------------------------------------------------------------------------------

# one_line WORD...: a command for a shell.
one_line() {
  separator=''
  for word in "$@"; do
    printf '%s%s' "$separator" "$(quote "$word")"
    separator=' '
  done
  echo
}
# many_lines WORD...: the same, with a line for each option and for the program behind --.
many_lines() {
  separator=''
  for word in "$@"; do
    case $word in
      -?*) [ "$word" = -- ] || separator=" \\$newline  " ;;
    esac
    printf '%s%s' "$separator" "$(quote "$word")"
    separator=' '
    [ "$word" != -- ] || separator=" \\$newline  "
  done
  echo
}
quote() {
  case $1 in
    '' | *[!A-Za-z0-9_./:=,@%+-]*) printf "'%s'" "$(printf '%s\n' "$1" | sed "s/'/'\\\\''/g")" ;;
    *) printf %s "$1" ;;
  esac
}

if [ "$print" = yes ]; then
  one_line mkdir -p "$state/tpm"
  one_line cp -n "$ovmf_vars" "$vars"
  [ $tpm = no ] ||
    one_line swtpm socket --tpm2 --tpmstate "dir=$state/tpm" --ctrl "type=unixio,path=$tpm_socket" \
      --daemon --terminate
  many_lines "$@"
  exit
fi

mkdir -p "$state/tpm"
[ -e "$vars" ] || cp "$ovmf_vars" "$vars"
# The package's file may be read-only, and so would be its copy.
chmod u+w "$vars"
if [ $tpm = yes ]; then
  # It ends when QEMU lets go of its socket.
  said=$(swtpm socket --tpm2 --tpmstate "dir=$state/tpm" --ctrl "type=unixio,path=$tpm_socket" \
    --daemon --terminate 2>&1) || fail "swtpm did not start: $said
hint: this guest may run already; or a swtpm was left behind by one that did not start:
      fuser -k '$tpm_socket' ends it (Debian: psmisc)"
fi
exec "$@"
