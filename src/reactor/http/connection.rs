//! One connection of an HTTP client: what has come, what is to be written, and since when.

use mio::net::TcpStream;
use std::io::{self, Read, Write};
use std::net::Shutdown;

use crate::limits::{HTTP_IDLE_MS, HTTP_SLOW_MS};
use crate::reactor::http::door::Caller;
use crate::reactor::http::parse::{Parsed, Parser, Unreadable};
use crate::reactor::http::response::{Response, CONTINUE};
use crate::types::Time;

/// Nobody is slower than this many bytes a second for long.
const RATE_MIN: u64 = 16 << 10;
/// How long a connection that is closed is read from, so that what was said to it is not lost with what it still sends.
const LINGER_NS: u64 = 1_000 * Time::MS;
/// Bytes that one turn takes from one connection.
const TURN_BYTES: usize = 256 << 10;

/// The request that is being answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Owed {
    is_head: bool,
    keeps: bool,
}

/// Why a connection is to be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Lives,
    /// It sent too slowly: it is told.
    Slow,
    Over,
}

#[derive(Debug)]
pub struct Connection {
    pub caller: Caller,
    stream: TcpStream,
    parser: Parser,
    owed: Option<Owed>,
    unsent: Vec<u8>,
    written: usize,
    /// A read may give something.
    pub readable: bool,
    /// The other side sends no more; it may read all the same.
    ended: bool,
    /// What has come holds no further whole request.
    starved: bool,
    /// No more requests are taken; closed when all is written, or for good from then on.
    closing: bool,
    lingers: bool,
    /// Since when it is in its present state: idle, sending a request, being answered, taking an answer.
    since: Time,
    pub in_ready: bool,
    /// Its bytes, as they stand in the sum of all.
    counted: usize,
}

impl Connection {
    pub fn new(caller: Caller, stream: TcpStream, now: Time) -> Connection {
        Connection {
            caller,
            stream,
            parser: Parser::default(),
            owed: None,
            unsent: Vec::new(),
            written: 0,
            readable: true,
            ended: false,
            starved: true,
            closing: false,
            lingers: false,
            since: now,
            in_ready: false,
            counted: 0,
        }
    }

    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Bytes held for it.
    pub fn bytes(&self) -> usize {
        self.parser.bytes() + self.unsent.len()
    }

    /// Brings the sum of all connections' bytes up to date.
    pub fn count(&mut self, held: &mut usize) {
        let bytes = self.bytes();
        *held = *held - std::mem::replace(&mut self.counted, bytes) + bytes;
    }

    /// The sum without these.
    pub fn uncount(&self, held: &mut usize) {
        *held -= self.counted;
    }

    /// Nothing is asked and nothing to be written.
    pub fn is_idle(&self) -> bool {
        self.owed.is_none() && self.unsent.is_empty() && self.parser.is_idle()
    }

    pub fn since(&self) -> Time {
        self.since
    }

    /// Reads what has come, up to a bound. False where nothing will come any more and nothing is to be done.
    pub fn read(&mut self, now: Time, scratch: &mut [u8]) -> bool {
        let mut taken = 0;
        while self.readable && taken < TURN_BYTES && (self.lingers || self.owed.is_none() && self.unsent.is_empty()) {
            match self.stream.read(scratch) {
                Ok(0) => {
                    (self.readable, self.ended) = (false, true);
                    return !self.lingers;
                }
                Ok(count) => {
                    taken += count;
                    if self.parser.is_idle() {
                        self.since = now;
                    }
                    if !self.lingers && !self.closing {
                        self.parser.feed(&scratch[..count]);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
            if !self.lingers {
                break;
            }
        }
        true
    }

    /// The next request, unless one is being answered.
    pub fn next_request(&mut self) -> Result<Parsed, Unreadable> {
        if self.owed.is_some() || self.closing || !self.unsent.is_empty() {
            return Ok(Parsed::More);
        }
        let parsed = self.parser.next_request()?;
        self.starved = !matches!(parsed, Parsed::Whole(_)) || self.parser.is_idle();
        match &parsed {
            Parsed::Whole(request) => {
                let is_head = request.method == crate::reactor::http::parse::Method::Head;
                self.owed = Some(Owed { is_head, keeps: request.keeps });
            }
            Parsed::Expects => self.unsent.extend_from_slice(CONTINUE),
            Parsed::More => {}
        }
        Ok(parsed)
    }

    /// The other side sends no more and all it asked is answered, what it pipelined included.
    pub fn is_done(&self) -> bool {
        self.ended && self.starved && self.owed.is_none() && self.unsent.is_empty()
    }

    /// Whether a further request may be read at once.
    pub fn has_more(&self) -> bool {
        let is_free = self.owed.is_none() && self.unsent.is_empty() && !self.closing;
        is_free && (self.readable || !self.parser.is_idle()) || self.lingers && self.readable
    }

    /// Answers the request. After a `last` answer nothing more is taken.
    pub fn answer(&mut self, now: Time, response: &Response, last: bool) {
        let owed = self.owed.take().unwrap_or(Owed { is_head: false, keeps: false });
        let keeps = owed.keeps && !last && !(self.ended && self.starved);
        response.print(keeps, owed.is_head, &mut self.unsent);
        self.closing |= !keeps;
        self.since = now;
        if self.closing {
            // What else has come is not looked at.
            self.parser = Parser::default();
        }
    }

    /// Writes what there is. False if the connection is of no use any more.
    pub fn flush(&mut self, now: Time) -> bool {
        while self.written < self.unsent.len() {
            match self.stream.write(&self.unsent[self.written..]) {
                Ok(0) => return false,
                Ok(count) => self.written += count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        if !self.unsent.is_empty() {
            (self.unsent, self.written) = (Vec::new(), 0);
            self.since = now;
        }
        if self.closing && !self.lingers {
            self.lingers = true;
            self.since = now;
            return !self.ended && self.stream.shutdown(Shutdown::Write).is_ok();
        }
        true
    }

    /// Whether it may go on.
    pub fn judge(&self, now: Time) -> Verdict {
        let waited = now.since_ns(self.since);
        let slow_ns = |bytes: usize| HTTP_SLOW_MS * Time::MS + bytes as u64 * 1_000_000_000 / RATE_MIN;
        if self.lingers {
            return if waited > LINGER_NS { Verdict::Over } else { Verdict::Lives };
        }
        if !self.unsent.is_empty() {
            return if waited > slow_ns(self.unsent.len()) { Verdict::Over } else { Verdict::Lives };
        }
        match (self.owed, self.parser.is_idle()) {
            (Some(_), _) => Verdict::Lives,
            (None, true) if waited > HTTP_IDLE_MS * Time::MS => Verdict::Over,
            (None, false) if waited > slow_ns(self.parser.bytes()) => Verdict::Slow,
            (None, _) => Verdict::Lives,
        }
    }
}
