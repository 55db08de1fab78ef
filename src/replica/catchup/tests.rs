//! Follow and Serve against each other over a lossy lane, with the real log bytes.

use crate::limits::{
    FOLLOW_WAIT_MAX_NS, FOLLOW_WAIT_NS, SERVE_BURST_BYTES, SERVE_BYTES_PER_SECOND, SERVE_READS_MAX, STREAM_FRAMES_MAX,
    STREAM_PIECE_BYTES,
};
use crate::log::{replay, snapshot, LogWrite, Record as LogRecord, SegmentNumber, Snapshot, Writer};
use crate::replica::follow::{Fetched, Follow, Got};
use crate::replica::journal::Journal;
use crate::replica::serve::Lanes;
use crate::replica::serve::{Serve, Source as Offer};
use crate::replica::store::Resume;
use crate::replica::{ReadRequest, StoredFile};
use crate::rng::Rng;
use crate::types::{ClusterId, Digest, Epoch, GroupTime, Slot, WriteNumber};
use crate::types::{ReplicaId, Time};
use crate::wire::digest::slot_digest;
use crate::wire::stream::tests::sender;
use crate::wire::stream::Frame;
use crate::wire::stream::{first_frame, Fetch, Position, Record};
use crate::wire::view::tests::view_of;
use crate::wire::view::{Policy, View};
use quickcheck::quickcheck;
use std::collections::{BTreeMap, VecDeque};

mod denied;

const ME: ReplicaId = ReplicaId(1);

/// What all replicas have ordered: one record for each slot from 1, and the view that it leads to.
struct History {
    slots: Vec<Fetched>,
    view: View,
}

fn position(record: &Fetched) -> Position {
    Position { slot: record.slot, epoch: record.epoch, digest: record.digest }
}

impl History {
    fn new(rng: &mut Rng, count: u64, bytes_max: u64) -> History {
        let mut view = view_of(3, 3, Policy::Dynamic);
        let mut history: Vec<Fetched> = Vec::new();
        for slot in 1..=count {
            if rng.chance(60_000) {
                (view.chain, view.epoch, view.base) = (view.next_chain(), view.epoch.next(), Slot(slot - 1));
            }
            let before = history.last().map_or(Digest(0), |r| r.digest);
            let (epoch, slot, time) = (view.epoch, Slot(slot), GroupTime(10 * slot));
            let length = if rng.chance(20_000) { bytes_max * 40 } else { bytes_max };
            let operations: Vec<u8> = vec![slot.0 as u8; rng.below(length + 1) as usize];
            let digest = slot_digest(before, slot, time, &[&operations]);
            history.push(Fetched { epoch, slot, time, digest, operations });
        }
        History { slots: history, view }
    }

    /// Where a log with this many slots ends.
    fn at(&self, slot: u64) -> Position {
        slot.checked_sub(1).map_or(Position::default(), |index| position(&self.slots[index as usize]))
    }
}

/// One that can be asked.
struct Source {
    journal: Journal,
    segments: BTreeMap<SegmentNumber, Vec<u8>>,
    snapshots: BTreeMap<Slot, Vec<u8>>,
    snapshot_slots: Vec<Slot>,
    serve: Serve,
    committed: Slot,
    view: View,
    reads: Vec<ReadRequest>,
    /// Nothing of what is said to it arrives.
    deaf: bool,
}

