//! The door against a store of its own, which answers at once what the door's frames ask.

use super::*;
use crate::service::kv::Store;
use crate::service::{Answers, Service, Who};
use crate::types::{At, GroupTime, SessionId, Slot};
use crate::wire::client::{kind, ToClient, ToReplica};

const OWN: &str = "h1:80";
const OTHER: &str = "h2:80";
const ID: SessionId = SessionId { slot: Slot(1), position: 0, digest: 0 };

struct Bench {
    door: Door,
    store: Store,
    now: Time,
    around: Surroundings,
}

impl Bench {
    fn new() -> Bench {
        let members = vec![ReplicaId(1), ReplicaId(2)];
        let around = Surroundings { members, ..Surroundings::default() };
        let door = Door::new(ReplicaId(1), OWN.into(), 1);
        let mut bench = Bench { door, store: Store::default(), now: Time(Time::MS), around };
        bench.look();
        bench
    }

    /// It opens its session, and announces itself as soon as that is open.
    fn look(&mut self) {
        assert_eq!(self.door.on_time(self.now, &self.around), []);
        (0..2).for_each(|_| assert_eq!(self.serve(), []));
    }

    fn apply(&mut self, operation: &[u8]) -> Vec<u8> {
        let (at, mut out) = (At { slot: Slot(1), position: 0, time: GroupTime(0) }, Answers::default());
        let who = Who { session: ID, number: crate::types::RequestNumber(1) };
        self.store.apply(at, who, &operation[1..], &mut out);
        let answer = out.iter().next().expect("it is answered").1.to_vec();
        answer
    }

    /// A write that another door took in.
    fn write_elsewhere(&mut self, key: &str, value: &str) {
        let (needs, condition) = (Needs::default(), Condition::Any);
        self.apply(&encoded(&KvOperation::Put { address: OTHER, needs, condition, key, value }));
    }

    /// The core answers what was asked of it; where it is not primary, as such.
    fn serve(&mut self) -> Vec<(Caller, Response)> {
        let (mut bytes, code) = (Vec::new(), Code::NotPrimary);
        for frame in self.door.take_frames() {
            let reason = self.around.reason.clone();
            let refused =
                |refused, number| ToClient::Refused { refused, number, code, maybe_done: false, message: "no" };
            match ToReplica::decode(&frame).expect("a frame") {
                ToReplica::Open { token } => match reason {
                    Some(_) => refused(kind::OPEN, token).encode(&mut bytes),
                    None => ToClient::Opened { token, session: ID }.encode(&mut bytes),
                },
                ToReplica::Request { number, operation, .. } => match reason {
                    Some(_) => refused(kind::REQUEST, number.0).encode(&mut bytes),
                    None => {
                        let answer = self.apply(operation);
                        ToClient::Reply { number, slot: Slot(1), answer: &answer }.encode(&mut bytes);
                    }
                },
                ToReplica::Query { number, stale, .. } if reason.is_some() && !stale => {
                    refused(kind::QUERY, number).encode(&mut bytes);
                }
                ToReplica::Query { number, query, .. } => {
                    let mut answer = Vec::new();
                    self.store.query(&query[1..], &mut answer);
                    ToClient::Found { number, slot: Slot(1), answer: &answer }.encode(&mut bytes);
                }
                _ => {}
            }
        }
        self.door.hear(self.now, &bytes, &self.around)
    }

    /// Asks, and lets the core answer until it has said all: status and body.
    fn asked(&mut self, asked: Asked) -> (u16, Value) {
        let mut answers: Vec<(Caller, Response)> =
            self.door.ask(self.now, 7, asked).map(|response| (7, response)).into_iter().collect();
        while self.door.has_frames() {
            answers.extend(self.serve());
        }
        assert_eq!(answers.len(), 1, "each request is answered once");
        let (caller, response) = answers.remove(0);
        assert_eq!(caller, 7);
        (response.status, serde_json::from_slice(&response.body).expect("JSON"))
    }
}

fn put(value: &str) -> Asked {
    let (needs, condition) = (Needs::default(), Condition::Any);
    Asked::Put { key: "k".into(), value: value.into(), needs, condition }
}

