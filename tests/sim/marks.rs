//! Places that runs must reach: a simulator that never gets there tests nothing there.

/// Those of the core, and those of the simulator itself.
pub fn required() -> impl Iterator<Item = &'static str> {
    ftq::marks::ALL.iter().copied().chain([CLIENTS_WAIT])
}

pub const CLIENTS_WAIT: &str = "clients wait until the replica takes their requests";

/// So many seeds reach all of them.
pub const WITHIN_SEEDS: u64 = 1000;
