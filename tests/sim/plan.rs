//! What a seed draws before a run begins: its shape, and which faults it may meet. Few faults at a time find more
//! than all of them always.

use ftq::rng::Rng;
use ftq::wire::view::{Durability, Policy};

use super::clock::{Nanos, MS, SECOND};
use super::disk::Pace;
use super::heights::Height;

/// Which kinds of faults a run may meet.
#[derive(Clone, Debug)]
pub struct Faults {
    pub loss: bool,
    pub bursts: bool,
    pub duplicates: bool,
    pub reorder: bool,
    pub late: bool,
    pub cuts: bool,
    pub mtu_hole: bool,
    /// Datagrams that make no sense, from strangers and in the name of replicas, and old ones once more.
    pub garbage: bool,
    /// A replica's loop does not run for a while.
    pub pauses: bool,
    /// A replica's clock leaps ahead, by up to an hour.
    pub jumps: bool,
    /// Replicas go down, at any effect of theirs and any boundary of their disks, and come back.
    pub crashes: bool,
    /// And some come back with an empty data directory.
    pub wipes: bool,
    /// Some are asked to leave, and come back.
    pub leaves: bool,
    /// Sets of links go down together, for long or coming and going.
    pub partitions: bool,
    /// All lose their power at once.
    pub blackouts: bool,
    /// The loop learns late that a write is durable.
    pub late_disk: bool,
    /// Clients lose answers, move, send again, die.
    pub clients: bool,
    /// A client that speaks nonsense.
    pub vandal: bool,
}

impl Faults {
    pub fn none() -> Faults {
        Faults {
            loss: false,
            bursts: false,
            duplicates: false,
            reorder: false,
            late: false,
            cuts: false,
            mtu_hole: false,
            garbage: false,
            pauses: false,
            jumps: false,
            crashes: false,
            wipes: false,
            leaves: false,
            partitions: false,
            blackouts: false,
            late_disk: false,
            clients: false,
            vandal: false,
        }
    }

    /// Whether any of them takes replicas out of the view.
    pub fn change_views(&self) -> bool {
        self.crashes || self.wipes || self.leaves || self.partitions || self.blackouts
    }

    fn draw(rng: &mut Rng) -> Faults {
        Faults {
            loss: rng.chance(600_000),
            bursts: rng.chance(300_000),
            duplicates: rng.chance(400_000),
            reorder: rng.chance(500_000),
            late: rng.chance(250_000),
            cuts: rng.chance(300_000),
            mtu_hole: rng.chance(120_000),
            garbage: rng.chance(250_000),
            pauses: rng.chance(200_000),
            jumps: rng.chance(100_000),
            crashes: rng.chance(500_000),
            wipes: rng.chance(200_000),
            leaves: rng.chance(150_000),
            partitions: rng.chance(350_000),
            blackouts: rng.chance(100_000),
            late_disk: rng.chance(200_000),
            clients: rng.chance(500_000),
            vandal: rng.chance(150_000),
        }
    }
}

/// How clients behave.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub clients: usize,
    /// Requests and queries of each client.
    pub requests: u32,
    /// Mean time between two of them.
    pub gap_ns: Nanos,
    /// Requests that may be unanswered at once.
    pub pipeline: u64,
    pub queues: u64,
    /// Chances in a million that an item is large, and how large it then is at most.
    pub large_ppm: u32,
    pub large_bytes: u64,
    /// Of a hundred operations so many are pushes.
    pub pushes: u64,
    pub query_ppm: u32,
    pub bad_ppm: u32,
    /// Chances in a million that an operation or query is another service's than the queue's.
    pub others_ppm: u32,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub replicas: usize,
    pub policy: Policy,
    pub min_members: u8,
    pub durability: Durability,
    /// Where the group stands when the run begins.
    pub height: Height,
    pub load: Load,
    pub faults: Faults,
    /// Faults begin here: from the start, or once the group stands.
    pub faults_from: Nanos,
    pub faults_until: Nanos,
    pub drift_max_ppm: u64,
    pub disk: Pace,
    pub heartbeat_ms: u64,
    /// The largest datagram to try, an index of `limits::DATAGRAM_SIZES`.
    pub datagram_size_max: usize,
    pub receive_buffer_bytes: u32,
    /// A bit of some datagrams is flipped on its way. Only with `--flip`: without a key nothing promises to notice.
    pub flip: bool,
}