impl Source {
    /// Has the history up to `end`, its first segments gone where a snapshot stands for them.
    fn new(rng: &mut Rng, history: &History, end: u64, trims: bool) -> Source {
        let mut writer = Writer::new(None, rng.between(1 << 12, 1 << 21));
        let mut writes: Vec<LogWrite> = Vec::new();
        let mut last_of: BTreeMap<SegmentNumber, u64> = BTreeMap::new();
        for fetched in &history.slots[..end as usize] {
            let Fetched { epoch, slot, time, digest, ref operations } = *fetched;
            let record = LogRecord { epoch, slot, time, digest, ..LogRecord::default() };
            // What the next view voided.
            for (k, _) in (0..3).enumerate().take_while(|_| slot.0 > 1 && rng.chance(30_000)) {
                let void = LogRecord { slot: Slot(slot.0 + k as u64), digest: Digest(k as u64), ..record.clone() };
                writer.append(WriteNumber(slot.0), &void, &[b"void"], &mut writes);
            }
            let place = writer.append(WriteNumber(slot.0), &record, &[operations], &mut writes);
            last_of.insert(place.segment, slot.0);
            if rng.chance(100_000) {
                let mark = LogRecord { mark: true, ..record };
                writer.append(WriteNumber(slot.0), &mark, &[], &mut writes);
            }
        }
        let mut segments: BTreeMap<SegmentNumber, Vec<u8>> = BTreeMap::new();
        for LogWrite { segment, offset, bytes, .. } in writes {
            let file = segments.entry(segment).or_default();
            file.resize(offset as usize, 0);
            file.extend(bytes);
        }
        let mut snapshots = BTreeMap::new();
        if trims && last_of.len() > 1 {
            let (&gone, &covered) = last_of.iter().nth(rng.below(last_of.len() as u64 - 1) as usize).expect("below");
            for slot in [covered, rng.between(covered, end)] {
                snapshots.insert(Slot(slot), snapshot_file(rng, history, slot));
            }
            segments.retain(|segment, _| *segment > gone);
        }
        let slices: Vec<(SegmentNumber, &[u8])> = segments.iter().map(|(n, bytes)| (*n, &bytes[..])).collect();
        let files: Vec<(Slot, &[u8])> =
            snapshots.iter().map(|(&slot, file): (_, &Vec<u8>)| (slot, &file[..])).collect();
        let (newest, found) = (snapshot::choose(&files).newest, replay(&slices));
        let resume = Resume::find(newest.as_ref().map(|(snapshot, _)| snapshot), &found).expect("a log that goes on");
        let journal = Journal::new(&found, &resume, 1 << 20);
        let (snapshot_slots, serve) = (snapshots.keys().copied().collect(), Serve::new(Time(0)));
        let (committed, view, reads) = (Slot(end), history.view.clone(), Vec::new());
        Source { journal, segments, snapshots, snapshot_slots, serve, committed, view, reads, deaf: false }
    }

    fn work(
        &mut self,
        id: u8,
        out: &mut Vec<(ReplicaId, Vec<u8>)>,
        on: impl FnOnce(&mut Serve, &Offer<'_>, &mut Lanes<'_>),
    ) {
        let Source { journal, snapshot_slots, serve, committed, view, reads, .. } = self;
        let (sender, view, committed) = (sender(id), Some(&*view), *committed);
        let offer = Offer { sender, journal, view, committed, snapshots: snapshot_slots };
        on(serve, &offer, &mut Lanes { streams: out, reads });
    }

    fn tick(&mut self, id: u8, now: Time, out: &mut Vec<(ReplicaId, Vec<u8>)>) {
        self.work(id, out, |serve, offer, lanes| serve.tick(now, offer, lanes));
    }

    fn read(&self, request: &ReadRequest) -> Vec<u8> {
        let file = match request.file {
            StoredFile::Segment(segment) => self.segments.get(&segment),
            StoredFile::Snapshot(slot) => self.snapshots.get(&slot),
        };
        let (file, from) = (file.map_or(&[][..], |file| file), request.offset as usize);
        file[from.min(file.len())..(from + request.bytes as usize).min(file.len())].to_vec()
    }

    fn answer_reads(&mut self, id: u8, out: &mut Vec<(ReplicaId, Vec<u8>)>) {
        for request in std::mem::take(&mut self.reads) {
            assert!(request.bytes as usize <= STREAM_PIECE_BYTES, "{request:?}");
            let bytes = self.read(&request);
            self.work(id, out, |serve, offer, lanes| assert!(serve.on_read(request.token, &bytes, offer, lanes)));
        }
    }

    fn on_frame(&mut self, from: ReplicaId, bytes: &[u8]) {
        let (frame, _) = first_frame(bytes).expect("within bounds").expect("whole");
        if let (_, Frame::Fetch { number, fetch }) = Frame::decode(frame).expect("well-formed") {
            self.serve.on_fetch(from, number, fetch);
        }
    }
}

