//! What clients were told, held against what became of it: they push and pop through `ftqc` while replicas are killed,
//! paused, cut off and brought back at random. The judge reads nothing but the answers and exit statuses.

use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::ftqc::ftqc;
use crate::group::Group;
use crate::net::{say, Net};
use ftq::rng::Rng;

const STEPS: u32 = 14;
const PUSHERS: u8 = 4;
const POPPERS: u8 = 3;

/// What a client was told of one operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    Done,
    NotDone,
    Unknown,
}

impl Told {
    /// Reads one answer; a negative answer to a pop is done as well.
    fn of(answer: &Value) -> Told {
        match (&answer["ok"], answer["error"].as_str(), answer["done"].as_str()) {
            (Value::Bool(true), ..) | (_, Some("empty"), _) => Told::Done,
            (_, Some("not-primary" | "stopping" | "busy" | "unreachable"), Some("no")) => Told::NotDone,
            (_, Some("unknown-outcome" | "expired"), Some("unknown")) => Told::Unknown,
            _ => panic!("no answer for a client: {answer}"),
        }
    }

    /// The exit statuses that fit the worst of these answers.
    fn statuses(all: &[Told]) -> &'static [i32] {
        match (all.contains(&Told::Unknown), all.contains(&Told::NotDone)) {
            (true, _) => &[79],
            (false, true) => &[69, 75],
            (false, false) => &[0, 1],
        }
    }
}

/// One run of `ftqc` in pipe mode; what was told of each line.
fn tell(servers: &str, patience: &str, lines: &[String]) -> Vec<(Told, Value)> {
    let run = ftqc(servers, &["-j", "-t", patience], lines.iter().map(|line| format!("{line}\n")).collect::<String>());
    let answers: Vec<Value> = run.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answers.len(), lines.len(), "one answer a line: {run:?}");
    let told: Vec<(Told, Value)> = answers.into_iter().map(|answer| (Told::of(&answer), answer)).collect();
    let all: Vec<Told> = told.iter().map(|(told, _)| *told).collect();
    assert!(Told::statuses(&all).contains(&run.status), "status {} for {}{}", run.status, run.text(), run.stderr);
    told
}

/// How clients of a series behave.
#[derive(Clone, Copy)]
struct Manners {
    replicas: u8,
    /// Poppers wait until they know, so that every item can be accounted for.
    patient_poppers: bool,
}

/// Pushes `PUSHER NUMBER` in runs of a few lines until it is stopped; what it was told of each item.
fn pusher(id: u8, servers: &str, mut rng: Rng, stop: &AtomicBool) -> Vec<(u32, Told)> {
    let (mut all, mut next) = (Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let numbers: Vec<u32> = (next..next + rng.between(1, 30) as u32).collect();
        next += numbers.len() as u32;
        let patience = *rng.pick(&["0", "1", "60"]);
        let lines: Vec<String> = numbers.iter().map(|n| format!("qPush 1 {id} {n}")).collect();
        let told = tell(servers, patience, &lines);
        all.extend(numbers.into_iter().zip(told).map(|(n, (told, _))| (n, told)));
    }
    all
}

/// Pops until it is stopped; the items, and how many pops have an unknown outcome.
fn popper(servers: &str, mut rng: Rng, patient: bool, stop: &AtomicBool) -> (Vec<String>, usize) {
    let (mut items, mut unknown) = (Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let lines = vec!["qPop 1".to_owned(); rng.between(1, 20) as usize];
        let patience = if patient { "60" } else { *rng.pick(&["0", "1", "60"]) };
        for (told, answer) in tell(servers, patience, &lines) {
            unknown += usize::from(told == Told::Unknown);
            items.extend(answer["item"].as_str().map(str::to_owned));
        }
    }
    assert!(!patient || unknown == 0, "who waits for a minute learns what became of it: {unknown}");
    (items, unknown)
}

/// A random series of failures, and the end of all of them.
struct Series<'a> {
    group: &'a mut Group,
    rng: Rng,
    alive: Vec<bool>,
    asleep: Vec<bool>,
}

impl Series<'_> {
    fn run(&mut self) {
        for step in 0..STEPS {
            let what = self.step();
            say(&format!("step {step}: {what}"));
            // Nothing waits for this: it only picks the moment of the next failure.
            thread::sleep(Duration::from_millis(self.rng.below(900)));
        }
        self.group.net.heal();
        for id in 1..=self.group.size {
            self.wake(id);
            self.revive(id);
        }
    }

    fn step(&mut self) -> String {
        let id = self.rng.between(1, u64::from(self.group.size)) as u8;
        let place = usize::from(id) - 1;
        match self.rng.below(10) {
            0..=3 if !self.alive[place] => self.revive(id),
            0..=2 => self.kill(id),
            3 | 4 if self.asleep[place] => self.wake(id),
            3 | 4 if self.alive[place] => {
                self.group.pause(id);
                self.asleep[place] = true;
                format!("pause {id}")
            }
            5 | 6 => {
                let (one, other): (Vec<u8>, Vec<u8>) = (1..=self.group.size).partition(|_| self.rng.chance(500_000));
                self.group.net.cut_apart(&one, &other);
                format!("cut {one:?} from {other:?}")
            }
            7 => {
                let to = id % self.group.size + 1;
                self.group.net.cut(&[(id, to)]);
                format!("cut the way from {id} to {to}")
            }
            _ => {
                self.group.net.heal();
                "heal".to_owned()
            }
        }
    }

    fn kill(&mut self, id: u8) -> String {
        self.group.crash(id);
        (self.alive[usize::from(id) - 1], self.asleep[usize::from(id) - 1]) = (false, false);
        format!("kill {id}")
    }

    fn revive(&mut self, id: u8) -> String {
        if !std::mem::replace(&mut self.alive[usize::from(id) - 1], true) {
            self.group.launch(id);
        }
        format!("start {id}")
    }

    fn wake(&mut self, id: u8) -> String {
        if std::mem::replace(&mut self.asleep[usize::from(id) - 1], false) {
            self.group.resume(id);
        }
        format!("resume {id}")
    }
}

