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
