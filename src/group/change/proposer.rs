//! The proposer's side of a change.

use std::collections::{BTreeMap, BTreeSet};

use crate::broken::is as is_broken;
use crate::group::change::{votes, Acceptor, Action, Change, ChangeFrame, LogEnd, Promise, Surroundings};
use crate::group::quorum::{is_quorum, may_exist, Ranks};
use crate::limits::{CHANGE_AGAIN_NS, CHANGE_GATHER_NS, REPLICAS_MAX};
use crate::types::{Epoch, ReplicaId, Run, Slot, Time};
use crate::wire::view::{Ballot, View};

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
pub(super) struct Proposal {
    pub(super) ballot: Ballot,
    pub(super) phase: Phase,
    promises: BTreeMap<ReplicaId, Promise>,
    /// When a quorum had promised.
    pub(super) quorum_at: Option<Time>,
    /// Left out because they could not follow SYNC, or have an older copy of their log: they count for neither base
    /// nor value.
    left_out: BTreeSet<ReplicaId>,
    /// Those of them that have an older copy, and how far they were once durable: they don't know what they promised.
    old_copies: BTreeMap<ReplicaId, Slot>,
    pub(super) value: Option<View>,
    ready: BTreeSet<ReplicaId>,
    accepted: BTreeSet<ReplicaId>,
    installed: BTreeSet<ReplicaId>,
    /// When what is unanswered is said again.
    pub(super) again: Time,
}

