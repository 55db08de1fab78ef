//! `ftqc stock`: the availability log, with a letter for each command. One may stand on the command line; else they are
//! read from stdin, one a line, or chosen from a menu. Names with blanks are quoted.

use crate::cli::output::{Output, Style};
use crate::cli::pipe;
use crate::cli::prompt;
use crate::cli::queue::print_ok;
use crate::cli::table::{Call, Plan, Planned, Refusal};
use crate::client::stock::{availability, checked_site, checked_zip, history_page, sites, StockDone};
use crate::client::{Answer, Ask, Error, Session};
use crate::types::{GroupTime, Slot};
use crate::wire::stock::{Availability, Change, SiteRow, StockOperation, StockQuery};
use serde_json::Value;

const PROMPT: &str = "stock> ";
const LETTERS: [&str; 8] = ["l", "v", "e", "n", "d", "h", "delete", "q"];
const MENU: &str = "l              lists all sites\n\
                    v NAME         views one\n\
                    e NAME VALUE   sets what is available: a number, True or False\n\
                    n NAME ZIP     adds a site\n\
                    d NAME +N, -N  changes a number by a difference\n\
                    h NAME         shows what happened to a site\n\
                    delete NAME    removes a site\n\
                    q              quits\n\
                    A name with blanks is quoted: v 'Site Name'.";
const HEADINGS: [&str; 4] = ["slot", "time_s", "change", "availability"];
const LIST_HEADING: &str = "Availability,ZIP Code,Site Name";

/// `stock [COMMAND [ARG...]]`
pub fn plan(call: &Call<'_>) -> Planned {
    let words = call.operands.iter().map(|word| text(word)).collect::<Result<Vec<&str>, _>>()?;
    if words.is_empty() {
        if !call.alone && !prompt::is_wanted() {
            return Err(Refusal::Usage("a command must follow, as in 'stock l'".to_string()));
        }
        let stale = call.stale;
        return Ok(Plan::Run(Box::new(move |session, out| converse(session, out, stale))));
    }
    if call.alone {
        command(&words, call.read())
    } else {
        line(&words.join(" "), call.read())
    }
}

fn text(word: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(word).map_err(|_| Error::bad_request("a name is UTF-8"))
}

/// Commands from stdin, or from a person.
fn converse(session: &mut Session, out: &mut Output, stale: bool) {
    out.style.lines = true;
    let understand = |bytes: &[u8], style: Style, stale: bool| {
        let read = if stale { Ask::StaleQuery } else { Ask::Query };
        Ok((line(text(bytes)?, read)?, style))
    };
    if prompt::is_wanted() {
        out.line(MENU);
        out.flush();
        let names = LETTERS.map(str::to_string).to_vec();
        prompt::run_as(PROMPT, session, out, stale, &understand, names);
    } else {
        pipe::run(session, out, stale, &understand);
    }
}

/// What a line comes to.
fn line(line: &str, read: Ask) -> Planned {
    let words = split(line)?;
    command(&words.iter().map(String::as_str).collect::<Vec<_>>(), read)
}

/// The words of a line. Between quotes, single or double, a blank is part of a word; there a doubled quote stands for
/// itself.
fn split(line: &str) -> Result<Vec<String>, Error> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match quote {
            Some(end) if c == end => {
                quote = None;
                if chars.next_if_eq(&end).is_some() {
                    word.get_or_insert_default().push(end);
                    quote = Some(end);
                }
            }
            Some(_) => word.get_or_insert_default().push(c),
            None if c == ' ' || c == '\t' => words.extend(word.take()),
            None if c == '\'' || c == '"' => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            None => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    match quote {
        None => Ok(words),
        Some(quote) => Err(Error::bad_request(format!("a quote {quote} has no end"))),
    }
}

