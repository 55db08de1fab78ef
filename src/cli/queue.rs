//! Commands on queues that come to one question and its answer.

use crate::cli::output::Output;
use crate::cli::table::{decimal, Call, Plan, Planned, Refusal};
use crate::client::{item_list, number, read_limit, rows, Answer, Ask, Error, Session};
use crate::limits::BATCH_ITEMS_MAX;
use crate::types::Slot;
use crate::wire::operation::{Cap, QueueOperation, QueueQuery, Target};
use serde_json::Value;

fn id(call: &Call<'_>) -> Result<u64, Error> {
    let shown = || String::from_utf8_lossy(&call.operands[0][..call.operands[0].len().min(40)]).into_owned();
    decimal(&call.operands[0]).ok_or_else(|| Error::bad_request(format!("{:?} is not a queue's id", shown())))
}

/// One operation, and how its answer is printed.
pub fn request(operation: &QueueOperation<'_>, print: fn(&mut Output, Result<Answer, Error>)) -> Planned {
    let mut bytes = Vec::new();
    operation.encode(&mut bytes);
    Ok(Plan::Ask { ask: Ask::Request, bytes, print })
}

fn query(call: &Call<'_>, query: &QueueQuery<'_>, print: fn(&mut Output, Result<Answer, Error>)) -> Planned {
    let mut bytes = Vec::new();
    query.encode(&mut bytes);
    Ok(Plan::Ask { ask: call.read(), bytes, print })
}

// ---- on ids

pub fn q_create(call: &Call<'_>) -> Planned {
    request(&QueueOperation::Create { label: call.label()? }, |out, answer| print_number(out, "id", answer))
}

pub fn q_destroy(call: &Call<'_>) -> Planned {
    request(&QueueOperation::Destroy { target: Target::Id(id(call)?) }, print_ok)
}

pub fn q_id(call: &Call<'_>) -> Planned {
    query(call, &QueueQuery::Id { label: call.label()? }, |out, answer| {
        match answer.and_then(|answer| Ok((answer.slot, number(&answer)?))) {
            Ok((slot, 0)) => {
                out.note_status(1);
                out.number("id", slot, -1);
            }
            Ok((slot, id)) => out.number("id", slot, id),
            Err(e) => out.error(&e),
        }
    })
}

pub fn q_push(call: &Call<'_>) -> Planned {
    let (target, item) = (Target::Id(id(call)?), call.item(1)?);
    let mut bytes = Vec::new();
    QueueOperation::encode_push(&mut bytes, target, [item.as_slice()].into_iter());
    Ok(Plan::Ask { ask: Ask::Request, bytes, print: print_ok })
}

pub fn q_pop(call: &Call<'_>) -> Planned {
    request(&QueueOperation::Pop { target: Target::Id(id(call)?), count: 1 }, print_items)
}

pub fn q_top(call: &Call<'_>) -> Planned {
    query(call, &QueueQuery::Peek { target: Target::Id(id(call)?), count: 1 }, print_items)
}

pub fn q_size(call: &Call<'_>) -> Planned {
    query(call, &QueueQuery::Size { target: Target::Id(id(call)?) }, |out, answer| print_number(out, "size", answer))
}

// ---- on labels

pub fn size(call: &Call<'_>) -> Planned {
    let target = Target::Label(call.label()?);
    query(call, &QueueQuery::Size { target }, |out, answer| print_number(out, "size", answer))
}

pub fn peek(call: &Call<'_>) -> Planned {
    let count = decimal(call.option(b'n').unwrap_or(b"1")).filter(|count| (1..=BATCH_ITEMS_MAX as u64).contains(count));
    let wrong = || Refusal::Usage(format!("COUNT is a number from 1 to {BATCH_ITEMS_MAX}"));
    let count = count.ok_or_else(wrong)? as usize;
    query(call, &QueueQuery::Peek { target: Target::Label(call.label()?), count }, print_items)
}

pub fn drop_queue(call: &Call<'_>) -> Planned {
    request(&QueueOperation::Destroy { target: Target::Label(call.label()?) }, print_ok)
}

pub fn purge(call: &Call<'_>) -> Planned {
    let target = Target::Label(call.label()?);
    request(&QueueOperation::Purge { target }, |out, answer| print_number(out, "count", answer))
}

