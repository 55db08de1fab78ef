//! How a change of the view begins and ends here: the group's side of `change`. What must be written is the
//! replica's to do; it hands over frames and durable writes, and carries out what the change asks for.

use std::collections::BTreeSet;

use crate::broken::is as is_broken;
use crate::group::change::{Acceptor, Action, LogEnd, Phase, Surroundings};
use crate::group::complain::{Sight, Verdict};
use crate::group::due::{self, Patience, Scene, Why};
use crate::group::order::Regular;
use crate::group::quorum::{is_quorum, Ranks};
use crate::group::{Group, State};
use crate::limits::CHANGE_AGAIN_NS;
use crate::marks;
use crate::types::{ClusterId, GroupTime, ReplicaId, Run, Slot, Time};
use crate::wire::change::ChangeFrame;
use crate::wire::view::View;

/// Where this replica's log will end under these durable facts.
pub type EndIn<'a> = &'a dyn Fn(&Acceptor) -> LogEnd;

impl Group {
    // ---- what arrives

    /// A frame of a change from an authentic run, or from this one.
    pub fn on_change(&mut self, now: Time, from: Run, frame: ChangeFrame, end_in: EndIn<'_>, out: &mut Vec<Action>) {
        let around = self.around(now);
        self.recall();
        self.change.on_frame(now, from, frame, end_in, &around, out);
    }

    /// What the members said in the view that is to be followed, for a promise to tell.
    fn recall(&mut self) {
        let Some(regular) = self.window() else { return };
        let said = regular.commit.reports().map(|(rank, r)| (regular.view.member(rank).id, r.durable)).collect();
        self.change.remember(said);
    }

    /// What the log tells of the newest view's members.
    pub fn remember(&mut self, durable: Vec<(ReplicaId, Slot)>) {
        self.change.remember(durable);
    }

    /// This run's directory answers for nothing any more: it neither speaks nor hears.
    pub fn fall_silent(&mut self) {
        self.state = State::Starting;
    }

