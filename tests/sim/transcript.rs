//! Transcripts: scenarios as text whose expected output is every message and state change. They are worked examples
//! of the rules of DESIGN sections 4 and 5 as much as tests. A line that begins with `> ` is a command, the lines up
//! to the next blank one are what it brings about; `#` begins a comment. The world is the simulator's, with nothing
//! left to chance: a link takes 1 ms, a sync 1 ms, and the time counts from the moment the view stood.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::rc::Rc;

use ftq::rng::Rng;
use ftq::types::{ClientId, RequestNumber};
use ftq::wire::client::{ToReplica, VERSION};
use ftq::wire::codec::{Put, Reader};
use ftq::wire::operation::{Items, QueueOperation, QueueQuery, Target};

use super::client::Act;
use super::clock::{Nanos, MS, US};
use super::connections::NO_CLIENT;
use super::crash::Death;
use super::disk::{Pace, Tear};
use super::net::{self, Drop, Net};
use super::plan::Plan;
use super::trace::Trace;
use super::workload;
use super::world::{Event, World};

/// How long after the start the view stands and all is quiet.
const SETTLED: Nanos = 205 * MS;

/// What `tell changes` leaves: what is said in a change and by clients, and the replicas' own words.
const CHANGES: [&str; 16] = [
    "CHANGE ",
    "PREPARE",
    "PROMISE",
    "REFUSE",
    "SYNC",
    "READY",
    "ACCEPT",
    "INSTALL",
    "DOUBT",
    "HELLO",
    "Info:",
    "Warning:",
    "goes down",
    "starts",
    "<=",
    "=> c",
];

/// One scenario under way.
struct Scenario {
    world: World,
    /// Only what concerns changes of the view is told.
    changes_only: bool,
    /// For each client, by number, the requests and queries it has sent.
    sent: Vec<(u64, u64, u64)>,
}

/// The file as it should be: its commands, and what they bring about now.
pub fn replay(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut scenario = None;
    let mut told = false;
    for (number, line) in text.lines().enumerate() {
        match line.strip_prefix("> ") {
            Some(command) => {
                let output = obey(&mut scenario, command).map_err(|e| format!("line {}: {e}", number + 1))?;
                out.push_str(line);
                out.push('\n');
                output.iter().for_each(|line| out.extend([line.trim_end(), "\n"]));
                told = true;
            }
            None if line.is_empty() || line.starts_with('#') => {
                out.extend([line, "\n"]);
                told = false;
            }
            None if told => {}
            None => return Err(format!("line {}: neither a command nor what one brought about", number + 1)),
        }
    }
    Ok(out)
}

