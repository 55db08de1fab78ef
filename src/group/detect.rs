//! Detection: which run of each replica speaks, whom this replica hears, and who says that it hears us (DESIGN 5.2).
//!
//! Only news counts: a datagram with a higher packet number than any before of its run. What comes late or twice
//! renews nothing and takes nothing back. For everything else a wrong belief costs time, never safety.

use std::collections::BTreeMap;

use crate::group::complain::{Complaints, Sight, Verdict};
use crate::limits::{BIRTHS_REMEMBERED_MAX, BIRTH_RETURN_FACTOR, PACKET_JUMP_MAX};
use crate::types::{Dest, PacketNumber, ReplicaId, Run, Time, ViewTag};
use crate::wire::datagram::{Header, Heard, Status};

/// What the latest datagrams of one configured replica told.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The run that speaks under this id.
    pub run: Run,
    /// When it last said something new.
    pub heard_at: Time,
    pub tag: ViewTag,
    /// What it last said of itself, and whom it hears.
    pub status: Status,
    /// The hash of its configuration, while it says it is blank.
    pub blank: Option<u64>,
    /// The highest of its packet numbers.
    newest: PacketNumber,
    refusal: Refusal,
}

/// What the kernels say of a peer's port since it was last heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refusal {
    None,
    /// Refused for the first time at this moment.
    Once(Time),
    /// The probe was refused as well: the process is gone.
    Gone,
}

/// A run that gave way to one of another birth.
#[derive(Clone, Copy, Debug)]
struct Left {
    run: Run,
    newest: PacketNumber,
}

/// What a datagram is, by its run and number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    News,
    /// Overtaken or repeated: its frames may be of use, its status is not.
    Late,
    /// The first of a run that takes the place of the one before.
    Successor,
    LeftBehind,
}

impl Peer {
    /// Whether these two, as they say themselves, hear each other.
    pub fn hears_and_is_heard(&self, other: &Peer) -> bool {
        self.status.heard.lists(other.run) && other.status.heard.lists(self.run)
    }
}

/// What is known of each replica that was ever heard, by id: so few, and looked at so often, that a sorted list serves
/// best.
#[derive(Debug, Default)]
struct Peers(Vec<Peer>);

impl Peers {
    fn get(&self, id: ReplicaId) -> Option<&Peer> {
        self.iter().find(|peer| peer.run.id == id)
    }

    fn get_mut(&mut self, id: ReplicaId) -> Option<&mut Peer> {
        self.iter_mut().find(|peer| peer.run.id == id)
    }

