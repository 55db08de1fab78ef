//! The window: which messages and orders of the view are held, and how far they reach without a gap.
//!
//! Messages are numbered by their origin, orders by their slot; both arrive in any order, in pieces, twice, or not at
//! all. `known` is the highest slot up to which every order and every payload is here: only that far may a member
//! log, and nothing is released before every member is known to hold it durably (DESIGN section 4, rules 3 to 5).

use std::collections::VecDeque;

use crate::limits::{MESSAGES_MAX, SLOTS_MAX, SLOT_BYTES_MAX};
use crate::types::{GroupTime, Mseq, Rank, Slot};
use crate::wire::datagram::Cuts;

/// Slot k: up to which message of each origin is ordered, and the group time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Order {
    pub time: GroupTime,
    pub cuts: Cuts,
}

/// A message that has arrived in full.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    pub bytes: Vec<u8>,
    /// Its last operation goes on in the next message.
    pub continues: bool,
}

/// A message that has arrived in part.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Pieces {
    continues: bool,
    bytes: Vec<u8>,
    /// The ranges that are here: sorted, disjoint, not touching.
    here: Vec<(usize, usize)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Place {
    Missing,
    Part(Pieces),
    Held(Message),
}

/// Why a DATA or ORDER frame was of no use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Useless {
    /// It is held, or released, already.
    Duplicate,
    /// It is further ahead than any bound allows.
    TooFar,
    /// It contradicts what is held.
    Contradiction,
    /// It names a rank that the view does not have.
    NoSuchRank,
}

/// The messages of one origin.
#[derive(Debug, Default)]
struct Origin {
    /// All up to here are released.
    released: Mseq,
    /// Those from `released` + 1 on.
    places: VecDeque<Place>,
    /// Highest message without a gap before it.
    held: Mseq,
    /// Highest message up to `held` at which an operation ends.
    whole: Mseq,
    /// Bytes of `places`.
    bytes: usize,
}

impl Origin {
    fn place(&self, mseq: Mseq) -> Option<&Place> {
        self.places.get(mseq.0.checked_sub(self.released.0 + 1)? as usize)
    }

    fn message(&self, mseq: Mseq) -> Option<&Message> {
        match self.place(mseq)? {
            Place::Held(message) => Some(message),
            _ => None,
        }
    }

    fn advance(&mut self) {
        while let Some(message) = self.message(self.held.next()) {
            let continues = message.continues;
            self.held = self.held.next();
            if !continues || crate::broken::is("cut-inside-operation") {
                self.whole = self.held;
            }
        }
    }
}

/// A range of messages of one origin that is not here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gap {
    pub first: Mseq,
    pub last: Mseq,
    /// Bytes of `first` that are here from its beginning on.
    pub offset: u32,
}

/// All that is held of one view.
#[derive(Debug)]
pub struct Window {
    origins: Vec<Origin>,
    /// All slots up to here are released.
    released: Slot,
    /// The order of `released`: where the next slot's messages begin.
    released_order: Order,
    /// The orders from `released` + 1 on.
    orders: VecDeque<Option<Order>>,
    /// Highest slot up to which every order is here.
    announced: Slot,
    known: Slot,
    bytes: usize,
}

impl Window {
    /// The window of a view of `members` that starts behind `base`.
    pub fn new(members: usize, base: Slot, base_time: GroupTime) -> Window {
        Window {
            origins: (0..members).map(|_| Origin::default()).collect(),
            released: base,
            released_order: Order { time: base_time, cuts: Cuts::zero(members) },
            orders: VecDeque::new(),
            announced: base,
            known: base,
            bytes: 0,
        }
    }

    pub fn members(&self) -> usize {
        self.origins.len()
    }

    /// Highest slot up to which every order is here.
    pub fn announced(&self) -> Slot {
        self.announced
    }

    /// Highest slot up to which every order and payload is here. Never falls within a view.
    pub fn known(&self) -> Slot {
        self.known
    }

    pub fn released(&self) -> Slot {
        self.released
    }

    /// Bytes of messages held, whole or in part.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Highest message of this origin without a gap before it.
    pub fn held(&self, origin: Rank) -> Mseq {
        self.origins[usize::from(origin.0)].held
    }

    /// Highest message of this origin that ends an operation, without a gap before it.
    pub fn whole(&self, origin: Rank) -> Mseq {
        self.origins[usize::from(origin.0)].whole
    }