/// Everything that clients know in the end.
#[derive(Default)]
struct Record {
    pushed: BTreeMap<u8, Vec<(u32, Told)>>,
    /// The items that each popper got, in its order; the last one emptied the queue.
    popped: Vec<Vec<String>>,
    unknown_pops: usize,
}

impl Record {
    fn judge(&self) {
        let mut seen: BTreeMap<(u8, u32), u32> = BTreeMap::new();
        for items in &self.popped {
            let mut last: BTreeMap<u8, u32> = BTreeMap::new();
            for item in items {
                let (id, n) = item.split_once(' ').unwrap_or_else(|| panic!("never sent: {item}"));
                let (id, n): (u8, u32) = (id.parse().expect("a pusher"), n.parse().expect("a number"));
                *seen.entry((id, n)).or_default() += 1;
                if self.told(id, n) == Told::Done {
                    let before = last.insert(id, n);
                    assert!(before < Some(n), "pusher {id}: {n} after {before:?}");
                }
            }
        }
        for ((id, n), times) in &seen {
            assert_eq!(*times, 1, "item {n} of pusher {id}");
            assert_ne!(self.told(*id, *n), Told::NotDone, "item {n} of pusher {id} is there");
        }
        let missing: Vec<(u8, u32)> = self
            .pushed
            .iter()
            .flat_map(|(id, all)| {
                let done = all.iter().filter(|(_, told)| *told == Told::Done).map(|(n, _)| (*id, *n));
                done.filter(|item| !seen.contains_key(item))
            })
            .collect();
        assert!(
            missing.len() <= self.unknown_pops,
            "acknowledged and gone: {missing:?}; {} unknown",
            self.unknown_pops
        );
    }

    fn told(&self, id: u8, n: u32) -> Told {
        let all = self.pushed.get(&id).unwrap_or_else(|| panic!("no pusher {id}"));
        all.get(n as usize).unwrap_or_else(|| panic!("never sent: {id} {n}")).1
    }

    fn count(&self, wanted: Told) -> usize {
        self.pushed.values().flatten().filter(|(_, told)| *told == wanted).count()
    }
}

/// `FTQ_SEED` repeats a series of failures, though not its timing.
fn seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_nanos();
    let given = std::env::var("FTQ_SEED").ok();
    given.map_or((now % 1_000_000) as u64, |seed| seed.parse().expect("FTQ_SEED is a number"))
}

fn clients_are_told_the_truth(test: &str, manners: Manners) {
    let Some(net) = Net::private(test) else { return };
    let seed = seed();
    say(&format!("{test}: FTQ_SEED={seed}"));
    let (mut rng, mut group) = (Rng::new(seed), Group::start(net, manners.replicas));
    group.ask(1, &["qCreate", "jobs"], "").is(0, "1\n");
    let (stop, mut record) = (AtomicBool::new(false), Record::default());
    let servers = |client: u8, group: &Group| group.servers_from(client % group.size + 1);
    thread::scope(|scope| {
        let stop = &stop;
        let pushers: Vec<_> = (0..PUSHERS)
            .map(|id| (id, servers(id, &group), rng.fork()))
            .map(|(id, servers, rng)| (id, scope.spawn(move || pusher(id, &servers, rng, stop))))
            .collect();
        let poppers: Vec<_> = (0..POPPERS)
            .map(|id| (servers(id + 1, &group), rng.fork()))
            .map(|(servers, rng)| scope.spawn(move || popper(&servers, rng, manners.patient_poppers, stop)))
            .collect();
        let alive = vec![true; group.size.into()];
        let asleep = vec![false; group.size.into()];
        Series { group: &mut group, rng: rng.fork(), alive, asleep }.run();
        stop.store(true, Ordering::Relaxed);
        for (id, pusher) in pushers {
            record.pushed.insert(id, pusher.join().expect("a pusher comes to its end"));
        }
        for popper in poppers {
            let (items, unknown) = popper.join().expect("a popper comes to its end");
            record.popped.push(items);
            record.unknown_pops += unknown;
        }
    });
    let all: Vec<u8> = (1..=group.size).collect();
    group.await_view(&all);
    group.assert_agreement();
    let rest = group.ask(1, &["pop", "-n", "1000000", "jobs"], "");
    assert_eq!(rest.status, 1, "all there is: {}", rest.stderr);
    record.popped.push(rest.text().lines().map(str::to_owned).collect());
    record.judge();
    let [done, refused, unknown] = [Told::Done, Told::NotDone, Told::Unknown].map(|told| record.count(told));
    let popped: Vec<usize> = record.popped.iter().map(Vec::len).collect();
    say(&format!("{test}: pushes: {done} done, {refused} not, {unknown} unknown; pops: {popped:?}"));
    assert!(done > 0 && popped.iter().sum::<usize>() > 0);
    group.assert_alive();
}

#[test]
fn three_replicas_tell_the_truth() {
    clients_are_told_the_truth("three_replicas_tell_the_truth", Manners { replicas: 3, patient_poppers: true });
}

#[test]
fn five_replicas_tell_the_truth() {
    clients_are_told_the_truth("five_replicas_tell_the_truth", Manners { replicas: 5, patient_poppers: true });
}

#[test]
fn impatient_clients_are_told_the_truth() {
    clients_are_told_the_truth("impatient_clients_are_told_the_truth", Manners { replicas: 3, patient_poppers: false });
}
