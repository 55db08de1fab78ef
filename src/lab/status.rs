//! `status` in a lab: one table of all replicas, dead ones too, that shows at a glance who serves, who is cut off from
//! whom, and why somebody waits.

use serde_json::{json, Value};
use std::time::Duration;

use crate::cli::output::Output;
use crate::client::{Client, Error, Server};
use crate::lab::crew::Condition;
use crate::lab::network::{list, Network};
use crate::lab::Lab;
use crate::types::{ReplicaId, Slot};

const HEADINGS: [&str; 8] = ["id", "process", "serves", "state", "view", "applied", "reaches", "reason"];
const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";

/// One replica as the lab sees it.
struct Row {
    id: ReplicaId,
    condition: Condition,
    /// What it tells of itself, if it runs and answers.
    told: Result<Value, Error>,
    reaches: String,
}

/// Prints the table, or one JSON object.
pub fn print(lab: &Lab, out: &mut Output) {
    let ids = lab.crew().ids();
    let rows: Vec<Row> = ids.into_iter().map(|id| look(lab, id)).collect();
    if out.style.json {
        let replicas: Vec<Value> = rows.iter().map(Row::json).collect();
        let Network { sides, loss_percent, delay_ms } = &lab.network;
        let sides: Vec<Value> =
            sides.iter().map(|side| json!(side.iter().map(|id| id.0).collect::<Vec<_>>())).collect();
        let fields = [
            ("replicas", Value::from(replicas)),
            ("sides", sides.into()),
            ("loss_percent", json!(loss_percent)),
            ("delay_ms", json!(delay_ms)),
        ];
        return out.fields(Slot(0), &fields);
    }
    let colour = out.style.terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    table(&rows, colour).iter().for_each(|line| out.line(line));
    if !lab.network.is_whole() {
        out.line(&format!("network: {}", lab.network.describe()));
    }
}

fn look(lab: &Lab, id: ReplicaId) -> Row {
    let condition = lab.condition(id);
    let told = match &condition {
        Condition::Running => ask(lab.server(id)),
        _ => Ok(Value::Null),
    };
    Row { id, condition, told, reaches: format!("{{{}}}", list(lab.network.side_of(id))) }
}

/// What a replica tells of itself, asked once.
fn ask(server: Server) -> Result<Value, Error> {
    let text = Client::new(vec![server], Duration::ZERO).status()?;
    serde_json::from_str(&text).map_err(|e| Error::bad_request(format!("the replica's answer is no JSON: {e}")))
}

impl Row {
    fn field(&self, name: &str) -> &Value {
        self.told.as_ref().map_or(&Value::Null, |told| &told[name])
    }

    fn reason(&self) -> String {
        match (&self.condition, &self.told) {
            (Condition::Ended(_, words), _) => words.clone(),
            (_, Err(e)) => e.message().to_owned(),
            _ => self.field("reason").as_str().unwrap_or_default().to_owned(),
        }
    }

    /// The epoch and the members: `2 {1,3}`.
    fn view(&self) -> String {
        match (self.field("epoch").as_u64(), self.field("members").as_array()) {
            (Some(epoch), Some(members)) if epoch > 0 => {
                let members: Vec<String> = members.iter().map(Value::to_string).collect();
                format!("{epoch} {{{}}}", members.join(","))
            }
            _ => String::new(),
        }
    }

    fn cells(&self) -> [String; 8] {
        let serves = match (&self.condition, self.field("primary").as_bool()) {
            (_, Some(true)) => "yes",
            (Condition::Running, _) => "no",
            _ => "",
        };
        let state = self.field("state").as_str().unwrap_or_default();
        let applied = self.field("slot")["applied"].as_u64().map(|slot| slot.to_string());
        let cells = [
            self.id.to_string(),
            self.condition.name().to_owned(),
            serves.to_owned(),
            state.to_owned(),
            self.view(),
            applied.unwrap_or_default(),
            self.reaches.clone(),
        ];
        let mut all = cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }).to_vec();
        all.push(self.reason());
        all.try_into().expect("as many as there are headings")
    }

    fn colour(&self) -> &'static str {
        match (&self.condition, self.field("primary") == true) {
            (_, true) => GREEN,
            (Condition::Running | Condition::Paused, false) => YELLOW,
            _ => RED,
        }
    }

    fn json(&self) -> Value {
        json!({
            "id": self.id.0,
            "process": self.condition.name(),
            "primary": self.field("primary").as_bool().unwrap_or(false),
            "state": self.field("state"),
            "epoch": self.field("epoch"),
            "members": self.field("members"),
            "applied": self.field("slot")["applied"],
            "digest": self.field("digest"),
            "reason": self.reason(),
        })
    }
}

/// Aligned lines under headings.
fn table(rows: &[Row], colour: bool) -> Vec<String> {
    let headings = HEADINGS.map(str::to_owned);
    let cells: Vec<[String; 8]> = rows.iter().map(Row::cells).collect();
    let width = |column: usize| {
        let all = cells.iter().chain([&headings]).map(|row| row[column].chars().count());
        all.max().expect("there are headings")
    };
    let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
    let line = |row: &[String; 8]| {
        let padded: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let coloured = |(row, cells): (&Row, &[String; 8])| match colour {
        true => format!("\x1b[{}m{}\x1b[0m", row.colour(), line(cells)),
        false => line(cells),
    };
    std::iter::once(line(&headings)).chain(rows.iter().zip(&cells).map(coloured)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u8, condition: Condition, told: Value) -> Row {
        Row { id: ReplicaId(id), condition, told: Ok(told), reaches: "{1,2}".into() }
    }

    fn rows() -> [Row; 3] {
        let serves = json!({ "primary": true, "state": "regular", "epoch": 12, "members": [1, 2],
            "slot": { "applied": 345 }, "reason": null });
        let waits = json!({ "primary": false, "state": "secondary", "epoch": 0, "members": [],
            "slot": { "applied": 0 }, "reason": "waits" });
        [
            row(1, Condition::Running, serves),
            row(2, Condition::Running, waits),
            row(3, Condition::Ended("exit 78".into(), "no book".into()), Value::Null),
        ]
    }

    #[test]
    fn columns_are_aligned() {
        let expected = [
            "id  process  serves  state      view      applied  reaches  reason",
            "1   running  yes     regular    12 {1,2}  345      {1,2}",
            "2   running  no      secondary  -         0        {1,2}    waits",
            "3   exit 78  -       -          -         -        {1,2}    no book",
        ];
        assert_eq!(table(&rows(), false), expected);
    }

    #[test]
    fn colour_is_around_whole_lines() {
        let plain = table(&rows(), false);
        let coloured = table(&rows(), true);
        assert_eq!(coloured[0], plain[0]);
        for (line, code) in [(1, GREEN), (2, YELLOW), (3, RED)] {
            assert_eq!(coloured[line], format!("\x1b[{code}m{}\x1b[0m", plain[line]));
        }
    }
}