fn snapshot_file(rng: &mut Rng, history: &History, slot: u64) -> Vec<u8> {
    let Fetched { epoch, slot, time, digest, .. } = history.slots[slot as usize - 1];
    let mut view = View { epoch, chain: Vec::new(), ..history.view.clone() };
    view.base = view.base.min(slot);
    let most = *rng.pick(&[10, 1000, 3 * STREAM_PIECE_BYTES as u64]);
    let state = vec![slot.0 as u8; rng.below(most) as usize];
    [&Snapshot { slot, time, digest, view }.header(&state)[..], &state].concat()
}

/// What is under way, and when it arrives.
type Lane = VecDeque<(Time, Vec<u8>)>;

/// A follower and those it may ask, on a network that loses connections.
struct World {
    rng: Rng,
    now: Time,
    history: History,
    follow: Follow,
    /// Replicas 2 and above.
    sources: Vec<Source>,
    /// One lane each way for each source, in order.
    lanes: BTreeMap<(ReplicaId, ReplicaId), Lane>,
    reset_ppm: u32,
    /// What was taken, in order.
    got: Vec<Fetched>,
    states: Vec<Snapshot>,
    differs: Vec<(ReplicaId, Slot)>,
    frames: u64,
}

impl World {
    fn new(seed: u64, count: u64, bytes_max: u64, ends: &[u64], trims: bool) -> World {
        let mut rng = Rng::new(seed);
        let history = History::new(&mut rng, count, bytes_max);
        let sources = ends.iter().map(|&end| Source::new(&mut rng, &history, end, trims)).collect();
        World {
            rng,
            now: Time(0),
            history,
            follow: Follow::new(sender(1).run),
            sources,
            lanes: BTreeMap::new(),
            reset_ppm: 0,
            got: Vec::new(),
            states: Vec::new(),
            differs: Vec::new(),
            frames: 0,
        }
    }

    fn ids(&self) -> Vec<ReplicaId> {
        (2..).map(ReplicaId).take(self.sources.len()).collect()
    }

    fn send(&mut self, from: ReplicaId, out: Vec<(ReplicaId, Vec<u8>)>) {
        for (to, bytes) in out {
            let lane = self.lanes.entry((from, to)).or_default();
            let soonest = lane.back().map_or(self.now, |(at, _)| *at);
            lane.push_back((soonest.max(self.now.after_ns(self.rng.below(2 * Time::MS))), bytes));
            if self.rng.chance(self.reset_ppm) {
                // Both ways: what was under way over this connection is lost.
                let kept = self.rng.below(3) as usize;
                self.lanes.entry((from, to)).or_default().truncate(kept);
                self.lanes.entry((to, from)).or_default().clear();
            }
        }
    }

    fn arrived(&mut self, now: Time) -> Vec<(ReplicaId, ReplicaId, Vec<u8>)> {
        let mut arrived = Vec::new();
        for (&(from, to), lane) in &mut self.lanes {
            while lane.front().is_some_and(|(at, _)| *at <= now) {
                arrived.push((from, to, lane.pop_front().expect("it was just looked at").1));
            }
        }
        arrived
    }

    /// One millisecond.
    fn step(&mut self) {
        self.now = self.now.after_ns(Time::MS);
        for (from, to, bytes) in self.arrived(self.now) {
            self.frames += 1;
            if to == ME {
                let (frame, _) = first_frame(&bytes).expect("within bounds").expect("whole");
                let (by, frame) = Frame::decode(frame).expect("well-formed");
                assert_eq!(by, sender(from.0));
                self.follow.on_frame(self.now, ClusterId(0xc1), None, from, &frame);
                self.take();
            } else if !self.sources[usize::from(to.0) - 2].deaf {
                self.sources[usize::from(to.0) - 2].on_frame(from, &bytes);
            }
        }
        for id in self.ids() {
            let (mut out, source) = (Vec::new(), &mut self.sources[usize::from(id.0) - 2]);
            source.answer_reads(id.0, &mut out);
            source.tick(id.0, self.now, &mut out);
            assert!(source.reads.len() <= SERVE_READS_MAX);
            self.send(id, out);
        }
        let mut out = Vec::new();
        self.follow.tick(self.now, sender(1), &mut out);
        self.send(ME, out);
    }

