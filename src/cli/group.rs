//! Commands on the group: what a replica tells of itself, for scripts as it is and for people in columns.

use crate::cli::output::Output;
use crate::cli::table::{Call, Plan, Refusal};
use crate::client::{Answer, Ask, Error, Session};
use crate::wire::answer::Code;
use crate::wire::client::Admin;
use serde_json::Value;
use std::thread;
use std::time::Duration;

fn ask(what: Admin, print: fn(&mut Output, Result<Answer, Error>)) -> Result<Plan, Refusal> {
    Ok(Plan::Ask { ask: Ask::Admin(what), bytes: Vec::new(), print })
}

/// Between two looks of `status --watch`.
const WATCH_EVERY: Duration = Duration::from_millis(500);

pub fn status(call: &Call<'_>) -> Result<Plan, Refusal> {
    if call.options.iter().any(|(known, _)| known.name == "watch") {
        if !call.alone {
            return Err(Refusal::Usage("--watch never ends: it is for the command line alone".into()));
        }
        return Ok(Plan::Run(Box::new(watch)));
    }
    ask(Admin::Status, |out, answer| print(out, answer, print_status))
}

pub fn members(_: &Call<'_>) -> Result<Plan, Refusal> {
    ask(Admin::Members, |out, answer| print(out, answer, print_members))
}

pub fn ready(_: &Call<'_>) -> Result<Plan, Refusal> {
    ask(Admin::Ready, print_ready)
}

/// Shows the status again and again, until the program is ended.
fn watch(session: &mut Session, out: &mut Output) {
    loop {
        session.submit_bytes(Ask::Admin(Admin::Status), Vec::new());
        let answer = session.wait();
        out.clear_screen();
        print(out, answer, print_status);
        out.flush();
        thread::sleep(WATCH_EVERY);
    }
}

/// Prints what a replica told: as it is for scripts, as `show` has it for people.
fn print(out: &mut Output, answer: Result<Answer, Error>, show: fn(&mut Output, &Value)) {
    match answer.and_then(|answer| Ok((parse(&answer)?, answer.body))) {
        Ok((_, body)) if out.style.json => out.line(&one_line_json(&body)),
        Ok((value, _)) => show(out, &value),
        Err(e) => out.error(&e),
    }
}

fn parse(answer: &Answer) -> Result<Value, Error> {
    let wrong = |e| Error::refused(Code::Internal, format!("the replica's answer is no JSON: {e}"));
    serde_json::from_slice(&answer.body).map_err(wrong)
}

/// JSON as it is, the line ends between its tokens made blanks: a string has none.
fn one_line_json(json: &[u8]) -> String {
    String::from_utf8_lossy(json).trim().replace(['\n', '\r'], " ")
}

/// What `status` shows first, in this order; what else a replica tells follows.
const FIRST: [&str; 8] = ["id", "incarnation", "state", "primary", "reason", "epoch", "members", "sequencer"];

fn print_status(out: &mut Output, status: &Value) {
    let mut lines: Vec<(String, String)> = Vec::new();
    let fields = status.as_object().into_iter().flatten();
    let rest = fields
        .filter(|(name, _)| !FIRST.contains(&name.as_str()) && *name != "replicas")
        .map(|(name, value)| (name.as_str(), value));
    for (name, value) in FIRST.iter().map(|name| (*name, &status[*name])).chain(rest) {
        match value {
            Value::Object(inner) => {
                lines.extend(inner.iter().map(|(inner, value)| (format!("{name} {inner}"), cell(value))));
            }
            value => lines.push((name.to_string(), cell(value))),
        }
    }
    lines.retain(|(_, value)| !value.is_empty());
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    lines.iter().for_each(|(name, value)| out.line(&format!("{name:width$}  {value}")));
    out.columns(&HEADINGS, &rows(&status["replicas"]));
}

/// A value as people read it.
fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_string(),
        Value::Bool(false) => "no".to_string(),
        Value::Null => String::new(),
        Value::Array(values) => format!("{{{}}}", values.iter().map(cell).collect::<Vec<_>>().join(",")),
        value => value.to_string(),
    }
}

const HEADINGS: [&str; 11] =
    ["id", "address", "state", "epoch", "known", "durable", "committed", "lag", "heard_ms", "hears", "note"];

/// The replicas, a row each; `-` for what is not known.
fn rows(replicas: &Value) -> Vec<Vec<String>> {
    let field = |value: &Value| Some(cell(value)).filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_string());
    let row = |replica: &Value| HEADINGS.iter().map(|name| field(&replica[*name])).collect();
    replicas.as_array().into_iter().flatten().map(row).collect()
}

fn print_members(out: &mut Output, members: &Value) {
    out.table(&HEADINGS, &rows(members));
}

/// Not to be ready is a refusal, with its exit status.
fn print_ready(out: &mut Output, answer: Result<Answer, Error>) {
    match answer.and_then(|answer| parse(&answer)) {
        Ok(told) if told["ready"] == true && out.style.json => {
            out.object(&[("ok", Value::from(true)), ("ready", Value::from(true))]);
        }
        Ok(told) if told["ready"] == true => out.line("ready"),
        Ok(told) => out.error(&Error::refused(Code::NotPrimary, told["reason"].as_str().unwrap_or("not ready"))),
        Err(e) => out.error(&e),
    }
}
