//! A compressed CSV file read row by row, with errors that say where.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use csv::StringRecord;
use flate2::bufread::MultiGzDecoder;
use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::{self, Offset};

use super::{RecordedError, RowError, file_name};
use crate::message::Payload;

/// China Standard Time, without daylight saving since 1991.
const LOCAL: Offset = tz::offset(8);

/// The five-cities archive writes a failed measurement as this number (four rows of Guangzhou).
const MISSING_NUMBER: &str = "-9999";

/// Buffer of compressed bytes per file.
const BUFFER_BYTES: usize = 64 * 1024;

/// A CSV table and its present row.
pub(super) struct Table {
    path: PathBuf,
    file: String,
    header: Vec<String>,
    reader: csv::Reader<Box<dyn Read + Send>>,
    row: StringRecord,
    time_columns: [usize; 4],
    line: u64,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("file", &self.file).field("line", &self.line).finish_non_exhaustive()
    }
}

/// Where a column stands, and the values it may hold.
#[derive(Debug, Clone)]
pub(super) struct Quantity {
    /// Name of the payload member.
    pub(super) member: &'static str,
    pub(super) column: usize,
    pub(super) range: Range,
}

/// The physical range of a quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Range {
    Any,
    NotNegative,
    Percent,
}

impl Table {
    /// Opens a table that has the columns year, month, day and hour.
    pub(super) fn open(path: &Path) -> Result<Self, RecordedError> {
        let file = File::open(path).map_err(|source| RecordedError::Open { path: path.to_owned(), source })?;
        let bytes: Box<dyn Read + Send> = Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, file)));
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
        let name = file_name(path);
        let header = match reader.headers() {
            Ok(header) => header.iter().map(|cell| cell.trim_start_matches('\u{feff}').to_owned()).collect(),
            Err(source) => return Err(RecordedError::Read { file: name, line: 0, source }),
        };
        let mut table = Self { path: path.to_owned(), file: name, header, reader, row: StringRecord::new(), time_columns: [0; 4], line: 1 };
        for (slot, column) in ["year", "month", "day", "hour"].into_iter().enumerate() {
            table.time_columns[slot] = table.column(column)?;
        }
        Ok(table)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn header(&self) -> &[String] {
        &self.header
    }

    /// Position of a column that must be there.
    pub(super) fn column(&self, name: &str) -> Result<usize, RowError> {
        self.header
            .iter()
            .position(|column| column == name)
            .ok_or_else(|| self.row_error("row", format!("a header with the column `{name}`"), self.header.join(",")))
    }

    /// A quantity that must be there.
    pub(super) fn quantity(&self, column: &str, member: &'static str, range: Range) -> Result<Quantity, RowError> {
        Ok(Quantity { member, column: self.column(column)?, range })
    }

    /// Reads the next row; `false` at the end.
    pub(super) fn read_row(&mut self) -> Result<bool, RecordedError> {
        let read = self.reader.read_record(&mut self.row);
        match read {
            Ok(false) => Ok(false),
            Ok(true) => {
                self.line = self.row.position().map_or(self.line + 1, csv::Position::line);
                Ok(true)
            }
            Err(error) => Err(self.read_error(error)),
        }
    }

    /// A row of the wrong shape can be skipped; bytes that cannot be read cannot.
    fn read_error(&mut self, error: csv::Error) -> RecordedError {
        let line = error.position().map_or(self.line + 1, csv::Position::line);
        match error.kind() {
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                self.line = line;
                let (expected, found) = (format!("{expected_len} cells"), format!("{len} cells"));
                self.row_error("row", expected, found).into()
            }
            csv::ErrorKind::Utf8 { .. } => {
                self.line = line;
                self.row_error("row", "UTF-8 text".to_owned(), error.to_string()).into()
            }
            _ => RecordedError::Read { file: self.file.clone(), line: self.line, source: error },
        }
    }

    pub(super) fn cell(&self, column: usize) -> &str {
        self.row.get(column).unwrap_or_default()
    }

    pub(super) fn row_error(&self, column: &str, expected: String, found: String) -> RowError {
        RowError { file: self.file.clone(), line: self.line, column: column.to_owned(), expected, found }
    }

    fn cell_error(&self, column: usize, expected: &str) -> RowError {
        self.row_error(&self.header[column], expected.to_owned(), self.cell(column).to_owned())
    }

    /// The row's instant, from its local year, month, day and hour.
    pub(super) fn instant(&self) -> Result<Timestamp, RowError> {
        let [year, month, day, hour] = self.time_columns;
        let date = Date::new(
            self.whole(year, "a year of four digits")?,
            self.whole(month, "a month from 1 to 12")?,
            self.whole(day, "a day of the month")?,
        )
        .map_err(|_| self.date_error())?;
        let time =
            Time::new(self.whole(hour, "an hour from 0 to 23")?, 0, 0, 0).map_err(|_| self.cell_error(hour, "an hour from 0 to 23"))?;
        LOCAL.to_timestamp(date.to_datetime(time)).map_err(|_| self.date_error())
    }

    fn whole<T: std::str::FromStr>(&self, column: usize, expected: &str) -> Result<T, RowError> {
        self.cell(column).parse().map_err(|_| self.cell_error(column, expected))
    }

    fn date_error(&self) -> RowError {
        let [year, month, day, _] = self.time_columns;
        let found = format!("{}-{}-{}", self.cell(year), self.cell(month), self.cell(day));
        self.row_error("day", "a date of the calendar".to_owned(), found)
    }

    /// The cell, unless it says that nothing was measured.
    pub(super) fn measured(&self, column: usize) -> Option<&str> {
        Some(self.cell(column)).filter(|cell| !matches!(*cell, "" | "NA" | MISSING_NUMBER))
    }

    /// Adds the quantity to the payload with the digits of the file, if it was measured.
    pub(super) fn put(&self, quantity: &Quantity, payload: &mut Payload) -> Result<(), RowError> {
        let Some(text) = self.measured(quantity.column) else { return Ok(()) };
        let expected = match quantity.range {
            Range::Any => "a number or `NA`",
            Range::NotNegative => "a number not below 0 or `NA`",
            Range::Percent => "a number from 0 to 100 or `NA`",
        };
        // serde_json's grammar, because the text goes into a JSON document as it is.
        let value: f64 = serde_json::from_str(text).map_err(|_| self.cell_error(quantity.column, expected))?;
        let fits = match quantity.range {
            Range::Any => value.is_finite(),
            Range::NotNegative => value.is_finite() && value >= 0.0,
            Range::Percent => (0.0..=100.0).contains(&value),
        };
        if !fits {
            return Err(self.cell_error(quantity.column, expected));
        }
        match quantity.range {
            Range::Percent => payload.number(quantity.member, &fraction_of_percent(text, value)),
            Range::Any | Range::NotNegative => payload.number(quantity.member, text),
        }
        Ok(())
    }

    /// Adds the wind direction in degrees, if there is one.
    pub(super) fn put_wind_direction(&self, column: usize, payload: &mut Payload) -> Result<(), RowError> {
        match self.measured(column) {
            None | Some("cv") => Ok(()),
            Some(point) => {
                let expected = "a compass point (N, NNE, … NNW), `cv` or `NA`";
                let degrees = degrees_of(point).ok_or_else(|| self.cell_error(column, expected))?;
                payload.number("windDirection", degrees);
                Ok(())
            }
        }
    }
}

