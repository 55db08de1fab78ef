//! What replicas say to each other in a change of view (DESIGN 5.3), and its bytes.
//!
//! ```text
//! kind u8 | fields; a view and a ballot as `wire::view` has them
//! ```

use crate::limits::REPLICAS_MAX;
use crate::types::{Digest, Epoch, GroupTime, ReplicaId, Run, Slot};
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};
use crate::wire::view::{ballot, put_ballot, put_run, replica_id, run, Ballot, View};

/// How far a log reaches without a gap, and what it is up to there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct LogEnd {
    pub slot: Slot,
    pub digest: Digest,
    pub time: GroupTime,
}

/// What one replica answers to PREPARE.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Promise {
    pub run: Run,
    /// Its birth is the one that view e records: its promise counts.
    pub voter: bool,
    pub accepted: Option<(Ballot, View)>,
    pub end: LogEnd,
    pub leaving: bool,
    /// Its log is all that it ever held. After an unclean stop in memory durability it need not be.
    pub whole: bool,
    /// How far members of view e were durable in it, as they told this replica.
    pub remembers: Vec<(ReplicaId, Slot)>,
}

/// One frame of a change. All name the epoch e of the view that is to be followed; ballots begin anew with each.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ChangeFrame {
    /// `view` is view e itself, for those that never got it.
    Prepare {
        ballot: Ballot,
        view: View,
    },
    Promise {
        epoch: Epoch,
        ballot: Ballot,
        promise: Promise,
    },
    /// A higher ballot was promised.
    Refuse {
        epoch: Epoch,
        promised: Ballot,
    },
    /// Fetch what you lack up to `base` from those who have it.
    Sync {
        epoch: Epoch,
        ballot: Ballot,
        base: LogEnd,
        sources: Vec<ReplicaId>,
    },
    Ready {
        epoch: Epoch,
        ballot: Ballot,
        base: LogEnd,
    },
    Accept {
        ballot: Ballot,
        value: View,
        view: View,
    },
    Accepted {
        epoch: Epoch,
        ballot: Ballot,
    },
    Install {
        view: View,
    },
    Installed {
        epoch: Epoch,
    },
    /// What is known of the replica that this goes to: a run of its, and how far that was durable in the epoch. Who
    /// finds less in its directory than this has an older copy of it (DESIGN 5.6).
    Doubt {
        epoch: Epoch,
        run: Run,
        durable: Slot,
    },
}

impl ChangeFrame {
    /// The epoch that must not be behind this replica's own; `None` for an answer about any decided view.
    pub fn epoch(&self) -> Option<Epoch> {
        match self {
            ChangeFrame::Prepare { view, .. } | ChangeFrame::Accept { view, .. } | ChangeFrame::Install { view } => {
                Some(view.epoch)
            }
            ChangeFrame::Promise { epoch, .. }
            | ChangeFrame::Refuse { epoch, .. }
            | ChangeFrame::Sync { epoch, .. }
            | ChangeFrame::Ready { epoch, .. }
            | ChangeFrame::Accepted { epoch, .. } => Some(*epoch),
            ChangeFrame::Installed { .. } | ChangeFrame::Doubt { .. } => None,
        }
    }

    /// The decided view that it brings.
    pub fn view(&self) -> Option<&View> {
        match self {
            ChangeFrame::Prepare { view, .. } | ChangeFrame::Accept { view, .. } | ChangeFrame::Install { view } => {
                Some(view)
            }
            _ => None,
        }
    }

    /// Whether whoever says this waits for an answer, and must be told when it is behind.
    pub fn is_request(&self) -> bool {
        use ChangeFrame::{Accept, Install, Prepare, Sync};
        matches!(self, Prepare { .. } | Sync { .. } | Accept { .. } | Install { .. })
    }
}

/// The kinds' numbers, for ever.
mod kind {
    pub const PREPARE: u8 = 1;
    pub const PROMISE: u8 = 2;
    pub const REFUSE: u8 = 3;
    pub const SYNC: u8 = 4;
    pub const READY: u8 = 5;
    pub const ACCEPT: u8 = 6;
    pub const ACCEPTED: u8 = 7;
    pub const INSTALL: u8 = 8;
    pub const INSTALLED: u8 = 9;
    pub const DOUBT: u8 = 10;
}

fn put_end(out: &mut Vec<u8>, end: LogEnd) {
    out.put_u64(end.slot.0);
    out.put_u64(end.digest.0);
    out.put_u64(end.time.0);
}

fn put_promise(out: &mut Vec<u8>, promise: &Promise) {
    put_run(out, promise.run);
    out.put_bool(promise.voter);
    out.put_bool(promise.leaving);
    out.put_bool(promise.whole);
    put_end(out, promise.end);
    out.put_bool(promise.accepted.is_some());
    if let Some((ballot, view)) = &promise.accepted {
        put_ballot(out, *ballot);
        view.encode(out);
    }
    out.put_varint(promise.remembers.len() as u64);
    for (id, durable) in &promise.remembers {
        out.put_u8(id.0);
        out.put_u64(durable.0);
    }
}