    /// The order of a slot from `released` on.
    pub fn order(&self, slot: Slot) -> Option<&Order> {
        if slot == self.released {
            return Some(&self.released_order);
        }
        self.orders.get(slot.0.checked_sub(self.released.0 + 1)? as usize)?.as_ref()
    }

    /// The order of the highest slot without a gap before it.
    pub fn last_order(&self) -> &Order {
        self.order(self.announced).expect("orders up to `announced` are held")
    }

    pub fn message(&self, origin: Rank, mseq: Mseq) -> Option<&Message> {
        self.origins.get(usize::from(origin.0))?.message(mseq)
    }

    /// Takes a message of this replica's own.
    pub fn push_own(&mut self, me: Rank, message: Message) -> Mseq {
        let origin = &mut self.origins[usize::from(me.0)];
        self.bytes += message.bytes.len();
        origin.bytes += message.bytes.len();
        origin.places.push_back(Place::Held(message));
        origin.advance();
        origin.held
    }

    /// Takes a piece of a message.
    pub fn on_data(
        &mut self,
        rank: Rank,
        mseq: Mseq,
        continues: bool,
        total: usize,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), Useless> {
        let origin = self.origins.get_mut(usize::from(rank.0)).ok_or(Useless::NoSuchRank)?;
        if mseq <= origin.released {
            return Err(Useless::Duplicate);
        }
        let index = (mseq.0 - origin.released.0 - 1) as usize;
        if index >= MESSAGES_MAX || origin.bytes + total > crate::limits::ORIGIN_BYTES_MAX {
            return Err(Useless::TooFar);
        }
        if origin.places.len() <= index {
            origin.places.resize(index + 1, Place::Missing);
        }
        let place = &mut origin.places[index];
        let before = place_bytes(place);
        match place {
            Place::Held(_) => return Err(Useless::Duplicate),
            Place::Missing if bytes.len() == total => {
                *place = Place::Held(Message { bytes: bytes.to_vec(), continues });
            }
            Place::Missing => {
                let mut pieces = Pieces { continues, bytes: vec![0; total], here: Vec::new() };
                pieces.take(offset, bytes);
                *place = Place::Part(pieces);
            }
            Place::Part(pieces) if pieces.bytes.len() != total || pieces.continues != continues => {
                return Err(Useless::Contradiction);
            }
            Place::Part(pieces) => {
                pieces.take(offset, bytes);
                if pieces.here == [(0, total)] {
                    *place = Place::Held(Message { bytes: std::mem::take(&mut pieces.bytes), continues });
                }
            }
        }
        let after = place_bytes(place);
        origin.bytes = origin.bytes + after - before;
        self.bytes = self.bytes + after - before;
        origin.advance();
        self.advance_known();
        Ok(())
    }

    /// Takes the order of a slot.
    pub fn on_order(&mut self, slot: Slot, order: Order) -> Result<(), Useless> {
        if order.cuts.len() != self.origins.len() {
            return Err(Useless::NoSuchRank);
        }
        if slot <= self.released {
            return Err(Useless::Duplicate);
        }
        let index = (slot.0 - self.released.0 - 1) as usize;
        if index >= SLOTS_MAX {
            return Err(Useless::TooFar);
        }
        if self.orders.len() <= index {
            self.orders.resize(index + 1, None);
        }
        match &mut self.orders[index] {
            Some(held) if *held == order => return Err(Useless::Duplicate),
            Some(_) => return Err(Useless::Contradiction),
            place => *place = Some(order),
        }
        let fell = self.advance_announced();
        self.advance_known();
        if fell == Some(slot) {
            return Err(Useless::Contradiction);
        }
        Ok(())
    }

    /// Goes on over the orders without a gap. One whose cuts fall below those before it can't be true: it is dropped,
    /// so that its slot is a gap again, and named.
    fn advance_announced(&mut self) -> Option<Slot> {
        loop {
            let (next, last) = (self.announced.next(), self.last_order().cuts);
            let order = self.order(next)?;
            if order.cuts.iter().zip(last.iter()).any(|(cut, before)| cut < before) {
                self.orders[(next.0 - self.released.0 - 1) as usize] = None;
                return Some(next);
            }
            self.announced = next;
        }
    }

    fn advance_known(&mut self) {
        while self.known < self.announced {
            let order = self.order(self.known.next()).expect("orders up to `announced` are held");
            if order.cuts.iter().zip(&self.origins).any(|(cut, origin)| cut > origin.held) {
                return;
            }
            self.known = self.known.next();
        }
    }