    fn take(&mut self) {
        while let Some(got) = self.follow.take() {
            match got {
                Got::Records(records) => self.got.extend(records),
                Got::State { snapshot, file } => {
                    assert_eq!(Snapshot::decode(&file).expect("checked").0, snapshot);
                    self.got.clear();
                    self.states.push(snapshot);
                }
                Got::Differs { from, slot } => self.differs.push((from, slot)),
            }
        }
    }

    /// Goes on until it holds, or for so many milliseconds.
    fn until(&mut self, most_ms: u64, holds: impl Fn(&World) -> bool) -> bool {
        for _ in 0..most_ms {
            if holds(self) {
                return true;
            }
            self.step();
        }
        holds(self)
    }

    fn reached(&self) -> Slot {
        self.follow.position().map_or(Slot(0), |at| at.slot)
    }

    /// What was taken is the history behind `after`, or behind the snapshot that came.
    fn check(&self, after: u64) {
        let from = self.states.last().map_or(Slot(after), |snapshot| snapshot.slot);
        let to = self.reached();
        assert!(self.got == self.history.slots[from.0 as usize..to.0 as usize], "{from:?} to {to:?}");
        assert_eq!(self.follow.position(), Some(self.history.at(to.0)));
        if let Some(snapshot) = self.states.last() {
            let at = self.history.at(snapshot.slot.0);
            assert_eq!((snapshot.slot, snapshot.view.epoch, snapshot.digest), (at.slot, at.epoch, at.digest));
        }
    }
}

quickcheck! {
    fn a_follower_ends_with_the_very_same_records(seed: u64) -> bool {
        let mut rng = Rng::new(seed);
        let count = rng.between(1, 400);
        let ends = [count, rng.between(1, count), count];
        let bytes_max = *rng.pick(&[20, 300, 10_000]);
        let mut world = World::new(seed, count, bytes_max, &ends[..rng.between(1, 3) as usize], rng.chance(500_000));
        world.reset_ppm = *rng.pick(&[0, 20_000, 100_000]);
        let after = rng.between(0, count);
        let target = rng.chance(700_000).then(|| Slot(rng.between(after, count)));
        let ids = world.ids();
        let goal = target.unwrap_or(Slot(count));
        for round in 0..20_000 {
            // Said in every turn, with the end of the log as it is then; sources come and go.
            if round % 7 == 0 {
                let most = if round < 5_000 { world.rng.between(1, ids.len() as u64) as usize } else { ids.len() };
                let at = world.follow.position().unwrap_or(world.history.at(after));
                world.follow.want(world.now, at, target, &ids[..most]);
            }
            if world.reached() >= goal && round > 0 {
                break;
            }
            world.step();
        }
        assert!(world.reached() >= goal, "{:?} of {goal:?}, {:?}", world.reached(), world.follow.counters);
        world.check(after);
        assert_eq!(world.differs, [], "there is one history");
        world.follow.counters.broken == 0
    }
}

#[test]
fn resets_and_snapshots_are_among_what_is_tried() {
    let (mut states, mut gaps, mut silent) = (0, 0, 0);
    for seed in 0..40 {
        let mut world = World::new(seed, 300, 5_000, &[300, 300], true);
        world.reset_ppm = 100_000;
        let ids = world.ids();
        world.follow.want(world.now, Position::default(), Some(Slot(300)), &ids);
        assert!(world.until(20_000, |w| w.reached() == Slot(300)), "{:?}", world.follow.counters);
        world.check(0);
        states += world.states.len();
        gaps += world.follow.counters.gaps;
        silent += world.follow.counters.silent;
    }
    assert!(states > 5 && gaps > 5 && silent > 1, "{states} snapshots, {gaps} gaps, {silent} sources given up");
}