/// Carries out one command. The lines it brings about.
fn obey(scenario: &mut Option<Scenario>, command: &str) -> Result<Vec<String>, String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    if let ["replicas", count] = words[..] {
        *scenario = Some(Scenario::new(number(count)? as usize)?);
        return Ok(Vec::new());
    }
    let scenario = scenario.as_mut().ok_or("`replicas N` comes first")?;
    match words[..] {
        ["client", client, "at", replica] => scenario.connect(number(client)?, index(replica)?)?,
        ["client", client, ref request @ ..] => scenario.request(number(client)?, request)?,
        ["run", time] => scenario.run(duration(time)?)?,
        ["drop", kind, link] => scenario.drop(kind, link, 1)?,
        ["drop", kind, link, count] => scenario.drop(kind, link, number(count)?)?,
        ["delay", link, time] => {
            let (from, to) = ends(link)?;
            scenario.world.net.set_delay(from, to, duration(time)?);
        }
        ["cut", link] => {
            let (from, to) = ends(link)?;
            scenario.world.net.cut_until(from, to, Nanos::MAX);
        }
        ["heal", link] => {
            let (from, to) = ends(link)?;
            scenario.world.net.cut_until(from, to, 0);
        }
        ["part", sides] => scenario.part(sides, Nanos::MAX)?,
        ["heal"] => {
            let all: Vec<String> = (1..=scenario.world.plan.replicas).map(|id| id.to_string()).collect();
            scenario.part(&all.join("/"), 0)?;
        }
        ["kill", replica] => scenario.world.go_down(index(replica)?, Death::Killed)?,
        ["power", replica] => scenario.world.go_down(index(replica)?, Death::Power(Tear::Nothing))?,
        ["wipe", replica] => scenario.world.go_down(index(replica)?, Death::Wiped)?,
        ["start", replica] => scenario.world.start(index(replica)?)?,
        ["leave", replica] => scenario.world.on_leave(index(replica)?)?,
        ["pause", replica, time] => scenario.pause(index(replica)?, duration(time)?),
        ["tell", what @ ("all" | "changes")] => scenario.changes_only = what == "changes",
        ["views"] => return Ok(scenario.views()),
        ["disk", replica, time] => scenario.world.nodes[index(replica)?].disk.pace = Pace::exact(duration(time)?),
        ["inject", what, "at", replica] => scenario.inject(what, index(replica)?)?,
        ["drops", replica] => return scenario.drops(index(replica)?),
        _ => return Err(format!("no command: {command}")),
    }
    let mut lines = scenario.world.trace.kept.replace(Vec::new()).unwrap_or_default();
    lines.retain(|line| !scenario.changes_only || CHANGES.iter().any(|word| line.contains(word)));
    Ok(lines)
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("{word} is no number"))
}

fn index(word: &str) -> Result<usize, String> {
    number(word)?.checked_sub(1).map(|index| index as usize).ok_or_else(|| "replicas count from 1".to_owned())
}

fn ends(link: &str) -> Result<(usize, usize), String> {
    let (from, to) = link.split_once("->").ok_or_else(|| format!("{link} is no link"))?;
    Ok((index(from)?, index(to)?))
}

fn duration(word: &str) -> Result<Nanos, String> {
    if let Some(us) = word.strip_suffix("us") {
        return Ok(number(us)? * US);
    }
    let ms = word.strip_suffix("ms").ok_or_else(|| format!("{word} is no duration"))?;
    Ok(number(ms)? * MS)
}

/// The item a word stands for: itself, or so many bytes after a `#`.
fn item(word: &str) -> Result<Vec<u8>, String> {
    match word.strip_prefix('#') {
        Some(bytes) => Ok(vec![b'x'; number(bytes)? as usize]),
        None => Ok(word.as_bytes().to_vec()),
    }
}

impl Scenario {
    fn new(replicas: usize) -> Result<Scenario, String> {
        let plan = Plan::exact(replicas, Pace::exact(MS));
        let net = Net::exact(replicas, MS);
        let mut world = World::new(plan, net, Trace::new(false), Rng::new(1), true);
        (0..replicas).for_each(|node| world.schedule(0, Event::Start { node }));
        world.run_until(SETTLED)?;
        if let Some(node) = world.nodes.iter().find(|n| n.replica.as_ref().is_none_or(|r| !r.summary().0)) {
            return Err(format!("replica {} is not in the view", node.config.id));
        }
        let mut scenario = Scenario { world, changes_only: false, sent: Vec::new() };
        scenario.hear();
        Ok(scenario)
    }

    /// From here on everything is told, and the time counts from now.
    fn hear(&mut self) {
        self.world.trace.zero = self.world.now;
        self.world.trace.kept = Some(Vec::new());
        (0..self.world.plan.replicas).for_each(|index| self.world.trace_positions(index));
        self.world.trace.kept = Some(Vec::new());
    }

    fn run(&mut self, time: Nanos) -> Result<(), String> {
        self.world.run_until(self.world.now + time)
    }

    fn connection(&self, client: u64) -> Result<ClientId, String> {
        let connections = self.sent.get(client as usize).map(|sent| sent.0).filter(|&count| count > 0);
        let count = connections.ok_or_else(|| format!("client {client} is not connected"))?;
        Ok(ClientId(client * 100 + count))
    }

