//! What a request came to: a code, and the answer's own bytes behind it. INTERFACE "Answers" has the codes.

use crate::wire::codec::{DecodeError, Decoded, Reader};

macro_rules! codes {
    ($($variant:ident = $number:literal $name:literal $status:literal, $doc:literal;)*) => {
        /// The outcome of a request. Numbers are for ever; the names are what users read.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum Code { $(#[doc = $doc] $variant = $number,)* }

        impl Code {
            pub const ALL: &'static [Code] = &[$(Code::$variant),*];

            pub fn from_u8(number: u8) -> Option<Code> {
                match number { $($number => Some(Code::$variant),)* _ => None }
            }

            /// The word in `! CODE message`.
            pub fn name(self) -> &'static str {
                match self { $(Code::$variant => $name,)* }
            }

            pub fn from_name(name: &str) -> Option<Code> {
                match name { $($name => Some(Code::$variant),)* _ => None }
            }

            /// The exit status of `ftqc`, after sysexits.h.
            pub fn exit_status(self) -> u8 {
                match self { $(Code::$variant => $status,)* }
            }
        }
    };
}

codes! {
    Ok = 0 "ok" 0, "Done.";
    Empty = 1 "empty" 1, "There is no item.";
    NoQueue = 2 "no-queue" 1, "There is no such queue.";
    NoReceipt = 3 "no-receipt" 1, "The lease has passed to another.";
    NoKey = 4 "no-key" 1, "There is no such key.";
    NoSite = 5 "no-site" 1, "There is no such site.";
    NoAccount = 6 "no-account" 1, "There is no such account.";
    Exists = 7 "exists" 1, "It is there already.";
    BadRequest = 8 "bad-request" 65, "The request makes no sense.";
    TooLarge = 9 "too-large" 65, "An item, label or request is over its limit.";
    NotPrimary = 10 "not-primary" 75, "This replica is not in the primary view.";
    Full = 11 "full" 75, "The queue's limit or the replica's memory limit is reached.";
    DiskFull = 12 "disk-full" 75, "No room to log what grows the state.";
    Stopping = 13 "stopping" 75, "The replica is leaving.";
    Busy = 14 "busy" 75, "Too much is under way.";
    Expired = 15 "expired" 79, "The session is not in the table any more.";
    UnknownOutcome = 16 "unknown-outcome" 79, "Sent, and no answer in time.";
    Denied = 17 "denied" 77, "Key or permission refused.";
    Version = 18 "version" 76, "The other side speaks another version.";
    Internal = 19 "internal" 70, "A bug.";
}

/// An answer as it is stored in the session table and sent to the client: one byte of [`Code`], then for `Ok` what
/// the operation's kind says, for any other a message in UTF-8 for people.
pub fn split(answer: &[u8]) -> Decoded<(Code, &[u8])> {
    let mut r = Reader::new(answer);
    let code = Code::from_u8(r.u8("answer code")?).ok_or(DecodeError { field: "answer code" })?;
    Ok((code, r.rest()))
}

/// An answer with this code and text.
pub fn error(code: Code, message: &str) -> Vec<u8> {
    let mut answer = Vec::with_capacity(1 + message.len());
    answer.push(code as u8);
    answer.extend_from_slice(message.as_bytes());
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back_by_number_and_name() {
        for &code in Code::ALL {
            assert_eq!(Code::from_u8(code as u8), Some(code));
            assert_eq!(Code::from_name(code.name()), Some(code));
        }
        assert_eq!(Code::from_u8(200), None);
        assert_eq!(split(&error(Code::Full, "no room")), Ok((Code::Full, &b"no room"[..])));
        assert!(split(&[]).is_err());
    }
}
