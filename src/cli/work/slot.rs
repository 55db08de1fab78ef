//! One slot of a worker: takes an item, runs a job on it, and says what became of it; again and again. The lease is
//! extended well before it ends; what can't be said now is said again, for the group may be back any moment.

use super::job::{told, Outcome};
use super::{Crew, Work};
use crate::cli::lease::asked;
use crate::cli::output::complain;
use crate::client::{leased_items, Answer, Ask, Code, Done, Error, Lease, Receipt, Session, Withdrawn};
use crate::wire::operation::{Leased, QueueOperation, Target};
use std::io;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// A lease is extended when this part of it is over: there is time for another attempt or two.
const EXTEND_PART: u32 = 3;
/// An item whose job failed is given back with this delay, doubled with each try.
const BACK_OFF_MIN_MS: u64 = 1_000;
const BACK_OFF_MAX_MS: u64 = 300_000;
/// The pause before the group is asked again that could not be asked; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a slot that stops waits to be out of the line.
const LEAVE_MAX: Duration = Duration::from_secs(2);

/// How long an item waits after so many tries.
fn back_off_ms(tries: u32) -> u64 {
    let doubled = BACK_OFF_MIN_MS.checked_shl(tries.saturating_sub(1)).filter(|_| tries <= 32);
    doubled.map_or(BACK_OFF_MAX_MS, |ms| ms.min(BACK_OFF_MAX_MS))
}

/// Whether asking again is of no use.
fn is_hopeless(e: &Error) -> bool {
    match e {
        Error::Refused { code, .. } => {
            matches!(code, Code::BadRequest | Code::TooLarge | Code::Denied | Code::Version | Code::Internal)
        }
        Error::Unreachable { .. } => false,
        Error::OtherGroup { .. } => true,
    }
}

pub struct Slot<'a> {
    work: &'a Work,
    crew: &'a Crew,
    at: usize,
    session: Session,
    pause: Duration,
}

