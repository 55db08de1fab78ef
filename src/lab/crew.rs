//! The replicas of a lab as processes: started from the program that runs now, killed, paused, and never left behind.
//! They are out of the terminal's reach, and the kernel ends them when the lab ends in any way.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::network::Network;
use crate::lab::place::Place;
use crate::reactor::exit::Exit;
use crate::types::ReplicaId;

/// Who was asked to leave and does not is killed after so long.
const LEAVE_WAIT: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How a replica's process is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Condition {
    Running,
    Paused,
    Killed,
    /// It ended by itself: with what status, and its last words.
    Ended(String, String),
}

impl Condition {
    pub fn name(&self) -> &str {
        match self {
            Condition::Running => "running",
            Condition::Paused => "paused",
            Condition::Killed => "killed",
            Condition::Ended(status, _) => status,
        }
    }
}

/// One replica.
#[derive(Debug)]
struct Member {
    id: ReplicaId,
    condition: Condition,
    /// Present while there is a process.
    child: Option<Child>,
    /// Where its faults are commanded.
    faults: Option<UnixStream>,
}

/// All of them.
#[derive(Debug)]
pub struct Crew {
    members: Vec<Member>,
    /// Options of every replica.
    options: Vec<String>,
}

impl Crew {
    /// Nobody runs yet.
    pub fn new(count: u8, options: Vec<String>) -> Crew {
        let member = |id| Member { id: ReplicaId(id), condition: Condition::Killed, child: None, faults: None };
        Crew { members: (1..=count).map(member).collect(), options }
    }

    pub fn ids(&self) -> Vec<ReplicaId> {
        self.members.iter().map(|member| member.id).collect()
    }

    /// How a replica is now.
    pub fn condition(&mut self, place: &Place, id: ReplicaId) -> Condition {
        let member = self.member(id);
        // A child of our own that was not waited for can always be asked.
        if let Some(status) = member.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
            (member.child, member.faults) = (None, None);
            member.condition = Condition::Ended(how(status), last_words(place, id));
        }
        member.condition.clone()
    }

    fn member(&mut self, id: ReplicaId) -> &mut Member {
        self.members.iter_mut().find(|member| member.id == id).expect("ids are checked where they are read")
    }

    /// Starts a replica that does not run. Errors say why it cannot.
    pub fn start(&mut self, place: &Place, network: &Network, id: ReplicaId) -> Result<(), Exit> {
        let failed = |e: &io::Error| Exit::system(&format!("start replica {id}"), e);
        let path = place.log_path(id);
        let log = File::options().create(true).append(true).open(&path).map_err(|e| Exit::io("open", &path, &e))?;
        let (ours, theirs) = UnixStream::pair().map_err(|e| failed(&e))?;
        if !network.is_whole() {
            (&ours).write_all(network.told_to(id).as_bytes()).map_err(|e| failed(&e))?;
        }
        ours.set_nonblocking(true).map_err(|e| failed(&e))?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("ftqd").arg("--id").arg(id.to_string());
        command.arg("--cluster").arg(place.book_path()).arg("--data").arg(place.data_path(id));
        command.args(["--socket", "none", "--fault-fd"]).arg(theirs.as_raw_fd().to_string()).args(&self.options);
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "JOURNAL_STREAM"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        ends_with_us(&mut command, &theirs);
        let child = command.spawn().map_err(|e| failed(&e))?;
        *self.member(id) = Member { id, condition: Condition::Running, child: Some(child), faults: Some(ours) };
        Ok(())
    }

    /// Ends a replica at once, if there is a process.
    pub fn kill(&mut self, id: ReplicaId) {
        let member = self.member(id);
        if let Some(mut child) = member.child.take() {
            // One that is gone already is what was wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
        (member.faults, member.condition) = (None, Condition::Killed);
    }

    /// Stops a running replica in its tracks.
    pub fn pause(&mut self, id: ReplicaId) {
        let member = self.member(id);
        member.signal(libc::SIGSTOP);
        member.condition = Condition::Paused;
    }

    /// Lets a paused replica go on, in the network as it is now.
    pub fn resume(&mut self, network: &Network, id: ReplicaId) {
        let member = self.member(id);
        member.condition = Condition::Running;
        member.tell(network);
        member.signal(libc::SIGCONT);
    }

    /// Has all that run behave so; those that pause do when they go on.
    pub fn tell(&mut self, network: &Network) {
        self.members.iter_mut().filter(|m| m.condition == Condition::Running).for_each(|member| member.tell(network));
    }

    /// Ends all: at once, or as a host does that is shut down in good order.
    pub fn end(&mut self, in_order: bool) {
        if in_order {
            for member in &self.members {
                member.signal(libc::SIGTERM);
                member.signal(libc::SIGCONT);
            }
            let until = Instant::now() + LEAVE_WAIT;
            while self.members.iter_mut().any(Member::is_there) && Instant::now() < until {
                thread::sleep(LOOK_AGAIN);
            }
        }
        for id in self.ids() {
            self.kill(id);
        }
    }
}

impl Member {
    fn is_there(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    fn signal(&self, signal: i32) {
        let Some(child) = &self.child else { return };
        // SAFETY: a signal to a child that was not waited for yet: the id is its own. It may have ended meanwhile.
        unsafe { libc::kill(child.id() as i32, signal) };
    }

    fn tell(&mut self, network: &Network) {
        if let Some(faults) = &mut self.faults {
            // Who does not read any more has ended, and will be told when it is started again.
            let _ = faults.write_all(network.told_to(self.id).as_bytes());
        }
    }
}

/// The child dies with the thread that starts it, and inherits its end of the faults.
fn ends_with_us(command: &mut Command, faults: &UnixStream) {
    let (parent, fd) = (std::process::id() as i32, faults.as_raw_fd());
    // SAFETY: these calls are safe between fork and exec, and no memory of the parent is touched.
    unsafe {
        command.pre_exec(move || {
            let ready =
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 && libc::fcntl(fd, libc::F_SETFD, 0) == 0;
            match ready {
                true if libc::getppid() == parent => Ok(()),
                true => Err(io::ErrorKind::NotConnected.into()),
                false => Err(io::Error::last_os_error()),
            }
        });
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or(0)),
    }
}

/// The last line of a replica's log, without who says it.
fn last_words(place: &Place, id: ReplicaId) -> String {
    let log = fs::read(place.log_path(id)).unwrap_or_default();
    let line = String::from_utf8_lossy(&log).lines().last().unwrap_or_default().to_owned();
    line.split_once("]: ").map_or(line.clone(), |(_, words)| words.to_owned())
}
