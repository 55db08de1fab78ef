//! Each reason, each hold, and the order of proposers; then links that are cut, as all replicas see them.

use super::*;
use crate::group::change::{Acceptor, ChangeFrame, LogEnd};
use crate::limits::{JOIN_DEBOUNCE_NS, REPLICAS_MAX};
use crate::types::{Birth, ClusterId, Epoch, Incarnation, PacketNumber, ViewTag};
use crate::wire::datagram::{Header, Status};
use crate::wire::view::tests::{run_of, view_of};
use crate::wire::view::{Ballot, Policy};

const SUSPECT_NS: u64 = 500 * Time::MS;
const NOW: Time = Time(10 * SUSPECT_NS);

/// One replica, and what it has heard of the others by now.
struct Bench {
    now: Time,
    view: View,
    change: Change,
    detect: Detect,
    damping: Damping,
    leaving: bool,
    book: Option<Book>,
    packet: u64,
}

fn later(run: Run) -> Run {
    Run { incarnation: run.incarnation.next(), ..run }
}

impl Bench {
    /// A run that knows this view and has heard nobody.
    fn alone(me: Run, view: View) -> Bench {
        let acceptor = Acceptor { installed: Some(view.clone()), ..Acceptor::default() };
        let (change, detect) = (Change::new(me, acceptor), Detect::new(me, SUSPECT_NS));
        Bench { now: NOW, view, change, detect, damping: Damping::default(), leaving: false, book: None, packet: 0 }
    }

    /// Member `me` of a view of so many, where everybody hears everybody.
    fn of(me: u8, members: u8) -> Bench {
        Bench::in_view(run_of(me), view_of(members, members.max(5), Policy::Dynamic))
    }

    fn in_view(me: Run, view: View) -> Bench {
        let mut bench = Bench::alone(me, view);
        let here: Vec<Run> = bench.view.members.iter().copied().filter(|m| m.id != me.id).chain([me]).collect();
        here.iter().for_each(|run| bench.says(*run, &here, |_| {}));
        bench
    }

    /// This run says whom it hears, and what else it reports.
    fn says(&mut self, run: Run, heard: &[Run], report: impl Fn(&mut Status)) {
        if run.id == self.detect.me().id {
            return;
        }
        let mut status = Status { epoch: self.view.epoch, ..Status::default() };
        heard.iter().filter(|h| h.id != run.id).for_each(|h| status.heard.push(*h));
        report(&mut status);
        self.packet += 1;
        let (cluster, packet, tag) = (ClusterId(1), PacketNumber(self.packet), self.view.tag());
        let tag = if self.view.members.contains(&run) { tag } else { ViewTag(0) };
        assert!(self.detect.on_header(self.now, &Header { cluster, run, packet, tag, status }));
    }

    /// Everybody hears everybody of these.
    fn all_hear(&mut self, here: &[Run]) {
        here.iter().for_each(|run| self.says(*run, here, |_| {}));
    }

    fn scene(&self) -> Scene<'_> {
        Scene {
            now: self.now,
            view: &self.view,
            change: &self.change,
            detect: &self.detect,
            damping: &self.damping,
            leaving: self.leaving,
            book: self.book.as_ref(),
        }
    }

    /// Who is calm has nothing to do, whatever a test has set up: nobody is ready to join, and nothing is due.
    fn check_calm(&self) {
        if self.scene().is_calm() {
            assert!(ready_to_join(self.now, &self.view, &self.detect).is_empty());
            let scene = Scene { damping: &Damping::default(), ..self.scene() };
            let around = scene.surroundings();
            assert_eq!((scene.may_propose(&around), scene.could_be_quorum(&around)), (Err(Hold::NotDue), true));
        }
    }

    fn due(&self) -> Option<Why> {
        let around = self.scene().surroundings();
        self.check_calm();
        self.scene().is_due(&around)
    }

    fn may(&self) -> Result<Why, Hold> {
        let around = self.scene().surroundings();
        self.check_calm();
        self.scene().may_propose(&around)
    }

    fn delay_ms(&self) -> u64 {
        let around = self.scene().surroundings();
        self.scene().delay_ns(&around, 7) / Time::MS
    }

    /// Time passes, and all of these speak again and hear each other.
    fn pass(&mut self, ns: u64, here: &[Run]) {
        self.now = self.now.after_ns(ns);
        self.all_hear(here);
    }

    /// A PREPARE of this run for the change that follows the view.
    fn prepared_by(&mut self, run: Run) {
        let ballot = Ballot { round: 1, id: run.id, birth: run.birth, incarnation: run.incarnation };
        let (frame, around) = (ChangeFrame::Prepare { ballot, view: self.view.clone() }, Surroundings::default());
        self.change.on_frame(self.now, run, frame, &|_| LogEnd::default(), &around, &mut Vec::new());
    }
}

