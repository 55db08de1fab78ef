//! Coming up: what the disk holds becomes a replica, or a reason why it can't (DESIGN 5.5, 5.6, 6.2).

use crate::group::bootstrap::Founding;
use crate::group::{Group, Settings};
use crate::log::{Meta, Replay, Snapshot};
use crate::marks;
use crate::replica::compare::Compared;
use crate::replica::door::{Door, Refusal};
use crate::replica::follow::Follow;
use crate::replica::journal::{Journal, Positions};
use crate::replica::machine::{Machine, Replies};
use crate::replica::read::Reads;
use crate::replica::serve::Serve;
use crate::replica::store::{Resume, Store};
use crate::replica::{Config, Level, Outbox, Pending, Replica, Stored};
use crate::rng::Rng;
use crate::types::{Birth, ClusterId, Epoch, Incarnation, Run, Time};
use crate::wire::answer::Code;

impl Replica {
    /// Comes up with what the disk holds. The incarnation is raised and written; nothing is said before that is
    /// durable. Where the disk contradicts the configuration, `Outbox::stop` says so.
    pub fn recover(config: Config, stored: Stored<'_>, now: Time, out: &mut Outbox) -> Replica {
        let mut rng = Rng::new(config.seed);
        let fresh =
            Meta { id: config.id, birth: Birth(rng.next_u64()), directory: config.directory, ..Meta::default() };
        let mut meta = stored.meta.clone().unwrap_or(fresh);
        let founding = Founding {
            book: config.book.clone(),
            policy: config.policy,
            min_members: config.min_members,
            durability: config.durability,
        };
        if let Some(reason) = contradiction(&config, &founding, &meta, &stored.log) {
            out.stop = Some((reason, 78));
        }
        meta.incarnation = Incarnation(meta.incarnation.0 + 1);
        meta.generation += 1;
        let me = Run { id: config.id, birth: meta.birth, incarnation: meta.incarnation };
        let settings = Settings {
            founding,
            peers: config.peers.clone(),
            heartbeat_ns: config.heartbeat_ms * Time::MS,
            suspect_after_ns: config.suspect_after_ms * Time::MS,
            path_max: config.datagram_size_max,
            receive_buffer_bytes: config.receive_buffer_bytes,
        };
        let (machine, resume) = restore(&stored).unwrap_or_else(|reason| {
            out.stop = Some((reason, 70));
            (Machine::new(), Resume { first: stored.log.records.len(), ..Resume::default() })
        });
        let carried_bytes = stored.log.index.bytes_behind(machine.applied());
        let mut replica = Replica {
            group: Group::new(settings, me, meta.cluster, rng.fork()),
            journal: Journal::new(&stored.log, &resume, config.segment_bytes),
            store: Store::new(stored.snapshots, carried_bytes),
            found: Positions {
                epoch: found_epoch(stored.snapshot.as_ref().map(|s| &s.0), &stored.log),
                committed: stored.log.committed.max(machine.applied()),
                durable_known: stored.log.durable_known.max(machine.applied()),
                vector: stored.log.vector.clone(),
            },
            machine,
            cluster_if_founding: ClusterId(rng.next_u64().max(1)),
            config,
            meta,
            pending: Vec::new(),
            door: Door::new(rng.next_u64()),
            reads: Reads::default(),
            compared: Compared::default(),
            serve: Serve::new(now),
            follow: Follow::new(me),
            replies: Replies::default(),
            scratch: Vec::new(),
            leaving: None,
            now,
            marks: Vec::new(),
            refusing: None,
            noted: None,
        };
        replica.refusing = Some(Refusal { code: Code::NotPrimary, message: "not primary: starting".into() });
        if let Some(torn) = &stored.log.torn {
            replica.marks.push(marks::TORN_CUT);
            out.notes.push((Level::Warning, torn.clone()));
        }
        if let Err(reason) = replica.replay(&stored.log, resume.first) {
            out.stop = Some((reason, 70));
        }
        replica.write_meta(Pending::Start, out);
        replica
    }

    /// Applies what is known to be committed of the records from this one on.
    fn replay(&mut self, log: &Replay<'_>, first: usize) -> Result<(), String> {
        for found in log.records[first..].iter().take_while(|found| found.record.slot <= log.committed) {
            if found.record.slot != self.machine.applied().next() {
                let (slot, applied) = (found.record.slot, self.machine.applied());
                return Err(format!("the log goes on with slot {slot} behind slot {applied}"));
            }
            self.machine.apply(found.record.slot, found.record.time, found.operations, &mut self.replies);
            self.replies.clear();
            if self.machine.digest() != found.record.digest {
                let (slot, own) = (found.record.slot, self.machine.digest());
                let recorded = found.record.digest;
                return Err(format!(
                    "slot {slot}: the log records digest {:016x}, applying it gives {:016x}",
                    recorded.0, own.0
                ));
            }
        }
        Ok(())
    }
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

fn found_epoch(snapshot: Option<&Snapshot>, log: &Replay<'_>) -> Epoch {
    let logged = log.records.last().map(|found| found.record.epoch);
    logged.max(snapshot.map(|snapshot| snapshot.view.epoch)).unwrap_or_default()
}

/// Why this disk is not this replica's, or not one it can start from.
fn contradiction(config: &Config, founding: &Founding, meta: &Meta, log: &Replay<'_>) -> Option<String> {
    if meta.id != config.id {
        return Some(format!("the data directory belongs to replica {}, not {}", meta.id, config.id));
    }
    if let Some(damage) = &log.damaged {
        return Some(format!("the log is damaged: {damage}"));
    }
    let Some(view) = &meta.installed else {
        let lost = !log.records.is_empty();
        return lost.then(|| "the data directory holds a log but no view that it belongs to".into());
    };
    let differs = founding.founded(view).err()?;
    Some(format!("the group was founded with another value of {differs}"))
}
