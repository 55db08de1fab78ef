//! Requests of clients in single datagrams (DESIGN 9): one frame of `wire::client` in each, to the port that replicas
//! share. Its first byte is no version of theirs. No answer is longer than its request, which is padded to the answer
//! it allows; one that would be says so instead.
//!
//! ```text
//! request: magic "ftqu" | version u16 | flags u8 | session: slot u64, position u32, digest u64 | frame | padding
//! answer:  magic "ftqu" | version u16 | needed u32 | frame
//! ```

use crate::limits::DATAGRAM_BYTES_MAX;
use crate::types::{SessionId, Slot};
use crate::wire::client::{first_frame, ToClient, ToReplica, VERSION};
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};
use crate::wire::datagram;

pub const MAGIC: [u8; 4] = *b"ftqu";
/// The session outlasts its clients for a week.
const KEEP: u8 = 1;
/// Bytes before a request's frame, and before an answer's.
pub const REQUEST_HEADER_BYTES: usize = 4 + 2 + 1 + 20;
pub const ANSWER_HEADER_BYTES: usize = 4 + 2 + 4;

const _: () = assert!(MAGIC[0] != datagram::VERSION, "replicas' datagrams begin with their version");

/// Whether a datagram is a client's.
pub fn is_of_client(datagram: &[u8]) -> bool {
    datagram.starts_with(&MAGIC)
}

/// What a client sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request<'a> {
    pub version: u16,
    /// Whose number a REQUEST has; none for other frames.
    pub session: SessionId,
    pub keep: bool,
    /// Its length taken off.
    pub frame: &'a [u8],
}

