//! The format of a node's folder: which program may open it, and what is brought up to date when an older one is.
//!
//! `format.json` holds `{"format": 3, "createdBy": "0.1.0", "writtenBy": "0.1.0", "id": "...", "history": ""}`. A folder without it and with a log is of format 1, which had none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The format that this program writes.
///
/// 1: records of the log are JSON. 2: records are binary, frames of the log have keys, documents may be binary. 3: a record names each type and
/// attribute once.
pub const FORMAT: u32 = 3;

/// Name of the file in the node's folder.
pub const FORMAT_FILE: &str = "format.json";

/// What the file says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Format {
    /// The format of everything in the folder.
    pub format: u32,
    /// Version of the program that made the folder.
    pub created_by: String,
    /// Version of the program that brought it to this format.
    pub written_by: String,
    /// What tells this store from every other one; a restored one is another one, for from there on its changes are others.
    #[serde(default)]
    pub id: String,
    /// Where the history's files were when the folder was opened last: empty for the folder itself, otherwise `s3://bucket/prefix`. None if
    /// no program has said so yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<String>,
}

/// Why a folder is not opened.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Made by a newer program.
    #[error("`{path}` says format {found}, written by version {written_by}; this program reads up to format {FORMAT}: use a newer program")]
    Newer {
        /// The file.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// Version of the program that wrote it.
        written_by: String,
    },
    /// The file says nothing.
    #[error("`{path}` cannot be understood; it should look like {{\"format\":{FORMAT},\"createdBy\":\"...\",\"writtenBy\":\"...\"}}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// The file cannot be read or written.
    #[error("cannot {action} `{path}`")]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The format of a folder; none if there is nothing in it yet.
///
/// Errors: the file cannot be read, or is of a newer format.
pub fn read(dir: &Path) -> Result<Option<Format>, FormatError> {
    let path = dir.join(FORMAT_FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let is_old = dir.join("log").is_dir() || dir.join("documents").is_dir();
            let unknown = || "unknown".to_owned();
            return Ok(is_old.then(|| Format {
                format: 1,
                created_by: unknown(),
                written_by: unknown(),
                id: String::new(),
                history: None,
            }));
        }
        Err(source) => return Err(FormatError::Io { action: "read", path, source }),
    };
    let found: Format = serde_json::from_slice(&bytes).map_err(|source| FormatError::Damaged { path: path.clone(), source })?;
    if found.format > FORMAT {
        return Err(FormatError::Newer { path, found: found.format, written_by: found.written_by });
    }
    Ok(Some(found))
}

/// Refuses a folder of a newer format, and makes sure that one of an older format, or a new one, says [`FORMAT`] before anything is written
/// in it: an older program must not misread what this one writes. Older content stays as it is and is brought up to date when it is read and written again.
///
/// Returns the format that the folder has now.
pub fn take_over(dir: &Path) -> Result<Format, FormatError> {
    let found = read(dir)?;
    match found {
        Some(found) if found.format == FORMAT && !found.id.is_empty() => return Ok(found),
        Some(Format { format, .. }) if format < FORMAT => {
            tracing::info!(dir = %dir.display(), from = format, to = FORMAT, "the folder is of an older format; from now on it needs this version or a newer one");
        }
        _ => {}
    }
    let this = || env!("CARGO_PKG_VERSION").to_owned();
    let (created_by, history) = found.map_or_else(|| (this(), None), |f| (f.created_by, f.history));
    let format = Format { format: FORMAT, created_by, written_by: this(), id: host::random_hex::<16>(), history };
    write(dir, &format)?;
    Ok(format)
}

/// Notes where the history's files are, for those who look at the folder without the node's configuration.
pub fn note_history(dir: &Path, place: &str) -> Result<(), FormatError> {
    match read(dir)? {
        Some(found) if found.history.as_deref() != Some(place) => write(dir, &Format { history: Some(place.to_owned()), ..found }),
        _ => Ok(()),
    }
}

fn write(dir: &Path, format: &Format) -> Result<(), FormatError> {
    let path = dir.join(FORMAT_FILE);
    let new = dir.join("format.json.tmp");
    let text = serde_json::to_vec(format).expect("a format is JSON");
    let written = fs::write(&new, text).and_then(|()| fs::File::open(&new)?.sync_all()).and_then(|()| fs::rename(&new, &path));
    written.and_then(|()| fs::File::open(dir)?.sync_all()).map_err(|source| FormatError::Io { action: "write", path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_folder_an_old_one_and_a_newer_one() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        let made = take_over(dir.path()).unwrap();
        assert_eq!(made.format, FORMAT);
        assert_eq!(take_over(dir.path()).unwrap(), made, "it stays as it is");
        note_history(dir.path(), "s3://city/history").unwrap();
        let noted = Format { history: Some("s3://city/history".to_owned()), ..made.clone() };
        assert_eq!(take_over(dir.path()).unwrap(), noted);
        let path = dir.path().join(FORMAT_FILE);
        fs::remove_file(&path).unwrap();
        fs::create_dir(dir.path().join("log")).unwrap();
        assert_eq!(read(dir.path()).unwrap().unwrap().format, 1);
        let taken = take_over(dir.path()).unwrap();
        assert_eq!((taken.format, taken.created_by.as_str()), (FORMAT, "unknown"));
        assert_ne!(taken.id, made.id);
        fs::write(&path, r#"{"format":4,"createdBy":"0.1.0","writtenBy":"9.9.9"}"#).unwrap();
        let newer = take_over(dir.path()).unwrap_err().to_string();
        assert!(newer.contains("format 4, written by version 9.9.9; this program reads up to format 3"), "{newer}");
        fs::write(&path, "{").unwrap();
        assert!(matches!(take_over(dir.path()), Err(FormatError::Damaged { .. })));
    }
}
