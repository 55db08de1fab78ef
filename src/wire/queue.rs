//! The operations and queries of the queue as bytes, service 1 of [`crate::wire::operation`]. Numbers are append-only.

use crate::limits::{BATCH_ITEMS_MAX, ITEM_BYTES_MAX, KEY_BYTES_MAX, LABEL_BYTES_MAX};
use crate::types::Slot;
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};
use crate::wire::operation::service;
use std::fmt;

/// Which queue is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target<'a> {
    Id(u64),
    Label(&'a str),
}

/// Names one lease of one item, and is a fencing token: every later lease of anything has a greater one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Receipt(pub u64);

/// A receipt is its slot times this, and a number below it: so its decimal digits begin with the slot.
pub const RECEIPTS_PER_SLOT: u64 = 1_000_000;

impl Receipt {
    /// The slot in which the lease was given.
    pub fn slot(self) -> Slot {
        Slot(self.0 / RECEIPTS_PER_SLOT)
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A wait without end.
pub const WAIT_FOR_EVER_MS: u64 = u64::MAX;

/// How a push differs from a plain one.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PushOptions<'a> {
    /// The items are not ready before this time has passed.
    pub delay_ms: u64,
    /// Smaller ones come first.
    pub priority: i32,
    /// A push with a key that was pushed within the hour is dropped. 1 to `KEY_BYTES_MAX` bytes.
    pub key: Option<&'a [u8]>,
}

/// What a queue may hold at most, whatever the state of its items; `None`: as much as there is room for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Limit {
    pub items: Option<u64>,
    pub bytes: Option<u64>,
}

/// A change of one part of a [`Limit`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Cap {
    #[default]
    Keep,
    Lift,
    At(u64),
}

impl Cap {
    /// What becomes of `present`.
    pub fn change(self, present: Option<u64>) -> Option<u64> {
        match self {
            Cap::Keep => present,
            Cap::Lift => None,
            Cap::At(most) => Some(most),
        }
    }
}

/// Where an item stands in its queue: smaller places come first. A place is never given twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Place {
    pub priority: i32,
    /// Counts the items that were pushed to the queue, from 0.
    pub number: u64,
}

impl Place {
    pub fn put(self, out: &mut Vec<u8>) {
        put_priority(out, self.priority);
        out.put_varint(self.number);
    }

    pub fn get(r: &mut Reader<'_>) -> Decoded<Place> {
        Ok(Place { priority: priority(r)?, number: r.varint("place")? })
    }
}

/// Items, one behind the other, each behind its length as a varint: written once, read in place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Items<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Items<'a> {
    /// Reads `count` items from `r`, each at most [`ITEM_BYTES_MAX`] long.
    pub fn decode(r: &mut Reader<'a>, max: usize) -> Decoded<Items<'a>> {
        let count = r.count(max, "item count")?;
        let start = *r;
        for _ in 0..count {
            r.bytes(ITEM_BYTES_MAX, "item")?;
        }
        let mut start = start;
        let bytes = start.take(start.remaining() - r.remaining(), "items")?;
        Ok(Items { count, bytes })
    }

    /// Appends a list.
    pub fn encode<'i>(out: &mut Vec<u8>, items: impl ExactSizeIterator<Item = &'i [u8]>) {
        out.put_varint(items.len() as u64);
        items.for_each(|item| out.put_bytes(item));
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.put_varint(self.count as u64);
        out.extend_from_slice(self.bytes);
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of all items with their lengths.
    pub fn encoded_len(&self) -> usize {
        self.bytes.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut r = Reader::new(self.bytes);
        std::iter::from_fn(move || r.bytes(ITEM_BYTES_MAX, "item").ok())
    }
}

