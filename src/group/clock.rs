//! Group time: the clock that the orders carry (DESIGN 7.3). Wall clocks decide nothing.
//!
//! Each member keeps the greatest difference it has seen between an order's time and its own clock at receipt; a
//! sequencer announces at least the time of the slot before. So group time never falls, runs at the pace of the
//! fastest member's clock, and goes on where the last view left it.

use crate::types::{GroupTime, Time};

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Group time minus own time, in nanoseconds.
    offset_ns: i64,
}

impl Clock {
    /// A run without an earlier offset starts from the base's time.
    pub fn new(base_time: GroupTime, now: Time) -> Clock {
        Clock { offset_ns: difference(base_time, now) }
    }

    /// The next view begins at this base: no earlier than that, and no earlier than here.
    #[must_use]
    pub fn carried(self, base_time: GroupTime, now: Time) -> Clock {
        Clock { offset_ns: self.offset_ns.max(difference(base_time, now)) }
    }

    /// An order with this time was received.
    pub fn on_order(&mut self, time: GroupTime, now: Time) {
        self.offset_ns = self.offset_ns.max(difference(time, now));
    }

    /// This member did not run for so long, or its clock leapt ahead: it cannot tell. Others know what time it is; the
    /// next of their orders tells.
    pub fn slept(&mut self, ns: u64) {
        self.offset_ns = self.offset_ns.saturating_sub_unsigned(ns);
    }

    /// Group time as this member's clock has it.
    pub fn at(&self, now: Time) -> GroupTime {
        GroupTime(now.0.saturating_add_signed(self.offset_ns))
    }

    /// When this member's own clock will reach a group time.
    pub fn when(&self, time: GroupTime) -> Time {
        Time(time.0.saturating_add_signed(self.offset_ns.saturating_neg()))
    }
}

fn difference(group: GroupTime, own: Time) -> i64 {
    let difference = i128::from(group.0) - i128::from(own.0);
    difference.clamp(i128::from(i64::MIN + 1), i128::from(i64::MAX)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    #[test]
    fn it_goes_on_from_view_to_view() {
        let mut clock = Clock::new(GroupTime(100), Time(0));
        clock.on_order(GroupTime(1000), Time(10));
        // The base lies behind what this member has seen; then beyond it.
        let clock = clock.carried(GroupTime(900), Time(50));
        assert_eq!(clock.at(Time(50)), GroupTime(1040));
        assert_eq!(clock.carried(GroupTime(5000), Time(60)).at(Time(60)), GroupTime(5000));
    }

    quickcheck! {
        fn it_never_runs_back(base: u32, orders: Vec<(u32, u16)>) -> bool {
            let (mut now, mut last) = (Time(50), GroupTime(u64::from(base)));
            let mut clock = Clock::new(last, now);
            for (time, later) in orders {
                now = now.after_ns(u64::from(later));
                clock.on_order(GroupTime(u64::from(time)), now);
                let at = clock.at(now);
                assert!(at >= last && at >= GroupTime(u64::from(time)));
                assert_eq!(clock.when(at), now);
                last = at;
            }
            true
        }
    }

    #[test]
    fn it_goes_on_from_the_base_at_its_own_pace() {
        let clock = Clock::new(GroupTime(1000), Time(10));
        assert_eq!(clock.at(Time(10)), GroupTime(1000));
        assert_eq!(clock.at(Time(15)), GroupTime(1005));
        assert_eq!(clock.when(GroupTime(1005)), Time(15));
        assert_eq!(clock.when(GroupTime(1)), Time(0), "long ago");
    }

    #[test]
    fn a_leap_of_its_own_does_not_count() {
        let mut clock = Clock::new(GroupTime(1000), Time(0));
        clock.slept(3600);
        assert_eq!((clock.at(Time(3601)), clock.when(GroupTime(1001))), (GroupTime(1001), Time(3601)));
        clock.on_order(GroupTime(4000), Time(3602));
        assert_eq!(clock.at(Time(3602)), GroupTime(4000), "the others did not sleep");
        clock.slept(u64::MAX);
    }

    #[test]
    fn it_follows_the_fastest_and_never_the_slower() {
        let mut clock = Clock::new(GroupTime(0), Time(0));
        clock.on_order(GroupTime(150), Time(100));
        assert_eq!(clock.at(Time(100)), GroupTime(150));
        clock.on_order(GroupTime(190), Time(200));
        assert_eq!(clock.at(Time(200)), GroupTime(250));
    }

    #[test]
    fn the_ends_of_time_do_no_harm() {
        let mut clock = Clock::new(GroupTime(0), Time(u64::MAX));
        assert_eq!(clock.when(GroupTime(u64::MAX)), Time(u64::MAX));
        clock.on_order(GroupTime(u64::MAX), Time(0));
        assert_eq!(clock.at(Time(u64::MAX)), GroupTime(u64::MAX));
    }
}
