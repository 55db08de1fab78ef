//! Judges what goes over the wire: whose turn it was to announce a slot (I7), and that nobody sends more than the
//! limits allow (I10).

use std::collections::BTreeMap;

use ftq::group::parts::Parts;
use ftq::limits::{DATAGRAM_BYTES_MAX, RESEND_BURST_BYTES, RESEND_BYTES_PER_SECOND};
use ftq::types::Dest;
use ftq::types::{GroupTime, Rank, ReplicaId, Slot, ViewTag};
use ftq::wire::change::ChangeFrame;
use ftq::wire::codec::Reader;
use ftq::wire::datagram::{Cuts, Frame, Header};
use ftq::wire::view::{Ballot, View};

use super::clock::{Nanos, SECOND};

/// What one replica has sent to another.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    /// The end of its own messages sent so far: message and offset.
    upto: (u64, u32),
    tag: ViewTag,
}

/// Fills with what is sent again, drains with time.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    bytes: f64,
    at: Nanos,
}

/// What a datagram says of its sender, and of a change.
type Said = (Header, Vec<ChangeFrame>);

#[derive(Debug, Default)]
pub struct Wiretap {
    /// Of each replica's process, for it counts its frames anew.
    parts: BTreeMap<usize, Parts>,
    views: BTreeMap<ViewTag, View>,
    orders: BTreeMap<(ViewTag, Slot), (GroupTime, Cuts)>,
    sent: BTreeMap<(usize, usize), Sent>,
    resent: BTreeMap<usize, Bucket>,
}

impl Wiretap {
    /// A replica hands a datagram to the network. Its header, and what it says in it of a change.
    pub fn sends(&mut self, at: Nanos, from: usize, to: Dest, bytes: &[u8]) -> Result<Said, String> {
        if bytes.len() > DATAGRAM_BYTES_MAX {
            return Err(format!("I10: a datagram of {} bytes", bytes.len()));
        }
        let (header, frames) = Header::decode(bytes).map_err(|e| format!("a datagram that is none is sent: {e}"))?;
        let (mut r, mut said) = (Reader::new(frames), Vec::new());
        while !r.is_empty() {
            let frame = Frame::decode(&mut r).map_err(|e| format!("a frame that is none is sent: {e}"))?;
            match frame {
                Frame::Change { number, total, offset, bytes } => {
                    let parts = self.parts.entry(from).or_default();
                    let frame = parts.take(ReplicaId(from as u8 + 1), number, total, offset, bytes);
                    if let Some(ChangeFrame::Install { view }) = &frame {
                        self.views.insert(view.tag(), view.clone());
                    }
                    said.extend(frame);
                }
                Frame::Order { slot, time, cuts } => self.announces(&header, slot, time, cuts)?,
                Frame::Data { origin, mseq, offset, bytes, .. } => {
                    let end = (mseq.0, offset + bytes.len() as u32);
                    self.data(at, from, to, header.tag, origin, end, bytes.len())?;
                }
                _ => {}
            }
        }
        Ok((header, said))
    }

    /// A process is gone: the next one counts its frames anew.
    pub fn forget(&mut self, replica: usize) {
        self.parts.remove(&replica);
        self.resent.remove(&replica);
    }

    /// This view is decided.
    pub fn learn(&mut self, view: &View) {
        self.views.entry(view.tag()).or_insert_with(|| view.clone());
    }

    fn rank(&self, tag: ViewTag, replica: usize) -> Option<Rank> {
        self.views.get(&tag)?.rank_of(ReplicaId(replica as u8 + 1))
    }

