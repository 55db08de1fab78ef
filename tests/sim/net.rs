//! The virtual network: every directed link has its own weather, which changes while the run goes on.

use std::net::{IpAddr, Ipv4Addr};

use ftq::rng::Rng;

use super::clock::{Nanos, MS, US};
use super::plan::Faults;
use super::wiretap::has_frame;

/// The weather of one directed link.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    loss_ppm: u32,
    duplicate_ppm: u32,
    late_ppm: u32,
    /// Chances in a million that a datagram begins a burst of losses, and how long that lasts.
    burst_ppm: u32,
    burst_ns: Nanos,
    delay_ns: Nanos,
    jitter_ns: Nanos,
    /// Nothing arrives before.
    cut_until: Nanos,
    /// Datagrams above this many bytes vanish.
    hole_bytes: Option<usize>,
}

/// What became of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Lost(&'static str),
    /// It arrives at this moment, and perhaps once more.
    Arrives(Nanos, Option<Nanos>),
}

/// Links that are down for a while, or come and go.
#[derive(Clone, Debug)]
struct Barrier {
    from: Nanos,
    until: Nanos,
    /// Down for so long and up for so long, in turns; 0 for down all the time.
    flaps_ns: Nanos,
    /// For each link whether it is down.
    down: Vec<bool>,
}

impl Barrier {
    fn stops(&self, link: usize, now: Nanos) -> bool {
        let down = self.flaps_ns == 0 || (now - self.from) / self.flaps_ns % 2 == 0;
        down && now < self.until && self.down[link]
    }
}

#[derive(Debug)]
pub struct Net {
    replicas: usize,
    links: Vec<Link>,
    barriers: Vec<Barrier>,
    faults: Faults,
    delay_ns: Nanos,
    /// Datagrams that a transcript wants lost.
    pub drops: Vec<Drop>,
    rng: Rng,
}

/// The next `left` datagrams on one link with a frame of this kind are lost.
#[derive(Clone, Debug)]
pub struct Drop {
    pub from: usize,
    pub to: usize,
    /// As `wiretap::describe` names it; `any` for every datagram.
    pub kind: String,
    pub left: u64,
}

/// The address of the replica with this index.
pub fn address(index: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, index as u8 + 1))
}

/// Whose address this is.
pub fn index(address: IpAddr) -> Option<usize> {
    match address {
        IpAddr::V4(v4) if v4.octets()[..3] == [10, 0, 0] => usize::from(v4.octets()[3]).checked_sub(1),
        _ => None,
    }
}

impl Net {
    pub fn new(replicas: usize, faults: &Faults, mut rng: Rng) -> Net {
        let delay_ns = *rng.pick(&[10 * US, 50 * US, 200 * US, 2 * MS]);
        let links = vec![Link::default(); replicas * replicas];
        let faults = faults.clone();
        let mut net = Net { replicas, links, barriers: Vec::new(), faults, delay_ns, drops: Vec::new(), rng };
        net.calm();
        if net.faults.mtu_hole && replicas > 1 {
            let bytes = *net.rng.pick(&[1000, 1000, 1200, 1400, 4000, 9000]);
            let (everywhere, victim) = (net.rng.chance(300_000), net.rng.below(replicas as u64) as usize);
            for (k, link) in net.links.iter_mut().enumerate() {
                if everywhere || k % replicas == victim {
                    link.hole_bytes = Some(bytes);
                }
            }
        }
        net
    }

    /// A network that delivers everything after `delay_ns`, for transcripts.
    pub fn exact(replicas: usize, delay_ns: Nanos) -> Net {
        let link = Link { delay_ns, ..Link::default() };
        let links = vec![link; replicas * replicas];
        let (barriers, faults, drops) = (Vec::new(), Faults::none(), Vec::new());
        Net { replicas, links, barriers, faults, delay_ns, drops, rng: Rng::new(0) }
    }

