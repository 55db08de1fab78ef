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

impl Order {
    /// Whether no cut of a later order runs back behind this one's.
    fn goes_on_to(&self, later: &Order) -> bool {
        self.cuts.iter().zip(later.cuts.iter()).all(|(old, new)| old <= new)
    }
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
            if !continues || crate::group::broken::is("cut-inside-operation") {
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
        match &self.orders[index] {
            Some(held) if *held == order => return Err(Useless::Duplicate),
            Some(_) => return Err(Useless::Contradiction),
            None => {}
        }
        let (before, after) = (self.order(Slot(slot.0 - 1)), self.order(slot.next()));
        if before.is_some_and(|b| !b.goes_on_to(&order)) || after.is_some_and(|a| !order.goes_on_to(a)) {
            return Err(Useless::Contradiction);
        }
        self.orders[index] = Some(order);
        while self.orders.get((self.announced.0 - self.released.0) as usize).is_some_and(Option::is_some) {
            self.announced = self.announced.next();
        }
        self.advance_known();
        Ok(())
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
            if !message.continues || crate::group::broken::is("cut-inside-operation") {
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
        let (n, backwards) = (self.origins.len(), crate::group::broken::is("fifo-ignored"));
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
