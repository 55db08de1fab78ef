//! The deliberately broken variants of the core (`ftq::broken`): each must be caught, and it is told after how many
//! seeds. Those of the change of a view are caught by the exploration; what the simulator sees of them is told, too.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;

use ftq::broken;

use super::model::brief;
use super::options::Options;
use super::runner::{keep_panics, run_all};
use super::transcript;

/// Within so many seeds every variant of the order is caught.
const WITHIN_SEEDS: u64 = 1000;
/// How far the seeds of one try lie from those of the next.
const APART: u64 = 1 << 32;

/// What random runs reach too seldom to be relied on, and the transcript that shows it instead. A member whose last
/// message is lost is put out, and sends it again in the next view; askings that bring nothing ask for less, so that
/// resending seldom reaches its bound.
const SHOWN: [(&str, &str); 2] =
    [("silent-last-message", "04-lost-last-message"), ("resend-unbounded", "27-repair-below-its-rate")];

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
    let (shown, must): (Vec<_>, Vec<_>) = must.into_iter().partition(|variant| transcript_of(variant.0).is_some());
    if name == "must" {
        may.clear();
    }
    let by_transcript = shown.iter().filter(|(variant, rule)| is_shown(variant, rule)).count();
    let caught = must.iter().filter(|(variant, rule)| is_caught(&options, variant, rule)).count();
    let seen = may.iter().filter(|(variant, rule)| is_caught(&options, variant, rule)).count();
    println!("{caught} of {} variants of the replica caught by seeds", must.len());
    println!("{by_transcript} of {} that seeds seldom meet caught by a transcript", shown.len());
    println!("{seen} of {} variants of the change seen, which the exploration catches", may.len());
    i32::from(caught + by_transcript < must.len() + shown.len())
}

fn transcript_of(variant: &str) -> Option<&'static str> {
    SHOWN.iter().find(|(shown, _)| *shown == variant).map(|(_, transcript)| *transcript)
}

/// Replays the variant's transcript: sound it must be as it is written, broken it must not.
fn is_shown(variant: &'static str, rule: &str) -> bool {
    let name = transcript_of(variant).expect("the caller has looked");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts").join(name).with_extension("txt");
    let replay = |active| {
        activate(active);
        let result = catch_unwind(AssertUnwindSafe(|| transcript::check(&path, false)));
        activate(None);
        result.unwrap_or_else(|_| Err("a panic".to_owned()))
    };
    match (replay(None), replay(Some(variant))) {
        (Ok(()), Err(difference)) => {
            let difference = difference.split_whitespace().collect::<Vec<_>>().join(" ");
            println!("{variant:<28} by the transcript {name}: {}", brief(&difference));
            true
        }
        (Err(difference), _) => {
            println!("{variant:<28} NOT CAUGHT: the transcript {name} itself fails: {}", brief(&difference));
            false
        }
        (Ok(()), Ok(())) => {
            println!("{variant:<28} NOT CAUGHT by the transcript {name} ({rule})");
            false
        }
    }
}

/// Runs seeds until one fails, several times, and says when. Once is enough where it is not caught at all.
fn is_caught(options: &Options, variant: &'static str, rule: &str) -> bool {
    let (mut needed, mut first) = (Vec::new(), None);
    for attempt in 0..options.tries {
        let from = options.from.wrapping_add(attempt * APART);
        let (_, failures, ran) = run_all(&Options { from, ..options.clone() }, 1, || activate(Some(variant)));
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
fn activate(variant: Option<&'static str>) {
    broken::set(variant);
}

#[cfg(not(feature = "broken"))]
fn activate(_: Option<&'static str>) {}
