//! The key-value store. The model keeps every state there ever was. Beside it the causal judge: each value tells which
//! versions its writer knew of, so whoever reads it knows of them, too, and is never shown an older one by a replica
//! that says that it has taken in all that is named (bad patterns on unique values: Bouajjani et al., 2017).

use std::collections::{BTreeMap, VecDeque};

use ftq::limits::KV_ADDRESSES_MAX;
use ftq::rng::Rng;
use ftq::types::{GroupTime, ReplicaId, Slot};
use ftq::wire::answer::{split, Code};
use ftq::wire::kv::{Clock, Condition, Found, KvOperation, KvQuery, Listed, Needs, Outcome, Written};
use serde_json::{json, Value};

use super::super::model::Expected;
use super::super::plan::Load;
use super::super::workload::Bytes;
use super::{Asker, Naive, BAD};

type Pair = (u64, String);

#[derive(Debug, Default)]
pub struct Store {
    /// What became of each key, and when.
    keys: BTreeMap<String, Vec<(Slot, Option<Pair>)>>,
    clocks: Vec<(Slot, Clock)>,
    writes: u64,
}

impl Store {
    fn clock(&self) -> Clock {
        self.clocks.last().map_or(Clock::default(), |(_, clock)| clock.clone())
    }

    fn pair(&self, key: &str, slot: Slot) -> Option<&Pair> {
        let lives = self.keys.get(key)?;
        lives.iter().rev().find(|(when, _)| *when <= slot).and_then(|(_, pair)| pair.as_ref())
    }

    /// Why a write is not done.
    fn judge(&self, slot: Slot, address: &str, needs: &Needs, condition: Condition, key: &str) -> Option<Code> {
        let clock = self.clock();
        let has = |address: &String| clock.0.get(address).map_or(0, |door| door.writes);
        let version = self.pair(key, slot).map(|pair| pair.0);
        if clock.0.get(address).is_some_and(|door| door.removed) {
            return Some(Code::NotPrimary);
        }
        if needs.0.iter().any(|(address, count)| has(address) < *count) {
            return Some(Code::Busy);
        }
        if !clock.0.contains_key(address) && clock.0.len() == KV_ADDRESSES_MAX {
            return Some(Code::Full);
        }
        match (condition, version) {
            (Condition::Absent, Some(_)) => Some(Code::Exists),
            (Condition::Version(wanted), Some(version)) if wanted != version => Some(Code::Exists),
            (Condition::Present | Condition::Version(_), None) => Some(Code::NoKey),
            _ => None,
        }
    }

    fn write(&mut self, slot: Slot, address: &str, key: &str, value: Option<&str>) -> Expected {
        let before = self.pair(key, slot).is_some();
        self.writes += 1;
        let version = self.writes;
        self.keys.entry(key.to_owned()).or_default().push((slot, value.map(|value| (version, value.to_owned()))));
        let mut clock = self.clock();
        clock.0.entry(address.to_owned()).or_default().writes += 1;
        self.clocks.push((slot, clock.clone()));
        let outcome = match (value, before) {
            (None, _) => Outcome::Deleted,
            (Some(_), true) => Outcome::Replaced,
            (Some(_), false) => Outcome::Created,
        };
        let mut fields = Vec::new();
        Written { outcome, version, clock }.encode(&mut fields);
        Expected::Ok(fields)
    }

    fn set_removed(&mut self, slot: Slot, address: &str, removed: bool) -> Expected {
        let mut clock = self.clock();
        if removed && clock.0.len() < KV_ADDRESSES_MAX {
            clock.0.entry(address.to_owned()).or_default();
        }
        let door = clock.0.get_mut(address);
        let is_new = door.is_some_and(|door| std::mem::replace(&mut door.removed, removed) != removed);
        self.clocks.push((slot, clock));
        Expected::Ok(vec![u8::from(is_new)])
    }

    fn announce(&mut self, slot: Slot, replica: ReplicaId, address: &str) -> Expected {
        let mut clock = self.clock();
        for door in clock.0.values_mut().filter(|door| door.replica == Some(replica)) {
            door.replica = None;
        }
        clock.0.entry(address.to_owned()).or_default().replica = Some(replica);
        clock.0.retain(|_, door| door.replica.is_some() || door.writes > 0 || door.removed);
        self.clocks.push((slot, clock));
        Expected::nothing()
    }
}

