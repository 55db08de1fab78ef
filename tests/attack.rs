//! What a confused peer, a careless client or a bad moment may do to a group, and must not.

use std::collections::VecDeque;
use std::net::IpAddr;

use ftq::group::commit::Commit;
use ftq::group::nack::Nacks;
use ftq::group::path::Path;
use ftq::group::window::{Order, Useless, Window};
use ftq::limits::{DATAGRAM_SIZES, ITEM_BYTES_MAX, READS_MAX, SESSION_IDLE_NS};
use ftq::log::{Record, RecordView, Replay};
use ftq::marks;
use ftq::replica::compare::Compared;
use ftq::replica::machine::{Machine, Replies};
use ftq::replica::read::{Read, Reads};
use ftq::replica::{Config, Input, Outbox, Replica, Stored};
use ftq::rng::Rng;
use ftq::types::{
    Birth, ClientId, ClusterId, Dest, Digest, Epoch, GroupTime, Incarnation, Mseq, PacketNumber, Rank, ReplicaId,
    RequestNumber, Run, SessionId, Slot, Time,
};
use ftq::wire::answer::Code;
use ftq::wire::bundle::Bundler;
use ftq::wire::client::{first_frame, ToClient, ToReplica};
use ftq::wire::codec::Reader;
use ftq::wire::datagram::{seal, Cuts, Frame, Header, Status};
use ftq::wire::operation::{QueueOperation, QueueQuery, SessionOperation, Target};
use ftq::wire::view::{Ballot, Book, BookEntry, Durability, Peer, Policy, View};

fn ip(id: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, id])
}

fn config(id: u8, n: u8) -> Config {
    let ids = (1..=n).map(ReplicaId);
    Config {
        id: ReplicaId(id),
        book: ids.clone().map(|id| BookEntry { id, address: format!("h{id}:1"), http: None }).collect(),
        peers: ids.map(|id| Peer { id, ip: ip(id.0) }).collect(),
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
        seed: u64::from(id),
    }
}

/// Replicas on a network that loses what it is told to, with disks that are done at once.
struct Bench {
    replicas: Vec<Replica>,
    now: Time,
    rng: Rng,
    loss_ppm: u32,
    told: Vec<(ClientId, Vec<u8>)>,
    marks: Vec<&'static str>,
}

/// What clients were told: (client, number) of answers and findings, refusals with their codes, sessions.
#[derive(Default)]
struct Told {
    answers: Vec<(u64, u64, Vec<u8>)>,
    refusals: Vec<(u64, u64, Code)>,
    opened: Vec<(u64, SessionId)>,
}

impl Bench {
    /// A group that has its view and serves.
    fn new(n: u8, loss_ppm: u32) -> Bench {
        let rng = Rng::new(7);
        let mut bench = Bench { replicas: vec![], now: Time(1), rng, loss_ppm, told: vec![], marks: vec![] };
        for id in 1..=n {
            let mut out = Outbox::default();
            bench.replicas.push(Replica::recover(config(id, n), Stored::default(), bench.now, &mut out));
            bench.carry_out(usize::from(id) - 1, out);
        }
        bench.run_ms(3000);
        assert!(bench.replicas.iter().all(|r| r.reason().is_none()), "{:?}", bench.replicas[0].reason());
        bench
    }

    fn carry_out(&mut self, from: usize, out: Outbox) {
        let mut work = VecDeque::from([(from, out)]);
        while let Some((from, out)) = work.pop_front() {
            assert!(out.stop.is_none(), "{:?}", out.stop);
            self.told.extend(out.clients);
            self.marks.extend(out.marks);
            let written = out.log.iter().map(|w| w.number).chain(out.meta.iter().map(|w| w.number)).max();
            if let Some(number) = written {
                work.push_back((from, self.stepped(from, Input::Durable(number))));
            }
            for (dest, bytes) in out.net {
                for to in 0..self.replicas.len() {
                    if dest.contains(ReplicaId(to as u8 + 1)) && !self.rng.chance(self.loss_ppm) {
                        let next = self.stepped(to, Input::Datagram { from: ip(from as u8 + 1), bytes: &bytes });
                        work.push_back((to, next));
                    }
                }
            }
        }
    }

    fn stepped(&mut self, at: usize, input: Input<'_>) -> Outbox {
        let mut out = Outbox::default();
        self.replicas[at].step(self.now, input, &mut out);
        self.replicas[at].step(self.now, Input::Turn, &mut out);
        out
    }

