//! The items of a queue and the state each is in: ready, leased, delayed or buried. All changes of state are here, and
//! each of them is an item that goes from one map to another.
//!
//! An item keeps its place (`wire::queue::Place`) whatever becomes of it, so what comes back is ready where it was.

use super::item::Item;
use super::ready::Ready;
use crate::broken;
use crate::types::GroupTime;
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};
use crate::wire::queue::{Place, Receipt};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of memory a lease takes beside its item: two more entries in indices.
const LEASE_BYTES: u64 = 96;
/// The same for a delay.
const DELAY_BYTES: u64 = 56;

#[derive(Debug)]
struct Lease {
    place: Place,
    ends: GroupTime,
    item: Item,
}

#[derive(Debug)]
struct Delayed {
    until: GroupTime,
    item: Item,
}

#[derive(Default, Debug)]
pub struct Contents {
    pub ready: Ready,
    leased: BTreeMap<Receipt, Lease>,
    lease_ends: BTreeSet<(GroupTime, Receipt)>,
    delayed: BTreeMap<Place, Delayed>,
    delay_ends: BTreeSet<(GroupTime, Place)>,
    buried: BTreeMap<Place, Item>,
    /// Of the items that are not ready, and the memory they take.
    bytes: u64,
    memory: u64,
}

impl Contents {
    /// Items in whatever state.
    pub fn count(&self) -> u64 {
        self.ready.len() + (self.leased.len() + self.delayed.len() + self.buried.len()) as u64
    }

    /// Bytes of the items in whatever state.
    pub fn bytes(&self) -> u64 {
        self.ready.bytes() + self.bytes
    }

    pub fn memory_bytes(&self) -> u64 {
        self.ready.memory_bytes() + self.memory
    }

    pub fn leased(&self) -> u64 {
        self.leased.len() as u64
    }

    pub fn delayed(&self) -> u64 {
        self.delayed.len() as u64
    }

    pub fn buried(&self) -> u64 {
        self.buried.len() as u64
    }

    /// Buried items from the first place on, or behind `after`.
    pub fn graves(&self, after: Option<Place>) -> impl Iterator<Item = (Place, &Item)> {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.buried.range((from, std::ops::Bound::Unbounded)).map(|(&place, item)| (place, item))
    }

    fn enter(&mut self, item: &Item, extra: u64) {
        self.bytes += item.size();
        self.memory += item.memory_bytes() + extra;
    }

    fn leave(&mut self, item: &Item, extra: u64) {
        self.bytes -= item.size();
        self.memory -= item.memory_bytes() + extra;
    }

    /// Takes an item in that is not ready before `until`.
    pub fn delay(&mut self, place: Place, item: Item, until: GroupTime) {
        self.enter(&item, DELAY_BYTES);
        self.delay_ends.insert((until, place));
        if let Some(double) = self.delayed.insert(place, Delayed { until, item }) {
            // Only a snapshot that contradicts itself has two items in one place.
            self.delay_ends.remove(&(double.until, place));
            self.delay_ends.insert((until, place));
            self.leave(&double.item, DELAY_BYTES);
        }
    }

    /// Leases the first ready item under a receipt that was never given; shows it.
    pub fn lease(&mut self, receipt: Receipt, ends: GroupTime) -> Option<&Item> {
        let (place, mut item) = self.ready.take()?;
        item.tries = item.tries.saturating_add(1);
        self.put_lease(receipt, Lease { place, ends, item });
        self.leased.get(&receipt).map(|lease| &lease.item)
    }

    fn put_lease(&mut self, receipt: Receipt, lease: Lease) {
        self.enter(&lease.item, LEASE_BYTES);
        self.lease_ends.insert((lease.ends, receipt));
        self.leased.insert(receipt, lease);
    }

    /// Ends a lease: what it was on, if it has not ended before.
    pub fn unlease(&mut self, receipt: Receipt) -> Option<(Place, Item)> {
        let Lease { place, ends, item } = self.leased.remove(&receipt)?;
        self.lease_ends.remove(&(ends, receipt));
        self.leave(&item, LEASE_BYTES);
        Some((place, item))
    }

    /// Sets a lease's end anew; `false` where it has ended before.
    pub fn extend(&mut self, receipt: Receipt, ends: GroupTime) -> bool {
        let Some(lease) = self.leased.get_mut(&receipt) else { return false };
        if broken::is("extension-ignored") {
            return true;
        }
        let before = std::mem::replace(&mut lease.ends, ends);
        self.lease_ends.remove(&(before, receipt));
        self.lease_ends.insert((ends, receipt));
        true
    }

    pub fn bury(&mut self, place: Place, item: Item) {
        self.enter(&item, 0);
        if let Some(double) = self.buried.insert(place, item) {
            self.leave(&double, 0);
        }
    }

    /// Makes up to `count` buried items ready again, as if never taken; answers how many.
    pub fn kick(&mut self, count: usize) -> usize {
        for kicked in 0..count {
            let Some((place, mut item)) = self.buried.pop_first() else { return kicked };
            self.leave(&item, 0);
            item.tries = if broken::is("kick-keeps-tries") { item.tries } else { 0 };
            self.ready.put_back(place, item);
        }
        count
    }

