//! Removing old backups: what stays restores, what is interrupted is finished later, and backups and prunings never harm each other.

use std::time::Duration;

use super::tests::{City, hours, place, restored};
use super::*;
use crate::blobs::contract::Moto;

const DAY: Duration = Duration::from_hours(24);

fn keep(newest: usize) -> Keep {
    Keep { newest: Some(newest), days: None }
}

fn pruned(city: &City, to: &Arc<Place>, keep: &Keep) -> Pruned {
    prune(to, keep, &city.clock(), &|_, _, _| {}).unwrap()
}

/// Everything in a place, without the lists.
fn n_objects(to: &Place) -> usize {
    ["documents", "segments", "log"].iter().map(|level| to.walk(level).unwrap().len()).sum()
}

fn check_that_old_ones_go(to: &Arc<Place>) {
    let city = City::new();
    for i in 0..5 {
        city.read(i * 3..i * 3 + 3);
        city.backup(to);
    }
    let all = list(to).unwrap();
    assert_eq!(all.iter().map(|b| b.until).collect::<Vec<_>>(), [4, 7, 10, 13, 16]);
    assert!(all.iter().all(|b| b.bytes > 0 && b.n_documents == 1));
    let n_before = n_objects(to);
    let done = pruned(&city, to, &keep(2));
    assert_eq!((done.n_kept, done.removed.len()), (2, 3), "{done:?}");
    assert!(done.n_objects > 0 && done.bytes_freed > 0 && n_objects(to) == n_before - usize::try_from(done.n_objects).unwrap());
    assert_eq!(list(to).unwrap(), all[3..]);
    assert_eq!(restored(to, Until::End).unwrap(), hours(0..15));
    assert_eq!(restored(to, Until::Position(13)).unwrap(), hours(0..13));
    assert!(matches!(restored(to, Until::Position(5)), Err(BackupError::NotCovered { .. })));
    // Nothing is left to do, and the next backup goes on as ever.
    assert_eq!(pruned(&city, to, &keep(2)), Pruned { n_kept: 2, ..Pruned::default() });
    city.read(15..18);
    assert!(city.backup(to).continuous);
    assert_eq!(pruned(&city, to, &keep(1)).n_kept, 1);
    assert_eq!(restored(to, Until::End).unwrap(), hours(0..18));
    assert!(to.walk("running").unwrap().is_empty() && to.walk("pruning").unwrap().is_empty(), "no mark stays");
}

#[test]
fn old_backups_go_and_the_others_restore() {
    let dir = tempfile::tempdir().unwrap();
    check_that_old_ones_go(&place(&dir));
    assert_eq!(std::fs::read_dir(dir.path().join("documents")).unwrap().count(), 1, "no empty folder stays");
    let Some(server) = Moto::start() else { return };
    check_that_old_ones_go(&Arc::new(Place::s3(&server.options("backups")).unwrap()));
}

#[test]
fn the_age_counts_and_the_newest_always_stays() {
    let city = City::new();
    let dir = tempfile::tempdir().unwrap();
    let to = place(&dir);
    for _ in 0..4 {
        city.backup(&to);
        city.clock.advance(DAY);
    }
    let days = |days| Keep { newest: None, days: Some(days) };
    assert_eq!(pruned(&city, &to, &Keep::default()).n_kept, 4);
    // What either of the two wants stays.
    assert_eq!(pruned(&city, &to, &Keep { newest: Some(3), days: Some(1) }).n_kept, 3);
    assert_eq!(pruned(&city, &to, &days(2)).n_kept, 1, "made a day and a bit ago, and longer ago");
    city.clock.advance(DAY * 100);
    assert_eq!(pruned(&city, &to, &days(1)).n_kept, 1);
    for wrong in [keep(0), days(0)] {
        assert!(matches!(prune(&to, &wrong, &city.clock(), &|_, _, _| {}), Err(BackupError::Keep { .. })));
    }
}

