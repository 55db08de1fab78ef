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
        self.window_bytes < WINDOW_BYTES || crate::broken::is("window-ignored")
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

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    #[test]
    fn the_window_closes_at_its_bound_and_opens_when_all_hold_it() {
        let mut flow = Flow::default();
        flow.on_made(Mseq(1), WINDOW_BYTES - 1);
        assert!(flow.is_open());
        flow.on_made(Mseq(2), 1);
        assert!(!flow.is_open());
        flow.on_received(Mseq(2));
        assert!(!flow.is_open(), "received is not durable");
        flow.on_released(Mseq(1));
        assert_eq!(flow.window_bytes(), 1);
        assert!(flow.is_open());
        flow.on_released(Mseq(2));
        assert_eq!(flow.window_bytes(), 0);
    }

    /// Sends what may be sent of `made` messages of this size, and says how many.
    fn send_all(flow: &mut Flow, made: u64, bytes: usize, buffer_bytes: u32, origins: usize) -> usize {
        let mut sent = 0;
        while let Some(mseq) = flow.next_to_send(Mseq(made), buffer_bytes, origins, false) {
            assert_eq!(mseq, flow.sent().next());
            flow.on_sent(mseq, bytes);
            sent += 1;
        }
        sent
    }

    #[test]
    fn the_flight_is_a_share_of_the_smallest_buffer_within_bounds() {
        let kib = 1024;
        let flight = |buffer: usize, origins| send_all(&mut Flow::default(), 5000, kib, buffer as u32, origins) * kib;
        assert_eq!(flight(400 * kib, 2), 200 * kib);
        assert_eq!(flight(400 * kib, 0), 400 * kib, "alone there is nobody to share with");
        assert_eq!(flight(0, 2), FLIGHT_BYTES_MIN);
        assert_eq!(flight(400 * kib, 14), FLIGHT_BYTES_MIN);
        assert_eq!(flight(1 << 30, 2), FLIGHT_BYTES_MAX);
    }

    #[test]
    fn what_was_received_makes_room_and_nothing_unmade_is_sent() {
        let mut flow = Flow::default();
        assert_eq!(send_all(&mut flow, 0, 1, 0, 1), 0);
        assert_eq!(send_all(&mut flow, 9, FLIGHT_BYTES_MIN / 2, 0, 1), 2);
        flow.on_received(Mseq(1));
        assert_eq!(send_all(&mut flow, 9, FLIGHT_BYTES_MIN / 2, 0, 1), 1);
        flow.on_received(Mseq(1));
        assert_eq!(send_all(&mut flow, 9, FLIGHT_BYTES_MIN / 2, 0, 1), 0);
        flow.on_received(Mseq(3));
        assert_eq!(send_all(&mut flow, 4, FLIGHT_BYTES_MIN * 9, 0, 1), 1, "one goes whatever its size");
        assert_eq!(flow.sent(), Mseq(4));
    }

    #[test]
    fn an_operation_that_has_begun_is_sent_to_its_end() {
        let mut flow = Flow::default();
        assert_eq!(send_all(&mut flow, 2, FLIGHT_BYTES_MIN, 0, 1), 1);
        assert_eq!(flow.next_to_send(Mseq(2), 0, 1, false), None);
        assert_eq!(flow.next_to_send(Mseq(2), 0, 1, true), Some(Mseq(2)));
        assert_eq!(flow.next_to_send(Mseq(1), 0, 1, true), None, "there is no more of it");
    }

    quickcheck! {
        fn bytes_are_those_of_the_messages_under_way(sizes: Vec<u16>, released: Vec<u8>) -> bool {
            let mut flow = Flow::default();
            let sizes: Vec<usize> = sizes.into_iter().map(usize::from).collect();
            for (k, &bytes) in sizes.iter().enumerate() {
                flow.on_made(Mseq(k as u64 + 1), bytes);
            }
            let mut highest = 0;
            released.into_iter().all(|mseq| {
                flow.on_released(Mseq(u64::from(mseq)));
                highest = sizes.len().min(highest.max(usize::from(mseq)));
                flow.window_bytes() == sizes[highest..].iter().sum::<usize>()
            })
        }
    }
}
