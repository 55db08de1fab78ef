//! The streams between clients and replicas: frames in order both ways, until one side is gone.

use std::collections::VecDeque;
use std::rc::Rc;

use ftq::replica::{Input, Replica};
use ftq::types::{ClientId, SessionId};
use ftq::wire::client::{first_frame, kind, ToClient, ToReplica};

use super::client::Act;
use super::clock::{Nanos, MS, US};
use super::words;
use super::world::{Bytes, Event, World};

/// Who is none of `World::clients`: a vandal, or a transcript's client.
pub const NO_CLIENT: usize = usize::MAX;

/// The life of no replica: what was sent to a host without power is lost, and with it the connection.
const NEVER: u32 = u32::MAX;

/// One stream between a client and a replica, in order both ways.
#[derive(Debug)]
pub struct Connection {
    pub client: usize,
    pub node: usize,
    /// The life of the replica that accepted it.
    pub life: u32,
    /// Frames that wait until the replica takes them.
    inbox: VecDeque<Bytes>,
    /// Which session the replica was last told: replies are judged by it.
    pub session: SessionId,
    up_at: Nanos,
    down_at: Nanos,
    /// The replica knows of it and was not told that it is gone.
    pub open: bool,
}

impl World {
    /// A replica writes to a client. What it says is judged now, whether it arrives or not.
    pub fn write_to_client(&mut self, connection: ClientId, bytes: &[u8]) -> Result<(), String> {
        if self.gone.contains(&connection) {
            return Ok(());
        }
        let mut at = 0;
        while at < bytes.len() {
            let next = first_frame(&bytes[at..]).map_err(|e| format!("a frame that is none for a client: {e}"))?;
            let Some((frame, taken)) = next else { return Err("half a frame for a client".to_owned()) };
            self.judge_frame(connection, frame)?;
            let delay = self.stream_delay();
            let now = self.now;
            if let Some(c) = self.connections.get_mut(&connection) {
                c.down_at = c.down_at.max(now + delay) + 1;
                let arrives = c.down_at;
                self.schedule(arrives, Event::ToClient { connection, frame: Rc::new(frame.to_vec()) });
            }
            at += taken;
        }
        Ok(())
    }

    fn judge_frame(&mut self, connection: ClientId, frame: &[u8]) -> Result<(), String> {
        let decoded = ToClient::decode(frame).map_err(|e| format!("a client is sent what it can't read: {e}"))?;
        let Some(c) = self.connections.get_mut(&connection) else {
            return Err("a client is written to that never came".to_owned());
        };
        if self.trace.is_on() {
            let text = words::answered(&decoded);
            self.trace.line(self.now, &format!("r{}", c.node + 1), format_args!("=> c{connection} {text}"));
        }
        let vandal = c.client == NO_CLIENT;
        match decoded {
            ToClient::Opened { token, session } => {
                c.session = session;
                self.judges.opened(token, session)
            }
            ToClient::Reply { number, slot, answer } => {
                if self.judges.replies(c.session, number.0, slot, answer)? {
                    self.tally.mark(ftq::marks::ANSWERED_AGAIN);
                }
                Ok(())
            }
            ToClient::Found { number, slot, answer } if !vandal => self.judges.finds(connection, number, slot, answer),
            ToClient::Refused { refused: kind::REQUEST, number, maybe_done, .. } if !vandal => {
                self.judges.refuses(c.session, number, maybe_done)
            }
            _ => Ok(()),
        }
    }

    pub fn stream_delay(&mut self) -> Nanos {
        if self.nodes[0].exact {
            return 100 * US;
        }
        self.rng.between(20 * US, 200 * US) + if self.in_faults() && self.rng.chance(10_000) { 20 * MS } else { 0 }
    }

    /// A replica closes a connection.
    pub fn hang_up(&mut self, connection: ClientId) {
        if let Some(c) = self.connections.get_mut(&connection) {
            let at = c.down_at.max(self.now) + 1;
            self.schedule(at, Event::GoneAtClient { connection });
            self.schedule(at, Event::GoneAtReplica { connection });
        }
    }

    /// A frame of a client arrives at its replica.
    pub fn on_client_frame(&mut self, connection: ClientId, frame: Bytes) -> Result<(), String> {
        let Some(c) = self.connections.get_mut(&connection) else { return Ok(()) };
        let index = c.node;
        if self.nodes[index].replica.is_none() || self.nodes[index].life != c.life {
            // Nobody is there, or one who knows nothing of this connection. A host without power says nothing.
            if self.nodes[index].host_down {
                c.life = NEVER;
                return Ok(());
            }
            self.schedule(self.now + 100 * US, Event::GoneAtClient { connection });
            return Ok(());
        }
        c.inbox.push_back(frame);
        self.nodes[index].frames_of.push_back(connection);
        self.hand_over_frames(index)
    }

