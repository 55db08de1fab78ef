//! Detection: whom this replica hears, and who says that it hears us (DESIGN 5.2).

use std::collections::BTreeMap;

use crate::types::{ReplicaId, Run, Time, ViewTag};
use crate::wire::datagram::{Header, Heard, Status};

/// What the latest datagrams of one configured replica told.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The run that speaks under this id.
    pub run: Run,
    pub heard_at: Time,
    pub tag: ViewTag,
    /// What it last said of itself, and whom it hears.
    pub status: Status,
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
            status: Status::default(),
            blank: None,
        });
        if !same {
            peer.blank = None;
        }
        (peer.run, peer.heard_at, peer.tag, peer.status) = (run, now, header.tag, header.status);
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
            heard.push(peer.run);
        }
        heard
    }

    /// Whether each of the two hears the other.
    pub fn connected(&self, now: Time, id: ReplicaId) -> bool {
        self.heard(now, id).is_some_and(|p| p.status.heard.lists(self.me))
    }

    /// Whether these two, as they say themselves, hear each other.
    pub fn connected_pair(&self, now: Time, a: ReplicaId, b: ReplicaId) -> bool {
        match (self.heard(now, a), self.heard(now, b)) {
            (Some(pa), Some(pb)) => pa.status.heard.lists(pb.run) && pb.status.heard.lists(pa.run),
            _ => false,
        }
    }

    /// The next moment at which a replica that is heard now will not be any more.
    pub fn deadline(&self, now: Time) -> Option<Time> {
        self.peers.values().map(|p| p.heard_at.after_ns(self.suspect_after_ns)).filter(|&at| at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Birth, ClusterId, Incarnation, PacketNumber};
    use crate::wire::view::tests::run_of;

    const SUSPECT_NS: u64 = 500;

    fn header(run: Run, tag: u64, heard: &[Run]) -> Header {
        let mut status = Status::default();
        heard.iter().for_each(|run| status.heard.push(*run));
        Header { cluster: ClusterId(1), run, packet: PacketNumber(1), tag: ViewTag(tag), status }
    }

    fn detect() -> Detect {
        Detect::new(run_of(1), SUSPECT_NS)
    }

    fn later(run: Run) -> Run {
        Run { incarnation: run.incarnation.next(), ..run }
    }

    #[test]
    fn a_run_that_was_left_behind_is_ignored() {
        let (mut detect, old, new) = (detect(), run_of(2), later(run_of(2)));
        assert!(detect.on_header(Time(0), &header(old, 0, &[])));
        assert!(detect.on_header(Time(10), &header(new, 5, &[])));
        assert!(!detect.on_header(Time(20), &header(old, 9, &[run_of(1)])));
        let peer = detect.peer(ReplicaId(2)).expect("it was heard");
        assert_eq!((peer.run, peer.heard_at, peer.tag), (new, Time(10), ViewTag(5)));
        assert!(!peer.status.heard.lists(run_of(1)));
        // A new birth counts its incarnations anew.
        let reborn = Run { birth: Birth(77), incarnation: Incarnation(1), ..new };
        assert!(detect.on_header(Time(30), &header(reborn, 0, &[])));
        assert_eq!(detect.peer(ReplicaId(2)).expect("it was heard").run, reborn);
    }

    #[test]
    fn what_a_run_said_of_itself_ends_with_it() {
        let (mut detect, run) = (detect(), run_of(2));
        detect.on_hello(ReplicaId(2), 7);
        assert!(detect.peer(ReplicaId(2)).is_none(), "it has not spoken yet");
        detect.on_header(Time(0), &header(run, 0, &[]));
        detect.on_hello(ReplicaId(2), 7);
        detect.on_header(Time(1), &header(run, 0, &[]));
        assert_eq!(detect.peer(ReplicaId(2)).expect("heard").blank, Some(7));
        detect.on_header(Time(2), &header(later(run), 0, &[]));
        assert_eq!(detect.peer(ReplicaId(2)).expect("heard").blank, None);
    }

    #[test]
    fn it_is_heard_until_the_suspicion_time_is_over() {
        let (mut detect, run) = (detect(), run_of(2));
        detect.on_header(Time(100), &header(run, 0, &[]));
        let end = Time(100 + SUSPECT_NS);
        let just_before = Time(end.0 - 1);
        assert!(detect.heard(just_before, run.id).is_some() && detect.heard_list(just_before).lists(run));
        assert!(detect.heard(end, run.id).is_none() && !detect.heard_list(end).lists(run));
        assert!(detect.peer(run.id).is_some(), "it is still remembered");
        assert_eq!(detect.deadline(just_before), Some(end));
        assert_eq!(detect.deadline(end), None);
        detect.on_header(end, &header(run_of(3), 0, &[]));
        detect.on_header(end.after_ns(7), &header(run, 0, &[]));
        assert_eq!(detect.deadline(end.after_ns(7)), Some(end.after_ns(SUSPECT_NS)), "the next of them");
    }

    #[test]
    fn connected_is_what_both_say() {
        let (mut detect, me, two, three) = (detect(), run_of(1), run_of(2), run_of(3));
        detect.on_header(Time(0), &header(two, 0, &[three]));
        assert!(!detect.connected(Time(0), two.id), "it does not hear us");
        detect.on_header(Time(0), &header(two, 0, &[later(me), three]));
        assert!(!detect.connected(Time(0), two.id), "it hears another run");
        detect.on_header(Time(0), &header(two, 0, &[me, three]));
        assert!(detect.connected(Time(0), two.id));
        assert!(!detect.connected(Time(SUSPECT_NS), two.id), "it is silent");

        assert!(!detect.connected_pair(Time(0), two.id, three.id));
        detect.on_header(Time(0), &header(three, 0, &[me]));
        assert!(!detect.connected_pair(Time(0), two.id, three.id) && !detect.connected_pair(Time(0), three.id, two.id));
        detect.on_header(Time(0), &header(three, 0, &[two]));
        assert!(detect.connected_pair(Time(0), two.id, three.id) && detect.connected_pair(Time(0), three.id, two.id));
        assert!(!detect.connected_pair(Time(SUSPECT_NS), two.id, three.id));
    }
}
