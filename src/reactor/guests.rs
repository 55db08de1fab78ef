//! Clients that send single datagrams (DESIGN 9): to the core each is a client like those with a connection, known by
//! the address it sends from. Whoever has been quiet for long is gone. Every datagram gets at most one, and no answer
//! is longer than its request; without a key only this host is answered, unless the operator allows others.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;

use crate::limits::{GUESTS_MAX, GUEST_IDLE_MS, GUEST_PASSING_MS, GUEST_PENDING_MAX};
use crate::replica::Input;
use crate::types::{ClientId, SessionId, Time};
use crate::wire::answer::{split, Code};
use crate::wire::client::{first_frame, kind, ToClient, ToReplica, VERSION};
use crate::wire::client_datagram::{
    answered, asked, encode_answer, encode_refusal, Request, Subject, ANSWER_HEADER_BYTES,
};

/// The highest bits of their names, which connections and the HTTP door never have.
const GUEST: u64 = 1 << 62;
const SWEEP_EVERY_MS: u64 = 1_000;

/// What became of datagrams, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    pub taken: u64,
    pub answered: u64,
    /// From other hosts, which are not allowed.
    pub strangers: u64,
    pub malformed: u64,
    /// While the replica had enough to do.
    pub busy: u64,
    /// The answer was longer than its request.
    pub too_long: u64,
    /// Answers that nobody waited for.
    pub unasked: u64,
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counters { taken, answered, strangers, malformed, busy, too_long, unasked } = self;
        write!(
            f,
            "{taken} taken, {answered} answered, {too_long} of them too long; dropped: {strangers} of strangers, "
        )?;
        write!(f, "{malformed} malformed, {busy} while busy; {unasked} answers unasked for")
    }
}

#[derive(Debug)]
struct Guest {
    client: ClientId,
    /// For which it speaks, and whether that is kept.
    session: Option<(SessionId, bool)>,
    heard: Time,
    /// What is unanswered, and how long each answer may be.
    pending: Vec<(Subject, usize)>,
}

/// All of them.
#[derive(Debug)]
pub struct Guests {
    /// Other hosts are answered, too.
    open: bool,
    table: HashMap<SocketAddr, Guest>,
    addresses: HashMap<ClientId, SocketAddr>,
    serial: u64,
    gone: Vec<ClientId>,
    answers: Vec<(SocketAddr, Vec<u8>)>,
    sweep_at: Time,
    pub counters: Counters,
}

impl Guests {
    pub fn new(open: bool) -> Guests {
        Guests {
            open,
            table: HashMap::new(),
            addresses: HashMap::new(),
            serial: 0,
            gone: Vec::new(),
            answers: Vec::new(),
            sweep_at: Time(0),
            counters: Counters::default(),
        }
    }

    /// Whether a client is one of these.
    pub fn is_guest(client: ClientId) -> bool {
        client.0 >> 62 == 1
    }

    pub fn count(&self) -> usize {
        self.table.len()
    }

    /// When the quiet ones are looked for.
    pub fn deadline(&self) -> Option<Time> {
        (!self.table.is_empty()).then_some(self.sweep_at)
    }

    /// Something is to be handed over at once.
    pub fn has_more(&self) -> bool {
        !self.gone.is_empty()
    }

    /// Those that have gone since last asked.
    pub fn take_gone(&mut self) -> Vec<ClientId> {
        std::mem::take(&mut self.gone)
    }

