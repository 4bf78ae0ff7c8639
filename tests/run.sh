#!/bin/sh
# tests/run.sh most|slow: runs all tests but the slow ones, or these, and ends with one line that counts them and says why tests were skipped:
#
#   831 passed, 0 failed, 39 skipped (30: this kernel has no bonds (module bonding); 9: …)
#
# cargo itself counts a test that cannot run on this machine as passed. More arguments go to cargo test.
set -u

# The package in systems of Debian 12 and 13, hundreds of changes by chance, and a thousand of them under load.
slow="package watch_chaos nft_load"
which=${1:?"usage: tests/run.sh most|slow"}
shift

cd "$(dirname "$0")/.." || exit 1
here=$(mktemp -d) || exit 1
trap 'rm -rf "$here"' EXIT
trap 'exit 1' HUP INT TERM

# tests/lab/skip.rs appends a line for each: the test, a tab, the reason.
export PVE_SPAN_SKIPPED="$here/skipped"
: >"$PVE_SPAN_SKIPPED"

targets=
if [ "$which" = most ]; then
    targets="--lib --bins"
    for file in tests/*.rs; do
        name=$(basename "$file" .rs)
        case " $slow " in
            *" $name "*) ;;
            *) targets="$targets --test $name" ;;
        esac
    done
else
    for name in $slow; do
        targets="$targets --test $name"
    done
fi

# Most tests wait more than they work.
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-$(($(nproc) * 2))}"

# The exit code takes a way of its own, as sh gives that of a pipe's last command.
{
    # shellcheck disable=SC2086 # a list of options
    cargo test --locked --no-fail-fast $targets "$@"
    echo "$?" >"$here/code"
} | tee "$here/said"
code=$(cat "$here/code" 2>/dev/null || echo 1)

# A test counts once, whatever it lacks.
sort -u -t "$(printf '\t')" -k 1,1 "$PVE_SPAN_SKIPPED" | cut -f2- | sort | uniq -c | sort -rn >"$here/why"
awk '
    part == "why" {
        count = $1
        sub(/^ *[0-9]+ /, "")
        skipped += count
        why = why (why == "" ? "" : "; ") count ": " $0
        next
    }
    /^test result: / {
        counted = 1
        for (field = 2; field <= NF; field++) {
            if ($field == "passed;") passed += $(field - 1)
            if ($field == "failed;") failed += $(field - 1)
            if ($field == "ignored;") ignored += $(field - 1)
        }
    }
    END {
        if (!counted) exit
        if (ignored) why = why (why == "" ? "" : "; ") ignored ": #[ignore]"
        printf "\n%d passed, %d failed, %d skipped%s\n", passed - skipped, failed, skipped + ignored, why == "" ? "" : " (" why ")"
    }' part=why "$here/why" part=said "$here/said"
exit "$code"