    /// No more faults, but for holes: those are how the network is built.
    pub fn calm(&mut self) {
        for link in &mut self.links {
            let hole_bytes = link.hole_bytes;
            *link = Link { delay_ns: self.delay_ns, jitter_ns: self.delay_ns / 2, hole_bytes, ..Link::default() };
        }
    }

    /// The weather changes. How long it lasts, and which faults began.
    pub fn change(&mut self, now: Nanos) -> (Nanos, Vec<&'static str>) {
        self.calm();
        let lasts = self.rng.between(50 * MS, 1500 * MS);
        let (mut began, faults) = (Vec::new(), self.faults.clone());
        if faults.loss && self.rng.chance(600_000) {
            let most = *self.rng.pick(&[10_000u64, 50_000, 100_000, 300_000, 700_000]);
            self.each(|rng, link| link.loss_ppm = rng.below(most + 1) as u32);
            began.push("lossy weather");
        }
        if faults.bursts && self.rng.chance(400_000) {
            self.each(|rng, link| (link.burst_ppm, link.burst_ns) = (5_000, rng.between(MS, 60 * MS)));
            began.push("bursty weather");
        }
        if faults.duplicates && self.rng.chance(500_000) {
            self.each(|rng, link| link.duplicate_ppm = rng.below(200_000) as u32);
            began.push("duplicating weather");
        }
        if faults.reorder && self.rng.chance(600_000) {
            let most = *self.rng.pick(&[US * 100, MS, 20 * MS]);
            self.each(|rng, link| link.jitter_ns = rng.below(most));
            began.push("reordering weather");
        }
        if faults.late && self.rng.chance(400_000) {
            self.each(|_, link| link.late_ppm = 10_000);
            began.push("late weather");
        }
        if faults.cuts && self.replicas > 1 && self.rng.chance(500_000) {
            began.push(self.cut(now, lasts));
        }
        (lasts, began)
    }

    fn each(&mut self, mut set: impl FnMut(&mut Rng, &mut Link)) {
        for link in &mut self.links {
            set(&mut self.rng, link);
        }
    }