fn log_end(r: &mut Reader<'_>) -> Decoded<LogEnd> {
    Ok(LogEnd {
        slot: Slot(r.counter("end slot")?),
        digest: Digest(r.u64("end digest")?),
        time: GroupTime(r.counter("end time")?),
    })
}

fn epoch(r: &mut Reader<'_>) -> Decoded<Epoch> {
    r.counter("epoch").map(Epoch)
}

impl ChangeFrame {
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            ChangeFrame::Prepare { ballot, view } => {
                out.put_u8(kind::PREPARE);
                put_ballot(out, *ballot);
                view.encode(out);
            }
            ChangeFrame::Promise { epoch, ballot, promise } => {
                out.put_u8(kind::PROMISE);
                out.put_u64(epoch.0);
                put_ballot(out, *ballot);
                put_promise(out, promise);
            }
            ChangeFrame::Refuse { epoch, promised } => {
                out.put_u8(kind::REFUSE);
                out.put_u64(epoch.0);
                put_ballot(out, *promised);
            }
            ChangeFrame::Sync { epoch, ballot, base, sources } => {
                out.put_u8(kind::SYNC);
                out.put_u64(epoch.0);
                put_ballot(out, *ballot);
                put_end(out, *base);
                out.put_varint(sources.len() as u64);
                sources.iter().for_each(|id| out.put_u8(id.0));
            }
            ChangeFrame::Ready { epoch, ballot, base } => {
                out.put_u8(kind::READY);
                out.put_u64(epoch.0);
                put_ballot(out, *ballot);
                put_end(out, *base);
            }
            ChangeFrame::Accept { ballot, value, view } => {
                out.put_u8(kind::ACCEPT);
                put_ballot(out, *ballot);
                value.encode(out);
                view.encode(out);
            }
            ChangeFrame::Accepted { epoch, ballot } => {
                out.put_u8(kind::ACCEPTED);
                out.put_u64(epoch.0);
                put_ballot(out, *ballot);
            }
            ChangeFrame::Install { view } => {
                out.put_u8(kind::INSTALL);
                view.encode(out);
            }
            ChangeFrame::Installed { epoch } => {
                out.put_u8(kind::INSTALLED);
                out.put_u64(epoch.0);
            }
            ChangeFrame::Doubt { epoch, run, durable } => {
                out.put_u8(kind::DOUBT);
                out.put_u64(epoch.0);
                put_run(out, *run);
                out.put_u64(durable.0);
            }
        }
    }

    /// The frame that these bytes are, and nothing behind it.
    pub fn decode(bytes: &[u8]) -> Decoded<ChangeFrame> {
        let mut r = Reader::new(bytes);
        let frame = match r.u8("change kind")? {
            kind::PREPARE => ChangeFrame::Prepare { ballot: ballot(&mut r)?, view: View::decode(&mut r)? },
            kind::PROMISE => {
                ChangeFrame::Promise { epoch: epoch(&mut r)?, ballot: ballot(&mut r)?, promise: promise(&mut r)? }
            }
            kind::REFUSE => ChangeFrame::Refuse { epoch: epoch(&mut r)?, promised: ballot(&mut r)? },
            kind::SYNC => {
                let (epoch, ballot, base) = (epoch(&mut r)?, ballot(&mut r)?, log_end(&mut r)?);
                let count = r.count(REPLICAS_MAX, "sources")?;
                let sources = (0..count).map(|_| replica_id(&mut r, "source")).collect::<Decoded<Vec<ReplicaId>>>()?;
                ChangeFrame::Sync { epoch, ballot, base, sources }
            }
            kind::READY => {
                ChangeFrame::Ready { epoch: epoch(&mut r)?, ballot: ballot(&mut r)?, base: log_end(&mut r)? }
            }
            kind::ACCEPT => ChangeFrame::Accept {
                ballot: ballot(&mut r)?,
                value: View::decode(&mut r)?,
                view: View::decode(&mut r)?,
            },
            kind::ACCEPTED => ChangeFrame::Accepted { epoch: epoch(&mut r)?, ballot: ballot(&mut r)? },
            kind::INSTALL => ChangeFrame::Install { view: View::decode(&mut r)? },
            kind::INSTALLED => ChangeFrame::Installed { epoch: epoch(&mut r)? },
            kind::DOUBT => {
                let (epoch, run) = (epoch(&mut r)?, run(&mut r)?);
                ChangeFrame::Doubt { epoch, run, durable: Slot(r.counter("doubted slot")?) }
            }
            _ => return Err(DecodeError { field: "change kind" }),
        };
        r.end("change")?;
        Ok(frame)
    }
}

