//! Who is in, and in what order. Knows nothing of queues.
//!
//! [`Group`] is the one door: it takes datagrams and says what is ordered, committed and to be sent. It dispatches;
//! each concept has its file: `order` (who may announce slot k), `window` (what is here), `nack` (when to ask again),
//! `resend` (what is repaired), `commit`, `flow`, `clock`, `path` (how large a datagram may be), `detect` (who is
//! heard), `bootstrap` (how the first view is made), `quorum` (which side goes on).

pub mod bootstrap;
pub mod change;
pub mod clock;
pub mod commit;
pub mod complain;
pub mod damping;
pub mod detect;
pub mod due;
pub mod flow;
pub mod nack;
pub mod order;
pub mod packets;
pub mod parts;
pub mod path;
pub mod quorum;
pub mod resend;
pub mod views;
pub mod window;

pub use crate::wire::view;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::broken::is as is_broken;
use crate::group::bootstrap::{Founding, Waiting};
use crate::group::change::{Acceptor, Change};
use crate::group::clock::Clock;
use crate::group::complain::Verdict;
use crate::group::damping::Damping;
use crate::group::detect::Detect;
use crate::group::due::Patience;
use crate::group::order::Regular;
use crate::group::packets::Packets;
use crate::group::parts::Parts;
use crate::group::window::{Order, Useless};
use crate::limits::DATAGRAM_SIZES;
use crate::marks;
use crate::rng::Rng;
use crate::types::{ClusterId, Dest, Digest, Epoch, PacketNumber, Rank, ReplicaId, Run, Slot, Time};
use crate::wire::change::ChangeFrame;
use crate::wire::codec::Reader;
use crate::wire::datagram::{Frame, Header, Heard, Status};
use crate::wire::view::{Peer, View};

/// What a group is told at start.
#[derive(Clone, Debug)]
pub struct Settings {
    pub founding: Founding,
    pub peers: Vec<Peer>,
    pub heartbeat_ns: u64,
    pub suspect_after_ns: u64,
    /// The largest datagram to try, an index of `DATAGRAM_SIZES`.
    pub path_max: usize,
    pub receive_buffer_bytes: u32,
}

impl Settings {
    /// A loop that did not run for longer was paused: with nothing else to do it runs once a heartbeat.
    fn pause_ns(&self) -> u64 {
        (self.suspect_after_ns / 2).max(2 * self.heartbeat_ns)
    }
}

/// Where this replica stands towards the views.
#[derive(Debug)]
pub enum State {
    /// Its incarnation is not on the disk yet: it says nothing.
    Starting,
    /// It knows no view.
    Blank,
    /// It is a member with rank.
    Regular(Box<Regular>),
    /// It had rank in a view that it froze: it only repairs what others lack of it.
    Frozen(Box<Regular>),
    /// It has no rank in the newest view that it knows.
    Outside,
}

/// What the replica must deal with, beyond the order itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// What another replica says in a change of the view.
    Change { from: Run, frame: Box<ChangeFrame> },
    /// A reader asks how far this member is.
    Asked { rank: Rank, number: u64 },
    /// A member answered a reader's question.
    Told { rank: Rank, number: u64, durable: Slot },
    /// A member's digests at a slot it has applied.
    Checked { rank: Rank, slot: Slot, operations: Digest, answers: u64 },
}

/// Why a datagram or frame was dropped. Counted by reason.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Ignore {
    Malformed,
    UnknownAddress,
    UnknownReplica,
    OwnId,
    OtherCluster,
    OldRun,
    OtherView,
    NotAMember,
    Duplicate,
    TooFar,
    Contradiction,
    NoSuchRank,
    NotNow,
}

impl From<Useless> for Ignore {
    fn from(useless: Useless) -> Ignore {
        match useless {
            Useless::Duplicate => Ignore::Duplicate,
            Useless::TooFar => Ignore::TooFar,
            Useless::Contradiction => Ignore::Contradiction,
            Useless::NoSuchRank => Ignore::NoSuchRank,
        }
    }
}

