//! `ftqc`: options, and the three ways to give it commands. INTERFACE is its contract, letter by letter.
//!
//! A command is an entry of [`table`]; it is read from the command line here, from a line of stdin in [`pipe`] or at a
//! [`prompt`], and comes to one question ([`queue`], [`group`]) or a conversation of its own ([`transfer`], [`bench`]).

pub mod bench;
pub mod chat;
pub mod completion;
pub mod destination;
pub mod drain;
pub mod exact;
pub mod follow;
pub mod group;
pub mod input;
pub mod kv;
pub mod lease;
pub mod ledger;
pub mod line;
pub mod options;
pub mod outlet;
pub mod output;
pub mod pipe;
pub mod popped;
pub mod position;
pub mod progress;
pub mod prompt;
pub mod queue;
pub mod stock;
pub mod store;
pub mod stream;
pub mod table;
pub mod transfer;
pub mod work;

#[cfg(test)]
mod tests;

use crate::cli::options::{scan, Given};
use crate::cli::output::{complain, Output, Style};
use crate::cli::stream::Stream;
use crate::cli::table::{look_up, Call, Found, Plan, Refusal, COMMANDS, GLOBAL};
use crate::client::{Server, Session};
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

/// Exit statuses that are no answer's.
const USAGE: u8 = 64;
/// A timeout beyond any patience: about thirty years.
const TIMEOUT_SECS_MAX: f64 = 1e9;

/// What the options in front of and among a command's own come to.
#[derive(Clone, PartialEq, Debug)]
struct Settings {
    servers: Option<Vec<Server>>,
    timeout: Duration,
    key: Option<Vec<u8>>,
    stale: bool,
    datagrams: bool,
    style: Style,
    help: bool,
    version: bool,
}

impl Settings {
    fn new() -> Settings {
        Settings {
            servers: None,
            timeout: Duration::from_secs(10),
            key: std::env::var_os("FTQ_KEY").filter(|key| !key.is_empty()).map(OsString::into_vec),
            stale: false,
            datagrams: false,
            style: Style::default(),
            help: false,
            version: false,
        }
    }

