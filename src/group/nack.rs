//! Negative acknowledgements: when to ask again, for what, and whom (DESIGN 4.1).
//!
//! There is one line of asking for orders and one for each origin's messages. A line is armed while something is
//! missing on it, asks after a short jittered delay (so that mere reordering costs nothing), then less and less often
//! until the first gap moves. A timer is only a hint: what is asked for is what is missing when it fires.

use crate::group::commit::Commit;
use crate::group::window::Window;
use crate::limits::{
    NACK_DELAY_MAX_NS, NACK_DELAY_NS, NACK_RANGES_MAX, NACK_RESTRAINT_ATTEMPT, NACK_SPAN_MAX, NACK_SPAN_MIN,
    REPLICAS_MAX, RESEND_HOLD_MAX_NS,
};
use crate::rng::Rng;
use crate::types::{Mseq, Rank, Slot, Time};
use crate::wire::datagram::Frame;
use crate::wire::view::View;

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
    fn asked(&mut self, now: Time, round_trip_ns: u64, rng: &mut Rng) -> u8 {
        let attempt = self.attempt;
        // Never stuck at one number, which always asks the same member, and never back where waits are short.
        self.attempt = self.attempt.checked_add(1).unwrap_or(u8::MAX - REPLICAS_MAX as u8);
        // Up to half of it is added as jitter.
        let delay = ((4 * NACK_DELAY_NS) << attempt.min(16)).min(NACK_DELAY_MAX_NS * 2 / 3);
        // An answer that is still on its way is not asked for again.
        let delay = delay.max(round_trip_ns.min(RESEND_HOLD_MAX_NS) * 5 / 4);
        self.due = now.after_ns(rng.between(delay, delay + delay / 2));
        attempt
    }
}

/// How many numbers of one range this asking names. Where answers are lost on a link that is cut one way, or too large
/// for it, the askings that get through must not keep the other side busy sending the whole range for nothing.
fn span(attempt: u8) -> u64 {
    let quarters = u32::from(attempt.saturating_sub(NACK_RESTRAINT_ATTEMPT - 1));
    NACK_SPAN_MAX.checked_shr(2 * quarters).unwrap_or(0).max(NACK_SPAN_MIN)
}

#[derive(Debug)]
pub struct Nacks {
    me: Rank,
    orders: Line,
    data: Vec<Line>,
    /// The longest recent round trip; 0 while none was measured.
    round_trip_ns: u64,
    rng: Rng,
}

impl Nacks {
    pub fn new(me: Rank, members: usize, rng: Rng) -> Nacks {
        Nacks { me, orders: Line::default(), data: vec![Line::default(); members], round_trip_ns: 0, rng }
    }

