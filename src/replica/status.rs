//! What a replica tells of itself: the JSON of `ftqc status` and `ready`, why it waits, and the line for systemd.

use serde_json::{json, Value};

use crate::group::bootstrap::Waiting;
use crate::group::quorum::{is_quorum, Ranks};
use crate::group::State;
use crate::replica::roster::{list, set};
use crate::replica::Replica;
use crate::types::ReplicaId;
use crate::wire::view::View;

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
                Some(Waiting::NotBlank(ids)) => format!("blank; about to join the group of {}", replicas(&ids)),
                Some(Waiting::ForTheView) | None => "blank; waiting for view 1".into(),
            }),
            State::Regular(_) if !self.group().is_secondary(self.now()) => None,
            State::Outside | State::Frozen(_) | State::Regular(_) => self.why_outside(),
        }
    }

    /// Why this replica, which knows a view, does not order in it.
    fn why_outside(&self) -> Option<String> {
        let (view, missing) = (self.view()?, self.group().missing(self.now()));
        let members = view.members_text();
        if !self.group().is_ordering() && self.group().hears_active_primary(self.now(), view) {
            return Some(format!("joining view {members}"));
        }
        let there = votes_but(view, &missing);
        let enough = is_quorum(view, there) && there.count() >= usize::from(view.min_members);
        Some(if missing.is_empty() || enough {
            format!("view {members} is being changed")
        } else {
            let foreign = self.group().foreign(self.now());
            let told =
                (!foreign.is_empty()).then(|| format!("; there with another group's data: {}", replicas(&foreign)));
            waiting_for(view, &missing) + &told.unwrap_or_default()
        })
    }

    pub(super) fn state_name(&self) -> &'static str {
        match self.group().state() {
            State::Starting | State::Blank => "blank",
            _ if self.group().is_secondary(self.now()) => "secondary",
            State::Regular(_) => "regular",
            State::Frozen(_) => "transitional",
            State::Outside if self.group().change().is_voter() => "transitional",
            State::Outside => "joining",
        }
    }

    fn view(&self) -> Option<&View> {
        self.group().newest()
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
            "replicas": self.members(),
        })
    }

    /// The JSON object of `ftqc ready`.
    pub fn ready(&self) -> Value {
        let reason = self.reason();
        json!({ "ready": reason.is_none(), "reason": reason })
    }

    /// What must hold for a replica to serve: the name of each check, and why it fails, if it does.
    pub fn checks(&self) -> [(&'static str, Option<String>); 3] {
        let (committed, applied) = (self.committed(), self.applied().0);
        let behind = committed > applied;
        [
            ("primary", self.reason()),
            ("caught-up", behind.then(|| format!("slot {applied} of {committed} is applied"))),
            ("staying", self.is_leaving().then(|| "this replica is stopping".to_owned())),
        ]
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

/// The votes of a view that are not missing.
fn votes_but(view: &View, missing: &[ReplicaId]) -> Ranks {
    let there = view.members.iter().filter(|m| !missing.contains(&m.id));
    Ranks::of(there.filter_map(|m| view.rank_of(m.id)))
}

/// `view {1,3} of {1,2,3}; waiting for replica 2`: who is there of how many, and who could end the wait.
fn waiting_for(view: &View, missing: &[ReplicaId]) -> String {
    let there: Vec<ReplicaId> = view.members.iter().map(|m| m.id).filter(|id| !missing.contains(id)).collect();
    format!("view {} of {}; waiting for {}", set(&there), view.members_text(), replicas(missing))
}

/// `replica 2`, `replicas 2, 3`.
pub(super) fn replicas(ids: &[ReplicaId]) -> String {
    format!("{} {}", if ids.len() == 1 { "replica" } else { "replicas" }, list(ids, ", "))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::log::Meta;
    use crate::replica::{Config, Input, Outbox, Stored};
    use crate::types::Time;
    use crate::wire::view::tests::view_of;
    use crate::wire::view::{Peer, Policy};
    use std::net::IpAddr;

    /// Replica 1 of a group of this size, before anything is on its disk.
    fn starting(configured: u8, meta: Option<Meta>) -> (Replica, Outbox) {
        let view = view_of(configured, configured, Policy::Dynamic);
        let ip = |id: ReplicaId| IpAddr::from([10, 0, 0, id.0]);
        let config = Config {
            id: ReplicaId(1),
            peers: view.book.iter().map(|e| Peer { id: e.id, ip: ip(e.id) }).collect(),
            book: view.book,
            policy: view.policy,
            min_members: view.min_members,
            durability: view.durability,
            heartbeat_ms: 50,
            suspect_after_ms: 500,
            receive_buffer_bytes: 1 << 20,
            memory_limit_bytes: 1 << 30,
            segment_bytes: 1 << 22,
            datagram_size_max: 6,
            directory: [0; 2],
            seed: 1,
        };
        let mut out = Outbox::default();
        (Replica::recover(config, Stored { meta, ..Stored::default() }, Time(1), &mut out), out)
    }

    /// The same, once all its writes are done.
    pub fn started(configured: u8, meta: Option<Meta>) -> Replica {
        let (mut replica, mut out) = starting(configured, meta);
        for _ in 0..9 {
            let numbers = out.log.iter().map(|w| w.number).chain(out.meta.iter().map(|w| w.number));
            let Some(number) = numbers.max() else { break };
            out = Outbox::default();
            replica.step(Time(2), Input::Durable(number), &mut out);
            replica.step(Time(2), Input::Turn, &mut out);
        }
        replica
    }

    #[test]
    fn each_state_has_its_reason() {
        let summary = |replica: &Replica| replica.summary();
        let (replica, _) = starting(1, None);
        assert_eq!(summary(&replica), (false, "not primary: starting; waiting for the disk".into()));
        let replica = started(3, None);
        assert_eq!(summary(&replica), (false, "not primary: blank; waiting for replicas 2, 3".into()));
        assert_eq!(replica.ready()["ready"], json!(false));
        let view = view_of(2, 2, Policy::Dynamic);
        let meta = Meta { id: ReplicaId(1), cluster: view.cluster, installed: Some(view), ..Meta::default() };
        let (ready, text) = started(2, Some(meta)).summary();
        assert!(!ready && text.contains("view {} of {1,2}; waiting for replicas 1, 2"), "{text}");
        let replica = started(1, None);
        assert_eq!(summary(&replica), (true, "primary: view {1} of epoch 1".into()));
        assert_eq!(replica.ready(), json!({ "ready": true, "reason": null }));
    }

    #[test]
    fn status_has_what_scripts_rely_on() {
        let status = started(1, None).status();
        let expected = json!({
            "id": 1, "incarnation": 1, "state": "regular", "read_only": false, "primary": true, "epoch": 1,
            "members": [1], "sequencer": 1, "slot": { "known": 0, "durable": 0, "committed": 0, "applied": 0 },
            "digest": "0000000000000000", "digest_slot": 0, "policy": "dynamic", "durability": "disk",
            "version": env!("CARGO_PKG_VERSION"), "reason": null,
        });
        for (field, value) in expected.as_object().expect("an object") {
            assert_eq!(status[field], *value, "{field}");
        }
        let status = started(3, None).status();
        let expected = json!({ "state": "blank", "primary": false, "epoch": 0, "members": [], "sequencer": null });
        for (field, value) in expected.as_object().expect("an object") {
            assert_eq!(status[field], *value, "{field}");
        }
        assert_eq!(status["reason"], json!("blank; waiting for replicas 2, 3"));
    }

    #[test]
    fn a_refusal_says_what_would_end_it() {
        let (view, ids) =
            (view_of(3, 3, Policy::Dynamic), |list: &[u8]| list.iter().copied().map(ReplicaId).collect::<Vec<_>>());
        assert_eq!(waiting_for(&view, &ids(&[2])), "view {1,3} of {1,2,3}; waiting for replica 2");
        assert_eq!(waiting_for(&view, &ids(&[2, 3])), "view {1} of {1,2,3}; waiting for replicas 2, 3");
    }
}
