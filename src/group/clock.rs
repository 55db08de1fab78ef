//! Group time: the clock that the orders carry (DESIGN 7.3). Wall clocks decide nothing.
//!
//! Each member keeps the greatest difference it has seen between an order's time and its own clock at receipt; a
//! sequencer announces at least the time of the slot before. So group time never falls, runs at the pace of the
//! fastest member's clock, and goes on where the last view left it.

use crate::types::{GroupTime, Time};

#[derive(Debug)]
pub struct Clock {
    /// Group time minus own time, in nanoseconds.
    offset_ns: i64,
}

impl Clock {
    /// A run without an earlier offset starts from the base's time.
    pub fn new(base_time: GroupTime, now: Time) -> Clock {
        Clock { offset_ns: difference(base_time, now) }
    }

    /// An order with this time was received.
    pub fn on_order(&mut self, time: GroupTime, now: Time) {
        self.offset_ns = self.offset_ns.max(difference(time, now));
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
