//! The time without service: how long acknowledged pushes pause when one of three replicas fails, printed as a
//! distribution for each kind of failure and either client: `make gap`.
//!
//! Each run has a group of its own, so that no replica is kept out for failing often; the victims take turns. One
//! client is connected to the victim, one to another replica; both know all three. A gap is the longest time between
//! two acknowledgements around the failure and for a while after it. Cuts need root, for a private network namespace.
//! `RUNS` for each kind (15), `ONLY` kinds whose name holds this, `DURABILITY`, `LOGS=1` for what the replicas say.

#[allow(dead_code)]
#[path = "../processes/ftqc.rs"]
mod ftqc;
#[allow(dead_code)]
#[path = "../processes/group.rs"]
mod group;
#[allow(dead_code)]
#[path = "../processes/net.rs"]
mod net;

use std::env;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::mpsc::{channel, Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use ftq::client::{Client, Error, Server};
use group::Group;
use net::{is_root, Net};

const REPLICAS: u8 = 3;
/// Pushes flow undisturbed for this long before the failure.
const BEFORE: Duration = Duration::from_millis(300);
/// What begins this long after the failure is no part of it any more.
const AFTER: Duration = Duration::from_millis(1500);
const PATIENCE: Duration = Duration::from_secs(20);
/// Gates on the median seen by a client elsewhere: where the failure shows at once, and where only silence does
/// (`suspect-after` and 200 ms).
const AT_ONCE_MS: f64 = 50.0;
const SILENT_MS: f64 = 700.0;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// What the machine does to two clients all the same.
    Nothing,
    Kill,
    Pause,
    /// What the victim sends is lost.
    Mute,
    /// What is sent to the victim is lost.
    Deaf,
    Cut,
    Stop,
}

use Failure::{Cut, Deaf, Kill, Mute, Nothing, Pause, Stop};

impl Failure {
    fn name(self) -> &'static str {
        match self {
            Nothing => "no failure",
            Kill => "kill -9",
            Pause => "pause",
            Mute => "one-way cut, from it",
            Deaf => "one-way cut, to it",
            Cut => "full cut",
            Stop => "graceful stop",
        }
    }

    fn needs_rules(self) -> bool {
        matches!(self, Mute | Deaf | Cut)
    }

    fn gate_ms(self) -> Option<f64> {
        match self {
            Nothing => None,
            Kill | Stop => Some(AT_ONCE_MS),
            Pause | Mute | Deaf | Cut => Some(SILENT_MS),
        }
    }

    fn strike(self, group: &mut Group, victim: u8) {
        match self {
            Nothing => {}
            Kill => group.crash(victim),
            Pause => group.pause(victim),
            Mute => cut(victim, &["saddr"]),
            Deaf => cut(victim, &["daddr"]),
            Cut => cut(victim, &["saddr", "daddr"]),
            // What it exits with is the affair of other tests.
            Stop => drop(group.end(victim, libc::SIGTERM)),
        }
    }
}

/// Loses all packets between the victim and other replicas that have its address there. A client's have one address at
/// both ends, and pass.
fn cut(victim: u8, sides: &[&str]) {
    let mut rules = "table ip gap {\nchain arriving {\ntype filter hook input priority 0\n".to_owned();
    for side in sides {
        let other = if *side == "saddr" { "daddr" } else { "saddr" };
        for id in (1..=REPLICAS).filter(|&id| id != victim) {
            rules += &format!("ip {side} 10.77.0.{victim} ip {other} 10.77.0.{id} drop\n");
        }
    }
    rules += "}\n}\n";
    let mut nft =
        Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("`make tools` installs nft");
    nft.stdin.take().expect("piped").write_all(rules.as_bytes()).expect("nft reads");
    assert!(nft.wait().expect("it was started").success(), "nft takes {rules}");
}

/// Pushes one item after the other, beginning at one replica, until told when to end. Gives the moments of
/// acknowledgement.
fn push_on(servers: Vec<Server>, label: &str, end: &Receiver<Instant>) -> Result<Vec<Instant>, Error> {
    let mut client = Client::new(servers, PATIENCE);
    let (mut acknowledged, mut last) = (Vec::new(), None);
    loop {
        client.push(label, b"sixteen bytes it")?;
        let now = Instant::now();
        acknowledged.push(now);
        match end.try_recv() {
            Ok(end) => last = Some(end),
            Err(TryRecvError::Disconnected) => return Ok(acknowledged),
            Err(TryRecvError::Empty) => {}
        }
        if last.is_some_and(|end| now >= end) {
            return Ok(acknowledged);
        }
    }
}

