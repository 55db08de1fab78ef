//! Following: a replica that lacks slots gets them from one that has them (DESIGN 6.3), record by record, or as a
//! snapshot and then records where the source's log begins later.
//!
//! One source is asked at a time. An answer is several frames, each taken as soon as it comes; a source that brings
//! nothing for a while is given up for the next one. What is handed over goes on exactly where the log ended: slots
//! are consecutive, digests chain, and no view denies them, whoever sent them. Nothing is trusted and nothing happens
//! twice: what comes late, doubled or out of order changes nothing, and what is lost is asked for again from the last
//! record taken.

use std::collections::VecDeque;

use crate::limits::{FOLLOW_AGAIN_NS, FOLLOW_WAIT_MAX_NS, FOLLOW_WAIT_NS, STREAM_FRAMES_MAX};
use crate::log::Snapshot;
use crate::types::{ClusterId, Digest, Epoch, GroupTime, ReplicaId, Run, Slot, Time};
use crate::wire::digest::slot_digest;
use crate::wire::stream::{Fetch, Frame, Position, Record, Sender};
use crate::wire::view::View;

/// One slot of another replica's log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetched {
    pub epoch: Epoch,
    pub slot: Slot,
    pub time: GroupTime,
    /// The running digest including this slot: checked.
    pub digest: Digest,
    /// Bundles in delivery order.
    pub operations: Vec<u8>,
}

/// What a frame brought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Got {
    /// The next slots, at least one.
    Records(Vec<Fetched>),
    /// A whole snapshot file, its checksums right: the state up to its slot, beyond which records follow.
    State { snapshot: Snapshot, file: Vec<u8> },
    /// This source's history is another one than the log's up to its end, or it cannot tell. Up to `slot` it may be
    /// the same. The next source is asked meanwhile.
    Differs { from: ReplicaId, slot: Slot },
}

/// What became of frames, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Frames of another group, of another replica than the connection says, or malformed.
    pub foreign: u64,
    /// Answers to a question that is settled, or was never asked.
    pub stale: u64,
    /// Frames before which one was lost.
    pub gaps: u64,
    /// Records that don't chain or that a view denies, and snapshots that are none.
    pub broken: u64,
    /// Times a source was given up because it brought nothing.
    pub silent: u64,
}

/// A request under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Asked {
    number: u64,
    /// Frames that may still come.
    frames_left: u8,
    /// When the source is given up.
    until: Time,
}

/// The pieces of a snapshot file so far.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Pieces {
    slot: Slot,
    total: u64,
    bytes: Vec<u8>,
}

/// What is wanted, and how far it is.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Goal {
    /// The last record handed over.
    at: Position,
    target: Option<Slot>,
    sources: Vec<ReplicaId>,
    /// The source that is asked: an index of `sources`.
    turn: usize,
    asked: Option<Asked>,
    /// Nothing is asked before.
    again_at: Time,
    patience_ns: u64,
    /// Answers below this number are of an earlier goal.
    first_number: u64,
    pieces: Option<Pieces>,
    /// The highest slot that a source called committed; `None` before the first answer.
    committed: Option<Slot>,
}

#[derive(Debug)]
pub struct Follow {
    goal: Option<Goal>,
    next_number: u64,
    /// What came and was not taken yet.
    got: VecDeque<Got>,
    pub counters: Counters,
}

impl Follow {
    /// `run` keeps the numbers of one life apart from those of another, as far as chance can.
    pub fn new(run: Run) -> Follow {
        let next_number = run.birth.0.wrapping_add(run.incarnation.0 << 32);
        Follow { goal: None, next_number, got: VecDeque::new(), counters: Counters::default() }
    }

    /// The log ends at `after`, with all that was taken; what follows is wanted, up to `target` or as far as sources
    /// know it to be committed, for as long as this is not taken back. Said again with the same end it changes nothing
    /// but the target and the sources; with another one it begins anew there, and what was not taken is dropped. To
    /// begin with nothing is to begin at slot 0.
    pub fn want(&mut self, now: Time, after: Position, target: Option<Slot>, sources: &[ReplicaId]) {
        if self.goal.as_ref().is_none_or(|goal| goal.at != after) {
            self.stop();
        }
        let goal = match &mut self.goal {
            Some(goal) => goal,
            none => none.insert(Goal {
                at: after,
                target,
                sources: sources.to_vec(),
                turn: 0,
                asked: None,
                again_at: now,
                patience_ns: FOLLOW_WAIT_NS,
                first_number: self.next_number,
                pieces: None,
                committed: None,
            }),
        };
        if goal.target != target {
            goal.target = target;
            goal.again_at = now;
        }
        if goal.sources != sources {
            let current = goal.sources.get(goal.turn).copied();
            goal.sources = sources.to_vec();
            match goal.sources.iter().position(|id| Some(*id) == current) {
                Some(turn) => goal.turn = turn,
                None => (goal.turn, goal.asked, goal.again_at) = (0, None, now),
            }
        }
    }

    /// Nothing is wanted any more.
    pub fn stop(&mut self) {
        self.goal = None;
        self.got.clear();
    }

