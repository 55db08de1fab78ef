//! Repair: what is sent again because a member asked (DESIGN 4.1).
//!
//! What one member asked for is not sent to it twice within a round trip, and all repairs together stay below a rate,
//! so that a lossy or a malicious peer cannot make a member flood the network.

use std::collections::BTreeMap;

use crate::limits::{NACK_SPAN_MAX, RESEND_BURST_BYTES, RESEND_BYTES_PER_SECOND, RESEND_HOLD_MAX_NS, RESEND_HOLD_NS};
use crate::types::{Mseq, Rank, Slot, Time};

/// Something a member may ask for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Piece {
    Order(Slot),
    Data(Rank, Mseq),
}

#[derive(Debug)]
pub struct Resend {
    /// What was sent to whom and when: nothing older than the hold.
    recent: BTreeMap<(Rank, Piece), Time>,
    /// Bytes that may be sent again now.
    tokens: u64,
    filled: Time,
}

impl Resend {
    pub fn new(now: Time) -> Resend {
        Resend { recent: BTreeMap::new(), tokens: RESEND_BURST_BYTES, filled: now }
    }

    /// The pieces of an asked range that may be sent to `asker` now. `bytes` tells a piece's size, or `None` where it
    /// is not held.
    pub fn grant(
        &mut self,
        now: Time,
        asker: Rank,
        wanted: impl Iterator<Item = Piece>,
        round_trip_ns: u64,
        bytes: impl Fn(Piece) -> Option<usize>,
    ) -> Vec<Piece> {
        self.fill(now);
        let hold = round_trip_ns.clamp(RESEND_HOLD_NS, RESEND_HOLD_MAX_NS);
        let mut granted = Vec::new();
        for piece in wanted.take(NACK_SPAN_MAX as usize) {
            let Some(size) = bytes(piece) else { continue };
            let fresh = self.recent.get(&(asker, piece)).is_none_or(|&at| now.since_ns(at) >= hold);
            if !fresh {
                continue;
            }
            if self.tokens < size as u64 && !crate::group::broken::is("resend-unbounded") {
                break;
            }
            self.tokens = self.tokens.saturating_sub(size as u64);
            self.recent.insert((asker, piece), now);
            granted.push(piece);
        }
        if self.recent.len() > 4 * NACK_SPAN_MAX as usize {
            self.recent.retain(|_, at| now.since_ns(*at) < hold);
        }
        granted
    }

    fn fill(&mut self, now: Time) {
        let earned =
            (u128::from(now.since_ns(self.filled)) * u128::from(RESEND_BYTES_PER_SECOND) / 1_000_000_000) as u64;
        if earned > 0 {
            self.tokens = (self.tokens + earned).min(RESEND_BURST_BYTES);
            self.filled = now;
        }
    }
}
