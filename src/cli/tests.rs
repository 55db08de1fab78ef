//! Commands as they are called, against a replica that keeps its promises; and the man page against the table.

use super::*;
use crate::cli::input::Input;
use crate::cli::options::Known;
use crate::cli::table::COMMANDS;
use crate::client::fake::{Fake, PATIENT};
use crate::limits::ITEM_BYTES_MAX;
use crate::wire::answer::Code;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Seek, Write};

const LINES: Style = Style { json: false, null: false, escape: true, lines: true, terminal: false };

/// What a command prints on stdout, and its exit status.
fn ran(fake: &Fake, style: Style, words: &[&str]) -> (String, u8) {
    ran_for(PATIENT.as_millis() as u64, fake, style, words)
}

/// The same with so many milliseconds of patience.
fn ran_for(patience: u64, fake: &Fake, style: Style, words: &[&str]) -> (String, u8) {
    let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
    let Ok(Found { command, options, operands }) = look_up(&words) else { panic!("{words:?} was refused") };
    let call = Call { command, options, operands, style, stale: false, datagrams: false, alone: !style.lines };
    let mut session = Session::new(fake.servers.clone(), Duration::from_millis(patience));
    let mut out = Output::new(style, None);
    match (command.plan)(&call) {
        Ok(plan) => {
            plan.carry_out(&mut session, &mut out, style);
        }
        Err(_) => panic!("{words:?} was refused"),
    }
    (out.text(), out.status())
}

fn said(text: &str, status: u8) -> (String, u8) {
    (text.to_string(), status)
}

#[test]
fn an_id_that_there_is_not_has_its_slot_too() {
    let fake = Fake::new(1);
    let run = |words: &[&str]| ran(&fake, Style { json: true, ..LINES }, words);
    let (text, status) = run(&["qId", "jobs"]);
    let line: serde_json::Value = serde_json::from_str(&text).expect("one object");
    assert_eq!((status, &line["ok"], &line["id"]), (1, &true.into(), &(-1).into()));
    assert!(line["slot"].is_u64(), "{line}");
}

#[test]
fn the_ftqueue_commands_answer_as_the_contract_says() {
    let fake = Fake::new(1);
    let run = |words: &[&str]| ran(&fake, LINES, words);
    assert_eq!(run(&["qId", "-1"]), said("-1\n", 1));
    assert_eq!(run(&["qCreate", "-1"]), said("1\n", 0));
    assert_eq!(run(&["qId", "-1"]), said("1\n", 0));
    assert_eq!(run(&["qPush", "1", "a b"]), said("ok\n", 0));
    assert_eq!(run(&["qTop", "1"]), said("a b\n", 0));
    assert_eq!(run(&["qSize", "1"]), said("1\n", 0));
    assert_eq!(run(&["qPop", "1"]), said("a b\n", 0));
    assert_eq!(run(&["qPop", "1"]), said("! empty queue -1 is empty\n", 1));
    assert_eq!(run(&["qDestroy", "1"]), said("ok\n", 0));
    assert_eq!(run(&["qSize", "1"]), said("! no-queue no queue has the id 1\n", 1));
}

#[test]
fn what_follows_a_label_is_an_item() {
    let fake = Fake::new(1);
    let raw = Style::default();
    assert_eq!(ran(&fake, raw, &["push", "q", "-5", "--", "-v"]), said("", 0));
    assert_eq!(ran(&fake, raw, &["push", "-v", "--", "q", "a\\n"]), said("1\n", 0));
    assert_eq!(ran(&fake, raw, &["peek", "-n", "9", "q"]), said("-5\n--\n-v\na\\n\n", 0));
    assert_eq!(ran(&fake, Style { escape: true, ..raw }, &["peek", "-n4", "q"]), said("-5\n--\n-v\na\\\\n\n", 0));
    assert_eq!(ran(&fake, Style { null: true, ..raw }, &["pop", "-n", "2", "q"]), said("-5\0--\0", 0));
    assert_eq!(ran(&fake, LINES, &["push", "q", "x"]), said("ok\n", 0));
    assert_eq!(ran(&fake, LINES, &["push", "-v", "one", "x"]), said("1\n", 0));
    assert_eq!(ran(&fake, LINES, &["push", "--id", "k", "one", "x"]), said("ok\n", 0));
    assert_eq!(ran(&fake, LINES, &["push", "-v", "--id", "k", "one", "x"]), said("0\n", 0));
    assert_eq!(ran(&fake, LINES, &["size", "one"]), said("2\n", 0));
    assert_eq!(ran(&fake, LINES, &["pop", "-n", "9", "q"]).0.lines().count(), 4, "three items and an error");
    assert_eq!(ran(&fake, raw, &["pop", "-n", "0", "q"]), said("", 0));
}

