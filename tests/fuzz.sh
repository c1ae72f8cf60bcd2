#!/usr/bin/env bash
# Fuzzes everything that reads what others wrote, and the replayable body (fuzz/).
#
#   bash tests/fuzz.sh [SECONDS [TARGET..]]   libFuzzer on each target for so long, 600 s if nothing is said
#   bash tests/fuzz.sh smoke                  the same properties on stable, near the seeds, in seconds
#
# Installs cargo-fuzz and the nightly toolchain where they are missing; the smoke run needs neither. What is learned stays
# in target/fuzz/corpus and is built upon by the next run. An input that finds a fault is written to
# target/fuzz/artifacts; with the fault mended it goes to fuzz/regressions/TARGET, from where every run begins.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TARGET_DIR=$PWD/target/fuzz

if [ "${1:-}" = smoke ]; then
    exec cargo test --locked --quiet --manifest-path fuzz/Cargo.toml --test smoke
fi

seconds=${1:-600}
case $seconds in
    *[!0-9]* | "") echo "usage: bash tests/fuzz.sh [SECONDS [TARGET..] | smoke]" >&2; exit 2 ;;
esac
shift || true

rustup run nightly rustc --version >/dev/null 2>&1 || rustup toolchain install nightly --profile minimal
cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked

targets=("$@")
if [ ${#targets[@]} = 0 ]; then
    mapfile -t targets < <(cargo fuzz list)
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo run --locked --quiet --manifest-path fuzz/Cargo.toml --example seeds -- target/fuzz/seeds
# No sanitizer: it finds what only unsafe code does, and there is none. Overflows panic, as in a debug build.
options=(--sanitizer none --features engine --target-dir "$CARGO_TARGET_DIR")
cargo +nightly fuzz build "${options[@]}"
for target in "${targets[@]}"; do
    mkdir -p "target/fuzz/corpus/$target" "target/fuzz/artifacts/$target"
    echo "== $target: $seconds s"
    if ! cargo +nightly fuzz run "${options[@]}" "$target" "target/fuzz/corpus/$target" "target/fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=2048 -print_final_stats=1 \
        -artifact_prefix="target/fuzz/artifacts/$target/" >"$log" 2>&1; then
        cat "$log" >&2
        echo "fuzz: $target found a fault" >&2
        exit 1
    fi
    awk '/number_of_executed_units/ { print "   " $2 " inputs" }' "$log"
done
echo "fuzz: ${#targets[@]} targets, $seconds s each, without a finding"