#[test]
fn a_long_log_comes_at_the_stated_rate_and_no_faster() {
    let mut world = World::new(1, 5_000, 20_000, &[5_000], false);
    assert!(!world.history.view.keeps(Epoch(1), Slot(1)), "the view has forgotten how it began");
    let bytes: usize = world.history.slots.iter().map(|r| r.operations.len()).sum();
    world.follow.want(world.now, Position::default(), None, &[ReplicaId(2)]);
    assert!(world.until(60_000, |w| w.reached() == Slot(5_000)));
    world.check(0);
    let least_ns = (bytes as u64 - SERVE_BURST_BYTES) * 1_000_000_000 / SERVE_BYTES_PER_SECOND;
    assert!(world.now.0 > least_ns, "{bytes} bytes in {} ns", world.now);
    assert!(world.now.0 < 2 * least_ns, "{bytes} bytes took {} ns, {least_ns} would do", world.now);
    assert_eq!(world.follow.lag(), Some(0));
    let requests = world.sources[0].serve.counters.requests;
    assert!(requests < world.frames / u64::from(STREAM_FRAMES_MAX / 2), "{requests} requests, {} frames", world.frames);
}

#[test]
fn what_is_not_committed_is_served_by_name_only() {
    let mut world = World::new(2, 50, 20, &[50], false);
    world.sources[0].committed = Slot(30);
    world.follow.want(world.now, Position::default(), None, &[ReplicaId(2)]);
    assert!(world.until(100, |w| w.follow.lag() == Some(0)));
    assert_eq!(world.reached(), Slot(30));
    assert!(!world.until(500, |w| w.reached() > Slot(30)));
    let at = world.follow.position().expect("wanted");
    world.follow.want(world.now, at, Some(Slot(45)), &[ReplicaId(2)]);
    assert!(world.until(100, |w| w.reached() == Slot(45)));
    assert_eq!(world.follow.deadline(), None, "all is here");
    let at = world.follow.position().expect("wanted");
    world.follow.want(world.now, at, None, &[ReplicaId(2)]);
    world.sources[0].committed = Slot(50);
    assert!(world.until(100, |w| w.reached() == Slot(50)), "it goes on asking");
    world.check(0);
}

#[test]
fn a_silent_source_is_given_up_and_each_wait_is_longer() {
    let mut world = World::new(3, 10, 20, &[10, 10], false);
    world.sources.iter_mut().for_each(|source| source.deaf = true);
    world.follow.want(world.now, Position::default(), Some(Slot(10)), &world.ids());
    let (mut asked, mut last) = (Vec::new(), world.now);
    for _ in 0..8_000 {
        let before = world.lanes.iter().map(|(to, lane)| (*to, lane.len())).collect::<BTreeMap<_, _>>();
        world.step();
        let grown = |(to, lane): (&(ReplicaId, ReplicaId), &Lane)| {
            (lane.len() > before.get(to).copied().unwrap_or(0)).then_some(to.1)
        };
        if let Some(to) = world.lanes.iter().find_map(grown) {
            asked.push((to.0, world.now.since_ns(last)));
            last = world.now;
        }
    }
    assert_eq!(asked.iter().map(|(to, _)| *to).collect::<Vec<_>>()[..4], [2, 3, 2, 3]);
    let waits: Vec<u64> = asked[1..].iter().map(|(_, wait)| *wait).collect();
    assert_eq!(waits[..3], [FOLLOW_WAIT_NS, 2 * FOLLOW_WAIT_NS, 4 * FOLLOW_WAIT_NS]);
    assert_eq!(waits.iter().max(), Some(&FOLLOW_WAIT_MAX_NS));
    world.sources[1].deaf = false;
    assert!(world.until(5_000, |w| w.reached() == Slot(10)));
    world.check(0);
}

#[test]
fn another_history_is_told_and_the_next_source_is_asked() {
    let mut world = World::new(4, 60, 20, &[60, 60], false);
    let after = Position { digest: Digest(7), ..world.history.at(20) };
    world.follow.want(world.now, after, Some(Slot(60)), &world.ids());
    assert!(world.until(2_000, |w| w.differs.len() == 2));
    assert_eq!(world.differs, [(ReplicaId(2), Slot(0)), (ReplicaId(3), Slot(0))]);
    // A record beyond the base of the view that followed its epoch.
    let mut world = World::new(4, 60, 20, &[60], false);
    let (first, next) = (world.history.view.chain[0], world.history.view.chain[1]);
    assert_eq!(first.epoch.next(), next.epoch);
    let after = Position { slot: next.base.next(), epoch: first.epoch, digest: Digest(7) };
    world.follow.want(world.now, after, Some(Slot(60)), &world.ids());
    assert!(world.until(100, |w| !w.differs.is_empty()));
    assert_eq!((world.differs[0], world.got.len()), ((ReplicaId(2), next.base), 0));
    // Of an epoch that the source has not heard of.
    let epoch = world.history.view.epoch.next();
    world.follow.want(world.now, Position { epoch, ..world.history.at(20) }, Some(Slot(60)), &world.ids());
    assert!(!world.until(500, |w| w.reached() > Slot(20)));
    assert!(world.sources[0].serve.counters.later > 2);
}