    /// The cut that a sequencer would announce next: every origin's whole operations that are here, own ones only up
    /// to `own_sent`, at most [`SLOT_BYTES_MAX`] bytes more than the last one covers but at least one operation.
    /// `None` where there is nothing to cover.
    pub fn next_cuts(&self, me: Rank, own_sent: Mseq) -> Option<Cuts> {
        let last = self.last_order().cuts;
        let (mut cuts, mut budget) = (last, SLOT_BYTES_MAX);
        let n = self.origins.len();
        for k in 0..n {
            let rank = Rank(((usize::from(me.0) + k) % n) as u8);
            let (from, mut to) = (last.of(rank), self.whole(rank));
            if rank == me {
                to = to.min(self.whole_up_to(rank, own_sent));
            }
            let cut = self.cut_within(rank, from, to, &mut budget, cuts == last);
            cuts.set(rank, cut);
        }
        (cuts != last).then_some(cuts)
    }

    /// The highest end of an operation in (`from`, `to`] that `budget` bytes reach, which it is lowered by; with
    /// `first` the first operation is covered whatever its size.
    fn cut_within(&self, rank: Rank, from: Mseq, to: Mseq, budget: &mut usize, first: bool) -> Mseq {
        let (mut cut, mut spent, mut mseq) = (from, 0, from);
        while mseq < to {
            mseq = mseq.next();
            let message = self.message(rank, mseq).expect("held up to its whole end");
            spent += message.bytes.len();
            if spent > *budget && !(first && cut == from) {
                break;
            }
            if !message.continues || crate::broken::is("cut-inside-operation") {
                cut = mseq;
                *budget = budget.saturating_sub(spent);
                spent = 0;
            }
        }
        cut
    }

    /// The highest end of an operation at or below `limit`.
    fn whole_up_to(&self, rank: Rank, limit: Mseq) -> Mseq {
        let floor = self.last_order().cuts.of(rank);
        let mut mseq = limit.min(self.whole(rank));
        while mseq > floor && self.message(rank, mseq).is_some_and(|m| m.continues) {
            mseq = Mseq(mseq.0 - 1);
        }
        mseq.max(floor)
    }

    /// The payloads of a known slot in delivery order: by origin, the sequencer's own first, then by number (rule 3).
    pub fn payloads(&self, slot: Slot, sequencer: Rank) -> impl Iterator<Item = &[u8]> {
        let before = self.order(Slot(slot.0 - 1)).expect("a known slot's predecessor is held").cuts;
        let order = self.order(slot).expect("a known slot's order is held").cuts;
        let (n, backwards) = (self.origins.len(), crate::broken::is("fifo-ignored"));
        (0..n).flat_map(move |k| {
            let rank = Rank(((usize::from(sequencer.0) + k) % n) as u8);
            let (first, last) = (before.of(rank).0 + 1, order.of(rank).0);
            (first..=last).map(move |m| {
                let mseq = Mseq(if backwards { first + last - m } else { m });
                &*self.message(rank, mseq).expect("a known slot's payload is held").bytes
            })
        })
    }

    /// Forgets everything up to a known slot, because every member holds it durably.
    pub fn release(&mut self, slot: Slot) {
        let slot = slot.min(self.known);
        while self.released < slot {
            let order = self.orders.pop_front().flatten().expect("orders up to `known` are held");
            for (origin, cut) in self.origins.iter_mut().zip(order.cuts.iter()) {
                while origin.released < cut {
                    let place = origin.places.pop_front().expect("payloads up to `known` are held");
                    origin.bytes -= place_bytes(&place);
                    self.bytes -= place_bytes(&place);
                    origin.released = origin.released.next();
                }
            }
            self.released_order = order;
            self.released = self.released.next();
        }
    }

    /// Slots up to `heard` whose order is not here, as ranges, at most `most` of them.
    pub fn missing_orders(&self, heard: Slot, most: usize) -> Vec<(Slot, Slot)> {
        let mut gaps: Vec<(Slot, Slot)> = Vec::new();
        let heard = heard.min(Slot(self.released.0 + SLOTS_MAX as u64));
        let mut slot = self.announced;
        while slot < heard {
            slot = slot.next();
            if self.order(slot).is_some() {
                continue;
            }
            let full = gaps.len() == most;
            match gaps.last_mut() {
                Some(gap) if gap.1.next() == slot => gap.1 = slot,
                _ if full => break,
                _ => gaps.push((slot, slot)),
            }
            // Beyond the last order held there is one gap up to what was heard of.
            if slot.0 - self.released.0 >= self.orders.len() as u64 {
                gaps.last_mut().expect("just pushed").1 = heard;
                break;
            }
        }
        gaps
    }

