//! What every log engine must do, and what the file engine must survive.

use std::path::Path;
use std::sync::Arc;

use host::sim::SimDisk;
use host::{Disk, RealDisk};

use super::file::{self, FileLog};
use super::memory::MemoryLog;
use super::{Expected, Log, LogError, Read};

fn records(from: u64, n: u64) -> Vec<Vec<u8>> {
    (from..from + n).map(|i| format!("record {i} {}", "x".repeat((i % 17) as usize)).into_bytes()).collect()
}

fn read_all(log: &mut dyn Log, from: u64) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    log.replay(from, &mut |position, bytes| {
        found.push((position, bytes.to_vec()));
        Ok(())
    })
    .unwrap();
    found
}

fn check_contract(log: &mut dyn Log) {
    assert_eq!(log.next_position(), 1);
    assert_eq!(log.append(&records(1, 3)).unwrap(), 1);
    assert_eq!(log.append(&[]).unwrap(), 4);
    assert_eq!(log.append(&records(4, 2)).unwrap(), 4);
    let want: Vec<_> = (1..6).zip(records(1, 5)).collect();
    assert_eq!(read_all(log, 1), want);
    assert_eq!(read_all(log, 5), want[4..]);
    assert_eq!(log.first_position(), 1);
    check_versions(log);
    log.trim(3, 0).unwrap();
    assert!((1..=3).contains(&log.first_position()));
    assert_eq!(read_all(log, 3), want[2..], "trimming keeps what is not before the position");
    assert_eq!(log.next_position(), 8);
    check_reading_beside_the_writer(log);
}

/// Right expectations append and raise the version, a wrong one appends nothing and changes none.
fn check_versions(log: &mut dyn Log) {
    let key = |key, version| Expected { key, version };
    assert_eq!(log.version("a"), 0);
    assert_eq!(log.append_expecting(&records(6, 1), &[key("a", 0), key("b", 0)]).unwrap(), 6);
    let wrong = log.append_expecting(&records(7, 1), &[key("b", 6), key("a", 5)]);
    assert!(matches!(wrong, Err(LogError::Conflict { ref key, expected: 5, found: 6 }) if key == "a"), "{wrong:?}");
    assert_eq!((log.version("a"), log.version("b"), log.next_position()), (6, 6, 7));
    assert_eq!(log.append_expecting(&records(7, 1), &[key("b", 6)]).unwrap(), 7);
    assert_eq!((log.version("a"), log.version("b")), (6, 7));
    for refused in ["", &"k".repeat(256)] {
        assert!(matches!(log.append_expecting(&records(8, 1), &[key(refused, 0)]), Err(LogError::Key { .. })));
    }
    assert_eq!(log.snapshot(), 0);
    log.mark_snapshot(3).unwrap();
    assert_eq!(log.snapshot(), 3);
}

fn check_reading_beside_the_writer(log: &mut dyn Log) {
    let reader = log.reader();
    let all = Read { records: 1_000, bytes: 1 << 20 };
    let first = reader.first_position();
    let numbered = |from: u64, n: u64| (from..).zip(records(from, n)).collect::<Vec<_>>();
    assert_eq!(reader.read(first, all).unwrap(), numbered(first, 8 - first));
    assert_eq!(reader.read(5, Read { records: 2, ..all }).unwrap(), numbered(5, 2));
    assert_eq!(reader.read(5, Read { bytes: 1, ..all }).unwrap(), numbered(5, 1), "one is read however long it is");
    assert_eq!(reader.read(8, all).unwrap(), []);
    assert_eq!(log.append(&records(8, 2)).unwrap(), 8);
    assert_eq!(reader.read(8, all).unwrap(), numbered(8, 2), "the reader follows the writer");
    assert_eq!(reader.next_position(), 10);
    log.append(&records(10, 30)).unwrap();
    log.trim(40, 0).unwrap();
    let first = reader.first_position();
    if first > 1 {
        assert!(matches!(reader.read(first - 1, all), Err(LogError::Gone { first: f, .. }) if f == first));
    }
}

/// Four writers who have all seen the same version: in each of 500 rounds exactly one of them appends.
fn occ_race(log: impl Log + 'static) {
    let log = std::sync::Mutex::new(log);
    let barrier = std::sync::Barrier::new(4);
    let n_won = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for writer in 0..4_u64 {
            let (log, barrier, n_won) = (&log, &barrier, &n_won);
            scope.spawn(move || {
                for round in 0..500 {
                    barrier.wait();
                    let seen = log.lock().unwrap().version("row");
                    barrier.wait();
                    let record = format!("round {round} writer {writer}").into_bytes();
                    match log.lock().unwrap().append_expecting(&[record], &[Expected { key: "row", version: seen }]) {
                        Ok(_) => n_won.fetch_add(1, std::sync::atomic::Ordering::SeqCst),
                        Err(LogError::Conflict { .. }) => 0,
                        Err(e) => panic!("{e}"),
                    };
                }
            });
        }
    });
    assert_eq!(n_won.into_inner(), 500);
    let mut log = log.into_inner().unwrap();
    let rounds: Vec<_> = read_all(&mut log, 1).into_iter().map(|(_, r)| String::from_utf8(r).unwrap()).collect();
    assert!(rounds.iter().enumerate().all(|(i, r)| r.starts_with(&format!("round {i} "))), "each round has one winner");
}