#[test]
fn what_is_gone_from_the_disk_is_not_promised() {
    let mut world = World::new(5, 40, 20, &[40, 40], false);
    world.sources[0].segments.clear();
    world.follow.want(world.now, Position::default(), Some(Slot(40)), &world.ids());
    assert!(world.until(40, |w| w.reached() == Slot(40)), "the other one has it, and is asked at once");
    assert_eq!(world.sources[0].serve.counters.later, 1);
    world.check(0);
}

#[test]
fn who_asks_and_asks_has_one_request_and_one_read_under_way() {
    let mut world = World::new(6, 200, 2_000, &[200], false);
    let fetch = Fetch { after: Position::default(), upto: Slot(0), frames: STREAM_FRAMES_MAX, state: (Slot(0), 0) };
    let (source, mut out) = (&mut world.sources[0], Vec::new());
    for number in 0..1_000 {
        (10..40).for_each(|id| source.serve.on_fetch(ReplicaId(id), number, fetch));
        source.tick(2, Time(number * Time::MS), &mut out);
        assert!(source.reads.len() <= SERVE_READS_MAX);
    }
    assert!(out.is_empty(), "the disk has not answered");
    source.answer_reads(2, &mut out);
    let (mut served, mut now) = (std::collections::BTreeSet::new(), Time(2_000 * Time::MS));
    while source.serve.deadline().is_some() {
        now = now.after_ns(10 * Time::MS);
        source.tick(2, now, &mut out);
        source.answer_reads(2, &mut out);
        served.extend(out.drain(..).map(|(to, _)| to));
    }
    assert_eq!(served.len(), 30, "all came to it");
}

/// A follower at slot 10 that has asked replica 2 under this number.
fn asked(world: &mut World) -> u64 {
    let mut out = Vec::new();
    world.follow.stop();
    world.follow.want(world.now, world.history.at(10), Some(Slot(20)), &[ReplicaId(2)]);
    world.follow.tick(world.now, sender(1), &mut out);
    let (frame, _) = first_frame(&out[0].1).expect("within bounds").expect("whole");
    match Frame::decode(frame) {
        Ok((_, Frame::Fetch { number, fetch })) if fetch.after == world.history.at(10) => number,
        other => panic!("{other:?}"),
    }
}

fn wire(record: &Fetched) -> Record<'_> {
    let Fetched { epoch, slot, time, digest, ref operations } = *record;
    Record { epoch, slot, time, digest, operations }
}

