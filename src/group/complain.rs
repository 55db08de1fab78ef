//! Complaints: one rule for the slow, the deaf and the dead (DESIGN 4.2). A member stops listing as heard whom it
//! complains of; the two are no longer connected, and a change of the view is due.
//!
//! | of a member of the view that for `suspect-after` | exceptions |
//! | --- | --- |
//! | (a) said nothing, or at once where its process is gone | |
//! | (b) did not announce the slot whose turn it is | neither is frozen; only of so few that the rest is a quorum |
//! | (c) stood still behind this one, and was waited for | likewise; only of one that is behind this one |
//! | (d) held this one's window shut | likewise |
//!
//! A complaint is about a run and ends with the view; under (a) also when the run was heard for `suspect-after`, any
//! other after ten times that.

use std::fmt;

use crate::group::commit::Commit;
use crate::group::quorum::{is_quorum, Ranks};
use crate::limits::COMPLAINT_FACTOR;
use crate::types::{Epoch, Rank, Run, Slot, Time};
use crate::wire::view::View;

/// What a member with rank sees of its view in one turn.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    pub view: &'a View,
    pub me: Rank,
    /// This member has promised a change.
    pub frozen: bool,
    /// Everyone's positions, its own included.
    pub commit: &'a Commit,
    /// The next slot, if an operation or a due tick waits for it and no member's `known` shows it.
    pub awaited: Option<Slot>,
    /// Messages of its own are not yet durable everywhere.
    pub window_waits: bool,
    /// So many that it takes no more from its clients.
    pub window_shut: bool,
}

/// Why a member is complained of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    Silent,
    MissedTurn,
    KnownStuck,
    DurableStuck,
    WindowShut,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Silent => "nothing was heard of it",
            Reason::MissedTurn => "it did not announce the slot whose turn it was",
            Reason::KnownStuck => "it does not receive what is sent",
            Reason::DurableStuck => "its disk does not follow",
            Reason::WindowShut => "it holds the window shut",
        })
    }
}

/// A complaint that was made, or one that ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    pub run: Run,
    pub reason: Reason,
    pub made: bool,
}

/// A position, and since when it has stood still behind this member's own.
#[derive(Clone, Copy, Default, Debug)]
struct Standstill {
    at: Slot,
    since: Option<Time>,
}

impl Standstill {
    fn watch(&mut self, now: Time, at: Slot, behind: bool) {
        self.since = behind.then(|| self.since.filter(|_| self.at == at).unwrap_or(now));
        self.at = at;
    }
}

/// Complaint (a).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Silence {
    Heard,
    Silent,
    /// Heard again since then, and not yet for long enough.
    Returning(Time),
}

#[derive(Clone, Debug)]
struct Member {
    run: Run,
    /// The complaint that was last told.
    told: Option<Reason>,
    silence: Silence,
    /// A complaint under (b) to (d), and when it was made.
    slow: Option<(Reason, Time)>,
    turn: Option<Time>,
    known: Standstill,
    durable: Standstill,
    shut: Option<Time>,
}

impl Member {
    fn new(run: Run) -> Member {
        let (known, durable) = Default::default();
        Member { run, told: None, silence: Silence::Heard, slow: None, turn: None, known, durable, shut: None }
    }

    fn complaint(&self) -> Option<Reason> {
        match self.silence {
            Silence::Heard => self.slow.map(|(reason, _)| reason),
            Silence::Silent | Silence::Returning(_) => Some(Reason::Silent),
        }
    }

    /// What it is watched for under (b) to (d), and since when.
    fn watches(&self) -> impl Iterator<Item = (Time, Reason)> {
        let (known, durable) = (self.known.since, self.durable.since);
        let all = [
            (self.turn, Reason::MissedTurn),
            (known, Reason::KnownStuck),
            (durable, Reason::DurableStuck),
            (self.shut, Reason::WindowShut),
        ];
        all.into_iter().filter_map(|(since, reason)| Some((since?, reason)))
    }