    /// Messages of an origin up to `wanted` that are not here in full, as ranges, at most `most` of them.
    pub fn missing_data(&self, rank: Rank, wanted: Mseq, most: usize) -> Vec<Gap> {
        let origin = &self.origins[usize::from(rank.0)];
        let mut gaps: Vec<Gap> = Vec::new();
        let wanted = wanted.min(Mseq(origin.released.0 + MESSAGES_MAX as u64));
        let mut mseq = origin.held;
        while mseq < wanted {
            mseq = mseq.next();
            let offset = match origin.place(mseq) {
                Some(Place::Held(_)) => continue,
                Some(Place::Part(pieces)) => pieces.prefix(),
                Some(Place::Missing) | None => 0,
            };
            let full = gaps.len() == most;
            match gaps.last_mut() {
                Some(gap) if gap.last.next() == mseq && offset == 0 => gap.last = mseq,
                _ if full => break,
                _ => gaps.push(Gap { first: mseq, last: mseq, offset }),
            }
            if mseq.0 - origin.released.0 >= origin.places.len() as u64 {
                gaps.last_mut().expect("just pushed").last = wanted;
                break;
            }
        }
        gaps
    }

    /// Bytes of a message that are here from its beginning on, where it is not here in full.
    pub fn prefix(&self, rank: Rank, mseq: Mseq) -> u32 {
        match self.origins[usize::from(rank.0)].place(mseq) {
            Some(Place::Part(pieces)) => pieces.prefix(),
            _ => 0,
        }
    }

    /// Highest message of an origin that any held order covers or of which any byte has come.
    pub fn heard_of(&self, rank: Rank) -> Mseq {
        let origin = &self.origins[usize::from(rank.0)];
        let arrived = Mseq(origin.released.0 + origin.places.len() as u64);
        let ordered = self.orders.iter().rev().find_map(Option::as_ref).map_or(Mseq(0), |o| o.cuts.of(rank));
        arrived.max(ordered)
    }

    /// Highest slot of which an order is here.
    pub fn heard_slot(&self) -> Slot {
        Slot(self.released.0 + self.orders.len() as u64)
    }

    /// The slot that orders a message, if an order held does.
    pub fn ordered_at(&self, rank: Rank, mseq: Mseq) -> Option<Slot> {
        let index = self.orders.iter().position(|o| o.as_ref().is_some_and(|o| o.cuts.of(rank) >= mseq))?;
        Some(Slot(self.released.0 + 1 + index as u64))
    }
}

fn place_bytes(place: &Place) -> usize {
    match place {
        Place::Missing => 0,
        Place::Part(pieces) => pieces.bytes.len(),
        Place::Held(message) => message.bytes.len(),
    }
}

impl Pieces {
    fn take(&mut self, offset: usize, bytes: &[u8]) {
        let (start, end) = (offset, offset + bytes.len());
        self.bytes[start..end].copy_from_slice(bytes);
        let (mut low, mut high) = (start, end);
        self.here.retain(|&(a, b)| {
            let apart = b < start || a > end;
            if !apart {
                (low, high) = (low.min(a), high.max(b));
            }
            apart
        });
        let at = self.here.partition_point(|&(a, _)| a < low);
        self.here.insert(at, (low, high));
    }

