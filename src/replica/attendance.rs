//! Attendance: what this replica orders so that all know which sessions have a connection (DESIGN 7.1).
//!
//! The first request of a connection that goes on with a session stands behind an `Attach` under a fresh name; an
//! opening attaches under its token. When a connection is lost, a `Detach` says so by that name, and is void where
//! another one attached since. Sessions that are connected but quiet are named together once in a while. All of it is
//! a hint with an end: what is never ordered, because this replica dies or serves no more, costs a session that still
//! has its client nothing but an attach, and one that has not ends for idleness.

use crate::limits::{CONNECTED_EVERY_NS, CONNECTED_MAX, LOST_MAX, PENDING_BYTES_MAX};
use crate::replica::door::Door;
use crate::replica::Replica;
use crate::rng::Rng;
use crate::types::{ClientId, RequestNumber, SessionId, Time};
use crate::wire::operation::{Connected, SessionOperation};
use std::collections::{BTreeMap, VecDeque};

#[derive(Debug)]
pub struct Attendance {
    names: Rng,
    /// Attaches under way, by name.
    attaching: BTreeMap<u64, (ClientId, SessionId)>,
    /// Lost connections that are yet to be told of.
    lost: VecDeque<(SessionId, u64)>,
    /// When the quiet sessions are to be named.
    tell_at: Time,
}

impl Attendance {
    pub fn new(seed: u64) -> Attendance {
        Attendance { names: Rng::new(seed).fork(), attaching: BTreeMap::new(), lost: VecDeque::new(), tell_at: Time(0) }
    }

    /// A name for a connection that now speaks for a session.
    pub fn attach(&mut self, client: ClientId, session: SessionId) -> u64 {
        let name = self.names.next_u64();
        self.attaching.insert(name, (client, session));
        name
    }

    /// Whose attach was applied under this name here.
    pub fn attached(&mut self, name: u64) -> Option<(ClientId, SessionId)> {
        self.attaching.remove(&name)
    }

    /// The connection of that name does not speak for the session any more.
    pub fn lose(&mut self, session: SessionId, name: u64) {
        if self.lost.len() < LOST_MAX {
            self.lost.push_back((session, name));
        }
    }

    pub fn forget(&mut self, client: ClientId) {
        self.attaching.retain(|_, (attacher, _)| *attacher != client);
    }
}

impl Door {
    /// Packs what is to be said of connections; only while what is packed is ordered.
    fn tell_attendance(&mut self, now: Time, message_bytes: usize) {
        let mut operation = Vec::new();
        while self.pending_bytes() < PENDING_BYTES_MAX {
            let Some((session, name)) = self.attendance.lost.pop_front() else { break };
            operation.clear();
            SessionOperation::Detach { session }.encode(&mut operation);
            self.pack(SessionId::NONE, RequestNumber(name), RequestNumber(0), &operation, message_bytes);
        }
        if now < self.attendance.tell_at {
            return;
        }
        self.attendance.tell_at = now.after_ns(CONNECTED_EVERY_NS);
        for quiet in self.take_quiet().chunks(CONNECTED_MAX) {
            operation.clear();
            Connected::encode(&mut operation, quiet);
            let number = RequestNumber(self.attendance.names.next_u64());
            self.pack(SessionId::NONE, number, RequestNumber(0), &operation, message_bytes);
        }
    }
}

impl Replica {
    /// Says who is here and who is not any more, while this replica serves.
    pub(super) fn attend(&mut self) {
        if self.serves() {
            let message_bytes = self.message_bytes();
            self.door.tell_attendance(self.now, message_bytes);
        }
    }

    /// When to say it next.
    pub(super) fn attend_at(&self) -> Option<Time> {
        (self.serves() && self.door.has_speakers()).then_some(self.door.attendance.tell_at)
    }

