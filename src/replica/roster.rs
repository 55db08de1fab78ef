//! Every configured replica as this one sees it: where it stands, whom it hears, and what is wrong with it. What
//! `ftqc members` prints, and the table below `ftqc status`.

use serde_json::{json, Value};

use crate::group::complain::Reason;
use crate::group::detect::Peer;
use crate::replica::Replica;
use crate::types::{Epoch, ReplicaId, Slot, Time};

/// One configured replica. What nobody told is `None`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    pub id: ReplicaId,
    pub address: String,
    pub state: &'static str,
    pub epoch: Option<Epoch>,
    pub known: Option<Slot>,
    pub durable: Option<Slot>,
    pub committed: Option<Slot>,
    /// Slots that it lacks of what the members hold.
    pub lag: Option<u64>,
    pub heard_ms: Option<u64>,
    /// Whom it says it hears.
    pub hears: Vec<ReplicaId>,
    /// What is wrong with it or to be known of it, in words.
    pub note: Option<String>,
}

impl Row {
    fn json(&self) -> Value {
        json!({
            "id": self.id.0,
            "address": self.address,
            "state": self.state,
            "epoch": self.epoch.map(|epoch| epoch.0),
            "known": self.known.map(|slot| slot.0),
            "durable": self.durable.map(|slot| slot.0),
            "committed": self.committed.map(|slot| slot.0),
            "lag": self.lag,
            "heard_ms": self.heard_ms,
            "hears": self.hears.iter().map(|id| id.0).collect::<Vec<u8>>(),
            "note": self.note,
        })
    }

    /// `replica 2: regular; epoch 3; known 9, durable 9, committed 8, lag 0; heard 12 ms ago; hears {1,3}`.
    fn words(&self) -> String {
        let mut text = format!("replica {}: {}", self.id, self.state);
        self.epoch.iter().for_each(|epoch| text += &format!("; epoch {epoch}"));
        if let (Some(known), Some(durable), Some(committed)) = (self.known, self.durable, self.committed) {
            text += &format!("; known {known}, durable {durable}, committed {committed}");
        }
        self.lag.iter().for_each(|lag| text += &format!(", lag {lag}"));
        self.heard_ms.iter().for_each(|ms| text += &format!("; heard {ms} ms ago"));
        if self.heard_ms.is_some() {
            text += &format!("; hears {}", set(&self.hears));
        }
        self.note.iter().for_each(|note| text += &format!("; {note}"));
        text
    }
}

/// `{1,3}`.
pub(super) fn set(ids: &[ReplicaId]) -> String {
    format!("{{{}}}", list(ids, ","))
}

/// The ids, so parted.
pub(super) fn list(ids: &[ReplicaId], parted: &str) -> String {
    ids.iter().map(ReplicaId::to_string).collect::<Vec<_>>().join(parted)
}

impl Replica {
    /// Every configured replica, by id.
    pub fn roster(&self) -> Vec<Row> {
        let detect = self.group().detect();
        let mut rows: Vec<Row> = self.config().book.iter().map(|entry| self.row(entry.id, &entry.address)).collect();
        for row in &mut rows {
            if row.id != self.group().me().id {
                let peer = detect.peer(row.id).map(|peer| (peer, detect.heard(self.now(), row.id).is_some()));
                row.note = self.note(row.id, peer);
            }
        }
        // What the members of the view hold is what there is; where none of them is known, what anyone holds.
        let regular = rows.iter().filter(|row| row.state == "regular").filter_map(|row| row.known).max();
        let ahead = regular.or(rows.iter().filter_map(|row| row.known).max()).unwrap_or(Slot(0));
        for row in &mut rows {
            row.lag = row.known.map(|known| ahead.0.saturating_sub(known.0));
        }
        rows
    }

    fn row(&self, id: ReplicaId, address: &str) -> Row {
        let blank = Row {
            id,
            address: address.to_owned(),
            state: "unheard",
            epoch: None,
            known: None,
            durable: None,
            committed: None,
            lag: None,
            heard_ms: None,
            hears: Vec::new(),
            note: None,
        };
        let (now, detect) = (self.now(), self.group().detect());
        if id == self.group().me().id {
            return Row {
                state: self.state_name(),
                epoch: self.group().newest().map(|view| view.epoch),
                known: Some(self.known()),
                durable: Some(self.durable()),
                committed: Some(self.committed()),
                heard_ms: Some(0),
                hears: detect.heard_list(now).iter().map(|(id, _)| id).collect(),
                note: self.lag().filter(|&lag| lag > 0).map(|lag| format!("catches up: {lag} slots are still to come")),
                ..blank
            };
        }
        let Some(peer) = detect.peer(id) else { return blank };
        let status = &peer.status;
        Row {
            state: if detect.heard(now, id).is_some() { self.peer_state(peer) } else { "unheard" },
            epoch: Some(status.epoch).filter(|epoch| epoch.0 > 0),
            known: Some(status.known),
            durable: Some(status.durable),
            committed: Some(status.committed),
            heard_ms: Some(now.since_ns(peer.heard_at) / Time::MS),
            hears: status.heard.iter().map(|(id, _)| id).collect(),
            ..blank
        }
    }

