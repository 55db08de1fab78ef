//! The client's part in an item's life beyond push and pop: options of a push, waits, leases, and the buried.

use super::queue::{check_batch, checked_label, items};
use super::{malformed, number, Answer, Ask, Client, Error};
use crate::limits::{BATCH_ITEMS_MAX, SPAN_MS_MAX};
use crate::wire::codec::{DecodeError, Reader};
use crate::wire::operation::{
    Cap, Dead, Leased, Limit, Place, PushOptions, QueueOperation, QueueQuery, Receipt, Target, WAIT_FOR_EVER_MS,
};
use std::time::Duration;

/// A leased item: hidden from others until it is acknowledged or given back, or the lease ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Names this lease. A fencing token: every later lease of anything has a greater one.
    pub receipt: Receipt,
    /// How often the item was leased, this time included.
    pub tries: u32,
    pub item: Vec<u8>,
}

/// A buried item.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Buried {
    pub place: Place,
    /// How often it was leased.
    pub tries: u32,
    pub item: Vec<u8>,
}

/// Milliseconds, which the group judges.
fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX - 1).min(SPAN_MS_MAX + 1)
}

/// How long a wait is, and how it is asked for.
pub(super) fn wait(wait: Option<Duration>) -> (u64, Ask) {
    match wait {
        None => (0, Ask::Request),
        Some(Duration::MAX) => (WAIT_FOR_EVER_MS, Ask::Waiting(Duration::MAX)),
        Some(Duration::ZERO) => (0, Ask::Request),
        Some(span) => (ms(span), Ask::Waiting(span)),
    }
}

impl Client {
    /// Appends items with options, all or none; makes the queue if needed. At most 4096 of them and 256 KiB together,
    /// or one item. Answers how many were pushed: none where the key was pushed within the hour. `Full` where the
    /// queue's limit does not allow all of them.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// use ftq::client::PushOptions;
    ///
    /// let urgent = PushOptions { priority: -1, key: Some(b"order 17"), ..PushOptions::default() };
    /// client.push("jobs", b"sweep")?;
    /// assert_eq!(client.push_with("jobs", &[b"deliver"], &urgent)?, 1);
    /// assert_eq!(client.push_with("jobs", &[b"deliver"], &urgent)?, 0);
    /// assert_eq!(client.pop_all("jobs", 9)?, [&b"deliver"[..], b"sweep"]);
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn push_with(&mut self, label: &str, items: &[&[u8]], options: &PushOptions<'_>) -> Result<u64, Error> {
        let target = Target::Label(checked_label(label)?);
        check_batch(items)?;
        let write = |out: &mut Vec<u8>| QueueOperation::encode_push_with(out, target, options, items.iter().copied());
        number(&self.session.call(Ask::Request, write)?)
    }

    /// Removes and returns up to `count` items (at most 4096), when there is one: waits behind those who came before.
    /// With `None` it does not wait, with `Duration::MAX` for ever. `Empty` when the time is over.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// use std::time::Duration;
    ///
    /// client.push("jobs", b"sweep")?;
    /// let a_while = Some(Duration::from_millis(50));
    /// assert_eq!(client.pop_wait("jobs", 9, a_while)?, [b"sweep"]);
    /// assert!(client.pop_wait("jobs", 9, a_while).is_err());
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn pop_wait(&mut self, label: &str, count: usize, time: Option<Duration>) -> Result<Vec<Vec<u8>>, Error> {
        let (target, count) = (Target::Label(checked_label(label)?), count.clamp(1, BATCH_ITEMS_MAX));
        let (wait_ms, ask) = wait(time);
        let pop = QueueOperation::PopWait { target, count, wait_ms };
        items(&self.session.call(ask, |out| pop.encode(out))?)
    }

    /// Leases up to `count` items (at most 4096) for so long; waits as [`Client::pop_wait`] does. An item whose lease
    /// ends is back in its place. `Empty` if there is none.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// use std::time::Duration;
    ///
    /// client.push_all("jobs", &[b"sweep", b"polish"])?;
    /// let leases = client.take("jobs", 2, Duration::from_secs(60), None)?;
    /// assert_eq!((leases[0].item.as_slice(), leases[0].tries), (&b"sweep"[..], 1));
    /// assert!(leases[0].receipt < leases[1].receipt);
    /// assert_eq!(client.size("jobs")?, 0);
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn take(
        &mut self,
        label: &str,
        count: usize,
        lease: Duration,
        time: Option<Duration>,
    ) -> Result<Vec<Lease>, Error> {
        let (target, count) = (Target::Label(checked_label(label)?), count.clamp(1, BATCH_ITEMS_MAX));
        let (wait_ms, ask) = wait(time);
        let take = QueueOperation::Take { target, count, lease_ms: ms(lease), wait_ms };
        let answer = self.session.call(ask, |out| take.encode(out))?;
        let owned =
            |leased: Leased<'_>| Lease { receipt: leased.receipt, tries: leased.tries, item: leased.item.to_vec() };
        Ok(leased_items(&answer)?.into_iter().map(owned).collect())
    }

    /// Removes a leased item: it is done. `NoReceipt` if the lease has ended, as for the next three.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// use ftq::client::Code;
    /// use std::time::Duration;
    ///
    /// client.push("jobs", b"sweep")?;
    /// let lease = client.take("jobs", 1, Duration::from_secs(60), None)?.remove(0);
    /// client.ack(lease.receipt)?;
    /// assert!(client.ack(lease.receipt).is_err_and(|e| e.is(Code::NoReceipt)));
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn ack(&mut self, receipt: Receipt) -> Result<(), Error> {
        self.operation(QueueOperation::Ack { receipt }).map(drop)
    }

