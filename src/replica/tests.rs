//! Whole replicas on a small network of the test's own.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::*;
use crate::log::meta::META_BYTES;
use crate::log::{replay, Meta};
use crate::rng::Rng;
use crate::types::{RequestNumber, SessionId};
use crate::wire::client::{first_frame, ToClient, ToReplica};
use crate::wire::codec::Reader;
use crate::wire::datagram::{Frame, Header};
use crate::wire::operation::{QueueOperation, QueueQuery, Target};
use crate::wire::view::BookEntry;

/// Replicas on a network that loses every packet the generator says, with disks that are done at once.
struct Bench {
    replicas: Vec<Replica>,
    now: Time,
    rng: Rng,
    loss_ppm: u32,
    told: Vec<(ClientId, Vec<u8>)>,
    /// Neither speaks nor hears.
    dead: Dest,
    disks: Vec<Disk>,
    durability: Durability,
    /// What the driver tells of the data directories.
    directory: [u64; 2],
    /// Why replicas stopped and were started again.
    ended: Vec<String>,
    /// No messages and orders reach this one, and no streams.
    starved: Option<usize>,
}

/// Whether a datagram holds what a view orders.
fn carries_order(datagram: &[u8]) -> bool {
    let (_, frames) = Header::decode(datagram).expect("a replica sent it");
    let mut r = Reader::new(frames);
    std::iter::from_fn(|| (!r.is_empty()).then(|| Frame::decode(&mut r).expect("a replica sent it")))
        .any(|frame| matches!(frame, Frame::Data { .. } | Frame::Order { .. }))
}

/// What a replica has written: segments, and `meta`.
#[derive(Clone, Default)]
struct Disk {
    segments: BTreeMap<SegmentNumber, Vec<u8>>,
    meta: Vec<u8>,
}

impl Disk {
    fn write(&mut self, out: &Outbox) {
        for write in &out.log {
            let segment = self.segments.entry(write.segment).or_insert_with(|| vec![0; 1 << 22]);
            segment[write.offset as usize..][..write.bytes.len()].copy_from_slice(&write.bytes);
        }
        self.meta.resize(META_BYTES, 0);
        for write in &out.meta {
            self.meta[write.offset as usize..][..write.bytes.len()].copy_from_slice(&write.bytes);
        }
    }

    fn read(&self, request: &ReadRequest) -> Vec<u8> {
        let StoredFile::Segment(number) = request.file else { return Vec::new() };
        let bytes = self.segments.get(&number).map(Vec::as_slice).unwrap_or_default();
        let from = bytes.get(request.offset as usize..).unwrap_or_default();
        from[..from.len().min(request.bytes as usize)].to_vec()
    }
}

fn config(id: u8, n: u8, seed: u64, durability: Durability) -> Config {
    let ids = (1..=n).map(ReplicaId);
    let ip = |id: ReplicaId| IpAddr::from([10, 0, 0, id.0]);
    Config {
        id: ReplicaId(id),
        book: ids.clone().map(|id| BookEntry { id, address: format!("h{id}:1"), http: None }).collect(),
        peers: ids.map(|id| Peer { id, ip: ip(id) }).collect(),
        policy: Policy::Dynamic,
        min_members: 1,
        durability,
        heartbeat_ms: 50,
        suspect_after_ms: 500,
        receive_buffer_bytes: 400_000,
        memory_limit_bytes: 1 << 40,
        segment_bytes: 1 << 22,
        datagram_size_max: 6,
        directory: [0; 2],
        seed,
    }
}

impl Bench {
    fn new(n: u8, loss_ppm: u32) -> Bench {
        Bench::with(n, loss_ppm, Durability::Disk)
    }

