//! How long things took, counted in buckets: what a histogram of Prometheus needs, at the cost of an addition.

/// Upper bounds, each twice the one before: from 50 microseconds to about 1.6 seconds.
const BUCKETS: usize = 16;
const FIRST_NS: u64 = 50_000;

#[derive(Clone, Debug, Default)]
pub struct Durations {
    counts: [u64; BUCKETS],
    count: u64,
    sum_ns: u64,
}

impl Durations {
    pub fn add(&mut self, ns: u64) {
        self.count += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
        if let Some(count) = (0..BUCKETS).find(|&k| ns <= FIRST_NS << k).and_then(|k| self.counts.get_mut(k)) {
            *count += 1;
        }
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn sum_seconds(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// Each bound in seconds, and how many took no longer.
    pub fn cumulated(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let mut sum = 0;
        self.counts.iter().enumerate().map(move |(k, count)| {
            sum += count;
            ((FIRST_NS << k) as f64 / 1e9, sum)
        })
    }
}