    /// Gives a leased item back: ready again, in its place, when `delay` has passed.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// use std::time::Duration;
    ///
    /// client.push_all("jobs", &[b"sweep", b"polish"])?;
    /// let lease = client.take("jobs", 1, Duration::from_secs(60), None)?.remove(0);
    /// client.nack(lease.receipt, Duration::ZERO)?;
    /// assert_eq!(client.pop("jobs")?, b"sweep");
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn nack(&mut self, receipt: Receipt, delay: Duration) -> Result<(), Error> {
        self.operation(QueueOperation::Nack { receipt, delay_ms: ms(delay) }).map(drop)
    }

    /// The lease ends so long from now.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// use std::time::Duration;
    ///
    /// client.push("jobs", b"sweep")?;
    /// let lease = client.take("jobs", 1, Duration::from_secs(1), None)?.remove(0);
    /// client.extend(lease.receipt, Duration::from_secs(60))?;
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn extend(&mut self, receipt: Receipt, lease: Duration) -> Result<(), Error> {
        self.operation(QueueOperation::Extend { receipt, lease_ms: ms(lease) }).map(drop)
    }

    /// Puts a leased item aside, until it is kicked.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// use std::time::Duration;
    ///
    /// client.push("jobs", b"sweep")?;
    /// let lease = client.take("jobs", 1, Duration::from_secs(60), None)?.remove(0);
    /// client.bury(lease.receipt)?;
    /// assert_eq!((client.size("jobs")?, client.dead("jobs")?.len()), (0, 1));
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn bury(&mut self, receipt: Receipt) -> Result<(), Error> {
        self.operation(QueueOperation::Bury { receipt }).map(drop)
    }

    /// The buried items, by their places.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// use std::time::Duration;
    ///
    /// client.push("jobs", b"sweep")?;
    /// let lease = client.take("jobs", 1, Duration::from_secs(60), None)?.remove(0);
    /// client.bury(lease.receipt)?;
    /// let dead = client.dead("jobs")?;
    /// assert_eq!((dead[0].item.as_slice(), dead[0].tries), (&b"sweep"[..], 1));
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn dead(&mut self, label: &str) -> Result<Vec<Buried>, Error> {
        let target = Target::Label(checked_label(label)?);
        let mut dead: Vec<Buried> = Vec::new();
        loop {
            let after = dead.last().map(|buried| buried.place);
            let answer = self.query(QueueQuery::Buried { target, after, count: BATCH_ITEMS_MAX })?;
            let page = dead_items(&answer)?;
            if page.is_empty() {
                return Ok(dead);
            }
            let owned = |dead: Dead<'_>| Buried { place: dead.place, tries: dead.tries, item: dead.item.to_vec() };
            dead.extend(page.into_iter().map(owned));
        }
    }

    /// Up to `count` buried items (at most 4096) are ready again, in their places, as if never taken; answers how many.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// use std::time::Duration;
    ///
    /// client.push("jobs", b"sweep")?;
    /// let lease = client.take("jobs", 1, Duration::from_secs(60), None)?.remove(0);
    /// client.bury(lease.receipt)?;
    /// assert_eq!(client.kick("jobs", 9)?, 1);
    /// assert_eq!(client.pop("jobs")?, b"sweep");
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn kick(&mut self, label: &str, count: usize) -> Result<u64, Error> {
        let (target, count) = (Target::Label(checked_label(label)?), count.clamp(1, BATCH_ITEMS_MAX));
        self.operation(QueueOperation::Kick { target, count }).and_then(|answer| number(&answer))
    }

    /// What the queue may hold at most, whatever the state of its items.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// client.q_create("jobs")?;
    /// assert_eq!(client.limit("jobs")?.items, None);
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn limit(&mut self, label: &str) -> Result<Limit, Error> {
        self.query(QueueQuery::Limits { target: Target::Label(checked_label(label)?) }).and_then(|a| read_limit(&a))
    }

    /// Changes what the queue may hold; makes it if needed. What is beyond a limit stays, and no more comes in.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// use ftq::client::Cap;
    ///
    /// client.set_limit("jobs", Cap::At(1000), Cap::Keep)?;
    /// assert_eq!(client.limit("jobs")?.items, Some(1000));
    /// client.set_limit("jobs", Cap::Lift, Cap::At(1 << 20))?;
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn set_limit(&mut self, label: &str, items: Cap, bytes: Cap) -> Result<(), Error> {
        let target = Target::Label(checked_label(label)?);
        self.operation(QueueOperation::Limit { target, items, bytes }).map(drop)
    }
}

/// Reads an answer that is a list of leased items, in place.
pub fn leased_items(answer: &Answer) -> Result<Vec<Leased<'_>>, Error> {
    list(answer, Leased::decode)
}

/// Reads an answer that is a list of buried items, in place.
pub fn dead_items(answer: &Answer) -> Result<Vec<Dead<'_>>, Error> {
    list(answer, Dead::decode)
}

fn list<'a, T>(answer: &'a Answer, read: impl Fn(&mut Reader<'a>) -> Result<T, DecodeError>) -> Result<Vec<T>, Error> {
    let mut r = Reader::new(&answer.body);
    let count = r.count(BATCH_ITEMS_MAX, "item count").map_err(malformed)?;
    let list = (0..count).map(|_| read(&mut r)).collect::<Result<Vec<T>, _>>().map_err(malformed)?;
    r.end("items").map_err(malformed)?;
    Ok(list)
}

/// Reads an answer that is a queue's limits.
pub fn read_limit(answer: &Answer) -> Result<Limit, Error> {
    Limit::get(&mut Reader::new(&answer.body)).map_err(malformed)
}
