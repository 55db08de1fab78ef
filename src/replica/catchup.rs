//! Catching up: what this replica lacks is fetched from others, and what others lack is served (DESIGN 6.3).
//!
//! A member-to-be fetches what SYNC names; a replica without rank, beside a primary view that orders on, everything
//! that is committed. Nothing is appended before `meta` says in which view.

use crate::limits::JOIN_NEAR_SLOTS;
use crate::marks;
use crate::replica::follow::{Fetched, Got};
use crate::replica::serve::{Lanes, Serve, Source};
use crate::replica::tail::Held;
use crate::replica::{Level, Outbox, Replica};
use crate::types::{Epoch, ReplicaId, Slot, Time};
use crate::wire::stream::{Frame, Position, Sender};

impl Replica {
    fn sender(&self) -> Sender {
        Sender { cluster: self.meta.cluster, run: self.group.me() }
    }

    /// Where the log ends, as others compare it.
    fn position(&self) -> Position {
        let applied = self.applied_end();
        let last = self.tail.last().map(|held| (held.end(), held.epoch));
        let (end, epoch) = last.unwrap_or((applied, self.applied_epoch));
        Position { slot: end.slot, epoch, digest: end.digest }
    }

    /// A frame of another replica over a stream.
    pub(super) fn on_stream(&mut self, from: ReplicaId, bytes: &[u8], out: &mut Outbox) {
        let own = self.sender();
        let decoded = Frame::decode(bytes).ok().filter(|_| self.started);
        let Some((_, frame)) = decoded.filter(|(s, _)| s.cluster == own.cluster && s.run.id == from) else {
            self.follow.counters.foreign += 1;
            return;
        };
        match frame {
            Frame::Fetch { number, fetch } => self.serve.on_fetch(from, number, fetch),
            answer => self.follow.on_frame(self.now, own.cluster, self.group.newest(), from, &answer),
        }
        while let Some(got) = self.follow.take() {
            match got {
                Got::Records(records) => self.take_slots(records, out),
                Got::Differs { from, slot } => self.differs(from, slot, out),
                Got::State { snapshot, file } => self.take_state(snapshot, &file, out),
            }
        }
    }

    /// Slots that go on where the log ends.
    fn take_slots(&mut self, slots: Vec<Fetched>, out: &mut Outbox) {
        let number = self.journal.number();
        let newest = self.group.newest().map_or(Epoch(0), |view| view.epoch);
        for Fetched { epoch, slot, time, digest, operations } in slots {
            // A view that this replica has not heard of may have it as a member, and begins for it where all its
            // members' logs ended, not behind what they have ordered since.
            if epoch > newest {
                self.follow.stop();
                break;
            }
            let held = Held { epoch, slot, time, digest, operations };
            assert_eq!(held.slot, self.journal.logged().next(), "what is fetched goes on where the log ends");
            let mut positions = self.positions();
            // What is remembered of the members holds for the newest view alone.
            if positions.epoch != held.epoch {
                (positions.epoch, positions.vector) = (held.epoch, Vec::new());
            }
            self.journal.append(number, held.slot, held.time, &[&held.operations], &positions, &mut out.log);
            self.tail.push(held);
        }
        self.marks.push(marks::FETCHED);
        // Beside a view that orders on, what is committed there is so here.
        if self.waits.goal.is_none() {
            self.apply_held(self.follow.committed(), out);
        }
    }

    /// A source's history is not this log's, or not up to its end.
    fn differs(&mut self, from: ReplicaId, slot: Slot, out: &mut Outbox) {
        let applied = self.machine.applied();
        let at = self.position().slot;
        if slot >= applied && slot < at {
            self.tail.cut(slot.next());
            self.follow.stop();
            self.journal.cut(self.tail.end().unwrap_or(self.applied_end()));
        } else {
            let text = format!("replica {from} can't tell whether its history is this one's up to slot {at}");
            out.notes.push((Level::Warning, text));
        }
    }

    /// Asks for what is lacking.
    pub(super) fn follow_others(&mut self, out: &mut Outbox) {
        let outsider = self.is_outsider();
        let wanted = match &self.waits.goal {
            _ if !self.meta_is_durable() || self.arrived.is_some() => None,
            Some((base, sources)) => Some((Some(base.slot), sources.clone())),
            None => outsider.then(|| (None, self.group.sources(self.now))),
        };
        match wanted {
            Some((target, sources)) => {
                let (now, position, sender) = (self.now, self.position(), self.sender());
                self.follow.want(now, position, target, &sources);
                self.follow.tick(now, sender, &mut out.streams);
            }
            None => self.follow.stop(),
        }
        let near = self.follow.lag().is_some_and(|lag| lag <= JOIN_NEAR_SLOTS);
        // What it asks to join freezes for that: it goes on asking.
        let joining = if outsider { near } else { self.group.is_joining() };
        let (known, durable, applied) = (self.journal.logged(), self.journal.synced(), self.machine.applied());
        self.group.set_log(known, durable, applied, joining && self.leaving.is_none());
    }

    /// Slots still to come before this replica is where the others are, while it catches up.
    pub fn lag(&self) -> Option<u64> {
        self.follow.lag()
    }

    /// Whether this replica has no rank and others order on without it.
    fn is_outsider(&self) -> bool {
        let view = self.group.newest().filter(|_| self.started && self.group.window().is_none());
        view.is_some_and(|view| self.group.hears_active_primary(self.now, view))
    }

    /// Serves what others ask for.
    pub(super) fn serve_others(&mut self, out: &mut Outbox) {
        let mut serve = std::mem::replace(&mut self.serve, Serve::new(self.now));
        let mut lanes = Lanes { streams: &mut out.streams, reads: &mut out.reads };
        serve.tick(self.now, &self.source(), &mut lanes);
        self.serve = serve;
    }

    /// What a read of this replica's own files brought.
    pub(super) fn on_read(&mut self, token: u64, bytes: &[u8], out: &mut Outbox) {
        let mut serve = std::mem::replace(&mut self.serve, Serve::new(self.now));
        let mut lanes = Lanes { streams: &mut out.streams, reads: &mut out.reads };
        serve.on_read(token, bytes, &self.source(), &mut lanes);
        self.serve = serve;
    }

    /// What there is to be served now.
    fn source(&self) -> Source<'_> {
        let (view, committed) = (self.group.newest(), self.committed());
        Source { sender: self.sender(), journal: &self.journal, view, committed, snapshots: self.store.snapshots() }
    }

    pub(super) fn catch_up_deadline(&self) -> Option<Time> {
        self.follow.deadline().into_iter().chain(self.serve.deadline()).min()
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod whole;
