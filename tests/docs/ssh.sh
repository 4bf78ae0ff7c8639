#!/bin/sh
# Stands in for ssh and scp, by the name that it is called by: takes what documentation tells people to type, and fails
# on anything else.
fail() {
    echo "${0##*/} (stand-in): $*" >&2
    exit 1
}

is_node() {
    case $1 in root@[0-9]*.[0-9]*.[0-9]*.[0-9]*) ;; *) fail "$1 is no node" ;; esac
}

case ${0##*/} in
    scp)
        [ $# = 2 ] || fail "expected a file and a place"
        [ -f "$1" ] || fail "there is no $1"
        is_node "${2%%:*}"
        [ "${2#*:}" = /root/ ] || fail "unexpected place $2"
        ;;
    ssh)
        [ $# = 2 ] || fail "expected a node and a command"
        is_node "$1"
        [ "$2" = 'apt-get install -y /root/pve-span_*.deb' ] || fail "unexpected command $2"
        ;;
    *) fail "unexpected name" ;;
esac
