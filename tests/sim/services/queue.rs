//! An independent, naive model of queues. Every item ever pushed is kept, with the states it went through and the slot
//! of each: so a read is judged by the state at the very slot it names. What is ready is found by looking at all.
//!
//! It holds the promises of a queue's life: receipts only grow, an item has at most one lease, items are given out by
//! priority and push, who waited longest is served first, limits are exact, a key counts for an hour.

use std::collections::{BTreeMap, BTreeSet};

use ftq::limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX, KEY_KNOWN_NS, MOMENTS_STEP, SPAN_MS_MAX};
use ftq::types::{GroupTime, SessionId, Slot};
use ftq::wire::answer::Code;
use ftq::wire::codec::{varint_len, Put};
use ftq::wire::operation::{
    Dead, Items, Leased, Limit, Place, PushOptions, QueueOperation, QueueQuery, QueueRow, Receipt, Target,
    RECEIPTS_PER_SLOT, WAIT_FOR_EVER_MS,
};

use super::super::model::Expected;
use super::{Asker, Naive, BAD};

/// What a buried item counts for in an answer beside its own bytes.
const DEAD_FRAME_BYTES: usize = 24;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Ready,
    Leased(Receipt, GroupTime),
    Delayed(GroupTime),
    Buried,
    Gone,
}

#[derive(Debug)]
struct Item {
    place: Place,
    pushed: GroupTime,
    bytes: Vec<u8>,
    /// From this slot on it is in this state, having been leased so often.
    states: Vec<(Slot, State, u32)>,
}

impl Item {
    fn now(&self) -> (State, u32) {
        let &(_, state, tries) = self.states.last().expect("an item has a state from its push on");
        (state, tries)
    }

    fn at(&self, slot: Slot) -> (State, u32) {
        let later = self.states.partition_point(|&(from, ..)| from <= slot);
        later.checked_sub(1).map_or((State::Gone, 0), |index| (self.states[index].1, self.states[index].2))
    }

    fn becomes(&mut self, slot: Slot, state: State, tries: u32) {
        match self.states.last_mut() {
            Some(last) if last.0 == slot => (last.1, last.2) = (state, tries),
            _ => self.states.push((slot, state, tries)),
        }
    }
}

/// What a pop or take asks for.
#[derive(Clone, Copy, Debug)]
struct Want {
    count: usize,
    lease_ns: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    asker: Asker,
    want: Want,
    until: GroupTime,
    /// Its session has no connection for now.
    aside: bool,
}

#[derive(Debug)]
struct Queue {
    id: u64,
    label: String,
    created: Slot,
    destroyed: Option<Slot>,
    /// By number.
    items: Vec<Item>,
    /// The numbers of those that are not gone, by place.
    present: BTreeMap<Place, usize>,
    /// Those of them that are leased or delayed.
    timed: BTreeSet<Place>,
    waiters: Vec<Waiter>,
    keys: BTreeMap<Vec<u8>, GroupTime>,
    /// Ends of what was known of keys: each is a moment of its own.
    key_ends: Vec<GroupTime>,
    /// How many waited, and the limits, from each slot on.
    lines: Vec<(Slot, usize)>,
    limits: Vec<(Slot, Limit)>,
}

/// What ends at a moment, in the order in which it does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum End {
    Lease(Receipt, Place),
    Delay(Place),
    Wait(usize),
    Key,
}

fn since<T: Copy>(history: &[(Slot, T)], slot: Slot) -> Option<T> {
    let later = history.partition_point(|&(from, _)| from <= slot);
    later.checked_sub(1).map(|index| history[index].1)
}

impl Queue {
    fn exists_at(&self, slot: Slot) -> bool {
        self.created <= slot && self.destroyed.is_none_or(|gone| gone > slot)
    }

    fn limit(&self) -> Limit {
        self.limits.last().map_or(Limit::default(), |&(_, limit)| limit)
    }

    fn change(&mut self, slot: Slot, place: Place, state: State, tries: u32) {
        self.items[place.number as usize].becomes(slot, state, tries);
        self.time(place, state);
        if state == State::Gone {
            self.present.remove(&place);
        }
    }

