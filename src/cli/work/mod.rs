//! `work`: like xargs on a queue. Each of its slots ([`slot`]) is a thread with a session of its own: it takes an item,
//! runs a job on it ([`job`]), extends the lease meanwhile and says what became of it. Signals, and children that end,
//! ring the slots' bells ([`bell`]). What they have in common is the [`Crew`]: whether work goes on, and how it went.

pub mod bell;
pub mod job;
pub mod slot;

use self::bell::{Bell, Orders};
use self::job::Job;
use self::slot::Slot;
use crate::cli::lease::{lease_ms, wait_ms_or};
use crate::cli::output::{complain, Output};
use crate::cli::table::{decimal, Call, Plan, Planned, Refusal};
use crate::client::{Error, Session};
use crate::wire::operation::WAIT_FOR_EVER_MS;
use std::io;
use std::sync::{Mutex, MutexGuard};
use std::thread;

/// Jobs that one worker runs at once: each has a thread and a connection.
const JOBS_MAX: u64 = 1000;
/// The exit status where a job failed.
const FAILED: u8 = 123;

/// What a worker was called with.
#[derive(Debug)]
pub struct Work {
    label: String,
    job: Job,
    jobs: usize,
    lease_ms: u64,
    /// How long a slot waits for an item before it ends.
    wait_ms: u64,
    /// After so many tries an item is buried.
    tries: Option<u32>,
    /// Success is told as well.
    tells: bool,
}

pub fn plan(call: &Call<'_>) -> Planned {
    let usage = |why: String| Refusal::Usage(why);
    if !call.alone {
        return Err(Error::bad_request("work has stdout for its jobs, and is a command of its own").into());
    }
    let [_, dashes, command @ ..] = call.operands else { return Err(usage("too few operands".to_string())) };
    if dashes != b"--" || command.is_empty() {
        return Err(usage("CMD stands behind LABEL and --".to_string()));
    }
    let jobs = decimal(call.option(b'j').unwrap_or(b"1")).filter(|jobs| (1..=JOBS_MAX).contains(jobs));
    let jobs = jobs.ok_or_else(|| usage(format!("-j takes a number from 1 to {JOBS_MAX}")))?;
    let tries = match call.long("tries") {
        Some(text) => {
            let tries = decimal(text).and_then(|tries| u32::try_from(tries).ok()).filter(|&tries| tries > 0);
            Some(tries.ok_or_else(|| usage(format!("--tries takes a whole number from 1 to {}", u32::MAX)))?)
        }
        None => None,
    };
    let work = Work {
        label: call.label()?.to_string(),
        job: Job::new(command),
        jobs: jobs as usize,
        lease_ms: lease_ms(call)?,
        wait_ms: wait_ms_or(call, WAIT_FOR_EVER_MS)?,
        tries,
        tells: call.option(b'v').is_some(),
    };
    Ok(Plan::Run(Box::new(move |session, out| run(&work, session, out))))
}

fn run(work: &Work, session: &Session, out: &mut Output) {
    if let Err(e) = work.job.find() {
        complain(&work.job.said(&e));
        return out.note_status(job::exit_status(&e));
    }
    let crew = match Crew::new(work.jobs) {
        Ok(crew) => crew,
        Err(e) => {
            complain(&format!("signals: {e}"));
            return out.note_status(70);
        }
    };
    thread::scope(|scope| {
        for at in 0..work.jobs {
            let crew = &crew;
            let session = Session::new(session.servers().to_vec(), session.timeout());
            let slot = thread::Builder::new().name(format!("slot {at}"));
            if let Err(e) = slot.spawn_scoped(scope, move || Slot::new(work, crew, at, session).run()) {
                crew.stop(70, &format!("thread: {e}"));
                break;
            }
        }
    });
    out.note_status(crew.exit_status());
}

/// What the slots of a worker have in common.
#[derive(Debug)]
pub struct Crew {
    orders: Orders,
    bells: Vec<Bell>,
    state: Mutex<State>,
}

#[derive(Default, Debug)]
struct State {
    /// No more items are taken.
    stops: bool,
    failed: bool,
    /// Why the worker as a whole was not up to its work.
    status: u8,
    /// The group is out of reach, and that was told.
    trouble: bool,
}

impl Crew {
    fn new(slots: usize) -> io::Result<Crew> {
        // Orders are counted before a bell rings for them.
        let orders = Orders::new()?;
        let bells = (0..slots).map(|_| Bell::new()).collect::<io::Result<Vec<_>>>()?;
        Ok(Crew { orders, bells, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    /// Rings for this slot.
    pub fn bell(&self, at: usize) -> &Bell {
        &self.bells[at]
    }

    /// Whether no more items are to be taken.
    pub fn stops(&self) -> bool {
        self.orders.count() > 0 || self.state().stops
    }

    /// Whether running jobs are to be killed.
    pub fn kills(&self) -> bool {
        self.orders.count() > 1
    }

    /// Nothing more is begun, for this reason.
    pub fn stop(&self, status: u8, why: &str) {
        complain(why);
        {
            let mut state = self.state();
            state.stops = true;
            if state.status == 0 {
                state.status = status;
            }
        }
        self.bells.iter().for_each(Bell::ring);
    }

    /// A job failed.
    pub fn failed(&self) {
        self.state().failed = true;
    }

    /// The group can't be asked for now: told once, until all is well again.
    pub fn in_trouble(&self, e: &Error) {
        if !std::mem::replace(&mut self.state().trouble, true) {
            complain(&format!("{e}; trying on"));
        }
    }

    pub fn is_well(&self) {
        self.state().trouble = false;
    }

    fn exit_status(&self) -> u8 {
        let state = self.state();
        match state.status {
            0 if state.failed => FAILED,
            status => status,
        }
    }
}
