//! Runs the files in `tests/slt`.
//!
//! A record is `query` (or `query sorted`), the statement, `----` and the rows, values separated by ` | `;
//! or `error` with a SQLSTATE and a part of the message, then the statement. A blank line ends it. `#` starts a comment.

use std::path::Path;

use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use query::{Engine, Limits};

use crate::city::city;

#[tokio::test]
async fn statements_answer_as_written_in_the_slt_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    let mut failures = Vec::new();
    let mut n_records = 0;
    for file in files {
        let engine = Engine::new(city(), &Limits::default()).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        for record in records(&text) {
            n_records += 1;
            if let Err(difference) = check(&engine, &record).await {
                failures.push(format!("{}:{}: {}\n{difference}", file.display(), record.line, record.sql));
            }
        }
    }
    assert!(n_records > 20, "only {n_records} records");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

struct Record {
    line: usize,
    head: String,
    sql: String,
    want: Vec<String>,
}

fn records(text: &str) -> Vec<Record> {
    let mut records = Vec::new();
    let mut lines = text.lines().enumerate().filter(|(_, l)| !l.starts_with('#')).peekable();
    while let Some((i, head)) = lines.next() {
        if head.is_empty() {
            continue;
        }
        let block: Vec<&str> = std::iter::from_fn(|| lines.next_if(|(_, l)| !l.is_empty())).map(|(_, l)| l).collect();
        let end = block.iter().position(|&l| l == "----").unwrap_or(block.len());
        records.push(Record {
            line: i + 1,
            head: head.to_owned(),
            sql: block[..end].join("\n"),
            want: block[end..].iter().skip(1).map(|&l| l.to_owned()).collect(),
        });
    }
    records
}

async fn check(engine: &Engine, record: &Record) -> Result<(), String> {
    let answer = engine.sql(&record.sql).await;
    if let Some(want) = record.head.strip_prefix("error ") {
        let (state, part) = want.split_once(' ').ok_or("an error record needs a SQLSTATE and a part of the message")?;
        return match answer {
            Ok(_) => Err("an answer instead of an error".into()),
            Err(e) if e.sqlstate() == state && e.to_string().contains(part) => Ok(()),
            Err(e) => Err(format!("got {} {e}", e.sqlstate())),
        };
    }
    let mut got = rows(&answer.map_err(|e| format!("error {} {e}", e.sqlstate()))?);
    if record.head == "query sorted" {
        got.sort();
    } else if record.head != "query" {
        return Err(format!("unknown record `{}`", record.head));
    }
    if got == record.want { Ok(()) } else { Err(format!("got\n{}\nexpected\n{}", got.join("\n"), record.want.join("\n"))) }
}

/// The rows as text.
pub(crate) fn rows(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        for i in 0..batch.num_rows() {
            rows.push(columns.iter().map(|c| c.value(i).to_string()).collect::<Vec<_>>().join(" | "));
        }
    }
    rows
}
