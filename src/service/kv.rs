//! The key-value store: JSON values by key, each write counted under the address that took it in.
//!
//! Causal by the counters (`wire::kv`): a write names those it depends on, and is not done where they are missing; a
//! read is told the counters of the state that it saw. Writes are totally ordered, so concurrent ones converge, and a
//! version names one write of the whole store for ever. An address may be removed: its replica serves no keys then,
//! but its counter stays, so that metadata which names it stays valid.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{Answers, Refusal, Service, Who};
use crate::limits::{BATCH_BYTES_MAX, COUNTER_MAX, KV_ADDRESSES_MAX, KV_KEY_BYTES_MAX, KV_VALUE_BYTES_MAX};
use crate::types::{At, GroupTime, ReplicaId, SessionId};
use crate::wire::answer::Code;
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};
use crate::wire::json;
use crate::wire::kv::{is_key, Clock, Condition, Found, KvOperation, KvQuery, Listed, Needs, Outcome, Written};

const SNAPSHOT_VERSION: u8 = 1;
/// Bytes an entry takes beside its key and value.
const ENTRY_OVERHEAD: u64 = 128;
/// Bytes of an address and what is known of it, roughly.
const DOOR_BYTES: u64 = 128;

#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    version: u64,
    value: Box<str>,
}

/// All keys and their values.
#[derive(Default, Debug)]
pub struct Store {
    entries: BTreeMap<Box<str>, Entry>,
    /// Writes so far: the version of the last one.
    writes: u64,
    clock: Clock,
    /// Bytes of all keys and values, with what they take beside.
    memory: u64,
}

fn weight(key: &str, entry: &Entry) -> u64 {
    ENTRY_OVERHEAD + key.len() as u64 + entry.value.len() as u64
}

impl Store {
    /// Whether a write may be done.
    fn check(&self, address: &str, needs: &Needs, condition: Condition, key: &str) -> Result<(), Refusal> {
        if self.clock.is_removed(address) {
            return Err(Refusal(Code::NotPrimary, format!("{address} was removed from the view")));
        }
        if !self.clock.covers(needs) && !crate::broken::is("kv-needs-ignored") {
            return Err(Refusal(Code::Busy, self.clock.lack(needs)));
        }
        if !self.clock.0.contains_key(address) && self.clock.0.len() >= KV_ADDRESSES_MAX {
            return Err(Refusal(Code::Full, format!("{KV_ADDRESSES_MAX} addresses have taken in writes already")));
        }
        let version = self.entries.get(key).map(|entry| entry.version);
        match (condition, version) {
            (Condition::Any, _) | (Condition::Present, Some(_)) | (Condition::Absent, None) => Ok(()),
            (Condition::Version(wanted), Some(version)) if wanted == version => Ok(()),
            (Condition::Version(_), Some(_)) if crate::broken::is("kv-version-ignored") => Ok(()),
            (Condition::Present | Condition::Version(_), None) => Err(no_key(key)),
            (_, Some(version)) => Err(Refusal(Code::Exists, format!("key {key} has version {version}"))),
        }
    }

    fn take_out(&mut self, key: &str) -> Option<Entry> {
        let (key, entry) = self.entries.remove_entry(key)?;
        self.memory -= weight(&key, &entry);
        Some(entry)
    }

    fn put_in(&mut self, key: &str, entry: Entry) {
        self.memory += weight(key, &entry);
        self.entries.insert(key.into(), entry);
    }

    /// Counts a write, and says what it came to.
    fn count(&mut self, address: &str, outcome: Outcome) -> Vec<u8> {
        self.clock.0.entry(address.to_owned()).or_default().writes += 1;
        let mut answer = vec![Code::Ok as u8];
        Written { outcome, version: self.writes, clock: self.clock.clone() }.encode(&mut answer);
        answer
    }

    fn execute(&mut self, operation: &KvOperation<'_>) -> Result<Vec<u8>, Refusal> {
        match *operation {
            KvOperation::Put { address, ref needs, condition, key, value } => {
                self.check(address, needs, condition, key)?;
                let outcome = if self.take_out(key).is_some() { Outcome::Replaced } else { Outcome::Created };
                self.writes += 1;
                self.put_in(key, Entry { version: self.writes, value: value.into() });
                Ok(self.count(address, outcome))
            }
            KvOperation::Delete { address, ref needs, condition, key } => {
                self.check(address, needs, condition, key)?;
                self.take_out(key).ok_or_else(|| no_key(key))?;
                self.writes += 1;
                Ok(self.count(address, Outcome::Deleted))
            }
            KvOperation::Announce { replica, address } => self.announce(replica, address),
            KvOperation::Remove { address } => Ok(self.set_removed(address, true)),
            KvOperation::Admit { address } => Ok(self.set_removed(address, false)),
        }
    }