    /// Whatever it is watched for begins anew.
    fn unwatch(&mut self) {
        (self.turn, self.known.since, self.durable.since, self.shut) = (None, None, None, None);
    }
}

#[derive(Debug)]
pub struct Complaints {
    suspect_after_ns: u64,
    /// The newest epoch heard of: complaints are about its members only.
    epoch: Epoch,
    /// By rank; empty while this replica has no rank in that epoch's view.
    members: Vec<Member>,
    /// The slot that is awaited, and since when.
    awaited: Option<(Slot, Time)>,
}

impl Complaints {
    pub fn new(suspect_after_ns: u64) -> Complaints {
        Complaints { suspect_after_ns, epoch: Epoch(0), members: Vec::new(), awaited: None }
    }

    /// Why this run is complained of, if it is.
    pub fn about(&self, run: Run) -> Option<Reason> {
        self.members.iter().find(|m| m.run == run).and_then(Member::complaint)
    }

    /// A view of this epoch was heard of: complaints in an older one end.
    pub fn on_epoch(&mut self, epoch: Epoch) {
        if epoch > self.epoch {
            (self.epoch, self.awaited) = (epoch, None);
            self.members.clear();
        }
    }

    /// This replica's own loop did not run: what it watches its peers for begins anew.
    pub fn woke(&mut self, now: Time) {
        self.awaited = self.awaited.map(|(slot, _)| (slot, now));
        self.members.iter_mut().for_each(Member::unwatch);
    }

    /// Looks at every other member once. `frozen` says of a run that is heard whether it reported that it is frozen.
    pub fn judge(&mut self, now: Time, sight: &Sight<'_>, frozen: &dyn Fn(Run) -> Option<bool>) -> Vec<Verdict> {
        self.on_epoch(sight.view.epoch);
        if self.epoch > sight.view.epoch {
            return Vec::new();
        }
        if self.members.is_empty() {
            self.members = sight.view.members.iter().copied().map(Member::new).collect();
        }
        let since = |(slot, since)| if sight.awaited == Some(slot) { since } else { now };
        self.awaited = sight.awaited.map(|slot| (slot, self.awaited.map_or(now, since)));
        for k in (0..self.members.len()).filter(|&k| k != usize::from(sight.me.0)) {
            let frozen = frozen(self.members[k].run);
            self.listen(now, k, frozen.is_some());
            self.watch(now, k, sight, frozen == Some(true));
        }
        self.complain(now, sight);
        self.verdicts()
    }

    /// (a), and the ends of complaints.
    fn listen(&mut self, now: Time, k: usize, heard: bool) {
        let (period_ns, member) = (self.suspect_after_ns, &mut self.members[k]);
        member.silence = match member.silence {
            _ if !heard => Silence::Silent,
            Silence::Silent => Silence::Returning(now),
            Silence::Returning(since) if now.since_ns(since) >= period_ns => Silence::Heard,
            silence => silence,
        };
        member.slow = member.slow.filter(|(_, at)| now.since_ns(*at) < period_ns.saturating_mul(COMPLAINT_FACTOR));
    }

    /// What (b) to (d) are judged by, for a member that is heard and not complained of.
    fn watch(&mut self, now: Time, k: usize, sight: &Sight<'_>, frozen: bool) {
        let (rank, awaited) = (Rank(k as u8), self.awaited);
        let member = &mut self.members[k];
        let (own, report) = (sight.commit.report(sight.me), sight.commit.report(rank));
        let (known_behind, durable_behind) = (report.known < own.known, report.durable < own.durable);
        if sight.frozen || frozen || member.complaint().is_some() {
            return member.unwatch();
        }
        let waits = sight.commit.committed() < own.known || sight.window_waits;
        let turn = awaited.filter(|(slot, _)| sight.view.sequencer(*slot) == rank);
        // Being watched begins no earlier than this member could be complained of.
        member.turn = turn.map(|(_, since)| member.turn.unwrap_or(now).max(since));
        member.known.watch(now, report.known, known_behind);
        member.durable.watch(now, report.durable, durable_behind && waits);
        let holds = sight.window_shut && report.durable == sight.commit.durable_everywhere();
        let holds = holds && (known_behind || durable_behind);
        member.shut = holds.then(|| member.shut.unwrap_or(now));
    }