    /// When the next lease ends.
    pub fn next_lease_end(&self) -> Option<GroupTime> {
        self.lease_ends.first().filter(|_| !broken::is("lease-for-ever")).map(|&(ends, _)| ends)
    }

    /// When the next delay ends.
    pub fn next_delay_end(&self) -> Option<GroupTime> {
        self.delay_ends.first().map(|&(until, _)| until)
    }

    /// The lease that ends first ends: its item is back in its place.
    pub fn end_lease(&mut self) -> Option<Receipt> {
        let &(_, receipt) = self.lease_ends.first()?;
        let (mut place, item) = self.unlease(receipt)?;
        if broken::is("lease-to-the-back") {
            place.priority = place.priority.saturating_add(1);
        }
        self.ready.put_back(place, item);
        Some(receipt)
    }

    /// The delay that ends first ends: its item is ready.
    pub fn end_delay(&mut self) {
        let Some((_, place)) = self.delay_ends.pop_first() else { return };
        if let Some(Delayed { item, .. }) = self.delayed.remove(&place) {
            self.leave(&item, DELAY_BYTES);
            self.ready.put_back(place, item);
        }
    }

    /// All receipts of leases under way.
    pub fn receipts(&self) -> impl Iterator<Item = Receipt> + '_ {
        self.leased.keys().copied()
    }

    /// Frees a part of what nobody can see any more: about how many bytes, and the receipt if it was leased; `None`
    /// when there is nothing left.
    pub fn dismantle(&mut self) -> Option<(u64, Option<Receipt>)> {
        if let Some(bytes) = self.ready.dismantle() {
            return Some((bytes, None));
        }
        if let Some((receipt, lease)) = self.leased.pop_last() {
            return Some((lease.item.memory_bytes() + LEASE_BYTES, Some(receipt)));
        }
        if let Some((_, delayed)) = self.delayed.pop_last() {
            return Some((delayed.item.memory_bytes() + DELAY_BYTES, None));
        }
        if let Some((_, item)) = self.buried.pop_last() {
            return Some((item.memory_bytes(), None));
        }
        if self.lease_ends.pop_last().is_some() || self.delay_ends.pop_last().is_some() {
            return Some((0, None));
        }
        None
    }

    pub fn snapshot(&self, out: &mut Vec<u8>) {
        self.ready.snapshot(out);
        out.put_varint(self.leased.len() as u64);
        for (receipt, lease) in &self.leased {
            out.put_varint(receipt.0);
            lease.place.put(out);
            out.put_u64(lease.ends.0);
            lease.item.snapshot(out);
        }
        out.put_varint(self.delayed.len() as u64);
        for (place, delayed) in &self.delayed {
            place.put(out);
            out.put_u64(delayed.until.0);
            delayed.item.snapshot(out);
        }
        out.put_varint(self.buried.len() as u64);
        for (place, item) in &self.buried {
            place.put(out);
            item.snapshot(out);
        }
    }

    /// Reads what `snapshot` wrote. All numbers are below `end`, all times up to `now`, all receipts up to `last`.
    pub fn restore(r: &mut Reader<'_>, end: u64, now: GroupTime, last: Receipt) -> Decoded<Contents> {
        let mut contents = Contents { ready: Ready::restore(r, end, now)?, ..Contents::default() };
        let wrong = |field| Err(DecodeError { field });
        for _ in 0..r.varint("lease count")? {
            let receipt = Receipt(r.varint("receipt")?);
            let place = place(r, end)?;
            let (ends, item) = (GroupTime(r.u64("lease")?), item(r, now)?);
            if contents.leased.last_key_value().is_some_and(|(&previous, _)| previous >= receipt) || receipt > last {
                return wrong("receipt");
            }
            contents.put_lease(receipt, Lease { place, ends, item });
        }
        for _ in 0..r.varint("delay count")? {
            let place = place(r, end)?;
            let (until, item) = (GroupTime(r.u64("delay")?), item(r, now)?);
            if contents.delayed.last_key_value().is_some_and(|(&previous, _)| previous >= place) {
                return wrong("place");
            }
            contents.delay(place, item, until);
        }
        for _ in 0..r.varint("buried count")? {
            let place = place(r, end)?;
            if contents.buried.last_key_value().is_some_and(|(&previous, _)| previous >= place) {
                return wrong("place");
            }
            contents.bury(place, item(r, now)?);
        }
        Ok(contents)
    }
}

fn place(r: &mut Reader<'_>, end: u64) -> Decoded<Place> {
    Place::get(r).and_then(|place| if place.number < end { Ok(place) } else { Err(DecodeError { field: "place" }) })
}

fn item(r: &mut Reader<'_>, now: GroupTime) -> Decoded<Item> {
    Item::restore(r)
        .and_then(|item| if item.pushed <= now { Ok(item) } else { Err(DecodeError { field: "push time" }) })
}