    fn run_ms(&mut self, ms: u64) {
        for _ in 0..ms * 4 {
            self.now = self.now.after_ns(Time::MS / 4);
            for at in 0..self.replicas.len() {
                if self.replicas[at].deadline().is_some_and(|d| d <= self.now) {
                    let out = self.stepped(at, Input::Turn);
                    self.carry_out(at, out);
                }
            }
        }
    }

    /// Hands frames over in one turn.
    fn say(&mut self, at: usize, frames: &[(u64, ToReplica<'_>)]) {
        let mut out = Outbox::default();
        for (client, frame) in frames {
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            self.replicas[at].step(self.now, Input::Frame { client: ClientId(*client), frame: &bytes[4..] }, &mut out);
        }
        self.replicas[at].step(self.now, Input::Turn, &mut out);
        self.carry_out(at, out);
    }

    fn told(&mut self) -> Told {
        let mut told = Told::default();
        for (client, bytes) in std::mem::take(&mut self.told) {
            let mut rest = &bytes[..];
            while let Ok(Some((frame, used))) = first_frame(rest) {
                match ToClient::decode(frame).expect("a frame") {
                    ToClient::Reply { number, answer, .. } => {
                        told.answers.push((client.0, number.0, answer.to_vec()));
                    }
                    ToClient::Found { number, answer, .. } => told.answers.push((client.0, number, answer.to_vec())),
                    ToClient::Opened { session, .. } => told.opened.push((client.0, session)),
                    ToClient::Refused { number, code, .. } => told.refusals.push((client.0, number, code)),
                    _ => {}
                }
                rest = &rest[used..];
            }
        }
        told
    }

    fn open(&mut self, at: usize, client: u64) -> SessionId {
        self.say(at, &[(client, ToReplica::Hello { version: 1 }), (client, ToReplica::Open { token: client })]);
        self.run_ms(1000);
        self.told().opened[0].1
    }

    /// The beginning of a datagram that this replica might send.
    fn header(&self, of: usize) -> Header {
        let regular = self.replicas[of].group().regular().expect("all have rank");
        let (cluster, run) = (regular.view.cluster, self.replicas[of].group().me());
        let mut status = regular.status();
        status.heard = self.replicas[of].group().heard(self.now);
        Header { cluster, run, packet: PacketNumber(0), tag: regular.tag, status }
    }

    fn forge(&mut self, from: usize, to: usize, header: &Header, frames: &[Frame<'_>]) {
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        seal(&mut bytes, PacketNumber(1 << 40));
        let out = self.stepped(to, Input::Datagram { from: ip(from as u8 + 1), bytes: &bytes });
        self.carry_out(to, out);
    }
}

fn push(item: &[u8]) -> Vec<u8> {
    let mut operation = Vec::new();
    QueueOperation::encode_push(&mut operation, Target::Label("jobs"), [item].into_iter());
    operation
}

fn request(number: u64, operation: &[u8]) -> ToReplica<'_> {
    ToReplica::Request { number: RequestNumber(number), seen: RequestNumber(0), operation }
}

fn view(n: u8) -> View {
    let run = |id| Run { id: ReplicaId(id), birth: Birth(1), incarnation: Incarnation(1) };
    View {
        cluster: ClusterId(1),
        epoch: Epoch(1),
        ballot: Ballot::default(),
        members: (1..=n).map(run).collect(),
        base: Slot(0),
        chain: vec![],
        base_digest: Digest(0),
        base_time: GroupTime(0),
        policy: Policy::Dynamic,
        min_members: 1,
        durability: Durability::Disk,
        book: Book::new(),
    }
}

fn cuts(list: &[u64]) -> Cuts {
    let mut cuts = Cuts::zero(list.len());
    list.iter().enumerate().for_each(|(rank, &cut)| cuts.set(Rank(rank as u8), Mseq(cut)));
    cuts
}

#[test]
fn an_operation_larger_than_the_flight_is_ordered() {
    for (n, loss_ppm) in [(3, 0), (7, 0), (5, 100_000)] {
        let mut bench = Bench::new(n, loss_ppm);
        let session = bench.open(0, 1);
        bench.say(1, &[(2, ToReplica::Hello { version: 1 }), (2, ToReplica::Use { session, keep: false })]);
        let operation = push(&vec![7; ITEM_BYTES_MAX]);
        bench.say(1, &[(2, request(1, &operation)), (2, request(2, &operation))]);
        bench.run_ms(2000);
        let told = bench.told().answers.into_iter().filter(|told| told.0 == 2);
        assert_eq!(told.collect::<Vec<_>>(), [(2, 1, vec![0]), (2, 2, vec![0])], "{n} replicas");
    }
}

#[test]
fn cuts_that_run_back_are_refused() {
    let mut window = Window::new(2, Slot(0), GroupTime(0));
    for mseq in 1..=6 {
        window.on_data(Rank(0), Mseq(mseq), false, 1, 0, b"x").expect("new");
    }
    let order = |list: &[u64]| Order { time: GroupTime(1), cuts: cuts(list) };
    assert_eq!(window.on_order(Slot(1), order(&[5, 0])), Ok(()));
    assert_eq!(window.on_order(Slot(2), order(&[3, 0])), Err(Useless::Contradiction));
    assert_eq!(window.on_order(Slot(3), order(&[6, 0])), Ok(()));
    assert_eq!(window.on_order(Slot(2), order(&[5, 0])), Ok(()));
    window.release(Slot(2));
    assert_eq!(window.payloads(Slot(3), Rank(1)).collect::<Vec<_>>(), [b"x"]);
}

#[test]
fn a_confused_report_commits_nothing() {
    let mut bench = Bench::new(3, 0);
    let honest = bench.header(1);
    let known = honest.status.known;
    let far = Slot(known.0 + (1 << 20));
    for status in [
        Status { committed: Slot(u64::MAX), durable: Slot(u64::MAX), known: Slot(u64::MAX), ..honest.status },
        Status { committed: far, durable: far, known: far, ..honest.status },
        Status { committed: Slot(known.0 + 5), ..honest.status },
        Status { durable: Slot(known.0 + 5), ..honest.status },
    ] {
        bench.forge(1, 0, &Header { status, ..honest }, &[]);
        let commit = &bench.replicas[0].group().regular().expect("rank").commit;
        assert_eq!((commit.committed(), commit.known_anywhere()), (known, known), "{status:?}");
    }
}

#[test]
fn positions_at_the_end_of_their_range_are_malformed() {
    let far = u64::MAX;
    for frame in [
        Frame::Order { slot: Slot(far), time: GroupTime(1), cuts: cuts(&[1, 1, 1]) },
        Frame::Order { slot: Slot(1), time: GroupTime(far), cuts: cuts(&[1, 1, 1]) },
        Frame::Order { slot: Slot(1), time: GroupTime(1), cuts: cuts(&[1, far, 1]) },
        Frame::Data { origin: Rank(0), mseq: Mseq(far), continues: false, total: 1, offset: 0, bytes: b"x" },
        Frame::NackOrders { first: Slot(far), last: Slot(far), attempt: 0 },
        Frame::NackData { origin: Rank(0), first: Mseq(far), last: Mseq(far), offset: 0, attempt: 0 },
        Frame::Tell { number: 1, durable: Slot(far) },
    ] {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        assert!(Frame::decode(&mut Reader::new(&bytes)).is_err(), "{frame:?}");
    }
}

#[test]
fn no_frame_of_a_member_is_a_panic() {
    let mut rng = Rng::new(11);
    for n in [2, 3] {
        let mut bench = Bench::new(n, 0);
        let session = bench.open(0, 1);
        for round in 0..3000u64 {
            let header = bench.header(1);
            let mut any = |near: u64| match rng.below(5) {
                0 => 0,
                1 => 1 << rng.below(63),
                2 => near,
                3 => near + 1,
                _ => near + rng.below(70_000),
            };
            let (known, sent) = (header.status.known.0, header.status.sent.0);
            let origin = Rank(any(1) as u8 % 5);
            let bytes = [1u8; 40];
            let frames = [
                Frame::NackOrders { first: Slot(any(known)), last: Slot(any(known)), attempt: any(2) as u8 },
                Frame::NackData {
                    origin,
                    first: Mseq(any(sent)),
                    last: Mseq(any(sent)),
                    offset: any(3) as u32,
                    attempt: any(4) as u8,
                },
                Frame::Data {
                    origin,
                    mseq: Mseq(any(sent + 1)),
                    continues: round % 2 == 0,
                    total: 80,
                    offset: 40,
                    bytes: &bytes,
                },
                Frame::Order {
                    slot: Slot(any(known) + 1),
                    time: GroupTime(any(9)),
                    cuts: cuts(&vec![any(sent); n as usize]),
                },
                Frame::Probed { size: DATAGRAM_SIZES[any(3) as usize % 7] as u16, packet: PacketNumber(1) },
                Frame::Tell { number: any(1), durable: Slot(any(known)) },
                Frame::Check { slot: Slot(any(known)), operations: Digest(1), answers: 1 },
                Frame::Ask { number: any(1) },
            ];
            bench.forge(1, 0, &header, &frames[round as usize % frames.len()..][..1]);
            if round % 50 == 0 {
                let operation = push(b"more");
                bench.say(0, &[(1, ToReplica::Use { session, keep: false }), (1, request(round / 50 + 1, &operation))]);
                bench.run_ms(2);
            }
        }
    }
}

#[test]
fn a_request_number_at_the_end_of_its_range_harms_nobody() {
    let mut bench = Bench::new(1, 0);
    let (one, two) = (bench.open(0, 1), bench.open(0, 2));
    assert_ne!(one, two);
    let operation = push(b"x");
    bench.say(
        0,
        &[(1, request(u64::MAX, &operation)), (1, ToReplica::Open { token: u64::MAX }), (2, request(1, &operation))],
    );
    bench.run_ms(100);
    let told = bench.told();
    let codes: Vec<_> = told.answers.iter().map(|(client, number, answer)| (*client, *number, answer[0])).collect();
    assert_eq!(codes, [(1, u64::MAX, Code::BadRequest as u8), (2, 1, Code::Ok as u8)]);
    assert_eq!(told.opened.len(), 1, "whatever the token");
}

#[test]
fn a_client_that_leaves_a_session_does_not_take_it_from_its_new_owner() {
    let mut bench = Bench::new(1, 0);
    let (old, other) = (bench.open(0, 1), bench.open(0, 9));
    let operation = push(b"x");
    bench.say(0, &[(2, ToReplica::Hello { version: 1 }), (2, ToReplica::Use { session: old, keep: false })]);
    bench.say(0, &[(1, ToReplica::Use { session: other, keep: false }), (2, request(1, &operation))]);
    bench.run_ms(100);
    assert_eq!(bench.told().answers, [(2, 1, vec![0])]);
}

#[test]
fn reads_that_wait_are_bounded() {
    let mut bench = Bench::new(3, 0);
    bench.say(0, &[(1, ToReplica::Hello { version: 1 })]);
    bench.loss_ppm = 1_000_000;
    let mut query = Vec::new();
    QueueQuery::Size { target: Target::Label("jobs") }.encode(&mut query);
    let ask = |number| (1, ToReplica::Query { number, stale: false, query: &query });
    bench.say(0, &(0..2 * READS_MAX as u64).map(ask).collect::<Vec<_>>());
    let told = bench.told();
    assert_eq!(told.refusals.len(), READS_MAX);
    assert!(told.refusals.iter().all(|r| r.2 == Code::Busy));
    bench.loss_ppm = 0;
    bench.run_ms(1000);
    assert_eq!(bench.told().answers.len(), READS_MAX);
}

#[test]
fn a_member_that_agreed_once_is_found_to_differ_later() {
    let mut compared = Compared::default();
    for slot in 1..=2 {
        compared.applied(Slot(slot), (Digest(slot), 7));
    }
    for rank in [Rank(1), Rank(2)] {
        compared.on_check(rank, Slot(1), (Digest(1), 7));
    }
    assert!(!compared.diverged());
    for rank in [Rank(1), Rank(2)] {
        compared.on_check(rank, Slot(2), (Digest(99), 7));
    }
    assert!(compared.diverged());
}

#[test]
fn one_asking_shrinks_the_datagrams_once() {
    let mut path = Path::new(Rank(0), 2, 6, Time(0));
    let mut now = Time(0);
    while path.size() < DATAGRAM_SIZES[6] {
        let (size, _) = path.poll(now).expect("a probe");
        assert!(path.on_probed(now, Rank(1), size));
        now = now.after_ns(1);
    }
    now = now.after_ns(1_000_000_000);
    let shrunk = (0..32).filter(|_| path.on_attempt(now, 3)).count();
    assert_eq!((shrunk, path.size()), (1, DATAGRAM_SIZES[5]));
    assert!(path.on_attempt(now.after_ns(1_000_000_000), 3), "that size does not get through either");
}

#[test]
fn a_question_is_repeated_soon_however_long_it_waited() {
    let (mut reads, view) = (Reads::default(), view(3));
    reads.push(Read { client: ClientId(1), number: 1, query: vec![] });
    let mut now = Time(0);
    for _ in 0..40 {
        assert_eq!(reads.ask(now, &view, Rank(0), Slot(0)), Some(1));
        let again = reads.deadline().expect("it waits for an answer");
        assert!(again.since_ns(now) <= 200 * Time::MS, "{} ns", again.since_ns(now));
        now = again;
    }
}

#[test]
fn every_holder_is_asked_however_often() {
    let (view, mut window) = (view(3), Window::new(3, Slot(0), GroupTime(0)));
    let mut commit = Commit::new(&view);
    for rank in [Rank(1), Rank(2)] {
        commit.on_status(rank, &Status { known: Slot(1), ..Status::default() });
    }
    window.on_data(Rank(1), Mseq(1), false, 1, 0, b"x").expect("new");
    let (mut nacks, mut now, mut asked) = (Nacks::new(Rank(0), 3, Rng::new(1)), Time(0), vec![]);
    for _ in 0..600 {
        nacks.look(now, &window, &commit);
        now = nacks.deadline().expect("order 1 is missing");
        asked.extend(nacks.ask(now, &view, &window, &commit).into_iter().map(|(rank, _)| rank));
    }
    let late = &asked[550..];
    assert!(late.contains(&Rank(1)) && late.contains(&Rank(2)), "{late:?}");
}

#[test]
fn whoever_has_just_got_something_unsettled_waits_before_it_reports() {
    let mut bench = Bench::new(3, 0);
    bench.open(0, 1);
    bench.run_ms(500);
    bench.marks.clear();
    let operation = push(b"x");
    bench.say(0, &[(1, request(1, &operation))]);
    assert_eq!(bench.told().answers.len(), 1, "no time passed, and all is done");
    assert!(!bench.marks.contains(&marks::SILENT_REPORT), "nobody had been silent");
}

#[test]
fn sessions_that_end_together_all_end_in_an_idle_group() {
    let (mut machine, mut replies, mut bundler) = (Machine::new(), Replies::default(), Bundler::default());
    let mut open = Vec::new();
    SessionOperation::Open.encode(&mut open);
    for token in 1..=500 {
        bundler.push(SessionId::NONE, RequestNumber(token), RequestNumber(0), &open);
    }
    machine.apply(Slot(1), GroupTime(1), &bundler.take(), &mut replies);
    let mut now = GroupTime(2 * SESSION_IDLE_NS);
    machine.apply(Slot(2), now, &[], &mut replies);
    // What a sequencer does: a tick for what is due after the last slot's time.
    while let Some(due) = machine.due() {
        assert!(due > now, "nobody would order a tick");
        now = due;
        machine.apply(machine.applied().next(), now, &[], &mut replies);
    }
    assert!(machine.memory_bytes() < 10_000, "all are forgotten");
}

#[test]
fn a_log_that_lacks_its_beginning_stops_the_replica() {
    let record = Record { slot: Slot(5), epoch: Epoch(1), committed: Slot(5), ..Record::default() };
    let mut meta = None;
    let mut out = Outbox::default();
    let replica = Replica::recover(config(1, 1), Stored::default(), Time(0), &mut out);
    drop(replica);
    if let Ok(found) = ftq::log::Meta::choose(&out.meta[0].bytes) {
        meta = found.map(|m| ftq::log::Meta { installed: Some(View { book: config(1, 1).book, ..view(1) }), ..m });
    }
    assert!(meta.is_some());
    let log = Replay { records: vec![RecordView { record, operations: &[] }], committed: Slot(5), ..Replay::default() };
    let mut out = Outbox::default();
    Replica::recover(config(1, 1), Stored { meta, log, ..Stored::default() }, Time(0), &mut out);
    assert_eq!(out.stop.map(|s| s.1), Some(70));
}

#[test]
fn a_set_of_replicas_holds_every_id() {
    for id in [1, 2, 63, 64].map(ReplicaId) {
        assert!(Dest::one(id).contains(id) && Dest::default().with(id).contains(id));
    }
}