    fn time(&mut self, place: Place, state: State) {
        if matches!(state, State::Leased(..) | State::Delayed(_)) {
            self.timed.insert(place);
        } else {
            self.timed.remove(&place);
        }
    }

    /// The places that are ready now.
    fn ready(&self) -> impl Iterator<Item = Place> + '_ {
        let places = self.present.iter();
        places.filter(|(_, &number)| self.items[number].now().0 == State::Ready).map(|(&place, _)| place)
    }

    /// The items that are in such a state after this slot, by place.
    fn at(&self, slot: Slot, wanted: impl Fn(State) -> bool) -> Vec<(&Item, u32)> {
        let all = self.items.iter().map(|item| (item, item.at(slot)));
        let mut found: Vec<_> = all.filter(|(_, (state, _))| wanted(*state)).map(|(item, (_, t))| (item, t)).collect();
        found.sort_by_key(|(item, _)| item.place);
        found
    }

    fn note_line(&mut self, slot: Slot) {
        self.lines.push((slot, self.waiters.iter().filter(|waiter| !waiter.aside).count()));
    }

    fn next_end(&self) -> Option<(GroupTime, End)> {
        let items = self.timed.iter().filter_map(|&place| match self.items[place.number as usize].now().0 {
            State::Leased(receipt, ends) => Some((ends, End::Lease(receipt, place))),
            State::Delayed(until) => Some((until, End::Delay(place))),
            _ => None,
        });
        let never = GroupTime(u64::MAX);
        let waits = self.waiters.iter().enumerate().filter(|(_, w)| w.until < never);
        let waits = waits.map(|(index, waiter)| (waiter.until, End::Wait(index)));
        let keys = self.key_ends.iter().map(|&end| (end, End::Key));
        items.chain(waits).chain(keys).min()
    }

    /// Why such a push finds no room, if it does not.
    fn has_room(&self, items: &Items<'_>) -> bool {
        if self.limit() == Limit::default() {
            return true;
        }
        let bytes = |number: &usize| self.items[*number].bytes.len() as u64;
        let (held, held_bytes) = (self.present.len() as u64, self.present.values().map(bytes).sum::<u64>());
        let more: u64 = items.iter().map(|item| item.len() as u64).sum();
        let within = |most: Option<u64>, held: u64| most.is_none_or(|most| held <= most);
        items.is_empty()
            || within(self.limit().items, held + items.len() as u64) && within(self.limit().bytes, held_bytes + more)
    }
}

/// How many of these items one answer takes, each with so many bytes around it.
fn fitting<'a>(items: impl Iterator<Item = &'a [u8]>, count: usize, each: usize) -> usize {
    let (mut taken, mut bytes) = (0, 0);
    for item in items {
        bytes += varint_len(item.len() as u64) + item.len() + each;
        if taken == count || taken > 0 && bytes > BATCH_BYTES_MAX {
            break;
        }
        taken += 1;
    }
    taken
}

/// All queues there ever were.
#[derive(Debug, Default)]
pub struct Queues {
    queues: Vec<Queue>,
    /// The time of each slot.
    times: BTreeMap<Slot, GroupTime>,
    last_receipt: u64,
    /// Whom an answer was found for in this slot, and what it is.
    answers: Vec<(Asker, Expected)>,
}

fn moment(now: GroupTime, ms: u64) -> Option<GroupTime> {
    (ms <= SPAN_MS_MAX).then(|| GroupTime(now.0 + ms * 1_000_000))
}

impl Queues {
    fn now(&self) -> GroupTime {
        *self.times.last_key_value().expect("a slot is being applied").1
    }

    fn end(&mut self, slot: Slot, index: usize, at: GroupTime, end: End) {
        let queue = &mut self.queues[index];
        match end {
            End::Lease(_, place) | End::Delay(place) => {
                let (_, tries) = queue.items[place.number as usize].now();
                queue.change(slot, place, State::Ready, tries);
                self.serve(slot, index);
            }
            End::Wait(waiter) => {
                let waiter = queue.waiters.remove(waiter);
                queue.note_line(slot);
                self.answers.push((waiter.asker, Expected::Error(Code::Empty)));
            }
            End::Key => {
                let first = queue.key_ends.iter().position(|&end| end == at).expect("it was just found");
                queue.key_ends.remove(first);
                queue.keys.retain(|_, until| *until > at);
            }
        }
    }