    /// An address that a replica has left and that took in nothing is forgotten.
    fn announce(&mut self, replica: ReplicaId, address: &str) -> Result<Vec<u8>, Refusal> {
        let doors = &mut self.clock.0;
        for (own, door) in doors.iter_mut() {
            if door.replica == Some(replica) && own != address {
                door.replica = None;
            }
        }
        doors.retain(|own, door| own == address || door.writes > 0 || door.removed || door.replica.is_some());
        if !doors.contains_key(address) && doors.len() >= KV_ADDRESSES_MAX {
            return Err(Refusal(Code::Full, format!("{KV_ADDRESSES_MAX} addresses are known already")));
        }
        doors.entry(address.to_owned()).or_default().replica = Some(replica);
        Ok(vec![Code::Ok as u8])
    }

    fn set_removed(&mut self, address: &str, removed: bool) -> Vec<u8> {
        // The book may name who never announced itself.
        let doors = &mut self.clock.0;
        if removed && doors.len() < KV_ADDRESSES_MAX {
            doors.entry(address.to_owned()).or_default();
        }
        let door = doors.get_mut(address);
        let is_new = door.is_some_and(|door| std::mem::replace(&mut door.removed, removed) != removed);
        vec![Code::Ok as u8, u8::from(is_new)]
    }

    fn list(&self, prefix: &str, after: &str, count: usize, answer: &mut Vec<u8>) {
        let from = if after >= prefix { Bound::Excluded(after) } else { Bound::Included(prefix) };
        let mut matching = self
            .entries
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .peekable();
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some((key, entry)) = matching.peek() {
            bytes += key.len() + entry.value.len() + 16;
            if rows.len() >= count.max(1) || !rows.is_empty() && bytes > BATCH_BYTES_MAX {
                break;
            }
            rows.push((&***key, entry.version, &*entry.value));
            matching.next();
        }
        let more = matching.peek().is_some();
        Listed { clock: self.clock.clone(), rows, more }.encode(answer);
    }

    fn read(r: &mut Reader<'_>) -> Decoded<Store> {
        let wrong = |field| Err(DecodeError { field });
        if r.u8("store version")? != SNAPSHOT_VERSION {
            return wrong("store version");
        }
        let mut store = Store { writes: r.varint("writes")?, clock: Clock::get(r)?, ..Store::default() };
        let counted: u128 = store.clock.0.values().map(|door| u128::from(door.writes)).sum();
        if store.writes > COUNTER_MAX || counted != u128::from(store.writes) {
            return wrong("writes");
        }
        for _ in 0..r.varint("key count")? {
            let key = r.str(KV_KEY_BYTES_MAX, "key")?;
            if !is_key(key) || store.entries.last_key_value().is_some_and(|(last, _)| **last >= *key) {
                return wrong("key");
            }
            let version = r.varint("version")?;
            let value = r.bytes(KV_VALUE_BYTES_MAX, "value")?;
            match json::value(value, usize::MAX) {
                Ok(text) if text.len() == value.len() && (1..=store.writes).contains(&version) => {
                    store.put_in(key, Entry { version, value: text.into() });
                }
                _ => return wrong("value"),
            }
        }
        Ok(store)
    }
}

fn no_key(key: &str) -> Refusal {
    Refusal(Code::NoKey, format!("there is no key {key}"))
}

impl Service for Store {
    fn apply(&mut self, _: At, who: Who, operation: &[u8], out: &mut Answers) {
        let done = KvOperation::decode(operation).map_err(Refusal::from).and_then(|op| self.execute(&op));
        out.answer(who, |answer| match done {
            Ok(done) => answer.extend_from_slice(&done),
            Err(refusal) => refusal.put(answer),
        });
    }

    fn query(&self, query: &[u8], answer: &mut Vec<u8>) {
        let query = match KvQuery::decode(query) {
            Ok(query) => query,
            Err(e) => return Refusal::from(e).put(answer),
        };
        answer.put_u8(Code::Ok as u8);
        match query {
            KvQuery::Get { key } => {
                let value = self.entries.get(key).map(|entry| (entry.version, &*entry.value));
                Found::encode(&self.clock, value, answer);
            }
            KvQuery::List { prefix, after, count } => self.list(prefix, after, count, answer),
            KvQuery::Clock => self.clock.put(answer),
        }
    }

    fn tick(&mut self, _: At, _: &mut Answers) {}

    fn ended(&mut self, _: SessionId, _: &mut Answers) {}

    fn due(&self) -> Option<GroupTime> {
        None
    }

    fn snapshot(&self, out: &mut Vec<u8>) {
        out.put_u8(SNAPSHOT_VERSION);
        out.put_varint(self.writes);
        self.clock.put(out);
        out.put_varint(self.entries.len() as u64);
        for (key, entry) in &self.entries {
            out.put_str(key);
            out.put_varint(entry.version);
            out.put_str(&entry.value);
        }
    }

    fn restore(&mut self, snapshot: &[u8]) -> Decoded<()> {
        let mut r = Reader::new(snapshot);
        *self = Store::read(&mut r)?;
        r.end("store")
    }

    fn memory_bytes(&self) -> u64 {
        self.memory + self.clock.0.len() as u64 * DOOR_BYTES
    }
}

#[cfg(test)]
mod tests;
