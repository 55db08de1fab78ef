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
    /// What follows on this connection belongs to this session, which with `keep` outlasts all connections for a week.
    Use {
        session: SessionId,
        keep: bool,
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
    /// Answer at once if requests are still taken here, else refuse: asked while answers are long in coming.
    Ping {
        number: u64,
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
    /// The answer to PING `number`.
    Pong {
        number: u64,
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
    pub const PING: u8 = 7;
    pub const WELCOME: u8 = 64;
    pub const OPENED: u8 = 65;
    pub const REPLY: u8 = 66;
    pub const FOUND: u8 = 67;
    pub const TOLD: u8 = 68;
    pub const REFUSED: u8 = 69;
    pub const PONG: u8 = 70;
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
            ToReplica::Use { session, keep } => {
                out.put_u8(kind::USE);
                put_session(out, session);
                out.put_bool(keep);
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
            ToReplica::Ping { number } => {
                out.put_u8(kind::PING);
                out.put_u64(number);
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
            kind::USE => ToReplica::Use { session: session(&mut r)?, keep: r.bool("keep")? },
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
            kind::PING => ToReplica::Ping { number: r.u64("number")? },
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
            ToClient::Pong { number } => {
                out.put_u8(kind::PONG);
                out.put_u64(number);
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
            kind::PONG => ToClient::Pong { number: r.u64("number")? },
            _ => return Err(DecodeError { field: "frame kind" }),
        };
        r.end("frame")?;
        Ok(decoded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    const SESSION: SessionId = SessionId { slot: Slot(1), position: 2, digest: 3 };

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn said(frame: &ToReplica<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        bytes
    }

    fn answered(frame: &ToClient<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        bytes
    }

    /// One frame of each kind, and its bytes: length, kind, fields.
    fn golden_to_replica() -> Vec<(ToReplica<'static>, &'static str)> {
        let (number, seen) = (RequestNumber(7), RequestNumber(6));
        vec![
            (ToReplica::Hello { version: 1 }, "00000007 01 66747163 0001"),
            (ToReplica::Open { token: 5 }, "00000009 02 0000000000000005"),
            (
                ToReplica::Use { session: SESSION, keep: true },
                "00000016 03 0000000000000001 00000002 0000000000000003 01",
            ),
            (
                ToReplica::Request { number, seen, operation: b"op" },
                "00000013 04 0000000000000007 0000000000000006 6f70",
            ),
            (ToReplica::Query { number: 8, stale: true, query: b"q" }, "0000000b 05 0000000000000008 01 71"),
            (ToReplica::Admin { number: 9, what: Admin::Members }, "0000000a 06 0000000000000009 02"),
            (ToReplica::Ping { number: 10 }, "00000009 07 000000000000000a"),
        ]
    }

    fn golden_to_client() -> Vec<(ToClient<'static>, &'static str)> {
        let (slot, replica, code) = (Slot(4), ReplicaId(2), Code::Busy);
        vec![
            (
                ToClient::Welcome { version: 1, cluster: ClusterId(0xc1), replica },
                "0000000c 40 0001 00000000000000c1 02",
            ),
            (
                ToClient::Opened { token: 5, session: SESSION },
                "0000001d 41 0000000000000005 0000000000000001 00000002 0000000000000003",
            ),
            (
                ToClient::Reply { number: RequestNumber(7), slot, answer: b"a" },
                "00000012 42 0000000000000007 0000000000000004 61",
            ),
            (ToClient::Found { number: 8, slot, answer: b"" }, "00000011 43 0000000000000008 0000000000000004"),
            (ToClient::Told { number: 9, json: "{}" }, "0000000b 44 0000000000000009 7b7d"),
            (
                ToClient::Refused { refused: kind::REQUEST, number: 7, code, maybe_done: false, message: "no" },
                "0000000f 45 04 0000000000000007 0e 00 02 6e6f",
            ),
            (ToClient::Pong { number: 10 }, "00000009 46 000000000000000a"),
        ]
    }

    #[test]
    fn the_frames_are_for_ever() {
        for (k, (frame, golden)) in golden_to_replica().iter().enumerate() {
            let bytes = said(frame);
            assert_eq!(hex(&bytes), golden.replace(' ', ""), "{frame:?}");
            assert_eq!(usize::from(bytes[4]), k + 1, "every kind has a row here");
            assert_eq!(first_frame(&bytes), Ok(Some((&bytes[4..], bytes.len()))));
            assert_eq!(ToReplica::decode(&bytes[4..]), Ok(*frame));
        }
        for (k, (frame, golden)) in golden_to_client().iter().enumerate() {
            let bytes = answered(frame);
            assert_eq!(hex(&bytes), golden.replace(' ', ""), "{frame:?}");
            assert_eq!(usize::from(bytes[4]), k + 64, "every kind has a row here");
            assert_eq!(first_frame(&bytes), Ok(Some((&bytes[4..], bytes.len()))));
            assert_eq!(ToClient::decode(&bytes[4..]), Ok(*frame));
        }
        let unknown = Err(DecodeError { field: "frame kind" });
        assert_eq!(ToReplica::decode(&[golden_to_replica().len() as u8 + 1]), unknown);
        assert_eq!(ToClient::decode(&[golden_to_client().len() as u8 + 64]).err(), unknown.err());
    }

    #[test]
    fn every_admin_word_comes_back() {
        for what in [Admin::Status, Admin::Members, Admin::Ready] {
            let bytes = said(&ToReplica::Admin { number: 1, what });
            assert_eq!(ToReplica::decode(&bytes[4..]), Ok(ToReplica::Admin { number: 1, what }));
        }
        assert_eq!(Admin::from_u8(0), None);
        assert_eq!(Admin::from_u8(4), None);
    }

    #[test]
    fn a_frame_waits_until_it_is_whole() {
        let mut bytes = said(&ToReplica::Open { token: 5 });
        let whole = bytes.len();
        for length in 0..whole {
            assert_eq!(first_frame(&bytes[..length]), Ok(None), "{length} bytes");
        }
        bytes.extend_from_slice(b"more");
        assert_eq!(first_frame(&bytes), Ok(Some((&bytes[4..whole], whole))));
        let refused = Err(DecodeError { field: "frame length" });
        assert_eq!(first_frame(&0u32.to_be_bytes()), refused);
        assert_eq!(first_frame(&(CLIENT_FRAME_BYTES_MAX as u32).to_be_bytes()), Ok(None));
        assert_eq!(first_frame(&(CLIENT_FRAME_BYTES_MAX as u32 + 1).to_be_bytes()), refused);
    }

    #[test]
    fn what_is_cut_short_or_goes_on_is_refused() {
        for (frame, _) in golden_to_replica() {
            // A shorter operation or query is another one: what counts is the fields before it.
            let bytes = said(&frame);
            let fields = match frame {
                ToReplica::Request { operation, .. } => bytes.len() - operation.len(),
                ToReplica::Query { query, .. } => bytes.len() - query.len(),
                _ => {
                    assert!(ToReplica::decode(&[&bytes[4..], b"x"].concat()).is_err(), "{frame:?} and more");
                    bytes.len()
                }
            };
            for length in 4..fields {
                assert!(ToReplica::decode(&bytes[4..length]).is_err(), "{frame:?}: {length} bytes");
            }
        }
        for (frame, _) in golden_to_client() {
            let bytes = answered(&frame);
            let fields = match frame {
                ToClient::Reply { answer, .. } | ToClient::Found { answer, .. } => bytes.len() - answer.len(),
                ToClient::Told { json, .. } => bytes.len() - json.len(),
                _ => {
                    assert!(ToClient::decode(&[&bytes[4..], b"x"].concat()).is_err(), "{frame:?} and more");
                    bytes.len()
                }
            };
            for length in 4..fields {
                assert!(ToClient::decode(&bytes[4..length]).is_err(), "{frame:?}: {length} bytes");
            }
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let (number, seen, large) = (RequestNumber(1), RequestNumber(0), vec![0; ANSWER_BYTES_MAX + 1]);
        let request = |length: usize| said(&ToReplica::Request { number, seen, operation: &large[..length] });
        assert!(ToReplica::decode(&request(OPERATION_BYTES_MAX)[4..]).is_ok());
        let field = |frame: &[u8]| ToReplica::decode(frame).expect_err("out of bounds").field;
        assert_eq!(field(&request(OPERATION_BYTES_MAX + 1)[4..]), "operation");
        let query = |length: usize| said(&ToReplica::Query { number: 1, stale: false, query: &large[..length] });
        assert!(ToReplica::decode(&query(QUERY_BYTES_MAX)[4..]).is_ok());
        assert_eq!(field(&query(QUERY_BYTES_MAX + 1)[4..]), "query");
        assert_eq!(field(&[&[kind::QUERY][..], &[0; 8], &[2]].concat()), "stale");
        assert_eq!(field(&[&[kind::ADMIN][..], &[0; 8], &[9]].concat()), "admin");
        assert_eq!(field(b"\x01ftqd\x00\x01"), "magic");

        let field = |frame: &ToClient<'_>| ToClient::decode(&answered(frame)[4..]).map(|_| ()).map_err(|e| e.field);
        let slot = Slot(1);
        assert_eq!(field(&ToClient::Reply { number, slot, answer: &large[1..] }), Ok(()));
        assert_eq!(field(&ToClient::Reply { number, slot, answer: &large }), Err("answer"));
        assert_eq!(field(&ToClient::Found { number: 1, slot, answer: &large }), Err("answer"));
        let (refused, code, message) = (1, Code::Full, "m".repeat(MESSAGE_BYTES_MAX + 1));
        let refusal = |message| ToClient::Refused { refused, number: 1, code, maybe_done: true, message };
        assert_eq!(field(&refusal(&message[1..])), Ok(()));
        assert_eq!(field(&refusal(&message)), Err("message"));
        let bad_text = [&[kind::TOLD][..], &[0; 8], &[0xff]].concat();
        assert_eq!(ToClient::decode(&bad_text), Err(DecodeError { field: "json" }));
        let bad_code = [&[kind::REFUSED, 1][..], &[0; 8], &[200, 0, 0]].concat();
        assert_eq!(ToClient::decode(&bad_code), Err(DecodeError { field: "code" }));
    }

    quickcheck! {
        fn garbage_is_refused_or_read_never_a_panic(kind: u8, garbage: Vec<u8>) -> bool {
            let from_client = [&[kind % 8], &garbage[..]].concat();
            let from_replica = [&[64 + kind % 8], &garbage[..]].concat();
            // What was read has one form: it is written as it came.
            let same = ToReplica::decode(&from_client).map_or(true, |f| said(&f)[4..] == from_client)
                && ToClient::decode(&from_replica).map_or(true, |f| answered(&f)[4..] == from_replica);
            let _ = first_frame(&garbage);
            same
        }
    }
}
