//! A whole replica that serves: a group of one with something in its log.

use super::*;
use crate::log::{replay, Snapshot};
use crate::replica::{Config, Input, Level, Stored, StoredFile};
use crate::types::{Birth, ClientId, ClusterId, Digest, Epoch, GroupTime, Incarnation, Run, Slot};
use crate::wire::client::ToReplica;
use crate::wire::digest::slot_digest;
use crate::wire::stream::{first_frame, Fetch, Position};
use crate::wire::view::{Book, BookEntry, Durability, Policy};
use std::collections::BTreeMap;

/// A replica and its segments, on a disk that is done at once.
struct Whole {
    replica: Replica,
    now: Time,
    segments: BTreeMap<StoredFile, Vec<u8>>,
    /// What it said over streams.
    said: Vec<(ReplicaId, Vec<u8>)>,
}

impl Whole {
    fn new(id: u8, of: u8) -> Whole {
        let entry = |id: u8| BookEntry { id: ReplicaId(id), address: format!("h{id}:1"), http: None };
        let book: Book = (0..of).map(|k| entry(id + k)).collect();
        let config = Config {
            id: ReplicaId(id),
            book,
            peers: Vec::new(),
            policy: Policy::Dynamic,
            min_members: 1,
            durability: Durability::Disk,
            heartbeat_ms: 50,
            suspect_after_ms: 500,
            receive_buffer_bytes: 400_000,
            memory_limit_bytes: 1 << 40,
            segment_bytes: 1 << 16,
            datagram_size_max: 6,
            directory: [0; 2],
            seed: u64::from(id),
        };
        let (now, mut out) = (Time(1), Outbox::default());
        let replica = Replica::recover(config, Stored::default(), now, &mut out);
        let mut whole = Whole { replica, now, segments: BTreeMap::new(), said: Vec::new() };
        whole.carry_out(out);
        whole
    }

    fn step(&mut self, input: Input<'_>) {
        let mut out = Outbox::default();
        self.now = self.now.after_ns(Time::MS);
        self.replica.step(self.now, input, &mut out);
        self.replica.step(self.now, Input::Turn, &mut out);
        self.carry_out(out);
    }

    fn carry_out(&mut self, mut out: Outbox) {
        while !out.log.is_empty() || !out.meta.is_empty() || !out.reads.is_empty() {
            assert!(out.stop.is_none() && out.notes.iter().all(|(level, _)| *level < Level::Error), "{out:?}");
            let metas = out.meta.drain(..).map(|write| write.number);
            let last = out.log.iter().map(|write| write.number).chain(metas).max();
            for write in out.log.drain(..) {
                let file = self.segments.entry(StoredFile::Segment(write.segment)).or_default();
                file.resize(file.len().max(write.offset as usize + write.bytes.len()), 0);
                file[write.offset as usize..][..write.bytes.len()].copy_from_slice(&write.bytes);
            }
            self.said.append(&mut out.streams);
            let reads = std::mem::take(&mut out.reads);
            last.into_iter().for_each(|number| self.replica.step(self.now, Input::Durable(number), &mut out));
            for read in reads {
                let file = self.segments.get(&read.file).map_or(&[][..], |file| &file[..]);
                let (from, to) = (read.offset as usize, (read.offset + u64::from(read.bytes)) as usize);
                let bytes = &file[from.min(file.len())..to.min(file.len())];
                self.replica.step(self.now, Input::Read { token: read.token, bytes }, &mut out);
            }
            self.replica.step(self.now, Input::Turn, &mut out);
        }
        self.said.append(&mut out.streams);
    }

    /// A group of one whose clients have opened this many sessions, one slot each. Each has a connection of its own:
    /// one that opens another session leaves the former, which is ordered too.
    fn with_slots(count: u64) -> Whole {
        let mut whole = Whole::new(1, 1);
        for token in 0..count {
            let client = ClientId(token + 1);
            for frame in [ToReplica::Hello { version: crate::wire::client::VERSION }, ToReplica::Open { token }] {
                let mut bytes = Vec::new();
                frame.encode(&mut bytes);
                whole.step(Input::Frame { client, frame: &bytes[4..] });
            }
            assert_eq!(whole.replica.applied().0, Slot(token + 1));
        }
        whole
    }

    fn hear(&mut self, by: Sender, from: u8, frame: &Frame<'_>) {
        let mut bytes = Vec::new();
        frame.encode(by, &mut bytes);
        self.step(Input::Stream { from: ReplicaId(from), frame: &bytes[4..] });
    }
}

fn follower(cluster: ClusterId, id: u8) -> Sender {
    Sender { cluster, run: Run { id: ReplicaId(id), birth: Birth(5), incarnation: Incarnation(1) } }
}