    fn serves(&self) -> bool {
        self.refusing.is_none() && self.group.regular().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{SESSION_GRACE_NS, SESSION_IDLE_NS};
    use crate::replica::machine::{Machine, Replies};
    use crate::types::{ClusterId, GroupTime, ReplicaId};
    use crate::wire::client::VERSION;
    use crate::wire::operation::QueueOperation;

    const ROOM: usize = 1000;
    const A: ClientId = ClientId(1);

    /// Two replicas' doors before one state.
    struct Bench {
        doors: [Door; 2],
        machine: Machine,
    }

    impl Bench {
        fn new() -> Bench {
            Bench { doors: [Door::new(1), Door::new(2)], machine: Machine::new() }
        }

        /// Lets both doors say what they have to say, and applies all of it.
        fn turn(&mut self, at: u64) {
            let mut operations = Vec::new();
            for door in &mut self.doors {
                door.tell_attendance(Time(at), ROOM);
                operations.extend(std::iter::from_fn(|| door.next_packed()).flatten());
            }
            let mut replies = Replies::default();
            self.machine.apply(self.machine.applied().next(), GroupTime(at), &operations, &mut replies);
            self.doors.iter_mut().for_each(|door| door.answer(&replies));
        }

        fn connect(&mut self, door: usize, client: ClientId) {
            assert!(self.doors[door].hello(client, VERSION, ClusterId(1), ReplicaId(1)));
        }

        fn opened(&mut self) -> SessionId {
            self.connect(0, A);
            self.doors[0].open(A, 7, ROOM);
            self.turn(0);
            self.doors[0].session_of(A).expect("just opened")
        }

        fn request(&mut self, door: usize, client: ClientId, number: u64) {
            let mut operation = Vec::new();
            QueueOperation::Create { label: "jobs" }.encode(&mut operation);
            let session = self.doors[door].session_of(client).expect("it has one");
            self.doors[door].request(client, session, RequestNumber(number), RequestNumber(0), &operation, ROOM);
        }

        fn due(&self) -> u64 {
            self.machine.due().expect("there is a session").0
        }
    }

    #[test]
    fn a_lost_connection_ends_its_session_after_the_grace() {
        let mut bench = Bench::new();
        bench.opened();
        bench.doors[0].gone(A);
        bench.turn(5);
        assert_eq!(bench.due(), SESSION_GRACE_NS + 5);
        bench.turn(SESSION_GRACE_NS + 5);
        assert_eq!(bench.machine.due(), None, "the session is gone");
    }

    #[test]
    fn a_client_that_has_moved_is_not_lost_with_its_old_connection() {
        let mut bench = Bench::new();
        let session = bench.opened();
        bench.connect(1, A);
        bench.doors[1].use_session(A, session, false);
        bench.request(1, A, 1);
        bench.turn(1);
        bench.doors[0].gone(A);
        bench.turn(2);
        assert!(bench.due() > SESSION_IDLE_NS);
        bench.doors[1].gone(A);
        bench.turn(3);
        assert_eq!(bench.due(), SESSION_GRACE_NS + 3);
        // Only a request attaches: a connection that asks for nothing changes nothing.
        bench.connect(0, A);
        bench.doors[0].use_session(A, session, false);
        bench.turn(4);
        assert_eq!(bench.due(), SESSION_GRACE_NS + 3);
    }

    #[test]
    fn whoever_ends_its_session_is_not_lost() {
        let mut bench = Bench::new();
        let session = bench.opened();
        let end = [0, 2];
        bench.doors[0].request(A, session, RequestNumber(1), RequestNumber(0), &end, ROOM);
        bench.turn(1);
        bench.doors[0].gone(A);
        assert!(bench.doors[0].attendance.lost.is_empty());
    }

    #[test]
    fn a_quiet_session_lives_as_long_as_its_connection() {
        let mut bench = Bench::new();
        bench.opened();
        let mut now = 0;
        while now < 5 * SESSION_IDLE_NS {
            now += CONNECTED_EVERY_NS;
            bench.turn(now);
        }
        assert!(bench.due() > now, "it is still there");
        bench.doors[0].gone(A);
        bench.turn(now);
        bench.turn(now + SESSION_GRACE_NS);
        assert_eq!(bench.machine.due(), None);
    }

    #[test]
    fn who_goes_on_with_an_ended_session_is_told() {
        let mut bench = Bench::new();
        let session = bench.opened();
        bench.turn(2 * SESSION_IDLE_NS);
        bench.connect(1, A);
        bench.doors[1].use_session(A, session, false);
        bench.request(1, A, 1);
        bench.turn(2 * SESSION_IDLE_NS);
        let mut said = Vec::new();
        bench.doors[1].take_unsent(&mut said);
        assert_eq!(bench.machine.due(), None);
        assert!(String::from_utf8_lossy(&said[0].1).contains("not in the table"));
        assert!(bench.doors[1].attendance.attaching.is_empty());
    }
}
