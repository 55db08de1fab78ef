//! Pops and takes that wait for items of one queue, in the order in which they came: who came first is served first,
//! whatever replica it is connected to.

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
    ends: BTreeSet<(GroupTime, Arrival)>,
}

impl Waiters {
    pub fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    pub fn len(&self) -> u64 {
        self.line.len() as u64
    }

    pub fn memory_bytes(&self) -> u64 {
        self.len() * WAITER_BYTES
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
        let waiter = self.line.remove(&arrival)?;
        self.ends.remove(&(waiter.until, arrival));
        Some(waiter)
    }

    /// Who came first.
    pub fn first(&self) -> Option<Arrival> {
        self.line.first_key_value().map(|(&arrival, _)| arrival)
    }

    /// Whose wait ends first, and when.
    pub fn next_end(&self) -> Option<(GroupTime, Arrival)> {
        self.ends.first().copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Arrival, &Waiter)> {
        self.line.iter().map(|(&arrival, waiter)| (arrival, waiter))
    }

    pub fn snapshot(&self, out: &mut Vec<u8>) {
        out.put_varint(self.line.len() as u64);
        for (arrival, Waiter { who, want, until }) in &self.line {
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
            let arrival = Arrival(r.varint("arrival")?);
            if waiters.line.last_key_value().is_some_and(|(&previous, _)| previous >= arrival) || arrival > last {
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
        }
        Ok(waiters)
    }
}