    /// Hands over what clients sent, as long as the replica takes it.
    pub fn hand_over_frames(&mut self, index: usize) -> Result<(), String> {
        while let Some(&connection) = self.nodes[index].frames_of.front() {
            if !self.nodes[index].replica.as_ref().is_some_and(Replica::accepts) {
                self.tally.mark(super::marks::CLIENTS_WAIT);
                break;
            }
            self.nodes[index].frames_of.pop_front();
            let Some(c) = self.connections.get_mut(&connection) else { continue };
            let Some(frame) = c.inbox.pop_front() else { continue };
            if let Ok(ToReplica::Use { session, .. }) = ToReplica::decode(&frame) {
                c.session = session;
            }
            c.open = true;
            self.trace.event(self.now, 6, connection.0, &frame);
            if self.trace.is_on() {
                let text = words::asked(&frame);
                self.trace.line(self.now, &format!("r{}", index + 1), format_args!("<= c{connection} {text}"));
            }
            self.step(index, Input::Frame { client: connection, frame: &frame })?;
        }
        Ok(())
    }

    /// The replica learns that a connection is gone.
    pub fn on_gone_at_replica(&mut self, connection: ClientId) -> Result<(), String> {
        let Some(c) = self.connections.remove(&connection) else { return Ok(()) };
        self.gone.insert(connection);
        if c.open && self.nodes[c.node].life == c.life {
            self.trace.event(self.now, 7, connection.0, &[]);
            return self.step(c.node, Input::Gone { client: connection });
        }
        Ok(())
    }

    pub fn on_gone_at_client(&mut self, connection: ClientId) -> Result<(), String> {
        let Some(index) = self.connections.get(&connection).map(|c| c.client) else { return Ok(()) };
        let Some(client) = self.clients.get_mut(index) else { return Ok(()) };
        client.on_close(connection);
        self.wake_client(index, false);
        Ok(())
    }

    /// A frame of a replica arrives at its client.
    pub fn on_replica_frame(&mut self, connection: ClientId, frame: &[u8]) -> Result<(), String> {
        let Some(index) = self.connections.get(&connection).map(|c| c.client) else { return Ok(()) };
        let Some(client) = self.clients.get_mut(index) else { return Ok(()) };
        self.trace.event(self.now, 8, connection.0, frame);
        let decoded = ToClient::decode(frame).expect("it was decoded when it was sent");
        client.on_frame(self.now, connection, &decoded, &mut self.judges, &mut self.tally);
        self.wake_client(index, false);
        Ok(())
    }

    pub fn on_client(&mut self, index: usize) -> Result<(), String> {
        if self.client_wakes[index].is_some_and(|at| at <= self.now) {
            self.wake_client(index, true);
        }
        Ok(())
    }

    /// A client looks at what is due.
    pub fn wake_client(&mut self, index: usize, by_timer: bool) {
        let wake = self.clients[index].wake(self.now, by_timer, &mut self.judges, &mut self.tally);
        if let Some(at) = wake.filter(|&at| self.client_wakes[index].is_none_or(|old| old <= self.now || at < old)) {
            self.client_wakes[index] = Some(at);
            self.schedule(at, Event::Client { index });
        }
        for act in std::mem::take(&mut self.clients[index].acts) {
            self.act(index, act);
        }
    }

    pub fn act(&mut self, client: usize, act: Act) {
        match act {
            Act::Connect { connection, replica } => {
                let session = SessionId::NONE;
                let (node, life, inbox) = (replica, self.nodes[replica].life, VecDeque::new());
                let (up_at, down_at, open) = (self.now, self.now, false);
                let fresh = Connection { client, node, life, inbox, session, up_at, down_at, open };
                self.connections.insert(connection, fresh);
            }
            Act::Send { connection, frame } => {
                let delay = self.stream_delay();
                let now = self.now;
                if let Some(c) = self.connections.get_mut(&connection) {
                    c.up_at = c.up_at.max(now + delay) + 1;
                    let at = c.up_at;
                    // The length is the stream's business.
                    let frame = Rc::new(frame[4..].to_vec());
                    self.schedule(at, Event::ToReplica { connection, frame });
                }
            }
            Act::Close { connection } => {
                if let Some(c) = self.connections.get_mut(&connection) {
                    c.up_at = c.up_at.max(self.now) + 1;
                    let at = c.up_at;
                    self.schedule(at, Event::GoneAtReplica { connection });
                }
            }
        }
    }
}