    fn with(n: u8, loss_ppm: u32, durability: Durability) -> Bench {
        let disks = (0..n).map(|_| Disk::default()).collect();
        let (rng, dead, directory) = (Rng::new(7), Dest(0), [0; 2]);
        let (replicas, told, ended) = (vec![], vec![], vec![]);
        let (now, starved) = (Time(1), None);
        let mut bench =
            Bench { replicas, now, rng, loss_ppm, told, dead, disks, durability, directory, ended, starved };
        for id in 1..=n {
            let mut out = Outbox::default();
            let config = config(id, n, u64::from(id), durability);
            bench.replicas.push(Replica::recover(config, Stored::default(), bench.now, &mut out));
            bench.carry_out(usize::from(id) - 1, out);
        }
        bench
    }

    /// A replica comes back with what its disk holds.
    fn restart(&mut self, at: usize) {
        let (id, n) = (at as u8 + 1, self.replicas.len() as u8);
        let disk = &self.disks[at];
        let segments: Vec<_> = disk.segments.iter().map(|(number, bytes)| (*number, bytes.as_slice())).collect();
        let meta = Meta::choose(&disk.meta).expect("whole pages");
        let config = config(id, n, self.now.0, self.durability);
        let stored = Stored { meta, log: replay(&segments), ..Stored::default() };
        let mut out = Outbox::default();
        self.replicas[at] =
            Replica::recover(Config { directory: self.directory, ..config }, stored, self.now, &mut out);
        self.dead = Dest(self.dead.0 & !Dest::one(ReplicaId(id)).0);
        self.carry_out(at, out);
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        [a, b].iter().any(|&at| self.dead.contains(ReplicaId(at as u8 + 1)))
    }

    fn step(&mut self, at: usize, input: Input<'_>) -> (usize, Outbox) {
        let mut out = Outbox::default();
        self.replicas[at].step(self.now, input, &mut out);
        self.replicas[at].step(self.now, Input::Turn, &mut out);
        (at, out)
    }

    /// Carries an outbox out, and whatever follows from it.
    fn carry_out(&mut self, from: usize, out: Outbox) {
        let mut work = vec![(from, out)];
        while let Some((from, out)) = work.pop() {
            if let Some((why, status)) = out.stop {
                // As whoever watches over it would, but for what must not be tried again.
                assert_eq!(status, 75, "{why}");
                self.ended.push(why);
                self.restart(from);
                continue;
            }
            self.disks[from].write(&out);
            self.told.extend(out.clients);
            let written = out.log.iter().map(|w| w.number).chain(out.meta.iter().map(|w| w.number)).max();
            work.extend(written.map(|number| self.step(from, Input::Durable(number))));
            for request in &out.reads {
                let bytes = self.disks[from].read(request);
                work.push(self.step(from, Input::Read { token: request.token, bytes: &bytes }));
            }
            for (dest, bytes) in out.net {
                for to in 0..self.replicas.len() {
                    let lost = self.is_cut(from, to) || self.starved == Some(to) && carries_order(&bytes);
                    if dest.contains(ReplicaId(to as u8 + 1)) && !lost && !self.rng.chance(self.loss_ppm) {
                        let ip = IpAddr::from([10, 0, 0, from as u8 + 1]);
                        work.push(self.step(to, Input::Datagram { from: ip, bytes: &bytes }));
                    }
                }
            }
            for (to, frame) in out.streams {
                let (to, id) = (usize::from(to.0) - 1, ReplicaId(from as u8 + 1));
                if !self.is_cut(from, to) && self.starved.is_none_or(|at| at != from && at != to) {
                    work.push(self.step(to, Input::Stream { from: id, frame: &frame[4..] }));
                }
            }
        }
    }

    fn run_ms(&mut self, ms: u64) {
        for _ in 0..ms * 4 {
            self.now = self.now.after_ns(Time::MS / 4);
            for at in 0..self.replicas.len() {
                let dead = self.dead.contains(ReplicaId(at as u8 + 1));
                if !dead && self.replicas[at].deadline().is_some_and(|d| d <= self.now) {
                    let mut out = Outbox::default();
                    self.replicas[at].step(self.now, Input::Turn, &mut out);
                    self.carry_out(at, out);
                }
            }
        }
    }

