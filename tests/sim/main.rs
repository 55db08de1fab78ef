//! The simulator: the very core of the daemon in a virtual world, from one seed each run (DESIGN sections 2 and 10).
//!
//! As a test it runs a fixed set of seeds. By hand:
//! `cargo test --profile sim --test sim -- --seeds 1000 --from 0 --jobs 2 [--trace] [--marks]`, and with the feature
//! `broken`: `-- --broken all --seeds 500`; `-- --transcripts DIRECTORY` replays transcripts from elsewhere.

mod chain;
mod client;
mod clock;
mod connections;
mod crash;
mod disk;
mod driver;
mod faults;
mod healing;
mod heights;
mod judges;
mod marks;
mod model;
mod net;
mod node;
mod options;
mod plan;
mod runner;
mod services;
mod store;
mod streams;
mod tally;
mod trace;
pub mod transcript;
mod variants;
mod wiretap;
mod words;
mod workload;
mod world;

/// Seeds come and go with buffers of megabytes: what one gives back the next takes, and the kernel is left out.
#[cfg(target_env = "gnu")]
fn keep_memory() {
    // Safety: only sets parameters of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}

#[cfg(not(target_env = "gnu"))]
fn keep_memory() {}

fn main() {
    keep_memory();
    let options = options::read();
    let code = match options.mode {
        options::Mode::Test => runner::test(&options),
        options::Mode::Seeds => runner::seeds(&options),
        options::Mode::Broken(ref name) => variants::run(&options, name),
        options::Mode::Transcripts(ref directory) => transcript::run(directory.as_ref(), false),
    };
    std::process::exit(code);
}
