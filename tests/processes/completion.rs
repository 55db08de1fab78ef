//! The completion that `ftqc help --completion SHELL` writes, in the shells themselves: what they offer at the end of a
//! line, labels of a living group among it. A shell that is not installed is skipped, and said to be.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

use crate::ftqc::run;
use crate::group::Group;
use crate::net::{say, Net};
use crate::terminal::Terminal;

/// The script for a shell, in a file, if that shell is here.
fn script(shell: &str, place: &TempDir) -> Option<PathBuf> {
    let mut version = Command::new(shell);
    if version.arg("--version").output().is_err() {
        say(&format!("skipped, not installed: completion for {shell}"));
        return None;
    }
    let mut ftqc = Command::new(env!("CARGO_BIN_EXE_ftqc"));
    ftqc.args(["help", "--completion", shell]);
    let path = place.path().join(format!("ftqc.{shell}"));
    fs::write(&path, run(ftqc, Vec::new()).ok()).expect("the place is ours");
    let mut check = Command::new(shell);
    check.arg("-n").arg(&path);
    run(check, Vec::new()).is(0, "");
    Some(path)
}

/// A shell that finds this ftqc before any other.
fn shell(name: &str, servers: &str) -> Command {
    let bin = Path::new(env!("CARGO_BIN_EXE_ftqc")).parent().expect("it is in a directory").to_owned();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(name);
    command.env("PATH", format!("{}:{path}", bin.display())).env("LC_ALL", "C.UTF-8");
    command.env("FTQ_SERVERS", servers).env_remove("FTQ_KEY");
    command
}

/// What is offered at the end of each line: the line itself up to the cursor, and the words.
const OFFERS: &[(&str, &str)] = &[
    ("ftqc qP", "qPop qPush"),
    ("ftqc -j si", "size"),
    ("ftqc -t 3 si", "size"),
    ("ftqc -jt3 si", "size"),
    ("ftqc pop jo", "jobs jolly"),
    ("ftqc pop -n 3 -w jol", "jolly"),
    ("ftqc pop -wn3 jol", "jolly"),
    ("ftqc push --delay 3 jol", "jolly"),
    ("ftqc push --delay=3 jol", "jolly"),
    ("ftqc qId jol", "jolly"),
    ("ftqc pop -- jol", "jolly"),
    ("ftqc limit jobs it", "items="),
    ("ftqc bench mi", "mixed"),
    ("ftqc session e", "end"),
    ("ftqc help --completion f", "fish"),
    ("ftqc help qS", "qSize"),
    ("ftqc status --w", "--watch"),
    ("ftqc push jobs jo", ""),
    ("ftqc pop jobs -", ""),
    ("ftqc nosuch jo", ""),
];

fn group(test: &str) -> Group {
    let group = Group::start(Net::any(test), 1);
    for label in ["jobs", "jolly", "a:1", "a:2", "x$(touch)'y"] {
        group.ask(1, &["qCreate", label], "").ok();
    }
    group
}

#[test]
fn bash_completes() {
    let group = group("bash_completes");
    let place = TempDir::new().expect("a directory");
    let Some(script) = script("bash", &place) else { return };
    let servers = group.net.address(1);
    let offered = |servers: &str, line: &str| {
        let mut bash = shell("bash", servers);
        let ask = r#"source "$1"; COMP_LINE=$2; COMP_POINT=${#2}; _ftqc; printf '%s\n' "${COMPREPLY[@]}" | sort"#;
        bash.args(["--norc", "-c", ask, "bash"]).arg(&script).arg(line);
        run(bash, Vec::new()).ok().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for (line, words) in OFFERS {
        assert_eq!(offered(&servers, line), *words, "{line:?}");
    }
    // bash ends words at a colon too, and a label may mean something to the shell.
    assert_eq!(offered(&servers, "ftqc pop a:"), "1 2");
    assert_eq!(offered(&servers, "ftqc pop x"), r"x\$\(touch\)\'y");
    assert_eq!(offered(&servers, r"ftqc pop x\$\("), r"x\$\(touch\)\'y");
    assert_eq!(offered(&servers, "ftqc push --d"), "--delay=");
    // The group is that of the line.
    assert_eq!(offered("127.0.0.1:1", "ftqc pop jol"), "");
    assert_eq!(offered("127.0.0.1:1", &format!("ftqc -s {servers} pop jol")), "jolly");
    assert_eq!(offered("127.0.0.1:1", &format!("ftqc pop --servers={servers} jol")), "jolly");
    // Files where there is to be one.
    fs::write(place.path().join("some.file"), "").expect("ours");
    let some = format!("{}/some", place.path().display());
    assert_eq!(offered(&servers, &format!("ftqc push --session {some}")), format!("{some}.file"));
    assert_eq!(offered(&servers, &format!("ftqc push --session={some}")), format!("{some}.file"));
    assert_eq!(offered(&servers, &format!("ftqc session end {some}")), format!("{some}.file"));
}

#[test]
fn fish_completes() {
    let group = group("fish_completes");
    let place = TempDir::new().expect("a directory");
    let Some(script) = script("fish", &place) else { return };
    for (line, words) in OFFERS.iter().filter(|(line, _)| !line.contains("-jt3") && !line.contains("-wn3")) {
        let mut fish = shell("fish", &group.net.address(1));
        fish.env("HOME", place.path()).args(["--no-config", "-c", "source $argv[1]; complete -C $argv[2]"]);
        fish.arg(&script).arg(line);
        let offered = run(fish, Vec::new()).ok();
        let mut offered: Vec<&str> = offered.lines().filter_map(|line| line.split('\t').next()).collect();
        offered.sort_unstable();
        assert_eq!(offered.join(" "), *words, "{line:?}");
    }
}

/// As a person has it: TAB on a line of an interactive shell.
#[test]
fn tab_completes_a_label() {
    let group = group("tab_completes_a_label");
    let place = TempDir::new().expect("a directory");
    for name in ["bash", "zsh"] {
        let Some(script) = script(name, &place) else { continue };
        let mut command = shell(name, &group.net.address(1));
        command.env("HOME", place.path()).env("PS1", "> ").env("ZDOTDIR", place.path()).current_dir(place.path());
        match name {
            "bash" => command.args(["--norc", "--noprofile", "-i"]),
            _ => command.args(["-f", "-i"]),
        };
        let mut terminal = Terminal::start(&mut command);
        let load = if name == "zsh" { "autoload -U compinit; compinit -u -D; " } else { "" };
        terminal.press(&format!("{load}. {}; echo re''ady\n", script.display()));
        terminal.expect("ready");
        terminal.press("ftqc -t 5 siz\tjol\t; echo \"<$?>\"\n");
        terminal.expect("0\r\n<0>");
        terminal.press("ftqc push jolly x; ftqc pop x\t\n");
        // The label is taken for what it is.
        terminal.expect("queue x$(touch)'y is empty");
        terminal.press("ftqc pop -n 1 jol\t; echo \"<$?>\"\n");
        terminal.expect("x\r\n<0>");
        terminal.press("exit\n");
        terminal.end();
    }
}
