//! The deliberately broken variants of the core (`ftq::broken`): each must be caught, and it is told after how many
//! seeds. Those of the change of a view are caught by the exploration; what the simulator sees of them is told, too.

use ftq::broken;

use super::model::brief;
use super::options::Options;
use super::runner::{keep_panics, run_all};

/// Within so many seeds every variant of the order is caught.
const WITHIN_SEEDS: u64 = 1000;
/// How far the seeds of one try lie from those of the next.
const APART: u64 = 1 << 32;

/// Since views change these are reached too seldom to be relied on: a member with a lost last message is put out and
/// sends it again, and sessions seldom end while they wait.
/// Since askings that bring nothing ask for less, resending seldom reaches its bound, which `group::resend` tests.
const RARE: [&str; 3] = ["silent-last-message", "dead-waiter-served", "resend-unbounded"];

/// `--broken`: the exit status.
pub fn run(options: &Options, name: &str) -> i32 {
    keep_panics();
    if !cfg!(feature = "broken") {
        println!("broken variants need the feature: cargo test --features broken --profile sim --test sim -- ...");
        return 64;
    }
    let seeds = if options.seeds_given { options.seeds } else { WITHIN_SEEDS };
    let options = Options { seeds, ..options.clone() };
    let is_wanted = |variant: &&(&'static str, &str)| ["all", "must", variant.0].contains(&name);
    let must: Vec<_> = broken::VARIANTS.iter().filter(is_wanted).collect();
    let mut may: Vec<_> = broken::CHANGE_VARIANTS.iter().filter(is_wanted).collect();
    if must.is_empty() && may.is_empty() {
        println!("no variant is called {name}");
        return 64;
    }
    let (mut rare, must): (Vec<_>, Vec<_>) = must.into_iter().partition(|variant| RARE.contains(&variant.0));
    if name == "must" {
        rare.clear();
        may.clear();
    }
    let by_chance = rare.iter().filter(|(variant, rule)| is_caught(&options, variant, rule)).count();
    println!("{by_chance} of {} variants seen that only chance reaches", rare.len());
    let caught = must.iter().filter(|(variant, rule)| is_caught(&options, variant, rule)).count();
    let seen = may.iter().filter(|(variant, rule)| is_caught(&options, variant, rule)).count();
    println!("{caught} of {} variants of the replica caught", must.len());
    println!("{seen} of {} variants of the change seen, which the exploration catches", may.len());
    i32::from(caught < must.len())
}

/// Runs seeds until one fails, several times, and says when. Once is enough where it is not caught at all.
fn is_caught(options: &Options, variant: &'static str, rule: &str) -> bool {
    let (mut needed, mut first) = (Vec::new(), None);
    for attempt in 0..options.tries {
        let from = options.from.wrapping_add(attempt * APART);
        let (_, failures, ran) = run_all(&Options { from, ..options.clone() }, 1, || activate(variant));
        let Some((seed, failure)) = failures.into_iter().min() else {
            println!("{variant:<28} NOT CAUGHT in {ran} seeds ({rule})");
            return false;
        };
        needed.push(seed - from + 1);
        first.get_or_insert((seed, failure));
    }
    needed.sort_unstable();
    if let Some((seed, failure)) = first {
        let (median, tries) = (needed[needed.len() / 2], needed.len());
        println!("{variant:<28} {median:>4} seeds in the median of {tries}, as by {seed}: {}", brief(&failure));
    }
    true
}

#[cfg(feature = "broken")]
fn activate(variant: &'static str) {
    broken::set(Some(variant));
}

#[cfg(not(feature = "broken"))]
fn activate(_: &'static str) {}
