//! What the README and the examples of ftqc(1) and ftqd(8) show is pasted into a shell, command by command, and held
//! against what they say comes of it: `$ ` begins a command, `...` stands for anything, `#` begins a remark. What the
//! pages show comes so from three replicas, and from the one of three that is left when one was killed and one cut off.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::ftqc::run;
use crate::group::Group;
use crate::net::Net;

/// A command, and the lines below it.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    command: String,
    shown: Vec<String>,
}

/// The steps of a block of lines. A command goes on while it is indented deeper, or to the end of its here-document.
fn steps(lines: &[String]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for line in lines {
        if let Some(command) = line.strip_prefix("$ ") {
            inside = command.contains("<<'END'");
            steps.push(Step { command: command.to_owned(), shown: Vec::new() });
            continue;
        }
        let step = steps.last_mut().expect("a block begins with a command");
        if inside || step.shown.is_empty() && line.starts_with([' ', '\t']) {
            step.command += &format!("\n{line}");
            inside &= line != "END";
        } else {
            step.shown.push(line.clone());
        }
    }
    steps
}

/// The blocks between two headings of the README that show commands.
fn of_readme(text: &str, heading: &str) -> Vec<Step> {
    let section = text.split(heading).nth(1).expect("the heading is there").split("\n## ").next().expect("a part");
    let blocks = section.split("```").skip(1).step_by(2);
    let lines = blocks.map(|block| block.trim_matches('\n').lines().map(str::to_owned).collect::<Vec<_>>());
    lines.filter(|lines| lines[0].starts_with("$ ")).flat_map(|lines| steps(&lines)).collect()
}

/// The displays of a section of a man page that show commands.
fn of_page(text: &str, heading: &str) -> Vec<Step> {
    let section = text.split(heading).nth(1).expect("the section is there").split("\n.Sh ").next().expect("a part");
    let mut all = Vec::new();
    let mut block: Option<Vec<String>> = None;
    for line in section.lines() {
        let plain = line.replace("\\&", "").replace("\\e", "\\").replace("\\-", "-");
        match (&mut block, line) {
            (None, line) if line.starts_with(".Bd -literal") => block = Some(Vec::new()),
            (None, _) => all.extend(
                plain
                    .strip_prefix(".Dl ")
                    .filter(|l| l.starts_with("$ "))
                    .map(str::to_owned)
                    .into_iter()
                    .flat_map(|line| steps(&[line])),
            ),
            (Some(lines), ".Ed") => {
                if lines[0].starts_with("$ ") {
                    all.extend(steps(lines));
                }
                block = None;
            }
            (Some(lines), _) => lines.push(plain),
        }
    }
    all
}

/// Whether a line is as shown, where `...` stands for anything.
fn fits(shown: &str, line: &str) -> bool {
    let mut parts = shown.split("...");
    let Some(mut rest) = line.strip_prefix(parts.next().expect("a first part")) else { return false };
    let parts: Vec<&str> = parts.collect();
    for (at, part) in parts.iter().enumerate() {
        match if at + 1 == parts.len() { rest.rfind(part) } else { rest.find(part) } {
            Some(found) => rest = &rest[found + part.len()..],
            None => return false,
        }
    }
    rest.is_empty()
}

/// Runs all commands in one shell and holds what each says against what is shown.
fn paste(steps: &[Step], place: &Path, servers: &str) {
    // Commands and answers end with NUL, so that nothing in them is taken for an end.
    let shell = "exec 3<&0 </dev/null 2>&1; curl() { command curl -sS \"$@\"; }; \
                 while IFS= read -r -d '' line <&3; do eval \"$line\"; printf '\\0'; done";
    let bin = Path::new(env!("CARGO_BIN_EXE_ftqc")).parent().expect("it is in a directory");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", shell]).current_dir(place).env("PATH", path).env("LC_ALL", "C.UTF-8");
    bash.env("FTQ_SERVERS", servers).env_remove("FTQ_KEY").stdin(Stdio::piped());
    let input: Vec<u8> = steps.iter().flat_map(|step| [step.command.as_bytes(), b"\0"].concat()).collect();
    let said = run(bash, input);
    let text = said.text();
    let answers: Vec<&str> = text.split_terminator('\0').collect();
    for (step, answer) in steps.iter().zip(&answers) {
        // That a job was killed is the shell's own word.
        let lines: Vec<&str> = answer.lines().filter(|line| !line.contains(" Killed ")).collect();
        let as_shown = lines.len() == step.shown.len() && lines.iter().zip(&step.shown).all(|(l, s)| fits(s, l));
        assert!(as_shown, "$ {}\n{}\nis not\n{}", step.command, lines.join("\n"), step.shown.join("\n"));
    }
    assert_eq!(answers.len(), steps.len(), "{said:?}");
}

#[test]
fn the_first_five_minutes_are_as_the_readme_shows_them() {
    // The ports that it shows are free in a namespace.
    let Some(_net) = Net::private("the_first_five_minutes_are_as_the_readme_shows_them") else { return };
    let place = tempfile::TempDir::new().expect("a directory");
    let text = include_str!("../../README.md").replace("/tmp/ftq-try", &place.path().join("try").display().to_string());
    let mut steps = of_readme(&text, "## The first five minutes\n");
    assert!(steps.len() > 25, "{} steps", steps.len());
    // The programs are built, and elsewhere.
    let made: Vec<Step> = steps.drain(..2).collect();
    assert!(made[0].command.starts_with("make all ") && made[1].command.starts_with("export PATH="), "{made:?}");
    for heading in ["## A chat and an availability log\n", "## Keys over HTTP\n"] {
        let more = of_readme(&text, heading);
        assert!(more.len() >= 5, "{heading}: {} steps", more.len());
        steps.extend(more);
    }
    paste(&steps, place.path(), "");
}

