//! The table of commands: what each is called, what it takes, what it does. The help is printed from it.

use crate::cli::options::{scan, Given, Known};
use crate::cli::output::{Output, Style};
use crate::cli::{bench, chat, completion, exact, group, kv, lease, line, queue, stock, transfer, work};
use crate::client::{Answer, Ask, Error, Session};
use crate::limits::SPAN_MS_MAX;

/// One command.
pub struct Command {
    pub name: &'static str,
    /// What follows the name.
    pub synopsis: &'static str,
    pub summary: &'static str,
    /// Its own options; `None` where whatever follows the name is an operand.
    pub options: Option<&'static [Known]>,
    /// The least and the greatest number of operands.
    pub operands: (usize, usize),
    /// In a line of commands the last operand is the rest of the line, whatever it is.
    pub takes_rest: bool,
    pub plan: fn(&Call<'_>) -> Result<Plan, Refusal>,
}

/// A command as it was called.
pub struct Call<'a> {
    pub command: &'static Command,
    pub options: Vec<Given<'a>>,
    pub operands: &'a [Vec<u8>],
    pub style: Style,
    /// Reads may be answered by a replica alone.
    pub stale: bool,
    /// Requests are to go as datagrams.
    pub datagrams: bool,
    /// Its name stands on the command line, not in a line of stdin.
    pub alone: bool,
}

/// Why a command was not even tried.
#[derive(PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It is not called like that.
    Usage(String),
    Error(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Error(error)
    }
}

impl Refusal {
    /// As an answer among others.
    pub fn into_error(self) -> Error {
        match self {
            Refusal::Usage(why) => Error::bad_request(why),
            Refusal::Error(error) => error,
        }
    }
}

/// What a command comes to, or why it is not even tried.
pub type Planned = Result<Plan, Refusal>;

type Print = fn(&mut Output, Result<Answer, Error>);
type Run = Box<dyn FnOnce(&mut Session, &mut Output)>;

/// What a command comes to.
pub enum Plan {
    /// One thing to ask, whose answer is printed so. Several of these may be under way at once.
    Ask { ask: Ask, bytes: Vec<u8>, print: Print },
    /// A conversation of its own, while nothing else is under way. It is run with this style.
    Run(Run),
    /// Nothing to ask.
    Print(String),
    /// No more commands are read.
    Quit,
}

/// Whether there is anything to do after a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    Goes,
    Ends,
}

impl Plan {
    /// Does it to its end while nothing else is under way, and prints what comes of it in this style.
    pub fn carry_out(self, session: &mut Session, out: &mut Output, style: Style) -> Flow {
        let usual = std::mem::replace(&mut out.style, style);
        let flow = if matches!(self, Plan::Quit) { Flow::Ends } else { Flow::Goes };
        match self {
            Plan::Ask { ask, bytes, print } => {
                session.submit_bytes(ask, bytes);
                let answer = if matches!(ask, Ask::Waiting(_)) { out.wait(session) } else { session.wait() };
                print(out, answer);
            }
            Plan::Run(run) => run(session, out),
            Plan::Print(text) => out.text_as("text", &text),
            Plan::Quit if out.style.json => out.object(&[("ok", true.into())]),
            Plan::Quit => out.line("ok"),
        }
        out.style = usual;
        flow
    }
}

impl Call<'_> {
    /// The value of the last option with that letter.
    pub fn option(&self, letter: u8) -> Option<&[u8]> {
        self.options.iter().rev().find(|(known, _)| known.letter == letter).map(|&(_, value)| value)
    }

    /// The value of the last option with that name.
    pub fn long(&self, name: &str) -> Option<&[u8]> {
        self.options.iter().rev().find(|(known, _)| known.name == name).map(|&(_, value)| value)
    }

    pub fn label(&self) -> Result<&str, Error> {
        crate::client::checked_label(std::str::from_utf8(&self.operands[0]).unwrap_or(""))
    }

    /// An item as it was given, escapes read where they are in force.
    pub fn item(&self, at: usize) -> Result<Vec<u8>, Error> {
        let item = if self.style.escape { line::unescape(&self.operands[at])? } else { self.operands[at].clone() };
        crate::client::check_item(&item)?;
        Ok(item)
    }

    /// How reads are asked.
    pub fn read(&self) -> Ask {
        if self.stale {
            Ask::StaleQuery
        } else {
            Ask::Query
        }
    }
}

