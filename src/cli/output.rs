//! Answers on stdout, as text or as JSON, and the exit status they add up to.

use crate::cli::line::{escape, one_line};
use crate::cli::progress::{Progress, Tally};
use crate::cli::stream::Stream;
use crate::client::{Answer, Error, Session};
use crate::types::Slot;
use crate::wire::operation::{Dead, Leased};
use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use serde_json::{Number, Value};
use std::fs::File;
use std::io::{self, Write};
use std::time::Instant;

/// Answers are gathered up to so many bytes before they are written.
const GATHERED_BYTES: usize = 128 << 10;
/// Exit statuses from the worst on; any other is worse still.
const WORST_FIRST: [u8; 9] = [70, 76, 77, 79, 75, 69, 65, 1, 0];

/// Of two exit statuses the one that a script must know of.
pub fn worse(a: u8, b: u8) -> u8 {
    let rank = |status: u8| WORST_FIRST.iter().position(|&s| s == status);
    if rank(a) <= rank(b) {
        a
    } else {
        b
    }
}

/// An item as a field.
fn json_item(item: &[u8]) -> (&'static str, Value) {
    match std::str::from_utf8(item) {
        Ok(text) => ("item", text.into()),
        Err(_) => ("item64", STANDARD.encode(item).into()),
    }
}

/// How answers are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Style {
    pub json: bool,
    /// Items are separated by NUL.
    pub null: bool,
    /// Items are escaped.
    pub escape: bool,
    /// Errors take their answer's place on stdout, and nothing goes without an answer.
    pub lines: bool,
    /// For people: columns are aligned and have headings.
    pub terminal: bool,
}

/// Where answers go.
#[derive(Debug)]
pub struct Output {
    pub style: Style,
    status: u8,
    gathered: Vec<u8>,
    /// `None` gathers without end, for tests.
    stdout: Option<Stream>,
    /// Items that were printed, or acknowledged, and what shows them to a person who waits.
    tally: Tally,
    progress: Option<Progress>,
}

impl Output {
    pub fn new(style: Style, stdout: Option<Stream>) -> Output {
        Output { style, status: 0, gathered: Vec::new(), stdout, tally: Tally::default(), progress: None }
    }

    /// The worst status so far.
    pub fn status(&self) -> u8 {
        self.status
    }

    pub fn note_status(&mut self, status: u8) {
        self.status = worse(self.status, status);
    }

    /// `ok`.
    pub fn ok(&mut self, slot: Slot) {
        if self.style.json {
            self.fields(slot, &[]);
        } else {
            self.line("ok");
        }
    }

    /// A number, as JSON under this name.
    pub fn number(&mut self, name: &str, slot: Slot, number: impl Into<Number>) {
        let number = number.into();
        if self.style.json {
            self.fields(slot, &[(name, Value::Number(number))]);
        } else {
            self.line(&number.to_string());
        }
    }

    pub fn item(&mut self, slot: Slot, item: &[u8]) {
        self.count(1, item.len() as u64);
        if self.style.json {
            self.fields(slot, &[json_item(item)]);
        } else {
            self.item_text(item);
        }
    }

    /// `RECEIPT ITEM`
    pub fn leased(&mut self, slot: Slot, leased: &Leased<'_>) {
        if self.style.json {
            let receipt = [("receipt", Value::from(leased.receipt.0)), ("try", Value::from(leased.tries))];
            self.fields(slot, &[&receipt[..], &[json_item(leased.item)]].concat());
        } else {
            self.gathered.extend_from_slice(format!("{} ", leased.receipt).as_bytes());
            self.item_text(leased.item);
        }
    }

    /// A buried item.
    pub fn dead(&mut self, slot: Slot, dead: &Dead<'_>) {
        if self.style.json {
            self.fields(slot, &[("try", Value::from(dead.tries)), json_item(dead.item)]);
        } else {
            self.item_text(dead.item);
        }
    }

    fn item_text(&mut self, item: &[u8]) {
        if self.style.escape {
            escape(item, &mut self.gathered);
        } else {
            self.gathered.extend_from_slice(item);
        }
        self.gathered.push(if self.style.null && !self.style.lines { 0 } else { b'\n' });
        self.write_if_full();
    }

