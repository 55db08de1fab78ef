//! Linearizable reads that touch no disk (DESIGN 7.2).
//!
//! The replica asks its view; each member answers its `durable`. With a read quorum, the reader itself counted by the
//! same rule, it waits until it has applied the highest answer, and reads its own state. Every operation answered
//! before the read was sent is durable at a commit quorum, which meets every read quorum (I4). A read rides only on a
//! question sent after it arrived; those that arrive meanwhile share the next one.

use crate::group::quorum::{is_quorum, Ranks};
use crate::group::view::View;
use crate::limits::{READS_MAX, READ_AGAIN_MAX_NS, READ_AGAIN_NS};
use crate::marks;
use crate::types::{ClientId, Rank, Slot, Time};

/// A query and who waits for its answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Read {
    pub client: ClientId,
    pub number: u64,
    pub query: Vec<u8>,
}

#[derive(Debug)]
struct Question {
    number: u64,
    reads: Vec<Read>,
    told: Ranks,
    highest: Slot,
    again: Time,
    wait_ns: u64,
}

#[derive(Debug, Default)]
pub struct Reads {
    /// Reads that no question was sent for yet.
    arrived: Vec<Read>,
    asked: Option<Question>,
    /// Reads that wait until this slot is applied.
    settled: Vec<(Slot, Vec<Read>)>,
    last_number: u64,
    pub marks: Vec<&'static str>,
}

impl Reads {
    pub fn push(&mut self, read: Read) {
        self.arrived.push(read);
    }

    /// Whether as many reads wait as may.
    pub fn is_full(&self) -> bool {
        self.waiting() >= READS_MAX
    }

    /// The number of a question that every other member must be asked now: a new one, or one to be repeated. `own` is
    /// this member's own answer.
    pub fn ask(&mut self, now: Time, view: &View, me: Rank, own: Slot) -> Option<u64> {
        if let Some(question) = self.asked.as_mut() {
            if question.again > now {
                return None;
            }
            question.wait_ns = (2 * question.wait_ns).min(READ_AGAIN_MAX_NS);
            question.again = now.after_ns(question.wait_ns);
            self.marks.push(marks::READ_AGAIN);
            return Some(question.number);
        }
        if self.arrived.is_empty() {
            return None;
        }
        self.last_number += 1;
        if self.arrived.len() > 1 {
            self.marks.push(marks::READ_SHARED);
        }
        self.asked = Some(Question {
            number: self.last_number,
            reads: std::mem::take(&mut self.arrived),
            told: Ranks::default(),
            highest: Slot(0),
            again: now.after_ns(READ_AGAIN_NS),
            wait_ns: READ_AGAIN_NS,
        });
        self.told(view, me, self.last_number, own);
        self.asked.as_ref().map(|q| q.number)
    }

    /// A member's answer to a question.
    pub fn told(&mut self, view: &View, rank: Rank, number: u64, durable: Slot) {
        let Some(question) = self.asked.as_mut().filter(|q| q.number == number) else { return };
        question.told = question.told.with(rank);
        question.highest = question.highest.max(durable);
        if is_quorum(view, question.told) || crate::group::broken::is("read-locally") {
            let question = self.asked.take().expect("just looked at");
            self.settled.push((question.highest, question.reads));
        }
    }

    /// The reads that may be answered from the state after `applied`.
    pub fn ready(&mut self, applied: Slot) -> Vec<Read> {
        let mut ready = Vec::new();
        let unapplied = crate::group::broken::is("read-unapplied");
        self.settled.retain_mut(|(slot, reads)| {
            let wait = *slot > applied && !unapplied;
            if !wait {
                ready.append(reads);
            }
            wait
        });
        if !self.settled.is_empty() {
            self.marks.push(marks::READ_WAITED);
        }
        ready
    }

    /// Forgets what a client waits for.
    pub fn forget(&mut self, client: ClientId) {
        let asked = self.asked.iter_mut().map(|q| &mut q.reads);
        let settled = self.settled.iter_mut().map(|(_, reads)| reads);
        for reads in std::iter::once(&mut self.arrived).chain(asked).chain(settled) {
            reads.retain(|read| read.client != client);
        }
    }

    /// Whether a question is to be sent at once.
    pub fn is_due(&self) -> bool {
        self.asked.is_none() && !self.arrived.is_empty()
    }

    /// When a question is to be repeated.
    pub fn deadline(&self) -> Option<Time> {
        self.asked.as_ref().map(|q| q.again)
    }

    /// Reads that are not answered yet.
    pub fn waiting(&self) -> usize {
        let asked = self.asked.as_ref().map_or(0, |q| q.reads.len());
        self.arrived.len() + asked + self.settled.iter().map(|s| s.1.len()).sum::<usize>()
    }
}