#[test]
fn many_items_come_in_order_and_fewer_than_asked_is_told() {
    let fake = Fake::new(2);
    fake.group().moods.iter_mut().for_each(|mood| mood.drop_answers = 2);
    let items: Vec<String> = (0..10_000).map(|k| k.to_string()).collect();
    let words: Vec<&str> = ["push", "-v", "q"].into_iter().chain(items.iter().map(String::as_str)).collect();
    assert_eq!(ran(&fake, Style::default(), &words), said("10000\n", 0));
    fake.group().moods.iter_mut().for_each(|mood| mood.drop_answers = 2);
    let (text, status) = ran(&fake, LINES, &["pop", "-n", "20000", "q"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..10_000], items);
    assert_eq!(lines[10_000..], ["! empty after 10000 of 20000 items: queue q is empty"]);
    assert_eq!(status, 1);
}

#[test]
fn a_refused_push_names_its_items_once() {
    let fake = Fake::new(1);
    fake.group().moods[0].refuse = Some((Code::Denied, u32::MAX));
    let words: Vec<&str> = ["push", "q"].into_iter().chain((0..5000).map(|_| "x")).collect();
    assert_eq!(ran(&fake, LINES, &words), said("! denied items 1 to 5000: because\n", 77));
}

#[test]
fn a_replica_is_shown_to_people_and_to_scripts() {
    let fake = Fake::new(1);
    let json = Style { json: true, ..Style::default() };
    assert_eq!(ran(&fake, LINES, &["ready"]), said("ready\n", 0));
    assert_eq!(ran(&fake, json, &["ready"]), said("{\"ok\":true,\"ready\":true}\n", 0));
    assert!(ran(&fake, LINES, &["status"]).0.starts_with("id       1\nstate    regular\nprimary  yes\n"));
    assert!(ran(&fake, json, &["status"]).0.starts_with("{\"id\":1,\"state\":"));
    assert_eq!(ran(&fake, LINES, &["members"]), said("1\ta:1\tregular\t-\t-\t-\t-\t-\t-\t-\t-\n", 0));
}

/// Whoever dies between the opening of a session and its first answer leaves a file with which nothing was done, though
/// the group has long forgotten the session when the next one reads it.
#[test]
fn a_session_in_which_nothing_was_done_is_opened_anew() {
    let (fake, place) = (Fake::new(1), tempfile::tempdir().expect("a place"));
    let path = |name: &str| place.path().join(name).to_str().expect("our own path").to_string();
    let push = |patience: u64| {
        let mut lines = tempfile::tempfile().expect("a file");
        lines.write_all(b"a\nb\n").and_then(|()| lines.rewind()).expect("our own file");
        let input = Input::new(Stream::from(lines), b'\n', ITEM_BYTES_MAX);
        let mut session = Session::new(fake.servers.clone(), Duration::from_millis(patience));
        let mut out = Output::new(Style::default(), None);
        let pushed = exact::push("q", path("pushed").as_ref(), true, input, &mut session, &mut out);
        pushed.unwrap_or_else(|trouble| trouble.tell(&mut out));
        (out.text(), out.status())
    };
    let (popped, out) = (path("popped"), path("out"));
    let words = ["pop", "-n", "2", "--session", &popped, "--output", &out, "q"];
    let pop = |patience| ran_for(patience, &fake, Style::default(), &words);
    let dies = |run: &dyn Fn(u64) -> (String, u8)| {
        fake.group().moods[0].stuck = true;
        assert_eq!(run(100), said("", 75));
        let mut group = fake.group();
        group.sessions.clear();
        group.moods[0].stuck = false;
    };
    dies(&push);
    assert_eq!(push(PATIENT.as_millis() as u64), said("2\n", 0));
    assert_eq!(fake.group().items(), [b"a", b"b"]);
    dies(&pop);
    assert_eq!(pop(PATIENT.as_millis() as u64), said("", 0));
    assert_eq!(std::fs::read_to_string(&out).expect("text"), "a\nb\n");
    // What was ended is as good as forgotten, and there is nothing to fear for.
    std::fs::remove_file(path("pushed")).expect("it is ours");
    dies(&push);
    assert_eq!(ran(&fake, Style::default(), &["session", "end", &path("pushed")]), said("", 0));
}

