//! The whole store on a simulated disk: random work, a crash at any I/O step, a full disk; and what must hold after every restart.
//!
//! * every acknowledged submission is there, and the one under way is there as a whole or not at all;
//! * the past is what a plain map says;
//! * the verification finds nothing;
//! * the feed of changes has no gap and no repetition.
//!
//! A failure prints its seed; `CONURB_SIM_FROM=<seed> CONURB_SIM_SEEDS=1` runs it alone, `CONURB_SIM_SEEDS=1000000` runs for a long time.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, Float64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use entity::{Attribute, AttributeValue, Command, Entity, Instant};
use host::sim::SimDisk;
use host::{Disk, ManualClock};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::blobs::DiskBlobs;
use crate::history::TemporalQuery;
use crate::history::columnar::ColumnarOptions;
use crate::state::DiskDocuments;

const STATIONS: u32 = 3;
const HOURS: i64 = 12;
const HOUR_US: i64 = 3_600_000_000;
const ROOMY: usize = 64 << 20;

fn iri(s: &str) -> Iri {
    Iri::known(&format!("https://example.org/{s}"))
}

fn id(station: u32) -> Iri {
    Iri::known(&format!("urn:ngsi-ld:Station:{station}"))
}

/// What should be there: of each station the present value with its hour, and all values by hour.
#[derive(Clone, Default, PartialEq, Debug)]
struct Model {
    present: BTreeMap<u32, Option<(i64, f64)>>,
    past: BTreeMap<(u32, i64), f64>,
}

/// One submission.
#[derive(Clone, Debug)]
enum Work {
    /// Readings and deletions, in order: station, hour, value; an entity is deleted if there is no value.
    Commands(Vec<(u32, i64, Option<f64>)>),
    /// Readings as columns.
    Rows(Vec<(u32, i64, f64)>),
}

impl Model {
    fn observe(&mut self, station: u32, hour: i64, value: f64) {
        self.past.insert((station, hour), value);
        let present = self.present.entry(station).or_default();
        if present.is_none_or(|p| p.0 <= hour) {
            *present = Some((hour, value));
        }
    }

    fn apply(&mut self, work: &Work) {
        match work {
            Work::Commands(commands) => {
                for &(station, hour, value) in commands {
                    match value {
                        Some(value) => self.observe(station, hour, value),
                        None => {
                            self.present.remove(&station);
                        }
                    }
                }
            }
            Work::Rows(rows) => rows.iter().for_each(|&(station, hour, value)| self.observe(station, hour, value)),
        }
    }
}

fn command(&(station, hour, value): &(u32, i64, Option<f64>)) -> Command {
    let Some(value) = value else { return Command::Delete(id(station)) };
    let reading = Attribute::property(value).observed(Instant::from_micros(hour * HOUR_US));
    Command::Observe(Entity::new(id(station), iri("Station")).with(iri("v"), reading))
}

