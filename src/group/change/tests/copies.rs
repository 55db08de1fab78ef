//! Older copies of a directory: who remembers more of a replica than its disk does (DESIGN 5.6).

use super::*;

fn doubt(epoch: u64, run: Run, durable: u64) -> ChangeFrame {
    ChangeFrame::Doubt { epoch: Epoch(epoch), run, durable: Slot(durable) }
}

fn later(run: Run) -> Run {
    Run { incarnation: run.incarnation.next(), ..run }
}

/// Replica 3 proposes, and hears these promises: who, where its log ends, what it remembers of replica 1.
fn chosen(promises: &[(u8, u64, u64)]) -> (Bench, Vec<Action>) {
    let mut bench = Bench::new(3);
    bench.propose();
    let ballot = bench.ballot(1, 3);
    let mut said = Vec::new();
    for &(id, end, durable) in promises {
        let remembers = vec![(ReplicaId(1), Slot(durable)), (ReplicaId(2), Slot(1))];
        let promise = Promise { remembers, ..promise_of(&bench, id, end) };
        said.extend(bench.hear(id, ChangeFrame::Promise { epoch: bench.view.epoch, ballot, promise }));
    }
    (bench, said)
}

fn is_doubt(frame: &ChangeFrame) -> bool {
    matches!(frame, ChangeFrame::Doubt { .. })
}

#[test]
fn a_promise_that_ends_below_what_another_remembers_counts_for_nothing() {
    // 2 was told that 1 is durable at 9, but 1's log ends at 5.
    for order in [[(3, 5, 5), (1, 5, 5), (2, 5, 9)], [(3, 5, 5), (2, 5, 9), (1, 5, 5)]] {
        let (bench, said) = chosen(&order);
        assert_eq!(ids(&said, is_doubt), [1]);
        assert!(said
            .iter()
            .any(|action| matches!(action, Action::Say { frame, .. } if *frame == doubt(1, bench.member(1), 9))));
        assert_eq!(ids(&said, is_sync), [2, 3], "the others go on without it");
    }
    // Without it there is no quorum.
    let (bench, said) = chosen(&[(3, 5, 9), (1, 5, 5)]);
    assert_eq!((ids(&said, is_doubt), ids(&said, is_sync)), (vec![1], vec![]));
    assert_eq!(bench.change.proposing().map(|(_, phase)| phase), Some(Phase::Prepare));
    // Nobody remembers more than there is.
    let (_, said) = chosen(&[(3, 5, 5), (1, 9, 9), (2, 5, 9)]);
    assert_eq!((ids(&said, is_doubt), ids(&said, is_sync)), (vec![], vec![1, 2, 3]));
}

/// It may have promised a higher ballot, and forgotten it.
#[test]
fn what_an_older_copy_accepts_counts_for_nothing() {
    let (mut bench, _) = chosen(&[(3, 5, 5), (1, 5, 5), (2, 5, 9)]);
    let (epoch, ballot) = (bench.view.epoch, bench.ballot(1, 3));
    let phase = |bench: &Bench| bench.change.proposing().map(|(_, phase)| phase);
    for id in [2, 3] {
        bench.hear(id, ChangeFrame::Ready { epoch, ballot, base: log_end(5) });
    }
    assert_eq!(phase(&bench), Some(Phase::Accept));
    bench.hear(3, ChangeFrame::Accepted { epoch, ballot });
    let said = bench.hear(1, ChangeFrame::Accepted { epoch, ballot });
    assert_eq!(ids(&said, is_doubt), [1], "it is told again");
    assert_eq!(phase(&bench), Some(Phase::Accept));
    bench.hear(2, ChangeFrame::Accepted { epoch, ballot });
    assert_eq!(phase(&bench), Some(Phase::Install));
}

/// In memory durability, after an unclean stop: what this one forgot any other member may know.
#[test]
fn a_log_that_may_have_lost_its_end_counts_for_a_base_only_beside_all_others() {
    let chosen = |promises: &[(u8, bool)]| {
        let mut bench = Bench::new(3);
        bench.propose();
        let (ballot, epoch, mut said) = (bench.ballot(1, 3), bench.view.epoch, Vec::new());
        for &(id, whole) in promises {
            let promise = Promise { whole, ..promise_of(&bench, id, 5) };
            said.extend(bench.hear(id, ChangeFrame::Promise { epoch, ballot, promise }));
        }
        // Nobody else is waited for.
        bench.around.connected.retain(|id, _| promises.iter().any(|(promised, _)| *promised == id.0));
        bench.change.tick(NOW.after_ns(crate::limits::CHANGE_GATHER_NS), &bench.around, &mut said);
        said.iter().any(|action| matches!(action, Action::Say { frame, .. } if is_sync(frame)))
    };
    assert!(chosen(&[(3, true), (2, true)]));
    assert!(!chosen(&[(3, true), (2, false)]), "1 may know what 2 forgot");
    assert!(!chosen(&[(3, false), (2, true)]));
    assert!(chosen(&[(3, true), (2, false), (1, false)]), "there is no other log");
    assert!(chosen(&[(3, true), (2, false), (1, true)]));
    assert!(chosen(&[(3, false), (2, false), (1, false)]));
}

