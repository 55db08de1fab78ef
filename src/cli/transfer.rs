//! Many items at once: `push` packs what is there into batches and keeps several under way; `pop` asks ahead of what
//! it has written, but by no more than a bounded number of items, for these are lost if it dies.

use crate::cli::destination::{plan_keyed, Destination};
use crate::cli::drain;
use crate::cli::exact;
use crate::cli::follow::follow;
use crate::cli::input::{Input, Next};
use crate::cli::lease::{asked, wait_ms};
use crate::cli::line::unescape;
use crate::cli::output::{complain, Output, Style};
use crate::cli::progress;
use crate::cli::queue::{print_items, print_ok, try_print_items};
use crate::cli::table::{decimal, Call, Plan, Refusal};
use crate::client::{check_item, number, Answer, Ask, Error, Session};
use crate::limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX, ITEM_BYTES_MAX};
use crate::types::Slot;
use crate::wire::answer::Code;
use crate::wire::codec::varint_len;
use crate::wire::operation::{QueueOperation, Target};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;

/// Items popped ahead of what was written to stdout.
const POP_AHEAD_MAX: u64 = 256;
/// Items that one pop asks for: two are under way, so that the replicas work while we write.
const POP_ITEMS: u64 = POP_AHEAD_MAX / 2;
/// A batch that is not full waits while so many are under way.
const PUSHES_UNDER_WAY: usize = 4;

/// Items on their way into one push.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Bytes that the items take in the operation.
    encoded: usize,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// How many items are in it.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn has_room_for(&self, item: &[u8]) -> bool {
        let bytes = self.encoded + varint_len(item.len() as u64) + item.len();
        self.is_empty() || self.ends.len() < BATCH_ITEMS_MAX && bytes <= BATCH_BYTES_MAX
    }

    pub fn add(&mut self, item: &[u8]) {
        self.encoded += varint_len(item.len() as u64) + item.len();
        self.bytes.extend_from_slice(item);
        self.ends.push(self.bytes.len());
    }

    fn items(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let (bytes, ends) = (&self.bytes, &self.ends);
        let start = |k: usize| if k == 0 { 0 } else { ends[k - 1] };
        (0..ends.len()).map(move |k| &bytes[start(k)..ends[k]])
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.encoded = 0;
    }

    /// The items as one push; the batch begins anew.
    pub fn take_operation(&mut self, label: &str) -> Vec<u8> {
        let mut operation = Vec::with_capacity(self.encoded + label.len() + 16);
        QueueOperation::encode_push(&mut operation, Target::Label(label), self.items());
        self.clear();
        operation
    }

    /// The same for a push that may have options.
    pub fn take_push(&mut self, to: &Destination) -> Vec<u8> {
        let mut operation = Vec::with_capacity(self.encoded + to.label.len() + 64);
        to.encode_push(&mut operation, self.items());
        self.clear();
        operation
    }

    /// Submits the items and begins anew.
    fn submit(&mut self, session: &mut Session, to: &Destination) {
        session.submit_bytes(Ask::Request, self.take_push(to));
    }
}

/// The item that stands in a line.
pub fn item_of(line: &[u8], escape: bool) -> Result<Cow<'_, [u8]>, Error> {
    if !escape {
        return Ok(Cow::Borrowed(line));
    }
    let item = unescape(line)?;
    check_item(&item)?;
    Ok(Cow::Owned(item))
}

/// stdin as items: separated as `style` says, each as long as may be.
pub fn items_of_stdin(style: Style) -> io::Result<Input> {
    let longest = if style.escape { 4 * ITEM_BYTES_MAX } else { ITEM_BYTES_MAX };
    Input::stdin(if style.null { 0 } else { b'\n' }, longest)
}

// ---- push

pub fn push(call: &Call<'_>) -> Result<Plan, Refusal> {
    let to = Destination::of(call)?;
    let tells = call.option(b'v').is_some();
    if let Some(path) = call.long("session") {
        return exact::plan(call, &to.label, tells, path);
    }
    if call.operands.len() == 1 && !call.alone {
        let why = "push without ITEM reads stdin, which has the commands here";
        return Err(Error::bad_request(why).into());
    }
    if call.operands.len() == 2 && !call.alone {
        // Line upon line of these is under way at once.
        let mut bytes = Vec::new();
        to.encode_push(&mut bytes, [call.item(1)?.as_slice()].into_iter());
        return Ok(Plan::Ask { ask: Ask::Request, bytes, print: if tells { tell_one } else { print_one } });
    }
    if to.has_key() {
        return plan_keyed(call, to, tells);
    }
    if call.operands.len() == 1 {
        return Ok(Plan::Run(Box::new(move |session, out| Push::new(to, tells).run_stdin(session, out))));
    }
    let items = (1..call.operands.len()).map(|at| call.item(at)).collect::<Result<Vec<_>, _>>()?;
    Ok(Plan::Run(Box::new(move |session, out| Push::new(to, tells).run_items(&items, session, out))))
}

