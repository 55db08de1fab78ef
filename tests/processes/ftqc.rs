//! Runs `ftqc` and says what came of it.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Ends what hangs; nothing is measured by it.
const WATCHDOG: Duration = Duration::from_secs(60);

/// One run that has ended.
#[derive(Debug)]
pub struct Run {
    /// The exit status; 128 and the signal where one ended it.
    pub status: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Run {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("answers are text")
    }

    /// The answers, after a run that had to succeed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.status, 0, "{}{}", self.text(), self.stderr);
        String::from_utf8(self.stdout).expect("answers are text")
    }

    /// Holds status and stdout against what is expected.
    #[track_caller]
    pub fn is(&self, status: i32, stdout: &str) {
        assert_eq!((self.status, self.text()), (status, stdout), "stderr: {}", self.stderr);
    }

    /// A refusal: this status, nothing on stdout, one line on stderr that begins with this.
    #[track_caller]
    pub fn refuses(&self, status: i32, stderr: &str) {
        assert_eq!((self.status, self.text()), (status, ""), "stderr: {}", self.stderr);
        assert!(self.stderr.starts_with(stderr), "{:?} does not begin with {stderr:?}", self.stderr);
        assert_eq!(self.stderr.lines().count(), 1, "{:?}", self.stderr);
    }
}

/// What is started dies with the thread that started it.
pub fn dies_with_us(command: &mut Command) -> &mut Command {
    // SAFETY: prctl is async-signal-safe and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    }
}

/// `ftqc` with no surroundings of the tester's own.
pub fn command(servers: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ftqc"));
    command.env_remove("FTQ_SERVERS").env_remove("FTQ_KEY").env("LC_ALL", "C.UTF-8").arg("-s").arg(servers).args(args);
    command
}

/// One run with this on stdin.
pub fn ftqc(servers: &str, args: &[&str], stdin: impl Into<Vec<u8>>) -> Run {
    run(command(servers, args), stdin.into())
}

/// Runs any command to its end, feeding and reading it at the same time.
pub fn run(command: Command, stdin: Vec<u8>) -> Run {
    // A program that ends early closes its stdin: that is its right.
    run_fed(command, move |mut to| drop(to.write_all(&stdin))).0
}

/// The same, fed by `feed`; what that returns, too.
pub fn run_fed<T: Send + 'static>(
    mut command: Command,
    feed: impl FnOnce(ChildStdin) -> T + Send + 'static,
) -> (Run, T) {
    dies_with_us(&mut command).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program is built");
    let (to, from, errors) =
        (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let feeding = thread::spawn(move || feed(to));
    let (stdout, stderr) = (reading(from), reading(errors));
    let status = wait(&mut child, &format!("{command:?}"));
    let fed = feeding.join().expect("feeding does not panic");
    let stderr = String::from_utf8_lossy(&stderr.join().expect("reading does not panic")).into_owned();
    (Run { status, stdout: stdout.join().expect("reading does not panic"), stderr }, fed)
}

fn reading(mut from: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("a pipe can be read");
        bytes
    })
}

/// The exit status of a child that must end; 128 and the signal where one ended it.
pub fn wait(child: &mut Child, what: &str) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    let status = until(what, || child.try_wait().expect("our own child"));
    status.code().unwrap_or_else(|| 128 + status.signal().expect("ended by status or signal"))
}

/// Asks until there is an answer.
#[track_caller]
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < WATCHDOG, "still waiting: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