impl Naive for Store {
    fn begin(&mut self, _slot: Slot, _now: GroupTime) {}

    fn execute(&mut self, slot: Slot, _asker: Asker, fields: &[u8]) -> Option<Expected> {
        Some(match KvOperation::decode(fields) {
            Err(_) => BAD,
            Ok(KvOperation::Put { address, needs, condition, key, value }) => {
                match self.judge(slot, address, &needs, condition, key) {
                    Some(code) => Expected::Error(code),
                    None => self.write(slot, address, key, Some(value)),
                }
            }
            Ok(KvOperation::Delete { address, needs, condition, key }) => {
                match self.judge(slot, address, &needs, condition, key) {
                    Some(code) => Expected::Error(code),
                    None if self.pair(key, slot).is_none() => Expected::Error(Code::NoKey),
                    None => self.write(slot, address, key, None),
                }
            }
            Ok(KvOperation::Announce { replica, address }) => self.announce(slot, replica, address),
            Ok(KvOperation::Remove { address }) => self.set_removed(slot, address, true),
            Ok(KvOperation::Admit { address }) => self.set_removed(slot, address, false),
        })
    }

    fn find(&self, slot: Slot, fields: &[u8]) -> Expected {
        let Ok(query) = KvQuery::decode(fields) else { return BAD };
        let clock = self.clocks.iter().rev().find(|(when, _)| *when <= slot);
        let clock = clock.map_or(Clock::default(), |(_, clock)| clock.clone());
        let mut fields = Vec::new();
        match query {
            KvQuery::Get { key } => {
                let pair = self.pair(key, slot).map(|(version, value)| (*version, value.as_str()));
                Found::encode(&clock, pair, &mut fields);
            }
            KvQuery::List { prefix, after, count } => {
                let there = self.keys.keys().filter(|key| key.starts_with(prefix) && key.as_str() > after);
                let there = there.filter_map(|key| {
                    let (version, value) = self.pair(key, slot)?;
                    Some((key.as_str(), *version, value.as_str()))
                });
                let mut rows: Vec<_> = there.collect();
                let more = rows.len() > count.max(1);
                rows.truncate(count.max(1));
                Listed { clock, rows, more }.encode(&mut fields);
            }
            KvQuery::Clock => clock.put(&mut fields),
        }
        Expected::Ok(fields)
    }
}

/// What a client knows: the counters that it hands on, and, apart from these, the versions.
#[derive(Clone, Debug, Default)]
struct Knowledge {
    needs: Needs,
    /// The newest version of each key among the writes that it made, or read, or that those who made these knew of.
    versions: BTreeMap<String, u64>,
}

impl Knowledge {
    fn learn(&mut self, clock: &Clock) {
        for (address, count) in clock.needs().0 {
            let known = self.needs.0.entry(address).or_default();
            *known = (*known).max(count);
        }
    }

    fn learn_version(&mut self, key: &str, version: u64) {
        let known = self.versions.entry(key.to_owned()).or_default();
        *known = (*known).max(version);
    }

    /// What the writer of this value knew of.
    fn learn_value(&mut self, value: &str) {
        let value: Value = serde_json::from_str(value).expect("only JSON is stored");
        for (key, version) in value["knows"].as_object().into_iter().flatten() {
            self.learn_version(key, version.as_u64().expect("a version"));
        }
    }
}

#[derive(Debug, Default)]
pub struct Habit {
    knows: Knowledge,
    /// What was known when these reads were asked for, the oldest first: an answer is held against no more than that.
    asked: BTreeMap<Bytes, VecDeque<Knowledge>>,
    /// What was known when it asked another replica of the same key.
    errand: Knowledge,
}

fn key(rng: &mut Rng, load: &Load) -> String {
    format!("k{}", rng.below(load.queues.min(5)))
}

fn address(rng: &mut Rng) -> String {
    format!("h{}:80", rng.below(4))
}