fn get(needs: &[(&str, u64)], wait_ms: u64, linearizable: bool) -> Asked {
    let needs = Needs(needs.iter().map(|&(address, count)| (address.to_owned(), count)).collect());
    Asked::Get { key: "k".into(), sight: Sight { needs, wait_ms, linearizable } }
}

fn add(address: &str) -> Asked {
    Asked::AddToView { address: address.into() }
}

fn remove(address: &str) -> Asked {
    Asked::RemoveFromView { address: address.into() }
}

/// No time passes between the beginning of a view and its knowing the door.
#[test]
fn a_door_is_announced_when_its_replica_begins_to_serve() {
    let around = Surroundings { reason: Some("blank".into()), blank: true, ..Surroundings::default() };
    let door = Door::new(ReplicaId(1), OWN.into(), 1);
    let mut bench = Bench { door, store: Store::default(), now: Time(Time::MS), around };
    bench.look();
    assert!(bench.door.is_unknown());
    bench.around = Surroundings { members: vec![ReplicaId(1)], ..Surroundings::default() };
    bench.look();
    assert!(bench.door.is_unknown(), "it is not tried again and again");
    bench.door.hurry();
    bench.look();
    assert!(!bench.door.is_unknown());
    assert_eq!(bench.asked(Asked::View), (200, json!({"view": [OWN]})));
}

#[test]
fn values_and_metadata_go_both_ways() {
    let mut bench = Bench::new();
    assert_eq!(bench.asked(put("[1.0]")), (201, json!({"result": "created", "causal-metadata": {OWN: 1}})));
    assert_eq!(bench.asked(put("2")).0, 200);
    let found = json!({"result": "found", "value": 2, "causal-metadata": {OWN: 2}});
    assert_eq!(bench.asked(get(&[(OWN, 2)], 0, false)), (200, found.clone()));
    assert_eq!(bench.asked(get(&[(OWN, 2)], 0, true)), (200, found));
    let condition = Condition::Absent;
    let again = Asked::Put { key: "k".into(), value: "3".into(), needs: Needs::default(), condition };
    assert_eq!(bench.asked(again).0, 412);
    let delete = |condition| Asked::Delete { key: "k".into(), needs: Needs::default(), condition };
    assert_eq!(bench.asked(delete(Condition::Any)).0, 200);
    assert_eq!(bench.asked(delete(Condition::Any)).0, 404);
    assert_eq!(bench.asked(delete(Condition::Version(1))).0, 412);
    let (status, body) = bench.asked(get(&[], 0, false));
    assert_eq!((status, &body["causal-metadata"]), (404, &json!({OWN: 3})));
}

#[test]
fn a_read_waits_for_what_its_metadata_names() {
    let mut bench = Bench::new();
    let (status, body) = bench.asked(get(&[(OTHER, 1)], 0, false));
    assert!(status == 503 && body["error"].as_str().expect("a text").contains("not all here"));
    for linearizable in [false, true] {
        assert_eq!(bench.door.ask(bench.now, 7, get(&[(OTHER, 1)], 1000, linearizable)), None);
        assert_eq!(bench.serve(), []);
    }
    bench.write_elsewhere("k", "1");
    bench.now = bench.now.after_ns(999 * Time::MS);
    assert_eq!(bench.door.on_time(bench.now, &bench.around), [], "its time is not over");
    bench.door.on_applied();
    let answered: Vec<u16> = bench.serve().iter().map(|(_, response)| response.status).collect();
    assert_eq!(answered, [200, 200]);
    // And for no longer than it was told to.
    assert_eq!(bench.door.ask(bench.now, 7, get(&[(OTHER, 2)], 1000, false)), None);
    assert_eq!(bench.serve(), []);
    bench.now = bench.now.after_ns(1000 * Time::MS);
    let late = bench.door.on_time(bench.now, &bench.around);
    assert_eq!(late.iter().map(|(caller, response)| (*caller, response.status)).collect::<Vec<_>>(), [(7, 503)]);
    // Who is gone waits no more.
    assert_eq!(bench.door.ask(bench.now, 7, get(&[(OTHER, 2)], 1000, false)), None);
    assert_eq!(bench.serve(), []);
    bench.door.forget(7);
    bench.write_elsewhere("k", "2");
    bench.door.on_applied();
    assert_eq!(bench.serve(), []);
}