#[derive(Debug)]
pub struct Group {
    settings: Settings,
    me: Run,
    cluster: ClusterId,
    state: State,
    detect: Detect,
    change: Change,
    /// Change frames to leave with this turn.
    saying: Vec<(ReplicaId, ChangeFrame)>,
    /// Who is behind and is to be told the newest view; and who was told when.
    behind: BTreeSet<ReplicaId>,
    told: BTreeMap<ReplicaId, Time>,
    /// Later runs of those that spoke as an earlier one.
    outrun: BTreeSet<Run>,
    damping: Damping,
    /// The newest view that was learned of.
    known: Option<View>,
    patience: Patience,
    /// Members-to-be that an attempt of this replica's waits for, and since when it is these.
    awaited: (Vec<Run>, Time),
    verdicts: Vec<Verdict>,
    /// The time of the last event.
    awake: Time,
    /// Group time as the last view left it.
    clock: Option<Clock>,
    /// Since when this replica knows a view and has no rank.
    outside_since: Option<Time>,
    /// What an outsider has of the log: known, durable, committed.
    log: [Slot; 3],
    /// Asks to join, and has caught up.
    joining: bool,
    leaving: bool,
    packets: Packets,
    parts: Parts,
    rng: Rng,
    drops: BTreeMap<Ignore, u64>,
    /// Configured replicas that spoke as of another group, and when they last did.
    foreign: BTreeMap<ReplicaId, Time>,
    /// When every configured replica was last sent a report.
    reported: Time,
    /// The positions and the heard list that were last multicast.
    said: Status,
    /// Questions and answers of readers, and other single frames of this turn.
    extra: Vec<(Dest, Frame<'static>)>,
    marks: Vec<&'static str>,
}

impl Group {
    pub fn new(settings: Settings, me: Run, cluster: ClusterId, acceptor: Acceptor, rng: Rng) -> Group {
        Group {
            detect: Detect::new(me, settings.suspect_after_ns),
            change: Change::new(me, acceptor),
            saying: Vec::new(),
            behind: BTreeSet::new(),
            told: BTreeMap::new(),
            outrun: BTreeSet::new(),
            damping: Damping::default(),
            known: None,
            patience: Patience::default(),
            awaited: (Vec::new(), Time(0)),
            verdicts: Vec::new(),
            awake: Time(0),
            clock: None,
            outside_since: None,
            log: [Slot(0); 3],
            joining: false,
            leaving: false,
            settings,
            me,
            cluster,
            state: State::Starting,
            packets: Packets::new(),
            parts: Parts::default(),
            rng,
            drops: BTreeMap::new(),
            foreign: BTreeMap::new(),
            reported: Time(0),
            said: Status::default(),
            extra: Vec::new(),
            marks: Vec::new(),
        }
    }

