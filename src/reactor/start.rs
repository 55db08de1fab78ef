//! From a command line to a turning loop, or to a message and a status: options, book, data directory, sockets, and
//! then the core with what the disk holds.

use mio::Poll;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::group::bootstrap::Founding;
use crate::limits::SEGMENT_BYTES;
use crate::log::{replay, snapshot, SegmentNumber};
use crate::reactor::book::{self, Located};
use crate::reactor::clients::Clients;
use crate::reactor::disk::{self, Directory, Disk, Found, SnapshotWriter};
use crate::reactor::exit::{self, Exit};
use crate::reactor::fault::{FaultInput, Faults};
use crate::reactor::guests::Guests;
use crate::reactor::http::Http;
use crate::reactor::logger::Logger;
use crate::reactor::options::{self, BookSource, Command, Environment, LabOptions, Options};
use crate::reactor::os::{self, Alarm, Notifier, Signals};
use crate::reactor::peers::Peers;
use crate::reactor::udp::Udp;
use crate::reactor::wheel::Wheel;
use crate::reactor::{Reactor, FIRST_CLIENT, FIRST_HTTP, FIRST_PEER};
use crate::replica::{log_is_damaged, Config, Level, Outbox, Replica, Stored};
use crate::rng::Rng;
use crate::types::Slot;
use crate::wire::view::{Book, Peer};

/// Runs ftqd with these arguments, the program's name not included; `lab` runs one. Gives the exit status.
pub fn main(args: &[String], lab: fn(&LabOptions) -> Result<i32, Exit>) -> i32 {
    let variable = |name: &str| std::env::var(name).ok();
    // SAFETY: only asks.
    let root = unsafe { libc::geteuid() } == 0;
    let command = match options::parse(args, &Environment { variable: &variable, root }) {
        Ok(command) => command,
        Err(exit) => return report(&Logger::new(None, Level::Error), &exit),
    };
    match command {
        Command::Say(text) => {
            print!("{text}");
            exit::OK
        }
        Command::Check(options) => {
            let logger = Logger::new(Some(options.id), options.log_level);
            check(&options).map_or_else(
                |e| report(&logger, &e),
                |text| {
                    print!("{text}");
                    exit::OK
                },
            )
        }
        Command::Lab(options) => lab(&options).unwrap_or_else(|e| report(&Logger::new(None, Level::Error), &e)),
        Command::Run(options) => {
            let logger = Logger::new(Some(options.id), options.log_level);
            let ran = start(&options, &logger).and_then(Reactor::run);
            ran.unwrap_or_else(|e| report(&logger, &e))
        }
    }
}

fn report(logger: &Logger, exit: &Exit) -> i32 {
    logger.log(Level::Error, &exit.message);
    exit.status
}

/// The book and where its replicas are. Errors where it is wrong, or not safe without a key.
fn read_book(options: &Options) -> Result<(Book, Vec<Located>), Exit> {
    let (book, name) = match &options.book {
        BookSource::Loopback { count, port } => (book::on_loopback(*count, *port), "--n".to_owned()),
        BookSource::File(path) => {
            let name = path.display().to_string();
            let text = fs::read(path)
                .map_err(|e| Exit::configuration(format!("cannot read the book {name}: {e} (see --cluster)")))?;
            (book::parse(&String::from_utf8_lossy(&text), &name)?, name)
        }
    };
    if !book.iter().any(|e| e.id == options.id) {
        return Err(Exit::configuration(format!("{name}: replica {} is not listed", options.id)));
    }
    if usize::from(options.min_members) > book.len() {
        let message = format!("--min-members {} is more than the {} of {name}", options.min_members, book.len());
        return Err(Exit::configuration(message));
    }
    let located = book::resolve(&book, options.id)?;
    let open = located.iter().find(|l| !l.address.ip().is_loopback());
    if let Some(open) = open.filter(|_| !options.insecure) {
        let message = format!(
            "{name}: replica {} is at {}, which is not loopback, and there is no key: anybody who reaches these ports \
             could read and change everything. On a trusted network, allow it with --insecure",
            open.id, open.address
        );
        return Err(Exit::configuration(message));
    }
    Ok((book, located))
}