fn id(id: u8) -> ReplicaId {
    ReplicaId(id)
}

fn runs(ids: &[u8]) -> Vec<Run> {
    ids.iter().copied().map(run_of).collect()
}

#[test]
fn nothing_is_due_where_all_is_well() {
    for members in 1..=5 {
        assert!(Bench::of(1, members).scene().is_calm());
        for me in 1..=members {
            let bench = Bench::of(me, members);
            assert_eq!((bench.due(), bench.may()), (None, Err(Hold::NotDue)), "{me} of {members}");
        }
    }
}

#[test]
fn two_members_that_are_not_connected() {
    let mut bench = Bench::of(1, 3);
    bench.pass(SUSPECT_NS, &runs(&[1, 3]));
    assert_eq!(bench.may(), Ok(Why::Apart(id(1), id(2))), "2 is silent");
    let mut bench = Bench::of(3, 3);
    bench.says(run_of(1), &runs(&[3]), |_| {});
    assert_eq!(bench.may(), Ok(Why::Apart(id(1), id(2))), "1 does not hear 2, as it says itself");
    let mut bench = Bench::of(3, 3);
    bench.says(run_of(1), &runs(&[2]), |_| {});
    assert_eq!(bench.may(), Ok(Why::Apart(id(1), id(3))), "1 does not hear this replica");
}

#[test]
fn a_member_that_was_started_again() {
    let mut bench = Bench::of(1, 3);
    bench.says(later(run_of(2)), &runs(&[1, 3]), |_| {});
    assert_eq!(bench.may(), Ok(Why::Restarted(id(2))));
    let bench = Bench::in_view(later(run_of(1)), view_of(3, 3, Policy::Dynamic));
    assert_eq!(bench.due(), Some(Why::Restarted(id(1))), "itself");
}

#[test]
fn a_member_that_leaves_but_not_if_all_do() {
    let mut bench = Bench::of(1, 3);
    bench.says(run_of(2), &runs(&[1, 3]), |s| s.leaving = true);
    assert_eq!(bench.may(), Ok(Why::Leaving(id(2))));
    bench.leaving = true;
    assert_eq!(bench.may(), Ok(Why::Leaving(id(1))));
    bench.says(run_of(3), &runs(&[1, 2]), |s| s.leaving = true);
    assert_eq!(bench.due(), None);
    let mut bench = Bench::of(1, 3);
    bench.says(run_of(4), &runs(&[1, 2, 3]), |s| s.leaving = true);
    assert_eq!(bench.due(), None, "a stranger's leave is harmless");
}

#[test]
fn a_voter_that_is_frozen_or_has_accepted_in_this_epoch() {
    let mut bench = Bench::of(1, 3);
    bench.says(run_of(2), &runs(&[1, 3]), |s| s.frozen = true);
    assert_eq!(bench.may(), Ok(Why::Frozen(id(2))));
    bench.says(run_of(3), &runs(&[1, 2]), |s| s.accepted = true);
    assert_eq!(bench.may(), Ok(Why::Accepted(id(3))));
    let mut bench = Bench::of(1, 3);
    bench.says(run_of(2), &runs(&[1, 3]), |s| (s.frozen, s.epoch) = (true, Epoch(0)));
    assert_eq!(bench.due(), None, "of an older epoch");
    bench.says(run_of(4), &runs(&[1, 2, 3]), |s| (s.frozen, s.accepted) = (true, true));
    assert_eq!(bench.due(), None, "no voter");
    bench.prepared_by(run_of(3));
    assert_eq!(bench.due(), Some(Why::Frozen(id(1))), "itself");
}

