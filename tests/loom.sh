#!/usr/bin/env bash
# Model-checks the single flight of the token cache (src/cache/single_flight.rs) and the takeover of a request body
# (src/retry/replay_body/recording.rs) with loom.
#
#   bash tests/loom.sh          the flight: every order of events of two threads, and three with at most three
#                               preemptions; the takeover: two and three threads with at most four
#   bash tests/loom.sh smoke    both with at most two preemptions, as the test run does it
#
# Both prove as well that the models can fail.
set -euo pipefail
cd "$(dirname "$0")/.."

models() {
    CARGO_TARGET_DIR=$PWD/target/loom cargo test --locked --quiet --manifest-path tests/loom/Cargo.toml "$@"
}

mode=${1:-full}
case $mode in
    smoke) LOOM_CROWD=2 LOOM_MAX_PREEMPTIONS=2 models ;;
    full)
        LOOM_CROWD=2 models models::
        LOOM_CROWD=3 LOOM_MAX_PREEMPTIONS=3 models models::
        LOOM_MAX_PREEMPTIONS=4 models takeovers::
        ;;
    *) echo "usage: bash tests/loom.sh [smoke]" >&2; exit 2 ;;
esac

# A model that cannot fail proves nothing: without the line that each rests on it has to.
#
#   mutant FILE LINE INSTEAD TEST
mutant=$PWD/target/loom-mutant
mutant() {
    local file=$1 line=$2 instead=$3 test=$4 said
    rm -rf "$mutant/tests" "$mutant/src"
    mkdir -p "$mutant/tests" "$mutant/src/cache" "$mutant/src/retry/replay_body"
    cp -r tests/loom "$mutant/tests/loom"
    cp src/cache/single_flight.rs "$mutant/src/cache/"
    cp src/retry/replay_body/{allowance,not_replayable,partly_read,recording}.rs "$mutant/src/retry/replay_body/"
    sed "s/$line/$instead/" "$file" > "$mutant/$file"
    if cmp -s "$file" "$mutant/$file"; then
        echo "loom: '$line' was not found in $file" >&2
        return 1
    fi
    # A target folder of its own: cargo cannot tell the two packages apart.
    said=$(CARGO_TARGET_DIR=$mutant/target cargo test --locked --quiet --manifest-path "$mutant/tests/loom/Cargo.toml" \
        "$test" 2>&1) && {
        echo "loom: $test holds with '$instead' in $file" >&2
        return 1
    }
    # Where all threads sleep for ever the checker unwinds through a lock, and the process ends with it.
    if ! grep -q "test result: FAILED\|$test'.* panicked" <<<"$said"; then
        printf 'loom: the mutant did not get as far as failing its model:\n%s\n' "$said" >&2
        return 1
    fi
}

mutant src/cache/single_flight.rs 'if current\.id() != id {' 'if false \&\& current.id() != id {' \
    a_late_rejection_never_drops_a_newer_token
mutant src/retry/replay_body/recording.rs 'if state\.newest != self\.attempt {' \
    'if false \&\& state.newest != self.attempt {' \
    a_newer_attempt_gets_every_frame_once_and_the_older_one_no_false_end
mutant src/retry/replay_body/recording.rs 'waker\.wake();' 'drop(waker);' \
    an_older_attempt_that_waits_is_woken_even_if_its_source_never_goes_on
echo "loom: $mode models hold, and fail without the compare-and-set, the generation check and the wake-up"