    /// Gives the one whose place it takes.
    fn insert(&mut self, peer: Peer) -> Option<Peer> {
        match self.0.binary_search_by_key(&peer.run.id, |peer| peer.run.id) {
            Ok(k) => Some(std::mem::replace(&mut self.0[k], peer)),
            Err(k) => {
                self.0.insert(k, peer);
                None
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.0.iter()
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.0.iter_mut()
    }
}

#[derive(Debug)]
pub struct Detect {
    me: Run,
    suspect_after_ns: u64,
    peers: Peers,
    /// Births that an id has left behind, the latest last.
    left: BTreeMap<ReplicaId, Vec<Left>>,
    complaints: Complaints,
    /// Peers to be sent something at once, so that a refusal shows whether they are gone.
    probes: Dest,
}

impl Detect {
    pub fn new(me: Run, suspect_after_ns: u64) -> Detect {
        Detect {
            me,
            suspect_after_ns,
            peers: Peers::default(),
            left: BTreeMap::new(),
            complaints: Complaints::new(suspect_after_ns),
            probes: Dest::default(),
        }
    }

    pub fn me(&self) -> Run {
        self.me
    }

    pub fn suspect_after_ns(&self) -> u64 {
        self.suspect_after_ns
    }

    /// Takes an authentic header. False where it comes from a run that this id has left behind.
    pub fn on_header(&mut self, now: Time, header: &Header) -> bool {
        let run = header.run;
        match self.standing(now, run, header.packet) {
            Standing::LeftBehind => return false,
            Standing::Late => return true,
            Standing::News => {}
            Standing::Successor => self.succeed(now, run),
        }
        let peer = self.peers.get_mut(run.id).expect("news come from the run that is there, and a successor is now");
        let before = std::mem::replace(&mut peer.status, header.status).heard;
        (peer.heard_at, peer.tag, peer.newest) = (now, header.tag, header.packet);
        peer.refusal = Refusal::None;
        self.complaints.on_epoch(header.status.epoch);
        self.probe_unlisted(now, &before, &header.status.heard);
        true
    }

    /// Which run of an id speaks. Of one birth the higher incarnation: it is durable before it is used. Births have no
    /// order, so one takes another's place only while that is silent or its process gone; a birth that was left behind
    /// returns (the directory of old was put back) only with a datagram newer than all that were heard of it, and after
    /// ten times that silence. So neither a repeated datagram nor a late one beside the living run passes for a new
    /// run, and if one ever does, the true run is back once the ghost has been silent that long.
    fn standing(&self, now: Time, run: Run, packet: PacketNumber) -> Standing {
        let Some(peer) = self.peers.get(run.id) else { return Standing::Successor };
        if run == peer.run {
            let ahead = packet.0.checked_sub(peer.newest.0).filter(|&ahead| ahead > 0);
            // A number out of all reason would make everything that follows late.
            return if ahead.is_some_and(|ahead| ahead <= PACKET_JUMP_MAX) { Standing::News } else { Standing::Late };
        }
        let succeeds = if run.birth == peer.run.birth {
            run.incarnation > peer.run.incarnation
        } else {
            let silent_ns = now.since_ns(peer.heard_at);
            match self.left.get(&run.id).and_then(|left| left.iter().find(|l| l.run.birth == run.birth)) {
                Some(left) => {
                    let newer = (run.incarnation, packet) > (left.run.incarnation, left.newest);
                    newer && silent_ns >= self.suspect_after_ns.saturating_mul(BIRTH_RETURN_FACTOR)
                }
                None => silent_ns >= self.suspect_after_ns || peer.refusal == Refusal::Gone,
            }
        };
        if succeeds {
            Standing::Successor
        } else {
            Standing::LeftBehind
        }
    }

    /// From now on this run speaks under its id; what the one before said of itself ends with it.
    fn succeed(&mut self, now: Time, run: Run) {
        let peer = Peer {
            run,
            heard_at: now,
            tag: ViewTag(0),
            status: Status::default(),
            blank: None,
            newest: PacketNumber(0),
            refusal: Refusal::None,
        };
        let Some(before) = self.peers.insert(peer).filter(|before| before.run.birth != run.birth) else {
            return;
        };
        let left = self.left.entry(run.id).or_default();
        left.retain(|l| l.run.birth != run.birth);
        left.push(Left { run: before.run, newest: before.newest });
        if left.len() > BIRTHS_REMEMBERED_MAX {
            left.remove(0);
        }
    }

    /// A peer stopped listing a run that is heard here: it is probed, for its process may be gone.
    fn probe_unlisted(&mut self, now: Time, before: &Heard, after: &Heard) {
        for peer in self.peers.iter() {
            if before.lists(peer.run) && !after.lists(peer.run) && self.is_there(now, peer) {
                self.probes = self.probes.with(peer.run.id);
            }
        }
    }

    /// A blank replica told the hash of its configuration.
    pub fn on_hello(&mut self, id: ReplicaId, config: u64) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.blank = Some(config);
        }
    }

    /// The kernel reports that nobody listens at the peer's port. The first time it is to be probed; refused again
    /// after that turn, with nothing heard meanwhile, its process is gone. True when this was learned now.
    pub fn on_refused(&mut self, now: Time, id: ReplicaId) -> bool {
        let Some(peer) = self.peers.get_mut(id) else { return false };
        match peer.refusal {
            Refusal::None => {
                peer.refusal = Refusal::Once(now);
                self.probes = self.probes.with(id);
                false
            }
            Refusal::Once(at) if at < now => {
                peer.refusal = Refusal::Gone;
                true
            }
            Refusal::Once(_) | Refusal::Gone => false,
        }
    }

    /// Peers to be sent something in this turn, whatever else there is to say.
    pub fn take_probes(&mut self) -> Dest {
        std::mem::take(&mut self.probes)
    }

    /// This replica's own loop did not run for so long: whoever was heard when it stopped gets a full period before
    /// it is complained of.
    pub fn woke(&mut self, now: Time, slept_ns: u64) {
        let since_ns = self.suspect_after_ns.saturating_add(slept_ns);
        for peer in self.peers.iter_mut().filter(|p| now.since_ns(p.heard_at) < since_ns) {
            peer.heard_at = now;
        }
        self.complaints.woke(now);
    }