    /// Takes over what was given; a command's own options are passed over. Errors say what makes no sense.
    fn take(&mut self, options: &[Given<'_>]) -> Result<(), String> {
        for (known, value) in options.iter().filter(|(known, _)| GLOBAL.contains(known)) {
            match known.name {
                "servers" => self.servers = Some(Server::parse_list(&String::from_utf8_lossy(value))?),
                "timeout" => self.timeout = seconds(value).ok_or("the timeout is a number of seconds")?,
                "key" => self.key = Some(value.to_vec()),
                "stale" => self.stale = true,
                "udp" => self.datagrams = true,
                "json" => self.style.json = true,
                "null" => self.style.null = true,
                "escape" => self.style.escape = true,
                "help" => self.help = true,
                _ => self.version = true,
            }
        }
        Ok(())
    }

    /// A session with the group. Errors say what makes no sense.
    fn session(&self) -> Result<Session, String> {
        if let Some(key) = &self.key {
            return Err(format!("no encryption in this version; key {}", String::from_utf8_lossy(key)));
        }
        let servers = match &self.servers {
            Some(servers) => servers.clone(),
            None => Server::defaults()?,
        };
        let mut session = Session::new(servers, self.timeout);
        if self.datagrams {
            session.use_datagrams();
        }
        Ok(session)
    }
}

fn seconds(text: &[u8]) -> Option<Duration> {
    let seconds: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (0.0..=TIMEOUT_SECS_MAX).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

/// Runs `ftqc` with the arguments that follow its name; returns its exit status.
pub fn run(arguments: impl Iterator<Item = OsString>) -> u8 {
    let words: Vec<Vec<u8>> = arguments.map(OsString::into_vec).collect();
    let mut settings = Settings::new();
    let scanned = scan(&words, GLOBAL).and_then(|(given, taken)| settings.take(&given).map(|()| taken));
    let taken = match scanned {
        Ok(taken) => taken,
        Err(why) => {
            // The options were not read to their end: what is meant is plain all the same.
            let json = words.iter().any(|word| word == b"-j" || word == b"--json");
            return misused(&why, json || settings.style.json);
        }
    };
    if settings.help {
        settings.help = false;
        let asked = [b"help".to_vec()].into_iter().chain(words.get(taken).cloned());
        return one(&asked.collect::<Vec<_>>(), settings);
    }
    if settings.version {
        return say("version", &format!("ftqc {}", env!("CARGO_PKG_VERSION")), settings.style);
    }
    match &words[taken..] {
        [] => lines(settings),
        words => one(words, settings),
    }
}

/// It was not called as it should be: told where errors are told.
fn misused(why: &str, json: bool) -> u8 {
    if !json {
        complain(&format!("usage: {}", line::one_line(why)));
        return USAGE;
    }
    match Stream::stdout() {
        Ok(stdout) => {
            let mut out = Output::new(Style { json, ..Style::default() }, Some(stdout));
            out.misused(&line::one_line(why));
            out.flush();
            USAGE
        }
        Err(e) => no_stdout(&e),
    }
}

/// Says something that needs no replica; as JSON under this name.
fn say(name: &str, text: &str, style: Style) -> u8 {
    match Stream::stdout() {
        Ok(stdout) => {
            let mut out = Output::new(style, Some(stdout));
            out.text_as(name, text);
            out.flush();
            0
        }
        Err(e) => no_stdout(&e),
    }
}

fn misconfigured(why: &str, mut out: Output) -> u8 {
    out.misconfigured(why);
    out.flush();
    out.status()
}

fn no_stdout(e: &io::Error) -> u8 {
    complain(&format!("stdout: {e}"));
    74
}

/// Commands from stdin.
fn lines(mut settings: Settings) -> u8 {
    settings.style.lines = true;
    settings.style.escape = true;
    settings.style.terminal = io::stdout().is_terminal();
    let stdout = match Stream::stdout() {
        Ok(stdout) => stdout,
        Err(e) => return no_stdout(&e),
    };
    let mut out = Output::new(settings.style, Some(stdout));
    let mut session = match settings.session() {
        Ok(session) => session,
        Err(why) => return misconfigured(&why, out),
    };
    if prompt::is_wanted() {
        let names = COMMANDS.iter().map(|command| command.name.to_string()).collect();
        prompt::run(&mut session, &mut out, settings.stale, &pipe::plan, names);
    } else {
        pipe::run(&mut session, &mut out, settings.stale, &pipe::plan);
    }
    session.end();
    out.status()
}

/// One command.
fn one(words: &[Vec<u8>], mut settings: Settings) -> u8 {
    let Found { command, options, operands } = match look_up(words) {
        Ok(found) => found,
        Err(Refusal::Usage(why)) => return misused(&why, settings.style.json),
        Err(Refusal::Error(_)) => unreachable!("only a plan says what is wrong with operands"),
    };
    if let Err(why) = settings.take(&options) {
        return misused(&why, settings.style.json);
    }
    if settings.help {
        return say("text", &command.help(), settings.style);
    }
    settings.style.terminal = io::stdout().is_terminal();
    let stdout = match Stream::stdout() {
        Ok(stdout) => stdout,
        Err(e) => return no_stdout(&e),
    };
    let mut out = Output::new(settings.style, Some(stdout));
    let Settings { style, stale, datagrams, .. } = settings;
    let call = Call { command, options, operands, style, stale, datagrams, alone: true };
    let planned = (command.plan)(&call);
    match planned {
        Err(Refusal::Usage(why)) => {
            return misused(&format!("{why}; usage: {}", command.usage()), settings.style.json);
        }
        Err(Refusal::Error(e)) => out.error(&e),
        Ok(Plan::Print(text)) => out.text_as("text", &text),
        Ok(plan) => {
            let mut session = match settings.session() {
                Ok(session) => session,
                Err(why) => return misconfigured(&why, out),
            };
            plan.carry_out(&mut session, &mut out, settings.style);
            out.flush();
            session.end();
        }
    }
    out.flush();
    out.status()
}
