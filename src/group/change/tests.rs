//! The rows of the table and the refusals, one by one: a replica of three at a time, its frames handed to it by hand.

mod copies;
mod hostile;

use super::*;
use crate::types::{Digest, GroupTime, Incarnation, Slot};
use crate::wire::view::tests::view_of;
use crate::wire::view::Policy;

const NOW: Time = Time(1_000);

/// One replica of a view of three, whose log ends at `end`.
struct Bench {
    change: Change,
    view: View,
    around: Surroundings,
    end: LogEnd,
}

fn log_end(slot: u64) -> LogEnd {
    LogEnd { slot: Slot(slot), digest: Digest(slot * 7), time: GroupTime(slot) }
}

fn ids(actions: &[Action], wanted: impl Fn(&ChangeFrame) -> bool) -> Vec<u8> {
    let said = |action: &Action| match action {
        Action::Say { to, frame, .. } if wanted(frame) => Some(to.0),
        _ => None,
    };
    actions.iter().filter_map(said).collect()
}

impl Bench {
    fn new(id: u8) -> Bench {
        let view = view_of(3, 3, Policy::Dynamic);
        let acceptor = Acceptor { installed: Some(view.clone()), ..Acceptor::default() };
        let me = view.members[usize::from(id) - 1];
        let connected = view.members.iter().map(|m| (m.id, *m)).collect();
        let around = Surroundings { connected, ..Surroundings::default() };
        Bench { change: Change::new(me, acceptor), view, around, end: log_end(5) }
    }

    fn member(&self, id: u8) -> Run {
        self.view.members[usize::from(id) - 1]
    }

    fn ballot(&self, round: u64, id: u8) -> Ballot {
        let run = self.member(id);
        Ballot { round, id: run.id, birth: run.birth, incarnation: run.incarnation }
    }

    fn hear(&mut self, from: u8, frame: ChangeFrame) -> Vec<Action> {
        let (end, mut out) = (self.end, Vec::new());
        self.change.on_frame(NOW, self.member(from), frame, &|_| end, &self.around, &mut out);
        out
    }

    fn propose(&mut self) -> Vec<Action> {
        let (end, mut out) = (self.end, Vec::new());
        self.change.propose(NOW, &|_| end, &self.around, &mut out);
        out
    }

    fn promised(&mut self, from: u8, ballot: Ballot, end: u64, accepted: Option<(Ballot, View)>) -> Vec<Action> {
        let promise = Promise {
            run: self.member(from),
            voter: true,
            accepted,
            end: log_end(end),
            leaving: false,
            whole: true,
            remembers: Vec::new(),
        };
        self.hear(from, ChangeFrame::Promise { epoch: self.view.epoch, ballot, promise })
    }

    fn ready(&mut self, from: u8, ballot: Ballot, base: LogEnd) -> Vec<Action> {
        self.hear(from, ChangeFrame::Ready { epoch: self.view.epoch, ballot, base })
    }

    /// The view that would follow with these members.
    fn value(&self, ballot: Ballot, members: &[u8], base: u64) -> View {
        let (end, chain) = (log_end(base), self.view.next_chain());
        let members = members.iter().map(|&id| self.member(id)).collect();
        let (epoch, base_digest, base_time) = (self.view.epoch.next(), end.digest, end.time);
        View { epoch, ballot, members, base: end.slot, base_digest, base_time, chain, ..self.view.clone() }
    }
}

fn is_accept(frame: &ChangeFrame) -> bool {
    matches!(frame, ChangeFrame::Accept { .. })
}

fn is_sync(frame: &ChangeFrame) -> bool {
    matches!(frame, ChangeFrame::Sync { .. })
}

fn is_install(frame: &ChangeFrame) -> bool {
    matches!(frame, ChangeFrame::Install { .. })
}