    fn say(&mut self, at: usize, client: u64, frame: &ToReplica<'_>) {
        let (mut bytes, mut out) = (Vec::new(), Outbox::default());
        frame.encode(&mut bytes);
        self.replicas[at].step(self.now, Input::Frame { client: ClientId(client), frame: &bytes[4..] }, &mut out);
        self.replicas[at].step(self.now, Input::Turn, &mut out);
        self.carry_out(at, out);
    }

    /// The answers to requests, and the session if one was opened.
    fn heard(&mut self) -> (Vec<(u64, Vec<u8>)>, Option<SessionId>) {
        let (mut answers, mut opened) = (vec![], None);
        for (_, bytes) in std::mem::take(&mut self.told) {
            let mut rest = &bytes[..];
            while let Ok(Some((frame, used))) = first_frame(rest) {
                match ToClient::decode(frame).expect("a frame") {
                    ToClient::Reply { number, answer, .. } => answers.push((number.0, answer.to_vec())),
                    ToClient::Found { number, answer, .. } => answers.push((number, answer.to_vec())),
                    ToClient::Opened { session, .. } => opened = Some(session),
                    ToClient::Refused { message, .. } => panic!("refused: {message}"),
                    _ => {}
                }
                rest = &rest[used..];
            }
        }
        (answers, opened)
    }
}

fn pushes_and_reads(n: u8, loss_ppm: u32) {
    let mut bench = Bench::new(n, loss_ppm);
    bench.run_ms(3000);
    assert!(bench.replicas.iter().all(|r| r.reason().is_none()), "{:?}", bench.replicas[0].reason());
    bench.say(0, 1, &ToReplica::Hello { version: 1 });
    bench.say(0, 1, &ToReplica::Open { token: 99 });
    bench.run_ms(2000);
    bench.heard().1.expect("a session");
    let item = vec![7u8; 100_000];
    for number in 1..=60u64 {
        let mut operation = Vec::new();
        let items = [item.as_slice(), b"small"];
        QueueOperation::encode_push(&mut operation, Target::Label("jobs"), items.into_iter());
        let request =
            ToReplica::Request { number: RequestNumber(number), seen: RequestNumber(0), operation: &operation };
        bench.say(0, 1, &request);
    }
    bench.run_ms(6000);
    let (answers, _) = bench.heard();
    assert_eq!(answers.len(), 60);
    bench.say(n as usize - 1, 2, &ToReplica::Hello { version: 1 });
    let mut query = Vec::new();
    QueueQuery::Size { target: Target::Label("jobs") }.encode(&mut query);
    bench.say(n as usize - 1, 2, &ToReplica::Query { number: 5, stale: false, query: &query });
    bench.run_ms(2000);
    assert_eq!(bench.heard().0, vec![(5, vec![0, 120])]);
    let states: Vec<_> = bench.replicas.iter().map(|r| (r.applied(), r.snapshot())).collect();
    assert!(states.windows(2).all(|w| w[0] == w[1]));
    assert_eq!(bench.replicas[0].buffered_bytes(), 0, "all is released");
}

#[test]
fn one_replica_is_a_group() {
    pushes_and_reads(1, 0);
}

#[test]
fn three_replicas_agree() {
    pushes_and_reads(3, 0);
}

#[test]
fn seven_replicas_agree_though_a_fifth_is_lost() {
    pushes_and_reads(7, 200_000);
}

