//! `kv`: the key-value store. Values are JSON and never escaped; what is printed stands on one line.

use crate::cli::line::{split_word, words};
use crate::cli::options::{scan, Given};
use crate::cli::output::Output;
use crate::cli::queue::print_ok;
use crate::cli::table::{decimal, Call, Plan, Planned, Refusal};
use crate::client::kv::{checked_key, checked_value, delete, no_key, put, read_found, read_listed, read_written};
use crate::client::{Answer, Ask, Error, Session};
use crate::limits::{KV_LIST_MAX, KV_VALUE_BYTES_MAX};
use crate::wire::kv::{Condition, KvOperation, KvQuery};
use serde_json::Value;
use std::io::{self, Read};

/// What stands behind `kv`: the word that says what to do, and its own operands.
struct Words {
    verb: Vec<u8>,
    operands: Vec<Vec<u8>>,
    /// Versions are shown.
    verbose: bool,
    count: Option<Vec<u8>>,
}

pub fn plan(call: &Call<'_>) -> Planned {
    let Words { verb, operands, verbose, count } = read_words(call)?;
    let usage = || Refusal::Usage(format!("usage: {}", call.command.usage()));
    let key = |at: usize| checked_key(std::str::from_utf8(&operands[at]).unwrap_or(""));
    if count.is_some() && verb != b"list" {
        return Err(Refusal::Usage("-n goes with list only".into()));
    }
    match (verb.as_slice(), operands.len()) {
        (b"get", 1) => {
            let print = if verbose { print_found_with_version } else { print_found };
            query(call, &KvQuery::Get { key: key(0)? }, print)
        }
        (b"put", 2) => write(&put(key(0)?, checked_value(&value(call, &operands[1])?)?, Condition::Any)),
        (b"cas", 3) => {
            let wrong = || Error::bad_request("VERSION is a whole number; 0: the key must not be there");
            let condition = match decimal(&operands[1]).ok_or_else(wrong)? {
                0 => Condition::Absent,
                version => Condition::Version(version),
            };
            write(&put(key(0)?, checked_value(&value(call, &operands[2])?)?, condition))
        }
        (b"del", 1) => {
            let mut bytes = Vec::new();
            delete(key(0)?, Condition::Any).encode(&mut bytes);
            Ok(Plan::Ask { ask: Ask::Request, bytes, print: print_ok })
        }
        (b"list", 0 | 1) => {
            let prefix = operands.first().map_or("", |prefix| std::str::from_utf8(prefix).unwrap_or("\0"));
            if !prefix.is_empty() {
                checked_key(prefix)?;
            }
            let most = count.map(|count| decimal(&count).ok_or_else(|| Error::bad_request("COUNT is a whole number")));
            let (ask, prefix, most) = (call.read(), prefix.to_owned(), most.transpose()?);
            Ok(Plan::Run(Box::new(move |session, out| {
                if let Err(e) = list(ask, &prefix, most.unwrap_or(u64::MAX), session, out) {
                    out.error(&e);
                }
            })))
        }
        _ => Err(usage()),
    }
}

/// In a line of commands the value is the rest of the line. Options may stand behind the verb as well.
fn read_words(call: &Call<'_>) -> Result<Words, Refusal> {
    let all: Vec<Vec<u8>> = if call.alone {
        call.operands.to_vec()
    } else {
        let line = call.operands.join(&b' ');
        let (verb, mut rest) = split_word(&line);
        let mut parts = vec![verb.to_vec()];
        let before_value = match verb {
            b"put" => 1,
            b"cas" => 2,
            _ => 0,
        };
        // As on the command line `--` lets a key begin with a dash.
        let mut wanted = before_value;
        while wanted > 0 && rest.is_some() {
            let (word, behind) = split_word(rest.unwrap_or_default());
            parts.extend(Some(word.to_vec()).filter(|word| !word.is_empty()));
            rest = behind;
            wanted -= usize::from(word != b"--");
        }
        match (before_value, rest) {
            (0, rest) => parts.extend(words(rest.unwrap_or_default())),
            (_, rest) => parts.extend(rest.map(<[u8]>::to_vec)),
        }
        parts
    };
    let (verb, rest) = all.split_first().expect("the table asks for one operand");
    let own = call.command.options.unwrap_or_default();
    let (given, taken) = scan(rest, own).map_err(Refusal::Usage)?;
    let has = |letter: u8| {
        let find = |given: &[Given<'_>]| {
            given.iter().rev().find(|(known, _)| known.letter == letter).map(|(_, value)| value.to_vec())
        };
        find(&given).or_else(|| call.option(letter).map(<[u8]>::to_vec))
    };
    let (verbose, count) = (has(b'v').is_some(), has(b'n'));
    Ok(Words { verb: verb.clone(), operands: rest[taken..].to_vec(), verbose, count })
}