    /// Who waited longest is served first.
    fn serve(&mut self, slot: Slot, index: usize) {
        while self.queues[index].ready().next().is_some() {
            let Some(first) = self.queues[index].waiters.iter().position(|waiter| !waiter.aside) else { break };
            let waiter = self.queues[index].waiters.remove(first);
            self.queues[index].note_line(slot);
            let answer = self.hand_out(slot, index, waiter.want);
            self.answers.push((waiter.asker, answer));
        }
    }

    fn target(&self, slot: Slot, target: Target<'_>) -> Option<usize> {
        let wanted = |queue: &Queue| match target {
            Target::Id(id) => queue.id == id,
            Target::Label(label) => queue.label == label,
        };
        self.queues.iter().position(|queue| queue.exists_at(slot) && wanted(queue))
    }

    fn target_or_make(&mut self, slot: Slot, target: Target<'_>) -> Option<usize> {
        let found = self.target(slot, target);
        let Target::Label(label) = target else { return found };
        found.or_else(|| {
            self.queues.push(Queue {
                id: self.queues.len() as u64 + 1,
                label: label.to_owned(),
                created: slot,
                destroyed: None,
                items: Vec::new(),
                present: BTreeMap::new(),
                timed: BTreeSet::new(),
                waiters: Vec::new(),
                keys: BTreeMap::new(),
                key_ends: Vec::new(),
                lines: Vec::new(),
                limits: Vec::new(),
            });
            Some(self.queues.len() - 1)
        })
    }

    /// Executes an operation on a queue that is there.
    fn change(&mut self, slot: Slot, index: usize, count: usize, operation: QueueOperation<'_>) -> Expected {
        let queue = &mut self.queues[index];
        match operation {
            QueueOperation::Create { .. } => Expected::number(queue.id),
            QueueOperation::Push { items, .. } => {
                let pushed = self.push(slot, index, PushOptions::default(), items);
                pushed.map_or(Expected::Error(Code::Full), |_| Expected::nothing())
            }
            QueueOperation::PushWith { options, items, .. } => {
                let pushed = self.push(slot, index, options, items);
                pushed.map_or(Expected::Error(Code::Full), |count| Expected::number(count as u64))
            }
            QueueOperation::Pop { .. } => self.hand_out(slot, index, Want { count, lease_ns: None }),
            QueueOperation::Purge { .. } => {
                let places: Vec<_> = queue.present.keys().copied().collect();
                places.iter().for_each(|&place| queue.change(slot, place, State::Gone, 0));
                Expected::number(places.len() as u64)
            }
            QueueOperation::Kick { .. } => {
                let buried = queue.present.iter().filter(|(_, &n)| queue.items[n].now().0 == State::Buried);
                let places: Vec<_> = buried.map(|(&place, _)| place).take(count).collect();
                places.iter().for_each(|&place| queue.change(slot, place, State::Ready, 0));
                self.serve(slot, index);
                Expected::number(places.len() as u64)
            }
            QueueOperation::Limit { items, bytes, .. } => {
                let before = queue.limit();
                let limit = Limit { items: items.change(before.items), bytes: bytes.change(before.bytes) };
                queue.limits.push((slot, limit));
                Expected::nothing()
            }
            _ => {
                queue.destroyed = Some(slot);
                let gone = |waiter: Waiter| (waiter.asker, Expected::Error(Code::NoQueue));
                self.answers.extend(std::mem::take(&mut queue.waiters).into_iter().map(gone));
                Expected::nothing()
            }
        }
    }

