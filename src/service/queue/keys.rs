//! The keys of pushes, each known for `KEY_KNOWN_NS` of group time: a push with a known key was done before.

use crate::limits::{KEY_BYTES_MAX, KEY_KNOWN_NS};
use crate::types::GroupTime;
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Bytes of memory a key takes beside its own.
const OVERHEAD_BYTES: u64 = 120;

#[derive(Default, Debug)]
pub struct Keys {
    /// Until when each is known.
    known: BTreeMap<Arc<[u8]>, GroupTime>,
    /// The same by time. A key that was learned again before it was cleared away stands here twice.
    ends: VecDeque<(GroupTime, Arc<[u8]>)>,
    memory: u64,
}

impl Keys {
    /// Whether it is known at `now`.
    pub fn is_known(&self, key: &[u8], now: GroupTime) -> bool {
        self.known.get(key).is_some_and(|&until| until > now)
    }

    /// Learns a key that is not known at `now`.
    pub fn learn(&mut self, key: &[u8], now: GroupTime) {
        self.put(key.into(), GroupTime(now.0.saturating_add(KEY_KNOWN_NS)));
    }

    fn put(&mut self, key: Arc<[u8]>, until: GroupTime) {
        self.memory += OVERHEAD_BYTES + key.len() as u64;
        self.known.insert(key.clone(), until);
        self.ends.push_back((until, key));
    }

    /// When the next key may be cleared away.
    pub fn next_end(&self) -> Option<GroupTime> {
        self.ends.front().map(|&(until, _)| until)
    }

    /// Clears away the key whose time ends first.
    pub fn forget_first(&mut self) {
        let Some((until, key)) = self.ends.pop_front() else { return };
        self.memory -= OVERHEAD_BYTES + key.len() as u64;
        if self.known.get(&key) == Some(&until) {
            self.known.remove(&key);
        }
    }

    pub fn memory_bytes(&self) -> u64 {
        self.memory
    }

    /// Frees a part: about how many bytes; `None` when there is nothing left.
    pub fn dismantle(&mut self) -> Option<u64> {
        let key = self.ends.pop_back().map(|(_, key)| key)?;
        self.known.remove(&key);
        Some(OVERHEAD_BYTES + key.len() as u64)
    }

    pub fn snapshot(&self, out: &mut Vec<u8>) {
        out.put_varint(self.ends.len() as u64);
        for (until, key) in &self.ends {
            out.put_u64(until.0);
            out.put_bytes(key);
        }
    }

    /// Reads what `snapshot` wrote.
    pub fn restore(r: &mut Reader<'_>) -> Decoded<Keys> {
        let mut keys = Keys::default();
        for _ in 0..r.varint("key count")? {
            let until = GroupTime(r.u64("key's time")?);
            if keys.ends.back().is_some_and(|&(previous, _)| previous > until) {
                return Err(DecodeError { field: "key's time" });
            }
            keys.put(r.bytes(KEY_BYTES_MAX, "key")?.into(), until);
        }
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_for_an_hour() {
        let (mut keys, begun) = (Keys::default(), GroupTime(5));
        keys.learn(b"a", begun);
        let end = keys.next_end().expect("one key");
        assert_eq!(end, GroupTime(5 + KEY_KNOWN_NS));
        assert!(keys.is_known(b"a", begun) && !keys.is_known(b"b", begun));
        assert!(keys.is_known(b"a", GroupTime(end.0 - 1)) && !keys.is_known(b"a", end));
        // Learned again before it was cleared away: that is then the older time's end only.
        keys.learn(b"a", end);
        keys.forget_first();
        assert!(keys.is_known(b"a", end));
        let mut bytes = Vec::new();
        keys.snapshot(&mut bytes);
        let copy = Keys::restore(&mut Reader::new(&bytes)).expect("just written");
        assert!(copy.is_known(b"a", end) && copy.memory_bytes() == keys.memory_bytes());
        keys.forget_first();
        keys.forget_first();
        assert_eq!((keys.next_end(), keys.memory_bytes()), (None, 0));
    }
}