/// The longest time between two acknowledgements, in milliseconds, of which the second came after the failure.
fn longest_gap(acknowledged: &[Instant], struck: Instant) -> f64 {
    let gaps = acknowledged.windows(2).filter(|pair| pair[1] >= struck).map(|pair| pair[1] - pair[0]);
    gaps.max().map_or(f64::INFINITY, |gap| gap.as_secs_f64() * 1e3)
}

/// One failure. The gaps of a client elsewhere and of the victim's, in milliseconds.
fn run(failure: Failure, victim: u8, options: &[&str]) -> [f64; 2] {
    let mut group = Group::start_with(Net::any("gap"), REPLICAS, options);
    let clients = [victim % REPLICAS + 1, victim].map(|first| {
        let ids = (0..REPLICAS).map(|k| (first - 1 + k) % REPLICAS + 1);
        let list: Vec<String> = ids.map(|id| group.net.address(id)).collect();
        let servers = Server::parse_list(&list.join(",")).expect("addresses");
        let (end, ending) = channel();
        (end, thread::spawn(move || push_on(servers, &format!("from{first}"), &ending)))
    });
    thread::sleep(BEFORE);
    let struck = Instant::now();
    failure.strike(&mut group, victim);
    let gaps = clients.map(|(end, pushing)| {
        // Who has ended already says why below.
        let _ = end.send(struck + AFTER);
        match pushing.join().expect("a client does not panic") {
            Ok(acknowledged) => longest_gap(&acknowledged, struck),
            Err(e) => {
                println!("  {}, replica {victim}: {e}", failure.name());
                f64::INFINITY
            }
        }
    });
    if env::var_os("LOGS").is_some() {
        println!("  {}, replica {victim}: {gaps:.1?} ms", failure.name());
        (1..=REPLICAS).for_each(|id| println!("  --- replica {id}\n{}", group.log(id)));
    }
    gaps
}

/// The value below which this share of all lie, of sorted ones.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1]
}

fn print(failure: Failure, client: &str, mut gaps: Vec<f64>, gate_ms: Option<f64>) {
    gaps.sort_by(f64::total_cmp);
    let [min, median, p90, max] = [0.0, 0.5, 0.9, 1.0].map(|share| quantile(&gaps, share));
    let gate =
        gate_ms.map_or(String::new(), |gate| format!("  {gate:.0}: {}", if median < gate { "met" } else { "missed" }));
    println!("{:<22}{client:<11}{min:>8.1}{median:>8.1}{p90:>8.1}{max:>8.1}{gate}", failure.name());
}

fn main() {
    let runs: usize = env::var("RUNS").ok().and_then(|runs| runs.parse().ok()).filter(|&runs| runs > 0).unwrap_or(15);
    let only = env::var("ONLY").unwrap_or_default();
    let durability = env::var("DURABILITY").unwrap_or_else(|_| "disk".to_owned());
    println!("the longest time between two acknowledged pushes, in ms, over {runs} runs; {REPLICAS} replicas");
    println!("{:<22}{:<11}{:>8}{:>8}{:>8}{:>8}  gate", "", "client", "min", "median", "p90", "max");
    let kinds = [Nothing, Kill, Pause, Mute, Deaf, Cut, Stop];
    for failure in kinds.into_iter().filter(|kind| kind.name().contains(&only)) {
        if failure.needs_rules() && !is_root() {
            println!("{:<22}skipped, needs root", failure.name());
            continue;
        }
        let victims = (1..=REPLICAS).cycle().take(runs);
        let all: Vec<[f64; 2]> = victims.map(|id| run(failure, id, &["--durability", &durability])).collect();
        print(failure, "elsewhere", all.iter().map(|gaps| gaps[0]).collect(), failure.gate_ms());
        print(failure, "at it", all.iter().map(|gaps| gaps[1]).collect(), None);
    }
}
