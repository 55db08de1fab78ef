//! `ftqd --lab`: a whole group on this machine, for trying things out and for scripts. The replicas are real: processes
//! ([`crew`]) in a directory ([`place`]) that talk over loopback. What happens to their packets they do themselves,
//! told over inherited sockets ([`network`]), so that it takes no privileges and clients reach every side of a
//! partition. All of `ftqc`'s commands work here, and more ([`command`]). When the lab ends, all of this is gone.

pub mod command;
pub mod crew;
pub mod janitor;
pub mod network;
pub mod place;
pub mod status;

use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::output::{Output, Style};
use crate::cli::{self, pipe, prompt};
use crate::client::{Client, Code, Error, Server, Session};
use crate::reactor::exit::Exit;
use crate::reactor::options::LabOptions;
use crate::types::ReplicaId;
use crew::{Condition, Crew};
use janitor::Janitor;
use network::Network;
use place::Place;

/// How long commands are tried, and replicas waited for.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A running lab.
pub struct Lab {
    place: Arc<Place>,
    crew: Arc<Mutex<Crew>>,
    network: Network,
}

/// Runs a lab until its commands end. Gives the exit status.
pub fn run(options: &LabOptions) -> Result<i32, Exit> {
    let place = Arc::new(Place::open(options)?);
    // Kept to the very end. A lab without one leaves something behind at worst.
    let _janitor = place.is_temporary().then(|| Janitor::start(place.directory()));
    let crew = Arc::new(Mutex::new(Crew::new(options.count, options.passed_on.clone())));
    let ended = end_on_signals(&place, &crew).and_then(|()| {
        let (place, crew) = (Arc::clone(&place), Arc::clone(&crew));
        let mut lab = Lab { place, crew, network: Network::new(options.count) };
        lab.form()?;
        lab.obey()
    });
    std::mem::forget(end(&place, &crew));
    ended
}

fn lock(crew: &Mutex<Crew>) -> MutexGuard<'_, Crew> {
    crew.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends all replicas and removes what is temporary. Nobody is started any more while the guard is kept.
fn end<'c>(place: &Place, crew: &'c Mutex<Crew>) -> MutexGuard<'c, Crew> {
    let mut crew = lock(crew);
    // Whose data is thrown away need not be stopped in good order.
    crew.end(!place.is_temporary());
    place.remove();
    crew
}

/// A signal ends the lab as `quit` does, whatever it is doing.
fn end_on_signals(place: &Arc<Place>, crew: &Arc<Mutex<Crew>>) -> Result<(), Exit> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(|e| Exit::system("watch for signals", &e))?;
    let (place, crew, terminal) = (Arc::clone(place), Arc::clone(crew), terminal_settings());
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            let _guard = end(&place, &crew);
            if let Some(settings) = terminal {
                // SAFETY: settings that were asked of this very descriptor.
                unsafe { libc::tcsetattr(0, libc::TCSANOW, &raw const settings) };
            }
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// How the terminal on stdin is set, if there is one: the prompt changes it while a line is typed.
fn terminal_settings() -> Option<libc::termios> {
    // SAFETY: plain numbers, for which zeros are good values, filled in by the call.
    unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        (libc::tcgetattr(0, &raw mut settings) == 0).then_some(settings)
    }
}

impl Lab {
    fn count(&self) -> u8 {
        self.place.book.len() as u8
    }

    fn crew(&self) -> MutexGuard<'_, Crew> {
        lock(&self.crew)
    }

    fn condition(&self, id: ReplicaId) -> Condition {
        self.crew().condition(&self.place, id)
    }

    fn server(&self, id: ReplicaId) -> Server {
        Server::Tcp(self.place.address(id).to_owned())
    }

    fn running(&self) -> Vec<ReplicaId> {
        let ids = self.crew().ids();
        ids.into_iter().filter(|&id| self.condition(id) == Condition::Running).collect()
    }

    fn start(&self, id: ReplicaId) -> Result<(), Exit> {
        self.crew().start(&self.place, &self.network, id)
    }

    /// Has all replicas behave as the network is now.
    fn tell(&self) {
        self.crew().tell(&self.network);
    }

    /// Starts all and waits until they serve. Errors where one of them cannot run; a group that does not form is
    /// something to look at.
    fn form(&mut self) -> Result<(), Exit> {
        let ids = self.crew().ids();
        ids.iter().try_for_each(|&id| self.start(id))?;
        let addresses: Vec<&str> = ids.iter().map(|&id| self.place.address(id)).collect();
        let logs = self.place.directory().join("ID.log");
        say(&format!("replicas 1 to {} at {}; logs in {}", ids.len(), addresses.join(","), logs.display()));
        let served = self.wait_until_served(&ids);
        for id in ids {
            if let Condition::Ended(how, words) = self.condition(id) {
                return Err(Exit::unavailable(format!("replica {id} does not run ({how}): {words}")));
            }
        }
        if let Err(e) = served {
            say(e.message());
        }
        Ok(())
    }

    /// Until these replicas serve, in a view of such only as run and are reached. Errors: one does not within patience.
    fn wait_until_served(&self, ids: &[ReplicaId]) -> Result<(), Error> {
        let until = Instant::now() + PATIENCE;
        for &id in ids {
            while let Some(why) = self.why_not_served(id) {
                let gone = !matches!(self.condition(id), Condition::Running);
                if gone || Instant::now() >= until {
                    return Err(Error::refused(Code::NotPrimary, why).about(&format!("replica {id}")));
                }
                thread::sleep(LOOK_AGAIN);
            }
        }
        Ok(())
    }

    /// What a replica lacks to serve; `None` for nothing.
    fn why_not_served(&self, id: ReplicaId) -> Option<String> {
        let told = Client::new(vec![self.server(id)], Duration::ZERO).status();
        let status: Value = match told {
            Ok(text) => serde_json::from_str(&text).unwrap_or_default(),
            Err(e) => return Some(e.message().to_owned()),
        };
        if status["primary"] != true {
            return Some(status["reason"].as_str().unwrap_or("not primary").to_owned());
        }
        let members = status["members"].as_array().into_iter().flatten().filter_map(Value::as_u64);
        let mut lost = members.map(|member| ReplicaId(member as u8)).filter(|&member| {
            !self.network.side_of(id).contains(&member) || self.condition(member) != Condition::Running
        });
        lost.next().map(|member| format!("its view still has replica {member}"))
    }

    /// Commands from stdin, a terminal or not, until there are no more.
    fn obey(self) -> Result<i32, Exit> {
        let stdout = cli::stream::Stream::stdout().map_err(|e| Exit::system("use stdout", &e))?;
        let style = Style { lines: true, escape: true, terminal: io::stdout().is_terminal(), ..Style::default() };
        let mut out = Output::new(style, Some(stdout));
        let servers = self.crew().ids().into_iter().map(|id| self.server(id)).collect();
        let mut session = Session::new(servers, PATIENCE);
        let lab = Rc::new(RefCell::new(self));
        let understand = |line: &[u8], style, stale| command::understand(&lab, line, style, stale);
        if prompt::is_wanted() {
            say("'help' lists the commands, 'quit' ends the lab");
            prompt::run(&mut session, &mut out, false, &understand, command::names());
        } else {
            pipe::run(&mut session, &mut out, false, &understand);
        }
        session.end();
        Ok(i32::from(out.status()))
    }
}

/// Something for a person, beside the answers.
fn say(message: &str) {
    // There is nobody to tell when stderr is closed.
    let _ = writeln!(io::stderr(), "lab: {message}");
}
