//! `bench`: closed-loop clients, each with its own connection and session and so many requests in flight, all driven
//! by one thread. A request is timed from when it is handed to the connection until its answer is looked at. Nothing
//! is allocated for a request, and every answer is checked.

use crate::cli::output::{complain, Output};
use crate::cli::table::{decimal, Call, Plan, Refusal};
use crate::client::connection::{poll, Connection, PollFd};
use crate::client::{Ask, Error, Server, Session};
use crate::limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX, ITEM_BYTES_MAX, SESSION_WINDOW};
use crate::types::RequestNumber;
use crate::wire::answer::{split, Code};
use crate::wire::client::{ToClient, ToReplica};
use crate::wire::codec::Reader;
use crate::wire::operation::{Leased, QueueOperation, QueueQuery, Receipt, SessionOperation, Target};
use hdrhistogram::Histogram;
use serde_json::Value;
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::time::{Duration, Instant};

const CLIENTS_MAX: u64 = 4096;
const SECONDS_MAX: u64 = 3600;
/// Requests before the clock starts: a tenth of the time, within these bounds.
const WARM_UP_MIN: Duration = Duration::from_millis(200);
const WARM_UP_MAX: Duration = Duration::from_secs(1);
/// Items that are there when pops are measured; when they are used up, the clock stands still for more.
const FILL_ITEMS: u64 = 1 << 20;
const FILL_BYTES: u64 = 256 << 20;
/// Longer than any measurement.
const LEASE_MS: u64 = 2 * SECONDS_MAX * 1000;
/// Latencies are kept from a microsecond to a minute, to three digits.
const LATENCY_NS: (u64, u64) = (1000, 60_000_000_000);

const NO_DATAGRAMS: &str = "what is measured are connections, so bench takes no --udp";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Push,
    Pop,
    Mixed,
    Read,
    /// To lease an item and to acknowledge it: the two together are one.
    Take,
}

impl Kind {
    /// Whether it uses up items that have to be there.
    fn consumes(self) -> bool {
        matches!(self, Kind::Pop | Kind::Take)
    }
}

#[derive(Clone, Copy, Debug)]
struct Load {
    kind: Kind,
    clients: usize,
    size: usize,
    length: Duration,
    depth: u64,
    stale: bool,
}

pub fn plan(call: &Call<'_>) -> Result<Plan, Refusal> {
    let number = |name: &str, default: u64, max: u64| {
        let value = call.long(name).map_or(Some(default), decimal).filter(|value| (1..=max).contains(value));
        value.ok_or_else(|| Refusal::Usage(format!("--{name} is a number from 1 to {max}")))
    };
    let kind = match call.operands.first().map(Vec::as_slice) {
        None | Some(b"push") => Kind::Push,
        Some(b"pop") => Kind::Pop,
        Some(b"mixed") => Kind::Mixed,
        Some(b"read") => Kind::Read,
        Some(b"take") => Kind::Take,
        Some(_) => return Err(Refusal::Usage("there are push, pop, mixed, read and take".to_string())),
    };
    let load = Load {
        kind,
        clients: number("clients", 1, CLIENTS_MAX)? as usize,
        size: number("size", 16, ITEM_BYTES_MAX as u64)? as usize,
        length: Duration::from_secs(number("seconds", 5, SECONDS_MAX)?),
        depth: number("pipeline", 1, SESSION_WINDOW)?,
        stale: call.stale,
    };
    if call.datagrams {
        return Err(Refusal::Usage(NO_DATAGRAMS.to_string()));
    }
    Ok(Plan::Run(Box::new(move |session, out| {
        // Among other commands, whose requests may be datagrams.
        if session.uses_datagrams() {
            return out.error(&Error::bad_request(NO_DATAGRAMS));
        }
        let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
        let label = format!("bench-{}-{random:016x}", std::process::id());
        let result = measure(&load, &label, session, out);
        let dropped = session.call(Ask::Request, |bytes| {
            QueueOperation::Destroy { target: Target::Label(&label) }.encode(bytes);
        });
        match (result, dropped) {
            (Err(e), _) => out.error(&e),
            (Ok(figures), dropped) => {
                figures.print(&load, out);
                if let Err(e) = dropped {
                    complain(&format!("{label} was not dropped: {e}"));
                }
            }
        }
    })))
}