fn batch(rows: &[(u32, i64, f64)]) -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("entity_id", DataType::Utf8, false),
        Field::new("observed_at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
        Field::new(iri("v").as_str(), DataType::Float64, true),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|r| Some(id(r.0).to_string())).collect::<StringArray>()),
        Arc::new(rows.iter().map(|r| Some(r.1 * HOUR_US)).collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        Arc::new(rows.iter().map(|r| Some(r.2)).collect::<Float64Array>()),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

/// How often what happened, over all seeds: a simulation in which nothing fails shows nothing.
static SEEN: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

fn note(what: &str) {
    *SEEN.lock().unwrap().entry(what.to_owned()).or_default() += 1;
}

struct World {
    seed: u64,
    disk: SimDisk,
    clock: Arc<ManualClock>,
    random: ChaCha8Rng,
    /// What is acknowledged.
    model: Model,
    /// What was under way when the machine died.
    in_flight: Option<Work>,
}

/// The machine has died.
struct Died;

impl World {
    /// A failure is the machine's death, or a defect.
    fn died(&self, what: &str, error: &dyn std::error::Error) -> Died {
        assert!(self.disk.has_crashed(), "seed {}: {what}: {}", self.seed, host::chain(error));
        note(what);
        Died
    }

    fn open(&self) -> Result<(Store, Arc<ColumnarHistory>), Died> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let log = FileLog::open_with(Arc::clone(&disk), Path::new("/log"), 700).map_err(|e| self.died("opening the log", &e))?;
        let documents =
            DiskDocuments::open(Arc::clone(&disk), Path::new("/documents")).map_err(|e| self.died("opening the documents", &e))?;
        let opened: Arc<Mutex<Option<Arc<ColumnarHistory>>>> = Arc::default();
        let slot = Arc::clone(&opened);
        let history_disk = Arc::clone(&disk);
        let engines = Engines {
            log: Box::new(log),
            documents: Arc::new(documents),
            history: Box::new(move |manifest, _| {
                let path = || PathBuf::from("/history");
                let blobs = DiskBlobs::open(history_disk, &path())
                    .map_err(|source| OpenError::History(HistoryError::Io { action: "open", path: path(), source }))?;
                // The merging is done when the seed says so; few rows stay columns, so that both ways are taken.
                let options = ColumnarOptions { compaction: false, bulk_rows_min: 3, ..ColumnarOptions::default() };
                let history = Arc::new(ColumnarHistory::open_on(Arc::new(blobs), manifest.segments.clone(), options)?);
                *slot.lock().unwrap() = Some(Arc::clone(&history));
                Ok(history)
            }),
            segments: Arc::new(move |s| disk.read(&Path::new("/history").join(&s.file))),
            id: "simulated".to_owned(),
        };
        let options = Options {
            memory_bytes: MEMORY_BYTES_MIN,
            log_keep_bytes: 1_000,
            ..Options::new("", Arc::clone(&self.clock) as Arc<dyn Clock>)
        };
        let store = Store::open_with(options, engines).map_err(|e| self.died("opening the store", &e))?;
        let history = opened.lock().unwrap().take().unwrap();
        Ok((store, history))
    }

    /// What the store says there is.
    fn found(&self, store: &Store) -> Result<Model, Died> {
        let mut found = Model::default();
        for station in 0..STATIONS {
            if let Some(e) = store.table(Space::City).get(id(station).as_str()) {
                found.present.insert(station, e.attribute(iri("v").as_str()).map(|a| (hour_of(a), value_of(a))));
            }
            let query = TemporalQuery::of(id(station));
            let past = store.history().evolution(&query).map_err(|e| self.died("reading the past", &e))?;
            for a in past.iter().flat_map(|p| p.attributes.values()).flatten() {
                let before = found.past.insert((station, hour_of(a)), value_of(a));
                assert_eq!(before, None, "seed {}: the past of station {station} has hour {} twice", self.seed, hour_of(a));
            }
        }
        Ok(found)
    }

    /// Compares after a restart; what was under way is decided now.
    fn check(&mut self, store: &Store) -> Result<(), Died> {
        let found = self.found(store)?;
        let without = self.model.clone();
        let mut with = without.clone();
        if let Some(work) = &self.in_flight {
            with.apply(work);
        }
        assert!(
            found == without || found == with,
            "seed {}: found\n{found:?}\nacknowledged is\n{without:?}\nunder way was {:?}",
            self.seed,
            self.in_flight
        );
        self.model = found;
        self.in_flight = None;
        Ok(())
    }

    fn work(&mut self) -> Work {
        let n = self.random.random_range(1..=4);
        let mut reading =
            || (self.random.random_range(0..STATIONS), self.random.random_range(0..HOURS), f64::from(self.random.random_range(0..100)));
        let readings: Vec<_> = (0..n).map(|_| reading()).collect();
        if self.random.random_range(0..3) == 0 {
            return Work::Rows(readings);
        }
        let delete = |random: &mut ChaCha8Rng| random.random_range(0..8) == 0;
        Work::Commands(readings.into_iter().map(|(s, h, v)| (s, h, (!delete(&mut self.random)).then_some(v))).collect())
    }

    /// Hands in a submission. A refusal for want of room changes nothing, and is over when there is room.
    fn submit(&mut self, store: &Store) -> Result<(), Died> {
        let work = self.work();
        self.in_flight = Some(work.clone());
        let answer = match &work {
            Work::Commands(commands) => {
                let commands = commands.iter().map(command).collect();
                store.submit_and_wait(Submission { space: Space::City, commands }).map(|_| ())
            }
            Work::Rows(rows) => store.submit_rows_and_wait(iri("Station"), batch(rows)).map(|_| ()).map_err(|e| match e {
                SubmitRowsError::Submit(e) => e,
                other => panic!("seed {}: {other}", self.seed),
            }),
        };
        match answer {
            Ok(()) => {
                self.model.apply(&work);
                self.in_flight = None;
                Ok(())
            }
            Err(e) if e.is_disk_full() && !self.disk.has_crashed() => {
                self.in_flight = None;
                note("no room for a change");
                assert_eq!(self.found(store)?, self.model, "seed {}: a refused change is visible", self.seed);
                self.disk.set_capacity(ROOMY);
                Ok(())
            }
            Err(e) => Err(self.died("submitting", &e)),
        }
    }

    fn step(&mut self, store: &Store, history: &ColumnarHistory) -> Result<(), Died> {
        self.clock.advance(Duration::from_millis(self.random.random_range(1..5_000)));
        match self.random.random_range(0..12) {
            0 | 1 => match store.checkpoint() {
                Ok(()) => Ok(()),
                Err(e) if self.disk.has_crashed() => Err(self.died("a checkpoint", &e)),
                // A disk without room: everything stays as it was, and the next one brings it.
                Err(_) => {
                    note("no room for a checkpoint");
                    self.disk.set_capacity(ROOMY);
                    assert_eq!(self.found(store)?, self.model, "seed {}: after a checkpoint that failed", self.seed);
                    Ok(())
                }
            },
            2 => match history.compact() {
                Err(e) if self.disk.has_crashed() => Err(self.died("merging", &e)),
                _ => Ok(()),
            },
            3 => {
                // Little room: some of the next writes do not fit.
                let room = self.random.random_range(0..2_000);
                let used: u64 = ["/log", "/documents", "/history"]
                    .iter()
                    .flat_map(|dir| self.disk.list(Path::new(dir)).unwrap_or_default().into_iter().map(move |n| Path::new(dir).join(n)))
                    .filter_map(|path| self.disk.size(&path).ok())
                    .sum();
                self.disk.set_capacity(usize::try_from(used).unwrap() + room);
                Ok(())
            }
            _ => self.submit(store),
        }
    }

    /// One life of the machine.
    fn live(&mut self) -> Result<(), Died> {
        let (store, history) = self.open()?;
        self.check(&store)?;
        for _ in 0..self.random.random_range(1..25) {
            self.step(&store, &history)?;
        }
        Ok(())
    }

    /// The last start, on a disk that does not fail.
    fn end(&mut self) {
        let seed = self.seed;
        let (store, _) = self.open().ok().unwrap_or_else(|| panic!("seed {seed}: it does not open"));
        assert!(self.check(&store).is_ok());
        let report = store.verify(&|_| {}).unwrap();
        assert!(report.is_clean(), "seed {seed}: {report:?}");
        let (first, feed) = loop {
            let first = store.stats().first_position;
            match store.changes(first, 10_000) {
                Ok(feed) => break (first, feed),
                // The verification has made a checkpoint, and the log is trimmed behind it in its own time.
                Err(ChangesError::Gone { .. }) => {}
                Err(e) => panic!("seed {seed}: {e}"),
            }
        };
        let positions: Vec<u64> = feed.changes.iter().map(|c| c.position).collect();
        assert_eq!(positions, (first..feed.next).collect::<Vec<_>>(), "seed {seed}");
        assert!(feed.changes.is_sorted_by(|a, b| a.recorded_at < b.recorded_at), "seed {seed}");
        assert_eq!(self.found(&store).ok().unwrap(), self.model, "seed {seed}: after the checkpoint of the verification");
    }
}

