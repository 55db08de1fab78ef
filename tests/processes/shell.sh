#!/usr/bin/env bash
# Three replicas that are killed and cut off all along; a push of COUNT lines, a pop into a file and a worker with eight
# jobs at once, each killed KILLS times and run again. In the end every line was popped once and in order, and every
# line was worked on at least once, acknowledged exactly once, and delivered first in the order in which it was pushed.
# usage, as root in a network namespace with 10.77.0.1 to 10.77.0.3 on its loopback device: shell.sh DIRECTORY-OF-PROGRAMS
set -u -o pipefail
PATH=${1:?usage: shell.sh DIRECTORY-OF-PROGRAMS}:$PATH:/usr/sbin:/sbin
COUNT=${COUNT:-1000000}
KILLS=${KILLS:-20}
SPAN=$((60 + COUNT / 3000)) # hundredths of a second that a client lives at most before it is killed
BATCH=${BATCH:-100} # lines of an item that is worked on
export FTQ_SERVERS=10.77.0.1:7400,10.77.0.2:7400,10.77.0.3:7400
place=$(mktemp -d "${TMPDIR:-/tmp}/ftq.XXXXXX")
cd "$place" || exit 1

own=()
finish() {
    touch quiet
    { kill -KILL "${own[@]}"; wait; } 2>/dev/null
    cd / && rm -rf "$place"
}
trap finish EXIT
trap 'exit 130' INT TERM
fail() {
    echo "failed: $*"
    tail -n 5 log* told* 2>/dev/null
    exit 1
}
# A pause of less than $1 hundredths of a second.
moment() {
    local hundredths=$((RANDOM % $1))
    sleep "$(printf '%d.%02d' $((hundredths / 100)) $((hundredths % 100)))"
}

# ---- the replicas, and what befalls them

declare -A replica
start() {
    ftqd --id "$1" --cluster cluster --data "data$1" --socket none --insecure 2>>"log$1" &
    replica[$1]=$!
}
crash() {
    { kill -KILL "${replica[$1]}" && wait "${replica[$1]}"; } 2>/dev/null
}
# Nothing passes between this replica and the others.
cut() {
    nft -f - <<-END
	table ip cut {
	    chain arriving {
	        type filter hook input priority 0
	        ip saddr 10.77.0.$1 ip daddr != 10.77.0.$1 drop
	        ip daddr 10.77.0.$1 ip saddr != 10.77.0.$1 drop
	    }
	}
	END
}
heal() {
    nft delete table ip cut 2>/dev/null
}
# Until it is quiet.
trouble() {
    local id
    trap '{ kill -KILL "${replica[@]}"; wait; } 2>/dev/null; exit' TERM
    for id in 1 2 3; do start $id; done
    while [ ! -e quiet ]; do
        id=$((RANDOM % 3 + 1))
        case $((RANDOM % 5)) in
        0 | 1) crash $id; moment 99; start $id ;;
        2 | 3) cut $id; moment 199; heal ;;
        4) for id in 1 2 3; do crash $id; done; for id in 1 2 3; do start $id; done ;;
        esac
        echo >>troubles
        moment 199
    done
    wait
}
printf '%s\n' '1 10.77.0.1:7400' '2 10.77.0.2:7400' '3 10.77.0.3:7400' >cluster
trouble &
troublemaker=$!
end_trouble() {
    touch quiet
    kill "$troublemaker" 2>/dev/null
    wait "$troublemaker" 2>/dev/null
}
trap 'end_trouble; finish' EXIT
ftqc -t 60 qCreate lines >/dev/null && ftqc -t 60 qCreate jobs >/dev/null || fail "no group"

# ---- the clients, and what befalls them

seq 1 "$COUNT" >lines
awk -v batch=$BATCH '{ ORS = NR % batch ? " " : "\n"; print } END { if (NR % batch) printf "\n" }' lines >batches

