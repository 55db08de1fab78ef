//! `pop --session FILE`: every item once into a regular file, through kills of this program. The pop that is about to
//! be sent is in FILE first ([`popped`](crate::cli::popped)); its items are in the output, synced, before FILE says so;
//! whoever runs it again cuts what came later off the output and asks again under the same number (I3).

use crate::cli::lease::asked;
use crate::cli::ledger::{Account, Ledger};
use crate::cli::outlet::{self, Outlet};
use crate::cli::output::Output;
use crate::cli::popped::{Asked, Popped};
use crate::cli::progress;
use crate::cli::queue::try_print_items;
use crate::cli::store::{bad, Store, Trouble};
use crate::cli::table::{Call, Plan, Planned, Refusal};
use crate::client::{Answer, Ask, Code, Done, Error, Session, Withdrawn};
use crate::limits::{BATCH_ITEMS_MAX, SPAN_MS_MAX};
use crate::types::Slot;
use crate::wire::operation::{QueueOperation, Target, WAIT_FOR_EVER_MS};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Plans a `pop --session`.
pub fn plan(call: &Call<'_>, wanted: u64, wait_ms: u64) -> Planned {
    let path_of = |name| call.long(name).map(|path| PathBuf::from(OsStr::from_bytes(path)));
    let Some(path) = path_of("session") else {
        return Err(Refusal::Usage("--output goes with --session".to_string()));
    };
    if !call.alone {
        return Err(Error::bad_request("pop --session is a command of its own").into());
    }
    let (label, output) = (call.label()?.to_string(), path_of("output"));
    Ok(Plan::Run(Box::new(move |session, out| {
        if let Err(trouble) = pop(&label, &path, output.as_deref(), (wanted, wait_ms), session, out) {
            out.end_progress();
            trouble.tell(out);
        }
    })))
}

/// Goes on with the pop that the file tells of, or begins one.
fn pop(
    label: &str,
    path: &Path,
    output: Option<&Path>,
    (wanted, wait_ms): (u64, u64),
    session: &mut Session,
    out: &mut Output,
) -> Result<(), Trouble> {
    let (store, found) = Store::open(path, true)?;
    let is_new = found.is_none();
    let mut at = match found {
        Some(lines) => Popped::read(&lines).map_err(|why| bad(path, &why))?,
        None => Popped::new(label, out.style, None),
    };
    if at.label != label {
        return Err(bad(path, &format!("this belongs to a pop from {}", at.label)));
    }
    if (at.json, at.null, at.escape) != (out.style.json, out.style.null, out.style.escape) {
        return Err(bad(path, "this belongs to a pop with other options -j, -0 and -e"));
    }
    if !is_new && at.output.is_some() != output.is_some() {
        let to = at.output.as_ref().map_or("to stdout".to_string(), |path| format!("with --output {}", path.display()));
        return Err(bad(path, &format!("this belongs to a pop {to}")));
    }
    if output.is_some_and(|output| fs::canonicalize(output).is_ok_and(|output| output == store.path())) {
        return Err(bad(path, "the session and what was popped need a file each"));
    }
    let outlet = output.map(|output| Outlet::open(output, &mut at, is_new)).transpose()?;
    out.count(at.done.items, at.done.bytes);
    out.show_progress(progress::terminal(false, output.is_none()), "pop", Some(wanted).filter(|&wanted| wanted > 0));
    let until = (wait_ms < WAIT_FOR_EVER_MS).then(|| Instant::now() + Duration::from_millis(wait_ms.min(SPAN_MS_MAX)));
    at.forget_unsent();
    let inherited = at.asked.is_some();
    let mut drain = Drain { at: Ledger::new(store, at), outlet, wanted, until, wait_ms, inherited };
    drain.run(session, out)?;
    out.end_progress();
    Ok(())
}