    /// Everything the change wrote so far is durable, and its last view may be spoken in.
    pub fn settle(&mut self, now: Time) {
        let Some(view) = self.newest().cloned() else { return };
        if !self.change.has_rank() {
            return;
        }
        let installed = self.window().is_some_and(|regular| regular.tag == view.tag());
        if !installed {
            self.marks.push(marks::VIEW_INSTALLED);
            let mut regular = Regular::new(view, self.me, self.settings.path_max, now, self.rng.fork());
            if let Some(clock) = self.clock.take() {
                regular.clock = clock.carried(regular.view.base_time, now);
            }
            regular.count();
            self.state = State::Regular(Box::new(regular));
            (self.joining, self.outside_since) = (false, None);
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
    pub fn end_view(&mut self, now: Time, view: &View, applied: Slot) -> Vec<Vec<u8>> {
        self.cluster = view.cluster;
        self.outside_since = self.outside_since.or(Some(now));
        // Also of views in which nothing came to be: each that follows the next may be without the same replica.
        let known = self.known.replace(view.clone());
        let before = self.window().map(|regular| regular.view.clone()).or(known).unwrap_or_else(|| view.clone());
        let left = |id| self.detect.peer(id).is_some_and(|peer| peer.status.leaving);
        self.damping.on_view(now, &before, view, &left, self.settings.suspect_after_ns);
        match std::mem::replace(&mut self.state, State::Outside) {
            State::Regular(regular) | State::Frozen(regular) => {
                self.clock = Some(regular.clock);
                regular.uncovered(applied)
            }
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

    /// What time alone brings: steps of a change under way, and the newest view for whoever is behind. Gives the reason
    /// where this replica is to propose a change now. `due` is when something in the state is.
    pub fn tend(&mut self, now: Time, due: Option<GroupTime>, out: &mut Vec<Action>) -> Option<Why> {
        if matches!(self.state, State::Starting) {
            return None;
        }
        self.judge(now, due);
        for id in std::mem::take(&mut self.behind) {
            if self.told.get(&id).is_none_or(|&at| now.since_ns(at) >= CHANGE_AGAIN_NS) {
                self.told.insert(id, now);
                self.change.say_newest(id, out);
            }
        }
        for run in std::mem::take(&mut self.outrun) {
            if self.told.get(&run.id).is_none_or(|&at| now.since_ns(at) >= CHANGE_AGAIN_NS) {
                self.told.insert(run.id, now);
                self.change.say_outrun(run, out);
            }
        }
        if self.scene(now, self.newest()?).is_calm() {
            self.damping.observe(now, &[]);
            self.awaited.0.clear();
            self.patience = Patience::default();
            return None;
        }
        let ready = due::ready_to_join(now, self.newest()?, &self.detect);
        self.damping.observe(now, &ready);
        let mut around = self.scene(now, self.newest()?).surroundings();
        let undamped = around.joining.clone();
        self.let_in(&mut around, &ready);
        self.change.look_for_all(&around);
        if self.change.proposing().is_some_and(|(_, phase)| phase == Phase::Install) {
            let tag = self.newest()?.tag();
            let there: Vec<Run> = self.detect.all_heard(now).filter(|p| p.tag == tag).map(|p| p.run).collect();
            there.into_iter().for_each(|run| self.change.heard_in_newest(run));
        }
        self.change.tick(now, &around, out);
        for run in self.not_following(now, &around) {
            self.change.leave_out(run.id, &around, out);
        }
        around.joining = undamped;
        let (random, mut patience) = (self.rng.next_u64(), std::mem::take(&mut self.patience));
        let why = patience.turn(&self.scene(now, self.newest()?), &around, random);
        self.patience = patience;
        why
    }

    /// Members-to-be that are gone, or with which nothing came of SYNC for the suspicion time.
    fn not_following(&mut self, now: Time, around: &Surroundings) -> Vec<Run> {
        let mut awaited = self.change.awaited();
        if awaited != self.awaited.0 {
            self.awaited = (awaited.clone(), now);
        }
        let gone = |run: &Run| around.connected.get(&run.id) != Some(run);
        let stalled = now.since_ns(self.awaited.1) >= self.settings.suspect_after_ns;
        if stalled && !awaited.iter().any(gone) {
            return self.change.to_blame(awaited);
        }
        awaited.retain(gone);
        awaited
    }

    /// Whether the members do their part, as far as this one sees.
    fn judge(&mut self, now: Time, due: Option<GroupTime>) {
        // Who is frozen goes on listening: its complaints of silence end as they began.
        let (State::Regular(regular) | State::Frozen(regular)) = &self.state else { return };
        let sight = Sight {
            view: &regular.view,
            me: regular.rank,
            frozen: self.change.is_frozen(),
            commit: &regular.commit,
            awaited: regular.awaited(now, due),
            window_waits: regular.window_waits(),
            window_shut: !regular.flow.is_open(),
        };
        self.verdicts.extend(self.detect.judge(now, &sight));
    }

    fn scene<'a>(&'a self, now: Time, view: &'a View) -> Scene<'a> {
        let Group { change, detect, damping, leaving, .. } = self;
        Scene { now, view, change, detect, damping, leaving: *leaving, book: None }
    }

    /// Complaints made and ended since this was asked.
    pub fn take_verdicts(&mut self) -> Vec<Verdict> {
        std::mem::take(&mut self.verdicts)
    }

    /// This replica's own loop did not run for a while: that nobody was heard means nothing.
    pub fn mind_own_pause(&mut self, now: Time) {
        let slept_ns = now.since_ns(self.awake);
        if self.awake > Time(0) && slept_ns > self.settings.pause_ns() {
            self.marks.push(marks::WOKE);
            self.detect.woke(now, slept_ns);
            if let State::Regular(regular) | State::Frozen(regular) = &mut self.state {
                // Alone its clock is the group's, and nothing wakes it while there is nothing to do.
                if regular.view.members.len() > 1 {
                    regular.clock.slept(slept_ns);
                }
            }
        }
        self.awake = now;
    }

    /// The kernel says that nobody listens at this replica's port.
    pub fn on_refused(&mut self, now: Time, id: ReplicaId) {
        if self.detect.on_refused(now, id) {
            self.marks.push(marks::PROCESS_GONE);
        }
    }

    /// Starts an attempt at the next view.
    pub fn propose(&mut self, now: Time, end_in: EndIn<'_>, out: &mut Vec<Action>) {
        let around = self.around(now);
        self.recall();
        self.marks.push(marks::PROPOSED);
        self.change.propose(now, end_in, &around, out);
    }

    /// The log is what the change asked for.
    pub fn synced(&mut self, own: LogEnd, out: &mut Vec<Action>) {
        self.change.synced(own, out);
    }

    /// Whom this replica is connected with, and who of them with each other.
    pub fn around(&self, now: Time) -> Surroundings {
        let Some(view) = self.newest() else {
            let mut alone = Surroundings { connected: [(self.me.id, self.me)].into(), ..Surroundings::default() };
            self.let_in(&mut alone, &[]);
            return alone;
        };
        let mut around = self.scene(now, view).surroundings();
        self.let_in(&mut around, &due::ready_to_join(now, view, &self.detect));
        around
    }

    /// Who waits to be let in again starts no change, but takes part in one that is made anyway: replicas that differ
    /// on who has waited long enough would otherwise leave out each other's joiners for ever.
    fn let_in(&self, around: &mut Surroundings, ready: &[Run]) {
        around.joining.extend(ready.iter().map(|run| run.id));
        if self.joining {
            around.joining.insert(self.me.id);
        }
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

    /// Whether this replica must refuse what it can't order: for a while already nothing lets it hope.
    pub fn is_secondary(&self, now: Time) -> bool {
        let suspect_after_ns = self.settings.suspect_after_ns;
        let outside = self.outside_since.is_some_and(|since| now.since_ns(since) >= suspect_after_ns);
        outside || self.patience.is_secondary(now, suspect_after_ns)
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

    /// Whether it asks to join, and has caught up.
    pub fn is_joining(&self) -> bool {
        self.joining
    }

    /// What this replica's disk holds may be less than it once said.
    pub fn distrust(&mut self) {
        self.change.distrust();
    }

    /// Whether this run said that it was asked to stop.
    pub fn is_leaving(&self, run: Run) -> bool {
        if run == self.me {
            return self.leaving;
        }
        self.detect.peer(run.id).is_some_and(|p| p.run == run && p.status.leaving)
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
