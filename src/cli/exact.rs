//! `push --session FILE`: every item of an input once, through kills of this program. What is about to be sent is
//! written into the file first, with its numbers and its place in the input ([`position`](crate::cli::position));
//! whoever runs it again on the same input sends exactly what is unacknowledged again, under the same numbers, and
//! goes on behind it (I3). What was refused when it was applied needs another number, which is written first as well.

use crate::cli::drain;
use crate::cli::input::{Input, Next};
use crate::cli::ledger::{Account, Ledger};
use crate::cli::output::{complain, Output, Style};
use crate::cli::popped::Popped;
use crate::cli::position::{Position, Sent};
use crate::cli::progress;
use crate::cli::store::{bad, Extent, Store, Trouble};
use crate::cli::table::{Call, Plan, Refusal};
use crate::cli::transfer::{item_of, items_of_stdin, Batch};
use crate::client::{Answer, Ask, Code, Done, Error, Session};
use crate::limits::ITEM_BYTES_MAX;
use crate::types::Slot;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Pushes that may be unacknowledged at once, each in the file.
const AHEAD_MAX: usize = 16;
/// A batch that is not full waits while so many are under way.
const UNDER_WAY: usize = 4;

/// Plans a `push --session`.
pub fn plan(call: &Call<'_>, label: &str, tells: bool, path: &[u8]) -> Result<Plan, Refusal> {
    if call.operands.len() > 1 {
        return Err(Refusal::Usage("with --session the items come from stdin".to_string()));
    }
    if !call.alone {
        return Err(Error::bad_request("push --session reads stdin, which has the commands here").into());
    }
    let (label, path) = (label.to_string(), PathBuf::from(OsStr::from_bytes(path)));
    Ok(Plan::Run(Box::new(move |session, out| {
        let input = items_of_stdin(out.style).map_err(stdin);
        if let Err(trouble) = input.and_then(|input| push(&label, &path, tells, input, session, out)) {
            trouble.tell(out);
        }
    })))
}

/// Plans a `session end`.
pub fn plan_session(call: &Call<'_>) -> Result<Plan, Refusal> {
    if call.operands[0] != b"end" {
        return Err(Refusal::Usage("a session can be ended".to_string()));
    }
    if !call.alone {
        return Err(Error::bad_request("a session file is ended by a command of its own").into());
    }
    let path = PathBuf::from(OsStr::from_bytes(&call.operands[1]));
    Ok(Plan::Run(Box::new(move |session, out| match end(&path, session, out) {
        Ok(slot) if out.style.json => out.ok(slot),
        Ok(_) => {}
        Err(trouble) => trouble.tell(out),
    })))
}

/// Ends the session that the file keeps, and removes the file; where it was ended.
fn end(path: &Path, session: &mut Session, out: &mut Output) -> Result<Slot, Trouble> {
    let (store, found) = Store::open(path, false)?;
    let Some(lines) = found else { return store.remove().map(|()| Slot(0)) };
    if Popped::is_meant(&lines) {
        return drain::end(store, &lines, session, out);
    }
    let position = Position::read(&lines).map_err(|why| bad(path, &why))?;
    let mut slot = Slot(0);
    if let Some((group, id)) = position.session {
        session.keep(group, id, position.seen());
        // Behind whatever may have been sent.
        match session.end_kept(position.next) {
            Ok(answer) => slot = answer.slot,
            Err(e) if e.is(Code::Expired) => {}
            Err(e) => return Err(Trouble::Again(e)),
        }
        let items: u64 = position.sent.iter().map(|sent| sent.extent.items).sum();
        if items > 0 && position.seen() > 0 {
            complain(&format!("{items} items behind item {} may have been pushed, or not", position.done.items));
        }
    }
    store.remove().map(|()| slot)
}

fn stdin(e: io::Error) -> Trouble {
    Trouble::File(format!("stdin: {e}"), 74)
}

/// Goes on with the push that the file tells of, or begins one.
pub(super) fn push(
    label: &str,
    path: &Path,
    tells: bool,
    input: Input,
    session: &mut Session,
    out: &mut Output,
) -> Result<(), Trouble> {
    let (store, found) = Store::open(path, true)?;
    let style = out.style;
    let at = match found {
        Some(lines) => Position::read(&lines).map_err(|why| bad(path, &why))?,
        None => Position::new(label, style.null, style.escape),
    };
    if at.label != label {
        return Err(bad(path, &format!("this belongs to a push to {}", at.label)));
    }
    if (at.null, at.escape) != (style.null, style.escape) {
        return Err(bad(path, "this belongs to a push with other options -0 and -e"));
    }
    let skipped = at.skipped;
    let mut exact = Exact {
        at: Ledger::new(store, at),
        input,
        style,
        lines: 0,
        batch: Batch::default(),
        skipped: 0,
        fresh: 0,
        pushes: VecDeque::new(),
        submitted: 0,
        held: None,
        slot: Slot(0),
    };
    exact.replay()?;
    out.count(exact.at.done.items, exact.at.done.bytes);
    out.show_progress(progress::terminal(true, false), "push", None);
    let pushed = exact.push_all(session, out);
    out.end_progress();
    // What was acknowledged meanwhile need not be asked for again.
    let kept = exact.at.record(session);
    if skipped > 0 {
        let why = format!("{skipped} lines of this input were not pushed, as an earlier run has told");
        out.error(&Error::bad_request(why));
    }
    if (tells || out.style.json) && pushed.is_ok() {
        out.number("count", exact.slot, exact.at.done.items);
    }
    pushed.and(kept)
}

