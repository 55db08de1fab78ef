//! The client's part in queues: the FTQueue commands on ids, and push, pop and their like on labels.

use super::{malformed, number, Answer, Ask, Client, Error};
use crate::limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX, ITEM_BYTES_MAX};
use crate::wire::answer::Code;
use crate::wire::codec::{DecodeError, Reader};
use crate::wire::operation::{is_label, Items, QueueOperation, QueueQuery, QueueRow, Target};

/// One queue as [`Client::queues`] lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Queue {
    pub label: String,
    pub id: u64,
    /// Items ready to be popped.
    pub size: u64,
    pub leased: u64,
    pub delayed: u64,
    pub waiters: u64,
    /// Bytes of the items.
    pub bytes: u64,
    /// Milliseconds since the oldest ready item was pushed; 0 where there is none.
    pub oldest_ms: u64,
    pub buried: u64,
}

impl From<QueueRow<'_>> for Queue {
    fn from(row: QueueRow<'_>) -> Queue {
        let QueueRow { label, id, size, leased, delayed, waiters, bytes, oldest_ms, buried } = row;
        Queue { label: label.to_string(), id, size, leased, delayed, waiters, bytes, oldest_ms, buried }
    }
}

impl Client {
    pub(super) fn operation(&mut self, operation: QueueOperation<'_>) -> Result<Answer, Error> {
        self.session.call(Ask::Request, |out| operation.encode(out))
    }

    pub(super) fn query(&mut self, query: QueueQuery<'_>) -> Result<Answer, Error> {
        self.session.call(Ask::Query, |out| query.encode(out))
    }

    /// The id of the label's queue, made if it is not there. Ids are positive and never used again; `BadRequest` where
    /// the label is none.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// let id = client.q_create("jobs")?;
    /// assert_eq!(client.q_create("jobs")?, id);
    /// client.q_destroy(id)?;
    /// assert!(client.q_create("jobs")? > id);
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn q_create(&mut self, label: &str) -> Result<u64, Error> {
        let answer = self.operation(QueueOperation::Create { label: checked_label(label)? })?;
        number(&answer)
    }

    /// Removes a queue and what is in it. `NoQueue` if there is none of that id, as for all that follows.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// use ftq::client::Code;
    ///
    /// let id = client.q_create("jobs")?;
    /// client.q_destroy(id)?;
    /// assert!(client.q_destroy(id).is_err_and(|e| e.is(Code::NoQueue)));
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn q_destroy(&mut self, id: u64) -> Result<(), Error> {
        self.operation(QueueOperation::Destroy { target: Target::Id(id) }).map(drop)
    }

    /// The id of the label's queue, if there is one.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// assert_eq!(client.q_id("jobs")?, None);
    /// let id = client.q_create("jobs")?;
    /// assert_eq!(client.q_id("jobs")?, Some(id));
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn q_id(&mut self, label: &str) -> Result<Option<u64>, Error> {
        let answer = self.query(QueueQuery::Id { label: checked_label(label)? })?;
        Ok(Some(number(&answer)?).filter(|&id| id > 0))
    }

    /// Appends an item of at most 1 MiB: any bytes.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// let id = client.q_create("jobs")?;
    /// client.q_push(id, b"-1")?;
    /// client.q_push(id, &[0, 255])?;
    /// assert_eq!(client.q_size(id)?, 2);
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn q_push(&mut self, id: u64, item: &[u8]) -> Result<(), Error> {
        self.push_to(Target::Id(id), item)
    }

    /// Removes and returns the first item; `Empty` if there is none.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// use ftq::client::Code;
    ///
    /// let id = client.q_create("jobs")?;
    /// client.q_push(id, b"first")?;
    /// assert_eq!(client.q_pop(id)?, b"first");
    /// assert!(client.q_pop(id).is_err_and(|e| e.is(Code::Empty)));
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn q_pop(&mut self, id: u64) -> Result<Vec<u8>, Error> {
        self.pop_from(Target::Id(id), 1).and_then(only)
    }

    /// The first item, left where it is; `Empty` if there is none.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// let id = client.q_create("jobs")?;
    /// client.q_push(id, b"first")?;
    /// assert_eq!(client.q_top(id)?, b"first");
    /// assert_eq!(client.q_size(id)?, 1);
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn q_top(&mut self, id: u64) -> Result<Vec<u8>, Error> {
        self.query(QueueQuery::Peek { target: Target::Id(id), count: 1 }).and_then(|a| items(&a)).and_then(only)
    }