    /// Bytes that are here from the beginning on.
    fn prefix(&self) -> u32 {
        self.here.first().filter(|r| r.0 == 0).map_or(0, |r| r.1 as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{ORIGIN_BYTES_MAX, WINDOW_BYTES};
    use crate::rng::Rng;
    use quickcheck::quickcheck;
    use std::collections::BTreeMap;

    fn cuts(list: &[u64]) -> Cuts {
        let mut cuts = Cuts::zero(list.len());
        list.iter().enumerate().for_each(|(k, &m)| cuts.set(Rank(k as u8), Mseq(m)));
        cuts
    }

    fn order(time: u64, list: &[u64]) -> Order {
        Order { time: GroupTime(time), cuts: cuts(list) }
    }

    fn whole(window: &mut Window, rank: u8, mseq: u64, continues: bool, bytes: &[u8]) -> Result<(), Useless> {
        window.on_data(Rank(rank), Mseq(mseq), continues, bytes.len(), 0, bytes)
    }

    /// What happens in a view: every message of every origin, and the orders that cover them all.
    struct Story {
        messages: Vec<Vec<Message>>,
        orders: Vec<Order>,
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Data { rank: usize, index: usize, offset: usize, length: usize },
        Order(usize),
        Release(u64),
    }

    impl Story {
        fn new(rng: &mut Rng) -> Story {
            let message = |rng: &mut Rng| {
                let bytes = (0..rng.between(1, 12)).map(|_| rng.next_u64() as u8).collect();
                Message { bytes, continues: rng.chance(400_000) }
            };
            let mut messages: Vec<Vec<Message>> = Vec::new();
            for _ in 0..rng.between(1, 4) {
                let mut of_one: Vec<Message> = (0..rng.below(7)).map(|_| message(rng)).collect();
                if let Some(last) = of_one.last_mut() {
                    last.continues = false;
                }
                messages.push(of_one);
            }
            let (mut orders, mut at) = (Vec::new(), vec![0u64; messages.len()]);
            let all: Vec<u64> = messages.iter().map(|m| m.len() as u64).collect();
            while at != all || orders.is_empty() {
                for (at, messages) in at.iter_mut().zip(&messages) {
                    let mut to = rng.between(*at, messages.len() as u64);
                    while to > *at && messages[to as usize - 1].continues {
                        to -= 1;
                    }
                    *at = to;
                }
                orders.push(order(orders.len() as u64, &at));
            }
            Story { messages, orders }
        }

        /// Every byte and every order at least once, many twice, in any order; releases in between.
        fn steps(&self, rng: &mut Rng) -> Vec<Step> {
            let mut steps: Vec<Step> = (0..self.orders.len()).map(Step::Order).collect();
            for (rank, messages) in self.messages.iter().enumerate() {
                for (index, message) in messages.iter().enumerate() {
                    let (mut offset, total) = (0, message.bytes.len());
                    while offset < total {
                        let length = rng.between(1, (total - offset) as u64) as usize;
                        steps.push(Step::Data { rank, index, offset, length });
                        offset += length;
                    }
                    if rng.chance(500_000) {
                        let offset = rng.below(total as u64) as usize;
                        let length = rng.between(1, (total - offset) as u64) as usize;
                        steps.push(Step::Data { rank, index, offset, length });
                    }
                }
            }
            let twice: Vec<Step> = steps.iter().copied().filter(|_| rng.chance(200_000)).collect();
            steps.extend(twice);
            steps.extend((0..3).map(|_| Step::Release(rng.below(self.orders.len() as u64 + 2))));
            for k in (1..steps.len()).rev() {
                steps.swap(k, rng.below(k as u64 + 1) as usize);
            }
            steps
        }
    }

    /// The same as the window, naively: which bytes and orders have come.
    struct Model<'a> {
        story: &'a Story,
        here: BTreeMap<(usize, usize), Vec<bool>>,
        orders: BTreeMap<u64, Order>,
        released: u64,
    }

    impl Model<'_> {
        fn n(&self) -> usize {
            self.story.messages.len()
        }

        fn cut(&self, slot: u64, rank: usize) -> u64 {
            slot.checked_sub(1).map_or(0, |k| self.story.orders[k as usize].cuts.of(Rank(rank as u8)).0)
        }

        fn is_here(&self, rank: usize, mseq: u64) -> bool {
            self.here.get(&(rank, mseq as usize - 1)).is_some_and(|h| h.iter().all(|&b| b))
        }

        fn held(&self, rank: usize) -> u64 {
            (1..).take_while(|&m| self.is_here(rank, m)).last().unwrap_or(0)
        }

        fn is_end(&self, rank: usize, mseq: u64) -> bool {
            mseq == 0 || !self.story.messages[rank][mseq as usize - 1].continues
        }

        fn whole(&self, rank: usize, limit: u64) -> u64 {
            (0..=self.held(rank).min(limit)).rev().find(|&m| self.is_end(rank, m)).expect("0 is an end")
        }

        fn announced(&self) -> u64 {
            (1..).take_while(|slot| self.orders.contains_key(slot)).last().unwrap_or(0)
        }

        fn known(&self) -> u64 {
            let covered = |&slot: &u64| (0..self.n()).all(|rank| self.cut(slot, rank) <= self.held(rank));
            (1..=self.announced()).take_while(covered).last().unwrap_or(0)
        }

        fn bytes(&self) -> usize {
            let kept = self.here.iter().filter(|((rank, index), _)| *index as u64 >= self.cut(self.released, *rank));
            kept.map(|(_, here)| here.len()).sum()
        }

        fn missing_orders(&self, heard: u64, most: usize) -> Vec<(Slot, Slot)> {
            let mut gaps: Vec<(Slot, Slot)> = Vec::new();
            for slot in (self.announced() + 1..=heard).filter(|slot| !self.orders.contains_key(slot)) {
                match gaps.last_mut() {
                    Some(gap) if gap.1 .0 + 1 == slot => gap.1 = Slot(slot),
                    _ => gaps.push((Slot(slot), Slot(slot))),
                }
            }
            gaps.truncate(most);
            gaps
        }

        fn missing_data(&self, rank: usize, wanted: u64, most: usize) -> Vec<Gap> {
            let mut gaps: Vec<Gap> = Vec::new();
            for mseq in (1..=wanted).filter(|&m| !self.is_here(rank, m)) {
                let here = self.here.get(&(rank, mseq as usize - 1));
                let offset = here.map_or(0, |h| h.iter().take_while(|&&b| b).count()) as u32;
                match gaps.last_mut() {
                    Some(gap) if gap.last.0 + 1 == mseq && offset == 0 => gap.last = Mseq(mseq),
                    _ => gaps.push(Gap { first: Mseq(mseq), last: Mseq(mseq), offset }),
                }
            }
            gaps.truncate(most);
            gaps
        }

        fn next_cuts(&self, me: usize, own_sent: u64) -> Option<Cuts> {
            let last = self.announced();
            let limit = |rank| if rank == me { own_sent } else { u64::MAX };
            let next: Vec<u64> =
                (0..self.n()).map(|rank| self.whole(rank, limit(rank)).max(self.cut(last, rank))).collect();
            (0..self.n()).any(|rank| next[rank] > self.cut(last, rank)).then(|| cuts(&next))
        }

        fn payloads(&self, slot: u64, sequencer: usize) -> Vec<&[u8]> {
            let ranks = (0..self.n()).map(|k| (sequencer + k) % self.n());
            let of_one = |rank| (self.cut(slot - 1, rank)..self.cut(slot, rank)).map(move |index| (rank, index));
            ranks.flat_map(of_one).map(|(rank, index)| &*self.story.messages[rank][index as usize].bytes).collect()
        }

        fn heard_of(&self, rank: usize) -> u64 {
            let arrived = self.here.keys().filter(|k| k.0 == rank).map(|k| k.1 as u64 + 1).max().unwrap_or(0);
            arrived.max(self.orders.keys().last().map_or(0, |&slot| self.cut(slot, rank)))
        }
    }

