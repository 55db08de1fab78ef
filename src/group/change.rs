//! The change of a view: one single-decree Paxos for each epoch (DESIGN 5.3).
//!
//! View e+1 is decided by a quorum of view e. Its members hold the log up to its base *before* the decree, so any of
//! its own quorums can decide e+2; and an accepted value must be completed by whoever proposes next, so no two views
//! e+1 are ever installed, however the network splits in the middle (I5). After Lamport's Paxos; the order of "first
//! stable, then decided" is that of Yeger-Lotem, Keidar and Dolev's dynamic voting.
//!
//! | proposer's phase | says | goes on when |
//! | --- | --- | --- |
//! | Prepare | PREPARE to all | a quorum of e promised: a bound value goes to Accept, a free one to Sync |
//! | Sync | SYNC to the members-to-be | each is READY: it holds the log up to the base, durably |
//! | Accept | ACCEPT to the voters of e | a quorum of e ACCEPTED: the view is decided |
//! | Install | INSTALL to all | each INSTALLED; whoever misses it learns it from any member |

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use crate::group::broken::is as is_broken;
use crate::group::quorum::{is_quorum, may_exist, Ranks};
use crate::group::view::{Ballot, View};
use crate::limits::{CHANGE_AGAIN_NS, CHANGE_GATHER_NS};
use crate::types::{Digest, Epoch, GroupTime, ReplicaId, Run, Slot, Time};

/// How far a log reaches without a gap, and what it is up to there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct LogEnd {
    pub slot: Slot,
    pub digest: Digest,
    pub time: GroupTime,
}

/// What one replica answers to PREPARE.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Promise {
    pub run: Run,
    /// Its birth is the one that view e records: its promise counts.
    pub voter: bool,
    pub accepted: Option<(Ballot, View)>,
    pub end: LogEnd,
    pub leaving: bool,
}

/// One frame of a change. All name the epoch e of the view that is to be followed; ballots begin anew with each.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ChangeFrame {
    /// `view` is view e itself, for those that never got it.
    Prepare {
        ballot: Ballot,
        view: View,
    },
    Promise {
        epoch: Epoch,
        ballot: Ballot,
        promise: Promise,
    },
    /// A higher ballot was promised.
    Refuse {
        epoch: Epoch,
        promised: Ballot,
    },
    /// Fetch what you lack up to `base` from those who have it.
    Sync {
        epoch: Epoch,
        ballot: Ballot,
        base: LogEnd,
        sources: Vec<ReplicaId>,
    },
    Ready {
        epoch: Epoch,
        ballot: Ballot,
        base: LogEnd,
    },
    Accept {
        epoch: Epoch,
        ballot: Ballot,
        value: View,
        view: View,
    },
    Accepted {
        epoch: Epoch,
        ballot: Ballot,
    },
    Install {
        view: View,
    },
    Installed {
        epoch: Epoch,
    },
}

/// What the replica must do. In this order; what is said "durably" leaves once everything written before is on the
/// disk.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// View e orders no more here: what is held contiguously goes to the log.
    Freeze,
    /// The durable state has changed: write it.
    Write,
    /// Records beyond what the chain of views allows are dropped, durably with the write that follows.
    Adopt(View),
    /// Bring the log up to this end from these replicas, make it durable, and call `synced`.
    Fetch {
        base: LogEnd,
        sources: Vec<ReplicaId>,
    },
    Say {
        to: ReplicaId,
        frame: ChangeFrame,
        durably: bool,
    },
}

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
}

/// Whom this replica hears, and who of them hear each other.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Surroundings {
    /// The runs connected to this replica, itself included.
    pub connected: BTreeMap<ReplicaId, Run>,
    /// Pairs that are not connected though both are here, the smaller id first.
    pub apart: BTreeSet<(ReplicaId, ReplicaId)>,
    /// Outsiders that have caught up and ask to join.
    pub joining: BTreeSet<ReplicaId>,
}

impl Surroundings {
    fn are_connected(&self, a: ReplicaId, b: ReplicaId) -> bool {
        a == b || !self.apart.contains(&(a.min(b), a.max(b)))
    }
}

/// What the proposer is waiting for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Phase {
    Prepare,
    Sync,
    Accept,
    Install,
}