    /// Judges the members of the view in which this replica has rank, once a turn. Gives the complaints that were made
    /// or ended.
    pub fn judge(&mut self, now: Time, sight: &Sight<'_>) -> Vec<Verdict> {
        let (peers, suspect_after_ns) = (&self.peers, self.suspect_after_ns);
        let frozen = |run: Run| {
            let peer = peers.get(run.id).filter(|p| p.run == run && is_there(now, p, suspect_after_ns))?;
            Some(peer.status.frozen)
        };
        self.complaints.judge(now, sight, &frozen)
    }

    /// Why this replica complains of this run, if it does.
    pub fn complains_of(&self, run: Run) -> Option<crate::group::complain::Reason> {
        self.complaints.about(run)
    }

    fn is_there(&self, now: Time, peer: &Peer) -> bool {
        is_there(now, peer, self.suspect_after_ns)
    }

    /// What is known of a replica that was heard within the suspicion time.
    pub fn heard(&self, now: Time, id: ReplicaId) -> Option<&Peer> {
        self.peers.get(id).filter(|p| self.is_there(now, p))
    }

    /// All that were heard within the suspicion time, by id.
    pub fn all_heard(&self, now: Time) -> impl Iterator<Item = &Peer> {
        self.peers.iter().filter(move |p| self.is_there(now, p))
    }

    /// What is known of a replica that was ever heard.
    pub fn peer(&self, id: ReplicaId) -> Option<&Peer> {
        self.peers.get(id)
    }

    /// Whether the process that was heard under this id is known to be gone.
    pub fn is_gone(&self, id: ReplicaId) -> bool {
        self.peers.get(id).is_some_and(|p| p.refusal == Refusal::Gone)
    }

    /// For the status block: the runs heard within the suspicion time, and not complained of.
    pub fn heard_list(&self, now: Time) -> Heard {
        let mut heard = Heard::default();
        self.all_heard(now).filter(|p| self.complains_of(p.run).is_none()).for_each(|p| heard.push(p.run));
        heard
    }

    /// Whether each of the two hears the other, and neither complains of the other.
    pub fn connected(&self, now: Time, id: ReplicaId) -> bool {
        self.heard(now, id).is_some_and(|p| p.status.heard.lists(self.me) && self.complains_of(p.run).is_none())
    }

    /// Whether these two are both heard and, as they say themselves, hear each other.
    pub fn connected_pair(&self, now: Time, a: ReplicaId, b: ReplicaId) -> bool {
        let (a, b) = (self.heard(now, a), self.heard(now, b));
        a.zip(b).is_some_and(|(a, b)| a.hears_and_is_heard(b))
    }

    /// All that are connected with this replica, by id.
    pub fn all_connected(&self, now: Time) -> impl Iterator<Item = &Peer> {
        self.all_heard(now).filter(|p| p.status.heard.lists(self.me) && self.complains_of(p.run).is_none())
    }

    /// The next moment at which a replica that is heard now will not be any more, or a complaint is made or ends.
    pub fn deadline(&self, now: Time) -> Option<Time> {
        let silences = self.peers.iter().map(|p| p.heard_at.after_ns(self.suspect_after_ns));
        silences.chain(self.complaints.deadline(now)).filter(|&at| at > now).min()
    }
}

