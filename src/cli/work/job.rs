//! One job: CMD with an item, as an argument or on stdin, in a process group of its own. If the worker dies the job is
//! told so by SIGTERM: nobody could acknowledge what it does any more, and another one will do it.

use crate::wire::operation::Receipt;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::os::fd::FromRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// Stands for the item in an argument.
const PLACE: &[u8] = b"{}";

/// What becomes of an item after its job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Done,
    /// It will never work: put it aside.
    Hopeless,
    /// The worker is not to go on.
    Stop,
    Failed,
}

impl Outcome {
    pub fn of(status: ExitStatus) -> Outcome {
        match status.code() {
            Some(0) => Outcome::Done,
            Some(65) => Outcome::Hopeless,
            Some(255) => Outcome::Stop,
            _ => Outcome::Failed,
        }
    }
}

/// How a job ended, for people.
pub fn told(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// The exit status of a worker whose CMD can't be run, as shells and xargs have it.
pub fn exit_status(e: &io::Error) -> u8 {
    if e.kind() == io::ErrorKind::NotFound {
        127
    } else {
        126
    }
}

/// A command line that waits for an item.
#[derive(Debug)]
pub struct Job {
    program: OsString,
    arguments: Vec<Vec<u8>>,
    has_place: bool,
}

impl Job {
    /// `command` has at least the program in it.
    pub fn new(command: &[Vec<u8>]) -> Job {
        let (program, arguments) = command.split_first().expect("a program");
        let has_place = arguments.iter().any(|argument| holds_place(argument));
        Job { program: OsString::from_vec(program.clone()), arguments: arguments.to_vec(), has_place }
    }

    /// What went wrong with the program.
    pub fn said(&self, e: &io::Error) -> String {
        format!("{}: {e}", self.program.to_string_lossy())
    }

    /// Whether the program is there and may be run, before an item is taken for it.
    pub fn find(&self) -> io::Result<()> {
        if self.program.as_bytes().contains(&b'/') {
            return may_run(Path::new(&self.program));
        }
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
        let mut refused = None;
        for directory in std::env::split_paths(&path) {
            match may_run(&directory.join(&self.program)) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => refused = Some(e),
            }
        }
        Err(refused.unwrap_or_else(|| io::Error::from_raw_os_error(libc::ENOENT)))
    }

    /// Starts it. Where the item can't be an argument, for there is a NUL in it, it is on stdin.
    pub fn start(&self, receipt: Receipt, tries: u32, item: &[u8]) -> io::Result<Child> {
        let is_argument = self.has_place && !item.contains(&0);
        let mut command = Command::new(&self.program);
        for argument in &self.arguments {
            let filled = if is_argument { fill(argument, item) } else { argument.clone() };
            command.arg(OsStr::from_bytes(&filled));
        }
        command.env("FTQ_RECEIPT", receipt.to_string()).env("FTQ_TRY", tries.to_string());
        command.stdin(if is_argument { Stdio::null() } else { Stdio::from(in_memory(item)?) });
        // The terminal's signals are for the worker, which lets its jobs finish.
        command.process_group(0);
        // SAFETY: prctl is async-signal-safe and touches no memory of the parent.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM as libc::c_ulong) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        command.spawn()
    }
}

fn holds_place(argument: &[u8]) -> bool {
    argument.windows(PLACE.len()).any(|window| window == PLACE)
}

/// The argument with the item in each place for it.
fn fill(argument: &[u8], item: &[u8]) -> Vec<u8> {
    let mut filled = Vec::with_capacity(argument.len() + item.len());
    let mut rest = argument;
    while let Some(at) = rest.windows(PLACE.len()).position(|window| window == PLACE) {
        filled.extend_from_slice(&rest[..at]);
        filled.extend_from_slice(item);
        rest = &rest[at + PLACE.len()..];
    }
    filled.extend_from_slice(rest);
    filled
}

fn may_run(path: &Path) -> io::Result<()> {
    let found = fs::metadata(path)?;
    if found.is_file() && found.permissions().mode() & 0o111 != 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EACCES))
    }
}

/// A file without a name that holds the item: whoever reads it slowly, or not at all, keeps nobody waiting.
fn in_memory(item: &[u8]) -> io::Result<File> {
    // SAFETY: the name is a string that ends with a NUL and lives for ever.
    let fd = unsafe { libc::memfd_create(c"item".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just opened, and nobody else has it.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.write_all(item)?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(words: &[&str]) -> Job {
        Job::new(&words.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>())
    }

    fn outcome(words: &[&str], item: &[u8]) -> Outcome {
        let mut child = job(words).start(Receipt(5_000_000), 2, item).expect("it can be run");
        Outcome::of(child.wait().expect("our own child"))
    }

    #[test]
    fn an_item_is_an_argument_or_on_stdin() {
        let compare = |test: &'static str| ["sh", "-c", test, "-"];
        assert_eq!(outcome(&compare("test \"$(cat)\" = 'a b'"), b"a b"), Outcome::Done);
        let with_places = [&compare("test \"$1.$2\" = 'a b.xa by{a b' && test -z \"$(cat)\"")[..], &["{}", "x{}y{{}"]];
        assert_eq!(outcome(&with_places.concat(), b"a b"), Outcome::Done);
        let with_nul = [&compare("test \"$1\" = '{}' && test \"$(tr '\\0' ! )\" = 'a!b'")[..], &["{}"]].concat();
        assert_eq!(outcome(&with_nul, b"a\0b"), Outcome::Done);
        let surroundings = "test $FTQ_RECEIPT = 5000000 && test $FTQ_TRY = 2 && test $(wc -c) = 1048576";
        assert_eq!(outcome(&compare(surroundings), &[b'x'; 1 << 20]), Outcome::Done);
    }

    #[test]
    fn what_becomes_of_an_item_is_told_by_the_exit_status() {
        let exits = |how: &str| outcome(&["sh", "-c", how], b"");
        assert_eq!(exits("exit 0"), Outcome::Done);
        assert_eq!(exits("exit 65"), Outcome::Hopeless);
        assert_eq!(exits("exit 255"), Outcome::Stop);
        assert_eq!([exits("exit 1"), exits("exit 66"), exits("kill -9 $$")], [Outcome::Failed; 3]);
    }

    #[test]
    fn a_program_is_looked_for_before_it_is_needed() {
        assert!(job(&["sh"]).find().is_ok() && job(&["/bin/sh"]).find().is_ok());
        for (program, status) in [("no-such-program", 127), ("/no/such/program", 127), ("/etc/passwd", 126), ("/", 126)]
        {
            let e = job(&[program]).find().expect_err("it can't be run");
            assert_eq!(exit_status(&e), status, "{program}");
            let e = job(&[program]).start(Receipt(1), 1, b"").expect_err("it can't be run");
            assert_eq!(exit_status(&e), status, "{program}");
        }
    }
}
