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
pub mod window;

pub use crate::wire::view;

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::group::bootstrap::{Founding, Waiting};
use crate::group::detect::Detect;
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

/// Where this replica stands towards the views.
#[derive(Debug)]
pub enum State {
    /// Its incarnation is not on the disk yet: it says nothing.
    Starting,
    /// It has never been in a view.
    Blank,
    /// It is a member with rank.
    Regular(Box<Regular>),
    /// It knows a view in which it has no rank: the view records another run.
    Outside(View),
}

/// What the replica must deal with, beyond the order itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A view to be made durable and then installed.
    Install(View),
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
    packets: Packets,
    parts: Parts,
    rng: Rng,
    drops: BTreeMap<Ignore, u64>,
    /// When every configured replica was last sent a report.
    reported: Time,
    /// The positions and the heard list that were last multicast.
    said: Status,
    /// Members that still show no tag of this view: they are sent it.
    greet: Dest,
    /// Questions and answers of readers, and other single frames of this turn.
    extra: Vec<(Dest, Frame<'static>)>,
    marks: Vec<&'static str>,
}

impl Group {
    pub fn new(settings: Settings, me: Run, cluster: ClusterId, rng: Rng) -> Group {
        Group {
            detect: Detect::new(me, settings.suspect_after_ns),
            settings,
            me,
            cluster,
            state: State::Starting,
            packets: Packets::new(),
            parts: Parts::default(),
            rng,
            drops: BTreeMap::new(),
            reported: Time(0),
            said: Status::default(),
            greet: Dest::default(),
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

    /// Datagrams and frames dropped so far, by reason.
    pub fn drops(&self) -> &BTreeMap<Ignore, u64> {
        &self.drops
    }

    /// What is still missing for view 1; `None` once there is a view.
    pub fn waiting(&self, now: Time) -> Option<Waiting> {
        matches!(self.state, State::Blank).then(|| self.settings.founding.waiting(now, self.me, &self.detect))
    }

    /// The view's members that are not there: unheard, or come back as another run.
    pub fn missing(&self, now: Time) -> Vec<ReplicaId> {
        let view = match &self.state {
            State::Regular(regular) => &regular.view,
            State::Outside(view) => view,
            _ => return Vec::new(),
        };
        let there = |run: &Run| *run == self.me || self.detect.heard(now, run.id).is_some_and(|p| p.run == *run);
        view.members.iter().filter(|run| !there(run)).map(|run| run.id).collect()
    }

    /// The incarnation is on the disk: the replica may speak. `installed` is the view `meta` holds.
    pub fn start(&mut self, installed: Option<View>) {
        self.state = match installed {
            None => State::Blank,
            Some(view) => {
                self.marks.push(marks::RESTARTED);
                State::Outside(view)
            }
        };
    }

    /// The view is in `meta`: from now on this replica speaks with its tag.
    pub fn install(&mut self, now: Time, view: View) {
        self.cluster = view.cluster;
        self.marks.push(marks::VIEW_INSTALLED);
        let mut regular = Regular::new(view, self.me, self.settings.path_max, now, self.rng.fork());
        self.greet = regular.others();
        regular.count();
        self.state = State::Regular(Box::new(regular));
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
        if let (Some(rank), Some(regular)) = (rank, self.regular_mut()) {
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
            return Err(Ignore::OtherCluster);
        }
        if !self.detect.on_header(now, &header) {
            return Err(Ignore::OldRun);
        }
        Ok((header, frames))
    }

    /// The sender's rank, if it speaks in this replica's own view. A member that does not yet is sent the view.
    fn on_view(&mut self, header: &Header) -> Option<Rank> {
        let regular = self.regular()?;
        let rank = regular.view.rank_of(header.run.id)?;
        let is_member = regular.view.member(rank) == header.run;
        if is_member && header.tag != regular.tag {
            self.greet = self.greet.with(header.run.id);
            return None;
        }
        is_member.then_some(rank)
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
                return match self.parts.take(header.run.id, number, total, offset, bytes) {
                    Some(ChangeFrame::Install { view }) => self.on_install(header, view, events),
                    Some(_) => Err(Ignore::NotNow),
                    None => Ok(()),
                };
            }
            _ => {}
        }
        let (State::Regular(regular), Some(rank)) = (&mut self.state, rank) else {
            return Err(if header.tag.0 == 0 { Ignore::NotNow } else { Ignore::OtherView });
        };
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

    /// A blank replica takes view 1 only from the run that made it, or from one that installed it, and only if it
    /// records this very run.
    fn on_install(&mut self, header: &Header, view: View, events: &mut Vec<Event>) -> Result<(), Ignore> {
        if !matches!(self.state, State::Blank) {
            return Err(Ignore::NotNow);
        }
        if header.tag != view.tag() || !view.members.contains(&header.run) || !view.members.contains(&self.me) {
            return Err(Ignore::NotAMember);
        }
        if view.epoch != Epoch(1) || view.base != Slot(0) {
            return Err(Ignore::Contradiction);
        }
        events.push(Event::Install(view));
        Ok(())
    }

    // ---- what this replica does

    /// View 1, if this replica is the one to make it and all is there.
    pub fn view_one(&mut self, now: Time, cluster: ClusterId) -> Option<View> {
        let blank = matches!(self.state, State::Blank);
        let view = if blank { self.settings.founding.view_one(now, self.me, &self.detect, cluster) } else { None };
        self.marks.extend(view.as_ref().map(|_| marks::VIEW_MADE));
        view
    }

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
        if let State::Regular(regular) = &self.state {
            header.tag = regular.tag;
            header.status = regular.status();
        }
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
        let news = status.durable > self.said.durable;
        let heartbeat = now.since_ns(self.reported) >= self.settings.heartbeat_ns || status.heard != self.said.heard;
        self.packets.begin(&header);
        let everyone = self.everyone();
        if let State::Regular(regular) = &mut self.state {
            let greet = std::mem::take(&mut self.greet);
            let install = ChangeFrame::Install { view: regular.view.clone() };
            self.parts.put(&mut self.packets, greet, DATAGRAM_SIZES[1], &install);
            for (dest, frame) in self.extra.drain(..) {
                self.packets.put(dest, DATAGRAM_SIZES[1], &frame);
            }
            regular.compose(now, news, &mut self.packets);
            self.marks.append(&mut regular.marks);
        }
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
        let heartbeat = (self.settings.peers.len() > 1).then(|| self.reported.after_ns(self.settings.heartbeat_ns));
        [regular, heartbeat].into_iter().flatten().min()
    }

    pub fn take_marks(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.marks)
    }

    /// Whom this replica hears now.
    pub fn heard(&self, now: Time) -> Heard {
        self.detect.heard_list(now)
    }
}