    /// Takes a step in both, and compares what they say of its use.
    fn take(step: Step, window: &mut Window, model: &mut Model<'_>) {
        match step {
            Step::Data { rank, index, offset, length } => {
                let message = &model.story.messages[rank][index];
                let (total, mseq) = (message.bytes.len(), index as u64 + 1);
                let useless = mseq <= model.cut(model.released, rank) || model.is_here(rank, mseq);
                let piece = &message.bytes[offset..offset + length];
                let taken = window.on_data(Rank(rank as u8), Mseq(mseq), message.continues, total, offset, piece);
                assert_eq!(taken, if useless { Err(Useless::Duplicate) } else { Ok(()) }, "{step:?}");
                let here = model.here.entry((rank, index)).or_insert_with(|| vec![false; total]);
                here[offset..offset + length].fill(true);
            }
            Step::Order(k) => {
                let (slot, order) = (k as u64 + 1, model.story.orders[k]);
                let useless = slot <= model.released || model.orders.contains_key(&slot);
                let taken = window.on_order(Slot(slot), order);
                assert_eq!(taken, if useless { Err(Useless::Duplicate) } else { Ok(()) }, "{step:?}");
                model.orders.insert(slot, order);
            }
            Step::Release(slot) => {
                window.release(Slot(slot));
                model.released = model.released.max(slot.min(model.known()));
            }
        }
    }