#[test]
fn a_whole_replica_serves_what_it_has_and_only_its_own_group() {
    let mut whole = Whole::with_slots(40);
    let cluster = whole.replica.meta.cluster;
    let fetch = Fetch { after: Position::default(), upto: Slot(0), frames: 16, state: (Slot(0), 0) };
    let ask = Frame::Fetch { number: 7, fetch };
    whole.hear(follower(ClusterId(cluster.0 + 1), 2), 2, &ask);
    whole.hear(follower(cluster, 3), 2, &ask);
    whole.step(Input::Stream { from: ReplicaId(2), frame: b"no frame" });
    assert_eq!((whole.replica.follow.counters.foreign, whole.said.len()), (3, 0));
    whole.hear(follower(cluster, 2), 2, &ask);
    let (mut slots, mut digest) = (0, Digest(0));
    for (to, bytes) in &whole.said {
        let (frame, _) = first_frame(bytes).expect("within bounds").expect("whole");
        let (by, frame) = Frame::decode(frame).expect("well-formed");
        assert_eq!((by.run.id, *to), (ReplicaId(1), ReplicaId(2)));
        let Frame::Records { number: 7, committed, end, records } = frame else { panic!("{frame:?}") };
        assert_eq!((committed, end), (whole.replica.applied().0, whole.replica.applied().0));
        for record in records {
            digest = slot_digest(digest, record.slot, record.time, &[record.operations]);
            slots += 1;
            assert_eq!((record.slot, record.digest), (Slot(slots), digest));
        }
    }
    assert_eq!((Slot(slots), digest), whole.replica.applied());
}

/// What another replica sent of the slot after the last one, ordered in this epoch.
fn next_slot(whole: &Whole, epoch: Epoch) -> Fetched {
    let ((slot, digest), time, operations) = (whole.replica.applied(), GroupTime(u64::MAX >> 1), Vec::new());
    let digest = slot_digest(digest, slot.next(), time, &[&operations]);
    Fetched { epoch, slot: slot.next(), time, digest, operations }
}

#[test]
fn slots_of_a_view_that_it_has_not_heard_of_are_not_taken() {
    let mut whole = Whole::with_slots(3);
    let (epoch, logged) = (whole.replica.group.newest().expect("its own").epoch, whole.replica.journal.logged());
    let mut out = Outbox::default();
    let unheard = next_slot(&whole, epoch.next());
    whole.replica.take_slots(vec![unheard], &mut out);
    assert_eq!((out.log.len(), whole.replica.journal.logged()), (0, logged));
    // Of an earlier one they are, and logged as such: what is noted beside them holds for the newest view alone.
    let earlier = Epoch(epoch.0 - 1);
    let heard = next_slot(&whole, earlier);
    whole.replica.take_slots(vec![heard], &mut out);
    assert_eq!((out.log.len(), whole.replica.journal.logged()), (1, logged.next()));
    whole.carry_out(out);
    let segment = |(file, bytes): (&StoredFile, &Vec<u8>)| match file {
        StoredFile::Segment(number) => (*number, bytes.clone()),
        StoredFile::Snapshot(_) => panic!("none was made"),
    };
    let segments: Vec<_> = whole.segments.iter().map(segment).collect();
    let slices: Vec<_> = segments.iter().map(|(number, bytes)| (*number, &bytes[..])).collect();
    let log = replay(&slices);
    let record = &log.records.last().expect("it was logged").record;
    assert_eq!((record.slot, record.epoch, record.vector.len()), (logged.next(), earlier, 0));
}

/// Whose clients wait for answers that were given in slots which it jumps over is told nothing of them: they must ask
/// again.
#[test]
fn a_state_of_a_known_view_is_taken_and_the_clients_are_sent_away() {
    let (mut whole, other) = (Whole::with_slots(3), Whole::with_slots(20));
    let (slot, digest) = other.replica.applied();
    let view = whole.replica.group.newest().expect("its own").clone();
    let state = other.replica.machine.snapshot();
    let snapshot = Snapshot { slot, time: other.replica.machine.time(), digest, view };
    let mut unheard = snapshot.clone();
    unheard.view.epoch = unheard.view.epoch.next();
    for (snapshot, taken) in [(unheard, false), (snapshot, true)] {
        let (file, mut out) = ([&snapshot.header(&state)[..], &state].concat(), Outbox::default());
        whole.replica.take_state(snapshot, &file, &mut out);
        assert_eq!(whole.replica.applied() == (slot, digest), taken);
        assert_eq!(out.hang_up.len(), if taken { 3 } else { 0 });
    }
}
