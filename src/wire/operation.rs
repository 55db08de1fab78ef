//! The operations and queries of the services as bytes. The first byte picks the service, the second the kind;
//! kinds from 128 on are queries, which change nothing and are never ordered. Numbers are append-only.

use crate::limits::{BATCH_ITEMS_MAX, CONNECTED_MAX, ITEM_BYTES_MAX, LABEL_BYTES_MAX};
use crate::types::SessionId;
use crate::wire::bundle::{put_session, session, SESSION_ID_BYTES};
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};

/// The first byte of an operation.
pub mod service {
    /// Sessions themselves.
    pub const SESSION: u8 = 0;
    pub const QUEUE: u8 = 1;
}

/// Operations of service 0. All but `End` are ordered under `SessionId::NONE`, by a replica's door.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionOperation<'a> {
    /// Opens a session, with the client's token as number, which also names its first attach. Answer: the session's
    /// id, as `wire::bundle::session` reads it; `Busy` where the table has no room.
    Open,
    /// Ends the session that the request belongs to. Answer: nothing. Sent again, it is answered `Expired`, like all
    /// requests of a session that is not in the table: whoever only wanted the session gone has what it wanted.
    End,
    /// A connection speaks for the session from now on; its number is a fresh name for that. With `keep` the session
    /// outlasts all connections for `SESSION_KEEP_NS`. Answer: nothing; `Expired` where there is no such session.
    Attach { session: SessionId, keep: bool },
    /// The connection that attached under this number is lost: the session ends after a grace, unless another one
    /// has attached since, or it is kept. Not answered.
    Detach { session: SessionId },
    /// These sessions have a connection. Not answered.
    Connected { sessions: Connected<'a> },
}

/// Sessions, one behind the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connected<'a>(&'a [u8]);

impl<'a> Connected<'a> {
    /// Appends a whole `Connected` operation of at most [`CONNECTED_MAX`] sessions.
    pub fn encode(out: &mut Vec<u8>, sessions: &[SessionId]) {
        assert!(sessions.len() <= CONNECTED_MAX, "one operation names only so many");
        out.extend_from_slice(&[service::SESSION, 5]);
        sessions.iter().for_each(|&id| put_session(out, id));
    }

    pub fn iter(&self) -> impl Iterator<Item = SessionId> + 'a {
        let mut r = Reader::new(self.0);
        std::iter::from_fn(move || session(&mut r).ok())
    }
}

impl<'a> SessionOperation<'a> {
    pub fn encode(self, out: &mut Vec<u8>) {
        out.put_u8(service::SESSION);
        match self {
            SessionOperation::Open => out.put_u8(1),
            SessionOperation::End => out.put_u8(2),
            SessionOperation::Attach { session, keep } => {
                out.put_u8(3);
                put_session(out, session);
                out.put_bool(keep);
            }
            SessionOperation::Detach { session } => {
                out.put_u8(4);
                put_session(out, session);
            }
            SessionOperation::Connected { sessions } => {
                out.put_u8(5);
                out.extend_from_slice(sessions.0);
            }
        }
    }