    /// `{"ok":true,"slot":N,...}`
    pub fn fields(&mut self, slot: Slot, fields: &[(&str, Value)]) {
        let own = [("ok", Value::from(true)), ("slot", Value::from(slot.0))];
        self.object(own.iter().chain(fields));
    }

    /// One JSON object with its fields in this order.
    pub fn object<'f>(&mut self, fields: impl IntoIterator<Item = &'f (&'f str, Value)>) {
        let fields = fields.into_iter().map(|(name, value)| format!("{}:{value}", Value::from(*name)));
        self.line(&format!("{{{}}}", fields.collect::<Vec<_>>().join(",")));
    }

    pub fn line(&mut self, text: &str) {
        self.gathered.extend_from_slice(text.as_bytes());
        self.gathered.push(b'\n');
        self.write_if_full();
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.gathered.extend_from_slice(bytes);
    }

    /// Rows under these headings: aligned on a terminal, else separated by tabs and without headings.
    pub fn table(&mut self, headings: &[&str], rows: &[Vec<String>]) {
        if !self.style.terminal {
            return rows.iter().for_each(|row| self.line(&row.join("\t")));
        }
        self.columns(headings, rows);
    }

    /// Rows under these headings, aligned.
    pub fn columns(&mut self, headings: &[&str], rows: &[Vec<String>]) {
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([headings[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..headings.len()).map(width).collect();
        let headings = headings.iter().map(|heading| heading.to_string()).collect();
        for row in std::iter::once(&headings).chain(rows) {
            let row: &Vec<String> = row;
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
            self.line(cells.join("  ").trim_end());
        }
    }

    /// `{"ok":false,"error":"usage",...}`: the program was not called as it should be.
    pub fn misused(&mut self, why: &str) {
        self.failure("usage", "no", why);
    }

    /// What is needed to reach the group makes no sense: told where errors are told.
    pub fn misconfigured(&mut self, why: &str) {
        self.note_status(78);
        match self.style.json {
            true => self.failure("configuration", "no", &one_line(why)),
            false => complain(&format!("configuration: {why}")),
        }
    }

    /// Text for people: as JSON in one object under this name.
    pub fn text_as(&mut self, name: &str, text: &str) {
        match self.style.json {
            true => self.object(&[("ok", Value::from(true)), (name, Value::from(text))]),
            false => self.line(text),
        }
    }

    fn failure(&mut self, name: &str, done: &str, message: &str) {
        let fields = [("error", name), ("done", done), ("message", message)].map(|(n, v)| (n, Value::from(v)));
        self.object([("ok", Value::from(false))].iter().chain(&fields));
    }

    /// Something was answered with an error: in its answer's place, or on stderr.
    pub fn error(&mut self, error: &Error) {
        self.error_as(error, error.exit_status());
    }

    /// The same, with another status.
    pub fn error_as(&mut self, error: &Error, status: u8) {
        self.note_status(status);
        let (name, message) = (error.name(), one_line(error.message()));
        if self.style.json {
            self.failure(name, error.done().name(), &message);
        } else if self.style.lines {
            self.line(&format!("! {name} {message}"));
        } else {
            self.flush();
            self.progress.iter_mut().for_each(Progress::erase);
            complain(&format!("{name}: {message}"));
        }
    }

    // ---- progress

    /// From now on it is shown on this terminal, if there is one, how many items there were, of those that are wanted.
    pub fn show_progress(&mut self, terminal: Option<File>, what: &'static str, wanted: Option<u64>) {
        let begin = |terminal| Progress::new(terminal, what, wanted, self.tally, Instant::now());
        self.progress = terminal.map(begin);
    }

    /// So many more were pushed or printed.
    pub fn count(&mut self, items: u64, bytes: u64) {
        self.tally.items += items;
        self.tally.bytes += bytes;
    }

    /// Shows how far it has come, if it is time; when it will be time again.
    pub fn progress(&mut self) -> Option<Instant> {
        let progress = self.progress.as_mut()?;
        progress.draw(self.tally, Instant::now());
        Some(progress.next())
    }

    /// No more of that.
    pub fn end_progress(&mut self) {
        self.progress = None;
    }

    fn write_if_full(&mut self) {
        if self.gathered.len() >= GATHERED_BYTES {
            self.flush();
        }
    }

    /// Clears the screen of a terminal, for what is printed next.
    pub fn clear_screen(&mut self) {
        if self.style.terminal {
            self.raw(b"\x1b[H\x1b[2J");
        }
    }

    /// Writes what was gathered. Ends the process if nobody reads any more (as SIGPIPE does) or it can't be written.
    pub fn flush(&mut self) {
        let Some(stdout) = &mut self.stdout else { return };
        if let Err(e) = stdout.write_all(&self.gathered) {
            if e.kind() == io::ErrorKind::BrokenPipe {
                end_quietly();
            }
            complain(&format!("stdout: {e}"));
            std::process::exit(74);
        }
        self.gathered.clear();
    }

    /// Waits for the answer to the one thing that was asked. Ends the process as SIGPIPE does if whoever reads stdout
    /// leaves meanwhile: what came then would be popped for nobody.
    pub fn wait(&mut self, session: &mut Session) -> Result<Answer, Error> {
        let departure = self.stdout.as_ref().and_then(Stream::departure);
        loop {
            if let Some(answer) = session.take() {
                return answer;
            }
            if session.turn(departure, self.progress()) {
                end_quietly();
            }
        }
    }

    /// What was gathered and not written.
    pub fn gathered(&self) -> &[u8] {
        &self.gathered
    }

    #[cfg(test)]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.gathered).into_owned()
    }
}

/// Nobody reads stdout any more.
fn end_quietly() -> ! {
    // The default action ends the process; were it blocked, the next line would.
    let _ = signal_hook::low_level::emulate_default_handler(libc::SIGPIPE);
    std::process::exit(74);
}

/// A diagnostic on stderr.
pub fn complain(message: &str) {
    // In one piece, for others may write there too. There is nobody left to tell when stderr is closed.
    let _ = io::stderr().write_all(format!("ftqc: {message}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Done;
    use crate::wire::answer::Code;

    fn printed(style: Style, print: impl FnOnce(&mut Output)) -> (String, u8) {
        let mut output = Output::new(style, None);
        print(&mut output);
        (output.text(), output.status())
    }

    #[test]
    fn the_worst_status_wins() {
        assert_eq!([0, 1, 65, 75, 79, 77, 76, 70].into_iter().reduce(worse), Some(70));
        assert_eq!([65, 1, 0].into_iter().fold(0, worse), 65);
        assert_eq!(worse(75, 79), 79);
        assert_eq!(worse(79, 77), 77);
        assert_eq!(worse(69, 65), 69);
        assert_eq!(worse(0, 74), 74);
    }

    #[test]
    fn items_and_errors_have_their_forms() {
        let lines = Style { lines: true, escape: true, ..Style::default() };
        let unknown = Error::Refused { code: Code::UnknownOutcome, message: "a\nb".into(), done: Done::Unknown };
        assert_eq!(printed(lines, |o| o.item(Slot(1), b"!a\n")), ("\\!a\\n\n".into(), 0));
        assert_eq!(printed(lines, |o| o.error(&unknown)), ("! unknown-outcome a b\n".into(), 79));
        assert_eq!(printed(Style { null: true, ..Style::default() }, |o| o.item(Slot(1), b"a")), ("a\0".into(), 0));
    }

    #[test]
    fn json_is_one_object_a_line() {
        let style = Style { json: true, ..Style::default() };
        let (text, _) = printed(style, |o| o.item(Slot(7), b"a\n\"b"));
        assert_eq!(text, "{\"ok\":true,\"slot\":7,\"item\":\"a\\n\\\"b\"}\n");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("an object")["item"], "a\n\"b");
        let (text, _) = printed(style, |o| o.item(Slot(7), &[0xff]));
        assert_eq!(text, "{\"ok\":true,\"slot\":7,\"item64\":\"/w==\"}\n");
        let (text, status) = printed(style, |o| o.error(&Error::refused(Code::Empty, "none")));
        assert_eq!(text, "{\"ok\":false,\"error\":\"empty\",\"done\":\"no\",\"message\":\"none\"}\n");
        assert_eq!(status, 1);
    }

    #[test]
    fn tables_are_aligned_for_people_only() {
        let rows = [vec!["a".to_string(), "100".to_string()]];
        let people = Style { terminal: true, ..Style::default() };
        assert_eq!(printed(people, |o| o.table(&["label", "n"], &rows)).0, "label  n\na      100\n");
        assert_eq!(printed(Style::default(), |o| o.table(&["label", "n"], &rows)).0, "a\t100\n");
    }
}
