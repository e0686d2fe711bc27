//! Takes lines of text or CSV apart, as PostgreSQL's COPY writes them, piece by piece as they arrive.

use super::Form;
use crate::error::QueryError;

/// The longest record, in bytes.
pub(super) const RECORD_BYTES_MAX: usize = 1 << 20;

/// A record: its values, none for null, and the line it starts on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) line: u64,
    pub(super) values: Vec<Option<String>>,
}

/// What has arrived and is not yet a record.
#[derive(Debug)]
pub(super) struct Splitter {
    form: Form,
    buffer: Vec<u8>,
    /// How much of the buffer has been looked at, and whether that ended inside quotes.
    looked_at: usize,
    quoted: bool,
    escaped: bool,
    /// The line the buffer starts on, from 1.
    line: u64,
    /// The end of the data was seen.
    ended: bool,
}

impl Splitter {
    pub(super) fn new(form: Form) -> Self {
        Self { form, buffer: Vec::new(), looked_at: 0, quoted: false, escaped: false, line: 1, ended: false }
    }

    /// The records that are complete with this piece.
    ///
    /// Errors: [`QueryError::CopyRow`] for a record that cannot be read; the splitter is of no more use then.
    pub(super) fn feed(&mut self, piece: &[u8], records: &mut Vec<Record>) -> Result<(), QueryError> {
        if self.ended {
            return Ok(());
        }
        self.buffer.extend_from_slice(piece);
        let mut start = 0;
        while let Some(end) = self.end_of_record() {
            let record = &self.buffer[start..end];
            let record = record.strip_suffix(b"\r").unwrap_or(record);
            let n_lines = 1 + record.iter().filter(|&&b| b == b'\n').count() as u64;
            if record == b"\\." {
                self.ended = true;
                break;
            }
            let values = values(&self.form, record, self.line)?;
            records.push(Record { line: self.line, values });
            self.line += n_lines;
            start = end + 1;
        }
        self.buffer.drain(..start.min(self.buffer.len()));
        self.looked_at = self.looked_at.saturating_sub(start);
        if self.buffer.len() > RECORD_BYTES_MAX {
            return Err(wrong(self.line, format!("a record of more than {RECORD_BYTES_MAX} bytes; is a quote missing?")));
        }
        Ok(())
    }

    /// The last record, which need not end with a line break.
    pub(super) fn finish(&mut self, records: &mut Vec<Record>) -> Result<(), QueryError> {
        if self.quoted && !self.ended {
            return Err(wrong(self.line, "a quote is opened and not closed"));
        }
        if self.buffer.is_empty() { Ok(()) } else { self.feed(b"\n", records) }
    }

    /// Looks on for the next line break outside quotes.
    fn end_of_record(&mut self) -> Option<usize> {
        while let Some(&b) = self.buffer.get(self.looked_at) {
            let at = self.looked_at;
            self.looked_at += 1;
            if self.form.csv {
                // A doubled quote closes and opens again, which comes to the same; another escape hides the next character.
                if self.escaped {
                    self.escaped = false;
                } else if self.quoted && b == self.form.escape && self.form.escape != self.form.quote {
                    self.escaped = true;
                } else if b == self.form.quote {
                    self.quoted = !self.quoted;
                } else if b == b'\n' && !self.quoted {
                    return Some(at);
                }
            } else if self.escaped {
                self.escaped = false;
            } else if b == b'\\' {
                self.escaped = true;
            } else if b == b'\n' {
                return Some(at);
            }
        }
        None
    }
}

fn wrong(line: u64, reason: impl Into<String>) -> QueryError {
    QueryError::CopyRow { line, column: None, reason: reason.into(), n_recorded: 0 }
}

fn values(form: &Form, record: &[u8], line: u64) -> Result<Vec<Option<String>>, QueryError> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| wrong(line, "not UTF-8"));
    let mut values = Vec::new();
    let mut rest = record;
    loop {
        let (raw, plain, quoted, after) = if form.csv { csv_value(form, rest, line)? } else { text_value(form, rest) };
        let null = !quoted && raw == form.null.as_bytes();
        values.push(if null { None } else { Some(text(plain)?) });
        match after {
            Some(after) => rest = after,
            None => return Ok(values),
        }
    }
}

/// As written, what it says, whether it was quoted, and what follows its delimiter.
type Piece<'r> = (&'r [u8], Vec<u8>, bool, Option<&'r [u8]>);

fn csv_value<'r>(form: &Form, rest: &'r [u8], line: u64) -> Result<Piece<'r>, QueryError> {
    let (mut plain, mut any_quotes, mut inside, mut i) = (Vec::new(), false, false, 0);
    while let Some(&b) = rest.get(i) {
        let next = rest.get(i + 1).copied();
        if inside && b == form.escape && next.is_some_and(|n| n == form.quote || n == form.escape) {
            plain.extend(next);
            i += 1;
        } else if b == form.quote {
            inside = !inside;
            any_quotes = true;
        } else if b == form.delimiter && !inside {
            return Ok((&rest[..i], plain, any_quotes, Some(&rest[i + 1..])));
        } else {
            plain.push(b);
        }
        i += 1;
    }
    if inside { Err(wrong(line, "a quote is opened and not closed")) } else { Ok((rest, plain, any_quotes, None)) }
}

