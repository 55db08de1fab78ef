//! Places that runs must reach: a simulator that never gets there tests nothing there.

/// Those of the core, and those of the simulator itself. No directory is put back from a backup here: that is found as
/// well as it can be, and an oracle would have to know how well that is (`replica::tests` put some back).
pub fn required() -> impl Iterator<Item = &'static str> {
    let core = ftq::marks::ALL.iter().copied().filter(|mark| *mark != ftq::marks::OLD_COPY);
    core.chain([HIGH, CLIENTS_WAIT, SNAPSHOT, TRIMMED, RESUMED])
}

pub const HIGH: &str = "a group began with high counters";
pub const CLIENTS_WAIT: &str = "clients wait until the replica takes their requests";
pub const SNAPSHOT: &str = "a snapshot was made";
pub const TRIMMED: &str = "a segment was dropped";
pub const RESUMED: &str = "a replica came up from a snapshot";

/// So many seeds reach all of them.
pub const WITHIN_SEEDS: u64 = 1000;
