//! `ftqc chat`: a conversation, line by line. While it waits for a line it also waits for messages: a `Receive` is then
//! under way, which the next operation ends. A message is confirmed once it was written to stdout, and not before; what
//! was handed over and not confirmed comes again.

use crate::cli::input::{Input, Next};
use crate::cli::line::is_blank_line;
use crate::cli::output::{complain, Output};
use crate::cli::prompt;
use crate::cli::table::{Call, Flow, Plan, Planned, Refusal};
use crate::client::chat::{accounts, at_once, checked_account, checked_pattern, checked_text, messages, MessageNumber};
use crate::client::{number, Answer, Ask, Code, Error, Session};
use crate::types::Slot;
use crate::wire::chat::{ChatOperation, ChatQuery};
use crate::wire::operation::WAIT_FOR_EVER_MS;
use serde_json::Value;
use std::io;
use std::time::{Duration, Instant};

/// Bytes of a line.
const LINE_BYTES_MAX: usize = 64 << 10;
/// How long after a failure messages are waited for again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
const PROMPT: &str = "chat> ";
const MENU: &str = "0|PATTERN  lists the accounts that match; all with none\n\
                    1|NAME     makes an account and logs in\n\
                    2|NAME     logs in\n\
                    3|         logs out\n\
                    4|         deletes the account\n\
                    5|NAME|TEXT  sends a message\n\
                    6|         delivers what is queued\n\
                    quit       ends";

/// `chat`
pub fn plan(call: &Call<'_>) -> Planned {
    if !call.alone && !prompt::is_wanted() {
        return Err(Refusal::Usage("a conversation needs stdin for itself: run 'ftqc chat'".to_string()));
    }
    let read = call.read();
    Ok(Plan::Run(Box::new(move |session, out| {
        let person = prompt::is_wanted();
        out.style.lines = true;
        let ended = Input::stdin(b'\n', LINE_BYTES_MAX).and_then(|input| {
            let talk =
                Talk { session, out, input, read, person, prompted: false, name: None, listening: false, mute: None };
            talk.run()
        });
        if let Err(e) = ended {
            complain(&format!("stdin: {e}"));
            out.note_status(74);
        }
    })))
}

