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
use crate::group::window::{Message, Order, Useless, Window};
use crate::limits::{CLOCK_TOLERANCE, HEADER_ROOM_BYTES, NACK_SPAN_MAX, SILENT_NS, SLOTS_MAX};
use crate::marks;
use crate::rng::Rng;
use crate::types::Dest;
use crate::types::{GroupTime, Mseq, Rank, Run, Slot, Time, ViewTag};
use crate::wire::datagram::{Frame, Status};
use crate::wire::view::View;

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

    /// An announced slot; none covers what this member has not sent. The reason where it was of no use.
    pub fn on_order(&mut self, now: Time, slot: Slot, order: Order) -> Result<(), Useless> {
        let invents = order.cuts.len() == self.n() && order.cuts.of(self.rank) > self.flow.sent();
        if invents && slot > self.window.announced() {
            return Err(Useless::Contradiction);
        }
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
        let my_turn = self.view.sequencer(slot) == self.rank || crate::broken::is("out-of-turn");
        (my_turn && slot.0 - self.window.released().0 <= SLOTS_MAX as u64).then_some(slot)
    }

    /// Announces the next slot if it is this member's turn and there is something to cover, or a tick is due.
    pub fn announce(&mut self, now: Time, due: Option<GroupTime>) {
        let Some(slot) = self.own_slot() else { return };
        let last = *self.window.last_order();
        let mut time = last.time.max(self.clock.at(now));
        if crate::broken::is("time-runs-back") {
            time = GroupTime(time.0 ^ 0xFF_FFFF);
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
            crate::wire::view::Durability::Memory => self.window.known(),
            crate::wire::view::Durability::Disk if crate::broken::is("ack-before-sync") => self.window.known(),
            crate::wire::view::Durability::Disk => self.durable,
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

    /// The next slot, if an operation or a due tick waits for it and no member is known to hold it.
    pub fn awaited(&self, now: Time, due: Option<GroupTime>) -> Option<Slot> {
        let (slot, last) = (self.window.announced().next(), self.window.last_order());
        let waits = |rank: Rank| {
            let whole = self.window.whole(rank);
            (if rank == self.rank { whole.min(self.flow.sent()) } else { whole }) > last.cuts.of(rank)
        };
        let operation = (0..self.n()).any(|k| waits(Rank(k as u8)));
        let at = self.clock.at(now);
        // Since the last slot the sequencer's clock may have run slower than this one.
        let surely = GroupTime(at.0 - at.0.saturating_sub(last.time.0) / CLOCK_TOLERANCE);
        let tick = due.is_some_and(|due| last.time < due && due <= surely);
        ((operation || tick) && self.commit.known_anywhere() < slot).then_some(slot)
    }

    /// Whether messages of its own are not yet durable everywhere.
    pub fn window_waits(&self) -> bool {
        let released = self.window.order(self.window.released()).map_or(Mseq(0), |o| o.cuts.of(self.rank));
        self.window.held(self.rank) > released
    }

    /// This member's report.
    pub fn status(&self) -> Status {
        let report = self.commit.report(self.rank);
        let hidden = crate::broken::is("silent-last-message");
        Status {
            sent: if hidden { self.window.last_order().cuts.of(self.rank) } else { self.flow.sent() },
            known: self.window.known(),
            durable: report.durable,
            committed: self.commit.committed().min(self.window.known()),
            ..Status::default()
        }
    }

    /// Whether another member may lack something only this member's silence hides.
    fn unsettled(&self) -> bool {
        let unordered = self.flow.sent() > self.window.last_order().cuts.of(self.rank);
        unordered || self.commit.unsettled(self.window.known())
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
        self.compose_repairs(packets);
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

    /// Puts what others asked for, and nothing else.
    pub fn compose_repairs(&mut self, packets: &mut Packets) {
        for (asker, piece, offset, datagram) in std::mem::take(&mut self.repairs) {
            let dest = self.dest(asker);
            match piece {
                Piece::Order(slot) => {
                    let Some(order) = self.window.order(slot) else { continue };
                    let time = GroupTime(order.time.0 + u64::from(crate::broken::is("order-changed")));
                    packets.put(dest, datagram, &Frame::Order { slot, time, cuts: order.cuts });
                }
                Piece::Data(origin, mseq) => self.put_data(dest, origin, mseq, offset, datagram, packets),
            }
        }
    }

    /// What this member has sent, or was about to, and no slot up to `slot` covers: operation by operation.
    pub fn uncovered(&self, slot: Slot) -> Vec<Vec<u8>> {
        let covered = slot.min(self.window.announced()).max(self.window.released());
        let mut mseq = self.window.order(covered).map_or(Mseq(0), |order| order.cuts.of(self.rank));
        let (mut operations, mut operation) = (Vec::new(), Vec::new());
        while let Some(message) = self.window.message(self.rank, mseq.next()) {
            mseq = mseq.next();
            operation.extend_from_slice(&message.bytes);
            if !message.continues {
                operations.push(std::mem::take(&mut operation));
            }
        }
        operations
    }

    fn ask(&mut self, now: Time, size: usize, packets: &mut Packets) {
        self.nacks.look(now, &self.window, &self.commit);
        self.nacks.set_round_trip(self.path.round_trip_ns());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{DATAGRAM_FIRST, WINDOW_BYTES};
    use crate::types::{ClusterId, PacketNumber};
    use crate::wire::codec::Reader;
    use crate::wire::datagram::Header;
    use crate::wire::view::tests::{run_of, view_of};
    use crate::wire::view::Policy;

    const STEP_NS: u64 = Time::MS / 4;
    /// Turns between two heartbeats, which this bench sends as the group does.
    const HEARTBEAT: usize = 40;

    /// Members in a view with disks that are done at once, on a network that loses what the generator says.
    struct Bench {
        members: Vec<(Regular, Packets)>,
        now: Time,
        rng: Rng,
        loss_ppm: u32,
        turns: usize,
        /// Datagrams sent so far that were more than a report.
        sent: usize,
        /// Who was first to send the order of each slot.
        announcers: Vec<Rank>,
    }

    impl Bench {
        fn new(n: u8, loss_ppm: u32) -> Bench {
            let view = view_of(n, n, Policy::Dynamic);
            // No larger datagram is tried: whatever is sent has to do with the order.
            let member = |id| Regular::new(view.clone(), run_of(id), DATAGRAM_FIRST, Time(1), Rng::new(u64::from(id)));
            let members = (1..=n).map(|id| (member(id), Packets::new())).collect();
            Bench { members, now: Time(1), rng: Rng::new(5), loss_ppm, turns: 0, sent: 0, announcers: Vec::new() }
        }

        fn member(&mut self, rank: usize) -> &mut Regular {
            &mut self.members[rank].0
        }

        fn turn(&mut self, from: usize, due: Option<GroupTime>) {
            let now = self.now;
            let (regular, packets) = &mut self.members[from];
            regular.transmit();
            regular.announce(now, due);
            let before = regular.commit.report(regular.rank).durable;
            regular.on_durable(regular.window.known());
            let committed = regular.count();
            regular.release(committed);
            let status = Status { buffer_bytes: 1 << 20, ..regular.status() };
            let (run, tag) = (regular.view.member(regular.rank), regular.tag);
            packets.begin(&Header { cluster: ClusterId(1), run, packet: PacketNumber(0), tag, status });
            regular.compose(now, status.durable > before, packets);
            if self.turns % HEARTBEAT == HEARTBEAT - 1 {
                packets.report(regular.others());
            }
            let mut out = Vec::new();
            packets.finish(&mut out);
            let more = |datagram: &[u8]| !Header::decode(datagram).expect("a sealed datagram").1.is_empty();
            self.sent += out.iter().filter(|(_, datagram)| more(datagram)).count();
            for (dest, datagram) in out {
                for to in 0..self.members.len() {
                    if dest.contains(self.members[to].0.view.members[to].id) && !self.rng.chance(self.loss_ppm) {
                        self.deliver(from, to, &datagram);
                    }
                }
            }
        }

        fn deliver(&mut self, from: usize, to: usize, datagram: &[u8]) {
            let (header, frames) = Header::decode(datagram).expect("a sealed datagram");
            let (rank, mut r) = (Rank(from as u8), Reader::new(frames));
            let (now, regular) = (self.now, &mut self.members[to].0);
            while !r.is_empty() {
                let frame = Frame::decode(&mut r).expect("whole frames");
                match frame {
                    Frame::Data { .. } => assert_ne!(regular.on_data(&frame), Err(Useless::Contradiction)),
                    Frame::Order { slot, time, cuts } => {
                        if slot.0 as usize > self.announcers.len() {
                            assert_eq!(slot.0 as usize, self.announcers.len() + 1, "no slot is left out");
                            self.announcers.push(rank);
                        }
                        let taken = regular.on_order(now, slot, Order { time, cuts });
                        assert_ne!(taken, Err(Useless::Contradiction));
                    }
                    Frame::NackOrders { .. } | Frame::NackData { .. } => regular.on_nack(now, rank, &frame),
                    frame => panic!("{frame:?}"),
                }
            }
            regular.on_status(rank, &header.status).expect("an honest report");
        }

        fn run(&mut self, turns: usize) {
            for _ in 0..turns {
                (0..self.members.len()).for_each(|from| self.turn(from, None));
                self.now = self.now.after_ns(STEP_NS);
                self.turns += 1;
            }
        }

        fn marked(&self, mark: &str) -> bool {
            self.members.iter().any(|(regular, _)| regular.marks.contains(&mark))
        }

        /// Everything is ordered, committed and released everywhere, up to the same slot.
        fn assert_settled(&self) {
            let last = self.members[0].0.window.known();
            assert!(last > Slot(0));
            for (regular, _) in &self.members {
                let window = &regular.window;
                assert_eq!((window.announced(), window.known(), window.released()), (last, last, last));
                assert_eq!((regular.commit.committed(), window.bytes(), regular.flow.window_bytes()), (last, 0, 0));
                assert_eq!(window.last_order().cuts.of(regular.rank), regular.flow.sent());
                assert!(!regular.unsettled());
            }
        }
    }

    #[test]
    fn slots_go_round_and_everything_settles() {
        for n in [1, 2, 3, 5] {
            let mut bench = Bench::new(n, 0);
            for round in 0..20 {
                bench.member(round % usize::from(n)).send(vec![round as u8; 100]);
                bench.run(2);
            }
            bench.run(3 * HEARTBEAT);
            bench.assert_settled();
            assert!(n == 1 || !bench.announcers.is_empty());
            for (k, rank) in bench.announcers.iter().enumerate() {
                assert_eq!((k + 1) % usize::from(n), usize::from(rank.0), "slot {} (I7)", k + 1);
            }
        }
    }

    #[test]
    fn what_is_lost_is_found_and_repaired() {
        let mut bench = Bench::new(3, 300_000);
        for round in 0..60 {
            bench.member(round % 3).send(vec![round as u8; 700]);
            bench.run(1);
        }
        bench.run(4000);
        bench.loss_ppm = 0;
        bench.run(400);
        bench.assert_settled();
        for mark in [marks::NACK_ORDER, marks::NACK_DATA, marks::RESENT_ORDER, marks::RESENT_DATA] {
            assert!(bench.marked(mark), "{mark}");
        }
    }

    #[test]
    fn the_loss_of_the_last_message_is_found_too() {
        let mut bench = Bench::new(3, 1_000_000);
        bench.member(0).send(b"alone".to_vec());
        bench.run(1);
        bench.loss_ppm = 0;
        bench.run(3 * HEARTBEAT);
        assert!(bench.marked(marks::SILENT_REPORT));
        bench.assert_settled();
    }

    #[test]
    fn nothing_is_said_while_there_is_nothing_to_say() {
        let mut bench = Bench::new(3, 0);
        bench.run(100);
        assert_eq!(bench.sent, 0);
        bench.member(1).send(b"something".to_vec());
        bench.run(3 * HEARTBEAT);
        let sent = bench.sent;
        assert_eq!(sent, 1, "the message and its order share a datagram");
        bench.run(1000);
        assert_eq!(bench.sent, sent);
        assert!(bench.members.iter().all(|(regular, _)| regular.deadline(None).is_none()));
    }

    #[test]
    fn an_operation_larger_than_a_datagram_is_never_cut() {
        let mut bench = Bench::new(3, 100_000);
        let operation: Vec<u8> = (0..200_000u32).map(|k| k as u8).collect();
        bench.member(1).send(operation.clone());
        bench.member(0).send(b"small".to_vec());
        let (mut found, mut here) = (Vec::new(), Vec::new());
        for _ in 0..4000 {
            bench.run(1);
            // Whoever is last to know a slot may release it in the same turn.
            for (member, _) in bench.members.iter().filter(|_| found.is_empty()) {
                let window = &member.window;
                for slot in window.released().0 + 1..=window.known().0 {
                    let cut = window.order(Slot(slot)).expect("it is known").cuts.of(Rank(1));
                    assert!(
                        cut == Mseq(0)
                            || cut.0 as usize == operation.len().div_ceil(bench.members[1].0.message_bytes())
                    );
                    let payload: Vec<u8> =
                        window.payloads(Slot(slot), Rank((slot % 3) as u8)).flatten().copied().collect();
                    let places = payload.windows(operation.len()).filter(|w| *w == operation).map(|_| slot);
                    here.extend(places);
                }
                if !here.is_empty() {
                    found.append(&mut here);
                    break;
                }
            }
        }
        assert_eq!(found.len(), 1, "whole, in one slot");
        bench.assert_settled();
    }

    #[test]
    fn a_tick_is_ordered_once_and_only_when_it_is_due() {
        let mut bench = Bench::new(3, 0);
        let due = GroupTime(1000);
        bench.turn(1, Some(GroupTime(u64::MAX)));
        assert_eq!(bench.announcers, [], "not due yet");
        bench.now = Time(1001);
        assert_eq!(bench.member(1).deadline(Some(due)), Some(Time(1001)));
        assert_eq!(bench.member(0).deadline(Some(due)), None, "slot 1 is not its");
        let awaited = |bench: &mut Bench, now| bench.member(0).awaited(Time(now), Some(due));
        assert_eq!(awaited(&mut bench, 1001), None, "the sequencer's clock may be slower than this one");
        assert_eq!(awaited(&mut bench, 1070), Some(Slot(1)), "but not that much");
        (0..3).for_each(|from| bench.turn(from, Some(due)));
        (0..3).for_each(|from| bench.turn(from, Some(due)));
        assert_eq!(bench.announcers, [Rank(1)], "one of them, from whose turn it is");
        let order = *bench.member(0).window.last_order();
        assert!(order.time >= due && order.cuts.iter().all(|cut| cut == Mseq(0)));
        assert!(bench.marked(marks::TICK));
    }

    #[test]
    fn the_window_closes_while_a_member_is_deaf_and_opens_again() {
        let mut bench = Bench::new(3, 1_000_000);
        let mut made = 0;
        while bench.member(0).flow.is_open() {
            bench.member(0).send(vec![7; 60_000]);
            made += 60_000;
        }
        assert!((WINDOW_BYTES..WINDOW_BYTES + 60_000).contains(&made));
        bench.run(100);
        assert!(!bench.member(0).flow.is_open() && bench.marked(marks::WINDOW_CLOSED));
        bench.loss_ppm = 0;
        bench.run(3000);
        assert!(bench.member(0).flow.is_open());
        bench.assert_settled();
    }

    #[test]
    fn a_report_that_no_member_can_make_is_refused() {
        let mut bench = Bench::new(3, 0);
        let status = |known, durable, committed| Status {
            known: Slot(known),
            durable: Slot(durable),
            committed: Slot(committed),
            ..Status::default()
        };
        let regular = bench.member(0);
        assert_eq!(regular.on_status(Rank(1), &status(1, 2, 0)), Err(Useless::Contradiction));
        assert_eq!(regular.on_status(Rank(1), &status(1, 0, 2)), Err(Useless::Contradiction));
        assert_eq!(regular.on_status(Rank(1), &status(SLOTS_MAX as u64 + 1, 0, 0)), Err(Useless::TooFar));
        assert_eq!(regular.commit.known_anywhere(), Slot(0));
        assert_eq!(regular.on_status(Rank(1), &status(2, 2, 2)), Ok(()));
        assert_eq!(regular.commit.committed(), Slot(2));
    }

    #[test]
    fn a_message_from_its_own_run_is_not_taken_from_others() {
        let mut bench = Bench::new(3, 0);
        let (mseq, continues, total, offset, bytes) = (Mseq(1), false, 1, 0, &b"x"[..]);
        let data = |origin| Frame::Data { origin: Rank(origin), mseq, continues, total, offset, bytes };
        assert_eq!(bench.member(0).on_data(&data(0)), Err(Useless::Duplicate));
        assert_eq!(bench.member(0).on_data(&data(3)), Err(Useless::NoSuchRank));
        assert_eq!(bench.member(0).on_data(&data(1)), Ok(()));
    }

    #[test]
    fn no_order_covers_what_this_member_has_not_sent() {
        let mut bench = Bench::new(3, 0);
        let mut cuts = crate::wire::datagram::Cuts::zero(3);
        cuts.set(Rank(0), Mseq(1));
        let order = Order { time: GroupTime(9), cuts };
        let regular = bench.member(0);
        assert_eq!(regular.on_order(Time(1), Slot(1), order), Err(Useless::Contradiction));
        assert_eq!(regular.clock.at(Time(1)), GroupTime(0), "nor does its time count");
        regular.send(b"x".to_vec());
        assert_eq!(regular.on_order(Time(1), Slot(1), order), Err(Useless::Contradiction), "made is not sent");
        regular.transmit();
        assert_eq!(regular.on_order(Time(1), Slot(1), order), Ok(()));
        assert_eq!(regular.clock.at(Time(1)), GroupTime(9));
        assert_eq!(regular.on_order(Time(1), Slot(1), order), Err(Useless::Duplicate));
    }
}
