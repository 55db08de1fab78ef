//! The operations and queries of the key-value store as bytes, service 4 of [`crate::wire::operation`]. Numbers are
//! append-only.
//!
//! A write is counted under the address that took it in. These counters are a vector clock (Fidge, 1988; Mattern,
//! 1989): metadata that names them says which writes a client knows of, and a state that has reached them all has
//! applied these writes, for there is one order.

use std::collections::BTreeMap;

use crate::limits::{
    ADDRESS_BYTES_MAX, JSON_DEPTH_MAX, KV_ADDRESSES_MAX, KV_KEY_BYTES_MAX, KV_LIST_MAX, KV_VALUE_BYTES_MAX,
    REPLICA_ID_MAX,
};
use crate::types::ReplicaId;
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};
use crate::wire::json;
use crate::wire::operation::service;

/// The address under which writes of `ftqc` and the library are counted.
pub const CLIENTS: &str = "ftqc";

/// What must hold of a key for a write to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Condition {
    #[default]
    Any,
    /// It has this version.
    Version(u64),
    /// It is there, whatever its version.
    Present,
    Absent,
}

/// Counters by address: the writes that a state must have taken in.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Needs(pub BTreeMap<String, u64>);

/// Operations. Answers are given as what follows [`crate::wire::answer::Code::Ok`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KvOperation<'a> {
    /// Answer: [`Written`]. `Busy` where the needs are not met, `Exists` where the condition is not (`NoKey` where
    /// there is no such key), `NotPrimary` where the address was removed; then nothing is done.
    Put { address: &'a str, needs: Needs, condition: Condition, key: &'a str, value: &'a str },
    /// The same; `NoKey` where there is nothing to delete.
    Delete { address: &'a str, needs: Needs, condition: Condition, key: &'a str },
    /// The replica's HTTP door is at this address. Answer: nothing.
    Announce { replica: ReplicaId, address: &'a str },
    /// The address is out: its replica serves no keys until it is admitted again. Answer: whether that is new, bool.
    Remove { address: &'a str },
    /// The address is in again. Answer: whether that is new, bool.
    Admit { address: &'a str },
}

/// Queries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KvQuery<'a> {
    /// Answer: [`Found`].
    Get { key: &'a str },
    /// Up to `count` keys that begin with `prefix` and come after `after`, in their order. Answer: [`Listed`].
    List { prefix: &'a str, after: &'a str, count: usize },
    /// Answer: [`Clock`].
    Clock,
}

/// What is known of one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Door {
    /// Writes that it took in.
    pub writes: u64,
    /// The replica that announced it last, unless that has another one now.
    pub replica: Option<ReplicaId>,
    /// It serves no keys.
    pub removed: bool,
}

/// Every address that ever took in a write or was announced.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Clock(pub BTreeMap<String, Door>);

/// What a write came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Outcome {
    Created = 1,
    Replaced = 2,
    Deleted = 3,
}

/// The answer to a write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    pub outcome: Outcome,
    /// Names this write of the whole store for ever: later ones have greater versions.
    pub version: u64,
    pub clock: Clock,
}

/// The answer to a read of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found<'a> {
    pub clock: Clock,
    /// The version, and the value as it was sent.
    pub value: Option<(u64, &'a str)>,
}

/// A page of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed<'a> {
    pub clock: Clock,
    /// Key, version and value.
    pub rows: Vec<(&'a str, u64, &'a str)>,
    /// There are more behind the last.
    pub more: bool,
}

/// Whether these may name a key: 1 to 500 bytes without control characters.
pub fn is_key(key: &str) -> bool {
    !key.is_empty() && key.len() <= KV_KEY_BYTES_MAX && !key.chars().any(char::is_control)
}

/// Whether these may be an address or stand for one.
pub fn is_address(address: &str) -> bool {
    let plain = |c: char| !c.is_control() && !c.is_whitespace();
    !address.is_empty() && address.len() <= ADDRESS_BYTES_MAX && address.chars().all(plain)
}