    /// (b) to (d): of whoever has been watched longest first, as long as the rest could be a quorum.
    fn complain(&mut self, now: Time, sight: &Sight<'_>) {
        let due = |k: usize, m: &Member| {
            let overdue = m.watches().filter(|(since, _)| now.since_ns(*since) >= self.suspect_after_ns);
            overdue.min().map(|(since, reason)| (since, k, reason))
        };
        let mut due: Vec<(Time, usize, Reason)> =
            self.members.iter().enumerate().filter_map(|(k, m)| due(k, m)).collect();
        due.sort_unstable();
        let fine = self.members.iter().enumerate().filter(|(_, m)| m.complaint().is_none());
        let mut rest = Ranks::of(fine.map(|(k, _)| Rank(k as u8)));
        for (_, k, reason) in due {
            let without = rest.without(Rank(k as u8));
            if is_quorum(sight.view, without) {
                rest = without;
                self.members[k].slow = Some((reason, now));
                self.members[k].unwatch();
            }
        }
    }

    fn verdicts(&mut self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for member in &mut self.members {
            let (run, is) = (member.run, member.complaint());
            let was = std::mem::replace(&mut member.told, is);
            if was != is {
                verdicts.extend(was.map(|reason| Verdict { run, reason, made: false }));
                verdicts.extend(is.map(|reason| Verdict { run, reason, made: true }));
            }
        }
        verdicts
    }