/// Why nothing is submitted before all that was submitted has its answer.
enum Held {
    /// Pushes were refused for now when they were applied: their numbers are spent.
    Spent(Error),
    /// The session is gone, and certainly nothing of what waits was pushed in it.
    Expired,
}

/// One run of such a push.
struct Exact {
    at: Ledger<Position>,
    input: Input,
    style: Style,
    /// Lines taken from the input, items or not.
    lines: u64,
    /// Items that are in no push yet, and lines among them that are none.
    batch: Batch,
    skipped: u64,
    /// How many of the last of `sent` no earlier run can have sent.
    fresh: usize,
    /// The pushes of `sent`, and how many of them are submitted.
    pushes: VecDeque<Vec<u8>>,
    submitted: usize,
    held: Option<Held>,
    slot: Slot,
}

impl Exact {
    // ---- what earlier runs have taken

    /// Reads the input up to where they came, and makes their unacknowledged pushes again, byte for byte.
    fn replay(&mut self) -> Result<(), Trouble> {
        self.input.count();
        let mut place = self.at.done.bytes;
        self.read_to(place)?;
        for sent in self.at.sent.clone() {
            self.batch = Batch::default();
            place += sent.extent.bytes;
            self.read_to(place)?;
            if self.batch.len() as u64 != sent.extent.items {
                return Err(self.other("its lines are others"));
            }
            self.pushes.push_back(self.batch.take_operation(&self.at.label));
        }
        self.read_to(self.at.taken)?;
        self.batch = Batch::default();
        if self.at.seen() == 0 {
            self.fresh = self.pushes.len();
        }
        if self.input.taken().1 != self.at.hash {
            return Err(self.other(&format!("its first {} bytes are others", self.at.taken)));
        }
        Ok(())
    }

    /// Reads on to this place of the input, the end of a line.
    fn read_to(&mut self, place: u64) -> Result<(), Trouble> {
        let keeps_from = self.at.done.bytes;
        while self.input.taken().0 < place {
            match self.input.next_line() {
                Next::Line(line) => {
                    if let Ok(item) = item_of(line, self.style.escape) {
                        self.batch.add(&item);
                    }
                }
                Next::TooLong => {}
                Next::Nothing => {
                    self.input.fill().map_err(stdin)?;
                    continue;
                }
                Next::End => {
                    let bytes = self.input.taken().0;
                    return Err(self.other(&format!("it ends after {bytes} bytes, {} were taken", self.at.taken)));
                }
            }
            self.lines += 1;
            if place == keeps_from {
                self.batch = Batch::default();
            }
        }
        if self.input.taken().0 > place {
            return Err(self.other("its lines are others"));
        }
        Ok(())
    }

    fn other(&self, why: &str) -> Trouble {
        bad(self.at.store.path(), &format!("stdin is not the input that this belongs to: {why}"))
    }

    // ---- the way forward

    fn push_all(&mut self, session: &mut Session, out: &mut Output) -> Result<(), Trouble> {
        loop {
            let before = self.at.done;
            self.hear(session)?;
            out.count(self.at.done.items - before.items, self.at.done.bytes - before.bytes);
            if self.held.is_some() {
                self.come_back(session)?;
                continue;
            }
            let drained = self.gather(session, out);
            let ended = drained && self.input.is_ended();
            if drained && !self.batch.is_empty() && (ended || session.pending() < UNDER_WAY) {
                self.close(self.input.taken());
            }
            if self.submitted < self.pushes.len() {
                self.submit(session)?;
            }
            if ended && self.pushes.is_empty() {
                (self.at.taken, self.at.hash) = self.input.taken();
                self.at.done.bytes = self.at.taken;
                self.at.skipped += std::mem::take(&mut self.skipped);
                return Ok(());
            }
            let reads = drained && !ended && session.has_room();
            if session.turn(reads.then(|| self.input.fd()), out.progress()) {
                self.input.fill().map_err(stdin)?;
            }
        }
    }

