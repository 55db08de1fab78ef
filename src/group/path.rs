//! The size of a datagram: it grows only after a padded probe of the new size was answered by every member, and falls
//! back when one range has been asked for again and again (DESIGN section 3). Probes also measure the round trip.

use crate::group::quorum::Ranks;
use crate::limits::{DATAGRAM_FIRST, DATAGRAM_SIZES, PROBE_AGAIN_MAX_NS, PROBE_AGAIN_NS, PROBE_TRIES, PROBE_WAIT_NS};
use crate::types::{Rank, Time};

/// A size that is being tried.
#[derive(Debug)]
struct Probe {
    index: usize,
    answered: Ranks,
    tries: u32,
    sent: Time,
}

#[derive(Debug)]
pub struct Path {
    me: Rank,
    members: usize,
    /// The size in use, an index of [`DATAGRAM_SIZES`].
    index: usize,
    index_max: usize,
    probe: Option<Probe>,
    /// No probe before this.
    next: Time,
    wait_ns: u64,
    round_trip_ns: u64,
    /// When the size last fell: what was sent before that says nothing about the size of today.
    shrank: Option<Time>,
}

impl Path {
    pub fn new(me: Rank, members: usize, index_max: usize, now: Time) -> Path {
        let index = if members == 1 { index_max } else { DATAGRAM_FIRST.min(index_max) };
        Path {
            me,
            members,
            index,
            index_max,
            probe: None,
            next: now,
            wait_ns: PROBE_AGAIN_NS,
            round_trip_ns: 0,
            shrank: None,
        }
    }

    /// Bytes of a datagram.
    pub fn size(&self) -> usize {
        DATAGRAM_SIZES[self.index]
    }

    /// The size for an answer to this asking for one gap.
    pub fn size_for_attempt(&self, attempt: u8) -> usize {
        let back = usize::from(attempt.saturating_sub(crate::limits::NACK_SHRINK_ATTEMPT - 1));
        DATAGRAM_SIZES[self.index.saturating_sub(back)]
    }

    /// Nanoseconds of the longest recent round trip; 0 while none was measured.
    pub fn round_trip_ns(&self) -> u64 {
        self.round_trip_ns
    }

    /// When there is a probe to be sent or given up.
    pub fn deadline(&self) -> Option<Time> {
        match &self.probe {
            Some(probe) => Some(probe.sent.after_ns(PROBE_WAIT_NS)),
            None => (self.index < self.index_max && self.members > 1).then_some(self.next),
        }
    }

    /// The probe to send now, and to whom.
    pub fn poll(&mut self, now: Time) -> Option<(usize, Vec<Rank>)> {
        if self.deadline().is_none_or(|at| at > now) {
            return None;
        }
        let mut probe = self.probe.take().unwrap_or(Probe {
            index: self.index + 1,
            answered: Ranks::default().with(self.me),
            tries: 0,
            sent: now,
        });
        if probe.tries == PROBE_TRIES {
            self.next = now.after_ns(self.wait_ns);
            self.wait_ns = (self.wait_ns * 2).min(PROBE_AGAIN_MAX_NS);
            return None;
        }
        probe.tries += 1;
        probe.sent = now;
        let silent = (0..self.members).map(|k| Rank(k as u8)).filter(|&k| !probe.answered.contains(k)).collect();
        let size = DATAGRAM_SIZES[probe.index];
        self.probe = Some(probe);
        Some((size, silent))
    }

    /// A member answered a probe of this size. True when the datagrams grow by that.
    pub fn on_probed(&mut self, now: Time, rank: Rank, size: usize) -> bool {
        let Some(probe) = self.probe.as_mut().filter(|p| DATAGRAM_SIZES[p.index] == size) else { return false };
        if !probe.answered.contains(rank) {
            let sample = now.since_ns(probe.sent);
            self.round_trip_ns = sample.max(self.round_trip_ns - self.round_trip_ns / 4).min(PROBE_WAIT_NS);
        }
        probe.answered = probe.answered.with(rank);
        if probe.answered.count() < self.members {
            return false;
        }
        self.index = probe.index;
        self.probe = None;
        self.next = now;
        self.wait_ns = PROBE_AGAIN_NS;
        true
    }

    /// A member asked for one gap this often: what is sent now does not get through. True when the size shrinks.
    pub fn on_attempt(&mut self, now: Time, attempt: u8) -> bool {
        let lately = self.shrank.is_some_and(|at| now.since_ns(at) < PROBE_WAIT_NS);
        if attempt < crate::limits::NACK_SHRINK_ATTEMPT || self.index == 0 || lately {
            return false;
        }
        self.shrank = Some(now);
        self.index -= 1;
        self.probe = None;
        self.next = now.after_ns(self.wait_ns);
        self.wait_ns = (self.wait_ns * 2).min(PROBE_AGAIN_MAX_NS);
        true
    }
}
