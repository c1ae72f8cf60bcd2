#!/usr/bin/env bash
# Tokens that processes share, against a real Redis.
#
#   bash tests/fleet/run.sh            every case
#   bash tests/fleet/run.sh --smoke    the short ones
#
# Installs redis-server if it is missing. Each test starts its own on a free port of loopback, and ends it. The last line is
# "N passed, 0 failed".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if ! command -v redis-server >/dev/null; then
    as_root=""
    [ "$(id -u)" = 0 ] || as_root=sudo
    $as_root apt-get update -qq
    # The package starts a server of its own where the machine starts services; the tests do not use it.
    $as_root apt-get install -y -qq --no-install-recommends redis-server >/dev/null
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo test --locked --all-features --test redis 2>&1 | tee "$log"
passed=$(awk '/^test result: ok/ { passed += $4 } END { print passed + 0 }' "$log")
[ "$passed" -gt 0 ]
echo "$passed passed, 0 failed"
