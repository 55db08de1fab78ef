//! How a change of the view begins and ends here: the group's side of `change`. What must be written is the
//! replica's to do; it hands over frames and durable writes, and carries out what the change asks for.

use std::collections::BTreeSet;

use crate::broken::is as is_broken;
use crate::group::change::{votes, Acceptor, Action, LogEnd, Phase, Surroundings};
use crate::group::order::Regular;
use crate::group::quorum::{is_quorum, Ranks};
use crate::group::{Group, State};
use crate::limits::{CHANGE_AGAIN_NS, CHANGE_STEP_NS};
use crate::marks;
use crate::types::{ClusterId, ReplicaId, Run, Slot, Time};
use crate::wire::change::ChangeFrame;
use crate::wire::view::View;

/// Where this replica's log will end under these durable facts.
pub type EndIn<'a> = &'a dyn Fn(&Acceptor) -> LogEnd;

impl Group {
    // ---- what arrives

    /// A frame of a change from an authentic run, or from this one.
    pub fn on_change(&mut self, now: Time, from: Run, frame: ChangeFrame, end_in: EndIn<'_>, out: &mut Vec<Action>) {
        let around = self.around(now);
        self.change.on_frame(now, from, frame, end_in, &around, out);
    }

    /// Everything the change wrote so far is durable, and its last view may be spoken in.
    pub fn settle(&mut self, now: Time) {
        let Some(view) = self.newest().cloned() else { return };
        let installed = self.window().is_some_and(|regular| regular.tag == view.tag());
        if !installed && self.change.has_rank() {
            self.marks.push(marks::VIEW_INSTALLED);
            let mut regular = Regular::new(view, self.me, self.settings.path_max, now, self.rng.fork());
            regular.count();
            self.state = State::Regular(Box::new(regular));
            (self.joining, self.propose_at, self.stuck_since) = (false, None, None);
        }
    }

    // ---- what the change asks for

