//! Frames between a client and a replica, over TCP or a Unix socket.
//!
//! On the stream a frame is its length (u32, big-endian, not counting itself) and then one byte of kind and the
//! fields below. A client says HELLO first and waits for WELCOME. It opens a session (OPEN, OPENED) or goes on with
//! one (USE), and from then on sends REQUESTs under rising numbers; answers come in any order and name the number.
//! A request sent again under its number, here or at another replica, is executed once (I3).

use crate::limits::{ANSWER_BYTES_MAX, CLIENT_FRAME_BYTES_MAX, OPERATION_BYTES_MAX, QUERY_BYTES_MAX};
use crate::types::{ClusterId, ReplicaId, RequestNumber, SessionId, Slot};
use crate::wire::answer::Code;
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};

/// The version of this protocol: raised with every change that an old peer would misread.
pub const VERSION: u16 = 1;
/// The first bytes of a HELLO, so that a stranger's protocol is told from an old version.
pub const MAGIC: [u8; 4] = *b"ftqc";
const MESSAGE_BYTES_MAX: usize = 4096;

/// What an administrative request asks of the replica it is sent to. Append-only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Admin {
    /// The replica as it sees itself: a JSON object, INTERFACE "status --json".
    Status = 1,
    /// Every configured replica: a JSON array of objects.
    Members = 2,
    /// Whether the replica is in the primary view and caught up: `{"ready":bool,"reason":text}`.
    Ready = 3,
}

impl Admin {
    fn from_u8(number: u8) -> Option<Admin> {
        match number {
            1 => Some(Admin::Status),
            2 => Some(Admin::Members),
            3 => Some(Admin::Ready),
            _ => None,
        }
    }
}

/// What a client says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ToReplica<'a> {
    Hello {
        version: u16,
    },
    /// Opens a session; `token` is random, so that the answer finds the asker.
    Open {
        token: u64,
    },
    /// What follows on this connection belongs to this session.
    Use {
        session: SessionId,
    },
    /// Execute `operation` once. The client has seen the answers of all numbers up to `seen` and will not ask again.
    Request {
        number: RequestNumber,
        seen: RequestNumber,
        operation: &'a [u8],
    },
    /// Answer a read. `number` is the connection's own; `stale` allows this replica to answer alone.
    Query {
        number: u64,
        stale: bool,
        query: &'a [u8],
    },
    Admin {
        number: u64,
        what: Admin,
    },
}

/// What a replica says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ToClient<'a> {
    Welcome {
        version: u16,
        cluster: ClusterId,
        replica: ReplicaId,
    },
    Opened {
        token: u64,
        session: SessionId,
    },
    /// The answer to REQUEST `number`, executed at `slot`.
    Reply {
        number: RequestNumber,
        slot: Slot,
        answer: &'a [u8],
    },
    /// The answer to QUERY `number`, from the state as of `slot`.
    Found {
        number: u64,
        slot: Slot,
        answer: &'a [u8],
    },
    /// The answer to ADMIN `number`: JSON.
    Told {
        number: u64,
        json: &'a str,
    },
    /// The frame of kind `refused` with this number (for OPEN: the token) was turned away at the door.
    /// `done` says whether it may have been executed all the same: false is "certainly not".
    Refused {
        refused: u8,
        number: u64,
        code: Code,
        maybe_done: bool,
        message: &'a str,
    },
}

/// The kinds' numbers, for ever. Those from 64 on are the replica's.
pub mod kind {
    pub const HELLO: u8 = 1;
    pub const OPEN: u8 = 2;
    pub const USE: u8 = 3;
    pub const REQUEST: u8 = 4;
    pub const QUERY: u8 = 5;
    pub const ADMIN: u8 = 6;
    pub const WELCOME: u8 = 64;
    pub const OPENED: u8 = 65;
    pub const REPLY: u8 = 66;
    pub const FOUND: u8 = 67;
    pub const TOLD: u8 = 68;
    pub const REFUSED: u8 = 69;
}

/// The first whole frame in `buffer` and how many bytes it takes there with its length; `None` if more must come.
/// Errors if its length is 0 or over the bound: the stream is of no use any more.
pub fn first_frame(buffer: &[u8]) -> Decoded<Option<(&[u8], usize)>> {
    let Some(length) = buffer.get(..4) else { return Ok(None) };
    let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
    if length == 0 || length > CLIENT_FRAME_BYTES_MAX {
        return Err(DecodeError { field: "frame length" });
    }
    Ok(buffer.get(4..4 + length).map(|frame| (frame, 4 + length)))
}