#[test]
fn a_joiner_once_it_is_ready_and_all_hear_it() {
    let mut bench = Bench::of(1, 3);
    bench.all_hear(&runs(&[1, 2, 3, 4]));
    assert_eq!(ready_to_join(bench.now, &bench.view, &bench.detect), [], "it does not ask");
    bench.says(run_of(4), &runs(&[1, 2, 3]), |s| s.joining = true);
    let ready = ready_to_join(bench.now, &bench.view, &bench.detect);
    assert_eq!(ready, runs(&[4]));
    bench.damping.observe(bench.now, &ready);
    assert_eq!(bench.due(), None, "others may follow");
    bench.pass(JOIN_DEBOUNCE_NS, &runs(&[1, 2, 3, 4]));
    assert_eq!(bench.may(), Ok(Why::Joining(id(4))));
    bench.says(run_of(4), &runs(&[1, 3]), |s| s.joining = true);
    assert_eq!(bench.may(), Err(Hold::NothingNew), "2 and 4 do not hear each other");
}

#[test]
fn a_book_that_is_to_change() {
    let mut bench = Bench::of(1, 3);
    bench.book = Some(bench.view.book[..4].to_vec());
    assert_eq!(bench.may(), Ok(Why::Book));
    bench.book = Some(bench.view.book.clone());
    assert_eq!(bench.may(), Err(Hold::NothingNew));
    let around = bench.scene().surroundings();
    bench.book = Some(bench.view.book[..2].to_vec());
    assert_eq!(bench.scene().would_be(&around).members, runs(&[1, 2]), "who is removed is not chosen");
}

#[test]
fn reasons_can_be_read() {
    let texts = [Why::Leaving(id(2)), Why::Apart(id(1), id(2)), Why::Joining(id(3))].map(|why| why.to_string());
    assert_eq!(texts, ["replica 2 is leaving", "replicas 1 and 2 do not hear each other", "replica 3 asks to join"]);
}

#[test]
fn who_has_no_vote_proposes_nothing() {
    let reborn = Run { birth: Birth(99), ..run_of(1) };
    assert_eq!(Bench::in_view(reborn, view_of(3, 3, Policy::Dynamic)).may(), Err(Hold::NoVote));
    assert_eq!(Bench::in_view(run_of(4), view_of(3, 5, Policy::Dynamic)).may(), Err(Hold::NoVote));
}

#[test]
fn without_rank_it_does_not_disturb_an_active_primary() {
    let me = later(run_of(1));
    let here = [me, run_of(2), run_of(3)];
    let primary = |bench: &Bench| matches!(bench.may(), Err(Hold::ActivePrimary(_)));
    let mut bench = Bench::alone(me, view_of(3, 3, Policy::Dynamic));
    bench.all_hear(&here);
    assert!(primary(&bench));
    bench.says(run_of(2), &[me], |_| {});
    bench.says(run_of(3), &[me], |_| {});
    assert!(!primary(&bench), "neither hears a commit quorum");
    bench.says(run_of(3), &here, |_| {});
    assert!(primary(&bench));
    bench.says(run_of(2), &here, |s| s.frozen = true);
    assert_eq!(bench.may(), Ok(Why::Restarted(id(1))), "with 2 frozen there is none");
    let mut bench = Bench::alone(me, view_of(3, 3, Policy::Dynamic));
    bench.all_hear(&[me, later(run_of(2)), later(run_of(3))]);
    assert_eq!(bench.may(), Ok(Why::Restarted(id(1))), "all were started again");
}

#[test]
fn it_waits_for_a_quorum_and_for_a_view_that_may_exist() {
    let mut bench = Bench::of(1, 2);
    bench.pass(SUSPECT_NS, &[]);
    assert_eq!(bench.may(), Err(Hold::NoQuorum), "1 is the half without the highest id");
    let mut bench = Bench::of(2, 2);
    bench.pass(SUSPECT_NS, &[]);
    assert_eq!(bench.may(), Ok(Why::Apart(id(1), id(2))));
    bench.view.min_members = 2;
    assert_eq!(bench.may(), Err(Hold::NotAllowed));
    assert!(Hold::NotAllowed.makes_secondary() && Hold::NoQuorum.makes_secondary());
    // {3,4,5} of five go on without 1 and 2; when 5 is silent, too, 3 and 4 are no quorum.
    let mut bench = Bench::of(3, 5);
    bench.pass(SUSPECT_NS, &runs(&[3, 4, 5]));
    assert!(bench.may().is_ok());
    bench.pass(SUSPECT_NS, &runs(&[3, 4]));
    assert_eq!(bench.may(), Err(Hold::NoQuorum));
}

#[test]
fn what_was_begun_is_finished_even_for_a_view_that_could_not_be_begun() {
    let mut bench = Bench::of(3, 3);
    bench.view.min_members = 3;
    bench.pass(SUSPECT_NS, &runs(&[2, 3]));
    assert_eq!(bench.may(), Err(Hold::NotAllowed));
    bench.says(run_of(2), &runs(&[3]), |s| s.frozen = true);
    assert_eq!(bench.may(), Ok(Why::Apart(id(1), id(3))));
}

