//! The services as the simulator knows them: what each must do, as an independent and naive model, and what clients ask
//! of it. A further one takes a file of its own, a line in [`models`] and one in [`Habits::new`].

pub mod chat;
pub mod kv;
pub mod queue;
pub mod queue_habit;
pub mod stock;

use std::collections::BTreeMap;
use std::fmt::Debug;

use ftq::rng::Rng;
use ftq::types::{GroupTime, SessionId, Slot};
use ftq::wire::answer::Code;
use ftq::wire::operation::service;

use super::model::Expected;
use super::plan::Load;
use super::workload::Bytes;

/// A session and the number of a request.
pub type Asker = (SessionId, u64);

pub const BAD: Expected = Expected::Error(Code::BadRequest);

/// What a service must do. It keeps what was, so that a read is judged by the state at the very slot it names.
pub trait Naive: Debug {
    /// A slot begins, at this time: what is over ends.
    fn begin(&mut self, slot: Slot, now: GroupTime);
    /// Executes an operation, which is what follows the service's byte; `None` where its answer comes later.
    fn execute(&mut self, slot: Slot, asker: Asker, operation: &[u8]) -> Option<Expected>;
    /// What a query must find in the state after `slot`.
    fn find(&self, slot: Slot, query: &[u8]) -> Expected;
    /// This session has no connection for now, or is back.
    fn step_aside(&mut self, _slot: Slot, _session: SessionId, _aside: bool) {}
    fn session_ended(&mut self, _slot: Slot, _session: SessionId) {}
    /// Whom an answer was found for since this was asked last, and what it is.
    fn take_answers(&mut self) -> Vec<(Asker, Expected)> {
        Vec::new()
    }
}

/// A model of each service.
pub fn models() -> BTreeMap<u8, Box<dyn Naive>> {
    let all: [(u8, Box<dyn Naive>); 4] = [
        (service::QUEUE, Box::<queue::Queues>::default()),
        (service::CHAT, Box::<chat::Chat>::default()),
        (service::STOCK, Box::<stock::Stock>::default()),
        (service::KV, Box::<kv::Store>::default()),
    ];
    all.into_iter().collect()
}

/// What one client asks of a service, and what it remembers of the answers.
pub trait Habit: Debug {
    /// Request `number` of this client.
    fn operation(&mut self, rng: &mut Rng, load: &Load, client: usize, number: u64) -> Bytes;
    fn query(&mut self, rng: &mut Rng, load: &Load) -> Bytes;
    /// An answer to this operation arrives.
    fn hear(&mut self, _operation: &[u8], _answer: &[u8]) {}
    /// An answer to this query arrives, which with `stale` a replica gave alone.
    fn found(&mut self, _query: &[u8], _stale: bool, _answer: &[u8]) {}
    /// What to ask another replica, which answers alone, now that this operation or query is answered. What was asked
    /// so before is given up.
    fn errand(&mut self, _answered: &[u8]) -> Option<Bytes> {
        None
    }
    /// The answer to the last of those questions.
    fn errand_found(&mut self, _query: &[u8], _answer: &[u8]) {}
}

/// All habits of one client.
#[derive(Debug)]
pub struct Habits {
    /// Each with the service's byte and its share beside the others.
    all: Vec<(u8, u64, Box<dyn Habit>)>,
}

impl Habits {
    pub fn new() -> Habits {
        let all: Vec<(u8, u64, Box<dyn Habit>)> = vec![
            (service::QUEUE, 0, Box::<queue_habit::Habit>::default()),
            (service::CHAT, 3, Box::<chat::Habit>::default()),
            (service::STOCK, 2, Box::<stock::Habit>::default()),
            (service::KV, 3, Box::<kv::Habit>::default()),
        ];
        Habits { all }
    }

    /// The queue's, but for `others_ppm` of a load, which the others share.
    pub fn pick(&mut self, rng: &mut Rng, load: &Load) -> &mut dyn Habit {
        let mut index = 0;
        if rng.chance(load.others_ppm) {
            let mut at = rng.below(self.all.iter().map(|(_, share, _)| share).sum());
            while let Some(left) = at.checked_sub(self.all[index].1) {
                (at, index) = (left, index + 1);
            }
        }
        &mut *self.all[index].2
    }

    pub fn hear(&mut self, operation: &[u8], answer: &[u8]) {
        if let Some(habit) = self.of(operation) {
            habit.hear(operation, answer);
        }
    }

    pub fn found(&mut self, query: &[u8], stale: bool, answer: &[u8]) {
        if let Some(habit) = self.of(query) {
            habit.found(query, stale, answer);
        }
    }

    pub fn errand(&mut self, answered: &[u8]) -> Option<Bytes> {
        self.of(answered).and_then(|habit| habit.errand(answered))
    }

    pub fn errand_found(&mut self, query: &[u8], answer: &[u8]) {
        if let Some(habit) = self.of(query) {
            habit.errand_found(query, answer);
        }
    }

    /// The habit of the service that these bytes are for.
    fn of(&mut self, bytes: &[u8]) -> Option<&mut Box<dyn Habit>> {
        self.all.iter_mut().find(|(byte, _, _)| bytes.first() == Some(byte)).map(|(_, _, habit)| habit)
    }
}
