//! `ftqc stock`: as single commands, line by line and from a menu; through crashes; and that nothing falls below zero
//! whoever takes at once.

use ftq::client::stock::{Availability, StockDone};
use ftq::client::{Client, Code, Server};
use std::thread;
use std::time::Duration;

use crate::ftqc::{command, ftqc, run};
use crate::group::Group;
use crate::net::Net;
use crate::terminal::Terminal;

const HEADING: &str = "Availability,ZIP Code,Site Name\n";

fn servers(group: &Group) -> String {
    (1..=group.size).map(|id| group.net.address(id)).collect::<Vec<_>>().join(",")
}

#[test]
fn single_commands_and_lines() {
    let group = Group::start(Net::any("single_commands_and_lines"), 3);
    let stock = |args: &[&str]| group.ask(1, &[&["stock"], args].concat(), "");
    stock(&["l"]).is(0, HEADING);
    stock(&["n", "Site Name", "02138"]).is(0, "ok\n");
    stock(&["n", "Site Name", "99999"]).refuses(1, "ftqc: exists: there is a site called Site Name");
    stock(&["n", "St. Mary's, \"East\"", "00501"]).is(0, "ok\n");
    stock(&["v", "Site Name"]).is(0, "0,02138,Site Name\n");
    stock(&["e", "Site Name", "12"]).is(0, "ok\n");
    stock(&["d", "Site Name", "-5"]).is(0, "7\n");
    stock(&["d", "Site Name", "+1"]).is(0, "8\n");
    stock(&["d", "Site Name", "-9"]).refuses(1, "ftqc: empty: ");
    stock(&["e", "St. Mary's, \"East\"", "True"]).is(0, "ok\n");
    stock(&["d", "St. Mary's, \"East\"", "1"]).refuses(65, "ftqc: bad-request: ");
    group
        .ask(3, &["stock", "l"], "")
        .is(0, &format!("{HEADING}8,02138,Site Name\nTrue,00501,\"St. Mary's, \"\"East\"\"\"\n"));
    for args in [&["v", "x"][..], &["e", "x", "1"], &["d", "x", "1"], &["h", "x"], &["delete", "x"]] {
        stock(args).refuses(1, "ftqc: no-site: no site is called x");
    }
    let lines = "v 'Site Name'\nv \"St. Mary's, \"\"East\"\"\"\n\n# nothing\ne 'St. Mary''s, \"East\"' False\n\
                 delete 'Site Name'\nl\nq\nl\n";
    let answers = format!(
        "8,02138,Site Name\nTrue,00501,\"St. Mary's, \"\"East\"\"\"\n\nok\nok\n{HEADING}\
         False,00501,\"St. Mary's, \"\"East\"\"\"\nok\n"
    );
    group.ask(2, &["stock"], lines).is(0, &answers);
    group
        .pipe(2, "stock n 'By the way' 1\nstock v 'By the way'\nstock\n")
        .is(65, "ok\n0,1,By the way\n! bad-request a command must follow, as in 'stock l'\n");
    let objects = group.ask(1, &["-j", "stock"], "v 'By the way'\nh 'By the way'\nv x\n");
    let objects: Vec<serde_json::Value> =
        objects.text().lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect();
    assert_eq!((&objects[0]["availability"], &objects[0]["zip"]), (&0.into(), &"1".into()), "{objects:?}");
    assert!(objects[1]["slot"].is_u64() && objects[1]["time_ns"].is_u64() && objects[1]["change"] == "new");
    assert_eq!(objects[2]["error"], "no-site");
}

#[test]
fn numbers_and_names_that_make_no_sense_change_nothing() {
    let group = Group::start(Net::any("numbers_and_names_that_make_no_sense_change_nothing"), 1);
    group.ask(1, &["stock", "n", "x", "1"], "").is(0, "ok\n");
    group.ask(1, &["stock", "e", "x", "5"], "").is(0, "ok\n");
    let values = [
        "-1",
        "+1",
        "1.5",
        "1e3",
        "0x10",
        "true",
        "FALSE",
        "",
        "9223372036854775808",
        "99999999999999999999999",
        "\u{661}",
    ];
    for value in values {
        group.ask(1, &["stock", "e", "x", value], "").refuses(65, "ftqc: bad-request: what is available is ");
    }
    for by in ["", "-", "1.5", "--1", "1e3", "99999999999999999999", "-99999999999999999999", "many"] {
        group.ask(1, &["stock", "d", "x", by], "").refuses(65, "ftqc: bad-request: a difference is ");
    }
    for name in ["", " ", "\t", "\u{a0}", "\u{3000}\u{2003}", "a\nb", "a\tb", &"y".repeat(256)] {
        group.ask(1, &["stock", "n", name, "1"], "").refuses(65, "ftqc: bad-request: a site's name ");
    }
    for zip in ["", " ", "1,2", "12345678901234567", "\u{e9}"] {
        group.ask(1, &["stock", "n", "z", zip], "").refuses(65, "ftqc: bad-request: a ZIP code ");
    }
    for args in [&["x"][..], &["l", "x"], &["n", "Site", "Name", "1"], &["e", "x"], &["L"], &["delete"]] {
        group.ask(1, &[&["stock"], args].concat(), "").refuses(64, "ftqc: usage: ");
    }
    let lines = "n 'half 1\nn x\nfoo\nd x +9223372036854775807\nd x -6\nd x -5\n";
    let run = group.ask(1, &["stock"], lines);
    let answers: Vec<&str> = run.text().lines().collect();
    assert!(answers[..4].iter().all(|a| a.starts_with("! bad-request ")), "{answers:?}");
    assert!(answers[4].starts_with("! empty x has 5"), "{answers:?}");
    assert_eq!((answers[5], answers.len(), run.status), ("0", 6, 65));
    assert_eq!(group.ask(1, &["stock", "h", "x"], "").ok().lines().count(), 3, "what was refused is no change");
    group.ask(1, &["stock", "n", &"\u{e9}".repeat(127), "SW1A 1AA"], "").is(0, "ok\n");
    group.ask(1, &["stock", "e", "x", "007"], "").is(0, "ok\n");
    group.ask(1, &["stock", "v", "x"], "").is(0, "7,1,x\n");
}

