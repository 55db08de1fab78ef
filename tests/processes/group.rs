//! A group of replicas as processes, with their book, directories, sockets and logs in one temporary place.

use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

use crate::ftqc::{dies_with_us, ftqc, until, wait, Run};
use crate::net::{say, Net};

pub struct Group {
    pub net: Net,
    pub size: u8,
    place: TempDir,
    options: Vec<String>,
    replicas: Vec<Option<Child>>,
}

impl Group {
    /// Starts `size` replicas and waits until all of them can serve.
    pub fn start(net: Net, size: u8) -> Group {
        Group::start_with(net, size, &[])
    }

    /// The same, each replica with these options.
    pub fn start_with(net: Net, size: u8, options: &[&str]) -> Group {
        let mut group = Group::prepare(net, size, options);
        (1..=size).for_each(|id| group.launch(id));
        group.await_primary();
        group
    }

    /// Everything in place, nobody started.
    pub fn prepare(net: Net, size: u8, options: &[&str]) -> Group {
        let place = tempfile::Builder::new().prefix("ftq-").tempdir().expect("a temporary directory");
        let book: String = (1..=size).map(|id| format!("{id} {}\n", net.address(id))).collect();
        fs::write(place.path().join("cluster"), book).expect("the place is ours");
        let options = options.iter().map(|&o| o.to_owned()).collect();
        Group { net, size, place, options, replicas: (0..size).map(|_| None).collect() }
    }

    pub fn path(&self) -> &Path {
        self.place.path()
    }

    pub fn data(&self, id: u8) -> PathBuf {
        self.path().join(format!("data{id}"))
    }

    /// The replica's Unix socket.
    pub fn socket(&self, id: u8) -> String {
        self.path().join(format!("{id}.sock")).to_str().expect("our own path").to_owned()
    }

    /// The command line that starts a replica.
    pub fn ftqd(&self, id: u8) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ftqd"));
        command.arg("--id").arg(id.to_string());
        command.arg("--cluster").arg(self.path().join("cluster"));
        command.arg("--data").arg(self.data(id));
        command.arg("--socket").arg(self.socket(id));
        command.arg("--insecure").args(&self.options);
        command.env_remove("NOTIFY_SOCKET").env_remove("STATE_DIRECTORY").env_remove("RUNTIME_DIRECTORY");
        command
    }

    pub fn launch(&mut self, id: u8) {
        self.launch_with(id, &[]);
    }

    /// Starts a replica with options of its own.
    pub fn launch_with(&mut self, id: u8, options: &[&str]) {
        let log = File::options().create(true).append(true).open(self.log_path(id)).expect("the place is ours");
        let mut command = self.ftqd(id);
        command.args(options).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = dies_with_us(&mut command).spawn().expect("ftqd is built");
        self.replicas[usize::from(id) - 1] = Some(child);
    }

    fn log_path(&self, id: u8) -> PathBuf {
        self.path().join(format!("{id}.log"))
    }

    pub fn log(&self, id: u8) -> String {
        fs::read_to_string(self.log_path(id)).unwrap_or_default()
    }

    fn signal(&self, id: u8, signal: i32) {
        let child = self.replicas[usize::from(id) - 1].as_ref().expect("it runs");
        // SAFETY: a signal to a child that was not waited for yet: the id is its own.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
    }

    /// Ends a replica by this signal; its exit status.
    pub fn end(&mut self, id: u8, signal: i32) -> i32 {
        self.signal(id, signal);
        let mut child = self.replicas[usize::from(id) - 1].take().expect("it runs");
        wait(&mut child, &format!("replica {id} ends"))
    }

    /// Waits until a replica ends by itself; its exit status.
    pub fn await_end(&mut self, id: u8) -> i32 {
        let mut child = self.replicas[usize::from(id) - 1].take().expect("it runs");
        wait(&mut child, &format!("replica {id} ends by itself"))
    }

    pub fn crash(&mut self, id: u8) {
        self.end(id, libc::SIGKILL);
    }

    /// All at once, as a power cut would: nobody lives to see another one die.
    pub fn crash_all(&mut self) {
        (1..=self.size).for_each(|id| self.pause(id));
        (1..=self.size).for_each(|id| self.signal(id, libc::SIGKILL));
        for id in 1..=self.size {
            let mut child = self.replicas[usize::from(id) - 1].take().expect("it runs");
            wait(&mut child, &format!("replica {id} ends"));
        }
    }

    pub fn pause(&self, id: u8) {
        self.signal(id, libc::SIGSTOP);
    }

    pub fn resume(&self, id: u8) {
        self.signal(id, libc::SIGCONT);
    }

    /// Panics if a replica that should run does not.
    pub fn assert_alive(&mut self) {
        for id in 1..=self.size {
            let child = self.replicas[usize::from(id) - 1].as_mut().expect("it was started");
            let ended = child.try_wait().expect("our own child");
            assert!(ended.is_none(), "replica {id} ended: {ended:?}");
        }
    }

    /// `ftqc` against one replica over TCP.
    pub fn ask(&self, id: u8, args: &[&str], stdin: impl Into<Vec<u8>>) -> Run {
        ftqc(&self.net.address(id), args, stdin)
    }

    /// Commands in pipe mode, one a line, against one replica.
    pub fn pipe(&self, id: u8, lines: &str) -> Run {
        self.ask(id, &[], lines)
    }

    /// What a replica says of itself, if it can be reached at all.
    pub fn status(&self, id: u8) -> Option<Value> {
        let run = self.ask(id, &["-t", "0", "--json", "status"], "");
        if run.status != 0 {
            return None;
        }
        Some(serde_json::from_slice(&run.stdout).unwrap_or_else(|e| panic!("{e}: {run:?}")))
    }

    /// Waits until a replica says something of itself that `wanted` is content with.
    #[track_caller]
    pub fn await_status(&self, id: u8, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(what, || self.status(id).filter(|s| wanted(s)))
    }

    pub fn await_primary(&self) {
        for id in 1..=self.size {
            self.await_status(id, "the group forms", |s| s["primary"] == true);
        }
    }

    /// Waits until every replica has applied the same slots, and holds their digests against each other (I1).
    #[track_caller]
    pub fn assert_agreement(&self) -> Value {
        let all = until("all replicas apply the same slots", || {
            let all: Vec<Value> = (1..=self.size).map(|id| self.status(id)).collect::<Option<_>>()?;
            all.windows(2).all(|w| w[0]["digest_slot"] == w[1]["digest_slot"]).then_some(all)
        });
        for status in &all {
            assert_eq!(status["digest"], all[0]["digest"], "I1: {all:?}");
        }
        all[0].clone()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for child in self.replicas.iter_mut().flatten() {
            // A paused replica does not mind: SIGKILL ends it all the same.
            child.kill().expect("our own child");
            child.wait().expect("our own child");
        }
        if std::thread::panicking() {
            for id in 1..=self.size {
                let log = self.log(id);
                let lines: Vec<&str> = log.lines().rev().take(30).collect();
                say(&format!("--- replica {id}"));
                lines.iter().rev().for_each(|line| say(line));
            }
        }
    }
}