#[test]
fn a_live_ballot_is_left_alone() {
    let mut bench = Bench::of(2, 3);
    bench.prepared_by(run_of(3));
    assert_eq!(bench.may(), Err(Hold::LiveBallot(id(3))));
    bench.pass(SUSPECT_NS - 1, &runs(&[1, 2]));
    bench.pass(1, &runs(&[1, 2]));
    assert_eq!(bench.may(), Ok(Why::Apart(id(2), id(3))), "nothing was heard of it for long enough");
    // Its proposer is not heard here, but by a voter that is.
    let mut bench = Bench::of(2, 3);
    bench.pass(SUSPECT_NS, &runs(&[1, 2]));
    bench.prepared_by(run_of(3));
    assert_eq!(bench.may(), Ok(Why::Apart(id(2), id(3))));
    bench.says(run_of(1), &runs(&[2, 3]), |_| {});
    assert_eq!(bench.may(), Err(Hold::LiveBallot(id(3))));
    // The proposer was started again.
    let mut bench = Bench::of(2, 3);
    bench.prepared_by(run_of(3));
    bench.says(later(run_of(3)), &runs(&[1, 2]), |_| {});
    bench.says(run_of(1), &[run_of(2), later(run_of(3))], |_| {});
    assert_eq!(bench.may(), Ok(Why::Restarted(id(3))));
}

#[test]
fn a_ballot_of_one_that_hears_no_quorum_is_not_waited_for() {
    // 5 hears 1 and 2, then only 1: of five it lacks answers, however often it asks.
    let mut bench = Bench::of(2, 5);
    bench.prepared_by(run_of(5));
    bench.says(run_of(5), &runs(&[1, 2]), |_| {});
    assert_eq!(bench.may(), Err(Hold::LiveBallot(id(5))));
    bench.says(run_of(5), &runs(&[1]), |_| {});
    assert_eq!(bench.may(), Ok(Why::Apart(id(2), id(5))));
    // Whom it hears in another run than the one that is here does not answer it.
    bench.says(run_of(5), &[run_of(1), later(run_of(2)), later(run_of(3)), later(run_of(4))], |_| {});
    assert_eq!(bench.may(), Ok(Why::Apart(id(2), id(5))));
}

#[test]
fn a_larger_quorum_that_is_connected_without_it_is_left_to_choose() {
    // 1 and 2 hear each other and not 3, which hears both.
    let mut bench = Bench::of(3, 3);
    bench.says(run_of(2), &runs(&[1]), |_| {});
    assert_eq!(bench.may(), Ok(Why::Apart(id(2), id(3))), "{{1,3}} is as good as {{1,2}}");
    bench.says(run_of(1), &runs(&[2]), |_| {});
    assert!(bench.may().is_err_and(|hold| hold == Hold::NoQuorum && hold.makes_secondary()));
    // Four of five are connected without 5, which is connected with 4 alone, or with two: that could be a quorum.
    for (alone, hold) in [(&[1, 2, 3][..], Hold::NoQuorum), (&[1, 2], Hold::Outnumbered)] {
        let mut bench = Bench::of(5, 5);
        alone.iter().for_each(|&id| bench.says(run_of(id), &runs(&[1, 2, 3, 4]), |_| {}));
        assert_eq!(bench.may(), Err(hold));
        assert!(hold.makes_secondary());
        // Of those that leave nobody is left to choose.
        [1, 2, 3].iter().for_each(|&id| bench.says(run_of(id), &runs(&[1, 2, 3, 4]), |s| s.leaving = true));
        assert_ne!(bench.may(), Err(Hold::Outnumbered));
    }
}

#[test]
fn an_attempt_of_its_own_is_left_alone() {
    let mut bench = Bench::of(3, 3);
    bench.pass(SUSPECT_NS, &runs(&[2, 3]));
    let around = bench.scene().surroundings();
    bench.change.propose(bench.now, &|_| LogEnd::default(), &around, &mut Vec::new());
    assert_eq!(bench.may(), Err(Hold::Proposing));
}

