//! Recorded air-quality archives as messages, in the order of time.
//!
//! Two open data sets are understood, in a folder that has one subfolder for each:
//!
//! | subfolder | data set | yields |
//! | --- | --- | --- |
//! | `beijing12` | Beijing Multi-Site Air-Quality Data (UCI 501), hourly | per station and hour one air and one weather message |
//! | `five_cities` | PM2.5 Data of Five Chinese Cities (UCI 394), hourly | per post and hour one air message (PM2.5), per city and hour one weather message |
//!
//! What the source does to the data, and what not:
//!
//! * Local times (UTC+8) become UTC instants.
//! * A number is passed on with exactly the digits of the file; the relative humidity is the one exception: per cent
//!   become a fraction by moving the decimal point.
//! * `NA`, an empty cell and the archive's `-9999` are missing: the member is absent.
//!   A station that measured nothing in an hour sends nothing for it.
//! * Concentrations are in µg/m³, carbon monoxide included.
//! * Wind directions named by compass points become degrees; calm or variable wind (`cv`) has no direction.
//!   `Iws` of the five cities is a wind speed summed over hours, so it is not passed on as a wind speed; neither are the
//!   summed precipitation (`Iprec`) and the season.
//! * Both data sets have the posts Dongsi and Nongzhanguan in Beijing, with values that differ in most hours.
//!   So they are different stations here: those of the five cities end in `-FC`.
//! * The columns of Guangzhou's City Station and US Post are identical in the archive; both are passed on as they are.
//!
//! The files are read side by side, a row of each at a time.

mod beijing12;
mod cells;
mod error;
mod five_cities;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

pub use error::{RecordedError, RowError};

use crate::Message;
use crate::message::Identity;
use cells::Table;

/// Skipped rows that are kept for the report; further ones are only counted.
pub const SKIPPED_ROWS_KEPT_MAX: usize = 1_000;

/// Cities the archives know, by key.
pub const CITIES: [&str; 4] = ["beijing", "shanghai", "guangzhou", "chengdu"];

/// One of the archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataSet {
    /// Folder `beijing12`.
    Beijing12,
    /// Folder `five_cities`.
    FiveCities,
}

impl DataSet {
    /// Both archives.
    pub const ALL: [Self; 2] = [Self::Beijing12, Self::FiveCities];

    /// Name of the subfolder.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Beijing12 => "beijing12",
            Self::FiveCities => "five_cities",
        }
    }

    /// The source text that the licence (CC BY 4.0) asks for: title and authors.
    pub fn attribution(self) -> &'static str {
        match self {
            Self::Beijing12 => beijing12::ATTRIBUTION,
            Self::FiveCities => five_cities::ATTRIBUTION,
        }
    }
}

/// What to do with a row that cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BadRows {
    /// Yield the error and end there.
    #[default]
    Stop,
    /// Leave the row out, log it and list it in [`Recorded::skipped`].
    Skip,
}

/// Which part of the archives to read. The default is all of it.
#[derive(Debug, Clone, Default)]
pub struct RecordedOptions {
    /// Keys of [`CITIES`]; empty means all.
    pub cities: Vec<String>,
    /// Stations by their key (`Gucheng`, `US-Post`, `Weather`), upper or lower case; empty means all.
    pub stations: Vec<String>,
    /// Data sets; empty means those that are present.
    pub data_sets: Vec<DataSet>,
    /// First instant.
    pub from: Option<Timestamp>,
    /// First instant that is no longer read.
    pub to: Option<Timestamp>,
    /// What to do with a row that cannot be understood.
    pub bad_rows: BadRows,
}

/// A station of the archives that the options select.
#[derive(Debug, Clone, PartialEq)]
pub struct StationInfo {
    /// Data set.
    pub data_set: DataSet,
    /// City key.
    pub city: String,
    /// Station key.
    pub station: String,
    /// English name.
    pub name_en: String,
    /// Chinese name.
    pub name_zh: String,
    /// Longitude, degrees.
    pub lon: f64,
    /// Latitude, degrees.
    pub lat: f64,
    /// Device profiles of its messages.
    pub profiles: Vec<&'static str>,
}

/// Messages of the archives in the order of time; at the same time in the order of the files' names.
///
/// Ends after the first error.
#[derive(Debug)]
pub struct Recorded {
    files: Vec<ArchiveFile>,
    /// The file whose front row comes next: (time, index of the file).
    next: BinaryHeap<Reverse<(i64, usize)>>,
    ready: VecDeque<Message>,
    skipped: Vec<RowError>,
    n_skipped: u64,
    bad_rows: BadRows,
    /// Files whose front row is still unread.
    unread: Vec<usize>,
    failed: bool,
}

