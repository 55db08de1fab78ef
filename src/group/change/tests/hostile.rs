//! What must change nothing: answers of another decree, the same frame again, other branches, lost packets, and votes
//! that are none. Frames come from anywhere, in any order.

use super::super::*;
use crate::limits::{CHAIN_MAX, CHANGE_AGAIN_NS, CHANGE_GATHER_NS};
use crate::types::{Birth, ClusterId, Digest, GroupTime, Incarnation, Slot};
use crate::wire::view::tests::{run_of, view_of};
use crate::wire::view::Policy;

/// View 1 of replicas 1 to 3.
fn view() -> View {
    view_of(3, 3, Policy::Dynamic)
}

fn end(slot: u64) -> LogEnd {
    LogEnd { slot: Slot(slot), digest: Digest(slot * 7), time: GroupTime(slot) }
}

fn ballot(round: u64, id: u8) -> Ballot {
    let Run { id, birth, incarnation } = run_of(id);
    Ballot { round, id, birth, incarnation }
}

/// These are connected, but for some pairs.
fn among(ids: &[u8], apart: &[(u8, u8)]) -> Surroundings {
    Surroundings {
        connected: ids.iter().map(|&id| (ReplicaId(id), run_of(id))).collect(),
        apart: apart.iter().map(|&(a, b)| (ReplicaId(a), ReplicaId(b))).collect(),
        joining: ids.iter().filter(|&&id| id > 3).map(|&id| ReplicaId(id)).collect(),
        outnumbered: false,
    }
}

/// The value that follows view 1.
fn value(round: u64, id: u8, members: &[u8], base: u64) -> View {
    View {
        epoch: Epoch(2),
        ballot: ballot(round, id),
        members: members.iter().map(|&id| run_of(id)).collect(),
        base: Slot(base),
        chain: view().next_chain(),
        base_digest: end(base).digest,
        base_time: end(base).time,
        ..view()
    }
}

fn promise_of(id: u8, slot: u64, accepted: Option<(Ballot, View)>) -> Promise {
    Promise {
        run: run_of(id),
        voter: id <= 3,
        accepted,
        end: end(slot),
        leaving: false,
        whole: true,
        remembers: Vec::new(),
    }
}

/// A replica whose log ends at slot 5.
struct Replica {
    change: Change,
    around: Surroundings,
    now: Time,
}

impl Replica {
    fn new(id: u8) -> Replica {
        let acceptor = Acceptor { installed: Some(view()), ..Acceptor::default() };
        Replica { change: Change::new(run_of(id), acceptor), around: among(&[1, 2, 3], &[]), now: Time(0) }
    }

    fn propose(&mut self) -> Vec<Action> {
        let mut out = Vec::new();
        self.change.propose(self.now, &|_| end(5), &self.around, &mut out);
        out
    }

    fn hear(&mut self, from: u8, frame: ChangeFrame) -> Vec<Action> {
        self.hear_run(run_of(from), frame)
    }

    fn hear_run(&mut self, from: Run, frame: ChangeFrame) -> Vec<Action> {
        let mut out = Vec::new();
        self.change.on_frame(self.now, from, frame, &|_| end(5), &self.around, &mut out);
        out
    }

    fn promised(&mut self, ballot: Ballot, promise: Promise) -> Vec<Action> {
        self.hear_run(promise.run, ChangeFrame::Promise { epoch: Epoch(1), ballot, promise })
    }

    fn ready(&mut self, from: u8, ballot: Ballot, base: LogEnd) -> Vec<Action> {
        self.hear(from, ChangeFrame::Ready { epoch: Epoch(1), ballot, base })
    }

    fn accepted(&mut self, from: u8, ballot: Ballot) -> Vec<Action> {
        self.hear(from, ChangeFrame::Accepted { epoch: Epoch(1), ballot })
    }

    fn tick(&mut self) -> Vec<Action> {
        let mut out = Vec::new();
        self.change.tick(self.now, &self.around, &mut out);
        out
    }

    fn phase(&self) -> Option<Phase> {
        self.change.proposing().map(|(_, phase)| phase)
    }

    /// Proposer 3 under ballot 1.3, with promises of all.
    fn in_sync() -> Replica {
        let mut three = Replica::new(3);
        three.propose();
        (1..=3).for_each(|id| drop(three.promised(ballot(1, 3), promise_of(id, 5, None))));
        assert_eq!(three.phase(), Some(Phase::Sync));
        three
    }

