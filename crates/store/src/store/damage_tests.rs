//! What happens to a folder: flipped bytes, a full or read-only file system, the age of its format.

use std::fs;
use std::process::Command as Process;

use entity::{Attribute, AttributeValue, Command, Entity};
use host::ManualClock;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::history::HistoryScan;
use crate::verify;

fn iri(s: &str) -> Iri {
    Iri::known(&format!("https://example.org/{s}"))
}

fn id(station: u32) -> Iri {
    Iri::known(&format!("urn:ngsi-ld:Station:{station}"))
}

fn reading(station: u32, hour: i64, value: &str) -> Command {
    let attribute = Attribute::property(value).observed(Instant::from_secs(hour * 3_600));
    Command::Observe(Entity::new(id(station), iri("Station")).with(iri("v"), attribute))
}

fn try_open(dir: &Path) -> Result<Store, OpenError> {
    let options = Options {
        memory_bytes: MEMORY_BYTES_MIN,
        log_keep_bytes: 1 << 20,
        ..Options::new(dir, Arc::new(ManualClock::at(1_700_000_000_000_000)))
    };
    Store::open(options)
}

fn submit(store: &Store, commands: Vec<Command>) -> Result<(), SubmitError> {
    store.submit_and_wait(Submission { space: Space::City, commands }).map(|_| ())
}

/// A folder with something of everything: two files of the history, documents, and a log with changes after the last checkpoint.
fn fill(dir: &Path) {
    let store = try_open(dir).unwrap();
    for part in 0..2 {
        for hour in part * 10..part * 10 + 10 {
            submit(&store, (0..5).map(|station| reading(station, hour, &format!("value {station} {hour}"))).collect()).unwrap();
        }
        store.checkpoint().unwrap();
    }
    submit(&store, vec![reading(1, 90, "after the checkpoint"), Command::Delete(id(2))]).unwrap();
}

