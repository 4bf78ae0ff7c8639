#!/bin/sh
# Runs the tests, and ends with one line that counts them and says why tests were skipped:
#
#   831 passed, 0 failed, 39 skipped (30: this kernel has no bonds (module bonding); 9: …)
#
# cargo itself counts a test that cannot run on this machine as passed. Arguments go to cargo test.
set -u

cd "$(dirname "$0")/.." || exit 1
here=$(mktemp -d) || exit 1
trap 'rm -rf "$here"' EXIT
trap 'exit 1' HUP INT TERM

# tests/lab/skip.rs appends a line for each: the test, a tab, the reason.
export PVE_SPAN_SKIPPED="$here/skipped"
: >"$PVE_SPAN_SKIPPED"

# Most tests wait more than they work.
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-$(($(nproc) * 2))}"

# The exit code takes a way of its own, as sh gives that of a pipe's last command.
{
    cargo test --locked --no-fail-fast "$@"
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