impl Needs {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_varint(self.0.len() as u64);
        for (address, count) in &self.0 {
            out.put_str(address);
            out.put_varint(*count);
        }
    }

    fn get(r: &mut Reader<'_>) -> Decoded<Needs> {
        let mut needs = BTreeMap::new();
        for _ in 0..r.count(KV_ADDRESSES_MAX, "needs")? {
            let (address, count) = (address(r)?, r.varint("need")?);
            put_rising(&mut needs, address, count)?;
        }
        Ok(Needs(needs))
    }
}

/// One value has one form: addresses rise.
fn put_rising<T>(map: &mut BTreeMap<String, T>, address: &str, value: T) -> Decoded<()> {
    if map.last_key_value().is_some_and(|(last, _)| last.as_str() >= address) {
        return Err(DecodeError { field: "order of addresses" });
    }
    map.insert(address.to_owned(), value);
    Ok(())
}

impl Clock {
    /// Whether this state has taken in all that is named.
    pub fn covers(&self, needs: &Needs) -> bool {
        self.lacking(needs).is_none()
    }

    /// The first address of which more writes are named than are here, how many are, and how many are here.
    fn lacking<'a>(&self, needs: &'a Needs) -> Option<(&'a str, u64, u64)> {
        let counts = needs
            .0
            .iter()
            .map(|(address, &count)| (address.as_str(), count, self.0.get(address).map_or(0, |door| door.writes)));
        counts.into_iter().find(|(_, named, here)| named > here)
    }

    /// Why what is named cannot be waited for any longer.
    pub fn lack(&self, needs: &Needs) -> String {
        let what =
            self.lacking(needs).map(|(address, named, here)| format!(": {named} of {address} are named, {here} are"));
        format!("the writes that the causal metadata names are not all here{}", what.unwrap_or_default())
    }

    /// Whether a read of this state may be answered to whoever knows of that.
    pub fn may_answer(&self, needs: &Needs) -> bool {
        self.covers(needs) || crate::broken::is("kv-goes-back")
    }

    /// Whether this address was removed.
    pub fn is_removed(&self, address: &str) -> bool {
        self.0.get(address).is_some_and(|door| door.removed)
    }

    /// Everything that this state has taken in.
    pub fn needs(&self) -> Needs {
        let counted = self.0.iter().filter(|(_, door)| door.writes > 0);
        Needs(counted.map(|(address, door)| (address.clone(), door.writes)).collect())
    }

    pub fn put(&self, out: &mut Vec<u8>) {
        out.put_varint(self.0.len() as u64);
        for (address, door) in &self.0 {
            out.put_str(address);
            out.put_varint(door.writes);
            out.put_u8(door.replica.map_or(0, |id| id.0));
            out.put_bool(door.removed);
        }
    }

    pub fn get(r: &mut Reader<'_>) -> Decoded<Clock> {
        let mut doors = BTreeMap::new();
        for _ in 0..r.count(KV_ADDRESSES_MAX, "addresses")? {
            let address = address(r)?;
            let writes = r.varint("writes")?;
            let replica = match r.u8("replica")? {
                0 => None,
                id if id <= REPLICA_ID_MAX => Some(ReplicaId(id)),
                _ => return Err(DecodeError { field: "replica" }),
            };
            let door = Door { writes, replica, removed: r.bool("removed")? };
            put_rising(&mut doors, address, door)?;
        }
        Ok(Clock(doors))
    }
}

impl Condition {
    fn put(self, out: &mut Vec<u8>) {
        match self {
            Condition::Any => out.put_u8(0),
            Condition::Version(version) => {
                out.put_u8(1);
                out.put_varint(version);
            }
            Condition::Present => out.put_u8(2),
            Condition::Absent => out.put_u8(3),
        }
    }

    fn get(r: &mut Reader<'_>) -> Decoded<Condition> {
        match r.u8("condition")? {
            0 => Ok(Condition::Any),
            1 => Ok(Condition::Version(r.varint("version")?)),
            2 => Ok(Condition::Present),
            3 => Ok(Condition::Absent),
            _ => Err(DecodeError { field: "condition" }),
        }
    }
}

