#!/usr/bin/env bash
# Everything that must hold, in one command: format, lints, docs, tests, models, servers, examples, allocations.
#
#   bash tests/run.sh
#
# Needs Rust and git; installs what else is missing. The last line is "N passed, 0 failed": every test and every step
# counts once. The first failure ends the run with a line that names the step. Licences and sources of dependencies:
# tests/supply.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TERM_COLOR=never
# Most runs begin with a cold cache, and a tenth of what compiling takes is debug information.
export CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0} CARGO_PROFILE_DEV_DEBUG=${CARGO_PROFILE_DEV_DEBUG:-0}

# The most crates that `default-features = false` may pull in.
LEAN=45

passed=0
step=start
log=$(mktemp)
finish() {
    local status=$?
    rm -f "$log"
    [ "$status" = 0 ] || echo "FAILED: $step" >&2
}
trap finish EXIT

# Runs a step: run NAME COMMAND...
run() {
    step=$1
    shift
    local started=$SECONDS
    echo "== $step"
    "$@"
    passed=$((passed + 1))
    echo "-- $step: $((SECONDS - started)) s"
}

# Runs cargo test and counts what passed. A test that is left out is no test that passed.
count() {
    cargo test --locked "$@" 2>&1 | tee "$log"
    if ! awk '/^test result:/ { passed += $4; ignored += $8 } END { exit !(passed > 0 && ignored == 0) }' "$log"; then
        echo "no test ran, or some were ignored" >&2
        return 1
    fi
    passed=$((passed + $(awk '/^test result:/ { passed += $4 } END { print passed }' "$log")))
}

component() {
    cargo "$1" --version >/dev/null 2>&1 || rustup component add "$2"
}

tools() {
    component fmt rustfmt
    component clippy clippy
    cargo --version
    rustc --version
}

features() {
    awk '/^\[/ { on = ($0 == "[features]"); next } on && /^[a-z]/ { print $1 }' Cargo.toml
}

lints() {
    cargo clippy --locked --all-targets --all-features -- -D warnings
    cargo clippy --locked --lib --no-default-features -- -D warnings
    local feature
    for feature in $(features); do
        echo "feature $feature alone"
        cargo clippy --locked --lib --no-default-features --features "$feature" -- -D warnings
    done
}

docs() {
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --no-default-features
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --all-features
}

lean() {
    local crates
    crates=$(cargo tree --locked --no-default-features -e normal --prefix none | awk 'NR > 1 { print $1, $2 }' | sort -u | wc -l)
    echo "default-features = false pulls in $crates crates; at most $LEAN are allowed"
    [ "$crates" -le "$LEAN" ]
}

# A build in which reqwest has the features that it comes with, TLS among them.
reqwest_tls() {
    CARGO_TARGET_DIR=$PWD/target cargo test --locked --quiet --manifest-path tests/reqwest-tls/Cargo.toml
}

# The page on clients that take a tower service, in a package of its own: kube-client is large. What the page shows is what
# is compiled there.
kube() {
    diff <(awk '/^\/\/! ```text$/ { on = 1; next } /^\/\/! ```$/ { on = 0 } on' src/guide/kube.rs | sed 's|^//!||; s|^ ||') \
        <(awk '/^\/\/ --- The end/ { on = 0 } on; /^\/\/ --- The code/ { on = 1 }' tests/kube/src/lib.rs)
    CARGO_TARGET_DIR=$PWD/target cargo test --locked --quiet --manifest-path tests/kube/Cargo.toml
}

examples() {
    local file example
    for file in examples/*.rs; do
        example=$(basename "$file" .rs)
        echo "example $example"
        timeout --kill-after=10 180 cargo run --quiet --locked --all-features --example "$example"
    done
}

run "tools" tools
run "format" cargo fmt --check
run "lints, all features and each alone" lints
run "docs" docs
run "tests, all features" count --all-features
run "tests without default features, over transports of their own" count --lib --test oauth2 --test auth --test retry --test decisions --no-default-features
run "lean" lean
run "TLS by reqwest as it comes" reqwest_tls
run "below a client of kube's" kube
run "models" bash tests/loom.sh smoke
run "fuzz targets, near their seeds" bash tests/fuzz.sh smoke
run "servers that nobody here wrote" bash tests/interop/run.sh --smoke
run "a fleet on a real Redis" bash tests/fleet/run.sh --smoke
run "examples" examples
# What is counted here is the same without optimisation, and its dependencies are built already.
run "allocations on the hot path" cargo bench --locked --profile dev --all-features --bench hot_path -- --smoke
run "allocations and memory under retry" cargo bench --locked --profile dev --all-features --bench retry -- --smoke

echo "$passed passed, 0 failed"