    fn in_accept() -> Replica {
        let mut three = Replica::in_sync();
        (1..=3).for_each(|id| drop(three.ready(id, ballot(1, 3), end(5))));
        assert_eq!(three.phase(), Some(Phase::Accept));
        three
    }

    fn in_install() -> Replica {
        let mut three = Replica::in_accept();
        (1..=2).for_each(|id| drop(three.accepted(id, ballot(1, 3))));
        assert_eq!(three.phase(), Some(Phase::Install));
        three
    }
}

fn prepare(ballot: Ballot) -> ChangeFrame {
    ChangeFrame::Prepare { ballot, view: view() }
}

fn accept(ballot: Ballot, value: View) -> ChangeFrame {
    ChangeFrame::Accept { ballot, value, view: view() }
}

fn sync(ballot: Ballot, slot: u64) -> ChangeFrame {
    ChangeFrame::Sync { epoch: Epoch(1), ballot, base: end(slot), sources: vec![ReplicaId(3)] }
}

/// What is said, to whom, and whether only once all is on the disk.
fn said(actions: &[Action]) -> Vec<(u8, &ChangeFrame, bool)> {
    let say = |action| match action {
        &Action::Say { to, ref frame, durably } => Some((to.0, frame, durably)),
        _ => None,
    };
    actions.iter().filter_map(say).collect()
}

fn hearers(actions: &[Action]) -> Vec<u8> {
    said(actions).iter().map(|(to, ..)| *to).collect()
}

fn refusal(promised: Ballot) -> ChangeFrame {
    ChangeFrame::Refuse { epoch: Epoch(1), promised }
}

// ---- the proposer waits for what it needs

#[test]
fn a_quorum_waits_a_bounded_time_for_more_promises() {
    let mut three = Replica::new(3);
    three.propose();
    (2..=3).for_each(|id| drop(three.promised(ballot(1, 3), promise_of(id, 5, None))));
    three.now = Time(CHANGE_GATHER_NS - 1);
    three.tick();
    assert_eq!(three.phase(), Some(Phase::Prepare));
    three.now = Time(CHANGE_GATHER_NS);
    assert_eq!(three.change.deadline(), Some(three.now));
    assert_eq!(hearers(&three.tick()), [2, 3]);
    assert_eq!(three.phase(), Some(Phase::Sync));
}

#[test]
fn a_bound_value_is_completed_though_its_members_are_gone() {
    let mut three = Replica::new(3);
    let mut bound = value(4, 1, &[1], 9);
    bound.min_members = 3;
    three.propose();
    three.promised(ballot(1, 3), promise_of(3, 5, None));
    three.around = among(&[2, 3], &[]);
    let lower = Some((ballot(3, 2), value(3, 2, &[2, 3], 5)));
    three.promised(ballot(1, 3), promise_of(3, 5, lower));
    let out = three.promised(ballot(1, 3), promise_of(2, 5, Some((ballot(4, 1), bound.clone()))));
    let frame = accept(ballot(1, 3), bound.clone());
    assert_eq!(said(&out), [1, 2, 3].map(|to| (to, &frame, false)));
    (2..=3).for_each(|id| drop(three.accepted(id, ballot(1, 3))));
    three.hear(3, ChangeFrame::Install { view: bound.clone() });
    assert_eq!(three.change.acceptor().heard, Some(bound), "the ballot that names it is that of the first proposal");
    assert!(!three.change.is_voter() && !three.change.has_rank());
}

#[test]
fn what_an_outsider_accepted_or_holds_counts_for_nothing() {
    let mut three = Replica::new(3);
    three.around = among(&[2, 3, 4], &[]);
    three.propose();
    let foreign = Some((ballot(9, 1), value(9, 1, &[1], 9)));
    three.promised(ballot(1, 3), promise_of(4, 9, foreign.clone()));
    let reborn = Run { birth: Birth(77), ..run_of(2) };
    three.promised(ballot(1, 3), Promise { run: reborn, ..promise_of(2, 9, foreign) });
    three.promised(ballot(1, 3), promise_of(3, 5, None));
    assert_eq!(three.phase(), Some(Phase::Prepare), "an empty disk is no voter");
    let out = three.promised(ballot(1, 3), promise_of(2, 4, None));
    assert_eq!(three.phase(), Some(Phase::Sync));
    assert_eq!(hearers(&out), [2, 3, 4], "it may join all the same");
}