#[test]
fn hostile_frames_change_nothing() {
    let mut world = World::new(7, 40, 20, &[], false);
    let number = asked(&mut world);
    let (history, cluster) = (&world.history.slots, ClusterId(0xc1));
    let (committed, end) = (Slot(40), Slot(40));
    let of = |records: Vec<Record<'static>>| Frame::Records { number, committed, end, records };
    let eleven: Record<'static> = Record { operations: history[10].operations.clone().leak(), ..wire(&history[10]) };
    let changed = [
        Record { time: GroupTime(eleven.time.0 + 1), ..eleven },
        Record { digest: Digest(eleven.digest.0 ^ 1), ..eleven },
        Record { operations: b"other", ..eleven },
        Record { epoch: Epoch(0), ..eleven },
    ];
    for (k, record) in changed.into_iter().enumerate() {
        world.follow.on_frame(world.now, cluster, None, ReplicaId(2), &of(vec![record]));
        assert_eq!(world.follow.take(), Some(Got::Differs { from: ReplicaId(2), slot: Slot(10) }));
        assert_eq!((world.follow.counters.broken, world.follow.take()), (k as u64 + 1, None));
        assert_eq!(world.follow.position(), Some(world.history.at(10)));
    }
    let number = asked(&mut world);
    let good = Frame::Records { number, committed, end, records: vec![eleven] };
    let state = |offset, total, slot| Frame::State { number, slot: Slot(slot), total, offset, bytes: b"no snapshot" };
    let ignored = [
        (ReplicaId(3), good.clone()),
        (ReplicaId(2), Frame::Records { number: number.wrapping_add(1), committed, end, records: vec![eleven] }),
        (ReplicaId(2), Frame::Differs { number: number.wrapping_sub(5), slot: Slot(3) }),
        (ReplicaId(2), Frame::Later { number: u64::MAX }),
        (ReplicaId(2), state(0, 11, 10)),
        (ReplicaId(2), state(0, 11, 15)),
        (ReplicaId(2), state(100, 900, 15)),
        (ReplicaId(2), state(0, 900, 15)),
    ];
    for (from, frame) in &ignored {
        world.follow.on_frame(world.now, cluster, None, *from, frame);
        assert_eq!((world.follow.take(), world.follow.position()), (None, Some(world.history.at(10))), "{frame:?}");
    }
    world.follow.on_frame(world.now, cluster, None, ReplicaId(2), &good);
    assert!(matches!(world.follow.take(), Some(Got::Records(records)) if records[..] == world.history.slots[10..11]));
    world.follow.on_frame(world.now, cluster, None, ReplicaId(2), &good);
    assert_eq!(world.follow.take(), None, "twice");
    world.follow.stop();
    assert_eq!((world.follow.position(), world.follow.deadline()), (None, None));
}

#[test]
fn what_a_view_denies_is_not_taken_though_it_chains() {
    let mut world = World::new(7, 40, 20, &[], false);
    let number = asked(&mut world);
    let history = world.history.slots.clone();
    let records: Vec<Record<'_>> = history[10..14].iter().map(wire).collect();
    let frame = Frame::Records { number, committed: Slot(40), end: Slot(40), records };
    // A view began at slot 12 after the epoch of 13, or of 14, had ended.
    let (epoch, base) = (history[12].epoch.next(), Slot(12));
    let view = View { epoch, base, chain: Vec::new(), ..view_of(3, 3, Policy::Dynamic) };
    world.follow.on_frame(world.now, ClusterId(0xc1), Some(&view), ReplicaId(2), &frame);
    assert!(matches!(world.follow.take(), Some(Got::Records(records)) if records[..] == history[10..12]));
    assert_eq!((world.follow.counters.broken, world.follow.take()), (1, None));
    assert_eq!(world.follow.position(), Some(world.history.at(12)));
}

#[test]
fn how_far_it_is_from_the_end_is_not_known_while_a_state_comes() {
    let mut world = World::new(9, 40, 20, &[], false);
    let number = asked(&mut world);
    let records = Frame::Records { number, committed: Slot(15), end: Slot(15), records: Vec::new() };
    let state = Frame::State { number, slot: Slot(30), total: 9, offset: 0, bytes: b"the" };
    for (frame, lag) in [(records, Some(5)), (state, None)] {
        world.follow.on_frame(world.now, ClusterId(0xc1), None, ReplicaId(2), &frame);
        assert_eq!(world.follow.lag(), lag);
    }
}

#[test]
fn a_snapshot_of_another_cluster_or_with_a_wrong_byte_is_none() {
    let mut world = World::new(8, 40, 20, &[], false);
    let mut rng = Rng::new(8);
    for (cluster, flip) in [(ClusterId(0xc2), 0), (ClusterId(0xc1), 1)] {
        let number = asked(&mut world);
        let mut file = snapshot_file(&mut rng, &world.history, 30);
        let last = file.len() - 1;
        file[last] ^= flip;
        let total = file.len() as u64;
        for (k, bytes) in file.chunks(STREAM_PIECE_BYTES).enumerate() {
            let offset = (k * STREAM_PIECE_BYTES) as u64;
            let frame = Frame::State { number, slot: Slot(30), total, offset, bytes };
            world.follow.on_frame(world.now, cluster, None, ReplicaId(2), &frame);
        }
        assert_eq!((world.follow.take(), world.follow.position()), (None, Some(world.history.at(10))));
        world.follow.stop();
    }
    assert_eq!(world.follow.counters.broken, 2);
}
