//! Verification: reads everything that is on disk and compares every checksum and every rule that ties the parts together.
//! What does not check is told, and the rest is verified all the same.
//!
//! * log: each frame's checksum, positions without a gap, each record decodes, recorded times rise;
//! * documents: each decodes and has an id and a type, each id once; what the last checkpoint covers fits the log;
//! * history: each listed file is there, with the size and checksum that the manifest says, its rows are in order and within the listed times;
//! * on a running node besides: the present state is what the documents and the log after them say.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::Path;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use entity::{Entity, Instant, Iri};
use host::RealDisk;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Serialize;

use crate::blobs;
use crate::format;
use crate::history::Segment;
use crate::log::{LogDamage, LogReader, Read, survey};
use crate::record::{self, RecordError};
use crate::state::{Documents, FjallDocuments, Space};
use crate::store::{CheckpointError, OpenError, Store, lock_dir};
use host::chain;

/// Findings that are kept; more are counted.
pub const FINDINGS_MAX: usize = 1_000;
/// Read of the log at once.
const LOG_READ: Read = Read { records: 4_096, bytes: 16 << 20 };

/// Notes that are kept; more are counted.
pub const NOTES_MAX: usize = 1_000;

/// In what something is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// The file that says the format.
    Format,
    /// The log.
    Log,
    /// The documents.
    Documents,
    /// The history's files.
    History,
    /// The present state of a running node.
    State,
}

/// Something that is not as it must be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// In what.
    pub kind: Kind,
    /// Where: a file, a document, a position.
    pub place: String,
    /// What is wrong.
    pub what: String,
}

/// What was verified, and what was found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Records of the log.
    pub n_records: u64,
    /// Documents.
    pub n_documents: u64,
    /// Files of the history.
    pub n_segments: u64,
    /// Rows in them.
    pub n_rows: u64,
    /// What is wrong; at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// How many findings there are in all.
    pub n_findings: usize,
    /// What is no fault but worth knowing; at most [`NOTES_MAX`].
    pub notes: Vec<String>,
    /// How many notes there are in all.
    pub n_notes: usize,
}

impl Report {
    /// Is all well?
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.n_findings == 0
    }

    fn find(&mut self, kind: Kind, place: impl Into<String>, what: impl Into<String>) {
        self.n_findings += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { kind, place: place.into(), what: what.into() });
        }
    }

    fn note(&mut self, what: String) {
        self.n_notes += 1;
        if self.notes.len() < NOTES_MAX {
            self.notes.push(what);
        }
    }
}

/// Why nothing could be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is no store there.
    #[error("there is no store in `{dir}`")]
    NoStore {
        /// The folder.
        dir: String,
    },
    /// The folder cannot be taken.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store makes no checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// What is being verified: for people who wait.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// Verifies a folder that no node has open. Repairs nothing. The history's files are where `format.json` says.
pub fn dir(dir: &Path, progress: Progress<'_>) -> Result<Report, VerifyError> {
    // What is wrong with the file is a finding.
    let place = format::read(dir).ok().flatten().and_then(|f| f.history).unwrap_or_default();
    dir_with(dir, &place, progress)
}

/// The same with the history's files at `place`, see [`crate::Options::history_place`].
pub fn dir_with(dir: &Path, place: &str, progress: Progress<'_>) -> Result<Report, VerifyError> {
    if !dir.join("log").is_dir() && !dir.join("documents").is_dir() {
        return Err(VerifyError::NoStore { dir: dir.display().to_string() });
    }
    let _lock = lock_dir(dir)?;
    let mut report = Report::default();
    if let Err(e) = format::read(dir) {
        report.find(Kind::Format, format::FORMAT_FILE, chain(&e));
    }
    progress("log");
    let log = check_log_files(dir, &mut report);
    progress("documents");
    let opened = FjallDocuments::open(&dir.join("documents"));
    let manifest = opened.and_then(|documents| {
        check_documents(&documents, &mut report, &mut |_, _, _| {});
        documents.manifest()
    });
    match manifest {
        Err(e) => {
            report.find(Kind::Documents, "documents", chain(&e));
            report.note("which files the history has is written in the documents: it was not verified".to_owned());
        }
        Ok(manifest) => {
            if let Some((first, next)) = log
                && !(first..=next).contains(&manifest.next_position)
            {
                let what = format!("the documents end before position {}, the log has positions {first} to {next}", manifest.next_position);
                report.find(Kind::Log, "log", what);
            }
            check_history_files(dir, place, &manifest.segments, &mut report, progress);
        }
    }
    Ok(report)
}