/// One attempt at the decree, at its proposer.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Proposal {
    ballot: Ballot,
    phase: Phase,
    promises: BTreeMap<ReplicaId, Promise>,
    /// When a quorum had promised.
    quorum_at: Option<Time>,
    /// Left out because they could not follow SYNC: they count for neither base nor value.
    left_out: BTreeSet<ReplicaId>,
    value: Option<View>,
    ready: BTreeSet<ReplicaId>,
    accepted: BTreeSet<ReplicaId>,
    installed: BTreeSet<ReplicaId>,
    /// When what is unanswered is said again.
    again: Time,
}

/// A promised fetch, at a member-to-be.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Syncing {
    ballot: Ballot,
    proposer: ReplicaId,
    base: LogEnd,
}

/// The change as one replica sees it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Change {
    me: Run,
    acceptor: Acceptor,
    proposal: Option<Proposal>,
    syncing: Option<Syncing>,
    /// Highest round heard of for this decree.
    round: u64,
    /// The last sign of another proposer's ballot.
    live: Option<(Ballot, Time)>,
    leaving: bool,
}

impl Change {
    /// Comes up with what the disk holds: a promise found there freezes the epoch as it did before.
    pub fn new(me: Run, acceptor: Acceptor) -> Change {
        Change { me, acceptor, proposal: None, syncing: None, round: 0, live: None, leaving: false }
    }

    pub fn acceptor(&self) -> &Acceptor {
        &self.acceptor
    }

    /// What this replica proposes and how far it is.
    pub fn proposing(&self) -> Option<(Ballot, Phase)> {
        self.proposal.as_ref().map(|p| (p.ballot, p.phase))
    }

    /// Whether this replica has promised a change of the view it last installed.
    pub fn is_frozen(&self) -> bool {
        self.acceptor.promised.is_some() && !is_broken("no-freeze")
    }

    /// Whether this replica's durable state answers for it in the newest view it knows.
    pub fn is_voter(&self) -> bool {
        let newest = self.acceptor.newest();
        newest.is_some_and(|view| votes(view, self.me))
    }

    /// Whether this very run takes part in the order of the newest view: recorded by it, and not frozen.
    pub fn has_rank(&self) -> bool {
        let newest = self.acceptor.newest();
        let recorded = newest
            .is_some_and(|view| view.members.contains(&self.me) || is_broken("keep-rank") && votes(view, self.me));
        recorded && !self.is_frozen()
    }

    /// The last sign of a ballot of another proposer for this decree.
    pub fn live_ballot(&self) -> Option<(Ballot, Time)> {
        self.live
    }

    /// Equal for two that will do the same but for the time: what an exploration of all interleavings tells states
    /// apart by.
    pub fn fingerprint(&self) -> u64 {
        let mut proposal = self.proposal.clone();
        if let Some(p) = &mut proposal {
            (p.again, p.quorum_at) = (Time(0), p.quorum_at.map(|_| Time(0)));
        }
        let live = self.live.map(|(ballot, _)| ballot);
        let mut hasher = twox_hash::XxHash3_64::with_seed(0);
        (self.me, &self.acceptor, proposal, &self.syncing, self.round, live, self.leaving).hash(&mut hasher);
        hasher.finish()
    }

    /// From now on this replica asks to be left out of the next view.
    pub fn leave(&mut self) {
        self.leaving = true;
    }

    fn say(out: &mut Vec<Action>, to: ReplicaId, frame: ChangeFrame) {
        out.push(Action::Say { to, frame, durably: false });
    }

    fn say_durably(out: &mut Vec<Action>, to: ReplicaId, frame: ChangeFrame) {
        out.push(Action::Say { to, frame, durably: !is_broken("said-before-durable") });
    }

    // ---- the proposer

    /// Starts an attempt under a ballot of its own. Only a voter of the newest view may; what it said under an
    /// earlier ballot stays said.
    pub fn propose(
        &mut self,
        now: Time,
        end_in: &dyn Fn(&View) -> LogEnd,
        around: &Surroundings,
        out: &mut Vec<Action>,
    ) {
        let Some(view) = self.acceptor.newest().filter(|view| votes(view, self.me)).cloned() else { return };
        let promised = self.acceptor.promised.map_or(0, |b| b.round);
        self.round = self.round.max(promised) + 1;
        let Run { id, birth, mut incarnation } = self.me;
        if is_broken("ballot-reused") {
            incarnation = Default::default();
        }
        let ballot = Ballot { round: self.round, id, birth, incarnation };
        self.proposal = Some(Proposal {
            ballot,
            phase: Phase::Prepare,
            promises: BTreeMap::new(),
            quorum_at: None,
            left_out: BTreeSet::new(),
            value: None,
            ready: BTreeSet::new(),
            accepted: BTreeSet::new(),
            installed: BTreeSet::new(),
            again: now.after_ns(CHANGE_AGAIN_NS),
        });
        self.promise(ballot, out);
        let promise = self.own_promise(end_in(&view));
        Self::say_durably(out, self.me.id, ChangeFrame::Promise { epoch: view.epoch, ballot, promise });
        for &to in around.connected.keys().filter(|&&id| id != self.me.id) {
            Self::say_durably(out, to, ChangeFrame::Prepare { ballot, view: view.clone() });
        }
    }

