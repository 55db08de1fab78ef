//! What is ready to be popped, in the order of places: by priority, then by the number of the push.
//!
//! Of each priority the items that were only pushed lie packed in one [`Fifo`], whose numbers rise from front to back;
//! what came back from a lease, a delay or the grave lies beside it, by number. Items of the priority 0 are most, and
//! have a place of their own.

use super::fifo::{chunk_memory, Fifo};
use super::item::Item;
use crate::types::GroupTime;
use crate::wire::codec::{varint_len, DecodeError, Decoded, Put, Reader};
use crate::wire::queue::{priority, put_priority, Place};
use std::collections::{BTreeMap, VecDeque};

/// Bytes of memory the items of one priority take beside their own.
const CLASS_OVERHEAD: u64 = 320;
const HOLE_BYTES: u64 = 16;

/// The ready items of one priority.
#[derive(Default, Debug)]
struct Class {
    fifo: Fifo,
    /// The numbers of the items at the front of `fifo` and behind its back. Of no meaning while it is empty.
    first: u64,
    end: u64,
    /// Numbers between these two that are not in `fifo`: where a run of them begins, and how long it is.
    holes: VecDeque<(u64, u64)>,
    /// What came back, by number.
    back: BTreeMap<u64, Item>,
}

/// An item where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    pub number: u64,
    pub pushed: GroupTime,
    pub bytes: &'a [u8],
}

impl Shown<'_> {
    /// Bytes with the frame that `wire::queue::Items` gives it.
    pub fn framed_len(&self) -> usize {
        varint_len(self.bytes.len() as u64) + self.bytes.len()
    }
}

impl Class {
    fn is_empty(&self) -> bool {
        self.fifo.is_empty() && self.back.is_empty()
    }

    fn push(&mut self, number: u64, time: GroupTime, item: &[u8]) {
        if self.fifo.is_empty() {
            self.first = number;
        } else if number > self.end {
            self.holes.push_back((self.end, number - self.end));
        }
        self.end = number + 1;
        self.fifo.push(time, item);
    }

    /// Whether the next item is one that came back.
    fn back_is_first(&self) -> bool {
        self.back.first_key_value().is_some_and(|(&number, _)| self.fifo.is_empty() || number < self.first)
    }

    /// The front item of `fifo` was removed.
    fn pass(&mut self) {
        self.first += 1;
        if let Some(&(_, length)) = self.holes.front().filter(|hole| hole.0 == self.first) {
            self.first += length;
            self.holes.pop_front();
        }
        if self.fifo.is_empty() && self.holes.capacity() > 0 {
            self.holes = VecDeque::new();
        }
    }

    fn iter(&self) -> impl Iterator<Item = Shown<'_>> {
        let mut number = self.first;
        let mut holes = self.holes.iter().peekable();
        let mut packed = self.fifo.iter().map(move |item| {
            let shown = Shown { number, pushed: item.time, bytes: item.bytes };
            number += 1;
            if let Some((_, length)) = holes.next_if(|hole| hole.0 == number) {
                number += length;
            }
            shown
        });
        let mut back =
            self.back.iter().map(|(&number, item)| Shown { number, pushed: item.pushed, bytes: &item.bytes });
        let (mut next_packed, mut next_back) = (packed.next(), back.next());
        std::iter::from_fn(move || match (next_packed, next_back) {
            (Some(one), Some(other)) if other.number < one.number => std::mem::replace(&mut next_back, back.next()),
            (None, _) => std::mem::replace(&mut next_back, back.next()),
            _ => std::mem::replace(&mut next_packed, packed.next()),
        })
    }

    fn memory_bytes(&self) -> u64 {
        self.fifo.memory_bytes() + self.holes.capacity() as u64 * HOLE_BYTES
    }

    fn snapshot(&self, out: &mut Vec<u8>) {
        self.fifo.snapshot(out);
        if !self.fifo.is_empty() {
            out.put_varint(self.first);
            out.put_varint(self.holes.len() as u64);
            for &(start, length) in &self.holes {
                out.put_varint(start);
                out.put_varint(length);
            }
        }
        out.put_varint(self.back.len() as u64);
        for (&number, item) in &self.back {
            out.put_varint(number);
            item.snapshot(out);
        }
    }

    /// All numbers are below `end`, all times up to `now`.
    fn restore(r: &mut Reader<'_>, end: u64, now: GroupTime) -> Decoded<Class> {
        let wrong = |field| Err(DecodeError { field });
        let mut class = Class { fifo: Fifo::restore(r)?, ..Class::default() };
        if class.fifo.last_time() > Some(now) {
            return wrong("push time");
        }
        if !class.fifo.is_empty() {
            class.first = r.varint("place")?;
            let mut reached = class.first.saturating_add(1);
            let mut inside = 0;
            for _ in 0..r.varint("hole count")? {
                let (start, length) = (r.varint("hole")?, r.varint("hole")?);
                if start < reached || length == 0 || start >= end {
                    return wrong("hole");
                }
                class.holes.push_back((start, length));
                inside += length.min(end);
                reached = start.saturating_add(length).saturating_add(1);
            }
            class.end = class.first.saturating_add(class.fifo.len()).saturating_add(inside);
            if reached > class.end || class.end > end {
                return wrong("place");
            }
        }
        let mut previous = None;
        for _ in 0..r.varint("returned count")? {
            let number = r.varint("place")?;
            if Some(number) <= previous || number >= end {
                return wrong("place");
            }
            let item = Item::restore(r)?;
            if item.pushed > now {
                return wrong("push time");
            }
            class.back.insert(number, item);
            previous = Some(number);
        }
        Ok(class)
    }
}

