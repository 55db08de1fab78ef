# Three replicas on loopback in a temporary directory, for scripts: sourced with BIN set to the programs' directory.
# `group_start [OPTION...]` sets A, B and C to the replicas' addresses; the place is cleaned up when the script ends.
# shellcheck shell=bash

# Replicas, FIFOs that command their faults, logs and data are all in here.
place=$(mktemp -d "${TMPDIR:-/tmp}/ftq.XXXXXX")
pids=()

# Ends these processes of ours without a word from the shell.
end_quietly() {
    { kill -KILL "$@" && wait "$@"; } 2>/dev/null
}

group_end() {
    end_quietly "${pids[@]}"
    rm -rf "$place"
}
trap group_end EXIT
trap 'exit 130' INT TERM

# Whether a port is used by nobody, for UDP and TCP.
port_is_free() {
    ! cat /proc/net/{tcp,tcp6,udp,udp6} 2>/dev/null | grep -qi ":$(printf '%04X' "$1") "
}

# Starts (again) replica $1, the group's other options in `options`.
replica_start() {
    "$BIN/ftqd" --id "$1" --n 3 --port "$port" --data "$place/$1" --socket none --fault-fd 3 "${options[@]}" \
        3<>"$place/faults$1" </dev/null 2>>"$place/log$1" &
    pids[$1]=$!
}

# Says `loss 10` and the like to replica $1.
fault() {
    echo "$2" >"$place/faults$1"
}

group_start() {
    options=("$@")
    port=$((20000 + RANDOM))
    until port_is_free $port && port_is_free $((port + 1)) && port_is_free $((port + 2)); do port=$((port + 3)); done
    local id
    for id in 1 2 3; do
        mkfifo "$place/faults$id"
        replica_start $id
    done
    A=127.0.0.1:$port B=127.0.0.1:$((port + 1)) C=127.0.0.1:$((port + 2))
    # Refusals for now are tried again until the group is there.
    if ! "$BIN/ftqc" -t 30 -s "$A" qCreate first >/dev/null; then
        tail -n 5 "$place"/log*
        exit 1
    fi
}
