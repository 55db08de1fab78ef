//! Commands from stdin: one a line, many under way at once, one answer a line in the order of the lines.

use crate::cli::input::{Input, Next};
use crate::cli::line::{is_blank_line, split_word, words};
use crate::cli::options::lacks_value;
use crate::cli::output::{complain, Output, Style};
use crate::cli::table::{look_up, Call, Command, Flow, Found, Plan, Refusal, COMMANDS, GLOBAL, IN_LINES};
use crate::client::{Answer, Error, Session};
use crate::limits::ITEM_BYTES_MAX;
use crate::wire::answer::Code;
use std::collections::VecDeque;
use std::io;

/// Bytes of a line: the largest item, every byte of it escaped, and the words before it.
const LINE_BYTES_MAX: usize = 4 * ITEM_BYTES_MAX + (4 << 10);
/// Answers that wait for those before them.
const WAITING_MAX: usize = 4096;

/// What a line comes to, and how its answer is printed: [`plan`], or more where there are more commands.
pub type Understand<'a> = &'a dyn Fn(&[u8], Style, bool) -> Result<(Plan, Style), Refusal>;

/// What stands in line for its turn to be printed.
enum Waiting {
    Answer(fn(&mut Output, Result<Answer, Error>), Style),
    Text(String, Style),
    Blank,
    Error(Error),
}

/// Obeys commands until stdin ends, or one says so.
pub fn run(session: &mut Session, out: &mut Output, stale: bool, understand: Understand<'_>) {
    let result = Input::stdin(b'\n', LINE_BYTES_MAX)
        .and_then(|input| Pipe { input, waiting: VecDeque::new(), next: None, stale, understand }.run(session, out));
    out.flush();
    if let Err(e) = result {
        complain(&format!("stdin: {e}"));
        out.note_status(74);
    }
}

struct Pipe<'a> {
    input: Input,
    waiting: VecDeque<Waiting>,
    /// A conversation of its own that waits until all before it is answered.
    next: Option<(Plan, Style)>,
    stale: bool,
    understand: Understand<'a>,
}

impl Pipe<'_> {
    fn run(mut self, session: &mut Session, out: &mut Output) -> io::Result<()> {
        loop {
            self.print(session, out);
            if self.waiting.is_empty() {
                if let Some((plan, style)) = self.next.take() {
                    if plan.carry_out(session, out, style) == Flow::Ends {
                        return Ok(());
                    }
                }
            }
            let drained = self.read_lines(session, out);
            self.print(session, out);
            if drained && self.input.is_ended() && self.waiting.is_empty() && self.next.is_none() {
                return Ok(());
            }
            if self.waiting.is_empty() && self.next.is_some() {
                continue;
            }
            out.flush();
            let reads = drained && !self.input.is_ended();
            let fd = reads.then(|| self.input.fd());
            if session.turn(fd, None) {
                self.input.fill()?;
            }
        }
    }

    /// Prints the answers whose turn it is.
    fn print(&mut self, session: &mut Session, out: &mut Output) {
        while let Some(first) = self.waiting.front() {
            match first {
                Waiting::Answer(print, style) => {
                    let Some(answer) = session.take() else { return };
                    let usual = std::mem::replace(&mut out.style, *style);
                    print(out, answer);
                    out.style = usual;
                }
                Waiting::Text(text, style) => {
                    let usual = std::mem::replace(&mut out.style, *style);
                    out.text_as("text", text);
                    out.style = usual;
                }
                Waiting::Blank => out.line(""),
                Waiting::Error(error) => out.error(error),
            }
            self.waiting.pop_front();
        }
    }

    /// Acts on the lines that were read; true when there are no more of them.
    fn read_lines(&mut self, session: &mut Session, out: &mut Output) -> bool {
        while self.next.is_none() && session.has_room() && self.waiting.len() < WAITING_MAX {
            let planned = match self.input.next_line() {
                Next::Line(line) if is_blank_line(line) => {
                    self.waiting.push_back(Waiting::Blank);
                    continue;
                }
                Next::Line(line) if is_comment(line) => continue,
                Next::Line(line) => (self.understand)(line, out.style, self.stale),
                Next::TooLong => {
                    let why = format!("the line has more than {LINE_BYTES_MAX} bytes");
                    Err(Refusal::Error(Error::refused(Code::TooLarge, why)))
                }
                Next::Nothing | Next::End => return true,
            };
            match planned {
                Ok((Plan::Ask { ask, bytes, print }, style)) => {
                    session.submit_bytes(ask, bytes);
                    self.waiting.push_back(Waiting::Answer(print, style));
                }
                Ok((Plan::Print(text), style)) => self.waiting.push_back(Waiting::Text(text, style)),
                Ok(run) => self.next = Some(run),
                Err(refusal) => self.waiting.push_back(Waiting::Error(refusal.into_error())),
            }
        }
        false
    }
}