    /// `fields` is what follows the service's byte.
    pub fn decode(fields: &'a [u8]) -> Decoded<SessionOperation<'a>> {
        let mut r = Reader::new(fields);
        let operation = match r.u8("session operation")? {
            1 => SessionOperation::Open,
            2 => SessionOperation::End,
            3 => SessionOperation::Attach { session: session(&mut r)?, keep: r.bool("keep")? },
            4 => SessionOperation::Detach { session: session(&mut r)? },
            5 if r.remaining() % SESSION_ID_BYTES == 0 && r.remaining() / SESSION_ID_BYTES <= CONNECTED_MAX => {
                SessionOperation::Connected { sessions: Connected(r.rest()) }
            }
            _ => return Err(DecodeError { field: "session operation" }),
        };
        r.end("session operation")?;
        Ok(operation)
    }
}

/// Which queue is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target<'a> {
    Id(u64),
    Label(&'a str),
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

/// Operations of service 1. Answers are given as what follows [`crate::wire::answer::Code::Ok`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueOperation<'a> {
    /// Answer: the queue's id, varint.
    Create { label: &'a str },
    /// Answer: nothing. With a label: `ftqc drop`.
    Destroy { target: Target<'a> },
    /// Appends the items. By label the queue is made if needed. Answer: nothing.
    Push { target: Target<'a>, items: Items<'a> },
    /// Removes and answers up to `count` items from the front (1 to `BATCH_ITEMS_MAX`), fewer where
    /// `BATCH_BYTES_MAX` is reached: a list as [`Items`] reads it. `Empty` if there is none.
    Pop { target: Target<'a>, count: usize },
    /// Removes all items. Answer: how many, varint.
    Purge { target: Target<'a> },
}

/// Queries of service 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueQuery<'a> {
    /// Answer: the id, varint; 0 if there is none.
    Id { label: &'a str },
    /// Answer: up to `count` items from the front, left there, as for a pop. `Empty` if there is none.
    Peek { target: Target<'a>, count: usize },
    /// Answer: the number of items, varint.
    Size { target: Target<'a> },
    /// Answer: rows of [`QueueRow`] until the end, by label from the first label greater than `after`; no more rows
    /// than `BATCH_ITEMS_MAX`, in no more than `BATCH_BYTES_MAX`. The list is at its end where there is no row.
    List { after: &'a str },
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
    /// Bytes of the items.
    pub bytes: u64,
    /// Milliseconds of group time since the oldest item was pushed; 0 for an empty queue.
    pub oldest_ms: u64,
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

impl<'a> QueueOperation<'a> {
    /// Appends a push of items that are not encoded as [`Items`] yet.
    pub fn encode_push<'i>(out: &mut Vec<u8>, target: Target<'_>, items: impl ExactSizeIterator<Item = &'i [u8]>) {
        out.put_u8(service::QUEUE);
        out.put_u8(3);
        put_target(out, target);
        Items::encode(out, items);
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(service::QUEUE);
        match *self {
            QueueOperation::Create { label } => {
                out.put_u8(1);
                out.put_str(label);
            }
            QueueOperation::Destroy { target } => {
                out.put_u8(2);
                put_target(out, target);
            }
            QueueOperation::Push { target, items } => {
                out.put_u8(3);
                put_target(out, target);
                out.put_varint(items.count as u64);
                out.extend_from_slice(items.bytes);
            }
            QueueOperation::Pop { target, count } => {
                out.put_u8(4);
                put_target(out, target);
                out.put_varint(count as u64);
            }
            QueueOperation::Purge { target } => {
                out.put_u8(5);
                put_target(out, target);
            }
        }
    }

    /// `fields` is what follows the service's byte.
    pub fn decode(fields: &'a [u8]) -> Decoded<QueueOperation<'a>> {
        let mut r = Reader::new(fields);
        let operation = match r.u8("queue operation")? {
            1 => QueueOperation::Create { label: label(&mut r)? },
            2 => QueueOperation::Destroy { target: target(&mut r)? },
            3 => QueueOperation::Push { target: target(&mut r)?, items: Items::decode(&mut r, BATCH_ITEMS_MAX)? },
            4 => QueueOperation::Pop { target: target(&mut r)?, count: r.count(BATCH_ITEMS_MAX, "pop count")? },
            5 => QueueOperation::Purge { target: target(&mut r)? },
            _ => return Err(DecodeError { field: "queue operation" }),
        };
        r.end("queue operation")?;
        Ok(operation)
    }
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
        }
    }

    /// `fields` is what follows the service's byte.
    pub fn decode(fields: &'a [u8]) -> Decoded<QueueQuery<'a>> {
        let mut r = Reader::new(fields);
        let query = match r.u8("queue query")? {
            128 => QueueQuery::Id { label: label(&mut r)? },
            129 => QueueQuery::Peek { target: target(&mut r)?, count: r.count(BATCH_ITEMS_MAX, "peek count")? },
            130 => QueueQuery::Size { target: target(&mut r)? },
            131 => QueueQuery::List { after: r.str(LABEL_BYTES_MAX, "label")? },
            _ => return Err(DecodeError { field: "queue query" }),
        };
        r.end("queue query")?;
        Ok(query)
    }
}

impl<'a> QueueRow<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_str(self.label);
        for number in [self.id, self.size, self.leased, self.delayed, self.waiters, self.bytes, self.oldest_ms] {
            out.put_varint(number);
        }
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
        })
    }
}

/// Whether this operation may make the state larger: refused at the door of a replica whose memory is used up.
pub fn grows(operation: &[u8]) -> bool {
    matches!(operation, [service::QUEUE, 1 | 3, ..])
}

/// Whether these bytes are a query (an operation that changes nothing).
pub fn is_query(operation: &[u8]) -> bool {
    operation.get(1).is_some_and(|&kind| kind >= 128)
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

    quickcheck! {
        fn operations_come_back(id: u64, count: u8, items: Vec<Vec<u8>>) -> bool {
            let mut list = Vec::new();
            Items::encode(&mut list, items.iter().map(Vec::as_slice));
            let items = Items::decode(&mut Reader::new(&list), BATCH_ITEMS_MAX).expect("just written");
            round_trip(QueueOperation::Push { target: Target::Id(id), items });
            round_trip(QueueOperation::Pop { target: Target::Label("jobs"), count: count.into() });
            round_trip(QueueOperation::Create { label: "Gr\u{fc}\u{df}e" });
            round_trip(QueueOperation::Destroy { target: Target::Id(id) });
            true
        }

        fn garbage_never_panics(bytes: Vec<u8>) -> bool {
            let _ = QueueOperation::decode(&bytes);
            if let Ok(operation) = SessionOperation::decode(&bytes) {
                let mut copy = Vec::new();
                operation.encode(&mut copy);
                assert_eq!(copy[1..], bytes);
            }
            let _ = QueueQuery::decode(&bytes);
            let _ = QueueRow::decode(&mut Reader::new(&bytes));
            true
        }
    }

    #[test]
    fn operations_of_sessions_come_back() {
        let id = |n| SessionId { slot: crate::types::Slot(n), position: 2, digest: 3 };
        let three: Vec<SessionId> = (1..=3).map(id).collect();
        let mut bytes = Vec::new();
        Connected::encode(&mut bytes, &three);
        let Ok(SessionOperation::Connected { sessions }) = SessionOperation::decode(&bytes[1..]) else {
            panic!("{bytes:?}");
        };
        assert_eq!(sessions.iter().collect::<Vec<_>>(), three);
        assert!(SessionOperation::decode(&bytes[1..bytes.len() - 1]).is_err());
        assert!(
            SessionOperation::decode(&[&[5][..], &vec![0; SESSION_ID_BYTES * (CONNECTED_MAX + 1)]].concat()).is_err()
        );
        let (session, connected) = (id(7), SessionOperation::Connected { sessions });
        let attach = |keep| SessionOperation::Attach { session, keep };
        for operation in [attach(true), attach(false), SessionOperation::Detach { session }, connected] {
            let mut bytes = Vec::new();
            operation.encode(&mut bytes);
            assert_eq!(SessionOperation::decode(&bytes[1..]), Ok(operation));
            assert!(SessionOperation::decode(&[&bytes[1..], &[0]].concat()).is_err());
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
}