    fn send(&mut self, connection: ClientId, frame: &ToReplica<'_>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.world.act(NO_CLIENT, Act::Send { connection, frame: bytes });
    }

    /// A client opens a session, or moves with the one it has. That is not told.
    fn connect(&mut self, client: u64, replica: usize) -> Result<(), String> {
        let before = self.connection(client).ok().and_then(|c| self.world.connections.get(&c)).map(|c| c.session);
        if self.sent.len() <= client as usize {
            self.sent.resize(client as usize + 1, (0, 0, 0));
        }
        self.sent[client as usize].0 += 1;
        let connection = self.connection(client)?;
        self.world.trace.kept = None;
        self.world.act(NO_CLIENT, Act::Connect { connection, replica });
        self.send(connection, &ToReplica::Hello { version: VERSION });
        match before {
            Some(session) => self.send(connection, &ToReplica::Use { session, keep: false }),
            None => {
                self.world.judges.sends(ftq::types::SessionId::NONE, client, &workload::opening().into());
                self.send(connection, &ToReplica::Open { token: client });
            }
        }
        // Up to the end of a round of heartbeats, so that none falls into what is to be shown.
        self.world.run_until((self.world.now / (50 * MS) + 2) * 50 * MS + 5 * MS)?;
        self.hear();
        Ok(())
    }

    fn request(&mut self, client: u64, words: &[&str]) -> Result<(), String> {
        let connection = self.connection(client)?;
        let (_, requests, queries) = &mut self.sent[client as usize];
        let mut bytes = Vec::new();
        match *words {
            ["push", label, ref items @ ..] => {
                let items = items.iter().map(|word| item(word)).collect::<Result<Vec<_>, _>>()?;
                let mut list = Vec::new();
                Items::encode(&mut list, items.iter().map(Vec::as_slice));
                let items = Items::decode(&mut Reader::new(&list), items.len()).map_err(|e| e.to_string())?;
                QueueOperation::Push { target: Target::Label(label), items }.encode(&mut bytes);
            }
            ["pop", label] => QueueOperation::Pop { target: Target::Label(label), count: 1 }.encode(&mut bytes),
            // The last request once more, under its number.
            ["again", "pop", label] => {
                *requests -= 1;
                QueueOperation::Pop { target: Target::Label(label), count: 1 }.encode(&mut bytes);
            }
            ["size", label] => {
                QueueQuery::Size { target: Target::Label(label) }.encode(&mut bytes);
                *queries += 1;
                let number = *queries;
                self.world.judges.asks(connection, number, &Rc::from(bytes.as_slice()), false);
                self.send(connection, &ToReplica::Query { number, stale: false, query: &bytes });
                return Ok(());
            }
            _ => return Err(format!("no request: {words:?}")),
        }
        *requests += 1;
        let number = RequestNumber(*requests);
        let session = self.world.connections.get(&connection).ok_or("the connection is gone")?.session;
        self.world.judges.sends(session, number.0, &Rc::from(bytes.as_slice()));
        self.send(connection, &ToReplica::Request { number, seen: RequestNumber(0), operation: &bytes });
        Ok(())
    }

    fn drop(&mut self, kind: &str, link: &str, left: u64) -> Result<(), String> {
        let (from, to) = ends(link)?;
        self.world.net.drops.push(Drop { from, to, kind: kind.to_owned(), left });
        Ok(())
    }

    /// Cuts all links between these sides (`1,2/3`), or mends them: until this moment.
    fn part(&mut self, sides: &str, until: Nanos) -> Result<(), String> {
        let sides: Vec<Vec<usize>> =
            sides.split('/').map(|side| side.split(',').map(index).collect()).collect::<Result<_, _>>()?;
        for (k, side) in sides.iter().enumerate() {
            let others = || sides.iter().enumerate().filter(|(other, _)| *other != k).flat_map(|(_, side)| side);
            for (&from, &to) in side.iter().flat_map(|from| others().map(move |to| (from, to))) {
                self.world.net.cut_until(from, to, until);
            }
        }
        Ok(())
    }