/// A client that asks much and reads nothing costs a bounded number of bytes.
#[test]
fn reads_of_a_client_that_does_not_read_wait() {
    let mut bench = Bench::new(1, 0);
    bench.run_ms(10);
    bench.say(0, 1, &ToReplica::Hello { version: 1 });
    bench.say(0, 1, &ToReplica::Open { token: 99 });
    bench.heard().1.expect("a session");
    let (item, mut operation) = (vec![7u8; 1 << 20], Vec::new());
    QueueOperation::encode_push(&mut operation, Target::Label("jobs"), [item.as_slice()].into_iter());
    let push = ToReplica::Request { number: RequestNumber(1), seen: RequestNumber(0), operation: &operation };
    bench.say(0, 1, &push);
    assert_eq!(bench.heard().0, vec![(1, vec![0])]);

    let (mut query, mut out) = (Vec::new(), Outbox::default());
    QueueQuery::Peek { target: Target::Label("jobs"), count: 1 }.encode(&mut query);
    let client = ClientId(1);
    for number in 0..100 {
        let mut frame = Vec::new();
        ToReplica::Query { number, stale: number % 2 == 0, query: &query }.encode(&mut frame);
        bench.replicas[0].step(bench.now, Input::Frame { client, frame: &frame[4..] }, &mut out);
    }
    let mut made = 0;
    let mut turn = |bench: &mut Bench, input: Input<'_>| {
        let mut out = Outbox::default();
        bench.replicas[0].step(bench.now, input, &mut out);
        bench.replicas[0].step(bench.now, Input::Turn, &mut out);
        made += out.clients.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() >> 20;
        made
    };
    assert_eq!(turn(&mut bench, Input::Stalled { client }), 0);
    let some = turn(&mut bench, Input::Flowing { client });
    assert!((4..=6).contains(&some), "{some} MiB at once");
    assert_eq!(turn(&mut bench, Input::Stalled { client }), some, "nothing while it is stalled");
    turn(&mut bench, Input::Flowing { client });
    for _ in 0..100 {
        turn(&mut bench, Input::Turn);
    }
    assert_eq!(turn(&mut bench, Input::Turn), 100, "all in the end");
}

/// One push, and the codes of what has been answered since.
fn push_and_wait(bench: &mut Bench, at: usize, number: u64) -> Vec<(u64, u8)> {
    let mut operation = Vec::new();
    QueueOperation::encode_push(&mut operation, Target::Label("jobs"), [&b"x"[..]].into_iter());
    let request = ToReplica::Request { number: RequestNumber(number), seen: RequestNumber(0), operation: &operation };
    bench.say(at, 1, &request);
    bench.run_ms(1500);
    bench.heard().0.into_iter().map(|(number, answer)| (number, answer[0])).collect()
}

#[test]
fn the_group_shrinks_one_failure_at_a_time_down_to_the_one_the_tie_break_names() {
    let mut bench = Bench::new(3, 0);
    bench.run_ms(1000);
    bench.say(2, 1, &ToReplica::Hello { version: 1 });
    bench.say(2, 1, &ToReplica::Open { token: 99 });
    bench.run_ms(1000);
    bench.heard().1.expect("a session");
    assert_eq!(push_and_wait(&mut bench, 2, 1), [(1, 0)]);
    let members = |bench: &Bench| bench.replicas[2].group().newest().map(|view| (view.epoch.0, view.members_text()));
    bench.dead = bench.dead.with(ReplicaId(1));
    assert_eq!(push_and_wait(&mut bench, 2, 2), [(2, 0)]);
    assert_eq!(members(&bench), Some((2, "{2,3}".into())));
    bench.dead = bench.dead.with(ReplicaId(2));
    assert_eq!(push_and_wait(&mut bench, 2, 3), [(3, 0)]);
    assert_eq!(members(&bench), Some((3, "{3}".into())));
    assert_eq!(bench.replicas[2].reason(), None);
}

fn serving(n: u8, at: usize) -> Bench {
    begun(Bench::new(n, 0), at)
}

/// A session is open at this replica.
fn begun(mut bench: Bench, at: usize) -> Bench {
    bench.run_ms(1000);
    bench.say(at, 1, &ToReplica::Hello { version: 1 });
    bench.say(at, 1, &ToReplica::Open { token: 99 });
    bench.run_ms(1000);
    bench.heard().1.expect("a session");
    bench
}