    /// What is to be sent.
    pub fn take_answers(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.answers)
    }

    /// Takes a datagram of a client, and hands over what it says.
    pub fn on_datagram(
        &mut self,
        now: Time,
        from: SocketAddr,
        bytes: &[u8],
        accepts: bool,
        mut hand_over: impl FnMut(Input<'_>),
    ) {
        if !self.open && !from.ip().to_canonical().is_loopback() {
            self.counters.strangers += 1;
            return;
        }
        let Ok(request) = Request::decode(bytes) else {
            self.counters.malformed += 1;
            return;
        };
        if let Err((code, message)) = check(&request) {
            self.counters.malformed += 1;
            return self.refuse(from, (request.frame[0], 0), code, message, bytes.len());
        }
        let frame = ToReplica::decode(request.frame).expect("checked");
        let subject = asked(&frame).expect("checked");
        if !accepts {
            self.counters.busy += 1;
            return;
        }
        let is_new = !self.table.contains_key(&from);
        if is_new && self.table.len() >= GUESTS_MAX {
            self.counters.busy += 1;
            return self.refuse(from, subject, Code::Busy, "too many clients send datagrams", bytes.len());
        }
        self.counters.taken += 1;
        let guest = self.guest(from);
        guest.heard = now;
        let client = guest.client;
        let mut own = Vec::new();
        if is_new && subject.0 != kind::HELLO {
            ToReplica::Hello { version: VERSION }.encode(&mut own);
            hand_over(Input::Frame { client, frame: &own[4..] });
        }
        // What is opened is spoken for from then on: whatever is asked next names its session again.
        if subject.0 == kind::OPEN {
            guest.session = None;
        }
        let session = (request.session, request.keep);
        if subject.0 == kind::REQUEST && guest.session != Some(session) {
            guest.session = Some(session);
            guest.pending.clear();
            own.clear();
            ToReplica::Use { session: request.session, keep: request.keep }.encode(&mut own);
            hand_over(Input::Frame { client, frame: &own[4..] });
        }
        guest.pending.retain(|(pending, _)| *pending != subject);
        if guest.pending.len() == GUEST_PENDING_MAX {
            guest.pending.remove(0);
        }
        guest.pending.push((subject, bytes.len()));
        if self.sweep_at < now {
            self.sweep_at = now.after_ns(SWEEP_EVERY_MS * Time::MS);
        }
        hand_over(Input::Frame { client, frame: request.frame });
    }

    fn guest(&mut self, from: SocketAddr) -> &mut Guest {
        let Guests { table, addresses, serial, .. } = self;
        table.entry(from).or_insert_with(|| {
            *serial += 1;
            let client = ClientId(GUEST | *serial);
            addresses.insert(client, from);
            Guest { client, session: None, heard: Time(0), pending: Vec::new() }
        })
    }

    fn refuse(&mut self, to: SocketAddr, (refused, number): Subject, code: Code, message: &str, room: usize) {
        let refusal = ToClient::Refused { refused, number, code, maybe_done: false, message };
        self.answers.extend(encode_refusal(&refusal, 0, room).map(|bytes| (to, bytes)));
    }

    /// Takes frames that the core has for a client: those that were asked for become answers.
    pub fn queue(&mut self, client: ClientId, frames: &[u8]) {
        let Some(&address) = self.addresses.get(&client) else { return };
        let Some(guest) = self.table.get_mut(&address) else { return };
        let (mut rest, mut expired) = (frames, false);
        while let Ok(Some((frame, taken))) = first_frame(rest) {
            let whole = &rest[..taken];
            rest = &rest[taken..];
            let Ok(told) = ToClient::decode(frame) else { continue };
            if matches!(told, ToClient::Opened { .. }) {
                guest.session = None;
            }
            let subject = answered(&told);
            let Some(at) = guest.pending.iter().position(|(pending, _)| *pending == subject) else {
                self.counters.unasked += 1;
                continue;
            };
            let (_, room) = guest.pending.remove(at);
            expired |= is_expired(&told);
            let answer = if ANSWER_HEADER_BYTES + whole.len() <= room {
                Some(encode_answer(whole))
            } else {
                self.counters.too_long += 1;
                too_long(&told, subject, ANSWER_HEADER_BYTES + whole.len(), room)
            };
            self.counters.answered += u64::from(answer.is_some());
            self.answers.extend(answer.map(|bytes| (address, bytes)));
        }
        if expired {
            self.hang_up(client);
        }
    }

    /// The core wants no more of it: what it sends next begins anew.
    pub fn hang_up(&mut self, client: ClientId) {
        if let Some(address) = self.addresses.remove(&client) {
            self.table.remove(&address);
            self.gone.push(client);
        }
    }

    /// Those who have been quiet for long are gone.
    pub fn expire(&mut self, now: Time) {
        if self.table.is_empty() || now < self.sweep_at {
            return;
        }
        self.sweep_at = now.after_ns(SWEEP_EVERY_MS * Time::MS);
        let idle_ms = |guest: &Guest| if guest.session.is_some() { GUEST_IDLE_MS } else { GUEST_PASSING_MS };
        let is_over = |guest: &&Guest| now >= guest.heard.after_ns(idle_ms(guest) * Time::MS);
        let over: Vec<ClientId> = self.table.values().filter(is_over).map(|guest| guest.client).collect();
        over.into_iter().for_each(|client| self.hang_up(client));
    }
}

