//! A change of the view at this replica: what it does to log, `meta` and clients (DESIGN 5.3).
//!
//! Everything a frame of the change depends on is written before it, on one line of write numbers; it leaves when the
//! last of them is durable. Nothing is appended to the log for another view before `meta` says that this one is over.

use std::collections::BTreeMap;

use crate::broken::is as is_broken;
use crate::group::change::{Acceptor, Action};
use crate::group::complain::Reason;
use crate::limits::CHANGE_WAITING_MAX;
use crate::replica::tail::Held;
use crate::replica::{Level, Outbox, Replica};
use crate::types::{ReplicaId, Run, Slot, WriteNumber};
use crate::wire::change::{ChangeFrame, LogEnd};
use crate::wire::view::View;

/// What the change waits for.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// Frames that leave once this write is durable.
    said: Vec<(WriteNumber, ReplicaId, ChangeFrame)>,
    /// The last write of `meta`: until it is durable no view is spoken in and nothing is fetched.
    meta: WriteNumber,
    /// How far the log is to be brought, and who has it.
    pub(super) goal: Option<(LogEnd, Vec<ReplicaId>)>,
    /// For the log: the newest view that a line was written about, and of whom this replica complained in it.
    told: Option<View>,
    complaints: BTreeMap<ReplicaId, Reason>,
}

impl Waits {
    /// Nothing, for one that comes back with this view.
    pub(super) fn after(view: Option<&View>) -> Waits {
        Waits { told: view.cloned(), ..Waits::default() }
    }

    /// `view 3: {1,2}; replica 3 left: nothing was heard of it; replica 2 joined`, against the last one so told.
    fn tell(&mut self, view: &View, was_asked: impl Fn(Run) -> bool) -> String {
        let (before, reasons) = (self.told.replace(view.clone()), std::mem::take(&mut self.complaints));
        let mut text = format!("view {}: {}", view.epoch, view.members_text());
        let before = before.map(|before| before.members).unwrap_or_default();
        if before.is_empty() {
            return text;
        }
        let has = |members: &[Run], id: ReplicaId| members.iter().any(|run| run.id == id);
        for run in before.iter().filter(|run| !has(&view.members, run.id)) {
            let reason = match reasons.get(&run.id) {
                _ if was_asked(*run) => Some(": it was asked to stop".to_owned()),
                reason => reason.map(|reason| format!(": {reason}")),
            };
            text += &format!("; replica {} left{}", run.id, reason.unwrap_or_default());
        }
        for run in view.members.iter().filter(|run| !before.contains(run)) {
            let how = if has(&before, run.id) { "was started again" } else { "joined" };
            text += &format!("; replica {} {how}", run.id);
        }
        text
    }
}

impl Replica {
    /// How many frames of a change wait for the disk.
    pub fn change_waiting(&self) -> usize {
        self.waits.said.len()
    }

    /// A frame of the change. Where the disk does not follow, others' are as good as lost: they are said again.
    pub(super) fn on_change(&mut self, from: Run, frame: ChangeFrame, out: &mut Outbox) {
        if self.waits.said.len() >= CHANGE_WAITING_MAX && from != self.group.me() {
            return;
        }
        let mut actions = Vec::new();
        self.with_whole_log(out, |replica, end_in| {
            replica.group.on_change(replica.now, from, frame, end_in, &mut actions);
        });
        self.act(actions, out);
    }

    /// What time alone brings.
    pub(super) fn tend_views(&mut self, out: &mut Outbox) {
        if self.group.newest().is_none() {
            if let Some(view) = self.group.view_one(self.now, self.cluster_if_founding) {
                let me = self.group.me();
                self.on_change(me, ChangeFrame::Install { view }, out);
            }
        }
        let mut actions = Vec::new();
        if let Some(why) = self.group.tend(self.now, self.machine.due(), &mut actions) {
            out.notes.push((Level::Info, format!("proposes a change of the view: {why}")));
            self.with_whole_log(out, |replica, end_in| replica.group.propose(replica.now, end_in, &mut actions));
        }
        self.act(actions, out);
        self.synced(out);
        for verdict in self.group.take_verdicts() {
            let (id, reason) = (verdict.run.id, verdict.reason);
            let text = if verdict.made { "complains of" } else { "complains no more of" };
            if verdict.made {
                self.waits.complaints.insert(id, reason);
            } else {
                self.waits.complaints.remove(&id);
            }
            out.notes.push((Level::Info, format!("{text} replica {id}: {reason}")));
        }
    }

