//! The acceptor's side of a change, and what everyone does with a view that was decided.

use crate::broken::is as is_broken;
use crate::group::change::{votes, Action, Change, ChangeFrame, LogEnd, OldCopy, Phase, Promise};
use crate::types::{Epoch, ReplicaId, Run, Slot, Time};
use crate::wire::view::{Ballot, View};

/// What must survive a crash (DESIGN 5.1).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Acceptor {
    /// The last view adopted as one of its voters.
    pub installed: Option<View>,
    /// A newer view without this replica: it only takes the vote away.
    pub heard: Option<View>,
    /// For the decree that follows the newest of the two.
    pub promised: Option<Ballot>,
    pub accepted: Option<(Ballot, View)>,
}

impl Acceptor {
    /// The newest view this replica knows.
    pub fn newest(&self) -> Option<&View> {
        self.heard.iter().chain(&self.installed).max_by_key(|v| v.epoch)
    }

    /// Whether a record belongs to the history that leads to the newest view. What an installed view starts from
    /// does, however far back its record's epoch lies: every member said READY for it.
    pub fn keeps(&self, epoch: Epoch, slot: Slot) -> bool {
        let started_from = |view: &View| slot <= view.base && !is_broken("newest-base-only");
        self.installed.as_ref().is_some_and(started_from) || self.newest().is_none_or(|view| view.keeps(epoch, slot))
    }
}

/// A promised fetch, at a member-to-be.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Syncing {
    ballot: Ballot,
    proposer: ReplicaId,
    base: LogEnd,
}

impl Change {
    /// A higher ballot than any before: the epoch is frozen for good.
    pub(super) fn promise(&mut self, ballot: Ballot, out: &mut Vec<Action>) {
        if self.acceptor.promised.is_none_or(|promised| promised < ballot) {
            if self.proposal.as_ref().is_some_and(|p| p.ballot != ballot && p.phase != Phase::Install) {
                self.proposal = None;
            }
            self.syncing = None;
            self.acceptor.promised = Some(ballot);
            out.push(Action::Freeze);
            out.push(Action::Write);
        }
    }

    pub(super) fn own_promise(&self, end: LogEnd) -> Promise {
        let voter = self.is_voter();
        let accepted = if voter { self.acceptor.accepted.clone() } else { None };
        let (leaving, whole, remembers) = (self.leaving, self.whole, self.remembers.clone());
        Promise { run: self.me, voter, accepted, end, leaving, whole, remembers }
    }

    /// Whoever is heard to know only older views is told the newest, also by one that is not in it: the proposer may
    /// be gone, and every member that installed it.
    pub fn say_newest(&self, to: ReplicaId, out: &mut Vec<Action>) {
        if let Some(view) = self.acceptor.newest().cloned() {
            Self::say_durably(out, to, ChangeFrame::Install { view });
        }
    }

    /// Whoever speaks as an earlier run than this one of its birth is told so.
    pub fn say_outrun(&self, run: Run, out: &mut Vec<Action>) {
        Self::say(out, run.id, ChangeFrame::Doubt { epoch: self.epoch(), run, durable: Slot(0) });
    }

    pub(super) fn on_prepare(
        &mut self,
        now: Time,
        from: Run,
        ballot: Ballot,
        view: View,
        end_in: &dyn Fn(&Acceptor) -> LogEnd,
        out: &mut Vec<Action>,
    ) {
        self.adopt_newer(&view, out);
        self.heard_ballot(now, from, ballot);
        if self.is_voter() {
            if let Some(promised) = self.acceptor.promised.filter(|&promised| promised > ballot) {
                return Self::say_durably(out, from.id, ChangeFrame::Refuse { epoch: view.epoch, promised });
            }
            self.promise(ballot, out);
        }
        let promise = self.own_promise(end_in(&self.acceptor));
        Self::say_durably(out, from.id, ChangeFrame::Promise { epoch: view.epoch, ballot, promise });
    }

    fn heard_ballot(&mut self, now: Time, from: Run, ballot: Ballot) {
        self.round = self.round.max(ballot.round);
        if from.id != self.me.id {
            self.live = Some((ballot, now));
        }
    }

    /// SYNC below the promise is refused; one that was never promised is not for this replica yet.
    pub(super) fn on_sync(
        &mut self,
        from: Run,
        ballot: Ballot,
        base: LogEnd,
        sources: Vec<ReplicaId>,
        out: &mut Vec<Action>,
    ) {
        if self.is_voter() && self.acceptor.promised != Some(ballot) {
            if let Some(promised) = self.acceptor.promised.filter(|&promised| promised > ballot) {
                Self::say_durably(out, from.id, ChangeFrame::Refuse { epoch: self.epoch(), promised });
            }
            return;
        }
        self.syncing = Some(Syncing { ballot, proposer: from.id, base });
        out.push(Action::Fetch { base, sources });
    }