    fn announces(&mut self, header: &Header, slot: Slot, time: GroupTime, cuts: Cuts) -> Result<(), String> {
        let (run, tag) = (header.run, header.tag);
        match self.orders.get(&(tag, slot)) {
            Some(known) if *known == (time, cuts) => Ok(()),
            Some(known) => Err(format!("I7: slot {slot} is announced as {known:?} and as {:?}", (time, cuts))),
            None => {
                let turn = self.views.get(&tag).map(|view| view.member(view.sequencer(slot)));
                if turn != Some(run) {
                    return Err(format!("I7: slot {slot} is announced first by {run}, the turn is of {turn:?}"));
                }
                self.orders.insert((tag, slot), (time, cuts));
                Ok(())
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn data(
        &mut self,
        at: Nanos,
        from: usize,
        to: Dest,
        tag: ViewTag,
        origin: Rank,
        end: (u64, u32),
        bytes: usize,
    ) -> Result<(), String> {
        let own = self.rank(tag, from) == Some(origin);
        for peer in (0..64).filter(|&peer| to.contains(ReplicaId(peer as u8 + 1))) {
            let sent = self.sent.entry((from, peer)).or_default();
            if sent.tag != tag {
                *sent = Sent { tag, ..Sent::default() };
            }
            if own && end > sent.upto {
                sent.upto = end;
                continue;
            }
            let bucket = self.resent.entry(from).or_default();
            // Clocks may run 5 % fast.
            let drained = (at - bucket.at) as f64 * 1.06 * RESEND_BYTES_PER_SECOND as f64 / SECOND as f64;
            *bucket = Bucket { bytes: (bucket.bytes - drained).max(0.0) + bytes as f64, at };
            // What was granted before a pause of the loop leaves with what is granted after it.
            if bucket.bytes > (2 * RESEND_BURST_BYTES + DATAGRAM_BYTES_MAX as u64) as f64 {
                return Err(format!("I10: replica {} sends more again than its limit", from + 1));
            }
        }
        Ok(())
    }
}

/// A datagram in words.
pub fn describe(bytes: &[u8]) -> String {
    let Ok((header, frames)) = Header::decode(bytes) else { return format!("{} bytes of no sense", bytes.len()) };
    let s = header.status;
    let mut text =
        format!("#{} sent {} known {} durable {} committed {}", header.packet, s.sent, s.known, s.durable, s.committed);
    let flags = [(s.frozen, "frozen"), (s.leaving, "leaving"), (s.joining, "joining"), (s.accepted, "accepted")];
    flags.iter().filter(|(set, _)| *set).for_each(|(_, flag)| text.extend([" ", flag]));
    let mut r = Reader::new(frames);
    while let Ok(frame) = Frame::decode(&mut r) {
        text.push_str(" | ");
        text.push_str(&describe_frame(&frame));
    }
    text
}

/// Whom its sender hears.
pub fn heard(bytes: &[u8]) -> String {
    let ids = |header: Header| header.status.heard.iter().map(|(id, _)| id.to_string()).collect::<Vec<_>>().join(",");
    Header::decode(bytes).map_or_else(|_| String::new(), |(header, _)| format!(" hears {}", ids(header)))
}

/// Whether a datagram carries a frame of this kind.
pub fn has_frame(bytes: &[u8], kind: &str) -> bool {
    describe(bytes).split(" | ").skip(1).any(|frame| frame.split(' ').next() == Some(kind))
}

/// How a datagram's arrival is told: it was described when it left.
pub fn number(bytes: &[u8]) -> String {
    Header::decode(bytes).map_or_else(|_| describe(bytes), |(header, _)| format!("#{}", header.packet))
}

fn describe_frame(frame: &Frame<'_>) -> String {
    match frame {
        Frame::Data { origin, mseq, continues, total, offset, bytes } => {
            let end = *offset as usize + bytes.len();
            let range =
                if end == *total as usize && *offset == 0 { String::new() } else { format!(" {offset}..{end}") };
            let more = if *continues { " continues" } else { "" };
            format!("DATA {origin}/{mseq}{range} of {total}{more}")
        }
        Frame::Order { slot, cuts, .. } => format!("ORDER {slot} {cuts:?}"),
        Frame::NackOrders { first, last, attempt } => format!("NACK orders {first}..={last} try {attempt}"),
        Frame::NackData { origin, first, last, offset, attempt } => {
            format!("NACK {origin}/{first}..={last} from byte {offset} try {attempt}")
        }
        Frame::Hello { .. } => "HELLO".to_owned(),
        Frame::Change { number, total, offset, bytes } => {
            let range = format!("CHANGE {number} {offset}..{} of {total}", usize::from(*offset) + bytes.len());
            ChangeFrame::decode(bytes).map_or(range, |frame| describe_change(&frame))
        }
        Frame::Probe { size, .. } => format!("PROBE {size}"),
        Frame::Probed { size, .. } => format!("PROBED {size}"),
        Frame::Ask { number } => format!("ASK {number}"),
        Frame::Tell { number, durable } => format!("TELL {number}: {durable}"),
        Frame::Check { slot, .. } => format!("CHECK {slot}"),
    }
}

/// A ballot as round and proposer's run.
fn brief(ballot: &Ballot) -> String {
    format!("{}.{}.{}", ballot.round, ballot.id, ballot.incarnation)
}

fn describe_change(frame: &ChangeFrame) -> String {
    match frame {
        ChangeFrame::Prepare { ballot, view } => format!("PREPARE {} after view {}", brief(ballot), view.epoch),
        ChangeFrame::Promise { ballot, promise, .. } => {
            let who = if promise.voter { "a voter's" } else { "an outsider's" };
            let accepted = promise.accepted.as_ref().map(|(ballot, view)| (brief(ballot), view.members_text()));
            let accepted = accepted.map(|(ballot, members)| format!(", accepted {ballot} {members}"));
            format!("PROMISE {} {who}, end {}{}", brief(ballot), promise.end.slot, accepted.unwrap_or_default())
        }
        ChangeFrame::Refuse { promised, .. } => format!("REFUSE for {}", brief(promised)),
        ChangeFrame::Sync { ballot, base, .. } => format!("SYNC {} to {}", brief(ballot), base.slot),
        ChangeFrame::Ready { ballot, base, .. } => format!("READY {} at {}", brief(ballot), base.slot),
        ChangeFrame::Accept { ballot, value, .. } => {
            format!("ACCEPT {} view {} {}", brief(ballot), value.epoch, value.members_text())
        }
        ChangeFrame::Accepted { ballot, .. } => format!("ACCEPTED {}", brief(ballot)),
        ChangeFrame::Install { view } => format!("INSTALL {} {}", view.epoch, view.members_text()),
        ChangeFrame::Installed { epoch } => format!("INSTALLED {epoch}"),
        ChangeFrame::Doubt { run, durable, .. } => format!("DOUBT {}.{} durable {durable}", run.id, run.incarnation),
    }
}
