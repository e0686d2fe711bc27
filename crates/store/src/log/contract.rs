//! What every log engine must do, and what the file engine must survive.

use std::path::Path;
use std::sync::Arc;

use host::sim::SimDisk;
use host::{Disk, RealDisk};

use super::file::FileLog;
use super::memory::MemoryLog;
use super::{Log, LogError};

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
    log.trim(3).unwrap();
    assert!((1..=3).contains(&log.first_position()));
    assert_eq!(read_all(log, 3), want[2..], "trimming keeps what is not before the position");
    assert_eq!(log.next_position(), 6);
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
    log.trim(21).unwrap();
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
                match log.append(&records(n_acknowledged + 1, n)) {
                    Ok(_) => n_acknowledged += n,
                    Err(_) => break,
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