impl Plan {
    /// Nothing by chance, for transcripts.
    pub fn exact(replicas: usize, disk: Pace) -> Plan {
        Plan {
            replicas,
            policy: Policy::Dynamic,
            min_members: 1,
            durability: Durability::Disk,
            height: Height::NOTHING,
            load: Load::none(),
            faults: Faults::none(),
            faults_from: 0,
            faults_until: 0,
            drift_max_ppm: 0,
            disk,
            heartbeat_ms: 50,
            datagram_size_max: 1,
            receive_buffer_bytes: 1 << 20,
            flip: false,
        }
    }

    pub fn draw(rng: &mut Rng) -> Plan {
        let replicas = *rng.pick(&[1, 2, 3, 3, 3, 3, 4, 5, 5, 6, 7]);
        let faultless = rng.chance(50_000);
        let mut faults = if faultless { Faults::none() } else { Faults::draw(rng) };
        let durability = if rng.chance(100_000) { Durability::Memory } else { Durability::Disk };
        if durability == Durability::Memory {
            // What is acknowledged there survives one crash at a time (see `crash`).
            (faults.wipes, faults.blackouts) = (false, false);
        }
        let faults_until = rng.between(500 * MS, 14 * SECOND);
        let stall = *rng.pick(&[0, 10_000, 100_000]);
        let slow = *rng.pick(&[MS, 5 * MS, 5 * MS, 50 * MS]);
        Plan {
            replicas,
            policy: *rng.pick(&[Policy::Dynamic, Policy::Dynamic, Policy::Majority]),
            min_members: if rng.chance(800_000) { 1 } else { rng.between(1, replicas as u64 / 2 + 1) as u8 },
            durability,
            height: if rng.chance(100_000) { Height::draw(rng) } else { Height::NOTHING },
            load: Load::draw(rng, replicas, faults_until),
            faults,
            faults_from: if rng.chance(700_000) { 300 * MS } else { 0 },
            faults_until,
            drift_max_ppm: if rng.chance(200_000) { 50_000 } else { 200 },
            disk: Pace { least_ns: MS / 20, most_ns: slow, stall_ppm: stall, stall_ns: 200 * MS },
            heartbeat_ms: *rng.pick(&[50, 50, 50, 20, 100]),
            datagram_size_max: rng.between(1, 6) as usize,
            receive_buffer_bytes: *rng.pick(&[212_992, 212_992, 1 << 20, 4 << 20]),
            flip: false,
        }
    }
}

impl Load {
    /// Nobody asks for anything.
    pub fn none() -> Load {
        Load {
            clients: 0,
            requests: 0,
            gap_ns: 0,
            pipeline: 1,
            queues: 1,
            large_ppm: 0,
            large_bytes: 0,
            pushes: 0,
            query_ppm: 0,
            bad_ppm: 0,
            others_ppm: 0,
        }
    }

    fn draw(rng: &mut Rng, replicas: usize, until: Nanos) -> Load {
        let clients = rng.between(2, 8) as usize;
        let requests = *rng.pick(&[20u64, 50, 100, 100, 200, 400]) * 3 / replicas as u64;
        let requests = requests.max(10);
        let gap_ns = until / requests;
        if (2..=3).contains(&replicas) && rng.chance(30_000) {
            return Load::flood(until);
        }
        let large = rng.chance(100_000);
        Load {
            clients,
            requests: requests as u32,
            gap_ns: if rng.chance(300_000) { gap_ns / 50 } else { gap_ns },
            pipeline: *rng.pick(&[1, 4, 16, 64, 256]),
            queues: rng.between(1, 5),
            large_ppm: if large { 20_000 } else { 5_000 },
            large_bytes: if large { 1 << 20 } else { 8_000 },
            pushes: 50,
            query_ppm: *rng.pick(&[0, 100_000, 300_000]),
            bad_ppm: *rng.pick(&[0, 20_000]),
            others_ppm: 300_000,
        }
    }
}

impl Load {
    /// More than the windows hold.
    fn flood(until: Nanos) -> Load {
        Load {
            clients: 3,
            requests: 24,
            gap_ns: until / 1000,
            pipeline: 24,
            queues: 2,
            large_ppm: 900_000,
            large_bytes: 1 << 20,
            pushes: 97,
            query_ppm: 0,
            bad_ppm: 0,
            others_ppm: 0,
        }
    }
}
