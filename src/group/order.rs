//! Total order in a regular view: who announces slot k, what it covers, and what each frame means for that.
//!
//! Slot k belongs to rank k mod n (I7). It is announced once its sequencer holds the orders of all slots before it
//! and at least one whole operation that none of them covers. There is no leader and no artificial delay: each turn
//! of the loop sends what it has. After the rotating sequencer of Chang and Maxemchuk, with negative acknowledgements.

use crate::group::clock::Clock;
use crate::group::commit::Commit;
use crate::group::flow::Flow;
use crate::group::nack::Nacks;
use crate::group::packets::Packets;
use crate::group::path::Path;
use crate::group::resend::{Piece, Resend};
use crate::group::view::View;
use crate::group::window::{Message, Order, Useless, Window};
use crate::limits::{HEADER_ROOM_BYTES, NACK_SPAN_MAX, SILENT_NS, SLOTS_MAX};
use crate::marks;
use crate::replica::Dest;
use crate::rng::Rng;
use crate::types::{GroupTime, Mseq, Rank, Run, Slot, Time, ViewTag};
use crate::wire::datagram::{Frame, Status};

/// One regular view at one member with rank.
#[derive(Debug)]
pub struct Regular {
    pub view: View,
    pub tag: ViewTag,
    pub rank: Rank,
    pub window: Window,
    pub commit: Commit,
    pub flow: Flow,
    pub clock: Clock,
    nacks: Nacks,
    resend: Resend,
    path: Path,
    /// Highest slot whose record is on this member's disk.
    durable: Slot,
    /// Slots announced in this turn.
    announced: Vec<(Slot, Order)>,
    /// Messages to be multicast for the first time in this turn.
    fresh: Vec<Mseq>,
    repairs: Vec<(Rank, Piece, u32, usize)>,
    answers: Vec<(Rank, Frame<'static>)>,
    /// Since when something has been unsettled and this member silent; it reports `silent_ns` later.
    silent_since: Option<Time>,
    silent_ns: u64,
    pub marks: Vec<&'static str>,
}

impl Regular {
    pub fn new(view: View, me: Run, path_max: usize, now: Time, mut rng: Rng) -> Regular {
        let rank = view.rank_of(me.id).expect("only a member's run makes a regular view");
        let n = view.members.len();
        Regular {
            tag: view.tag(),
            rank,
            window: Window::new(n, view.base, view.base_time),
            commit: Commit::new(&view),
            flow: Flow::default(),
            clock: Clock::new(view.base_time, now),
            nacks: Nacks::new(rank, n, rng.fork()),
            resend: Resend::new(now),
            path: Path::new(rank, n, path_max, now),
            durable: view.base,
            announced: Vec::new(),
            fresh: Vec::new(),
            repairs: Vec::new(),
            answers: Vec::new(),
            silent_since: None,
            silent_ns: SILENT_NS,
            marks: Vec::new(),
            view,
        }
    }

    fn n(&self) -> usize {
        self.view.members.len()
    }

    /// Every other member.
    pub fn others(&self) -> Dest {
        let ids = self.view.members.iter().map(|m| m.id).filter(|&id| id != self.view.member(self.rank).id);
        ids.fold(Dest::default(), Dest::with)
    }

    fn dest(&self, rank: Rank) -> Dest {
        Dest::one(self.view.member(rank).id)
    }

    // ---- what arrives

    /// A member's report in this view. One that no member can make in its right mind is of no use.
    pub fn on_status(&mut self, rank: Rank, status: &Status) -> Result<(), Useless> {
        if status.committed.max(status.durable) > status.known {
            return Err(Useless::Contradiction);
        }
        // Nothing is announced further ahead of what every member holds durably.
        if status.known.0 > self.window.known().0 + SLOTS_MAX as u64 {
            return Err(Useless::TooFar);
        }
        let before = self.commit.committed();
        self.commit.on_status(rank, status);
        if self.commit.committed() > before && status.committed > before {
            self.marks.push(marks::BELIEVED_COMMIT);
        }
        Ok(())
    }