    /// When `judge` may come to another verdict though nothing happened.
    pub fn deadline(&self, now: Time) -> Option<Time> {
        let period_ns = self.suspect_after_ns;
        let moments = self.members.iter().flat_map(|member| {
            let returning = match member.silence {
                Silence::Returning(since) => Some(since.after_ns(period_ns)),
                Silence::Heard | Silence::Silent => None,
            };
            let ends = member.slow.map(|(_, at)| at.after_ns(period_ns.saturating_mul(COMPLAINT_FACTOR)));
            let watches = member.watches().map(move |(since, _)| since.after_ns(period_ns));
            watches.chain(returning).chain(ends)
        });
        moments.filter(|&at| at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Mseq;
    use crate::wire::datagram::Status;
    use crate::wire::view::tests::view_of;
    use crate::wire::view::Policy;
    use std::collections::BTreeSet;

    const PERIOD: u64 = 500;
    const NOW: u64 = 1_000;

    /// What member 1 of a view sees: everything is well until a test says otherwise.
    struct Bench {
        complaints: Complaints,
        view: View,
        commit: Commit,
        me: Rank,
        frozen: bool,
        awaited: Option<Slot>,
        window_waits: bool,
        window_shut: bool,
        silent: BTreeSet<u8>,
        frozen_peers: BTreeSet<u8>,
    }

    impl Bench {
        fn new(members: u8) -> Bench {
            let view = view_of(members, members, Policy::Dynamic);
            Bench {
                complaints: Complaints::new(PERIOD),
                commit: Commit::new(&view),
                view,
                me: Rank(0),
                frozen: false,
                awaited: None,
                window_waits: false,
                window_shut: false,
                silent: BTreeSet::new(),
                frozen_peers: BTreeSet::new(),
            }
        }

        /// A member reports that it has come this far.
        fn at(&mut self, id: u8, known: u64, durable: u64) {
            let (known, durable) = (Slot(known), Slot(durable));
            if Rank(id - 1) == self.me {
                self.commit.advance(self.me, Mseq(0), known, durable);
            } else {
                self.commit.on_status(Rank(id - 1), &Status { known, durable, ..Status::default() });
            }
        }

        fn judge(&mut self, now: u64) -> Vec<Verdict> {
            let sight = Sight {
                view: &self.view,
                me: self.me,
                frozen: self.frozen,
                commit: &self.commit,
                awaited: self.awaited,
                window_waits: self.window_waits,
                window_shut: self.window_shut,
            };
            let frozen = |run: Run| {
                let frozen = self.frozen_peers.contains(&run.id.0);
                (!self.silent.contains(&run.id.0)).then_some(frozen)
            };
            self.complaints.judge(Time(now), &sight, &frozen)
        }

        /// Judges at a moment, just before a period has passed, and when it has. The complaints at the end.
        fn period(&mut self) -> Vec<(u8, Reason)> {
            self.judge(NOW);
            self.judge(NOW + PERIOD - 1);
            assert_eq!(self.complaints().iter().find(|c| c.1 != Reason::Silent), None, "too early");
            let timed = self.complaints.deadline(Time(NOW + PERIOD - 1));
            self.judge(NOW + PERIOD);
            if self.complaints().iter().any(|c| c.1 != Reason::Silent) {
                assert_eq!(timed, Some(Time(NOW + PERIOD)));
            }
            self.complaints()
        }

        fn complaints(&self) -> Vec<(u8, Reason)> {
            let about = |run: &Run| self.complaints.about(*run).map(|reason| (run.id.0, reason));
            self.view.members.iter().filter_map(about).collect()
        }
    }

    #[test]
    fn nobody_is_complained_of_where_all_is_well() {
        let mut bench = Bench::new(3);
        assert_eq!(bench.period(), []);
        assert_eq!(bench.complaints.deadline(Time(NOW)), None);
    }

    #[test]
    fn the_silent_is_taken_back_once_it_was_heard_for_a_period() {
        let mut bench = Bench::new(3);
        bench.judge(0);
        bench.silent.insert(2);
        let run = bench.view.members[1];
        assert_eq!(bench.judge(10), [Verdict { run, reason: Reason::Silent, made: true }]);
        assert_eq!(bench.judge(5_000), []);
        bench.silent.clear();
        bench.judge(6_000);
        assert_eq!(bench.complaints.deadline(Time(6_000)), Some(Time(6_000 + PERIOD)));
        // Silent once more before the period is over: it begins anew.
        bench.silent.insert(2);
        bench.judge(6_100);
        bench.silent.clear();
        bench.judge(6_200);
        assert_eq!(bench.judge(6_200 + PERIOD - 1), []);
        assert_eq!(bench.judge(6_200 + PERIOD), [Verdict { run, reason: Reason::Silent, made: false }]);
    }

    #[test]
    fn who_misses_its_turn() {
        let mut bench = Bench::new(3);
        bench.awaited = Some(Slot(2));
        assert_eq!(bench.view.sequencer(Slot(2)), Rank(2));
        assert_eq!(bench.period(), [(3, Reason::MissedTurn)], "nobody knows slot 2, and all are equally far");
    }

    #[test]
    fn a_turn_that_moves_on_or_is_its_own_is_nobodys_fault() {
        let mut bench = Bench::new(3);
        bench.awaited = Some(Slot(3));
        assert_eq!(bench.period(), [], "slot 3 is its own to announce");
        bench.awaited = Some(Slot(2));
        bench.judge(3_000);
        bench.awaited = Some(Slot(5));
        bench.judge(3_000 + PERIOD - 1);
        bench.judge(3_000 + PERIOD);
        assert_eq!(bench.complaints(), [], "slot 2 was announced in time");
        bench.awaited = None;
        bench.judge(3_000 + PERIOD + 1);
        bench.awaited = Some(Slot(5));
        bench.judge(3_000 + 2 * PERIOD);
        assert_eq!(bench.complaints(), [], "nothing waited for it meanwhile");
        bench.judge(3_000 + 3 * PERIOD);
        assert_eq!(bench.complaints(), [(3, Reason::MissedTurn)]);
    }

    #[test]
    fn whose_known_stands_still_behind() {
        let mut bench = Bench::new(3);
        bench.at(1, 7, 7);
        bench.at(2, 7, 7);
        bench.at(3, 4, 4);
        bench.at(1, 7, 7);
        assert_eq!(bench.commit.committed(), Slot(7));
        assert_eq!(bench.period(), [(3, Reason::KnownStuck)]);
    }

    #[test]
    fn who_moves_or_is_level_is_not_stuck() {
        let mut bench = Bench::new(3);
        (bench.window_waits, bench.window_shut) = (true, false);
        for step in 0..20 {
            bench.at(1, 100 + step, 100 + step);
            bench.at(2, 90 + step, 90 + step);
            bench.at(3, 101 + step, 101 + step);
            bench.judge(NOW + step * (PERIOD - 1));
            assert_eq!(bench.complaints(), []);
        }
        // It is this member that stands still now.
        bench.at(2, 119, 119);
        for step in 0..5 {
            bench.judge(20_000 + step * PERIOD);
            assert_eq!(bench.complaints(), []);
        }
    }

    #[test]
    fn whose_disk_stands_still_while_something_waits() {
        let mut bench = Bench::new(3);
        for id in 1..=3 {
            bench.at(id, 7, if id == 3 { 4 } else { 7 });
        }
        bench.at(1, 7, 7);
        assert_eq!(bench.period(), [], "all is committed, and the window is empty");
        bench.window_waits = true;
        assert_eq!(bench.judge(5_000), []);
        bench.judge(5_000 + PERIOD);
        assert_eq!(bench.complaints(), [(3, Reason::DurableStuck)]);
        let mut bench = Bench::new(3);
        bench.at(2, 7, 4);
        bench.at(3, 7, 5);
        bench.at(1, 7, 7);
        assert_eq!(bench.commit.committed(), Slot(5));
        assert_eq!(bench.period(), [(2, Reason::DurableStuck)], "a commit waits; without 2 and 3 there is no quorum");
    }

    #[test]
    fn who_holds_the_window_shut_though_it_moves() {
        let mut bench = Bench::new(3);
        (bench.window_waits, bench.window_shut) = (true, true);
        for step in 0..=4 {
            bench.at(1, 100, 100);
            bench.at(2, 100, 60 + step);
            bench.at(3, 100, 50 + step);
            bench.at(1, 100, 100);
            assert_eq!(bench.complaints(), []);
            bench.judge(NOW + step * PERIOD / 4);
        }
        assert_eq!(bench.complaints(), [(3, Reason::WindowShut)], "2 is slow, too, but does not hold it");
        // The same, if the window opens for a moment.
        let mut bench = Bench::new(3);
        for step in 0..=8 {
            (bench.window_waits, bench.window_shut) = (true, step != 3);
            bench.at(2, 100, 100);
            bench.at(3, 100, 50 + step);
            bench.at(1, 100, 100);
            bench.judge(NOW + step * PERIOD / 4);
            assert_eq!(bench.complaints() == [(3, Reason::WindowShut)], step == 8, "step {step}");
        }
    }

    #[test]
    fn its_own_slowness_is_nobody_elses_fault() {
        let mut bench = Bench::new(3);
        (bench.window_waits, bench.window_shut) = (true, true);
        bench.at(2, 100, 100);
        bench.at(3, 100, 100);
        bench.at(1, 100, 10);
        assert_eq!(bench.period(), []);
    }

    /// Every reason at once, about replica 3.
    fn all_reasons() -> Bench {
        let mut bench = Bench::new(3);
        (bench.window_waits, bench.window_shut, bench.awaited) = (true, true, Some(Slot(8)));
        assert_eq!(bench.view.sequencer(Slot(8)), Rank(2));
        bench.at(2, 7, 7);
        bench.at(1, 7, 7);
        bench
    }

    #[test]
    fn nobody_complains_of_the_slow_while_either_is_frozen() {
        assert_eq!(all_reasons().period().len(), 1);
        let mut bench = all_reasons();
        bench.frozen = true;
        assert_eq!(bench.period(), []);
        let mut bench = all_reasons();
        bench.frozen_peers.insert(3);
        assert_eq!(bench.period(), []);
        // The silent are complained of all the same.
        bench.frozen = true;
        bench.silent.insert(3);
        bench.judge(9_000);
        assert_eq!(bench.complaints(), [(3, Reason::Silent)]);
    }

    #[test]
    fn only_of_so_few_that_the_rest_is_a_quorum() {
        let mut bench = Bench::new(2);
        bench.at(1, 7, 7);
        assert_eq!(bench.period(), [], "1 alone is no quorum of two");
        let mut bench = Bench::new(2);
        bench.me = Rank(1);
        bench.at(2, 7, 7);
        assert_eq!(bench.period(), [(1, Reason::KnownStuck)], "2 alone is");
        let mut bench = Bench::new(3);
        bench.silent.insert(2);
        bench.at(1, 7, 7);
        assert_eq!(bench.period(), [(2, Reason::Silent)], "with 2 gone 3 is needed");
        let mut bench = Bench::new(5);
        bench.at(1, 7, 7);
        bench.judge(NOW - 1);
        bench.at(4, 1, 1);
        bench.judge(NOW);
        bench.judge(NOW + PERIOD);
        let slow = |id| (id, Reason::KnownStuck);
        assert_eq!(bench.complaints(), [slow(2), slow(3)], "4 stood still later, and of 5 the greater ids are spared");
    }

    #[test]
    fn a_complaint_about_the_slow_ends_after_a_long_while_or_with_the_view() {
        let mut bench = all_reasons();
        bench.period();
        assert_eq!(bench.complaints().len(), 1);
        (bench.window_waits, bench.window_shut, bench.awaited) = (false, false, None);
        bench.at(3, 7, 7);
        let end = NOW + PERIOD + PERIOD * COMPLAINT_FACTOR;
        assert_eq!(bench.complaints.deadline(Time(NOW + PERIOD)), Some(Time(end)));
        bench.judge(end - 1);
        assert_eq!(bench.complaints().len(), 1, "though it has caught up");
        let ended = bench.judge(end);
        assert!(matches!(ended[..], [Verdict { made: false, .. }]) && bench.complaints().is_empty());

        let mut bench = all_reasons();
        bench.period();
        bench.complaints.on_epoch(bench.view.epoch);
        assert_eq!(bench.complaints().len(), 1, "it is in the view that it speaks of");
        bench.complaints.on_epoch(bench.view.epoch.next());
        assert_eq!(bench.complaints(), []);
        assert_eq!(bench.judge(20_000), [], "nobody is judged by an older view");
        bench.judge(30_000);
        assert_eq!(bench.complaints(), []);
        bench.view.epoch = bench.view.epoch.next();
        bench.judge(40_000);
        bench.judge(40_000 + PERIOD);
        assert_eq!(bench.complaints().len(), 1, "in the newer view all begins anew");
    }

    #[test]
    fn once_the_complaint_has_ended_a_full_period_passes_before_the_next() {
        let mut bench = all_reasons();
        bench.period();
        let end = NOW + PERIOD + PERIOD * COMPLAINT_FACTOR;
        bench.judge(end);
        assert_eq!(bench.complaints(), []);
        bench.judge(end + PERIOD - 1);
        assert_eq!(bench.complaints(), []);
        bench.judge(end + PERIOD);
        assert_eq!(bench.complaints().len(), 1);
    }

    #[test]
    fn a_pause_of_its_own_begins_everything_anew() {
        let mut bench = all_reasons();
        bench.judge(NOW);
        bench.complaints.woke(Time(9_000));
        bench.judge(9_000);
        bench.judge(9_000 + PERIOD - 1);
        assert_eq!(bench.complaints(), []);
        bench.judge(9_000 + PERIOD);
        assert_eq!(bench.complaints().len(), 1);
    }
}