#[test]
fn every_member_is_ready_before_the_decree() {
    let mut three = Replica::in_sync();
    three.ready(1, ballot(1, 3), end(5));
    three.ready(2, ballot(1, 3), end(5));
    three.ready(2, ballot(1, 3), end(5));
    assert_eq!(three.phase(), Some(Phase::Sync));
    three.now = Time(CHANGE_AGAIN_NS);
    assert_eq!(hearers(&three.tick()), [3], "only who is missing is asked again");
    let out = three.ready(3, ballot(1, 3), end(5));
    let frame = accept(ballot(1, 3), value(1, 3, &[1, 2, 3], 5));
    assert_eq!(said(&out), [1, 2, 3].map(|to| (to, &frame, false)));
}

#[test]
fn a_quorum_of_the_old_view_decides() {
    let mut three = Replica::in_accept();
    three.accepted(2, ballot(1, 3));
    three.accepted(2, ballot(1, 3));
    assert_eq!(three.phase(), Some(Phase::Accept));
    three.now = Time(CHANGE_AGAIN_NS);
    assert_eq!(hearers(&three.tick()), [1, 3]);
    three.hear_run(
        Run { birth: Birth(77), ..run_of(1) },
        ChangeFrame::Accepted { epoch: Epoch(1), ballot: ballot(1, 3) },
    );
    assert_eq!(three.phase(), Some(Phase::Accept), "an empty disk is no voter");
    let restarted = Run { incarnation: Incarnation(9), ..run_of(1) };
    let out = three.hear_run(restarted, ChangeFrame::Accepted { epoch: Epoch(1), ballot: ballot(1, 3) });
    let frame = ChangeFrame::Install { view: value(1, 3, &[1, 2, 3], 5) };
    assert_eq!(said(&out), [1, 2, 3].map(|to| (to, &frame, false)));
}

#[test]
fn install_is_said_until_every_member_has_it() {
    let mut three = Replica::in_install();
    three.around = among(&[1, 3, 4], &[]);
    three.hear(3, ChangeFrame::Install { view: value(1, 3, &[1, 2, 3], 5) });
    assert_eq!(three.phase(), Some(Phase::Install), "its own install does not end it");
    three.hear(3, ChangeFrame::Installed { epoch: Epoch(2) });
    three.hear(1, ChangeFrame::Installed { epoch: Epoch(1) });
    three.now = Time(CHANGE_AGAIN_NS);
    assert_eq!(hearers(&three.tick()), [1, 2, 4], "and to outsiders that are here");
    (1..=2).for_each(|id| drop(three.hear(id, ChangeFrame::Installed { epoch: Epoch(2) })));
    assert_eq!(three.phase(), None);
}

// ---- refusals

#[test]
fn a_refusal_ends_the_attempt_and_the_next_ballot_is_higher() {
    let mut three = Replica::in_accept();
    three.hear(1, refusal(ballot(1, 2)));
    assert_eq!(three.phase(), Some(Phase::Accept), "it refuses another's ballot");
    three.hear(1, refusal(ballot(7, 1)));
    assert_eq!(three.phase(), None);
    three.propose();
    assert_eq!(three.change.proposing(), Some((ballot(8, 3), Phase::Prepare)));
    let mut three = Replica::in_install();
    three.hear(1, refusal(ballot(7, 1)));
    assert_eq!(three.phase(), Some(Phase::Install), "what is decided is decided");
}

#[test]
fn another_branch_is_left_alone() {
    let mut one = Replica::new(1);
    let elsewhere = View { cluster: ClusterId(5), epoch: Epoch(9), ..view() };
    let twin = View { ballot: ballot(1, 2), ..view() };
    for view in [elsewhere, twin] {
        let value = View { epoch: view.epoch.next(), ..view.clone() };
        assert_eq!(one.hear(2, ChangeFrame::Install { view: view.clone() }), []);
        assert_eq!(one.hear(2, ChangeFrame::Prepare { ballot: ballot(1, 2), view: view.clone() }), []);
        assert_eq!(one.hear(2, ChangeFrame::Accept { ballot: ballot(1, 2), value, view }), []);
    }
    assert_eq!(one.hear(2, accept(ballot(1, 2), View { epoch: Epoch(3), ..view() })), [], "it skips an epoch");
    assert_eq!(one.hear(2, accept(ballot(1, 2), View { cluster: ClusterId(5), ..value(1, 2, &[2], 5) })), []);
    assert_eq!(one.change.acceptor().newest(), Some(&view()));
}

