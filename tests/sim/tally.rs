//! What a run counts: the faults it injected and the places it reached.

use std::collections::BTreeMap;

use super::clock::Nanos;

#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub faults: BTreeMap<&'static str, u64>,
    pub marks: BTreeMap<&'static str, u64>,
    pub steps: u64,
    pub slots: u64,
    pub views: u64,
    pub answers: u64,
    pub reads: u64,
    pub datagrams: u64,
    pub virtual_ns: u64,
    /// The longest time any run took from its last fault until all was answered and all agreed (I9), and its seed.
    pub settled: (Nanos, u64),
}

impl Tally {
    pub fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    pub fn mark(&mut self, mark: &'static str) {
        *self.marks.entry(mark).or_default() += 1;
    }

    pub fn add(&mut self, other: &Tally) {
        other.faults.iter().for_each(|(kind, count)| *self.faults.entry(kind).or_default() += count);
        other.marks.iter().for_each(|(mark, count)| *self.marks.entry(mark).or_default() += count);
        self.steps += other.steps;
        self.slots += other.slots;
        self.views += other.views;
        self.answers += other.answers;
        self.reads += other.reads;
        self.datagrams += other.datagrams;
        self.virtual_ns += other.virtual_ns;
        self.settled = self.settled.max(other.settled);
    }
}