    /// Cuts one link one way, one both ways, or everything to or from one replica.
    fn cut(&mut self, now: Nanos, lasts: Nanos) -> &'static str {
        let until = now + self.rng.between(0, lasts);
        let n = self.replicas as u64;
        let one = self.rng.below(n) as usize;
        let other = (one + 1 + self.rng.below(n - 1) as usize) % self.replicas;
        let (what, kind) =
            *self.rng.pick(&[(0, "one-way cut"), (1, "link cut"), (2, "deaf replica"), (3, "mute replica")]);
        for k in 0..self.links.len() {
            let (from, to) = (k / self.replicas, k % self.replicas);
            let is_cut = match what {
                0 => (from, to) == (one, other),
                1 => (from, to) == (one, other) || (from, to) == (other, one),
                2 => to == one,
                _ => from == one,
            };
            if is_cut {
                self.links[k].cut_until = until;
            }
        }
        kind
    }

    /// Some links go down together: two sides, one replica, any links, both ways or one. What it is, and how long it
    /// lasts.
    pub fn part(&mut self, now: Nanos) -> (&'static str, Nanos) {
        let (n, rng) = (self.replicas, &mut self.rng);
        let side = rng.between(1, (1 << n) - 2);
        let one = rng.below(n as u64) as usize;
        let ppm = *rng.pick(&[100_000, 300_000, 600_000]);
        let (what, kind) = *rng.pick(&[
            (0, "partition"),
            (0, "partition"),
            (1, "one-way partition"),
            (2, "replica cut off"),
            (3, "partial partition"),
            (4, "partial one-way partition"),
        ]);
        let some: Vec<bool> = (0..n * n).map(|_| rng.chance(ppm)).collect();
        let down = |link: usize| {
            let (from, to) = (link / n, link % n);
            let (here, there) = (side >> from & 1 == 1, side >> to & 1 == 1);
            match what {
                0 => here != there,
                1 => here && !there,
                2 => (from == one) != (to == one),
                3 => some[from.min(to) * n + from.max(to)],
                _ => some[link],
            }
        };
        let down = (0..n * n).map(down).collect();
        let lasts = *rng.pick(&[100 * MS, 600 * MS, 2000 * MS, 2000 * MS, 6000 * MS]);
        let lasts = rng.between(MS, lasts);
        let flaps_ns = if rng.chance(250_000) { rng.between(10 * MS, 800 * MS) } else { 0 };
        self.barriers.retain(|barrier| barrier.until > now);
        self.barriers.push(Barrier { from: now, until: now + lasts, flaps_ns, down });
        (if flaps_ns > 0 { "flapping links" } else { kind }, lasts)
    }

    /// From now on only these are connected with each other; of the rest some may hear them, some be heard by them.
    pub fn keep_together(&mut self, now: Nanos, set: u64, hearing: u64, heard: u64) {
        let n = self.replicas;
        let within = |replica: usize, set: u64| set >> replica & 1 == 1;
        let down = |link: usize| {
            let (from, to) = (link / n, link % n);
            within(from, set) != within(to, set) && !(within(to, hearing) || within(from, heard))
        };
        let down = (0..n * n).map(down).collect();
        self.barriers = vec![Barrier { from: now, until: Nanos::MAX, flaps_ns: 0, down }];
    }

    /// Whether nothing passes this link now.
    pub fn is_cut(&self, from: usize, to: usize, now: Nanos) -> bool {
        let link = from * self.replicas + to;
        now < self.links[link].cut_until || self.barriers.iter().any(|barrier| barrier.stops(link, now))
    }

    /// Sets how long a link takes.
    pub fn set_delay(&mut self, from: usize, to: usize, delay_ns: Nanos) {
        self.links[from * self.replicas + to].delay_ns = delay_ns;
    }

    /// Nothing passes this link before `until`.
    pub fn cut_until(&mut self, from: usize, to: usize, until: Nanos) {
        self.links[from * self.replicas + to].cut_until = until;
    }

    fn is_dropped(&mut self, from: usize, to: usize, datagram: &[u8]) -> bool {
        let hit = |drop: &&mut Drop| {
            (drop.from, drop.to) == (from, to)
                && drop.left > 0
                && (drop.kind == "any" || has_frame(datagram, &drop.kind))
        };
        self.drops.iter_mut().find(hit).map(|drop| drop.left -= 1).is_some()
    }

    pub fn send(&mut self, from: usize, to: usize, datagram: &[u8], now: Nanos) -> Fate {
        if !self.drops.is_empty() && self.is_dropped(from, to, datagram) {
            return Fate::Lost("datagram dropped");
        }
        if self.is_cut(from, to, now) {
            return Fate::Lost("datagram lost in a cut");
        }
        let bytes = datagram.len();
        let rng = &mut self.rng;
        let link = &mut self.links[from * self.replicas + to];
        if link.hole_bytes.is_some_and(|most| bytes > most) {
            return Fate::Lost("datagram lost in an MTU hole");
        }
        if link.burst_ppm > 0 && rng.chance(link.burst_ppm) {
            link.cut_until = now + link.burst_ns;
            return Fate::Lost("burst of losses");
        }
        if link.loss_ppm > 0 && rng.chance(link.loss_ppm) {
            return Fate::Lost("datagram lost");
        }
        let mut arrival = || {
            let late = if link.late_ppm > 0 && rng.chance(link.late_ppm) { rng.between(0, 900 * MS) } else { 0 };
            now + link.delay_ns + rng.below(link.jitter_ns + 1) + late
        };
        let first = arrival();
        let twice = link.duplicate_ppm > 0;
        let second = twice.then(&mut arrival);
        let second = second.filter(|_| self.rng.chance(self.links[from * self.replicas + to].duplicate_ppm));
        Fate::Arrives(first, second)
    }
}
