use std::path::Path;
use std::time::Duration;

use entity::{Attribute, Command, Entity, Iri};
use host::{Clock, ManualClock};

use super::*;
use crate::history::TemporalQuery;
use crate::state::MEMORY_BYTES_MIN;
use crate::{Options, Submission};

const STATION: &str = "urn:ngsi-ld:Station:1";

fn name() -> Iri {
    Iri::known("https://example.org/pm25")
}

pub(super) struct City {
    dir: tempfile::TempDir,
    pub(super) clock: Arc<ManualClock>,
    pub(super) store: Store,
}

fn open(dir: &Path, clock: &Arc<ManualClock>) -> Store {
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    let options = Options { memory_bytes: MEMORY_BYTES_MIN, log_keep_bytes: 1 << 20, ..Options::new(dir, clock) };
    Store::open(options).unwrap()
}

impl City {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(1_000_000_000_000));
        let store = open(dir.path(), &clock);
        Self { dir, clock, store }
    }

    /// One reading each second; returns when the last was recorded.
    pub(super) fn read(&self, hours: std::ops::Range<i64>) -> Instant {
        for hour in hours {
            self.clock.advance(Duration::from_secs(1));
            let e = Entity::new(Iri::known(STATION), Iri::known("https://example.org/Station"));
            let e = e.with(name(), Attribute::property(hour).observed(Instant::from_secs(hour * 3600)));
            self.store.submit_and_wait(Submission { space: Space::City, commands: vec![Command::Observe(e)] }).unwrap();
        }
        Instant::from_micros(self.clock.now_micros())
    }

    pub(super) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as Arc<dyn Clock>
    }

    pub(super) fn backup(&self, to: &Arc<Place>) -> Summary {
        self.clock.advance(Duration::from_secs(1));
        self.store.backup(to, &self.clock(), &|_, _, _| {}).unwrap()
    }
}

/// The hours that a restored folder knows of station 1, by the history; checks that the present is the last of them, and that all verifies.
pub(super) fn restored(from: &Place, until: Until) -> Result<Vec<i64>, BackupError> {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("new");
    let summary = restore(from, RestoreTo { dir: &to, history_place: "" }, until, &|_, _, _| {})?;
    let verified = crate::verify::dir(&to, &|_| {}).unwrap();
    assert!(verified.is_clean(), "{verified:?}");
    let store = open(&to, &Arc::new(ManualClock::at(0)));
    assert_eq!(store.stats().next_position, summary.next_position);
    let query = TemporalQuery::of(Iri::known(STATION));
    let past = store.history().evolution(&query).unwrap().unwrap();
    let hours: Vec<i64> = past.attributes[&name()].iter().map(|a| a.observed_at.unwrap().micros() / 3_600_000_000).collect();
    let now = store.table(Space::City).get(STATION).unwrap().attribute(name().as_str()).unwrap().observed_at.unwrap();
    assert_eq!(hours.last().copied(), Some(now.micros() / 3_600_000_000));
    Ok(hours)
}

pub(super) fn place(dir: &tempfile::TempDir) -> Arc<Place> {
    Arc::new(Place::open(dir.path().to_str().unwrap()).unwrap())
}

pub(super) fn hours(range: std::ops::Range<i64>) -> Vec<i64> {
    range.collect()
}

#[test]
fn a_backup_restores_to_its_end_and_to_every_recorded_time_that_it_covers() {
    let city = City::new();
    let dir = tempfile::tempdir().unwrap();
    let to = place(&dir);
    city.read(0..3);
    let first = city.backup(&to);
    assert_eq!((first.n_documents, first.n_segments, first.n_segments_known, first.until), (1, 1, 0, 4));
    let at_five = city.read(3..6);
    let at_eight = city.read(6..9);
    // A checkpoint in between is what the backups do not depend on.
    city.store.checkpoint().unwrap();
    city.read(9..11);
    let second = city.backup(&to);
    assert!(second.continuous);
    assert_eq!(second.until, 12);
    city.read(11..20);

    assert_eq!(restored(&to, Until::End).unwrap(), hours(0..11));
    assert_eq!(restored(&to, Until::RecordedAt(at_five)).unwrap(), hours(0..6));
    assert_eq!(restored(&to, Until::RecordedAt(at_eight)).unwrap(), hours(0..9));
    assert_eq!(restored(&to, Until::Position(5)).unwrap(), hours(0..5));
    assert_eq!(restored(&to, Until::Position(3)).unwrap(), hours(0..3));
    let early = restored(&to, Until::RecordedAt(Instant::from_micros(0))).unwrap_err().to_string();
    assert!(early.contains("can be restored to recorded times from 1970-01-12"), "{early}");
    assert!(matches!(restored(&to, Until::Position(50)), Err(BackupError::NotCovered { .. })));
}

#[test]
fn writers_go_on_during_a_backup_and_unchanged_files_are_copied_once() {
    let city = City::new();
    let dir = tempfile::tempdir().unwrap();
    let to = place(&dir);
    city.read(0..5);
    city.backup(&to);
    let again = city.backup(&to);
    assert_eq!((again.n_segments, again.n_segments_known), (1, 1), "{again:?}");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| city.read(5..60));
        for _ in 0..3 {
            city.backup(&to);
        }
        writer.join().unwrap();
    });
    let last = city.backup(&to);
    assert!(last.continuous);
    assert_eq!(restored(&to, Until::End).unwrap(), hours(0..60));
}

#[test]
fn what_is_damaged_or_foreign_or_half_done_is_refused() {
    let city = City::new();
    let dir = tempfile::tempdir().unwrap();
    let to = place(&dir);
    assert!(matches!(restored(&to, Until::End), Err(BackupError::NoBackup { .. })));
    city.read(0..3);
    city.backup(&to);
    let other = City::new();
    let foreign = other.store.backup(&to, &other.clock(), &|_, _, _| {}).unwrap_err();
    assert!(matches!(foreign, BackupError::OtherStore { .. }), "{foreign}");
    let used = restore(&to, RestoreTo { dir: city.dir.path(), history_place: "" }, Until::End, &|_, _, _| {}).unwrap_err();
    assert!(matches!(used, BackupError::NotEmpty { .. }), "{used}");

    let segment = dir.path().join(to.list("segments").unwrap().remove(0));
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let half = tempfile::tempdir().unwrap();
    let damaged = restore(&to, RestoreTo { dir: half.path(), history_place: "" }, Until::End, &|_, _, _| {}).unwrap_err();
    assert!(matches!(damaged, BackupError::Damaged { .. }), "{damaged}");
    let options = Options { memory_bytes: MEMORY_BYTES_MIN, ..Options::new(half.path(), Arc::new(ManualClock::at(0))) };
    assert!(matches!(Store::open(options), Err(crate::OpenError::HalfRestored { .. })));
}

#[test]
fn an_address_that_is_no_place_says_what_one_looks_like() {
    for wrong in ["", "ftp://x/y", "s3://"] {
        let error = Place::open(wrong).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("expected a folder or `s3://bucket/prefix`"), "{error}");
    }
}