impl<'a> Slot<'a> {
    pub fn new(work: &'a Work, crew: &'a Crew, at: usize, session: Session) -> Slot<'a> {
        Slot { work, crew, at, session, pause: PAUSE_MIN }
    }

    /// Works until there is an end of it.
    pub fn run(mut self) {
        while let Some(lease) = self.take() {
            self.process(&lease);
        }
        self.session.end();
    }

    /// Waits until something happens: an answer, the bell, or the moment.
    fn wait(&mut self, until: Option<Instant>) {
        self.session.turn(Some(self.crew.bell(self.at).fd()), until);
        self.crew.bell(self.at).silence();
    }

    /// The group could not be asked. A pause, unless the worker is to stop.
    fn rest(&mut self, e: &Error) {
        if is_hopeless(e) {
            return self.crew.stop(e.exit_status(), &e.to_string());
        }
        self.crew.in_trouble(e);
        let until = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        while Instant::now() < until && !self.crew.stops() {
            self.wait(Some(until));
        }
    }

    fn is_well(&mut self) {
        self.pause = PAUSE_MIN;
        self.crew.is_well();
    }

    // ---- an item

    /// The next item; `None` when there is nothing more to do.
    fn take(&mut self) -> Option<Lease> {
        let Work { label, lease_ms, wait_ms, .. } = self.work;
        let take =
            QueueOperation::Take { target: Target::Label(label), count: 1, lease_ms: *lease_ms, wait_ms: *wait_ms };
        while !self.crew.stops() {
            self.session.submit(asked(*wait_ms), |bytes| take.encode(bytes));
            let answer = loop {
                match self.session.take() {
                    Some(answer) => break answer,
                    None if self.crew.stops() => return self.step_out(),
                    None => self.wait(None),
                }
            };
            match answer.and_then(|answer| only(&answer)) {
                Ok(lease) => {
                    self.is_well();
                    if let Some(lease) = self.accept(lease) {
                        return Some(lease);
                    }
                }
                Err(e) if e.is(Code::Empty) => return None,
                // Nobody keeps a queue from being dropped while one waits there.
                Err(e) if e.is(Code::NoQueue) && *wait_ms > 0 => {}
                Err(e) if e.is(Code::NoQueue) => return None,
                Err(e) => self.rest(&e),
            }
        }
        None
    }

    /// Steps out of the line. What was handed out until then is given back.
    fn step_out(&mut self) -> Option<Lease> {
        let fresh = Session::new(self.session.servers().to_vec(), self.session.timeout());
        let waiting = std::mem::replace(&mut self.session, fresh);
        if let Withdrawn::Served(Ok(answer)) = waiting.withdraw(LEAVE_MAX) {
            if let Ok(lease) = only(&answer) {
                self.give_back(lease.receipt, 0);
            }
        }
        None
    }

    /// Whether a job is to be run for this item.
    fn accept(&mut self, lease: Lease) -> Option<Lease> {
        if self.crew.stops() {
            self.give_back(lease.receipt, 0);
            return None;
        }
        match self.work.tries {
            // Its jobs ended with their workers.
            Some(most) if lease.tries > most => {
                complain(&format!("{}: buried: {most} tries came to nothing", lease.receipt));
                self.crew.failed();
                self.bury(lease.receipt);
                None
            }
            _ => Some(lease),
        }
    }

    fn process(&mut self, lease: &Lease) {
        let receipt = lease.receipt;
        match self.work.job.start(receipt, lease.tries, &lease.item) {
            Ok(mut child) => match self.watch(&mut child, receipt) {
                Ok(status) => self.settle(lease, status),
                Err(e) => self.crew.stop(70, &format!("{receipt}: {e}")),
            },
            Err(e) if e.raw_os_error() == Some(libc::E2BIG) => {
                complain(&format!("{receipt}: buried: {}", self.work.job.said(&e)));
                self.crew.failed();
                self.bury(receipt);
            }
            // There may be room for a process later.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE)) => {
                complain(&format!("{receipt}: {}", self.work.job.said(&e)));
                self.give_back(receipt, back_off_ms(lease.tries));
            }
            Err(e) => {
                self.crew.stop(super::job::exit_status(&e), &self.work.job.said(&e));
                self.give_back(receipt, 0);
            }
        }
    }

    /// Waits for the job's end and extends the lease meanwhile.
    fn watch(&mut self, child: &mut Child, receipt: Receipt) -> io::Result<ExitStatus> {
        let lease = Duration::from_millis(self.work.lease_ms);
        let extend = QueueOperation::Extend { receipt, lease_ms: self.work.lease_ms };
        let mut next = Some(Instant::now() + lease / EXTEND_PART);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if self.crew.kills() {
                // SAFETY: a signal to a group whose leader is our own child and was not waited for yet.
                unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
            }
            match self.session.take() {
                Some(Ok(_)) => self.is_well(),
                Some(Err(e)) if e.is(Code::NoReceipt) => {
                    complain(&format!("{receipt}: the lease has ended, and the job still runs: another may run too"));
                    next = None;
                }
                Some(Err(e)) => {
                    self.crew.in_trouble(&e);
                    next = next.map(|_| Instant::now() + self.pause.min(lease / EXTEND_PART));
                }
                None => {}
            }
            let idle = self.session.pending() == 0;
            if idle && next.is_some_and(|next| Instant::now() >= next) {
                self.session.submit(Ask::Request, |bytes| extend.encode(bytes));
                next = Some(Instant::now() + lease / EXTEND_PART);
            }
            self.wait(next.filter(|_| self.session.pending() == 0));
        };
        while self.session.pending() > 0 {
            self.session.turn(None, None);
            self.session.take();
        }
        Ok(status)
    }

    // ---- what becomes of it

    fn settle(&mut self, lease: &Lease, status: ExitStatus) {
        let Lease { receipt, tries, .. } = *lease;
        let outcome = Outcome::of(status);
        if outcome == Outcome::Done {
            return self.acknowledge(receipt);
        }
        self.crew.failed();
        let say = |what: &str| complain(&format!("{receipt}: try {tries}: {}; {what}", told(status)));
        match outcome {
            Outcome::Stop => {
                self.crew.stop(0, &format!("{receipt}: try {tries}: {}: stopping", told(status)));
                self.give_back(receipt, 0);
            }
            Outcome::Failed if self.crew.kills() => {
                say("given back");
                self.give_back(receipt, 0);
            }
            Outcome::Failed if self.work.tries.is_none_or(|most| tries < most) => {
                let delay_ms = back_off_ms(tries);
                say(&format!("again in {} s", delay_ms / 1000));
                self.give_back(receipt, delay_ms);
            }
            _ => {
                say("buried");
                self.bury(receipt);
            }
        }
    }

    fn acknowledge(&mut self, receipt: Receipt) {
        if self.tell_group(receipt, &QueueOperation::Ack { receipt }) && self.work.tells {
            complain(&format!("{receipt}: acknowledged"));
        }
    }

    fn give_back(&mut self, receipt: Receipt, delay_ms: u64) {
        self.tell_group(receipt, &QueueOperation::Nack { receipt, delay_ms });
    }

    fn bury(&mut self, receipt: Receipt) {
        self.tell_group(receipt, &QueueOperation::Bury { receipt });
    }

    /// Says what becomes of an item until the group has heard it; whether it has. A worker that stops says it once.
    fn tell_group(&mut self, receipt: Receipt, operation: &QueueOperation<'_>) -> bool {
        let mut may_be_said = false;
        loop {
            let stops = self.crew.stops();
            let e = match self.session.call(Ask::Request, |bytes| operation.encode(bytes)) {
                Ok(_) => {
                    self.is_well();
                    return true;
                }
                Err(e) if e.is(Code::NoReceipt) => {
                    if !may_be_said {
                        complain(&format!("{receipt}: the lease had ended: another worker has the item, or had it"));
                    }
                    return may_be_said;
                }
                Err(e) => e,
            };
            may_be_said |= e.done() == Done::Unknown;
            if stops || is_hopeless(&e) {
                self.crew.stop(e.exit_status(), &format!("{receipt}: back when the lease ends: {e}"));
                return false;
            }
            self.rest(&e);
        }
    }
}

/// The one item of an answer.
fn only(answer: &Answer) -> Result<Lease, Error> {
    let leased = leased_items(answer)?;
    let owned =
        |leased: &Leased<'_>| Lease { receipt: leased.receipt, tries: leased.tries, item: leased.item.to_vec() };
    leased.first().map(owned).ok_or_else(|| Error::refused(Code::Empty, "no item"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_and_is_bounded() {
        assert_eq!([1, 2, 3, 4].map(back_off_ms), [1_000, 2_000, 4_000, 8_000]);
        assert_eq!(
            [9, 10, 32, 33, 70, u32::MAX].map(back_off_ms),
            [256_000, 300_000, 300_000, 300_000, 300_000, 300_000]
        );
    }
}