fn promise(r: &mut Reader<'_>) -> Decoded<Promise> {
    let run = run(r)?;
    let (voter, leaving, whole) = (r.bool("voter")?, r.bool("leaving")?, r.bool("whole")?);
    let end = log_end(r)?;
    let accepted = if r.bool("accepted")? { Some((ballot(r)?, View::decode(r)?)) } else { None };
    let count = r.count(REPLICAS_MAX, "remembered")?;
    let remembered = |r: &mut Reader<'_>| Ok((replica_id(r, "remembered id")?, Slot(r.counter("remembered slot")?)));
    let remembers = (0..count).map(|_| remembered(r)).collect::<Decoded<Vec<_>>>()?;
    Ok(Promise { run, voter, accepted, end, leaving, whole, remembers })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Birth, Incarnation};
    use crate::wire::view::tests::{run_of, view_of};
    use crate::wire::view::Policy;
    use quickcheck::quickcheck;

    /// One frame of each kind, and its bytes; those of views are pinned where they are defined.
    fn golden() -> Vec<(ChangeFrame, String)> {
        let ballot = Ballot { round: 1, id: ReplicaId(2), birth: Birth(3), incarnation: Incarnation(4) };
        let (ballot_hex, epoch) = ("0000000000000001 02 0000000000000003 0000000000000004", Epoch(5));
        let base = LogEnd { slot: Slot(6), digest: Digest(7), time: GroupTime(8) };
        let base_hex = "0000000000000006 0000000000000007 0000000000000008";
        let (view, value) = (view_of(1, 1, Policy::Dynamic), view_of(2, 2, Policy::Majority));
        let hex_of = |view: &View| {
            let mut bytes = Vec::new();
            view.encode(&mut bytes);
            hex(&bytes)
        };
        let (view_hex, value_hex, e) = (hex_of(&view), hex_of(&value), "0000000000000005");
        let (remembers, remembers_hex) = (vec![(ReplicaId(2), Slot(9))], "01 02 0000000000000009");
        let (run, end) = (run_of(1), base);
        let promise = |accepted| Promise { run, voter: true, accepted, end, leaving: false, whole: true, remembers };
        let run_hex = "01 00000000000000b1 0000000000000001";
        vec![
            (ChangeFrame::Prepare { ballot, view: view.clone() }, format!("01 {ballot_hex} {view_hex}")),
            (
                ChangeFrame::Promise { epoch, ballot, promise: promise(Some((ballot, value.clone()))) },
                format!(
                    "02 {e} {ballot_hex} {run_hex} 01 00 01 {base_hex} 01 {ballot_hex} {value_hex} {remembers_hex}"
                ),
            ),
            (ChangeFrame::Refuse { epoch, promised: ballot }, format!("03 {e} {ballot_hex}")),
            (
                ChangeFrame::Sync { epoch, ballot, base, sources: vec![ReplicaId(1), ReplicaId(9)] },
                format!("04 {e} {ballot_hex} {base_hex} 02 01 09"),
            ),
            (ChangeFrame::Ready { epoch, ballot, base }, format!("05 {e} {ballot_hex} {base_hex}")),
            (
                ChangeFrame::Accept { ballot, value, view: view.clone() },
                format!("06 {ballot_hex} {value_hex} {view_hex}"),
            ),
            (ChangeFrame::Accepted { epoch, ballot }, format!("07 {e} {ballot_hex}")),
            (ChangeFrame::Install { view }, format!("08 {view_hex}")),
            (ChangeFrame::Installed { epoch }, format!("09 {e}")),
            (
                ChangeFrame::Doubt { epoch, run: run_of(1), durable: Slot(6) },
                format!("0a {e} {run_hex} 0000000000000006"),
            ),
        ]
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn encoded(frame: &ChangeFrame) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        bytes
    }

    #[test]
    fn the_frames_are_for_ever() {
        for (k, (frame, golden)) in golden().iter().enumerate() {
            let bytes = encoded(frame);
            assert_eq!(hex(&bytes), golden.replace(' ', ""), "{frame:?}");
            assert_eq!(usize::from(bytes[0]), k + 1, "every kind has a row here");
            assert_eq!(ChangeFrame::decode(&bytes).as_ref(), Ok(frame));
            for length in 0..bytes.len() {
                assert!(ChangeFrame::decode(&bytes[..length]).is_err(), "{frame:?}: {length} bytes");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert!(ChangeFrame::decode(&longer).is_err(), "{frame:?}: a byte too many");
        }
    }

    quickcheck! {
        fn garbage_is_refused_or_has_one_form(kind: u8, garbage: Vec<u8>) -> bool {
            let bytes = [&[kind % 12], &garbage[..]].concat();
            ChangeFrame::decode(&bytes).map_or(true, |frame| encoded(&frame) == bytes)
        }
    }
}
