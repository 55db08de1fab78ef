//! What views denied, in the log of a source: it stays where it is, whatever was written behind it.

use super::*;

/// Slots of the true history: 1 to 9 of epoch 1, 10 to 40 of epoch 2.
fn true_history() -> Vec<Fetched> {
    let mut all: Vec<Fetched> = Vec::new();
    for k in 1..=40 {
        let before = all.last().map_or(Digest(0), |r| r.digest);
        let (epoch, slot, time) = (Epoch(if k < 10 { 1 } else { 2 }), Slot(k), GroupTime(10 * k));
        let operations = vec![k as u8; 20];
        let digest = slot_digest(before, slot, time, &[&operations]);
        all.push(Fetched { epoch, slot, time, digest, operations });
    }
    all
}

/// A source whose log once held slots 10 to 20 of epoch 1, which view 2 denies (its base is 9): cut in memory. It took
/// over a state of slot 14, went on to 40, made a snapshot of slot 30, and was started again.
fn source_with_a_denied_part(view: &View) -> Source {
    use crate::replica::journal::Positions;
    let (all, segment_bytes) = (true_history(), 1 << 16);
    let mut segments: BTreeMap<SegmentNumber, Vec<u8>> = BTreeMap::new();
    let nothing = Resume::find(None, &replay(&[])).expect("nothing is a log");
    let mut journal = Journal::new(&replay(&[]), &nothing, segment_bytes);
    let mut log = |journal: &mut Journal, slot: u64, epoch: Epoch, operations: &[u8]| {
        let (number, mut out) = (journal.number(), Vec::new());
        let positions = Positions { epoch, ..Positions::default() };
        journal.append(number, Slot(slot), GroupTime(10 * slot), &[operations], &positions, &mut out);
        for LogWrite { segment, offset, bytes, .. } in out {
            let file = segments.entry(segment).or_default();
            file.resize(offset as usize, 0);
            file.extend(bytes);
        }
        journal.on_durable(Time(0), number, 1);
    };
    all[..9].iter().for_each(|r| log(&mut journal, r.slot.0, r.epoch, &r.operations));
    let base = journal.end();
    assert_eq!(base.digest, all[8].digest);
    (10..=20).for_each(|slot| log(&mut journal, slot, Epoch(1), b"denied"));
    journal.cut(base);
    journal.begin_behind(Slot(14), all[13].digest, all[13].time);
    all[14..].iter().for_each(|r| log(&mut journal, r.slot.0, r.epoch, &r.operations));
    assert_eq!(journal.end().digest, all[39].digest);

    let file = |slot: usize| {
        let Fetched { slot, time, digest, .. } = all[slot - 1];
        [&Snapshot { slot, time, digest, view: view_behind(2) }.header(b"state")[..], b"state"].concat()
    };
    let snapshots: BTreeMap<Slot, Vec<u8>> = [14, 30].map(|slot| (Slot(slot as u64), file(slot))).into();
    let slices: Vec<(SegmentNumber, &[u8])> = segments.iter().map(|(n, bytes)| (*n, &bytes[..])).collect();
    let newest = Snapshot::decode(&snapshots[&Slot(30)]).expect("our own").0;
    let found = replay(&slices);
    let resume = Resume::find(Some(&newest), &found).expect("a log that goes on");
    let journal = Journal::new(&found, &resume, segment_bytes);
    assert_eq!(journal.end().digest, all[39].digest);
    let (snapshot_slots, serve, reads) = (snapshots.keys().copied().collect(), Serve::new(Time(0)), Vec::new());
    let (committed, view) = (Slot(40), view.clone());
    Source { journal, segments, snapshots, snapshot_slots, serve, committed, view, reads, deaf: false }
}

/// What a follower whose log ends at this slot of the true history gets of that source within ten seconds.
fn followed(after: u64, view: &View) -> (Vec<Fetched>, Vec<Slot>) {
    let (mut source, mut follow) = (source_with_a_denied_part(view), Follow::new(sender(1).run));
    let (mut got, mut states) = (Vec::new(), Vec::new());
    let start = position(&true_history()[after as usize - 1]);
    for ms in 1..10_000 {
        let (now, mut out, mut back) = (Time(ms * Time::MS), Vec::new(), Vec::new());
        let at = follow.position().unwrap_or(start);
        follow.want(now, at, None, &[ReplicaId(2)]);
        follow.tick(now, sender(1), &mut out);
        out.iter().for_each(|(_, bytes)| source.on_frame(ME, bytes));
        source.answer_reads(2, &mut back);
        source.tick(2, now, &mut back);
        for (_, bytes) in back {
            let (frame, _) = first_frame(&bytes).expect("within bounds").expect("whole");
            let (_, frame) = Frame::decode(frame).expect("well-formed");
            follow.on_frame(now, ClusterId(0xc1), Some(view), ReplicaId(2), &frame);
        }
        while let Some(what) = follow.take() {
            match what {
                Got::Records(records) => got.extend(records),
                Got::State { snapshot, .. } => states.push(snapshot.slot),
                Got::Differs { .. } => {}
            }
        }
    }
    (got, states)
}

fn view_behind(epochs: u64) -> View {
    let mut view = view_of(3, 3, Policy::Dynamic);
    for epoch in 2..=epochs {
        let base = if epoch == 2 { 9 } else { 40 };
        (view.chain, view.epoch, view.base) = (view.next_chain(), Epoch(epoch), Slot(base));
    }
    view
}

#[test]
fn what_a_view_denied_is_not_taken_however_many_views_ago() {
    for epochs in [2, 3, 64, 65, 66, 67, 80] {
        let (got, _) = followed(9, &view_behind(epochs));
        let all = true_history();
        for taken in got {
            assert_eq!(taken, all[taken.slot.0 as usize - 1], "in view {epochs}");
        }
    }
}

#[test]
fn who_has_the_true_history_gets_on_beside_a_single_source() {
    for after in [9, 12, 14, 20] {
        let (got, states) = followed(after, &view_behind(3));
        let end = got.last().map(|r| r.slot).into_iter().chain(states.last().copied()).max();
        assert_eq!(end, Some(Slot(40)), "behind slot {after}");
    }
}
