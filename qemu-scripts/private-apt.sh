# Sourced by the scripts that take files from Debian's archive without installing them.
#
# An apt with a root of its own: it knows no installed package, so it resolves a program with
# every library down to libc, it needs no root, and the system's package lists and settings stay
# as they are. The mirror is the one that the machine's own apt uses, so proxies and mirrors of a
# company's network work without a word here.
# shellcheck shell=sh

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
fail() {
  say "$*"
  exit 1
}

# Prints the address of the Debian archive (not the one of security updates) that apt uses here.
debian_mirror() {
  apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
    awk '$1 == "Debian" && $2 == "Debian" { print $NF; exit }' | grep . ||
    # Before the first "apt-get update" it knows of no target, only what an update would get.
    apt-get update --print-uris 2>/dev/null |
    sed -n "s|^'\(.*/\)dists/$(. /etc/os-release && echo "${VERSION_CODENAME-}")/InRelease'.*|\1|p" |
    head -n 1 | grep . ||
    fail "found no Debian archive among what apt uses here (apt-get indextargets)"
}

# private_apt_setup DIR SUITE...: makes an apt root in DIR, an absolute path, and gets its lists.
private_apt_setup() {
  apt_root=$1
  shift
  mkdir -p "$apt_root/lists/partial" "$apt_root/archives/partial" "$apt_root/parts"
  : >"$apt_root/status"
  # Read after the machine's own settings, of which proxies and credentials stay in force; its
  # hooks do not, for they care for the system. As root, apt would drop to a user of its own, who
  # may not enter root's home directory.
  cat >"$apt_root/apt.conf" <<CONFIG
#clear APT::Update;
#clear DPkg;
#clear APT::Architectures;
#clear APT::Default-Release;
Dir::State "$apt_root";
Dir::State::lists "$apt_root/lists";
Dir::State::status "$apt_root/status";
Dir::Cache "$apt_root";
Dir::Cache::archives "$apt_root/archives";
Dir::Etc::sourcelist "$apt_root/sources.list";
Dir::Etc::sourceparts "$apt_root/parts";
Dir::Etc::preferences "$apt_root/preferences";
Dir::Etc::preferencesparts "$apt_root/parts";
Dir::Log "$apt_root";
APT::Architecture "amd64";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
APT::Keep-Downloaded-Packages "true";
Acquire::Languages "none";
Acquire::Retries "3";
pkgCacheGen::Essential "none";
CONFIG
  mirror=$(debian_mirror)
  keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  option=
  # Without the keyring's package the trusted keys of the machine's apt have to do.
  [ ! -e "$keyring" ] || option=" signed-by=$keyring"
  for suite in "$@"; do
    printf 'deb [arch=amd64%s] %s %s main\n' "$option" "$mirror" "$suite"
  done >"$apt_root/sources.list"
  say "getting the package lists of $*"
  # apt calls a list that it could not get a warning, and goes on with what it has.
  private_apt apt-get update -q -o APT::Update::Error-Mode=any >"$apt_root/log" 2>&1 ||
    fail "apt-get update failed:
$(tail -n 5 "$apt_root/log")"
}

# private_apt COMMAND ARG...: an apt command over the root that private_apt_setup made.
private_apt() {
  apt_command=$1
  shift
  "$apt_command" -c "$apt_root/apt.conf" "$@"
}

# private_apt_download ARG...: gets the .deb files of what "install" would install, with all that
# they depend on, into "$apt_root/archives".
private_apt_download() {
  private_apt apt-get install -y -q --download-only "$@" >>"$apt_root/log" 2>&1 ||
    fail "apt-get could not download $*:
$(tail -n 5 "$apt_root/log")"
}
