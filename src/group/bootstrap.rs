//! Bootstrap: how blank replicas become a group, once (DESIGN 5.5).
//!
//! Blank replicas wait until all configured ones are mutually connected, blank, and configured alike. The highest id
//! makes view 1 durable before it sends it, and never makes another; a blank replica takes it only from that run or
//! from one that installed it, and only if it records this very run.

use crate::group::detect::Detect;
use crate::types::{ClusterId, Digest, Epoch, GroupTime, ReplicaId, Run, Slot, Time};
use crate::wire::codec::Put;
use crate::wire::view::{Ballot, Book, BookEntry, Durability, Policy, View};
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
        crate::wire::view::put_book(&mut bytes, &self.book);
        bytes.put_u8(self.policy as u8);
        bytes.put_u8(self.min_members);
        bytes.put_u8(self.durability as u8);
        XxHash3_64::oneshot(&bytes)
    }

    /// Whether a view was founded with the same values. Errors say which is another, and what it was.
    pub fn founded(&self, view: &View) -> Result<(), String> {
        let differs = |what: &str, was: &str| {
            Err(format!("{what} differs from what the group was founded with: there it is {was}"))
        };
        if view.policy != self.policy {
            return differs("--partition", view.policy.name());
        }
        if view.min_members != self.min_members {
            return differs("--min-members", &view.min_members.to_string());
        }
        if view.durability != self.durability {
            return differs("--durability", view.durability.name());
        }
        if view.book != self.book {
            let line = |e: &BookEntry| match &e.http {
                Some(http) => format!("{} {} {http}", e.id, e.address),
                None => format!("{} {}", e.id, e.address),
            };
            return differs("the book", &view.book.iter().map(line).collect::<Vec<_>>().join(", "));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{PacketNumber, ViewTag};
    use crate::wire::datagram::{Header, Status};
    use crate::wire::view::tests::{run_of, view_of};

    const NOW: Time = Time(1);

    fn founding() -> Founding {
        let view = view_of(3, 3, Policy::Dynamic);
        Founding { book: view.book, policy: view.policy, min_members: 1, durability: view.durability }
    }

    /// What replica `me` of three has heard of the others: each hears these ids, has this tag, and said this hash.
    fn detect(me: u8, told: &[(u8, &[u8], u64, Option<u64>)]) -> Detect {
        let mut detect = Detect::new(run_of(me), 500);
        for &(id, heard, tag, config) in told {
            let mut status = Status::default();
            heard.iter().for_each(|&id| status.heard.push(run_of(id)));
            let (run, tag) = (run_of(id), ViewTag(tag));
            detect.on_header(NOW, &Header { cluster: ClusterId(0), run, packet: PacketNumber(1), tag, status });
            config.into_iter().for_each(|config| detect.on_hello(run.id, config));
        }
        detect
    }

    fn waiting(told: &[(u8, &[u8], u64, Option<u64>)]) -> Waiting {
        founding().waiting(NOW, run_of(1), &detect(1, told))
    }

    fn ids(list: &[u8]) -> Vec<ReplicaId> {
        list.iter().copied().map(ReplicaId).collect()
    }

    #[test]
    fn it_says_what_it_waits_for() {
        let hash = Some(founding().hash());
        assert_eq!(waiting(&[]), Waiting::For(ids(&[2, 3])));
        assert_eq!(waiting(&[(2, &[1, 3], 0, hash)]), Waiting::For(ids(&[2, 3])), "2 hears 3, but does 3 hear 2?");
        assert_eq!(waiting(&[(2, &[1, 3], 0, hash), (3, &[2], 0, hash)]), Waiting::For(ids(&[3])), "3 hears not us");
        assert_eq!(waiting(&[(2, &[1, 3], 0, hash), (3, &[1], 0, hash)]), Waiting::For(ids(&[2, 3])));
        let silent_on_config = [(2, &[1, 3][..], 0, None), (3, &[1, 2][..], 0, hash)];
        assert_eq!(waiting(&silent_on_config), Waiting::For(ids(&[2])), "2 has not said that it is blank");
        let other = hash.map(|h| h + 1);
        assert_eq!(waiting(&[(2, &[1, 3], 0, other), (3, &[1, 2], 0, hash)]), Waiting::Differs(ids(&[2])));
        assert_eq!(waiting(&[(2, &[], 0, other), (3, &[], 9, None)]), Waiting::NotBlank(ids(&[3])));
        let all = [(2, &[1, 3][..], 0, hash), (3, &[1, 2][..], 0, hash)];
        assert_eq!(waiting(&all), Waiting::ForTheView);
        let later = NOW.after_ns(500);
        assert_eq!(founding().waiting(later, run_of(1), &detect(1, &all)), Waiting::For(ids(&[2, 3])));
    }

    #[test]
    fn only_the_highest_makes_the_view_and_only_when_nothing_is_missing() {
        let hash = Some(founding().hash());
        let view_one = |me, told: &[_]| founding().view_one(NOW, run_of(me), &detect(me, told), ClusterId(0xc1));
        assert_eq!(view_one(1, &[(2, &[1, 3], 0, hash), (3, &[1, 2], 0, hash)]), None);
        assert_eq!(view_one(2, &[(1, &[2, 3], 0, hash), (3, &[1, 2], 0, hash)]), None);
        assert_eq!(view_one(3, &[(1, &[2, 3], 0, hash)]), None);
        let view = view_one(3, &[(1, &[2, 3], 0, hash), (2, &[1, 3], 0, hash)]).expect("all are there");
        let mut expected = view_of(3, 3, Policy::Dynamic);
        expected.ballot.birth = run_of(3).birth;
        assert_eq!(view, expected);
        let mut alone = founding();
        alone.book.truncate(1);
        assert_eq!(
            alone.view_one(NOW, run_of(1), &detect(1, &[]), ClusterId(1)).map(|v| v.members),
            Some(vec![run_of(1)])
        );
    }

    #[test]
    fn everything_that_must_be_alike_is_in_the_hash_and_held_against_the_view() {
        let (same, view) = (founding(), view_of(3, 3, Policy::Dynamic));
        assert_eq!((same.hash(), same.founded(&view)), (founding().hash(), Ok(())));
        let book: Vec<String> = view.book.iter().map(|e| format!("{} {}", e.id, e.address)).collect();
        let book = book.join(", ");
        let differs = |option: &str, was: &str, change: &dyn Fn(&mut Founding)| {
            let mut other = founding();
            change(&mut other);
            assert_ne!(other.hash(), same.hash(), "{option}");
            let why = format!("{option} differs from what the group was founded with: there it is {was}");
            assert_eq!(other.founded(&view), Err(why));
        };
        differs("--partition", "dynamic", &|f| f.policy = Policy::Majority);
        differs("--min-members", "1", &|f| f.min_members = 2);
        differs("--durability", "disk", &|f| f.durability = Durability::Memory);
        differs("the book", &book, &|f| f.book[1].address = "elsewhere:1".into());
        differs("the book", &book, &|f| f.book[1].http = Some("h2:80".into()));
        differs("the book", &book, &|f| f.book.truncate(2));
    }
}