impl Change {
    /// Starts an attempt under a ballot of its own. Only a voter of the newest view may; what it said under an
    /// earlier ballot stays said.
    pub fn propose(
        &mut self,
        now: Time,
        end_in: &dyn Fn(&Acceptor) -> LogEnd,
        around: &Surroundings,
        out: &mut Vec<Action>,
    ) {
        let Some(view) = self.acceptor.newest().filter(|_| self.is_voter()).cloned() else { return };
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
            old_copies: BTreeMap::new(),
            value: None,
            ready: BTreeSet::new(),
            accepted: BTreeSet::new(),
            installed: BTreeSet::new(),
            again: now.after_ns(CHANGE_AGAIN_NS),
        });
        self.promise(ballot, out);
        let promise = self.own_promise(end_in(&self.acceptor));
        Self::say_durably(out, self.me.id, ChangeFrame::Promise { epoch: view.epoch, ballot, promise });
        for &to in around.connected.keys().filter(|&&id| id != self.me.id) {
            Self::say_prepare(out, to, ballot, &view);
        }
    }

    /// Whether an attempt of this replica's at the decree that is open now is under way.
    pub fn is_proposing(&self) -> bool {
        let newest = self.acceptor.newest().map(|view| view.epoch);
        let is_decided = |value: &View| newest.is_some_and(|epoch| value.epoch <= epoch);
        self.proposal.as_ref().is_some_and(|p| !p.value.as_ref().is_some_and(is_decided))
    }

    /// No ballot is spoken of before its own promise is durable.
    fn say_prepare(out: &mut Vec<Action>, to: ReplicaId, ballot: Ballot, view: &View) {
        let frame = ChangeFrame::Prepare { ballot, view: view.clone() };
        if is_broken("ballot-reused") {
            return Self::say(out, to, frame);
        }
        Self::say_durably(out, to, frame);
    }

    pub(super) fn on_promise(
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
        for (run, durable) in proposal.doubted() {
            proposal.left_out.insert(run.id);
            proposal.old_copies.insert(run.id, durable);
            let epoch = self.acceptor.newest().map_or(Epoch(0), |view| view.epoch);
            Self::say(out, run.id, ChangeFrame::Doubt { epoch, run, durable });
        }
        self.choose_when_heard(now, around, out);
    }

    /// Chooses once all that may answer have, or a while after a quorum has.
    fn choose_when_heard(&mut self, now: Time, around: &Surroundings, out: &mut Vec<Action>) {
        let Some(e) = self.acceptor.newest() else { return };
        let Some(proposal) = self.proposal.as_mut().filter(|p| p.phase == Phase::Prepare) else { return };
        if !is_quorum(e, proposal.promisers(e)) {
            return;
        }
        let since = *proposal.quorum_at.get_or_insert(now);
        let may_answer = |id: &&ReplicaId| e.rank_of(**id).is_some() || around.joining.contains(*id);
        let mut expected = around.connected.keys().filter(may_answer);
        if expected.all(|id| proposal.promises.contains_key(id)) || now.since_ns(since) >= CHANGE_GATHER_NS {
            // Where no view can be made of those who are here it is tried again after as long.
            proposal.quorum_at = Some(now);
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
        if !proposal.knows_all(&e) {
            return;
        }
        let ends = proposal.promises.values().filter(counted).filter(|p| !is_broken("own-base") || p.run == self.me);
        let Some(base) = ends.map(|p| p.end).max() else { return };
        if around.outnumbered {
            // It is for the others to choose.
            self.proposal = None;
            return;
        }
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
        let sources = proposal.sources(base);
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

    /// Whom to leave out where nothing comes of SYNC for these: them, or those who alone hold the base, where too few
    /// would be left without them: then nobody could fetch it.
    pub fn to_blame(&self, awaited: Vec<Run>) -> Vec<Run> {
        let Some((e, proposal)) = self.acceptor.newest().zip(self.proposal.as_ref()) else { return awaited };
        let ranks = |runs: &[Run]| runs.iter().filter_map(|run| e.rank_of(run.id)).collect::<Vec<_>>();
        let without = |runs: &[Run]| ranks(runs).into_iter().fold(proposal.promisers(e), Ranks::without);
        let base = proposal.value.as_ref().map(|v| (v.base, v.base_digest));
        let holds = |p: &&Promise| base == Some((p.end.slot, p.end.digest)) && !awaited.contains(&p.run);
        let holders: Vec<Run> = proposal.promises.values().filter(holds).map(|p| p.run).collect();
        let others_can = !holders.is_empty() && is_quorum(e, without(&holders));
        if others_can && !is_quorum(e, without(&awaited)) {
            return holders;
        }
        awaited
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
        // Who was left out counts no more under this ballot: without them nothing may come of it.
        if self.proposal.as_ref().is_some_and(|p| p.phase == Phase::Prepare) {
            self.proposal = None;
        }
    }

    pub(super) fn on_ready(&mut self, from: Run, ballot: Ballot, base: LogEnd, out: &mut Vec<Action>) {
        let Some(proposal) = self.proposal.as_mut().filter(|p| p.phase == Phase::Sync) else { return };
        let Some(value) = &proposal.value else { return };
        let named = proposal.ballot == ballot && base.slot == value.base && base.digest == value.base_digest;
        if !named && !is_broken("stale-ready") || !value.members.contains(&from) {
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
        let ballot = proposal.ballot;
        for to in view.members.iter().map(|m| m.id).filter(|id| !proposal.accepted.contains(id)) {
            let (value, view) = (value.clone(), view.clone());
            Self::say(out, to, ChangeFrame::Accept { ballot, value, view });
        }
    }

    pub(super) fn on_accepted(&mut self, from: Run, ballot: Ballot, around: &Surroundings, out: &mut Vec<Action>) {
        let Some(e) = self.acceptor.newest().cloned() else { return };
        let Some(proposal) = self.proposal.as_mut().filter(|p| p.ballot == ballot && p.phase == Phase::Accept) else {
            return;
        };
        if !votes(&e, from) {
            return;
        }
        if let Some(&durable) = proposal.old_copies.get(&from.id) {
            return Self::say(out, from.id, ChangeFrame::Doubt { epoch: e.epoch, run: from, durable });
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

    pub(super) fn on_installed(&mut self, from: Run, epoch: Epoch) {
        let Some(proposal) = self.proposal.as_mut().filter(|p| p.phase == Phase::Install) else { return };
        let Some(value) = proposal.value.as_ref().filter(|v| v.epoch == epoch) else { return };
        proposal.installed.insert(from.id);
        if value.members.iter().all(|m| proposal.installed.contains(&m.id)) {
            self.proposal = None;
        }
    }

    /// This run speaks in the newest view: it has installed it, whatever became of its word.
    pub fn heard_in_newest(&mut self, run: Run) {
        if let Some(epoch) = self.acceptor.newest().map(|view| view.epoch) {
            self.on_installed(run, epoch);
        }
    }

    pub(super) fn on_refuse(&mut self, promised: Ballot) {
        self.round = self.round.max(promised.round);
        if self.proposal.as_ref().is_some_and(|p| p.ballot < promised && p.phase != Phase::Install) {
            self.proposal = None;
        }
    }

    /// Says again what is unanswered, and goes on where waiting was all that was left.
    pub fn tick(&mut self, now: Time, around: &Surroundings, out: &mut Vec<Action>) {
        self.choose_when_heard(now, around, out);
        let Some(view) = self.acceptor.newest() else { return };
        let Some(proposal) = self.proposal.as_mut().filter(|p| p.again <= now) else { return };
        proposal.again = now.after_ns(CHANGE_AGAIN_NS);
        let (epoch, ballot) = (view.epoch, proposal.ballot);
        match proposal.phase {
            Phase::Prepare => {
                let silent = around.connected.keys().filter(|id| !proposal.promises.contains_key(id));
                for &to in silent.filter(|&&id| id != self.me.id) {
                    Self::say_prepare(out, to, ballot, view);
                }
            }
            Phase::Sync => {
                let Some(value) = &proposal.value else { return };
                let base = LogEnd { slot: value.base, digest: value.base_digest, time: value.base_time };
                let sources = proposal.sources(base);
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
}

impl Proposal {
    /// Members-to-be that have not said READY.
    pub(super) fn awaited(&self) -> Vec<Run> {
        let members = self.value.iter().filter(|_| self.phase == Phase::Sync).flat_map(|value| &value.members);
        members.filter(|run| !self.ready.contains(&run.id)).copied().collect()
    }

    /// Voters whose logs end below what they were once durable at, as somebody remembers: they have older copies of
    /// their directories, and what they promise counts for nothing.
    fn doubted(&self) -> Vec<(Run, Slot)> {
        let remembered = |id: ReplicaId| {
            let all = self.promises.values().filter(|p| p.voter).flat_map(|p| &p.remembers);
            all.filter(|(of, _)| *of == id).map(|&(_, durable)| durable).max().unwrap_or_default()
        };
        let counted = self.promises.values().filter(|p| p.voter && !self.left_out.contains(&p.run.id));
        let doubted = counted.map(|p| (p.run, p.end.slot, remembered(p.run.id)));
        doubted.filter(|(_, end, durable)| end < durable).map(|(run, _, durable)| (run, durable)).collect()
    }

    /// The voters of e whose promises count.
    fn promisers(&self, e: &View) -> Ranks {
        let counted =
            self.promises.values().filter(|p| p.voter && votes(e, p.run) && !self.left_out.contains(&p.run.id));
        Ranks::of(counted.filter_map(|p| e.rank_of(p.run.id)))
    }

    /// Whether what was committed in e must be in one of the promised logs: a quorum of them is all that its replicas
    /// ever held, or there is no other log. What one replica forgot any other member may know.
    fn knows_all(&self, e: &View) -> bool {
        let there = |m: &Run| self.promises.get(&m.id).filter(|p| p.run.birth == m.birth);
        let counts = |m: &Run| there(m).is_some_and(|p| p.voter && !self.left_out.contains(&m.id));
        let whole = e.members.iter().filter(|m| counts(m) && there(m).is_some_and(|p| p.whole));
        is_quorum(e, Ranks::of(whole.filter_map(|m| e.rank_of(m.id)))) || e.members.iter().all(counts)
    }

    /// Whose logs reach the base and are the same there.
    fn sources(&self, base: LogEnd) -> Vec<ReplicaId> {
        let hold = |p: &&Promise| p.end == base && !self.left_out.contains(&p.run.id);
        self.promises.values().filter(hold).map(|p| p.run.id).collect()
    }

    /// The members of a free value: the largest set of mutually connected voters among the answerers (of equal ones
    /// the greater list of ids, descending), then by descending id each outsider that is connected with all of them.
    fn members(&self, e: &View, around: &Surroundings) -> Vec<Run> {
        let here = |p: &&Promise| {
            !p.leaving && !self.left_out.contains(&p.run.id) && around.connected.get(&p.run.id) == Some(&p.run)
        };
        let voters = self.promises.values().filter(here).filter(|p| p.voter && votes(e, p.run)).map(|p| p.run);
        let outsiders = self.promises.values().filter(here).filter(|p| !p.voter && around.joining.contains(&p.run.id));
        next_members(&voters.collect::<Vec<Run>>(), outsiders.map(|p| p.run), around)
    }
}

/// The members of the next view, out of voters and outsiders that may be in it, both sorted by id.
pub fn next_members(
    voters: &[Run],
    outsiders: impl DoubleEndedIterator<Item = Run>,
    around: &Surroundings,
) -> Vec<Run> {
    let mut best = largest_clique(voters, around);
    for outsider in outsiders.rev() {
        let full = best.len() == REPLICAS_MAX;
        if !full && best.iter().all(|m| m.id != outsider.id && around.are_connected(m.id, outsider.id)) {
            best.push(outsider);
        }
    }
    best.sort_by_key(|m| m.id);
    best
}

/// The largest set of these that are connected with each other; of equal ones that with the greater ids, the
/// greatest first. They come sorted by id, so the greater set is the greater number.
fn largest_clique(runs: &[Run], around: &Surroundings) -> Vec<Run> {
    let friends: Vec<u32> = runs.iter().map(|a| mask(runs.iter().map(|b| around.are_connected(a.id, b.id)))).collect();
    let connected = |&set: &u32| (0..runs.len()).all(|k| set >> k & 1 == 0 || set & !friends[k] == 0);
    let best = (0..1u32 << runs.len()).filter(connected).max_by_key(|&set| (set.count_ones(), set)).unwrap_or(0);
    (0..runs.len()).filter(|&k| best >> k & 1 == 1).map(|k| runs[k]).collect()
}

fn mask(bits: impl Iterator<Item = bool>) -> u32 {
    bits.enumerate().fold(0, |mask, (k, bit)| mask | u32::from(bit) << k)
}