fn measure(load: &Load, label: &str, session: &mut Session, out: &mut Output) -> Result<Figures, Error> {
    session.call(Ask::Request, |bytes| QueueOperation::Create { label }.encode(bytes))?;
    if load.kind == Kind::Read {
        fill(session, label, load.size, 1)?;
    }
    let (operations, servers) = (operations(load, label), session.servers().to_vec());
    let mut lanes = open_lanes(load, &servers, session.timeout(), &operations)?;
    if out.style.terminal {
        complain(&format!("{} clients are connected", lanes.len()));
    }
    let warm_up = (load.length / 10).clamp(WARM_UP_MIN, WARM_UP_MAX);
    let mut figures = Figures::new();
    let items = FILL_ITEMS.min(FILL_BYTES / load.size as u64).max(load.depth * load.clients as u64);
    for (length, counts) in [(warm_up, false), (load.length, true)] {
        let mut left = length;
        while left > Duration::ZERO {
            let requests = if load.kind.consumes() { items } else { u64::MAX };
            if load.kind.consumes() {
                fill(session, label, load.size, items)?;
            }
            let took = drive(&mut lanes, left, requests, counts.then_some(&mut figures))?;
            left = left.saturating_sub(took);
            if load.kind.consumes() {
                session.call(Ask::Request, |bytes| {
                    QueueOperation::Purge { target: Target::Label(label) }.encode(bytes);
                })?;
            }
        }
    }
    lanes.iter_mut().for_each(Lane::end);
    Ok(figures)
}

/// The operations that each client sends in turn, as they go on the wire.
fn operations(load: &Load, label: &str) -> Vec<(bool, Vec<u8>)> {
    let (item, target) = (vec![b'x'; load.size], Target::Label(label));
    let (mut push, mut pop, mut read, mut take) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    QueueOperation::encode_push(&mut push, target, [item.as_slice()].into_iter());
    QueueOperation::Pop { target, count: 1 }.encode(&mut pop);
    QueueQuery::Peek { target, count: 1 }.encode(&mut read);
    QueueOperation::Take { target, count: 1, lease_ms: LEASE_MS, wait_ms: 0 }.encode(&mut take);
    match load.kind {
        Kind::Push => vec![(false, push)],
        Kind::Pop => vec![(false, pop)],
        Kind::Mixed => vec![(false, push), (false, pop)],
        Kind::Read => vec![(true, read)],
        Kind::Take => vec![(false, take)],
    }
}

/// Pushes so many items, in batches.
fn fill(session: &mut Session, label: &str, size: usize, items: u64) -> Result<(), Error> {
    let item = vec![b'x'; size];
    let batch = (BATCH_BYTES_MAX / (size + 5)).clamp(1, BATCH_ITEMS_MAX) as u64;
    let (mut left, mut result) = (items, Ok(()));
    while left > 0 || session.pending() > 0 {
        while left > 0 && session.has_room() {
            let count = batch.min(left) as usize;
            session.submit(Ask::Request, |bytes| {
                QueueOperation::encode_push(bytes, Target::Label(label), (0..count).map(|_| item.as_slice()));
            });
            left -= count as u64;
        }
        session.turn(None, None);
        while let Some(answer) = session.take() {
            if let Err(e) = answer {
                (left, result) = (0, Err(e));
            }
        }
    }
    result
}

// ---- clients

/// One client.
struct Lane<'o> {
    connection: Connection,
    server: &'o Server,
    operations: &'o [(bool, Vec<u8>)],
    stale: bool,
    ready: bool,
    /// The next request's number. It may be sent when the one `depth` before it is answered, which means that all up
    /// to there are.
    next: u64,
    /// The request under each number, modulo `depth`; `None` once answered.
    sent: Vec<Option<Flight>>,
    in_flight: u64,
    /// Whether what is answered is to be acknowledged, what waits for that and since when, and the operation.
    acknowledges: bool,
    leased: VecDeque<(Receipt, Instant)>,
    ack: Vec<u8>,
}

/// A request under way.
#[derive(Clone, Copy)]
struct Flight {
    /// When it was sent, or what it acknowledges was.
    since: Instant,
    is_ack: bool,
}

