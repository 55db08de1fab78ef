//! Coming up: what the disk holds becomes a replica, or a reason why it can't (DESIGN 5.5, 5.6, 6.2).

use crate::broken::is as is_broken;
use crate::group::bootstrap::Founding;
use crate::group::change::{Acceptor, OldCopy};
use crate::group::{Group, Settings};
use crate::log::{Meta, RecordView, Replay};
use crate::marks;
use crate::replica::compare::Compared;
use crate::replica::door::{Door, Refusal};
use crate::replica::follow::Follow;
use crate::replica::journal::Journal;
use crate::replica::machine::{Machine, Replies};
use crate::replica::read::Reads;
use crate::replica::serve::Serve;
use crate::replica::store::{Resume, Store};
use crate::replica::tail::{Held, Tail};
use crate::replica::views::Waits;
use crate::replica::{Config, Input, Level, Outbox, Replica, Stored};
use crate::rng::Rng;
use crate::types::{Birth, ClusterId, Epoch, Incarnation, Run, Slot, Time, WriteNumber};
use crate::wire::answer::Code;
use crate::wire::view::Durability;

impl Replica {
    /// Comes up with what the disk holds. The incarnation is raised and written; nothing is said before that is
    /// durable. Where the disk contradicts the configuration or itself, `Outbox::stop` says so and nothing is written:
    /// the next start has to find what this one found.
    pub fn recover(config: Config, stored: Stored<'_>, now: Time, out: &mut Outbox) -> Replica {
        let mut rng = Rng::new(config.seed);
        let founding = founding(&config);
        let (meta, unclean) = next_life(&config, &founding, &stored, &mut rng, out);
        let me = Run { id: config.id, birth: meta.birth, incarnation: meta.incarnation };
        let settings = settings(&config, founding);
        let (machine, resume) = restore(&stored).unwrap_or_else(|reason| {
            out.stop = Some((reason, 70));
            (Machine::new(), Resume { first: stored.log.records.len(), ..Resume::default() })
        });
        let carried_bytes = stored.log.index.bytes_behind(machine.applied());
        let mut replica = Replica {
            group: Group::new(settings, me, meta.cluster, acceptor(&meta), rng.fork()),
            journal: Journal::new(&stored.log, &resume, config.segment_bytes),
            store: Store::new(stored.snapshots, carried_bytes),
            arrived: None,
            durable_known: stored.log.durable_known.max(machine.applied()),
            machine,
            cluster_if_founding: ClusterId(rng.next_u64().max(1)),
            birth_if_distrusted: Birth(rng.next_u64()),
            ending: None,
            config,
            waits: Waits::after(meta.heard.as_ref().or(meta.installed.as_ref())),
            meta,
            start: WriteNumber(0),
            started: false,
            durable_write: WriteNumber(0),
            tail: Tail::default(),
            applied_epoch: stored.snapshot.as_ref().map_or(Epoch(0), |(snapshot, _)| snapshot.view.epoch),
            follow: Follow::new(me),
            serve: Serve::new(now),
            door: Door::new(rng.next_u64()),
            reads: Reads::default(),
            compared: Compared::default(),
            replies: Replies::default(),
            scratch: Vec::new(),
            leaving: None,
            now,
            marks: Vec::new(),
            refusing: None,
            noted: None,
        };
        if unclean && replica.config.durability == Durability::Memory && replica.group.newest().is_some() {
            replica.marks.push(marks::DISTRUSTED);
            replica.group.distrust();
        }
        if replica.group.newest().is_some_and(|view| view.epoch == stored.log.vector_epoch) {
            replica.group.remember(stored.log.vector.clone());
        }
        replica.refusing = Some(Refusal { code: Code::NotPrimary, message: "not primary: starting".into() });
        if let Some(torn) = &stored.log.torn {
            replica.marks.push(marks::TORN_CUT);
            out.notes.push((Level::Warning, torn.clone()));
        }
        if let Err(reason) = replica.replay(&stored.log, resume.first) {
            out.stop = Some((reason, 70));
        }
        replica.start = replica.journal.number();
        if out.stop.is_none() {
            out.meta.push(replica.meta.write(replica.start));
        } else {
            out.notes.clear();
        }
        replica
    }

    /// Takes the records from this one on into the tail, drops what the newest view denies, and applies what is known
    /// to be committed.
    fn replay(&mut self, log: &Replay<'_>, first: usize) -> Result<(), String> {
        for found in &log.records[first..] {
            let before = self.tail.end().unwrap_or(self.applied_end());
            let RecordView { record, operations } = found;
            let (epoch, slot, time, digest) = (record.epoch, record.slot, record.time, record.digest);
            let held = Held { epoch, slot, time, digest, operations: operations.to_vec() };
            if slot != before.slot.next() {
                return Err(format!("the log goes on with slot {slot} behind slot {}", before.slot));
            }
            if !held.follows(before) {
                return Err(format!("slot {slot}: the log records digest {digest}, which is not what it holds"));
            }
            self.tail.push(held);
        }
        let acceptor = self.group.change().acceptor().clone();
        self.cut_log(&acceptor);
        let base = acceptor.installed.map_or(Slot(0), |view| view.base);
        let mut out = Outbox::default();
        let committed = if is_broken("all-applied-at-start") { log.end() } else { log.committed };
        self.apply_held(committed.max(base), &mut out);
        out.stop.map_or(Ok(()), |(reason, _)| Err(reason))
    }
}

