//! Older copies of a directory: put back from a backup, or copied elsewhere (DESIGN 5.6).

use super::*;
use crate::group::change::Action;
use crate::wire::change::{ChangeFrame, LogEnd};
use crate::wire::view::Ballot;

/// Everyone goes down; one comes back with the directory of a while ago, though in its place. Another remembers what it
/// had: it has no vote, and what only the two of them held is not lost.
#[test]
fn a_directory_put_back_from_a_backup_has_no_vote() {
    let mut bench = serving(3, 2);
    assert_eq!(push_and_wait(&mut bench, 2, 1), [(1, 0)]);
    let backup = bench.disks[1].clone();
    assert_eq!(push_and_wait(&mut bench, 2, 2), [(2, 0)]);
    let before = bench.replicas[1].group().me();
    bench.dead = Dest(0b1110);
    bench.disks[1] = backup;
    bench.restart(0);
    bench.restart(1);
    bench.run_ms(3000);
    assert_eq!(bench.ended.len(), 1, "{:?}", bench.ended);
    assert!(bench.ended[0].contains("it once held slot"), "{:?}", bench.ended);
    assert!([0, 1].iter().all(|&at| bench.replicas[at].reason().is_some()), "one of three is no quorum");
    bench.restart(2);
    bench.run_ms(5000);
    assert_all_agree(&bench);
    let after = bench.replicas[1].group().me();
    assert!(after.birth != before.birth, "{after:?}");
    assert_eq!(bench.replicas[1].applied(), bench.replicas[2].applied());
}

/// The copy is so old that its run's number was used before: nobody listens to it, but it is told.
#[test]
fn a_directory_put_back_with_an_earlier_incarnation_joins_anew() {
    let mut bench = serving(3, 2);
    let backup = bench.disks[1].clone();
    for _ in 0..3 {
        bench.dead = bench.dead.with(ReplicaId(2));
        bench.run_ms(1000);
        bench.restart(1);
        bench.run_ms(3000);
    }
    assert_all_agree(&bench);
    assert_eq!(bench.ended, Vec::<String>::new());
    let before = bench.replicas[1].group().me();
    bench.disks[1] = backup;
    bench.restart(1);
    bench.run_ms(5000);
    assert_eq!(bench.ended.len(), 1, "{:?}", bench.ended);
    assert!(bench.ended[0].contains("it was started as number 4 already"), "{:?}", bench.ended);
    assert_all_agree(&bench);
    assert!(bench.replicas[1].group().me().birth != before.birth);
}

/// The runs since then were heard of, but are in no view: all that is left of them is that nobody listens to an earlier
/// one.
#[test]
fn a_directory_put_back_before_its_later_runs_were_members_is_told() {
    let mut bench = serving(3, 2);
    bench.dead = Dest::one(ReplicaId(2));
    bench.run_ms(1000);
    bench.restart(1);
    bench.run_ms(3000);
    assert_all_agree(&bench);
    let (backup, before) = (bench.disks[1].clone(), bench.replicas[1].group().me());
    for _ in 0..3 {
        bench.restart(1);
        bench.run_ms(5);
    }
    bench.disks[1] = backup;
    bench.restart(1);
    bench.run_ms(5000);
    assert_eq!(bench.ended.len(), 1, "{:?}", bench.ended);
    assert_all_agree(&bench);
    assert!(bench.replicas[1].group().me().birth != before.birth);
}

/// How far members were when an earlier view's last slots were logged is nothing to hold against them: the view since
/// then may have dropped what they held.
#[test]
fn what_was_noted_in_an_earlier_view_is_not_remembered() {
    let mut bench = serving(3, 2);
    assert_eq!(push_and_wait(&mut bench, 2, 1), [(1, 0)]);
    let disk = bench.disks[0].clone();
    let segments: Vec<_> = disk.segments.iter().map(|(number, bytes)| (*number, bytes.as_slice())).collect();
    let mut meta = Meta::choose(&disk.meta).expect("whole pages").expect("written");
    let remembered = |meta: &Meta| {
        let stored = Stored { meta: Some(meta.clone()), log: replay(&segments), ..Stored::default() };
        let (config, mut out) = (config(1, 3, 9, Durability::Disk), Outbox::default());
        let mut replica = Replica::recover(config, stored, bench.now, &mut out);
        let view = replica.group().newest().expect("it was a member").clone();
        let (from, ballot) = (view.members[2], Ballot { round: 7, id: ReplicaId(3), ..Ballot::default() });
        let (mut actions, mut promises) = (Vec::new(), 0);
        let end = LogEnd { slot: view.base.next().next(), ..LogEnd::default() };
        replica.group.on_change(bench.now, from, ChangeFrame::Prepare { ballot, view }, &|_| end, &mut actions);
        for action in actions {
            if let Action::Say { frame: ChangeFrame::Promise { promise, .. }, .. } = action {
                promises += promise.remembers.len();
            }
        }
        promises
    };
    assert!(remembered(&meta) > 0, "in the same view it is");
    let view = meta.installed.as_mut().expect("it was a member");
    (view.chain, view.epoch, view.base) = (view.next_chain(), view.epoch.next(), replay(&segments).end());
    assert_eq!(remembered(&meta), 0);
}

#[test]
fn a_copy_of_a_directory_takes_a_new_birth() {
    let mut bench = serving(3, 2);
    assert_eq!(push_and_wait(&mut bench, 2, 1), [(1, 0)]);
    let before = bench.replicas[0].group().me();
    bench.directory = [7, 7];
    bench.restart(0);
    bench.run_ms(5000);
    let after = bench.replicas[0].group().me();
    assert!(after.birth != before.birth && after.incarnation.0 == 1);
    assert_all_agree(&bench);
}