/// Everything that can be asked of a folder.
fn content(dir: &Path) -> Result<String, OpenError> {
    let store = try_open(dir)?;
    let mut found = format!("next {}\n", store.stats().next_position);
    for station in 0..6 {
        let Some(e) = store.table(Space::City).get(id(station).as_str()) else { continue };
        let v = e.attribute(iri("v").as_str()).unwrap();
        let AttributeValue::Property(value) = &v.value else { panic!("{v:?}") };
        let observed_at = v.observed_at.unwrap();
        found.push_str(&format!("{} {:?} {value} at {observed_at}, recorded {}\n", e.id, e.types, v.modified_at));
    }
    let attributes = vec![iri("v")];
    let scan = HistoryScan { entity_type: iri("Station"), attributes, entities: None, observed: None, as_of: None };
    match store.history().scan(&scan) {
        Ok(batches) => found.push_str(&arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string()),
        Err(e) => found.push_str(&host::chain(&e)),
    }
    Ok(found)
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    if dir.is_file() {
        return found.push(dir.to_owned());
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    entries.iter().for_each(|e| files_below(e, found));
}

/// The files of a folder, with what is in them up to the last byte that is used: some are made long before they are filled.
struct Image(Vec<(PathBuf, Vec<u8>, u64)>);

impl Image {
    fn of(dir: &Path) -> Self {
        let mut files = Vec::new();
        files_below(dir, &mut files);
        let read = |file: PathBuf| {
            let mut bytes = fs::read(&file).unwrap();
            let len = bytes.len() as u64;
            let waits_to_be_filled = bytes.len() > 1 << 20;
            while waits_to_be_filled && bytes.ends_with(&[0; 4_096]) {
                bytes.truncate(bytes.len() - 4_096);
            }
            (file.strip_prefix(dir).unwrap().to_owned(), bytes, len)
        };
        Self(files.into_iter().map(read).collect())
    }

    fn write(&self, dir: &Path) {
        for (name, bytes, len) in &self.0 {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            fs::File::options().write(true).open(&path).unwrap().set_len(*len).unwrap();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    Image::of(from).write(to);
}

/// In every kind of file: what is flipped is found, or was of no use.
#[test]
fn a_flipped_bit_is_found_or_changes_nothing() {
    let origin = tempfile::tempdir().unwrap();
    fill(origin.path());
    let mut image = Image::of(origin.path());
    let want = {
        let dir = tempfile::tempdir().unwrap();
        image.write(dir.path());
        content(dir.path()).unwrap()
    };
    let mut random = ChaCha8Rng::seed_from_u64(7);
    for (kind, n_flips) in [("log", 30), ("history", 20), ("documents", 50), ("format.json", 10)] {
        // Where there is something: the rest of a file that waits to be filled is long and empty.
        let used = |(i, (name, bytes, _)): (usize, &(PathBuf, Vec<u8>, u64))| {
            let is_wanted = name.starts_with(kind);
            let used = bytes.iter().enumerate().filter(|(_, b)| is_wanted && **b != 0).map(|(at, _)| (i, at));
            used.collect::<Vec<_>>()
        };
        let places: Vec<(usize, usize)> = image.0.iter().enumerate().flat_map(used).collect();
        let mut n_found = 0;
        for _ in 0..n_flips {
            let (file, at) = places[random.random_range(0..places.len())];
            let bit = 1 << random.random_range(0..8);
            let dir = tempfile::tempdir().unwrap();
            image.0[file].1[at] ^= bit;
            image.write(dir.path());
            image.0[file].1[at] ^= bit;
            let place = format!("{} byte {at} bit {bit}", image.0[file].0.display());
            let report = verify::dir(dir.path(), &|_| {}).unwrap_or_else(|e| panic!("{place}: {e}"));
            if report.is_clean() {
                let found = content(dir.path()).unwrap_or_else(|e| panic!("{place}: not found, and it does not open: {}", host::chain(&e)));
                assert_eq!(found, want, "{place}: not found, and something is different: {report:?}");
            } else {
                n_found += 1;
            }
        }
        assert!(n_found * 3 > n_flips || kind == "format.json", "{kind}: only {n_found} of {n_flips} were found");
    }
}

/// All kinds of damage at once: each is told, and the rest is verified.
#[test]
fn the_verification_goes_on_after_each_damage() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let clean = verify::dir(dir.path(), &|_| {}).unwrap();
    assert!(clean.is_clean() && (clean.n_segments, clean.n_records) == (2, 21), "{clean:?}");
    let flip = |path: &Path, at: usize| {
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 4;
        fs::write(path, bytes).unwrap();
    };
    let files = |kind: &str| {
        let mut files = Vec::new();
        files_below(&dir.path().join(kind), &mut files);
        files
    };
    for file in files("history") {
        flip(&file, 50);
    }
    let log = files("log").remove(0);
    let n = fs::metadata(&log).unwrap().len() as usize;
    for at in [n / 4, n / 2, n * 3 / 4] {
        flip(&log, at);
    }
    fs::write(dir.path().join("format.json"), "{").unwrap();
    // A document that is whole for its engine and none for us.
    {
        let documents = FjallDocuments::open(&dir.path().join("documents")).unwrap();
        let broken = crate::state::Document::Packed(vec![0xff, 1, 2].into());
        let manifest = documents.manifest().unwrap();
        documents.checkpoint(&mut [(Space::City, id(3), Some(broken))].into_iter(), &manifest).unwrap();
    }
    let report = verify::dir(dir.path(), &|_| {}).unwrap();
    let count = |kind| report.findings.iter().filter(|f| f.kind == kind).count();
    assert_eq!((count(verify::Kind::Format), count(verify::Kind::Documents), count(verify::Kind::History)), (1, 1, 2), "{report:?}");
    assert_eq!(count(verify::Kind::Log), 3, "{report:?}");
    assert!(report.findings.iter().any(|f| f.what.contains("Station:3")), "{report:?}");
    assert_eq!((report.n_documents, report.n_segments), (4, 2), "{report:?}");
    assert!((16..=18).contains(&report.n_records), "a batch is lost at each damage, or some: {report:?}");
}

#[test]
fn the_verification_of_a_running_store_goes_on_behind_damage_in_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let store = try_open(dir.path()).unwrap();
    for hour in 0..600 {
        submit(&store, vec![reading(1, hour, &"x".repeat(1_000))]).unwrap();
    }
    let clean = store.verify(&|_| {}).unwrap();
    assert!(clean.is_clean() && clean.n_records == 600, "{clean:?}");
    let mut files = Vec::new();
    files_below(&dir.path().join("log"), &mut files);
    let mut bytes = fs::read(&files[0]).unwrap();
    for part in [1, 2] {
        let at = bytes.len() * part / 3;
        bytes[at] ^= 1;
    }
    fs::write(&files[0], bytes).unwrap();
    let report = store.verify(&|_| {}).unwrap();
    assert_eq!((report.findings.len(), report.findings[0].kind), (2, verify::Kind::Log), "{report:?}");
    // It goes on with the next record that it knows the place of: they are 64 KiB apart.
    assert!((450..600).contains(&report.n_records), "{report:?}");
}

/// A small file system of its own; only root can make one.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Process::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(dir.path()).status();
        if mounted.is_ok_and(|s| s.success()) {
            return Some(Self(dir));
        }
        eprintln!("SKIPPED: a small file system cannot be mounted here");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, option: &str) {
        // A store that is gone may have a thread that has not ended yet, with files open.
        for _ in 0..200 {
            let done = Process::new("mount").args(["-o", &format!("remount,{option}")]).arg(self.path()).output().unwrap();
            if done.status.success() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{} stays busy", self.path().display());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Process::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Everything but the last `left` bytes is taken.
fn take_room(dir: &Path, left: u64) -> PathBuf {
    use std::io::Write;
    let filler = dir.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[1; 4_096]).is_ok() {}
    let taken = file.metadata().unwrap().len();
    file.set_len(taken.saturating_sub(left)).unwrap();
    filler
}

/// With the real engines: the disk fills during a change, a seal or the writing of documents, at whichever byte.
#[test]
fn a_disk_that_fills_anywhere_refuses_writes_and_goes_on_by_itself_once_there_is_room() {
    let mut failed: Vec<String> = Vec::new();
    for left_kib in [0, 4, 12, 40, 100, 250, 600] {
        let Some(disk) = Small::mount("48m") else { return };
        let dir = disk.path().join("node");
        let store = try_open(&dir).unwrap();
        let mut hour = 0;
        let mut write = |n: i64| -> Result<(), SubmitError> {
            for _ in 0..n {
                submit(&store, (0..20).map(|station| reading(station, hour, &format!("{hour} {}", "x".repeat(300)))).collect())?;
                hour += 1;
            }
            Ok(())
        };
        write(30).unwrap();
        store.checkpoint().unwrap();
        write(30).unwrap();
        let filler = take_room(disk.path(), left_kib << 10);
        // The checkpoint finds no room for the history's files or for the documents, or just enough.
        failed.extend(store.checkpoint().err().map(|e| host::chain(&e)));
        let refused = write(5_000).unwrap_err();
        assert!(refused.is_disk_full(), "{left_kib} KiB: {refused}");
        assert!(store.stats().write_error.is_some());
        failed.extend(store.checkpoint().err().map(|e| host::chain(&e)));
        let n_known = |store: &Store| {
            let past = store.history().evolution(&crate::history::TemporalQuery::of(id(3))).unwrap();
            past.map_or(0, |p| p.attributes[0].len())
        };
        let n_before = n_known(&store);
        assert!(n_before >= 60 && store.table(Space::City).get(id(3).as_str()).is_some(), "reads go on");

        fs::remove_file(filler).unwrap();
        write(1).unwrap();
        assert_eq!(n_known(&store), n_before + 1);
        // An engine that gave up is opened again.
        store.checkpoint().unwrap_or_else(|e| panic!("{left_kib} KiB: {}", host::chain(&e)));
        write(3).unwrap();
        store.checkpoint().unwrap();
        assert_eq!(store.stats().write_error, None);
        let report = store.verify(&|_| {}).unwrap();
        assert!(report.is_clean(), "{left_kib} KiB: {report:?}");
        drop(store);
        assert_eq!(n_known(&try_open(&dir).unwrap()), n_before + 4, "{left_kib} KiB");
    }
    for part in ["history", "documents"] {
        assert!(failed.iter().any(|e| e.contains(part)), "no checkpoint failed at the {part}: {failed:#?}");
    }
}

#[test]
fn a_folder_on_a_read_only_file_system_says_so() {
    let Some(disk) = Small::mount("48m") else { return };
    let dir = disk.path().join("node");
    fill(&dir);
    disk.remount("ro");
    let refused = try_open(&dir).map(|_| ()).unwrap_err();
    assert!(matches!(refused, OpenError::ReadOnly { .. }), "{refused}");
    assert!(host::chain(&refused).contains("is read-only: the node needs to write in it"), "{refused}");
    disk.remount("rw");
    content(&dir).unwrap();
}

/// The folder that a program of format 2 wrote, checked in: later formats must open it.
const FORMAT_2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/folder-of-format-2");

#[test]
fn a_folder_of_format_2_opens_and_one_of_a_newer_format_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    copy(Path::new(FORMAT_2), dir.path());
    let found = content(dir.path()).unwrap();
    let want = fs::read_to_string(format!("{FORMAT_2}.txt")).unwrap();
    assert_eq!(found, want);
    let store = try_open(dir.path()).unwrap();
    submit(&store, vec![reading(5, 95, "new")]).unwrap();
    store.close().unwrap();
    drop(store);
    let report = verify::dir(dir.path(), &|_| {}).unwrap();
    assert!(report.is_clean() && report.n_records == 22, "{report:?}");

    let path = dir.path().join(format::FORMAT_FILE);
    let newer =
        fs::read_to_string(&path).unwrap().replace("\"format\":2", "\"format\":3").replace("\"writtenBy\":\"", "\"writtenBy\":\"9.");
    fs::write(&path, newer).unwrap();
    let refused = host::chain(&try_open(dir.path()).map(|_| ()).unwrap_err());
    assert!(refused.contains("says format 3, written by version 9.") && refused.contains("use a newer program"), "{refused}");
}

/// The checked-in folder is what the present program makes of the same changes. Where it is not, and the format has not been released yet,
/// `CONURB_WRITE_FIXTURES=1 cargo test -p store the_checked_in_folder` writes it anew.
#[test]
fn the_checked_in_folder_holds_what_the_present_program_writes() {
    assert_eq!(format::FORMAT, 2, "name the folder after the format");
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    if std::env::var_os("CONURB_WRITE_FIXTURES").is_some() {
        // There is none yet for a new format.
        let _ = fs::remove_dir_all(FORMAT_2);
        for (name, bytes, _) in Image::of(dir.path()).0 {
            // What waits to be filled is not checked in.
            let path = Path::new(FORMAT_2).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        fs::write(format!("{FORMAT_2}.txt"), content(dir.path()).unwrap()).unwrap();
    }
    assert_eq!(content(dir.path()).unwrap(), fs::read_to_string(format!("{FORMAT_2}.txt")).unwrap());
}
