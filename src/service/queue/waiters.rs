//! Pops and takes that wait for items of one queue, in the order in which they came: who came first is served first,
//! whatever replica it is connected to. Who has lost its connection stands aside, and is not served until it is back.

use crate::broken;
use crate::limits::BATCH_ITEMS_MAX;
use crate::service::Who;
use crate::types::{GroupTime, RequestNumber};
use crate::wire::bundle::{put_session, session, SESSION_ID_BYTES};
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of memory a waiter takes, its entries in all indices included.
const WAITER_BYTES: u64 = 240;
/// Ends no wait: the end of time.
const NEVER: GroupTime = GroupTime(u64::MAX);

/// What a waiter asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Want {
    pub count: usize,
    /// A take, for so long; else a pop.
    pub lease_ns: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiter {
    pub who: Who,
    pub want: Want,
    pub until: GroupTime,
}

/// Counts the waiters of all queues.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Arrival(pub u64);

#[derive(Default, Debug)]
pub struct Waiters {
    line: BTreeMap<Arrival, Waiter>,
    /// Those whose sessions have no connection for now.
    aside: BTreeMap<Arrival, Waiter>,
    ends: BTreeSet<(GroupTime, Arrival)>,
}

impl Waiters {
    /// How many are in line.
    pub fn count(&self) -> u64 {
        self.line.len() as u64
    }

    pub fn memory_bytes(&self) -> u64 {
        (self.line.len() + self.aside.len()) as u64 * WAITER_BYTES
    }

    /// Goes to the end of the line; `arrival` is greater than any before.
    pub fn join(&mut self, arrival: Arrival, waiter: Waiter) {
        if waiter.until < NEVER {
            self.ends.insert((waiter.until, arrival));
        }
        self.line.insert(arrival, waiter);
    }

    /// Leaves the line, served or not.
    pub fn leave(&mut self, arrival: Arrival) -> Option<Waiter> {
        let waiter = self.line.remove(&arrival).or_else(|| self.aside.remove(&arrival))?;
        self.ends.remove(&(waiter.until, arrival));
        Some(waiter)
    }

    /// Steps aside, or is `here` again.
    pub fn step(&mut self, arrival: Arrival, here: bool) {
        let (from, to) = if here { (&mut self.aside, &mut self.line) } else { (&mut self.line, &mut self.aside) };
        to.extend(from.remove(&arrival).map(|waiter| (arrival, waiter)));
    }

    /// Who is in line, and came first.
    pub fn first(&self) -> Option<Arrival> {
        let last = broken::is("last-come-first-served");
        let next = if last { self.line.last_key_value() } else { self.line.first_key_value() };
        next.map(|(&arrival, _)| arrival)
    }

    /// Whose wait ends first, and when.
    pub fn next_end(&self) -> Option<(GroupTime, Arrival)> {
        self.ends.first().copied()
    }

    /// All of them, and whether they are in line.
    pub fn iter(&self) -> impl Iterator<Item = (Arrival, &Waiter, bool)> {
        let line = self.line.iter().map(|(&arrival, waiter)| (arrival, waiter, true));
        line.chain(self.aside.iter().map(|(&arrival, waiter)| (arrival, waiter, false)))
    }

    pub fn snapshot(&self, out: &mut Vec<u8>) {
        out.put_varint((self.line.len() + self.aside.len()) as u64);
        for (arrival, Waiter { who, want, until }, here) in self.iter() {
            out.put_bool(here);
            out.put_varint(arrival.0);
            put_session(out, who.session);
            out.put_u64(who.number.0);
            out.put_varint(want.count as u64);
            out.put_bool(want.lease_ns.is_some());
            out.put_u64(want.lease_ns.unwrap_or(0));
            out.put_u64(until.0);
        }
    }

    /// Reads what `snapshot` wrote; no arrival is greater than `last`.
    pub fn restore(r: &mut Reader<'_>, last: Arrival) -> Decoded<Waiters> {
        let wrong = |field| Err(DecodeError { field });
        let mut waiters = Waiters::default();
        for _ in 0..r.count(r.remaining() / SESSION_ID_BYTES, "waiter count")? {
            let here = r.bool("in line")?;
            let arrival = Arrival(r.varint("arrival")?);
            let before = if here { waiters.line.last_key_value() } else { waiters.aside.last_key_value() };
            let in_order = before.is_none_or(|(&previous, _)| previous < arrival);
            if !in_order || arrival > last || here && !waiters.aside.is_empty() || waiters.line.contains_key(&arrival) {
                return wrong("arrival");
            }
            let who = Who { session: session(r)?, number: RequestNumber(r.u64("number")?) };
            let count = r.count(BATCH_ITEMS_MAX, "count")?;
            let (is_take, lease_ns) = (r.bool("lease")?, r.u64("lease")?);
            if count == 0 || !is_take && lease_ns != 0 {
                return wrong("count");
            }
            let want = Want { count, lease_ns: is_take.then_some(lease_ns) };
            waiters.join(arrival, Waiter { who, want, until: GroupTime(r.u64("wait's end")?) });
            waiters.step(arrival, here);
        }
        Ok(waiters)
    }
}