/// What `meta` says from now on, and whether the life before ended without a word.
fn next_life(
    config: &Config,
    founding: &Founding,
    stored: &Stored<'_>,
    rng: &mut Rng,
    out: &mut Outbox,
) -> (Meta, bool) {
    let fresh = Meta { id: config.id, birth: Birth(rng.next_u64()), directory: config.directory, ..Meta::default() };
    let mut meta = stored.meta.clone().unwrap_or(fresh);
    if let Some(reason) = contradiction(config, founding, &meta, &stored.log) {
        out.stop = Some((reason, 78));
    }
    let unclean = stored.meta.is_some() && !std::mem::take(&mut meta.clean);
    if let Some(why) = distrusted(&meta, stored, config) {
        out.notes.push((Level::Warning, format!("{why}: the replica takes a new birth and joins without a vote")));
        forget_promises(&mut meta, Birth(rng.next_u64()));
    }
    meta.directory = config.directory;
    meta.incarnation = Incarnation(meta.incarnation.0 + 1);
    meta.generation += 1;
    (meta, unclean)
}

/// The state of the newest snapshot, and where the log goes on from it.
fn restore(stored: &Stored<'_>) -> Result<(Machine, Resume), String> {
    let snapshot = stored.snapshot.as_ref().map(|(snapshot, _)| snapshot);
    let resume = Resume::find(snapshot, &stored.log)?;
    let Some((snapshot, state)) = &stored.snapshot else { return Ok((Machine::new(), resume)) };
    let slot = snapshot.slot;
    let machine = Machine::restore(state).map_err(|e| format!("the snapshot of slot {slot} makes no sense: {e}"))?;
    if (machine.applied(), machine.digest()) != (slot, snapshot.digest) {
        return Err(format!("the snapshot of slot {slot} holds another state than it says"));
    }
    Ok((machine, resume))
}

fn founding(config: &Config) -> Founding {
    Founding {
        book: config.book.clone(),
        policy: config.policy,
        min_members: config.min_members,
        durability: config.durability,
    }
}

fn settings(config: &Config, founding: Founding) -> Settings {
    Settings {
        founding,
        peers: config.peers.clone(),
        heartbeat_ns: config.heartbeat_ms * Time::MS,
        suspect_after_ns: config.suspect_after_ms * Time::MS,
        path_max: config.datagram_size_max,
        receive_buffer_bytes: config.receive_buffer_bytes,
    }
}

fn acceptor(meta: &Meta) -> Acceptor {
    Acceptor {
        installed: meta.installed.clone(),
        heard: meta.heard.clone(),
        promised: meta.promised,
        accepted: meta.accepted.clone(),
    }
}

/// Why this memory must not answer for what it once said (DESIGN 5.6).
fn distrusted(meta: &Meta, stored: &Stored<'_>, config: &Config) -> Option<String> {
    if meta.directory != config.directory {
        return Some("the data directory is not the one that was written to, but a copy of it".into());
    }
    let base = meta.installed.as_ref()?.base;
    let end = stored.log.end().max(stored.snapshot.as_ref().map_or(Slot(0), |(snapshot, _)| snapshot.slot));
    (end < base).then(|| format!("the log ends with slot {end}, but the view it belongs to starts from slot {base}"))
}

impl Replica {
    /// The directory is an older copy of what this replica once had: under a new birth it is an outsider's, whose log
    /// is only a beginning. Nothing more is said in this life; the next one joins.
    pub(super) fn distrust_directory(&mut self, why: OldCopy, out: &mut Outbox) {
        self.group.fall_silent();
        self.follow.stop();
        self.marks.push(marks::OLD_COPY);
        forget_promises(&mut self.meta, self.birth_if_distrusted);
        self.meta.generation += 1;
        let number = self.journal.number();
        out.meta.push(self.meta.write(number));
        let text = format!("the data directory is an older copy of this replica's: {why}; started again it joins anew");
        self.ending = Some((number, text));
    }

    /// All that is left to wait for.
    pub(super) fn end(&mut self, input: Input<'_>, out: &mut Outbox) {
        let Some((last, why)) = &self.ending else { return };
        if matches!(input, Input::Durable(number) if number >= *last) {
            out.stop.get_or_insert((why.clone(), 75));
        }
        out.marks.append(&mut self.marks);
    }
}

/// A new birth: promise and accepted value are no longer this replica's, and no view is.
fn forget_promises(meta: &mut Meta, birth: Birth) {
    let newest = meta.heard.take().into_iter().chain(meta.installed.take()).max_by_key(|view| view.epoch);
    (meta.heard, meta.promised, meta.accepted) = (newest, None, None);
    (meta.birth, meta.incarnation) = (birth, Incarnation(0));
}

/// Why this disk is not this replica's, or not one it can start from.
fn contradiction(config: &Config, founding: &Founding, meta: &Meta, log: &Replay<'_>) -> Option<String> {
    if meta.id != config.id {
        return Some(format!("the data directory belongs to replica {}, not {}", meta.id, config.id));
    }
    if let Some(damage) = &log.damaged {
        return Some(log_is_damaged(damage));
    }
    let Some(view) = meta.installed.as_ref().or(meta.heard.as_ref()) else {
        let lost = !log.records.is_empty();
        return lost.then(|| "the data directory holds a log but no view that it belongs to".into());
    };
    founding.founded(view).err()
}

/// What is said of such a log, and what is to be done.
pub fn log_is_damaged(damage: &str) -> String {
    format!("the log is damaged: {damage}; FILES in ftqd(8) says how to start this replica anew")
}
