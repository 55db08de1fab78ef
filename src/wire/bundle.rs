//! Operations as they are ordered: a bundle is a run of one session's requests with consecutive numbers, so that a
//! thousand pipelined requests cost one header. Messages, slots and log records are concatenations of bundles.
//!
//! ```text
//! session slot u64, position u32, digest u64 | seen u64 | first number u64 | count u32 | bytes u32
//! (varint length, operation)*
//! ```

use crate::limits::OPERATION_BYTES_MAX;
use crate::types::{RequestNumber, SessionId, Slot};
use crate::wire::codec::{varint_len, DecodeError, Decoded, Put, Reader};

/// Bytes of a session's id as [`put_session`] writes it.
pub const SESSION_ID_BYTES: usize = 20;

/// Bytes before a bundle's first operation.
pub const HEADER_BYTES: usize = 44;
/// Bytes of the largest bundle with one operation in it.
pub const BUNDLE_BYTES_MAX: usize = HEADER_BYTES + 5 + OPERATION_BYTES_MAX;
const SEEN_AT: usize = 20;
const COUNT_AT: usize = 36;

/// Appends a session's id.
pub fn put_session(out: &mut Vec<u8>, session: SessionId) {
    out.put_u64(session.slot.0);
    out.put_u32(session.position);
    out.put_u64(session.digest);
}

/// Reads a session's id.
pub fn session(r: &mut Reader<'_>) -> Decoded<SessionId> {
    Ok(SessionId {
        slot: Slot(r.u64("session slot")?),
        position: r.u32("session position")?,
        digest: r.u64("session digest")?,
    })
}

/// One bundle, read in place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bundle<'a> {
    pub session: SessionId,
    /// The client has all answers up to here.
    pub seen: RequestNumber,
    pub first: RequestNumber,
    pub count: u32,
    operations: &'a [u8],
}

impl<'a> Bundle<'a> {
    /// The requests in number order. Ends early where the bytes are malformed, which [`Bundle::decode`] excludes.
    pub fn operations(&self) -> impl Iterator<Item = (RequestNumber, &'a [u8])> {
        let (mut r, first) = (Reader::new(self.operations), self.first.0);
        (0..u64::from(self.count)).map_while(move |k| {
            let operation = r.bytes(OPERATION_BYTES_MAX, "operation").ok()?;
            Some((RequestNumber(first.wrapping_add(k)), operation))
        })
    }

    /// The next bundle of `r`, all of its operations checked.
    pub fn decode(r: &mut Reader<'a>) -> Decoded<Bundle<'a>> {
        let session = session(r)?;
        let seen = RequestNumber(r.u64("seen")?);
        let first = RequestNumber(r.u64("first number")?);
        let count = r.u32("count")?;
        let bytes = r.u32("bundle bytes")? as usize;
        let operations = r.take(bytes, "bundle bytes")?;
        let mut inner = Reader::new(operations);
        for _ in 0..count {
            inner.bytes(OPERATION_BYTES_MAX, "operation")?;
        }
        inner.end("bundle bytes")?;
        if count == 0 || first.0.checked_add(u64::from(count) - 1).is_none() {
            return Err(DecodeError { field: "count" });
        }
        Ok(Bundle { session, seen, first, count, operations })
    }
}

/// Collects requests into bundles, in the order they come.
#[derive(Default, Debug)]
pub struct Bundler {
    bytes: Vec<u8>,
    /// Where the last bundle begins and which request would extend it.
    last: Option<(usize, SessionId, RequestNumber)>,
}

impl Bundler {
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes collected.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes there will be once this operation is in.
    pub fn len_with(&self, session: SessionId, number: RequestNumber, operation: &[u8]) -> usize {
        let header = if self.extends(session, number).is_some() { 0 } else { HEADER_BYTES };
        self.bytes.len() + header + varint_len(operation.len() as u64) + operation.len()
    }

    fn extends(&self, session: SessionId, number: RequestNumber) -> Option<usize> {
        self.last.filter(|&(_, s, n)| s == session && n == number).map(|(start, ..)| start)
    }

    /// Appends one request.
    pub fn push(&mut self, session: SessionId, number: RequestNumber, seen: RequestNumber, operation: &[u8]) {
        let start = match self.extends(session, number) {
            Some(start) => start,
            None => {
                let start = self.bytes.len();
                put_session(&mut self.bytes, session);
                self.bytes.put_u64(seen.0);
                self.bytes.put_u64(number.0);
                self.bytes.put_u32(0);
                self.bytes.put_u32(0);
                start
            }
        };
        self.bytes.put_bytes(operation);
        let field =
            |at: usize, bytes: &[u8]| -> u32 { u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes")) };
        let count = field(start + COUNT_AT, &self.bytes) + 1;
        let bytes = (self.bytes.len() - start - HEADER_BYTES) as u32;
        self.bytes[start + SEEN_AT..start + SEEN_AT + 8].copy_from_slice(&seen.0.to_be_bytes());
        self.bytes[start + COUNT_AT..start + COUNT_AT + 4].copy_from_slice(&count.to_be_bytes());
        self.bytes[start + COUNT_AT + 4..start + HEADER_BYTES].copy_from_slice(&bytes.to_be_bytes());
        self.last = number.0.checked_add(1).map(|next| (start, session, RequestNumber(next)));
    }

    /// All that was collected; the bundler is empty again.
    pub fn take(&mut self) -> Vec<u8> {
        self.last = None;
        std::mem::take(&mut self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    fn session(n: u8) -> SessionId {
        SessionId { slot: Slot(u64::from(n)), position: 1, digest: 7 }
    }

    quickcheck! {
        fn requests_come_back_in_order(requests: Vec<(u8, u8, Vec<u8>)>) -> bool {
            let mut bundler = Bundler::default();
            let mut expected = Vec::new();
            for (s, n, op) in &requests {
                let (s, n) = (session(s % 3), RequestNumber(u64::from(n % 5) + 1));
                let length = bundler.len_with(s, n, op);
                bundler.push(s, n, RequestNumber(0), op);
                assert_eq!(length, bundler.len());
                expected.push((s, n, op.clone()));
            }
            let bytes = bundler.take();
            let (mut r, mut found) = (Reader::new(&bytes), Vec::new());
            while !r.is_empty() {
                let bundle = Bundle::decode(&mut r).expect("what the bundler wrote");
                found.extend(bundle.operations().map(|(n, op)| (bundle.session, n, op.to_vec())));
            }
            found == expected
        }

        fn garbage_is_refused_or_read_never_a_panic(bytes: Vec<u8>) -> bool {
            let mut r = Reader::new(&bytes);
            while let Ok(bundle) = Bundle::decode(&mut r) {
                assert_eq!(bundle.operations().count() as u32, bundle.count);
            }
            true
        }
    }

    #[test]
    fn consecutive_requests_of_a_session_share_a_header() {
        let mut bundler = Bundler::default();
        for n in 1..=100 {
            bundler.push(session(1), RequestNumber(n), RequestNumber(n / 2), b"x");
        }
        let bytes = bundler.take();
        assert_eq!(bytes.len(), HEADER_BYTES + 200);
        let bundle = Bundle::decode(&mut Reader::new(&bytes)).expect("one bundle");
        assert_eq!((bundle.first, bundle.count, bundle.seen), (RequestNumber(1), 100, RequestNumber(50)));
    }
}