    /// The number of items that are ready to be popped.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// let id = client.q_create("jobs")?;
    /// assert_eq!(client.q_size(id)?, 0);
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn q_size(&mut self, id: u64) -> Result<u64, Error> {
        self.query(QueueQuery::Size { target: Target::Id(id) }).and_then(|a| number(&a))
    }

    /// Appends an item of at most 1 MiB; makes the queue if needed. `Full` where a limit of the queue or of the
    /// replica's memory does not allow it.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// client.push("jobs", b"sweep")?;
    /// assert_eq!(client.size("jobs")?, 1);
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn push(&mut self, label: &str, item: &[u8]) -> Result<(), Error> {
        self.push_to(Target::Label(checked_label(label)?), item)
    }

    /// Appends several items with nothing between them: all or none. At most 4096 of them and 256 KiB together, or
    /// one item.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// client.push_all("jobs", &[b"sweep", b"polish"])?;
    /// assert_eq!(client.pop_all("jobs", 10)?, [&b"sweep"[..], b"polish"]);
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn push_all(&mut self, label: &str, items: &[&[u8]]) -> Result<(), Error> {
        let target = Target::Label(checked_label(label)?);
        check_batch(items)?;
        let write = |out: &mut Vec<u8>| QueueOperation::encode_push(out, target, items.iter().copied());
        self.session.call(Ask::Request, write).map(drop)
    }

    /// Removes and returns the first item; `Empty` if there is none.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// use ftq::client::{Code, Done};
    ///
    /// client.push("jobs", b"sweep")?;
    /// assert_eq!(client.pop("jobs")?, b"sweep");
    /// let error = client.pop("jobs").unwrap_err();
    /// assert!(error.is(Code::Empty) && error.done() == Done::No);
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn pop(&mut self, label: &str) -> Result<Vec<u8>, Error> {
        self.pop_from(Target::Label(checked_label(label)?), 1).and_then(only)
    }

    /// Removes and returns up to `count` items (at most 4096 and about 256 KiB at once); `Empty` if there is none.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// client.push_all("jobs", &[b"a", b"b", b"c"])?;
    /// assert_eq!(client.pop_all("jobs", 2)?, [b"a", b"b"]);
    /// assert_eq!(client.pop_all("jobs", 2)?, [b"c"]);
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn pop_all(&mut self, label: &str, count: usize) -> Result<Vec<Vec<u8>>, Error> {
        self.pop_from(Target::Label(checked_label(label)?), count.clamp(1, BATCH_ITEMS_MAX))
    }

    /// Up to `count` items from the front, left where they are; `Empty` if there is none.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// client.push_all("jobs", &[b"a", b"b", b"c"])?;
    /// assert_eq!(client.peek("jobs", 2)?, [b"a", b"b"]);
    /// assert_eq!(client.size("jobs")?, 3);
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn peek(&mut self, label: &str, count: usize) -> Result<Vec<Vec<u8>>, Error> {
        let target = Target::Label(checked_label(label)?);
        self.query(QueueQuery::Peek { target, count: count.clamp(1, BATCH_ITEMS_MAX) }).and_then(|a| items(&a))
    }

    /// The number of items that are ready to be popped.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// client.push("jobs", b"sweep")?;
    /// assert_eq!(client.size("jobs")?, 1);
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn size(&mut self, label: &str) -> Result<u64, Error> {
        self.query(QueueQuery::Size { target: Target::Label(checked_label(label)?) }).and_then(|a| number(&a))
    }

    /// Removes all items, the leased, delayed and buried too; returns how many there were.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// client.push_all("jobs", &[b"a", b"b", b"c"])?;
    /// assert_eq!(client.purge("jobs")?, 3);
    /// assert_eq!(client.size("jobs")?, 0);
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn purge(&mut self, label: &str) -> Result<u64, Error> {
        self.operation(QueueOperation::Purge { target: Target::Label(checked_label(label)?) }).and_then(|a| number(&a))
    }

    /// Removes the queue and what is in it.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// client.push("jobs", b"sweep")?;
    /// client.drop_queue("jobs")?;
    /// assert_eq!(client.q_id("jobs")?, None);
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn drop_queue(&mut self, label: &str) -> Result<(), Error> {
        self.operation(QueueOperation::Destroy { target: Target::Label(checked_label(label)?) }).map(drop)
    }

