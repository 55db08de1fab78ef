//! Negative acknowledgements: when to ask again, for what, and whom (DESIGN 4.1).
//!
//! There is one line of asking for orders and one for each origin's messages. A line is armed while something is
//! missing on it, asks after a short jittered delay (so that mere reordering costs nothing), then less and less often
//! until the first gap moves. A timer is only a hint: what is asked for is what is missing when it fires.

use crate::group::commit::Commit;
use crate::group::view::View;
use crate::group::window::Window;
use crate::limits::{NACK_DELAY_MAX_NS, NACK_DELAY_NS, NACK_RANGES_MAX, NACK_SHRINK_ATTEMPT, NACK_SPAN_MAX};
use crate::rng::Rng;
use crate::types::{Mseq, Rank, Slot, Time};
use crate::wire::datagram::Frame;

/// One line of asking.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    /// Where its first gap starts: a number and an offset within it. `None` while nothing is missing.
    gap: Option<(u64, u32)>,
    /// When to ask, or ask again, for the gap that starts here.
    due: Time,
    /// How often this gap has been asked for.
    attempt: u8,
}

impl Line {
    fn look(&mut self, now: Time, gap: Option<(u64, u32)>, rng: &mut Rng) {
        if gap != self.gap {
            let delay = rng.between(NACK_DELAY_NS, 2 * NACK_DELAY_NS);
            *self = Line { gap, due: now.after_ns(delay), attempt: 0 };
        }
    }

    fn is_due(&self, now: Time) -> bool {
        self.gap.is_some() && self.due <= now
    }

    /// Counts an asking, and says which one it is.
    fn asked(&mut self, now: Time, rng: &mut Rng) -> u8 {
        let attempt = self.attempt;
        // Never stuck at one number, which always asks the same member.
        self.attempt = self.attempt.checked_add(1).unwrap_or(NACK_SHRINK_ATTEMPT);
        let delay = ((4 * NACK_DELAY_NS) << attempt.min(16)).min(NACK_DELAY_MAX_NS);
        self.due = now.after_ns(rng.between(delay, delay + delay / 2));
        attempt
    }
}

#[derive(Debug)]
pub struct Nacks {
    me: Rank,
    orders: Line,
    data: Vec<Line>,
    rng: Rng,
}

impl Nacks {
    pub fn new(me: Rank, members: usize, rng: Rng) -> Nacks {
        Nacks { me, orders: Line::default(), data: vec![Line::default(); members], rng }
    }

    /// Arms and disarms the lines by what is missing now.
    pub fn look(&mut self, now: Time, window: &Window, commit: &Commit) {
        let gap = (heard_slot(window, commit) > window.announced()).then(|| (window.announced().0 + 1, 0));
        self.orders.look(now, gap, &mut self.rng);
        for k in 0..self.data.len() {
            let rank = Rank(k as u8);
            let gap = if rank != self.me && heard_message(window, commit, rank) > window.held(rank) {
                let first = window.held(rank).next();
                Some((first.0, window.prefix(rank, first)))
            } else {
                None
            };
            self.data[k].look(now, gap, &mut self.rng);
        }
    }

    /// The next moment a line may be due.
    pub fn deadline(&self) -> Option<Time> {
        std::iter::once(&self.orders).chain(&self.data).filter(|l| l.gap.is_some()).map(|l| l.due).min()
    }

    /// What to ask now, and whom.
    pub fn ask(&mut self, now: Time, view: &View, window: &Window, commit: &Commit) -> Vec<(Rank, Frame<'static>)> {
        let mut asked = Vec::new();
        if crate::group::broken::is("nack-never-sent") {
            return asked;
        }
        if self.orders.is_due(now) {
            let attempt = self.orders.asked(now, &mut self.rng);
            let gaps = window.missing_orders(heard_slot(window, commit), NACK_RANGES_MAX);
            for (first, last) in gaps {
                let last = last.min(Slot(first.0 + NACK_SPAN_MAX - 1));
                let whom = self.whom_for_order(first, attempt, view, window, commit);
                asked.extend(whom.map(|rank| (rank, Frame::NackOrders { first, last, attempt })));
            }
        }
        for k in 0..self.data.len() {
            let origin = Rank(k as u8);
            if !self.data[k].is_due(now) {
                continue;
            }
            let attempt = self.data[k].asked(now, &mut self.rng);
            let gaps = window.missing_data(origin, heard_message(window, commit, origin), NACK_RANGES_MAX);
            let whom = self.whom_for_data(origin, gaps.first().map(|g| g.first), attempt, view, window, commit);
            for gap in gaps {
                let last = gap.last.min(Mseq(gap.first.0 + NACK_SPAN_MAX - 1));
                asked.push((whom, Frame::NackData { origin, first: gap.first, last, offset: gap.offset, attempt }));
            }
        }
        asked
    }

    /// For order k: its announcer, then the announcer of a later slot, then any member that holds it.
    fn whom_for_order(&self, slot: Slot, attempt: u8, view: &View, window: &Window, commit: &Commit) -> Option<Rank> {
        let announcer = view.sequencer(slot);
        let later = view.sequencer(heard_slot(window, commit));
        match attempt {
            0 if announcer != self.me => Some(announcer),
            1 if later != self.me && later != announcer => Some(later),
            _ => self.any_that_knows(slot, attempt, commit).or(Some(announcer).filter(|&a| a != self.me)),
        }
    }

    /// For a message: its origin, then the sequencer that ordered it, then any member that holds it.
    fn whom_for_data(
        &self,
        origin: Rank,
        first: Option<Mseq>,
        attempt: u8,
        view: &View,
        window: &Window,
        commit: &Commit,
    ) -> Rank {
        let slot = first.and_then(|first| window.ordered_at(origin, first));
        let sequencer = slot.map(|slot| view.sequencer(slot)).filter(|&rank| rank != self.me);
        match (attempt, sequencer) {
            (0, _) => origin,
            (1, Some(sequencer)) => sequencer,
            _ => slot.and_then(|slot| self.any_that_knows(slot, attempt, commit)).unwrap_or(origin),
        }
    }

    /// One of those whose `known` shows this slot, another at each attempt.
    fn any_that_knows(&self, slot: Slot, attempt: u8, commit: &Commit) -> Option<Rank> {
        let holders: Vec<Rank> =
            commit.reports().filter(|(rank, r)| *rank != self.me && r.known >= slot).map(|(rank, _)| rank).collect();
        (!holders.is_empty()).then(|| holders[usize::from(attempt) % holders.len()])
    }
}

fn heard_slot(window: &Window, commit: &Commit) -> Slot {
    window.heard_slot().max(commit.known_anywhere())
}

fn heard_message(window: &Window, commit: &Commit, rank: Rank) -> Mseq {
    window.heard_of(rank).max(commit.report(rank).sent)
}
