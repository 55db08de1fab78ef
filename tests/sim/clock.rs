//! A replica's own clock: it begins anywhere, and runs a little too fast or too slow.

use ftq::rng::Rng;
use ftq::types::Time;

/// Nanoseconds of true time since the world began. Only the world knows it.
pub type Nanos = u64;

pub const US: Nanos = 1_000;
pub const MS: Nanos = 1_000_000;
pub const SECOND: Nanos = 1_000_000_000;

/// Maps true time to what one replica reads.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset_ns: u64,
    drift_ppm: i64,
}

impl Clock {
    /// A clock that is off by at most `drift_max_ppm` millionths.
    pub fn new(rng: &mut Rng, drift_max_ppm: u64) -> Clock {
        let drift_ppm = rng.between(0, 2 * drift_max_ppm) as i64 - drift_max_ppm as i64;
        Clock { offset_ns: rng.between(1, 1 << 50), drift_ppm }
    }

    /// The host was started again: its clock begins anew, anywhere.
    pub fn started_again(&self, rng: &mut Rng, at: Nanos) -> Clock {
        let elapsed = i128::from(at) * i128::from(1_000_000 + self.drift_ppm) / 1_000_000;
        Clock { offset_ns: rng.between(1, 1 << 50).saturating_sub(elapsed as u64).max(1), ..*self }
    }

    /// It leaps ahead. Monotonic clocks never run back.
    pub fn jump(&mut self, ns: Nanos) {
        self.offset_ns += ns;
    }

    /// A clock that reads true time, for transcripts.
    pub fn exact() -> Clock {
        Clock { offset_ns: 0, drift_ppm: 0 }
    }

    pub fn read(&self, at: Nanos) -> Time {
        let rate = i128::from(1_000_000 + self.drift_ppm);
        Time(self.offset_ns + (i128::from(at) * rate / 1_000_000) as u64)
    }

    /// The first moment at which this clock reads `time` or more; 0 where that has always been so.
    pub fn when(&self, time: Time) -> Nanos {
        let elapsed = i128::from(time.0.saturating_sub(self.offset_ns));
        let rate = i128::from(1_000_000 + self.drift_ppm);
        let at = (elapsed * 1_000_000 + rate - 1) / rate;
        u64::try_from(at).unwrap_or(Nanos::MAX)
    }
}