    /// All queues, by label.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// client.push("letters", b"a")?;
    /// client.push_all("jobs", &[b"a", b"b"])?;
    /// let queues = client.queues()?;
    /// assert_eq!((queues[0].label.as_str(), queues[0].size, queues[0].bytes), ("jobs", 2, 2));
    /// assert_eq!(queues[1].label, "letters");
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn queues(&mut self) -> Result<Vec<Queue>, Error> {
        let mut queues: Vec<Queue> = Vec::new();
        loop {
            let after = queues.last().map_or(String::new(), |queue| queue.label.clone());
            let answer = self.query(QueueQuery::List { after: &after })?;
            let page = rows(&answer)?;
            if page.is_empty() {
                return Ok(queues);
            }
            queues.extend(page.into_iter().map(Queue::from));
        }
    }

    /// Appends an integer, as its decimal digits.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// client.push_int("numbers", -5)?;
    /// assert_eq!(client.peek("numbers", 1)?, [b"-5"]);
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn push_int(&mut self, label: &str, item: i64) -> Result<(), Error> {
        self.push(label, item.to_string().as_bytes())
    }

    /// Removes the first item and reads it as an integer. `BadRequest` if it is none; it is removed all the same.
    ///
    /// ```
    /// # let mut client = ftq::client::fake::Fake::new(1).client();
    /// client.push_int("numbers", -5)?;
    /// client.push("numbers", b"many")?;
    /// assert_eq!(client.pop_int("numbers")?, -5);
    /// assert!(client.pop_int("numbers").is_err());
    /// assert_eq!(client.size("numbers")?, 0);
    /// # Ok::<(), ftq::client::Error>(())
    /// ```
    pub fn pop_int(&mut self, label: &str) -> Result<i64, Error> {
        let item = self.pop(label)?;
        let text = std::str::from_utf8(&item).ok().and_then(|text| text.parse().ok());
        text.ok_or_else(|| Error::bad_request("the item is not an integer"))
    }

    fn push_to(&mut self, target: Target<'_>, item: &[u8]) -> Result<(), Error> {
        check_item(item)?;
        let write = |out: &mut Vec<u8>| QueueOperation::encode_push(out, target, [item].into_iter());
        self.session.call(Ask::Request, write).map(drop)
    }

    fn pop_from(&mut self, target: Target<'_>, count: usize) -> Result<Vec<Vec<u8>>, Error> {
        self.operation(QueueOperation::Pop { target, count }).and_then(|answer| items(&answer))
    }
}

/// The label, if it may name a queue.
pub fn checked_label(label: &str) -> Result<&str, Error> {
    if is_label(label) {
        Ok(label)
    } else {
        Err(Error::bad_request("a label is 1 to 255 bytes of UTF-8 without white space or control characters"))
    }
}

/// Errors if the item is over its limit.
pub fn check_item(item: &[u8]) -> Result<(), Error> {
    if item.len() <= ITEM_BYTES_MAX {
        Ok(())
    } else {
        Err(Error::refused(Code::TooLarge, format!("an item has at most {ITEM_BYTES_MAX} bytes, not {}", item.len())))
    }
}

/// Errors if one push can't take all these items.
pub(super) fn check_batch(items: &[&[u8]]) -> Result<(), Error> {
    let bytes: usize = items.iter().map(|item| item.len()).sum();
    if items.len() > BATCH_ITEMS_MAX || items.len() > 1 && bytes > BATCH_BYTES_MAX {
        let message = format!("one push takes {BATCH_ITEMS_MAX} items of {BATCH_BYTES_MAX} bytes together");
        return Err(Error::refused(Code::TooLarge, message));
    }
    items.iter().try_for_each(|item| check_item(item))
}

/// Reads an answer that is a list of items, in place.
pub fn item_list(answer: &Answer) -> Result<Items<'_>, Error> {
    Items::decode(&mut Reader::new(&answer.body), BATCH_ITEMS_MAX).map_err(malformed)
}

/// Reads an answer that is rows of queues, in place.
pub fn rows(answer: &Answer) -> Result<Vec<QueueRow<'_>>, Error> {
    let mut r = Reader::new(&answer.body);
    let mut rows = Vec::new();
    while !r.is_empty() {
        rows.push(QueueRow::decode(&mut r).map_err(malformed)?);
    }
    Ok(rows)
}

pub(super) fn items(answer: &Answer) -> Result<Vec<Vec<u8>>, Error> {
    Ok(item_list(answer)?.iter().map(<[u8]>::to_vec).collect())
}

fn only(items: Vec<Vec<u8>>) -> Result<Vec<u8>, Error> {
    items.into_iter().next().ok_or_else(|| malformed(DecodeError { field: "items" }))
}