#[test]
fn ready_counts_only_for_its_ballot_base_digest_and_run() {
    let mut three = Replica::in_sync();
    (1..=2).for_each(|id| drop(three.ready(id, ballot(1, 3), end(5))));
    three.ready(3, ballot(2, 3), end(5));
    three.ready(3, ballot(1, 3), end(4));
    three.ready(3, ballot(1, 3), LogEnd { digest: Digest(1), ..end(5) });
    let restarted = Run { incarnation: Incarnation(2), ..run_of(3) };
    three.hear_run(restarted, ChangeFrame::Ready { epoch: Epoch(1), ballot: ballot(1, 3), base: end(5) });
    three.hear(3, ChangeFrame::Ready { epoch: Epoch(2), ballot: ballot(1, 3), base: end(5) });
    assert_eq!(three.phase(), Some(Phase::Sync));
    three.ready(3, ballot(1, 3), end(5));
    assert_eq!(three.phase(), Some(Phase::Accept));
}

#[test]
fn answers_count_only_in_their_epoch_and_ballot() {
    let mut three = Replica::new(3);
    three.propose();
    three.promised(ballot(1, 3), promise_of(3, 5, None));
    three.around = among(&[2, 3], &[]);
    three.promised(ballot(2, 3), promise_of(2, 5, None));
    let promise = promise_of(2, 5, None);
    three.hear(2, ChangeFrame::Promise { epoch: Epoch(2), ballot: ballot(1, 3), promise: promise.clone() });
    three.hear(1, ChangeFrame::Promise { epoch: Epoch(1), ballot: ballot(1, 3), promise });
    assert_eq!(three.phase(), Some(Phase::Prepare));
    let mut three = Replica::in_accept();
    (1..=3).for_each(|id| drop(three.accepted(id, ballot(2, 3))));
    (1..=3).for_each(|id| drop(three.hear(id, ChangeFrame::Accepted { epoch: Epoch(2), ballot: ballot(1, 3) })));
    assert_eq!(three.phase(), Some(Phase::Accept));
}

#[test]
fn who_has_no_vote_neither_proposes_nor_promises_nor_accepts() {
    let mut four = Replica::new(4);
    assert_eq!(four.propose(), []);
    let out = four.hear(3, prepare(ballot(1, 3)));
    let promise = Promise { end: end(5), ..promise_of(4, 5, None) };
    assert_eq!(said(&out), [(3, &ChangeFrame::Promise { epoch: Epoch(1), ballot: ballot(1, 3), promise }, true)]);
    assert_eq!(four.hear(3, accept(ballot(1, 3), value(1, 3, &[3, 4], 5))), []);
    assert_eq!(four.change.acceptor().promised, None);
}

// ---- the same again

#[test]
fn the_same_request_gets_the_same_answer_and_changes_nothing() {
    let mut one = Replica::new(1);
    let decided = value(1, 3, &[1, 2, 3], 5);
    let requests = [
        prepare(ballot(1, 3)),
        sync(ballot(1, 3), 5),
        accept(ballot(1, 3), decided.clone()),
        ChangeFrame::Install { view: decided },
    ];
    one.change.readied = Some(Epoch(1));
    for frame in requests {
        let first = one.hear(3, frame.clone());
        assert!(first.contains(&Action::Write) || matches!(first[..], [Action::Fetch { .. }]), "{first:?}");
        let before = one.change.fingerprint();
        let again = one.hear(3, frame);
        assert_eq!((said(&again), one.change.fingerprint()), (said(&first), before));
        assert!(!again.contains(&Action::Write));
    }
}

