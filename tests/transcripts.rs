//! Replays `tests/transcripts/*.txt` in the simulator's world. `UPDATE=1 cargo test --test transcripts` writes what
//! they bring about anew; the difference is then to be reviewed like code.

use std::path::Path;

// Only transcripts are run here; the rest of the simulator has a target of its own.
#[allow(dead_code)]
#[path = "sim/main.rs"]
mod sim;

fn main() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    std::process::exit(sim::transcript::run(&directory, std::env::var_os("UPDATE").is_some()));
}