/// All ready items of a queue.
#[derive(Default, Debug)]
pub struct Ready {
    plain: Class,
    /// The other priorities that have ready items.
    others: BTreeMap<i32, Class>,
    count: u64,
    bytes: u64,
    memory: u64,
}

impl Ready {
    pub fn len(&self) -> u64 {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the items.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of memory they take.
    pub fn memory_bytes(&self) -> u64 {
        self.memory
    }

    fn class(&mut self, priority: i32) -> &mut Class {
        if priority == 0 {
            return &mut self.plain;
        }
        self.others.entry(priority).or_insert_with(|| {
            self.memory += CLASS_OVERHEAD;
            Class::default()
        })
    }

    /// Appends an item; its number is greater than that of any pushed before.
    pub fn push(&mut self, place: Place, time: GroupTime, item: &[u8]) {
        self.count += 1;
        self.bytes += item.len() as u64;
        let class = self.class(place.priority);
        let before = class.memory_bytes();
        class.push(place.number, time, item);
        let after = class.memory_bytes();
        self.memory = self.memory + after - before;
    }

    /// Puts an item back in its place.
    pub fn put_back(&mut self, place: Place, item: Item) {
        self.count += 1;
        self.bytes += item.size();
        self.memory += item.memory_bytes();
        if let Some(double) = self.class(place.priority).back.insert(place.number, item) {
            // Only a snapshot that contradicts itself has two items in one place.
            self.count -= 1;
            self.bytes -= double.size();
            self.memory -= double.memory_bytes();
        }
    }

    /// The priority of the first item.
    fn first(&self) -> Option<i32> {
        match self.others.first_key_value() {
            Some((&priority, _)) if priority < 0 || self.plain.is_empty() => Some(priority),
            _ => (!self.plain.is_empty()).then_some(0),
        }
    }

    /// Changes the class of this priority, which loses its first item.
    fn remove<T>(&mut self, priority: i32, remove: impl FnOnce(&mut Class) -> (T, u64)) -> T {
        let class = if priority == 0 { Some(&mut self.plain) } else { self.others.get_mut(&priority) };
        let class = class.expect("it has an item");
        let before = class.memory_bytes();
        let (result, bytes) = remove(class);
        self.memory = self.memory + class.memory_bytes() - before;
        if priority != 0 && class.is_empty() {
            self.memory -= CLASS_OVERHEAD + class.memory_bytes();
            self.others.remove(&priority);
        }
        self.count -= 1;
        self.bytes -= bytes;
        result
    }

    /// Removes the first item and appends it to `out`, framed; `false` if there is none.
    pub fn pop_into(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(priority) = self.first() else { return false };
        let returned = self.remove(priority, |class| {
            if class.back_is_first() {
                let item = class.back.pop_first().map(|(_, item)| item);
                let bytes = item.as_ref().map_or(0, Item::size);
                return (item, bytes);
            }
            let before = class.fifo.bytes();
            class.fifo.pop_into(out);
            class.pass();
            (None, before - class.fifo.bytes())
        });
        if let Some(item) = returned {
            self.memory -= item.memory_bytes();
            out.put_bytes(&item.bytes);
        }
        true
    }

    /// Removes the first item.
    pub fn take(&mut self) -> Option<(Place, Item)> {
        let priority = self.first()?;
        let (number, item, returned) = self.remove(priority, |class| {
            if let Some((number, item)) = class.back_is_first().then(|| class.back.pop_first()).flatten() {
                let bytes = item.size();
                return ((number, item, true), bytes);
            }
            let number = class.first;
            let (pushed, bytes) = class.fifo.take().expect("a class without returned items has others");
            class.pass();
            let length = bytes.len() as u64;
            ((number, Item { pushed, tries: 0, bytes }, false), length)
        });
        if returned {
            self.memory -= item.memory_bytes();
        }
        Some((Place { priority, number }, item))
    }

    /// The items from the first on.
    pub fn iter(&self) -> impl Iterator<Item = Shown<'_>> {
        let urgent = self.others.range(..0).flat_map(|(_, class)| class.iter());
        let rest = self.others.range(1..).flat_map(|(_, class)| class.iter());
        urgent.chain(self.plain.iter()).chain(rest)
    }

