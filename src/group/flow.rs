//! Flow control: how much of its own an origin may have under way (DESIGN 4.2).
//!
//! Two bounds. The window: bytes not yet durable at every member; at the bound a replica stops reading from its
//! clients, so memory is bounded and clients feel it. The flight: bytes sent and not yet received everywhere, kept
//! below what the receivers' sockets can hold, so that a burst is not lost in a full buffer.

use std::collections::VecDeque;

use crate::limits::{FLIGHT_BYTES_MAX, FLIGHT_BYTES_MIN, WINDOW_BYTES};
use crate::types::Mseq;

#[derive(Debug, Default)]
pub struct Flow {
    /// Own messages not durable everywhere, oldest first.
    window: VecDeque<(Mseq, usize)>,
    window_bytes: usize,
    /// Own messages sent and not received everywhere, oldest first.
    flight: VecDeque<(Mseq, usize)>,
    flight_bytes: usize,
    /// Highest own message that was sent.
    sent: Mseq,
}

impl Flow {
    /// Highest own message that was sent.
    pub fn sent(&self) -> Mseq {
        self.sent
    }

    /// Bytes of own messages not durable everywhere.
    pub fn window_bytes(&self) -> usize {
        self.window_bytes
    }

    /// Whether one more message may be taken from the clients.
    pub fn is_open(&self) -> bool {
        self.window_bytes < WINDOW_BYTES || crate::group::broken::is("window-ignored")
    }

    /// A message of this replica's own was made.
    pub fn on_made(&mut self, mseq: Mseq, bytes: usize) {
        self.window.push_back((mseq, bytes));
        self.window_bytes += bytes;
    }

    /// Every member holds own messages up to here durably.
    pub fn on_released(&mut self, mseq: Mseq) {
        self.window_bytes -= drop_up_to(&mut self.window, mseq);
    }

    /// Every member has received own messages up to here.
    pub fn on_received(&mut self, mseq: Mseq) {
        self.flight_bytes -= drop_up_to(&mut self.flight, mseq);
    }

    /// The next message to be sent for the first time, if the flight leaves room. `buffer_bytes` is the smallest
    /// receiver's socket buffer, shared by `origins` senders. Within an operation (`inside`) there is always room: it
    /// is ordered, and so makes room, only once all of it was sent.
    pub fn next_to_send(&self, made: Mseq, buffer_bytes: u32, origins: usize, inside: bool) -> Option<Mseq> {
        let share = buffer_bytes as usize / origins.max(1);
        let room = share.clamp(FLIGHT_BYTES_MIN, FLIGHT_BYTES_MAX);
        (self.sent < made && (self.flight_bytes < room || inside || self.flight.is_empty())).then(|| self.sent.next())
    }

    /// The message that `next_to_send` named is on its way.
    pub fn on_sent(&mut self, mseq: Mseq, bytes: usize) {
        self.sent = mseq;
        self.flight.push_back((mseq, bytes));
        self.flight_bytes += bytes;
    }
}

/// Drops the messages up to here and says how many bytes they were.
fn drop_up_to(messages: &mut VecDeque<(Mseq, usize)>, mseq: Mseq) -> usize {
    let mut dropped = 0;
    while let Some(&(_, bytes)) = messages.front().filter(|front| front.0 <= mseq) {
        dropped += bytes;
        messages.pop_front();
    }
    dropped
}