#[test]
fn a_proposer_promises_first_and_asks_all() {
    let mut bench = Bench::new(3);
    let said = bench.propose();
    assert_eq!(said[..2], [Action::Freeze, Action::Write]);
    assert!(bench.change.is_frozen() && !bench.change.has_rank());
    assert_eq!(ids(&said, |f| matches!(f, ChangeFrame::Prepare { .. })), [1, 2]);
    let all_durably = said.iter().all(|a| !matches!(a, Action::Say { durably: false, .. }));
    assert!(all_durably, "nothing is said before the promise is on the disk");
    let first = bench.change.proposing().expect("it proposes").0;
    bench.propose();
    assert!(bench.change.proposing().expect("it proposes again").0 > first, "no ballot is used twice");
}

#[test]
fn a_free_value_is_synced_up_to_the_longest_log_then_accepted_then_installed() {
    let mut bench = Bench::new(3);
    bench.propose();
    let ballot = bench.change.proposing().expect("it proposes").0;
    assert!(ids(&bench.promised(3, ballot, 5, None), is_sync).is_empty());
    assert!(ids(&bench.promised(1, ballot, 9, None), is_sync).is_empty(), "2 may answer, too");
    let said = bench.promised(2, ballot, 7, None);
    assert_eq!(ids(&said, is_sync), [1, 2, 3]);
    let base_is_nine = |a: &Action| match a {
        Action::Say { frame: ChangeFrame::Sync { base, sources, .. }, .. } => {
            *base == log_end(9) && *sources == [ReplicaId(1)]
        }
        _ => true,
    };
    assert!(said.iter().all(base_is_nine));

    assert_eq!(bench.ready(1, ballot, log_end(9)), []);
    let other_log = LogEnd { digest: Digest(1), ..log_end(9) };
    assert_eq!(bench.ready(2, ballot, other_log), [], "another log is not the same log");
    assert_eq!(bench.ready(2, bench.ballot(1, 1), log_end(9)), [], "nor another ballot's READY this one's");
    assert_eq!(bench.ready(2, ballot, log_end(9)), []);
    assert_eq!(ids(&bench.ready(3, ballot, log_end(9)), is_accept), [1, 2, 3]);

    let epoch = bench.view.epoch;
    assert!(ids(&bench.hear(3, ChangeFrame::Accepted { epoch, ballot }), is_install).is_empty());
    let said = bench.hear(1, ChangeFrame::Accepted { epoch, ballot });
    assert_eq!(ids(&said, is_install), [1, 2, 3], "two of three have decided");
}

#[test]
fn after_a_while_a_quorum_is_enough_and_the_silent_one_is_left_out() {
    let mut bench = Bench::new(3);
    bench.propose();
    let ballot = bench.change.proposing().expect("it proposes").0;
    bench.promised(3, ballot, 5, None);
    bench.promised(1, ballot, 5, None);
    let mut out = Vec::new();
    bench.change.tick(Time(NOW.0 + 99 * Time::MS), &bench.around, &mut out);
    assert!(ids(&out, is_sync).is_empty());
    bench.change.tick(Time(NOW.0 + 100 * Time::MS), &bench.around, &mut out);
    assert_eq!(ids(&out, is_sync), [1, 3]);
}

#[test]
fn one_half_without_the_highest_is_no_quorum() {
    let mut bench = Bench::new(1);
    bench.propose();
    let ballot = bench.change.proposing().expect("it proposes").0;
    bench.promised(1, ballot, 5, None);
    let mut out = Vec::new();
    bench.change.tick(Time(NOW.0 + 500 * Time::MS), &bench.around, &mut out);
    assert!(ids(&out, |f| is_sync(f) || is_accept(f)).is_empty());
}