    fn compare(window: &Window, model: &Model<'_>, rng: &mut Rng) {
        let (announced, known, n) = (model.announced(), model.known(), model.n());
        assert_eq!((window.announced(), window.known()), (Slot(announced), Slot(known)));
        assert_eq!((window.released(), window.bytes()), (Slot(model.released), model.bytes()));
        assert_eq!(window.heard_slot(), Slot(model.orders.keys().last().map_or(0, |&s| s).max(model.released)));
        let (heard, most) = (announced + rng.below(9), rng.between(1, 4) as usize);
        assert_eq!(window.missing_orders(Slot(heard), most), model.missing_orders(heard, most));
        for rank in 0..n {
            let (origin, wanted) = (Rank(rank as u8), rng.below(12));
            assert_eq!(window.held(origin), Mseq(model.held(rank)));
            assert_eq!(window.whole(origin), Mseq(model.whole(rank, u64::MAX)));
            assert_eq!(window.heard_of(origin), Mseq(model.heard_of(rank)));
            assert_eq!(window.missing_data(origin, Mseq(wanted), most), model.missing_data(rank, wanted, most));
            // It never ends inside an operation, and an origin's own part is sent already.
            let own_sent = rng.below(9);
            let next = window.next_cuts(origin, Mseq(own_sent));
            assert_eq!(next, model.next_cuts(rank, own_sent));
            let inside = |cuts: Cuts| (0..n).any(|r| !model.is_end(r, cuts.of(Rank(r as u8)).0));
            assert!(!next.is_some_and(inside));
            for slot in model.released + 1..=known {
                let payloads: Vec<&[u8]> = window.payloads(Slot(slot), origin).collect();
                assert_eq!(payloads, model.payloads(slot, rank));
            }
        }
    }

    quickcheck! {
        fn it_says_what_a_naive_model_says(seed: u64) -> bool {
            let mut rng = Rng::new(seed);
            let story = Story::new(&mut rng);
            let mut window = Window::new(story.messages.len(), Slot(0), GroupTime(0));
            let mut model = Model { story: &story, here: BTreeMap::new(), orders: BTreeMap::new(), released: 0 };
            for step in story.steps(&mut rng) {
                take(step, &mut window, &mut model);
                compare(&window, &model, &mut rng);
            }
            let last = Slot(story.orders.len() as u64);
            assert_eq!(window.known(), last, "everything has come");
            window.release(last);
            window.bytes() == 0 && window.origins.iter().all(|o| o.bytes == 0 && o.places.is_empty())
        }
    }

    #[test]
    fn useless_frames_are_told_apart() {
        let mut window = Window::new(2, Slot(0), GroupTime(0));
        assert_eq!(whole(&mut window, 2, 1, false, b"x"), Err(Useless::NoSuchRank));
        assert_eq!(window.on_order(Slot(1), order(1, &[1, 0, 0])), Err(Useless::NoSuchRank));
        assert_eq!(whole(&mut window, 0, MESSAGES_MAX as u64 + 1, false, b"x"), Err(Useless::TooFar));
        assert_eq!(whole(&mut window, 0, u64::MAX, false, b"x"), Err(Useless::TooFar));
        assert_eq!(window.on_order(Slot(SLOTS_MAX as u64 + 1), order(1, &[0, 0])), Err(Useless::TooFar));
        assert_eq!(window.on_order(Slot(u64::MAX), order(1, &[0, 0])), Err(Useless::TooFar));
        assert_eq!((window.heard_of(Rank(0)), window.heard_slot()), (Mseq(0), Slot(0)), "no room was made for them");

        assert_eq!(window.on_data(Rank(0), Mseq(1), false, 4, 0, b"ab"), Ok(()));
        assert_eq!(window.on_data(Rank(0), Mseq(1), false, 5, 2, b"cde"), Err(Useless::Contradiction));
        assert_eq!(window.on_data(Rank(0), Mseq(1), true, 4, 2, b"cd"), Err(Useless::Contradiction));
        assert_eq!(window.on_order(Slot(1), order(1, &[1, 0])), Ok(()));
        assert_eq!(window.on_order(Slot(1), order(1, &[1, 0])), Err(Useless::Duplicate));
        assert_eq!(window.on_order(Slot(1), order(2, &[1, 0])), Err(Useless::Contradiction));
        assert_eq!(window.known(), Slot(0));
        assert_eq!(window.on_data(Rank(0), Mseq(1), false, 4, 2, b"cd"), Ok(()));
        assert_eq!(window.known(), Slot(1));
        assert_eq!(whole(&mut window, 0, 1, false, b"abcd"), Err(Useless::Duplicate));
        window.release(Slot(1));
        assert_eq!(whole(&mut window, 0, 1, false, b"abcd"), Err(Useless::Duplicate));
        assert_eq!(window.on_order(Slot(1), order(9, &[1, 0])), Err(Useless::Duplicate));
    }