    /// How many were pushed, if there is room.
    fn push(&mut self, slot: Slot, index: usize, options: PushOptions<'_>, items: Items<'_>) -> Option<usize> {
        let now = self.now();
        let queue = &mut self.queues[index];
        if options.key.is_some_and(|key| queue.keys.get(key).is_some_and(|&until| until > now)) {
            return Some(0);
        }
        if !queue.has_room(&items) {
            return None;
        }
        if let Some(key) = options.key {
            let until = GroupTime(now.0 + KEY_KNOWN_NS);
            queue.keys.insert(key.to_vec(), until);
            queue.key_ends.push(until);
        }
        let state = match options.delay_ms {
            0 => State::Ready,
            ms => State::Delayed(moment(now, ms)?),
        };
        for bytes in items.iter() {
            let place = Place { priority: options.priority, number: queue.items.len() as u64 };
            queue.present.insert(place, queue.items.len());
            queue.time(place, state);
            let states = vec![(slot, state, 0)];
            queue.items.push(Item { place, pushed: now, bytes: bytes.to_vec(), states });
        }
        self.serve(slot, index);
        Some(items.len())
    }

    /// Pops or leases what is ready.
    fn hand_out(&mut self, slot: Slot, index: usize, want: Want) -> Expected {
        let now = self.now();
        let queue = &mut self.queues[index];
        let each = if want.lease_ns.is_some() { 15 } else { 0 };
        let bytes = queue.ready().map(|place| &queue.items[place.number as usize].bytes[..]);
        let first = (slot.0 * RECEIPTS_PER_SLOT).max(self.last_receipt + 1);
        let places: Vec<_> = queue.ready().take(fitting(bytes, want.count, each)).collect();
        if places.is_empty() {
            return Expected::Error(Code::Empty);
        }
        let mut fields = Vec::new();
        fields.put_varint(places.len() as u64);
        for (place, receipt) in places.into_iter().zip(first..) {
            let item = &queue.items[place.number as usize];
            let tries = item.now().1 + 1;
            match want.lease_ns {
                None => {
                    fields.put_bytes(&item.bytes);
                    queue.change(slot, place, State::Gone, 0);
                }
                Some(lease_ns) => {
                    let receipt = Receipt(receipt);
                    Leased { receipt, tries, item: &item.bytes }.encode(&mut fields);
                    queue.change(slot, place, State::Leased(receipt, GroupTime(now.0 + lease_ns)), tries);
                    self.last_receipt = receipt.0;
                }
            }
        }
        Expected::Ok(fields)
    }

    fn pop_or_take(
        &mut self,
        slot: Slot,
        asker: Asker,
        target: Target<'_>,
        want: Want,
        wait_ms: u64,
    ) -> Option<Expected> {
        let until = match wait_ms {
            WAIT_FOR_EVER_MS => Some(GroupTime(u64::MAX)),
            ms => moment(self.now(), ms),
        };
        let (Some(until), 1..) = (until, want.count) else { return Some(BAD) };
        let target = if wait_ms == 0 { self.target(slot, target) } else { self.target_or_make(slot, target) };
        let Some(index) = target else { return Some(Expected::Error(Code::NoQueue)) };
        let queue = &mut self.queues[index];
        if wait_ms == 0 || queue.ready().next().is_some() {
            return Some(self.hand_out(slot, index, want));
        }
        queue.waiters.push(Waiter { asker, want, until, aside: false });
        queue.note_line(slot);
        None
    }

    /// What is said of a leased item.
    fn settle(&mut self, slot: Slot, operation: QueueOperation<'_>) -> Expected {
        let now = self.now();
        let (receipt, becomes) = match operation {
            QueueOperation::Ack { receipt } => (receipt, Some(State::Gone)),
            QueueOperation::Bury { receipt } => (receipt, Some(State::Buried)),
            QueueOperation::Nack { receipt, delay_ms: 0 } => (receipt, Some(State::Ready)),
            QueueOperation::Nack { receipt, delay_ms } => (receipt, moment(now, delay_ms).map(State::Delayed)),
            QueueOperation::Extend { receipt, lease_ms } => {
                let ends = moment(now, lease_ms).filter(|_| lease_ms > 0);
                (receipt, ends.map(|ends| State::Leased(receipt, ends)))
            }
            _ => return BAD,
        };
        let Some(becomes) = becomes else { return BAD };
        let living = self.queues.iter().enumerate().filter(|(_, queue)| queue.destroyed.is_none());
        let held: Vec<_> = living
            .flat_map(|(index, queue)| {
                queue.present.iter().map(move |(&place, &n)| (index, place, queue.items[n].now()))
            })
            .filter(|(_, _, (state, _))| matches!(state, State::Leased(own, _) if *own == receipt))
            .collect();
        assert!(held.len() <= 1, "a receipt is for one item");
        let Some(&(index, place, (_, tries))) = held.first() else { return Expected::Error(Code::NoReceipt) };
        self.queues[index].change(slot, place, becomes, tries);
        self.serve(slot, index);
        Expected::nothing()
    }

