//! Keeping house: when a snapshot is asked for, what may go once it is there, and a whole state that came from another
//! replica (DESIGN 6.2, 6.3).
//!
//! Such a state counts as this replica's log only once a snapshot of it is on the disk: until then the log ends where
//! it did, and nothing is fetched.

use crate::log::Snapshot;
use crate::marks;
use crate::replica::machine::Machine;
use crate::replica::store::Bound;
use crate::replica::{Level, Outbox, Replica};
use crate::types::Slot;
use crate::wire::view::View;

impl Replica {
    /// Asks for a snapshot when one is due, and lets go of what is needed no more.
    pub(super) fn keep_house(&mut self, out: &mut Outbox) {
        let applied = self.machine.applied();
        if let Some(view) = self.arrived.clone() {
            if !self.store.is_busy() && self.store.may_ask(self.now) {
                self.ask_for_snapshot(view, out);
            }
        } else if let Some(regular) = self.group.regular().filter(|regular| applied > regular.view.base) {
            let (segment_bytes, state_bytes) = (self.config.segment_bytes, self.machine.memory_bytes());
            let bound = Bound { segment_bytes, state_bytes, rank: regular.rank, members: regular.view.members.len() };
            if self.store.is_due(self.now, applied, &self.journal, &bound) {
                let view = regular.view.clone();
                self.ask_for_snapshot(view, out);
            }
        }
        out.trim = self.store.trim(&mut self.journal).or(out.trim.take());
    }

    fn ask_for_snapshot(&mut self, view: View, out: &mut Outbox) {
        let (slot, time, digest) = (self.machine.applied(), self.machine.time(), self.machine.digest());
        self.store.ask(slot, &self.journal);
        out.snapshot = Some(Snapshot { slot, time, digest, view });
    }

    /// A snapshot is on the disk, or could not be made.
    pub(super) fn on_snapshot(&mut self, slot: Slot, made: bool, out: &mut Outbox) {
        self.store.on_snapshot(self.now, slot, made);
        if !made {
            out.notes.push((Level::Warning, format!("no snapshot of slot {slot}: tried again later")));
        } else if self.arrived.is_some() && slot == self.machine.applied() {
            self.arrived = None;
            self.journal.begin_behind(slot, self.machine.digest(), self.machine.time());
            out.notes.push((Level::Info, format!("took over the state of slot {slot}")));
        }
    }

    /// A whole state of another replica, its checksums right. It takes the place of this replica's own, which is older.
    pub(super) fn take_state(&mut self, snapshot: Snapshot, file: &[u8], out: &mut Outbox) {
        // Of a view that this replica has not heard of it is told first (see `take_slots`).
        let unheard = self.group.newest().is_none_or(|view| snapshot.view.epoch > view.epoch);
        if unheard || snapshot.slot <= self.machine.applied() || self.arrived.is_some() {
            return self.follow.stop();
        }
        let state = Snapshot::decode(file).map(|(_, state)| state);
        let machine = match state.and_then(Machine::restore) {
            Ok(machine) if (machine.applied(), machine.digest()) == (snapshot.slot, snapshot.digest) => machine,
            _ => {
                self.follow.stop();
                let text = format!("the state of slot {} that another replica sent makes no sense", snapshot.slot);
                return out.notes.push((Level::Warning, text));
            }
        };
        self.marks.push(marks::STATE_TAKEN);
        self.machine = machine;
        self.applied_epoch = snapshot.view.epoch;
        self.tail.clear();
        self.follow.stop();
        self.arrived = Some(snapshot.view);
        // What was answered in the slots that are jumped over was told to nobody here: whoever waits asks again.
        out.hang_up.extend(self.door.clients());
    }
}
