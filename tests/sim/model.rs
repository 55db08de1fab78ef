//! An independent, naive model of sessions. It executes the agreed order and knows what every answer must be, and in
//! which slot it is given: some come later than their request was executed. What a service does is in `services`.

use std::collections::BTreeMap;

use ftq::limits::{SESSION_GRACE_NS, SESSION_IDLE_NS, SESSION_WINDOW};
use ftq::types::{Digest, GroupTime, SessionId, Slot};
use ftq::wire::answer::{split, Code};
use ftq::wire::bundle::Bundle;
use ftq::wire::codec::{Put, Reader};
use ftq::wire::operation::{service, SessionOperation};

use super::services::{models, Naive};

/// What an answer must be. Of an error only the code is promised.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expected {
    Ok(Vec<u8>),
    Error(Code),
}

impl Expected {
    pub fn allows(&self, answer: &[u8]) -> bool {
        match (self, split(answer)) {
            (Expected::Ok(fields), Ok((Code::Ok, rest))) => fields == rest,
            (Expected::Error(code), Ok((found, _))) => *code == found,
            _ => false,
        }
    }

    pub fn nothing() -> Expected {
        Expected::Ok(Vec::new())
    }

    pub fn number(value: u64) -> Expected {
        let mut fields = Vec::new();
        fields.put_varint(value);
        Expected::Ok(fields)
    }
}

#[derive(Debug, Default)]
struct Session {
    seen: u64,
    /// Where each request was executed, and the answer and its slot once there is one.
    executed: BTreeMap<u64, (Slot, Option<(Slot, Expected)>)>,
    ended: Option<Slot>,
    /// The name of the latest attach; whether that connection was lost, and nobody has spoken for it since.
    attach: u64,
    away: bool,
    /// When the session ends if nobody speaks for it.
    ends_at: GroupTime,
    /// The lowest unseen request that was refused for now: new ones behind it are refused as well.
    gate: Option<u64>,
}

#[derive(Debug)]
pub struct Model {
    sessions: BTreeMap<SessionId, Session>,
    /// What each token opened, and where.
    openings: BTreeMap<u64, Vec<SessionId>>,
    /// The time of the last slot.
    now: GroupTime,
    /// By the byte that picks them.
    services: BTreeMap<u8, Box<dyn Naive>>,
}

impl Default for Model {
    fn default() -> Model {
        let (sessions, openings) = (BTreeMap::new(), BTreeMap::new());
        Model { sessions, openings, now: GroupTime(0), services: models() }
    }
}

/// A session is prolonged only where that gains as much.
const IDLE_STEP_NS: u64 = SESSION_IDLE_NS / 64;

fn idle_from(now: GroupTime, more_ns: u64) -> GroupTime {
    GroupTime(now.0 + SESSION_IDLE_NS + more_ns)
}

/// One request as it stands in the order.
pub struct Ordered<'a> {
    pub session: SessionId,
    pub number: u64,
    pub operation: &'a [u8],
    /// False for a copy of what was executed before, or may not be executed.
    pub executed: bool,
}