/// A whole number in decimal.
pub fn decimal(text: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(text).ok().filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()));
    digits?.parse().ok()
}

/// A time in seconds, a fraction allowed, in milliseconds: no more than any time here may be.
pub fn span_ms(text: &[u8]) -> Option<u64> {
    let seconds: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let ms = (seconds * 1000.0).ceil();
    (0.0..=SPAN_MS_MAX as f64).contains(&ms).then_some(ms as u64)
}

const fn flag(letter: u8, summary: &'static str) -> Known {
    Known { letter, name: "", value: "", summary }
}

const fn long(name: &'static str, value: &'static str, summary: &'static str) -> Known {
    Known { letter: 0, name, value, summary }
}

/// Options that stand before the command, or among its own.
pub const GLOBAL: &[Known] = &[
    Known { letter: b's', name: "servers", value: "LIST", summary: "HOST:PORT,... or paths of sockets" },
    Known { letter: b'k', name: "key", value: "FILE", summary: "the group's key (not supported by this version)" },
    Known { letter: b't', name: "timeout", value: "SECS", summary: "how long to keep trying (10); 0: one attempt" },
    Known { letter: 0, name: "stale", value: "", summary: "reads may be answered by a replica alone" },
    Known { letter: 0, name: "udp", value: "", summary: "requests as single datagrams, where they fit one" },
    Known { letter: b'j', name: "json", value: "", summary: "one JSON object a line" },
    Known { letter: b'0', name: "null", value: "", summary: "items are separated by NUL, not newline" },
    Known { letter: b'e', name: "escape", value: "", summary: "items are escaped, both ways" },
    Known { letter: b'h', name: "help", value: "", summary: "this text" },
    Known { letter: 0, name: "version", value: "", summary: "the version" },
];

/// Those of `GLOBAL` that may also stand in a line of stdin.
pub const IN_LINES: [&str; 4] = ["stale", "json", "escape", "help"];

const COUNT: Known = Known { letter: b'n', name: "", value: "COUNT", summary: "so many items (1)" };

const WAIT: Known = flag(b'w', "wait until there are items");
const WAIT_SECS: Known = long("wait", "SECS", "wait so long");

macro_rules! command {
    ($name:literal $synopsis:literal $summary:literal $options:expr, $operands:expr, $rest:literal, $plan:path) => {
        Command {
            name: $name,
            synopsis: $synopsis,
            summary: $summary,
            options: $options,
            operands: $operands,
            takes_rest: $rest,
            plan: $plan,
        }
    };
}

const ANY: usize = usize::MAX;