#[test]
fn what_is_read_back_after_a_crash_gives_the_same_answers() {
    let mut one = Replica::new(1);
    one.hear(3, prepare(ballot(2, 3)));
    one.hear(3, accept(ballot(2, 3), value(2, 3, &[1, 3], 5)));
    let restarted = Run { incarnation: Incarnation(2), ..run_of(1) };
    one.change = Change::new(restarted, one.change.acceptor().clone());
    assert!(one.change.is_frozen() && one.change.is_voter());
    let accepted = Some((ballot(2, 3), value(2, 3, &[1, 3], 5)));
    let promise = Promise { run: restarted, ..promise_of(1, 5, accepted) };
    let frame = ChangeFrame::Promise { epoch: Epoch(1), ballot: ballot(3, 2), promise };
    assert_eq!(said(&one.hear(2, prepare(ballot(3, 2)))), [(2, &frame, true)]);
    one.hear(3, ChangeFrame::Install { view: value(2, 3, &[1, 3], 5) });
    assert!(one.change.is_voter() && !one.change.has_rank(), "another run is recorded");
}

#[test]
fn no_ballot_is_used_twice() {
    let mut three = Replica::new(3);
    let mut used = BTreeSet::new();
    for incarnation in 1..5 {
        let run = Run { incarnation: Incarnation(incarnation), ..run_of(3) };
        // The promise may have been lost, or not.
        let acceptor = Acceptor { promised: None, ..three.change.acceptor().clone() };
        let kept = if incarnation % 2 == 0 { three.change.acceptor().clone() } else { acceptor };
        three.change = Change::new(run, kept);
        for _ in 0..3 {
            three.propose();
            let (ballot, _) = three.change.proposing().expect("a voter proposes");
            assert!(used.insert(ballot), "{ballot:?}");
        }
    }
    three.hear(1, prepare(ballot(40, 1)));
    three.propose();
    assert_eq!(three.change.proposing().map(|(b, _)| b.round), Some(41));
}

#[test]
fn install_comes_twice_and_late() {
    let mut three = Replica::new(3);
    let second = value(1, 2, &[2, 3], 5);
    let install = |view: &View| ChangeFrame::Install { view: view.clone() };
    three.change.readied = Some(Epoch(1));
    let out = three.hear(2, install(&second));
    assert_eq!(out[..2], [Action::Adopt(second.clone()), Action::Write]);
    assert_eq!(said(&out), [(2, &ChangeFrame::Installed { epoch: Epoch(2) }, true)]);
    // A change of view 2 is under way when it comes once more.
    three.around = among(&[2, 3], &[]);
    three.propose();
    let (again, before) = (three.hear(2, install(&second)), three.change.proposing());
    assert_eq!(said(&again), said(&out));
    assert!(again.len() == 1 && before.is_some() && three.change.is_frozen());
    // And when view 3 is installed.
    let third = View { epoch: Epoch(3), chain: second.next_chain(), ..second.clone() };
    three.change.readied = Some(Epoch(2));
    three.hear(2, install(&third));
    assert_eq!(three.change.proposing(), None);
    assert_eq!(said(&three.hear(2, install(&second))), [(2, &install(&third), true)]);
}

#[test]
fn a_newer_view_without_this_replica_takes_its_vote_and_nothing_else() {
    let mut one = Replica::new(1);
    one.hear(3, prepare(ballot(1, 3)));
    one.hear(3, ChangeFrame::Install { view: value(1, 3, &[2, 3], 5) });
    let acceptor = one.change.acceptor();
    assert_eq!((&acceptor.installed, &acceptor.promised), (&Some(view()), &None));
    assert!(!one.change.is_voter() && !one.change.has_rank() && !one.change.is_frozen());
    one.change.readied = Some(Epoch(2));
    one.hear(3, ChangeFrame::Install { view: View { epoch: Epoch(3), ..value(1, 3, &[1, 3], 5) } });
    assert_eq!(one.change.acceptor().heard, None);
    assert!(one.change.has_rank());
}

#[test]
fn a_prepare_brings_the_view_that_was_missed() {
    let mut one = Replica::new(1);
    let second = value(1, 3, &[1, 2, 3], 5);
    one.change.readied = Some(Epoch(1));
    let out = one.hear(2, ChangeFrame::Prepare { ballot: ballot(1, 2), view: second.clone() });
    let actions = [Action::Adopt(second), Action::Write, Action::Freeze, Action::Write];
    assert_eq!(out[..4], actions);
    let frame = ChangeFrame::Promise { epoch: Epoch(2), ballot: ballot(1, 2), promise: promise_of(1, 5, None) };
    assert_eq!(said(&out), [(2, &frame, true)]);
}

// ---- choosing