/// Writes a frame's length once its body is there.
fn framed(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.put_u32(0);
    body(out);
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn put_session(out: &mut Vec<u8>, session: SessionId) {
    out.put_u64(session.slot.0);
    out.put_u32(session.position);
    out.put_u64(session.digest);
}

fn session(r: &mut Reader<'_>) -> Decoded<SessionId> {
    Ok(SessionId {
        slot: Slot(r.u64("session slot")?),
        position: r.u32("session position")?,
        digest: r.u64("session digest")?,
    })
}

fn within<'a>(bytes: &'a [u8], max: usize, field: &'static str) -> Decoded<&'a [u8]> {
    if bytes.len() <= max {
        Ok(bytes)
    } else {
        Err(DecodeError { field })
    }
}

impl<'a> ToReplica<'a> {
    /// Appends the frame, its length first.
    pub fn encode(&self, out: &mut Vec<u8>) {
        framed(out, |out| match *self {
            ToReplica::Hello { version } => {
                out.put_u8(kind::HELLO);
                out.extend_from_slice(&MAGIC);
                out.put_u16(version);
            }
            ToReplica::Open { token } => {
                out.put_u8(kind::OPEN);
                out.put_u64(token);
            }
            ToReplica::Use { session } => {
                out.put_u8(kind::USE);
                put_session(out, session);
            }
            ToReplica::Request { number, seen, operation } => {
                out.put_u8(kind::REQUEST);
                out.put_u64(number.0);
                out.put_u64(seen.0);
                out.extend_from_slice(operation);
            }
            ToReplica::Query { number, stale, query } => {
                out.put_u8(kind::QUERY);
                out.put_u64(number);
                out.put_bool(stale);
                out.extend_from_slice(query);
            }
            ToReplica::Admin { number, what } => {
                out.put_u8(kind::ADMIN);
                out.put_u64(number);
                out.put_u8(what as u8);
            }
        });
    }

    /// Reads one frame, its length already taken off.
    pub fn decode(frame: &'a [u8]) -> Decoded<ToReplica<'a>> {
        let mut r = Reader::new(frame);
        let decoded = match r.u8("frame kind")? {
            kind::HELLO => {
                if r.take(4, "magic")? != MAGIC {
                    return Err(DecodeError { field: "magic" });
                }
                ToReplica::Hello { version: r.u16("version")? }
            }
            kind::OPEN => ToReplica::Open { token: r.u64("token")? },
            kind::USE => ToReplica::Use { session: session(&mut r)? },
            kind::REQUEST => ToReplica::Request {
                number: RequestNumber(r.u64("number")?),
                seen: RequestNumber(r.u64("seen")?),
                operation: within(r.rest(), OPERATION_BYTES_MAX, "operation")?,
            },
            kind::QUERY => ToReplica::Query {
                number: r.u64("number")?,
                stale: r.bool("stale")?,
                query: within(r.rest(), QUERY_BYTES_MAX, "query")?,
            },
            kind::ADMIN => ToReplica::Admin {
                number: r.u64("number")?,
                what: Admin::from_u8(r.u8("admin")?).ok_or(DecodeError { field: "admin" })?,
            },
            _ => return Err(DecodeError { field: "frame kind" }),
        };
        r.end("frame")?;
        Ok(decoded)
    }
}

impl<'a> ToClient<'a> {
    /// Appends the frame, its length first.
    pub fn encode(&self, out: &mut Vec<u8>) {
        framed(out, |out| match *self {
            ToClient::Welcome { version, cluster, replica } => {
                out.put_u8(kind::WELCOME);
                out.put_u16(version);
                out.put_u64(cluster.0);
                out.put_u8(replica.0);
            }
            ToClient::Opened { token, session } => {
                out.put_u8(kind::OPENED);
                out.put_u64(token);
                put_session(out, session);
            }
            ToClient::Reply { number, slot, answer } => {
                out.put_u8(kind::REPLY);
                out.put_u64(number.0);
                out.put_u64(slot.0);
                out.extend_from_slice(answer);
            }
            ToClient::Found { number, slot, answer } => {
                out.put_u8(kind::FOUND);
                out.put_u64(number);
                out.put_u64(slot.0);
                out.extend_from_slice(answer);
            }
            ToClient::Told { number, json } => {
                out.put_u8(kind::TOLD);
                out.put_u64(number);
                out.extend_from_slice(json.as_bytes());
            }
            ToClient::Refused { refused, number, code, maybe_done, message } => {
                out.put_u8(kind::REFUSED);
                out.put_u8(refused);
                out.put_u64(number);
                out.put_u8(code as u8);
                out.put_bool(maybe_done);
                out.put_str(message);
            }
        });
    }

    /// Reads one frame, its length already taken off.
    pub fn decode(frame: &'a [u8]) -> Decoded<ToClient<'a>> {
        let mut r = Reader::new(frame);
        let decoded = match r.u8("frame kind")? {
            kind::WELCOME => ToClient::Welcome {
                version: r.u16("version")?,
                cluster: ClusterId(r.u64("cluster")?),
                replica: ReplicaId(r.u8("replica")?),
            },
            kind::OPENED => ToClient::Opened { token: r.u64("token")?, session: session(&mut r)? },
            kind::REPLY => ToClient::Reply {
                number: RequestNumber(r.u64("number")?),
                slot: Slot(r.u64("slot")?),
                answer: within(r.rest(), ANSWER_BYTES_MAX, "answer")?,
            },
            kind::FOUND => ToClient::Found {
                number: r.u64("number")?,
                slot: Slot(r.u64("slot")?),
                answer: within(r.rest(), ANSWER_BYTES_MAX, "answer")?,
            },
            kind::TOLD => ToClient::Told {
                number: r.u64("number")?,
                json: std::str::from_utf8(r.rest()).map_err(|_| DecodeError { field: "json" })?,
            },
            kind::REFUSED => ToClient::Refused {
                refused: r.u8("refused")?,
                number: r.u64("number")?,
                code: Code::from_u8(r.u8("code")?).ok_or(DecodeError { field: "code" })?,
                maybe_done: r.bool("done")?,
                message: r.str(MESSAGE_BYTES_MAX, "message")?,
            },
            _ => return Err(DecodeError { field: "frame kind" }),
        };
        r.end("frame")?;
        Ok(decoded)
    }
}