impl Lane<'_> {
    fn depth(&self) -> u64 {
        self.sent.len() as u64
    }

    /// Sends what may be sent, at most `allowed`; returns how many.
    fn send(&mut self, now: Instant, allowed: u64) -> io::Result<u64> {
        let mut count = 0;
        let depth = self.depth();
        while (count < allowed || !self.leased.is_empty()) && self.sent[(self.next % depth) as usize].is_none() {
            let number = self.next;
            let seen = RequestNumber(number.saturating_sub(depth));
            let (reads, operation) = &self.operations[(number % self.operations.len() as u64) as usize];
            let mut flight = Flight { since: now, is_ack: false };
            if let Some((receipt, since)) = self.leased.pop_front() {
                flight = Flight { since, is_ack: true };
                self.ack.clear();
                QueueOperation::Ack { receipt }.encode(&mut self.ack);
                let number = RequestNumber(number);
                self.connection.send(&ToReplica::Request { number, seen, operation: &self.ack });
            } else {
                match reads {
                    true => self.connection.send(&ToReplica::Query { number, stale: self.stale, query: operation }),
                    false => {
                        self.connection.send(&ToReplica::Request { number: RequestNumber(number), seen, operation })
                    }
                }
                count += 1;
            }
            self.sent[(number % depth) as usize] = Some(flight);
            self.next += 1;
            self.in_flight += 1;
        }
        self.connection.flush()?;
        Ok(count)
    }

    /// Looks at the answers that are there.
    fn hear(&mut self, figures: &mut Option<&mut Figures>) -> Result<(), Error> {
        let broken = |server: &Server, e: io::Error| Error::Unreachable { message: format!("{server}: {e}") };
        self.connection.fill().map_err(|e| broken(self.server, e))?;
        let now = Instant::now();
        while let Some(frame) = self.connection.next_frame().map_err(|e| broken(self.server, e))? {
            let (number, answer) = match frame {
                ToClient::Reply { number, answer, .. } => (number.0, answer),
                ToClient::Found { number, answer, .. } => (number, answer),
                ToClient::Welcome { .. } => {
                    self.connection.send(&ToReplica::Open { token: self.next });
                    continue;
                }
                ToClient::Opened { .. } => {
                    self.ready = true;
                    self.next = 1;
                    continue;
                }
                ToClient::Refused { code, message, .. } => return Err(Error::refused(code, message)),
                ToClient::Told { .. } | ToClient::Pong { .. } => continue,
            };
            let depth = self.sent.len() as u64;
            let Some(flight) = self.sent[(number % depth) as usize].take() else { continue };
            self.in_flight -= 1;
            match split(answer) {
                Ok((Code::Ok, body)) if self.acknowledges && !flight.is_ack => {
                    self.leased.push_back((only_receipt(body)?, flight.since));
                    continue;
                }
                Ok((Code::Ok | Code::Empty, _)) => {}
                Ok((code, message)) => return Err(Error::refused(code, String::from_utf8_lossy(message))),
                Err(e) => return Err(Error::refused(Code::Internal, e.to_string())),
            }
            if let Some(figures) = figures {
                figures.count(now.duration_since(flight.since));
            }
        }
        Ok(())
    }

    fn end(&mut self) {
        let mut operation = Vec::new();
        SessionOperation::End.encode(&mut operation);
        let number = RequestNumber(self.next);
        self.connection.send(&ToReplica::Request { number, seen: RequestNumber(self.next - 1), operation: &operation });
        // A session that nobody speaks for ends by itself.
        let _ = self.connection.flush();
    }
}

/// The receipt of the one item that was leased.
fn only_receipt(body: &[u8]) -> Result<Receipt, Error> {
    let mut r = Reader::new(body);
    let leased = r.count(1, "item count").and_then(|_| Leased::decode(&mut r));
    leased.map(|leased| leased.receipt).map_err(|e| Error::refused(Code::Internal, e.to_string()))
}

/// Connects all clients, spread over the servers, and opens their sessions.
fn open_lanes<'o>(
    load: &Load,
    servers: &'o [Server],
    timeout: Duration,
    operations: &'o [(bool, Vec<u8>)],
) -> Result<Vec<Lane<'o>>, Error> {
    let random = std::collections::hash_map::RandomState::new();
    let mut lanes = Vec::with_capacity(load.clients);
    let patience = timeout.max(Duration::from_secs(1));
    for k in 0..load.clients {
        let server = &servers[k % servers.len()];
        let connection = Connection::connect(server, patience);
        let connection = connection.map_err(|e| Error::Unreachable { message: format!("{server}: {e}") })?;
        let sent = vec![None; load.depth as usize];
        // Until it is ready, `next` is the token of its opening.
        let next = random.hash_one(k);
        lanes.push(Lane {
            connection,
            server,
            operations,
            stale: load.stale,
            ready: false,
            next,
            sent,
            in_flight: 0,
            acknowledges: load.kind == Kind::Take,
            leased: VecDeque::new(),
            ack: Vec::new(),
        });
    }
    let by = Instant::now() + patience;
    while lanes.iter().any(|lane| !lane.ready) {
        wait_and_hear(&mut lanes, by, &mut None, |lane| {
            let flushed = lane.connection.flush();
            flushed.map_err(|e| Error::Unreachable { message: format!("{}: {e}", lane.server) })
        })?;
        if Instant::now() > by {
            return Err(Error::refused(Code::Busy, "not all clients got a session in time"));
        }
    }
    Ok(lanes)
}

