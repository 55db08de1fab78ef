//! Places that runs must reach: a simulator that never gets there tests nothing there.

/// Those of the core, and those of the simulator itself.
pub fn required() -> impl Iterator<Item = &'static str> {
    ftq::marks::ALL.iter().copied().chain([CLIENTS_WAIT, SNAPSHOT, TRIMMED, RESUMED])
}

pub const CLIENTS_WAIT: &str = "clients wait until the replica takes their requests";
pub const SNAPSHOT: &str = "a snapshot was made";
pub const TRIMMED: &str = "a segment was dropped";
pub const RESUMED: &str = "a replica came up from a snapshot";

/// So many seeds reach all of them.
pub const WITHIN_SEEDS: u64 = 1000;