#[test]
fn occ_race_on_every_engine() {
    occ_race(MemoryLog::default());
    // The simulated disk syncs at once: 500 real syncs would only take time.
    occ_race(FileLog::open_with(Arc::new(SimDisk::new(1, 1 << 20)), Path::new("/log"), 2_000).unwrap());
}

#[test]
fn every_engine_keeps_the_contract() {
    check_contract(&mut MemoryLog::default());
    let dir = tempfile::tempdir().unwrap();
    check_contract(&mut FileLog::open(Arc::new(RealDisk), dir.path()).unwrap());
    let small = tempfile::tempdir().unwrap();
    check_contract(&mut FileLog::open_with(Arc::new(RealDisk), small.path(), 30).unwrap());
}

#[test]
fn what_was_appended_is_there_after_reopening_and_trimmed_segments_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..5 {
        let mut log = FileLog::open_with(Arc::new(RealDisk), dir.path(), 100).unwrap();
        assert_eq!(log.next_position(), round * 4 + 1);
        log.append(&records(round * 4 + 1, 4)).unwrap();
    }
    let mut log = FileLog::open_with(Arc::new(RealDisk), dir.path(), 100).unwrap();
    assert_eq!(read_all(&mut log, 1), (1..21).zip(records(1, 20)).collect::<Vec<_>>());
    let n_before = RealDisk.list(dir.path()).unwrap().len();
    log.trim(21, 0).unwrap();
    assert!(RealDisk.list(dir.path()).unwrap().len() < n_before);
    drop(log);
    let mut log = FileLog::open_with(Arc::new(RealDisk), dir.path(), 100).unwrap();
    assert_eq!(log.next_position(), 21);
    log.append(&records(21, 1)).unwrap();
}

#[test]
fn damage_in_the_middle_is_refused_and_a_torn_tail_is_cut() {
    let disk = SimDisk::new(1, 1 << 20);
    let dir = Path::new("/log");
    let open = || FileLog::open(Arc::new(disk.clone()), dir);
    let mut log = open().unwrap();
    let path = dir.join("00000000000000000001.log");
    let mut len_before_last = 0;
    for i in 0..4 {
        len_before_last = disk.read(&path).map_or(0, |bytes| bytes.len());
        log.append(&records(i + 1, 1)).unwrap();
    }
    drop(log);
    let len = disk.read(&path).unwrap().len();
    // Damage of the very last batch looks like a torn tail and cannot be told from it.
    for byte in 0..len_before_last {
        disk.flip_bit(&path, byte);
        let found = open();
        assert!(matches!(found, Err(LogError::Damaged { .. })), "byte {byte} flipped and not noticed");
        disk.flip_bit(&path, byte);
    }
    disk.open_append(&path).unwrap().truncate(len as u64 - 3).unwrap();
    assert_eq!(open().unwrap().next_position(), 4, "the last batch was cut");
}

#[test]
fn a_full_disk_refuses_the_batch_and_goes_on_when_there_is_room() {
    let disk = SimDisk::new(7, 400);
    let mut log = FileLog::open(Arc::new(disk.clone()), Path::new("/log")).unwrap();
    let mut n_kept = 0;
    let error = loop {
        match log.append(&records(n_kept + 1, 1)) {
            Ok(_) => n_kept += 1,
            Err(e) => break e,
        }
    };
    assert!(matches!(error, LogError::Full { .. }), "{error}");
    disk.set_capacity(4000);
    log.append(&records(n_kept + 1, 1)).unwrap();
    assert_eq!(read_all(&mut log, 1).len() as u64, n_kept + 1);
}

#[test]
fn versions_and_the_snapshot_mark_outlive_reopening_and_trimming() {
    let dir = tempfile::tempdir().unwrap();
    let open = || FileLog::open_with(Arc::new(RealDisk), dir.path(), 200).unwrap();
    let mut log = open();
    let version = log.append_expecting(&records(1, 1), &[Expected { key: "lease", version: 0 }]).unwrap();
    for i in 1..20 {
        log.append(&records(i + 1, 1)).unwrap();
    }
    log.mark_snapshot(21).unwrap();
    log.trim(21, 0).unwrap();
    assert!(log.first_position() > version);
    drop(log);
    let mut log = open();
    assert_eq!((log.version("lease"), log.snapshot()), (version, 21));
    assert!(log.append_expecting(&records(21, 1), &[Expected { key: "lease", version: 0 }]).is_err());
}