    /// What came next, once.
    pub fn take(&mut self) -> Option<Got> {
        self.got.pop_front()
    }

    /// Where the log ends once all that came is taken; `None` while nothing is wanted.
    pub fn position(&self) -> Option<Position> {
        self.goal.as_ref().map(|goal| goal.at)
    }

    /// How many slots that a source called committed are still to come; `None` while no source has said.
    pub fn lag(&self) -> Option<u64> {
        self.goal.as_ref().and_then(|goal| goal.committed.map(|slot| slot.0.saturating_sub(goal.at.slot.0)))
    }

    /// The highest slot that a source called committed.
    pub fn committed(&self) -> Slot {
        self.goal.as_ref().and_then(|goal| goal.committed).unwrap_or(Slot(0))
    }

    /// Asks, if it is time to.
    pub fn tick(&mut self, now: Time, sender: Sender, out: &mut Vec<(ReplicaId, Vec<u8>)>) {
        let Some(goal) = self.goal.as_mut().filter(|goal| !goal.is_idle()) else { return };
        if goal.asked.is_some_and(|asked| now >= asked.until) {
            self.counters.silent += 1;
            goal.give_up(now, 0);
        }
        if goal.asked.is_some() || now < goal.again_at {
            return;
        }
        let number = self.next_number;
        self.next_number = number.wrapping_add(1);
        let frames = STREAM_FRAMES_MAX;
        goal.asked = Some(Asked { number, frames_left: frames, until: now.after_ns(goal.patience_ns) });
        let state = goal.pieces.as_ref().map_or((Slot(0), 0), |p| (p.slot, p.bytes.len() as u64));
        let fetch = Fetch { after: goal.at, upto: goal.target.unwrap_or(Slot(0)), frames, state };
        let mut bytes = Vec::new();
        Frame::Fetch { number, fetch }.encode(sender, &mut bytes);
        out.push((goal.sources[goal.turn], bytes));
    }

    /// When `tick` has something to do.
    pub fn deadline(&self) -> Option<Time> {
        let goal = self.goal.as_ref().filter(|goal| !goal.is_idle())?;
        Some(goal.asked.map_or(goal.again_at, |asked| asked.until))
    }

    /// An answer of a replica of this cluster. What it brings is there to be taken; records that `view`, the newest
    /// known here, denies are none.
    pub fn on_frame(&mut self, now: Time, cluster: ClusterId, view: Option<&View>, from: ReplicaId, frame: &Frame<'_>) {
        let got = self.brought(now, cluster, view, from, frame);
        self.got.extend(got);
    }

    fn brought(
        &mut self,
        now: Time,
        cluster: ClusterId,
        view: Option<&View>,
        from: ReplicaId,
        frame: &Frame<'_>,
    ) -> Option<Got> {
        let number = match *frame {
            Frame::Fetch { .. } => return None,
            Frame::Records { number, .. }
            | Frame::Differs { number, .. }
            | Frame::State { number, .. }
            | Frame::Later { number } => number,
        };
        if self.ignore(from, number) {
            self.counters.stale += 1;
            return None;
        }
        let Follow { goal: Some(goal), counters, .. } = self else { return None };
        let current = goal.asked.is_some_and(|asked| asked.number == number);
        match *frame {
            Frame::Records { committed, end, ref records, .. } => {
                goal.committed = goal.committed.max(Some(committed));
                let denied = |r: &Record<'_>| view.is_some_and(|view| view.denies(r.epoch, r.slot));
                let sound = records.iter().position(denied).unwrap_or(records.len());
                let got = goal.on_records(now, from, current, committed.min(end), end, &records[..sound], counters);
                if sound < records.len() {
                    counters.broken += 1;
                    goal.give_up(now, FOLLOW_AGAIN_NS);
                }
                got
            }
            Frame::State { slot, total, offset, bytes, .. } => {
                // How far it is from the end is known again once all of it is here.
                goal.committed = None;
                let whole = goal.on_piece(now, current, (slot, total, offset), bytes, counters);
                if whole {
                    goal.complete(now, cluster, counters)
                } else {
                    None
                }
            }
            Frame::Differs { slot, .. } if current => {
                goal.give_up(now, goal.wait_ns(goal.patience_ns));
                Some(Got::Differs { from, slot })
            }
            Frame::Later { .. } if current => {
                goal.give_up(now, goal.wait_ns(goal.patience_ns));
                None
            }
            Frame::Fetch { .. } | Frame::Differs { .. } | Frame::Later { .. } => {
                counters.stale += 1;
                None
            }
        }
    }

    /// Whether an answer of this source under this number is of no use.
    fn ignore(&self, from: ReplicaId, number: u64) -> bool {
        let Some(goal) = &self.goal else { return true };
        let asked = self.next_number.wrapping_sub(goal.first_number);
        number.wrapping_sub(goal.first_number) >= asked || !goal.sources.contains(&from) || goal.is_idle()
    }
}

impl Goal {
    /// Nothing is missing, or nobody is there to be asked.
    fn is_idle(&self) -> bool {
        self.sources.is_empty() || self.target.is_some_and(|target| self.at.slot >= target)
    }

