//! Linearizable reads that touch no disk (DESIGN 7.2).
//!
//! The replica asks its view; each member answers its `durable`. With a read quorum, the reader itself counted by the
//! same rule, it waits until it has applied the highest answer, and reads its own state. Every operation answered
//! before the read was sent is durable at a commit quorum, which meets every read quorum (I4). A read rides only on a
//! question sent after it arrived; those that arrive meanwhile share the next one.

use std::collections::VecDeque;

use crate::group::quorum::{is_quorum, Ranks};
use crate::limits::{READS_MAX, READ_AGAIN_MAX_NS, READ_AGAIN_NS};
use crate::marks;
use crate::types::{ClientId, Rank, Slot, Time};
use crate::wire::view::View;

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
    /// Reads that may be answered from the state as it is.
    ready: VecDeque<Read>,
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

    /// The view in which it was asked is over: the next question is for all that waited for this one.
    pub fn start_again(&mut self) {
        if let Some(question) = self.asked.take() {
            self.arrived.splice(0..0, question.reads);
        }
    }

    /// A member's answer to a question.
    pub fn told(&mut self, view: &View, rank: Rank, number: u64, durable: Slot) {
        let Some(question) = self.asked.as_mut().filter(|q| q.number == number) else { return };
        question.told = question.told.with(rank);
        question.highest = question.highest.max(durable);
        if is_quorum(view, question.told) || crate::broken::is("read-locally") {
            let question = self.asked.take().expect("just looked at");
            self.settled.push((question.highest, question.reads));
        }
    }

    /// A read that needs no question.
    pub fn push_settled(&mut self, read: Read) {
        self.ready.push_back(read);
    }

    /// The state after `applied` is there: what waited for it may be answered.
    pub fn settle(&mut self, applied: Slot) {
        let unapplied = crate::broken::is("read-unapplied");
        let ready = &mut self.ready;
        self.settled.retain_mut(|(slot, reads)| {
            let wait = *slot > applied && !unapplied;
            if !wait {
                ready.extend(reads.drain(..));
            }
            wait
        });
        if !self.settled.is_empty() {
            self.marks.push(marks::READ_WAITED);
        }
    }

    /// The next read that may be answered now.
    pub fn next_ready(&mut self) -> Option<Read> {
        self.ready.pop_front()
    }

    /// These may be answered, but not yet written.
    pub fn put_back(&mut self, reads: VecDeque<Read>) {
        self.ready = reads;
    }

    /// Whose reads may be answered now.
    pub fn ready_clients(&self) -> impl Iterator<Item = ClientId> + '_ {
        self.ready.iter().map(|read| read.client)
    }

    /// Gives back what can't be answered while this replica asks nobody: all but what waits only to be written.
    pub fn give_up(&mut self) -> Vec<Read> {
        let asked = self.asked.take().map(|question| question.reads).unwrap_or_default();
        let settled = std::mem::take(&mut self.settled).into_iter().flat_map(|(_, reads)| reads);
        settled.chain(asked).chain(std::mem::take(&mut self.arrived)).collect()
    }

    /// Forgets what a client waits for.
    pub fn forget(&mut self, client: ClientId) {
        let asked = self.asked.iter_mut().map(|q| &mut q.reads);
        let settled = self.settled.iter_mut().map(|(_, reads)| reads);
        for reads in std::iter::once(&mut self.arrived).chain(asked).chain(settled) {
            reads.retain(|read| read.client != client);
        }
        self.ready.retain(|read| read.client != client);
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
        self.arrived.len() + asked + self.ready.len() + self.settled.iter().map(|s| s.1.len()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::view::tests::view_of;
    use crate::wire::view::Policy;

    const ME: Rank = Rank(0);

    fn read(client: u64, number: u64) -> Read {
        Read { client: ClientId(client), number, query: vec![1] }
    }

    /// The numbers of the reads that may be answered once this slot is applied.
    fn ready(reads: &mut Reads, applied: Slot) -> Vec<u64> {
        reads.settle(applied);
        std::iter::from_fn(|| reads.next_ready()).map(|read| read.number).collect()
    }

    fn three() -> View {
        view_of(3, 3, Policy::Dynamic)
    }

    #[test]
    fn a_read_rides_only_on_a_later_question_and_shares_it() {
        let (mut reads, view) = (Reads::default(), three());
        assert!(!reads.is_due() && reads.ask(Time(0), &view, ME, Slot(1)).is_none());
        reads.push(read(1, 10));
        assert!(reads.is_due());
        assert_eq!(reads.ask(Time(0), &view, ME, Slot(1)), Some(1));
        reads.push(read(1, 11));
        reads.push(read(2, 12));
        assert!(!reads.is_due(), "one question at a time");
        assert_eq!(reads.ask(Time(1), &view, ME, Slot(1)), None);
        reads.told(&view, Rank(1), 1, Slot(1));
        assert_eq!(ready(&mut reads, Slot(1)), [10], "the others came after the question");
        assert_eq!(reads.ask(Time(2), &view, ME, Slot(1)), Some(2));
        reads.told(&view, Rank(2), 1, Slot(1));
        assert_eq!(ready(&mut reads, Slot(1)), [] as [u64; 0], "an answer to another question");
        reads.told(&view, Rank(2), 2, Slot(1));
        assert_eq!(ready(&mut reads, Slot(1)), [11, 12]);
        assert_eq!((reads.waiting(), reads.deadline()), (0, None));
        assert_eq!(reads.marks, [marks::READ_SHARED]);
    }

    #[test]
    fn it_waits_for_a_quorum_and_for_the_highest_answer() {
        let (mut reads, view) = (Reads::default(), view_of(5, 5, Policy::Dynamic));
        reads.push(read(1, 10));
        reads.ask(Time(0), &view, ME, Slot(3));
        reads.told(&view, Rank(1), 1, Slot(7));
        reads.told(&view, Rank(1), 1, Slot(7));
        assert_eq!(ready(&mut reads, Slot(99)), [] as [u64; 0], "two of five, one of them twice");
        reads.told(&view, Rank(4), 1, Slot(5));
        assert_eq!(ready(&mut reads, Slot(6)), [] as [u64; 0], "slot 7 is not applied");
        assert_eq!(reads.marks, [marks::READ_WAITED]);
        assert_eq!(reads.waiting(), 1);
        assert_eq!(ready(&mut reads, Slot(7)), [10]);
    }

    #[test]
    fn its_own_answer_counts_like_any_other() {
        let (mut reads, alone) = (Reads::default(), view_of(1, 1, Policy::Dynamic));
        reads.push(read(1, 10));
        assert_eq!(reads.ask(Time(0), &alone, ME, Slot(4)), None, "there is nobody to be asked");
        assert_eq!(ready(&mut reads, Slot(3)), [] as [u64; 0]);
        assert_eq!(ready(&mut reads, Slot(4)), [10]);
    }

    #[test]
    fn a_question_is_asked_again_less_and_less_often() {
        let (mut reads, view) = (Reads::default(), three());
        reads.push(read(1, 10));
        assert_eq!(reads.ask(Time(0), &view, ME, Slot(0)), Some(1));
        let (mut now, mut wait_ns) = (Time(0), READ_AGAIN_NS);
        for _ in 0..9 {
            assert_eq!(reads.deadline(), Some(now.after_ns(wait_ns)));
            assert_eq!(reads.ask(now.after_ns(wait_ns - 1), &view, ME, Slot(0)), None);
            now = now.after_ns(wait_ns);
            assert_eq!(reads.ask(now, &view, ME, Slot(0)), Some(1), "the same question");
            wait_ns = (2 * wait_ns).min(READ_AGAIN_MAX_NS);
        }
        reads.told(&view, Rank(1), 1, Slot(0));
        assert_eq!(ready(&mut reads, Slot(0)), [10]);
    }

    #[test]
    fn who_is_gone_is_forgotten_wherever_it_waits() {
        let (mut reads, view) = (Reads::default(), three());
        for number in 1..=3 {
            reads.push(read(1, number));
            reads.push(read(2, 10 * number));
            if number < 3 {
                reads.ask(Time(0), &view, ME, Slot(5));
            }
            if number == 1 {
                reads.told(&view, Rank(1), 1, Slot(5));
            }
        }
        assert_eq!(reads.waiting(), 6, "two settled, two asked for, two just arrived");
        reads.forget(ClientId(1));
        assert_eq!(reads.waiting(), 3);
        reads.told(&view, Rank(1), 2, Slot(5));
        reads.ask(Time(0), &view, ME, Slot(5));
        reads.told(&view, Rank(1), 3, Slot(5));
        assert_eq!(ready(&mut reads, Slot(5)), [10, 20, 30]);
    }

    #[test]
    fn a_read_that_can_t_be_written_yet_keeps_its_place() {
        let mut reads = Reads::default();
        (1..=3).for_each(|number| reads.push_settled(read(number, 10 * number)));
        let first = reads.next_ready().expect("it needs no question");
        let mut kept = VecDeque::from([first]);
        kept.extend(std::iter::from_fn(|| reads.next_ready()));
        reads.put_back(kept);
        assert_eq!(reads.ready_clients().collect::<Vec<_>>(), [1, 2, 3].map(ClientId));
        assert_eq!(reads.waiting(), 3);
        reads.forget(ClientId(2));
        assert_eq!(ready(&mut reads, Slot(0)), [10, 30]);
    }

    #[test]
    fn no_more_wait_than_may() {
        let mut reads = Reads::default();
        (1..READS_MAX as u64).for_each(|number| reads.push(read(1, number)));
        assert!(!reads.is_full());
        reads.push(read(1, 0));
        assert!(reads.is_full());
    }
}
