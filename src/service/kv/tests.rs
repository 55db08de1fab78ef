//! What the store must do whatever comes: see `service::kv`.

use super::*;
use crate::types::{RequestNumber, Slot};
use crate::wire::answer::split;
use crate::wire::kv::Door;
use quickcheck::quickcheck;

const AT: At = At { slot: Slot(1), position: 0, time: GroupTime(0) };
const WHO: Who = Who { session: SessionId::NONE, number: RequestNumber(1) };
const A: &str = "a:80";
const B: &str = "b:80";

fn apply_bytes(store: &mut Store, bytes: &[u8]) -> (Code, Vec<u8>) {
    let mut out = Answers::default();
    store.apply(AT, WHO, bytes, &mut out);
    let answers: Vec<Vec<u8>> = out.iter().map(|(_, answer)| answer.to_vec()).collect();
    assert_eq!(answers.len(), 1, "each operation is answered once");
    let (code, fields) = split(&answers[0]).expect("an answer");
    (code, fields.to_vec())
}

fn apply(store: &mut Store, operation: &KvOperation<'_>) -> (Code, Vec<u8>) {
    let mut bytes = Vec::new();
    operation.encode(&mut bytes);
    apply_bytes(store, &bytes[1..])
}

fn put_if(store: &mut Store, address: &str, needs: &Needs, condition: Condition, key: &str, value: &str) -> Written {
    let (code, fields) = apply(store, &KvOperation::Put { address, needs: needs.clone(), condition, key, value });
    assert_eq!(code, Code::Ok, "{}", String::from_utf8_lossy(&fields));
    Written::decode(&fields).expect("what was written")
}

fn put(store: &mut Store, address: &str, key: &str, value: &str) -> Written {
    put_if(store, address, &Needs::default(), Condition::Any, key, value)
}

fn refused(store: &mut Store, operation: &KvOperation<'_>) -> Code {
    let before = snapshot(store);
    let (code, text) = apply(store, operation);
    assert_ne!(code, Code::Ok);
    assert!(!text.is_empty() && std::str::from_utf8(&text).is_ok(), "a refusal says why");
    assert_eq!(snapshot(store), before, "nothing is done");
    code
}

fn asked(store: &Store, query: KvQuery<'_>) -> Vec<u8> {
    let (mut bytes, mut answer) = (Vec::new(), Vec::new());
    query.encode(&mut bytes);
    store.query(&bytes[1..], &mut answer);
    let (code, fields) = split(&answer).expect("an answer");
    assert_eq!(code, Code::Ok);
    fields.to_vec()
}

fn get(store: &Store, key: &str) -> Option<(u64, String)> {
    let answer = asked(store, KvQuery::Get { key });
    Found::decode(&answer).expect("found").value.map(|(version, value)| (version, value.to_owned()))
}

fn keys(store: &Store, prefix: &str, after: &str, count: usize) -> (Vec<String>, bool) {
    let answer = asked(store, KvQuery::List { prefix, after, count });
    let listed = Listed::decode(&answer).expect("a page");
    (listed.rows.iter().map(|(key, ..)| (*key).to_owned()).collect(), listed.more)
}

fn snapshot(store: &Store) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.snapshot(&mut bytes);
    bytes
}

fn needs(list: &[(&str, u64)]) -> Needs {
    Needs(list.iter().map(|&(address, count)| (address.to_owned(), count)).collect())
}

fn delete<'a>(key: &'a str, condition: Condition) -> KvOperation<'a> {
    KvOperation::Delete { address: A, needs: Needs::default(), condition, key }
}

#[test]
fn values_come_back_as_they_were_put() {
    let mut store = Store::default();
    let text = "{\"n\": 123456789012345678901234567890.10, \"s\":\"\\u00e4\"}";
    let first = put(&mut store, A, "k", text);
    assert_eq!((first.outcome, first.version, first.clock.needs()), (Outcome::Created, 1, needs(&[(A, 1)])));
    assert_eq!(get(&store, "k"), Some((1, text.to_owned())));
    let second = put(&mut store, B, "k", "null");
    assert_eq!((second.outcome, second.version), (Outcome::Replaced, 2));
    assert_eq!(second.clock.needs(), needs(&[(A, 1), (B, 1)]));
    let (code, fields) = apply(&mut store, &delete("k", Condition::Any));
    let gone = Written::decode(&fields).expect("what was written");
    assert_eq!((code, gone.outcome, gone.version), (Code::Ok, Outcome::Deleted, 3));
    assert_eq!(get(&store, "k"), None);
    assert_eq!(refused(&mut store, &delete("k", Condition::Any)), Code::NoKey);
    assert_eq!(store.memory, 0);
    // A version is never given twice, even to a key that comes again.
    assert_eq!(put(&mut store, A, "k", "1").version, 4);
}