/// The positions from and before which the log has records; none if it cannot be read at all.
fn check_log_files(dir: &Path, report: &mut Report) -> Option<(u64, u64)> {
    let mut records = Records::default();
    let mut damages = Vec::new();
    let mut n_damages = 0;
    let found = survey(&RealDisk, &dir.join("log"), &mut |position, bytes| records.check(position, bytes, report), &mut |damage| {
        n_damages += 1;
        if damages.len() < FINDINGS_MAX {
            damages.push(damage);
        }
    });
    for LogDamage { file, at_byte, reason } in damages {
        n_damages -= 1;
        report.find(Kind::Log, format!("log/{file}"), format!("at byte {at_byte}: {reason}"));
    }
    report.n_findings += n_damages;
    match found {
        Ok(found) => {
            if found.torn_bytes > 0 {
                report.note(format!(
                    "the log ends with {} bytes of a batch that was never acknowledged; the next start removes them",
                    found.torn_bytes
                ));
            }
            Some((found.first_position, found.next_position))
        }
        Err(e) => {
            report.find(Kind::Log, "log", chain(&e));
            None
        }
    }
}

fn check_history_files(dir: &Path, place: &str, segments: &[Segment], report: &mut Report, progress: Progress<'_>) {
    let opened = blobs::look_at_history(dir, place).and_then(|blobs| Ok((blobs.list_sizes()?, blobs)));
    let (sizes, blobs) = match opened {
        Ok((sizes, blobs)) => (sizes.into_iter().collect::<BTreeMap<String, u64>>(), blobs),
        Err(e) => {
            let place = if place.is_empty() { "history" } else { place };
            return report.find(Kind::History, place, format!("its files cannot be listed: {}", chain(&e)));
        }
    };
    let read = |s: &Segment| match sizes.get(&s.file) {
        None => Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no such file in {}", blobs.place()))),
        Some(bytes) if *bytes != s.bytes => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has {bytes} bytes, the manifest says {}", s.bytes)))
        }
        Some(_) => blobs.get(&s.file, 0..s.bytes).map(|b| b.to_vec()),
    };
    check_segments(segments, &read, report, progress);
    let listed: BTreeSet<&str> = segments.iter().map(|s| s.file.as_str()).collect();
    for name in sizes.keys().filter(|name| !listed.contains(name.as_str())) {
        report.note(format!("history file `{name}` is not listed: left by an interrupted write, or a stranger"));
    }
}

