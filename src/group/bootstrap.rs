//! Bootstrap: how blank replicas become a group, once (DESIGN 5.5).
//!
//! Blank replicas wait until all configured ones are mutually connected, blank, and configured alike. The highest id
//! makes view 1 durable before it sends it, and never makes another; a blank replica takes it only from that run or
//! from one that installed it, and only if it records this very run.

use crate::group::detect::Detect;
use crate::group::view::{Ballot, Book, Durability, Policy, View};
use crate::types::{ClusterId, Digest, Epoch, GroupTime, ReplicaId, Run, Slot, Time};
use crate::wire::codec::Put;
use twox_hash::XxHash3_64;

/// What every replica of a group must be started with alike.
#[derive(Clone, Debug)]
pub struct Founding {
    pub book: Book,
    pub policy: Policy,
    pub min_members: u8,
    pub durability: Durability,
}

/// Why view 1 can't be made yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Waiting {
    /// These are not heard, or do not hear all others.
    For(Vec<ReplicaId>),
    /// These were started with another book or other policies.
    Differs(Vec<ReplicaId>),
    /// These are part of a group already.
    NotBlank(Vec<ReplicaId>),
    /// All are there: the highest id makes the view.
    ForTheView,
}

impl Founding {
    /// Equal on all replicas that were started alike.
    pub fn hash(&self) -> u64 {
        let mut bytes = Vec::new();
        crate::group::view::put_book(&mut bytes, &self.book);
        bytes.put_u8(self.policy as u8);
        bytes.put_u8(self.min_members);
        bytes.put_u8(self.durability as u8);
        XxHash3_64::oneshot(&bytes)
    }

    /// Whether a view was founded with the same values; the book may have grown since.
    pub fn founded(&self, view: &View) -> Result<(), &'static str> {
        if view.policy != self.policy {
            return Err("--partition");
        }
        if view.min_members != self.min_members {
            return Err("--min-members");
        }
        if view.durability != self.durability {
            return Err("--durability");
        }
        if view.book != self.book {
            return Err("the book");
        }
        Ok(())
    }

    /// What is still missing for view 1.
    pub fn waiting(&self, now: Time, me: Run, detect: &Detect) -> Waiting {
        let others: Vec<ReplicaId> = self.book.iter().map(|e| e.id).filter(|&id| id != me.id).collect();
        let pick = |wanted: &dyn Fn(ReplicaId) -> bool| -> Vec<ReplicaId> {
            others.iter().copied().filter(|&id| wanted(id)).collect()
        };
        let not_blank = pick(&|id| detect.heard(now, id).is_some_and(|p| p.tag.0 != 0));
        if !not_blank.is_empty() {
            return Waiting::NotBlank(not_blank);
        }
        let hash = self.hash();
        let differs = pick(&|id| detect.heard(now, id).and_then(|p| p.blank).is_some_and(|c| c != hash));
        if !differs.is_empty() {
            return Waiting::Differs(differs);
        }
        let alone = pick(&|id| {
            let heard = detect.connected(now, id) && detect.peer(id).is_some_and(|p| p.blank.is_some());
            !heard || others.iter().any(|&other| other != id && !detect.connected_pair(now, id, other))
        });
        if alone.is_empty() {
            Waiting::ForTheView
        } else {
            Waiting::For(alone)
        }
    }

    /// View 1, if this replica is the one to make it and nothing is missing.
    pub fn view_one(&self, now: Time, me: Run, detect: &Detect, cluster: ClusterId) -> Option<View> {
        let highest = self.book.iter().map(|e| e.id).max()?;
        if me.id != highest || self.waiting(now, me, detect) != Waiting::ForTheView {
            return None;
        }
        let run_of = |id: ReplicaId| if id == me.id { Some(me) } else { detect.heard(now, id).map(|p| p.run) };
        let members = self.book.iter().map(|e| run_of(e.id)).collect::<Option<Vec<Run>>>()?;
        Some(View {
            cluster,
            epoch: Epoch(1),
            ballot: Ballot { round: 0, id: me.id, birth: me.birth, incarnation: me.incarnation },
            members,
            base: Slot(0),
            chain: Vec::new(),
            base_digest: Digest(0),
            base_time: GroupTime(0),
            policy: self.policy,
            min_members: self.min_members,
            durability: self.durability,
            book: self.book.clone(),
        })
    }
}