/// Several take from one site at once while replicas die: what there was is given out, and no more; and every change
/// stands in the history, in order.
#[test]
fn nothing_falls_below_zero_while_replicas_die() {
    let mut group = Group::start(Net::any("nothing_falls_below_zero_while_replicas_die"), 3);
    group.ask(1, &["stock"], "n s 02138\ne s 150\n").is(0, "ok\nok\n");
    let lines = "d s -1\n".repeat(60);
    let takers: Vec<_> = (1..=4)
        .map(|first| {
            let ids = (0..3).map(|k| (first + k) % 3 + 1);
            let servers = ids.map(|id| group.net.address(id)).collect::<Vec<_>>().join(",");
            (command(&servers, &["-t", "30", "stock"]), lines.clone())
        })
        .map(|(command, lines)| thread::spawn(move || run(command, lines.into())))
        .collect();
    group.crash(2);
    group.await_status(3, "the view shrinks", |s| s["primary"] == true && s["members"] == serde_json::json!([1, 3]));
    group.crash(1);
    let mut taken = 0;
    for taker in takers {
        let run = taker.join().expect("it does not panic");
        let (done, refused): (Vec<&str>, Vec<&str>) = run.text().lines().partition(|line| line.parse::<u64>().is_ok());
        assert!(refused.iter().all(|line| line.starts_with("! empty ")), "{run:?}");
        assert_eq!(done.len() + refused.len(), 60);
        taken += done.len();
    }
    assert_eq!(taken, 150);
    group.crash(3);
    (1..=3).for_each(|id| group.launch(id));
    let history = ftqc(&servers(&group), &["-t", "30", "stock", "h", "s"], "").ok();
    let rows: Vec<Vec<&str>> = history.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows.len(), 152);
    assert_eq!((&rows[0][2..], &rows[1][2..]), (&["new", "0"][..], &["set", "150"][..]));
    for (n, row) in rows[2..].iter().enumerate() {
        assert_eq!(row[2..], ["-1", &(149 - n).to_string()]);
    }
    let column = |index: usize| rows.iter().map(|row| row[index].parse::<f64>().expect("a number")).collect::<Vec<_>>();
    assert!(column(0).is_sorted() && column(1).is_sorted(), "slots and group times only grow");
    group.await_primary();
    group.ask(2, &["stock", "l"], "").is(0, &format!("{HEADING}0,02138,s\n"));
    group.assert_agreement();
}

#[test]
fn the_library_keeps_stock() {
    let group = Group::start(Net::any("the_library_keeps_stock"), 1);
    let mut client = Client::new(Server::parse_list(&servers(&group)).expect("servers"), Duration::from_secs(30));
    client.stock_new("a b", "02138").expect("a new site");
    assert_eq!(client.stock_change("a b", 3), Ok(Availability::Count(3)));
    assert!(client.stock_change("a b", -4).is_err_and(|e| e.is(Code::Empty)));
    client.stock_set("a b", Availability::Flag(false)).expect("it is there");
    let site = client.stock_view("a b").expect("it is there");
    assert_eq!((site.availability, &site.zip[..]), (Availability::Flag(false), "02138"));
    assert_eq!(client.stock_list(), Ok(vec![site]));
    let history = client.stock_history("a b").expect("it is there");
    let done: Vec<StockDone> = history.changes.iter().map(|change| change.done).collect();
    assert_eq!((history.dropped, done), (0, vec![StockDone::Made, StockDone::Changed { by: 3 }, StockDone::Set]));
    client.stock_delete("a b").expect("it is there");
    assert!(client.stock_history("a b").is_err_and(|e| e.is(Code::NoSite)));
}

#[test]
fn a_person_chooses_from_the_menu() {
    let group = Group::start(Net::any("a_person_chooses_from_the_menu"), 1);
    let mut person = Terminal::start(&mut command(&servers(&group), &["stock"]));
    person.expect("e NAME VALUE");
    person.expect("stock> ");
    person.press("n 'Site Name' 02138\r");
    person.expect("\nok\r\n");
    // "del", TAB; taken back.
    person.press("del\t'x'\r");
    person.expect("\n! no-site no site is called x\r\n");
    person.press("d 'Site Name' +4\r");
    person.expect("\n4\r\n");
    person.press("l\r");
    person.expect("\nAvailability,ZIP Code,Site Name\r\n4,02138,Site Name\r\n");
    person.press("h 'Site Name'\r");
    let shown = person.expect("+4");
    assert!(shown.contains("slot") && shown.contains("availability"), "headings for people: {shown:?}");
    person.press("v Site Name\r");
    person.expect("! bad-request it is called like this: v NAME");
    person.press("q\r");
    assert_eq!(person.end(), 65);
}