    /// A higher ballot than any before: the epoch is frozen for good.
    fn promise(&mut self, ballot: Ballot, out: &mut Vec<Action>) {
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

    fn own_promise(&self, end: LogEnd) -> Promise {
        let voter = self.is_voter();
        let accepted = if voter { self.acceptor.accepted.clone() } else { None };
        Promise { run: self.me, voter, accepted, end, leaving: self.leaving }
    }

    fn on_promise(
        &mut self,
        now: Time,
        from: Run,
        ballot: Ballot,
        promise: Promise,
        around: &Surroundings,
        out: &mut Vec<Action>,
    ) {
        let Some(proposal) = &mut self.proposal else { return };
        if proposal.ballot != ballot || proposal.phase != Phase::Prepare || promise.run != from {
            return;
        }
        proposal.promises.insert(from.id, promise);
        self.choose_when_heard(now, around, out);
    }

    /// Chooses once all that may answer have, or a while after a quorum has.
    fn choose_when_heard(&mut self, now: Time, around: &Surroundings, out: &mut Vec<Action>) {
        let Some(e) = self.acceptor.newest().cloned() else { return };
        let Some(proposal) = self.proposal.as_mut().filter(|p| p.phase == Phase::Prepare) else { return };
        if !is_quorum(&e, proposal.promisers(&e)) {
            return;
        }
        let since = *proposal.quorum_at.get_or_insert(now);
        let may_answer = |id: &&ReplicaId| e.rank_of(**id).is_some() || around.joining.contains(*id);
        let mut expected = around.connected.keys().filter(may_answer);
        if expected.all(|id| proposal.promises.contains_key(id)) || now.since_ns(since) >= CHANGE_GATHER_NS {
            self.choose(around, out);
        }
    }

    /// Bound: the accepted value with the highest ballot, and straight to Accept, for its members were READY before it
    /// was first accepted. Free: the largest set of mutually connected voters, up to the longest log among them.
    fn choose(&mut self, around: &Surroundings, out: &mut Vec<Action>) {
        let Some(e) = self.acceptor.newest().cloned() else { return };
        let Some(proposal) = self.proposal.as_mut() else { return };
        let counted = |p: &&Promise| p.voter && votes(&e, p.run) && !proposal.left_out.contains(&p.run.id);
        let accepted = proposal.promises.values().filter(counted).filter_map(|p| p.accepted.clone());
        let bound = accepted.max_by_key(|(ballot, _)| *ballot).filter(|_| !is_broken("accepted-ignored"));
        if let Some((_, value)) = bound {
            proposal.value = Some(value);
            return self.start_accept(out);
        }
        let ends = proposal.promises.values().filter(counted).filter(|p| !is_broken("own-base") || p.run == self.me);
        let Some(base) = ends.map(|p| p.end).max() else { return };
        let members = proposal.members(&e, around);
        let value = View {
            epoch: e.epoch.next(),
            ballot: proposal.ballot,
            members: members.clone(),
            base: base.slot,
            chain: e.next_chain(),
            base_digest: base.digest,
            base_time: base.time,
            ..e.clone()
        };
        if members.is_empty() || !may_exist(&value) {
            return;
        }
        let sources: Vec<ReplicaId> =
            proposal.promises.values().filter(|p| p.end.slot == base.slot).map(|p| p.run.id).collect();
        (proposal.phase, proposal.value) = (Phase::Sync, Some(value));
        proposal.ready.clear();
        if is_broken("sync-after-decree") {
            return self.start_accept(out);
        }
        let (epoch, ballot) = (e.epoch, proposal.ballot);
        for member in members {
            Self::say(out, member.id, ChangeFrame::Sync { epoch, ballot, base, sources: sources.clone() });
        }
    }

    /// This one can't follow SYNC: it is left out, and what it promised counts for nothing. Only before the first
    /// ACCEPT, for one ballot carries one value.
    pub fn leave_out(&mut self, id: ReplicaId, around: &Surroundings, out: &mut Vec<Action>) {
        let Some(e) = self.acceptor.newest().cloned() else { return };
        let Some(proposal) = self.proposal.as_mut().filter(|p| p.phase == Phase::Sync) else { return };
        proposal.left_out.insert(id);
        (proposal.phase, proposal.value) = (Phase::Prepare, None);
        if is_quorum(&e, proposal.promisers(&e)) {
            self.choose(around, out);
        }
    }

    fn on_ready(&mut self, from: Run, ballot: Ballot, base: LogEnd, out: &mut Vec<Action>) {
        let Some(proposal) = self.proposal.as_mut().filter(|p| p.ballot == ballot && p.phase == Phase::Sync) else {
            return;
        };
        let Some(value) = &proposal.value else { return };
        let same_log = base.slot == value.base && base.digest == value.base_digest;
        if !same_log || !value.members.contains(&from) {
            return;
        }
        proposal.ready.insert(from.id);
        if value.members.iter().all(|m| proposal.ready.contains(&m.id)) {
            self.start_accept(out);
        }
    }

    fn start_accept(&mut self, out: &mut Vec<Action>) {
        let Some(proposal) = self.proposal.as_mut() else { return };
        proposal.phase = Phase::Accept;
        self.say_accept(out);
    }

    fn say_accept(&self, out: &mut Vec<Action>) {
        let (Some(view), Some(proposal)) = (self.acceptor.newest(), &self.proposal) else { return };
        let Some(value) = &proposal.value else { return };
        let (epoch, ballot) = (view.epoch, proposal.ballot);
        for to in view.members.iter().map(|m| m.id).filter(|id| !proposal.accepted.contains(id)) {
            let (value, view) = (value.clone(), view.clone());
            Self::say(out, to, ChangeFrame::Accept { epoch, ballot, value, view });
        }
    }

    fn on_accepted(&mut self, from: Run, ballot: Ballot, around: &Surroundings, out: &mut Vec<Action>) {
        let Some(e) = self.acceptor.newest().cloned() else { return };
        let Some(proposal) = self.proposal.as_mut().filter(|p| p.ballot == ballot && p.phase == Phase::Accept) else {
            return;
        };
        if !votes(&e, from) {
            return;
        }
        proposal.accepted.insert(from.id);
        let voters = Ranks::of(proposal.accepted.iter().filter_map(|&id| e.rank_of(id)));
        if is_quorum(&e, voters) {
            proposal.phase = Phase::Install;
            self.say_install(around, out);
        }
    }

    /// The view is decided: everyone may know.
    fn say_install(&self, around: &Surroundings, out: &mut Vec<Action>) {
        let Some(proposal) = &self.proposal else { return };
        let Some(value) = &proposal.value else { return };
        let mut everyone: BTreeSet<ReplicaId> = around.connected.keys().copied().collect();
        everyone.extend(value.members.iter().map(|m| m.id));
        for to in everyone.into_iter().filter(|id| !proposal.installed.contains(id)) {
            Self::say(out, to, ChangeFrame::Install { view: value.clone() });
        }
    }

    fn on_installed(&mut self, from: Run, epoch: Epoch) {
        let Some(proposal) = self.proposal.as_mut().filter(|p| p.phase == Phase::Install) else { return };
        let Some(value) = proposal.value.as_ref().filter(|v| v.epoch == epoch) else { return };
        proposal.installed.insert(from.id);
        if value.members.iter().all(|m| proposal.installed.contains(&m.id)) {
            self.proposal = None;
        }
    }

    fn on_refuse(&mut self, promised: Ballot) {
        self.round = self.round.max(promised.round);
        if self.proposal.as_ref().is_some_and(|p| p.ballot < promised && p.phase != Phase::Install) {
            self.proposal = None;
        }
    }

    /// Says again what is unanswered, and goes on where waiting was all that was left.
    pub fn tick(&mut self, now: Time, around: &Surroundings, out: &mut Vec<Action>) {
        self.choose_when_heard(now, around, out);
        let Some(view) = self.acceptor.newest().cloned() else { return };
        let Some(proposal) = self.proposal.as_mut().filter(|p| p.again <= now) else { return };
        proposal.again = now.after_ns(CHANGE_AGAIN_NS);
        let (epoch, ballot) = (view.epoch, proposal.ballot);
        match proposal.phase {
            Phase::Prepare => {
                let silent = around.connected.keys().filter(|id| !proposal.promises.contains_key(id));
                for &to in silent.filter(|&&id| id != self.me.id) {
                    Self::say_durably(out, to, ChangeFrame::Prepare { ballot, view: view.clone() });
                }
            }
            Phase::Sync => {
                let Some(value) = &proposal.value else { return };
                let base = LogEnd { slot: value.base, digest: value.base_digest, time: value.base_time };
                let ends = proposal.promises.values().filter(|p| p.end.slot == base.slot);
                let sources: Vec<ReplicaId> = ends.map(|p| p.run.id).collect();
                for member in value.members.iter().filter(|m| !proposal.ready.contains(&m.id)) {
                    Self::say(out, member.id, ChangeFrame::Sync { epoch, ballot, base, sources: sources.clone() });
                }
            }
            Phase::Accept => self.say_accept(out),
            Phase::Install => self.say_install(around, out),
        }
    }

    /// When `tick` has something to do.
    pub fn deadline(&self) -> Option<Time> {
        let proposal = self.proposal.as_ref()?;
        let gathered = proposal.quorum_at.filter(|_| proposal.phase == Phase::Prepare);
        [Some(proposal.again), gathered.map(|at| at.after_ns(CHANGE_GATHER_NS))].into_iter().flatten().min()
    }

    // ---- the acceptor, and everyone

    /// One frame from an authentic run; frames to itself come this way, too. `end_in` says where this replica's log
    /// ends once it is cut to the chain of a view.
    pub fn on_frame(
        &mut self,
        now: Time,
        from: Run,
        frame: ChangeFrame,
        end_in: &dyn Fn(&View) -> LogEnd,
        around: &Surroundings,
        out: &mut Vec<Action>,
    ) {
        let behind = frame.epoch().is_some_and(|epoch| epoch < self.epoch());
        if behind && (frame.is_request() || !is_broken("answers-name-the-ballot-only")) {
            if frame.is_request() {
                self.say_newest(from.id, out);
            }
            return;
        }
        match frame {
            ChangeFrame::Prepare { ballot, view } => self.on_prepare(now, from, ballot, view, end_in, out),
            ChangeFrame::Accept { ballot, value, view, .. } => self.on_accept(now, from, ballot, value, view, out),
            ChangeFrame::Install { view } => self.on_install(from, view, out),
            ChangeFrame::Installed { epoch } => self.on_installed(from, epoch),
            answer if answer.epoch() != Some(self.epoch()) && !is_broken("answers-name-the-ballot-only") => {}
            ChangeFrame::Promise { ballot, promise, .. } => self.on_promise(now, from, ballot, promise, around, out),
            ChangeFrame::Refuse { promised, .. } => self.on_refuse(promised),
            ChangeFrame::Sync { ballot, base, sources, .. } => self.on_sync(from, ballot, base, sources, out),
            ChangeFrame::Ready { ballot, base, .. } => self.on_ready(from, ballot, base, out),
            ChangeFrame::Accepted { ballot, .. } => self.on_accepted(from, ballot, around, out),
        }
    }

    fn epoch(&self) -> Epoch {
        self.acceptor.newest().map_or(Epoch(0), |v| v.epoch)
    }

    fn say_newest(&self, to: ReplicaId, out: &mut Vec<Action>) {
        if let Some(view) = self.acceptor.newest().cloned() {
            Self::say_durably(out, to, ChangeFrame::Install { view });
        }
    }

    fn on_prepare(
        &mut self,
        now: Time,
        from: Run,
        ballot: Ballot,
        view: View,
        end_in: &dyn Fn(&View) -> LogEnd,
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
        let promise = self.own_promise(end_in(&view));
        Self::say_durably(out, from.id, ChangeFrame::Promise { epoch: view.epoch, ballot, promise });
    }

    fn heard_ballot(&mut self, now: Time, from: Run, ballot: Ballot) {
        self.round = self.round.max(ballot.round);
        if from.id != self.me.id {
            self.live = Some((ballot, now));
        }
    }

    /// SYNC below the promise is refused; one that was never promised is not for this replica yet.
    fn on_sync(&mut self, from: Run, ballot: Ballot, base: LogEnd, sources: Vec<ReplicaId>, out: &mut Vec<Action>) {
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
            let frame = ChangeFrame::Ready { epoch: self.epoch(), ballot: syncing.ballot, base: own };
            Self::say_durably(out, syncing.proposer, frame);
        }
    }