/// The examples of the pages: those of ftqd(8) that ask by HTTP, asked of this address, then those of ftqc(1).
fn of_pages(http: &str) -> [Vec<Step>; 2] {
    let ftqd = include_str!("../../man/ftqd.8").replace("localhost:8000", http);
    let pages = [of_page(&ftqd, ".Sh EXAMPLES\n"), of_page(include_str!("../../man/ftqc.1"), ".Sh EXAMPLES\n")];
    assert!(pages[0].len() > 15 && pages[1].len() > 40, "{} and {} steps", pages[0].len(), pages[1].len());
    pages
}

/// Every row of what the services must do stands in the examples.
#[test]
fn the_examples_show_every_command_of_the_services() {
    let [ftqd, ftqc] = of_pages("localhost:8000").map(|steps| steps.into_iter().map(|step| step.command));
    let (ftqd, ftqc) = (ftqd.collect::<Vec<_>>().join("\n"), ftqc.collect::<Vec<_>>().join("\n"));
    let commands = "qCreate qDestroy qId qPush qPop qTop qSize push pop take ack bury dead kick purge limit size work";
    let chat = ["'0|", "'1|", "'2|", "'3|'", "'4|'", "'5|", "'6|'", " quit | ftqc chat"];
    let stock = ["\nl\n", "\nv '", "\ne '", "stock n '", "\nd '", "\nh '", "\ndelete '", "\nq\n"];
    let keys = ["kv put ", "kv get ", "kv cas ", "kv list ", "kv del "];
    let commands = commands.split(' ').map(|name| format!("ftqc {name} "));
    let shown = commands.chain(chat.into_iter().chain(stock).chain(keys).map(str::to_owned));
    shown.for_each(|part| assert!(ftqc.contains(&part), "{part:?} is not shown"));
    let kvs = ["-X PUT localhost:8000/kvs/", "-X GET localhost:8000/kvs/", "-X DELETE localhost:8000/kvs/"];
    let view = ["curl localhost:8000/view", "-X PUT localhost:8000/view ", "-X DELETE localhost:8000/view "];
    let others = ["?consistency=linearizable", "/kvs?prefix=", "Prefer: wait=", "If-Match: ", "/readyz"];
    for part in kvs.into_iter().chain(view).chain(others) {
        assert!(ftqd.contains(part), "{part:?} is not shown");
    }
}

#[test]
fn the_examples_of_the_man_pages_come_out_as_shown() {
    let group = Group::start_http(Net::any("the_examples_of_the_man_pages_come_out_as_shown"));
    let servers: Vec<String> = (1..=3).map(|id| group.net.address(id)).collect();
    let place = tempfile::TempDir::new().expect("a directory");
    for steps in of_pages(&group.http(1)) {
        paste(&steps, place.path(), &servers.join(","));
    }
    group.assert_agreement();
}

/// The clients name all three all the same, the dead one first.
#[test]
fn the_examples_come_out_as_shown_while_one_is_killed_and_one_is_cut_off() {
    let test = "the_examples_come_out_as_shown_while_one_is_killed_and_one_is_cut_off";
    let Some(net) = Net::private(test) else { return };
    let mut group = Group::start_http(net);
    group.crash(1);
    group.await_view(&[2, 3]);
    group.net.cut_apart(&[2], &[1, 3]);
    group.await_view(&[3]);
    let servers: Vec<String> = (1..=3).map(|id| group.net.address(id)).collect();
    let place = tempfile::TempDir::new().expect("a directory");
    for mut steps in of_pages(&group.http(3)) {
        // It wants to measure all three.
        steps.retain(|step| !step.command.starts_with("ftqc bench "));
        paste(&steps, place.path(), &servers.join(","));
    }
    group.assert_refuses(2, "waiting for replica 3");
    // What was said is what all three have when they are together again.
    group.net.heal();
    group.launch_http(1);
    group.await_view(&[1, 2, 3]);
    group.assert_agreement();
    group.ask(1, &["size", "mail"], "").is(0, "1000\n");
}

#[test]
fn a_block_is_read_as_a_person_reads_it() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let step = |command: &str, shown: &[&str]| Step {
        command: command.to_owned(),
        shown: shown.iter().map(|&line| line.to_owned()).collect(),
    };
    assert_eq!(steps(&lines("$ a\n$ b\n1\n2")), [step("a", &[]), step("b", &["1", "2"])]);
    assert_eq!(steps(&lines("$ a <<'END'\nx\nEND\n1")), [step("a <<'END'\nx\nEND", &["1"])]);
    assert_eq!(steps(&lines("$ while a; do\n\tb\n  done\n1")), [step("while a; do\n\tb\n  done", &["1"])]);
    assert!(fits("a ... c", "a b c") && fits("...", "") && fits("a...b...", "axbxx") && fits("x", "x"));
    assert!(!fits("a", "ab") && !fits("a ... c", "a b d") && !fits("...a", "b"));
}