    /// Calls `f` with everything that is held contiguously handed to the log and in the tail, so that it can be told
    /// where the log will end.
    fn with_whole_log(&mut self, out: &mut Outbox, f: impl FnOnce(&mut Replica, &dyn Fn(&Acceptor) -> LogEnd)) {
        self.log_known(out);
        let copied = self.fill_tail();
        let tail = std::mem::take(&mut self.tail);
        let (end, applied) = (self.journal.end(), self.applied_end());
        f(self, &|acceptor| match tail.first_denied(|epoch, slot| acceptor.keeps(epoch, slot)) {
            None => end,
            Some(denied) => tail.get(Slot(denied.0 - 1)).map_or(applied, Held::end),
        });
        self.tail = tail;
        // While the view orders on, its window is what holds these slots.
        if copied && self.group.regular().is_some() && !self.group.change().is_frozen() {
            self.tail.clear();
        }
    }

    /// Copies what is logged and not applied from the window. False where the tail holds it already.
    fn fill_tail(&mut self) -> bool {
        let Some(regular) = self.group.regular() else { return false };
        let mut before = self.applied_end();
        while before.slot < self.journal.logged() {
            let slot = before.slot.next();
            let time = regular.window.order(slot).expect("what is not applied is not released").time;
            let mut operations = Vec::new();
            let payloads = regular.window.payloads(slot, super::sequencer(regular, slot));
            payloads.for_each(|payload| operations.extend_from_slice(payload));
            let digest = crate::wire::digest::slot_digest(before.digest, slot, time, &[&operations]);
            let held = Held { epoch: regular.view.epoch, slot, time, digest, operations };
            before = held.end();
            self.tail.push(held);
        }
        true
    }

    pub(super) fn applied_end(&self) -> LogEnd {
        LogEnd { slot: self.machine.applied(), digest: self.machine.digest(), time: self.machine.time() }
    }

    /// Carries out what the change asks for, in its order.
    fn act(&mut self, actions: Vec<Action>, out: &mut Outbox) {
        for action in actions {
            match action {
                Action::Freeze => {
                    // The window goes on repairing; the slots that are not applied are the tail's.
                    if self.tail.is_empty() {
                        self.fill_tail();
                    }
                    self.group.freeze();
                }
                Action::Write => self.write_acceptor(out),
                Action::Distrust(why) => return self.distrust_directory(why, out),
                Action::Adopt(view) => self.adopt(&view, out),
                Action::Fetch { base, sources } => {
                    let me = self.config.id;
                    self.waits.goal = Some((base, sources.into_iter().filter(|&id| id != me).collect()));
                }
                Action::Say { to, frame, durably } => {
                    let after = if durably { self.journal.issued() } else { WriteNumber(0) };
                    self.waits.said.push((after, to, frame));
                }
            }
        }
        self.release(out);
    }

    fn write_acceptor(&mut self, out: &mut Outbox) {
        let acceptor = self.group.change().acceptor().clone();
        let Acceptor { installed, heard, promised, accepted } = acceptor;
        (self.meta.installed, self.meta.heard) = (installed, heard);
        (self.meta.promised, self.meta.accepted) = (promised, accepted);
        self.meta.generation += 1;
        let number = self.journal.number();
        out.meta.push(self.meta.write(number));
        self.waits.meta = number;
    }

    /// What waits for no write any more is said; what this replica says to itself, too.
    fn release(&mut self, out: &mut Outbox) {
        let durable = self.durable_write;
        let (ready, rest) = std::mem::take(&mut self.waits.said).into_iter().partition(|(after, ..)| *after <= durable);
        self.waits.said = rest;
        let ready: Vec<(WriteNumber, ReplicaId, ChangeFrame)> = ready;
        for (_, to, frame) in ready {
            if to == self.config.id {
                let me = self.group.me();
                self.on_change(me, frame, out);
            } else {
                self.group.say(to, frame);
            }
        }
    }

    /// Writes have become durable.
    pub(super) fn on_views_durable(&mut self, out: &mut Outbox) {
        if self.meta_is_durable() && self.started {
            let before = self.group.regular().map(|regular| regular.tag);
            self.group.settle(self.now);
            if let Some(regular) = self.group.regular().filter(|regular| Some(regular.tag) != before) {
                let (view, tail) = (&regular.view, self.tail.is_empty());
                assert!(tail && self.journal.logged() == view.base, "a view begins where every log ends");
                let text = self.waits.tell(view, |run| self.group.is_leaving(run));
                out.notes.push((Level::Info, text));
                self.reads.start_again();
            }
        }
        self.synced(out);
        self.release(out);
    }

    pub(super) fn meta_is_durable(&self) -> bool {
        self.waits.meta <= self.durable_write || is_broken("install-before-durable")
    }

