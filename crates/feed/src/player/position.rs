//! The position file: how much of a source is settled, kept across runs.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Message;

/// Version of the file's format.
const FORMAT: u32 = 1;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Position {
    format: u32,
    /// How many leading messages of the source are acknowledged or refused.
    pub(super) n_settled: u64,
    /// The first message of the source, so that another source is noticed.
    first: Option<First>,
}

/// What tells one source from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct First {
    topic: String,
    at_us: i64,
}

impl First {
    pub(super) fn of(message: &Message) -> Self {
        Self { topic: message.topic.clone(), at_us: message.at }
    }
}

/// Why a position file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PositionError {
    /// The file cannot be read.
    #[error("cannot read position file `{}`", path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write position file `{}`", path.display())]
    Write {
        /// File.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The file is no position file.
    #[error("`{}` is no position file of this version: {reason}", path.display())]
    Content {
        /// File.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file belongs to another source.
    #[error("position file `{}` belongs to another source: it begins with {expected}, this one with {found}", path.display())]
    OtherSource {
        /// File.
        path: PathBuf,
        /// First message that the file names.
        expected: String,
        /// First message of this source.
        found: String,
    },
    /// The source is shorter than the position.
    #[error("position file `{}` says {n_settled} messages, but the source ends after {n_found}", path.display())]
    ShortSource {
        /// File.
        path: PathBuf,
        /// Messages settled according to the file.
        n_settled: u64,
        /// Messages the source has.
        n_found: u64,
    },
}

impl Position {
    pub(super) fn new(n_settled: u64, first: Option<First>) -> Self {
        Self { format: FORMAT, n_settled, first }
    }

    /// Reads the file; `None` if there is none yet.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, PositionError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(PositionError::Read { path: path.to_owned(), source }),
        };
        let content = |reason| PositionError::Content { path: path.to_owned(), reason };
        let position: Self = serde_json::from_str(&text).map_err(|error| content(error.to_string()))?;
        if position.format != FORMAT {
            return Err(content(format!("expected format {FORMAT}, found {}", position.format)));
        }
        Ok(Some(position))
    }

    /// Checks that the file was written for a source that begins with `first`.
    pub(super) fn check_source(&self, path: &Path, first: Option<&First>) -> Result<(), PositionError> {
        let name = |first: Option<&First>| first.map_or("nothing".to_owned(), |first| format!("`{}` at {} µs", first.topic, first.at_us));
        if self.n_settled > 0 && self.first.as_ref() != first {
            return Err(PositionError::OtherSource { path: path.to_owned(), expected: name(self.first.as_ref()), found: name(first) });
        }
        Ok(())
    }

    /// Writes the file as a whole: a reader, also after a crash, finds the old position or the new one.
    pub(super) fn write(&self, path: &Path) -> Result<(), PositionError> {
        self.write_io(path).map_err(|source| PositionError::Write { path: path.to_owned(), source })
    }

    fn write_io(&self, path: &Path) -> io::Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let mut file = File::create(&beside)?;
        serde_json::to_writer(&mut file, self)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        // The rename itself lasts only once its folder is synced.
        match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            Some(folder) => File::open(folder)?.sync_all(),
            None => File::open(".")?.sync_all(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_written_and_checked_against_the_source() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("position.json");
        assert_eq!(Position::read(&path).unwrap(), None);
        let first = First { topic: "devices/weather/x".to_owned(), at_us: 5 };
        let position = Position::new(7, Some(first.clone()));
        position.write(&path).unwrap();
        let read = Position::read(&path).unwrap().unwrap();
        assert_eq!(read, position);
        read.check_source(&path, Some(&first)).unwrap();
        let other = First { at_us: 6, ..first };
        let error = read.check_source(&path, Some(&other)).unwrap_err().to_string();
        assert!(error.contains("begins with `devices/weather/x` at 5 µs, this one with `devices/weather/x` at 6 µs"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no file is left beside");
    }

    #[test]
    fn a_foreign_file_is_named_and_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        for content in ["dear diary", "{\"format\":2,\"n_settled\":1,\"first\":null}"] {
            fs::write(&path, content).unwrap();
            let error = Position::read(&path).unwrap_err().to_string();
            assert!(error.contains("notes.txt"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }
}