impl<'a> Request<'a> {
    pub fn decode(datagram: &'a [u8]) -> Decoded<Request<'a>> {
        let mut r = Reader::new(datagram);
        if datagram.len() > DATAGRAM_BYTES_MAX {
            return Err(DecodeError { field: "datagram length" });
        }
        if r.take(4, "magic")? != MAGIC {
            return Err(DecodeError { field: "magic" });
        }
        let version = r.u16("version")?;
        let keep = r.u8("flags")? & KEEP != 0;
        let (slot, position, digest) = (r.u64("session slot")?, r.u32("session position")?, r.u64("session digest")?);
        let session = SessionId { slot: Slot(slot), position, digest };
        let (frame, _) = first_frame(r.rest())?.ok_or(DecodeError { field: "frame" })?;
        Ok(Request { version, session, keep, frame })
    }
}

/// Writes a request with a frame that `ToReplica::encode` wrote, padded to at least `bytes`.
pub fn encode_request(out: &mut Vec<u8>, session: SessionId, keep: bool, frame: &[u8], bytes: usize) {
    out.clear();
    out.extend_from_slice(&MAGIC);
    out.put_u16(VERSION);
    out.put_u8(if keep { KEEP } else { 0 });
    out.put_u64(session.slot.0);
    out.put_u32(session.position);
    out.put_u64(session.digest);
    out.extend_from_slice(frame);
    out.resize(out.len().max(bytes), 0);
}

/// What a frame is about, so that an answer finds its request: the kind of the request's frame and its number or token.
pub type Subject = (u8, u64);

/// What a request is about.
pub fn asked(frame: &ToReplica<'_>) -> Option<Subject> {
    use crate::wire::client::kind;
    match *frame {
        ToReplica::Hello { .. } => Some((kind::HELLO, 0)),
        ToReplica::Open { token } => Some((kind::OPEN, token)),
        ToReplica::Use { .. } => None,
        ToReplica::Request { number, .. } => Some((kind::REQUEST, number.0)),
        ToReplica::Query { number, .. } => Some((kind::QUERY, number)),
        ToReplica::Admin { number, .. } => Some((kind::ADMIN, number)),
        ToReplica::Ping { number } => Some((kind::PING, number)),
    }
}

/// What an answer is about.
pub fn answered(frame: &ToClient<'_>) -> Subject {
    use crate::wire::client::kind;
    match *frame {
        ToClient::Welcome { .. } => (kind::HELLO, 0),
        ToClient::Opened { token, .. } => (kind::OPEN, token),
        ToClient::Reply { number, .. } => (kind::REQUEST, number.0),
        ToClient::Found { number, .. } => (kind::QUERY, number),
        ToClient::Told { number, .. } => (kind::ADMIN, number),
        ToClient::Refused { refused, number, .. } => (refused, number),
        ToClient::Pong { number } => (kind::PING, number),
    }
}

/// An answer that fits.
pub fn encode_answer(frame: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(ANSWER_HEADER_BYTES + frame.len());
    out.extend_from_slice(&MAGIC);
    out.put_u16(VERSION);
    out.put_u32(0);
    out.extend_from_slice(frame);
    out
}

/// A refusal of at most `room` bytes, its message cut where it has to be; with `needed` the answer is there, and has so
/// many bytes. `None` if not even that fits.
pub fn encode_refusal(refusal: &ToClient<'_>, needed: usize, room: usize) -> Option<Vec<u8>> {
    let ToClient::Refused { refused, number, code, maybe_done, message } = *refusal else { return None };
    let mut length = message.len().min(room);
    loop {
        while !message.is_char_boundary(length) {
            length -= 1;
        }
        let mut out = encode_answer(&[]);
        out[6..ANSWER_HEADER_BYTES].copy_from_slice(&(needed as u32).to_be_bytes());
        ToClient::Refused { refused, number, code, maybe_done, message: &message[..length] }.encode(&mut out);
        match out.len().checked_sub(room) {
            None | Some(0) => return Some(out),
            Some(_) if length == 0 => return None,
            Some(over) => length -= over.min(length),
        }
    }
}

/// What a replica sends: the frame as on a stream, its length first, and the bytes that a request needs for its answer
/// where that did not fit, else 0.
pub fn decode_answer(datagram: &[u8]) -> Decoded<(u32, &[u8])> {
    let mut r = Reader::new(datagram);
    if r.take(4, "magic")? != MAGIC {
        return Err(DecodeError { field: "magic" });
    }
    if r.u16("version")? != VERSION {
        return Err(DecodeError { field: "version" });
    }
    let needed = r.u32("needed")?;
    let frame = r.rest();
    match first_frame(frame)? {
        Some((_, taken)) if taken == frame.len() => Ok((needed, frame)),
        _ => Err(DecodeError { field: "frame" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::RequestNumber;
    use crate::wire::answer::Code;
    use crate::wire::client::kind;
    use quickcheck::quickcheck;

    const SESSION: SessionId = SessionId { slot: Slot(1), position: 2, digest: 3 };

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn golden_bytes() {
        let (mut frame, mut bytes) = (Vec::new(), Vec::new());
        let asks = ToReplica::Request { number: RequestNumber(7), seen: RequestNumber(6), operation: b"op" };
        asks.encode(&mut frame);
        encode_request(&mut bytes, SESSION, true, &frame, 52);
        let wanted = "667471750001010000000000000001000000020000000000000003\
                      000000130400000000000000070000000000000006"
            .to_owned()
            + "6f70"
            + "0000";
        assert_eq!(hex(&bytes), wanted);
        let request = Request::decode(&bytes).expect("our own");
        assert_eq!((request.session, request.keep, ToReplica::decode(request.frame)), (SESSION, true, Ok(asks)));
        assert_eq!(asked(&asks), Some((kind::REQUEST, 7)));
        let told = ToClient::Pong { number: 9 };
        let mut frame = Vec::new();
        told.encode(&mut frame);
        let answer = encode_answer(&frame);
        assert_eq!(hex(&answer), "66747175000100000000".to_owned() + "00000009460000000000000009");
        assert_eq!(decode_answer(&answer), Ok((0, &frame[..])));
    }

    #[test]
    fn a_refusal_is_cut_to_its_room() {
        let code = Code::TooLarge;
        let refusal =
            ToClient::Refused { refused: 4, number: 1, code, maybe_done: true, message: "gr\u{fc}n \u{fc}ber alles" };
        let full = encode_refusal(&refusal, 9, 1000).expect("it fits");
        for room in 0..full.len() + 2 {
            let Some(cut) = encode_refusal(&refusal, 9, room) else {
                assert!(room < REQUEST_HEADER_BYTES + 4 + 9, "any request has room: {room}");
                continue;
            };
            assert!(cut.len() <= room);
            let (needed, frame) = decode_answer(&cut).expect("our own");
            assert!(matches!(ToClient::decode(&frame[4..]), Ok(ToClient::Refused { code: Code::TooLarge, .. })));
            assert_eq!(needed, 9);
        }
    }

    quickcheck! {
        fn whatever_comes_is_read_or_refused(bytes: Vec<u8>, magic: bool) -> bool {
            let bytes = if magic { [&MAGIC[..], &bytes].concat() } else { bytes };
            let read = Request::decode(&bytes).is_ok_and(|request| request.frame.len() < bytes.len());
            let heard = decode_answer(&bytes).is_ok_and(|(_, frame)| frame.len() < bytes.len());
            (!read || is_of_client(&bytes)) && (!heard || is_of_client(&bytes))
        }
    }
}