    /// A piece of a message. The reason where it was of no use.
    pub fn on_data(&mut self, frame: &Frame<'_>) -> Result<(), Useless> {
        let Frame::Data { origin, mseq, continues, total, offset, bytes } = *frame else {
            return Err(Useless::Contradiction);
        };
        if origin == self.rank {
            return Err(Useless::Duplicate);
        }
        if bytes.len() < total as usize {
            self.marks.push(marks::PIECES_JOINED);
        }
        self.window.on_data(origin, mseq, continues, total as usize, offset as usize, bytes)
    }

    /// An announced slot. The reason where it was of no use.
    pub fn on_order(&mut self, now: Time, slot: Slot, order: Order) -> Result<(), Useless> {
        self.window.on_order(slot, order)?;
        self.clock.on_order(order.time, now);
        Ok(())
    }

    /// A member asks for repair.
    pub fn on_nack(&mut self, now: Time, asker: Rank, frame: &Frame<'_>) {
        let (wanted, offset_of, attempt): (Vec<Piece>, Option<(Mseq, u32)>, u8) = match *frame {
            Frame::NackOrders { first, last, attempt } => {
                let last = last.0.min(first.0.saturating_add(NACK_SPAN_MAX)).min(self.window.heard_slot().0);
                ((first.0..=last).map(|s| Piece::Order(Slot(s))).collect(), None, attempt)
            }
            Frame::NackData { origin, first, last, offset, attempt } if usize::from(origin.0) < self.n() => {
                let last = last.0.min(first.0.saturating_add(NACK_SPAN_MAX));
                let pieces = (first.0..=last).map(|m| Piece::Data(origin, Mseq(m))).collect();
                (pieces, Some((first, offset)), attempt)
            }
            _ => return,
        };
        if self.path.on_attempt(now, attempt) {
            self.marks.push(marks::PATH_SHRANK);
        }
        let (asked, window, sent) = (wanted.len(), &self.window, self.flow.sent());
        let me = self.rank;
        let size = |piece: Piece| match piece {
            Piece::Order(slot) => {
                window.order(slot).filter(|_| slot > window.released()).map(|o| 25 + 8 * o.cuts.len())
            }
            Piece::Data(origin, mseq) if origin == me && mseq > sent => None,
            Piece::Data(origin, mseq) => window.message(origin, mseq).map(|m| m.bytes.len()),
        };
        let granted = self.resend.grant(now, asker, wanted.into_iter(), self.path.round_trip_ns(), size);
        if granted.len() < asked {
            self.marks.push(marks::RESEND_HELD);
        }
        let datagram = self.path.size_for_attempt(attempt);
        for piece in granted {
            let offset = match (piece, offset_of) {
                (Piece::Data(_, mseq), Some((first, offset))) if mseq == first => offset,
                _ => 0,
            };
            self.marks.push(match piece {
                Piece::Order(_) => marks::RESENT_ORDER,
                Piece::Data(origin, _) if origin == self.rank => marks::RESENT_DATA,
                Piece::Data(..) => marks::RESENT_FOREIGN,
            });
            self.repairs.push((asker, piece, offset, datagram));
        }
    }

    /// A probe arrived whole: it is answered.
    pub fn answer(&mut self, rank: Rank, frame: Frame<'static>) {
        self.answers.push((rank, frame));
    }

    pub fn on_probed(&mut self, now: Time, rank: Rank, size: usize) {
        if self.path.on_probed(now, rank, size) {
            self.marks.push(marks::PATH_GREW);
        }
    }

    /// This member's log is on its disk up to here.
    pub fn on_durable(&mut self, slot: Slot) {
        self.durable = self.durable.max(slot);
    }

    // ---- what this member does

    /// Bytes of payload that one message may carry today.
    pub fn message_bytes(&self) -> usize {
        Packets::payload_bytes(self.path.size())
    }

    /// Bytes of a datagram today.
    pub fn datagram_bytes(&self) -> usize {
        self.path.size()
    }

    /// Takes whole operations of this replica's clients as one message, or as several where they are larger.
    pub fn send(&mut self, operations: Vec<u8>) {
        let most = self.message_bytes();
        if operations.len() <= most {
            return self.make(Message { bytes: operations, continues: false });
        }
        self.marks.push(marks::SPANNING);
        let pieces = operations.chunks(most).count();
        for (k, bytes) in operations.chunks(most).enumerate() {
            self.make(Message { bytes: bytes.to_vec(), continues: k + 1 < pieces });
        }
    }