/// Ends the session of a pop. What was popped and not written yet is written first.
pub fn end(store: Store, lines: &str, session: &mut Session, out: &mut Output) -> Result<Slot, Trouble> {
    let mut at = Popped::read(lines).map_err(|why| bad(store.path(), &why))?;
    at.forget_unsent();
    let Some((group, id)) = at.session else { return store.remove().map(|()| Slot(0)) };
    let outlet = match at.output.clone() {
        Some(path) if at.asked.is_some() => Some(Outlet::open(&path, &mut at, false)?),
        _ => None,
    };
    session.keep(group, id, at.seen());
    if at.asked.is_none() {
        return match session.end_kept(at.next) {
            Ok(answer) => store.remove().map(|()| answer.slot),
            Err(e) if e.is(Code::Expired) => store.remove().map(|()| Slot(0)),
            Err(e) => Err(Trouble::Again(e)),
        };
    }
    let at = Ledger::new(store, at);
    let mut drain = Drain { at, outlet, wanted: 0, until: None, wait_ms: 0, inherited: true };
    // Where that pop never came, nothing is popped now: what is executed under its number is void.
    drain.resolve(0, session, out)?;
    drain.at.store.remove().map(|()| Slot(0))
}

/// One run of such a pop.
struct Drain {
    at: Ledger<Popped>,
    outlet: Option<Outlet>,
    /// How many items there are to be, all runs together; 0 for all that come.
    wanted: u64,
    /// When waiting ends, if it does.
    until: Option<Instant>,
    wait_ms: u64,
    /// An earlier run may have sent what was asked.
    inherited: bool,
}

impl Drain {
    fn run(&mut self, session: &mut Session, out: &mut Output) -> Result<(), Trouble> {
        if let Some(Asked { count, wait_ms }) = self.at.asked {
            let enough = self.wanted > 0 && self.at.done.items >= self.wanted;
            if enough || wait_ms > self.left_ms() {
                // An earlier run waits for more, or longer, than this one is to.
                self.at.establish(session)?;
                self.resolve(if enough { 0 } else { count as usize }, session, out)?;
            }
        }
        while self.at.asked.is_some() || self.wanted == 0 && self.wait_ms > 0 || self.at.done.items < self.wanted {
            if self.at.asked.is_none() {
                self.ask();
            }
            self.at.establish(session)?;
            self.at.record(session)?;
            match self.answer(session, out) {
                Ok(answer) => self.take(Ok(answer), out)?,
                Err(e) if e.is(Code::Expired) => self.on_expired(&e, session)?,
                Err(e) if e.done() == Done::No && e.exit_status() == 75 => {
                    // Refused when it was applied: the number is spent. At the door nothing was ever sent.
                    self.at.asked = None;
                    if let Err(e) = self.at.pause(e, session) {
                        self.at.record(session)?;
                        return Err(e.into());
                    }
                }
                Err(e) if e.exit_status() == 1 => {
                    self.take(Err(e.clone()), out)?;
                    if self.left_ms() == 0 || !e.is(Code::Empty) {
                        self.at.record(session)?;
                        self.tell(e, out);
                        return Ok(());
                    }
                }
                Err(e) => return Err(Trouble::Again(e)),
            }
        }
        self.at.record(session)
    }