fn key<'a>(r: &mut Reader<'a>) -> Decoded<&'a str> {
    let key = r.str(KV_KEY_BYTES_MAX, "key")?;
    if is_key(key) {
        Ok(key)
    } else {
        Err(DecodeError { field: "key" })
    }
}

fn address<'a>(r: &mut Reader<'a>) -> Decoded<&'a str> {
    let address = r.str(ADDRESS_BYTES_MAX, "address")?;
    if is_address(address) {
        Ok(address)
    } else {
        Err(DecodeError { field: "address" })
    }
}

/// One value, well formed, without blanks around it.
fn value<'a>(r: &mut Reader<'a>) -> Decoded<&'a str> {
    let bytes = r.bytes(KV_VALUE_BYTES_MAX, "value")?;
    let wrong = DecodeError { field: "value" };
    json::value(bytes, JSON_DEPTH_MAX).ok().filter(|value| value.len() == bytes.len()).ok_or(wrong)
}

impl<'a> KvOperation<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(service::KV);
        match self {
            KvOperation::Put { address, needs, condition, key, value } => {
                out.put_u8(1);
                out.put_str(address);
                needs.put(out);
                condition.put(out);
                out.put_str(key);
                out.put_str(value);
            }
            KvOperation::Delete { address, needs, condition, key } => {
                out.put_u8(2);
                out.put_str(address);
                needs.put(out);
                condition.put(out);
                out.put_str(key);
            }
            KvOperation::Announce { replica, address } => {
                out.put_u8(3);
                out.put_u8(replica.0);
                out.put_str(address);
            }
            KvOperation::Remove { address } => {
                out.put_u8(4);
                out.put_str(address);
            }
            KvOperation::Admit { address } => {
                out.put_u8(5);
                out.put_str(address);
            }
        }
    }

    /// `fields` is what follows the service's byte.
    pub fn decode(fields: &'a [u8]) -> Decoded<KvOperation<'a>> {
        let mut reader = Reader::new(fields);
        let r = &mut reader;
        let operation = match r.u8("key-value operation")? {
            1 => KvOperation::Put {
                address: address(r)?,
                needs: Needs::get(r)?,
                condition: Condition::get(r)?,
                key: key(r)?,
                value: value(r)?,
            },
            2 => KvOperation::Delete {
                address: address(r)?,
                needs: Needs::get(r)?,
                condition: Condition::get(r)?,
                key: key(r)?,
            },
            3 => {
                let replica = ReplicaId(r.u8("replica")?);
                if replica.0 == 0 || replica.0 > REPLICA_ID_MAX {
                    return Err(DecodeError { field: "replica" });
                }
                KvOperation::Announce { replica, address: address(r)? }
            }
            4 => KvOperation::Remove { address: address(r)? },
            5 => KvOperation::Admit { address: address(r)? },
            _ => return Err(DecodeError { field: "key-value operation" }),
        };
        reader.end("key-value operation")?;
        Ok(operation)
    }
}

impl<'a> KvQuery<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(service::KV);
        match *self {
            KvQuery::Get { key } => {
                out.put_u8(128);
                out.put_str(key);
            }
            KvQuery::List { prefix, after, count } => {
                out.put_u8(129);
                out.put_str(prefix);
                out.put_str(after);
                out.put_varint(count as u64);
            }
            KvQuery::Clock => out.put_u8(130),
        }
    }

    /// `fields` is what follows the service's byte.
    pub fn decode(fields: &'a [u8]) -> Decoded<KvQuery<'a>> {
        let mut reader = Reader::new(fields);
        let r = &mut reader;
        let query = match r.u8("key-value query")? {
            128 => KvQuery::Get { key: key(r)? },
            129 => KvQuery::List {
                prefix: r.str(KV_KEY_BYTES_MAX, "prefix")?,
                after: r.str(KV_KEY_BYTES_MAX, "after")?,
                count: r.count(KV_LIST_MAX, "count")?,
            },
            130 => KvQuery::Clock,
            _ => return Err(DecodeError { field: "key-value query" }),
        };
        reader.end("key-value query")?;
        Ok(query)
    }
}