#[test]
fn a_write_whose_needs_are_not_met_is_not_done() {
    let mut store = Store::default();
    let met = put(&mut store, A, "k", "1").clock.needs();
    let put_with =
        |needs: Needs| KvOperation::Put { address: B, needs, condition: Condition::Any, key: "k", value: "2" };
    for missing in [needs(&[(A, 2)]), needs(&[(B, 1)]), needs(&[("stranger:1", 1)]), needs(&[(A, 1), (B, u64::MAX)])] {
        assert_eq!(refused(&mut store, &put_with(missing.clone())), Code::Busy);
        let delete = KvOperation::Delete { address: A, needs: missing, condition: Condition::Any, key: "k" };
        assert_eq!(refused(&mut store, &delete), Code::Busy);
    }
    assert_eq!(apply(&mut store, &put_with(met)).0, Code::Ok);
}

#[test]
fn conditions_are_judged_by_the_version() {
    let mut store = Store::default();
    let none = Needs::default();
    let put_when =
        |condition| KvOperation::Put { address: A, needs: Needs::default(), condition, key: "k", value: "2" };
    assert_eq!(refused(&mut store, &put_when(Condition::Present)), Code::NoKey);
    assert_eq!(refused(&mut store, &put_when(Condition::Version(1))), Code::NoKey);
    assert_eq!(put_if(&mut store, A, &none, Condition::Absent, "k", "1").version, 1);
    assert_eq!(refused(&mut store, &put_when(Condition::Absent)), Code::Exists);
    assert_eq!(put_if(&mut store, A, &none, Condition::Version(1), "k", "2").version, 2);
    assert_eq!(refused(&mut store, &put_when(Condition::Version(1))), Code::Exists);
    assert_eq!(put_if(&mut store, A, &none, Condition::Present, "k", "3").version, 3);
    assert_eq!(refused(&mut store, &delete("k", Condition::Version(2))), Code::Exists);
    assert_eq!(apply(&mut store, &delete("k", Condition::Version(3))).0, Code::Ok);
}

#[test]
fn a_removed_address_takes_in_nothing_and_its_metadata_stays_valid() {
    let mut store = Store::default();
    let known = put(&mut store, A, "k", "1").clock.needs();
    let (remove, admit) = (KvOperation::Remove { address: A }, KvOperation::Admit { address: A });
    assert_eq!(apply(&mut store, &admit), (Code::Ok, vec![0]), "it is in already");
    assert_eq!(apply(&mut store, &remove), (Code::Ok, vec![1]));
    assert_eq!(apply(&mut store, &remove), (Code::Ok, vec![0]));
    let put_at_a = |needs| KvOperation::Put { address: A, needs, condition: Condition::Any, key: "k", value: "2" };
    assert_eq!(refused(&mut store, &put_at_a(Needs::default())), Code::NotPrimary);
    put_if(&mut store, B, &known, Condition::Any, "k", "3");
    assert_eq!(apply(&mut store, &admit), (Code::Ok, vec![1]));
    assert_eq!(apply(&mut store, &put_at_a(known)).0, Code::Ok);
    assert_eq!(apply(&mut store, &KvOperation::Admit { address: "x:1" }), (Code::Ok, vec![0]));
    assert!(!store.clock.0.contains_key("x:1"), "whoever admits strangers grows nothing");
}

#[test]
fn a_replica_has_one_address() {
    let mut store = Store::default();
    let announce = |replica, address| KvOperation::Announce { replica: ReplicaId(replica), address };
    assert_eq!(apply(&mut store, &announce(1, A)).0, Code::Ok);
    assert_eq!(apply(&mut store, &announce(2, B)).0, Code::Ok);
    put(&mut store, B, "k", "1");
    assert_eq!(apply(&mut store, &announce(1, "c:80")).0, Code::Ok);
    assert_eq!(apply(&mut store, &announce(2, "d:80")).0, Code::Ok);
    let doors: Vec<_> =
        store.clock.0.iter().map(|(address, door)| (address.as_str(), door.replica, door.writes)).collect();
    let id = |n| Some(ReplicaId(n));
    assert_eq!(doors, [(B, None, 1), ("c:80", id(1), 0), ("d:80", id(2), 0)], "what took in a write is counted on");
    assert_eq!(apply(&mut store, &announce(1, B)).0, Code::Ok);
    assert_eq!(store.clock.0[B], Door { writes: 1, replica: id(1), removed: false });
}