    fn list(&self, slot: Slot, after: &str) -> Expected {
        let now = self.times.get(&slot).copied().unwrap_or(GroupTime(0));
        let mut rows: Vec<&Queue> =
            self.queues.iter().filter(|queue| queue.exists_at(slot) && queue.label.as_str() > after).collect();
        rows.sort_by(|a, b| a.label.cmp(&b.label));
        let mut fields = Vec::new();
        for queue in rows.into_iter().take(BATCH_ITEMS_MAX) {
            let present = queue.at(slot, |state| state != State::Gone);
            let ready = queue.at(slot, |state| state == State::Ready);
            let oldest = ready.iter().map(|(item, _)| item.pushed).min().unwrap_or(now);
            let count = |wanted: fn(State) -> bool| queue.at(slot, wanted).len() as u64;
            let row = QueueRow {
                label: &queue.label,
                id: queue.id,
                size: ready.len() as u64,
                leased: count(|state| matches!(state, State::Leased(..))),
                delayed: count(|state| matches!(state, State::Delayed(_))),
                waiters: since(&queue.lines, slot).unwrap_or(0) as u64,
                bytes: present.iter().map(|(item, _)| item.bytes.len() as u64).sum(),
                oldest_ms: (now.0 - oldest.0) / 1_000_000,
                buried: count(|state| state == State::Buried),
            };
            row.encode(&mut fields);
        }
        Expected::Ok(fields)
    }
}

impl Naive for Queues {
    fn begin(&mut self, slot: Slot, now: GroupTime) {
        self.times.insert(slot, now);
        for _ in 0..MOMENTS_STEP {
            let living = self.queues.iter().enumerate().filter(|(_, queue)| queue.destroyed.is_none());
            let ends = living.filter_map(|(index, queue)| queue.next_end().map(|(at, end)| (at, index, end)));
            match ends.min() {
                Some((at, index, end)) if at <= now => self.end(slot, index, at, end),
                _ => break,
            }
        }
    }

    fn execute(&mut self, slot: Slot, asker: Asker, fields: &[u8]) -> Option<Expected> {
        let Ok(operation) = QueueOperation::decode(fields) else { return Some(BAD) };
        let (target, count) = match operation {
            QueueOperation::PopWait { target, count, wait_ms } => {
                return self.pop_or_take(slot, asker, target, Want { count, lease_ns: None }, wait_ms);
            }
            QueueOperation::Take { target, count, lease_ms, wait_ms } => {
                let sensible = (1..=SPAN_MS_MAX).contains(&lease_ms);
                let want = Want { count, lease_ns: Some(lease_ms.saturating_mul(1_000_000)) };
                return if sensible { self.pop_or_take(slot, asker, target, want, wait_ms) } else { Some(BAD) };
            }
            QueueOperation::Ack { .. }
            | QueueOperation::Nack { .. }
            | QueueOperation::Extend { .. }
            | QueueOperation::Bury { .. } => return Some(self.settle(slot, operation)),
            QueueOperation::PushWith { options, .. } if options.delay_ms > SPAN_MS_MAX => return Some(BAD),
            QueueOperation::Pop { count: 0, .. } | QueueOperation::Kick { count: 0, .. } => return Some(BAD),
            QueueOperation::Create { label } => (self.target_or_make(slot, Target::Label(label)), 0),
            QueueOperation::Push { target, .. }
            | QueueOperation::PushWith { target, .. }
            | QueueOperation::Limit { target, .. } => (self.target_or_make(slot, target), 0),
            QueueOperation::Pop { target, count } | QueueOperation::Kick { target, count } => {
                (self.target(slot, target), count)
            }
            QueueOperation::Destroy { target } | QueueOperation::Purge { target } => (self.target(slot, target), 0),
        };
        Some(match target {
            None => Expected::Error(Code::NoQueue),
            Some(index) => self.change(slot, index, count, operation),
        })
    }