fn is_there(now: Time, peer: &Peer, suspect_after_ns: u64) -> bool {
    now.since_ns(peer.heard_at) < suspect_after_ns && peer.refusal != Refusal::Gone
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::group::commit::Commit;
    use crate::group::complain::Reason;
    use crate::types::{Birth, ClusterId, Epoch, Incarnation, Rank};
    use crate::wire::view::tests::{run_of, view_of};
    use crate::wire::view::Policy;

    const SUSPECT_NS: u64 = 500;
    const RETURN_NS: u64 = SUSPECT_NS * BIRTH_RETURN_FACTOR;

    pub fn header(run: Run, packet: u64, tag: u64, heard: &[Run]) -> Header {
        let mut status = Status::default();
        heard.iter().for_each(|run| status.heard.push(*run));
        Header { cluster: ClusterId(1), run, packet: PacketNumber(packet), tag: ViewTag(tag), status }
    }

    /// Replica 1, and one line of numbers for everyone's datagrams.
    struct Ear {
        detect: Detect,
        packet: u64,
    }

    impl Ear {
        fn new() -> Ear {
            Ear { detect: Detect::new(run_of(1), SUSPECT_NS), packet: 0 }
        }

        /// The next datagram of this run.
        fn hear(&mut self, now: u64, run: Run, heard: &[Run]) -> bool {
            self.packet += 1;
            self.detect.on_header(Time(now), &header(run, self.packet, 0, heard))
        }

        /// One with this number.
        fn late(&mut self, now: u64, run: Run, packet: u64) -> bool {
            self.detect.on_header(Time(now), &header(run, packet, 0, &[]))
        }

        fn run(&self) -> Run {
            self.detect.peer(TWO).expect("it was heard").run
        }

        fn is_heard(&self, now: u64) -> bool {
            self.detect.heard(Time(now), TWO).is_some()
        }
    }

    const TWO: ReplicaId = ReplicaId(2);

    fn later(run: Run) -> Run {
        Run { incarnation: run.incarnation.next(), ..run }
    }

    fn reborn(birth: u64) -> Run {
        Run { birth: Birth(birth), incarnation: Incarnation(1), ..run_of(2) }
    }

    #[test]
    fn a_run_that_was_left_behind_is_ignored() {
        let (mut ear, old, new) = (Ear::new(), run_of(2), later(run_of(2)));
        assert!(ear.hear(0, old, &[]));
        assert!(ear.hear(10, new, &[]));
        assert!(!ear.hear(20, old, &[run_of(1)]));
        assert!(!ear.hear(20 + RETURN_NS, old, &[run_of(1)]), "however long the newer is silent");
        let peer = ear.detect.peer(TWO).expect("it was heard");
        assert_eq!((peer.run, peer.heard_at), (new, Time(10)));
        assert!(!peer.status.heard.lists(run_of(1)));
    }

    #[test]
    fn a_new_birth_takes_the_place_of_one_that_is_silent() {
        let (mut ear, old, new) = (Ear::new(), run_of(2), reborn(77));
        ear.hear(0, old, &[]);
        assert!(!ear.hear(SUSPECT_NS - 1, new, &[]), "nobody can tell which of the two is the newer");
        assert_eq!(ear.run(), old);
        assert!(ear.hear(SUSPECT_NS, new, &[]));
        assert_eq!(ear.run(), new);
    }

    #[test]
    fn a_new_birth_takes_the_place_of_a_process_that_is_gone_at_once() {
        let mut ear = Ear::new();
        ear.hear(0, run_of(2), &[]);
        ear.detect.on_refused(Time(1), TWO);
        assert!(!ear.hear(2, reborn(77), &[]));
        ear.detect.on_refused(Time(2), TWO);
        assert!(ear.hear(3, reborn(77), &[]));
    }

    #[test]
    fn a_late_datagram_of_an_older_birth_is_no_new_run() {
        let (mut ear, old, new) = (Ear::new(), run_of(2), reborn(77));
        (0..10).for_each(|at| assert!(ear.hear(at, old, &[])));
        ear.hear(1_000, new, &[]);
        // Repeated minutes later, beside the living run and long after its end.
        for at in [1_001, 1_000 + SUSPECT_NS, 1_000 + RETURN_NS, 1_000_000] {
            (1..=10).for_each(|packet| assert!(!ear.late(at, old, packet)));
        }
        // One that was never heard before, and another incarnation of that birth.
        assert!(!ear.late(1_000 + SUSPECT_NS, old, 99));
        assert!(!ear.late(1_000 + SUSPECT_NS, later(old), 1));
        assert_eq!(ear.run(), new);
    }

    #[test]
    fn the_true_run_comes_back_after_a_ghost() {
        let (mut ear, ghost, living) = (Ear::new(), run_of(2), reborn(77));
        ear.hear(0, living, &[]);
        assert!(ear.hear(SUSPECT_NS, ghost, &[]), "a birth never heard before, while the living one is silent");
        let back = SUSPECT_NS + RETURN_NS;
        assert!(!ear.hear(back - 1, living, &[]));
        assert!(ear.hear(back, living, &[]));
        assert_eq!(ear.run(), living);
        assert!(!ear.late(back + RETURN_NS, ghost, 2), "it said nothing new");
    }

    #[test]
    fn only_so_many_births_are_remembered() {
        let mut ear = Ear::new();
        for k in 0..100 {
            assert!(ear.hear(k * SUSPECT_NS, reborn(k), &[]));
        }
        assert_eq!(ear.detect.left[&TWO].len(), BIRTHS_REMEMBERED_MAX);
        assert_eq!(ear.detect.left[&TWO].last().expect("many were left").run, reborn(98));
    }

    #[test]
    fn what_is_late_or_repeated_renews_nothing() {
        let (mut ear, run, me) = (Ear::new(), run_of(2), run_of(1));
        assert!(ear.hear(0, run, &[]) && ear.hear(1, run, &[me]));
        for packet in [1, 2] {
            assert!(ear.late(SUSPECT_NS, run, packet), "its frames may be of use");
        }
        assert!(ear.detect.connected(Time(SUSPECT_NS), TWO), "an older list of heard runs does not count");
        assert!(!ear.is_heard(SUSPECT_NS + 1));
        // A number that nobody can have reached does not make late what follows.
        assert!(ear.late(SUSPECT_NS, run, PACKET_JUMP_MAX + 3));
        assert!(ear.late(SUSPECT_NS, run, PACKET_JUMP_MAX + 2) && ear.is_heard(SUSPECT_NS + 1));
    }

    #[test]
    fn what_a_run_said_of_itself_ends_with_it() {
        let (mut ear, run) = (Ear::new(), run_of(2));
        ear.detect.on_hello(TWO, 7);
        assert!(ear.detect.peer(TWO).is_none(), "it has not spoken yet");
        ear.hear(0, run, &[]);
        ear.detect.on_hello(TWO, 7);
        ear.hear(1, run, &[]);
        assert_eq!(ear.detect.peer(TWO).expect("heard").blank, Some(7));
        ear.late(2, later(run), 1);
        assert_eq!(ear.detect.peer(TWO).expect("heard").blank, None);
        assert!(ear.late(3 + SUSPECT_NS, later(run), 2) && ear.is_heard(3 + SUSPECT_NS), "it counts its packets anew");
    }

    #[test]
    fn it_is_heard_until_the_suspicion_time_is_over() {
        let (mut ear, run) = (Ear::new(), run_of(2));
        ear.hear(100, run, &[]);
        let end = 100 + SUSPECT_NS;
        assert!(ear.is_heard(end - 1) && ear.detect.heard_list(Time(end - 1)).lists(run));
        assert!(!ear.is_heard(end) && !ear.detect.heard_list(Time(end)).lists(run));
        assert!(ear.detect.peer(run.id).is_some(), "it is still remembered");
        assert_eq!(ear.detect.deadline(Time(end - 1)), Some(Time(end)));
        assert_eq!(ear.detect.deadline(Time(end)), None);
        ear.hear(end, run_of(3), &[]);
        ear.hear(end + 7, run, &[]);
        assert_eq!(ear.detect.deadline(Time(end + 7)), Some(Time(end + SUSPECT_NS)), "the next of them");
    }

    #[test]
    fn connected_is_what_both_say() {
        let (mut ear, me, two, three) = (Ear::new(), run_of(1), run_of(2), run_of(3));
        ear.hear(0, two, &[three]);
        assert!(!ear.detect.connected(Time(0), TWO), "it does not hear us");
        ear.hear(0, two, &[later(me), three]);
        assert!(!ear.detect.connected(Time(0), TWO), "it hears another run");
        ear.hear(0, two, &[me, three]);
        assert!(ear.detect.connected(Time(0), TWO));
        assert!(!ear.detect.connected(Time(SUSPECT_NS), TWO), "it is silent");

        let pair = |ear: &Ear, now| {
            let ways = [(TWO, three.id), (three.id, TWO)].map(|(a, b)| ear.detect.connected_pair(Time(now), a, b));
            assert_eq!(ways[0], ways[1]);
            ways[0]
        };
        assert!(!pair(&ear, 0));
        ear.hear(0, three, &[me]);
        assert!(!pair(&ear, 0));
        ear.hear(0, three, &[two]);
        assert!(pair(&ear, 0) && !pair(&ear, SUSPECT_NS));
    }

    #[test]
    fn a_refused_peer_is_probed_once_and_then_gone() {
        let (mut ear, run) = (Ear::new(), run_of(2));
        assert!(!ear.detect.on_refused(Time(0), TWO), "one that was never heard");
        assert!(ear.detect.take_probes().is_empty());
        ear.hear(0, run, &[]);
        assert!(!ear.detect.on_refused(Time(1), TWO));
        assert_eq!(ear.detect.take_probes(), Dest::one(TWO));
        assert!(ear.detect.take_probes().is_empty());
        assert!(!ear.detect.on_refused(Time(1), TWO) && ear.is_heard(1), "what was sent before the probe");
        assert!(ear.detect.on_refused(Time(2), TWO), "the probe");
        assert!(!ear.is_heard(2) && !ear.detect.heard_list(Time(2)).lists(run));
        assert!(!ear.detect.on_refused(Time(3), TWO) && ear.detect.take_probes().is_empty(), "that is known");
        assert!(ear.late(4, run, 1) && !ear.is_heard(4), "what was under way before its end");
        assert!(ear.hear(5, run, &[]) && ear.is_heard(5));
    }

    #[test]
    fn a_sign_of_life_after_the_first_refusal_begins_anew() {
        let (mut ear, run) = (Ear::new(), run_of(2));
        ear.hear(0, run, &[]);
        ear.detect.on_refused(Time(1), TWO);
        ear.hear(2, run, &[]);
        assert!(!ear.detect.on_refused(Time(3), TWO) && ear.is_heard(3));
        assert!(ear.detect.on_refused(Time(4), TWO));
    }

    #[test]
    fn whom_a_peer_stops_hearing_is_probed() {
        let (mut ear, two, three) = (Ear::new(), run_of(2), run_of(3));
        ear.hear(0, three, &[]);
        ear.hear(0, two, &[three]);
        assert!(ear.detect.take_probes().is_empty());
        ear.hear(1, two, &[]);
        assert_eq!(ear.detect.take_probes(), Dest::one(three.id));
        ear.hear(2, two, &[]);
        assert!(ear.detect.take_probes().is_empty(), "once");
        ear.hear(3, two, &[three]);
        ear.hear(SUSPECT_NS, two, &[]);
        assert!(ear.detect.take_probes().is_empty(), "it is not heard here either");
    }

    #[test]
    fn after_a_pause_of_its_own_everyone_gets_a_full_period() {
        let (mut ear, two, three) = (Ear::new(), run_of(2), run_of(3));
        ear.hear(100, two, &[]);
        ear.hear(300, three, &[]);
        // It runs until 700, when replica 2 has been silent for long, and sleeps until 10,700.
        let slept = 10_000;
        ear.detect.woke(Time(10_700), slept);
        assert!(!ear.is_heard(10_700), "this one was silent before");
        assert!(ear.detect.heard(Time(10_700 + SUSPECT_NS - 1), three.id).is_some());
        assert!(ear.detect.heard(Time(10_700 + SUSPECT_NS), three.id).is_none());
    }

    #[test]
    fn who_is_complained_of_is_heard_but_not_listed() {
        let (mut ear, me, two) = (Ear::new(), run_of(1), run_of(2));
        let view = view_of(3, 3, Policy::Dynamic);
        let commit = Commit::new(&view);
        let sight = Sight {
            view: &view,
            me: Rank(0),
            frozen: false,
            commit: &commit,
            awaited: None,
            window_waits: false,
            window_shut: false,
        };
        ear.hear(0, run_of(3), &[me]);
        ear.detect.judge(Time(0), &sight);
        ear.hear(10, two, &[me]);
        ear.detect.judge(Time(10), &sight);
        assert_eq!(ear.detect.complains_of(two), Some(Reason::Silent), "it has not been back for long enough");
        assert!(ear.is_heard(10) && !ear.detect.connected(Time(10), TWO));
        let list = ear.detect.heard_list(Time(10));
        assert!(!list.lists(two) && list.lists(run_of(3)));
        assert_eq!(ear.detect.deadline(Time(10)), Some(Time(SUSPECT_NS)), "replica 3 falls silent");
        ear.hear(400, two, &[me]);
        ear.hear(400, run_of(3), &[me]);
        assert_eq!(ear.detect.deadline(Time(400)), Some(Time(10 + SUSPECT_NS)), "the complaint ends");
        ear.detect.judge(Time(10 + SUSPECT_NS), &sight);
        assert!(ear.detect.connected(Time(10 + SUSPECT_NS), TWO));
        // Another run of it was never complained of.
        ear.detect.judge(Time(2_000), &sight);
        ear.late(2_001, later(two), 1);
        assert!(ear.detect.complains_of(two).is_some() && ear.detect.heard_list(Time(2_001)).lists(later(two)));
        // A newer view ends every complaint.
        let mut newer = header(later(two), 9, 0, &[]);
        newer.status.epoch = Epoch(2);
        ear.detect.on_header(Time(2_002), &newer);
        assert_eq!(ear.detect.complains_of(two), None);
    }
}
