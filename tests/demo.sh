#!/usr/bin/env bash
# What ftq does, shown on this machine: `make demo`. Needs no privileges and leaves nothing behind.
set -u -o pipefail
BIN=$(realpath "${1:?usage: demo.sh DIRECTORY-OF-THE-PROGRAMS}")
# shellcheck source=tests/group.sh
. "$(dirname "$0")/group.sh"
COUNT=${COUNT:-200000}

say() { printf '\n%s\n' "$*" | fold -s -w 100; }
# Shows a command line with the addresses' short names, and runs it.
show() { printf '  $ %s\n' "$1"; eval "$1" 2>&1 | sed 's/^/  /'; }
ftqc() { "$BIN/ftqc" "$@"; }
now_ms() { echo $(($(date +%s%N) / 1000000)); }
fail() { say "That did not work: $*"; tail -n 8 "$place"/log*; exit 1; }

say "ftq keeps queues on several machines at once. Here are three replicas, all on this machine, each a" \
    "process of its own with a directory of its own:"
group_start
for id in 1 2 3; do echo "  replica $id   process ${pids[$id]}   127.0.0.1:$((port + id - 1))"; done

say "A client may talk to any of them. A is replica 1, B replica 2, C replica 3:"
show 'ftqc -s $A push greetings "hello" "and good-bye"'
show 'ftqc -s $C pop greetings'
show 'ftqc -s $B pop greetings'
say "What was pushed through replica 1 came out at replicas 3 and 2, in order, each item once. Every answer" \
    "waits until more than half of the replicas have the operation on their disks."

say "Now the network between them turns bad: every replica loses 10 of 100 packets that it sends."
for id in 1 2 3; do fault $id "loss 10"; done

say "$COUNT numbers go in through replica 1:"
begun=$(now_ms)
show "seq 1 $COUNT | ftqc -t 120 -s \$A push jobs" || fail "push"
printf '  (%s ms)\n' $(($(now_ms) - begun))
show 'ftqc -s $B size jobs'

say "and out through replica 3, held against what went in:"
begun=$(now_ms)
cd "$place" || exit 1
show "ftqc -t 120 -s \$C pop -n $COUNT jobs > popped && cmp popped <(seq 1 $COUNT) && echo the same" || fail "pop"
printf '  (%s ms)\n' $(($(now_ms) - begun))
say "Not one item is missing, doubled or out of place: whoever missed a packet noticed the gap and asked for" \
    "it again. All replicas have applied the same history; this is its digest at each:"
for id in 1 2 3; do fault $id heal; done
show 'for s in $A $B $C; do ftqc -s $s --json status | grep -o "\"digest\":\"[0-9a-f]*\""; done'

say "Last, replica 2 is killed without warning (kill -9):"
end_quietly "${pids[2]}"; unset "pids[2]"
for _ in $(seq 100); do
    ftqc -t 0 -s "$A" push greetings x 2>&1 | grep -q not-primary && break
    sleep 0.1
done
show 'ftqc -t 0 -s $A push greetings "still there?"'
say "It refuses rather than guess, and says what it waits for. (Going on without a lost replica is what comes" \
    "next in ftq's making.) Nothing that was acknowledged is gone. The demo ends here and cleans up after itself."