pub static COMMANDS: &[Command] = &[
    command!("qCreate" "LABEL" "the id of LABEL's queue, made if it is not there" None, (1, 1), false, queue::q_create),
    command!("qDestroy" "ID" "removes a queue and what is in it" None, (1, 1), false, queue::q_destroy),
    command!("qId" "LABEL" "the id of LABEL's queue, or -1" None, (1, 1), false, queue::q_id),
    command!("qPush" "ID ITEM" "appends an item" None, (2, 2), true, queue::q_push),
    command!("qPop" "ID" "removes the first item and prints it" None, (1, 1), false, queue::q_pop),
    command!("qTop" "ID" "prints the first item" None, (1, 1), false, queue::q_top),
    command!("qSize" "ID" "the number of items" None, (1, 1), false, queue::q_size),
    command!("push" "[OPTION...] LABEL [ITEM...]" "appends items, or the lines of stdin; makes the queue if needed"
        Some(&[
            flag(b'v', "print how many"),
            long("delay", "SECS", "ready not before so long"),
            long("priority", "N", "smaller ones come first (0)"),
            long("id", "KEY", "a push with a KEY that was pushed within the hour is dropped"),
            long("session", "FILE", "remember in FILE how far it came: killed and run again it goes on there"),
        ]), (1, ANY), false, transfer::push),
    command!("session" "end FILE" "ends the session that FILE keeps, and removes FILE"
        Some(&[]), (2, 2), false, exact::plan_session),
    command!("pop" "[-n COUNT] [-w] [--wait=SECS] [--session FILE] [--output OUT] LABEL"
        "removes items from the front and prints them"
        Some(&[
            Known { letter: b'n', name: "", value: "COUNT", summary: "so many items (1); with -w 0 for all that come" },
            WAIT,
            WAIT_SECS,
            long("session", "FILE", "remember in FILE how far it came: killed and run again it goes on there"),
            long("output", "OUT", "append to the file OUT, with --session: each item once, whatever happens"),
        ]), (1, 1), false, transfer::pop),
    command!("peek" "[-n COUNT] LABEL" "prints items from the front" Some(&[COUNT]), (1, 1), false, queue::peek),
    command!("size" "LABEL" "the number of items" Some(&[]), (1, 1), false, queue::size),
    command!("take" "[--lease SECS] [-w] [--wait=SECS] LABEL" "leases the first item; prints a receipt and the item"
        Some(&[long("lease", "SECS", "how long (60): then it is back in its place"), WAIT, WAIT_SECS]),
        (1, 1), false, lease::take),
    command!("ack" "RECEIPT" "removes a leased item: it is done" Some(&[]), (1, 1), false, lease::ack),
    command!("nack" "[--delay SECS] RECEIPT" "gives a leased item back: it is ready again, in its place"
        Some(&[long("delay", "SECS", "not before so long")]), (1, 1), false, lease::nack),
    command!("extend" "RECEIPT SECS" "the lease ends so long from now" Some(&[]), (2, 2), false, lease::extend),
    command!("bury" "RECEIPT" "puts a leased item aside, until it is kicked" Some(&[]), (1, 1), false, lease::bury),
    command!("dead" "LABEL" "the buried items" Some(&[]), (1, 1), false, lease::dead),
    command!("kick" "[-n COUNT] LABEL" "puts buried items back in their places; prints how many"
        Some(&[Known { letter: b'n', name: "", value: "COUNT", summary: "so many items (all)" }]),
        (1, 1), false, lease::kick),
    command!("work" "[-j N] [-v] [--lease SECS] [--tries N] [--wait=SECS] LABEL -- CMD [ARG...]"
        "runs CMD for each item: {} in ARG, or stdin"
        Some(&[
            Known { letter: b'j', name: "", value: "N", summary: "so many at once (1)" },
            long("lease", "SECS", "what each lease is, and is extended by (60)"),
            long("tries", "N", "bury an item after so many tries"),
            long("wait", "SECS", "end when there was no item for so long; else go on for ever"),
            flag(b'v', "tell what was acknowledged as well"),
        ]), (1, ANY), false, work::plan),
    command!("queues" "" "every queue: label, id, size, leased, delayed, waiters, bytes, age of the oldest in ms"
        Some(&[]), (0, 0), false, queue::queues),
    command!("limit" "LABEL [items=N] [bytes=N]" "what a queue may hold: shows or sets it; none for no limit"
        Some(&[]), (1, 3), false, queue::limit),
    command!("drop" "LABEL" "removes a queue and what is in it" Some(&[]), (1, 1), false, queue::drop_queue),
    command!("purge" "LABEL" "removes all items; prints how many" Some(&[]), (1, 1), false, queue::purge),
    command!("kv" "[-v] [-n COUNT] get|put|del|cas|list [KEY [VERSION] [VALUE]]" "the key-value store; values are JSON"
        Some(&[
            flag(b'v', "get: print the version before the value"),
            Known { letter: b'n', name: "", value: "COUNT", summary: "list: no more than so many keys" },
        ]), (1, 4), true, kv::plan),
    command!("chat" "" "a conversation: lines OP|TEXT on stdin, or a prompt" Some(&[]), (0, 0), false, chat::plan),
    command!("stock" "[l|v|e|n|d|h|delete] [ARG...]" "the availability log: l, v, e, n, d, h, delete; or a menu"
        Some(&[]), (0, ANY), true, stock::plan),
    command!("status" "[--watch]" "the asked replica, its view and the others as it sees them"
        Some(&[long("watch", "", "again and again")]), (0, 0), false, group::status),
    command!("members" "" "every configured replica" Some(&[]), (0, 0), false, group::members),
    command!("ready" "" "whether the asked replica serves: exit 0, else 75 with the reason"
        Some(&[]), (0, 0), false, group::ready),
    command!("bench" "[OPTION...] [push|pop|mixed|read|take]" "throughput and latencies of requests"
        Some(&[
            long("clients", "N", "clients, each with its own connection and session (1)"),
            long("size", "B", "bytes of an item (16)"),
            long("seconds", "S", "how long to measure (5)"),
            long("pipeline", "D", "requests in flight for each client (1)"),
        ]), (0, 1), false, bench::plan),
    command!("help" "[--completion bash|zsh|fish] [COMMAND]" "what there is"
        Some(&[long("completion", "bash|zsh|fish", "the script that has this shell complete ftqc's words")]),
        (0, 1), false, help),
];

