//! A view: an agreed membership, its first slot and the book it was agreed with. The literature's *configuration*.
//!
//! The primary views form a chain, one for each epoch. A view's name on the wire is a tag: a hash of the cluster, the
//! epoch and the ballot under which it was first proposed, so that two branches never share one.

use std::net::IpAddr;
use twox_hash::XxHash3_64;

use crate::limits::{ADDRESS_BYTES_MAX, CHAIN_MAX, REPLICAS_MAX, REPLICA_ID_MAX};
use crate::types::{Birth, ClusterId, Digest, Epoch, GroupTime, Incarnation, Rank, ReplicaId, Run, Slot, ViewTag};
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};

/// Orders the attempts at one decree. Compared in this order; never used twice, for the incarnation is durable first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Ballot {
    /// 0 for view 1 and for forced views.
    pub round: u64,
    pub id: ReplicaId,
    pub birth: Birth,
    pub incarnation: Incarnation,
}

/// One line of the address book.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct BookEntry {
    pub id: ReplicaId,
    /// `HOST:PORT`, UDP for replicas and TCP for clients.
    pub address: String,
    /// `HOST:PORT` of the HTTP door, if the book names one.
    pub http: Option<String>,
}

/// The configured replicas, sorted by id.
pub type Book = Vec<BookEntry>;

/// Which side goes on (DESIGN 5.4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum Policy {
    #[default]
    Dynamic = 1,
    Majority = 2,
    Available = 3,
}

impl Policy {
    pub fn name(self) -> &'static str {
        match self {
            Policy::Dynamic => "dynamic",
            Policy::Majority => "majority",
            Policy::Available => "available",
        }
    }

    pub fn from_name(name: &str) -> Option<Policy> {
        [Policy::Dynamic, Policy::Majority, Policy::Available].into_iter().find(|p| p.name() == name)
    }

    fn from_u8(number: u8) -> Option<Policy> {
        [Policy::Dynamic, Policy::Majority, Policy::Available].into_iter().find(|&p| p as u8 == number)
    }
}

/// What `durable` means for a commit (DESIGN 6.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum Durability {
    #[default]
    Disk = 1,
    Memory = 2,
}

impl Durability {
    pub fn name(self) -> &'static str {
        match self {
            Durability::Disk => "disk",
            Durability::Memory => "memory",
        }
    }

    pub fn from_name(name: &str) -> Option<Durability> {
        [Durability::Disk, Durability::Memory].into_iter().find(|d| d.name() == name)
    }
}

/// Where the slots of one epoch begin: its first is the one after `base`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Link {
    pub epoch: Epoch,
    pub base: Slot,
}

/// An agreed membership.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct View {
    pub cluster: ClusterId,
    pub epoch: Epoch,
    /// The ballot under which this value was first proposed.
    pub ballot: Ballot,
    /// The members' runs, sorted by id.
    pub members: Vec<Run>,
    /// The view's first slot is the one after this.
    pub base: Slot,
    /// The bases of the views before this one, oldest first, as far back as [`CHAIN_MAX`] allows.
    pub chain: Vec<Link>,
    /// The running digest at `base`.
    pub base_digest: Digest,
    /// The group time at `base`.
    pub base_time: GroupTime,
    pub policy: Policy,
    pub min_members: u8,
    pub durability: Durability,
    pub book: Book,
}

impl View {
    /// The view's name in every datagram. Never 0.
    pub fn tag(&self) -> ViewTag {
        let mut name = Vec::with_capacity(48);
        name.put_u64(self.cluster.0);
        name.put_u64(self.epoch.0);
        put_ballot(&mut name, self.ballot);
        ViewTag(XxHash3_64::oneshot(&name).max(1))
    }

    /// The member's place, if this very id is a member.
    pub fn rank_of(&self, id: ReplicaId) -> Option<Rank> {
        self.members.iter().position(|m| m.id == id).map(|k| Rank(k as u8))
    }

