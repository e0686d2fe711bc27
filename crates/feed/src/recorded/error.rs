//! Why a recorded archive could not be read.

use std::io;
use std::path::PathBuf;

use super::CITIES;

/// A row that cannot be understood: where, what was expected, what was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{file}` line {line}, column `{column}`: expected {expected}, found `{found}`")]
pub struct RowError {
    /// File name.
    pub file: String,
    /// Line, counted from 1; the header is line 1.
    pub line: u64,
    /// Column name, or `row` for the row as a whole.
    pub column: String,
    /// What should stand there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

/// Why a recorded archive could not be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordedError {
    /// The folder lacks the data sets.
    #[error("`{}` has no folder {expected}", folder.display())]
    NoDataSet {
        /// Folder looked into.
        folder: PathBuf,
        /// Subfolders expected.
        expected: String,
    },
    /// The data set's folder is empty.
    #[error("`{}` has no file that ends in `.csv.gz`", folder.display())]
    NoFiles {
        /// Folder looked into.
        folder: PathBuf,
    },
    /// A file or folder cannot be opened.
    #[error("cannot open `{}`", path.display())]
    Open {
        /// File or folder.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A file's name does not say what it holds.
    #[error("`{}` has an unexpected name, expected {expected}", path.display())]
    FileName {
        /// File.
        path: PathBuf,
        /// Names expected.
        expected: String,
    },
    /// The bytes of a file cannot be read or decompressed.
    #[error("cannot read `{file}` after line {line}")]
    Read {
        /// File name.
        file: String,
        /// Last line read.
        line: u64,
        /// Cause.
        #[source]
        source: csv::Error,
    },
    /// A row cannot be understood.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The archives do not know the city.
    #[error("no recorded city `{city}`, expected one of {}", CITIES.join(", "))]
    UnknownCity {
        /// City asked for.
        city: String,
    },
    /// The selected cities have no such station.
    #[error("no recorded station `{station}` in the selected cities, expected one of {known}")]
    UnknownStation {
        /// Station asked for.
        station: String,
        /// Stations known, comma-separated.
        known: String,
    },
}
