//! The command line.

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mode {
    /// What `cargo test` runs.
    Test,
    Seeds,
    /// This variant, `all`, or `must`: those of the replica.
    Broken(String),
    /// Those in this directory.
    Transcripts(String),
}

#[derive(Clone, Debug)]
pub struct Options {
    pub mode: Mode,
    pub from: u64,
    pub seeds: u64,
    /// Somebody said how many.
    pub seeds_given: bool,
    /// No more seeds are begun after so long.
    pub seconds: Option<u64>,
    /// So often each broken variant is looked for, in other seeds.
    pub tries: u64,
    pub jobs: usize,
    pub trace: bool,
    /// Every listed mark must be reached.
    pub marks: bool,
    /// Bits of datagrams are flipped on their way.
    pub flip: bool,
}

const USAGE: &str = "sim [--seeds N] [--from SEED] [--seconds N] [--jobs N] [--trace] [--marks] [--flip]
    [--broken NAME|all|must [--tries N]] [--transcripts DIR]";

/// Whatever the test harness of cargo would be told besides is left aside.
pub fn read() -> Options {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options = Options {
        mode: Mode::Test,
        from: 0,
        seeds: 100,
        seeds_given: false,
        seconds: None,
        tries: 3,
        jobs,
        trace: false,
        marks: false,
        flip: false,
    };
    let mut seeds = environment(&mut options);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| usage(&format!("{arg} wants a value")));
        match arg.as_str() {
            "--seeds" => (options.seeds, seeds) = (number(&value()), true),
            "--from" => (options.from, seeds) = (number(&value()), true),
            "--seconds" => options.seconds = Some(number(&value())),
            "--tries" => options.tries = number(&value()).max(1),
            "--jobs" => options.jobs = number_of_jobs(&value()),
            "--trace" => options.trace = true,
            "--marks" => options.marks = true,
            "--flip" => options.flip = true,
            "--broken" => options.mode = Mode::Broken(value()),
            "--transcripts" => options.mode = Mode::Transcripts(value()),
            "--help" => usage(""),
            _ => {}
        }
    }
    options.seeds_given = seeds;
    if seeds && options.mode == Mode::Test {
        options.mode = Mode::Seeds;
    }
    options
}

/// What `make sim` says: whether seeds are asked for.
fn environment(options: &mut Options) -> bool {
    let value = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (seeds, from, trace) = (value("FTQ_SIM_SEEDS"), value("FTQ_SIM_FROM"), value("FTQ_SIM_TRACE"));
    let any = seeds.is_some() || from.is_some() || trace.is_some();
    options.seeds = seeds.as_deref().map_or(options.seeds, number);
    options.jobs = value("FTQ_SIM_JOBS").as_deref().map_or(options.jobs, number_of_jobs);
    options.trace = trace.is_some();
    // With TRACE alone its value is the seed.
    if from.is_none() && trace.is_some() {
        options.seeds = 1;
    }
    options.from = from.or(trace).as_deref().map_or(options.from, number);
    any
}

fn number_of_jobs(text: &str) -> usize {
    number(text).max(1) as usize
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| usage(&format!("{text} is no number")))
}

fn usage(error: &str) -> ! {
    eprintln!("{error}\n{USAGE}");
    std::process::exit(64);
}
