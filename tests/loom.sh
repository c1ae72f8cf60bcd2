#!/usr/bin/env bash
# Model-checks the flight of the token cache (src/cache/flight.rs) with loom.
#
#   bash tests/loom.sh          every order of events of two threads, and three with at most three preemptions
#   bash tests/loom.sh smoke    two threads with at most two preemptions, as the test run does it
#
# Both prove as well that the models can fail.
set -euo pipefail
cd "$(dirname "$0")/.."

models() {
    CARGO_TARGET_DIR=$PWD/target/loom cargo test --locked --quiet --manifest-path tests/loom/Cargo.toml
}

mode=${1:-full}
case $mode in
    smoke) LOOM_CROWD=2 LOOM_MAX_PREEMPTIONS=2 models ;;
    full)
        LOOM_CROWD=2 models
        LOOM_CROWD=3 LOOM_MAX_PREEMPTIONS=3 models
        ;;
    *) echo "usage: bash tests/loom.sh [smoke]" >&2; exit 2 ;;
esac

# A model that cannot fail proves nothing: without the compare of the compare-and-set it has to.
mutant=$PWD/target/loom-mutant
rm -rf "$mutant/tests" "$mutant/src"
mkdir -p "$mutant/tests" "$mutant/src/cache"
cp -r tests/loom "$mutant/tests/loom"
sed 's/if current\.id() != id {/if false \&\& current.id() != id {/' src/cache/flight.rs > "$mutant/src/cache/flight.rs"
if cmp -s src/cache/flight.rs "$mutant/src/cache/flight.rs"; then
    echo "loom: the compare of the compare-and-set was not found in src/cache/flight.rs" >&2
    exit 1
fi
# A target folder of its own: cargo cannot tell the two packages apart.
said=$(CARGO_TARGET_DIR=$mutant/target cargo test --locked --quiet --manifest-path "$mutant/tests/loom/Cargo.toml" \
    a_late_rejection_never_drops_a_newer_token 2>&1) && {
    echo "loom: the model passes without the compare-and-set" >&2
    exit 1
}
if ! grep -q "a_late_rejection_never_drops_a_newer_token .*FAILED\|test result: FAILED" <<<"$said"; then
    printf 'loom: the mutant did not get as far as failing its model:\n%s\n' "$said" >&2
    exit 1
fi
echo "loom: $mode models hold, and fail without the compare-and-set"
