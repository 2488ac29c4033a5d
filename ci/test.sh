#!/usr/bin/env bash
# Every test there is. Prints each test's wall time, and ends with "N passed, N failed, N skipped".
#
#   ci/test.sh           short forms of the tests that take longer than a minute
#   ci/test.sh --long    all of them at full length
#   ci/test.sh --only RE only the tests whose name matches
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH"

long=0 only=.
while [ $# -gt 0 ]; do
    case "$1" in
        --long) long=1 ;;
        --only) only=${2:?"--only needs a regular expression"}; shift ;;
        *) printf 'usage: ci/test.sh [--long] [--only REGEX]\n' >&2; exit 2 ;;
    esac
    shift
done
export PARTITA_LONG=$long

passed=0 failed=0 skipped=0 failures=()
logs=target/partita/tests
mkdir -p "$logs"

wanted() { [[ $1 =~ $only ]]; }

# test NAME COMMAND...: runs it, and shows its output only if it fails.
run() {
    local name=$1 log start status
    shift
    wanted "$name" || return 0
    log="$logs/${name//[^a-zA-Z0-9_.-]/_}.log"
    start=$EPOCHREALTIME
    "$@" >"$log" 2>&1 </dev/null
    status=$?
    local seconds
    seconds=$(awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
    if [ $status -eq 0 ]; then
        passed=$((passed + 1))
        printf 'ok    %7s s  %s\n' "$seconds" "$name"
    else
        failed=$((failed + 1))
        failures+=("$name")
        printf 'FAIL  %7s s  %s (exit %d, %s)\n' "$seconds" "$name" "$status" "$log"
        tail -n 60 "$log" | sed 's/^/    | /'
    fi
}

skip() {
    wanted "$1" || return 0
    skipped=$((skipped + 1))
    printf 'skip             %s: %s\n' "$1" "$2"
}

bash ci/setup.sh || { printf '0 passed, 1 failed, 0 skipped\n'; exit 1; }
. ci/tests.sh

if [ ${#failures[@]} -gt 0 ]; then printf 'failed: %s\n' "${failures[*]}"; fi
printf 'wall time: %d min %d s\n' $((SECONDS / 60)) $((SECONDS % 60))
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