fn text_value<'r>(form: &Form, rest: &'r [u8]) -> Piece<'r> {
    let (mut plain, mut i) = (Vec::new(), 0);
    while let Some(&b) = rest.get(i) {
        if b == b'\\' {
            i += 1;
            match rest.get(i) {
                Some(b'b') => plain.push(8),
                Some(b'f') => plain.push(12),
                Some(b'n') => plain.push(b'\n'),
                Some(b'r') => plain.push(b'\r'),
                Some(b't') => plain.push(b'\t'),
                Some(b'v') => plain.push(11),
                Some(&other) => plain.push(other),
                None => {}
            }
        } else if b == form.delimiter {
            return (&rest[..i], plain, false, Some(&rest[i + 1..]));
        } else {
            plain.push(b);
        }
        i += 1;
    }
    (rest, plain, false, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn csv() -> Form {
        Form { csv: true, delimiter: b',', null: String::new(), header: false, quote: b'"', escape: b'"' }
    }

    fn text() -> Form {
        Form { csv: false, delimiter: b'\t', null: "\\N".into(), header: false, quote: b'"', escape: b'"' }
    }

    /// Everything at once, and byte by byte.
    #[track_caller]
    fn check(form: Form, data: &str, want: &[(u64, &[Option<&str>])]) {
        for size in [usize::MAX, 1] {
            let (mut splitter, mut records) = (Splitter::new(form.clone()), Vec::new());
            for piece in data.as_bytes().chunks(size.min(data.len().max(1))) {
                splitter.feed(piece, &mut records).unwrap();
            }
            splitter.finish(&mut records).unwrap();
            let got: Vec<(u64, Vec<Option<&str>>)> =
                records.iter().map(|r| (r.line, r.values.iter().map(Option::as_deref).collect())).collect();
            let want: Vec<(u64, Vec<Option<&str>>)> = want.iter().map(|(line, values)| (*line, values.to_vec())).collect();
            assert_eq!(got, want, "{data:?} in pieces of {size}");
        }
    }

    #[test]
    fn records_are_taken_apart_as_postgresql_does() {
        check(csv(), "a,b\n1,\n", &[(1, &[Some("a"), Some("b")]), (2, &[Some("1"), None])]);
        // An empty text is not null, quotes hold anything, lines are counted.
        check(csv(), "\"\",\"x\"\"y\nz\"\r\nlast,1", &[(1, &[Some(""), Some("x\"y\nz")]), (3, &[Some("last"), Some("1")])]);
        check(Form { escape: b'\\', ..csv() }, "\"a\\\"b\",c\n", &[(1, &[Some("a\"b"), Some("c")])]);
        check(text(), "a\\tb\t\\N\n\\\\N\t\n\\.\nafter", &[(1, &[Some("a\tb"), None]), (2, &[Some("\\N"), Some("")])]);
        check(Form { delimiter: b'|', null: "-".into(), ..text() }, "天坛|-\n", &[(1, &[Some("天坛"), None])]);
    }

    #[test]
    fn what_cannot_be_read_is_said_with_its_line() {
        let fails = |form: Form, data: &[u8]| {
            let (mut splitter, mut records) = (Splitter::new(form), Vec::new());
            splitter.feed(data, &mut records).and_then(|()| splitter.finish(&mut records)).unwrap_err().to_string()
        };
        assert!(fails(csv(), b"a,b\n\"open,\n").starts_with("COPY line 2: a quote is opened and not closed"));
        assert!(fails(text(), b"\xff\xfe\n").starts_with("COPY line 1: not UTF-8"));
        assert!(fails(csv(), &vec![b'x'; RECORD_BYTES_MAX + 1]).contains("is a quote missing?"));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(rows in proptest::collection::vec(proptest::collection::vec(proptest::option::of("[a\\\\\",\t\n\r|N.天]{0,6}"), 2), 1..5), is_csv in any::<bool>(), chunk in 1..7_usize) {
            let form = if is_csv { csv() } else { text() };
            let mut data = Vec::new();
            for row in &rows {
                for (i, value) in row.iter().enumerate() {
                    form.put(&mut data, i, value.as_ref().map(|v| v.as_bytes()));
                }
                data.push(b'\n');
            }
            let (mut splitter, mut records) = (Splitter::new(form), Vec::new());
            for piece in data.chunks(chunk) {
                splitter.feed(piece, &mut records).unwrap();
            }
            splitter.finish(&mut records).unwrap();
            let got: Vec<Vec<Option<String>>> = records.into_iter().map(|r| r.values).collect();
            prop_assert_eq!(got, rows);
        }
    }
}