#[test]
fn a_bound_value_is_completed_at_once_though_its_members_are_gone() {
    let mut bench = Bench::new(1);
    bench.propose();
    let ballot = bench.change.proposing().expect("it proposes").0;
    let old = bench.value(bench.ballot(1, 3), &[3], 9);
    let older = bench.value(bench.ballot(1, 2), &[2], 6);
    bench.promised(1, ballot, 5, Some((bench.ballot(1, 2), older)));
    bench.promised(2, ballot, 5, Some((bench.ballot(1, 3), old.clone())));
    let said = bench.promised(3, ballot, 5, None);
    assert_eq!(ids(&said, is_accept), [1, 2, 3], "no SYNC: its members were READY before it was first accepted");
    let carries = |a: &Action| match a {
        Action::Say { frame: ChangeFrame::Accept { value, .. }, .. } => *value == old,
        _ => true,
    };
    assert!(said.iter().all(carries), "the one with the highest ballot, and its own first ballot in its name");
}

#[test]
fn who_cannot_follow_is_left_out_under_the_same_ballot_but_not_after_accept() {
    let mut bench = Bench::new(3);
    bench.propose();
    let ballot = bench.change.proposing().expect("it proposes").0;
    for (id, end) in [(3, 5), (1, 5), (2, 9)] {
        bench.promised(id, ballot, end, None);
    }
    let mut out = Vec::new();
    bench.change.leave_out(ReplicaId(2), &bench.around, &mut out);
    assert_eq!(ids(&out, is_sync), [1, 3]);
    assert_eq!(bench.change.proposing(), Some((ballot, Phase::Sync)));
    bench.ready(1, ballot, log_end(5));
    bench.ready(3, ballot, log_end(5));
    assert_eq!(bench.change.proposing(), Some((ballot, Phase::Accept)));
    let mut out = Vec::new();
    bench.change.leave_out(ReplicaId(1), &bench.around, &mut out);
    assert_eq!((out, bench.change.proposing()), (vec![], Some((ballot, Phase::Accept))), "one ballot, one value");
}

#[test]
fn a_lower_ballot_is_refused_and_the_same_one_answered_alike() {
    let mut bench = Bench::new(1);
    let (low, high) = (bench.ballot(1, 2), bench.ballot(1, 3));
    let view = bench.view.clone();
    let first = bench.hear(3, ChangeFrame::Prepare { ballot: high, view: view.clone() });
    assert_eq!(first[..2], [Action::Freeze, Action::Write]);
    let again = bench.hear(3, ChangeFrame::Prepare { ballot: high, view: view.clone() });
    assert_eq!(again, first[2..], "answered again, and nothing else");
    let refusal = ChangeFrame::Refuse { epoch: view.epoch, promised: high };
    let refused = [Action::Say { to: ReplicaId(2), frame: refusal, durably: true }];
    assert_eq!(bench.hear(2, ChangeFrame::Prepare { ballot: low, view: view.clone() }), refused);
    let value = bench.value(low, &[2], 5);
    assert_eq!(bench.hear(2, ChangeFrame::Accept { ballot: low, value, view: view.clone() }), refused);
    let sync = ChangeFrame::Sync { epoch: view.epoch, ballot: low, base: log_end(5), sources: vec![] };
    assert_eq!(bench.hear(2, sync), refused);
    assert_eq!(bench.change.acceptor().accepted, None);
}

#[test]
fn accept_freezes_too_where_prepare_was_lost() {
    let mut bench = Bench::new(1);
    let ballot = bench.ballot(4, 3);
    let (view, value) = (bench.view.clone(), bench.value(ballot, &[1, 3], 5));
    let accept = ChangeFrame::Accept { ballot, value: value.clone(), view: view.clone() };
    let said = bench.hear(3, accept.clone());
    assert!(bench.change.is_frozen());
    let accepted = ChangeFrame::Accepted { epoch: view.epoch, ballot };
    let answer = Action::Say { to: ReplicaId(3), frame: accepted, durably: true };
    assert_eq!(said.last(), Some(&answer));
    assert_eq!(bench.hear(3, accept), [answer], "answered again, and nothing written");
    // The next proposer learns of it.
    let said = bench.hear(2, ChangeFrame::Prepare { ballot: bench.ballot(5, 2), view });
    let shows = |a: &Action| match a {
        Action::Say { frame: ChangeFrame::Promise { promise, .. }, .. } => {
            promise.accepted == Some((ballot, value.clone()))
        }
        _ => false,
    };
    assert!(said.iter().any(shows));
}