impl Store {
    /// Verifies the store while it is in use; makes a checkpoint first.
    pub fn verify(&self, progress: Progress<'_>) -> Result<Report, VerifyError> {
        let _pin = self.pin();
        progress("log");
        let mut report = Report::default();
        check_log(self.log_reader(), &mut report);
        progress("documents and present state");
        let shared = self.shared();
        let log = self.log_reader_owned();
        let (manifest, documents) = self.hold(move |held| {
            let mut report = Report::default();
            let mut differ: Vec<(Space, Iri)> = Vec::new();
            let mut n_by_space = [0_usize; 2];
            let is_complete = check_documents(held.documents, &mut report, &mut |space, e, _| {
                n_by_space[usize::from(space == Space::Node)] += 1;
                if shared.table(space).get(e.id.as_str()).is_none_or(|live| *live != *e) {
                    differ.push((space, e.id.clone()));
                }
            });
            let n_live = [shared.table(Space::City).len(), shared.table(Space::Node).len()];
            // What was written since the checkpoint may differ.
            let touched = touched_since(log.as_ref(), held.manifest.next_position);
            for (space, id) in differ.into_iter().filter(|k| !touched.contains(k)) {
                report.find(
                    Kind::State,
                    format!("entity `{id}`"),
                    format!("the present state is not what its document in space {space:?} says"),
                );
            }
            if touched.is_empty() && is_complete && n_live != n_by_space {
                report.find(
                    Kind::State,
                    "present state",
                    format!("{n_live:?} entities are present in the city's and the node's space, {n_by_space:?} documents are there"),
                );
            }
            (held.manifest.clone(), report)
        })?;
        report.n_documents = documents.n_documents;
        report.n_findings += documents.n_findings - documents.findings.len();
        for f in documents.findings {
            report.find(f.kind, f.place, f.what);
        }
        let read = self.segment_reader();
        check_segments(&manifest.segments, &|s| read(s), &mut report, progress);
        Ok(report)
    }
}

/// Entities that records from this position on touch.
fn touched_since(log: &dyn LogReader, from: u64) -> HashSet<(Space, Iri)> {
    let mut touched = HashSet::new();
    let mut next = from;
    while let Ok(records) = log.read(next, LOG_READ) {
        let Some((last, _)) = records.last() else { break };
        next = last + 1;
        for record in records.iter().filter_map(|(_, bytes)| record::decode(bytes).ok()) {
            touched.extend(record.deltas.into_iter().map(|d| (record.space, d.id)));
        }
    }
    touched
}

#[derive(Default)]
struct Records {
    last: Option<Instant>,
}

impl Records {
    fn check(&mut self, position: u64, bytes: &[u8], report: &mut Report) {
        report.n_records += 1;
        match record::decode(bytes) {
            Ok(record) => {
                if let Some(last) = self.last.filter(|l| *l >= record.recorded_at) {
                    report.find(
                        Kind::Log,
                        format!("log position {position}"),
                        format!("recorded at {}, the record before it at {last}", record.recorded_at),
                    );
                }
                self.last = Some(record.recorded_at);
            }
            Err(e) => report.find(Kind::Log, format!("log position {position}"), chain(&e as &RecordError)),
        }
    }
}

fn check_log(log: &dyn LogReader, report: &mut Report) {
    let mut records = Records::default();
    let mut next = log.first_position();
    let mut limit = LOG_READ;
    loop {
        match log.read(next, limit) {
            Ok(found) => {
                let Some((last, _)) = found.last() else { return };
                next = last + 1;
                limit.records = (limit.records * 2).min(LOG_READ.records);
                for (position, bytes) in &found {
                    records.check(*position, bytes, report);
                }
            }
            // Trimmed meanwhile.
            Err(crate::log::LogError::Gone { first, .. }) => next = first,
            // What cannot be read is one of many: those before it can.
            Err(_) if limit.records > 1 => limit.records /= 2,
            Err(e) => {
                report.find(Kind::Log, format!("log from position {next} on"), chain(&e));
                match log.resume_after(next) {
                    Some(later) => next = later,
                    None => return,
                }
            }
        }
    }
}

/// What is called with each document.
type Look<'a> = &'a mut dyn FnMut(Space, &Entity, &mut Report);

/// False if some of them cannot be read.
fn check_documents(documents: &dyn Documents, report: &mut Report, look: Look<'_>) -> bool {
    let mut is_complete = true;
    for space in Space::ALL {
        documents.survey(space, &mut |found| {
            let entity = match found {
                Ok(entity) => entity,
                Err(e) => {
                    is_complete = false;
                    return report.find(Kind::Documents, "documents", chain(&e));
                }
            };
            report.n_documents += 1;
            let place = || format!("document `{}`", entity.id);
            if entity.types.is_empty() {
                report.find(Kind::Documents, place(), "it has no type");
            }
            // The keys are the ids, so a document under another id's key is not found again.
            if documents.get(space, entity.id.as_str()).is_ok_and(|found| found.as_ref() != Some(&entity)) {
                report.find(Kind::Documents, place(), "it is not under the key of its id");
            }
            look(space, &entity, report);
        });
    }
    is_complete
}