#[test]
fn the_highest_acts_at_once_and_each_other_a_step_later() {
    assert_eq!([5, 4, 3, 2, 1].map(|me| Bench::of(me, 5).delay_ms()), [0, 100, 200, 300, 400]);
    let around = Bench::of(2, 3).scene().surroundings();
    let bench = Bench::of(2, 3);
    let delay = |random| bench.scene().delay_ns(&around, random);
    assert_eq!((delay(0), delay(9)), (CHANGE_STEP_NS, CHANGE_STEP_NS + 9));
    assert_eq!(delay(CHANGE_JITTER_NS + 3), CHANGE_STEP_NS + 3);
    assert_eq!(Bench::of(3, 3).scene().delay_ns(&around, 9), 0, "without jitter");
    let mut bench = Bench::of(1, 3);
    bench.pass(SUSPECT_NS, &runs(&[1, 2]));
    assert_eq!(bench.delay_ms(), 100, "3 is not connected");
}

#[test]
fn one_with_rank_does_not_wait_for_those_without() {
    let mut bench = Bench::of(1, 3);
    bench.says(later(run_of(3)), &runs(&[1, 2]), |_| {});
    assert_eq!(bench.delay_ms(), 100, "only 2 comes before");
    bench.says(run_of(4), &runs(&[1, 2]), |_| {});
    assert_eq!(bench.delay_ms(), 100, "4 is no voter");
    let mut bench = Bench::alone(later(run_of(1)), view_of(3, 3, Policy::Dynamic));
    bench.all_hear(&[later(run_of(1)), later(run_of(2)), run_of(3)]);
    assert_eq!(bench.delay_ms(), 200, "one without rank waits for all");
}

#[test]
fn patience_runs_from_the_moment_it_may_and_ends_with_the_reason() {
    let (mut bench, mut patience) = (Bench::of(2, 3), Patience::default());
    let mut turn = |bench: &Bench| {
        let around = bench.scene().surroundings();
        let why = patience.turn(&bench.scene(), &around, 5);
        (why, patience.deadline(bench.now, SUSPECT_NS))
    };
    bench.says(run_of(1), &runs(&[2]), |s| s.leaving = true);
    bench.says(run_of(3), &runs(&[1, 2]), |_| {});
    let at = bench.now.after_ns(CHANGE_STEP_NS + 5);
    assert_eq!(turn(&bench), (None, Some(at)));
    bench.now = Time(at.0 - 1);
    assert_eq!(turn(&bench), (None, Some(at)));
    bench.now = at;
    assert_eq!(turn(&bench), (Some(Why::Leaving(id(1))), None));
    assert_eq!(turn(&bench), (None, Some(at.after_ns(CHANGE_STEP_NS + 5))), "the next one begins anew");
    bench.says(run_of(1), &runs(&[2, 3]), |_| {});
    assert_eq!(turn(&bench), (None, None), "nothing is due any more");
    bench.pass(SUSPECT_NS, &runs(&[1, 2]));
    assert_eq!(turn(&bench).0, Some(Why::Apart(id(2), id(3))), "it is the highest now");
}

#[test]
fn what_is_due_and_cannot_be_makes_secondary_after_a_while() {
    let (mut bench, mut patience) = (Bench::of(1, 2), Patience::default());
    bench.pass(SUSPECT_NS, &[]);
    let around = bench.scene().surroundings();
    assert_eq!(patience.turn(&bench.scene(), &around, 0), None);
    let end = bench.now.after_ns(SUSPECT_NS);
    assert_eq!(patience.deadline(bench.now, SUSPECT_NS), Some(end));
    assert!(!patience.is_secondary(Time(end.0 - 1), SUSPECT_NS) && patience.is_secondary(end, SUSPECT_NS));
    bench.now = end;
    bench.all_hear(&runs(&[1, 2]));
    let around = bench.scene().surroundings();
    patience.turn(&bench.scene(), &around, 0);
    assert!(!patience.is_secondary(end.after_ns(SUSPECT_NS), SUSPECT_NS));
}

/// What each replica of a view of so many sees once these one-way links have been cut for long.
fn cut(members: u8, cuts: &[(u8, u8)]) -> Vec<Bench> {
    let hears = |to: u8, from: u8| from != to && !cuts.contains(&(from, to));
    let heard_by = |to: u8| runs(&(1..=members).filter(|&from| hears(to, from)).collect::<Vec<u8>>());
    let replica = |me: u8| {
        let mut bench = Bench::alone(run_of(me), view_of(members, members, Policy::Dynamic));
        heard_by(me).iter().for_each(|run| bench.says(*run, &heard_by(run.id.0), |_| {}));
        bench
    };
    (1..=members).map(replica).collect()
}

