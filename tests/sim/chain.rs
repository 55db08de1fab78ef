//! The judge of the chain of views: what each replica's `meta` says, which views are decided, whose disks answer for
//! them. I5 is judged here, and what a crash must not make anyone forget (DESIGN 5.1); and which replicas I9 asks to
//! come to an end once they are connected.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ftq::log::Meta;
use ftq::types::{Birth, Incarnation, ReplicaId, ViewTag, WriteNumber};
use ftq::wire::change::ChangeFrame;
use ftq::wire::datagram::Header;
use ftq::wire::view::{Policy, View};

/// A set of replicas, by index.
pub type Set = u64;

/// What one replica has in `meta`.
#[derive(Debug, Default)]
struct Memory {
    /// Safe.
    durable: Option<Meta>,
    /// Written and not safe yet.
    written: VecDeque<(WriteNumber, Meta)>,
    /// The life in which each of its runs has spoken.
    lives: BTreeMap<(Birth, Incarnation), u32>,
    /// The view in which it spoke last.
    tag: ViewTag,
}

impl Memory {
    fn newest(&self) -> Option<&Meta> {
        self.written.back().map(|(_, meta)| meta).or(self.durable.as_ref())
    }
}

#[derive(Debug, Default)]
pub struct Chain {
    /// The one view of each epoch that anyone took for decided.
    views: BTreeMap<u64, View>,
    /// Every value anyone was asked to accept, by its epoch.
    proposed: BTreeMap<u64, Vec<View>>,
    nodes: Vec<Memory>,
}

/// How many of the view's members must hold a slot before it is committed.
pub fn commit_count(view: &View) -> usize {
    match view.policy {
        Policy::Dynamic => view.members.len() / 2 + 1,
        Policy::Majority => view.book.len() / 2 + 1,
        Policy::Available => view.members.len(),
    }
}

/// Which of two views that are cut apart goes on, as DESIGN 5.4 has it; nothing of the core is asked.
fn is_quorum(view: &View, count: usize, with_highest: bool) -> bool {
    match view.policy {
        Policy::Dynamic => 2 * count > view.members.len() || 2 * count == view.members.len() && with_highest,
        Policy::Majority => 2 * count > view.book.len(),
        Policy::Available => count >= 1,
    }
}

/// The newest view that a `meta` tells of.
fn newest_of(meta: &Meta) -> Option<&View> {
    meta.installed.iter().chain(&meta.heard).max_by_key(|view| view.epoch)
}

impl Chain {
    pub fn new(replicas: usize) -> Chain {
        Chain { nodes: (0..replicas).map(|_| Memory::default()).collect(), ..Chain::default() }
    }

    pub fn view(&self, epoch: u64) -> Option<&View> {
        self.views.get(&epoch)
    }

    /// The decided views after this epoch.
    pub fn after(&self, epoch: u64) -> impl Iterator<Item = &View> {
        self.views.range(epoch + 1..).map(|(_, view)| view)
    }

    pub fn newest(&self) -> Option<&View> {
        self.views.values().next_back()
    }

    pub fn count(&self) -> usize {
        self.views.len()
    }

    /// Somebody takes this view for decided. True for the first of its epoch.
    pub fn decided(&mut self, view: &View) -> Result<bool, String> {
        match self.views.get(&view.epoch.0) {
            Some(known) if known == view => Ok(false),
            Some(known) => Err(format!("I5: two views of epoch {}: {known:?} and {view:?}", view.epoch)),
            None => {
                self.judge_link(view)?;
                self.views.insert(view.epoch.0, view.clone());
                Ok(true)
            }
        }
    }

    fn judge_link(&self, view: &View) -> Result<(), String> {
        let Some((epoch, before)) = self.views.range(..view.epoch.0).next_back() else { return Ok(()) };
        if *epoch + 1 == view.epoch.0 && before.cluster == view.cluster && before.base <= view.base {
            return Ok(());
        }
        Err(format!("I5: view {view:?} does not follow from {before:?}"))
    }