/// Where this replica answers HTTP, and the address it announces for that, if it does at all: `--http`, or the book's
/// third column. An address that stands for all of this host's is announced with the host of the book.
fn http_address(options: &Options, book: &Book) -> Result<Option<(SocketAddr, String)>, Exit> {
    let own = book.iter().find(|e| e.id == options.id).expect("checked with the book");
    let given = options.http.as_ref().or(own.http.as_ref()).filter(|text| *text != "none");
    let Some(text) = given else { return Ok(None) };
    let bind = book::resolve_one(text).map_err(|why| Exit::unavailable(format!("--http {text}: {why}")))?;
    if !bind.ip().is_loopback() && !options.insecure {
        let message = format!(
            "--http {text}: anybody who reaches this address could read and change everything. On a trusted network, \
             allow it with --insecure"
        );
        return Err(Exit::configuration(message));
    }
    let host = own.address.rsplit_once(':').map_or("", |(host, _)| host);
    let address = if bind.ip().is_unspecified() { format!("{host}:{}", bind.port()) } else { text.clone() };
    Ok(Some((bind, address)))
}

fn open_http(options: &Options, book: &Book, seed: u64) -> Result<Option<Http>, Exit> {
    let Some((bind, address)) = http_address(options, book)? else { return Ok(None) };
    Http::open(options.id, bind, address, options.key_chars_max, FIRST_HTTP, seed).map(Some)
}

/// Reads everything a start would read and touches nothing.
fn check(options: &Options) -> Result<String, Exit> {
    let (book, located) = read_book(options)?;
    http_address(options, &book)?;
    let mut text = format!("replica {} of {}\n", options.id, book.len());
    for (entry, place) in book.iter().zip(&located) {
        text += &format!("  {} {} ({})\n", entry.id, entry.address, place.address);
    }
    let path = &options.data;
    if path.exists() {
        if !disk::is_writable(path) {
            return Err(Exit::configuration(format!("data directory {}: cannot be written to", path.display())));
        }
        let found = Directory::open_to_look(path)?.read(options.id)?;
        let (policy, min_members, durability) = (options.policy, options.min_members, options.durability);
        let founding = Founding { book, policy, min_members, durability };
        let founded = found.meta.as_ref().and_then(|meta| meta.installed.as_ref());
        if let Some(differs) = founded.and_then(|view| founding.founded(view).err()) {
            return Err(Exit::configuration(differs));
        }
        text += &format!("data directory {}: {}\n", path.display(), describe(&found)?);
    } else {
        let here = Path::new(".");
        let above = path.ancestors().skip(1).find(|p| p.exists()).unwrap_or(here);
        if !above.is_dir() || !disk::is_writable(above) {
            let message = format!("data directory {}: cannot be made in {}", path.display(), above.display());
            return Err(Exit::configuration(message));
        }
        text += &format!("data directory {}: is not there, will be made\n", path.display());
    }
    Ok(text)
}

/// Errors where a start would refuse the log.
fn describe(found: &Found) -> Result<String, Exit> {
    let slices: Vec<(SegmentNumber, &[u8])> = found.segments.iter().map(|(n, m)| (*n, m.bytes())).collect();
    let log = replay(&slices);
    let state = match (&found.warning, &found.meta, &log.damaged) {
        (Some(warning), ..) => warning.clone(),
        (None, _, Some(damage)) => return Err(Exit::configuration(log_is_damaged(damage))),
        (None, None, None) => "blank".to_owned(),
        (None, Some(meta), None) => format!("incarnation {}, {} segments", meta.incarnation, slices.len()),
    };
    Ok(format!("{state}, last slot {}", log.end()))
}

