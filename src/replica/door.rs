//! The door: the clients of this replica, whose sessions they speak for, and what of theirs waits to be ordered.
//!
//! Whoever is let in is packed; whoever is not is told why, and that nothing was done. After a refusal the higher
//! numbers of that client are refused until the refused one returns, so that a pipeline is never reordered.

use std::collections::{BTreeMap, VecDeque};

use crate::limits::CLIENT_UNSENT_BYTES_MAX;
use crate::replica::attendance::Attendance;
use crate::replica::machine::{Replies, Reply};
use crate::types::{ClientId, ClusterId, ReplicaId, RequestNumber, SessionId};
use crate::wire::answer::{split, Code};
use crate::wire::bundle::{session, Bundler};
use crate::wire::client::{kind, ToClient, VERSION};
use crate::wire::codec::Reader;
use crate::wire::operation::{service, SessionOperation};

/// One connection.
#[derive(Debug, Default)]
struct Guest {
    greeted: bool,
    session: Option<SessionId>,
    /// The name under which this connection is attached to it.
    attach: Option<u64>,
    /// The next request must stand behind an attach, and whether that is to keep the session.
    attaches: bool,
    keep: bool,
    /// It asked for something since the quiet sessions were named last.
    spoke: bool,
    /// The last session that was opened on this connection, and the token it was asked for with.
    opened: Option<(u64, SessionId)>,
    /// It named a session since the opening that is under way was asked for: the opening is told, and changes nothing.
    named: bool,
    /// The lowest request that was refused and has not come again.
    refused: Option<RequestNumber>,
    unsent: Vec<u8>,
    /// Much waits to be written to it already.
    stalled: bool,
}

/// Why a request is turned away: certainly not done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub code: Code,
    pub message: String,
}

#[derive(Debug)]
pub struct Door {
    pub(super) attendance: Attendance,
    guests: BTreeMap<ClientId, Guest>,
    /// The connections that speak for a session: more than one while a client moves, and then each is answered, for
    /// nobody can tell which of them is the old one.
    by_session: BTreeMap<SessionId, Vec<ClientId>>,
    /// Openings under way, by token.
    opening: BTreeMap<u64, ClientId>,
    bundler: Bundler,
    /// Whole bundles, each to become one message (or several, where one operation is larger).
    packed: VecDeque<Vec<u8>>,
    packed_bytes: usize,
    /// Guests with something to be sent.
    dirty: Vec<ClientId>,
    /// What was still to be sent to guests that have gone: they may have closed their own half only.
    last_words: Vec<(ClientId, Vec<u8>)>,
    /// Answers and refusals so far, by code.
    answered: [u64; 256],
}

impl Door {
    /// Nobody is here yet. Names of connections are drawn from `seed`.
    pub fn new(seed: u64) -> Door {
        Door {
            attendance: Attendance::new(seed),
            guests: BTreeMap::new(),
            by_session: BTreeMap::new(),
            opening: BTreeMap::new(),
            bundler: Bundler::default(),
            packed: VecDeque::new(),
            packed_bytes: 0,
            dirty: Vec::new(),
            last_words: Vec::new(),
            answered: [0; 256],
        }
    }

    pub fn guests(&self) -> usize {
        self.guests.len()
    }