    /// A value that somebody is asked to accept.
    pub fn proposed(&mut self, value: &View) {
        let values = self.proposed.entry(value.epoch.0).or_default();
        if !values.contains(value) {
            values.push(value.clone());
        }
    }

    /// A replica wrote this into `meta`. The views that became decided by that.
    pub fn wrote(&mut self, replica: usize, number: WriteNumber, meta: Meta) -> Result<Vec<View>, String> {
        if let Some(before) = self.nodes[replica].newest() {
            judge_memory(before, &meta)?;
        }
        let mut fresh = Vec::new();
        // The first view is decided when its maker's disk has it.
        for view in meta.installed.iter().chain(&meta.heard).filter(|view| view.epoch.0 > 1) {
            if self.decided(view)? {
                fresh.push(view.clone());
            }
        }
        self.nodes[replica].written.push_back((number, meta));
        Ok(fresh)
    }

    pub fn synced(&mut self, replica: usize, number: WriteNumber) -> Result<(), String> {
        let memory = &mut self.nodes[replica];
        while memory.written.front().is_some_and(|(write, _)| *write <= number) {
            memory.durable = memory.written.pop_front().map(|(_, meta)| meta);
        }
        self.first_view(replica)
    }

    fn first_view(&mut self, replica: usize) -> Result<(), String> {
        let installed = self.nodes[replica].durable.as_ref().and_then(|meta| meta.installed.clone());
        installed.filter(|view| view.epoch.0 == 1).map_or(Ok(()), |view| self.decided(&view).map(|_| ()))
    }

    /// A replica comes back with this `meta`: everything it may have spoken of must be there (what was written last
    /// may be there, too).
    pub fn recovered(&mut self, replica: usize, meta: Option<&Meta>) -> Result<(), String> {
        let memory = &mut self.nodes[replica];
        memory.written.clear();
        let durable = std::mem::replace(&mut memory.durable, meta.cloned());
        self.first_view(replica)?;
        match (&durable, meta) {
            (Some(durable), Some(meta)) => judge_memory(durable, meta),
            (Some(_), None) => Err(format!("replica {} forgot all of its meta", replica + 1)),
            (None, _) => Ok(()),
        }
    }

    /// A run speaks in this life of its replica: it is durable, and no other life ever spoke as it.
    pub fn speaks(&mut self, replica: usize, header: &Header, life: u32) -> Result<(), String> {
        let run = header.run;
        let memory = &mut self.nodes[replica];
        let spoke = *memory.lives.entry((run.birth, run.incarnation)).or_insert(life);
        let durable = memory.durable.as_ref().map(|meta| (meta.birth, meta.incarnation));
        if spoke != life || durable != Some((run.birth, run.incarnation)) {
            return Err(format!("5.1: {run} speaks in life {life}, it did in {spoke}; durable is {durable:?}"));
        }
        if header.tag.0 != 0 && memory.tag != header.tag {
            let spoken = self.views.values().find(|view| view.tag() == header.tag).map(|view| view.epoch);
            let installed = memory.durable.as_ref().and_then(|meta| meta.installed.as_ref()).map(|view| view.epoch);
            if spoken.is_none() || installed < spoken {
                return Err(format!("5.3: {run} speaks in view {spoken:?}, durable is {installed:?}"));
            }
            memory.tag = header.tag;
        }
        Ok(())
    }

    /// The disk is gone.
    pub fn wiped(&mut self, replica: usize) {
        self.nodes[replica].durable = None;
        self.nodes[replica].written.clear();
    }