#[test]
fn trimming_keeps_as_many_bytes_as_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = FileLog::open_with(Arc::new(RealDisk), dir.path(), 200).unwrap();
    for i in 0..40 {
        log.append(&records(i + 1, 1)).unwrap();
    }
    log.trim(41, 900).unwrap();
    assert!((900..1_200).contains(&log.size_bytes()), "{}", log.size_bytes());
    log.trim(41, 0).unwrap();
    assert!(log.size_bytes() < 300);
}

/// A segment as version 1 wrote it.
fn old_segment(first: u64, batches: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let mut bytes = [b"CONURBLG".as_slice(), &1_u32.to_le_bytes(), &first.to_le_bytes()].concat();
    let mut position = first;
    for batch in batches {
        let body: Vec<u8> = batch.iter().flat_map(|r| [&(r.len() as u32).to_le_bytes(), r.as_slice()].concat()).collect();
        let checked = [position.to_le_bytes().as_slice(), &(batch.len() as u32).to_le_bytes(), &body].concat();
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&checked).to_le_bytes());
        bytes.extend(checked);
        position += batch.len() as u64;
    }
    bytes
}

#[test]
fn segments_of_version_1_are_read_and_a_newer_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("00000000000000000001.log");
    let old = old_segment(1, &[records(1, 2), records(3, 1)]);
    std::fs::write(&path, &old).unwrap();
    let mut log = FileLog::open(Arc::new(RealDisk), dir.path()).unwrap();
    assert_eq!(log.append(&records(4, 2)).unwrap(), 4);
    let want: Vec<_> = (1..6).zip(records(1, 5)).collect();
    assert_eq!(read_all(&mut log, 1), want);
    assert_eq!(log.reader().read(2, Read { records: 10, bytes: 1 << 20 }).unwrap(), want[1..]);
    drop(log);
    let mut log = FileLog::open(Arc::new(RealDisk), dir.path()).unwrap();
    assert_eq!(read_all(&mut log, 1), want);
    let mut newer = old;
    newer[8] = 3;
    std::fs::write(&path, &newer).unwrap();
    let refused = FileLog::open(Arc::new(RealDisk), dir.path()).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("format version 3 is newer"), "{refused}");
}

#[test]
fn a_log_can_begin_anywhere_and_checking_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = FileLog::create_at(Arc::new(RealDisk), dir.path(), 100).unwrap();
    assert_eq!((log.first_position(), log.next_position()), (100, 100));
    assert!(FileLog::create_at(Arc::new(RealDisk), dir.path(), 1).is_err(), "there is one already");
    log.append(&records(100, 3)).unwrap();
    drop(log);
    let path = dir.path().join("00000000000000000100.log");
    std::fs::write(&path, [std::fs::read(&path).unwrap(), vec![7; 30]].concat()).unwrap();
    let before = std::fs::read(&path).unwrap();
    let mut n_records = 0;
    let found = file::check(&RealDisk, dir.path(), &mut |_, _| {
        n_records += 1;
        Ok(())
    });
    let found = found.unwrap();
    assert_eq!((found.first_position, found.next_position, found.torn_bytes, n_records), (100, 103, 30, 3));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(FileLog::open(Arc::new(RealDisk), dir.path()).unwrap().next_position(), 103);
}

/// Crash at every step of random workloads: what was acknowledged is there, a batch is there whole or not at all, order is kept.
#[test]
fn nothing_acknowledged_is_lost_in_a_thousand_crashes() {
    for seed in 0..1000 {
        crash(seed);
    }
}

fn crash(seed: u64) {
    let disk = SimDisk::new(seed, 1 << 20);
    let dir = Path::new("/log");
    let mut n_acknowledged = 0;
    let mut n_attempted = 0;
    for round in 0..4 {
        disk.crash_after(1 + (seed * 7 + round * 13) % 23);
        if let Ok(mut log) = FileLog::open_with(Arc::new(disk.clone()), dir, 120) {
            assert!(log.next_position() > n_acknowledged, "seed {seed}: acknowledged records are lost");
            assert!(log.next_position() <= n_attempted + 1, "seed {seed}: records that nobody wrote");
            n_acknowledged = log.next_position() - 1;
            loop {
                let n = 1 + (seed + n_acknowledged) % 3;
                n_attempted = n_acknowledged + n;
                let version = log.version("k");
                assert!(version > 0 || n_acknowledged == 0, "seed {seed}: the version of a key is lost");
                match log.append_expecting(&records(n_acknowledged + 1, n), &[Expected { key: "k", version }]) {
                    Ok(_) => n_acknowledged += n,
                    Err(_) => break,
                }
                if n == 2 {
                    let _ = log.mark_snapshot(n_acknowledged);
                }
            }
        }
        disk.restart();
    }
    let mut log = FileLog::open_with(Arc::new(disk), dir, 120).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    let found = read_all(&mut log, 1);
    assert!(found.len() as u64 >= n_acknowledged, "seed {seed}");
    assert_eq!(found, (1..).zip(records(1, found.len() as u64)).collect::<Vec<_>>(), "seed {seed}");
}