    /// The epoch orders no more here.
    pub fn freeze(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Outside) {
            State::Regular(regular) if !is_broken("no-freeze") => {
                self.marks.push(marks::FROZEN);
                State::Frozen(regular)
            }
            state => state,
        };
    }

    /// A newer view is known: the older one ends here. Gives what this member sent in it that no slot up to `applied`
    /// covers, operation by operation.
    pub fn end_view(&mut self, cluster: ClusterId, applied: Slot) -> Vec<Vec<u8>> {
        self.cluster = cluster;
        self.propose_at = None;
        match std::mem::replace(&mut self.state, State::Outside) {
            State::Regular(regular) | State::Frozen(regular) => regular.uncovered(applied),
            _ => Vec::new(),
        }
    }

    /// A frame of a change for another replica, to leave with this turn.
    pub fn say(&mut self, to: ReplicaId, frame: ChangeFrame) {
        self.saying.push((to, frame));
    }

    // ---- what this replica does

    /// View 1, if this replica is the one to make it and all is there.
    pub fn view_one(&mut self, now: Time, cluster: ClusterId) -> Option<View> {
        let blank = matches!(self.state, State::Blank);
        let view = if blank { self.settings.founding.view_one(now, self.me, &self.detect, cluster) } else { None };
        self.marks.extend(view.as_ref().map(|_| marks::VIEW_MADE));
        view
    }

    /// What time alone brings: steps of a change under way, and the newest view for whoever is behind. True where this
    /// replica is to propose a change now.
    pub fn tend(&mut self, now: Time, out: &mut Vec<Action>) -> bool {
        if matches!(self.state, State::Starting) {
            return false;
        }
        let around = self.around(now);
        for id in std::mem::take(&mut self.behind) {
            if self.told.get(&id).is_none_or(|&at| now.since_ns(at) >= CHANGE_AGAIN_NS) {
                self.told.insert(id, now);
                self.change.say_newest(id, out);
            }
        }
        self.change.tick(now, &around, out);
        let gone = |run: &Run| around.connected.get(&run.id) != Some(run);
        for run in self.change.awaited().into_iter().filter(gone) {
            self.change.leave_out(run.id, &around, out);
        }
        self.note_stuck(now, &around);
        self.is_time_to_propose(now, &around)
    }

    /// Starts an attempt at the next view.
    pub fn propose(&mut self, now: Time, end_in: EndIn<'_>, out: &mut Vec<Action>) {
        let around = self.around(now);
        self.marks.push(marks::PROPOSED);
        self.change.propose(now, end_in, &around, out);
    }

    /// The log is what the change asked for.
    pub fn synced(&mut self, own: LogEnd, out: &mut Vec<Action>) {
        self.change.synced(own, out);
    }

    fn is_time_to_propose(&mut self, now: Time, around: &Surroundings) -> bool {
        let busy = self.change.proposing().is_some_and(|(_, phase)| phase != Phase::Install);
        let rank = self.propose_rank(now, around).filter(|_| !busy);
        let Some(rank) = rank else {
            self.propose_at = None;
            return false;
        };
        let at = match self.propose_at {
            Some(at) => at,
            None => {
                let jitter = if rank == 0 { 0 } else { self.rng.below(CHANGE_STEP_NS / 2) };
                *self.propose_at.insert(now.after_ns(rank * CHANGE_STEP_NS + jitter))
            }
        };
        if at <= now {
            self.propose_at = None;
        }
        at <= now
    }

    /// Whether a change is due and this replica may propose it: then, how many connected voters come before it.
    fn propose_rank(&self, now: Time, around: &Surroundings) -> Option<u64> {
        let view = self.newest().filter(|view| votes(view, self.me))?;
        if !self.is_due(now, view, around) || self.is_live(now) || !self.voters_could(view, around) {
            return None;
        }
        if !self.change.has_rank() && !self.change.is_frozen() && self.hears_active_primary(now, view) {
            return None;
        }
        let ranked = self.change.has_rank();
        let before = around.connected.values().filter(|run| {
            let has_rank = view.members.contains(run);
            run.id > self.me.id && votes(view, **run) && (has_rank || !ranked)
        });
        Some(before.count() as u64)
    }

    /// Whom this replica is connected with, and who of them with each other.
    pub fn around(&self, now: Time) -> Surroundings {
        let mut around = Surroundings::default();
        around.connected.insert(self.me.id, self.me);
        let ids: Vec<ReplicaId> = self.settings.peers.iter().map(|p| p.id).filter(|&id| id != self.me.id).collect();
        for &id in ids.iter().filter(|&&id| self.detect.connected(now, id)) {
            let Some(peer) = self.detect.peer(id) else { continue };
            around.connected.insert(id, peer.run);
            if peer.status.joining {
                around.joining.insert(id);
            }
        }
        for &a in &ids {
            for &b in ids.iter().filter(|&&b| a < b) {
                let both = around.connected.contains_key(&a) && around.connected.contains_key(&b);
                if both && !self.detect.connected_pair(now, a, b) {
                    around.apart.insert((a, b));
                }
            }
        }
        if self.joining {
            around.joining.insert(self.me.id);
        }
        around
    }

    fn is_due(&self, now: Time, view: &View, around: &Surroundings) -> bool {
        let here = |run: &Run| around.connected.get(&run.id) == Some(run);
        let apart = around.apart.iter().any(|&(a, b)| view.rank_of(a).is_some() && view.rank_of(b).is_some());
        let leaving = |run: &Run| self.detect.heard(now, run.id).is_some_and(|p| p.status.leaving);
        let stirred = |run: &Run| {
            let peer = self.detect.heard(now, run.id).filter(|p| votes(view, p.run) && p.status.epoch == view.epoch);
            peer.is_some_and(|p| p.status.frozen || p.status.accepted)
        };
        let joiner = around.joining.iter().any(|&id| id != self.me.id);
        if self.leaving && view.members.iter().all(|run| *run == self.me || leaving(run)) {
            return false;
        }
        let own = self.change.is_frozen() || self.leaving && view.members.len() > 1 || !view.members.contains(&self.me);
        own || apart || joiner || view.members.iter().any(|run| !here(run) || leaving(run) || stirred(run))
    }

    /// Whether another proposer's ballot is under way.
    fn is_live(&self, now: Time) -> bool {
        self.change.live_ballot().is_some_and(|(ballot, at)| {
            let fresh = now.since_ns(at) < self.settings.suspect_after_ns;
            let run = Run { id: ballot.id, birth: ballot.birth, incarnation: ballot.incarnation };
            fresh && run != self.me && self.detect.heard(now, ballot.id).is_some_and(|p| p.run == run)
        })
    }

    /// Whether the connected voters could be a quorum.
    fn voters_could(&self, view: &View, around: &Surroundings) -> bool {
        let voters = around.connected.values().filter(|run| votes(view, **run));
        is_quorum(view, Ranks::of(voters.filter_map(|run| view.rank_of(run.id))))
    }

    /// Whether some member with rank of this view hears a commit quorum of such members.
    pub fn hears_active_primary(&self, now: Time, view: &View) -> bool {
        let tag = view.tag();
        let ranked: Vec<Run> = view.members.iter().copied().filter(|run| *run != self.me).collect();
        ranked.iter().any(|run| {
            let peer = self.detect.heard(now, run.id).filter(|p| p.run == *run && p.tag == tag && !p.status.frozen);
            peer.is_some_and(|p| {
                let heard = view.members.iter().filter(|m| *m == run || p.status.heard.lists(**m)).count();
                heard >= crate::group::quorum::commit_count(view)
            })
        })
    }

    /// Remembers since when this replica is cut off from every quorum.
    fn note_stuck(&mut self, now: Time, around: &Surroundings) {
        let could = self.newest().is_some_and(|view| self.voters_could(view, around));
        let has_rank = self.regular().is_some();
        self.stuck_since = if could && has_rank { None } else { self.stuck_since.or(Some(now)) };
    }

    /// Whether this replica must refuse what it can't order: for a while already nothing lets it hope.
    pub fn is_secondary(&self, now: Time) -> bool {
        self.stuck_since.is_some_and(|since| now.since_ns(since) >= self.settings.suspect_after_ns)
    }

    /// Members with rank of the newest view that are heard now: who a log can be fetched from.
    pub fn sources(&self, now: Time) -> Vec<ReplicaId> {
        let Some(view) = self.newest() else { return Vec::new() };
        let ids: BTreeSet<ReplicaId> = view.members.iter().map(|run| run.id).filter(|&id| id != self.me.id).collect();
        ids.into_iter().filter(|&id| self.detect.heard(now, id).is_some_and(|p| p.status.epoch >= view.epoch)).collect()
    }

    /// How far this replica's log is, where it has no window; whether it is near the end of what it hears of.
    pub fn set_log(&mut self, known: Slot, durable: Slot, committed: Slot, joining: bool) {
        self.log = [known, durable, committed];
        self.joining = joining;
    }

    /// From now on this replica asks to be left out.
    pub fn leave(&mut self) {
        self.leaving = true;
        self.change.leave();
    }

    /// Whether the others go on without this replica: a quorum of the newest view, which is not its own, is heard
    /// with its tag.
    pub fn is_let_go(&self, now: Time) -> bool {
        let Some(view) = self.newest().filter(|view| !view.members.contains(&self.me)) else { return false };
        let tag = view.tag();
        let there = view.members.iter().filter(|run| self.detect.heard(now, run.id).is_some_and(|p| p.tag == tag));
        is_quorum(view, Ranks::of(there.filter_map(|run| view.rank_of(run.id))))
    }
}