#[test]
fn who_cannot_follow_is_left_out_under_the_same_ballot() {
    let mut three = Replica::new(3);
    three.propose();
    for (id, slot) in [(1, 9), (2, 5), (3, 5)] {
        three.promised(ballot(1, 3), promise_of(id, slot, None));
    }
    (2..=3).for_each(|id| drop(three.ready(id, ballot(1, 3), end(9))));
    let mut out = Vec::new();
    three.change.leave_out(ReplicaId(1), &three.around, &mut out);
    assert_eq!(hearers(&out), [2, 3]);
    let sources = vec![ReplicaId(2), ReplicaId(3)];
    let frame = ChangeFrame::Sync { epoch: Epoch(1), ballot: ballot(1, 3), base: end(5), sources };
    assert!(said(&out).iter().all(|(_, sync, _)| **sync == frame), "its longer log counts for nothing: {out:?}");
    three.ready(1, ballot(1, 3), end(5));
    three.ready(2, ballot(1, 3), end(9));
    three.ready(2, ballot(1, 3), end(5));
    assert_eq!(three.phase(), Some(Phase::Sync), "READY for the old base is none for the new one");
    let out = three.ready(3, ballot(1, 3), end(5));
    assert_eq!(said(&out)[0].1, &accept(ballot(1, 3), value(1, 3, &[2, 3], 5)));
    let mut out = Vec::new();
    three.change.leave_out(ReplicaId(2), &three.around, &mut out);
    assert_eq!((out, three.phase()), (vec![], Some(Phase::Accept)), "one ballot carries one value");
}

#[test]
fn who_is_left_out_is_no_source_either() {
    let mut three = Replica::in_sync();
    let mut out = Vec::new();
    three.change.leave_out(ReplicaId(1), &three.around, &mut out);
    let sources = vec![ReplicaId(2), ReplicaId(3)];
    let frame = ChangeFrame::Sync { epoch: Epoch(1), ballot: ballot(1, 3), base: end(5), sources };
    assert_eq!(said(&out), [2, 3].map(|to| (to, &frame, false)));
    three.now = Time(CHANGE_AGAIN_NS);
    assert_eq!(said(&three.tick()), [2, 3].map(|to| (to, &frame, false)));
}

#[test]
fn too_few_are_left_to_choose_from() {
    let mut three = Replica::new(3);
    three.around = among(&[2, 3], &[]);
    three.propose();
    (2..=3).for_each(|id| drop(three.promised(ballot(1, 3), promise_of(id, 5, None))));
    let mut out = Vec::new();
    three.change.leave_out(ReplicaId(2), &three.around, &mut out);
    assert_eq!((out, three.phase()), (vec![], None), "3 alone is no quorum of {{1,2,3}}: the attempt is over");
    three.promised(ballot(1, 3), promise_of(2, 5, None));
    assert_eq!(three.phase(), None, "what comes late under it starts nothing");
    // What 1 accepted has been chosen by nobody else yet, and binds the next attempt.
    three.propose();
    three.promised(ballot(2, 3), promise_of(3, 5, None));
    let out = three.promised(ballot(2, 3), promise_of(1, 5, Some((ballot(1, 1), value(1, 1, &[1, 2], 3)))));
    let out = if out.is_empty() { three.promised(ballot(2, 3), promise_of(2, 5, None)) } else { out };
    assert_eq!(said(&out)[0].1, &accept(ballot(2, 3), value(1, 1, &[1, 2], 3)));
}

#[test]
fn where_a_larger_quorum_is_connected_without_it_the_attempt_is_over() {
    // While 3 asked, 1 ceased to hear it, as 2 had: they are two, and connected. What is bound is completed anyway.
    let accepted = Some((ballot(1, 1), value(1, 1, &[1, 2], 3)));
    for (outnumbered, accepted, phase) in
        [(true, None, None), (false, None, Some(Phase::Sync)), (true, accepted, Some(Phase::Accept))]
    {
        let mut three = Replica::new(3);
        three.propose();
        three.around = Surroundings { outnumbered, ..among(&[3], &[]) };
        assert_eq!(three.promised(ballot(1, 3), promise_of(3, 5, None)), []);
        three.promised(ballot(1, 3), promise_of(1, 5, accepted));
        assert_eq!(three.phase(), phase);
    }
}

