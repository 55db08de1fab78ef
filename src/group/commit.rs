//! Commit: what each member reported, and how far more than half of them hold the log durably (rule 5).
//!
//! Every member computes this for itself; there is no leader. Counters start at the base at every install and never
//! fall within the view, so a late or repeated report changes nothing.

use crate::group::quorum;
use crate::group::view::View;
use crate::types::{Mseq, Rank, Slot};
use crate::wire::datagram::Status;

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