/// Who would be in the view that this replica would choose, if it proposed: it hears the promises of those connected.
fn choice(bench: &Bench) -> Vec<u8> {
    let around = bench.scene().surroundings();
    bench.scene().would_be(&around).members.iter().map(|m| m.id.0).collect()
}

/// SCENARIOS 8: the link between 1 and 2 is cut both ways, then one way; 3 hears and is heard by both.
#[test]
fn a_single_cut_link_has_one_outcome() {
    for cuts in [&[(1, 2), (2, 1)][..], &[(1, 2)], &[(2, 1)]] {
        let replicas = cut(3, cuts);
        assert_eq!(replicas[2].may(), Ok(Why::Apart(id(1), id(2))));
        assert_eq!((replicas[2].delay_ms(), choice(&replicas[2])), (0, vec![2, 3]), "3 goes first");
        assert_eq!((choice(&replicas[1]), replicas[1].delay_ms()), (vec![2, 3], 100), "2 would choose the same");
        assert_eq!(replicas[0].delay_ms(), 100, "1 comes after 3");

        // In {2,3} nothing is due, and 1, which is connected with 3 alone, is not let in.
        let mut next = View { epoch: Epoch(2), ..view_of(3, 3, Policy::Dynamic) };
        next.members.remove(0);
        for k in [1, 2] {
            let mut bench = Bench::alone(run_of(k + 1), next.clone());
            let heard = |me: u8| runs(&(1..=3).filter(|&of| of != me && !cuts.contains(&(of, me))).collect::<Vec<_>>());
            for from in heard(k + 1) {
                bench.says(from, &heard(from.id.0), |s| s.joining = from.id == id(1));
            }
            bench.damping.observe(bench.now, &ready_to_join(bench.now, &next, &bench.detect));
            assert_eq!(bench.may(), Err(Hold::NotDue));
            bench.now = bench.now.after_ns(JOIN_DEBOUNCE_NS);
            let hold = if k == 2 { Hold::NothingNew } else { Hold::NotDue };
            assert_eq!(bench.may(), Err(hold), "no endless changes");
        }
    }
}

quickcheck::quickcheck! {
    /// Whatever links are cut: everyone who may propose chooses members that are connected with each other, and those
    /// who see the same choose the same.
    fn whoever_may_propose_chooses_a_connected_set(links: Vec<(u8, u8)>) -> bool {
        let cuts: Vec<(u8, u8)> = links.into_iter().map(|(a, b)| (a % 5 + 1, b % 5 + 1)).collect();
        let replicas = cut(5, &cuts);
        let fine = |bench: &Bench| {
            let members = choice(bench);
            let connected = |a: &u8| members.iter().all(|b| !cuts.contains(&(*a, *b)) || a == b);
            bench.may().is_err() || members.len() <= REPLICAS_MAX && members.iter().all(connected)
        };
        let agree = |a: &Bench, b: &Bench| {
            let (around_a, around_b) = (a.scene().surroundings(), b.scene().surroundings());
            around_a != around_b || choice(a) == choice(b)
        };
        replicas.iter().all(fine) && replicas.iter().all(|a| replicas.iter().all(|b| agree(a, b)))
    }

    /// Whatever links are cut: whoever leaves it to others leaves it to those who may, or have nothing to change.
    fn who_is_outnumbered_leaves_it_to_somebody(links: Vec<(u8, u8)>) -> bool {
        let cuts: Vec<(u8, u8)> = links.into_iter().map(|(a, b)| (a % 6 + 1, b % 6 + 1)).collect();
        let replicas = cut(6, &cuts);
        let goes_on = |bench: &Bench| matches!(bench.may(), Ok(_) | Err(Hold::NothingNew | Hold::NotDue));
        let leaves_it = |bench: &Bench| bench.may() == Err(Hold::Outnumbered);
        !replicas.iter().any(leaves_it) || replicas.iter().any(goes_on)
    }
}

#[test]
fn a_birth_that_is_not_recorded_does_not_count_for_the_quorum() {
    let mut bench = Bench::alone(run_of(3), view_of(3, 3, Policy::Dynamic));
    let reborn = |of: u8| Run { birth: Birth(90 + u64::from(of)), incarnation: Incarnation(1), ..run_of(of) };
    bench.all_hear(&[reborn(1), reborn(2), run_of(3)]);
    assert_eq!(bench.may(), Err(Hold::NoQuorum));
}
