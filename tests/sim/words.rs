//! Frames between clients and replicas in words, for time lines.

use ftq::wire::answer::{split, Code};
use ftq::wire::chat::{ChatOperation, ChatQuery};
use ftq::wire::client::{ToClient, ToReplica};
use ftq::wire::operation::{service, QueueOperation, QueueQuery, SessionOperation, Target};
use ftq::wire::stock::{StockOperation, StockQuery};

use super::model::brief;

/// A frame of a client.
pub fn asked(frame: &[u8]) -> String {
    match ToReplica::decode(frame) {
        Ok(ToReplica::Request { number, seen, operation }) => {
            format!("REQUEST {} seen {}: {}", number.0, seen.0, operation_in_words(operation))
        }
        Ok(ToReplica::Query { number, stale, query }) => {
            format!("QUERY {number}{}: {}", if stale { " stale" } else { "" }, query_in_words(query))
        }
        Ok(other) => format!("{other:?}"),
        Err(error) => error.to_string(),
    }
}

/// A frame of a replica.
pub fn answered(frame: &ToClient<'_>) -> String {
    match *frame {
        ToClient::Reply { number, slot, answer } => {
            format!("REPLY {} from slot {slot}: {}", number.0, answer_in_words(answer))
        }
        ToClient::Found { number, slot, answer } => {
            format!("FOUND {number} at slot {slot}: {}", answer_in_words(answer))
        }
        _ => brief(&format!("{frame:?}")),
    }
}

fn operation_in_words(operation: &[u8]) -> String {
    let words = match operation.split_first() {
        Some((&service::QUEUE, fields)) => QueueOperation::decode(fields).map(|operation| match operation {
            QueueOperation::Create { label } => format!("create {label}"),
            QueueOperation::Destroy { target } => format!("destroy {}", name(target)),
            QueueOperation::Push { target, items } => {
                let bytes: usize = items.iter().map(<[u8]>::len).sum();
                format!("push {} {} items of {bytes} bytes", name(target), items.len())
            }
            QueueOperation::Pop { target, count } => format!("pop {} {count}", name(target)),
            QueueOperation::Purge { target } => format!("purge {}", name(target)),
            QueueOperation::PushWith { target, options, items } => {
                format!("push {} {} items with {options:?}", name(target), items.len())
            }
            operation => brief(&format!("{operation:?}")),
        }),
        Some((&service::CHAT, fields)) => {
            ChatOperation::decode(fields).map(|operation| brief(&format!("{operation:?}")))
        }
        Some((&service::STOCK, fields)) => StockOperation::decode(fields).map(|operation| format!("{operation:?}")),
        Some((&service::SESSION, fields)) => SessionOperation::decode(fields).map(|operation| format!("{operation:?}")),
        _ => return nonsense(operation),
    };
    words.unwrap_or_else(|_| nonsense(operation))
}

fn query_in_words(query: &[u8]) -> String {
    let fields = match query.split_first() {
        Some((&service::QUEUE, fields)) => fields,
        Some((&service::CHAT, fields)) => {
            return ChatQuery::decode(fields).map_or(nonsense(query), |query| format!("{query:?}"))
        }
        Some((&service::STOCK, fields)) => {
            return StockQuery::decode(fields).map_or(nonsense(query), |query| format!("{query:?}"))
        }
        _ => return nonsense(query),
    };
    match QueueQuery::decode(fields) {
        Ok(QueueQuery::Id { label }) => format!("id {label}"),
        Ok(QueueQuery::Peek { target, count }) => format!("peek {} {count}", name(target)),
        Ok(QueueQuery::Size { target }) => format!("size {}", name(target)),
        Ok(QueueQuery::List { after }) => format!("list after '{after}'"),
        Ok(query) => brief(&format!("{query:?}")),
        Err(_) => nonsense(query),
    }
}

fn nonsense(bytes: &[u8]) -> String {
    brief(&format!("nonsense {bytes:?}"))
}

fn name(target: Target<'_>) -> String {
    match target {
        Target::Id(id) => format!("#{id}"),
        Target::Label(label) => label.to_owned(),
    }
}

fn answer_in_words(answer: &[u8]) -> String {
    match split(answer) {
        Ok((Code::Ok, fields)) => brief(format!("ok {}", fields.escape_ascii()).trim_end()),
        Ok((code, text)) => format!("{}: {}", code.name(), String::from_utf8_lossy(text)),
        Err(error) => error.to_string(),
    }
}