/// Opens everything and brings the core up.
fn start(options: &Options, logger: &Logger) -> Result<Reactor, Exit> {
    let (book, located) = read_book(options)?;
    os::raise_open_files();
    let entropy = os::entropy().map_err(|e| Exit::system("get entropy", &e))?;
    let mut seeds = Rng::new(entropy);
    let faults = options.fault_fd.map(|fd| {
        let input = FaultInput::new(fd).map_err(|e| Exit::usage(format!("--fault-fd {fd}: {e}")))?;
        Ok::<_, Exit>((input, Faults::new(seeds.next_u64())))
    });
    let faults = faults.transpose()?;
    let directory = Directory::open(&options.data)?;
    let mut found = directory.read(options.id)?;
    set_damaged_aside(&directory, &mut found, logger)?;
    if let Some(warning) = &found.warning {
        let aside = directory.set_aside()?;
        logger.log(Level::Warning, &format!("{warning}; what was there is in {}", aside.display()));
    }
    let udp = Udp::open(&located, options.id)?;
    let own = located.iter().find(|l| l.id == options.id).expect("checked with the book");
    let mut clients = Clients::open(own.address, options.socket.as_deref(), FIRST_CLIENT)?;
    let http = open_http(options, &book, seeds.next_u64())?;
    let peers = Peers::new(&located, options.id, FIRST_PEER);
    clients.expect_peers(peers.addresses());
    let config = Config {
        id: options.id,
        book,
        peers: located.iter().map(|l| Peer { id: l.id, ip: l.address.ip() }).collect(),
        policy: options.policy,
        min_members: options.min_members,
        durability: options.durability,
        heartbeat_ms: options.heartbeat_ms,
        suspect_after_ms: options.suspect_after_ms,
        receive_buffer_bytes: udp.receive_buffer_bytes(),
        memory_limit_bytes: options.memory_limit_bytes.unwrap_or_else(|| os::ram_bytes() / 2),
        segment_bytes: SEGMENT_BYTES,
        datagram_size_max: udp.datagram_size_max(),
        directory: directory.identity()?,
        seed: entropy,
    };
    let signals = Signals::new().map_err(|e| Exit::system("watch for signals", &e))?;
    let alarm = Alarm::new().map_err(|e| Exit::system("make a timer", &e))?;
    let poll = Poll::new().map_err(|e| Exit::system("watch for events", &e))?;
    let (now, mut out) = (os::now(), Outbox::default());
    let replica = recover(config, found, &mut out)?;
    let disk = Disk::new(directory, options.disk, SEGMENT_BYTES)?;
    logger.log(Level::Info, &greeting(options, &own.address.to_string(), &disk));
    let (wheel, notifier) = (Wheel::new(now), Notifier::new(now));
    Ok(Reactor {
        poll,
        replica,
        out,
        udp,
        clients,
        guests: Guests::new(options.insecure),
        http,
        peers,
        disk,
        snapshots: SnapshotWriter::default(),
        signals,
        wheel,
        alarm,
        faults,
        notifier,
        logger: logger.clone(),
        passed: BTreeMap::new(),
        stop_at: None,
        status_at: now,
    })
}

/// Brings the core up. Damaged snapshots must have been set aside before. Errors where it refuses what the disk holds.
fn recover(config: Config, found: Found, out: &mut Outbox) -> Result<Replica, Exit> {
    let Found { meta, segments, snapshots, warning: _ } = found;
    let slices: Vec<(SegmentNumber, &[u8])> = segments.iter().map(|(n, m)| (*n, m.bytes())).collect();
    let files: Vec<(Slot, &[u8])> = snapshots.iter().map(|(slot, m)| (*slot, m.bytes())).collect();
    let choice = snapshot::choose(&files);
    let stored = Stored { meta, log: replay(&slices), snapshot: choice.newest, snapshots: choice.usable };
    let replica = Replica::recover(config, stored, os::now(), out);
    match out.stop.take() {
        Some((message, status)) => Err(Exit { status, message }),
        None => Ok(replica),
    }
}

/// Moves snapshots that are not what they were out of the way. Errors where one is of a newer version.
fn set_damaged_aside(directory: &Directory, found: &mut Found, logger: &Logger) -> Result<(), Exit> {
    let files: Vec<(Slot, &[u8])> = found.snapshots.iter().map(|(slot, m)| (*slot, m.bytes())).collect();
    let damaged = snapshot::choose(&files).damaged;
    if damaged.iter().any(|(_, e)| e.field == "format") {
        return Err(Exit::configuration("the data directory holds a snapshot written by a newer version of ftqd"));
    }
    for (slot, e) in &damaged {
        let aside = directory.set_snapshot_aside(*slot)?;
        let text = format!("the snapshot of slot {slot} is damaged ({e}): it is in {}", aside.display());
        logger.log(Level::Warning, &text);
    }
    found.snapshots.retain(|(slot, _)| damaged.iter().all(|(other, _)| other != slot));
    Ok(())
}

fn greeting(options: &Options, address: &str, disk: &Disk) -> String {
    let socket = options.socket.as_deref().map_or("none".into(), Path::to_string_lossy);
    format!(
        "ftqd {} at {address}, socket {socket}, data {}, by {}",
        env!("CARGO_PKG_VERSION"),
        options.data.display(),
        disk.engine_name()
    )
}
