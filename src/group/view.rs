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
        if crate::group::broken::is("no-truncation") {
            return true;
        }
        if crate::group::broken::is("newest-base-only") {
            return slot <= self.base;
        }
        let next = self.chain.iter().copied().find(|link| link.epoch > epoch);
        let next = next.unwrap_or(Link { epoch: self.epoch, base: self.base });
        next.epoch == epoch.next() && slot <= next.base
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
        let (cluster, epoch, ballot) = (ClusterId(r.u64("cluster")?), Epoch(r.u64("epoch")?), ballot(r)?);
        let count = r.count(REPLICAS_MAX, "members")?;
        let members = (0..count).map(|_| run(r)).collect::<Decoded<Vec<Run>>>()?;
        if members.is_empty() || members.windows(2).any(|w| w[0].id >= w[1].id) {
            return Err(DecodeError { field: "members" });
        }
        let base = Slot(r.u64("base")?);
        let links = r.count(CHAIN_MAX, "chain")?;
        let link = |r: &mut Reader<'_>| {
            Ok(Link { epoch: Epoch(r.varint("chain epoch")?), base: Slot(r.varint("chain base")?) })
        };
        Ok(View {
            cluster,
            epoch,
            ballot,
            members,
            base,
            chain: (0..links).map(|_| link(r)).collect::<Decoded<Vec<Link>>>()?,
            base_digest: Digest(r.u64("base digest")?),
            base_time: GroupTime(r.u64("base time")?),
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

pub fn run(r: &mut Reader<'_>) -> Decoded<Run> {
    let id = r.u8("replica id")?;
    if id == 0 || id > REPLICA_ID_MAX {
        return Err(DecodeError { field: "replica id" });
    }
    Ok(Run { id: ReplicaId(id), birth: Birth(r.u64("birth")?), incarnation: Incarnation(r.u64("incarnation")?) })
}

pub fn put_ballot(out: &mut Vec<u8>, ballot: Ballot) {
    out.put_u64(ballot.round);
    out.put_u8(ballot.id.0);
    out.put_u64(ballot.birth.0);
    out.put_u64(ballot.incarnation.0);
}

pub fn ballot(r: &mut Reader<'_>) -> Decoded<Ballot> {
    Ok(Ballot {
        round: r.u64("round")?,
        id: ReplicaId(r.u8("ballot id")?),
        birth: Birth(r.u64("ballot birth")?),
        incarnation: Incarnation(r.u64("ballot incarnation")?),
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
        let id = ReplicaId(r.u8("book id")?);
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
