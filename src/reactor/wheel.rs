//! A hashed timer wheel (Varghese and Lauck, 1987, scheme 6): whatever waits is hung into the slot of its tick, and
//! an entry that is not yet due when its slot passes stays for a later revolution. Timers are hints: nothing is
//! cancelled, and whoever is woken asks whether there is still something to do.

use crate::types::Time;

const TICK_NS: u64 = 16 * Time::MS;
const SLOTS: u64 = 256;

/// Keys to be handed back when their time has come.
#[derive(Debug)]
pub struct Wheel {
    slots: Vec<Vec<(Time, u64)>>,
    /// The tick of the last look: nothing hangs before it.
    tick: u64,
    earliest: Option<Time>,
}

impl Wheel {
    pub fn new(now: Time) -> Wheel {
        Wheel { slots: (0..SLOTS).map(|_| Vec::new()).collect(), tick: now.0 / TICK_NS, earliest: None }
    }

    /// `key` comes back from the first [`Wheel::expire`] at or after `at`.
    pub fn insert(&mut self, at: Time, key: u64) {
        // What is overdue hangs where the next look begins.
        let tick = (at.0 / TICK_NS).max(self.tick);
        self.slots[(tick % SLOTS) as usize].push((at, key));
        self.earliest = Some(self.earliest.map_or(at, |e| e.min(at)));
    }

    /// When `expire` has something to do next.
    pub fn next(&self) -> Option<Time> {
        self.earliest
    }

    /// Appends to `due` the keys whose time has come, in no order.
    pub fn expire(&mut self, now: Time, due: &mut Vec<u64>) {
        if self.earliest.is_none_or(|e| e > now) {
            return;
        }
        let last = (now.0 / TICK_NS).max(self.tick);
        for tick in self.tick..=last.min(self.tick + SLOTS - 1) {
            self.slots[(tick % SLOTS) as usize].retain(|&(at, key)| {
                if at <= now {
                    due.push(key);
                }
                at > now
            });
        }
        self.tick = last;
        self.earliest = self.find_earliest();
    }

    /// The first slot with an entry of this revolution holds the earliest; without one, any may.
    fn find_earliest(&self) -> Option<Time> {
        let of_this_revolution = (self.tick..self.tick + SLOTS).find_map(|tick| {
            let slot = &self.slots[(tick % SLOTS) as usize];
            slot.iter().map(|&(at, _)| at).filter(|at| at.0 / TICK_NS <= tick).min()
        });
        of_this_revolution.or_else(|| self.slots.iter().flatten().map(|&(at, _)| at).min())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;
    use std::collections::BTreeMap;

    quickcheck! {
        /// Any mix of insertions and looks gives what an ordered map gives. A step inserts so many microseconds
        /// ahead (`Some`), or lets so many pass.
        fn the_wheel_is_a_map(start: u32, steps: Vec<(bool, u32)>) -> bool {
            let mut now = Time(u64::from(start));
            let (mut wheel, mut model) = (Wheel::new(now), BTreeMap::<(Time, u64), ()>::new());
            for (key, (insert, micros)) in steps.into_iter().enumerate() {
                // Beyond one revolution (4 s) as well as within one tick.
                let ns = u64::from(micros >> (key % 20)) * 1000;
                if insert {
                    let at = Time((now.0 + ns).saturating_sub(50 * Time::MS));
                    wheel.insert(at, key as u64);
                    model.insert((at, key as u64), ());
                } else {
                    now = now.after_ns(ns);
                    let mut due = Vec::new();
                    wheel.expire(now, &mut due);
                    due.sort_unstable();
                    let mut expected: Vec<u64> = model.keys().filter(|k| k.0 <= now).map(|k| k.1).collect();
                    expected.sort_unstable();
                    model.retain(|k, ()| k.0 > now);
                    if due != expected {
                        return false;
                    }
                }
                if wheel.next() != model.keys().next().map(|k| k.0) {
                    return false;
                }
            }
            true
        }
    }

    #[test]
    fn many_revolutions_ahead() {
        let mut wheel = Wheel::new(Time(0));
        let (hour, mut due) = (Time(3600 * 1000 * Time::MS), Vec::new());
        wheel.insert(hour, 7);
        wheel.expire(Time(hour.0 - 1), &mut due);
        assert!(due.is_empty());
        wheel.expire(hour, &mut due);
        assert_eq!((due, wheel.next()), (vec![7], None));
    }
}
