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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::NACK_SHRINK_ATTEMPT;

    const LAST: usize = DATAGRAM_SIZES.len() - 1;

    /// The path of rank 0 in a view of three.
    fn path() -> Path {
        Path::new(Rank(0), 3, LAST, Time(0))
    }

    /// Answers every probe for both others at once until nothing is left to be tried.
    fn grow_all(path: &mut Path, now: Time) {
        while let Some((size, silent)) = path.poll(now) {
            assert_eq!(silent, [Rank(1), Rank(2)]);
            assert!(!path.on_probed(now, Rank(1), size));
            assert!(path.on_probed(now, Rank(2), size));
        }
    }

    #[test]
    fn it_grows_when_all_have_answered() {
        let mut path = path();
        assert_eq!(path.size(), DATAGRAM_SIZES[DATAGRAM_FIRST]);
        let (size, silent) = path.poll(Time(0)).expect("a probe at once");
        assert_eq!((size, silent), (DATAGRAM_SIZES[DATAGRAM_FIRST + 1], vec![Rank(1), Rank(2)]));
        assert!(!path.on_probed(Time(10), Rank(1), size));
        assert!(!path.on_probed(Time(20), Rank(1), size), "one member twice is not two");
        assert!(!path.on_probed(Time(20), Rank(2), size + 1), "another size");
        assert_eq!(path.size(), DATAGRAM_SIZES[DATAGRAM_FIRST]);
        assert!(path.on_probed(Time(30), Rank(2), size));
        assert_eq!(path.size(), size);
        assert!(!path.on_probed(Time(30), Rank(2), size), "an answer too late");
        grow_all(&mut path, Time(40));
        assert_eq!((path.size(), path.deadline()), (DATAGRAM_SIZES[LAST], None));
    }

    #[test]
    fn alone_it_is_as_large_as_allowed_and_never_larger() {
        let path = Path::new(Rank(0), 1, 3, Time(0));
        assert_eq!((path.size(), path.deadline()), (DATAGRAM_SIZES[3], None));
        let mut path = Path::new(Rank(0), 3, 3, Time(0));
        grow_all(&mut path, Time(0));
        assert_eq!(path.size(), DATAGRAM_SIZES[3]);
        assert_eq!(Path::new(Rank(0), 3, 0, Time(0)).size(), DATAGRAM_SIZES[0]);
    }

    #[test]
    fn only_the_silent_are_probed_again_and_a_size_is_given_up_for_longer_and_longer() {
        let (mut path, mut now, mut wait_ns) = (path(), Time(0), PROBE_AGAIN_NS);
        let size = DATAGRAM_SIZES[DATAGRAM_FIRST + 1];
        while wait_ns < PROBE_AGAIN_MAX_NS {
            for _ in 0..PROBE_TRIES {
                assert_eq!(path.poll(now).expect("a try").0, size);
                assert!(!path.on_probed(now, Rank(2), size));
                assert_eq!(path.poll(now.after_ns(PROBE_WAIT_NS - 1)), None);
                now = now.after_ns(PROBE_WAIT_NS);
            }
            assert_eq!((path.poll(now), path.deadline()), (None, Some(now.after_ns(wait_ns))));
            now = now.after_ns(wait_ns);
            wait_ns *= 2;
        }
        let mut path = super::tests::path();
        path.poll(Time(0)).expect("a try");
        path.on_probed(Time(1), Rank(2), size);
        assert_eq!(path.poll(Time(PROBE_WAIT_NS)), Some((size, vec![Rank(1)])));
    }

    #[test]
    fn it_falls_back_after_the_third_asking_and_tries_again_later() {
        let mut path = path();
        grow_all(&mut path, Time(0));
        let now = Time(1_000_000);
        assert!((0..NACK_SHRINK_ATTEMPT).all(|attempt| !path.on_attempt(now, attempt)));
        assert!(path.on_attempt(now, NACK_SHRINK_ATTEMPT));
        assert_eq!((path.size(), path.deadline()), (DATAGRAM_SIZES[LAST - 1], Some(now.after_ns(PROBE_AGAIN_NS))));
        assert_eq!(path.poll(now.after_ns(PROBE_AGAIN_NS - 1)), None);
        assert_eq!(path.poll(now.after_ns(PROBE_AGAIN_NS)).expect("a probe").0, DATAGRAM_SIZES[LAST]);
    }

    #[test]
    fn one_loss_asked_for_in_many_frames_shrinks_it_once() {
        let mut path = path();
        grow_all(&mut path, Time(0));
        let now = Time(1_000_000);
        let shrinks = (0..32).filter(|_| path.on_attempt(now, NACK_SHRINK_ATTEMPT)).count();
        assert_eq!((shrinks, path.size()), (1, DATAGRAM_SIZES[LAST - 1]));
        assert!(!path.on_attempt(now.after_ns(PROBE_WAIT_NS - 1), NACK_SHRINK_ATTEMPT + 2));
        // If that does not help, it goes on, down to the smallest.
        for k in 1..=LAST as u64 + 1 {
            path.on_attempt(now.after_ns(k * PROBE_WAIT_NS), NACK_SHRINK_ATTEMPT + 3);
        }
        assert_eq!(path.size(), DATAGRAM_SIZES[0]);
    }

    #[test]
    fn answers_to_late_askings_are_smaller_still() {
        let mut path = path();
        grow_all(&mut path, Time(0));
        let of = |attempt| path.size_for_attempt(attempt);
        assert_eq!((of(0), of(NACK_SHRINK_ATTEMPT - 1)), (DATAGRAM_SIZES[LAST], DATAGRAM_SIZES[LAST]));
        assert_eq!(of(NACK_SHRINK_ATTEMPT), DATAGRAM_SIZES[LAST - 1]);
        assert_eq!((of(NACK_SHRINK_ATTEMPT + 1), of(255)), (DATAGRAM_SIZES[LAST - 2], DATAGRAM_SIZES[0]));
    }

    #[test]
    fn the_round_trip_is_that_of_the_slowest_and_forgotten_slowly() {
        let mut path = path();
        let (size, _) = path.poll(Time(0)).expect("a probe");
        path.on_probed(Time(400), Rank(1), size);
        assert_eq!(path.round_trip_ns(), 400);
        path.on_probed(Time(1000), Rank(2), size);
        assert_eq!(path.round_trip_ns(), 1000);
        let (size, _) = path.poll(Time(1000)).expect("the next probe");
        path.on_probed(Time(1001), Rank(1), size);
        assert_eq!(path.round_trip_ns(), 750);
    }
}