/// Degrees from north, clockwise, of a compass point.
fn degrees_of(point: &str) -> Option<&'static str> {
    const ROSE: [(&str, &str); 16] = [
        ("N", "0"),
        ("NNE", "22.5"),
        ("NE", "45"),
        ("ENE", "67.5"),
        ("E", "90"),
        ("ESE", "112.5"),
        ("SE", "135"),
        ("SSE", "157.5"),
        ("S", "180"),
        ("SSW", "202.5"),
        ("SW", "225"),
        ("WSW", "247.5"),
        ("W", "270"),
        ("WNW", "292.5"),
        ("NW", "315"),
        ("NNW", "337.5"),
    ];
    ROSE.into_iter().find(|(name, _)| *name == point).map(|(_, degrees)| degrees)
}

/// Moves the decimal point two places, so that no digit changes; a number with an exponent is divided.
fn fraction_of_percent(text: &str, value: f64) -> String {
    if !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return (value / 100.0).to_string();
    }
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let padded = format!("{whole:0>3}");
    let (units, hundredths) = padded.split_at(padded.len() - 2);
    let digits = format!("{hundredths}{decimals}");
    match digits.trim_end_matches('0') {
        "" => units.to_owned(),
        digits => format!("{units}.{digits}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn per_cent_become_a_fraction_without_losing_a_digit() {
        check("43", "0.43");
        check("100", "1");
        check("100.0", "1");
        check("0", "0");
        check("7", "0.07");
        check("59.48", "0.5948");
        check("24.66666667", "0.2466666667");
        check("50", "0.5");

        #[track_caller]
        fn check(percent: &str, want: &str) {
            assert_eq!(fraction_of_percent(percent, percent.parse().unwrap()), want);
        }
    }

    proptest! {
        #[test]
        fn the_moved_point_equals_the_division(percent in 0.0f64..100.0) {
            let text = percent.to_string();
            let fraction: f64 = fraction_of_percent(&text, percent).parse().unwrap();
            prop_assert!((fraction - percent / 100.0).abs() < 1e-15, "{text}");
        }
    }

    #[test]
    fn compass_points_are_22_and_a_half_degrees_apart() {
        for (idx, point) in "N NNE NE ENE E ESE SE SSE S SSW SW WSW W WNW NW NNW".split(' ').enumerate() {
            let degrees: f64 = degrees_of(point).unwrap().parse().unwrap();
            assert!((degrees - 22.5 * f64::from(u8::try_from(idx).unwrap())).abs() < 1e-9, "{point}");
        }
        assert_eq!(degrees_of("cv"), None);
    }
}
