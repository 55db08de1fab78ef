//! Commit: what each member reported, and how far more than half of them hold the log durably (rule 5).
//!
//! Every member computes this for itself; there is no leader. Counters start at the base at every install and never
//! fall within the view, so a late or repeated report changes nothing.

use crate::group::quorum;
use crate::types::{Mseq, Rank, Slot};
use crate::wire::datagram::Status;
use crate::wire::view::View;

/// A member's positions as last reported.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    pub sent: Mseq,
    pub known: Slot,
    pub durable: Slot,
    pub committed: Slot,
    /// Bytes its socket can hold; 0 until it said so.
    pub buffer_bytes: u32,
}

#[derive(Debug)]
pub struct Commit {
    reports: Vec<Report>,
    committed: Slot,
    needed: usize,
}

impl Commit {
    pub fn new(view: &View) -> Commit {
        let report =
            Report { sent: Mseq(0), known: view.base, durable: view.base, committed: view.base, buffer_bytes: 0 };
        Commit { reports: vec![report; view.members.len()], committed: view.base, needed: quorum::commit_count(view) }
    }

    pub fn report(&self, rank: Rank) -> &Report {
        &self.reports[usize::from(rank.0)]
    }

    /// All reports, by rank.
    pub fn reports(&self) -> impl Iterator<Item = (Rank, &Report)> {
        self.reports.iter().enumerate().map(|(k, r)| (Rank(k as u8), r))
    }

    /// Highest slot that this member knows to be committed.
    pub fn committed(&self) -> Slot {
        self.committed
    }

    /// Takes what a member says of itself in this view. What it says is committed may be believed.
    pub fn on_status(&mut self, rank: Rank, status: &Status) {
        let report = &mut self.reports[usize::from(rank.0)];
        report.sent = report.sent.max(status.sent);
        report.known = report.known.max(status.known);
        report.durable = report.durable.max(status.durable);
        report.committed = report.committed.max(status.committed);
        report.buffer_bytes = status.buffer_bytes;
        self.committed = self.committed.max(status.committed);
    }

    /// Takes this member's own positions, and counts.
    pub fn advance(&mut self, me: Rank, sent: Mseq, known: Slot, durable: Slot) {
        let report = &mut self.reports[usize::from(me.0)];
        (report.sent, report.known, report.durable) = (sent, known, durable);
        let mut durables: Vec<Slot> = self.reports.iter().map(|r| r.durable).collect();
        durables.sort_unstable_by(|a, b| b.cmp(a));
        if let Some(&slot) = durables.get(self.needed.max(1) - 1) {
            self.committed = self.committed.max(slot);
        }
        self.reports[usize::from(me.0)].committed = self.committed;
    }

    /// Highest slot that every member is known to hold durably.
    pub fn durable_everywhere(&self) -> Slot {
        self.reports.iter().map(|r| r.durable).min().expect("a view has members")
    }

    /// Highest slot that every member is known to hold.
    pub fn known_everywhere(&self) -> Slot {
        self.reports.iter().map(|r| r.known).min().expect("a view has members")
    }

    /// Highest slot that any member is known to hold.
    pub fn known_anywhere(&self) -> Slot {
        self.reports.iter().map(|r| r.known).max().expect("a view has members")
    }