/// `limit LABEL` shows what holds, `limit LABEL items=N` changes it.
pub fn limit(call: &Call<'_>) -> Planned {
    let target = Target::Label(call.label()?);
    if call.operands.len() == 1 {
        return query(call, &QueueQuery::Limits { target }, print_limit);
    }
    let (mut items, mut bytes) = (Cap::Keep, Cap::Keep);
    for word in &call.operands[1..] {
        let shown = || String::from_utf8_lossy(&word[..word.len().min(40)]).into_owned();
        let wrong = || Error::bad_request(format!("{:?} is not items=N or bytes=N, N a whole number or none", shown()));
        let (name, most) = word.iter().position(|&byte| byte == b'=').map(|at| word.split_at(at)).ok_or_else(wrong)?;
        let cap = match &most[1..] {
            b"none" => Cap::Lift,
            most => Cap::At(decimal(most).ok_or_else(wrong)?),
        };
        match name {
            b"items" => items = cap,
            b"bytes" => bytes = cap,
            _ => return Err(wrong().into()),
        }
    }
    request(&QueueOperation::Limit { target, items, bytes }, print_ok)
}

fn print_limit(out: &mut Output, answer: Result<Answer, Error>) {
    match answer.and_then(|answer| Ok((answer.slot, read_limit(&answer)?))) {
        Ok((slot, limit)) if out.style.json => {
            out.fields(slot, &[("items", Value::from(limit.items)), ("bytes", Value::from(limit.bytes))]);
        }
        Ok((_, limit)) => {
            let shown = |most: Option<u64>| most.map_or("none".to_string(), |most| most.to_string());
            out.line(&format!("items={} bytes={}", shown(limit.items), shown(limit.bytes)));
        }
        Err(e) => out.error(&e),
    }
}

pub fn queues(call: &Call<'_>) -> Planned {
    let ask = call.read();
    Ok(Plan::Run(Box::new(move |session, out| {
        if let Err(e) = list(ask, session, out) {
            out.error(&e);
        }
    })))
}

const HEADINGS: [&str; 8] = ["label", "id", "size", "leased", "delayed", "waiters", "bytes", "oldest_ms"];

fn list(ask: Ask, session: &mut Session, out: &mut Output) -> Result<(), Error> {
    let (mut after, mut cells) = (String::new(), Vec::new());
    loop {
        let answer = session.call(ask, |bytes| QueueQuery::List { after: &after }.encode(bytes))?;
        let page = rows(&answer)?;
        let Some(last) = page.last() else { break };
        after = last.label.to_string();
        for row in &page {
            let numbers = [row.id, row.size, row.leased, row.delayed, row.waiters, row.bytes, row.oldest_ms];
            if out.style.json {
                let label = [(HEADINGS[0], Value::from(row.label))];
                let numbers = HEADINGS[1..].iter().zip(numbers).map(|(name, number)| (*name, Value::from(number)));
                let buried = [("buried", Value::from(row.buried))];
                out.fields(answer.slot, &label.into_iter().chain(numbers).chain(buried).collect::<Vec<_>>());
            } else {
                cells.push(std::iter::once(row.label.to_string()).chain(numbers.map(|n| n.to_string())).collect());
            }
        }
    }
    if !out.style.json && !cells.is_empty() {
        out.table(&HEADINGS, &cells);
    }
    Ok(())
}

// ---- printing

pub fn print_ok(out: &mut Output, answer: Result<Answer, Error>) {
    match answer {
        Ok(answer) => out.ok(answer.slot),
        Err(e) => out.error(&e),
    }
}

pub fn print_items(out: &mut Output, answer: Result<Answer, Error>) {
    if let Err(e) = answer.and_then(|answer| try_print_items(out, &answer).map(drop)) {
        out.error(&e);
    }
}

/// Prints the items of an answer; returns how many.
pub fn try_print_items(out: &mut Output, answer: &Answer) -> Result<usize, Error> {
    let items = item_list(answer)?;
    let slot: Slot = answer.slot;
    items.iter().for_each(|item| out.item(slot, item));
    Ok(items.len())
}

fn print_number(out: &mut Output, name: &str, answer: Result<Answer, Error>) {
    match answer.and_then(|answer| Ok((answer.slot, number(&answer)?))) {
        Ok((slot, number)) => out.number(name, slot, number),
        Err(e) => out.error(&e),
    }
}
