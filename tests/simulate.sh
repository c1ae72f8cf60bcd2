#!/usr/bin/env bash
# The table of tests/simulation in full: ten simulated minutes of each case, 20 seeds. The last line says whether all holds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
SIMULATE_ALL=1 cargo test --release --locked --all-features --test simulation -- --nocapture
