//! Whole replicas on a small network of the test's own.

use std::net::IpAddr;

use super::*;
use crate::rng::Rng;
use crate::types::{RequestNumber, SessionId};
use crate::wire::client::{first_frame, ToClient, ToReplica};
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
}

impl Bench {
    fn new(n: u8, loss_ppm: u32) -> Bench {
        let ids = (1..=n).map(ReplicaId);
        let book: Book = ids.clone().map(|id| BookEntry { id, address: format!("h{id}:1"), http: None }).collect();
        let ip = |id: ReplicaId| IpAddr::from([10, 0, 0, id.0]);
        let peers: Vec<Peer> = ids.clone().map(|id| Peer { id, ip: ip(id) }).collect();
        let mut bench =
            Bench { replicas: vec![], now: Time(1), rng: Rng::new(7), loss_ppm, told: vec![], dead: Dest(0) };
        for id in ids {
            let config = Config {
                id,
                book: book.clone(),
                peers: peers.clone(),
                policy: Policy::Dynamic,
                min_members: 1,
                durability: Durability::Disk,
                heartbeat_ms: 50,
                suspect_after_ms: 500,
                receive_buffer_bytes: 400_000,
                memory_limit_bytes: 1 << 40,
                segment_bytes: 1 << 22,
                datagram_size_max: 6,
                directory: [0; 2],
                seed: u64::from(id.0),
            };
            let mut out = Outbox::default();
            let replica = Replica::recover(config, Stored::default(), bench.now, &mut out);
            bench.replicas.push(replica);
            bench.carry_out(usize::from(id.0) - 1, out);
        }
        bench
    }

    /// Carries an outbox out, and whatever follows from it.
    fn carry_out(&mut self, from: usize, out: Outbox) {
        let mut work = vec![(from, out)];
        while let Some((from, out)) = work.pop() {
            assert!(out.stop.is_none(), "{:?}", out.stop);
            self.told.extend(out.clients);
            let written = out.log.iter().map(|w| w.number).chain(out.meta.iter().map(|w| w.number)).max();
            let mut next = Outbox::default();
            if let Some(number) = written {
                self.replicas[from].step(self.now, Input::Durable(number), &mut next);
                self.replicas[from].step(self.now, Input::Turn, &mut next);
                work.push((from, next));
            }
            for (dest, bytes) in out.net {
                for to in 0..self.replicas.len() {
                    let (id, dead) = (ReplicaId(to as u8 + 1), self.dead);
                    let lost = dead.contains(id) || dead.contains(ReplicaId(from as u8 + 1));
                    if dest.contains(id) && !lost && !self.rng.chance(self.loss_ppm) {
                        let mut next = Outbox::default();
                        let ip = IpAddr::from([10, 0, 0, from as u8 + 1]);
                        self.replicas[to].step(self.now, Input::Datagram { from: ip, bytes: &bytes }, &mut next);
                        self.replicas[to].step(self.now, Input::Turn, &mut next);
                        work.push((to, next));
                    }
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