    /// What PREPARE makes a voter do first, ACCEPT does first.
    fn on_accept(&mut self, now: Time, from: Run, ballot: Ballot, value: View, view: View, out: &mut Vec<Action>) {
        self.adopt_newer(&view, out);
        self.heard_ballot(now, from, ballot);
        if !self.is_voter() || value.epoch != view.epoch.next() {
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
    fn on_install(&mut self, from: Run, view: View, out: &mut Vec<Action>) {
        self.adopt_newer(&view, out);
        Self::say_durably(out, from.id, ChangeFrame::Installed { epoch: view.epoch });
    }

    /// A newer view ends everything about the older decree. One that does not record this birth only takes the vote
    /// away.
    fn adopt_newer(&mut self, view: &View, out: &mut Vec<Action>) {
        if view.epoch <= self.epoch() {
            return;
        }
        if votes(view, self.me) {
            self.acceptor.installed = Some(view.clone());
            self.acceptor.heard = None;
        } else {
            self.acceptor.heard = Some(view.clone());
        }
        (self.acceptor.promised, self.acceptor.accepted) = (None, None);
        (self.syncing, self.live, self.round) = (None, None, 0);
        if self.proposal.as_ref().is_some_and(|p| p.phase != Phase::Install || p.value.as_ref() != Some(view)) {
            self.proposal = None;
        }
        out.push(Action::Adopt(view.clone()));
        out.push(Action::Write);
    }
}

/// Whether the view records this replica's birth: its durable state answers for it, in whatever run.
pub fn votes(view: &View, run: Run) -> bool {
    let same = |rank| view.member(rank).birth == run.birth || is_broken("empty-disk-votes");
    view.rank_of(run.id).is_some_and(same)
}

impl Proposal {
    /// The voters of e whose promises count.
    fn promisers(&self, e: &View) -> Ranks {
        let counted =
            self.promises.values().filter(|p| p.voter && votes(e, p.run) && !self.left_out.contains(&p.run.id));
        Ranks::of(counted.filter_map(|p| e.rank_of(p.run.id)))
    }

    /// The members of a free value: the largest set of mutually connected voters among the answerers (of equal ones
    /// the greater list of ids, descending), then by descending id each outsider that is connected with all of them.
    fn members(&self, e: &View, around: &Surroundings) -> Vec<Run> {
        let here = |p: &&Promise| {
            !p.leaving && !self.left_out.contains(&p.run.id) && around.connected.get(&p.run.id) == Some(&p.run)
        };
        let voters: Vec<Run> =
            self.promises.values().filter(here).filter(|p| p.voter && votes(e, p.run)).map(|p| p.run).rev().collect();
        let mut best: Vec<Run> = Vec::new();
        for subset in 0u32..1 << voters.len() {
            let picked: Vec<Run> = (0..voters.len()).filter(|&k| subset >> k & 1 == 1).map(|k| voters[k]).collect();
            let connected = picked.iter().all(|a| picked.iter().all(|b| around.are_connected(a.id, b.id)));
            if connected && (picked.len(), ids(&picked)) > (best.len(), ids(&best)) {
                best = picked;
            }
        }
        let outsiders = self.promises.values().filter(here).filter(|p| !p.voter && around.joining.contains(&p.run.id));
        for outsider in outsiders.rev() {
            let id = outsider.run.id;
            let full = best.len() == crate::limits::REPLICAS_MAX;
            if !full && best.iter().all(|m| m.id != id && around.are_connected(m.id, id)) {
                best.push(outsider.run);
            }
        }
        best.sort_by_key(|m| m.id);
        best
    }
}

fn ids(runs: &[Run]) -> Vec<ReplicaId> {
    runs.iter().map(|r| r.id).collect()
}

impl ChangeFrame {
    /// The epoch that must not be behind this replica's own; `None` for an answer about any decided view.
    fn epoch(&self) -> Option<Epoch> {
        match self {
            ChangeFrame::Prepare { view, .. } => Some(view.epoch),
            ChangeFrame::Promise { epoch, .. }
            | ChangeFrame::Refuse { epoch, .. }
            | ChangeFrame::Sync { epoch, .. }
            | ChangeFrame::Ready { epoch, .. }
            | ChangeFrame::Accept { epoch, .. }
            | ChangeFrame::Accepted { epoch, .. } => Some(*epoch),
            ChangeFrame::Install { view } => Some(view.epoch),
            ChangeFrame::Installed { .. } => None,
        }
    }

    /// Whether whoever says this waits for an answer, and must be told when it is behind.
    fn is_request(&self) -> bool {
        use ChangeFrame::{Accept, Install, Prepare, Sync};
        matches!(self, Prepare { .. } | Sync { .. } | Accept { .. } | Install { .. })
    }
}