    /// The run with this rank. Panics when there is none.
    pub fn member(&self, rank: Rank) -> Run {
        self.members[usize::from(rank.0)]
    }

    /// Who announces this slot (I7).
    pub fn sequencer(&self, slot: Slot) -> Rank {
        Rank((slot.0 % self.members.len() as u64) as u8)
    }

    /// The chain of the view that follows this one.
    pub fn next_chain(&self) -> Vec<Link> {
        let mut chain = self.chain.clone();
        chain.push(Link { epoch: self.epoch, base: self.base });
        if chain.len() > CHAIN_MAX {
            chain.remove(0);
        }
        chain
    }

    /// Whether a record belongs to the history that leads to this view: it is not beyond the base of the view that
    /// followed its epoch. Where the chain does not reach back that far nobody can tell, and the answer is no.
    pub fn keeps(&self, epoch: Epoch, slot: Slot) -> bool {
        if epoch >= self.epoch {
            return true;
        }
        if crate::broken::is("no-truncation") {
            return true;
        }
        if crate::broken::is("newest-base-only") {
            return slot <= self.base;
        }
        let next = self.chain.iter().copied().find(|link| link.epoch > epoch);
        let next = next.unwrap_or(Link { epoch: self.epoch, base: self.base });
        next.epoch == epoch.next() && slot <= next.base
    }

    /// Whether a record certainly does not belong to that history: some later view began before it. What the chain has
    /// forgotten is not denied, and not kept either.
    pub fn denies(&self, epoch: Epoch, slot: Slot) -> bool {
        let own = Link { epoch: self.epoch, base: self.base };
        self.chain.iter().copied().chain([own]).any(|link| link.epoch > epoch && slot > link.base)
    }

    /// `{1,2,3}`.
    pub fn members_text(&self) -> String {
        let ids: Vec<String> = self.members.iter().map(|m| m.id.to_string()).collect();
        format!("{{{}}}", ids.join(","))
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.cluster.0);
        out.put_u64(self.epoch.0);
        put_ballot(out, self.ballot);
        out.put_varint(self.members.len() as u64);
        self.members.iter().for_each(|&m| put_run(out, m));
        out.put_u64(self.base.0);
        out.put_varint(self.chain.len() as u64);
        for link in &self.chain {
            out.put_varint(link.epoch.0);
            out.put_varint(link.base.0);
        }
        out.put_u64(self.base_digest.0);
        out.put_u64(self.base_time.0);
        out.put_u8(self.policy as u8);
        out.put_u8(self.min_members);
        out.put_u8(self.durability as u8);
        put_book(out, &self.book);
    }

    pub fn decode(r: &mut Reader<'_>) -> Decoded<View> {
        let (cluster, epoch, ballot) = (ClusterId(r.u64("cluster")?), Epoch(r.counter("epoch")?), ballot(r)?);
        let count = r.count(REPLICAS_MAX, "members")?;
        let members = (0..count).map(|_| run(r)).collect::<Decoded<Vec<Run>>>()?;
        if members.is_empty() || members.windows(2).any(|w| w[0].id >= w[1].id) {
            return Err(DecodeError { field: "members" });
        }
        let base = Slot(r.counter("base")?);
        let links = r.count(CHAIN_MAX, "chain")?;
        let link = |r: &mut Reader<'_>| {
            Ok(Link { epoch: Epoch(r.varint("chain epoch")?), base: Slot(r.varint("chain base")?) })
        };
        let chain = (0..links).map(|_| link(r)).collect::<Decoded<Vec<Link>>>()?;
        let after = chain.iter().skip(1).copied().chain([Link { epoch, base }]);
        if chain.iter().zip(after).any(|(link, next)| link.epoch >= next.epoch || link.base > next.base) {
            return Err(DecodeError { field: "chain" });
        }
        Ok(View {
            cluster,
            epoch,
            ballot,
            members,
            base,
            chain,
            base_digest: Digest(r.u64("base digest")?),
            base_time: GroupTime(r.counter("base time")?),
            policy: Policy::from_u8(r.u8("policy")?).ok_or(DecodeError { field: "policy" })?,
            min_members: r.u8("min members")?,
            durability: match r.u8("durability")? {
                1 => Durability::Disk,
                2 => Durability::Memory,
                _ => return Err(DecodeError { field: "durability" }),
            },
            book: book(r)?,
        })
    }
}

