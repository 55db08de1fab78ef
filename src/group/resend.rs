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
            if self.tokens < size as u64 && !crate::broken::is("resend-unbounded") {
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

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: Rank = Rank(1);
    const KIB: usize = 1024;

    fn pieces(from: u64, to: u64) -> impl Iterator<Item = Piece> {
        (from..=to).map(|m| Piece::Data(Rank(0), Mseq(m)))
    }

    #[test]
    fn what_was_just_sent_is_held_back_from_the_same_asker() {
        let mut resend = Resend::new(Time(0));
        let mut granted =
            |now, asker, round_trip_ns| resend.grant(Time(now), asker, pieces(1, 2), round_trip_ns, |_| Some(10)).len();
        assert_eq!(granted(0, ASKER, 0), 2);
        assert_eq!(granted(RESEND_HOLD_NS - 1, ASKER, 0), 0);
        assert_eq!(granted(RESEND_HOLD_NS - 1, Rank(2), 0), 2, "another asker may lack it too");
        assert_eq!(granted(RESEND_HOLD_NS, ASKER, 0), 2);
        let round_trip_ns = 10 * RESEND_HOLD_NS;
        assert_eq!(granted(RESEND_HOLD_NS + round_trip_ns - 1, ASKER, round_trip_ns), 0);
        assert_eq!(granted(RESEND_HOLD_NS + round_trip_ns, ASKER, round_trip_ns), 2);
        let last = RESEND_HOLD_NS + round_trip_ns;
        assert_eq!(granted(last + RESEND_HOLD_MAX_NS - 1, ASKER, u64::MAX), 0);
        assert_eq!(granted(last + RESEND_HOLD_MAX_NS, ASKER, u64::MAX), 2, "however slow the last probe was");
    }

    #[test]
    fn orders_and_messages_are_told_apart_and_what_is_not_held_is_left_out() {
        let mut resend = Resend::new(Time(0));
        let wanted = [Piece::Order(Slot(1)), Piece::Data(Rank(0), Mseq(1)), Piece::Data(Rank(2), Mseq(1))];
        let size = |piece| (piece != wanted[2]).then_some(10);
        assert_eq!(resend.grant(Time(0), ASKER, wanted.into_iter(), 0, size), wanted[..2]);
        assert_eq!(resend.grant(Time(1), ASKER, wanted.into_iter(), 0, |_| Some(10)), wanted[2..]);
    }

    #[test]
    fn repairs_stay_below_the_rate() {
        let mut resend = Resend::new(Time(0));
        let (mut sent, mut from) = (0, 1);
        // Everything is asked for, ten times a millisecond, for a second.
        for step in 0..10_000u64 {
            let now = Time(step * Time::MS / 10);
            let granted = resend.grant(now, ASKER, pieces(from, from + 200), 0, |_| Some(KIB)).len();
            (sent, from) = (sent + granted * KIB, from + granted as u64);
            let allowed = RESEND_BURST_BYTES + now.0 * (RESEND_BYTES_PER_SECOND / 1_000_000) / 1000;
            assert!(sent as u64 <= allowed + allowed / 10, "{sent} bytes at {now:?}");
        }
        assert!(sent as u64 > RESEND_BYTES_PER_SECOND * 9 / 10, "{sent} bytes are too few");
    }

    #[test]
    fn a_quiet_time_earns_a_burst_and_no_more() {
        let mut resend = Resend::new(Time(0));
        let burst = RESEND_BURST_BYTES as usize / KIB;
        let granted = |resend: &mut Resend, now| {
            let mut sizes = pieces(1, NACK_SPAN_MAX);
            resend.grant(now, ASKER, &mut sizes, 0, |_| Some(2 * KIB)).len()
        };
        assert_eq!(granted(&mut resend, Time(0)), burst / 2);
        assert_eq!(granted(&mut resend, Time(u64::MAX / 2)), burst / 2);
    }

    #[test]
    fn one_asking_gets_a_bounded_number_of_pieces_and_memory() {
        let mut resend = Resend::new(Time(0));
        let granted = resend.grant(Time(0), ASKER, pieces(1, 5000), 0, |_| Some(1));
        assert_eq!(granted.len() as u64, NACK_SPAN_MAX);
        for k in 1..100u64 {
            resend.grant(Time(k * RESEND_HOLD_NS), ASKER, pieces(k * 5000, k * 5000 + 900), 0, |_| Some(1));
            assert!(resend.recent.len() <= 6 * NACK_SPAN_MAX as usize);
        }
    }
}
