//! `work`: what it gives its command and makes of its exit status, what it does when it is told to stop, and that
//! nothing is lost where the command is not there, kills its worker, or the group is away.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::ftqc::{command, dies_with_us, run, until, wait, Run};
use crate::group::Group;
use crate::net::Net;

fn servers(group: &Group) -> String {
    group.servers_from(1)
}

fn work(group: &Group, args: &[&str]) -> Run {
    run(command(&servers(group), &[&["work"], args].concat()), Vec::new())
}

/// Starts a worker.
fn worker(group: &Group, args: &[&str]) -> Child {
    let mut command = command(&servers(group), &[&["work"], args].concat());
    dies_with_us(&mut command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("ftqc is built")
}

fn signal(child: &Child, signal: i32) {
    // SAFETY: a signal to a child that was not waited for yet: the id is its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

fn ended(mut child: Child) -> Run {
    let status = wait(&mut child, "a worker ends");
    let output = child.wait_with_output().expect("it has ended");
    Run { status, stdout: output.stdout, stderr: String::from_utf8(output.stderr).expect("text") }
}

/// How many items of `jobs` are ready, leased, delayed and buried, and how many waiters there are.
fn states(group: &Group) -> [u64; 5] {
    let text = group.ask(1, &["-t", "30", "-j", "queues"], "").ok();
    if text.is_empty() {
        return [0; 5];
    }
    let row: Value = serde_json::from_str(&text).expect("one queue");
    ["size", "leased", "delayed", "buried", "waiters"].map(|name| row[name].as_u64().expect("a number"))
}

fn await_states(group: &Group, what: &str, expected: [u64; 5]) {
    until(what, || (states(group) == expected).then_some(()));
}

#[test]
fn a_worker_runs_its_command_for_each_item() {
    let group = Group::start(Net::any("a_worker_runs_its_command_for_each_item"), 1);
    group.ask(1, &["-0", "push", "jobs"], "a\0b c\0\0-d\n").is(0, "");
    work(&group, &["--wait", "0", "jobs", "--", "sh", "-c", "echo \"$FTQ_TRY($1)$(wc -c)\"", "-", "<{}>{}"])
        .is(0, "1(<a>a)0\n1(<b c>b c)0\n1(<>)0\n1(<-d\n>-d\n)0\n");
    assert_eq!(states(&group), [0; 5]);
    group.ask(1, &["-e", "push", "jobs"], "x\n\\0y\nlong\n").is(0, "");
    work(&group, &["-v", "--wait=0", "jobs", "--", "od", "-An", "-c"]).is(0, "   x\n  \\0   y\n   l   o   n   g\n");
    // With a NUL it is on stdin whatever the arguments are.
    group.ask(1, &["-e", "push", "jobs", "p\\0q"], "").is(0, "");
    work(&group, &["--wait", "0", "jobs", "--", "sh", "-c", "echo $1; od -An -c", "-", "{}"])
        .is(0, "{}\n   p  \\0   q\n");
    // It has nothing of the worker's but its output, and a process group of its own.
    group.ask(1, &["push", "jobs", "x"], "").is(0, "");
    let script = "ls -l /proc/$$/fd | grep -c socket; set -- $(cat /proc/$$/stat); test $5 = $$ && echo leader";
    work(&group, &["-j", "3", "--wait=0", "jobs", "--", "sh", "-c", script]).is(0, "0\nleader\n");
    // What no argument can hold is put aside.
    group.ask(1, &["push", "jobs"], "z".repeat(300_000)).is(0, "");
    let buried = work(&group, &["--wait", "0", "jobs", "--", "true", "{}"]);
    assert_eq!((buried.status, states(&group)), (123, [0, 0, 0, 1, 0]), "{}", buried.stderr);
    group.ask(1, &["kick", "jobs"], "").is(0, "1\n");
    work(&group, &["--wait", "0", "jobs", "--", "wc", "-c"]).is(0, "300000\n");
    assert_eq!(states(&group), [0; 5]);
}

#[test]
fn the_exit_status_says_what_becomes_of_an_item() {
    let group = Group::start(Net::any("the_exit_status_says_what_becomes_of_an_item"), 1);
    group.ask(1, &["push", "jobs", "0", "65", "7", "0"], "").is(0, "");
    let script = ["jobs", "--", "sh", "-c", "echo $1 $FTQ_TRY; exit $1", "-", "{}"];
    let run = work(&group, &[&["-v", "--wait", "0"], &script[..]].concat());
    run.is(123, "0 1\n65 1\n7 1\n0 1\n");
    assert_eq!(states(&group), [0, 0, 1, 1, 0], "{}", run.stderr);
    let told: Vec<&str> =
        run.stderr.lines().map(|line| line.split(' ').skip(2).collect::<Vec<_>>().join(" ").leak() as &str).collect();
    let expected =
        ["acknowledged", "try 1: exit status 65; buried", "try 1: exit status 7; again in 1 s", "acknowledged"];
    assert_eq!(told, expected);
    // The second try is the last one allowed.
    work(&group, &[&["--tries", "2", "--wait=3"], &script[..]].concat()).is(123, "7 2\n");
    group.ask(1, &["dead", "jobs"], "").is(0, "65\n7\n");
    group.ask(1, &["push", "jobs", "255", "0"], "").is(0, "");
    work(&group, &script).is(123, "255 1\n");
    assert_eq!(states(&group), [2, 0, 0, 2, 0]);
    group.ask(1, &["peek", "jobs"], "").is(0, "255\n");
    // What dies by a signal has failed.
    let killed = work(&group, &["--tries", "1", "--wait", "0", "jobs", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!((killed.status, states(&group)), (123, [0, 0, 0, 4, 0]));
    assert_eq!(killed.stderr.matches("killed by signal 9; buried").count(), 1, "{}", killed.stderr);
}

#[test]
fn a_worker_that_is_told_to_stop_lets_its_jobs_finish() {
    let group = Group::start(Net::any("a_worker_that_is_told_to_stop_lets_its_jobs_finish"), 3);
    // Nothing to do: it is out of the line at once, and what comes goes to others.
    let idle = worker(&group, &["-j", "3", "jobs", "--", "cat"]);
    await_states(&group, "three wait", [0, 0, 0, 0, 3]);
    signal(&idle, libc::SIGTERM);
    ended(idle).is(0, "");
    assert_eq!(states(&group), [0; 5]);
    for (stops, name) in [(libc::SIGTERM, "a"), (libc::SIGINT, "b")] {
        group.ask(1, &["push", "jobs", name, "later"], "").is(0, "");
        let go = group.path().join(name);
        let wait = format!("while [ ! -e {} ]; do sleep 0.01; done; echo $1", go.display());
        let busy = worker(&group, &["jobs", "--", "sh", "-c", &wait, "-", "{}"]);
        await_states(&group, "the job runs", [1, 1, 0, 0, 0]);
        signal(&busy, stops);
        thread::sleep(Duration::from_millis(50));
        assert_eq!(states(&group), [1, 1, 0, 0, 0]);
        fs::write(go, "").expect("the place is ours");
        ended(busy).is(0, &format!("{name}\n"));
        group.ask(1, &["pop", "jobs"], "").is(0, "later\n");
        assert_eq!(states(&group), [0; 5]);
    }
    // A second signal kills the jobs and what they started; their items are ready for others at once.
    group.ask(1, &["push", "jobs", "c", "d"], "").is(0, "");
    let busy = worker(&group, &["-j2", "jobs", "--", "sh", "-c", "sleep 1000; true"]);
    await_states(&group, "the jobs run", [0, 2, 0, 0, 0]);
    signal(&busy, libc::SIGTERM);
    thread::sleep(Duration::from_millis(50));
    signal(&busy, libc::SIGINT);
    ended(busy).is(123, "");
    group.ask(1, &["pop", "-n2", "jobs"], "").is(0, "c\nd\n");
}

#[test]
fn a_command_that_is_not_there_takes_nothing() {
    let group = Group::start(Net::any("a_command_that_is_not_there_takes_nothing"), 1);
    group.ask(1, &["push", "jobs", "a"], "").is(0, "");
    let plain = group.path().join("plain");
    fs::write(&plain, "no program").expect("the place is ours");
    let plain = plain.to_str().expect("our own path");
    work(&group, &["jobs", "--", "no-such-program"]).refuses(127, "ftqc: no-such-program: No such file");
    work(&group, &["jobs", "--", "/no/such/program", "{}"]).refuses(127, "ftqc: /no/such/program: ");
    work(&group, &["jobs", "--", plain]).refuses(126, &format!("ftqc: {plain}: Permission denied"));
    for wrong in [
        &["jobs"][..],
        &["jobs", "--"],
        &["jobs", "cat"],
        &["-j", "0", "jobs", "--", "cat"],
        &["-j", "-1", "jobs", "--", "cat"],
        &["-j", "1001", "jobs", "--", "cat"],
        &["--tries", "0", "jobs", "--", "cat"],
        &["--tries", "4294967296", "jobs", "--", "cat"],
        &["--lease", "0", "jobs", "--", "cat"],
        &["--lease", "-5", "jobs", "--", "cat"],
        &["--lease", "1e99", "jobs", "--", "cat"],
        &["--wait", "x", "jobs", "--", "cat"],
    ] {
        work(&group, wrong).refuses(64, "ftqc: usage: ");
    }
    work(&group, &["no label", "--", "cat"]).refuses(65, "ftqc: bad-request: ");
    group
        .pipe(1, "work jobs -- cat\n")
        .is(65, "! bad-request work has stdout for its jobs, and is a command of its own\n");
    // It goes away while the worker runs: what was taken for it is given back.
    let script = group.path().join("script");
    fs::write(&script, "#!/bin/sh\nrm $0\n").expect("the place is ours");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("it is ours");
    group.ask(1, &["push", "jobs", "b"], "").is(0, "");
    let script = script.to_str().expect("our own path");
    work(&group, &["jobs", "--", script]).refuses(127, &format!("ftqc: {script}: No such file"));
    group.ask(1, &["pop", "-n2", "jobs"], "").is(1, "b\n");
    assert_eq!(states(&group), [0; 5]);
}

#[test]
fn a_job_that_kills_its_worker_is_buried_in_the_end() {
    let group = Group::start(Net::any("a_job_that_kills_its_worker_is_buried_in_the_end"), 3);
    group.ask(1, &["push", "jobs", "deadly", "good"], "").is(0, "");
    let script = "test $1 = good || { echo try $FTQ_TRY; kill -9 $PPID; exec sleep 1000; }";
    let args = ["--lease", "1", "--tries", "3", "--wait=4", "jobs", "--", "sh", "-c", script, "-", "{}"];
    for tries in 1..=3 {
        let worker = worker(&group, &args);
        let run = ended(worker);
        assert_eq!(
            (run.status, run.text()),
            (128 + libc::SIGKILL, format!("try {tries}\n").as_str()),
            "{}",
            run.stderr
        );
        assert_eq!(states(&group)[1], 1, "until the lease ends");
        await_states(&group, "the lease ends", [2, 0, 0, 0, 0]);
    }
    work(&group, &args).is(123, "");
    group.ask(1, &["dead", "jobs"], "").is(0, "deadly\n");
    assert_eq!(states(&group), [0, 0, 0, 1, 0]);
    group.assert_agreement();
}

#[test]
fn a_lease_lasts_as_long_as_its_job_whatever_replicas_do() {
    let mut group = Group::start(Net::any("a_lease_lasts_as_long_as_its_job_whatever_replicas_do"), 3);
    group.ask(1, &["push", "jobs", "long"], "").is(0, "");
    let go = group.path().join("go");
    let wait = format!("while [ ! -e {} ]; do sleep 0.01; done; echo $1 $FTQ_TRY", go.display());
    let busy = worker(&group, &["--lease", "4", "jobs", "--", "sh", "-c", &wait, "-", "{}"]);
    await_states(&group, "the job runs", [0, 1, 0, 0, 0]);
    for id in [1, 2, 3] {
        group.crash(id);
        thread::sleep(Duration::from_secs(2));
        group.launch(id);
        group.await_view(&[1, 2, 3]);
        assert_eq!(states(&group)[..2], [0, 1], "it is leased all the time");
    }
    // Nobody is there when it is done; it is acknowledged when somebody is.
    (1..=3).for_each(|id| group.crash(id));
    fs::write(go, "").expect("the place is ours");
    thread::sleep(Duration::from_millis(300));
    (1..=3).for_each(|id| group.launch(id));
    group.await_view(&[1, 2, 3]);
    await_states(&group, "it is acknowledged", [0, 0, 0, 0, 1]);
    group.ask(2, &["push", "jobs", "next"], "").is(0, "");
    await_states(&group, "it goes on", [0, 0, 0, 0, 1]);
    signal(&busy, libc::SIGTERM);
    ended(busy).is(0, "long 1\nnext 1\n");
    group.assert_alive();
}