/// Who waits at a replica that is cut off learns at once that it is to ask elsewhere; what it sent is done all the same
/// once the replica is back, and what it asked is not.
#[test]
fn who_waits_is_told_that_the_replica_is_secondary() {
    let mut bench = serving(3, 0);
    bench.dead = Dest::one(ReplicaId(2)).with(ReplicaId(3));
    let mut query = Vec::new();
    QueueQuery::Size { target: Target::Label("jobs") }.encode(&mut query);
    bench.say(0, 1, &ToReplica::Query { number: 9, stale: false, query: &query });
    let mut push = Vec::new();
    QueueOperation::encode_push(&mut push, Target::Label("jobs"), [&b"x"[..]].into_iter());
    bench.say(0, 1, &ToReplica::Request { number: RequestNumber(1), seen: RequestNumber(0), operation: &push });
    bench.run_ms(1400);
    let mut refused = Vec::new();
    for (_, bytes) in std::mem::take(&mut bench.told) {
        let mut rest = &bytes[..];
        while let Ok(Some((frame, used))) = first_frame(rest) {
            match ToClient::decode(frame).expect("a frame") {
                ToClient::Refused { refused: kind, number, code, maybe_done, .. } => {
                    assert_eq!((code, maybe_done), (crate::wire::answer::Code::NotPrimary, false));
                    refused.push((kind, number));
                }
                frame => panic!("{frame:?}"),
            }
            rest = &rest[used..];
        }
    }
    use crate::wire::client::kind;
    assert_eq!(refused, [(kind::QUERY, 9), (kind::PING, 0)]);
    bench.dead = Dest(0);
    bench.run_ms(3000);
    assert_eq!(bench.heard().0, [(1, vec![0])]);
    assert_all_agree(&bench);
}

fn assert_all_agree(bench: &Bench) {
    let states: Vec<_> = bench.replicas.iter().map(|r| (r.applied(), r.snapshot(), r.reason())).collect();
    for r in &bench.replicas {
        eprintln!(
            "{:?} around {:?} change {:?} joining {:?} lag {:?}",
            r.group().me(),
            r.group().around(bench.now),
            r.group().change().proposing(),
            r.group().change().live_ballot(),
            r.follow
        );
        eprintln!(
            "   promised {:?} newest {:?}",
            r.group().change().acceptor().promised,
            r.group().newest().map(|v| (v.epoch, v.members_text()))
        );
    }
    assert!(states.windows(2).all(|w| w[0] == w[1]), "{:?}", states.iter().map(|s| (s.0, &s.2)).collect::<Vec<_>>());
    assert_eq!(states[0].2, None);
}

#[test]
fn who_comes_back_at_once_and_who_comes_back_late_have_everything() {
    let mut bench = serving(3, 2);
    assert_eq!(push_and_wait(&mut bench, 2, 1), [(1, 0)]);
    bench.restart(0);
    assert_eq!(push_and_wait(&mut bench, 2, 2), [(2, 0)]);
    assert_all_agree(&bench);
    bench.dead = bench.dead.with(ReplicaId(1));
    for number in 3..=40 {
        assert_eq!(push_and_wait(&mut bench, 2, number), [(number, 0)]);
    }
    bench.restart(0);
    bench.run_ms(3000);
    assert_all_agree(&bench);
}

#[test]
fn all_down_and_up_in_any_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut bench = serving(3, 2);
        assert_eq!(push_and_wait(&mut bench, 2, 1), [(1, 0)]);
        bench.dead = Dest(0b111);
        let before = bench.replicas[0].snapshot();
        for at in order {
            bench.restart(at);
            bench.run_ms(700);
        }
        bench.run_ms(3000);
        assert_all_agree(&bench);
        assert_eq!(bench.replicas[0].snapshot(), before);
    }
}