    /// A newer view is known. What diverges from its history is dropped, and what it starts from is committed.
    fn adopt(&mut self, view: &View, out: &mut Outbox) {
        self.meta.cluster = view.cluster;
        self.waits.goal = None;
        self.follow.stop();
        if self.tail.is_empty() {
            self.fill_tail();
        }
        let acceptor = self.group.change().acceptor().clone();
        self.cut_log(&acceptor);
        let votes = acceptor.installed.as_ref() == Some(view);
        if votes {
            if self.journal.logged() < view.base {
                let (end, base) = (self.journal.logged(), view.base);
                out.stop =
                    Some((format!("the log ends with slot {end}, but view {} starts from {base}", view.epoch), 70));
                return;
            }
            self.apply_held(view.base, out);
        }
        let uncovered = self.group.end_view(self.now, view, self.machine.applied());
        if !is_broken("unordered-lost") {
            self.door.pack_again(uncovered);
        }
        self.compared = Default::default();
        if !view.members.contains(&self.group.me()) {
            let then = if self.leaving.is_some() { "which may stop" } else { "which is to join" };
            let text = self.waits.tell(view, |run| self.group.is_leaving(run));
            out.notes.push((Level::Info, format!("{text}; without this replica, {then}")));
        }
    }

    /// Drops from the log what this replica's newest view denies.
    pub(super) fn cut_log(&mut self, acceptor: &Acceptor) {
        if is_broken("no-truncation") {
            return;
        }
        let Some(denied) = self.tail.first_denied(|epoch, slot| acceptor.keeps(epoch, slot)) else { return };
        self.tail.cut(denied);
        // What is still to come goes on from where the log ended before.
        self.follow.stop();
        self.journal.cut(self.tail.end().unwrap_or(self.applied_end()));
        self.marks.push(crate::marks::LOG_CUT);
    }

    /// Applies what the tail holds up to a slot that is known to be committed.
    pub(super) fn apply_held(&mut self, upto: Slot, out: &mut Outbox) {
        while let Some(held) = self.tail.pop(upto) {
            self.applied_epoch = held.epoch;
            self.machine.apply(held.slot, held.time, &held.operations, &mut self.replies);
            self.door.answer(&self.replies);
            self.replies.clear();
            if self.machine.digest() != held.digest {
                let (slot, digest, own) = (held.slot, held.digest, self.machine.digest());
                let text = format!("slot {slot}: the log's digest {digest}, applying it gives {own}");
                out.stop = Some((text, 70));
                return;
            }
        }
    }

    /// Tells the change once the log is durable as far as was asked for.
    fn synced(&mut self, out: &mut Outbox) {
        let Some((base, _)) = &self.waits.goal else { return };
        let base = base.slot;
        let durable = self.journal.synced() >= base || is_broken("ready-before-durable");
        if !durable || !self.meta_is_durable() {
            return;
        }
        let applied = self.applied_end();
        let own = if base == applied.slot { Some(applied) } else { self.tail.get(base).map(Held::end) };
        self.waits.goal = None;
        if let Some(own) = own {
            let mut actions = Vec::new();
            self.group.synced(own, &mut actions);
            self.act(actions, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Epoch, Incarnation};
    use crate::wire::view::tests::view_of;
    use crate::wire::view::Policy;

    #[test]
    fn a_view_is_told_by_what_changed() {
        let view = view_of(3, 3, Policy::Dynamic);
        let next = |epoch, members: Vec<Run>| View { epoch: Epoch(epoch), members, ..view.clone() };
        let again = |run: Run| Run { incarnation: Incarnation(run.incarnation.0 + 1), ..run };
        let mut waits = Waits::after(None);
        assert_eq!(waits.tell(&view, |_| false), format!("view {}: {{1,2,3}}", view.epoch));
        waits.complaints.insert(ReplicaId(2), Reason::Silent);
        let [one, two, three] = [0, 1, 2].map(|k| view.members[k]);
        let text = waits.tell(&next(7, vec![one, three]), |_| false);
        assert_eq!(text, "view 7: {1,3}; replica 2 left: nothing was heard of it");
        let text = waits.tell(&next(8, vec![one, two, again(three)]), |_| false);
        assert_eq!(text, "view 8: {1,2,3}; replica 2 joined; replica 3 was started again");
        let text = waits.tell(&next(9, vec![two, again(three)]), |_| false);
        assert_eq!(text, "view 9: {2,3}; replica 1 left");
        let text = waits.tell(&next(10, vec![again(three)]), |run| run == two);
        assert_eq!(text, "view 10: {3}; replica 2 left: it was asked to stop");
    }
}