#[test]
fn outside_of_the_primary_view_reads_are_stale_and_writes_refused() {
    let mut bench = Bench::new();
    bench.asked(put("1"));
    bench.around.reason = Some("view {1} of {1,2}; waiting for replica 2".into());
    let (status, body) = bench.asked(get(&[(OWN, 1)], 0, false));
    assert_eq!((status, &body["stale"]), (200, &json!(true)));
    assert_eq!(bench.asked(get(&[], 0, true)).0, 503);
    assert_eq!(bench.asked(put("2")), (503, json!({"error": "no"})));
    assert_eq!(bench.asked(remove(OWN)).0, 503);
    let (status, view) = bench.asked(Asked::View);
    assert_eq!((status, view), (200, json!({"view": [OWN], "stale": true})));
    bench.around.reason = None;
    assert_eq!(bench.asked(put("2")).0, 200, "the number that was refused is used again");
    bench.around = Surroundings { blank: true, reason: Some("blank".into()), ..Surroundings::default() };
    assert_eq!(bench.asked(get(&[], 0, false)), (503, json!({"error": "blank"})));
}

#[test]
fn a_write_without_an_answer_may_be_done() {
    let mut bench = Bench::new();
    assert_eq!(bench.door.ask(bench.now, 7, put("1")), None);
    let frames = bench.door.take_frames();
    bench.around.reason = Some("cut off".into());
    bench.now = bench.now.after_ns(OUTSIDE_WAIT_NS - 1);
    assert_eq!(bench.door.on_time(bench.now, &bench.around), []);
    bench.now = bench.now.after_ns(1);
    let late = bench.door.on_time(bench.now, &bench.around);
    let expected = Response::error(503, "not primary: cut off; it may be done all the same");
    assert_eq!(late, [(7, expected)]);
    // When the core hangs up it is said again, under its number, and nobody is told.
    bench.around.reason = None;
    bench.door.on_hang_up();
    let again = bench.door.session.take_frames();
    assert_eq!(again.last(), frames.last());
    let Ok(ToReplica::Request { operation, .. }) = ToReplica::decode(&frames[0]) else { panic!("a request") };
    bench.apply(operation);
    assert_eq!(bench.asked(get(&[], 0, false)).1["causal-metadata"], json!({OWN: 1}));
}

#[test]
fn the_view_lists_members_that_are_not_removed() {
    let mut bench = Bench::new();
    assert_eq!(bench.asked(Asked::View), (200, json!({"view": [OWN]})), "the other has no address");
    bench.around.book.insert(ReplicaId(2), OTHER.into());
    bench.around.book.insert(ReplicaId(3), "h3:80".into());
    assert_eq!(bench.asked(Asked::View), (200, json!({"view": [OWN, OTHER]})));
    assert_eq!(bench.asked(add(OTHER)), (200, json!({"result": "already present"})));
    assert_eq!(bench.asked(add("x:1")).0, 404);
    assert_eq!(bench.asked(remove("x:1")).0, 404);
    assert_eq!(bench.asked(remove(OTHER)), (200, json!({"result": "deleted"})));
    assert_eq!(bench.asked(remove(OTHER)).0, 404);
    assert_eq!(bench.asked(Asked::View), (200, json!({"view": [OWN]})));
    assert_eq!(bench.asked(remove(OWN)).0, 200);
    assert_eq!(bench.asked(put("1")), (503, json!({"error": "h1:80 was removed from the view"})));
    assert_eq!(bench.asked(get(&[], 0, false)), (503, json!({"error": "h1:80 was removed from the view"})));
    assert_eq!(bench.asked(add(OWN)), (201, json!({"result": "added"})));
    assert_eq!(bench.asked(put("1")).0, 201);
    assert_eq!(bench.asked(add(OTHER)), (201, json!({"result": "added"})));
}
