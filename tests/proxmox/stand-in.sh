#!/bin/sh
# Stands in for Proxmox VE's qm, pct, pvesh and pvesm, by the name that it is called by. It takes what pve-span calls them
# with and what its documentation tells people to type, as in qm(1), pct(1), pvesh(1) and pvesm(1), and refuses everything else; it changes guests' configs below $LAB_ROOT as
# Proxmox VE does, and writes down each call.
#
# $LAB_ROOT/stand-in/fail/<program>-<guest or node>: it fails, with this text; .../hang/…: it hangs; …/lie/…: it says that
# it is done, and has done nothing; …/late/…: it does it, and hangs then; …/meddle/…: somebody else does this meanwhile.
# Other nodes' files are below $LAB_ROOT/others/<node>.
set -eu

program=${0##*/}
control=$LAB_ROOT/stand-in
pve=$LAB_ROOT/etc/pve
printf '%s %s\n' "$program" "$*" >>"$control/calls"

die() {
    code=$1
    shift
    printf '%s\n' "$@" >&2
    exit "$code"
}

usage() {
    case $program in
        pvesh) die 255 "$1" 'pvesh <COMMAND> <api_path> [ARGS] [OPTIONS]' ;;
        *) die 255 "$1" "$program set <vmid> [OPTIONS]" ;;
    esac
}

this() {
    sed -n 's/^"nodename": "\(.*\)",$/\1/p' "$pve/.members"
}

# What a test has asked for, for this guest or node.
obey() {
    [ ! -e "$control/fail/$program-$1" ] || die 2 "$(cat "$control/fail/$program-$1")"
    [ ! -e "$control/hang/$program-$1" ] || exec sleep 1000
    [ ! -e "$control/lie/$program-$1" ] || exit 0
    [ ! -e "$control/meddle/$program-$1" ] || (cd "$pve" && sh "$control/meddle/$program-$1")
}

# The value of a key of a storage: storage_key local content
storage_key() {
    awk -v id="$1" -v key="$2" '
        /^[a-z]+: / { in_it = ($2 == id) }
        in_it && $1 == key { print $2 }
    ' "$pve/storage.cfg"
}

# The root of a node's files.
root_of() {
    if [ "$1" = "$(this)" ]; then echo "$LAB_ROOT"; else echo "$LAB_ROOT/others/$1"; fi
}

# The snippets folder of a storage on a node.
snippets() {
    path=$(storage_key "$2" path)
    [ -n "$path" ] || die 2 "storage '$2' does not exist"
    echo "$(root_of "$1")$path/snippets"
}

# As PVE::GuestHelpers::check_hookscript.
check_hookscript() {
    case $2 in
        [a-z]*:snippets/*) ;;
        *) die 255 '400 Parameter verification failed.' "hookscript: invalid format - unable to parse volume ID '$2'" ;;
    esac
    file=$(snippets "$1" "${2%%:*}")/${2#*:snippets/}
    [ -f "$file" ] || die 2 "script '$2' does not exist"
    [ -x "$file" ] || die 2 "script '$2' is not executable"
}

# change <node> <folder> <vmid> [OPTIONS]
change() {
    node=$1 folder=$2 vmid=$3
    shift 3
    case $vmid in '' | *[!0-9]*) usage '400 Parameter verification failed.' ;; esac
    [ $# = 2 ] || usage '400 too few or too many arguments'
    line='' key=hookscript
    case $1 in
        --hookscript)
            check_hookscript "$node" "$2"
            line="hookscript: $2"
            ;;
        --tags | --net[0-9])
            key=${1#--}
            line="$key: $2"
            ;;
        --delete) [ "$2" = hookscript ] || usage "unknown setting '$2'" ;;
        *) usage "Unknown option: ${1#--}" ;;
    esac
    conf=$pve/nodes/$node/$folder/$vmid.conf
    [ -f "$conf" ] || die 2 "Configuration file 'nodes/$node/$folder/$vmid.conf' does not exist"
    obey "$vmid"
    awk '/^\[.+\]$/ { exit } /^#/' "$conf" >"$conf.tmp.$$"
    { awk '/^\[.+\]$/ { exit } !/^#/ && $1 != key && NF' key="$key:" "$conf"; printf '%s\n' "$line"; } |
        awk NF | LC_ALL=C sort -t: -k1,1 >>"$conf.tmp.$$"
    awk '/^\[.+\]$/ { if (!found) print ""; found = 1 } found' "$conf" >>"$conf.tmp.$$"
    mv "$conf.tmp.$$" "$conf"
    [ ! -e "$control/late/$program-$vmid" ] || exec sleep 1000
    echo "update VM $vmid: ${1#-} $2"
}

# pvesm set <storage> --content <list>
change_storage() {
    [ -n "$(storage_key "$1" path)" ] || die 2 "storage '$1' does not exist"
    if [ $# != 3 ] || [ "$2" != --content ]; then usage "Unknown option: $2"; fi
    awk -v id="$1" -v list="$3" '
        /^[a-z]+: / { in_it = ($2 == id) }
        in_it && $1 == "content" { print "\tcontent " list; next }
        { print }
    ' "$pve/storage.cfg" >"$pve/storage.cfg.tmp.$$"
    mv "$pve/storage.cfg.tmp.$$" "$pve/storage.cfg"
}

expect_online() {
    grep -q "\"$1\": {.*\"online\": 1" "$pve/.members" || [ "$1" = "$(this)" ] ||
        die 2 "595 Errors during connection establishment, proxy handshake: No route to host"
}

list_snippets() {
    case $(storage_key "$2" content) in *snippets*) ;; *) echo '[]' && return ;; esac
    folder=$(snippets "$1" "$2")
    comma=
    printf '['
    for file in "$folder"/*; do
        [ -f "$file" ] || continue
        printf '%s{"content":"snippets","ctime":1790000000,"format":"snippet","size":%s,"volid":"%s:snippets/%s"}' \
            "$comma" "$(wc -c <"$file")" "$2" "${file##*/}"
        comma=,
    done
    printf ']\n'
}

[ $# -ge 2 ] || usage 'ERROR: no command specified'
command=$1 place=$2
shift 2
case $program-$command-$place in
    qm-set-*) change "$(this)" qemu-server "$place" "$@" ;;
    pct-set-*) change "$(this)" lxc "$place" "$@" ;;
    pvesm-set-*) change_storage "$place" "$@" ;;
    pvesh-set-/nodes/*/config | pvesh-get-/nodes/*/content)
        node=${place#/nodes/}
        node=${node%%/*}
        expect_online "$node"
        case $command-${place#"/nodes/$node/"} in
            set-qemu/*/config | set-lxc/*/config)
                case $place in */qemu/*) folder=qemu-server ;; *) folder=lxc ;; esac
                vmid=${place%/config}
                change "$node" "$folder" "${vmid##*/}" "$@"
                ;;
            get-storage/*/content)
                obey "$node"
                [ "$*" = '--content snippets --output-format json' ] || usage "Unknown option: $*"
                storage=${place%/content}
                list_snippets "$node" "${storage##*/}"
                ;;
            *) usage "no '$command' handler for '$place'" ;;
        esac
        ;;
    *) usage "ERROR: unknown command '$program $command'" ;;
esac