impl Model {
    /// Executes a slot; `digest` is the history's before it. `each` is shown every request in turn.
    pub fn apply(
        &mut self,
        slot: Slot,
        digest: Digest,
        time: GroupTime,
        operations: &[u8],
        mut each: impl FnMut(Ordered<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        self.now = self.now.max(time);
        let now = self.now;
        for (&id, session) in self.sessions.iter_mut().filter(|(_, s)| s.ended.is_none()) {
            if session.ends_at <= now {
                session.ended = Some(slot);
                self.services.values_mut().for_each(|service| service.session_ended(slot, id));
            }
        }
        self.services.values_mut().for_each(|service| service.begin(slot, now));
        self.deliver(slot);
        let (mut r, mut position) = (Reader::new(operations), 0);
        while !r.is_empty() {
            let bundle = Bundle::decode(&mut r).map_err(|e| format!("slot {slot} holds no bundles: {e}"))?;
            self.back(slot, bundle.session);
            for (number, operation) in bundle.operations() {
                if bundle.session.is_none() && self.attend(slot, now, number.0, operation) {
                    position += 1;
                    continue;
                }
                let id = SessionId { slot, position, digest: digest.0 };
                let seen = bundle.seen.0.min(number.0.saturating_sub(1));
                let executed = if bundle.session.is_none() {
                    self.open(id, number.0, operation)
                } else {
                    self.request(slot, bundle.session, seen, number.0, operation)
                };
                each(Ordered { session: bundle.session, number: number.0, operation, executed })?;
                position += 1;
            }
            if let Some(session) = self.sessions.get_mut(&bundle.session) {
                session.seen = session.seen.max(bundle.seen.0);
                session.gate = session.gate.filter(|&gate| gate > session.seen);
            }
        }
        Ok(())
    }

    /// What a replica says of connections; true if it is that.
    fn attend(&mut self, slot: Slot, now: GroupTime, number: u64, operation: &[u8]) -> bool {
        let Some(fields) = operation.strip_prefix(&[service::SESSION]) else { return false };
        match SessionOperation::decode(fields) {
            Ok(SessionOperation::Attach { session: id, .. }) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.attach = number;
                    self.back(slot, id);
                }
            }
            Ok(SessionOperation::Detach { session: id }) => {
                let session = self.sessions.get_mut(&id).filter(|s| s.attach == number && !s.away);
                if let Some(session) = session.filter(|s| s.ended.is_none()) {
                    session.away = true;
                    session.ends_at = session.ends_at.min(GroupTime(now.0 + SESSION_GRACE_NS));
                    self.services.values_mut().for_each(|service| service.step_aside(slot, id, true));
                }
            }
            Ok(SessionOperation::Connected { sessions }) => {
                let ids: Vec<SessionId> = sessions.iter().collect();
                ids.into_iter().for_each(|id| self.back(slot, id));
            }
            _ => return false,
        }
        true
    }

    /// Somebody speaks for this session: it lives on, and its waiters are in line again, if they were not.
    fn back(&mut self, slot: Slot, id: SessionId) {
        let session = self.sessions.get_mut(&id).filter(|session| session.ended.is_none());
        let Some(session) = session else { return };
        if session.ends_at < idle_from(self.now, 0) {
            session.ends_at = idle_from(self.now, IDLE_STEP_NS);
        }
        if std::mem::take(&mut session.away) {
            self.services.values_mut().for_each(|service| service.step_aside(slot, id, false));
            self.deliver(slot);
        }
    }

    fn open(&mut self, id: SessionId, token: u64, operation: &[u8]) -> bool {
        let opens = operation.first() == Some(&service::SESSION)
            && SessionOperation::decode(&operation[1..]) == Ok(SessionOperation::Open);
        if opens {
            let ends_at = idle_from(self.now, IDLE_STEP_NS);
            self.sessions.insert(id, Session { attach: token, ends_at, ..Session::default() });
            self.openings.entry(token).or_default().push(id);
        }
        opens
    }

    fn request(&mut self, slot: Slot, id: SessionId, seen: u64, number: u64, operation: &[u8]) -> bool {
        let Some(session) = self.sessions.get_mut(&id).filter(|s| s.ended.is_none()) else { return false };
        session.seen = session.seen.max(seen);
        session.gate = session.gate.filter(|&gate| gate > session.seen);
        let gated = session.gate.is_some_and(|gate| number > gate);
        let known = session.executed.contains_key(&number);
        if known || number <= session.seen || number > session.seen + SESSION_WINDOW {
            return false;
        }
        let expected = match operation.split_first() {
            _ if gated && operation.first() != Some(&service::SESSION) => Some(Expected::Error(Code::Busy)),
            Some((&service::SESSION, [2])) => {
                session.ended = Some(slot);
                self.services.values_mut().for_each(|service| service.session_ended(slot, id));
                Some(Expected::nothing())
            }
            Some((byte, fields)) if self.services.contains_key(byte) => {
                self.services.get_mut(byte).and_then(|service| service.execute(slot, (id, number), fields))
            }
            _ => Some(Expected::Error(Code::BadRequest)),
        };
        if matches!(expected, Some(Expected::Error(Code::Full | Code::Busy))) {
            session.gate = Some(session.gate.map_or(number, |gate| gate.min(number)));
        }
        session.executed.insert(number, (slot, expected.map(|expected| (slot, expected))));
        self.deliver(slot);
        true
    }

    /// Keeps what was answered to earlier requests.
    fn deliver(&mut self, slot: Slot) {
        for ((id, number), expected) in self.services.values_mut().flat_map(|service| service.take_answers()) {
            let session = self.sessions.get_mut(&id).filter(|session| session.ended.is_none());
            if let Some((_, answer)) = session.and_then(|session| session.executed.get_mut(&number)) {
                *answer = Some((slot, expected));
            }
        }
    }

    /// What a query must find in the state after `slot`.
    pub fn find(&self, slot: Slot, query: &[u8]) -> Expected {
        let found = query.split_first().and_then(|(byte, fields)| Some(self.services.get(byte)?.find(slot, fields)));
        found.unwrap_or(Expected::Error(Code::BadRequest))
    }

    /// Whether this answer to a request, executed at the slot it names, is the right one.
    pub fn judge_reply(&self, id: SessionId, number: u64, slot: Slot, answer: &[u8]) -> Result<(), String> {
        let code = split(answer).map_err(|e| format!("an answer that is none: {e}"))?.0;
        let session = self.sessions.get(&id);
        let gone = session.is_none_or(|s| s.ended.is_some_and(|ended| ended <= slot));
        match session.and_then(|s| s.executed.get(&number)) {
            _ if gone && code == Code::Expired => Ok(()),
            None if code == Code::BadRequest => Ok(()),
            None => Err(format!("session {id} got an answer to {number}, which was never executed: {code:?}")),
            Some((executed, None)) => Err(format!(
                "{number} of session {id} waits since slot {executed}, and is answered at {slot}: {code:?}"
            )),
            Some((_, Some((answered, _)))) if *answered != slot => {
                Err(format!("{number} of session {id} is to be answered at slot {answered}, the answer says {slot}"))
            }
            Some((_, Some((_, expected)))) if expected.allows(answer) => Ok(()),
            Some((_, Some((_, expected)))) => Err(format!(
                "{number} of session {id} at slot {slot}: expected {}, answered {}",
                brief(&format!("{expected:?}")),
                brief(&format!("{answer:?}"))
            )),
        }
    }

    /// Whether this token opened this session.
    pub fn opened(&self, token: u64, id: SessionId) -> bool {
        self.openings.get(&token).is_some_and(|ids| ids.contains(&id))
    }

    /// Where a request was executed, if it was.
    pub fn executed(&self, id: SessionId, number: u64) -> Option<Slot> {
        self.sessions.get(&id)?.executed.get(&number).map(|&(slot, _)| slot)
    }
}

/// The beginning of a long text.
pub fn brief(text: &str) -> String {
    if text.len() <= 200 {
        return text.to_owned();
    }
    let end = (0..=200).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    format!("{}... ({} in all)", &text[..end], text.len())
}
