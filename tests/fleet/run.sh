#!/usr/bin/env bash
# Tokens that processes share, against a real Redis.
#
#   bash tests/fleet/run.sh            every case
#   bash tests/fleet/run.sh --smoke    some of them, shorter and with fewer processes
#   bash tests/fleet/run.sh --only TEXT    those processes with this in their name
#
# Installs redis-server if it is missing. Each test starts its own on a free port of loopback, and ends it. The last line is
# "N passed, 0 failed".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

install_packages() {
    local as_root=""
    [ "$(id -u)" = 0 ] || as_root=sudo
    $as_root apt-get update -qq
    # A package that would start a server of its own starts none where no services run; the tests do not use it.
    $as_root apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

command -v redis-server >/dev/null || install_packages redis-server
# One case runs processes whose clocks differ.
command -v faketime >/dev/null || install_packages faketime

log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo test --locked --all-features --test redis 2>&1 | tee "$log"
stores=$(awk '/^test result: ok/ { passed += $4 } END { print passed + 0 }' "$log")
[ "$stores" -gt 0 ]
cargo run --quiet --locked --all-features --example fleet -- "$@" 2>&1 | tee "$log"
processes=$(awk '/^[0-9]+ passed, 0 failed$/ { passed = $1 } END { print passed + 0 }' "$log")
[ "$processes" -gt 0 ]
echo "$((stores + processes)) passed, 0 failed"