/// The value as it was given; alone on the command line `-` is stdin.
fn value(call: &Call<'_>, given: &[u8]) -> Result<Vec<u8>, Error> {
    if !call.alone || given != b"-" {
        return Ok(given.to_vec());
    }
    let mut read = Vec::new();
    let most = 2 * KV_VALUE_BYTES_MAX as u64;
    io::stdin().take(most).read_to_end(&mut read).map_err(|e| Error::bad_request(format!("stdin: {e}")))?;
    Ok(read)
}

fn write(operation: &KvOperation<'_>) -> Planned {
    let mut bytes = Vec::new();
    operation.encode(&mut bytes);
    Ok(Plan::Ask { ask: Ask::Request, bytes, print: print_written })
}

fn query(call: &Call<'_>, query: &KvQuery<'_>, print: fn(&mut Output, Result<Answer, Error>)) -> Planned {
    let mut bytes = Vec::new();
    query.encode(&mut bytes);
    Ok(Plan::Ask { ask: call.read(), bytes, print })
}

fn print_written(out: &mut Output, answer: Result<Answer, Error>) {
    match answer.and_then(|answer| Ok((answer.slot, read_written(&answer)?.version))) {
        Ok((slot, version)) => out.number("version", slot, version),
        Err(e) => out.error(&e),
    }
}

fn print_found(out: &mut Output, answer: Result<Answer, Error>) {
    print_value(out, answer, false);
}

fn print_found_with_version(out: &mut Output, answer: Result<Answer, Error>) {
    print_value(out, answer, true);
}

fn print_value(out: &mut Output, answer: Result<Answer, Error>, verbose: bool) {
    let found = answer.and_then(|answer| {
        let (version, value) = read_found(&answer)?.ok_or_else(no_key)?;
        Ok((answer.slot, version, one_line(value)))
    });
    match found {
        Ok((slot, version, value)) if out.style.json => {
            out.line(&format!("{{\"ok\":true,\"slot\":{slot},\"version\":{version},\"value\":{value}}}"));
        }
        Ok((_, version, value)) if verbose => out.line(&format!("{version} {value}")),
        Ok((_, _, value)) => out.line(&value),
        Err(e) => out.error(&e),
    }
}

/// JSON as it is, the line ends between its tokens made blanks: a string has none.
fn one_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}

const HEADINGS: [&str; 3] = ["key", "version", "value"];

/// All keys that begin so, page by page, up to `most`.
fn list(ask: Ask, prefix: &str, most: u64, session: &mut Session, out: &mut Output) -> Result<(), Error> {
    let (mut after, mut left, mut cells) = (String::new(), most, Vec::new());
    while left > 0 {
        let count = left.min(KV_LIST_MAX as u64) as usize;
        let answer = session.call(ask, |bytes| KvQuery::List { prefix, after: &after, count }.encode(bytes))?;
        let page = read_listed(&answer)?;
        left -= page.rows.len() as u64;
        for &(key, version, value) in &page.rows {
            let value = one_line(value);
            if out.style.json {
                let key = Value::from(key);
                let slot = answer.slot;
                out.line(&format!(
                    "{{\"ok\":true,\"slot\":{slot},\"key\":{key},\"version\":{version},\"value\":{value}}}"
                ));
            } else {
                cells.push(vec![key.to_owned(), version.to_string(), value]);
            }
        }
        match page.rows.last() {
            Some((last, ..)) if page.more => after = (*last).to_owned(),
            _ => break,
        }
    }
    if !out.style.json && !cells.is_empty() {
        out.table(&HEADINGS, &cells);
    }
    Ok(())
}