/// What a command comes to.
fn command(words: &[&str], read: Ask) -> Planned {
    let request = |operation: StockOperation<'_>, print: fn(&mut Output, Result<Answer, Error>)| {
        let mut bytes = Vec::new();
        operation.encode(&mut bytes);
        Ok(Plan::Ask { ask: Ask::Request, bytes, print })
    };
    match *words {
        ["l"] => Ok(Plan::Run(Box::new(move |session, out| {
            if let Err(e) = list(read, session, out) {
                out.error(&e);
            }
        }))),
        ["v", name] => {
            let mut bytes = Vec::new();
            StockQuery::View { name: checked_site(name)? }.encode(&mut bytes);
            Ok(Plan::Ask { ask: read, bytes, print: print_site })
        }
        ["h", name] => {
            let name = checked_site(name)?.to_string();
            Ok(Plan::Run(Box::new(move |session, out| {
                if let Err(e) = history(&name, read, session, out) {
                    out.error(&e);
                }
            })))
        }
        ["e", name, to] => {
            let wrong = || {
                let most = Availability::COUNT_MAX;
                Error::bad_request(format!("what is available is a whole number from 0 to {most}, True or False"))
            };
            let to = Availability::from_text(to).ok_or_else(wrong)?;
            request(StockOperation::Set { name: checked_site(name)?, to }, print_ok)
        }
        ["n", name, zip] => {
            request(StockOperation::New { name: checked_site(name)?, zip: checked_zip(zip)? }, print_ok)
        }
        ["d", name, by] => {
            let wrong = |_| Error::bad_request("a difference is a whole number with its sign, as in -3 or +3");
            let by = by.parse::<i64>().map_err(wrong)?;
            request(StockOperation::Change { name: checked_site(name)?, by }, print_availability)
        }
        ["delete", name] => request(StockOperation::Delete { name: checked_site(name)? }, print_ok),
        ["q" | "quit" | "exit"] => Ok(Plan::Quit),
        ["help" | "?"] => Ok(Plan::Print(MENU.to_string())),
        [] => Ok(Plan::Print(String::new())),
        [known, ..] if LETTERS.contains(&known) => {
            let forms = MENU.lines().filter(|form| form.split(' ').next() == Some(known));
            let form: String = forms.map(|form| form[..15].trim_end()).collect();
            Err(Refusal::Usage(format!("it is called like this: {form}; a name with blanks is quoted")))
        }
        [_, ..] => Err(Refusal::Usage(format!("a command is one of {}", LETTERS.join(" ")))),
    }
}

// ---- printing

/// A field of a line of comma-separated values: quoted where it has to be.
fn csv(field: &str) -> String {
    let plain = !field.contains([',', '"', '\r', '\n']) && field.trim() == field;
    if plain {
        field.to_string()
    } else {
        format!("\"{}\"", field.replace('"', "\"\""))
    }
}

fn json(availability: Availability) -> Value {
    match availability {
        Availability::Count(count) => count.into(),
        Availability::Flag(flag) => flag.into(),
    }
}

fn show_site(out: &mut Output, slot: Slot, site: &SiteRow<'_>) {
    if out.style.json {
        let fields = [("availability", json(site.availability)), ("zip", site.zip.into()), ("name", site.name.into())];
        out.fields(slot, &fields);
    } else {
        out.line(&format!("{},{},{}", site.availability, csv(site.zip), csv(site.name)));
    }
}

fn print_site(out: &mut Output, answer: Result<Answer, Error>) {
    let shown = answer.and_then(|answer| {
        sites(&answer)?.iter().for_each(|site| show_site(out, answer.slot, site));
        Ok(())
    });
    if let Err(e) = shown {
        out.error(&e);
    }
}

fn print_availability(out: &mut Output, answer: Result<Answer, Error>) {
    match answer.and_then(|answer| Ok((answer.slot, availability(&answer)?))) {
        Ok((slot, now)) if out.style.json => out.fields(slot, &[("availability", json(now))]),
        Ok((_, now)) => out.line(&now.to_string()),
        Err(e) => out.error(&e),
    }
}

fn list(read: Ask, session: &mut Session, out: &mut Output) -> Result<(), Error> {
    let (mut after, mut begun) = (String::new(), false);
    loop {
        let answer = session.call(read, |bytes| StockQuery::List { after: &after }.encode(bytes))?;
        let page = sites(&answer)?;
        if !std::mem::replace(&mut begun, true) && !out.style.json {
            out.line(LIST_HEADING);
        }
        let Some(last) = page.last() else { return Ok(()) };
        page.iter().for_each(|site| show_site(out, answer.slot, site));
        after = last.name.to_string();
    }
}