    pub fn me(&self) -> Run {
        self.me
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn detect(&self) -> &Detect {
        &self.detect
    }

    pub fn change(&self) -> &Change {
        &self.change
    }

    /// The newest view known.
    pub fn newest(&self) -> Option<&View> {
        self.change.acceptor().newest()
    }

    /// The view in which this member has rank.
    pub fn regular(&self) -> Option<&Regular> {
        match &self.state {
            State::Regular(regular) => Some(regular),
            _ => None,
        }
    }

    pub fn regular_mut(&mut self) -> Option<&mut Regular> {
        match &mut self.state {
            State::Regular(regular) => Some(regular),
            _ => None,
        }
    }

    /// The view in which this member has or had rank, frozen or not.
    pub fn window(&self) -> Option<&Regular> {
        match &self.state {
            State::Regular(regular) | State::Frozen(regular) => Some(regular),
            _ => None,
        }
    }

    /// Datagrams and frames dropped so far, by reason.
    pub fn drops(&self) -> &BTreeMap<Ignore, u64> {
        &self.drops
    }

    /// Configured replicas that are there, but belong to another group: one of the data directories is the wrong one.
    pub fn foreign(&self, now: Time) -> Vec<ReplicaId> {
        let lately = |at: &Time| now.since_ns(*at) < self.settings.suspect_after_ns;
        self.foreign.iter().filter(|(_, at)| lately(at)).map(|(&id, _)| id).collect()
    }

    /// What is still missing for view 1; `None` once there is a view.
    pub fn waiting(&self, now: Time) -> Option<Waiting> {
        matches!(self.state, State::Blank).then(|| self.settings.founding.waiting(now, self.me, &self.detect))
    }

    /// The newest view's members whose votes can't be had now: not connected with this replica, or without the disk
    /// that they had.
    pub fn missing(&self, now: Time) -> Vec<ReplicaId> {
        let Some(view) = self.newest() else { return Vec::new() };
        let votes = |id: ReplicaId| {
            let peer = self.detect.heard(now, id).filter(|_| self.detect.connected(now, id));
            id == self.me.id && self.change.is_voter() || peer.is_some_and(|p| change::votes(view, p.run))
        };
        view.members.iter().map(|run| run.id).filter(|&id| !votes(id)).collect()
    }

    /// Whether this run takes part in the order of its newest view.
    pub fn is_ordering(&self) -> bool {
        self.window().is_some()
    }

    /// The incarnation is on the disk: the replica may speak.
    pub fn start(&mut self, now: Time) {
        self.state = if self.newest().is_none() {
            State::Blank
        } else {
            self.outside_since = Some(now);
            self.marks.push(marks::RESTARTED);
            State::Outside
        };
    }

    // ---- what arrives

    /// One datagram.
    pub fn on_datagram(&mut self, now: Time, from: IpAddr, datagram: &[u8], events: &mut Vec<Event>) {
        let (header, frames) = match self.accept(now, from, datagram) {
            Ok(accepted) => accepted,
            Err(reason) => return self.drop_for(reason),
        };
        let rank = self.on_view(&header);
        let mut reader = Reader::new(frames);
        while !reader.is_empty() {
            let dropped = match Frame::decode(&mut reader) {
                Ok(frame) => self.on_frame(now, &header, rank, datagram.len(), frame, events),
                Err(_) => Err(Ignore::Malformed),
            };
            if let Err(reason) = dropped {
                self.drop_for(reason);
                if reason == Ignore::Malformed {
                    return;
                }
            }
        }
        // A frozen member is not counted (rule 5).
        let counts = !header.status.frozen || is_broken("frozen-counts");
        if let (Some(rank), Some(regular)) = (rank.filter(|_| counts), self.regular_mut()) {
            if let Err(useless) = regular.on_status(rank, &header.status) {
                self.drop_for(useless.into());
            }
        }
    }

    fn drop_for(&mut self, reason: Ignore) {
        *self.drops.entry(reason).or_default() += 1;
        if reason == Ignore::Duplicate {
            self.marks.push(marks::DUPLICATE_DATA);
        }
    }

    /// The header of a datagram that may be listened to at all.
    fn accept<'a>(&mut self, now: Time, from: IpAddr, datagram: &'a [u8]) -> Result<(Header, &'a [u8]), Ignore> {
        if matches!(self.state, State::Starting) {
            return Err(Ignore::NotNow);
        }
        let (header, frames) = Header::decode(datagram).map_err(|_| Ignore::Malformed)?;
        if header.run.id == self.me.id {
            return Err(Ignore::OwnId);
        }
        let peer = self.settings.peers.iter().find(|p| p.id == header.run.id).ok_or(Ignore::UnknownReplica)?;
        if peer.ip != from {
            return Err(Ignore::UnknownAddress);
        }
        if self.cluster.0 != 0 && header.cluster.0 != 0 && header.cluster != self.cluster {
            self.foreign.insert(header.run.id, now);
            return Err(Ignore::OtherCluster);
        }
        self.foreign.remove(&header.run.id);
        if !self.detect.on_header(now, &header) {
            let later = self.detect.peer(header.run.id).map(|p| p.run).filter(|run| run.birth == header.run.birth);
            self.outrun.extend(later);
            return Err(Ignore::OldRun);
        }
        Ok((header, frames))
    }

