//! ftqd's command line. Everything is judged here before anything is opened; ftqd(8) documents exactly this table.

use std::path::PathBuf;

use crate::limits::{KV_KEY_CHARS, KV_KEY_CHARS_MAX, REPLICAS_MAX, REPLICA_ID_MAX};
use crate::reactor::book::check_address;
use crate::reactor::disk::DiskChoice;
use crate::reactor::exit::Exit;
use crate::reactor::logger::level_from_name;
use crate::replica::Level;
use crate::types::ReplicaId;
use crate::wire::view::{Durability, Policy};

const BOOK_FILE: &str = "/etc/ftq/cluster";
const FIRST_PORT: u16 = 7400;
const MEMORY_LIMIT_BYTES_MIN: u64 = 16 << 20;

/// Where the replicas are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BookSource {
    File(PathBuf),
    /// `count` replicas on this machine, the first at `port`.
    Loopback {
        count: u8,
        port: u16,
    },
}

/// What the operator asked for, complete with defaults.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    pub id: ReplicaId,
    pub book: BookSource,
    pub data: PathBuf,
    /// `None` for no Unix socket.
    pub socket: Option<PathBuf>,
    /// Where HTTP is answered; `None` for the book's third column, if there is one.
    pub http: Option<String>,
    /// Characters of a key that HTTP takes.
    pub key_chars_max: usize,
    pub insecure: bool,
    pub durability: Durability,
    pub policy: Policy,
    pub min_members: u8,
    pub heartbeat_ms: u64,
    pub suspect_after_ms: u64,
    /// `None` for half of RAM.
    pub memory_limit_bytes: Option<u64>,
    pub disk: DiskChoice,
    pub log_level: Level,
    /// An inherited descriptor on which tests command faults.
    pub fault_fd: Option<i32>,
}

/// A whole group on this machine, for trying things out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LabOptions {
    pub count: u8,
    /// The first replica's; `None` for any that are free.
    pub port: Option<u16>,
    /// Kept when the lab ends; `None` for a place that is removed.
    pub data: Option<PathBuf>,
    /// What every replica is started with, judged already.
    pub passed_on: Vec<String>,
}

/// What a command line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    Run(Options),
    Check(Options),
    Lab(LabOptions),
    /// Print this and end.
    Say(String),
}

/// What the defaults depend on.
pub struct Environment<'a> {
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    pub root: bool,
}

fn table() -> getopts::Options {
    let mut o = getopts::Options::new();
    o.optopt("", "id", "this replica's id in the book", "N");
    o.optopt("", "cluster", "the address book (/etc/ftq/cluster)", "FILE");
    // A name of one letter: both -n and --n find it.
    o.optopt("n", "", "instead of a book: COUNT replicas on this machine", "COUNT");
    o.optopt("", "port", "with --n: replica i is at 127.0.0.1, port P+i-1 (7400)", "P");
    o.optopt("", "data", "data directory ($STATE_DIRECTORY/ID or /var/lib/ftq/ID)", "DIR");
    o.optopt("", "socket", "Unix socket for local clients, 'none' for none", "PATH");
    o.optflag("", "insecure", "allow addresses that are not loopback without a key");
    o.optopt("", "durability", "what an answer waits for (disk)", "disk|memory");
    o.optopt("", "partition", "which side of a partition goes on (dynamic)", "dynamic|majority");
    o.optopt("", "min-members", "no view with fewer members (1)", "M");
    o.optopt("", "heartbeat", "say something at least so often (50)", "MS");
    o.optopt("", "suspect-after", "suspect a peer after so much silence (500)", "MS");
    o.optopt("", "memory-limit", "refuse pushes beyond this much state (half of RAM)", "BYTES");
    o.optopt("", "disk", "how writes reach the disk (auto)", "auto|uring|aio|blocking");
    o.optflag("", "check", "check options, book and data directory, and end");
    o.optopt("", "log-level", "what is logged (info)", "error|warning|info|debug");
    o.optopt("", "fault-fd", "for tests: a descriptor that commands faults", "FD");
    o.optopt("", "lab", "a whole group of COUNT replicas on this machine, with a prompt", "COUNT");
    o.optflag("", "version", "print the version");
    o.optflag("", "help", "print this");
    o.optopt("", "http", "answer HTTP there, 'none' for not at all (the book's third column)", "HOST:PORT");
    o.optopt("", "key-max", "characters of a key that HTTP takes (50)", "N");
    for name in ["key", "merge"] {
        o.optopt("", name, "", "");
    }
    o.optflag("", "join", "");
    o
}