/// What a line asks for.
#[derive(PartialEq, Eq, Debug)]
enum Wish<'a> {
    Accounts(&'a str),
    Create(&'a str),
    Login(&'a str),
    Logout,
    Delete,
    Send(&'a str, &'a str),
    Deliver,
}

fn understand(line: &str) -> Result<Wish<'_>, Error> {
    let malformed = || Error::bad_request("a line is OP|TEXT with OP from 0 to 6, or quit");
    let (op, text) = line.split_once('|').ok_or_else(malformed)?;
    match op {
        "0" => checked_pattern(text).map(Wish::Accounts),
        "1" => checked_account(text).map(Wish::Create),
        "2" => checked_account(text).map(Wish::Login),
        "5" => {
            let (to, text) =
                text.split_once('|').ok_or_else(|| Error::bad_request("a message is sent as 5|NAME|TEXT"))?;
            Ok(Wish::Send(checked_account(to)?, checked_text(text)?))
        }
        "3" | "4" | "6" if !text.is_empty() => Err(Error::bad_request(format!("nothing follows {op}|"))),
        "3" => Ok(Wish::Logout),
        "4" => Ok(Wish::Delete),
        "6" => Ok(Wish::Deliver),
        _ => Err(malformed()),
    }
}

struct Talk<'a> {
    session: &'a mut Session,
    out: &'a mut Output,
    input: Input,
    /// How reads are asked.
    read: Ask,
    /// There is a person on the other side, and the prompt is shown.
    person: bool,
    prompted: bool,
    /// Whom the session is logged in as.
    name: Option<String>,
    /// A `Receive` is under way.
    listening: bool,
    /// It failed, as was told; it is tried again then.
    mute: Option<(Instant, &'static str)>,
}

impl Talk<'_> {
    fn run(mut self) -> io::Result<()> {
        if self.person {
            self.out.line(MENU);
        }
        loop {
            match self.input.next_line() {
                Next::Line(line) if self.person && is_blank_line(line) => self.prompted = false,
                Next::Line(line) => {
                    let line = line.to_vec();
                    self.prompted = false;
                    match self.obey(&line) {
                        Ok(Flow::Goes) => {}
                        Ok(Flow::Ends) => break,
                        Err(e) => self.out.error(&e),
                    }
                }
                Next::TooLong => {
                    let why = format!("the line has more than {LINE_BYTES_MAX} bytes");
                    self.out.error(&Error::refused(Code::TooLarge, why));
                }
                Next::Nothing => self.wait_for_a_line()?,
                Next::End => break,
            }
        }
        self.catch_up();
        self.out.flush();
        Ok(())
    }

    fn wait_for_a_line(&mut self) -> io::Result<()> {
        let now = Instant::now();
        if self.person && !self.prompted {
            self.out.raw(PROMPT.as_bytes());
            self.prompted = true;
        }
        self.out.flush();
        let until = self.mute.map(|(until, _)| until).filter(|&until| until > now);
        if self.name.is_some() && !self.listening && until.is_none() {
            let listen = ChatOperation::Receive { queued: false, wait_ms: WAIT_FOR_EVER_MS };
            self.session.submit(Ask::Waiting(Duration::MAX), |out| listen.encode(out));
            self.listening = true;
        }
        if self.session.turn(Some(self.input.fd()), until) {
            self.input.fill()?;
        }
        if let Some(answer) = self.session.take() {
            self.listening = false;
            _ = self.hear(answer);
        }
        Ok(())
    }

    /// Asks for no more messages for now. What came is shown and confirmed.
    fn stop_listening(&mut self) {
        if !std::mem::take(&mut self.listening) {
            return;
        }
        self.session.submit(Ask::Request, |out| ChatOperation::Receive { queued: false, wait_ms: 0 }.encode(out));
        let answers = [self.session.wait(), self.session.wait()];
        answers.into_iter().for_each(|answer| _ = self.hear(answer));
    }

    /// Before it logs out: whatever was sent to it as to somebody who is logged in is shown and confirmed.
    fn catch_up(&mut self) {
        self.stop_listening();
        while self.name.is_some() && self.mute.is_none() {
            let answer = self.ask(&ChatOperation::Receive { queued: false, wait_ms: 0 });
            if self.hear(answer) == 0 {
                return;
            }
        }
    }

    /// What came of waiting for messages; how many.
    fn hear(&mut self, answer: Result<Answer, Error>) -> usize {
        match answer.and_then(|answer| self.show(&answer)) {
            Ok(count) => {
                self.mute = None;
                return count;
            }
            Err(e) if e.is(Code::BadRequest) => self.log_in_again(&e),
            Err(e) => {
                if self.mute.is_none_or(|(_, told)| told != e.name()) {
                    self.clear_prompt();
                    self.out.error(&e);
                }
                self.mute = Some((Instant::now() + LISTEN_AGAIN, e.name()));
            }
        }
        0
    }

    /// The session is logged in no more: it was lost while no replica served, or somebody else has logged in.
    fn log_in_again(&mut self, why: &Error) {
        let Some(name) = self.name.take() else { return };
        self.clear_prompt();
        match self.ask(&ChatOperation::Login { name: &name }) {
            Ok(_) => {
                let why = format!("the session was lost; logged in as {name} again, 6| delivers what came meanwhile");
                self.out.error(&Error::refused(Code::Expired, why));
                self.name = Some(name);
            }
            Err(_) => self.out.error(why),
        }
    }

    /// Shows messages, then confirms them; how many.
    fn show(&mut self, answer: &Answer) -> Result<usize, Error> {
        let messages = messages(answer)?;
        let Some(last) = messages.last() else { return Ok(0) };
        self.clear_prompt();
        for message in &messages {
            let (from, text) = (message.from, message.text);
            let kind = if message.again { "again" } else { "message" };
            let fields = [("from", from.into()), ("message", text.into()), ("again", message.again.into())];
            self.say(answer.slot, &format!("{kind}|{from}|{text}"), &fields);
        }
        let (count, upto) = (messages.len(), MessageNumber(last.number.0));
        self.out.flush();
        self.ask(&ChatOperation::Confirm { upto })?;
        Ok(count)
    }

    fn ask(&mut self, operation: &ChatOperation<'_>) -> Result<Answer, Error> {
        self.session.call(Ask::Request, |out| operation.encode(out))
    }

    fn say(&mut self, slot: Slot, text: &str, fields: &[(&str, Value)]) {
        if self.out.style.json {
            self.out.fields(slot, fields);
        } else {
            self.out.line(text);
        }
    }

    /// What is printed next stands in the place of the prompt, which is shown again below.
    fn clear_prompt(&mut self) {
        if std::mem::take(&mut self.prompted) {
            self.out.raw(b"\r\x1b[K");
        }
    }

    fn obey(&mut self, line: &[u8]) -> Result<Flow, Error> {
        let line = std::str::from_utf8(line).map_err(|_| Error::bad_request("the line is not UTF-8"))?;
        if line == "quit" {
            return Ok(Flow::Ends);
        }
        let wish = understand(line)?;
        match wish {
            Wish::Logout | Wish::Delete => self.catch_up(),
            _ => self.stop_listening(),
        }
        match wish {
            Wish::Accounts(pattern) => self.list(pattern)?,
            Wish::Create(name) => {
                let slot = self.ask(&ChatOperation::Create { name })?.slot;
                self.name = Some(name.to_string());
                self.say(slot, &format!("ok account {name} made, logged in"), &[("account", name.into())]);
            }
            Wish::Login(name) => {
                let answer = self.ask(&ChatOperation::Login { name })?;
                let queued = number(&answer)?;
                self.name = Some(name.to_string());
                let fields = [("account", name.into()), ("queued", queued.into())];
                self.say(answer.slot, &format!("ok logged in, {queued} queued"), &fields);
            }
            Wish::Logout => {
                let slot = self.ask(&ChatOperation::Logout)?.slot;
                self.name = None;
                self.say(slot, "ok logged out", &[]);
            }
            Wish::Delete => {
                let answer = self.ask(&ChatOperation::Delete)?;
                let undelivered = number(&answer)?;
                self.name = None;
                let text = format!("ok account deleted, {undelivered} undelivered");
                self.say(answer.slot, &text, &[("undelivered", undelivered.into())]);
            }
            Wish::Send(to, text) => {
                let answer = self.ask(&ChatOperation::Send { to, text })?;
                let how = if at_once(&answer)? { "sent" } else { "queued" };
                self.say(answer.slot, &format!("ok {how}"), &[("delivery", how.into())]);
            }
            Wish::Deliver => self.deliver()?,
        }
        Ok(Flow::Goes)
    }

    fn list(&mut self, pattern: &str) -> Result<(), Error> {
        let (mut after, mut count) = (String::new(), 0);
        loop {
            let answer =
                self.session.call(self.read, |out| ChatQuery::Accounts { pattern, after: &after }.encode(out))?;
            let page = accounts(&answer)?;
            count += page.names.len();
            for name in &page.names {
                self.say(answer.slot, &format!("account|{name}"), &[("account", (*name).into())]);
            }
            match page.more_after {
                Some(last) => after = last.to_string(),
                None => {
                    self.say(answer.slot, &format!("ok {count} accounts"), &[("accounts", count.into())]);
                    return Ok(());
                }
            }
        }
    }

    fn deliver(&mut self) -> Result<(), Error> {
        let mut delivered = 0;
        loop {
            let answer = self.ask(&ChatOperation::Receive { queued: true, wait_ms: 0 })?;
            match self.show(&answer)? {
                0 => {
                    self.say(answer.slot, &format!("ok {delivered} delivered"), &[("delivered", delivered.into())]);
                    return Ok(());
                }
                some => delivered += some,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        assert_eq!(understand("0|"), Ok(Wish::Accounts("")));
        assert_eq!(understand("0|a|b"), Ok(Wish::Accounts("a|b")));
        assert_eq!(understand("5|bob|a|b "), Ok(Wish::Send("bob", "a|b ")));
        assert_eq!(understand("5|bob|"), Ok(Wish::Send("bob", "")));
        assert_eq!(understand("6|"), Ok(Wish::Deliver));
        let odd =
            ["", "6", "7|", "-1|", "00|", " 6|", "6| ", "3|x", "1|", "1|a b", "1|a|b", "2|a\u{3000}", "5|bob", "5||x"];
        for line in odd {
            assert!(matches!(understand(line), Err(e) if e.is(Code::BadRequest)), "{line:?}");
        }
        let (fits, over) = (format!("5|bob|{}", "\u{1f600}".repeat(280)), format!("5|bob|{}", "\u{e9}".repeat(281)));
        assert!(understand(&fits).is_ok());
        assert!(matches!(understand(&over), Err(e) if e.is(Code::TooLarge)));
    }
}