impl Habit {
    /// Holds a read against what its client knew when it asked.
    fn judge(&mut self, knew: &Knowledge, query: &[u8], stale: bool, answer: &[u8]) {
        let (Ok((Code::Ok, fields)), Ok(KvQuery::Get { key })) = (split(answer), KvQuery::decode(&query[1..])) else {
            return;
        };
        let found = Found::decode(fields).expect("a read's answer");
        // A replica that lacks what is named does not answer.
        if !found.clock.may_answer(&knew.needs) {
            assert!(stale, "causal: a read that asked the view lacks {:?}: {:?}", knew.needs, found.clock);
            return;
        }
        let known = knew.versions.get(key).copied().unwrap_or(0);
        if let Some((version, value)) = found.value {
            assert!(version >= known, "causal: a read of {key} went back from version {known} to {version}");
            self.knows.learn_version(key, version);
            self.knows.learn_value(value);
        }
        self.knows.learn(&found.clock);
    }
}

impl super::Habit for Habit {
    fn operation(&mut self, rng: &mut Rng, load: &Load, client: usize, number: u64) -> Bytes {
        let (key, address) = (&key(rng, load)[..], &address(rng)[..]);
        let mut needs = self.knows.needs.clone();
        match rng.below(30) {
            0 => drop(needs.0.insert("stranger:80".to_owned(), 1)),
            1 => needs.0.values_mut().for_each(|count| *count += 5),
            _ => {}
        }
        let version = self.knows.versions.get(key).copied().unwrap_or(0);
        let condition = match rng.below(10) {
            0 => Condition::Absent,
            1 => Condition::Present,
            2..=3 => Condition::Version(version),
            _ => Condition::Any,
        };
        let value = json!({ "by": format!("{client}/{number}"), "knows": self.knows.versions }).to_string();
        let operation = match rng.below(40) {
            0 => KvOperation::Announce { replica: ReplicaId(rng.between(1, 3) as u8), address },
            1 => KvOperation::Remove { address },
            2..=4 => KvOperation::Admit { address },
            5..=9 => KvOperation::Delete { address, needs, condition, key },
            _ => KvOperation::Put { address, needs, condition, key, value: &value },
        };
        let mut bytes = Vec::new();
        operation.encode(&mut bytes);
        bytes
    }

    fn query(&mut self, rng: &mut Rng, load: &Load) -> Bytes {
        let key = &key(rng, load)[..];
        let query = match rng.below(8) {
            0 => KvQuery::List { prefix: "k", after: if rng.chance(500_000) { key } else { "" }, count: 3 },
            1 => KvQuery::Clock,
            _ => KvQuery::Get { key },
        };
        let mut bytes = Vec::new();
        query.encode(&mut bytes);
        self.asked.entry(bytes.clone()).or_default().push_back(self.knows.clone());
        bytes
    }

    fn hear(&mut self, operation: &[u8], answer: &[u8]) {
        let Ok((Code::Ok, fields)) = split(answer) else { return };
        let Ok(KvOperation::Put { key, .. } | KvOperation::Delete { key, .. }) = KvOperation::decode(&operation[1..])
        else {
            return;
        };
        let written = Written::decode(fields).expect("a write's answer");
        self.knows.learn(&written.clock);
        self.knows.learn_version(key, written.version);
    }

    fn found(&mut self, query: &[u8], stale: bool, answer: &[u8]) {
        if let Some(knew) = self.asked.get_mut(query).and_then(VecDeque::pop_front) {
            self.judge(&knew, query, stale, answer);
        }
    }

    /// The key that was just written or read.
    fn errand(&mut self, answered: &[u8]) -> Option<Bytes> {
        let key = match (KvOperation::decode(&answered[1..]), KvQuery::decode(&answered[1..])) {
            (Ok(KvOperation::Put { key, .. } | KvOperation::Delete { key, .. }), _) | (_, Ok(KvQuery::Get { key })) => {
                key
            }
            _ => return None,
        };
        let mut bytes = Vec::new();
        KvQuery::Get { key }.encode(&mut bytes);
        self.errand = self.knows.clone();
        Some(bytes)
    }

    fn errand_found(&mut self, query: &[u8], answer: &[u8]) {
        let knew = std::mem::take(&mut self.errand);
        self.judge(&knew, query, true, answer);
    }
}