/// Keeps all clients busy for `length`, or until `requests` were sent, and waits for the last answers.
/// Returns how long it took.
fn drive(
    lanes: &mut [Lane<'_>],
    length: Duration,
    requests: u64,
    mut figures: Option<&mut Figures>,
) -> Result<Duration, Error> {
    let begin = Instant::now();
    let end = begin + length;
    let mut left = requests;
    let lost = |lane: &Lane<'_>, e: io::Error| Error::Unreachable { message: format!("{}: {e}", lane.server) };
    for lane in lanes.iter_mut() {
        left -= lane.send(begin, left).map_err(|e| lost(lane, e))?;
    }
    while Instant::now() < end && (left > 0 || lanes.iter().any(|lane| lane.in_flight > 0)) {
        wait_and_hear(lanes, end, &mut figures, |lane| {
            let now = Instant::now();
            let allowed = if now < end { left } else { 0 };
            left -= lane.send(now, allowed).map_err(|e| lost(lane, e))?;
            Ok(())
        })?;
    }
    let took = begin.elapsed();
    if let Some(figures) = figures {
        figures.seconds += took.as_secs_f64();
    }
    // What is answered after the end is not counted, but must be answered before the queue may go.
    let by = Instant::now() + Duration::from_secs(10);
    while lanes.iter().any(|lane| lane.in_flight > 0) {
        wait_and_hear(lanes, by, &mut None, |lane| lane.send(by, 0).map(drop).map_err(|e| lost(lane, e)))?;
        if Instant::now() > by {
            return Err(Error::refused(Code::Busy, "the last requests were not answered within 10 s"));
        }
    }
    Ok(took)
}

/// Waits until something can be read or written, and lets those clients act.
fn wait_and_hear<'o>(
    lanes: &mut [Lane<'o>],
    until: Instant,
    figures: &mut Option<&mut Figures>,
    mut act: impl FnMut(&mut Lane<'o>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut fds: Vec<PollFd> = lanes.iter().map(|lane| lane.connection.interest()).collect();
    let timeout = until.saturating_duration_since(Instant::now());
    poll(&mut fds, Some(timeout)).map_err(|e| Error::refused(Code::Internal, format!("poll: {e}")))?;
    for (lane, _) in lanes.iter_mut().zip(&fds).filter(|(_, fd)| fd.is_ready()) {
        lane.hear(figures)?;
        act(lane)?;
    }
    Ok(())
}

// ---- figures

struct Figures {
    latencies_ns: Histogram<u64>,
    seconds: f64,
}

impl Figures {
    fn new() -> Figures {
        let (low, high) = LATENCY_NS;
        let latencies_ns = Histogram::new_with_bounds(low, high, 3).expect("the bounds are far enough apart");
        Figures { latencies_ns, seconds: 0.0 }
    }

    fn count(&mut self, latency: Duration) {
        self.latencies_ns.saturating_record(latency.as_nanos() as u64);
    }

    fn print(&self, load: &Load, out: &mut Output) {
        let requests = self.latencies_ns.len();
        let rate = if self.seconds > 0.0 { requests as f64 / self.seconds } else { 0.0 };
        let ms = |ns: u64| (ns as f64 / 1e3).round() / 1e3;
        let at = |quantile: f64| ms(self.latencies_ns.value_at_quantile(quantile));
        let (p50, p99, p999, max) = (at(0.5), at(0.99), at(0.999), ms(self.latencies_ns.max()));
        if out.style.json {
            let figures = [
                ("requests", Value::from(requests)),
                ("seconds", self.seconds.into()),
                ("per_second", rate.round().into()),
                ("p50_ms", p50.into()),
                ("p99_ms", p99.into()),
                ("p999_ms", p999.into()),
                ("max_ms", max.into()),
            ];
            return out.object([("ok", Value::from(true))].iter().chain(&figures));
        }
        let Load { kind, clients, size, depth, .. } = load;
        let what = format!("{kind:?}").to_lowercase();
        let (s, seconds) = (if *clients == 1 { "" } else { "s" }, self.seconds);
        out.line(&format!("{what}: {clients} client{s}, {depth} in flight each, {size}-byte items, {seconds:.1} s"));
        let unit = if *kind == Kind::Take { "takes, each acknowledged, a second" } else { "requests/s" };
        out.line(&format!("throughput  {rate:.0} {unit}"));
        out.line(&format!("latency     p50 {p50} ms, p99 {p99} ms, p99.9 {p999} ms, max {max} ms"));
    }
}