    /// How long to wait before the next source is asked: not at all, unless each has had its turn.
    fn wait_ns(&self, round_ns: u64) -> u64 {
        if self.turn + 1 < self.sources.len() {
            0
        } else {
            round_ns
        }
    }

    /// The next source is asked after a while, and given more time.
    fn give_up(&mut self, now: Time, wait_ns: u64) {
        self.asked = None;
        self.again_at = now.after_ns(wait_ns);
        self.turn = (self.turn + 1) % self.sources.len().max(1);
        self.patience_ns = (2 * self.patience_ns).min(FOLLOW_WAIT_MAX_NS);
    }

    /// A frame of the current answer brought something.
    fn progress(&mut self, now: Time) {
        self.patience_ns = FOLLOW_WAIT_NS;
        if let Some(asked) = &mut self.asked {
            asked.until = now.after_ns(FOLLOW_WAIT_NS);
            asked.frames_left = asked.frames_left.saturating_sub(1);
            if asked.frames_left == 0 {
                self.ask_again(now);
            }
        }
    }

    fn ask_again(&mut self, at: Time) {
        self.asked = None;
        self.again_at = at;
    }

    /// A frame that the next one was to follow is lost.
    fn on_gap(&mut self, now: Time, current: bool, counters: &mut Counters) {
        counters.gaps += 1;
        if current {
            self.ask_again(now);
        }
    }

    #[allow(clippy::too_many_arguments)] // The frame's fields, taken apart.
    fn on_records(
        &mut self,
        now: Time,
        from: ReplicaId,
        current: bool,
        committed: Slot,
        end: Slot,
        records: &[Record<'_>],
        counters: &mut Counters,
    ) -> Option<Got> {
        let mut taken = Vec::new();
        for record in records {
            if record.slot <= self.at.slot {
                continue;
            }
            if self.is_idle() {
                break;
            }
            if record.slot != self.at.slot.next() {
                self.on_gap(now, current, counters);
                return None;
            }
            let &Record { epoch, slot, time, digest, operations } = record;
            if slot_digest(self.at.digest, slot, time, &[operations]) != digest || epoch < self.at.epoch {
                counters.broken += 1;
                self.give_up(now, FOLLOW_AGAIN_NS);
                let differs = Got::Differs { from, slot: self.at.slot };
                return Some(if taken.is_empty() { differs } else { Got::Records(taken) });
            }
            self.at = Position { slot, epoch, digest };
            taken.push(Fetched { epoch, slot, time, digest, operations: operations.to_vec() });
        }
        if !taken.is_empty() {
            self.pieces = None;
            self.progress(now);
        }
        // What the source could serve, it has served.
        if current && self.asked.is_some() && self.at.slot >= self.target.unwrap_or(committed).min(end) {
            let wait_ns = if self.target.is_some() { self.wait_ns(FOLLOW_AGAIN_NS) } else { FOLLOW_AGAIN_NS };
            self.ask_again(now.after_ns(wait_ns));
            if self.target.is_some() {
                self.turn = (self.turn + 1) % self.sources.len().max(1);
            }
        }
        (!taken.is_empty()).then_some(Got::Records(taken))
    }

    /// A piece of a snapshot: its slot, the file's bytes, its place. Whether it was the last one.
    fn on_piece(
        &mut self,
        now: Time,
        current: bool,
        (slot, total, offset): (Slot, u64, u64),
        bytes: &[u8],
        counters: &mut Counters,
    ) -> bool {
        if slot <= self.at.slot {
            counters.stale += 1;
            return false;
        }
        let same = |pieces: &Pieces| (pieces.slot, pieces.total) == (slot, total);
        let pieces = match &mut self.pieces {
            Some(pieces) if same(pieces) => pieces,
            // Another snapshot than the one begun: that of the source that is asked now counts.
            other if offset == 0 && (current || other.is_none()) => {
                other.insert(Pieces { slot, total, bytes: Vec::new() })
            }
            _ => {
                self.on_gap(now, current, counters);
                return false;
            }
        };
        let here = pieces.bytes.len() as u64;
        if offset > here {
            self.on_gap(now, current, counters);
            return false;
        }
        if offset < here {
            counters.stale += 1;
            return false;
        }
        pieces.bytes.extend_from_slice(bytes);
        let whole = pieces.bytes.len() as u64 == total;
        self.progress(now);
        whole
    }

    /// The snapshot is here: is it one?
    fn complete(&mut self, now: Time, cluster: ClusterId, counters: &mut Counters) -> Option<Got> {
        let Pieces { slot, bytes: file, .. } = self.pieces.take()?;
        let snapshot = Snapshot::decode(&file).ok().map(|(snapshot, _)| snapshot);
        let Some(snapshot) = snapshot.filter(|s| s.slot == slot && s.view.cluster == cluster) else {
            counters.broken += 1;
            self.give_up(now, FOLLOW_AGAIN_NS);
            return None;
        };
        self.at = Position { slot, epoch: snapshot.view.epoch, digest: snapshot.digest };
        self.ask_again(now);
        Some(Got::State { snapshot, file })
    }
}
