//! Detection: whom this replica hears, and who says that it hears us (DESIGN 5.2).

use std::collections::BTreeMap;

use crate::types::{ReplicaId, Run, Time, ViewTag};
use crate::wire::datagram::{Header, Heard};

/// What the latest datagrams of one configured replica told.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The run that speaks under this id.
    pub run: Run,
    pub heard_at: Time,
    pub tag: ViewTag,
    /// Whom it hears.
    pub heard: Heard,
    pub leaving: bool,
    /// The hash of its configuration, while it says it is blank.
    pub blank: Option<u64>,
}

#[derive(Debug)]
pub struct Detect {
    me: Run,
    suspect_after_ns: u64,
    peers: BTreeMap<ReplicaId, Peer>,
}

impl Detect {
    pub fn new(me: Run, suspect_after_ns: u64) -> Detect {
        Detect { me, suspect_after_ns, peers: BTreeMap::new() }
    }

    /// Takes an authentic header. False where it comes from a run that this id has left behind.
    pub fn on_header(&mut self, now: Time, header: &Header) -> bool {
        let run = header.run;
        let known = self.peers.get(&run.id).map(|p| p.run);
        if known.is_some_and(|k| k.birth == run.birth && k.incarnation > run.incarnation) {
            return false;
        }
        let same = known == Some(run);
        let peer = self.peers.entry(run.id).or_insert_with(|| Peer {
            run,
            heard_at: now,
            tag: header.tag,
            heard: Heard::default(),
            leaving: false,
            blank: None,
        });
        if !same {
            peer.blank = None;
        }
        (peer.run, peer.heard_at, peer.tag) = (run, now, header.tag);
        (peer.heard, peer.leaving) = (header.status.heard, header.status.leaving);
        true
    }

    /// A blank replica told the hash of its configuration.
    pub fn on_hello(&mut self, id: ReplicaId, config: u64) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.blank = Some(config);
        }
    }

    /// What is known of a replica that was heard within the suspicion time.
    pub fn heard(&self, now: Time, id: ReplicaId) -> Option<&Peer> {
        self.peers.get(&id).filter(|p| now.since_ns(p.heard_at) < self.suspect_after_ns)
    }

    /// What is known of a replica that was ever heard.
    pub fn peer(&self, id: ReplicaId) -> Option<&Peer> {
        self.peers.get(&id)
    }

    /// For the status block: the runs heard within the suspicion time.
    pub fn heard_list(&self, now: Time) -> Heard {
        let mut heard = Heard::default();
        for peer in self.peers.values().filter(|p| now.since_ns(p.heard_at) < self.suspect_after_ns) {
            heard.push(peer.run.id, peer.run.incarnation);
        }
        heard
    }

    /// Whether each of the two hears the other.
    pub fn connected(&self, now: Time, id: ReplicaId) -> bool {
        self.heard(now, id).is_some_and(|p| p.heard.lists(self.me))
    }

    /// Whether these two, as they say themselves, hear each other.
    pub fn connected_pair(&self, now: Time, a: ReplicaId, b: ReplicaId) -> bool {
        match (self.heard(now, a), self.heard(now, b)) {
            (Some(pa), Some(pb)) => pa.heard.lists(pb.run) && pb.heard.lists(pa.run),
            _ => false,
        }
    }

    /// The next moment at which a replica that is heard now will not be any more.
    pub fn deadline(&self, now: Time) -> Option<Time> {
        self.peers.values().map(|p| p.heard_at.after_ns(self.suspect_after_ns)).filter(|&at| at > now).min()
    }
}