    fn make(&mut self, message: Message) {
        let bytes = message.bytes.len();
        let mseq = self.window.push_own(self.rank, message);
        self.flow.on_made(mseq, bytes);
        if !self.flow.is_open() {
            self.marks.push(marks::WINDOW_CLOSED);
        }
    }

    /// Picks the messages that are sent for the first time in this turn.
    pub fn transmit(&mut self) {
        let received = self.commit.known_everywhere().min(self.window.announced()).max(self.window.released());
        let received = self.window.order(received).map_or(Mseq(0), |o| o.cuts.of(self.rank));
        self.flow.on_received(if self.n() == 1 { self.window.held(self.rank) } else { received });
        let others = self.commit.reports().filter(|(rank, _)| *rank != self.rank);
        let buffer = others.map(|(_, r)| r.buffer_bytes).min().unwrap_or(u32::MAX);
        let made = self.window.held(self.rank);
        loop {
            let inside = self.window.message(self.rank, self.flow.sent()).is_some_and(|m| m.continues);
            let Some(mseq) = self.flow.next_to_send(made, buffer, self.n() - 1, inside) else { break };
            let bytes = self.window.message(self.rank, mseq).map_or(0, |m| m.bytes.len());
            self.flow.on_sent(mseq, bytes);
            self.fresh.push(mseq);
        }
    }

    /// The next slot, if it is this member's turn and there is room for it.
    fn own_slot(&self) -> Option<Slot> {
        let slot = self.window.announced().next();
        let my_turn = self.view.sequencer(slot) == self.rank || crate::group::broken::is("out-of-turn");
        (my_turn && slot.0 - self.window.released().0 <= SLOTS_MAX as u64).then_some(slot)
    }

    /// Announces the next slot if it is this member's turn and there is something to cover, or a tick is due.
    pub fn announce(&mut self, now: Time, due: Option<GroupTime>) {
        let Some(slot) = self.own_slot() else { return };
        let last = *self.window.last_order();
        let mut time = last.time.max(self.clock.at(now));
        if crate::group::broken::is("time-runs-back") {
            time = GroupTime(time.0 - time.0 % 7_000_000_000);
        }
        let cuts = match self.window.next_cuts(self.rank, self.flow.sent()) {
            Some(cuts) => cuts,
            None if due.is_some_and(|due| due <= time && last.time < due) => {
                self.marks.push(marks::TICK);
                last.cuts
            }
            None => return,
        };
        if cuts.iter().zip(last.cuts.iter()).filter(|(new, old)| new > old).count() > 1 {
            self.marks.push(marks::SLOT_SHARED);
        }
        let order = Order { time, cuts };
        self.window.on_order(slot, order).expect("the slot after the last one is free");
        self.announced.push((slot, order));
    }

    /// Counts what is durable and committed; `logged` is what this member may count for itself.
    pub fn count(&mut self) -> Slot {
        let own = match self.view.durability {
            crate::group::view::Durability::Memory => self.window.known(),
            crate::group::view::Durability::Disk if crate::group::broken::is("ack-before-sync") => self.window.known(),
            crate::group::view::Durability::Disk => self.durable,
        };
        self.commit.advance(self.rank, self.flow.sent(), self.window.known(), own);
        self.commit.committed().min(self.window.known())
    }

    /// Forgets what every member holds durably and this one has applied.
    pub fn release(&mut self, applied: Slot) {
        let slot = self.commit.durable_everywhere().min(applied).min(self.durable.max(self.view.base));
        if slot > self.window.released() {
            self.window.release(slot);
            let own = self.window.order(slot).expect("the released slot's order is kept").cuts.of(self.rank);
            self.flow.on_released(own);
        }
    }

    /// This member's report.
    pub fn status(&self) -> Status {
        let report = self.commit.report(self.rank);
        Status {
            sent: self.flow.sent(),
            known: self.window.known(),
            durable: report.durable,
            committed: self.commit.committed().min(self.window.known()),
            ..Status::default()
        }
    }