    /// Whether some member has not said yet that it committed this slot.
    pub fn unsettled(&self, slot: Slot) -> bool {
        self.reports.iter().any(|r| r.committed < slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::view::tests::view_of;
    use crate::wire::view::Policy;
    use quickcheck::quickcheck;

    fn of(members: u8) -> Commit {
        Commit::new(&view_of(members, members, Policy::Dynamic))
    }

    fn durable(slot: u64) -> Status {
        Status { known: Slot(slot), durable: Slot(slot), ..Status::default() }
    }

    #[test]
    fn more_than_half_must_hold_it_durably() {
        for members in 1..=7u8 {
            let mut commit = of(members);
            commit.advance(Rank(0), Mseq(0), Slot(5), Slot(5));
            for others in 0..members {
                if others > 0 {
                    commit.on_status(Rank(others), &durable(5));
                    commit.advance(Rank(0), Mseq(0), Slot(5), Slot(5));
                }
                let expected = if 2 * (others + 1) > members { Slot(5) } else { Slot(0) };
                assert_eq!(commit.committed(), expected, "{} of {members}", others + 1);
            }
        }
    }

    #[test]
    fn what_is_known_but_not_durable_does_not_count() {
        let mut commit = of(3);
        let known = Status { known: Slot(5), durable: Slot(2), ..Status::default() };
        (0..3).for_each(|rank| commit.on_status(Rank(rank), &known));
        commit.advance(Rank(0), Mseq(0), Slot(5), Slot(1));
        assert_eq!(commit.committed(), Slot(2));
        assert_eq!((commit.known_everywhere(), commit.durable_everywhere()), (Slot(5), Slot(1)));
    }

    #[test]
    fn counters_begin_at_the_base_and_never_fall() {
        let mut view = view_of(3, 3, Policy::Dynamic);
        view.base = Slot(10);
        let mut commit = Commit::new(&view);
        commit.on_status(Rank(1), &durable(3));
        commit.advance(Rank(0), Mseq(0), Slot(10), Slot(10));
        assert_eq!((commit.committed(), commit.durable_everywhere()), (Slot(10), Slot(10)));
        let late = Status { sent: Mseq(1), committed: Slot(11), ..durable(11) };
        let early = Status { sent: Mseq(2), committed: Slot(12), ..durable(12) };
        commit.on_status(Rank(1), &early);
        commit.on_status(Rank(1), &late);
        let report = commit.report(Rank(1));
        let positions = (report.sent, report.known, report.durable, report.committed);
        assert_eq!(positions, (Mseq(2), Slot(12), Slot(12), Slot(12)));
    }

    #[test]
    fn what_a_member_says_is_committed_is_believed() {
        let mut commit = of(3);
        commit.on_status(Rank(2), &Status { committed: Slot(4), ..durable(4) });
        assert_eq!(commit.committed(), Slot(4));
        assert_eq!((commit.known_anywhere(), commit.known_everywhere()), (Slot(4), Slot(0)));
    }

    #[test]
    fn it_is_settled_once_everyone_said_so() {
        let mut commit = of(2);
        assert!(!commit.unsettled(Slot(0)));
        commit.on_status(Rank(1), &Status { committed: Slot(1), ..durable(1) });
        assert!(commit.unsettled(Slot(1)), "this member has not");
        commit.advance(Rank(0), Mseq(0), Slot(1), Slot(1));
        assert!(!commit.unsettled(Slot(1)));
        assert!(commit.unsettled(Slot(2)));
    }

    #[test]
    fn a_majority_of_the_configured_is_counted_not_of_the_view() {
        let mut commit = Commit::new(&view_of(2, 5, Policy::Majority));
        (0..2).for_each(|rank| commit.on_status(Rank(rank), &durable(1)));
        commit.advance(Rank(0), Mseq(0), Slot(1), Slot(1));
        assert_eq!(commit.committed(), Slot(0), "2 of 5 are too few");
    }

    quickcheck! {
        fn it_is_the_slot_that_the_middle_member_holds(reports: Vec<(u8, u8)>, own: u8) -> bool {
            let mut commit = of(5);
            let (mut held, mut before) = ([0u64; 5], Slot(0));
            for (rank, slot) in reports {
                let rank = usize::from(rank % 4) + 1;
                held[rank] = held[rank].max(u64::from(slot));
                commit.on_status(Rank(rank as u8), &durable(u64::from(slot)));
                commit.advance(Rank(0), Mseq(0), Slot(0), Slot(0));
                assert!(commit.committed() >= before);
                before = commit.committed();
            }
            held[0] = u64::from(own);
            commit.advance(Rank(0), Mseq(0), Slot(held[0]), Slot(held[0]));
            held.sort_unstable();
            commit.committed() == Slot(held[2])
        }
    }
}