    /// The log reaches the base that was asked for; `own` is what it is up to there. READY is an undertaking: until a
    /// view of a later epoch is adopted no record up to the base is dropped.
    pub fn synced(&mut self, own: LogEnd, out: &mut Vec<Action>) {
        if let Some(syncing) = self.syncing.as_ref().filter(|s| s.base.slot == own.slot) {
            let (epoch, ballot, proposer) = (self.epoch(), syncing.ballot, syncing.proposer);
            self.readied = Some(epoch);
            Self::say_durably(out, proposer, ChangeFrame::Ready { epoch, ballot, base: own });
        }
    }

    /// Another replica remembers something of this one.
    pub(super) fn on_doubt(
        &mut self,
        epoch: Epoch,
        run: Run,
        durable: Slot,
        end_in: &dyn Fn(&Acceptor) -> LogEnd,
        out: &mut Vec<Action>,
    ) {
        if run.id != self.me.id || run.birth != self.me.birth {
            return;
        }
        if run.incarnation > self.me.incarnation {
            out.push(Action::Distrust(OldCopy::LaterRun(run.incarnation)));
        } else if epoch == self.epoch() && self.is_voter() && end_in(&self.acceptor).slot < durable {
            out.push(Action::Distrust(OldCopy::LongerLog(durable)));
        }
    }

    /// Whether a view records what this directory can't answer for: a run of this birth that is to come, or this very
    /// one without its READY. View 1 asks for none.
    fn contradicts(&self, view: &View) -> Option<OldCopy> {
        let recorded = view.members.iter().find(|run| run.id == self.me.id && run.birth == self.me.birth)?;
        let readied = self.readied.is_some_and(|epoch| epoch.next() == view.epoch) || view.ballot.round == 0;
        match recorded.incarnation.cmp(&self.me.incarnation) {
            std::cmp::Ordering::Greater => Some(OldCopy::LaterRun(recorded.incarnation)),
            std::cmp::Ordering::Equal if !readied => Some(OldCopy::SameRun(view.epoch)),
            _ => None,
        }
    }

    /// What PREPARE makes a voter do first, ACCEPT does first.
    pub(super) fn on_accept(
        &mut self,
        now: Time,
        from: Run,
        ballot: Ballot,
        value: View,
        view: View,
        out: &mut Vec<Action>,
    ) {
        self.adopt_newer(&view, out);
        self.heard_ballot(now, from, ballot);
        if !self.is_voter() || value.epoch != view.epoch.next() || value.cluster != view.cluster {
            return;
        }
        let promised = self.acceptor.promised.filter(|&promised| promised > ballot);
        if let Some(promised) = promised.filter(|_| !is_broken("stale-accept")) {
            return Self::say_durably(out, from.id, ChangeFrame::Refuse { epoch: view.epoch, promised });
        }
        self.promise(ballot, out);
        let accepted = Some((ballot, value));
        if self.acceptor.accepted != accepted {
            self.acceptor.accepted = accepted;
            out.push(Action::Write);
        }
        Self::say_durably(out, from.id, ChangeFrame::Accepted { epoch: view.epoch, ballot });
    }

    /// One for the installed view changes nothing and is answered again.
    pub(super) fn on_install(&mut self, from: Run, view: View, out: &mut Vec<Action>) {
        self.adopt_newer(&view, out);
        Self::say_durably(out, from.id, ChangeFrame::Installed { epoch: view.epoch });
    }

    /// A newer view ends everything about the older decree. One that does not record this birth only takes the vote
    /// away.
    fn adopt_newer(&mut self, view: &View, out: &mut Vec<Action>) {
        if view.epoch <= self.epoch() {
            return;
        }
        if let Some(why) = self.contradicts(view) {
            return out.push(Action::Distrust(why));
        }
        self.remembers.clear();
        if votes(view, self.me) {
            self.acceptor.installed = Some(view.clone());
            self.acceptor.heard = None;
        } else {
            self.acceptor.heard = Some(view.clone());
        }
        let back = view.members.contains(&self.me);
        (self.trusted, self.whole) = (self.trusted || back, self.whole || back);
        (self.acceptor.promised, self.acceptor.accepted) = (None, None);
        (self.syncing, self.live, self.round) = (None, None, 0);
        if self.proposal.as_ref().is_some_and(|p| p.phase != Phase::Install || p.value.as_ref() != Some(view)) {
            self.proposal = None;
        }
        out.push(Action::Adopt(view.clone()));
        out.push(Action::Write);
    }
}
