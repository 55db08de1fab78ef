//! Due: whether the view must change, who proposes, and when (DESIGN 5.2).
//!
//! A change is due for one of the reasons that [`Why`] lists. Every voter may propose one, after those with higher ids
//! had their turn, unless one of the reasons of [`Hold`] keeps it. All of it is judged anew each turn from what is
//! heard now: nobody is bound by what was due a moment ago.

use std::collections::BTreeSet;
use std::fmt;

use crate::group::change::{next_members, votes, Change, Surroundings};
use crate::group::damping::Damping;
use crate::group::detect::{Detect, Peer};
use crate::group::quorum::{commit_count, is_quorum, may_exist, Ranks};
use crate::limits::{CHANGE_JITTER_NS, CHANGE_STEP_NS};
use crate::types::{ReplicaId, Run, Time};
use crate::wire::view::{Book, View};

/// Why a change of the view is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    Leaving(ReplicaId),
    Restarted(ReplicaId),
    /// The smaller id first.
    Apart(ReplicaId, ReplicaId),
    Accepted(ReplicaId),
    Frozen(ReplicaId),
    Book,
    Joining(ReplicaId),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Leaving(id) => write!(f, "replica {id} is leaving"),
            Why::Restarted(id) => write!(f, "replica {id} was started again"),
            Why::Apart(a, b) => write!(f, "replicas {a} and {b} do not hear each other"),
            Why::Accepted(id) => write!(f, "replica {id} has accepted the next view"),
            Why::Frozen(id) => write!(f, "replica {id} has promised a change"),
            Why::Book => write!(f, "the book is to change"),
            Why::Joining(id) => write!(f, "replica {id} asks to join"),
        }
    }
}

/// What keeps this replica from proposing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hold {
    /// Its durable state does not answer for it in the newest view.
    NoVote,
    NotDue,
    /// An attempt of its own is under way.
    Proposing,
    /// It has no rank, and hears a member of a view that goes on without it.
    ActivePrimary(ReplicaId),
    /// The voters connected to it can't be a quorum.
    NoQuorum,
    /// A quorum that it hears is connected without it, and larger than what it could have: it is for them to choose.
    Outnumbered,
    /// The policy does not allow the view that could be.
    NotAllowed,
    /// The view that could be is the one that is.
    NothingNew,
    /// The attempt of this proposer is under way.
    LiveBallot(ReplicaId),
}

impl Hold {
    /// Whether a replica that waits for this long enough calls itself secondary: the change is due, and can't be.
    pub fn makes_secondary(&self) -> bool {
        matches!(self, Hold::NoQuorum | Hold::Outnumbered | Hold::NotAllowed)
    }
}

/// What a decision about a change is made of.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    pub now: Time,
    /// The newest view known.
    pub view: &'a View,
    pub change: &'a Change,
    pub detect: &'a Detect,
    pub damping: &'a Damping,
    /// This replica was asked to stop.
    pub leaving: bool,
    /// The book that is to be in the next view.
    pub book: Option<&'a Book>,
}

/// Outsiders that ask to join, have caught up and are connected: what [`Damping::observe`] is told each turn.
pub fn ready_to_join(now: Time, view: &View, detect: &Detect) -> Vec<Run> {
    let ready = |p: &&Peer| p.status.joining && !votes(view, p.run) && detect.connected(now, p.run.id);
    detect.all_heard(now).filter(ready).map(|p| p.run).collect()
}

/// The pairs of these, sorted by id, that do not hear each other as they say themselves.
fn apart(peers: &[&Peer]) -> BTreeSet<(ReplicaId, ReplicaId)> {
    let pairs = peers.iter().enumerate().flat_map(|(k, a)| peers[k + 1..].iter().map(move |b| (a, b)));
    pairs.filter(|(a, b)| !a.hears_and_is_heard(b)).map(|(a, b)| (a.run.id, b.run.id)).collect()
}