/// What came of a push of one item.
fn print_one(out: &mut Output, answer: Result<Answer, Error>) {
    if out.style.json {
        tell_one(out, answer);
    } else {
        print_ok(out, answer);
    }
}

/// The same, as a count, which the answer has where the push had options.
fn tell_one(out: &mut Output, answer: Result<Answer, Error>) {
    let counted = |answer: Answer| Ok((answer.slot, if answer.body.is_empty() { 1 } else { number(&answer)? }));
    match answer.and_then(counted) {
        Ok((slot, count)) => out.number("count", slot, count),
        Err(e) => out.error(&e),
    }
}

/// One push of many items.
struct Push {
    to: Destination,
    tells: bool,
    batch: Batch,
    /// Items, and in the present batch those up to here, counted from the first line.
    taken: u64,
    /// For each push under way the number of its items, of their bytes, and that of its last line.
    under_way: VecDeque<(usize, usize, u64)>,
    pushed: u64,
    slot: Slot,
    failed: bool,
    /// What was refused last, from which item through which: told once for a run of items with the same fate.
    refused: Option<(Error, u64, u64)>,
}

impl Push {
    fn new(to: Destination, tells: bool) -> Push {
        Push {
            to,
            tells,
            batch: Batch::default(),
            taken: 0,
            under_way: VecDeque::new(),
            pushed: 0,
            slot: Slot(0),
            failed: false,
            refused: None,
        }
    }

    fn run_items(mut self, items: &[Vec<u8>], session: &mut Session, out: &mut Output) {
        for item in items {
            self.taken += 1;
            if !self.batch.has_room_for(item) {
                self.send(session, self.taken - 1);
            }
            self.batch.add(item);
            while !session.has_room() {
                self.hear(session, out);
                session.turn(None, None);
            }
        }
        self.finish(session, out);
    }

    fn run_stdin(mut self, session: &mut Session, out: &mut Output) {
        out.show_progress(progress::terminal(true, false), "push", None);
        let result = items_of_stdin(out.style).and_then(|mut input| self.read_all(&mut input, session, out));
        self.finish(session, out);
        if let Err(e) = result {
            complain(&format!("stdin: {e}"));
            out.note_status(74);
        }
    }

    fn read_all(&mut self, input: &mut Input, session: &mut Session, out: &mut Output) -> io::Result<()> {
        loop {
            self.hear(session, out);
            if self.failed {
                return Ok(());
            }
            let drained = self.pack(input, session, out);
            if drained && input.is_ended() {
                return Ok(());
            }
            if drained && !self.batch.is_empty() && session.pending() < PUSHES_UNDER_WAY {
                self.send(session, self.taken);
            }
            let reads = drained && session.has_room();
            if session.turn(reads.then(|| input.fd()), out.progress()) {
                input.fill()?;
            }
        }
    }

    /// Takes the lines that were read into batches; true when there are no more of them.
    fn pack(&mut self, input: &mut Input, session: &mut Session, out: &mut Output) -> bool {
        while session.has_room() {
            let line = match input.next_line() {
                Next::Line(line) => line,
                Next::TooLong => {
                    self.taken += 1;
                    let why = format!("line {} has more than {ITEM_BYTES_MAX} bytes and was not pushed", self.taken);
                    out.error(&Error::refused(Code::TooLarge, why));
                    continue;
                }
                Next::Nothing | Next::End => return true,
            };
            self.taken += 1;
            let item = match item_of(line, out.style.escape) {
                Ok(item) => item,
                Err(e) => {
                    out.error(&e.about(&format!("line {} was not pushed", self.taken)));
                    continue;
                }
            };
            if !self.batch.has_room_for(&item) {
                self.send(session, self.taken - 1);
            }
            self.batch.add(&item);
        }
        false
    }

    fn send(&mut self, session: &mut Session, through: u64) {
        self.under_way.push_back((self.batch.len(), self.batch.bytes.len(), through));
        self.batch.submit(session, &self.to);
    }

