//! Damping: who may be let into a view, and when (DESIGN 5.2). Failures are acted on at once; joins are not.
//!
//! Joins are gathered for a moment, so that replicas that come together need one change. One that is put out again and
//! again waits longer each time, until it has been in, or away, for a calm while. After BGP's route flap damping.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::{JOIN_DEBOUNCE_NS, REJOIN_CALM_NS, REJOIN_WAIT_MAX_NS, REJOIN_WAIT_NS};
use crate::types::{ReplicaId, Run, Time};
use crate::wire::view::View;

#[derive(Clone, Copy, Debug)]
struct Flaps {
    /// How often it was put out, with no calm while between.
    count: u32,
    last: Time,
}

impl Flaps {
    /// The first time costs nothing: that was a failure, not a habit.
    fn until(&self) -> Time {
        let doublings = match self.count {
            0 | 1 => return self.last,
            count => (count - 2).min(63),
        };
        self.last.after_ns(REJOIN_WAIT_NS.saturating_mul(1 << doublings).min(REJOIN_WAIT_MAX_NS))
    }
}

#[derive(Debug, Default)]
pub struct Damping {
    /// Outsiders that ask to join and have caught up, and since when without a break.
    ready: BTreeMap<ReplicaId, (Run, Time)>,
    flaps: BTreeMap<ReplicaId, Flaps>,
}

impl Damping {
    /// One view followed another. Who left of its own will was not put out. Who was ready for `stall_ns` and is not in
    /// the view all the same could not follow: everyone else waited for it.
    pub fn on_view(&mut self, now: Time, before: &View, after: &View, left: &dyn Fn(ReplicaId) -> bool, stall_ns: u64) {
        let waited = |since: &Time| now.since_ns(*since) >= stall_ns;
        let stalled = self.ready.iter().filter(|(_, (_, since))| waited(since)).map(|(&id, _)| id);
        let gone = before.members.iter().map(|m| m.id).filter(|&id| !left(id));
        let out: BTreeSet<ReplicaId> = gone.chain(stalled).filter(|&id| after.rank_of(id).is_none()).collect();
        out.into_iter().for_each(|id| self.put_out(now, id));
    }

    fn put_out(&mut self, now: Time, id: ReplicaId) {
        let flaps = self.flaps.get(&id).filter(|f| now.since_ns(f.last) < REJOIN_CALM_NS);
        let count = flaps.map_or(0, |f| f.count).saturating_add(1);
        self.flaps.insert(id, Flaps { count, last: now });
    }

    /// The outsiders that are ready in this turn.
    pub fn observe(&mut self, now: Time, ready: &[Run]) {
        self.ready.retain(|_, (run, _)| ready.contains(run));
        for run in ready {
            self.ready.entry(run.id).or_insert((*run, now));
        }
    }

    /// Until when this replica is not let in again; `None` when it may be.
    pub fn damped_until(&self, now: Time, id: ReplicaId) -> Option<Time> {
        self.flaps.get(&id).map(Flaps::until).filter(|&until| until > now)
    }

    /// Those that may be let in now: all that are ready and not damped, once the first of them has been for a moment.
    pub fn joining(&self, now: Time) -> BTreeSet<ReplicaId> {
        let free = || self.ready.iter().filter(|(&id, _)| self.damped_until(now, id).is_none());
        let is_gathered = free().any(|(_, (_, since))| now.since_ns(*since) >= JOIN_DEBOUNCE_NS);
        free().filter(|_| is_gathered).map(|(&id, _)| id).collect()
    }

