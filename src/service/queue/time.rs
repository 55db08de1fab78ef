//! What group time ends, in the order of its moments: leases, delays, waits, and what is known of keys; and who is
//! served when items become ready.

use super::waiters::Arrival;
use super::{Queue, QueueId, Queues};
use crate::broken;
use crate::limits::MOMENTS_STEP;
use crate::service::{Answers, Who};
use crate::types::{At, GroupTime, RequestNumber, SessionId};

/// How long after the last slot the next part of what was dropped is freed.
const FREE_PAUSE_NS: u64 = 1_000_000;

/// What ends. Of several that end in one moment the first of these comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ends {
    Lease,
    Delay,
    Wait(Arrival),
    Key,
}

impl Queue {
    fn next_end(&self) -> Option<(GroupTime, Ends)> {
        let lease = self.contents.next_lease_end().map(|moment| (moment, Ends::Lease));
        let delay = self.contents.next_delay_end().map(|moment| (moment, Ends::Delay));
        let wait = self.waiters.next_end().filter(|_| !broken::is("wait-without-end"));
        let wait = wait.map(|(moment, arrival)| (moment, Ends::Wait(arrival)));
        let key = self.keys.next_end().map(|moment| (moment, Ends::Key));
        [lease, delay, wait, key].into_iter().flatten().min()
    }

    /// When something ends here next.
    pub(super) fn next_due(&self) -> Option<GroupTime> {
        self.next_end().map(|(moment, _)| moment)
    }

    /// The queue, if items are ready here and somebody waits for them.
    pub(super) fn stirred(&self, id: QueueId) -> Option<QueueId> {
        (self.waiters.first().is_some() && !self.contents.ready.is_empty()).then_some(id)
    }
}

impl Queues {
    /// When there is something to do next.
    pub(super) fn next_moment(&self) -> Option<GroupTime> {
        let free = (!self.graveyard.is_empty()).then(|| GroupTime(self.now.0.saturating_add(FREE_PAUSE_NS)));
        [free, self.due.first().map(|&(moment, _)| moment)].into_iter().flatten().min()
    }

    /// Ends what is over by now, a bounded part of it.
    pub(super) fn end_what_is_over(&mut self, at: At, out: &mut Answers) {
        for _ in 0..MOMENTS_STEP {
            match self.due.first() {
                Some(&(moment, id)) if moment <= self.now => self.end_one(at, id, out),
                _ => break,
            }
        }
    }

    fn end_one(&mut self, at: At, id: QueueId, out: &mut Answers) {
        match self.queues.get(&id).and_then(Queue::next_end).map(|(_, ends)| ends) {
            Some(Ends::Lease) => {
                let receipt = self.change(id, |queue| queue.contents.end_lease()).flatten();
                receipt.map(|receipt| self.receipts.remove(&receipt));
                self.serve(at, id, out);
            }
            Some(Ends::Delay) => {
                self.change(id, |queue| queue.contents.end_delay());
                self.serve(at, id, out);
            }
            Some(Ends::Wait(arrival)) => {
                let left = self.change(id, |queue| Some((queue.waiters.leave(arrival)?, queue.nothing_ready())));
                if let Some((waiter, refusal)) = left.flatten() {
                    self.waiting.remove(&waiter.who);
                    out.answer(waiter.who, |answer| refusal.put(answer));
                }
            }
            Some(Ends::Key) => _ = self.change(id, |queue| queue.keys.forget_first()),
            None => {}
        }
    }

    /// Serves who waits, first come first served, while there are ready items.
    pub(super) fn serve(&mut self, at: At, id: QueueId, out: &mut Answers) {
        loop {
            let Some(first) = self.queues.get(&id).and_then(|queue| queue.stirred(id).and(queue.waiters.first()))
            else {
                return;
            };
            let Some(waiter) = self.change(id, |queue| queue.waiters.leave(first)).flatten() else { return };
            self.waiting.remove(&waiter.who);
            self.hand_out(at, id, waiter.who, waiter.want, out);
        }
    }

    fn lines_of(&self, session: SessionId) -> Vec<(Who, (QueueId, Arrival))> {
        let first = Who { session, number: RequestNumber(0) };
        let last = Who { session, number: RequestNumber(u64::MAX) };
        self.waiting.range(first..=last).map(|(&who, &place)| (who, place)).collect()
    }

    /// This session's waiters step aside while it has no connection, lest they be served in vain; when it is `here`
    /// again they have their old places in line.
    pub(super) fn step_aside(&mut self, at: At, session: SessionId, here: bool, out: &mut Answers) {
        if broken::is("absent-waiter-served") {
            return;
        }
        for (_, (id, arrival)) in self.lines_of(session) {
            self.change(id, |queue| queue.waiters.step(arrival, here));
            self.serve(at, id, out);
        }
    }

    /// Nobody waits any more for this session.
    pub(super) fn leave_lines(&mut self, session: SessionId) {
        if broken::is("dead-waiter-served") {
            return;
        }
        for (who, (id, arrival)) in self.lines_of(session) {
            self.waiting.remove(&who);
            self.change(id, |queue| queue.waiters.leave(arrival));
        }
    }
}
