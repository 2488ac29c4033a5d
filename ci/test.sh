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
# What is built once gains nothing from what the next build could use, which takes gigabytes.
export CARGO_INCREMENTAL=0

passed=0 failed=0 skipped=0 failures=()
logs=target/partita/tests
mkdir -p "$logs"

wanted() { [[ $1 =~ $only ]]; }

# Prints how a test ended, and its output if it failed.
report() { # NAME STATUS SECONDS
    if [ "$2" -eq 0 ]; then
        passed=$((passed + 1))
        printf 'ok    %7s s  %s\n' "$3" "$1"
    else
        failed=$((failed + 1))
        failures+=("$1")
        printf 'FAIL  %7s s  %s (exit %d, %s)\n' "$3" "$1" "$2" "$(log_of "$1")"
        # What broke first, as the consoles that a test prints behind it are long.
        grep -m 1 -A 4 'panicked at' "$(log_of "$1")" | cut -c 1-300 | sed 's/^/    > /'
        tail -n 60 "$(log_of "$1")" | sed 's/^/    | /'
    fi
}

log_of() { printf '%s' "$logs/${1//[^a-zA-Z0-9_.-]/_}.log"; }

# Runs a command; its output goes to the test's log, status and seconds to the file behind it.
timed() { # NAME COMMAND...
    local log start status
    log=$(log_of "$1")
    start=$EPOCHREALTIME
    "${@:2}" >"$log" 2>&1 </dev/null
    status=$?
    awk -v a="$start" -v b="$EPOCHREALTIME" -v status=$status 'BEGIN { printf "%d %.1f\n", status, b - a }' >"$log.end"
}

finish() { # NAME
    local status seconds
    read -r status seconds <"$(log_of "$1").end"
    rm -f "$(log_of "$1").end"
    report "$1" "$status" "$seconds"
}

# Waits until fewer than so many tests run beside each other.
declare -A beside_name=()
await_fewer_than() {
    local pid
    while [ ${#beside_name[@]} -ge "$1" ]; do
        wait -n -p pid "${!beside_name[@]}"
        finish "${beside_name[$pid]}"
        unset "beside_name[$pid]"
    done
}

# A test that has the machine for itself.
run() { # NAME COMMAND...
    wanted "$1" || return 0
    await_fewer_than 1
    timed "$@"
    finish "$1"
}

# A test that needs one core, and whose result does not depend on time: as many at once as there are cores.
beside() { # NAME COMMAND...
    wanted "$1" || return 0
    await_fewer_than "$(nproc)"
    timed "$@" &
    beside_name[$!]=$1
}

skip() {
    wanted "$1" || return 0
    skipped=$((skipped + 1))
    printf 'skip             %s: %s\n' "$1" "$2"
}

bash ci/setup.sh || { printf '0 passed, 1 failed, 0 skipped\n'; exit 1; }
. ci/tests.sh
await_fewer_than 1

if [ ${#failures[@]} -gt 0 ]; then printf 'failed: %s\n' "${failures[*]}"; fi
printf 'wall time: %d min %d s\n' $((SECONDS / 60)) $((SECONDS % 60))
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