/// Whether a datagram says something that the core may be handed.
fn check(request: &Request<'_>) -> Result<(), (Code, &'static str)> {
    if request.version != VERSION {
        return Err((Code::Version, "this replica speaks another version"));
    }
    match ToReplica::decode(request.frame) {
        Ok(ToReplica::Use { .. }) => Err((Code::BadRequest, "a datagram names its session itself")),
        Ok(ToReplica::Hello { version }) if version != VERSION => {
            Err((Code::Version, "this replica speaks another version"))
        }
        Ok(ToReplica::Request { .. }) if request.session.is_none() => {
            Err((Code::BadRequest, "a request needs a session"))
        }
        Ok(_) => Ok(()),
        Err(_) => Err((Code::BadRequest, "this is not a frame of this protocol")),
    }
}

/// Whether the session that was asked in is no more.
fn is_expired(told: &ToClient<'_>) -> bool {
    match told {
        ToClient::Reply { answer, .. } => matches!(split(answer), Ok((Code::Expired, _))),
        ToClient::Refused { code, .. } => *code == Code::Expired,
        _ => false,
    }
}

/// In place of an answer that is too long: a request was executed, and its answer is kept under its number. A refusal
/// is one all the same, with less to say.
fn too_long(told: &ToClient<'_>, (refused, number): Subject, needed: usize, room: usize) -> Option<Vec<u8>> {
    if matches!(told, ToClient::Refused { .. }) {
        return encode_refusal(told, 0, room);
    }
    let message = format!("the answer has {needed} bytes: send this again, as long as that");
    let (code, maybe_done) = (Code::TooLarge, refused == kind::REQUEST);
    let refusal = ToClient::Refused { refused, number, code, maybe_done, message: &message };
    encode_refusal(&refusal, needed, room)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ClusterId, ReplicaId, RequestNumber, Slot};
    use crate::wire::client_datagram::{decode_answer, encode_request};
    use quickcheck::quickcheck;

    const SESSION: SessionId = SessionId { slot: Slot(1), position: 2, digest: 3 };

    fn here(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn datagram(session: SessionId, frame: &ToReplica<'_>, bytes: usize) -> Vec<u8> {
        let (mut body, mut out) = (Vec::new(), Vec::new());
        frame.encode(&mut body);
        encode_request(&mut out, session, false, &body, bytes);
        out
    }

    fn request(number: u64, bytes: usize) -> Vec<u8> {
        let (number, seen) = (RequestNumber(number), RequestNumber(0));
        datagram(SESSION, &ToReplica::Request { number, seen, operation: b"x" }, bytes)
    }

    fn framed(frame: &ToClient<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        bytes
    }

    /// The kinds of the frames that were handed over, and the client.
    fn handed(guests: &mut Guests, at: u64, from: SocketAddr, bytes: &[u8]) -> (Vec<u8>, Option<ClientId>) {
        let (mut kinds, mut name) = (Vec::new(), None);
        guests.on_datagram(Time(at), from, bytes, true, |input| match input {
            Input::Frame { client, frame } => {
                kinds.push(frame[0]);
                name = Some(client);
            }
            other => panic!("{other:?}"),
        });
        (kinds, name)
    }

    /// The one answer: the bytes needed, and the frame.
    fn answer(guests: &mut Guests) -> (u32, Vec<u8>) {
        let answers = guests.take_answers();
        assert_eq!(answers.len(), 1, "{answers:?}");
        let (needed, frame) = decode_answer(&answers[0].1).expect("our own");
        (needed, frame.to_vec())
    }

    #[test]
    fn a_client_is_greeted_once_and_answered_once() {
        let mut guests = Guests::new(false);
        let (kinds, client) = handed(&mut guests, 1, here(1), &request(1, 100));
        assert_eq!(kinds, [kind::HELLO, kind::USE, kind::REQUEST]);
        let client = client.expect("handed over");
        assert!(Guests::is_guest(client));
        assert_eq!(handed(&mut guests, 2, here(1), &request(2, 100)), (vec![kind::REQUEST], Some(client)));
        assert_ne!(handed(&mut guests, 2, here(2), &request(1, 100)).1, Some(client));
        // A greeting that nobody asked for, and the same answer twice: one datagram.
        let welcome = ToClient::Welcome { version: VERSION, cluster: ClusterId(1), replica: ReplicaId(1) };
        let reply = framed(&ToClient::Reply { number: RequestNumber(2), slot: Slot(5), answer: &[0] });
        guests.queue(client, &[framed(&welcome), reply.clone(), reply.clone()].concat());
        assert_eq!(answer(&mut guests), (0, reply));
        assert_eq!(guests.counters.unasked, 2);
    }

    #[test]
    fn an_answer_longer_than_its_request_says_so() {
        let mut guests = Guests::new(false);
        let client = handed(&mut guests, 1, here(1), &request(1, 60)).1.expect("handed over");
        let reply = framed(&ToClient::Reply { number: RequestNumber(1), slot: Slot(5), answer: &[0; 200] });
        guests.queue(client, &reply);
        let (needed, frame) = answer(&mut guests);
        assert_eq!(needed as usize, ANSWER_HEADER_BYTES + reply.len());
        assert!(ANSWER_HEADER_BYTES + frame.len() <= 60);
        let told = ToClient::decode(&frame[4..]);
        assert!(matches!(told, Ok(ToClient::Refused { code: Code::TooLarge, maybe_done: true, .. })), "{told:?}");
        handed(&mut guests, 2, here(1), &request(1, needed as usize));
        guests.queue(client, &reply);
        assert_eq!(answer(&mut guests), (0, reply));
    }

    #[test]
    fn what_makes_no_sense_is_told_and_not_handed_over() {
        let mut guests = Guests::new(false);
        let hello = datagram(SessionId::NONE, &ToReplica::Hello { version: 9 }, 100);
        let without = datagram(
            SessionId::NONE,
            &ToReplica::Request { number: RequestNumber(1), seen: RequestNumber(0), operation: b"x" },
            100,
        );
        let uses = datagram(SESSION, &ToReplica::Use { session: SESSION, keep: true }, 100);
        let mut newer = request(1, 100);
        newer[5] = 9;
        for (bytes, code) in
            [(hello, Code::Version), (without, Code::BadRequest), (uses, Code::BadRequest), (newer, Code::Version)]
        {
            assert!(handed(&mut guests, 1, here(1), &bytes).0.is_empty());
            let (_, frame) = answer(&mut guests);
            assert!(matches!(ToClient::decode(&frame[4..]), Ok(ToClient::Refused { code: told, .. }) if told == code));
        }
        let far = SocketAddr::from(([10, 0, 0, 1], 1));
        assert!(handed(&mut guests, 1, far, &request(1, 100)).0.is_empty());
        assert_eq!((guests.counters.strangers, guests.take_answers().len(), guests.count()), (1, 0, 0));
        assert_eq!(handed(&mut Guests::new(true), 1, far, &request(1, 100)).0.len(), 3);
    }

    #[test]
    fn the_quiet_and_the_expired_are_gone_and_the_table_is_bounded() {
        let mut guests = Guests::new(false);
        let client = handed(&mut guests, 1, here(1), &request(1, 100)).1.expect("handed over");
        let passing = handed(&mut guests, 1, here(2), &datagram(SESSION, &ToReplica::Ping { number: 1 }, 0)).1;
        guests.expire(Time(1).after_ns(GUEST_PASSING_MS * Time::MS));
        assert_eq!(guests.take_gone(), [passing.expect("handed over")]);
        guests.expire(Time(1).after_ns(GUEST_IDLE_MS * Time::MS));
        assert_eq!((guests.take_gone(), guests.count(), guests.deadline()), (vec![client], 0, None));
        let client = handed(&mut guests, 1, here(1), &request(1, 100)).1.expect("handed over");
        let expired = crate::wire::answer::error(Code::Expired, "gone");
        guests.queue(client, &framed(&ToClient::Reply { number: RequestNumber(1), slot: Slot(1), answer: &expired }));
        assert_eq!((guests.take_gone(), guests.take_answers().len()), (vec![client], 1));
        for port in 0..GUESTS_MAX as u16 {
            handed(&mut guests, 1, here(port), &request(1, 100));
        }
        assert!(handed(&mut guests, 1, here(60_000), &request(1, 100)).0.is_empty());
        assert_eq!((guests.count(), guests.take_answers().len()), (GUESTS_MAX, 1));
        for number in 0..1000 {
            handed(&mut guests, 1, here(1), &request(number, 100));
        }
        assert!(guests.table[&here(1)].pending.len() <= GUEST_PENDING_MAX);
    }

    /// The door behind the table, and a state to which all is applied.
    struct Behind {
        guests: Guests,
        door: crate::replica::door::Door,
        machine: crate::replica::machine::Machine,
        /// The sessions under which requests were let in.
        asked: Vec<SessionId>,
    }

    impl Behind {
        fn new() -> Behind {
            let (door, machine) = (crate::replica::door::Door::new(1), crate::replica::machine::Machine::new());
            Behind { guests: Guests::new(false), door, machine, asked: Vec::new() }
        }

        fn say(&mut self, session: SessionId, frame: &ToReplica<'_>) {
            let Behind { guests, door, asked, .. } = self;
            guests.on_datagram(Time(1), here(1), &datagram(session, frame, 500), true, |input| {
                let Input::Frame { client, frame } = input else { panic!("{input:?}") };
                match ToReplica::decode(frame).expect("checked") {
                    ToReplica::Hello { version } => assert!(door.hello(client, version, ClusterId(1), ReplicaId(1))),
                    ToReplica::Open { token } => door.open(client, token, 1000),
                    ToReplica::Use { session, keep } => door.use_session(client, session, keep),
                    ToReplica::Request { .. } => asked.push(door.session_of(client).expect("it has one")),
                    other => panic!("{other:?}"),
                }
            });
        }

        fn open(&mut self, token: u64) {
            self.say(SessionId::NONE, &ToReplica::Open { token });
        }

        /// The session under which the request is let in.
        fn request(&mut self, session: SessionId, number: u64) -> SessionId {
            let (number, seen) = (RequestNumber(number), RequestNumber(0));
            self.say(session, &ToReplica::Request { number, seen, operation: b"x" });
            *self.asked.last().expect("it was let in")
        }

        /// Applies all that is packed; gives what was opened.
        fn apply(&mut self) -> Option<SessionId> {
            let (mut operations, mut replies) = (Vec::new(), crate::replica::machine::Replies::default());
            while let Some(packed) = self.door.next_packed() {
                operations.extend(packed);
            }
            let slot = self.machine.applied().next();
            self.machine.apply(slot, crate::types::GroupTime(slot.0), &operations, &mut replies);
            self.door.answer(&replies);
            let (mut out, mut opened) = (Vec::new(), None);
            self.door.take_unsent(&mut out);
            for (client, bytes) in out {
                self.guests.queue(client, &bytes);
                let mut rest = &bytes[..];
                while let Ok(Some((frame, taken))) = first_frame(rest) {
                    if let Ok(ToClient::Opened { session, .. }) = ToClient::decode(frame) {
                        opened = Some(session);
                    }
                    rest = &rest[taken..];
                }
            }
            opened
        }
    }

    /// A datagram names its session itself, and is executed in no other.
    #[test]
    fn a_late_copy_of_an_opening_moves_no_request_to_another_session() {
        let mut behind = Behind::new();
        behind.open(7);
        let seven = behind.apply().expect("opened");
        behind.open(8);
        let eight = behind.apply().expect("opened");
        assert_eq!(behind.request(eight, 1), eight);
        // The network brings the first opening again.
        behind.open(7);
        behind.apply();
        assert_eq!((behind.request(eight, 2), seven == eight), (eight, false));
    }

    #[test]
    fn an_opening_asked_for_again_moves_no_request_to_its_session() {
        let mut behind = Behind::new();
        behind.open(7);
        behind.apply().expect("opened");
        // Another replica was asked as well, and answered first.
        assert_eq!(behind.request(SESSION, 1), SESSION);
        behind.open(7);
        assert_eq!(behind.request(SESSION, 2), SESSION);
    }

    #[test]
    fn an_opening_that_comes_about_late_moves_no_request_to_its_session() {
        let mut behind = Behind::new();
        behind.open(7);
        // Another replica was asked as well, and answered first.
        assert_eq!(behind.request(SESSION, 1), SESSION);
        behind.apply().expect("opened");
        assert_eq!(behind.request(SESSION, 2), SESSION);
    }

    quickcheck! {
        fn no_answer_is_longer_than_its_request(bytes: Vec<u8>, cut: u8, at: u8, xor: u8) -> bool {
            let mut guests = Guests::new(false);
            let mut whole = request(1, 0);
            whole.extend_from_slice(&bytes);
            let length = whole.len();
            whole[usize::from(at) % length] ^= xor;
            whole.truncate(length.saturating_sub(usize::from(cut) % 8));
            guests.on_datagram(Time(1), here(1), &whole, true, |_| ());
            guests.take_answers().iter().all(|(_, answer)| answer.len() <= whole.len())
        }
    }
}