    /// Takes the lines that were read into pushes; true when there are no more of them.
    fn gather(&mut self, session: &Session, out: &mut Output) -> bool {
        let mut room = AHEAD_MAX.saturating_sub(self.pushes.len());
        while room > 0 && session.has_room() {
            let place = self.input.taken();
            let item = match self.input.next_line() {
                Next::Line(line) => item_of(line, self.style.escape).map(|item| item.into_owned()),
                Next::TooLong => Err(Error::refused(Code::TooLarge, format!("more than {ITEM_BYTES_MAX} bytes"))),
                Next::Nothing | Next::End => return true,
            };
            self.lines += 1;
            match item {
                Ok(item) => {
                    if !self.batch.has_room_for(&item) {
                        self.close(place);
                        room -= 1;
                    }
                    self.batch.add(&item);
                }
                Err(e) => {
                    self.skipped += 1;
                    out.error(&e.about(&format!("line {} was not pushed", self.lines)));
                }
            }
        }
        false
    }

    /// What was gathered becomes a push; the input was taken up to `place`, which has this hash.
    fn close(&mut self, (place, hash): (u64, u64)) {
        let extent = Extent { bytes: place - self.at.taken, items: self.batch.len() as u64 };
        let number = self.at.next;
        self.at.sent.push_back(Sent { number, extent });
        self.at.next += 1;
        self.at.skipped += std::mem::take(&mut self.skipped);
        (self.at.taken, self.at.hash) = (place, hash);
        self.pushes.push_back(self.batch.take_operation(&self.at.label));
        self.fresh += 1;
    }

    /// Writes down what is about to be sent, and submits it.
    fn submit(&mut self, session: &mut Session) -> Result<(), Trouble> {
        self.at.establish(session)?;
        self.at.record(session)?;
        for (sent, push) in self.at.sent.iter().zip(&self.pushes).skip(self.submitted) {
            session.submit_as(Ask::Request, sent.number, push.clone());
        }
        self.submitted = self.pushes.len();
        Ok(())
    }

    // ---- what is answered

    /// Takes the answers that are there. Errors where nothing more is to be done now.
    fn hear(&mut self, session: &mut Session) -> Result<(), Trouble> {
        while let Some(answer) = session.take() {
            match answer {
                Ok(answer) if self.held.is_none() => self.acknowledge(&answer),
                Ok(_) => {
                    let why = "a push was executed although one before it was refused";
                    return Err(Error::refused(Code::Internal, why).into());
                }
                Err(e) if e.is(Code::Expired) => self.on_expired(&e)?,
                Err(e) if e.done() == Done::No && e.exit_status() == 75 => {
                    self.held.get_or_insert(Held::Spent(e));
                }
                Err(e) => return Err(Trouble::Again(e.about(&self.behind()))),
            }
        }
        Ok(())
    }

    fn behind(&self) -> String {
        format!("behind item {}", self.at.done.items)
    }

    fn acknowledge(&mut self, answer: &Answer) {
        let sent = self.at.sent.pop_front().expect("an answer for each push");
        self.pushes.pop_front();
        self.submitted -= 1;
        self.fresh = self.fresh.min(self.pushes.len());
        self.at.done.bytes += sent.extent.bytes;
        self.at.done.items += sent.extent.items;
        self.slot = answer.slot;
        self.at.is_well();
    }

    /// The session is gone. That matters only where it could tell what became of something.
    fn on_expired(&mut self, e: &Error) -> Result<(), Trouble> {
        if e.done() == Done::No && self.fresh == self.pushes.len() {
            self.held = Some(Held::Expired);
            return Ok(());
        }
        let first = self.at.done.items + 1;
        let last = self.at.done.items + self.at.sent.iter().map(|sent| sent.extent.items).sum::<u64>();
        let message = format!(
            "the session of {} is gone: it was ended, or not used for a week. Whether items {first} to {last} were \
             pushed can't be told any more: look at the end of queue {}, and push what is missing with another file",
            self.at.store.path().display(),
            self.at.label
        );
        Err(Error::Refused { code: Code::Expired, message, done: Done::Unknown }.into())
    }

    /// Once all that was submitted has its answer: what was refused is submitted anew, under new numbers or in a new
    /// session.
    fn come_back(&mut self, session: &mut Session) -> Result<(), Trouble> {
        if session.pending() > 0 {
            session.turn(None, None);
            return Ok(());
        }
        match self.held.take() {
            Some(Held::Spent(e)) => {
                self.at.pause(e, session).map_err(|e| e.about(&self.behind()))?;
                let next = self.at.next;
                self.at.number_from(next);
            }
            Some(Held::Expired) => self.at.renew(session),
            None => return Ok(()),
        }
        self.submitted = 0;
        // No copy of it is anywhere: not under these numbers.
        self.fresh = self.pushes.len();
        Ok(())
    }
}
