//! Runs seeds, on several threads, and says what came of it.

use std::cell::RefCell;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::marks;
use super::options::Options;
use super::tally::Tally;
use super::trace::Trace;
use super::world::World;

/// Seeds of an ordinary `cargo test`, and how many of them are run twice.
const TEST_SEEDS: u64 = 200;
const TWICE_SEEDS: u64 = 6;
/// So many failing seeds end a run.
const FAILURES_SHOWN: usize = 5;

struct Outcome {
    tally: Tally,
    hash: u64,
    failure: Option<String>,
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Panics are caught and told with their place: they are failures of a seed like any other.
pub fn keep_panics() {
    std::panic::set_hook(Box::new(|info| PANIC.with(|text| *text.borrow_mut() = info.to_string())));
}

fn run(seed: u64, trace: Trace, flip: bool) -> Outcome {
    let mut world = World::from_seed(seed, trace, flip);
    let failure = match catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(Ok(())) => None,
        Ok(Err(rule)) => Some(format!("{rule} (at {:.6} ms)", world.now as f64 / 1e6)),
        Err(_) => Some(format!("panic: {}", PANIC.with(|text| text.borrow().clone()))),
    };
    world.tally.settled.1 = seed;
    Outcome { hash: world.trace.hash(), tally: std::mem::take(&mut world.tally), failure }
}

/// Runs seeds one after the other on each of `jobs` threads until one fails for the `failures`th time, or the time is
/// over.
pub fn run_all(options: &Options, failures: usize, prepare: impl Fn() + Sync) -> (Tally, Vec<(u64, String)>, u64) {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let end = options.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let found = Mutex::new((Tally::default(), Vec::new(), 0));
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                prepare();
                while !stop.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= options.seeds || end.is_some_and(|end| Instant::now() >= end) {
                        break;
                    }
                    let outcome = run(options.from + index, Trace::new(options.trace), options.flip);
                    let mut found = found.lock().expect("no thread panics while it holds this");
                    found.0.add(&outcome.tally);
                    found.2 += 1;
                    if let Some(failure) = outcome.failure {
                        found.1.push((options.from + index, failure));
                        stop.store(found.1.len() >= failures, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    found.into_inner().expect("all threads have ended")
}

/// `--seeds`: the exit status.
pub fn seeds(options: &Options) -> i32 {
    keep_panics();
    let begun = Instant::now();
    let (tally, mut failures, ran) = run_all(options, FAILURES_SHOWN, || {});
    failures.sort_by_key(|&(seed, _)| seed);
    for (seed, failure) in &failures {
        println!("seed {seed} FAILED: {failure}");
        let flip = if options.flip { " --flip" } else { "" };
        println!("    make sim SEEDS=1 FROM={seed} TRACE=1");
        println!("    cargo test --profile sim --test sim -- --seeds 1 --from {seed} --trace{flip}");
    }
    report(&tally, ran, begun.elapsed().as_secs_f64(), options.jobs);
    let missing: Vec<_> = marks::required().filter(|mark| !tally.marks.contains_key(mark)).collect();
    let must_reach = options.marks || ran >= marks::WITHIN_SEEDS;
    if must_reach && !missing.is_empty() {
        println!("marks never reached: {missing:?}");
    }
    i32::from(!failures.is_empty() || must_reach && !missing.is_empty())
}

fn report(tally: &Tally, ran: u64, elapsed: f64, jobs: usize) {
    let virtual_s = tally.virtual_ns as f64 / 1e9;
    let speed = virtual_s / elapsed;
    println!(
        "{ran} seeds, {:.2} virtual hours in {elapsed:.1} s: {speed:.0} times real time, {:.0} on each of {jobs} cores",
        virtual_s / 3600.0,
        speed / jobs as f64
    );
    println!(
        "{} events, {} datagrams, {} views, {} slots, {} answers, {} reads",
        tally.steps, tally.datagrams, tally.views, tally.slots, tally.answers, tally.reads
    );
    let (settled_ns, seed) = tally.settled;
    println!("at the latest {:.2} s after the last fault all was answered, by {seed}", settled_ns as f64 / 1e9);
    let list = |counts: &std::collections::BTreeMap<&str, u64>| {
        counts.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
    };
    println!("faults: {}", list(&tally.faults));
    println!("marks: {}", list(&tally.marks));
}

/// `cargo test`: a few seeds, some of them twice, told as the test harness would.
pub fn test(options: &Options) -> i32 {
    keep_panics();
    let all = TEST_SEEDS + TWICE_SEEDS;
    println!("\nrunning {all} tests");
    let options = Options { seeds: TEST_SEEDS, from: 0, ..options.clone() };
    let (_, mut failures, _) = run_all(&options, usize::MAX, || {});
    for seed in 0..TWICE_SEEDS {
        let [one, two] = [0, 1].map(|_| run(seed, Trace::hashed(), false).hash);
        if one != two || one == 0 {
            failures.push((seed, "two runs of one seed differ".to_owned()));
        }
    }
    for (seed, failure) in &failures {
        println!("test seed {seed} ... FAILED: {failure}");
        println!("    cargo test --profile sim --test sim -- --seeds 1 --from {seed} --trace");
    }
    let failed = failures.len() as u64;
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out\n",
        all - failed
    );
    i32::from(failed > 0) * 101
}