    /// Whether another member may lack something only this member's silence hides.
    fn unsettled(&self) -> bool {
        let unordered = self.flow.sent() > self.window.last_order().cuts.of(self.rank);
        let report = unordered && !crate::group::broken::is("silent-last-message");
        report || self.commit.unsettled(self.window.known())
    }

    /// Puts everything this turn has to say. With `news` every member gets at least a report.
    pub fn compose(&mut self, now: Time, news: bool, packets: &mut Packets) {
        let (others, size) = (self.others(), self.path.size());
        let multicast = news || !self.fresh.is_empty() || !self.announced.is_empty();
        for mseq in std::mem::take(&mut self.fresh) {
            self.put_data(others, self.rank, mseq, 0, size, packets);
        }
        for (slot, order) in std::mem::take(&mut self.announced) {
            packets.put(others, size, &Frame::Order { slot, time: order.time, cuts: order.cuts });
        }
        for (asker, piece, offset, datagram) in std::mem::take(&mut self.repairs) {
            let dest = self.dest(asker);
            match piece {
                Piece::Order(slot) => {
                    let Some(order) = self.window.order(slot) else { continue };
                    packets.put(dest, datagram, &Frame::Order { slot, time: order.time, cuts: order.cuts });
                }
                Piece::Data(origin, mseq) => self.put_data(dest, origin, mseq, offset, datagram, packets),
            }
        }
        for (rank, frame) in std::mem::take(&mut self.answers) {
            packets.put(self.dest(rank), size, &frame);
        }
        self.ask(now, size, packets);
        if let Some((size, silent)) = self.path.poll(now) {
            let dest = silent.into_iter().map(|rank| self.view.member(rank).id).fold(Dest::default(), Dest::with);
            packets.probe(dest, size);
        }
        match self.silent_since.filter(|_| !multicast) {
            _ if !self.unsettled() => self.silent_since = None,
            None => (self.silent_since, self.silent_ns) = (Some(now), SILENT_NS),
            Some(since) if now.since_ns(since) >= self.silent_ns => {
                self.marks.push(marks::SILENT_REPORT);
                (self.silent_since, self.silent_ns) = (Some(now), self.silent_ns.saturating_mul(2));
                packets.report(others);
            }
            Some(_) => {}
        }
        if news {
            packets.report(others);
        }
    }

    fn ask(&mut self, now: Time, size: usize, packets: &mut Packets) {
        self.nacks.look(now, &self.window, &self.commit);
        for (rank, frame) in self.nacks.ask(now, &self.view, &self.window, &self.commit) {
            self.marks.push(match frame {
                Frame::NackOrders { .. } => marks::NACK_ORDER,
                Frame::NackData { origin, .. } if origin != rank => marks::NACK_THIRD,
                _ => marks::NACK_DATA,
            });
            packets.put(self.dest(rank), size, &frame);
        }
    }

    /// Puts a message from `offset` on, in as many DATA frames as the datagram size asks for.
    fn put_data(&self, dest: Dest, origin: Rank, mseq: Mseq, offset: u32, size: usize, packets: &mut Packets) {
        let Some(message) = self.window.message(origin, mseq) else { return };
        let (total, most) =
            (message.bytes.len() as u32, size - HEADER_ROOM_BYTES - crate::wire::datagram::DATA_HEADER_BYTES);
        let mut offset = offset;
        for bytes in message.bytes.get(offset as usize..).unwrap_or_default().chunks(most) {
            packets.put(dest, size, &Frame::Data { origin, mseq, continues: message.continues, total, offset, bytes });
            offset += bytes.len() as u32;
        }
    }

    /// When this member must be given a turn at the latest.
    pub fn deadline(&self, due: Option<GroupTime>) -> Option<Time> {
        let tick = due.filter(|&due| self.own_slot().is_some() && self.window.last_order().time < due);
        let tick = tick.map(|due| self.clock.when(due));
        let silent = self.silent_since.map(|since| since.after_ns(self.silent_ns));
        [self.nacks.deadline(), self.path.deadline(), tick, silent].into_iter().flatten().min()
    }
}
