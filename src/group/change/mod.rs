//! The change of a view: one single-decree Paxos for each epoch (DESIGN 5.3).
//!
//! View e+1 is decided by a quorum of view e. Its members hold the log up to its base *before* the decree, so any of
//! its own quorums can decide e+2; and an accepted value must be completed by whoever proposes next, so no two views
//! e+1 are ever installed (I5). After Lamport's Paxos, and Yeger-Lotem, Keidar and Dolev's dynamic voting.
//!
//! | proposer's phase | says | goes on when |
//! | --- | --- | --- |
//! | Prepare | PREPARE to all | a quorum of e promised: a bound value goes to Accept, a free one to Sync |
//! | Sync | SYNC to the members-to-be | each is READY: it holds the log up to the base, durably |
//! | Accept | ACCEPT to the voters of e | a quorum of e ACCEPTED: the view is decided |
//! | Install | INSTALL to all | each INSTALLED; whoever misses it learns it from any member |

mod acceptor;
mod frame;
mod proposer;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash, Hasher};

pub use crate::wire::change::{ChangeFrame, LogEnd, Promise};
pub use acceptor::Acceptor;
pub use frame::Action;
pub use proposer::{next_members, Phase};

use crate::broken::is as is_broken;
use crate::types::{Epoch, Incarnation, ReplicaId, Run, Slot, Time};
use crate::wire::view::{Ballot, Durability, View};
use acceptor::Syncing;
use proposer::Proposal;

/// Whom this replica hears, and who of them hear each other.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Surroundings {
    /// The runs connected to this replica, itself included.
    pub connected: BTreeMap<ReplicaId, Run>,
    /// Pairs that are not connected though both are here, the smaller id first.
    pub apart: BTreeSet<(ReplicaId, ReplicaId)>,
    /// Outsiders that have caught up and ask to join.
    pub joining: BTreeSet<ReplicaId>,
    /// A quorum of voters that it hears is connected without it, and larger than what is connected with it.
    pub outnumbered: bool,
}

impl Surroundings {
    fn are_connected(&self, a: ReplicaId, b: ReplicaId) -> bool {
        a == b || !self.apart.contains(&(a.min(b), a.max(b)))
    }
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
    /// What it once promised and held is still there, or everyone is here who could know better.
    trusted: bool,
    /// Its log is all that it ever held.
    whole: bool,
    /// How far members of the newest view were durable in it, as they told this replica.
    remembers: Vec<(ReplicaId, Slot)>,
    /// The last epoch in which this run said READY.
    readied: Option<Epoch>,
}

/// What shows that a directory is an older copy of what this replica once had (DESIGN 5.6).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OldCopy {
    /// This birth was started more often than the directory knows of.
    LaterRun(Incarnation),
    /// It once held its log up to here in this epoch.
    LongerLog(Slot),
    /// A view records this very run, which never agreed to be in it: another one has used its name.
    SameRun(Epoch),
}

impl fmt::Display for OldCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OldCopy::LaterRun(incarnation) => write!(f, "it was started as number {incarnation} already"),
            OldCopy::LongerLog(slot) => write!(f, "it once held slot {slot}"),
            OldCopy::SameRun(epoch) => write!(f, "view {epoch} records a run of it that is not this one"),
        }
    }
}

impl Change {
    /// Comes up with what the disk holds: a promise found there freezes the epoch as it did before.
    pub fn new(me: Run, acceptor: Acceptor) -> Change {
        Change {
            me,
            acceptor,
            proposal: None,
            syncing: None,
            round: 0,
            live: None,
            leaving: false,
            trusted: true,
            whole: true,
            remembers: Vec::new(),
            readied: None,
        }
    }

    pub fn acceptor(&self) -> &Acceptor {
        &self.acceptor
    }

    /// What this replica proposes and how far it is.
    pub fn proposing(&self) -> Option<(Ballot, Phase)> {
        self.proposal.as_ref().map(|p| (p.ballot, p.phase))
    }

    /// Members-to-be that have not said READY.
    pub fn awaited(&self) -> Vec<Run> {
        self.proposal.as_ref().map(Proposal::awaited).unwrap_or_default()
    }

    /// Whether this replica has promised a change of the view it last installed.
    pub fn is_frozen(&self) -> bool {
        self.acceptor.promised.is_some() && !is_broken("no-freeze")
    }