    /// When `joining` may say more though nothing happened.
    pub fn deadline(&self, now: Time) -> Option<Time> {
        let moments = self.ready.iter().map(|(&id, (_, since))| {
            let gathered = since.after_ns(JOIN_DEBOUNCE_NS);
            gathered.max(self.damped_until(now, id).unwrap_or(gathered))
        });
        moments.filter(|&at| at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Epoch, Incarnation};
    use crate::wire::view::tests::{run_of, view_of};
    use crate::wire::view::Policy;

    const STALL_NS: u64 = 500 * Time::MS;
    const TWO: ReplicaId = ReplicaId(2);

    fn ids(set: BTreeSet<ReplicaId>) -> Vec<u8> {
        set.into_iter().map(|id| id.0).collect()
    }

    /// Three members, and the same without replica 2.
    fn with_and_without() -> (View, View) {
        let before = view_of(3, 3, Policy::Dynamic);
        let mut after = View { epoch: Epoch(2), ..before.clone() };
        after.members.remove(1);
        (before, after)
    }

    fn put_out(damping: &mut Damping, now: Time) {
        let (before, after) = with_and_without();
        damping.on_view(now, &before, &after, &|_| false, STALL_NS);
    }

    /// How long replica 2, ready from now on, is kept waiting.
    fn wait_ns(damping: &mut Damping, now: Time) -> u64 {
        damping.observe(now, &[]);
        damping.observe(now, &[run_of(2)]);
        let at = damping.deadline(now).expect("it must wait");
        assert!(damping.joining(Time(at.0 - 1)).is_empty());
        assert_eq!(ids(damping.joining(at)), [2]);
        at.since_ns(now)
    }

    #[test]
    fn joiners_are_gathered_from_the_first_that_is_ready() {
        let mut damping = Damping::default();
        assert_eq!(damping.deadline(Time(0)), None);
        damping.observe(Time(10), &[run_of(2)]);
        damping.observe(Time(50), &[run_of(2), run_of(4)]);
        let gathered = Time(10 + JOIN_DEBOUNCE_NS);
        assert_eq!(damping.deadline(Time(50)), Some(gathered));
        assert!(damping.joining(Time(gathered.0 - 1)).is_empty());
        assert_eq!(ids(damping.joining(gathered)), [2, 4]);
    }

    #[test]
    fn whoever_stops_asking_or_restarts_begins_anew() {
        let mut damping = Damping::default();
        let again = Run { incarnation: Incarnation(2), ..run_of(2) };
        damping.observe(Time(0), &[run_of(2)]);
        damping.observe(Time(50), &[again]);
        assert!(damping.joining(Time(JOIN_DEBOUNCE_NS)).is_empty());
        assert_eq!(ids(damping.joining(Time(50 + JOIN_DEBOUNCE_NS))), [2]);
        damping.observe(Time(60), &[]);
        assert!(damping.joining(Time(50 + JOIN_DEBOUNCE_NS)).is_empty());
    }

    #[test]
    fn each_time_it_waits_twice_as_long_up_to_a_bound() {
        let (mut damping, mut now) = (Damping::default(), Time(0));
        let mut waits = Vec::new();
        for _ in 0..9 {
            put_out(&mut damping, now);
            let wait = wait_ns(&mut damping, now);
            waits.push(wait / Time::MS);
            now = now.after_ns(wait);
        }
        assert_eq!(waits, [100, 1_000, 2_000, 4_000, 8_000, 16_000, 16_000, 16_000, 16_000]);
    }

    #[test]
    fn a_calm_while_is_forgiving() {
        let mut damping = Damping::default();
        put_out(&mut damping, Time(0));
        put_out(&mut damping, Time(1));
        assert!(wait_ns(&mut damping, Time(1)) > JOIN_DEBOUNCE_NS);
        let calm = Time(1 + REJOIN_CALM_NS);
        put_out(&mut damping, calm);
        assert_eq!(wait_ns(&mut damping, calm), JOIN_DEBOUNCE_NS);
        let mut damping = Damping::default();
        put_out(&mut damping, Time(0));
        put_out(&mut damping, Time(REJOIN_CALM_NS - 1));
        assert_eq!(damping.damped_until(Time(REJOIN_CALM_NS), TWO), Some(Time(REJOIN_CALM_NS - 1 + REJOIN_WAIT_NS)));
    }

    #[test]
    fn who_leaves_is_not_damped_and_who_stays_is_not_counted() {
        let (before, after) = with_and_without();
        let mut damping = Damping::default();
        for _ in 0..5 {
            damping.on_view(Time(0), &before, &after, &|id| id == TWO, STALL_NS);
            damping.on_view(Time(0), &after, &before, &|_| false, STALL_NS);
        }
        assert!((1..=3).all(|id| damping.damped_until(Time(0), ReplicaId(id)).is_none()));
        // A member that restarted and is in the next view as another run was not put out.
        let mut restarted = before.clone();
        restarted.members[1].incarnation = Incarnation(2);
        (0..5).for_each(|_| damping.on_view(Time(0), &before, &restarted, &|_| false, STALL_NS));
        assert_eq!(damping.damped_until(Time(0), TWO), None);
    }

    #[test]
    fn the_damped_do_not_hold_up_the_others() {
        let mut damping = Damping::default();
        put_out(&mut damping, Time(0));
        put_out(&mut damping, Time(0));
        damping.observe(Time(0), &[run_of(2), run_of(4)]);
        assert_eq!(ids(damping.joining(Time(JOIN_DEBOUNCE_NS))), [4]);
        assert_eq!(ids(damping.joining(Time(REJOIN_WAIT_NS))), [2, 4]);
    }

    #[test]
    fn who_was_ready_all_the_while_and_is_not_let_in_is_damped() {
        let (_, view) = with_and_without();
        let next = View { epoch: Epoch(3), ..view.clone() };
        let mut damping = Damping::default();
        for k in 1..=3u64 {
            let begun = Time(k * 10_000 * Time::MS);
            let (early, late) = (begun.after_ns(STALL_NS - 1), begun.after_ns(STALL_NS));
            damping.observe(begun, &[]);
            damping.observe(begun, &[run_of(2)]);
            damping.on_view(early, &view, &next, &|_| false, STALL_NS);
            assert!(damping.damped_until(early, TWO).is_none_or(|until| until <= begun.after_ns(REJOIN_WAIT_NS)));
            damping.on_view(late, &view, &next, &|_| false, STALL_NS);
            let wait_ns = damping.damped_until(late, TWO).map(|until| until.since_ns(late));
            assert_eq!(wait_ns, [None, Some(REJOIN_WAIT_NS), Some(2 * REJOIN_WAIT_NS)][k as usize - 1]);
        }
    }
}
