#!/usr/bin/env bash
# Throughput and latency of three replicas on this machine: `make bench`. Requests are acknowledged from the disks of a
# quorum (DURABILITY=memory: from its memory). c1: one client, one request at a time; c64: 64 such clients; pipe: 4
# clients with 256 requests in flight each. A take counts with its acknowledgement. WHAT="push read" measures these
# alone. Where redis and beanstalkd are installed they are measured beside it; see peers.py.
set -u
BIN=$(realpath "${1:?usage: run.sh DIRECTORY-OF-THE-PROGRAMS}")
# shellcheck source=tests/group.sh
. "$(dirname "$0")/../group.sh"
SECONDS_EACH=${SECONDS_EACH:-5}
SIZE=${SIZE:-16}
SHAPES=("c1 --clients 1" "c64 --clients 64" "pipe --clients 4 --pipeline 256")

# A field of the JSON object in $1.
field() {
    sed -n 's/.*"'"$2"'":\([0-9.]*\).*/\1/p' <<<"$1"
}

printf '%s, %s cores, kernel %s, items of %s bytes, %s s each, durability %s\n\n' "$(uname -m)" "$(nproc)" \
    "$(uname -r)" "$SIZE" "$SECONDS_EACH" "${DURABILITY:-disk}"
group_start --durability "${DURABILITY:-disk}"
export LC_ALL=C
row='%-12s %-6s %-5s %10s %9s %9s\n'
# shellcheck disable=SC2059
printf "$row" '' '' '' 'a second' 'p50 ms' 'p99 ms'
for what in ${WHAT:-read push pop take}; do
    for shape in "${SHAPES[@]}"; do
        read -ra options <<<"$shape"
        told=$("$BIN/ftqc" -j -s "$A,$B,$C" bench --size "$SIZE" --seconds "$SECONDS_EACH" "${options[@]:1}" "$what") ||
            { echo "$told"; exit 1; }
        # shellcheck disable=SC2059
        printf "$row" ftq "$what" "${options[0]}" "$(printf %.0f "$(field "$told" per_second)")" "$(field "$told" p50_ms)" \
            "$(field "$told" p99_ms)"
    done
done
if command -v python3 >/dev/null; then
    python3 "$(dirname "$0")/peers.py" "$SIZE" "$SECONDS_EACH"
fi
