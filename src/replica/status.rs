//! What a replica tells of itself: the JSON of `ftqc status`, `members` and `ready`, and the line for systemd.

use serde_json::{json, Value};

use crate::group::bootstrap::Waiting;
use crate::group::view::View;
use crate::group::State;
use crate::replica::Replica;
use crate::types::ReplicaId;

impl Replica {
    /// Why this replica is not in a primary view that serves, and what would end that; `None` if it is.
    pub fn reason(&self) -> Option<String> {
        if self.compare_diverged() {
            return Some("this replica's answers differ from those of most others: it must not serve".into());
        }
        match self.group().state() {
            State::Starting => Some("starting; waiting for the disk".into()),
            State::Blank => Some(match self.group().waiting(self.now()) {
                Some(Waiting::For(ids)) => format!("blank; waiting for {}", replicas(&ids)),
                Some(Waiting::Differs(ids)) => {
                    format!("blank; {} started with another book or other policies", replicas(&ids))
                }
                Some(Waiting::NotBlank(ids)) => format!("blank; {} part of a group already", replicas(&ids)),
                Some(Waiting::ForTheView) | None => "blank; waiting for view 1".into(),
            }),
            State::Outside(view) => Some(format!(
                "replica {} restarted and has no rank in view {}; the data is here, \
                 but any restart ends the group's service",
                self.group().me().id,
                view.members_text()
            )),
            State::Regular(regular) => {
                let missing = self.group().missing(self.now());
                (!missing.is_empty()).then(|| waiting_for(&regular.view, &missing))
            }
        }
    }

    fn state_name(&self) -> &'static str {
        match self.group().state() {
            State::Starting | State::Blank => "blank",
            State::Outside(_) => "secondary",
            State::Regular(_) => "regular",
        }
    }

    fn view(&self) -> Option<&View> {
        match self.group().state() {
            State::Regular(regular) => Some(&regular.view),
            State::Outside(view) => Some(view),
            _ => None,
        }
    }

    /// The JSON object of `ftqc status`.
    pub fn status(&self) -> Value {
        let (reason, (applied, digest)) = (self.reason(), self.applied());
        let view = self.view();
        let members: Vec<u8> = view.map(|v| v.members.iter().map(|m| m.id.0).collect()).unwrap_or_default();
        let sequencer =
            self.group().regular().map(|r| r.view.member(r.view.sequencer(r.window.announced().next())).id.0);
        let drops: serde_json::Map<String, Value> =
            self.group().drops().iter().map(|(why, count)| (format!("{why:?}"), json!(count))).collect();
        json!({
            "id": self.group().me().id.0,
            "incarnation": self.group().me().incarnation.0,
            "state": self.state_name(),
            "read_only": false,
            "primary": reason.is_none(),
            "epoch": view.map_or(0, |v| v.epoch.0),
            "members": members,
            "sequencer": sequencer,
            "slot": {
                "known": self.known().0,
                "durable": self.durable().0,
                "committed": self.committed().0,
                "applied": applied.0,
            },
            "digest": format!("{:016x}", digest.0),
            "digest_slot": applied.0,
            "policy": self.config().policy.name(),
            "durability": self.config().durability.name(),
            "version": env!("CARGO_PKG_VERSION"),
            "reason": reason,
            "clients": self.clients(),
            "memory_bytes": self.memory_bytes(),
            "buffered_bytes": self.buffered_bytes(),
            "datagram_bytes": self.group().regular().map(|r| r.datagram_bytes()),
            "drops": drops,
        })
    }

    /// The JSON array of `ftqc members`: every configured replica as this one sees it.
    pub fn members(&self) -> Value {
        let ahead = self.known();
        let rows = self.config().book.iter().map(|entry| {
            let (me, peer) = (entry.id == self.group().me().id, self.group().detect().peer(entry.id));
            let rank = self.view().and_then(|v| v.rank_of(entry.id));
            let report = self.group().regular().and_then(|r| rank.map(|rank| *r.commit.report(rank)));
            let heard_ms = peer.map(|p| self.now().since_ns(p.heard_at) / crate::types::Time::MS);
            let state = match (me, self.group().detect().heard(self.now(), entry.id)) {
                (true, _) => self.state_name(),
                (_, None) => "unheard",
                (_, Some(peer)) if self.view().is_some_and(|v| v.members.contains(&peer.run)) => "regular",
                (_, Some(peer)) if peer.blank.is_some() => "blank",
                (_, Some(_)) => "secondary",
            };
            json!({
                "id": entry.id.0,
                "address": entry.address,
                "state": state,
                "epoch": self.view().filter(|_| rank.is_some()).map(|v| v.epoch.0),
                "known": report.map(|r| r.known.0),
                "durable": report.map(|r| r.durable.0),
                "committed": report.map(|r| r.committed.0),
                "lag": report.map(|r| ahead.0.saturating_sub(r.known.0)),
                "heard_ms": if me { Some(0) } else { heard_ms },
            })
        });
        Value::Array(rows.collect())
    }

    /// The JSON object of `ftqc ready`.
    pub fn ready(&self) -> Value {
        let reason = self.reason();
        json!({ "ready": reason.is_none(), "reason": reason })
    }

    /// Whether the replica can serve, and one line that says what it is doing.
    pub fn summary(&self) -> (bool, String) {
        match (self.reason(), self.view()) {
            (None, Some(view)) => (true, format!("primary: view {} of epoch {}", view.members_text(), view.epoch)),
            (Some(reason), _) => (false, format!("not primary: {reason}")),
            (None, None) => (false, "no view".into()),
        }
    }
}

/// `view {1,3} of {1,2,3}; waiting for replica 2`.
fn waiting_for(view: &View, missing: &[ReplicaId]) -> String {
    let there: Vec<String> =
        view.members.iter().filter(|m| !missing.contains(&m.id)).map(|m| m.id.to_string()).collect();
    format!("view {{{}}} of {}; waiting for {}", there.join(","), view.members_text(), replicas(missing))
}

/// `replica 2`, `replicas 2, 3`.
fn replicas(ids: &[ReplicaId]) -> String {
    let list: Vec<String> = ids.iter().map(|id| id.to_string()).collect();
    format!("{} {}", if ids.len() == 1 { "replica" } else { "replicas" }, list.join(", "))
}
