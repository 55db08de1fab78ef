//! Commands on the group: what a replica tells of itself, for scripts as it is and for people in columns.

use crate::cli::output::Output;
use crate::cli::table::{Call, Plan, Refusal};
use crate::client::{Answer, Ask, Error};
use crate::wire::answer::Code;
use crate::wire::client::Admin;
use serde_json::{json, Value};

fn ask(what: Admin, print: fn(&mut Output, Result<Answer, Error>)) -> Result<Plan, Refusal> {
    Ok(Plan::Ask { ask: Ask::Admin(what), bytes: Vec::new(), print })
}

pub fn status(_: &Call<'_>) -> Result<Plan, Refusal> {
    ask(Admin::Status, |out, answer| print(out, answer, print_status))
}

pub fn members(_: &Call<'_>) -> Result<Plan, Refusal> {
    ask(Admin::Members, |out, answer| print(out, answer, print_members))
}

pub fn ready(_: &Call<'_>) -> Result<Plan, Refusal> {
    ask(Admin::Ready, |out, answer| print(out, answer, print_ready))
}

fn print(out: &mut Output, answer: Result<Answer, Error>, show: fn(&mut Output, &Value)) {
    let parsed = answer.and_then(|answer| {
        let wrong = |e| Error::refused(Code::Internal, format!("the replica's answer is no JSON: {e}"));
        serde_json::from_slice(&answer.body).map_err(wrong)
    });
    match parsed {
        Ok(value) => show(out, &value),
        Err(e) => out.error(&e),
    }
}

fn print_status(out: &mut Output, status: &Value) {
    if out.style.json {
        return out.object(status.clone());
    }
    let Value::Object(fields) = status else { return out.object(status.clone()) };
    let mut lines: Vec<(String, String)> = Vec::new();
    for (name, value) in fields {
        match value {
            Value::Object(inner) => {
                lines.extend(inner.iter().map(|(inner, value)| (format!("{name}.{inner}"), cell(value))));
            }
            Value::Null => {}
            value => lines.push((name.clone(), cell(value))),
        }
    }
    lines.retain(|(_, value)| !value.is_empty());
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    lines.iter().for_each(|(name, value)| out.line(&format!("{name:width$}  {value}")));
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

const HEADINGS: [&str; 8] = ["id", "address", "state", "epoch", "known", "durable", "committed", "lag"];

fn print_members(out: &mut Output, members: &Value) {
    let Value::Array(members) = members else { return out.object(members.clone()) };
    if out.style.json {
        return members.iter().for_each(|member| out.object(member.clone()));
    }
    let headings: Vec<&str> = HEADINGS.into_iter().chain(["heard_ms"]).collect();
    let field = |value: &Value| Some(cell(value)).filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_string());
    let rows: Vec<Vec<String>> =
        members.iter().map(|member| headings.iter().map(|name| field(&member[*name])).collect()).collect();
    out.table(&headings, &rows);
}

fn print_ready(out: &mut Output, ready: &Value) {
    let is_ready = ready["ready"] == true;
    if is_ready && !out.style.json {
        return out.line("ready");
    }
    if out.style.json {
        out.note_status(if is_ready { 0 } else { 75 });
        return out.object(json!({ "ok": is_ready, "ready": is_ready, "reason": ready["reason"] }));
    }
    out.error(&Error::refused(Code::NotPrimary, ready["reason"].as_str().unwrap_or("not ready")));
}
