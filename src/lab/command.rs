//! The lab's own commands, beside all of `ftqc`'s: the table that also prints the help, and what each does.

use std::cell::RefCell;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use crate::cli::line::{is_blank_line, split_word};
use crate::cli::output::{Output, Style};
use crate::cli::pipe;
use crate::cli::table::{Plan, Refusal, COMMANDS};
use crate::client::{Error, Session};
use crate::lab::crew::Condition;
use crate::lab::network::{everybody, parse_ids, parse_sides, DELAY_MS_MAX};
use crate::lab::{status, Lab};
use crate::types::{ReplicaId, Slot};

/// What follows a command's name, as text.
type Act = fn(&mut Lab, &str, &mut Output) -> Result<(), Error>;

/// A command of the lab.
struct LabCommand {
    name: &'static str,
    synopsis: &'static str,
    summary: &'static str,
    act: Act,
}

const fn command(name: &'static str, synopsis: &'static str, summary: &'static str, act: Act) -> LabCommand {
    LabCommand { name, synopsis, summary, act }
}

static LAB_COMMANDS: [LabCommand; 11] = [
    command("kill", "ID...", "crashes replicas without warning (SIGKILL); ID alone does the same", kill),
    command("start", "ID...", "starts replicas that do not run, with the data they left", start),
    command("pause", "ID...", "stops replicas in their tracks (SIGSTOP)", pause),
    command("resume", "ID...", "lets paused replicas go on", resume),
    command(
        "partition",
        "ID,... / ID,...",
        "cuts the network: each side reaches itself only; the rest is one",
        partition,
    ),
    command("loss", "PERCENT", "loses so many of the packets between replicas", loss),
    command("delay", "MS", "has packets between replicas arrive so much later", delay),
    command("heal", "", "makes the network whole again: no partition, no loss, no delay", heal),
    command("wait", "[ID...]", "until these replicas (or all that run) serve, with only such as they reach", wait),
    command("sleep", "SECS", "does nothing for a while", sleep),
    command("status", "[--json]", "a table of all replicas: who serves, who does not, and why", show_status),
];
const QUIT: (&str, &str) = ("quit", "ends the lab");

impl LabCommand {
    fn usage(&self) -> String {
        format!("{} {}", self.name, self.synopsis).trim_end().to_owned()
    }
}

fn find(name: &[u8]) -> Option<&'static LabCommand> {
    LAB_COMMANDS.iter().find(|command| command.name.as_bytes() == name)
}

/// The names of all commands that a lab understands.
pub fn names() -> Vec<String> {
    let own = LAB_COMMANDS.iter().map(|command| command.name).chain([QUIT.0]);
    own.chain(COMMANDS.iter().map(|command| command.name).filter(|name| *name != "status")).map(str::to_owned).collect()
}

/// What a line comes to in a lab.
pub fn understand(lab: &Rc<RefCell<Lab>>, line: &[u8], style: Style, stale: bool) -> Result<(Plan, Style), Refusal> {
    let (name, rest) = split_word(line);
    let rest = rest.unwrap_or_default();
    if let [b'@', id @ ..] = name {
        if is_blank_line(rest) {
            return Err(Refusal::Usage("usage: @ID COMMAND".to_owned()));
        }
        let (plan, style) = pipe::plan(rest, style, stale)?;
        return Ok((alone(lab, id, plan, style)?, style));
    }
    let (act, rest): (Act, &[u8]) = match (name, find(name)) {
        (_, Some(command)) => (command.act, rest),
        (b"quit", _) => return Ok((Plan::Quit, style)),
        (b"help", _) => match help(rest) {
            Some(text) => return Ok((Plan::Print(text), style)),
            None => return pipe::plan(line, style, stale),
        },
        _ if name.iter().all(u8::is_ascii_digit) => (kill, line),
        _ => return pipe::plan(line, style, stale),
    };
    let (lab, rest) = (Rc::clone(lab), String::from_utf8_lossy(rest).trim().to_owned());
    let run = move |_: &mut Session, out: &mut Output| {
        if let Err(e) = act(&mut lab.borrow_mut(), &rest, out) {
            out.error(&e);
        }
    };
    Ok((Plan::Run(Box::new(run)), style))
}

/// The same, asked of one replica, which gets a single attempt.
fn alone(lab: &Rc<RefCell<Lab>>, id: &[u8], plan: Plan, style: Style) -> Result<Plan, Refusal> {
    let lab = lab.borrow();
    let ids = parse_ids(&String::from_utf8_lossy(id), lab.count()).map_err(Refusal::Usage)?;
    let [id] = ids[..] else { return Err(Refusal::Usage("@ID COMMAND asks one replica".to_owned())) };
    let server = lab.server(id);
    let run = move |_: &mut Session, out: &mut Output| {
        let mut session = Session::new(vec![server], Duration::ZERO);
        plan.carry_out(&mut session, out, style);
        session.end();
    };
    Ok(Plan::Run(Box::new(run)))
}

/// What `help` prints; `None` for a command of `ftqc`.
fn help(rest: &[u8]) -> Option<String> {
    let (name, _) = split_word(rest);
    if let Some(command) = find(name) {
        return Some(format!("{}\n    {}", command.usage(), command.summary));
    }
    if !name.is_empty() {
        return None;
    }
    let mut text = String::from("The lab:");
    let own = LAB_COMMANDS.iter().map(|command| (command.usage(), command.summary));
    let more = [
        (QUIT.0.to_owned(), QUIT.1),
        ("@ID COMMAND".to_owned(), "asks that replica alone, and once, instead of any that serves"),
    ];
    for (usage, summary) in own.chain(more) {
        text.push_str(&format!("\n  {usage:28} {summary}"));
    }
    text.push_str("\n\nCommands of ftqc:");
    for command in COMMANDS.iter().filter(|command| find(command.name.as_bytes()).is_none()) {
        text.push_str(&format!("\n  {:28} {}", command.usage(), command.summary));
    }
    Some(text)
}