push_lines() { exec ftqc -t 120 push --session lines.pushed lines < <(cat lines; exec sleep "$1"); }
push_jobs() { exec ftqc -t 120 push --session jobs.pushed jobs < <(cat batches; exec sleep "$1"); }
pop_lines() { exec ftqc -t 120 pop -n "$COUNT" -w --session lines.popped --output out lines; }
work() {
    # shellcheck disable=SC2016
    exec ftqc work -v -j8 --lease 3 jobs -- sh -c 'echo "$FTQ_RECEIPT $FTQ_TRY $1" >>"$0"' "$place/done" {} 2>>told
}

# Runs a client KILLS times and kills it each time at a random moment; what has come to its end before counts as well
# where $1 is `any`.
through_deaths() {
    local mode=$1 killed=0
    shift
    while [ $killed -lt "$KILLS" ]; do
        "$@" &
        local pid=$!
        moment "$SPAN"
        kill -KILL $pid 2>/dev/null
        { wait $pid; } 2>/dev/null
        local status=$?
        case $status in
        137) killed=$((killed + 1)) ;;
        0) if [ "$mode" = any ]; then killed=$((killed + 1)); else fail "$1 ended before it was killed"; fi ;;
        *) fail "$1: status $status" ;;
        esac
    done
}

begun=$SECONDS
through_deaths each push_lines 9 & p1=$!
through_deaths each push_jobs 9 & p2=$!
through_deaths any pop_lines & p3=$!
through_deaths each work & p4=$!
for pid in $p1 $p2 $p3 $p4; do wait $pid || fail "a client"; done
echo "$((SECONDS - begun)) s: each was killed $KILLS times, with $(wc -l <troubles) troubles so far"

# Now they may come to their end, and still nobody leaves the replicas in peace.
(push_lines 0) & p1=$!
(push_jobs 0) & p2=$!
(pop_lines) & p3=$!
for pid in $p1 $p2 $p3; do wait $pid || fail "a client at the end"; done
work & worker=$!
own+=("$worker")
left() { ftqc -t 60 -j queues | tr '{,' '\n\n' | awk -F: '/"label"/ { jobs = /"jobs"/ }
    jobs && /"(size|leased|delayed|buried)"/ { left += $2 } END { print left + 0 }'; }
until [ "$(left)" = 0 ]; do sleep 0.2; done
kill "$worker" && wait "$worker"
[ $? = 0 ] || fail "the worker"
echo "$((SECONDS - begun)) s: all is pushed, popped and done, with $(wc -l <troubles) troubles"
end_trouble

# ---- what came of it

cmp out lines || fail "the lines were not popped once each and in order"
# Every line was worked on; by receipts, first deliveries come in the order of the lines.
sort -n done | awk -v lines="$COUNT" '
    $1 == receipt { print "two jobs for one lease: " $1; wrong = 1 }
    { receipt = $1; for (i = 3; i <= NF; i++) if (!seen[$i]++) count++ }
    $2 == 1 { if ($3 <= last) { print "out of order: " $3 " behind " last; wrong = 1 } last = $3 }
    END { if (count != lines) { print count " of " lines " lines were worked on"; wrong = 1 } exit wrong }' ||
    fail "the work"
# What was acknowledged was not acknowledged or delivered again: its items are named by their first lines.
sed -n 's/^ftqc: \([0-9]*\): acknowledged$/\1/p' told | sort -n | awk '
    NR == FNR { item[$1] = $3; if ($1 > latest[$3]) latest[$3] = $1; next }
    !($1 in item) { print "acknowledged and not done: " $1; wrong = 1; next }
    { if (told[item[$1]]++) { print "acknowledged twice: " item[$1]; wrong = 1 } }
    latest[item[$1]] > $1 { print "delivered after it was acknowledged: " item[$1]; wrong = 1 }
    END { print FNR " items told to be acknowledged"; exit wrong }' done - || fail "the acknowledgements"
echo "$COUNT lines, $(wc -l <batches) items worked on in $(wc -l <done) leases: all is well"