/// A command, and what was given with it: its own options and global ones, and the operands.
pub struct Found<'a> {
    pub command: &'static Command,
    pub options: Vec<Given<'a>>,
    pub operands: &'a [Vec<u8>],
}

/// Finds a command and reads its options and operands; `words` is the name and what follows it.
pub fn look_up(words: &[Vec<u8>]) -> Result<Found<'_>, Refusal> {
    let (name, rest) = words.split_first().expect("a command has a name");
    let Some(command) = COMMANDS.iter().find(|command| command.name.as_bytes() == name.as_slice()) else {
        let name = line::one_line(&String::from_utf8_lossy(&name[..name.len().min(80)]));
        return Err(Refusal::Usage(format!("unknown command '{name}'; 'help' lists those there are")));
    };
    let usage = |why: &str| Refusal::Usage(format!("{why}; usage: {}", command.usage()));
    let (options, operands) = match command.options {
        None => (Vec::new(), rest),
        Some(own) => {
            let known: Vec<Known> = own.iter().chain(GLOBAL).copied().collect();
            let (options, taken) = scan(rest, &known).map_err(|why| usage(&why))?;
            (options, &rest[taken..])
        }
    };
    let asks_help = options.iter().any(|(known, _)| known.name == "help");
    if !asks_help && operands.len() < command.operands.0 {
        return Err(usage("too few operands"));
    }
    if !asks_help && operands.len() > command.operands.1 {
        return Err(usage("too many operands"));
    }
    Ok(Found { command, options, operands })
}

fn help(call: &Call<'_>) -> Result<Plan, Refusal> {
    if let Some(shell) = call.long("completion") {
        let script = completion::script(shell);
        return script.map(Plan::Print).ok_or_else(|| Refusal::Usage("there are bash, zsh and fish".to_string()));
    }
    let Some(name) = call.operands.first() else { return Ok(Plan::Print(overview())) };
    let found = COMMANDS.iter().find(|command| command.name.as_bytes() == name.as_slice());
    let unknown = || Refusal::Usage(format!("unknown command '{}'", String::from_utf8_lossy(name)));
    Ok(Plan::Print(found.ok_or_else(unknown)?.help()))
}

impl Command {
    /// `pop [-n COUNT] LABEL`, `status`
    pub fn usage(&self) -> String {
        format!("{} {}", self.name, self.synopsis).trim_end().to_string()
    }

    /// What `help COMMAND` prints.
    pub fn help(&self) -> String {
        let mut text = format!("{}\n    {}", self.usage(), self.summary);
        for option in self.options.unwrap_or_default() {
            text.push_str(&format!("\n    {:16} {}", option.synopsis(), option.summary));
        }
        text
    }
}

/// What `help` prints.
pub fn overview() -> String {
    let mut text = String::from(
        "ftqc [options] COMMAND [ARG...]     one command\n\
         ftqc [options] < commands           one command a line, one answer a line\n\
         ftqc [options]                      on a terminal: a prompt with history; 'quit' ends it\n\nOptions:",
    );
    for option in GLOBAL {
        text.push_str(&format!("\n  {:20} {}", option.synopsis(), option.summary));
    }
    text.push_str("\n\nCommands:");
    for command in COMMANDS {
        let usage = command.usage();
        // What is too long for its column has a line of its own.
        let gap = if usage.len() <= 28 { String::new() } else { format!("\n{:30}", "") };
        text.push_str(&format!("\n  {usage:28}{gap} {}", command.summary));
    }
    text
}