impl Scene<'_> {
    fn me(&self) -> Run {
        self.detect.me()
    }

    /// Rank as the view records it, frozen or not: who has promised still belongs to the primary.
    fn has_rank(&self, run: Run) -> bool {
        self.view.members.contains(&run)
    }

    /// Whom this replica is connected with, who of them with each other, and who may be let in.
    pub fn surroundings(&self) -> Surroundings {
        let mut around = Surroundings { joining: self.damping.joining(self.now), ..Surroundings::default() };
        around.connected.insert(self.me().id, self.me());
        let peers: Vec<&Peer> = self.detect.all_connected(self.now).collect();
        around.connected.extend(peers.iter().map(|p| (p.run.id, p.run)));
        around.apart = apart(&peers);
        around.outnumbered = self.is_outnumbered(&around);
        around
    }

    /// Whether the largest set of voters that is connected without this replica, as they say themselves, is a quorum,
    /// and larger than the largest with it.
    fn is_outnumbered(&self, around: &Surroundings) -> bool {
        let stays = |p: &&Peer| votes(self.view, p.run) && !p.status.leaving;
        let voters: Vec<&Peer> = self.detect.all_heard(self.now).filter(stays).collect();
        if voters.iter().all(|p| around.connected.contains_key(&p.run.id)) {
            return false;
        }
        let others = Surroundings { apart: apart(&voters), ..Surroundings::default() };
        let runs: Vec<Run> = voters.iter().map(|p| p.run).collect();
        let largest = next_members(&runs, std::iter::empty(), &others);
        let ranks = Ranks::of(largest.iter().filter_map(|run| self.view.rank_of(run.id)));
        let own: Vec<Run> = self.voters(around).filter(|run| !self.is_leaving(*run)).collect();
        is_quorum(self.view, ranks) && largest.len() > next_members(&own, std::iter::empty(), around).len()
    }

    /// Whether all is as it should be, and nothing further need be asked: every member is here, hears all others and
    /// is content, and no outsider wants anything. So it nearly always is, and this is told without a list being made.
    pub fn is_calm(&self) -> bool {
        let (me, members) = (self.me(), &self.view.members);
        let is_here = |run: &Run| {
            let hears = |p: &Peer| members.iter().all(|m| m == run || p.status.heard.lists(*m));
            let peer = self.peer(run.id).filter(|p| p.run == *run && hears(p));
            *run == me || peer.is_some_and(|p| self.detect.complains_of(p.run).is_none())
        };
        let wants = |p: &Peer| p.status.leaving || p.status.joining || p.status.accepted || p.status.frozen;
        let own = self.change.is_idle() && !self.leaving && self.book.is_none() && members.contains(&me);
        own && members.iter().all(is_here) && !self.detect.all_heard(self.now).any(wants)
    }

    /// Why a change is due, if it is: the reason that tells most, where there are several.
    pub fn is_due(&self, around: &Surroundings) -> Option<Why> {
        let members = || self.view.members.iter().copied();
        let leaving = members().find(|&run| self.is_leaving(run)).map(|run| Why::Leaving(run.id));
        // Nobody would be left to agree on anything.
        let leaving = leaving.filter(|_| self.voters(around).any(|run| !self.is_leaving(run)));
        let restarted = || {
            let run_of = |id| if id == self.me().id { Some(self.me()) } else { self.peer(id).map(|p| p.run) };
            members().find(|m| run_of(m.id).is_some_and(|run| run != *m)).map(|m| Why::Restarted(m.id))
        };
        let joining = || around.joining.iter().next().map(|&id| Why::Joining(id));
        leaving
            .or_else(restarted)
            .or_else(|| self.apart(around))
            .or_else(|| self.begun())
            .or_else(|| self.book.map(|_| Why::Book))
            .or_else(joining)
    }

    /// Two members that are not connected. Of those that it does not hear a replica knows only that.
    fn apart(&self, around: &Surroundings) -> Option<Why> {
        let is_there = |run: Run| around.connected.get(&run.id) == Some(&run);
        let gone = self.view.members.iter().find(|&&run| !is_there(run));
        let is_member = |id: ReplicaId| self.view.rank_of(id).is_some();
        let between = around.apart.iter().find(|&&(a, b)| is_member(a) && is_member(b));
        let gone = gone.map(|run| Why::Apart(self.me().id.min(run.id), self.me().id.max(run.id)));
        gone.or(between.map(|&(a, b)| Why::Apart(a, b)))
    }

    /// A voter that says it has accepted the next view, or promised to take part in choosing one.
    fn begun(&self) -> Option<Why> {
        let (voter, id) = (self.change.is_voter(), self.me().id);
        let own_accepted = voter && self.change.acceptor().accepted.is_some();
        let own_frozen = voter && self.change.is_frozen();
        let said = |p: &&Peer| votes(self.view, p.run) && p.status.epoch == self.view.epoch;
        let find = |says: &dyn Fn(&Peer) -> bool| {
            self.detect.all_heard(self.now).filter(said).find(|p| says(p)).map(|p| p.run.id)
        };
        let accepted = own_accepted.then_some(id).or_else(|| find(&|p| p.status.accepted));
        let frozen = || own_frozen.then_some(id).or_else(|| find(&|p| p.status.frozen));
        accepted.map(Why::Accepted).or_else(|| frozen().map(Why::Frozen))
    }

    fn is_leaving(&self, run: Run) -> bool {
        if run == self.me() {
            return self.leaving;
        }
        self.peer(run.id).is_some_and(|p| p.run == run && p.status.leaving)
    }

    fn peer(&self, id: ReplicaId) -> Option<&Peer> {
        self.detect.heard(self.now, id)
    }

    /// The voters connected to this replica, itself included, by id.
    fn voters<'a>(&'a self, around: &'a Surroundings) -> impl Iterator<Item = Run> + 'a {
        around.connected.values().copied().filter(|&run| votes(self.view, run))
    }

    /// Whether the voters connected to this replica could be a quorum.
    pub fn could_be_quorum(&self, around: &Surroundings) -> bool {
        is_quorum(self.view, Ranks::of(self.voters(around).filter_map(|run| self.view.rank_of(run.id))))
    }

    /// The view that would follow, if all that are heard answered what they say now; its base aside.
    fn would_be(&self, around: &Surroundings) -> View {
        let book = self.book.unwrap_or(&self.view.book);
        let stays = |run: &Run| !self.is_leaving(*run) && book.iter().any(|entry| entry.id == run.id);
        let voters: Vec<Run> = self.voters(around).filter(stays).collect();
        let outsiders: Vec<Run> = around.joining.iter().filter_map(|id| around.connected.get(id).copied()).collect();
        let outsiders = outsiders.into_iter().filter(|run| stays(run) && !votes(self.view, *run));
        let members = next_members(&voters, outsiders.collect::<Vec<Run>>().into_iter(), around);
        View { members, book: book.clone(), ..self.view.clone() }
    }

    /// Why this replica may propose a change now; otherwise what keeps it from it.
    pub fn may_propose(&self, around: &Surroundings) -> Result<Why, Hold> {
        if !self.change.is_voter() {
            return Err(Hold::NoVote);
        }
        let why = self.is_due(around).ok_or(Hold::NotDue)?;
        if self.change.is_proposing() {
            return Err(Hold::Proposing);
        }
        if let Some(member) = self.active_primary() {
            return Err(Hold::ActivePrimary(member));
        }
        if !self.could_be_quorum(around) {
            return Err(Hold::NoQuorum);
        }
        if around.outnumbered {
            return Err(Hold::Outnumbered);
        }
        // What was begun is finished, or nobody who promised ever orders again.
        if self.begun().is_none() {
            let next = self.would_be(around);
            if next.members.is_empty() || !may_exist(&next) {
                return Err(Hold::NotAllowed);
            }
            if next == *self.view {
                return Err(Hold::NothingNew);
            }
        }
        match self.live_ballot(around) {
            Some(proposer) => Err(Hold::LiveBallot(proposer)),
            None => Ok(why),
        }
    }

    /// For one without rank: a member of the newest view with rank, unfrozen, that hears a commit quorum of such
    /// members. It is not disturbed.
    fn active_primary(&self) -> Option<ReplicaId> {
        if self.has_rank(self.me()) {
            return None;
        }
        let is_frozen = |run: Run| self.peer(run.id).is_some_and(|p| p.run == run && p.status.frozen);
        let active: Vec<Run> = self.view.members.iter().copied().filter(|&run| !is_frozen(run)).collect();
        let tag = self.view.tag();
        let is_primary = |run: &&Run| {
            let peer = self.peer(run.id).filter(|p| p.run == **run && p.tag == tag);
            let hears = |p: &Peer| active.iter().filter(|m| m == run || p.status.heard.lists(**m)).count();
            peer.is_some_and(|p| hears(p) >= commit_count(self.view))
        };
        active.iter().find(is_primary).map(|run| run.id)
    }

    /// The proposer of a ballot for this decree that was heard of lately, if its run is still heard and nobody
    /// complains of it: by this replica, and then it must hear a quorum itself, or by a voter connected to this one.
    /// Whoever is deaf can ask for ever.
    fn live_ballot(&self, around: &Surroundings) -> Option<ReplicaId> {
        let (ballot, at) = self.change.live_ballot()?;
        let run = Run { id: ballot.id, birth: ballot.birth, incarnation: ballot.incarnation };
        let fresh = self.now.since_ns(at) < self.detect.suspect_after_ns();
        let lists = |voter: &Run| self.peer(voter.id).is_some_and(|p| p.status.heard.lists(run));
        let heard = match self.peer(run.id).filter(|p| p.run == run && self.detect.complains_of(run).is_none()) {
            Some(proposer) => self.hears_a_quorum(proposer),
            None => self.voters(around).any(|voter| lists(&voter)),
        };
        (fresh && heard && run != self.me()).then_some(run.id)
    }

    /// Whether this replica with those that it says it hears could be a quorum.
    fn hears_a_quorum(&self, peer: &Peer) -> bool {
        let run_of =
            |id: ReplicaId| if id == self.me().id { Some(self.me()) } else { self.detect.peer(id).map(|p| p.run) };
        let hears = |run: &Run| *run == peer.run || peer.status.heard.lists(*run);
        let voters =
            self.view.members.iter().filter_map(|member| run_of(member.id)).filter(|run| votes(self.view, *run));
        is_quorum(self.view, Ranks::of(voters.filter(hears).filter_map(|run| self.view.rank_of(run.id))))
    }

    /// How long this replica gives others the chance to propose first: a step for each connected voter with a higher
    /// id, of which one with rank does not count those without, and a part of `random`.
    pub fn delay_ns(&self, around: &Surroundings, random: u64) -> u64 {
        let counts = |run: &Run| run.id > self.me().id && (self.has_rank(*run) || !self.has_rank(self.me()));
        match self.voters(around).filter(counts).count() as u64 {
            0 => 0,
            before => before * CHANGE_STEP_NS + random % CHANGE_JITTER_NS,
        }
    }
}