/// Seconds of group time, in decimal.
fn seconds(time: GroupTime) -> String {
    format!("{}.{:09}", time.0 / 1_000_000_000, time.0 % 1_000_000_000)
}

fn in_words(done: StockDone) -> String {
    match done {
        StockDone::Made => "new".to_string(),
        StockDone::Set => "set".to_string(),
        StockDone::Changed { by } => format!("{by:+}"),
    }
}

fn show_change(out: &mut Output, change: &Change, cells: &mut Vec<Vec<String>>) {
    let what = in_words(change.done);
    if out.style.json {
        let fields = [("time_ns", change.time.0.into()), ("change", what.into())];
        let fields = fields.into_iter().chain([("availability", json(change.availability))]).collect::<Vec<_>>();
        return out.fields(change.slot, &fields);
    }
    cells.push(vec![change.slot.to_string(), seconds(change.time), what, change.availability.to_string()]);
}

fn history(name: &str, read: Ask, session: &mut Session, out: &mut Output) -> Result<(), Error> {
    let (mut from, mut cells) = (0, Vec::new());
    loop {
        let answer = session.call(read, |bytes| StockQuery::History { name, from }.encode(bytes))?;
        let page = history_page(&answer)?;
        if page.from > from {
            let dropped = page.from - from;
            if out.style.json {
                out.fields(answer.slot, &[("dropped", dropped.into())]);
            } else {
                out.line(&format!("# {dropped} changes before these are not kept"));
            }
        }
        if page.changes.is_empty() {
            break;
        }
        page.changes.iter().for_each(|change| show_change(out, change, &mut cells));
        from = page.from + page.changes.len() as u64;
    }
    if !cells.is_empty() {
        out.table(&HEADINGS, &cells);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        split(line).expect("whole quotes")
    }

    #[test]
    fn quoted_names_are_one_word() {
        assert_eq!(words("n 'Site Name'  02138 "), ["n", "Site Name", "02138"]);
        assert_eq!(words("v \"St. Mary's, \"\"East\"\"\""), ["v", "St. Mary's, \"East\""]);
        assert_eq!(words("v ''"), ["v", ""]);
        assert_eq!(words("v 'it''s' x'y z'"), ["v", "it's", "xy z"]);
        assert_eq!(words(" \t "), [""; 0]);
        assert!(split("v 'half").is_err() && split("v \"").is_err());
    }

    #[test]
    fn what_is_listed_can_be_typed_again() {
        for name in ["plain", "a, b", "say \"so\"", "it's", " edges "] {
            let listed = csv(name);
            let typed = if listed.starts_with('"') { words(&listed) } else { vec![listed.clone()] };
            assert_eq!(typed, [name], "{listed}");
        }
        assert_eq!(csv("a, \"b\""), "\"a, \"\"b\"\"\"");
        assert_eq!(csv("02138"), "02138");
    }

    #[test]
    fn bad_commands_are_refused_before_anything_is_sent() {
        let refusal = |words: &[&str]| match command(words, Ask::Query) {
            Ok(_) => panic!("{words:?} was planned"),
            Err(refusal) => refusal,
        };
        for words in [
            &["e", "x", "-1"][..],
            &["e", "x", "1.5"],
            &["e", "x", "9223372036854775808"],
            &["e", "x", "maybe"],
            &["d", "x", "1.5"],
            &["d", "x", "-99999999999999999999"],
            &["d", "x", ""],
            &["n", "x", ""],
            &["n", "", "1"],
            &["n", "x", "0,1"],
            &["v", " "],
            &["v", "a\nb"],
        ] {
            assert!(matches!(refusal(words), Refusal::Error(e) if e.exit_status() == 65), "{words:?}");
        }
        for words in [&["x"][..], &["l", "x"], &["v"], &["n", "x"], &["n", "Site", "Name", "1"], &["L"]] {
            assert!(matches!(refusal(words), Refusal::Usage(_)), "{words:?}");
        }
        assert!(matches!(refusal(&["d", "x"]), Refusal::Usage(why) if why.contains("d NAME +N")));
    }
}