    /// Whether no change of the view it last installed has begun here, and nothing about this replica calls for one.
    pub fn is_idle(&self) -> bool {
        let begun = self.proposal.is_some() || self.acceptor.promised.is_some() || self.acceptor.accepted.is_some();
        self.trusted && !self.leaving && !begun
    }

    /// Whether this replica's durable state answers for it in the newest view it knows.
    pub fn is_voter(&self) -> bool {
        let newest = self.acceptor.newest();
        self.trusted && newest.is_some_and(|view| votes(view, self.me))
    }

    /// What was acknowledged here may not have reached the disk (DESIGN 5.6, `--durability memory`): promise and
    /// accepted value stand, but this replica has no vote until every member of the newest view is here, or it is in
    /// a view again; and until then the end of its log tells nothing without those of all others.
    pub fn distrust(&mut self) {
        (self.trusted, self.whole) = (false, false);
    }

    /// Whether its log is all that it ever held.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    pub fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// With every member of the newest view at hand nothing can be known to somebody else only.
    pub fn look_for_all(&mut self, around: &Surroundings) {
        let here = |run: &Run| around.connected.get(&run.id).is_some_and(|there| there.birth == run.birth);
        self.trusted |= self.acceptor.newest().is_some_and(|view| view.members.iter().all(here));
    }

    /// Whether this very run takes part in the order of the newest view: recorded by it, and not frozen.
    pub fn has_rank(&self) -> bool {
        let newest = self.acceptor.newest();
        let recorded = newest
            .is_some_and(|view| view.members.contains(&self.me) || is_broken("keep-rank") && votes(view, self.me));
        recorded && !self.is_frozen()
    }

    /// How far each of these was durable in the newest view, as they said. Where operations are acknowledged from
    /// memory, what they said counts that, and their disks may hold less.
    pub fn remember(&mut self, durable: Vec<(ReplicaId, Slot)>) {
        let on_disk = self.acceptor.newest().is_some_and(|view| view.durability == Durability::Disk);
        self.remembers = if on_disk { durable } else { Vec::new() };
    }

    /// How far members of the newest view were durable in it, as far as this replica knows.
    pub fn remembers(&self) -> &[(ReplicaId, Slot)] {
        &self.remembers
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
        let own = (self.round, live, self.leaving, self.trusted, self.whole, &self.remembers, self.readied);
        (self.me, &self.acceptor, proposal, &self.syncing, own).hash(&mut hasher);
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

    /// One frame from an authentic run; frames to itself come this way, too. `end_in` says where this replica's log
    /// will end once what it holds contiguously is appended and what [`Acceptor::keeps`] denies is cut.
    pub fn on_frame(
        &mut self,
        now: Time,
        from: Run,
        frame: ChangeFrame,
        end_in: &dyn Fn(&Acceptor) -> LogEnd,
        around: &Surroundings,
        out: &mut Vec<Action>,
    ) {
        if frame.view().is_some_and(|view| self.is_another_branch(view)) {
            return;
        }
        let behind = frame.epoch().is_some_and(|epoch| epoch < self.epoch());
        if behind && (frame.is_request() || !is_broken("answers-name-the-ballot-only")) {
            if frame.is_request() {
                self.say_newest(from.id, out);
            }
            return;
        }
        match frame {
            ChangeFrame::Prepare { ballot, view } => self.on_prepare(now, from, ballot, view, end_in, out),
            ChangeFrame::Accept { ballot, value, view } => self.on_accept(now, from, ballot, value, view, out),
            ChangeFrame::Install { view } => self.on_install(from, view, out),
            ChangeFrame::Installed { epoch } => self.on_installed(from, epoch),
            ChangeFrame::Doubt { epoch, run, durable } => self.on_doubt(epoch, run, durable, end_in, out),
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

    /// A view of another cluster, or another view of this very epoch: no decree of this replica's chain leads there.
    fn is_another_branch(&self, view: &View) -> bool {
        let differs = |own: &View| own.cluster != view.cluster || own.epoch == view.epoch && own != view;
        self.acceptor.newest().is_some_and(differs)
    }
}

/// Whether the view records this replica's birth: its durable state answers for it, in whatever run.
pub fn votes(view: &View, run: Run) -> bool {
    let same = |rank| view.member(rank).birth == run.birth || is_broken("empty-disk-votes");
    view.rank_of(run.id).is_some_and(same)
}