#[test]
fn members_are_the_largest_set_that_is_connected_with_the_greatest_ids() {
    let chosen = |apart: &[(u8, u8)], leaving: u8| {
        let mut three = Replica::new(3);
        three.around = among(&[1, 2, 3, 4, 5], apart);
        three.propose();
        for id in 1..=5 {
            let promise = Promise { leaving: id == leaving, ..promise_of(id, 5, None) };
            let out = three.promised(ballot(1, 3), promise);
            if id == 5 {
                return hearers(&out);
            }
        }
        unreachable!("5 comes last")
    };
    assert_eq!(chosen(&[], 0), [1, 2, 3, 4, 5]);
    assert_eq!(chosen(&[(1, 2)], 0), [2, 3, 4, 5], "of equal sets the one with the greater ids");
    assert_eq!(chosen(&[(1, 3), (2, 3)], 0), [1, 2, 4, 5], "two are more than the greatest");
    assert_eq!(chosen(&[(4, 5)], 0), [1, 2, 3, 5], "of outsiders the greatest first");
    assert_eq!(chosen(&[(1, 5)], 0), [1, 2, 3, 4], "a voter before an outsider");
    assert_eq!(chosen(&[], 3), [1, 2, 4, 5], "who leaves is left out");
}

#[test]
fn of_two_logs_of_one_length_only_the_chosen_one_is_a_source() {
    let mut three = Replica::new(3);
    three.propose();
    let other = LogEnd { digest: Digest(99), ..end(5) };
    three.promised(ballot(1, 3), promise_of(1, 5, None));
    three.promised(ballot(1, 3), Promise { end: other, ..promise_of(2, 5, None) });
    let out = three.promised(ballot(1, 3), promise_of(3, 5, None));
    let frame = ChangeFrame::Sync { epoch: Epoch(1), ballot: ballot(1, 3), base: other, sources: vec![ReplicaId(2)] };
    assert_eq!(said(&out)[0].1, &frame);
}

#[test]
fn a_view_that_may_not_exist_is_not_chosen() {
    let mut three = Replica::new(3);
    three.change.acceptor.installed = Some(View { min_members: 3, ..view() });
    three.around = among(&[2, 3], &[]);
    three.propose();
    (2..=3).for_each(|id| drop(three.promised(ballot(1, 3), promise_of(id, 5, None))));
    assert_eq!(three.phase(), Some(Phase::Prepare));
}

// ---- logs

#[test]
fn ready_is_said_for_what_was_asked_last() {
    let mut one = Replica::new(1);
    let mut out = Vec::new();
    one.change.synced(end(7), &mut out);
    one.hear(3, prepare(ballot(1, 3)));
    one.hear(3, sync(ballot(1, 3), 7));
    one.change.synced(end(6), &mut out);
    assert_eq!(out, [], "nobody asked");
    one.change.synced(end(7), &mut out);
    let frame = ChangeFrame::Ready { epoch: Epoch(1), ballot: ballot(1, 3), base: end(7) };
    assert_eq!(said(&out), [(3, &frame, true)]);
    one.hear(2, prepare(ballot(2, 2)));
    out.clear();
    one.change.synced(end(7), &mut out);
    assert_eq!(out, [], "a higher ballot was promised");
}

#[test]
fn what_an_installed_view_starts_from_is_kept_however_old() {
    let mut acceptor = Acceptor { installed: Some(view()), ..Acceptor::default() };
    for epoch in 2..=CHAIN_MAX as u64 + 9 {
        let before = acceptor.newest().expect("the first").clone();
        let next = View { epoch: Epoch(epoch), base: Slot(epoch), chain: before.next_chain(), ..before };
        acceptor.installed = Some(next);
    }
    let base = CHAIN_MAX as u64 + 9;
    assert!(acceptor.keeps(Epoch(1), Slot(2)) && acceptor.keeps(Epoch(1), Slot(base)));
    assert!(!acceptor.keeps(Epoch(1), Slot(base + 1)) && acceptor.keeps(Epoch(base), Slot(base + 1)));
    // To one that was in none of them since, the chain says what is history, as far as it reaches back.
    let outsider = Acceptor { heard: acceptor.installed.take(), installed: Some(view()), ..Acceptor::default() };
    assert!(!outsider.keeps(Epoch(1), Slot(2)), "the base of epoch 2 is forgotten");
    assert!(outsider.keeps(Epoch(60), Slot(61)) && !outsider.keeps(Epoch(60), Slot(62)));
}
