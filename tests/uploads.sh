#!/usr/bin/env bash
# Streamed uploads of 8 MiB that are refused with a 401 before, during and after the upload, over HTTP/1.1 and h2.
#
#   bash tests/uploads.sh         200 times each
#   bash tests/uploads.sh 1000    as often as it says
#
# Every body has to arrive whole and as a 2xx exactly once. Where it is cut is by chance; a failure names its seed.
set -euo pipefail
cd "$(dirname "$0")/.."

times=${1:-200}
case $times in
    ''|*[!0-9]*) echo "usage: bash tests/uploads.sh [TIMES]" >&2; exit 2 ;;
esac
UPLOADS=$times cargo test --locked --quiet --test uploads
echo "uploads: $times of 8 MiB each, refused before, during and after, over HTTP/1.1 and h2: all arrived once"