    /// How long there still is to wait.
    fn left_ms(&self) -> u64 {
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()).as_millis() as u64);
        left.unwrap_or(WAIT_FOR_EVER_MS)
    }

    /// The next pop.
    fn ask(&mut self) {
        let most = BATCH_ITEMS_MAX as u64;
        let count = if self.wanted == 0 { most } else { most.min(self.wanted - self.at.done.items) };
        self.at.asked = Some(Asked { count, wait_ms: self.left_ms() });
        self.at.next += 1;
        self.inherited = false;
    }

    /// The operation that asks for so many.
    fn operation(&self, count: usize, wait_ms: u64) -> Vec<u8> {
        let (target, mut bytes) = (Target::Label(&self.at.label), Vec::new());
        match wait_ms {
            0 => QueueOperation::Pop { target, count }.encode(&mut bytes),
            wait_ms => QueueOperation::PopWait { target, count, wait_ms }.encode(&mut bytes),
        }
        bytes
    }

    /// Asks, and waits for the answer.
    fn answer(&mut self, session: &mut Session, out: &mut Output) -> Result<Answer, Error> {
        let Asked { count, wait_ms } = self.at.asked.expect("set by the caller");
        session.submit_as(asked(wait_ms), self.at.next - 1, self.operation(count as usize, wait_ms));
        loop {
            match session.take() {
                Some(answer) => return answer,
                None => session.turn(None, out.progress()),
            };
        }
    }

    /// What was asked has its answer: the items are written. The file is yet to say so.
    fn take(&mut self, answer: Result<Answer, Error>, out: &mut Output) -> Result<(), Trouble> {
        if let Ok(answer) = answer {
            let mut text = Output::new(self.at.style(), None);
            let items = try_print_items(&mut text, &answer).map_err(Trouble::Again)?;
            outlet::write(self.outlet.as_mut(), &mut self.at, items as u64, text.gathered(), out)?;
        }
        self.at.asked = None;
        self.at.is_well();
        Ok(())
    }

    /// Finds out what became of the pop that an earlier run asked for, and ends the session in which it may wait. Where
    /// it was never executed, and does not wait, one of `count` items is executed in its place.
    fn resolve(&mut self, count: usize, session: &mut Session, out: &mut Output) -> Result<(), Trouble> {
        let fresh = Session::new(session.servers().to_vec(), session.timeout());
        let mut kept = std::mem::replace(session, fresh);
        kept.submit_as(Ask::Waiting(Duration::MAX), self.at.next - 1, self.operation(count, 0));
        let patience = kept.timeout().max(Duration::from_secs(1));
        match kept.withdraw(patience) {
            Withdrawn::Served(Ok(answer)) => self.take(Ok(answer), out)?,
            Withdrawn::Served(Err(e)) if e.is(Code::Expired) => return Err(self.gone()),
            Withdrawn::Served(Err(e)) if e.done() == Done::Unknown => return Err(Trouble::Again(e)),
            Withdrawn::Served(Err(_)) | Withdrawn::Unserved => self.take(Err(Error::bad_request("void")), out)?,
            Withdrawn::Untold => {
                let message = "no answer in time".to_string();
                let unknown = Error::Refused { code: Code::UnknownOutcome, message, done: Done::Unknown };
                return Err(Trouble::Again(unknown));
            }
        }
        self.at.forget_session();
        self.at.record(session)
    }

    /// The session is gone. That matters only where it could tell what became of something.
    fn on_expired(&mut self, e: &Error, session: &mut Session) -> Result<(), Trouble> {
        if e.done() == Done::Unknown || self.inherited {
            return Err(self.gone());
        }
        self.at.asked = None;
        self.at.renew(session);
        Ok(())
    }

    fn gone(&self) -> Trouble {
        let count = self.at.asked.map_or(0, |asked| asked.count);
        let message = format!(
            "the session of {} is gone: it was ended, or not used for a week. Whether up to {count} items were popped \
             from {} behind the {} that are written can't be told any more: go on with another session file and output",
            self.at.store.path().display(),
            self.at.label,
            self.at.done.items
        );
        Error::Refused { code: Code::Expired, message, done: Done::Unknown }.into()
    }

    /// There are fewer items than wanted.
    fn tell(&self, e: Error, out: &mut Output) {
        let Popped { done, .. } = &*self.at;
        out.end_progress();
        match done.items {
            _ if self.wanted == 0 && e.is(Code::Empty) => {}
            0 => out.error(&e),
            items if self.wanted == 0 => out.error(&e.about(&format!("after {items} items"))),
            items => out.error(&e.about(&format!("after {items} of {} items", self.wanted))),
        }
    }
}
