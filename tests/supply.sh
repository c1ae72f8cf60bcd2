#!/usr/bin/env bash
# What comes in by dependencies: licences, sources, bans (deny.toml). Run by hand before a release and after a change
# of Cargo.lock.
#
#   bash tests/supply.sh                 licences, sources, bans
#   bash tests/supply.sh --advisories    known vulnerabilities as well
#
# Advisories are apart, since they are a database that is cloned from the network and changes by the hour: the same
# tree may pass today and fail tomorrow, and without a network the question cannot be asked at all.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TERM_COLOR=never

checks=(licenses sources bans)
case ${1-} in
    "") ;;
    --advisories) checks+=(advisories) ;;
    *) echo "usage: bash tests/supply.sh [--advisories]" >&2; exit 2 ;;
esac

if ! cargo deny --version >/dev/null 2>&1; then
    echo "installing cargo-deny, which takes some minutes"
    cargo install --locked cargo-deny
fi

cargo deny --locked check "${checks[@]}"
echo "${#checks[@]} passed, 0 failed"