    /// A replica's loop stands still for so long.
    fn pause(&mut self, node: usize, time: Nanos) {
        let until = self.world.now + time;
        self.world.nodes[node].paused_until = until;
        self.world.schedule(until, Event::Resume { node });
    }

    /// In which view each replica is, and why it does not serve.
    fn views(&self) -> Vec<String> {
        let tell = |node: &super::node::Node| match &node.replica {
            None => "down".to_owned(),
            Some(replica) => {
                let newest = replica.group().newest();
                let view = newest.map(|view| format!("view {} {}", view.epoch, view.members_text()));
                let (applied, digest) = replica.applied();
                let serves = replica.reason().unwrap_or_else(|| "serves".to_owned());
                format!("{}, applied {applied} {digest}, {serves}", view.unwrap_or_default())
            }
        };
        self.world.nodes.iter().map(|node| format!("{:>17}   {}", node.config.id.0, tell(node))).collect()
    }

    /// Puts a datagram before a replica that no replica sent just now.
    fn inject(&mut self, what: &str, to: usize) -> Result<(), String> {
        let stranger = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let member = net::address((to + 1) % self.world.plan.replicas);
        let mut garbage = Vec::new();
        garbage.put_str("this is no datagram");
        let (from, bytes) = match what {
            "garbage" => (member, garbage),
            "stranger" => (stranger, garbage),
            "empty" => (member, Vec::new()),
            "old" | "truncated" | "borrowed" => {
                let old = self.world.old.iter().rev().find(|(old, ..)| *old == to);
                let (_, from, bytes) = old.ok_or("nothing was sent yet")?;
                let length = if what == "truncated" { bytes.len() / 2 } else { bytes.len() };
                (if what == "borrowed" { stranger } else { *from }, bytes[..length].to_vec())
            }
            _ => return Err(format!("no datagram: {what}")),
        };
        self.world.schedule(self.world.now, Event::Datagram { to, from, bytes: Rc::new(bytes) });
        self.world.run_until(self.world.now)
    }

    /// What a replica dropped, by reason.
    fn drops(&mut self, index: usize) -> Result<Vec<String>, String> {
        let replica = self.world.nodes[index].replica.as_ref().ok_or("it is down")?;
        Ok(replica.group().drops().iter().map(|(reason, count)| format!("{reason:?} {count}")).collect())
    }
}

/// Replays every file of a directory and compares; with `update` writes them anew. The exit status.
pub fn run(directory: &Path, update: bool) -> i32 {
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .expect("the directory of transcripts is part of the sources")
        .map(|entry| entry.expect("a readable directory").path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    files.sort();
    println!("\nrunning {} tests", files.len());
    let mut failed = 0;
    for path in &files {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        match check(path, update) {
            Ok(()) => println!("test {name} ... ok"),
            Err(difference) => {
                failed += 1;
                println!("test {name} ... FAILED\n{difference}");
            }
        }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    let passed = files.len() - failed;
    println!("\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out\n");
    i32::from(failed > 0) * 101
}

/// Replays a file and compares; with `update` writes it anew. What differs first.
pub fn check(path: &Path, update: bool) -> Result<(), String> {
    let expected = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let found = replay(&expected)?;
    if update {
        return std::fs::write(path, found).map_err(|e| format!("{}: {e}", path.display()));
    }
    let pairs = expected.lines().zip(found.lines()).enumerate();
    match pairs.into_iter().find(|(_, (expected, found))| expected != found) {
        Some((line, (expected, found))) => Err(format!(
            "{} line {}:\n  expected {expected}\n  found    {found}\n(UPDATE=1 cargo test --test transcripts)",
            path.display(),
            line + 1
        )),
        None if expected.lines().count() != found.lines().count() => Err("one is longer than the other".to_owned()),
        None => Ok(()),
    }
}