    #[test]
    fn cuts_never_fall() {
        let mut window = Window::new(2, Slot(0), GroupTime(0));
        assert_eq!(window.on_order(Slot(1), order(1, &[2, 0])), Ok(()));
        assert_eq!(window.on_order(Slot(2), order(2, &[1, 9])), Err(Useless::Contradiction));
        // Ahead of a gap nothing can be said yet; once the gap is filled it is dropped, and is a gap again.
        assert_eq!(window.on_order(Slot(3), order(3, &[2, 0])), Ok(()));
        assert_eq!(window.on_order(Slot(2), order(2, &[2, 1])), Ok(()));
        assert_eq!(window.announced(), Slot(2));
        assert_eq!(window.missing_orders(window.heard_slot(), 9), [(Slot(3), Slot(3))]);
        assert_eq!(window.on_order(Slot(3), order(3, &[2, 1])), Ok(()));
        assert_eq!(window.announced(), Slot(3));
    }

    #[test]
    fn an_origin_takes_no_more_room_than_its_bound() {
        let mut window = Window::new(2, Slot(0), GroupTime(0));
        let (mut mseq, most) = (0, WINDOW_BYTES / 2);
        // One byte of each is enough to claim the room for all of it.
        let mut claim = |window: &mut Window, rank| {
            mseq += 1;
            window.on_data(Rank(rank), Mseq(mseq), false, most, 0, b"x")
        };
        for _ in 0..ORIGIN_BYTES_MAX / most {
            assert_eq!(claim(&mut window, 0), Ok(()));
        }
        assert_eq!(claim(&mut window, 0), Err(Useless::TooFar));
        assert_eq!(claim(&mut window, 1), Ok(()), "another origin has room of its own");
        assert!(window.bytes() <= ORIGIN_BYTES_MAX + most);
    }

    #[test]
    fn a_cut_stays_within_a_slot_but_covers_one_operation() {
        let mut window = Window::new(2, Slot(0), GroupTime(0));
        let half = vec![0; SLOT_BYTES_MAX / 2];
        for mseq in 1..=3 {
            assert_eq!(whole(&mut window, 1, mseq, false, &half), Ok(()));
        }
        assert_eq!(whole(&mut window, 0, 1, false, b"x"), Ok(()));
        // The asker's own come first and leave less for the others.
        assert_eq!(window.next_cuts(Rank(1), Mseq(3)), Some(cuts(&[0, 2])));
        assert_eq!(window.next_cuts(Rank(0), Mseq(1)), Some(cuts(&[1, 1])));
        let mut window = Window::new(1, Slot(0), GroupTime(0));
        assert_eq!(whole(&mut window, 0, 1, true, &vec![0; SLOT_BYTES_MAX]), Ok(()));
        assert_eq!(window.next_cuts(Rank(0), Mseq(1)), None, "the operation goes on");
        assert_eq!(whole(&mut window, 0, 2, false, b"end"), Ok(()));
        assert_eq!(whole(&mut window, 0, 3, false, b"next"), Ok(()));
        assert_eq!(window.next_cuts(Rank(0), Mseq(3)), Some(cuts(&[2])), "one operation whatever its size");
        assert_eq!(window.next_cuts(Rank(0), Mseq(1)), None, "its end is not sent yet");
    }

    #[test]
    fn own_messages_are_numbered_and_counted() {
        let mut window = Window::new(2, Slot(7), GroupTime(0));
        let message = |continues| Message { bytes: b"abc".to_vec(), continues };
        assert_eq!(window.push_own(Rank(1), message(true)), Mseq(1));
        assert_eq!((window.held(Rank(1)), window.whole(Rank(1))), (Mseq(1), Mseq(0)));
        assert_eq!(window.push_own(Rank(1), message(false)), Mseq(2));
        assert_eq!((window.held(Rank(1)), window.whole(Rank(1))), (Mseq(2), Mseq(2)));
        assert_eq!(window.bytes(), 6);
        assert_eq!(window.ordered_at(Rank(1), Mseq(2)), None);
        assert_eq!(window.on_order(Slot(8), order(1, &[0, 2])), Ok(()));
        assert_eq!(window.ordered_at(Rank(1), Mseq(2)), Some(Slot(8)));
        assert_eq!((window.known(), window.announced()), (Slot(8), Slot(8)));
        window.release(Slot(99));
        assert_eq!((window.released(), window.bytes()), (Slot(8), 0), "no further than what is known");
        assert_eq!(window.order(Slot(8)), Some(&order(1, &[0, 2])), "the next slot begins there");
        assert_eq!(window.order(Slot(7)), None);
    }
}