    /// Whose durable state answers for them in this view.
    fn voters(&self, view: &View, set: Set) -> Vec<ReplicaId> {
        let births = |replica: usize| self.nodes[replica].durable.as_ref().map(|meta| meta.birth);
        let votes = |id: ReplicaId, birth| births(usize::from(id.0) - 1) == Some(birth);
        let here = |id: ReplicaId| set >> (id.0 - 1) & 1 == 1;
        view.members.iter().filter(|m| here(m.id) && votes(m.id, m.birth)).map(|m| m.id).collect()
    }

    fn is_quorum_of(&self, view: &View, set: Set) -> bool {
        let voters = self.voters(view, set);
        let highest = view.members.last().map(|m| m.id);
        let enough = voters.len() >= usize::from(view.min_members);
        enough && is_quorum(view, voters.len(), voters.last().copied() == highest)
    }

    /// Whether I9 asks these, once they are connected, to come to an end: they are a quorum of the voters of the newest
    /// decided view, of each value proposed for the next, and of every view back to the newest that one of them has
    /// on its disk. Before the first view all are needed.
    pub fn covers(&self, set: Set) -> bool {
        let metas = (0..self.nodes.len()).filter(|k| set >> k & 1 == 1).filter_map(|k| self.nodes[k].durable.as_ref());
        let Some(known) = metas.filter_map(newest_of).map(|view| view.epoch.0).max() else {
            return set == (1 << self.nodes.len()) - 1 && self.views.is_empty();
        };
        let newest = self.views.keys().next_back().copied().unwrap_or(known);
        let proposed = self.proposed.range(newest + 1..).flat_map(|(_, values)| values);
        self.views.range(known..).map(|(_, view)| view).chain(proposed).all(|view| self.is_quorum_of(view, set))
    }

    /// A replica says something that depends on its disk: it must be there already (5.1).
    pub fn says(&self, replica: usize, frame: &ChangeFrame) -> Result<(), String> {
        let Some(durable) = &self.nodes[replica].durable else { return Ok(()) };
        let epoch = newest_of(durable).map_or(0, |view| view.epoch.0);
        let said_early = match frame {
            ChangeFrame::Promise { epoch: e, ballot, promise } if promise.voter => {
                epoch < e.0 || epoch == e.0 && durable.promised < Some(*ballot)
            }
            ChangeFrame::Accepted { epoch: e, ballot } => {
                epoch < e.0 || epoch == e.0 && durable.accepted.as_ref().map(|a| a.0) < Some(*ballot)
            }
            ChangeFrame::Installed { epoch: e } => epoch < e.0,
            _ => false,
        };
        if said_early {
            return Err(format!("5.1: replica {} says {frame:?} before it is durable", replica + 1));
        }
        Ok(())
    }

    /// Who is needed: for a report of what did not come to an end.
    pub fn tell(&self) -> String {
        let newest = self.views.values().next_back();
        let next: BTreeSet<String> =
            self.proposed.values().next_back().into_iter().flatten().map(View::members_text).collect();
        let newest = newest.map(|view| format!("view {} of {}", view.epoch, view.members_text()));
        format!("{newest:?}, last proposed {next:?}")
    }
}

/// `meta` may only grow: what was promised, accepted or installed stays so until a newer view ends it.
fn judge_memory(before: &Meta, after: &Meta) -> Result<(), String> {
    let epoch = |meta: &Meta| newest_of(meta).map_or(0, |view| view.epoch.0);
    let forgot = |what: &str| Err(format!("5.1: {what} is forgotten: {before:?} and then {after:?}"));
    if before.birth != after.birth {
        return Ok(());
    }
    if after.incarnation < before.incarnation {
        return forgot("an incarnation");
    }
    if epoch(after) < epoch(before) {
        return forgot("a view");
    }
    if epoch(after) > epoch(before) {
        return Ok(());
    }
    if after.promised < before.promised {
        return forgot("a promise");
    }
    if after.accepted.as_ref().map(|a| a.0) < before.accepted.as_ref().map(|a| a.0) {
        return forgot("an accepted value");
    }
    Ok(())
}