pub fn put_run(out: &mut Vec<u8>, run: Run) {
    out.put_u8(run.id.0);
    out.put_u64(run.birth.0);
    out.put_u64(run.incarnation.0);
}

pub fn replica_id(r: &mut Reader<'_>, field: &'static str) -> Decoded<ReplicaId> {
    match r.u8(field)? {
        id @ 1..=REPLICA_ID_MAX => Ok(ReplicaId(id)),
        _ => Err(DecodeError { field }),
    }
}

pub fn run(r: &mut Reader<'_>) -> Decoded<Run> {
    let id = replica_id(r, "replica id")?;
    Ok(Run { id, birth: Birth(r.u64("birth")?), incarnation: Incarnation(r.counter("incarnation")?) })
}

pub fn put_ballot(out: &mut Vec<u8>, ballot: Ballot) {
    out.put_u64(ballot.round);
    out.put_u8(ballot.id.0);
    out.put_u64(ballot.birth.0);
    out.put_u64(ballot.incarnation.0);
}

pub fn ballot(r: &mut Reader<'_>) -> Decoded<Ballot> {
    Ok(Ballot {
        round: r.counter("round")?,
        id: ReplicaId(r.u8("ballot id")?),
        birth: Birth(r.u64("ballot birth")?),
        incarnation: Incarnation(r.counter("ballot incarnation")?),
    })
}

pub fn put_book(out: &mut Vec<u8>, book: &Book) {
    out.put_varint(book.len() as u64);
    for entry in book {
        out.put_u8(entry.id.0);
        out.put_str(&entry.address);
        out.put_str(entry.http.as_deref().unwrap_or(""));
    }
}

pub fn book(r: &mut Reader<'_>) -> Decoded<Book> {
    let count = r.count(REPLICAS_MAX, "book")?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let id = replica_id(r, "book id")?;
        let address = r.str(ADDRESS_BYTES_MAX, "book address")?.to_owned();
        let http = Some(r.str(ADDRESS_BYTES_MAX, "book http")?.to_owned()).filter(|h| !h.is_empty());
        entries.push(BookEntry { id, address, http });
    }
    Ok(entries)
}