    /// Takes the answers that are there.
    fn hear(&mut self, session: &mut Session, out: &mut Output) {
        while let Some(answer) = session.take() {
            let (count, bytes, through) = self.under_way.pop_front().expect("an answer for each push");
            match answer {
                Ok(answer) => {
                    self.pushed += count as u64;
                    out.count(count as u64, bytes as u64);
                    self.slot = answer.slot;
                }
                Err(e) => {
                    self.failed = true;
                    match &mut self.refused {
                        Some((same, _, last)) if *same == e => *last = through,
                        _ => {
                            self.tell(out);
                            self.refused = Some((e, through + 1 - count as u64, through));
                        }
                    }
                }
            }
        }
    }

    /// Tells which items were refused.
    fn tell(&mut self, out: &mut Output) {
        if let Some((error, first, last)) = self.refused.take() {
            let which = if first == last { format!("item {first}") } else { format!("items {first} to {last}") };
            out.error(&error.about(&which));
        }
    }

    fn finish(&mut self, session: &mut Session, out: &mut Output) {
        if !self.failed && !self.batch.is_empty() {
            self.send(session, self.taken);
        }
        while session.pending() > 0 {
            session.turn(None, out.progress());
            self.hear(session, out);
        }
        out.end_progress();
        self.tell(out);
        let tells = self.tells || out.style.json;
        if tells && (!self.failed || self.pushed > 0) {
            out.number("count", self.slot, self.pushed);
        } else if out.style.lines && !self.failed {
            out.ok(self.slot);
        }
    }
}

// ---- pop

pub fn pop(call: &Call<'_>) -> Result<Plan, Refusal> {
    let count = decimal(call.option(b'n').unwrap_or(b"1"));
    let count = count.ok_or_else(|| Refusal::Usage("COUNT is a whole number".to_string()))?;
    let (label, wait_ms) = (call.label()?.to_string(), wait_ms(call)?);
    if call.long("session").is_some() || call.long("output").is_some() {
        return drain::plan(call, count, wait_ms);
    }
    let target = Target::Label(&label);
    if count == 1 {
        let mut bytes = Vec::new();
        match wait_ms {
            0 => QueueOperation::Pop { target, count: 1 }.encode(&mut bytes),
            wait_ms => QueueOperation::PopWait { target, count: 1, wait_ms }.encode(&mut bytes),
        }
        return Ok(Plan::Ask { ask: asked(wait_ms), bytes, print: print_items });
    }
    if wait_ms > 0 {
        return Ok(Plan::Run(Box::new(move |session, out| follow(&label, count, wait_ms, session, out))));
    }
    Ok(Plan::Run(Box::new(move |session, out| pop_many(&label, count, session, out))))
}

fn pop_many(label: &str, wanted: u64, session: &mut Session, out: &mut Output) {
    out.show_progress(progress::terminal(false, true), "pop", Some(wanted));
    let (mut printed, mut ahead) = (0, 0);
    let mut asked = VecDeque::new();
    let mut ended: Option<Error> = None;
    loop {
        while let Some(answer) = session.take() {
            let count: u64 = asked.pop_front().expect("an answer for each pop");
            match answer.and_then(|answer| try_print_items(out, &answer)) {
                Ok(count) => printed += count as u64,
                // The first says why; what is under way behind it is heard all the same.
                Err(e) if ended.is_none() || e.exit_status() != 1 => {
                    if let Some(earlier) = ended.replace(e).filter(|earlier| earlier.exit_status() != 1) {
                        out.note_status(earlier.exit_status());
                    }
                }
                Err(_) => {}
            }
            out.flush();
            ahead -= count;
        }
        while ended.is_none() && printed + ahead < wanted {
            let count = POP_ITEMS.min(wanted - printed - ahead);
            if ahead + count > POP_AHEAD_MAX {
                break;
            }
            let operation = QueueOperation::Pop { target: Target::Label(label), count: count as usize };
            session.submit(Ask::Request, |bytes| operation.encode(bytes));
            asked.push_back(count);
            ahead += count;
        }
        if session.pending() == 0 {
            break;
        }
        session.turn(None, out.progress());
    }
    out.end_progress();
    match ended {
        Some(e) if printed < wanted || e.exit_status() != 1 => match e {
            e if printed > 0 => out.error(&e.about(&format!("after {printed} of {wanted} items"))),
            e => out.error(&e),
        },
        _ => {}
    }
}
