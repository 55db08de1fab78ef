//! The operations and queries of the services as bytes. The first byte picks the service, the second the kind;
//! kinds from 128 on are queries, which change nothing and are never ordered. Numbers are append-only.

use crate::wire::codec::{DecodeError, Decoded, Put};

pub use crate::wire::queue::*;

/// The first byte of an operation.
pub mod service {
    /// Sessions themselves.
    pub const SESSION: u8 = 0;
    pub const QUEUE: u8 = 1;
}

/// Operations of service 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionOperation {
    /// Opens a session; ordered under `SessionId::NONE` with the client's token as number. Answer: the session's id,
    /// as `wire::bundle::session` reads it; `Busy` where the table has no room.
    Open,
    /// Ends the session that the request belongs to. Answer: nothing. Sent again, it is answered `Expired`, like all
    /// requests of a session that is not in the table: whoever only wanted the session gone has what it wanted.
    End,
}

impl SessionOperation {
    pub fn encode(self, out: &mut Vec<u8>) {
        out.put_u8(service::SESSION);
        out.put_u8(match self {
            SessionOperation::Open => 1,
            SessionOperation::End => 2,
        });
    }

    /// `fields` is what follows the service's byte.
    pub fn decode(fields: &[u8]) -> Decoded<SessionOperation> {
        match fields {
            [1] => Ok(SessionOperation::Open),
            [2] => Ok(SessionOperation::End),
            _ => Err(DecodeError { field: "session operation" }),
        }
    }
}

/// Whether this operation may make the state larger: refused at the door of a replica whose memory is used up.
pub fn grows(operation: &[u8]) -> bool {
    matches!(operation, [service::QUEUE, 1 | 3 | 6 | 14, ..])
}

/// Whether these bytes are a query (an operation that changes nothing).
pub fn is_query(operation: &[u8]) -> bool {
    operation.get(1).is_some_and(|&kind| kind >= 128)
}
