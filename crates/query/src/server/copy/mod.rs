//! `COPY`: rows out as text or CSV, and observations in.
//!
//! * [`Form`] is how rows are written: what the options of the statement say.
//! * [`split`] takes records apart, piece by piece as they arrive.
//! * [`incoming`] makes observations of them and hands them to a [`crate::Sink`].

pub(super) mod incoming;
mod split;

use datafusion::sql::sqlparser::ast::{CopyLegacyCsvOption, CopyLegacyOption, CopyOption};
use datafusion_postgres::pgwire::messages::data::DataRow;

use crate::error::QueryError;

/// How rows are written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Form {
    pub(super) csv: bool,
    pub(super) delimiter: u8,
    /// What stands for no value.
    pub(super) null: String,
    /// The first line holds the names of the columns.
    pub(super) header: bool,
    pub(super) quote: u8,
    pub(super) escape: u8,
}

impl Form {
    /// What the options say, in their old and new spelling.
    ///
    /// Errors: [`QueryError::Copy`] for one that is not served, or that does not fit the format.
    pub(super) fn of(options: &[CopyOption], legacy: &[CopyLegacyOption]) -> Result<Self, QueryError> {
        let mut csv = legacy.iter().any(|o| matches!(o, CopyLegacyOption::Csv(_)));
        for option in options {
            if let CopyOption::Format(format) = option {
                csv = match format.value.to_ascii_lowercase().as_str() {
                    "csv" => true,
                    "text" => false,
                    other => return Err(copy_error(format!("format \"{other}\" is not supported (expected text or csv)"))),
                };
            }
        }
        let mut form = Self {
            csv,
            delimiter: if csv { b',' } else { b'\t' },
            null: if csv { String::new() } else { "\\N".to_owned() },
            header: false,
            quote: b'"',
            escape: b'"',
        };
        let mut escape = None;
        for option in options {
            match option {
                CopyOption::Format(_) => {}
                CopyOption::Delimiter(c) => form.delimiter = one_byte(*c, "delimiter")?,
                CopyOption::Null(text) => form.null.clone_from(text),
                CopyOption::Header(header) => form.header = *header,
                CopyOption::Quote(c) => form.quote = one_byte(*c, "quote")?,
                CopyOption::Escape(c) => escape = Some(one_byte(*c, "escape")?),
                CopyOption::Encoding(name) if matches!(name.to_ascii_lowercase().replace('-', "").as_str(), "utf8" | "unicode") => {}
                CopyOption::Encoding(name) => return Err(copy_error(format!("encoding \"{name}\" is not supported (expected UTF8)"))),
                other => return Err(copy_error(format!("option `{other}` is not supported"))),
            }
        }
        for option in legacy {
            match option {
                CopyLegacyOption::Csv(parts) => {
                    for part in parts {
                        match part {
                            CopyLegacyCsvOption::Header => form.header = true,
                            CopyLegacyCsvOption::Quote(c) => form.quote = one_byte(*c, "quote")?,
                            CopyLegacyCsvOption::Escape(c) => escape = Some(one_byte(*c, "escape")?),
                            other => return Err(copy_error(format!("option `{other}` is not supported"))),
                        }
                    }
                }
                CopyLegacyOption::Header => form.header = true,
                CopyLegacyOption::Delimiter(c) => form.delimiter = one_byte(*c, "delimiter")?,
                CopyLegacyOption::Null(text) => form.null.clone_from(text),
                other => return Err(copy_error(format!("option `{other}` is not supported"))),
            }
        }
        form.escape = escape.unwrap_or(form.quote);
        if !form.csv && (form.quote != b'"' || escape.is_some()) {
            return Err(copy_error("quote and escape belong to the csv format"));
        }
        if matches!(form.delimiter, b'\n' | b'\r' | b'\\') || form.csv && form.delimiter == form.quote {
            return Err(copy_error("this delimiter would be ambiguous"));
        }
        Ok(form)
    }

    /// The line with the names of the columns.
    pub(super) fn header_line<'n>(&self, names: impl Iterator<Item = &'n str>) -> Vec<u8> {
        let mut out = Vec::new();
        for (i, name) in names.enumerate() {
            self.put(&mut out, i, Some(name.as_bytes()));
        }
        out.push(b'\n');
        out
    }

    /// A row that was encoded as text for a query, as a line. None if it is not what such a row looks like.
    pub(super) fn line(&self, row: &DataRow) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(row.data.len() + 8);
        let mut rest = &row.data[..];
        for i in 0..usize::try_from(row.field_count).ok()? {
            let (length, after) = rest.split_at_checked(4)?;
            let length = i32::from_be_bytes(length.try_into().ok()?);
            let value = match usize::try_from(length) {
                Ok(length) => {
                    let (value, after) = after.split_at_checked(length)?;
                    rest = after;
                    Some(value)
                }
                Err(_) => {
                    rest = after;
                    None
                }
            };
            self.put(&mut out, i, value);
        }
        out.push(b'\n');
        Some(out)
    }

    fn put(&self, out: &mut Vec<u8>, i: usize, value: Option<&[u8]>) {
        if i > 0 {
            out.push(self.delimiter);
        }
        let Some(value) = value else { return out.extend(self.null.as_bytes()) };
        if self.csv {
            let special = |&b: &u8| b == self.delimiter || b == self.quote || b == b'\n' || b == b'\r';
            // What looks like null or like the end of the data is quoted, so that it is read back as it was.
            if value.iter().any(special) || value == self.null.as_bytes() || value == b"\\." {
                out.push(self.quote);
                for &b in value {
                    if b == self.quote || b == self.escape {
                        out.push(self.escape);
                    }
                    out.push(b);
                }
                out.push(self.quote);
            } else {
                out.extend(value);
            }
            return;
        }
        for &b in value {
            match b {
                b'\\' => out.extend(b"\\\\"),
                b'\n' => out.extend(b"\\n"),
                b'\r' => out.extend(b"\\r"),
                b'\t' => out.extend(b"\\t"),
                b if b == self.delimiter => out.extend([b'\\', b]),
                b => out.push(b),
            }
        }
    }
}

fn one_byte(c: char, what: &str) -> Result<u8, QueryError> {
    u8::try_from(c).ok().filter(u8::is_ascii).ok_or_else(|| copy_error(format!("the {what} has to be one ASCII character, not `{c}`")))
}

fn copy_error(reason: impl Into<String>) -> QueryError {
    QueryError::Copy { reason: reason.into() }
}