#[test]
fn an_empty_directory_beside_a_living_group_comes_back_with_all_data() {
    let mut bench = serving(3, 2);
    assert_eq!(push_and_wait(&mut bench, 2, 1), [(1, 0)]);
    bench.dead = bench.dead.with(ReplicaId(2));
    assert_eq!(push_and_wait(&mut bench, 2, 2), [(2, 0)]);
    bench.disks[1] = Disk::default();
    bench.restart(1);
    bench.run_ms(3000);
    assert_all_agree(&bench);
}

/// In memory, what is acknowledged may be on no disk yet: who crashed must not be asked alone.
#[test]
fn memory_that_stopped_uncleanly_has_no_vote_until_all_are_here_or_it_is_in_again() {
    let mut bench = begun(Bench::with(3, 0, Durability::Memory), 2);
    assert_eq!(push_and_wait(&mut bench, 2, 1), [(1, 0)]);
    let epoch = |bench: &Bench, at: usize| bench.replicas[at].group().newest().map(|view| view.epoch.0);
    let before = epoch(&bench, 1);
    // 1 and 2 are a quorum by number, but 1 may have forgotten what only 3 knows beside it.
    bench.dead = Dest(0b111);
    bench.restart(0);
    bench.restart(1);
    bench.run_ms(3000);
    assert_eq!([0, 1].map(|at| epoch(&bench, at)), [before; 2], "no view without the third");
    bench.restart(2);
    bench.run_ms(3000);
    assert_all_agree(&bench);
    // One that crashes alone is put out by the others and joins again.
    bench.dead = bench.dead.with(ReplicaId(1));
    bench.run_ms(1000);
    bench.restart(0);
    bench.run_ms(3000);
    assert_all_agree(&bench);
    assert!(bench.replicas[0].group().change().is_trusted());
}

/// A member that promised can't bring its log to where the next view begins: it is left out, and the others go on.
#[test]
fn who_makes_no_progress_is_left_out_of_the_change() {
    let mut bench = serving(4, 3);
    assert_eq!(push_and_wait(&mut bench, 3, 1), [(1, 0)]);
    bench.starved = Some(1);
    let mut operation = Vec::new();
    QueueOperation::encode_push(&mut operation, Target::Label("jobs"), [&b"x"[..]].into_iter());
    let push = ToReplica::Request { number: RequestNumber(2), seen: RequestNumber(0), operation: &operation };
    bench.say(3, 1, &push);
    bench.run_ms(20);
    assert_eq!(bench.heard().0, [(2, vec![0])]);
    assert!(bench.replicas[1].known() < bench.replicas[3].known());
    let mut out = Outbox::default();
    bench.replicas[0].step(bench.now, Input::Leave, &mut out);
    bench.carry_out(0, out);
    bench.run_ms(100);
    assert!(bench.replicas[1].group().change().is_frozen(), "it has promised");
    bench.dead = Dest::one(ReplicaId(1));
    bench.run_ms(1000);
    let members = |bench: &Bench| bench.replicas[3].group().newest().map(|view| view.members_text());
    assert_eq!(members(&bench), Some("{3,4}".into()));
    assert_eq!(push_and_wait(&mut bench, 3, 3), [(3, 0)]);
    bench.starved = None;
    bench.run_ms(3000);
    assert_eq!(members(&bench), Some("{2,3,4}".into()));
    assert_eq!(bench.replicas[1].applied(), bench.replicas[3].applied());
}