/// A configured replica's address, resolved once at start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    pub id: ReplicaId,
    pub ip: IpAddr,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn run_of(id: u8) -> Run {
        Run { id: ReplicaId(id), birth: Birth(0xb0 + u64::from(id)), incarnation: Incarnation(1) }
    }

    fn link(epoch: u64, base: u64) -> Link {
        Link { epoch: Epoch(epoch), base: Slot(base) }
    }

    /// A view of replicas 1 to `members`, out of 1 to `configured`.
    pub fn view_of(members: u8, configured: u8, policy: Policy) -> View {
        let entry = |id: u8| BookEntry { id: ReplicaId(id), address: format!("h{id}:7400"), http: None };
        View {
            cluster: ClusterId(0xc1),
            epoch: Epoch(1),
            ballot: Ballot { round: 0, id: ReplicaId(configured), birth: Birth(9), incarnation: Incarnation(1) },
            members: (1..=members).map(run_of).collect(),
            base: Slot(0),
            chain: vec![],
            base_digest: Digest(0),
            base_time: GroupTime(0),
            policy,
            min_members: 1,
            durability: Durability::Disk,
            book: (1..=configured).map(entry).collect(),
        }
    }

    fn decoded(bytes: &[u8]) -> Decoded<View> {
        let mut r = Reader::new(bytes);
        let view = View::decode(&mut r)?;
        r.end("view")?;
        Ok(view)
    }

    fn encoded(view: &View) -> Vec<u8> {
        let mut bytes = Vec::new();
        view.encode(&mut bytes);
        bytes
    }

    #[test]
    fn the_format_is_for_ever() {
        let mut view = view_of(2, 3, Policy::Majority);
        (view.base, view.base_digest, view.base_time) = (Slot(5), Digest(6), GroupTime(7));
        (view.epoch, view.chain) = (Epoch(8), vec![link(3, 0), link(7, 5)]);
        (view.durability, view.min_members) = (Durability::Memory, 2);
        view.book[1].http = Some("h2:80".into());
        let hex: String = encoded(&view).iter().map(|b| format!("{b:02x}")).collect();
        let golden = [
            "00000000000000c1 0000000000000008",
            // The ballot.
            "0000000000000000 03 0000000000000009 0000000000000001",
            "02",
            "01 00000000000000b1 0000000000000001",
            "02 00000000000000b2 0000000000000001",
            // The base; the chain, each link's epoch and base.
            "0000000000000005 02 03 00 07 05",
            // Digest and time at the base; policy, least members, durability.
            "0000000000000006 0000000000000007",
            "02 02 02",
            // The book.
            "03",
            "01 07 68313a37343030 00",
            "02 07 68323a37343030 05 68323a3830",
            "03 07 68333a37343030 00",
        ];
        assert_eq!(hex, golden.concat().replace(' ', ""));
        assert_eq!(decoded(&encoded(&view)), Ok(view));
        assert_eq!(view_of(2, 3, Policy::Dynamic).tag(), ViewTag(1_415_048_847_377_167_326));
    }

    #[test]
    fn cut_short_or_out_of_bounds_it_is_refused() {
        let view = view_of(2, 2, Policy::Dynamic);
        let bytes = encoded(&view);
        for length in 0..bytes.len() {
            assert!(decoded(&bytes[..length]).is_err(), "{length} bytes");
        }
        let refused = |change: &dyn Fn(&mut View)| {
            let mut view = view.clone();
            change(&mut view);
            decoded(&encoded(&view)).expect_err("out of bounds").field
        };
        assert_eq!(refused(&|v| v.members.clear()), "members");
        assert_eq!(refused(&|v| v.members.reverse()), "members");
        assert_eq!(refused(&|v| v.members[1] = v.members[0]), "members");
        assert_eq!(refused(&|v| v.members = (1..=16).map(run_of).collect()), "members");
        assert_eq!(refused(&|v| v.members[0].id = ReplicaId(0)), "replica id");
        assert_eq!(refused(&|v| v.members[1].id = ReplicaId(65)), "replica id");
        assert_eq!(refused(&|v| v.chain = vec![link(1, 0)]), "chain", "a view does not follow itself");
        assert_eq!(refused(&|v| v.chain = vec![link(0, 1)]), "chain", "bases never fall");
        assert_eq!(refused(&|v| (v.epoch, v.chain) = (Epoch(9), vec![link(3, 0), link(3, 0)])), "chain");
        assert_eq!(refused(&|v| (v.epoch, v.chain) = (Epoch(99), (0..65).map(|k| link(k, 0)).collect())), "chain");
        assert_eq!(refused(&|v| v.base = Slot(u64::MAX)), "base");
        assert_eq!(refused(&|v| v.book = vec![v.book[0].clone(); 16]), "book");
        assert_eq!(refused(&|v| v.book[0].address = "a".repeat(256)), "book address");
        assert_eq!(refused(&|v| v.book[0].http = Some("a".repeat(256))), "book http");
    }

    #[test]
    fn the_tag_names_cluster_epoch_and_ballot_and_nothing_else() {
        let view = view_of(3, 3, Policy::Dynamic);
        let tag_with = |change: &dyn Fn(&mut View)| {
            let mut view = view.clone();
            change(&mut view);
            view.tag()
        };
        assert_ne!(view.tag(), ViewTag(0));
        assert_eq!(tag_with(&|v| v.base = Slot(9)), view.tag());
        assert_eq!(tag_with(&|v| v.members.truncate(1)), view.tag());
        assert_ne!(tag_with(&|v| v.cluster.0 += 1), view.tag());
        assert_ne!(tag_with(&|v| v.epoch.0 += 1), view.tag());
        assert_ne!(tag_with(&|v| v.ballot.round += 1), view.tag());
        assert_ne!(tag_with(&|v| v.ballot.id.0 += 1), view.tag());
        assert_ne!(tag_with(&|v| v.ballot.birth.0 += 1), view.tag());
        assert_ne!(tag_with(&|v| v.ballot.incarnation.0 += 1), view.tag());
    }

    #[test]
    fn what_lies_beyond_the_base_that_followed_its_epoch_is_no_history() {
        let mut view = view_of(3, 3, Policy::Dynamic);
        (view.epoch, view.base, view.chain) = (Epoch(7), Slot(30), vec![link(4, 10), link(5, 15), link(6, 15)]);
        let last_kept = |epoch| (0..=40).rev().find(|&slot| view.keeps(Epoch(epoch), Slot(slot)));
        assert_eq!([3, 4, 5, 6, 7].map(last_kept), [Some(10), Some(15), Some(15), Some(30), Some(40)]);
        assert_eq!(last_kept(2), None, "the base of epoch 3 is forgotten");
        let last_undenied = |epoch| (0..=40).rev().find(|&slot| !view.denies(Epoch(epoch), Slot(slot)));
        assert_eq!([2, 3, 4, 5, 6, 7].map(last_undenied), [10, 10, 15, 15, 30, 40].map(Some));
        let next = View { epoch: Epoch(8), base: Slot(31), chain: view.next_chain(), ..view.clone() };
        assert_eq!(next.chain.last(), Some(&link(7, 30)));
        assert!(next.keeps(Epoch(7), Slot(31)) && !next.keeps(Epoch(7), Slot(32)));
    }

    #[test]
    fn the_chain_is_bounded() {
        let mut view = view_of(3, 3, Policy::Dynamic);
        for epoch in 2..=CHAIN_MAX as u64 + 9 {
            (view.chain, view.epoch, view.base) = (view.next_chain(), Epoch(epoch), Slot(epoch));
        }
        assert_eq!((view.chain.len(), view.chain[0]), (CHAIN_MAX, link(9, 9)));
        assert_eq!(decoded(&encoded(&view)), Ok(view));
    }

    #[test]
    fn slots_go_round_and_ranks_follow_the_ids() {
        let mut view = view_of(3, 3, Policy::Dynamic);
        view.members.remove(1);
        assert_eq!(view.rank_of(ReplicaId(3)), Some(Rank(1)));
        assert_eq!(view.rank_of(ReplicaId(2)), None);
        assert_eq!(view.member(Rank(1)), run_of(3));
        assert_eq!((4..8).map(|k| view.sequencer(Slot(k)).0).collect::<Vec<_>>(), [0, 1, 0, 1]);
        assert_eq!(view.members_text(), "{1,3}");
    }

    #[test]
    fn ballots_compare_by_round_first_and_incarnation_last() {
        let ballot = |round, id, birth, incarnation| Ballot {
            round,
            id: ReplicaId(id),
            birth: Birth(birth),
            incarnation: Incarnation(incarnation),
        };
        let rising =
            [ballot(1, 1, 1, 1), ballot(1, 1, 1, 2), ballot(1, 1, 2, 0), ballot(1, 2, 0, 0), ballot(2, 0, 0, 0)];
        assert!(rising.windows(2).all(|w| w[0] < w[1]));
    }

    #[test]
    fn words_come_back() {
        for policy in [Policy::Dynamic, Policy::Majority, Policy::Available] {
            assert_eq!(Policy::from_name(policy.name()), Some(policy));
        }
        for durability in [Durability::Disk, Durability::Memory] {
            assert_eq!(Durability::from_name(durability.name()), Some(durability));
        }
        assert_eq!((Policy::from_name("both"), Durability::from_name("tape")), (None, None));
    }
}