    /// How many items from the front, up to `count`, take up to `bytes` with their frames and `each` more; one if there
    /// is any.
    pub fn fitting(&self, count: usize, bytes: usize, each: usize) -> usize {
        if count == 1 || self.count <= 1 {
            return count.min(self.count as usize);
        }
        let mut taken = 0;
        let fits = self.iter().take(count).take_while(|item| {
            taken += item.framed_len() + each;
            taken <= bytes
        });
        fits.count().max(1)
    }

    /// When the oldest item was pushed.
    pub fn oldest(&self) -> Option<GroupTime> {
        let classes = std::iter::once(&self.plain).chain(self.others.values());
        classes.filter_map(|class| class.iter().next()).map(|item| item.pushed).min()
    }

    /// Frees a part of what nobody can see any more: how many bytes; `None` when there is nothing left.
    pub fn dismantle(&mut self) -> Option<u64> {
        if let Some(chunk) = self.plain.fifo.drop_chunk() {
            return Some(chunk_memory(&chunk));
        }
        if let Some((_, item)) = self.plain.back.pop_last() {
            return Some(item.memory_bytes());
        }
        let spare = std::mem::take(&mut self.plain.holes).capacity() as u64 * HOLE_BYTES;
        match self.others.pop_last() {
            Some((_, class)) => {
                self.plain = class;
                Some(spare + CLASS_OVERHEAD)
            }
            None => (spare > 0).then_some(spare),
        }
    }

    pub fn snapshot(&self, out: &mut Vec<u8>) {
        self.plain.snapshot(out);
        out.put_varint(self.others.len() as u64);
        for (&priority, class) in &self.others {
            put_priority(out, priority);
            class.snapshot(out);
        }
    }

    /// Reads what `snapshot` wrote. All numbers are below `end`, all times up to `now`.
    pub fn restore(r: &mut Reader<'_>, end: u64, now: GroupTime) -> Decoded<Ready> {
        let mut ready = Ready::default();
        let plain = Class::restore(r, end, now)?;
        ready.account(&plain);
        ready.plain = plain;
        let mut previous = None;
        for _ in 0..r.varint("priority count")? {
            let priority = priority(r)?;
            let class = Class::restore(r, end, now)?;
            if priority == 0 || Some(priority) <= previous || class.is_empty() {
                return Err(DecodeError { field: "priority" });
            }
            ready.account(&class);
            ready.memory += CLASS_OVERHEAD;
            ready.others.insert(priority, class);
            previous = Some(priority);
        }
        Ok(ready)
    }

    fn account(&mut self, class: &Class) {
        self.count += class.fifo.len() + class.back.len() as u64;
        self.bytes += class.fifo.bytes() + class.back.values().map(Item::size).sum::<u64>();
        self.memory += class.memory_bytes() + class.back.values().map(Item::memory_bytes).sum::<u64>();
    }
}
