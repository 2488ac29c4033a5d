#!/usr/bin/env bash
# The demo: boots a partitioned real-time VM beside a noisy neighbour, decodes its trace, prints the histograms, and measures
# the latency table. Leaves trace, hist.json, bench.json and the serial logs in target/partita/demo.
#
#   ci/demo.sh                     AMD SVM in QEMU
#   ci/demo.sh --machine bochs     Intel VMX in Bochs; bochs-svm: AMD SVM there
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH"

machine=qemu
while [ $# -gt 0 ]; do
    case "$1" in
        --machine) machine=${2:?"--machine needs a name: qemu, bochs or bochs-svm"}; shift ;;
        *) printf 'usage: ci/demo.sh [--machine qemu|bochs|bochs-svm]\n' >&2; exit 2 ;;
    esac
    shift
done
# By instruction count, as Bochs always is.
clock=()
[ "$machine" != qemu ] || clock=(--icount)

out=target/partita/demo
system=rt-partitions/systems/demo.toml
partita() { cargo partita "$@"; }
title() { printf '\n== %s\n' "$*"; }

title "set-up: packages, bare-metal target, build"
bash ci/setup.sh
cargo build --release --locked --package partita

title "partita run $system --machine $machine ${clock[*]}"
partita run "$system" --machine "$machine" "${clock[@]}" --timeout 150 --out "$out"

title "partita trace decode $out: the last frames"
partita trace decode "$out" --tail 20

title "partita trace hist $out"
partita trace hist "$out" --json "$out/hist.json"

title "partita bench --quick --machine $machine"
partita bench --quick --machine "$machine" --json "$out/bench.json"

title "left behind"
ls -l "$out"
