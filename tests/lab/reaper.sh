# shellcheck shell=sh
# The guardian of one miniature node: makes its directory and network namespaces, waits until its owner lets
# go of the pipe on standard input (a drop, a panic and a SIGKILL look the same from here), and takes
# everything away again. Ends only processes in the node's own namespaces, or started with its mark.
#
#   reaper.sh make  <directory> <netns>...    make, answer "ready" (or "taken"), wait, clean
#   reaper.sh clean <directory> <netns>...    clean now
#
# On standard input: end of file means clean; the word "keep" means leave everything up.

trap '' HUP INT QUIT TERM PIPE
job=$1 dir=$2
shift 2

processes() {
    for ns in "$@"; do
        [ -e "/run/netns/$ns" ] && ip netns pids "$ns" 2>/dev/null
    done
    grep -lszxF "PVE_SPAN_LAB=$dir" /proc/[0-9]*/environ | cut -d/ -f3
}

end_processes() {
    rounds=0
    while pids=$(processes "$@") && [ -n "$pids" ]; do
        # One by one: a pid that has gone meanwhile must not spare the others.
        for pid in $pids; do kill -KILL "$pid" 2>/dev/null; done
        rounds=$((rounds + 1))
        [ "$rounds" -gt 500 ] && {
            echo "lab: processes of $dir do not end: $pids" >&2
            return
        }
        sleep 0.01
    done
}

clean() {
    end_processes "$@"
    for ns in "$@"; do
        [ -e "/run/netns/$ns" ] && flock /run ip netns delete "$ns"
    done
    # Who was on the way into a namespace when it was listed is found by the mark.
    end_processes "$@"
    rm -rf --one-file-system "$dir"
}

case $job in
make)
    mkdir -m 700 "$dir" 2>/dev/null || {
        echo taken
        exit
    }
    # The very first `ip netns add` of a machine mounts /run/netns, which must not happen twice at once.
    for ns in "$@"; do echo "netns add $ns"; done | flock /run ip -batch - && echo ready || echo failed
    while read -r word; do
        [ "$word" = keep ] && exit
    done
    clean "$@"
    ;;
clean)
    clean "$@"
    ;;
esac
