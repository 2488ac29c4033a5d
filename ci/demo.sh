#!/usr/bin/env bash
# The demo: boots a partitioned real-time VM beside a noisy neighbour in QEMU, decodes its trace, prints the histograms,
# and measures the latency table. Leaves trace, hist.json, bench.json and the serial logs in target/partita/demo.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH"

out=target/partita/demo
system=rt-partitions/systems/demo.toml
partita() { cargo partita "$@"; }
title() { printf '\n== %s\n' "$*"; }

title "set-up: packages, bare-metal target, build"
bash ci/setup.sh
cargo build --release --locked --package partita

title "partita run $system --icount"
partita run "$system" --icount --timeout 150 --out "$out"

title "partita trace decode $out: the last frames"
partita trace decode "$out" --tail 20

title "partita trace hist $out"
partita trace hist "$out" --json "$out/hist.json"

title "partita bench --quick"
partita bench --quick --json "$out/bench.json"

title "left behind"
ls -l "$out"