impl Written {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.outcome as u8);
        out.put_varint(self.version);
        self.clock.put(out);
    }

    pub fn decode(bytes: &[u8]) -> Decoded<Written> {
        let mut r = Reader::new(bytes);
        let outcome = match r.u8("outcome")? {
            1 => Outcome::Created,
            2 => Outcome::Replaced,
            3 => Outcome::Deleted,
            _ => return Err(DecodeError { field: "outcome" }),
        };
        let written = Written { outcome, version: r.varint("version")?, clock: Clock::get(&mut r)? };
        r.end("outcome")?;
        Ok(written)
    }
}

impl<'a> Found<'a> {
    pub fn encode(clock: &Clock, value: Option<(u64, &str)>, out: &mut Vec<u8>) {
        clock.put(out);
        out.put_bool(value.is_some());
        if let Some((version, value)) = value {
            out.put_varint(version);
            out.put_str(value);
        }
    }

    pub fn decode(bytes: &'a [u8]) -> Decoded<Found<'a>> {
        let mut r = Reader::new(bytes);
        let clock = Clock::get(&mut r)?;
        let is_there = r.bool("found")?;
        let value = if is_there { Some((r.varint("version")?, r.str(KV_VALUE_BYTES_MAX, "value")?)) } else { None };
        r.end("found")?;
        Ok(Found { clock, value })
    }
}

impl<'a> Listed<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.clock.put(out);
        out.put_bool(self.more);
        out.put_varint(self.rows.len() as u64);
        for (key, version, value) in &self.rows {
            out.put_str(key);
            out.put_varint(*version);
            out.put_str(value);
        }
    }

    pub fn decode(bytes: &'a [u8]) -> Decoded<Listed<'a>> {
        let mut r = Reader::new(bytes);
        let (clock, more) = (Clock::get(&mut r)?, r.bool("more")?);
        let count = r.count(KV_LIST_MAX, "row count")?;
        let mut row = || Ok((key(&mut r)?, r.varint("version")?, r.str(KV_VALUE_BYTES_MAX, "value")?));
        let rows = (0..count).map(|_| row()).collect::<Decoded<Vec<_>>>()?;
        r.end("rows")?;
        Ok(Listed { clock, rows, more })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    fn needs(list: &[(&str, u64)]) -> Needs {
        Needs(list.iter().map(|&(address, count)| (address.to_owned(), count)).collect())
    }

    fn clock(list: &[(&str, u64)]) -> Clock {
        let door = |writes| Door { writes, ..Door::default() };
        Clock(list.iter().map(|&(address, writes)| (address.to_owned(), door(writes))).collect())
    }

    fn operations(version: u64) -> Vec<KvOperation<'static>> {
        let needs = needs(&[("a:1", version), ("b:2", 0)]);
        let (address, key) = ("a:1", "gr\u{fc}n key");
        let all = [Condition::Any, Condition::Version(version), Condition::Present, Condition::Absent];
        let mut operations: Vec<KvOperation<'static>> = Vec::new();
        for condition in all {
            operations.push(KvOperation::Put { address, needs: needs.clone(), condition, key, value: "[1.0]" });
            operations.push(KvOperation::Delete { address, needs: needs.clone(), condition, key });
        }
        operations.push(KvOperation::Announce { replica: ReplicaId(7), address });
        operations.push(KvOperation::Remove { address });
        operations.push(KvOperation::Admit { address });
        operations
    }

    quickcheck! {
        fn operations_come_back(version: u64) -> bool {
            operations(version).iter().all(|operation| {
                let mut bytes = Vec::new();
                operation.encode(&mut bytes);
                assert_eq!(bytes[0], service::KV);
                for length in 1..bytes.len() {
                    assert!(KvOperation::decode(&bytes[1..length]).is_err(), "{operation:?} cut to {length}");
                }
                KvOperation::decode(&bytes[1..]).as_ref() == Ok(operation)
            })
        }

        fn queries_come_back(count: u8) -> bool {
            let list = KvQuery::List { prefix: "a", after: "", count: usize::from(count) };
            [KvQuery::Get { key: "k" }, list, KvQuery::Clock].into_iter().all(|query| {
                let mut bytes = Vec::new();
                query.encode(&mut bytes);
                KvQuery::decode(&bytes[1..]) == Ok(query)
            })
        }

        fn garbage_never_panics_and_has_one_form(bytes: Vec<u8>) -> bool {
            let _ = KvQuery::decode(&bytes);
            let _ = (Written::decode(&bytes), Found::decode(&bytes).is_ok(), Listed::decode(&bytes).is_ok());
            let Ok(operation) = KvOperation::decode(&bytes) else { return true };
            let mut again = Vec::new();
            operation.encode(&mut again);
            again[1..] == bytes
        }
    }

    #[test]
    fn answers_come_back() {
        let mut clock = clock(&[("a:1", 3), ("b:2", 0)]);
        clock.0.insert("c:3".into(), Door { writes: 9, replica: Some(ReplicaId(3)), removed: true });
        let mut bytes = Vec::new();
        let written = Written { outcome: Outcome::Replaced, version: 12, clock: clock.clone() };
        written.encode(&mut bytes);
        assert_eq!(Written::decode(&bytes), Ok(written));
        for value in [None, Some((4, "{\"a\":1}"))] {
            bytes.clear();
            Found::encode(&clock, value, &mut bytes);
            assert_eq!(Found::decode(&bytes), Ok(Found { clock: clock.clone(), value }));
        }
        bytes.clear();
        let listed = Listed { clock: clock.clone(), rows: vec![("k", 1, "2"), ("l", 3, "null")], more: true };
        listed.encode(&mut bytes);
        assert_eq!(Listed::decode(&bytes), Ok(listed));
        assert!(clock.is_removed("c:3") && !clock.is_removed("a:1") && !clock.is_removed("d:4"));
        assert_eq!(clock.needs(), needs(&[("a:1", 3), ("c:3", 9)]));
    }

    #[test]
    fn a_state_covers_what_it_has_taken_in() {
        let clock = clock(&[("a:1", 3), ("b:2", 1)]);
        for covered in [&[][..], &[("a:1", 3)], &[("a:1", 2), ("b:2", 1)], &[("x:9", 0)]] {
            assert!(clock.covers(&needs(covered)), "{covered:?}");
        }
        for beyond in [&[("a:1", 4)][..], &[("a:1", 3), ("b:2", 2)], &[("x:9", 1)], &[("a:1", u64::MAX)]] {
            assert!(!clock.covers(&needs(beyond)), "{beyond:?}");
        }
        let lack = clock.lack(&needs(&[("a:1", 3), ("b:2", 7), ("x:9", 1)]));
        assert!(lack.ends_with("not all here: 7 of b:2 are named, 1 are"), "{lack}");
    }

    #[test]
    fn names_are_judged() {
        assert!(is_key("a") && is_key("a/b c") && is_key(&"k".repeat(500)) && is_key("\u{1f600}"));
        for bad in ["", "a\n", "a\0", "\u{85}", &"k".repeat(501)] {
            assert!(!is_key(bad), "{bad:?}");
        }
        assert!(is_address("host:80") && is_address("[::1]:80") && is_address(CLIENTS));
        assert!(!is_address("") && !is_address("a b") && !is_address(&"a".repeat(256)));
    }

    #[test]
    fn a_value_is_json_without_blanks_around_it() {
        let decoded = |value: &str| {
            let (address, needs, condition) = ("a:1", Needs::default(), Condition::Any);
            let mut bytes = Vec::new();
            KvOperation::Put { address, needs, condition, key: "k", value }.encode(&mut bytes);
            KvOperation::decode(&bytes[1..]).map(drop).map_err(|e| e.field)
        };
        assert_eq!(decoded("-1.50e9999"), Ok(()));
        for bad in ["", " 1", "1 ", "x", "[", "1 2"] {
            assert_eq!(decoded(bad), Err("value"), "{bad}");
        }
        assert_eq!(decoded(&("[".repeat(JSON_DEPTH_MAX) + &"]".repeat(JSON_DEPTH_MAX))), Ok(()));
        assert_eq!(decoded(&("[".repeat(JSON_DEPTH_MAX + 1) + &"]".repeat(JSON_DEPTH_MAX + 1))), Err("value"));
    }
}
