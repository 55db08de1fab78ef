//! Catching up: what comes over streams from other replicas goes to [`follow`](super::follow) or to
//! [`serve`](super::serve), and what these want to say or read goes out.
//!
//! What `Follow` brings is only kept here; it becomes part of the log where the view's change or a join takes it.

use crate::replica::serve::{Lanes, Source};
use crate::replica::{Outbox, Replica};
use crate::types::{ReplicaId, Run, Time};
use crate::wire::stream::{Frame, Sender};

impl Replica {
    fn sender(&self) -> Sender {
        let (id, birth, incarnation) = (self.config.id, self.meta.birth, self.meta.incarnation);
        Sender { cluster: self.meta.cluster, run: Run { id, birth, incarnation } }
    }

    /// One frame of another replica, its length taken off.
    pub(super) fn on_stream(&mut self, from: ReplicaId, frame: &[u8]) {
        let own = self.sender();
        let decoded = Frame::decode(frame).ok();
        let Some((_, frame)) = decoded.filter(|(s, _)| s.cluster == own.cluster && s.run.id == from) else {
            self.follow.counters.foreign += 1;
            return;
        };
        match frame {
            Frame::Fetch { number, fetch } => self.serve.on_fetch(from, number, fetch),
            answer => self.follow.on_frame(self.now, own.cluster, from, &answer),
        }
    }

    /// What a read brought goes to whoever asked for it.
    pub(super) fn on_read(&mut self, token: u64, bytes: &[u8], out: &mut Outbox) {
        let sender = self.sender();
        let committed = self.committed();
        let view = self.meta.installed.as_ref();
        let source = Source { sender, journal: &self.journal, view, committed, snapshots: self.store.snapshots() };
        let mut lanes = Lanes { streams: &mut out.streams, reads: &mut out.reads };
        self.serve.on_read(token, bytes, &source, &mut lanes);
    }

    /// Asks for what is wanted, and serves others.
    pub(super) fn catch_up(&mut self, out: &mut Outbox) {
        let sender = self.sender();
        let committed = self.committed();
        self.follow.tick(self.now, sender, &mut out.streams);
        let view = self.meta.installed.as_ref();
        let source = Source { sender, journal: &self.journal, view, committed, snapshots: self.store.snapshots() };
        let mut lanes = Lanes { streams: &mut out.streams, reads: &mut out.reads };
        self.serve.tick(self.now, &source, &mut lanes);
    }

    pub(super) fn catch_up_deadline(&self) -> Option<Time> {
        self.follow.deadline().into_iter().chain(self.serve.deadline()).min()
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod whole;
