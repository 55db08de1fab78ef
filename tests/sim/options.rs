//! The command line.

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mode {
    /// What `cargo test` runs.
    Test,
    Seeds,
    /// This variant, or `all`.
    Broken(String),
}

#[derive(Clone, Debug)]
pub struct Options {
    pub mode: Mode,
    pub from: u64,
    pub seeds: u64,
    pub jobs: usize,
    pub trace: bool,
    /// Every listed mark must be reached.
    pub marks: bool,
    /// Bits of datagrams are flipped on their way.
    pub flip: bool,
}

const USAGE: &str = "sim [--seeds N] [--from SEED] [--jobs N] [--trace] [--marks] [--flip] [--broken NAME|all]";

/// Whatever the test harness of cargo would be told besides is left aside.
pub fn read() -> Options {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options = Options { mode: Mode::Test, from: 0, seeds: 100, jobs, trace: false, marks: false, flip: false };
    let mut seeds = false;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| usage(&format!("{arg} wants a value")));
        match arg.as_str() {
            "--seeds" => (options.seeds, seeds) = (number(&value()), true),
            "--from" => (options.from, seeds) = (number(&value()), true),
            "--jobs" => options.jobs = number(&value()).max(1) as usize,
            "--trace" => options.trace = true,
            "--marks" => options.marks = true,
            "--flip" => options.flip = true,
            "--broken" => options.mode = Mode::Broken(value()),
            "--help" => usage(""),
            _ => {}
        }
    }
    if seeds && options.mode == Mode::Test {
        options.mode = Mode::Seeds;
    }
    options
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| usage(&format!("{text} is no number")))
}

fn usage(error: &str) -> ! {
    eprintln!("{error}\n{USAGE}");
    std::process::exit(64);
}