#[test]
fn options_of_the_program_are_read() {
    let words: Vec<Vec<u8>> = ["-s", "a:1,/b", "-t0.5", "-je0", "--stale"].map(|word| word.as_bytes().to_vec()).into();
    let mut settings = Settings::new();
    let (given, taken) = scan(&words, GLOBAL).expect("known options");
    assert_eq!((settings.take(&given), taken), (Ok(()), 5));
    assert_eq!(settings.servers, Some(Server::parse_list("a:1,/b").expect("a list")));
    assert_eq!(settings.timeout, Duration::from_millis(500));
    assert!(settings.stale && settings.style.json && settings.style.escape && settings.style.null);
    for bad in ["-1", "x", "", "inf", "nan", "1e99"] {
        assert_eq!(seconds(bad.as_bytes()), None, "{bad:?}");
    }
}

#[test]
fn help_is_asked_for_before_and_behind_a_command() {
    let status = |words: &[&str]| run(words.iter().map(OsString::from));
    for words in [&["-h"][..], &["-h", "qCreate"], &["-h", "push"], &["pop", "-h"], &["help", "size"]] {
        assert_eq!(status(words), 0, "{words:?}");
    }
    assert_eq!(status(&["-h", "nosuch"]), USAGE);
}

const PAGE: &str = include_str!("../../man/ftqc.1");

/// The options that a line of the page shows, `Fl n Ar count` or `Fl -wait Ns = Ns Ar secs`, and which take a value.
fn shown_options(line: &str) -> BTreeSet<(String, bool)> {
    let words: Vec<&str> = line.split_whitespace().filter(|word| !["Ns", "=", ",", "Fl"].contains(word)).collect();
    let names: Vec<&str> = line.split("Fl ").skip(1).filter_map(|rest| rest.split_whitespace().next()).collect();
    let takes = |name: &&str| {
        let behind = words.iter().skip_while(|word| word != &name).nth(1);
        behind == Some(&"Ar") || behind.is_some_and(|word| word.starts_with('-')) && line.contains("Ar")
    };
    names.iter().map(|name| (name.trim_start_matches('-').to_string(), takes(name))).collect()
}

fn known_options(options: &[Known]) -> BTreeSet<(String, bool)> {
    let forms = options.iter().flat_map(|option| {
        let letter = (option.letter != 0).then(|| char::from(option.letter).to_string());
        let name = (!option.name.is_empty()).then(|| option.name.to_string());
        [letter, name].into_iter().flatten().map(|form| (form, !option.value.is_empty()))
    });
    forms.collect()
}

#[test]
fn the_man_page_and_the_table_have_the_same_commands_and_options() {
    let mut shown: BTreeMap<&str, BTreeSet<(String, bool)>> = BTreeMap::new();
    for entry in PAGE.lines().filter_map(|line| line.strip_prefix(".It Ic ")) {
        let name = entry.split_whitespace().next().expect("a name");
        // The program that a worker runs has options of its own.
        let own = entry.split(" Fl - ").next().expect("the first part");
        shown.entry(name).or_default().append(&mut shown_options(own));
    }
    let known = COMMANDS.iter().map(|command| (command.name, known_options(command.options.unwrap_or_default())));
    assert_eq!(shown, known.collect::<BTreeMap<_, _>>());
    let before = PAGE.split(".Sh COMMANDS").next().expect("the first part");
    let globals = before.lines().filter(|line| line.starts_with(".It Fl")).flat_map(shown_options);
    assert_eq!(globals.collect::<BTreeSet<_>>(), known_options(GLOBAL));
}