/// Operations. Answers are given as what follows [`crate::wire::answer::Code::Ok`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueOperation<'a> {
    /// Answer: the queue's id, varint.
    Create { label: &'a str },
    /// Answer: nothing. With a label: `ftqc drop`.
    Destroy { target: Target<'a> },
    /// Appends the items. By label the queue is made if needed. Answer: nothing. `Full` where the queue's limit does
    /// not allow all of them.
    Push { target: Target<'a>, items: Items<'a> },
    /// Removes and answers up to `count` ready items from the front (1 to `BATCH_ITEMS_MAX`), fewer where
    /// `BATCH_BYTES_MAX` is reached: a list as [`Items`] reads it. `Empty` if there is none.
    Pop { target: Target<'a>, count: usize },
    /// Removes all items, whatever their state. Answer: how many, varint.
    Purge { target: Target<'a> },
    /// A push with options. Answer: how many items were pushed, varint: 0 where the key was known.
    PushWith { target: Target<'a>, options: PushOptions<'a>, items: Items<'a> },
    /// A pop that waits up to `wait_ms` until there is an item, behind those who came before; by label the queue is
    /// made if needed. Answered later, unless there is one already; `Empty` when the time is over.
    PopWait { target: Target<'a>, count: usize, wait_ms: u64 },
    /// Leases up to `count` items for `lease_ms`: hidden until acknowledged, back in their places when the lease
    /// ends. Waits as `PopWait` does, not at all with a `wait_ms` of 0. Answer: [`Leases`].
    Take { target: Target<'a>, count: usize, lease_ms: u64, wait_ms: u64 },
    /// Removes a leased item. Answer: nothing; `NoReceipt` when the lease has ended, as for the next three.
    Ack { receipt: Receipt },
    /// Gives a leased item back: it is ready again, in its place, when `delay_ms` have passed.
    Nack { receipt: Receipt, delay_ms: u64 },
    /// The lease ends `lease_ms` from now.
    Extend { receipt: Receipt, lease_ms: u64 },
    /// Puts a leased item aside until it is kicked.
    Bury { receipt: Receipt },
    /// Up to `count` buried items are ready again, in their places, as if never taken. Answer: how many, varint.
    Kick { target: Target<'a>, count: usize },
    /// Changes what the queue may hold; by label it is made if needed. What is beyond a limit stays. Answer: nothing.
    Limit { target: Target<'a>, items: Cap, bytes: Cap },
}

/// Queries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueQuery<'a> {
    /// Answer: the id, varint; 0 if there is none.
    Id { label: &'a str },
    /// Answer: up to `count` ready items from the front, left there, as for a pop. `Empty` if there is none.
    Peek { target: Target<'a>, count: usize },
    /// Answer: the number of ready items, varint.
    Size { target: Target<'a> },
    /// Answer: rows of [`QueueRow`] until the end, by label from the first label greater than `after`; no more rows
    /// than `BATCH_ITEMS_MAX`, in no more than `BATCH_BYTES_MAX`. The list is at its end where there is no row.
    List { after: &'a str },
    /// Answer: [`Dead`] items by their places, from the first one behind `after`; as many as a pop would answer, and
    /// none at the end.
    Buried { target: Target<'a>, after: Option<Place>, count: usize },
    /// Answer: items bool and varint, bytes bool and varint: [`Limit`].
    Limits { target: Target<'a> },
}

/// One queue in the answer to [`QueueQuery::List`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueRow<'a> {
    pub label: &'a str,
    pub id: u64,
    /// Items ready to be popped.
    pub size: u64,
    pub leased: u64,
    pub delayed: u64,
    pub waiters: u64,
    /// Bytes of the items, whatever their state.
    pub bytes: u64,
    /// Milliseconds of group time since the oldest ready item was pushed; 0 where there is none.
    pub oldest_ms: u64,
    pub buried: u64,
}

/// A leased item in the answer to [`QueueOperation::Take`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leased<'a> {
    pub receipt: Receipt,
    /// How often it was leased, this time included.
    pub tries: u32,
    pub item: &'a [u8],
}

impl<'a> Leased<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.receipt.0);
        out.put_varint(u64::from(self.tries));
        out.put_bytes(self.item);
    }

    pub fn decode(r: &mut Reader<'a>) -> Decoded<Leased<'a>> {
        let receipt = Receipt(r.varint("receipt")?);
        Ok(Leased { receipt, tries: tries(r)?, item: r.bytes(ITEM_BYTES_MAX, "item")? })
    }
}

/// A buried item in the answer to [`QueueQuery::Buried`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dead<'a> {
    pub place: Place,
    /// How often it was leased.
    pub tries: u32,
    pub item: &'a [u8],
}

impl<'a> Dead<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.place.put(out);
        out.put_varint(u64::from(self.tries));
        out.put_bytes(self.item);
    }

    pub fn decode(r: &mut Reader<'a>) -> Decoded<Dead<'a>> {
        Ok(Dead { place: Place::get(r)?, tries: tries(r)?, item: r.bytes(ITEM_BYTES_MAX, "item")? })
    }
}

/// Reads how often an item was leased.
pub fn tries(r: &mut Reader<'_>) -> Decoded<u32> {
    u32::try_from(r.varint("tries")?).map_err(|_| DecodeError { field: "tries" })
}

/// Whether these bytes may name a queue: 1 to 255 bytes of UTF-8 without white space or control characters.
pub fn is_label(label: &str) -> bool {
    !label.is_empty() && label.len() <= LABEL_BYTES_MAX && !label.chars().any(|c| c.is_whitespace() || c.is_control())
}

fn label<'a>(r: &mut Reader<'a>) -> Decoded<&'a str> {
    let label = r.str(LABEL_BYTES_MAX, "label")?;
    if is_label(label) {
        Ok(label)
    } else {
        Err(DecodeError { field: "label" })
    }
}

/// Zigzag: small numbers are short, whatever their sign.
pub fn put_priority(out: &mut Vec<u8>, priority: i32) {
    out.put_varint(u64::from(((priority << 1) ^ (priority >> 31)) as u32));
}

pub fn priority(r: &mut Reader<'_>) -> Decoded<i32> {
    let folded = u32::try_from(r.varint("priority")?).map_err(|_| DecodeError { field: "priority" })?;
    Ok((folded >> 1) as i32 ^ -((folded & 1) as i32))
}

fn put_target(out: &mut Vec<u8>, target: Target<'_>) {
    match target {
        Target::Id(id) => {
            out.put_u8(0);
            out.put_varint(id);
        }
        Target::Label(label) => {
            out.put_u8(1);
            out.put_str(label);
        }
    }
}

fn target<'a>(r: &mut Reader<'a>) -> Decoded<Target<'a>> {
    match r.u8("target")? {
        0 => Ok(Target::Id(r.varint("queue id")?)),
        1 => Ok(Target::Label(label(r)?)),
        _ => Err(DecodeError { field: "target" }),
    }
}

impl<'a> PushOptions<'a> {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_varint(self.delay_ms);
        put_priority(out, self.priority);
        out.put_bytes(self.key.unwrap_or_default());
    }

    fn get(r: &mut Reader<'a>) -> Decoded<PushOptions<'a>> {
        let (delay_ms, priority) = (r.varint("delay")?, priority(r)?);
        Ok(PushOptions { delay_ms, priority, key: Some(r.bytes(KEY_BYTES_MAX, "key")?).filter(|key| !key.is_empty()) })
    }
}

impl Cap {
    fn put(self, out: &mut Vec<u8>) {
        match self {
            Cap::Keep => out.put_u8(0),
            Cap::Lift => out.put_u8(1),
            Cap::At(most) => {
                out.put_u8(2);
                out.put_varint(most);
            }
        }
    }

    fn get(r: &mut Reader<'_>) -> Decoded<Cap> {
        match r.u8("limit")? {
            0 => Ok(Cap::Keep),
            1 => Ok(Cap::Lift),
            2 => Ok(Cap::At(r.varint("limit")?)),
            _ => Err(DecodeError { field: "limit" }),
        }
    }
}

impl Limit {
    pub fn put(&self, out: &mut Vec<u8>) {
        for most in [self.items, self.bytes] {
            out.put_bool(most.is_some());
            if let Some(most) = most {
                out.put_varint(most);
            }
        }
    }

    pub fn get(r: &mut Reader<'_>) -> Decoded<Limit> {
        let mut most = || if r.bool("limit")? { r.varint("limit").map(Some) } else { Ok(None) };
        Ok(Limit { items: most()?, bytes: most()? })
    }
}

impl<'a> QueueOperation<'a> {
    /// Appends a push of items that are not encoded as [`Items`] yet.
    pub fn encode_push<'i>(out: &mut Vec<u8>, target: Target<'_>, items: impl ExactSizeIterator<Item = &'i [u8]>) {
        out.put_u8(service::QUEUE);
        out.put_u8(3);
        put_target(out, target);
        Items::encode(out, items);
    }

    /// The same for a push with options.
    pub fn encode_push_with<'i>(
        out: &mut Vec<u8>,
        target: Target<'_>,
        options: &PushOptions<'_>,
        items: impl ExactSizeIterator<Item = &'i [u8]>,
    ) {
        out.put_u8(service::QUEUE);
        out.put_u8(6);
        put_target(out, target);
        options.put(out);
        Items::encode(out, items);
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(service::QUEUE);
        out.put_u8(self.kind());
        match *self {
            QueueOperation::Create { label } => out.put_str(label),
            QueueOperation::Destroy { target } | QueueOperation::Purge { target } => put_target(out, target),
            QueueOperation::Push { target, items } => {
                put_target(out, target);
                items.put(out);
            }
            QueueOperation::PushWith { target, options, items } => {
                put_target(out, target);
                options.put(out);
                items.put(out);
            }
            QueueOperation::Pop { target, count } | QueueOperation::Kick { target, count } => {
                put_target(out, target);
                out.put_varint(count as u64);
            }
            QueueOperation::PopWait { target, count, wait_ms } => {
                put_target(out, target);
                out.put_varint(count as u64);
                out.put_varint(wait_ms);
            }
            QueueOperation::Take { target, count, lease_ms, wait_ms } => {
                put_target(out, target);
                out.put_varint(count as u64);
                out.put_varint(lease_ms);
                out.put_varint(wait_ms);
            }
            QueueOperation::Ack { receipt } | QueueOperation::Bury { receipt } => out.put_varint(receipt.0),
            QueueOperation::Nack { receipt, delay_ms: ms } | QueueOperation::Extend { receipt, lease_ms: ms } => {
                out.put_varint(receipt.0);
                out.put_varint(ms);
            }
            QueueOperation::Limit { target, items, bytes } => {
                put_target(out, target);
                items.put(out);
                bytes.put(out);
            }
        }
    }

    fn kind(&self) -> u8 {
        match self {
            QueueOperation::Create { .. } => 1,
            QueueOperation::Destroy { .. } => 2,
            QueueOperation::Push { .. } => 3,
            QueueOperation::Pop { .. } => 4,
            QueueOperation::Purge { .. } => 5,
            QueueOperation::PushWith { .. } => 6,
            QueueOperation::PopWait { .. } => 7,
            QueueOperation::Take { .. } => 8,
            QueueOperation::Ack { .. } => 9,
            QueueOperation::Nack { .. } => 10,
            QueueOperation::Extend { .. } => 11,
            QueueOperation::Bury { .. } => 12,
            QueueOperation::Kick { .. } => 13,
            QueueOperation::Limit { .. } => 14,
        }
    }

    /// `fields` is what follows the service's byte.
    pub fn decode(fields: &'a [u8]) -> Decoded<QueueOperation<'a>> {
        let mut reader = Reader::new(fields);
        let r = &mut reader;
        let operation = match r.u8("queue operation")? {
            1 => QueueOperation::Create { label: label(r)? },
            2 => QueueOperation::Destroy { target: target(r)? },
            3 => QueueOperation::Push { target: target(r)?, items: Items::decode(r, BATCH_ITEMS_MAX)? },
            4 => QueueOperation::Pop { target: target(r)?, count: count(r)? },
            5 => QueueOperation::Purge { target: target(r)? },
            6 => QueueOperation::PushWith {
                target: target(r)?,
                options: PushOptions::get(r)?,
                items: Items::decode(r, BATCH_ITEMS_MAX)?,
            },
            7 => QueueOperation::PopWait { target: target(r)?, count: count(r)?, wait_ms: r.varint("wait")? },
            8 => QueueOperation::Take {
                target: target(r)?,
                count: count(r)?,
                lease_ms: r.varint("lease")?,
                wait_ms: r.varint("wait")?,
            },
            9 => QueueOperation::Ack { receipt: receipt(r)? },
            10 => QueueOperation::Nack { receipt: receipt(r)?, delay_ms: r.varint("delay")? },
            11 => QueueOperation::Extend { receipt: receipt(r)?, lease_ms: r.varint("lease")? },
            12 => QueueOperation::Bury { receipt: receipt(r)? },
            13 => QueueOperation::Kick { target: target(r)?, count: count(r)? },
            14 => QueueOperation::Limit { target: target(r)?, items: Cap::get(r)?, bytes: Cap::get(r)? },
            _ => return Err(DecodeError { field: "queue operation" }),
        };
        reader.end("queue operation")?;
        Ok(operation)
    }
}

fn count(r: &mut Reader<'_>) -> Decoded<usize> {
    r.count(BATCH_ITEMS_MAX, "count")
}

fn receipt(r: &mut Reader<'_>) -> Decoded<Receipt> {
    r.varint("receipt").map(Receipt)
}

impl<'a> QueueQuery<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(service::QUEUE);
        match *self {
            QueueQuery::Id { label } => {
                out.put_u8(128);
                out.put_str(label);
            }
            QueueQuery::Peek { target, count } => {
                out.put_u8(129);
                put_target(out, target);
                out.put_varint(count as u64);
            }
            QueueQuery::Size { target } => {
                out.put_u8(130);
                put_target(out, target);
            }
            QueueQuery::List { after } => {
                out.put_u8(131);
                out.put_str(after);
            }
            QueueQuery::Buried { target, after, count } => {
                out.put_u8(132);
                put_target(out, target);
                out.put_bool(after.is_some());
                if let Some(place) = after {
                    place.put(out);
                }
                out.put_varint(count as u64);
            }
            QueueQuery::Limits { target } => {
                out.put_u8(133);
                put_target(out, target);
            }
        }
    }

    /// `fields` is what follows the service's byte.
    pub fn decode(fields: &'a [u8]) -> Decoded<QueueQuery<'a>> {
        let mut reader = Reader::new(fields);
        let r = &mut reader;
        let query = match r.u8("queue query")? {
            128 => QueueQuery::Id { label: label(r)? },
            129 => QueueQuery::Peek { target: target(r)?, count: count(r)? },
            130 => QueueQuery::Size { target: target(r)? },
            131 => QueueQuery::List { after: r.str(LABEL_BYTES_MAX, "label")? },
            132 => {
                let target = target(r)?;
                let after = if r.bool("place")? { Some(Place::get(r)?) } else { None };
                QueueQuery::Buried { target, after, count: count(r)? }
            }
            133 => QueueQuery::Limits { target: target(r)? },
            _ => return Err(DecodeError { field: "queue query" }),
        };
        reader.end("queue query")?;
        Ok(query)
    }
}

impl<'a> QueueRow<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_str(self.label);
        let counts = [self.id, self.size, self.leased, self.delayed, self.waiters, self.bytes, self.oldest_ms];
        counts.into_iter().chain([self.buried]).for_each(|number| out.put_varint(number));
    }

    pub fn decode(r: &mut Reader<'a>) -> Decoded<QueueRow<'a>> {
        Ok(QueueRow {
            label: r.str(LABEL_BYTES_MAX, "label")?,
            id: r.varint("queue id")?,
            size: r.varint("size")?,
            leased: r.varint("leased")?,
            delayed: r.varint("delayed")?,
            waiters: r.varint("waiters")?,
            bytes: r.varint("bytes")?,
            oldest_ms: r.varint("oldest")?,
            buried: r.varint("buried")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    fn round_trip(operation: QueueOperation<'_>) {
        let mut bytes = Vec::new();
        operation.encode(&mut bytes);
        assert_eq!(bytes[0], service::QUEUE);
        assert_eq!(QueueOperation::decode(&bytes[1..]), Ok(operation));
        assert!(QueueOperation::decode(&bytes[1..bytes.len() - 1]).is_err() || bytes.len() < 3);
    }

    fn query_round_trip(query: QueueQuery<'_>) {
        let mut bytes = Vec::new();
        query.encode(&mut bytes);
        assert_eq!(QueueQuery::decode(&bytes[1..]), Ok(query));
    }

    quickcheck! {
        fn operations_come_back(id: u64, count: u8, items: Vec<Vec<u8>>, ms: (u64, u64), priority: i32) -> bool {
            let mut list = Vec::new();
            Items::encode(&mut list, items.iter().map(Vec::as_slice));
            let items = Items::decode(&mut Reader::new(&list), BATCH_ITEMS_MAX).expect("just written");
            let (target, count, receipt) = (Target::Id(id), usize::from(count), Receipt(id));
            round_trip(QueueOperation::Push { target, items });
            round_trip(QueueOperation::Pop { target: Target::Label("jobs"), count });
            round_trip(QueueOperation::Create { label: "Gr\u{fc}\u{df}e" });
            round_trip(QueueOperation::Destroy { target });
            for key in [None, Some(&b"key"[..])] {
                let options = PushOptions { delay_ms: ms.0, priority, key };
                round_trip(QueueOperation::PushWith { target, items, options });
            }
            round_trip(QueueOperation::PopWait { target, count, wait_ms: ms.0 });
            round_trip(QueueOperation::Take { target, count, lease_ms: ms.1, wait_ms: ms.0 });
            round_trip(QueueOperation::Ack { receipt });
            round_trip(QueueOperation::Nack { receipt, delay_ms: ms.0 });
            round_trip(QueueOperation::Extend { receipt, lease_ms: ms.0 });
            round_trip(QueueOperation::Bury { receipt });
            round_trip(QueueOperation::Kick { target, count });
            round_trip(QueueOperation::Limit { target, items: Cap::At(ms.0), bytes: Cap::Lift });
            round_trip(QueueOperation::Limit { target, items: Cap::Keep, bytes: Cap::At(ms.1) });
            let after = Some(Place { priority, number: id });
            query_round_trip(QueueQuery::Buried { target, after, count });
            query_round_trip(QueueQuery::Buried { target, after: None, count });
            query_round_trip(QueueQuery::Limits { target });
            true
        }

        fn garbage_never_panics(bytes: Vec<u8>) -> bool {
            let _ = QueueOperation::decode(&bytes);
            let _ = QueueQuery::decode(&bytes);
            let _ = QueueRow::decode(&mut Reader::new(&bytes));
            let _ = Leased::decode(&mut Reader::new(&bytes));
            let _ = Dead::decode(&mut Reader::new(&bytes));
            let _ = Limit::get(&mut Reader::new(&bytes));
            true
        }
    }

    #[test]
    fn labels_are_words() {
        assert!(is_label("jobs") && is_label("-1") && is_label(&"x".repeat(255)));
        for bad in ["", "a b", "a\tb", "a\u{a0}b", "a\0b", "\u{85}"] {
            assert!(!is_label(bad), "{bad:?}");
        }
        assert!(!is_label(&"x".repeat(256)));
    }

    #[test]
    fn a_receipt_shows_its_slot() {
        let receipt = Receipt(4711 * RECEIPTS_PER_SLOT + 3);
        assert_eq!((receipt.slot(), receipt.to_string()), (Slot(4711), "4711000003".into()));
    }
}