    /// The state of a replica that is heard, from what it says of itself.
    fn peer_state(&self, peer: &Peer) -> &'static str {
        // What it said when it was blank stays with its run.
        let blank = peer.blank.is_some() && peer.status.epoch.0 == 0;
        let Some(view) = self.group().newest() else { return if blank { "blank" } else { "regular" } };
        let waits = self.group().is_secondary(self.now());
        match peer.status.epoch {
            _ if blank => "blank",
            epoch if epoch > view.epoch => "regular",
            epoch if epoch < view.epoch || !view.members.contains(&peer.run) => {
                if waits {
                    "secondary"
                } else {
                    "joining"
                }
            }
            _ if waits => "secondary",
            _ if peer.status.frozen => "transitional",
            _ => "regular",
        }
    }

    /// What is to be known of another replica; the bool says whether it is heard now.
    fn note(&self, id: ReplicaId, peer: Option<(&Peer, bool)>) -> Option<String> {
        let (detect, me) = (self.group().detect(), self.group().me());
        if self.group().foreign(self.now()).contains(&id) {
            return Some("is there with another group's data".into());
        }
        let Some((peer, heard)) = peer else { return Some("was never heard".into()) };
        if !heard {
            let gone = detect.is_gone(id);
            return Some(if gone { "its process is gone" } else { "nothing is heard of it" }.into());
        }
        match detect.complains_of(peer.run) {
            Some(Reason::Silent) => return Some("heard again, but not for long".into()),
            Some(reason) => return Some(reason.to_string()),
            None => {}
        }
        let lists = |id: ReplicaId| peer.status.heard.iter().any(|(heard, _)| heard == id);
        let there = self.config().book.iter().map(|entry| entry.id).filter(|&other| other != id);
        let there = there.filter(|&other| other == me.id || detect.heard(self.now(), other).is_some());
        let deaf: Vec<ReplicaId> = there.filter(|&other| !lists(other)).collect();
        if !deaf.is_empty() {
            return Some(format!("does not hear {}", super::status::replicas(&deaf)));
        }
        let outside = self.peer_state(peer) == "joining";
        match (peer.status.leaving, peer.status.joining && outside) {
            (true, _) => Some("is leaving".into()),
            (_, true) => Some("has caught up, and asks to join".into()),
            _ => outside.then(|| "catches up, to join".into()),
        }
    }

    /// The JSON array of `ftqc members`.
    pub fn members(&self) -> Value {
        Value::Array(self.roster().iter().map(Row::json).collect())
    }

    /// All there is to be known, in lines for the log.
    pub fn report(&self) -> Vec<String> {
        let (me, (applied, digest)) = (self.group().me(), self.applied());
        let mut lines = vec![
            format!("status of replica {}, incarnation {}: {}", me.id, me.incarnation, self.summary().1),
            format!("applied {applied}, digest {:016x}; {} clients", digest.0, self.clients()),
            format!("{} bytes of memory, {} of them buffered", self.memory_bytes(), self.buffered_bytes()),
        ];
        lines.extend(self.roster().iter().map(Row::words));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::status::tests::started;

    #[test]
    fn members_lists_every_configured_replica() {
        let members = started(2, None).members();
        let row = |k: usize| (members[k]["id"].clone(), members[k]["state"].clone(), members[k]["heard_ms"].clone());
        assert_eq!(row(0), (json!(1), json!("blank"), json!(0)));
        assert_eq!(row(1), (json!(2), json!("unheard"), json!(null)));
        assert_eq!((members[1]["address"].clone(), members[2].clone()), (json!("h2:7400"), json!(null)));
        assert_eq!(members[1]["note"], json!("was never heard"));
        let members = started(1, None).members();
        assert_eq!(
            (&members[0]["state"], &members[0]["epoch"], &members[0]["lag"]),
            (&json!("regular"), &json!(1), &json!(0))
        );
    }

    #[test]
    fn a_row_in_words() {
        let row = Row {
            id: ReplicaId(2),
            address: "h2:7400".into(),
            state: "regular",
            epoch: Some(Epoch(3)),
            known: Some(Slot(9)),
            durable: Some(Slot(8)),
            committed: Some(Slot(7)),
            lag: Some(1),
            heard_ms: Some(12),
            hears: vec![ReplicaId(1), ReplicaId(3)],
            note: Some("is leaving".into()),
        };
        let text = "replica 2: regular; epoch 3; known 9, durable 8, committed 7, lag 1; heard 12 ms ago; \
                    hears {1,3}; is leaving";
        assert_eq!(row.words(), text);
        let dead = Row { state: "unheard", epoch: None, known: None, lag: None, heard_ms: None, note: None, ..row };
        assert_eq!(dead.words(), "replica 2: unheard");
    }

    #[test]
    fn a_report_names_everyone() {
        let lines = started(3, None).report();
        assert!(lines[0].starts_with("status of replica 1, incarnation 1: not primary: blank"), "{lines:?}");
        assert_eq!(lines[4..], ["replica 2: unheard; was never heard", "replica 3: unheard; was never heard"]);
    }
}