/// What was fetched as an outsider is written in its own epoch: with it goes nothing that was heard in an earlier one,
/// for in that a member may have held more than it has now, and would be taken for an older copy of itself.
#[test]
fn a_record_tells_how_far_members_are_in_its_own_epoch_only() {
    let mut bench = serving(3, 2);
    assert_eq!(push_and_wait(&mut bench, 2, 1), [(1, 0)]);
    bench.dead = Dest::one(ReplicaId(1));
    bench.run_ms(1000);
    for number in 2..=5 {
        assert_eq!(push_and_wait(&mut bench, 2, number), [(number, 0)]);
    }
    bench.restart(0);
    bench.run_ms(3000);
    assert_all_agree(&bench);
    let segments: Vec<_> = bench.disks[0].segments.iter().map(|(number, bytes)| (*number, bytes.as_slice())).collect();
    let found = replay(&segments);
    let fetched: Vec<_> = found.records.iter().map(|found| &found.record).filter(|r| r.epoch == Epoch(2)).collect();
    assert!(fetched.len() >= 4, "view 2 ordered without it");
    for record in fetched {
        assert!(record.vector.iter().all(|(id, _)| *id != ReplicaId(1)), "it was no member of view 2: {record:?}");
    }
}

/// A joiner that loses touch while it is to be let in holds everyone up for the suspicion time: each time it then waits
/// longer.
#[test]
fn a_joiner_that_does_not_follow_is_tried_less_and_less_often() {
    let mut bench = serving(4, 3);
    bench.dead = Dest::one(ReplicaId(2));
    assert_eq!(push_and_wait(&mut bench, 3, 1), [(1, 0)]);
    bench.restart(1);
    let (mut frozen_ms, seconds) = (0, 20);
    for number in 2..seconds * 1000 {
        let (mut operation, number) = (Vec::new(), RequestNumber(number));
        QueueOperation::encode_push(&mut operation, Target::Label("jobs"), [&b"x"[..]].into_iter());
        bench.say(3, 1, &ToReplica::Request { number, seen: RequestNumber(0), operation: &operation });
        // It hears nothing of what is ordered from the moment it asks to be let in until that is given up.
        let changing = [0, 2, 3].into_iter().any(|at| bench.replicas[at].group().change().is_frozen());
        let asks = bench.replicas[3].group().around(bench.now).joining.contains(&ReplicaId(2));
        bench.starved = (changing || asks).then_some(1);
        bench.run_ms(1);
        frozen_ms += u64::from(changing);
    }
    let members = |bench: &Bench| bench.replicas[3].group().newest().map(|view| view.members_text());
    assert_eq!(members(&bench), Some("{1,3,4}".into()));
    assert!((1000..4000).contains(&frozen_ms), "no service for {frozen_ms} ms of {seconds} s");
    bench.starved = None;
    bench.run_ms(20_000);
    assert_all_agree(&bench);
}

/// A replica waits for its disk before it stops, but not for ever: where that hangs, its last word is no clean one.
#[test]
fn who_stops_with_unwritten_slots_does_not_stop_cleanly() {
    for hangs in [false, true] {
        let mut bench = serving(1, 0);
        let (mut bytes, mut operation) = (Vec::new(), Vec::new());
        QueueOperation::encode_push(&mut operation, Target::Label("jobs"), [&b"x"[..]].into_iter());
        let (number, seen) = (RequestNumber(1), RequestNumber(0));
        ToReplica::Request { number, seen, operation: &operation }.encode(&mut bytes);
        let (_, out) = bench.step(0, Input::Frame { client: ClientId(1), frame: &bytes[4..] });
        let written = out.log.last().expect("it is to be logged").number;
        bench.disks[0].write(&out);
        let inputs =
            [Input::Leave, Input::Turn, if hangs { Input::Turn } else { Input::Durable(written) }, Input::Turn];
        let mut stopped = Vec::new();
        for (k, input) in inputs.into_iter().enumerate() {
            let (_, out) = bench.step(0, input);
            bench.disks[0].write(&out);
            stopped.extend(out.stop.map(|(_, status)| (k, status)));
            bench.now = bench.now.after_ns(if hangs { LEAVE_WAIT_NS } else { Time::MS });
        }
        assert_eq!(stopped.first(), Some(&(2, 0)), "hangs: {hangs}");
        let meta = Meta::choose(&bench.disks[0].meta).expect("whole pages").expect("written");
        assert_eq!(meta.clean, !hangs);
    }
}

mod copies;
mod pauses;