    /// Every connection.
    pub fn clients(&self) -> impl Iterator<Item = ClientId> + '_ {
        self.guests.keys().copied()
    }

    /// Bytes that wait to be ordered.
    pub fn pending_bytes(&self) -> usize {
        self.bundler.len() + self.packed_bytes
    }

    /// Answers a HELLO. False if the connection is of no use.
    pub fn hello(&mut self, client: ClientId, version: u16, cluster: ClusterId, replica: ReplicaId) -> bool {
        if version != VERSION {
            let message = format!("this replica speaks version {VERSION}, not {version}");
            self.refuse(client, kind::HELLO, 0, &Refusal { code: Code::Version, message });
            return false;
        }
        self.guests.entry(client).or_default().greeted = true;
        self.say(client, &ToClient::Welcome { version: VERSION, cluster, replica });
        true
    }

    /// Whether the client has said a proper HELLO.
    pub fn is_greeted(&self, client: ClientId) -> bool {
        self.guests.get(&client).is_some_and(|g| g.greeted)
    }

    /// Packs the opening of a session. Asked again on this connection for what it was opened for, the session is the
    /// same: what follows was meant for it.
    pub fn open(&mut self, client: ClientId, token: u64, message_bytes: usize) {
        let opened = self.guests.get(&client).and_then(|guest| guest.opened).filter(|(asked, _)| *asked == token);
        if let Some((token, session)) = opened {
            // Whoever speaks for it already may have said since that it is to be kept.
            if self.guests.get(&client).is_some_and(|guest| guest.session != Some(session)) {
                self.use_session(client, session, false);
            }
            return self.say(client, &ToClient::Opened { token, session });
        }
        self.opening.insert(token, client);
        self.guests.entry(client).or_default().named = false;
        let mut operation = Vec::new();
        SessionOperation::Open.encode(&mut operation);
        self.pack(SessionId::NONE, RequestNumber(token), RequestNumber(0), &operation, message_bytes);
    }

    /// What follows on this connection belongs to this session, which is kept where `keep` says so.
    pub fn use_session(&mut self, client: ClientId, session: SessionId, keep: bool) {
        if self.guests.get(&client).is_some_and(|guest| guest.session != Some(session)) {
            self.leave_session(client);
            self.by_session.entry(session).or_default().push(client);
        }
        if let Some(guest) = self.guests.get_mut(&client) {
            (guest.session, guest.refused) = (Some(session), None);
            (guest.attaches, guest.keep, guest.named) = (true, keep, true);
        }
    }

    /// This connection speaks for its session no longer.
    fn leave_session(&mut self, client: ClientId) {
        let Some(guest) = self.guests.get_mut(&client) else { return };
        let Some(session) = guest.session.take() else { return };
        if let Some(name) = guest.attach.take() {
            self.attendance.lose(session, name);
        }
        if let Some(speakers) = self.by_session.get_mut(&session) {
            speakers.retain(|speaker| *speaker != client);
            if speakers.is_empty() {
                self.by_session.remove(&session);
            }
        }
    }

    /// The session a request of this client is for, or why there is none.
    pub fn session_of(&self, client: ClientId) -> Result<SessionId, Refusal> {
        let session = self.guests.get(&client).and_then(|g| g.session).filter(|session| !session.is_none());
        session.ok_or_else(|| Refusal { code: Code::BadRequest, message: "no session on this connection".into() })
    }

    /// Whether an earlier request of this client was refused and has not come again. One that the client has an answer
    /// to (`seen`) never will: another copy of it was executed.
    pub fn must_wait(&mut self, client: ClientId, number: RequestNumber, seen: RequestNumber) -> Option<Refusal> {
        let refused = &mut self.guests.get_mut(&client)?.refused;
        let first = (*refused)?;
        if number <= first || first <= seen {
            // A lower number is one sent before: only the refused one ends the wait.
            *refused = Some(first).filter(|_| number < first && first > seen);
            return None;
        }
        let message = format!("request {} was refused and has not come again", first.0);
        Some(Refusal { code: Code::Busy, message })
    }

    /// Packs a request of this client, behind its attach where that is still to come.
    pub fn request(
        &mut self,
        client: ClientId,
        session: SessionId,
        number: RequestNumber,
        seen: RequestNumber,
        operation: &[u8],
        message_bytes: usize,
    ) {
        if let Some(guest) = self.guests.get_mut(&client) {
            guest.spoke = true;
            if std::mem::take(&mut guest.attaches) {
                let name = self.attendance.attach(client, session);
                guest.attach = Some(name);
                let mut attach = Vec::new();
                SessionOperation::Attach { session, keep: guest.keep }.encode(&mut attach);
                self.pack(SessionId::NONE, RequestNumber(name), RequestNumber(0), &attach, message_bytes);
            }
        }
        self.pack(session, number, seen, operation, message_bytes);
        if *operation == [service::SESSION, 2] {
            // It leaves in order: nothing is to be said of it when its connection ends.
            let guest = self.guests.entry(client).or_default();
            guest.attach = None;
            guest.opened.take_if(|(_, opened)| *opened == session);
        }
    }

    /// Packs an operation.
    pub fn pack(
        &mut self,
        session: SessionId,
        number: RequestNumber,
        seen: RequestNumber,
        operation: &[u8],
        message_bytes: usize,
    ) {
        if !self.bundler.is_empty() && self.bundler.len_with(session, number, operation) > message_bytes {
            self.close_bundle();
        }
        self.bundler.push(session, number, seen, operation);
    }

    fn close_bundle(&mut self) {
        let bundle = self.bundler.take();
        self.packed_bytes += bundle.len();
        self.packed.push_back(bundle);
    }

    /// These were packed before, each with whole operations, and may not have been ordered: they go first.
    pub fn pack_again(&mut self, uncovered: Vec<Vec<u8>>) {
        for packed in uncovered.into_iter().rev() {
            self.packed_bytes += packed.len();
            self.packed.push_front(packed);
        }
    }

    /// The next message's worth of requests.
    pub fn next_packed(&mut self) -> Option<Vec<u8>> {
        if self.packed.is_empty() && !self.bundler.is_empty() {
            self.close_bundle();
        }
        let packed = self.packed.pop_front()?;
        self.packed_bytes -= packed.len();
        Some(packed)
    }

    /// Turns a frame away.
    pub fn refuse(&mut self, client: ClientId, refused: u8, number: u64, refusal: &Refusal) {
        if refused == kind::REQUEST {
            if let Some(guest) = self.guests.get_mut(&client) {
                let number = RequestNumber(number);
                guest.refused = Some(guest.refused.map_or(number, |r| r.min(number)));
            }
        }
        let Refusal { code, message } = refusal;
        self.say(client, &ToClient::Refused { refused, number, code: *code, maybe_done: false, message });
    }

    /// Tells everyone that this replica takes nothing for now: whoever waits for an answer here may ask elsewhere.
    pub fn close(&mut self, refusal: &Refusal) {
        let greeted: Vec<ClientId> = self.guests.iter().filter(|(_, g)| g.greeted).map(|(&client, _)| client).collect();
        for client in greeted {
            self.refuse(client, kind::PING, 0, refusal);
        }
    }

    /// Answers and refusals so far, by code.
    pub fn answered(&self) -> impl Iterator<Item = (Code, u64)> + '_ {
        Code::ALL.iter().map(|&code| (code, self.answered[code as usize]))
    }

    /// Appends a frame to what the client is sent.
    pub fn say(&mut self, client: ClientId, frame: &ToClient<'_>) {
        match frame {
            ToClient::Reply { answer: [code, ..], .. } | ToClient::Found { answer: [code, ..], .. } => {
                self.answered[usize::from(*code)] += 1;
            }
            ToClient::Refused { code, .. } => self.answered[*code as usize] += 1,
            _ => {}
        }
        let guest = self.guests.entry(client).or_default();
        if guest.unsent.is_empty() {
            self.dirty.push(client);
        }
        frame.encode(&mut guest.unsent);
    }

    /// Whether much waits to be written to this client.
    pub fn set_stalled(&mut self, client: ClientId, stalled: bool) {
        if let Some(guest) = self.guests.get_mut(&client) {
            guest.stalled = stalled;
        }
    }

    /// Whether a read of this client may be answered now.
    pub fn takes_answers(&self, client: ClientId) -> bool {
        self.guests.get(&client).is_some_and(|g| !g.stalled && g.unsent.len() <= CLIENT_UNSENT_BYTES_MAX)
    }

    /// Hands the answers of applied slots to whoever waits for them here.
    pub fn answer(&mut self, replies: &Replies) {
        let mut last = (SessionId::NONE, Vec::new());
        for reply in replies.iter() {
            if reply.session.is_none() {
                self.opened(&reply);
                continue;
            }
            if reply.session != last.0 {
                last = (reply.session, self.by_session.get(&reply.session).cloned().unwrap_or_default());
            }
            let Reply { number, slot, answer, .. } = reply;
            for &client in &last.1 {
                self.say(client, &ToClient::Reply { number, slot, answer });
            }
        }
    }

    /// What became of an attach: only that there is no such session any more is told.
    fn attached(&mut self, reply: &Reply<'_>) -> bool {
        let Some((client, session)) = self.attendance.attached(reply.number.0) else { return false };
        let current = self.guests.get(&client).is_some_and(|guest| guest.session == Some(session));
        if let (true, Ok((code, text))) = (current, split(reply.answer)) {
            if code != Code::Ok {
                let message = String::from_utf8_lossy(text).into_owned();
                self.refuse(client, kind::USE, 0, &Refusal { code, message });
            }
        }
        true
    }

    fn opened(&mut self, reply: &Reply<'_>) {
        let token = reply.number.0;
        if self.attached(reply) {
            return;
        }
        let Some(client) = self.opening.remove(&token) else { return };
        if !self.guests.contains_key(&client) {
            return;
        }
        match split(reply.answer) {
            Ok((Code::Ok, fields)) => {
                let session = session(&mut Reader::new(fields)).expect("the machine writes whole session ids");
                if self.guests.get(&client).is_some_and(|guest| guest.named) {
                    // Nobody speaks for it: it ends after a grace, unless somebody will.
                    self.attendance.lose(session, token);
                } else {
                    self.use_session(client, session, false);
                    let guest = self.guests.get_mut(&client).expect("asked above");
                    (guest.attach, guest.attaches, guest.named) = (Some(token), false, false);
                }
                let guest = self.guests.get_mut(&client).expect("asked above");
                guest.opened = Some((token, session));
                self.say(client, &ToClient::Opened { token, session });
            }
            Ok((code, text)) => {
                let message = String::from_utf8_lossy(text).into_owned();
                self.refuse(client, kind::OPEN, token, &Refusal { code, message });
            }
            Err(_) => {}
        }
    }

    /// Turns away the openings under way: one that is applied all the same only leaves an empty session behind.
    pub fn refuse_openings(&mut self, refusal: &Refusal) {
        for (token, client) in std::mem::take(&mut self.opening) {
            self.refuse(client, kind::OPEN, token, refusal);
        }
    }

    /// The connection is gone. What it sent is executed all the same.
    pub fn gone(&mut self, client: ClientId) {
        self.leave_session(client);
        let unsent = self.guests.remove(&client).map(|guest| guest.unsent);
        self.last_words.extend(unsent.filter(|unsent| !unsent.is_empty()).map(|unsent| (client, unsent)));
        self.attendance.forget(client);
        self.opening.retain(|_, opener| *opener != client);
    }

    /// Whether any connection speaks for a session.
    pub fn has_speakers(&self) -> bool {
        !self.by_session.is_empty()
    }

    /// The sessions that are attached here and asked for nothing since this was asked last.
    pub fn take_quiet(&mut self) -> Vec<SessionId> {
        let attached = self.guests.values_mut().filter(|guest| guest.attach.is_some());
        attached.filter_map(|guest| guest.session.filter(|_| !std::mem::take(&mut guest.spoke))).collect()
    }

    /// What every client is to be sent, once a turn.
    pub fn take_unsent(&mut self, out: &mut Vec<(ClientId, Vec<u8>)>) {
        out.append(&mut self.last_words);
        for client in std::mem::take(&mut self.dirty) {
            if let Some(guest) = self.guests.get_mut(&client).filter(|g| !g.unsent.is_empty()) {
                out.push((client, std::mem::take(&mut guest.unsent)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::machine::Machine;
    use crate::types::{GroupTime, Slot};
    use crate::wire::bundle::Bundle;
    use crate::wire::client::first_frame;
    use crate::wire::operation::QueueOperation;

    const ROOM: usize = 1000;
    const A: ClientId = ClientId(1);
    const B: ClientId = ClientId(2);

    /// A door, and a state to which everything packed is applied.
    struct Bench {
        door: Door,
        machine: Option<Machine>,
    }

    impl Default for Bench {
        fn default() -> Bench {
            Bench { door: Door::new(1), machine: None }
        }
    }

    impl Bench {
        /// Applies all that is packed and hands the answers to the door.
        fn apply(&mut self) {
            let machine = self.machine.get_or_insert_with(Machine::new);
            let mut operations = Vec::new();
            while let Some(packed) = self.door.next_packed() {
                operations.extend(packed);
            }
            let (slot, mut replies) = (machine.applied().next(), Replies::default());
            machine.apply(slot, GroupTime(slot.0), &operations, &mut replies);
            self.door.answer(&replies);
        }

        /// What everybody was sent since, in words.
        fn heard(&mut self) -> Vec<(ClientId, String)> {
            let (mut out, mut heard) = (Vec::new(), Vec::new());
            self.door.take_unsent(&mut out);
            for (client, bytes) in out {
                let mut rest = &bytes[..];
                while let Ok(Some((frame, used))) = first_frame(rest) {
                    let said = match ToClient::decode(frame).expect("a frame") {
                        ToClient::Welcome { .. } => "welcome".into(),
                        ToClient::Opened { token, .. } => format!("opened {token}"),
                        ToClient::Reply { number, answer, .. } => format!("reply {} {}", number.0, answer[0]),
                        ToClient::Refused { refused, number, code, maybe_done: false, .. } => {
                            format!("refused {refused} {number} {}", code.name())
                        }
                        frame => format!("{frame:?}"),
                    };
                    heard.push((client, said));
                    rest = &rest[used..];
                }
            }
            heard
        }

        fn opened(&mut self, client: ClientId) -> SessionId {
            assert!(self.door.hello(client, VERSION, ClusterId(1), ReplicaId(1)));
            self.door.open(client, client.0, ROOM);
            self.apply();
            self.heard();
            self.door.session_of(client).expect("just opened")
        }

        fn request(&mut self, session: SessionId, number: u64) {
            let mut operation = Vec::new();
            QueueOperation::Create { label: "jobs" }.encode(&mut operation);
            self.door.pack(session, RequestNumber(number), RequestNumber(0), &operation, ROOM);
        }

        fn must_wait(&mut self, client: ClientId, number: u64) -> bool {
            self.door.must_wait(client, RequestNumber(number), RequestNumber(0)).is_some()
        }

        fn refuse(&mut self, client: ClientId, number: u64) {
            let refusal = Refusal { code: Code::Full, message: "no".into() };
            self.door.refuse(client, kind::REQUEST, number, &refusal);
        }
    }

    fn said(client: ClientId, words: &str) -> (ClientId, String) {
        (client, words.into())
    }

    #[test]
    fn it_welcomes_who_speaks_its_version() {
        let mut bench = Bench::default();
        assert!(!bench.door.hello(A, VERSION + 1, ClusterId(1), ReplicaId(1)));
        assert!(!bench.door.is_greeted(A));
        assert_eq!(bench.heard(), [said(A, "refused 1 0 version")]);
        assert!(bench.door.hello(A, VERSION, ClusterId(1), ReplicaId(1)));
        assert!(bench.door.is_greeted(A) && !bench.door.is_greeted(B));
        assert_eq!(bench.heard(), [said(A, "welcome")]);
        assert_eq!(bench.heard(), [], "said once");
        // Its bytes and the end of its half may come together.
        assert!(!bench.door.hello(B, VERSION + 1, ClusterId(1), ReplicaId(1)));
        bench.door.gone(B);
        assert_eq!(bench.heard(), [said(B, "refused 1 0 version")]);
        assert_eq!(bench.heard(), [], "said once");
        assert_eq!(bench.door.session_of(A).map_err(|r| r.code), Err(Code::BadRequest));
    }

    #[test]
    fn answers_go_to_all_who_speak_for_the_session() {
        let mut bench = Bench::default();
        let (session, other) = (bench.opened(A), bench.opened(B));
        bench.request(session, 1);
        bench.request(other, 1);
        bench.request(session, 2);
        bench.apply();
        assert_eq!(bench.heard(), [said(A, "reply 1 0"), said(A, "reply 2 0"), said(B, "reply 1 0")]);
        bench.request(session, 3);
        bench.door.use_session(B, session, false);
        bench.apply();
        assert_eq!(bench.heard(), [said(A, "reply 3 0"), said(B, "reply 3 0")], "nobody can tell which is the old one");
        // The first takes another and is gone: the session stays with the second.
        bench.door.use_session(A, other, false);
        bench.door.gone(A);
        bench.request(session, 4);
        bench.apply();
        assert_eq!(bench.heard(), [said(B, "reply 4 0")]);
    }

    #[test]
    fn openings_find_their_asker_by_token() {
        let mut bench = Bench::default();
        for client in [A, B] {
            assert!(bench.door.hello(client, VERSION, ClusterId(1), ReplicaId(1)));
            bench.door.open(client, 70 + client.0, ROOM);
        }
        bench.heard();
        bench.apply();
        assert_eq!(bench.heard(), [said(A, "opened 71"), said(B, "opened 72")]);
        let (a, b) = (bench.door.session_of(A).expect("open"), bench.door.session_of(B).expect("open"));
        assert!(a != b && a.slot == Slot(1));
    }

    #[test]
    fn asked_again_for_what_was_opened_it_is_the_same_session() {
        let mut bench = Bench::default();
        let (first, other) = (bench.opened(A), bench.opened(B));
        // An impatient client's second asking, which was on its way: what follows on it is meant for the first session.
        bench.door.open(A, A.0, ROOM);
        assert_eq!(bench.heard(), [said(A, "opened 1")], "at once");
        bench.apply();
        assert_eq!((bench.heard(), bench.door.session_of(A)), (vec![], Ok(first)));
        // It is kept where that was said meanwhile.
        bench.door.use_session(A, first, true);
        bench.door.open(A, A.0, ROOM);
        assert!(bench.door.guests[&A].keep && bench.door.guests[&A].attaches);
        bench.heard();
        // Also where the connection speaks for another meanwhile; another token is another session.
        bench.door.use_session(A, other, false);
        bench.door.open(A, A.0, ROOM);
        assert_eq!((bench.heard(), bench.door.session_of(A)), (vec![said(A, "opened 1")], Ok(first)));
        bench.door.open(A, 70, ROOM);
        bench.apply();
        assert_eq!(bench.heard(), [said(A, "opened 70")]);
        assert!(bench.door.session_of(A).is_ok_and(|session| session != first));
    }

    /// The last word of a connection counts.
    #[test]
    fn a_session_named_behind_an_opening_under_way_is_the_one_that_is_spoken_for() {
        let mut bench = Bench::default();
        let other = bench.opened(B);
        assert!(bench.door.hello(A, VERSION, ClusterId(1), ReplicaId(1)));
        bench.door.open(A, A.0, ROOM);
        bench.door.use_session(A, other, false);
        bench.apply();
        assert_eq!(bench.door.session_of(A), Ok(other));
    }

    /// A session that was ended on this connection is not told as one that is open.
    #[test]
    fn an_opening_behind_the_end_of_its_session_is_another() {
        let mut bench = Bench::default();
        let first = bench.opened(A);
        bench.door.request(A, first, RequestNumber(1), RequestNumber(0), &[0, 2], ROOM);
        bench.apply();
        bench.door.open(A, A.0, ROOM);
        bench.apply();
        assert_ne!(bench.door.session_of(A), Ok(first));
    }

    #[test]
    fn an_opening_that_was_turned_away_is_answered_once() {
        let mut bench = Bench::default();
        assert!(bench.door.hello(A, VERSION, ClusterId(1), ReplicaId(1)));
        bench.door.open(A, 71, ROOM);
        bench.heard();
        bench.door.refuse_openings(&Refusal { code: Code::NotPrimary, message: "no".into() });
        assert_eq!(bench.heard(), [said(A, "refused 2 71 not-primary")]);
        bench.apply();
        assert_eq!(bench.heard(), [], "the session is left behind, empty");
        assert!(bench.door.session_of(A).is_err());
    }

    #[test]
    fn what_a_gone_client_sent_is_executed_and_answered_to_nobody() {
        let mut bench = Bench::default();
        let session = bench.opened(A);
        bench.door.open(A, 99, ROOM);
        bench.request(session, 1);
        bench.door.gone(A);
        bench.door.gone(A);
        assert!(bench.door.pending_bytes() > 0);
        bench.apply();
        assert_eq!((bench.heard(), bench.door.guests()), (vec![], 0));
        // On another connection the same request gets the stored answer.
        assert!(bench.door.hello(B, VERSION, ClusterId(1), ReplicaId(1)));
        bench.door.use_session(B, session, false);
        bench.request(session, 1);
        bench.apply();
        assert_eq!(bench.heard(), [said(B, "welcome"), said(B, "reply 1 0")]);
        assert!(bench.door.opening.is_empty());
    }

    #[test]
    fn after_a_refusal_higher_numbers_wait_until_the_refused_one_returns() {
        let mut bench = Bench::default();
        bench.opened(A);
        assert!(!bench.must_wait(A, 5));
        bench.refuse(A, 5);
        assert!(bench.must_wait(A, 6));
        bench.refuse(A, 6);
        assert!(bench.must_wait(A, 7), "5 has not come again");
        assert!(!bench.must_wait(A, 3), "what is lower was never refused");
        assert!(bench.must_wait(A, 6), "and 5 has still not come again");
        assert!(!bench.must_wait(A, 5));
        bench.refuse(A, 5);
        assert!(bench.must_wait(A, 6), "5 was refused again");
        assert!(!bench.must_wait(A, 5));
        assert!(!bench.must_wait(A, 6));
        assert!(!bench.must_wait(B, 9), "another client waits for nothing");
        bench.refuse(A, 8);
        assert!(bench.must_wait(A, 9));
        let seen = |bench: &mut Bench, seen| bench.door.must_wait(A, RequestNumber(9), RequestNumber(seen)).is_some();
        assert!(seen(&mut bench, 7));
        assert!(!seen(&mut bench, 8), "another copy of it was executed");
        assert!(!bench.must_wait(A, 9));
        assert_eq!(bench.heard()[..2], [said(A, "refused 4 5 full"), said(A, "refused 4 6 full")]);
    }

    #[test]
    fn a_refused_query_or_a_new_session_holds_nothing_back() {
        let mut bench = Bench::default();
        let session = bench.opened(A);
        let refusal = Refusal { code: Code::Busy, message: "no".into() };
        bench.door.refuse(A, kind::QUERY, 1, &refusal);
        assert!(!bench.must_wait(A, 2));
        bench.refuse(A, 1);
        assert!(bench.must_wait(A, 2));
        bench.door.use_session(A, session, false);
        assert!(!bench.must_wait(A, 2));
    }

    #[test]
    fn who_does_not_read_gets_no_more_answers_for_now() {
        let mut bench = Bench::default();
        bench.opened(A);
        assert!(bench.door.takes_answers(A) && !bench.door.takes_answers(B));
        bench.door.set_stalled(A, true);
        assert!(!bench.door.takes_answers(A));
        bench.door.set_stalled(A, false);
        let answer = vec![0; CLIENT_UNSENT_BYTES_MAX];
        bench.door.say(A, &ToClient::Found { number: 1, slot: Slot(1), answer: &answer });
        assert!(!bench.door.takes_answers(A));
        bench.door.take_unsent(&mut Vec::new());
        assert!(bench.door.takes_answers(A));
    }

    #[test]
    fn requests_are_packed_in_order_into_messages_that_fit() {
        let mut bench = Bench::default();
        let session = bench.opened(A);
        (1..=200).for_each(|number| bench.request(session, number));
        let (mut number, mut pending) = (0, bench.door.pending_bytes());
        while let Some(packed) = bench.door.next_packed() {
            assert!(packed.len() <= ROOM);
            pending -= packed.len();
            assert_eq!(bench.door.pending_bytes(), pending);
            let mut r = Reader::new(&packed);
            while !r.is_empty() {
                for (found, _) in Bundle::decode(&mut r).expect("whole bundles").operations() {
                    number += 1;
                    assert_eq!(found, RequestNumber(number));
                }
            }
        }
        assert_eq!((number, pending), (200, 0));
        let large = vec![0; 3 * ROOM];
        bench.request(session, 201);
        bench.door.pack(session, RequestNumber(202), RequestNumber(0), &large, ROOM);
        bench.request(session, 203);
        let lengths: Vec<bool> = std::iter::from_fn(|| bench.door.next_packed()).map(|p| p.len() > ROOM).collect();
        assert_eq!(lengths, [false, true, false], "one that is too large goes alone");
    }
}