fn hour_of(a: &Attribute) -> i64 {
    a.observed_at.unwrap().micros() / HOUR_US
}

fn value_of(a: &Attribute) -> f64 {
    match &a.value {
        AttributeValue::Property(v) => v.as_f64().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn run(seed: u64) {
    let disk = SimDisk::new(seed, ROOMY);
    let clock = Arc::new(ManualClock::at(1_700_000_000_000_000));
    let random = ChaCha8Rng::seed_from_u64(seed ^ 0x5eed);
    let mut world = World { seed, disk, clock, random, model: Model::default(), in_flight: None };
    for _ in 0..3 {
        let steps = 1 + world.random.random_range(0..120);
        world.disk.crash_after(steps);
        // It ends by a crash, or by ending without a last checkpoint, as a killed process does.
        let _ = world.live();
        world.disk.set_capacity(ROOMY);
        world.disk.restart();
    }
    world.end();
}

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}=`{text}` is no number")))
}

#[test]
fn after_every_crash_all_that_was_acknowledged_is_there_and_verifies() {
    let from = from_env("CONURB_SIM_FROM", 0);
    let n = from_env("CONURB_SIM_SEEDS", 2_000);
    std::thread::scope(|scope| {
        for part in 0..2 {
            scope.spawn(move || (from..from + n).filter(|seed| seed % 2 == part).for_each(run));
        }
    });
    if n >= 1_000 {
        let seen = SEEN.lock().unwrap();
        for what in ["opening the store", "submitting", "a checkpoint", "no room for a change", "no room for a checkpoint"] {
            assert!(seen.get(what).is_some_and(|n| *n >= 10), "hardly any death or refusal at {what}: {seen:?}");
        }
    }
}
