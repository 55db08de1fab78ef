//! The view change, explored before it meets a socket: the real `group::change` under a scheduler that does the worst.
//!
//! `search` goes through every order of whole steps of three replicas up to a depth: messages late, lost and doubled,
//! crashes that lose any part of what was being written, several proposers. `walk` goes far at random, with lost
//! disks and split networks, and ends in calm, where a view of all must form and commit. `script` plays what neither
//! reaches.
//! With the feature `broken` every broken variant of the change must be caught.
//!
//! What was searched is printed. `EXPLORE_DEEPER` steps more, `EXPLORE_WALKS` walks from seed `EXPLORE_FROM`, and
//! `EXPLORE_BROKEN` walks at most for each variant widen it.

mod judges;
mod script;
mod search;
mod walk;
mod world;

use ftq::wire::view::Policy;
use search::{Limits, Search};
use world::World;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn explore(what: &str, policy: Policy, limits: Limits) {
    let limits = Limits { depth: limits.depth + number("EXPLORE_DEEPER", 0) as u32, ..limits };
    let mut search = Search::default();
    let outcome = search.run(&World::new(3, policy), &limits);
    let (states, steps) = (search.states(), search.steps);
    println!(
        "{what}: {limits:?}: {states} states, {steps} steps, up to epoch {}, {} commits",
        search.epochs, search.commits
    );
    outcome.unwrap_or_else(|broken| panic!("{broken}"));
}

const QUIET: Limits = Limits { depth: 0, proposals: 0, crashes: 0, cuts: 0, orders: 0, copies: 0 };

#[test]
fn every_interleaving_of_two_proposers() {
    explore("two proposers", Policy::Dynamic, Limits { depth: 11, proposals: 2, ..QUIET });
}

#[test]
fn every_interleaving_of_a_proposal_a_crash_and_a_copy() {
    explore("a crash", Policy::Dynamic, Limits { depth: 9, proposals: 1, crashes: 1, copies: 1, orders: 1, ..QUIET });
}

#[test]
fn every_interleaving_of_two_proposals_a_slot_and_a_cut() {
    explore("a cut", Policy::Dynamic, Limits { depth: 9, proposals: 2, cuts: 1, orders: 1, ..QUIET });
}

/// Replicas and steps of the walk of this seed.
fn shape(seed: u64) -> (u8, u32) {
    (3 + (seed % 3) as u8, [400, 1600, 3200][(seed / 3 % 3) as usize])
}

fn walks(policy: Policy) {
    let (from, count) = (number("EXPLORE_FROM", 1), number("EXPLORE_WALKS", 1_500));
    let (mut views, mut commits) = (0, 0);
    for seed in from..from + count {
        let (n, steps) = shape(seed);
        let reached = walk::walk(n, policy, seed, steps).unwrap_or_else(|broken| panic!("{broken}"));
        (views, commits) = (views + reached.views - 1, commits + reached.commits);
    }
    println!("{count} walks under {}: before the calm {views} changes and {commits} slots committed", policy.name());
    assert!(views as u64 > count && commits as u64 > 3 * count, "the walks must get somewhere");
}

#[test]
fn random_walks_under_dynamic() {
    walks(Policy::Dynamic);
}

#[test]
fn random_walks_under_majority() {
    walks(Policy::Majority);
}

#[test]
fn scripts_do_no_harm() {
    for (name, script) in script::SCRIPTS {
        let mut stage = script::Stage::new();
        script(&mut stage).unwrap_or_else(|broken| panic!("{name}: {broken}"));
        assert!(stage.passed.len() > 5, "{name} gets somewhere: {:?}", stage.passed);
    }
}

/// By its script, or by this many walks.
#[cfg(feature = "broken")]
#[test]
fn every_broken_variant_is_caught() {
    let (from, most) = (number("EXPLORE_FROM", 1), number("EXPLORE_BROKEN", 6_000));
    let mut missed = Vec::new();
    for (variant, rule) in ftq::broken::CHANGE_VARIANTS {
        ftq::broken::set(Some(variant));
        let script = script::SCRIPTS.iter().find(|(name, _)| name == variant);
        let scripted = script.and_then(|(_, script)| script(&mut script::Stage::new()).err());
        let walked = || {
            (from..from + most).find_map(|seed| {
                let (n, steps) = shape(seed);
                walk::walk(n, Policy::Dynamic, seed, steps).err().map(|broken| (seed - from + 1, broken))
            })
        };
        let first_line = |broken: &str| broken.chars().take_while(|&c| c != '\n').take(120).collect::<String>();
        match (&scripted, scripted.is_none().then(walked).flatten()) {
            (Some(broken), _) => println!("{variant} ({rule}): by its script; {}", first_line(broken)),
            (None, Some((walks, broken))) => println!("{variant} ({rule}): {walks} walks; {}", first_line(&broken)),
            (None, None) => missed.push(*variant),
        }
    }
    ftq::broken::set(None);
    assert!(missed.is_empty(), "not caught in {most} walks: {missed:?}");
}
