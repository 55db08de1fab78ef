//! The streams between replicas: frames in order, until the connection is lost with all that is under way on it.

use std::collections::BTreeMap;
use std::rc::Rc;

use ftq::replica::Input;
use ftq::types::ReplicaId;
use ftq::wire::stream::first_frame;

use super::clock::{Nanos, MS};
use super::world::{Bytes, Event, World};

/// Chances in a million that a frame is the last one of its connection, while there are faults.
const RESET_PPM: u32 = 10_000;

/// What connects one pair of replicas.
#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    /// Counts the connections: what was under way on an earlier one is lost.
    generation: u64,
    /// When the last frame arrives, from the lower index and from the higher one.
    arrives_at: [Nanos; 2],
}

#[derive(Debug, Default)]
pub struct Streams(BTreeMap<(usize, usize), Stream>);

/// One frame under way.
#[derive(Clone, Debug)]
pub struct StreamFrame {
    pub from: usize,
    pub to: usize,
    /// The lives of both when it was sent: a connection ends with either.
    lives: [u32; 2],
    generation: u64,
    bytes: Bytes,
}

impl Streams {
    fn between(&mut self, one: usize, other: usize) -> &mut Stream {
        self.0.entry((one.min(other), one.max(other))).or_default()
    }
}

impl World {
    /// A replica says something over a stream. Lost where the other is not there or not reached.
    pub fn send_stream(&mut self, from: usize, to: ReplicaId, bytes: Vec<u8>) -> Result<(), String> {
        let whole = first_frame(&bytes).is_ok_and(|frame| frame.is_some_and(|(_, taken)| taken == bytes.len()));
        if !whole {
            return Err(format!("replica {} sends what is no frame over a stream", from + 1));
        }
        let to = usize::from(to.0) - 1;
        if self.trace.is_on() {
            let text = format!("=> {} stream, {} bytes", to + 1, bytes.len());
            self.trace.line(self.now, &format!("r{}", from + 1), format_args!("{text}"));
        }
        let cut = self.net.is_cut(from, to, self.now) || self.net.is_cut(to, from, self.now);
        let reset = self.in_faults() && self.rng.chance(RESET_PPM);
        if cut || reset || self.nodes[to].replica.is_none() {
            self.streams.between(from, to).generation += 1;
            self.tally.fault("stream lost");
            return Ok(());
        }
        let at = self.now + self.stream_delay() + if self.in_faults() { self.rng.below(5 * MS) } else { 0 };
        let stream = self.streams.between(from, to);
        let last = &mut stream.arrives_at[usize::from(from > to)];
        *last = at.max(*last + 1);
        let (at, generation) = (*last, stream.generation);
        let lives = [self.nodes[from].life, self.nodes[to].life];
        let frame = StreamFrame { from, to, lives, generation, bytes: Rc::new(bytes) };
        self.schedule(at, Event::Stream { frame });
        Ok(())
    }

    /// A frame arrives, if its connection has lasted.
    pub fn on_stream(&mut self, frame: &StreamFrame) -> Result<(), String> {
        let &StreamFrame { from, to, lives, generation, ref bytes } = frame;
        let lasted = self.streams.between(from, to).generation == generation;
        let cut = self.net.is_cut(from, to, self.now);
        if !lasted || cut || lives != [self.nodes[from].life, self.nodes[to].life] {
            self.tally.fault("stream frame lost");
            return Ok(());
        }
        self.trace.event(self.now, 12, to as u64, bytes);
        let (body, _) = first_frame(bytes).ok().flatten().expect("it was looked at when it was sent");
        self.step(to, Input::Stream { from: ReplicaId(from as u8 + 1), frame: body })
    }
}