/// One device of one file, and how many messages it has sent.
#[derive(Debug)]
struct Device {
    identity: Identity,
    n_sent: u64,
}

impl Device {
    fn new(identity: Identity) -> Self {
        Self { identity, n_sent: 0 }
    }

    /// The message of this device, if it measured anything.
    fn message(&mut self, payload: crate::message::Payload, at: i64) -> Option<Message> {
        if payload.n_values() == 0 {
            return None;
        }
        let key = self.n_sent;
        self.n_sent += 1;
        Some(Message { topic: self.identity.topic.clone(), payload: payload.finish(&self.identity), at, key })
    }
}

/// Turns the rows of one file into messages.
trait RowReader: std::fmt::Debug + Send {
    /// Messages of the table's present row. Counts nothing if it fails.
    fn messages(&mut self, table: &Table, at: Timestamp, out: &mut VecDeque<Message>) -> Result<(), RowError>;
}

#[derive(Debug)]
struct ArchiveFile {
    table: Table,
    reader: Box<dyn RowReader>,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    front: VecDeque<Message>,
    last_at: Option<Timestamp>,
}

/// Which stations are wanted, and which were there to choose from.
#[derive(Debug)]
struct Selection {
    wanted: BTreeSet<String>,
    seen: BTreeSet<String>,
}

impl Selection {
    /// Whether this station is wanted.
    fn takes(&mut self, station: &str) -> bool {
        self.seen.insert(station.to_owned());
        self.wanted.is_empty() || self.wanted.contains(&station.to_lowercase())
    }
}

/// A file that a data set's module has opened.
struct Opened {
    table: Table,
    reader: Box<dyn RowReader>,
}

impl Recorded {
    /// Opens the archives in `folder` and checks their headers.
    ///
    /// Errors: no data set in the folder, a file that cannot be opened, an unexpected header, a city or station that is not there.
    pub fn open(folder: impl AsRef<Path>, options: &RecordedOptions) -> Result<Self, RecordedError> {
        let (mut opened, _) = open_selected(folder.as_ref(), options)?;
        opened.sort_by(|a, b| a.table.path().cmp(b.table.path()));
        let files: Vec<_> = opened
            .into_iter()
            .map(|Opened { table, reader }| ArchiveFile {
                table,
                reader,
                from: options.from,
                to: options.to,
                front: VecDeque::new(),
                last_at: None,
            })
            .collect();
        Ok(Self {
            unread: (0..files.len()).rev().collect(),
            files,
            next: BinaryHeap::new(),
            ready: VecDeque::new(),
            skipped: Vec::new(),
            n_skipped: 0,
            bad_rows: options.bad_rows,
            failed: false,
        })
    }

    /// The stations that the options select, without reading their rows.
    ///
    /// Errors: as [`Recorded::open`].
    pub fn stations(folder: impl AsRef<Path>, options: &RecordedOptions) -> Result<Vec<StationInfo>, RecordedError> {
        open_selected(folder.as_ref(), options).map(|(_, stations)| stations)
    }

    /// Rows left out so far, the first [`SKIPPED_ROWS_KEPT_MAX`] of them.
    pub fn skipped(&self) -> &[RowError] {
        &self.skipped
    }

    /// How many rows were left out so far.
    pub fn n_skipped(&self) -> u64 {
        self.n_skipped
    }

    /// Reads the front row of one file and puts the file in line.
    fn refill(&mut self, file_idx: usize) -> Result<(), RecordedError> {
        loop {
            match self.files[file_idx].read_front() {
                Ok(Some(at)) => {
                    self.next.push(Reverse((at, file_idx)));
                    return Ok(());
                }
                Ok(None) => return Ok(()),
                Err(RecordedError::Row(error)) if self.bad_rows == BadRows::Skip => self.note_skipped(error),
                Err(error) => return Err(error),
            }
        }
    }

    fn note_skipped(&mut self, error: RowError) {
        tracing::warn!(%error, "left a row out");
        self.n_skipped += 1;
        if self.skipped.len() < SKIPPED_ROWS_KEPT_MAX {
            self.skipped.push(error);
        }
    }

