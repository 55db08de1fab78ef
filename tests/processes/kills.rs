//! `push --session`, `pop --session` and `work` are killed at random moments, again and again, while replicas die and
//! come back: every line is pushed once, written once and in order, or done at least once and acknowledged once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use ftq::rng::Rng;
use serde_json::Value;

use crate::ftqc::{command, dies_with_us, run, until, wait};
use crate::group::Group;
use crate::net::{say, Net};

/// What is killed in each round.
const VICTIMS: usize = 4;
/// Lines that come in each round, to be popped and to be worked on.
const MAIL: u32 = 700;
const JOBS: u32 = 60;

/// How often something is killed: `FTQ_KILLS`, or a hundred times.
fn kills() -> usize {
    std::env::var("FTQ_KILLS").map_or(100, |kills| kills.parse().expect("FTQ_KILLS is a number"))
}

fn mail(n: u32) -> String {
    format!("mail {n} {}\n", "x".repeat((n % 50) as usize))
}

fn job(n: u32) -> String {
    format!("job {n}\n")
}

struct Clients {
    place: PathBuf,
    servers: String,
}

impl Clients {
    fn path(&self, name: &str) -> String {
        self.place.join(name).to_str().expect("our own path").to_owned()
    }

    fn append(&self, name: &str, lines: &str) {
        let file = File::options().create(true).append(true).open(self.place.join(name));
        file.and_then(|mut file| file.write_all(lines.as_bytes())).expect("the place is ours");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.place.join(name)).unwrap_or_default()
    }

    fn command(&self, args: &[&str], input: Option<&str>) -> Command {
        let mut command = command(&self.servers, args);
        let input = input.map(|name| File::open(self.place.join(name)).expect("it was written"));
        let told = File::options().create(true).append(true).open(self.place.join("told")).expect("the place is ours");
        dies_with_us(&mut command).stdin(input.map_or(Stdio::null(), Stdio::from)).stdout(Stdio::null()).stderr(told);
        command
    }

    fn push(&self, label: &str) -> Command {
        let (position, input) = (self.path(&format!("{label}.position")), format!("{label}.in"));
        self.command(&["-t", "60", "push", "--session", &position, label], Some(&input))
    }

    fn pop(&self, count: &str) -> Command {
        let (position, out) = (self.path("mail.popped"), self.path("mail.out"));
        self.command(&["-t", "60", "pop", "-n", count, "-w", "--session", &position, "--output", &out, "mail"], None)
    }

    /// Each job writes down its receipt, which try it is, and its item.
    fn work(&self) -> Command {
        let log = self.path("done");
        let script = "echo \"$FTQ_RECEIPT $FTQ_TRY $1\" >> \"$0\"";
        self.command(&["work", "-v", "-j", "4", "--lease", "2", "jobs", "--", "sh", "-c", script, &log, "{}"], None)
    }

    /// How many items of `jobs` there are in any state but the queue's own waiters.
    fn left(&self) -> u64 {
        let queues = run(command(&self.servers, &["-t", "60", "-j", "queues"]), Vec::new()).ok();
        let rows = queues.lines().map(|row| serde_json::from_str::<Value>(row).expect("an object"));
        let jobs = rows.into_iter().find(|row| row["label"] == "jobs").expect("it is there");
        ["size", "leased", "delayed", "buried"].iter().map(|state| jobs[*state].as_u64().expect("a number")).sum()
    }

    /// Lets everything come to its end.
    fn finish(&self, count: u32) {
        for label in ["mail", "jobs"] {
            let mut pushing = self.push(label).spawn().expect("ftqc is built");
            assert_eq!(wait(&mut pushing, "all is pushed"), 0, "{}", self.read("told"));
        }
        let mut popping = self.pop(&count.to_string()).spawn().expect("ftqc is built");
        assert_eq!(wait(&mut popping, "all is popped"), 0, "{}", self.read("told"));
        let mut working = self.work().spawn().expect("ftqc is built");
        until("all is done", || (self.left() == 0).then_some(()));
        // SAFETY: a signal to a child that was not waited for yet: the id is its own.
        assert_eq!(unsafe { libc::kill(working.id() as i32, libc::SIGTERM) }, 0);
        assert_eq!(wait(&mut working, "the worker ends"), 0, "{}", self.read("told"));
    }
}

/// What jobs and workers wrote down.
#[derive(Default)]
struct Record {
    /// For each receipt which try it was, and of what.
    done: BTreeMap<u64, (u32, String)>,
    acknowledged: BTreeSet<u64>,
}

impl Record {
    fn read(done: &str, told: &str) -> Record {
        let mut record = Record::default();
        for line in done.lines() {
            let mut words = line.splitn(3, ' ');
            let mut next = || words.next().unwrap_or_else(|| panic!("three words: {line}"));
            let (receipt, tries, item) = (next().parse().expect("a number"), next().parse().expect("a number"), next());
            assert!(record.done.insert(receipt, (tries, item.to_owned())).is_none(), "one lease, one job: {line}");
        }
        let receipts = told.lines().filter_map(|line| line.strip_prefix("ftqc: ")?.strip_suffix(": acknowledged"));
        for receipt in receipts.map(|receipt| receipt.parse().expect("a number")) {
            assert!(record.acknowledged.insert(receipt), "acknowledged twice: {receipt}");
        }
        record
    }