fn check_segments(segments: &[Segment], read: &dyn Fn(&Segment) -> io::Result<Vec<u8>>, report: &mut Report, progress: Progress<'_>) {
    for (i, segment) in segments.iter().enumerate() {
        progress(&format!("history file {} of {}: {}", i + 1, segments.len(), segment.file));
        report.n_segments += 1;
        report.n_rows += segment.n_rows;
        let place = format!("history file `{}`", segment.file);
        match read(segment) {
            Err(e) => report.find(Kind::History, place, format!("cannot be read: {}", chain(&e))),
            Ok(bytes) => {
                if let Err(what) = check_segment(segment, bytes) {
                    report.find(Kind::History, place, what);
                }
            }
        }
    }
}

fn check_segment(segment: &Segment, bytes: Vec<u8>) -> Result<(), String> {
    if bytes.len() as u64 != segment.bytes {
        return Err(format!("it has {} bytes, the manifest says {}", bytes.len(), segment.bytes));
    }
    let crc = crc32c::crc32c(&bytes);
    if crc != segment.crc32c {
        return Err(format!("its CRC-32C is {crc:08x}, the manifest says {:08x}", segment.crc32c));
    }
    // The object store's payload is the one way to the bytes type that the reader of Parquet takes.
    let payload = object_store::PutPayload::from(bytes);
    let bytes = payload.as_ref().first().cloned().unwrap_or_default();
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| e.to_string())?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["entity_id", "observed_at", "recorded_at"]);
    let mut n_rows = 0;
    let mut last: Option<(String, Option<i64>, i64)> = None;
    for batch in builder.with_projection(mask).build().map_err(|e| e.to_string())? {
        let batch = batch.map_err(|e| e.to_string())?;
        check_order(segment, &batch, n_rows, &mut last)?;
        n_rows += batch.num_rows() as u64;
    }
    if n_rows == segment.n_rows { Ok(()) } else { Err(format!("it has {n_rows} rows, the manifest says {}", segment.n_rows)) }
}

/// Rows are in the order of entity, observed time (none first) and recorded time, which is within what the manifest says.
fn check_order(segment: &Segment, batch: &RecordBatch, n_before: u64, last: &mut Option<(String, Option<i64>, i64)>) -> Result<(), String> {
    let column = |name: &str, data_type: &DataType| {
        let found = batch.column_by_name(name).ok_or_else(|| format!("it has no column `{name}`"))?;
        cast(found, data_type).map_err(|e| e.to_string())
    };
    let (ids, observed, recorded) =
        (column("entity_id", &DataType::Utf8)?, column("observed_at", &DataType::Int64)?, column("recorded_at", &DataType::Int64)?);
    let (ids, observed, recorded) = (ids.as_string::<i32>(), observed.as_primitive::<Int64Type>(), recorded.as_primitive::<Int64Type>());
    let (from, until) = (segment.recorded.0.micros(), segment.recorded.1.micros());
    for row in 0..batch.num_rows() {
        let key = (ids.value(row), observed.is_valid(row).then(|| observed.value(row)), recorded.value(row));
        if last.as_ref().is_some_and(|l| (l.0.as_str(), l.1, l.2) > key) {
            return Err(format!("row {} is not in the order of entity, observed and recorded time", n_before + row as u64));
        }
        if !(from..=until).contains(&key.2) {
            return Err(format!("row {} was recorded outside of the times that the manifest says", n_before + row as u64));
        }
        match last {
            Some(l) if l.0 == key.0 => (l.1, l.2) = (key.1, key.2),
            _ => *last = Some((key.0.to_owned(), key.1, key.2)),
        }
    }
    Ok(())
}
