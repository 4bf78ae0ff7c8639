#!/bin/sh
# Stands in for systemctl where no systemd runs: takes the verbs and units that documentation may name, and fails on others.
fail() {
    echo "systemctl (stand-in): $*" >&2
    exit 1
}

verb=
units=
for word in "$@"; do
    case $word in
        --now) ;;
        -*) fail "unknown option $word" ;;
        *) if [ -z "$verb" ]; then verb=$word; else units="$units $word"; fi ;;
    esac
done
case $verb in
    daemon-reload)
        [ -z "$units" ] || fail "daemon-reload takes no unit"
        exit 0
        ;;
    start | stop | restart | reload | status | enable | disable | is-enabled | is-active | cat | show) ;;
    *) fail "unknown command $verb" ;;
esac
[ -n "$units" ] || fail "$verb: no unit named"
for unit in $units; do
    case ${unit%.service} in
        pve-span | pve-cluster | pvedaemon | openvswitch-switch | nftables | prometheus | prometheus-node-exporter) ;;
        *) fail "unknown unit $unit" ;;
    esac
done