/// Whether the line is no command at all.
pub fn is_comment(line: &[u8]) -> bool {
    split_word(line).0.starts_with(b"#")
}

/// The name, options in front of the operands, one operand, and the rest of the line, whatever it begins with.
fn words_and_rest(command: &Command, line: &[u8]) -> Vec<Vec<u8>> {
    let (mut words, mut rest) = (vec![command.name.as_bytes().to_vec()], Some(line));
    let mut wants_value = false;
    while let Some(line) = rest {
        let (word, behind) = split_word(line);
        let is_option = command.options.is_some() && word.len() > 1 && word.starts_with(b"-");
        words.extend(Some(word.to_vec()).filter(|word| !word.is_empty()));
        rest = behind;
        if !wants_value && (!is_option || word == b"--") {
            break;
        }
        wants_value = !wants_value && command.options.is_some_and(|own| lacks_value(word, own));
    }
    words.extend(rest.map(<[u8]>::to_vec));
    words
}

/// What a line comes to, and how its answer is printed.
pub fn plan(line: &[u8], style: Style, stale: bool) -> Result<(Plan, Style), Refusal> {
    let (name, rest) = split_word(line);
    let takes_rest = COMMANDS.iter().find(|command| command.takes_rest && command.name.as_bytes() == name);
    let words = match takes_rest {
        Some(command) => words_and_rest(command, rest.unwrap_or_default()),
        None => words(line),
    };
    if let [b"quit" | b"exit"] = words.iter().map(Vec::as_slice).collect::<Vec<_>>()[..] {
        return Ok((Plan::Quit, style));
    }
    let Found { command, options, operands } = look_up(&words)?;
    let mut call = Call { command, options, operands, style, stale, datagrams: false, alone: false };
    let foreign = call.options.iter().find(|(known, _)| GLOBAL.contains(known) && !IN_LINES.contains(&known.name));
    if let Some((known, _)) = foreign {
        return Err(Refusal::Usage(format!("{} can only stand on the command line", known.synopsis())));
    }
    call.style.json |= call.long("json").is_some();
    if call.long("help").is_some() {
        return Ok((Plan::Print(command.help()), call.style));
    }
    call.stale |= call.long("stale").is_some();
    let plan = (command.plan)(&call)?;
    Ok((plan, call.style))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Ask;
    use crate::wire::operation::{QueueOperation, Target};

    const LINES: Style = Style { json: false, null: false, escape: true, lines: true, terminal: false };

    fn refusal(line: &[u8]) -> Refusal {
        match plan(line, LINES, false) {
            Ok(_) => panic!("{:?} was planned", String::from_utf8_lossy(line)),
            Err(refusal) => refusal,
        }
    }

    fn pushed(line: &[u8]) -> Vec<u8> {
        let Ok((Plan::Ask { ask: Ask::Request, bytes, .. }, _)) = plan(line, LINES, false) else {
            panic!("{:?} was refused", String::from_utf8_lossy(line));
        };
        match QueueOperation::decode(&bytes[1..]) {
            Ok(QueueOperation::Push { target: Target::Id(1), items }) => items.iter().next().expect("one").to_vec(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_rest_of_the_line_is_the_item() {
        assert_eq!(pushed(b"qPush 1 item with  spaces "), b"item with  spaces ");
        assert_eq!(pushed(b"  qPush\t1  -5"), b" -5");
        assert_eq!(pushed(b"qPush 1 --json"), b"--json");
        assert_eq!(pushed(b"qPush 1 # no comment"), b"# no comment");
        assert_eq!(pushed(b"qPush 1 "), b"");
        assert_eq!(pushed(b"qPush 1 a\\nb\\x00\xff"), b"a\nb\0\xff");
        assert!(matches!(refusal(b"qPush 1"), Refusal::Usage(_)));
        assert!(matches!(refusal(b"qPush 1 \\q"), Refusal::Error(e) if e.is(Code::BadRequest)));
    }

    #[test]
    fn line_upon_line_is_under_way_at_once() {
        for line in ["push q a", "push -v q a", "push --id k q a", "push --delay 1 q a", "pop q", "take q", "ack 1"] {
            assert!(matches!(plan(line.as_bytes(), LINES, false), Ok((Plan::Ask { .. }, _))), "{line}");
        }
    }

    #[test]
    fn options_stand_in_front_of_what_takes_the_rest() {
        for line in ["kv -n 1 list a", "kv -n1 list", "kv list -n 1 a", "stock --json l", "stock -j h 'a  b'"] {
            assert!(matches!(plan(line.as_bytes(), LINES, false), Ok((Plan::Run(_), _))), "{line}");
        }
        assert!(matches!(refusal(b"kv -n x list"), Refusal::Error(e) if e.is(Code::BadRequest)));
        assert!(matches!(refusal(b"kv -n"), Refusal::Usage(_)));
        let (key, value) = ("-5", "{\"a\":  \" b\"}");
        let Ok((Plan::Ask { bytes, .. }, _)) = plan(format!("kv put -- {key} {value}").as_bytes(), LINES, false) else {
            panic!("it was refused");
        };
        let mut wanted = Vec::new();
        crate::client::kv::put(key, value, crate::wire::kv::Condition::Any).encode(&mut wanted);
        assert_eq!(bytes, wanted);
    }

    #[test]
    fn quit_and_exit_end_it() {
        for line in [&b"quit"[..], b" exit "] {
            assert!(matches!(plan(line, LINES, false), Ok((Plan::Quit, _))), "{line:?}");
        }
        assert!(matches!(refusal(b"quit now"), Refusal::Usage(_)));
    }

    #[test]
    fn bad_lines_are_refused_before_anything_is_sent() {
        for line in ["qPop x", "qPop -1", "qPop +1", "qPop 18446744073709551616", "qPop 1e3", "qCreate a\u{a0}b"] {
            assert!(matches!(refusal(line.as_bytes()), Refusal::Error(e) if e.exit_status() == 65), "{line}");
        }
        for line in ["nope", "qPop", "qPop 1 2", "qCreate a b", "pop -x q", "status 1", "size -s a:1 q", "pop -n -1 q"]
        {
            assert!(matches!(refusal(line.as_bytes()), Refusal::Usage(_)), "{line}");
        }
        assert!(matches!(refusal(b"push q"), Refusal::Error(e) if e.is(Code::BadRequest)));
        let long = format!("qPush 1 {}", "x".repeat(ITEM_BYTES_MAX + 1));
        assert!(matches!(refusal(long.as_bytes()), Refusal::Error(e) if e.is(Code::TooLarge)));
        assert_eq!(pushed(&long.as_bytes()[..long.len() - 1]).len(), ITEM_BYTES_MAX);
        assert!(matches!(refusal(b"qCreate \xff"), Refusal::Error(e) if e.is(Code::BadRequest)));
    }
}