fn ok(out: &mut Output) -> Result<(), Error> {
    out.ok(Slot(0));
    Ok(())
}

/// The replicas named, all of which must be in a condition that fits.
fn members(lab: &mut Lab, text: &str, fits: fn(&Condition) -> bool, what: &str) -> Result<Vec<ReplicaId>, Error> {
    let ids = parse_ids(text, lab.count()).map_err(Error::bad_request)?;
    for &id in &ids {
        let condition = lab.condition(id);
        if !fits(&condition) {
            return Err(Error::bad_request(format!("replica {id} is not {what} but {}", condition.name())));
        }
    }
    Ok(ids)
}

fn kill(lab: &mut Lab, text: &str, out: &mut Output) -> Result<(), Error> {
    let is_there = |condition: &Condition| matches!(condition, Condition::Running | Condition::Paused);
    for id in members(lab, text, is_there, "running")? {
        lab.crew().kill(id);
    }
    ok(out)
}

fn start(lab: &mut Lab, text: &str, out: &mut Output) -> Result<(), Error> {
    let is_gone = |condition: &Condition| matches!(condition, Condition::Killed | Condition::Ended(..));
    for id in members(lab, text, is_gone, "down")? {
        lab.start(id).map_err(|e| Error::bad_request(e.message))?;
    }
    ok(out)
}

fn pause(lab: &mut Lab, text: &str, out: &mut Output) -> Result<(), Error> {
    for id in members(lab, text, |condition| *condition == Condition::Running, "running")? {
        lab.crew().pause(id);
    }
    ok(out)
}

fn resume(lab: &mut Lab, text: &str, out: &mut Output) -> Result<(), Error> {
    for id in members(lab, text, |condition| *condition == Condition::Paused, "paused")? {
        lab.crew().resume(&lab.network, id);
    }
    ok(out)
}

fn partition(lab: &mut Lab, text: &str, out: &mut Output) -> Result<(), Error> {
    lab.network.sides = parse_sides(text, lab.count()).map_err(Error::bad_request)?;
    lab.tell();
    ok(out)
}

fn heal(lab: &mut Lab, text: &str, out: &mut Output) -> Result<(), Error> {
    nothing("heal", text)?;
    lab.network.sides = vec![everybody(lab.count())];
    (lab.network.loss_percent, lab.network.delay_ms) = (0.0, 0);
    lab.tell();
    ok(out)
}

fn loss(lab: &mut Lab, text: &str, out: &mut Output) -> Result<(), Error> {
    let percent = text.trim_end_matches('%').trim_end().parse::<f64>().ok().filter(|p| (0.0..=100.0).contains(p));
    lab.network.loss_percent = percent.ok_or_else(|| Error::bad_request("loss is a percentage: 0 to 100"))?;
    lab.tell();
    ok(out)
}

fn delay(lab: &mut Lab, text: &str, out: &mut Output) -> Result<(), Error> {
    let ms = text.parse::<u64>().ok().filter(|ms| *ms <= DELAY_MS_MAX);
    let wrong = || Error::bad_request(format!("delay is a number of milliseconds: 0 to {DELAY_MS_MAX}"));
    lab.network.delay_ms = ms.ok_or_else(wrong)?;
    lab.tell();
    ok(out)
}

fn wait(lab: &mut Lab, text: &str, out: &mut Output) -> Result<(), Error> {
    let runs = |condition: &Condition| *condition == Condition::Running;
    let ids = if text.is_empty() { lab.running() } else { members(lab, text, runs, "running")? };
    lab.wait_until_served(&ids)?;
    ok(out)
}

fn sleep(_: &mut Lab, text: &str, out: &mut Output) -> Result<(), Error> {
    let secs = text.parse::<f64>().ok().filter(|secs| (0.0..=86_400.0).contains(secs));
    let secs = secs.ok_or_else(|| Error::bad_request("sleep takes a number of seconds, a day's at most"))?;
    out.flush();
    thread::sleep(Duration::from_secs_f64(secs));
    ok(out)
}

fn show_status(lab: &mut Lab, text: &str, out: &mut Output) -> Result<(), Error> {
    let json = matches!(text, "-j" | "--json");
    if !json {
        nothing("status", text)?;
    }
    let usual = std::mem::replace(&mut out.style.json, json);
    status::print(lab, out);
    out.style.json = usual;
    Ok(())
}

fn nothing(name: &str, text: &str) -> Result<(), Error> {
    if text.is_empty() {
        return Ok(());
    }
    Err(Error::bad_request(format!("too many operands for {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_man_page_and_the_help_name_every_command() {
        let page = include_str!("../../man/ftqd.8");
        let help = help(b"").expect("the lab's own");
        for name in LAB_COMMANDS.iter().map(|command| command.name).chain([QUIT.0, "help"]) {
            assert!(page.contains(&format!(" Ic {name}")), "{name} in ftqd(8)");
        }
        for name in names() {
            assert!(help.contains(&format!("\n  {name}")), "{name} in the help");
        }
    }

    #[test]
    fn no_name_means_two_things_but_status() {
        let both = COMMANDS.iter().filter(|command| find(command.name.as_bytes()).is_some());
        assert_eq!(both.map(|command| command.name).collect::<Vec<_>>(), ["status"]);
        assert!(COMMANDS.iter().all(|command| command.name != QUIT.0));
    }
}