    fn advance(&mut self) -> Result<Option<Message>, RecordedError> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Ok(Some(message));
            }
            while let Some(file_idx) = self.unread.last().copied() {
                self.refill(file_idx)?;
                self.unread.pop();
            }
            let Some(Reverse((_, file_idx))) = self.next.pop() else { return Ok(None) };
            std::mem::swap(&mut self.ready, &mut self.files[file_idx].front);
            self.unread.push(file_idx);
        }
    }
}

impl Iterator for Recorded {
    type Item = Result<Message, RecordedError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = self.advance().transpose();
        self.failed = matches!(item, Some(Err(_)));
        item
    }
}

impl ArchiveFile {
    /// Reads on to the next row with messages in `[from, to)`, and returns its time.
    fn read_front(&mut self) -> Result<Option<i64>, RecordedError> {
        assert!(self.front.is_empty(), "the front row is taken before the next is read");
        while self.table.read_row()? {
            let at = self.table.instant()?;
            if let Some(last_at) = self.last_at.filter(|last_at| at <= *last_at) {
                let error = self.table.row_error("hour", format!("a time after {last_at}"), at.to_string());
                return Err(error.into());
            }
            self.last_at = Some(at);
            if self.to.is_some_and(|to| at >= to) {
                return Ok(None);
            }
            if self.from.is_some_and(|from| at < from) {
                continue;
            }
            self.reader.messages(&self.table, at, &mut self.front)?;
            if !self.front.is_empty() {
                return Ok(Some(at.as_microsecond()));
            }
        }
        Ok(None)
    }
}

fn open_selected(folder: &Path, options: &RecordedOptions) -> Result<(Vec<Opened>, Vec<StationInfo>), RecordedError> {
    let cities = selected_cities(&options.cities)?;
    let wanted = if options.data_sets.is_empty() { &DataSet::ALL[..] } else { &options.data_sets };
    let present: Vec<_> = DataSet::ALL
        .into_iter()
        .filter(|data_set| wanted.contains(data_set))
        .filter(|data_set| folder.join(data_set.folder()).is_dir())
        .collect();
    let n_expected = if options.data_sets.is_empty() { 1 } else { wanted.iter().collect::<BTreeSet<_>>().len() };
    if present.len() < n_expected {
        let expected = wanted.iter().map(|data_set| format!("`{}`", data_set.folder())).collect::<Vec<_>>();
        let joint = if options.data_sets.is_empty() { " or " } else { " and " };
        return Err(RecordedError::NoDataSet { folder: folder.to_owned(), expected: expected.join(joint) });
    }

    let wanted = options.stations.iter().map(|station| station.to_lowercase()).collect();
    let mut selection = Selection { wanted, seen: BTreeSet::new() };
    let (mut opened, mut stations) = (Vec::new(), Vec::new());
    for data_set in present {
        let path = folder.join(data_set.folder());
        let found = match data_set {
            DataSet::Beijing12 if !cities.contains("beijing") => Vec::new(),
            DataSet::Beijing12 => beijing12::open(&path, &mut selection)?,
            DataSet::FiveCities => five_cities::open(&path, &cities, &mut selection)?,
        };
        for (file, infos) in found.into_iter().filter(|(_, infos)| !infos.is_empty()) {
            opened.push(file);
            stations.extend(infos);
        }
    }
    for station in &options.stations {
        if !selection.seen.iter().any(|seen| seen.eq_ignore_ascii_case(station)) {
            let known = selection.seen.into_iter().collect::<Vec<_>>().join(", ");
            return Err(RecordedError::UnknownStation { station: station.clone(), known });
        }
    }
    Ok((opened, stations))
}

fn selected_cities(asked: &[String]) -> Result<BTreeSet<&'static str>, RecordedError> {
    if asked.is_empty() {
        return Ok(CITIES.into());
    }
    let find = |city: &String| CITIES.into_iter().find(|known| known.eq_ignore_ascii_case(city));
    asked.iter().map(|city| find(city).ok_or_else(|| RecordedError::UnknownCity { city: city.clone() })).collect()
}

/// The `.csv.gz` files of a folder, by name.
fn archive_files(folder: &Path) -> Result<Vec<PathBuf>, RecordedError> {
    let open_error = |source| RecordedError::Open { path: folder.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(open_error)? {
        let path = entry.map_err(open_error)?.path();
        if path.to_string_lossy().ends_with(".csv.gz") {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Err(RecordedError::NoFiles { folder: folder.to_owned() });
    }
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