/// How long this replica has been allowed to propose, or been kept from what is due.
#[derive(Debug, Default)]
pub struct Patience {
    /// Since when it may propose, and the random number of this wait.
    may: Option<(Time, u64)>,
    /// When it will, if nothing changes.
    at: Option<Time>,
    /// Since when a change is due that can't be.
    stuck: Option<Time>,
}

impl Patience {
    /// Once a turn. Gives the reason when it is time to propose; the next wait begins then.
    pub fn turn(&mut self, scene: &Scene<'_>, around: &Surroundings, random: u64) -> Option<Why> {
        let (now, verdict) = (scene.now, scene.may_propose(around));
        let stuck = !scene.could_be_quorum(around) || matches!(verdict, Err(hold) if hold.makes_secondary());
        self.stuck = stuck.then(|| self.stuck.unwrap_or(now));
        let Ok(why) = verdict else {
            (self.may, self.at) = (None, None);
            return None;
        };
        let (since, random) = *self.may.get_or_insert((now, random));
        let at = since.after_ns(scene.delay_ns(around, random));
        self.at = Some(at);
        if at > now {
            return None;
        }
        (self.may, self.at) = (None, None);
        Some(why)
    }

    /// Whether this replica must call itself secondary: for the suspicion time nothing has let it hope.
    pub fn is_secondary(&self, now: Time, suspect_after_ns: u64) -> bool {
        self.stuck.is_some_and(|since| now.since_ns(since) >= suspect_after_ns)
    }

    /// When `turn` or `is_secondary` may say something else though nothing happened.
    pub fn deadline(&self, now: Time, suspect_after_ns: u64) -> Option<Time> {
        let secondary = self.stuck.map(|since| since.after_ns(suspect_after_ns));
        self.at.into_iter().chain(secondary).filter(|&at| at > now).min()
    }
}

#[cfg(test)]
mod tests;