    /// No gap is asked for again within this time.
    pub fn set_round_trip(&mut self, round_trip_ns: u64) {
        self.round_trip_ns = round_trip_ns;
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
        if crate::broken::is("nack-never-sent") {
            return asked;
        }
        if self.orders.is_due(now) {
            let attempt = self.orders.asked(now, self.round_trip_ns, &mut self.rng);
            let gaps = window.missing_orders(heard_slot(window, commit), NACK_RANGES_MAX);
            for (first, last) in gaps {
                let last = last.min(Slot(first.0 + span(attempt) - 1));
                let whom = self.whom_for_order(first, attempt, view, window, commit);
                asked.extend(whom.map(|rank| (rank, Frame::NackOrders { first, last, attempt })));
            }
        }
        for k in 0..self.data.len() {
            let origin = Rank(k as u8);
            if !self.data[k].is_due(now) {
                continue;
            }
            let attempt = self.data[k].asked(now, self.round_trip_ns, &mut self.rng);
            let gaps = window.missing_data(origin, heard_message(window, commit, origin), NACK_RANGES_MAX);
            let whom = self.whom_for_data(origin, gaps.first().map(|g| g.first), attempt, view, window, commit);
            for gap in gaps {
                let last = gap.last.min(Mseq(gap.first.0 + span(attempt) - 1));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::window::Order;
    use crate::types::GroupTime;
    use crate::wire::datagram::{Cuts, Status};
    use crate::wire::view::tests::view_of;
    use crate::wire::view::Policy;

    /// Rank 0 of a view of five, in which slot k is announced by rank k mod 5.
    struct Bench {
        view: View,
        window: Window,
        commit: Commit,
        nacks: Nacks,
    }

    impl Bench {
        fn new() -> Bench {
            let view = view_of(5, 5, Policy::Dynamic);
            let (window, commit) = (Window::new(5, Slot(0), GroupTime(0)), Commit::new(&view));
            Bench { view, window, commit, nacks: Nacks::new(Rank(0), 5, Rng::new(1)) }
        }

        /// The order of a slot, which covers messages up to `mseq` of rank 2.
        fn order(&mut self, slot: u64, mseq: u64) {
            let mut cuts = Cuts::zero(5);
            cuts.set(Rank(2), Mseq(mseq));
            self.window.on_order(Slot(slot), Order { time: GroupTime(0), cuts }).expect("it is new");
        }

        fn report(&mut self, rank: u8, sent: u64, known: u64) {
            self.commit.on_status(Rank(rank), &Status { sent: Mseq(sent), known: Slot(known), ..Status::default() });
        }

        fn look(&mut self, now: Time) -> Option<Time> {
            self.nacks.look(now, &self.window, &self.commit);
            self.nacks.deadline()
        }

        fn ask(&mut self, now: Time) -> Vec<(Rank, Frame<'static>)> {
            self.nacks.ask(now, &self.view, &self.window, &self.commit)
        }

        /// Who is asked at the first so many askings.
        fn asked(&mut self, count: usize) -> Vec<u8> {
            self.look(Time(0));
            let next = |bench: &mut Bench| {
                let due = bench.nacks.deadline().expect("something is missing");
                bench.ask(due).first().expect("it is due").0 .0
            };
            (0..count).map(|_| next(self)).collect()
        }
    }

    #[test]
    fn an_answer_under_way_is_not_asked_for_again() {
        let mut bench = Bench::new();
        bench.nacks.set_round_trip(10 * Time::MS);
        bench.order(2, 0);
        let first = bench.look(Time(0)).expect("slot 1 is missing");
        assert!(!bench.ask(first).is_empty());
        let again = bench.nacks.deadline().expect("something is missing still");
        assert!(again.since_ns(first) >= 12 * Time::MS, "{again} after {first}");
    }

    #[test]
    fn nothing_is_asked_for_before_the_delay_nor_once_it_has_come() {
        let mut bench = Bench::new();
        assert_eq!(bench.look(Time(0)), None);
        bench.order(2, 0);
        let due = bench.look(Time(7)).expect("slot 1 is missing");
        assert!((Time(7 + NACK_DELAY_NS)..=Time(7 + 2 * NACK_DELAY_NS)).contains(&due));
        assert_eq!(bench.look(Time(9)), Some(due), "looking again changes nothing");
        assert_eq!(bench.ask(Time(due.0 - 1)), []);
        bench.order(1, 0);
        assert_eq!(bench.look(due), None);
        assert_eq!(bench.ask(due), []);
    }

    #[test]
    fn it_asks_less_and_less_often_within_bounds() {
        let mut bench = Bench::new();
        bench.order(2, 0);
        let (mut now, mut last_wait) = (bench.look(Time(0)).expect("armed"), 0);
        for attempt in 0..300u32 {
            let asked = bench.ask(now);
            let (first, last) = (Slot(1), Slot(1));
            // At the end of the byte the last few numbers go round, so that every holder is asked.
            let attempt = if attempt < 256 { attempt as u8 } else { (240 + attempt % 16) as u8 };
            assert_eq!(asked[0].1, Frame::NackOrders { first, last, attempt });
            assert_eq!(bench.ask(now), [], "once a time");
            let wait = bench.look(now).expect("still missing").since_ns(now);
            assert!(wait <= NACK_DELAY_MAX_NS, "attempt {attempt}: {wait} ns");
            assert!(attempt > 4 || wait > last_wait, "attempt {attempt}: {wait} ns after {last_wait}");
            assert!(attempt < 10 || wait >= NACK_DELAY_MAX_NS / 2, "attempt {attempt}: {wait} ns");
            (now, last_wait) = (now.after_ns(wait), wait);
        }
    }

    #[test]
    fn a_gap_that_moves_begins_anew() {
        let mut bench = Bench::new();
        bench.order(4, 0);
        assert_eq!(bench.asked(3), [1, 4, 1]);
        bench.order(1, 0);
        let now = Time(1 << 30);
        let due = bench.look(now).expect("slots 2 and 3 are missing");
        assert!(due <= now.after_ns(2 * NACK_DELAY_NS));
        let (first, last, attempt) = (Slot(2), Slot(3), 0);
        assert_eq!(bench.ask(due), [(Rank(2), Frame::NackOrders { first, last, attempt })]);
    }

    #[test]
    fn an_order_is_asked_of_its_announcer_then_of_a_later_one_then_of_those_that_know() {
        let mut bench = Bench::new();
        bench.order(3, 0);
        bench.report(2, 0, 1);
        bench.report(4, 0, 3);
        bench.report(3, 0, 0);
        assert_eq!(bench.asked(5), [1, 3, 2, 4, 2]);
        let mut bench = Bench::new();
        bench.order(3, 0);
        assert_eq!(bench.asked(4), [1, 3, 1, 1], "nobody is known to hold it");
        let mut bench = Bench::new();
        bench.order(5, 0);
        assert_eq!(bench.asked(3), [1, 1, 1], "the later one is this very member");
    }

    #[test]
    fn a_message_is_asked_of_its_origin_then_of_its_sequencer_then_of_those_that_know() {
        let mut bench = Bench::new();
        bench.order(1, 1);
        bench.report(3, 0, 1);
        bench.report(4, 0, 1);
        assert_eq!(bench.asked(5), [2, 1, 3, 4, 3]);
        let mut bench = Bench::new();
        bench.report(2, 1, 0);
        assert_eq!(bench.asked(4), [2, 2, 2, 2], "no order names it yet");
    }

    #[test]
    fn reports_tell_of_orders_and_messages_that_never_came() {
        let mut bench = Bench::new();
        bench.report(1, 5000, 5000);
        let due = bench.look(Time(0)).expect("armed");
        let asked = bench.ask(due.after_ns(2 * NACK_DELAY_NS));
        let span = NACK_SPAN_MAX;
        let orders = Frame::NackOrders { first: Slot(1), last: Slot(span), attempt: 0 };
        let origin = Rank(1);
        let data = Frame::NackData { origin, first: Mseq(1), last: Mseq(span), offset: 0, attempt: 0 };
        assert_eq!(asked, [(Rank(1), orders), (Rank(1), data)]);
    }

    #[test]
    fn of_a_message_in_part_only_the_rest_is_asked_for() {
        let mut bench = Bench::new();
        bench.window.on_data(Rank(2), Mseq(1), false, 9, 0, b"four").expect("it is new");
        bench.window.on_data(Rank(2), Mseq(3), false, 1, 0, b"x").expect("it is new");
        let due = bench.look(Time(0)).expect("armed");
        let (origin, first, attempt) = (Rank(2), Mseq(1), 0);
        let asked = bench.ask(due);
        assert_eq!(asked, [(Rank(2), Frame::NackData { origin, first, last: Mseq(2), offset: 4, attempt })]);
    }

    #[test]
    fn who_gets_no_answers_asks_for_less_until_some_come() {
        let mut bench = Bench::new();
        bench.report(1, 5000, 0);
        let mut due = bench.look(Time(0)).expect("armed");
        let mut spans = Vec::new();
        for _ in 0..8 {
            let asked = bench.ask(due);
            spans.extend(asked.iter().map(|(_, frame)| match frame {
                Frame::NackData { first, last, .. } => last.0 - first.0 + 1,
                other => panic!("{other:?}"),
            }));
            due = bench.look(due).expect("it is still missing");
        }
        assert_eq!(spans, [1024, 1024, 1024, 256, 64, 16, 16, 16]);
        bench.window.on_data(Rank(1), Mseq(1), false, 1, 0, b"x").expect("it is new");
        let due = bench.look(due).expect("the rest is missing");
        let all = Frame::NackData { origin: Rank(1), first: Mseq(2), last: Mseq(1025), offset: 0, attempt: 0 };
        assert_eq!(bench.ask(due), [(Rank(1), all)]);
    }

    #[test]
    fn own_messages_are_never_asked_for() {
        let mut bench = Bench::new();
        bench.report(0, 9, 0);
        assert_eq!(bench.look(Time(0)), None);
    }

    #[test]
    fn one_asking_names_a_bounded_number_of_ranges() {
        let mut bench = Bench::new();
        for k in 1..=100 {
            bench.window.on_data(Rank(2), Mseq(2 * k), false, 1, 0, b"x").expect("it is new");
        }
        let due = bench.look(Time(0)).expect("armed");
        assert_eq!(bench.ask(due).len(), NACK_RANGES_MAX);
    }
}
