//! What clients were told, held against what became of it: they push and pop through `ftqc` while replicas are killed,
//! paused, cut off and brought back at random. The judge reads nothing but the answers and exit statuses.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
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
        self.all_is_well();
    }

    fn all_is_well(&mut self) {
        self.group.net.heal();
        let all: Vec<u8> = (1..=self.group.size).collect();
        for &id in &all {
            self.wake(id);
            self.revive(id);
        }
        self.group.await_view(&all);
    }

    /// A directory is lost while the others have all of it; that is repaired before anything else befalls.
    fn lose(&mut self, id: u8) -> String {
        self.all_is_well();
        self.kill(id);
        fs::remove_dir_all(self.group.data(id)).expect("a directory of a replica that is dead");
        self.all_is_well();
        format!("lose the directory of {id}")
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
            8 if self.rng.chance(500_000) => self.lose(id),
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

/// Whose item this is, and which.
fn sent(item: &str) -> Option<(u8, u32)> {
    let (id, n) = item.split_once(' ')?;
    Some((id.parse().ok()?, n.parse().ok()?))
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
    /// What is wrong, if anything is.
    fn judge(&self) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for items in &self.popped {
            let mut last: BTreeMap<u8, u32> = BTreeMap::new();
            for item in items {
                let (id, n) = sent(item).ok_or_else(|| format!("no pusher's item: {item}"))?;
                match self.told(id, n) {
                    None => return Err(format!("never sent: {item}")),
                    Some(Told::NotDone) => return Err(format!("refused, and there: {item}")),
                    Some(Told::Unknown) => (),
                    Some(Told::Done) => {
                        let before = last.insert(id, n);
                        if before > Some(n) {
                            return Err(format!("pusher {id}: {n} after {before:?}"));
                        }
                    }
                }
                if !seen.insert((id, n)) {
                    return Err(format!("there twice: {item}"));
                }
            }
        }
        let pushes = self.pushed.iter().flat_map(|(id, all)| all.iter().map(|(n, told)| (*id, *n, *told)));
        let done = pushes.filter(|(.., told)| *told == Told::Done);
        let missing: Vec<(u8, u32)> = done.map(|(id, n, _)| (id, n)).filter(|item| !seen.contains(item)).collect();
        if missing.len() > self.unknown_pops {
            return Err(format!("acknowledged and gone: {missing:?}; {} pops unknown", self.unknown_pops));
        }
        Ok(())
    }

    fn told(&self, id: u8, n: u32) -> Option<Told> {
        self.pushed.get(&id)?.get(n as usize).map(|(_, told)| *told)
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
    group.assert_agreement();
    let rest = group.ask(1, &["pop", "-n", "1000000", "jobs"], "");
    assert_eq!(rest.status, 1, "all there is: {}", rest.stderr);
    record.popped.push(rest.text().lines().map(str::to_owned).collect());
    assert_eq!(record.judge(), Ok(()), "FTQ_SEED={seed}");
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

/// The judge is no yes-man.
#[test]
fn whatever_is_wrong_is_found() {
    let pushed: BTreeMap<u8, Vec<(u32, Told)>> =
        [(3, vec![(0, Told::Done), (1, Told::Done), (2, Told::NotDone), (3, Told::Unknown), (4, Told::Done)])].into();
    let judge = |popped: &[&[&str]], unknown_pops: usize| {
        let popped = popped.iter().map(|items| items.iter().map(|&item| item.to_owned()).collect()).collect();
        Record { pushed: pushed.clone(), popped, unknown_pops }
            .judge()
            .map_err(|e| e.split(':').next().map(str::to_owned))
    };
    let wrong = |text: &str| Err(Some(text.to_owned()));
    assert_eq!(judge(&[&["3 0", "3 4"], &["3 1"]], 0), Ok(()));
    assert_eq!(judge(&[&["3 0", "3 1", "3 4", "3 3"]], 0), Ok(()));
    assert_eq!(judge(&[&["3 0", "3 4"]], 1), Ok(()));
    assert_eq!(judge(&[&["3 0", "3 4"]], 0), wrong("acknowledged and gone"));
    assert_eq!(judge(&[&["3 0", "3 4", "3 1"]], 0), wrong("pusher 3"));
    assert_eq!(judge(&[&["3 0", "3 1", "3 4"], &["3 1"]], 0), wrong("there twice"));
    assert_eq!(judge(&[&["3 0", "3 1", "3 2", "3 4"]], 0), wrong("refused, and there"));
    assert_eq!(judge(&[&["3 0", "3 1", "3 4", "3 5"]], 0), wrong("never sent"));
    assert_eq!(judge(&[&["3 0", "3 1", "3 4", "x"]], 0), wrong("no pusher's item"));
}
