//! Where a push goes and how: `--delay`, `--priority`, `--id`. With a key all items are one push, for it is the push
//! that is known again.

use crate::cli::input::Next;
use crate::cli::lease::no_span;
use crate::cli::output::{complain, Output};
use crate::cli::table::{span_ms, Call, Plan, Planned, Refusal};
use crate::cli::transfer::{item_of, items_of_stdin, Batch};
use crate::client::{number, Answer, Ask, Code, Error, Session};
use crate::limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX, ITEM_BYTES_MAX, KEY_BYTES_MAX};
use crate::wire::operation::{PushOptions, QueueOperation, Target};
use std::io;

/// A label, and the options of pushes to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Destination {
    pub label: String,
    delay_ms: u64,
    priority: i32,
    key: Option<Vec<u8>>,
}

impl Destination {
    pub fn of(call: &Call<'_>) -> Result<Destination, Refusal> {
        let usage = |why: &str| Refusal::Usage(why.to_string());
        let delay_ms = match call.long("delay") {
            Some(text) => span_ms(text).ok_or_else(|| Refusal::Usage(no_span("--delay")))?,
            None => 0,
        };
        let priority = match call.long("priority") {
            Some(text) => std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()),
            None => Some(0),
        };
        let priority = priority.ok_or_else(|| {
            Refusal::Usage(format!("--priority takes a whole number from {} to {}", i32::MIN, i32::MAX))
        })?;
        let key = call.long("id").map(<[u8]>::to_vec);
        if key.as_ref().is_some_and(|key| key.is_empty() || key.len() > KEY_BYTES_MAX) {
            return Err(Refusal::Usage(format!("--id takes 1 to {KEY_BYTES_MAX} bytes")));
        }
        let destination = Destination { label: call.label()?.to_string(), delay_ms, priority, key };
        if call.long("session").is_some() && !destination.is_plain() {
            return Err(usage("--session does not go with --delay, --priority or --id"));
        }
        Ok(destination)
    }

    fn is_plain(&self) -> bool {
        self.delay_ms == 0 && self.priority == 0 && self.key.is_none()
    }

    /// All items must be one push.
    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Appends a push.
    pub fn encode_push<'i>(&self, out: &mut Vec<u8>, items: impl ExactSizeIterator<Item = &'i [u8]>) {
        let target = Target::Label(&self.label);
        if self.is_plain() {
            return QueueOperation::encode_push(out, target, items);
        }
        let (delay_ms, priority) = (self.delay_ms, self.priority);
        let options = PushOptions { delay_ms, priority, key: self.key.as_deref() };
        QueueOperation::encode_push_with(out, target, &options, items);
    }

    /// How many of so many items were pushed.
    pub fn pushed(&self, answer: &Answer, items: usize) -> Result<u64, Error> {
        if self.is_plain() {
            Ok(items as u64)
        } else {
            number(answer)
        }
    }
}

/// Plans a push with a key.
pub fn plan_keyed(call: &Call<'_>, to: Destination, tells: bool) -> Planned {
    let items = (1..call.operands.len()).map(|at| call.item(at)).collect::<Result<Vec<_>, _>>()?;
    Ok(Plan::Run(Box::new(move |session, out| {
        let pushed = gather(items, out).and_then(|batch| push(&to, batch, session));
        match pushed {
            Ok((answer, count)) if tells || out.style.json => out.number("count", answer.slot, count),
            Ok((answer, _)) if out.style.lines => out.ok(answer.slot),
            Ok(_) => {}
            Err(e) => out.error(&e),
        }
    })))
}

fn push(to: &Destination, mut batch: Batch, session: &mut Session) -> Result<(Answer, u64), Error> {
    let count = batch.len();
    let operation = batch.take_push(to);
    session.submit_bytes(Ask::Request, operation);
    let answer = session.wait()?;
    let pushed = to.pushed(&answer, count)?;
    Ok((answer, pushed))
}

/// These items, or the lines of stdin, as one push.
fn gather(items: Vec<Vec<u8>>, out: &mut Output) -> Result<Batch, Error> {
    let mut batch = Batch::default();
    if !items.is_empty() {
        items.iter().try_for_each(|item| add(&mut batch, item))?;
        return Ok(batch);
    }
    match read_all(&mut batch, out) {
        Ok(done) => done.map(|()| batch),
        Err(e) => {
            complain(&format!("stdin: {e}"));
            out.note_status(74);
            Err(Error::bad_request("nothing was pushed"))
        }
    }
}

fn read_all(batch: &mut Batch, out: &Output) -> io::Result<Result<(), Error>> {
    let mut input = items_of_stdin(out.style)?;
    loop {
        let added = match input.next_line() {
            Next::Line(line) => item_of(line, out.style.escape).and_then(|item| add(batch, &item)),
            Next::TooLong => Err(Error::refused(Code::TooLarge, format!("an item has at most {ITEM_BYTES_MAX} bytes"))),
            Next::Nothing => {
                input.fill()?;
                continue;
            }
            Next::End => return Ok(Ok(())),
        };
        if added.is_err() {
            return Ok(added);
        }
    }
}

fn add(batch: &mut Batch, item: &[u8]) -> Result<(), Error> {
    if !batch.has_room_for(item) {
        let most = format!("{BATCH_ITEMS_MAX} items of {BATCH_BYTES_MAX} bytes together");
        return Err(Error::refused(Code::TooLarge, format!("with --id all items are one push, which takes {most}")));
    }
    batch.add(item);
    Ok(())
}
