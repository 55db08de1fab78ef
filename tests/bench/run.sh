#!/usr/bin/env bash
# Throughput and latency of three replicas on this machine, acknowledged from disk, then from memory: `make bench`.
# c1: one client, one request at a time; c64: 64 such clients; pipe: 4 clients with 256 requests in flight each.
set -u
BIN=$(realpath "${1:?usage: run.sh DIRECTORY-OF-THE-PROGRAMS}")
# shellcheck source=tests/group.sh
. "$(dirname "$0")/../group.sh"
SECONDS_EACH=${SECONDS_EACH:-5}
SIZE=${SIZE:-16}

measure() {
    local title=$1
    shift
    printf -- '--- %s\n' "$title"
    "$BIN/ftqc" -s "$A,$B,$C" bench --size "$SIZE" --seconds "$SECONDS_EACH" "$@"
}

printf '%s, %s cores, kernel %s, items of %s bytes\n' "$(uname -m)" "$(nproc)" "$(uname -r)" "$SIZE"
group_start --durability "${DURABILITY:-disk}"
for what in push pop; do
    measure "c1 $what" --clients 1 "$what"
    measure "c64 $what" --clients 64 "$what"
    measure "pipe $what" --clients 4 --pipeline 256 "$what"
done
