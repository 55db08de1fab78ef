//! The operations and queries of the services as bytes. The first byte picks the service, the second the kind;
//! kinds from 128 on are queries, which change nothing and are never ordered. Numbers are append-only.

use crate::limits::CONNECTED_MAX;
use crate::types::SessionId;
use crate::wire::bundle::{put_session, session, SESSION_ID_BYTES};
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};

pub use crate::wire::queue::*;

/// The first byte of an operation.
pub mod service {
    /// Sessions themselves.
    pub const SESSION: u8 = 0;
    pub const QUEUE: u8 = 1;
    pub const CHAT: u8 = 2;
    pub const STOCK: u8 = 3;
    pub const KV: u8 = 4;
}

/// Operations of service 0. All but `End` are ordered under `SessionId::NONE`, by a replica's door.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionOperation<'a> {
    /// Opens a session, with the client's token as number, which also names its first attach. Answer: the session's
    /// id, as `wire::bundle::session` reads it; `Busy` where the table has no room.
    Open,
    /// Ends the session that the request belongs to. Answer: nothing. Sent again, it is answered `Expired`, like all
    /// requests of a session that is not in the table: whoever only wanted the session gone has what it wanted.
    End,
    /// A connection speaks for the session from now on; its number is a fresh name for that. With `keep` the session
    /// outlasts all connections for `SESSION_KEEP_NS`. Answer: nothing; `Expired` where there is no such session.
    Attach { session: SessionId, keep: bool },
    /// The connection that attached under this number is lost: the session ends after a grace, unless another one
    /// has attached since, or it is kept. Not answered.
    Detach { session: SessionId },
    /// These sessions have a connection. Not answered.
    Connected { sessions: Connected<'a> },
}

/// Sessions, one behind the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connected<'a>(&'a [u8]);

impl<'a> Connected<'a> {
    /// Appends a whole `Connected` operation of at most [`CONNECTED_MAX`] sessions.
    pub fn encode(out: &mut Vec<u8>, sessions: &[SessionId]) {
        assert!(sessions.len() <= CONNECTED_MAX, "one operation names only so many");
        out.extend_from_slice(&[service::SESSION, 5]);
        sessions.iter().for_each(|&id| put_session(out, id));
    }

    pub fn iter(&self) -> impl Iterator<Item = SessionId> + 'a {
        let mut r = Reader::new(self.0);
        std::iter::from_fn(move || session(&mut r).ok())
    }
}

impl<'a> SessionOperation<'a> {
    pub fn encode(self, out: &mut Vec<u8>) {
        out.put_u8(service::SESSION);
        match self {
            SessionOperation::Open => out.put_u8(1),
            SessionOperation::End => out.put_u8(2),
            SessionOperation::Attach { session, keep } => {
                out.put_u8(3);
                put_session(out, session);
                out.put_bool(keep);
            }
            SessionOperation::Detach { session } => {
                out.put_u8(4);
                put_session(out, session);
            }
            SessionOperation::Connected { sessions } => {
                out.put_u8(5);
                out.extend_from_slice(sessions.0);
            }
        }
    }

    /// `fields` is what follows the service's byte.
    pub fn decode(fields: &'a [u8]) -> Decoded<SessionOperation<'a>> {
        let mut r = Reader::new(fields);
        let operation = match r.u8("session operation")? {
            1 => SessionOperation::Open,
            2 => SessionOperation::End,
            3 => SessionOperation::Attach { session: session(&mut r)?, keep: r.bool("keep")? },
            4 => SessionOperation::Detach { session: session(&mut r)? },
            5 if r.remaining() % SESSION_ID_BYTES == 0 && r.remaining() / SESSION_ID_BYTES <= CONNECTED_MAX => {
                SessionOperation::Connected { sessions: Connected(r.rest()) }
            }
            _ => return Err(DecodeError { field: "session operation" }),
        };
        r.end("session operation")?;
        Ok(operation)
    }
}

/// Whether this operation may make the state larger: refused at the door of a replica whose memory is used up.
pub fn grows(operation: &[u8]) -> bool {
    match operation {
        [service::QUEUE, kind, ..] => matches!(kind, 1 | 3 | 6 | 14),
        [service::CHAT, kind, ..] => matches!(kind, 1 | 5),
        [service::STOCK, kind, ..] => matches!(kind, 1..=3),
        [service::KV, kind, ..] => matches!(kind, 1 | 3 | 4),
        _ => false,
    }
}

/// Whether these bytes are a query (an operation that changes nothing).
pub fn is_query(operation: &[u8]) -> bool {
    operation.get(1).is_some_and(|&kind| kind >= 128)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    quickcheck! {
        fn garbage_is_refused_or_has_one_form(bytes: Vec<u8>) -> bool {
            if let Ok(operation) = SessionOperation::decode(&bytes) {
                let mut copy = Vec::new();
                operation.encode(&mut copy);
                assert_eq!(copy[1..], bytes);
            }
            true
        }
    }

    #[test]
    fn operations_of_sessions_come_back() {
        let id = |n| SessionId { slot: crate::types::Slot(n), position: 2, digest: 3 };
        let three: Vec<SessionId> = (1..=3).map(id).collect();
        let mut bytes = Vec::new();
        Connected::encode(&mut bytes, &three);
        let Ok(SessionOperation::Connected { sessions }) = SessionOperation::decode(&bytes[1..]) else {
            panic!("{bytes:?}");
        };
        assert_eq!(sessions.iter().collect::<Vec<_>>(), three);
        assert!(SessionOperation::decode(&bytes[1..bytes.len() - 1]).is_err());
        assert!(
            SessionOperation::decode(&[&[5][..], &vec![0; SESSION_ID_BYTES * (CONNECTED_MAX + 1)]].concat()).is_err()
        );
        let (session, connected) = (id(7), SessionOperation::Connected { sessions });
        let attach = |keep| SessionOperation::Attach { session, keep };
        for operation in [attach(true), attach(false), SessionOperation::Detach { session }, connected] {
            let mut bytes = Vec::new();
            operation.encode(&mut bytes);
            assert_eq!(SessionOperation::decode(&bytes[1..]), Ok(operation));
            assert!(SessionOperation::decode(&[&bytes[1..], &[0]].concat()).is_err());
        }
    }
}