    /// The sender's rank, if it speaks in the view in which this replica has or had rank.
    fn on_view(&mut self, header: &Header) -> Option<Rank> {
        let own = self.newest().map_or(Epoch(0), |view| view.epoch);
        if header.status.epoch < own {
            self.behind.insert(header.run.id);
        }
        let regular = self.window().filter(|regular| regular.tag == header.tag || is_broken("old-view-counts"))?;
        let rank = regular.view.rank_of(header.run.id)?;
        (regular.view.member(rank) == header.run).then_some(rank)
    }

    fn on_frame(
        &mut self,
        now: Time,
        header: &Header,
        rank: Option<Rank>,
        datagram_bytes: usize,
        frame: Frame<'_>,
        events: &mut Vec<Event>,
    ) -> Result<(), Ignore> {
        match frame {
            Frame::Hello { config } => {
                self.detect.on_hello(header.run.id, config);
                return Ok(());
            }
            Frame::Change { number, total, offset, bytes } => {
                let whole = self.parts.take(header.run.id, number, total, offset, bytes);
                events.extend(whole.map(|frame| Event::Change { from: header.run, frame: Box::new(frame) }));
                return Ok(());
            }
            _ => {}
        }
        let regular = match (&mut self.state, rank) {
            (State::Regular(regular), Some(_)) => regular,
            (State::Frozen(regular), Some(rank)) => return Self::repair(now, regular, rank, &frame),
            _ => return Err(if header.tag.0 == 0 { Ignore::NotNow } else { Ignore::OtherView }),
        };
        let rank = rank.expect("just matched");
        let useful = match frame {
            Frame::Data { .. } => regular.on_data(&frame),
            Frame::Order { slot, time, cuts } => {
                let taken = regular.on_order(now, slot, Order { time, cuts });
                if taken == Err(Useless::Duplicate) {
                    regular.marks.push(marks::DUPLICATE_ORDER);
                }
                taken
            }
            Frame::NackOrders { .. } | Frame::NackData { .. } => {
                regular.on_nack(now, rank, &frame);
                Ok(())
            }
            Frame::Probe { size, .. } => {
                if usize::from(size) == datagram_bytes {
                    regular.answer(rank, Frame::Probed { size, packet: header.packet });
                }
                Ok(())
            }
            Frame::Probed { size, .. } => {
                regular.on_probed(now, rank, usize::from(size));
                Ok(())
            }
            Frame::Ask { number } => {
                events.push(Event::Asked { rank, number });
                Ok(())
            }
            Frame::Tell { number, durable } => {
                events.push(Event::Told { rank, number, durable });
                Ok(())
            }
            Frame::Check { slot, operations, answers } => {
                events.push(Event::Checked { rank, slot, operations, answers });
                Ok(())
            }
            Frame::Hello { .. } | Frame::Change { .. } => Ok(()),
        };
        useful.map_err(Ignore::from)
    }

    /// A frozen member still sends what others lack of its view.
    fn repair(now: Time, regular: &mut Regular, rank: Rank, frame: &Frame<'_>) -> Result<(), Ignore> {
        match frame {
            Frame::NackOrders { .. } | Frame::NackData { .. } => {
                regular.on_nack(now, rank, frame);
                Ok(())
            }
            _ => Err(Ignore::NotNow),
        }
    }

    // ---- what this replica does

    /// A frame for one member, to leave with this turn.
    pub fn tell(&mut self, rank: Rank, frame: Frame<'static>) {
        if let Some(regular) = self.regular_mut() {
            regular.answer(rank, frame);
        }
    }

    /// A frame for every other member, to leave with this turn.
    pub fn tell_all(&mut self, frame: Frame<'static>) {
        if let Some(regular) = self.regular() {
            let others = regular.others();
            self.extra.push((others, frame));
        }
    }