    fn find(&self, slot: Slot, fields: &[u8]) -> Expected {
        let Ok(query) = QueueQuery::decode(fields) else { return BAD };
        let (target, count) = match query {
            QueueQuery::Id { label } => (Target::Label(label), 1),
            QueueQuery::Peek { target, count } | QueueQuery::Buried { target, count, .. } => (target, count),
            QueueQuery::Size { target } | QueueQuery::Limits { target } => (target, 1),
            QueueQuery::List { after } => return self.list(slot, after),
        };
        if count == 0 {
            return BAD;
        }
        let Some(queue) = self.target(slot, target).map(|index| &self.queues[index]) else {
            let asks_for_the_id = matches!(query, QueueQuery::Id { .. });
            return if asks_for_the_id { Expected::number(0) } else { Expected::Error(Code::NoQueue) };
        };
        let ready = || queue.at(slot, |state| state == State::Ready);
        let mut fields = Vec::new();
        match query {
            QueueQuery::Id { .. } => return Expected::number(queue.id),
            QueueQuery::Peek { .. } => {
                let ready = ready();
                let shown = fitting(ready.iter().map(|(item, _)| &item.bytes[..]), count, 0);
                if shown == 0 {
                    return Expected::Error(Code::Empty);
                }
                Items::encode(&mut fields, ready[..shown].iter().map(|(item, _)| &item.bytes[..]));
            }
            QueueQuery::Buried { after, .. } => {
                let mut dead = queue.at(slot, |state| state == State::Buried);
                dead.retain(|(item, _)| after.is_none_or(|after| item.place > after));
                let mut bytes = 0;
                let full = dead.iter().position(|(item, _)| {
                    bytes += item.bytes.len() + DEAD_FRAME_BYTES;
                    bytes > BATCH_BYTES_MAX
                });
                dead.truncate(full.map_or(count, |full| full.max(1).min(count)));
                fields.put_varint(dead.len() as u64);
                for (item, tries) in dead {
                    Dead { place: item.place, tries, item: &item.bytes }.encode(&mut fields);
                }
            }
            QueueQuery::Limits { .. } => since(&queue.limits, slot).unwrap_or_default().put(&mut fields),
            _ => fields.put_varint(ready().len() as u64),
        }
        Expected::Ok(fields)
    }

    /// Its waiters step aside, or back, in the order of their numbers.
    fn step_aside(&mut self, slot: Slot, session: SessionId, aside: bool) {
        let living = self.queues.iter().enumerate().filter(|(_, queue)| queue.destroyed.is_none());
        let own = living.flat_map(|(index, queue)| queue.waiters.iter().map(move |waiter| (waiter.asker, index)));
        let mut own: Vec<(Asker, usize)> = own.filter(|(asker, _)| asker.0 == session).collect();
        own.sort_unstable();
        for (asker, index) in own {
            let queue = &mut self.queues[index];
            queue.waiters.iter_mut().filter(|waiter| waiter.asker == asker).for_each(|waiter| waiter.aside = aside);
            queue.note_line(slot);
            self.serve(slot, index);
        }
    }

    fn session_ended(&mut self, slot: Slot, session: SessionId) {
        for queue in self.queues.iter_mut().filter(|queue| queue.destroyed.is_none()) {
            queue.waiters.retain(|waiter| waiter.asker.0 != session);
            queue.note_line(slot);
        }
    }

    fn take_answers(&mut self) -> Vec<(Asker, Expected)> {
        std::mem::take(&mut self.answers)
    }
}