#[test]
fn who_forgot_says_so_until_it_is_in_a_view_again() {
    let mut bench = Bench::new(1);
    bench.change.distrust();
    assert!(!bench.change.is_voter());
    let around = bench.around.clone();
    bench.change.look_for_all(&around);
    assert!(bench.change.is_voter() && !bench.change.own_promise(bench.end).whole, "all are here, and it forgot");
    bench.change.readied = Some(Epoch(1));
    bench.hear(3, ChangeFrame::Install { view: bench.value(bench.ballot(1, 3), &[1, 2, 3], 5) });
    assert!(bench.change.own_promise(bench.end).whole);
}

fn promise_of(bench: &Bench, id: u8, end: u64) -> Promise {
    Promise {
        run: bench.member(id),
        voter: true,
        accepted: None,
        end: log_end(end),
        leaving: false,
        whole: true,
        remembers: Vec::new(),
    }
}

#[test]
fn a_promise_tells_what_its_sender_was_told() {
    let mut bench = Bench::new(1);
    let remembers = vec![(ReplicaId(2), Slot(4)), (ReplicaId(3), Slot(7))];
    bench.change.remember(remembers.clone());
    let (ballot, view) = (bench.ballot(1, 3), bench.view.clone());
    let said = bench.hear(3, ChangeFrame::Prepare { ballot, view });
    let tells =
        |frame: &ChangeFrame| matches!(frame, ChangeFrame::Promise { promise, .. } if promise.remembers == remembers);
    assert_eq!(ids(&said, tells), [3]);
    // It is about the view that ends: of the next one nothing was heard yet.
    bench.change.readied = Some(Epoch(1));
    bench.hear(3, ChangeFrame::Install { view: bench.value(ballot, &[1, 2, 3], 5) });
    assert!(bench.change.own_promise(bench.end).remembers.is_empty());
}

#[test]
fn who_is_doubted_looks_at_its_own_log() {
    let distrusts = |run: fn(&Bench) -> Run, epoch, durable| {
        let mut bench = Bench::new(1);
        let frame = doubt(epoch, run(&bench), durable);
        match &bench.hear(2, frame)[..] {
            [] => None,
            [Action::Distrust(why)] => Some(*why),
            other => panic!("{other:?}"),
        }
    };
    let own = |bench: &Bench| bench.member(1);
    assert_eq!(distrusts(own, 1, 6), Some(OldCopy::LongerLog(Slot(6))));
    assert_eq!(distrusts(own, 1, 5), None, "its log ends there");
    assert_eq!(distrusts(own, 2, 6), None, "it is not in that view");
    assert_eq!(distrusts(|bench| bench.member(2), 1, 6), None, "that is about another replica");
    assert_eq!(distrusts(|bench| later(bench.member(1)), 1, 0), Some(OldCopy::LaterRun(Incarnation(2))));
    assert_eq!(distrusts(|bench| Run { birth: crate::types::Birth(7), ..later(bench.member(1)) }, 1, 9), None);
}

#[test]
fn a_view_that_records_what_this_directory_cannot_know_shows_that_it_is_a_copy() {
    let after_install = |members: fn(Run) -> Run, readied: Option<Epoch>| {
        let mut bench = Bench::new(1);
        bench.change.readied = readied;
        let mut view = bench.value(bench.ballot(1, 3), &[1, 2, 3], 5);
        view.members[0] = members(view.members[0]);
        let before = bench.change.acceptor().clone();
        let why = bench.hear(3, ChangeFrame::Install { view }).into_iter().find_map(|action| match action {
            Action::Distrust(why) => Some(why),
            _ => None,
        });
        assert_eq!(why.is_some(), *bench.change.acceptor() == before, "a copy adopts nothing");
        why
    };
    assert_eq!(after_install(|run| run, None), Some(OldCopy::SameRun(Epoch(2))));
    assert_eq!(after_install(|run| run, Some(Epoch(1))), None);
    assert_eq!(after_install(later, Some(Epoch(1))), Some(OldCopy::LaterRun(Incarnation(2))));
    assert_eq!(
        after_install(|run| Run { birth: crate::types::Birth(7), ..run }, None),
        None,
        "put in by another birth"
    );
}