    fn header(&self, now: Time) -> Header {
        let mut header = Header {
            cluster: self.cluster,
            run: self.me,
            packet: PacketNumber(0),
            tag: Default::default(),
            status: Status::default(),
        };
        if let Some(regular) = self.window() {
            header.tag = regular.tag;
            header.status = regular.status();
        } else {
            let [known, durable, committed] = self.log;
            header.status = Status { known, durable, committed, ..Status::default() };
        }
        header.status.frozen = self.change.is_frozen();
        header.status.accepted = self.change.acceptor().accepted.is_some();
        header.status.epoch = self.newest().map_or(Epoch(0), |view| view.epoch);
        header.status.joining = self.joining;
        header.status.leaving = self.leaving;
        header.status.buffer_bytes = self.settings.receive_buffer_bytes;
        header.status.heard = self.detect.heard_list(now);
        header
    }

    /// Puts everything this turn has to say into datagrams. `check` goes with each heartbeat.
    pub fn speak(&mut self, now: Time, check: Option<Frame<'static>>, net: &mut Vec<(Dest, Vec<u8>)>) {
        if matches!(self.state, State::Starting) {
            return;
        }
        let header = self.header(now);
        let status = header.status;
        let news = self.window().is_some() && status.durable > self.said.durable;
        let changed = |s: &Status| (s.heard, s.frozen, s.accepted, s.epoch, s.joining, s.leaving);
        let overdue = now.since_ns(self.reported) >= self.settings.heartbeat_ns;
        let heartbeat = overdue || changed(&status) != changed(&self.said);
        self.packets.begin(&header);
        let everyone = self.everyone();
        match &mut self.state {
            State::Regular(regular) => {
                for (dest, frame) in self.extra.drain(..) {
                    self.packets.put(dest, DATAGRAM_SIZES[1], &frame);
                }
                regular.compose(now, news, &mut self.packets);
                self.marks.append(&mut regular.marks);
            }
            State::Frozen(regular) => {
                regular.compose_repairs(&mut self.packets);
                self.marks.append(&mut regular.marks);
            }
            _ => {}
        }
        self.extra.clear();
        for (to, frame) in std::mem::take(&mut self.saying) {
            self.parts.put(&mut self.packets, Dest::one(to), &frame);
        }
        let probes = self.detect.take_probes();
        if heartbeat {
            self.reported = now;
            match (&self.state, check) {
                (State::Blank, _) => {
                    let config = self.settings.founding.hash();
                    self.packets.put(everyone, DATAGRAM_SIZES[0], &Frame::Hello { config });
                }
                (State::Regular(_), Some(check)) => self.packets.put(everyone, DATAGRAM_SIZES[0], &check),
                _ => self.packets.report(everyone),
            }
        }
        self.packets.report(probes);
        if news || heartbeat {
            self.said = status;
        }
        self.packets.finish(net);
    }

    fn everyone(&self) -> Dest {
        let others = self.settings.peers.iter().map(|p| p.id).filter(|&id| id != self.me.id);
        others.fold(Dest::default(), Dest::with)
    }

    /// When this replica must be given a turn at the latest.
    pub fn deadline(&self, due: Option<crate::types::GroupTime>) -> Option<Time> {
        let regular = match &self.state {
            State::Starting => return None,
            State::Regular(regular) => regular.deadline(due),
            _ => None,
        };
        let (now, suspect_after_ns) = (self.awake, self.settings.suspect_after_ns);
        let change = [
            self.change.deadline().filter(|&at| at > now),
            self.patience.deadline(now, suspect_after_ns),
            self.damping.deadline(now),
            self.detect.deadline(now),
            self.outside_since.map(|since| since.after_ns(suspect_after_ns)).filter(|&at| at > now),
        ];
        let change = change.into_iter().flatten().min();
        let heartbeat = (self.settings.peers.len() > 1).then(|| self.reported.after_ns(self.settings.heartbeat_ns));
        [regular, heartbeat, change].into_iter().flatten().min()
    }

    pub fn take_marks(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.marks)
    }

    /// Whom this replica hears now.
    pub fn heard(&self, now: Time) -> Heard {
        self.detect.heard_list(now)
    }
}