#[test]
fn a_pruning_that_dies_anywhere_leaves_whole_backups_and_the_next_one_finishes() {
    let city = City::new();
    for dies_at in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let to = place(&dir);
        for i in 0..3 {
            city.read(i..i + 1);
            city.backup(&to);
        }
        let n_calls = std::sync::atomic::AtomicU64::new(0);
        let die = |_: &str, _: u64, _: u64| {
            let n = n_calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            // Neither a panic handler nor a message: the test is the handler.
            if n == dies_at {
                std::panic::resume_unwind(Box::new("died"));
            }
        };
        let clock = city.clock();
        let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| prune(&to, &keep(1), &clock, &die))).is_err();
        restored(&to, Until::End).unwrap();
        let done = pruned(&city, &to, &keep(1));
        assert!(died || done.n_objects == 0, "{done:?}");
        let named: usize = backups_in(&to).unwrap().iter().map(|(_, b)| b.parts().count()).sum();
        assert_eq!((list(&to).unwrap().len(), n_objects(&to)), (1, named), "at {dies_at}");
        if !died {
            assert!(dies_at >= 4, "several objects were removed one by one: {dies_at}");
            return;
        }
    }
}

#[test]
fn a_backup_and_a_pruning_give_way_to_each_other_until_the_other_is_dead() {
    let city = City::new();
    let dir = tempfile::tempdir().unwrap();
    let to = place(&dir);
    city.read(0..3);
    city.backup(&to);
    city.backup(&to);
    let running = Mark::set(&to, &city.clock(), Work::Backup).unwrap();
    // A second backup may run.
    city.backup(&to);
    let refused = prune(&to, &keep(1), &city.clock(), &|_, _, _| {}).unwrap_err();
    assert!(matches!(refused, BackupError::BeingMade { .. }), "{refused}");
    assert_eq!(list(&to).unwrap().len(), 3);
    // As a program that died: its mark stays.
    std::mem::forget(running);
    city.clock.advance(Duration::from_hours(5));
    assert!(prune(&to, &keep(1), &city.clock(), &|_, _, _| {}).is_err());
    city.clock.advance(Duration::from_hours(2));
    assert_eq!(pruned(&city, &to, &keep(1)).n_kept, 1);

    let mut pruning = Mark::set(&to, &city.clock(), Work::Pruning).unwrap();
    let backup = || city.store.backup(&to, &city.clock(), &|_, _, _| {});
    assert!(matches!(backup(), Err(BackupError::BeingPruned { .. })));
    // One that lives renews its mark.
    for _ in 0..10 {
        city.clock.advance(Duration::from_mins(10));
        pruning.renew().unwrap();
    }
    assert!(backup().is_err());
    // One that stood still gives up by itself, and is not waited for.
    city.clock.advance(Duration::from_hours(2));
    assert!(matches!(pruning.renew(), Err(BackupError::TooSlow { .. })));
    backup().unwrap();
    assert_eq!(restored(&to, Until::End).unwrap(), hours(0..3));
}

#[test]
fn backups_and_prunings_at_once_never_lose_what_a_backup_names() {
    let city = City::new();
    let dir = tempfile::tempdir().unwrap();
    let to = place(&dir);
    city.read(0..10);
    city.backup(&to);
    let gave_way = |e: &BackupError| matches!(e, BackupError::BeingMade { .. } | BackupError::BeingPruned { .. });
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let (made, n_pruned) = std::thread::scope(|scope| {
        let pruner = scope.spawn(|| {
            let mut n = 0;
            while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                match prune(&to, &keep(1), &city.clock(), &|_, _, _| {}) {
                    Ok(_) => n += 1,
                    Err(e) => assert!(gave_way(&e), "{e}"),
                }
            }
            n
        });
        let mut made = 0;
        for hour in 10..40 {
            city.read(hour..hour + 1);
            city.clock.advance(Duration::from_secs(1));
            match city.store.backup(&to, &city.clock(), &|_, _, _| {}) {
                Ok(_) => made += 1,
                Err(e) => assert!(gave_way(&e), "{e}"),
            }
        }
        is_over.store(true, std::sync::atomic::Ordering::SeqCst);
        (made, pruner.join().unwrap())
    });
    assert!(made > 0 && n_pruned > 0, "{made} backups, {n_pruned} prunings");
    city.backup(&to);
    assert_eq!(restored(&to, Until::End).unwrap(), hours(0..40));
    // What is removed from under a backup is noticed before the backup gets its name.
    let n_before = list(&to).unwrap().len();
    let remove = |step: &str, _: u64, _: u64| {
        if step == "completing" {
            to.walk("segments").unwrap().iter().for_each(|(name, _)| to.delete(name).unwrap());
        }
    };
    let gone = city.store.backup(&to, &city.clock(), &remove).unwrap_err();
    assert!(matches!(gone, BackupError::Vanished { .. }), "{gone}");
    assert_eq!(list(&to).unwrap().len(), n_before);
}
