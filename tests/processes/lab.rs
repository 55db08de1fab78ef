//! `ftqd --lab`, as a script: real replicas, an answer for each line, and nothing left behind however it ends.

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

use crate::ftqc::{dies_with_us, run, until, wait, Run};
use crate::net::Net;

/// A network and a place for temporary things, where a lab can be looked for.
struct Surroundings {
    _net: Net,
    place: TempDir,
}

impl Surroundings {
    fn new(test: &str) -> Surroundings {
        Surroundings { _net: Net::any(test), place: TempDir::new().expect("a temporary directory") }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ftqd"));
        command.args(args).env("TMPDIR", self.place.path()).env_remove("FTQ_KEY").env("LC_ALL", "C.UTF-8");
        command
    }

    fn lab(&self, args: &[&str], script: &str) -> Run {
        run(self.command(args), script.into())
    }

    fn started(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        dies_with_us(&mut command).spawn().expect("ftqd is built")
    }

    /// Processes that were told of something in our place: the replicas.
    fn replicas(&self) -> Vec<u32> {
        let ours = self.place.path().as_os_str().as_encoded_bytes();
        let told = |pid: &u32| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.windows(ours.len()).any(|part| part == ours)
        };
        let entries = fs::read_dir("/proc").expect("/proc is there").flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(told).collect()
    }

    /// What was not left in good order is gone in a moment.
    fn empties(&self) {
        until("the replicas are gone", || self.replicas().is_empty().then_some(()));
        let is_empty = || fs::read_dir(self.place.path()).expect("ours").next().is_none();
        until("the directory is gone", || is_empty().then_some(()));
    }

    #[track_caller]
    fn is_empty(&self) {
        let replicas = self.replicas();
        assert!(replicas.is_empty(), "{replicas:?}");
        let left: Vec<_> = fs::read_dir(self.place.path()).expect("ours").flatten().map(|e| e.path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Obeys one command and gives its answer.
fn ask(lab: &mut Child, answers: &mut impl BufRead, command: &str) -> String {
    let stdin = lab.stdin.as_mut().expect("piped");
    writeln!(stdin, "{command}").expect("it reads");
    let mut answer = String::new();
    answers.read_line(&mut answer).expect("text");
    answer.trim_end().to_owned()
}

#[test]
fn every_command_is_answered_in_order() {
    let here = Surroundings::new("every_command_is_answered_in_order");
    let script =
        "# what a lab does\npush -v jobs a b c\n@2 size jobs\n@1 pop jobs\n\nloss 10\ndelay 2\npop jobs\nheal\n\
                  pause 2\nresume 2\nwait\nsleep 0\nkill 2 3\nstart 2\n1\nquit\npop jobs\n";
    let ran = here.lab(&["--lab", "3", "--heartbeat", "20"], script);
    ran.is(0, "3\n3\na\n\nok\nok\nb\nok\nok\nok\nok\nok\nok\nok\nok\nok\n");
    assert!(ran.stderr.starts_with("lab: replicas 1 to 3 at 127.0.0.1:"), "{}", ran.stderr);
    here.is_empty();
}

#[test]
fn status_shows_the_dead_and_the_cut_off() {
    let here = Surroundings::new("status_shows_the_dead_and_the_cut_off");
    let script = "push jobs x\npartition 1 / 2 3\nkill 2\npause 3\nstatus\nstatus --json\n";
    let text = here.lab(&["--lab", "3"], script).ok();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 10, "{text}");
    let cells = |line: usize| lines[line].split_whitespace().collect::<Vec<_>>();
    assert_eq!(cells(4), ["id", "process", "serves", "state", "view", "applied", "reaches", "reason"]);
    assert_eq!((cells(5)[..2].join(" "), cells(5).contains(&"{1}")), ("1 running".into(), true), "{text}");
    assert_eq!(cells(6), ["2", "killed", "-", "-", "-", "-", "{2,3}"]);
    assert_eq!(cells(7), ["3", "paused", "-", "-", "-", "-", "{2,3}"]);
    assert_eq!(lines[8], "network: partition {1} / {2,3}");
    let json: Value = serde_json::from_str(lines[9]).expect("one object");
    assert_eq!(json["sides"], serde_json::json!([[1], [2, 3]]));
    let of = |k: usize, name: &str| json["replicas"][k][name].clone();
    assert_eq!((of(1, "id"), of(1, "process"), of(2, "process")), (2.into(), "killed".into(), "paused".into()));
    assert_eq!((of(0, "process"), of(1, "primary")), ("running".into(), false.into()));
}

#[test]
fn bad_commands_are_refused_and_change_nothing() {
    let here = Surroundings::new("bad_commands_are_refused_and_change_nothing");
    let bad = [
        "kill",
        "kill 4",
        "0",
        "kill x",
        "start 1",
        "resume 1",
        "partition",
        "partition 1,2,3",
        "partition 1 / 1",
        "partition 1 / 9",
        "heal 1",
        "loss",
        "loss 101",
        "loss x",
        "delay",
        "delay -1",
        "delay 1000000",
        "sleep",
        "sleep -1",
        "sleep x",
        "status now",
        "@",
        "@1",
        "@4 size jobs",
        "@1,2 size jobs",
        "@1 kill 2",
        "@x size jobs",
        "help bogus",
        "bogus",
        "-t 5 size jobs",
        "--id 1",
        "\u{fffd}",
    ];
    let ran = here.lab(&["--lab", "3"], &(bad.join("\n") + "\nstatus --json\n"));
    assert_eq!(ran.status, 65, "{}", ran.text());
    let lines: Vec<&str> = ran.text().lines().collect();
    assert_eq!(lines.len(), bad.len() + 1, "{}", ran.text());
    for (line, command) in lines.iter().zip(bad) {
        assert!(line.starts_with("! bad-request "), "{command}: {line}");
    }
    let json: Value = serde_json::from_str(lines[bad.len()]).expect("one object");
    assert_eq!((&json["loss_percent"], &json["delay_ms"]), (&0.0.into(), &0.into()));
    assert!(json["replicas"].as_array().expect("rows").iter().all(|row| row["primary"] == true), "{json}");
    here.is_empty();
}

#[test]
fn the_worst_answer_is_the_status() {
    let here = Surroundings::new("the_worst_answer_is_the_status");
    here.lab(&["--lab", "1"], "push jobs x\npop jobs").is(0, "ok\nx\n");
    here.lab(&["--lab", "1"], "qId none\nsleep 0").is(1, "-1\nok\n");
    assert_eq!(here.lab(&["--lab", "1"], "bogus\nqId none\n").status, 65);
    let cut = here.lab(&["--lab", "2"], "kill 1\n@1 size jobs\n");
    assert_eq!((cut.status, cut.text().lines().count()), (69, 2), "{}", cut.text());
    assert!(here.lab(&["--lab", "1"], "").ok().is_empty());
    here.is_empty();
}

#[test]
fn a_partition_is_refused_on_the_small_side_and_heals() {
    let here = Surroundings::new("a_partition_is_refused_on_the_small_side_and_heals");
    let mut lab = here.started(&["--lab", "3", "--heartbeat", "20", "--suspect-after", "100"]);
    let mut answers = BufReader::new(lab.stdout.take().expect("piped"));
    let mut ask = |command: &str| ask(&mut lab, &mut answers, command);
    assert_eq!(ask("push -v jobs x"), "1");
    assert_eq!(ask("partition 1 / 2,3"), "ok");
    let refusal = "not primary: view {1} of {1,2,3}; waiting for replicas 2, 3";
    until("the small side refuses and says why", || ask("@1 push jobs y").ends_with(refusal).then_some(()));
    assert_eq!(ask("wait 2 3"), "ok");
    assert_eq!(ask("@2 push -v jobs y"), "1");
    let told: Value = serde_json::from_str(&ask("@1 status --json")).expect("one object");
    let of = |id: usize, name: &str| told["replicas"][id - 1][name].clone();
    assert_eq!((&told["state"], &told["primary"]), (&"secondary".into(), &false.into()), "{told}");
    assert_eq!((of(1, "state"), of(2, "state")), ("secondary".into(), "unheard".into()), "{told}");
    assert_eq!((of(3, "note"), of(3, "epoch")), ("nothing is heard of it".into(), 1.into()), "{told}");
    assert_eq!(ask("heal"), "ok");
    assert_eq!(ask("wait"), "ok");
    assert_eq!(ask("@1 push -v jobs z"), "1");
    end(lab, libc::SIGTERM);
}

#[test]
fn who_was_killed_comes_back_and_a_total_restart_loses_nothing() {
    let here = Surroundings::new("who_was_killed_comes_back_and_a_total_restart_loses_nothing");
    let script = "push -v jobs a b\nkill 2\npush -v jobs c\nwait 1 3\nstart 2\nwait\n@2 size jobs\n\
                  kill 1\nwait 2 3\nkill 2\nwait 3\n@3 push -v jobs d\n\
                  kill 3\nstart 1 2\nsleep 1\n@1 pop jobs\nstart 3\n\
                  wait\n@1 pop jobs\n@2 pop jobs\n@3 pop -n 2 jobs\n";
    let ran = here.lab(&["--lab", "3", "--heartbeat", "20", "--suspect-after", "100"], script);
    let waits = "! not-primary not primary: view {2} of {2,3}; waiting for replica 3";
    let expected = format!("2\nok\n1\nok\nok\nok\n3\nok\nok\nok\nok\n1\nok\nok\nok\n{waits}\nok\nok\na\nb\nc\nd\n");
    ran.is(75, &expected);
    here.is_empty();
}

fn end(mut lab: Child, signal: i32) -> i32 {
    // SAFETY: a signal to a child that was not waited for yet.
    assert_eq!(unsafe { libc::kill(lab.id() as i32, signal) }, 0);
    wait(&mut lab, "the lab ends")
}

#[test]
fn signals_leave_nothing_behind() {
    let here = Surroundings::new("signals_leave_nothing_behind");
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGKILL] {
        let mut lab = here.started(&["--lab", "3"]);
        let mut answers = BufReader::new(lab.stdout.take().expect("piped"));
        assert_eq!(ask(&mut lab, &mut answers, "pause 2"), "ok");
        assert_eq!(here.replicas().len(), 3);
        assert_eq!(end(lab, signal), 128 + signal);
        if signal == libc::SIGKILL {
            here.empties();
        }
        here.is_empty();
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_lab() {
    let here = Surroundings::new("a_reader_that_goes_away_ends_the_lab");
    let mut lab = here.started(&["--lab", "2"]);
    let mut answers = BufReader::new(lab.stdout.take().expect("piped"));
    assert_eq!(ask(&mut lab, &mut answers, "push -v jobs x"), "1");
    drop(answers);
    writeln!(lab.stdin.as_mut().expect("piped"), "size jobs").expect("it reads");
    assert_eq!(wait(&mut lab, "the lab ends"), 128 + libc::SIGPIPE);
    here.empties();
}

#[test]
fn a_directory_of_ones_own_is_kept() {
    let here = Surroundings::new("a_directory_of_ones_own_is_kept");
    let kept = TempDir::new().expect("a temporary directory");
    let data = kept.path().join("lab");
    let args = ["--lab", "3", "--data", data.to_str().expect("our own path")];
    assert_eq!(here.lab(&args, "push -v jobs x\n").ok(), "1\n");
    for name in ["cluster", "1.log", "3.log", "1", "3"] {
        assert!(data.join(name).exists(), "{name}");
    }
    let log = fs::read_to_string(data.join("2.log")).expect("a log");
    assert!(log.contains("127.0.0.1"), "{log}");
    let other = here.lab(&["--lab", "2", "--data", args[3]], "");
    other.refuses(78, "ftqd: ");
    assert!(other.stderr.contains("a lab of 3 replicas"), "{}", other.stderr);
    assert!(Path::new(&data).exists());
    here.is_empty();
}

#[test]
fn what_cannot_start_says_why() {
    let here = Surroundings::new("what_cannot_start_says_why");
    here.lab(&["--lab", "0"], "").refuses(64, "ftqd: --lab 0: must be a number from 1 to 15");
    here.lab(&["--lab", "3", "--id", "1"], "").refuses(64, "ftqd: --id does not go with --lab");
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let ran = here.lab(&["--lab", "1", "--port", &port], "push jobs x\n");
    assert_eq!((ran.status, ran.text()), (69, ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("replica 1 does not run (exit 69)"), "{}", ran.stderr);
    here.is_empty();
}
