//! The door: the clients of this replica, whose sessions they speak for, and what of theirs waits to be ordered.
//!
//! Whoever is let in is packed; whoever is not is told why, and that nothing was done. After a refusal the higher
//! numbers of that client are refused until the refused one returns, so that a pipeline is never reordered.

use std::collections::{BTreeMap, VecDeque};

use crate::replica::machine::{Replies, Reply};
use crate::types::{ClientId, ClusterId, ReplicaId, RequestNumber, SessionId};
use crate::wire::answer::{split, Code};
use crate::wire::bundle::{session, Bundler};
use crate::wire::client::{kind, ToClient, VERSION};
use crate::wire::codec::Reader;
use crate::wire::operation::SessionOperation;

/// One connection.
#[derive(Debug, Default)]
struct Guest {
    greeted: bool,
    session: Option<SessionId>,
    /// The lowest request that was refused and has not come again.
    refused: Option<RequestNumber>,
    unsent: Vec<u8>,
}

/// Why a request is turned away: certainly not done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub code: Code,
    pub message: String,
}

#[derive(Debug, Default)]
pub struct Door {
    guests: BTreeMap<ClientId, Guest>,
    by_session: BTreeMap<SessionId, ClientId>,
    /// Openings under way, by token.
    opening: BTreeMap<u64, ClientId>,
    bundler: Bundler,
    /// Whole bundles, each to become one message (or several, where one operation is larger).
    packed: VecDeque<Vec<u8>>,
    packed_bytes: usize,
    /// Guests with something to be sent.
    dirty: Vec<ClientId>,
}

impl Door {
    pub fn guests(&self) -> usize {
        self.guests.len()
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

    /// Packs the opening of a session.
    pub fn open(&mut self, client: ClientId, token: u64, message_bytes: usize) {
        self.opening.insert(token, client);
        let mut operation = Vec::new();
        SessionOperation::Open.encode(&mut operation);
        self.pack(SessionId::NONE, RequestNumber(token), RequestNumber(0), &operation, message_bytes);
    }

    /// What follows on this connection belongs to this session.
    pub fn use_session(&mut self, client: ClientId, session: SessionId) {
        if let Some(guest) = self.guests.get_mut(&client) {
            // Another client may have taken the old one over.
            if let Some(old) = guest.session.replace(session).filter(|s| self.by_session.get(s) == Some(&client)) {
                self.by_session.remove(&old);
            }
            guest.refused = None;
            self.by_session.insert(session, client);
        }
    }

    /// The session a request of this client is for, or why there is none.
    pub fn session_of(&self, client: ClientId) -> Result<SessionId, Refusal> {
        let session = self.guests.get(&client).and_then(|g| g.session);
        session.ok_or_else(|| Refusal { code: Code::BadRequest, message: "no session on this connection".into() })
    }

    /// Whether an earlier request of this client was refused and has not come again.
    pub fn must_wait(&mut self, client: ClientId, number: RequestNumber) -> Option<Refusal> {
        let refused = &mut self.guests.get_mut(&client)?.refused;
        let first = (*refused)?;
        if number <= first {
            *refused = None;
            return None;
        }
        let message = format!("request {} was refused and has not come again", first.0);
        Some(Refusal { code: Code::Busy, message })
    }

    /// Packs a request.
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

    /// Appends a frame to what the client is sent.
    pub fn say(&mut self, client: ClientId, frame: &ToClient<'_>) {
        let guest = self.guests.entry(client).or_default();
        if guest.unsent.is_empty() {
            self.dirty.push(client);
        }
        frame.encode(&mut guest.unsent);
    }

    /// Hands the answers of applied slots to whoever waits for them here.
    pub fn answer(&mut self, replies: &Replies) {
        let mut last: Option<(SessionId, Option<ClientId>)> = None;
        for reply in replies.iter() {
            if reply.session.is_none() {
                self.opened(&reply);
                continue;
            }
            let client = match last {
                Some((session, client)) if session == reply.session => client,
                _ => self.by_session.get(&reply.session).copied(),
            };
            last = Some((reply.session, client));
            if let Some(client) = client {
                let Reply { number, slot, answer, .. } = reply;
                self.say(client, &ToClient::Reply { number, slot, answer });
            }
        }
    }

    fn opened(&mut self, reply: &Reply<'_>) {
        let token = reply.number.0;
        let Some(client) = self.opening.remove(&token) else { return };
        if !self.guests.contains_key(&client) {
            return;
        }
        match split(reply.answer) {
            Ok((Code::Ok, fields)) => {
                let session = session(&mut Reader::new(fields)).expect("the machine writes whole session ids");
                self.use_session(client, session);
                self.say(client, &ToClient::Opened { token, session });
            }
            Ok((code, text)) => {
                let message = String::from_utf8_lossy(text).into_owned();
                self.refuse(client, kind::OPEN, token, &Refusal { code, message });
            }
            Err(_) => {}
        }
    }

    /// The connection is gone. What it sent is executed all the same.
    pub fn gone(&mut self, client: ClientId) {
        let Some(guest) = self.guests.remove(&client) else { return };
        if let Some(session) = guest.session.filter(|s| self.by_session.get(s) == Some(&client)) {
            self.by_session.remove(&session);
        }
        self.opening.retain(|_, opener| *opener != client);
    }

    /// What every client is to be sent, once a turn.
    pub fn take_unsent(&mut self, out: &mut Vec<(ClientId, Vec<u8>)>) {
        for client in std::mem::take(&mut self.dirty) {
            if let Some(guest) = self.guests.get_mut(&client).filter(|g| !g.unsent.is_empty()) {
                out.push((client, std::mem::take(&mut guest.unsent)));
            }
        }
    }
}