/// The table without what this version only knows by name.
fn usage() -> String {
    let brief =
        "Usage: ftqd --id N [--cluster FILE | --n COUNT [--port P]] [options]\n       ftqd --lab COUNT [options]";
    let hidden = ["--key ", "--merge", "--join"];
    // The library shows a name of one letter as -n only.
    let whole = table().usage(brief).replace("    -n COUNT     ", "        --n COUNT");
    let lines = whole.lines().filter(|l| !hidden.iter().any(|h| l.trim_start().starts_with(h)) && !l.trim().is_empty());
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// Reads a command line, the program's name not included.
pub fn parse(args: &[String], environment: &Environment<'_>) -> Result<Command, Exit> {
    let given = table().parse(args).map_err(|e| Exit::usage(format!("{e} (see ftqd --help)")))?;
    if given.opt_present("help") {
        return Ok(Command::Say(usage()));
    }
    if given.opt_present("version") {
        return Ok(Command::Say(format!("ftqd {}\n", env!("CARGO_PKG_VERSION"))));
    }
    if let Some(word) = given.free.first() {
        return Err(Exit::usage(format!("unexpected argument '{word}' (see ftqd --help)")));
    }
    for name in ["key", "join", "merge"] {
        if given.opt_present(name) {
            // A key is configuration, as it is to ftqc, where it may stand in the environment.
            let ends = if name == "key" { Exit::configuration } else { Exit::usage };
            return Err(ends(format!("--{name} is not supported by this version")));
        }
    }
    if given.opt_present("lab") {
        return lab(&given, environment).map(Command::Lab);
    }
    let options = options(&given, environment)?;
    Ok(if given.opt_present("check") { Command::Check(options) } else { Command::Run(options) })
}

/// Options of the lab that are those of each replica in it.
const PASSED_ON: [&str; 8] =
    ["durability", "partition", "min-members", "heartbeat", "suspect-after", "memory-limit", "disk", "log-level"];

fn lab(given: &getopts::Matches, environment: &Environment<'_>) -> Result<LabOptions, Exit> {
    for name in ["id", "cluster", "n", "socket", "http", "insecure", "check", "fault-fd"] {
        if given.opt_present(name) {
            return Err(Exit::usage(format!("--{name} does not go with --lab")));
        }
    }
    let count = number(given, "lab", 1, REPLICAS_MAX as u64)?.expect("it was given") as u8;
    let value = |name: &&str| given.opt_str(name).map(|value| format!("--{name}={value}"));
    let passed_on: Vec<String> = PASSED_ON.iter().filter_map(value).collect();
    let mut replica = vec!["--id=1".to_owned(), format!("--n={count}"), "--data=.".to_owned()];
    replica.extend(given.opt_str("port").map(|port| format!("--port={port}")));
    replica.extend(passed_on.iter().cloned());
    match parse(&replica, environment)? {
        Command::Run(Options { min_members, .. }) if min_members > count => {
            Err(Exit::usage(format!("--min-members {min_members} is more than --lab {count}")))
        }
        _ => {
            let port = number(given, "port", 1, u64::from(u16::MAX))?.map(|port| port as u16);
            Ok(LabOptions { count, port, data: given.opt_str("data").map(PathBuf::from), passed_on })
        }
    }
}

fn options(given: &getopts::Matches, environment: &Environment<'_>) -> Result<Options, Exit> {
    let id = number(given, "id", 1, u64::from(REPLICA_ID_MAX))?
        .ok_or_else(|| Exit::usage("--id is missing (see ftqd --help)"))?;
    let id = ReplicaId(id as u8);
    let options = Options {
        id,
        book: book(given)?,
        data: match given.opt_str("data") {
            Some(path) => PathBuf::from(path),
            None => default_data(id, environment)?,
        },
        socket: match given.opt_str("socket").as_deref() {
            Some("none") => None,
            Some(path) => Some(PathBuf::from(path)),
            None => default_socket(id, environment),
        },
        http: given.opt_str("http"),
        key_chars_max: number(given, "key-max", 1, KV_KEY_CHARS_MAX as u64)?.unwrap_or(KV_KEY_CHARS as u64) as usize,
        insecure: given.opt_present("insecure"),
        durability: choice(given, "durability", Durability::from_name, "disk or memory")?.unwrap_or_default(),
        policy: choice(given, "partition", Policy::from_name, "dynamic or majority")?.unwrap_or_default(),
        min_members: number(given, "min-members", 1, REPLICAS_MAX as u64)?.unwrap_or(1) as u8,
        heartbeat_ms: number(given, "heartbeat", 1, 60_000)?.unwrap_or(50),
        suspect_after_ms: number(given, "suspect-after", 1, 600_000)?.unwrap_or(500),
        memory_limit_bytes: number(given, "memory-limit", MEMORY_LIMIT_BYTES_MIN, u64::MAX)?,
        disk: choice(given, "disk", DiskChoice::from_name, "auto, uring, aio or blocking")?.unwrap_or_default(),
        log_level: choice(given, "log-level", level_from_name, "error, warning, info or debug")?.unwrap_or(Level::Info),
        fault_fd: number(given, "fault-fd", 3, i32::MAX as u64)?.map(|fd| fd as i32),
    };
    if let Some(address) = options.http.as_deref().filter(|&address| address != "none") {
        check_address(address).map_err(|why| Exit::usage(format!("--http: {why}")))?;
    }
    if options.policy == Policy::Available {
        return Err(Exit::usage("--partition available is not supported by this version"));
    }
    if options.suspect_after_ms < 2 * options.heartbeat_ms {
        return Err(Exit::usage("--suspect-after must be at least twice --heartbeat"));
    }
    Ok(options)
}

fn book(given: &getopts::Matches) -> Result<BookSource, Exit> {
    let count = number(given, "n", 1, REPLICAS_MAX as u64)?;
    let port = number(given, "port", 1, u64::from(u16::MAX))?;
    match (given.opt_str("cluster"), count, port) {
        (Some(_), Some(_), _) => Err(Exit::usage("--cluster and --n exclude each other")),
        (_, None, Some(_)) => Err(Exit::usage("--port goes with --n only")),
        (file, None, None) => Ok(BookSource::File(file.unwrap_or_else(|| BOOK_FILE.to_owned()).into())),
        (None, Some(count), port) => {
            let port = port.unwrap_or(u64::from(FIRST_PORT));
            if port + count - 1 > u64::from(u16::MAX) {
                return Err(Exit::usage(format!("--port {port} leaves no room for {count} ports")));
            }
            Ok(BookSource::Loopback { count: count as u8, port: port as u16 })
        }
    }
}

fn default_data(id: ReplicaId, environment: &Environment<'_>) -> Result<PathBuf, Exit> {
    let variable = environment.variable;
    let base = match (variable("STATE_DIRECTORY"), environment.root) {
        (Some(directory), _) => directory,
        (None, true) => "/var/lib/ftq".to_owned(),
        (None, false) => {
            variable("XDG_STATE_HOME")
                .or_else(|| variable("HOME").map(|home| home + "/.local/state"))
                .ok_or_else(|| Exit::usage("--data is missing: neither $XDG_STATE_HOME nor $HOME is set"))?
                + "/ftq"
        }
    };
    Ok(PathBuf::from(base).join(id.to_string()))
}

/// `None` where there is no directory for sockets: TCP is left.
fn default_socket(id: ReplicaId, environment: &Environment<'_>) -> Option<PathBuf> {
    let variable = environment.variable;
    let base = match (variable("RUNTIME_DIRECTORY"), environment.root) {
        (Some(directory), _) => directory,
        (None, true) => "/run/ftq".to_owned(),
        (None, false) => variable("XDG_RUNTIME_DIR")? + "/ftq",
    };
    Some(PathBuf::from(base).join(format!("{id}.sock")))
}

/// An option's number within bounds, `None` where it is not given.
fn number(given: &getopts::Matches, name: &str, low: u64, high: u64) -> Result<Option<u64>, Exit> {
    let Some(text) = given.opt_str(name) else { return Ok(None) };
    match text.parse::<u64>() {
        Ok(n) if (low..=high).contains(&n) => Ok(Some(n)),
        _ if high == u64::MAX => Err(Exit::usage(format!("--{name} {text}: must be a number, {low} at least"))),
        _ => Err(Exit::usage(format!("--{name} {text}: must be a number from {low} to {high}"))),
    }
}

fn choice<T>(
    given: &getopts::Matches,
    name: &str,
    from_name: impl Fn(&str) -> Option<T>,
    choices: &str,
) -> Result<Option<T>, Exit> {
    let Some(text) = given.opt_str(name) else { return Ok(None) };
    from_name(&text).map(Some).ok_or_else(|| Exit::usage(format!("--{name} {text}: must be {choices}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::exit::USAGE;

    fn parse_with(line: &str, variables: &[(&str, &str)], root: bool) -> Result<Command, Exit> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let variable = |name: &str| variables.iter().find(|v| v.0 == name).map(|v| v.1.to_owned());
        parse(&args, &Environment { variable: &variable, root })
    }

    fn run(line: &str) -> Options {
        match parse_with(line, &[], true) {
            Ok(Command::Run(options)) => options,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn refused(line: &str) -> String {
        let exit = parse_with(line, &[], true).expect_err(line);
        assert_eq!(exit.status, USAGE, "{line}");
        exit.message
    }

    #[test]
    fn defaults() {
        let o = run("--id 2");
        assert_eq!(o.book, BookSource::File("/etc/ftq/cluster".into()));
        assert_eq!((o.data, o.socket), ("/var/lib/ftq/2".into(), Some("/run/ftq/2.sock".into())));
        assert_eq!((o.heartbeat_ms, o.suspect_after_ms, o.min_members), (50, 500, 1));
        assert_eq!((o.durability, o.policy, o.disk), (Durability::Disk, Policy::Dynamic, DiskChoice::Auto));
        assert_eq!((o.memory_limit_bytes, o.log_level, o.fault_fd), (None, Level::Info, None));
        assert_eq!((o.http, o.key_chars_max), (None, 50));
    }

    #[test]
    fn everything_given() {
        let o = run("--id=3 --n 5 --port 9000 --data /d --socket none --insecure --durability memory \
             --partition majority --min-members 3 --heartbeat 20 --suspect-after 200 --memory-limit 100000000 \
             --disk blocking --log-level debug --fault-fd 3 --http 127.0.0.1:8000 --key-max 9");
        assert_eq!((o.http.as_deref(), o.key_chars_max), (Some("127.0.0.1:8000"), 9));
        assert_eq!(o.book, BookSource::Loopback { count: 5, port: 9000 });
        assert_eq!((o.data, o.socket, o.insecure), ("/d".into(), None, true));
        assert_eq!((o.durability, o.policy, o.disk), (Durability::Memory, Policy::Majority, DiskChoice::Blocking));
        assert_eq!((o.min_members, o.heartbeat_ms, o.suspect_after_ms), (3, 20, 200));
        assert_eq!((o.memory_limit_bytes, o.log_level, o.fault_fd), (Some(100_000_000), Level::Debug, Some(3)));
    }

    #[test]
    fn a_lab_passes_on_what_is_each_replicas() {
        let lab = |line: &str| match parse_with(line, &[], true) {
            Ok(Command::Lab(options)) => options,
            other => panic!("{line}: {other:?}"),
        };
        let plain = LabOptions { count: 3, port: None, data: None, passed_on: Vec::new() };
        assert_eq!(lab("--lab 3"), plain);
        let passed_on = ["--durability=memory", "--heartbeat=20"].map(str::to_owned).to_vec();
        let full = LabOptions { count: 5, port: Some(9000), data: Some("/d".into()), passed_on };
        assert_eq!(lab("--lab 5 --port 9000 --heartbeat 20 --data /d --durability memory"), full);
        assert!(refused("--lab 0").contains("from 1 to 15"));
        assert!(refused("--lab 3 --port 65534").contains("no room"));
        assert!(refused("--lab 3 --suspect-after 50").contains("twice --heartbeat"));
        assert_eq!(refused("--lab 3 --min-members 4"), "--min-members 4 is more than --lab 3");
        for option in
            ["--id 1", "--n 3", "--cluster f", "--socket s", "--http h:1", "--insecure", "--check", "--fault-fd 3"]
        {
            assert!(refused(&format!("--lab 3 {option}")).contains("does not go with --lab"), "{option}");
        }
    }

    #[test]
    fn directories_come_from_the_environment() {
        let of = |variables: &[(&str, &str)], root| match parse_with("--id 1", variables, root) {
            Ok(Command::Run(o)) => (o.data, o.socket),
            other => panic!("{other:?}"),
        };
        let systemd = [("STATE_DIRECTORY", "/var/lib/x"), ("RUNTIME_DIRECTORY", "/run/x")];
        assert_eq!(of(&systemd, false), ("/var/lib/x/1".into(), Some("/run/x/1.sock".into())));
        let user = [("HOME", "/home/u"), ("XDG_RUNTIME_DIR", "/run/user/7")];
        assert_eq!(of(&user, false), ("/home/u/.local/state/ftq/1".into(), Some("/run/user/7/ftq/1.sock".into())));
        let bare = [("XDG_STATE_HOME", "/s")];
        assert_eq!(of(&bare, false), ("/s/ftq/1".into(), None));
        assert!(parse_with("--id 1", &[], false).is_err());
    }

    #[test]
    fn mistakes_are_refused_by_name() {
        assert_eq!(refused(""), "--id is missing (see ftqd --help)");
        assert_eq!(refused("--id 0"), "--id 0: must be a number from 1 to 64");
        assert_eq!(refused("--id one"), "--id one: must be a number from 1 to 64");
        assert!(refused("--id 1 --n 99").contains("from 1 to 15"));
        assert_eq!(refused("--id 1 --n 3 --cluster f"), "--cluster and --n exclude each other");
        assert_eq!(refused("--id 1 --port 7400"), "--port goes with --n only");
        assert!(refused("--id 1 --n 3 --port 65534").contains("no room"));
        assert_eq!(refused("--id 1 --disk fast"), "--disk fast: must be auto, uring, aio or blocking");
        assert!(refused("--id 1 --memory-limit 5").contains("at least"));
        assert!(refused("--id 1 --heartbeat 300").contains("twice"));
        assert!(refused("--id 1 --fault-fd 1").contains("from 3"));
        assert!(refused("--id 1 --http :80").contains("must be HOST:PORT"));
        assert!(refused("--id 1 --key-max 501").contains("from 1 to 500"));
        assert!(refused("--id 1 --nonsense").contains("nonsense"));
        assert!(refused("--id 1 extra").contains("'extra'"));
        assert!(refused("--id 1 --id 2").contains("id"));
    }

    #[test]
    fn what_comes_later_says_so() {
        for option in ["--join", "--merge adopt", "--partition available"] {
            let message = refused(&format!("--id 1 {option}"));
            assert!(message.contains("not supported by this version"), "{message}");
        }
        let key = parse_with("--id 1 --key f", &[], true).expect_err("there are no keys yet");
        assert_eq!(key.status, crate::reactor::exit::CONFIGURATION, "as it is to ftqc");
    }

    #[test]
    fn help_and_version_need_nothing_else() {
        let Ok(Command::Say(help)) = parse_with("--help", &[], true) else { panic!("help") };
        assert!(help.contains("--suspect-after MS") && !help.contains("--join"), "{help}");
        assert!(help.contains("\n        --n COUNT       instead"), "{help}");
        let Ok(Command::Say(version)) = parse_with("--version", &[], true) else { panic!("version") };
        assert!(version.starts_with("ftqd "));
        assert!(matches!(parse_with("--id 1 --check", &[], true), Ok(Command::Check(_))));
    }
}