/// Replica 3 alone holds the base, and nobody can fetch it there, though all hear each other: the others go on from
/// what they have, for without it nothing was committed.
#[test]
fn a_base_that_nobody_can_fetch_is_given_up_with_those_who_hold_it() {
    let mut bench = Bench::new(3);
    bench.propose();
    let ballot = bench.ballot(1, 3);
    [(3, 9), (1, 5), (2, 5)].iter().for_each(|&(id, end)| drop(bench.promised(id, ballot, end, None)));
    bench.ready(3, ballot, log_end(9));
    let awaited = bench.change.awaited();
    assert_eq!(awaited, [bench.member(1), bench.member(2)]);
    assert_eq!(bench.change.to_blame(awaited), [bench.member(3)]);
    assert_eq!(bench.change.to_blame(vec![bench.member(1)]), [bench.member(1)], "2 and 3 can go on");
    let all: Vec<Run> = (1..=3).map(|id| bench.member(id)).collect();
    assert_eq!(bench.change.to_blame(all.clone()), all, "somebody is always to blame");
    let mut out = Vec::new();
    bench.change.leave_out(ReplicaId(3), &bench.around, &mut out);
    assert_eq!(ids(&out, is_sync), [1, 2]);
    let base = |frame: &ChangeFrame| matches!(frame, ChangeFrame::Sync { base, .. } if *base == log_end(5));
    assert_eq!(ids(&out, base), [1, 2]);
}

#[test]
fn install_ends_the_decree_once_and_older_frames_are_told_the_newest_view() {
    let mut bench = Bench::new(1);
    let ballot = bench.ballot(1, 3);
    let (old, new) = (bench.view.clone(), bench.value(ballot, &[1, 3], 5));
    bench.hear(3, ChangeFrame::Prepare { ballot, view: old.clone() });
    bench.change.readied = Some(old.epoch);
    let said = bench.hear(3, ChangeFrame::Install { view: new.clone() });
    assert_eq!(said[..2], [Action::Adopt(new.clone()), Action::Write]);
    assert!(!bench.change.is_frozen() && bench.change.has_rank());
    let again = bench.hear(3, ChangeFrame::Install { view: new.clone() });
    assert_eq!(again, said[2..], "installed once, answered again");
    for late in [ChangeFrame::Install { view: old.clone() }, ChangeFrame::Prepare { ballot, view: old }] {
        let said = bench.hear(2, late);
        let newest = Action::Say { to: ReplicaId(2), frame: ChangeFrame::Install { view: new.clone() }, durably: true };
        assert_eq!(said, [newest]);
    }
    assert!(!bench.change.is_frozen(), "what is late freezes nothing");
}

#[test]
fn another_run_has_no_rank_and_another_birth_no_vote() {
    let bench = Bench::new(1);
    let acceptor = bench.change.acceptor().clone();
    let mut restarted = bench.member(1);
    restarted.incarnation = Incarnation(restarted.incarnation.0 + 1);
    let change = Change::new(restarted, acceptor.clone());
    assert!(change.is_voter() && !change.has_rank());
    let mut wiped = restarted;
    wiped.birth.0 += 1;
    let mut change = Change::new(wiped, acceptor);
    assert!(!change.is_voter() && !change.has_rank());
    let mut out = Vec::new();
    change.propose(NOW, &|_| log_end(5), &bench.around, &mut out);
    assert_eq!((out, change.proposing()), (vec![], None), "only a voter may propose");
}

#[test]
fn a_view_without_this_replica_takes_its_vote_away() {
    let mut bench = Bench::new(2);
    let new = bench.value(bench.ballot(1, 3), &[1, 3], 5);
    bench.hear(3, ChangeFrame::Install { view: new.clone() });
    assert_eq!(bench.change.acceptor().heard, Some(new));
    assert!(bench.change.acceptor().installed.is_some() && !bench.change.is_voter() && !bench.change.has_rank());
}