#[test]
fn the_man_page_has_every_code() {
    for &code in Code::ALL.iter().filter(|code| code.exit_status() > 1) {
        assert!(PAGE.contains(code.name()), "ftqc(1) lacks {}", code.name());
    }
}

#[test]
fn the_help_of_a_command_tells_all_of_it() {
    for command in COMMANDS {
        let help = command.help();
        assert!(help.starts_with(&command.usage()) && help.contains(command.summary), "{help}");
        for option in command.options.unwrap_or_default() {
            assert!(help.contains(&option.synopsis()) && help.contains(option.summary), "{help}");
            let form = option.synopsis();
            let form = form.split_whitespace().next().expect("a form");
            let in_usage = command.synopsis.contains("[OPTION...]") || command.synopsis.contains(form);
            assert!(in_usage, "{}: the synopsis lacks {form}", command.name);
        }
        assert!(command.summary.len() <= 90 && !command.summary.ends_with('.'), "{}", command.name);
    }
}

#[test]
fn every_command_has_its_json() {
    let fake = Fake::new(1);
    let json = Style { json: true, ..Style::default() };
    let run = |words: &[&str]| {
        let (text, status) = ran(&fake, json, words);
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")));
        (lines.collect::<Vec<serde_json::Value>>(), status)
    };
    let ok = |words: &[&str], field: &str, value: serde_json::Value| {
        let (lines, status) = run(words);
        assert_eq!((lines.len(), status, &lines[0]["ok"]), (1, 0, &true.into()), "{words:?}: {lines:?}");
        assert_eq!(lines[0][field], value, "{words:?}: {lines:?}");
        assert!(["help", "ready"].contains(&words[0]) || lines[0]["slot"].is_u64(), "{words:?}: {lines:?}");
        lines[0].clone()
    };
    ok(&["qCreate", "jobs"], "id", 1.into());
    ok(&["qId", "jobs"], "id", 1.into());
    ok(&["qPush", "1", "a"], "item", serde_json::Value::Null);
    ok(&["push", "jobs", "b", "c"], "count", 2.into());
    ok(&["push", "--id", "k", "jobs", "d"], "count", 1.into());
    ok(&["push", "--id", "k", "jobs", "d"], "count", 0.into());
    ok(&["qTop", "1"], "item", "a".into());
    ok(&["qSize", "1"], "size", 4.into());
    ok(&["qPop", "1"], "item", "a".into());
    ok(&["size", "jobs"], "size", 3.into());
    ok(&["peek", "jobs"], "item", "b".into());
    ok(&["pop", "jobs"], "item", "b".into());
    ok(&["queues"], "label", "jobs".into());
    let receipt = |words: &[&str]| ok(words, "try", 1.into())["receipt"].to_string();
    let first = receipt(&["take", "jobs"]);
    ok(&["extend", &first, "5"], "item", serde_json::Value::Null);
    ok(&["bury", &first], "item", serde_json::Value::Null);
    ok(&["dead", "jobs"], "item", "c".into());
    ok(&["kick", "jobs"], "count", 1.into());
    let first = receipt(&["take", "jobs"]);
    ok(&["nack", &first], "item", serde_json::Value::Null);
    ok(&["limit", "jobs", "items=9"], "items", serde_json::Value::Null);
    ok(&["limit", "jobs"], "items", 9.into());
    ok(&["purge", "jobs"], "count", 2.into());
    ok(&["help", "size"], "text", "size LABEL\n    the number of items".into());
    ok(&["ready"], "ready", true.into());
    ok(&["drop", "jobs"], "item", serde_json::Value::Null);
    for words in [&["qPop", "1"][..], &["pop", "jobs"], &["pop", "-n", "2", "jobs"], &["dead", "jobs"], &["ack", "1"]] {
        let (lines, status) = run(words);
        assert_eq!((lines.len(), status, &lines[0]["ok"], &lines[0]["done"]), (1, 1, &false.into(), &"no".into()));
    }
}