    /// What is wrong, if anything is, where these items were pushed in this order and the queue is empty.
    fn judge(&self, items: &[String]) -> Result<(), String> {
        let mut ended = BTreeMap::new();
        for receipt in &self.acknowledged {
            let (_, item) = self.done.get(receipt).ok_or_else(|| format!("acknowledged and not done: {receipt}"))?;
            if ended.insert(item, receipt).is_some() {
                return Err(format!("acknowledged twice: {item}"));
            }
        }
        let mut first = Vec::new();
        for (receipt, (tries, item)) in &self.done {
            if ended.get(item).is_some_and(|end| receipt > *end) {
                return Err(format!("delivered after it was acknowledged: {item}"));
            }
            first.extend((*tries == 1).then_some(item));
        }
        let places: BTreeMap<&String, usize> = items.iter().zip(0..).collect();
        let order: Option<Vec<usize>> = first.iter().map(|item| places.get(item).copied()).collect();
        let order = order.ok_or("something was done that was never pushed")?;
        if let Some(pair) = order.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(format!("out of order: {} before {}", items[pair[0]], items[pair[1]]));
        }
        let seen: BTreeSet<&String> = self.done.values().map(|(_, item)| item).collect();
        match items.iter().find(|item| !seen.contains(item)) {
            Some(lost) => Err(format!("lost: {lost}")),
            None => Ok(()),
        }
    }
}

#[test]
fn whoever_is_killed_loses_and_doubles_nothing() {
    let mut group = Group::start(Net::any("whoever_is_killed_loses_and_doubles_nothing"), 3);
    let clients = Clients { place: group.path().to_owned(), servers: group.servers_from(1) };
    let mut rng = Rng::new(std::process::id().into());
    let rounds = kills().div_ceil(VICTIMS) as u32;
    for round in 0..rounds {
        clients.append("mail.in", &(round * MAIL..(round + 1) * MAIL).map(mail).collect::<String>());
        clients.append("jobs.in", &(round * JOBS..(round + 1) * JOBS).map(job).collect::<String>());
        let commands = [clients.push("mail"), clients.push("jobs"), clients.pop("0"), clients.work()];
        let mut victims: Vec<Child> = commands.map(|mut command| command.spawn().expect("ftqc is built")).into();
        if round % 2 == 1 {
            let dead = if round % 10 == 9 { vec![1, 2, 3] } else { vec![(round / 2 % 3) as u8 + 1] };
            dead.iter().for_each(|&id| group.crash(id));
            dead.iter().for_each(|&id| group.launch(id));
        }
        while !victims.is_empty() {
            // Nothing waits for this: it only picks the moment of death.
            thread::sleep(Duration::from_micros(rng.below(70_000)));
            let mut victim = victims.swap_remove(rng.below(victims.len() as u64) as usize);
            victim.kill().expect("our own child");
            wait(&mut victim, "it dies");
        }
        if round % 6 == 5 {
            group.await_view(&[1, 2, 3]);
        }
    }
    clients.finish(rounds * MAIL);
    assert!(clients.read("mail.out") == clients.read("mail.in"), "each line once and in order");
    let items: Vec<String> = clients.read("jobs.in").lines().map(str::to_owned).collect();
    let record = Record::read(&clients.read("done"), &clients.read("told"));
    assert_eq!(record.judge(&items), Ok(()));
    let (leases, told) = (record.done.len(), record.acknowledged.len());
    say(&format!("{} kills: {} jobs in {leases} leases, {told} told to be acknowledged", kills(), items.len()));
    assert!(told > 0);
    group.await_view(&[1, 2, 3]);
    group.assert_agreement();
}

/// The judge is no yes-man.
#[test]
fn whatever_is_wrong_with_work_is_found() {
    let items = ["a", "b", "c"].map(str::to_owned);
    let judge = |done: &str, acknowledged: &[u64]| {
        let told: String = acknowledged.iter().map(|receipt| format!("ftqc: {receipt}: acknowledged\n")).collect();
        Record::read(done, &told).judge(&items).map_err(|why| why.split(':').next().map(str::to_owned))
    };
    let wrong = |why: &str| Err(Some(why.to_owned()));
    assert_eq!(judge("1 1 a\n2 1 b\n3 2 a\n4 1 c\n", &[2, 3, 4]), Ok(()));
    assert_eq!(judge("2 1 b\n3 2 a\n4 1 c\n", &[]), Ok(()), "who took it first was killed before its job began");
    assert_eq!(judge("1 1 a\n2 1 b\n", &[1, 2]), wrong("lost"));
    assert_eq!(judge("1 1 a\n2 1 b\n3 2 a\n4 1 c\n", &[1, 2, 4]), wrong("delivered after it was acknowledged"));
    assert_eq!(judge("1 1 a\n2 1 b\n3 2 a\n4 1 c\n", &[1, 3]), wrong("acknowledged twice"));
    assert_eq!(judge("1 1 b\n2 1 a\n4 1 c\n", &[]), wrong("out of order"));
    assert_eq!(judge("1 1 a\n2 1 b\n3 1 b\n4 1 c\n", &[]), wrong("out of order"), "pushed twice");
    assert_eq!(judge("1 1 a\n2 1 b\n4 1 c\n", &[3]), wrong("acknowledged and not done"));
    assert_eq!(judge("1 1 a\n2 1 b\n4 1 d\n", &[]), wrong("something was done that was never pushed"));
}