#[test]
fn addresses_are_bounded() {
    let mut store = Store::default();
    for n in 0..KV_ADDRESSES_MAX {
        put(&mut store, &format!("h{n}:1"), "k", "1");
    }
    let operation = KvOperation::Put {
        address: "more:1",
        needs: Needs::default(),
        condition: Condition::Any,
        key: "k",
        value: "1",
    };
    assert_eq!(refused(&mut store, &operation), Code::Full);
    let announce = KvOperation::Announce { replica: ReplicaId(1), address: "more:1" };
    assert_eq!(refused(&mut store, &announce), Code::Full);
    assert_eq!(apply(&mut store, &KvOperation::Remove { address: "more:1" }), (Code::Ok, vec![0]));
    put(&mut store, "h0:1", "k", "1");
}

#[test]
fn listings_go_page_by_page() {
    let mut store = Store::default();
    for key in ["a", "b/1", "b/2", "b/3", "b0", "c"] {
        put(&mut store, A, key, "1");
    }
    let page = |keys: &[&str], more| (keys.iter().map(|&key| key.to_owned()).collect::<Vec<_>>(), more);
    assert_eq!(keys(&store, "", "", 100), page(&["a", "b/1", "b/2", "b/3", "b0", "c"], false));
    assert_eq!(keys(&store, "b/", "", 2), page(&["b/1", "b/2"], true));
    assert_eq!(keys(&store, "b/", "b/2", 2), page(&["b/3"], false));
    assert_eq!(keys(&store, "b/", "a", 1), page(&["b/1"], true));
    assert_eq!(keys(&store, "b/", "z", 9), page(&[], false));
    assert_eq!(keys(&store, "", "b", 1), page(&["b/1"], true));
    assert_eq!(keys(&store, "x", "", 1), page(&[], false));
    let large = format!("\"{}\"", "x".repeat(BATCH_BYTES_MAX));
    put(&mut store, A, "a", &large);
    put(&mut store, A, "b/1", &large);
    assert_eq!(keys(&store, "", "", 100), page(&["a"], true), "one value may be larger than a page");
    assert_eq!(keys(&store, "", "a", 100), page(&["b/1"], true));
}

/// A life of the store from arbitrary picks.
fn lived(picks: &[(u8, u8, u8)]) -> Store {
    let mut store = Store::default();
    for &(kind, key, other) in picks {
        let (key, value) = (format!("k{}", key % 5), other.to_string());
        let address = if other % 2 == 0 { A } else { B };
        let needs = needs(&[(A, u64::from(other % 4))]);
        let condition = [Condition::Any, Condition::Any, Condition::Absent, Condition::Present, Condition::Version(2)]
            [usize::from(other % 5)];
        let operation = match kind % 6 {
            0..=2 => KvOperation::Put { address, needs, condition, key: &key, value: &value },
            3 => KvOperation::Delete { address, needs, condition, key: &key },
            4 => KvOperation::Announce { replica: ReplicaId(other % 3 + 1), address },
            _ if other % 3 == 0 => KvOperation::Remove { address },
            _ => KvOperation::Admit { address },
        };
        apply(&mut store, &operation);
    }
    store
}

quickcheck! {
    fn arbitrary_bytes_never_panic(operations: Vec<Vec<u8>>) -> bool {
        let mut store = Store::default();
        for bytes in &operations {
            apply_bytes(&mut store, bytes);
            let mut answer = Vec::new();
            store.query(bytes, &mut answer);
            assert!(split(&answer).is_ok());
            let _ = Store::default().restore(bytes);
        }
        true
    }

    fn a_snapshot_is_the_state(picks: Vec<(u8, u8, u8)>) -> bool {
        let store = lived(&picks);
        let bytes = snapshot(&store);
        let mut other = Store::default();
        other.restore(&bytes).expect("what a store wrote, a store reads");
        for length in 0..bytes.len() {
            assert!(Store::default().restore(&bytes[..length]).is_err(), "cut to {length}");
        }
        snapshot(&other) == bytes && other.memory_bytes() == store.memory_bytes()
    }

    fn memory_and_counters_add_up(picks: Vec<(u8, u8, u8)>) -> bool {
        let store = lived(&picks);
        let memory: u64 = store.entries.iter().map(|(key, entry)| weight(key, entry)).sum();
        memory == store.memory && store.clock.0.values().map(|door| door.writes).sum::<u64>() == store.writes
    }
}
