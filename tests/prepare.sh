#!/bin/sh
# Installs what `make build`, `make deb`, `make demo`, `make test`, `make test-slow`, `make test-vm`, `make bench`, `make fuzz` and `make lint` need and
# this machine lacks, and says what it installs. For root on Debian 13 (Proxmox VE 9's base), and on Debian 12 with a Rust
# toolchain of 1.85 or newer.
#
#   sh tests/prepare.sh build|deb|demo|test|test-vm|bench|fuzz|lint
set -eu

wanted=${1:?"usage: prepare.sh build|deb|demo|test|test-vm|bench|fuzz|lint"}
oldest=1.85
packages=

# need PROGRAM PACKAGE: notes the package if the program is not there.
need() {
    command -v "$1" >/dev/null 2>&1 && return
    case " $packages " in
        *" $2 "*) ;;
        *) packages="$packages $2" ;;
    esac
}

say() {
    echo "prepare: $*" >&2
}

PATH=$PATH:/usr/sbin:/sbin:${HOME:-/root}/.cargo/bin

need cc gcc
[ -e /usr/include/stdio.h ] || need no-such-program libc6-dev
need cargo cargo
need rustc rustc
if [ "$wanted" = build ] || [ "$wanted" = deb ]; then
    :
elif [ "$wanted" = fuzz ]; then
    need c++ g++
elif [ "$wanted" = lint ]; then
    need cargo-fmt rustfmt
    need cargo-clippy rust-clippy
    need shellcheck shellcheck
elif [ "$wanted" = test-vm ]; then
    need qemu-system-x86_64 qemu-system-x86
    need debootstrap debootstrap
    need mke2fs e2fsprogs
else
    need ip iproute2
    need nft nftables
    need ethtool ethtool
    need ovs-vsctl openvswitch-switch
    need ovs-vswitchd openvswitch-switch
    need ovsdb-server openvswitch-common
    need tcpdump tcpdump
    need script bsdutils
fi
if [ "$wanted" = test ]; then
    need promtool prometheus
    need systemd-analyze systemd
    need debootstrap debootstrap
    need lintian lintian
    need man man-db
    need zsh zsh
    need fish fish
    need git git
fi
if [ "$wanted" = test ] || [ "$wanted" = test-vm ] || [ "$wanted" = deb ]; then
    # dpkg-buildpackage takes it for granted.
    dpkg-query -W -f '${db:Status-Status}' build-essential 2>/dev/null | grep -qx installed || need no-such-program build-essential
    need dpkg-buildpackage dpkg-dev
    need dh debhelper
    need apt-ftparchive apt-utils
    need gpg gnupg
    need xz xz-utils
fi
[ "$wanted" != bench ] || need hyperfine hyperfine

case " $packages " in
    *" cargo "* | *" rustc "*)
        # shellcheck source=/dev/null
        release=$(. /etc/os-release 2>/dev/null && echo "${VERSION_ID:-0}")
        if [ "${release%%.*}" -lt 13 ] 2>/dev/null; then
            say "this release's own Rust is older than $oldest; install a toolchain of $oldest or newer (https://rustup.rs), then try again"
            exit 1
        fi
        ;;
esac

# What apt would download, and how much room that takes; nothing where its lists are too old to tell. (apt asks only when
# more than these packages is needed, so "no" alone would not keep it from installing them.)
sizes() {
    # shellcheck disable=SC2086 # a list of words
    LC_ALL=C apt-get install --download-only --no-install-recommends --assume-no $packages 2>/dev/null |
        sed -n 's/^Need to get \(.*\) of archives.*/\1 to download/p; s/^After this operation, \(.*\) of additional.*/\1 of disk/p' |
        paste -s -d, - | sed 's/,/, /'
}

list_installed() {
    dpkg-query -W -f '${db:Status-Status} ${binary:Package}\n' | sed -n 's/^installed //p'
}

# The units that a package brings and that can be enabled.
list_units() {
    dpkg-query -L "$1" | sed -n 's|^.*/systemd/system/\([^/@]*\.[a-z]*\)$|\1|p' | grep -E '\.(service|socket|timer|path)$'
}

# Tests and demo start daemons of their own: what the packages bring stays off, now and at the next boot. What was
# installed before is left alone.
leave_no_service_behind() {
    off=
    for package in $(list_installed | grep -vxF "$installed"); do
        # Without its own units nothing boots.
        [ "$(dpkg-query -W -f '${source:Package}' "$package")" != systemd ] || continue
        for unit in $(list_units "$package"); do
            [ "$(systemctl is-enabled "$unit" 2>/dev/null)" = enabled ] || continue
            if systemctl disable "$unit" >/dev/null 2>&1; then
                off="$off $unit"
                [ ! -d /run/systemd/system ] || systemctl stop "$unit" >/dev/null 2>&1 || true
            else
                say "cannot switch off $unit, which $package brings: systemctl disable --now $unit"
            fi
        done
    done
    [ -z "$off" ] || say "switched off, as they came with these packages and nothing here needs them:$off"
}

finish() {
    [ -z "$policy" ] || rm -f "$policy"
    ! command -v systemctl >/dev/null 2>&1 || leave_no_service_behind
}

if [ -n "$packages" ]; then
    if [ "$(id -u)" -ne 0 ]; then
        say "these packages are missing, and only root can install them: apt-get install$packages"
        exit 1
    fi
    size=$(sizes)
    if [ -z "$size" ]; then
        say "fetching apt's lists ..."
        apt-get update -qq || true
        size=$(sizes)
    fi
    say "installing with apt-get:$packages${size:+ ($size)}; this takes a few minutes at most ..."
    installed=$(list_installed)
    policy=/usr/sbin/policy-rc.d
    [ ! -e "$policy" ] || policy=
    trap finish EXIT
    trap 'exit 1' HUP INT TERM
    if [ -n "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # a list of words
    apt-get install -qq -y --no-install-recommends $packages >/dev/null 2>&1 || {
        apt-get update -qq
        apt-get install -qq -y --no-install-recommends $packages >/dev/null
    }
    trap - EXIT HUP INT TERM
    finish
fi

version=$(rustc --version | cut -d' ' -f2)
if [ "$(printf '%s\n%s\n' "$oldest" "$version" | sort -V | head -n1)" != "$oldest" ]; then
    say "rustc is $version, and $oldest or newer is needed (https://rustup.rs)"
    exit 1
fi
if [ "$wanted" != lint ] && [ "$wanted" != build ] && [ "$wanted" != deb ] && [ "$wanted" != fuzz ] && [ "$(id -u)" -ne 0 ]; then
    say "make $wanted builds network namespaces and has to run as root"
    exit 1
fi
