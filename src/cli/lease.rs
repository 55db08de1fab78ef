//! Leases: to take items, and what whoever has a receipt says of one; and the items that were given up.

use crate::cli::output::Output;
use crate::cli::queue::{print_ok, request};
use crate::cli::table::{decimal, span_ms, Call, Plan, Planned, Refusal};
use crate::client::{dead_items, leased_items, number, Answer, Ask, Code, Error, Session};
use crate::limits::{BATCH_ITEMS_MAX, SPAN_MS_MAX};
use crate::types::Slot;
use crate::wire::operation::{Place, QueueOperation, QueueQuery, Receipt, Target, WAIT_FOR_EVER_MS};
use std::time::Duration;

/// How long a lease is where nothing is said.
const LEASE_MS: u64 = 60_000;

/// How long a pop or take may wait: not at all, so long, or for ever.
pub fn wait_ms(call: &Call<'_>) -> Result<u64, Refusal> {
    wait_ms_or(call, if call.option(b'w').is_some() { WAIT_FOR_EVER_MS } else { 0 })
}

/// The same, with what holds where `--wait` is not given.
pub fn wait_ms_or(call: &Call<'_>, usual: u64) -> Result<u64, Refusal> {
    match call.long("wait") {
        Some(text) => span_ms(text).ok_or_else(|| Refusal::Usage(no_span("--wait"))),
        None => Ok(usual),
    }
}

/// How an operation is asked for that may wait so long.
pub fn asked(wait_ms: u64) -> Ask {
    match wait_ms {
        0 => Ask::Request,
        WAIT_FOR_EVER_MS => Ask::Waiting(Duration::MAX),
        ms => Ask::Waiting(Duration::from_millis(ms)),
    }
}

pub fn no_span(what: &str) -> String {
    format!("{what} takes a number of seconds, at most {}", SPAN_MS_MAX / 1000)
}

fn receipt(call: &Call<'_>) -> Result<Receipt, Error> {
    let text = &call.operands[0];
    let shown = || String::from_utf8_lossy(&text[..text.len().min(40)]).into_owned();
    decimal(text).map(Receipt).ok_or_else(|| Error::bad_request(format!("{:?} is not a receipt", shown())))
}

/// How long a lease is.
pub fn lease_ms(call: &Call<'_>) -> Result<u64, Refusal> {
    let Some(text) = call.long("lease") else { return Ok(LEASE_MS) };
    span_ms(text).filter(|&ms| ms > 0).ok_or_else(|| {
        let why = format!("--lease takes a number of seconds above 0, at most {}", SPAN_MS_MAX / 1000);
        Refusal::Usage(why)
    })
}

pub fn take(call: &Call<'_>) -> Planned {
    let (lease_ms, wait_ms) = (lease_ms(call)?, wait_ms(call)?);
    let mut bytes = Vec::new();
    QueueOperation::Take { target: Target::Label(call.label()?), count: 1, lease_ms, wait_ms }.encode(&mut bytes);
    Ok(Plan::Ask { ask: asked(wait_ms), bytes, print: print_leased })
}

pub fn ack(call: &Call<'_>) -> Planned {
    request(&QueueOperation::Ack { receipt: receipt(call)? }, print_ok)
}

pub fn nack(call: &Call<'_>) -> Planned {
    let delay_ms = match call.long("delay") {
        Some(text) => span_ms(text).ok_or_else(|| Refusal::Usage(no_span("--delay")))?,
        None => 0,
    };
    request(&QueueOperation::Nack { receipt: receipt(call)?, delay_ms }, print_ok)
}

pub fn extend(call: &Call<'_>) -> Planned {
    let lease_ms = span_ms(&call.operands[1]).filter(|&ms| ms > 0);
    let wrong = || Error::bad_request(format!("SECS is a number above 0, at most {}", SPAN_MS_MAX / 1000));
    let lease_ms = lease_ms.ok_or_else(wrong)?;
    request(&QueueOperation::Extend { receipt: receipt(call)?, lease_ms }, print_ok)
}

pub fn bury(call: &Call<'_>) -> Planned {
    request(&QueueOperation::Bury { receipt: receipt(call)? }, print_ok)
}

fn print_leased(out: &mut Output, answer: Result<Answer, Error>) {
    let leased = answer.and_then(|answer| {
        leased_items(&answer)?.iter().for_each(|leased| out.leased(answer.slot, leased));
        Ok(())
    });
    if let Err(e) = leased {
        out.error(&e);
    }
}

// ---- the buried

pub fn dead(call: &Call<'_>) -> Planned {
    let (label, ask) = (call.label()?.to_string(), call.read());
    Ok(Plan::Run(Box::new(move |session, out| {
        if let Err(e) = list_dead(&label, ask, session, out) {
            out.error(&e);
        }
    })))
}

fn list_dead(label: &str, ask: Ask, session: &mut Session, out: &mut Output) -> Result<(), Error> {
    let mut after: Option<Place> = None;
    loop {
        let query = QueueQuery::Buried { target: Target::Label(label), after, count: BATCH_ITEMS_MAX };
        let answer = session.call(ask, |bytes| query.encode(bytes))?;
        let page = dead_items(&answer)?;
        let Some(last) = page.last() else { break };
        page.iter().for_each(|dead| out.dead(answer.slot, dead));
        out.flush();
        after = Some(last.place);
    }
    match after {
        Some(_) => Ok(()),
        None => Err(Error::refused(Code::Empty, format!("nothing is buried in queue {label}"))),
    }
}

pub fn kick(call: &Call<'_>) -> Planned {
    let count = match call.option(b'n') {
        Some(text) => decimal(text).ok_or_else(|| Refusal::Usage("COUNT is a whole number".to_string()))?,
        None => u64::MAX,
    };
    let label = call.label()?.to_string();
    Ok(Plan::Run(Box::new(move |session, out| match kick_many(&label, count, session) {
        Ok((slot, kicked)) => out.number("count", slot, kicked),
        Err(e) => out.error(&e),
    })))
}

/// Kicks so many items, some at a time; where the last were kicked, and how many.
fn kick_many(label: &str, wanted: u64, session: &mut Session) -> Result<(Slot, u64), Error> {
    let mut kicked = 0;
    loop {
        let count = (wanted - kicked).min(BATCH_ITEMS_MAX as u64) as usize;
        if count == 0 {
            return Ok((Slot(0), kicked));
        }
        let kick = QueueOperation::Kick { target: Target::Label(label), count };
        let answer = session.call(Ask::Request, |bytes| kick.encode(bytes))?;
        let some = number(&answer)?;
        kicked += some;
        if some < count as u64 || kicked == wanted {
            return Ok((answer.slot, kicked));
        }
    }
}
