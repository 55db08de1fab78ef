#!/usr/bin/env bash
# What ftq does, shown on this machine: `make demo`. A lab (`ftqd --lab`) is given commands, and what they come to is
# explained. Needs no privileges and leaves nothing behind. COUNT: how many items go through the queue.
set -u -o pipefail
BIN=$(realpath "${1:?usage: demo.sh DIRECTORY-OF-THE-PROGRAMS}")
COUNT=${COUNT:-200000}
place=$(mktemp -d "${TMPDIR:-/tmp}/ftq.XXXXXX")
lab_PID=
trap 'if [ -n "$lab_PID" ]; then kill "$lab_PID" 2>/dev/null; wait "$lab_PID" 2>/dev/null; fi; rm -rf "$place"' EXIT
trap 'exit 130' INT TERM

say() { printf '\n%s\n' "$*" | fold -s -w 100; }
fail() { say "That did not work: $*"; tail -n 5 "$place"/lab/*.log; exit 1; }
now_ms() { echo $(($(date +%s%N) / 1000000)); }
# Shows a command line of the shell, and runs it.
show() { printf '  $ %s\n' "$1"; eval "$1" 2>&1 | sed 's/^/  /'; }
ftqc() { "$BIN/ftqc" "$@"; }

# Has the lab obey one command and keeps its answer: all up to that to an empty line.
ask() {
    local line
    answer=
    printf '%s\n\n' "$1" >&"${lab[1]}"
    while IFS= read -r line <&"${lab[0]}" || fail "the lab ended"; do
        [ -n "$line" ] || return 0
        answer+="  $line"$'\n'
    done
}
# The same, shown. It has to go well.
lab() {
    ask "$1"
    printf '  lab> %s\n%s' "$1" "$answer"
    case $answer in '  !'*) fail "$1" ;; esac
}
# The same, again until the answer contains $1.
lab_until() {
    for _ in $(seq 200); do
        ask "$2"
        case $answer in *"$1"*) printf '  lab> %s\n%s' "$2" "$answer"; return ;; esac
        sleep 0.05
    done
    fail "$2"
}

say "ftq keeps queues on several machines at once. Here are three replicas, all on this machine, each a" \
    "process of its own with a directory of its own (ftqd --lab 3):"
coproc lab { exec "$BIN/ftqd" --lab 3 --data "$place/lab" 2>"$place/said"; }
lab 'status'
{ read -r _ A; read -r _ B; read -r _ C; } <"$place/lab/cluster"
export A B C

say "A client may talk to any of them; the lab's @2 asks replica 2:"
lab '@1 push greetings hello good-bye'
lab '@3 pop greetings'
lab '@2 pop greetings'
say "What was pushed through replica 1 came out at replicas 3 and 2, in order, each item once. Every answer" \
    "waits until more than half of the replicas have the operation on their disks."

say "Now the network between them turns bad: every replica loses 10 of 100 packets that it sends."
lab 'loss 10'
say "$COUNT numbers go in through replica 1 (at $A):"
begun=$(now_ms)
show "seq 1 $COUNT | ftqc -t 120 -s \$A push jobs" || fail "push"
printf '  (%s ms)\n' $(($(now_ms) - begun))
lab '@2 size jobs'
say "and out through replica 3, held against what went in:"
begun=$(now_ms)
cd "$place" || exit 1
show "ftqc -t 120 -s \$C pop -n $COUNT jobs > popped && cmp popped <(seq 1 $COUNT) && echo the same" || fail "pop"
printf '  (%s ms)\n' $(($(now_ms) - begun))
say "Not one item is missing, doubled or out of place: whoever missed a packet noticed the gap and asked for" \
    "it again."
lab 'heal'

crashes_and_partitions() {
    say "Replica 2 is killed without warning (kill -9). The others notice, agree on a view without it, and go on:"
    lab 'kill 2'
    lab 'push jobs one two'
    lab 'wait'
    lab 'status'
    say "Started again, it catches up from what the others have and what it finds on its disk:"
    lab 'start 2'
    lab 'wait'
    lab 'status'

    say "Now the network is cut: replica 1 on one side, 2 and 3 on the other. The greater side goes on. The small" \
        "one refuses (certainly not done, try again later), and says what it waits for:"
    lab 'partition 1 / 2,3'
    lab 'wait 2 3'
    lab_until '! not-primary' '@1 push jobs three'
    lab '@3 push jobs three'
    lab 'status'
    say "The network is whole again, and replica 1 follows by itself:"
    lab 'heal'
    lab 'wait'
    lab 'status'

    say "Last, all three are killed at once, as in a power cut, and started again:"
    lab 'kill 1 2 3'
    lab 'start 3 1 2'
    lab 'wait'
    lab '@1 pop -n 3 jobs'
    [ "$answer" = $'  one\n  two\n  three\n' ] || fail "something is missing"
    say "Nothing that was acknowledged is gone, doubled or out of order. That was the demo; it cleans up after" \
        "itself. Try it yourself: ftqd --lab 3"
}

crashes_and_partitions
