//! What the replicas of a group say of the view they are in.

use serde_json::{json, Value};

use crate::ftqc::until;
use crate::group::Group;

impl Group {
    /// All replicas, this one first, for a client that moves on.
    pub fn servers_from(&self, first: u8) -> String {
        let ids = (0..self.size).map(|k| (first - 1 + k) % self.size + 1);
        ids.map(|id| self.net.address(id)).collect::<Vec<_>>().join(",")
    }

    /// Waits until these replicas serve together in one view of exactly these; gives its epoch.
    #[track_caller]
    pub fn await_view(&self, ids: &[u8]) -> u64 {
        until(&format!("a view of {ids:?}"), || {
            let all = self.statuses(ids)?;
            let epoch = &all[0]["epoch"];
            let there = |s: &Value| s["primary"] == true && s["members"] == json!(ids) && s["epoch"] == *epoch;
            all.iter().all(there).then(|| epoch.as_u64().expect("an epoch is a number"))
        })
    }

    /// Whether a replica serves in a view of exactly these.
    pub fn is_in_view(&self, id: u8, ids: &[u8]) -> bool {
        self.status(id).is_some_and(|s| s["primary"] == true && s["members"] == json!(ids))
    }

    /// Waits until a replica refuses for a reason that names what it waits for; clients then get that reason, at once
    /// and when they are patient.
    #[track_caller]
    pub fn assert_refuses(&self, id: u8, waits_for: &str) {
        let says = |s: &Value| s["reason"].as_str().is_some_and(|reason| reason.contains(waits_for));
        let what = format!("replica {id} waits for {waits_for:?}");
        self.await_status(id, &what, |s| s["primary"] == false && s["state"] != "regular" && says(s));
        for patience in ["0", "1"] {
            let refused = self.ask(id, &["-t", patience, "push", "jobs", "refused"], "");
            refused.refuses(75, "ftqc: not-primary: ");
            assert!(refused.stderr.contains(waits_for), "{}", refused.stderr);
        }
        assert_eq!(self.ask(id, &["-t", "0", "size", "jobs"], "").status, 75);
        let ready = self.ask(id, &["-t", "0", "ready"], "");
        assert_eq!(ready.status, 75, "{ready:?}");
    }

    /// Pushes one item at this replica, and goes on asking while the view is being changed.
    #[track_caller]
    pub fn push(&self, id: u8, item: &str) {
        self.ask(id, &["-t", "60", "push", "jobs", item], "").is(0, "");
    }

    /// Everything there is in the queue is this, and in this order.
    #[track_caller]
    pub fn assert_items(&self, id: u8, items: &[&str]) {
        let expected: String = items.iter().map(|item| format!("{item}\n")).collect();
        let found = self.ask(id, &["-t", "60", "pop", "-n", &(items.len() + 1).to_string(), "jobs"], "");
        assert_eq!((found.status, found.text()), (1, &expected[..]), "one more is asked for: {}", found.stderr);
    }

    fn statuses(&self, ids: &[u8]) -> Option<Vec<Value>> {
        ids.iter().map(|&id| self.status(id)).collect()
    }

    /// Waits until these replicas have applied the same slots, and holds their digests against each other (I1).
    #[track_caller]
    pub fn assert_agreement_of(&self, ids: &[u8]) -> Value {
        let mut all = until(&format!("replicas {ids:?} apply the same slots"), || {
            let all = self.statuses(ids)?;
            all.windows(2).all(|w| w[0]["digest_slot"] == w[1]["digest_slot"]).then_some(all)
        });
        for status in &all {
            assert_eq!(status["digest"], all[0]["digest"], "I1: {all:?}");
        }
        all.swap_remove(0)
    }
}
