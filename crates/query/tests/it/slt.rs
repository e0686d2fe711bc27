//! Runs the files in `tests/slt`, in the format of sqllogictest, over the city of the tests: in process, and some of them by `psql`.
//!
//! A record is `query`, a letter per column (`T` text, `I` whole number, `R` number with a fraction) and perhaps `rowsort`; then the statement, `----`
//! and the rows; or `statement error`, a pattern for SQLSTATE and message, and the statement. A blank line ends it. `#` starts a comment.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use query::{Auth, Engine, Limits, QueryError};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};

use crate::city::city;
use crate::psql::Running;

/// Files that are run over the wire as well: those whose values look the same there.
const OVER_THE_WIRE: [&str; 5] = ["catalogs.slt", "errors.slt", "names.slt", "orders.slt", "security.slt"];

/// What a statement failed with, as files name it.
#[derive(Debug, thiserror::Error)]
#[error("{state}: {message}")]
struct Failed {
    state: String,
    message: String,
}

impl From<QueryError> for Failed {
    fn from(error: QueryError) -> Self {
        Self { state: error.sqlstate().to_owned(), message: error.to_string() }
    }
}

struct InProcess(Engine);

#[async_trait::async_trait]
impl AsyncDB for InProcess {
    type Error = Failed;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failed> {
        let batches = self.0.sql(sql).await?;
        let types = batches.first().map(|b| b.schema().fields().iter().map(|f| column_type(f.data_type())).collect());
        Ok(DBOutput::Rows { types: types.unwrap_or_default(), rows: values(&batches) })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "conurb"
    }

    fn error_sql_state(error: &Failed) -> Option<String> {
        Some(error.state.clone())
    }
}

fn column_type(data_type: &DataType) -> DefaultColumnType {
    match data_type {
        t if t.is_integer() => DefaultColumnType::Integer,
        t if t.is_numeric() => DefaultColumnType::FloatingPoint,
        DataType::Null => DefaultColumnType::Any,
        _ => DefaultColumnType::Text,
    }
}

struct ByPsql {
    port: u16,
}

#[async_trait::async_trait]
impl AsyncDB for ByPsql {
    type Error = Failed;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failed> {
        let mut command = Command::new("psql");
        command.args(["-X", "-w", "-A", "-t", "-h", "127.0.0.1", "-U", "conurb", "-d", "conurb", "-p", &self.port.to_string()]);
        command.args(["-v", "VERBOSITY=verbose", "-P", "null=NULL", "-F", "\u{1f}", "-c", sql]);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            // `ERROR:  42P01: table ... does not exist`
            let (_, rest) = said.split_once(":  ").unwrap_or(("", &said));
            let (state, message) = rest.split_once(": ").unwrap_or(("", rest));
            return Err(Failed { state: state.to_owned(), message: message.to_owned() });
        }
        let text = String::from_utf8(output.stdout).unwrap();
        let rows: Vec<Vec<String>> = text.lines().map(|l| l.split('\u{1f}').map(str::to_owned).collect()).collect();
        let types = rows.first().map(|r| vec![DefaultColumnType::Any; r.len()]);
        Ok(DBOutput::Rows { types: types.unwrap_or_default(), rows })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "psql"
    }

    fn error_sql_state(error: &Failed) -> Option<String> {
        Some(error.state.clone())
    }
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    files
}

/// Without rows there is nothing to compare; psql tells no types.
#[expect(clippy::ptr_arg, reason = "the signature is the runner's")]
fn types_agree(got: &Vec<DefaultColumnType>, want: &Vec<DefaultColumnType>) -> bool {
    let agree = |(a, b): (&DefaultColumnType, &DefaultColumnType)| a == b || [a, b].contains(&&DefaultColumnType::Any);
    got.is_empty() || got.len() == want.len() && got.iter().zip(want).all(agree)
}

#[tokio::test]
async fn statements_answer_as_written_in_the_slt_files() {
    let files = files();
    assert!(files.len() >= 12, "{files:?}");
    let mut failures = Vec::new();
    for file in files {
        let mut runner = Runner::new(|| async { Ok(InProcess(Engine::new(city(), &Limits::default())?)) });
        runner.with_column_validator(types_agree);
        if let Err(error) = runner.run_file_async(&file).await {
            failures.push(error.to_string());
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[tokio::test]
async fn statements_answer_the_same_over_the_wire() {
    if Command::new("psql").arg("--version").output().is_err() {
        return eprintln!("skipped: psql is not on this machine");
    }
    let server = Running::start(Auth::Trust, Limits { statement_time: Duration::from_secs(60), ..Limits::default() }).await;
    let port = server.port;
    let mut failures = Vec::new();
    for file in files().iter().filter(|f| OVER_THE_WIRE.iter().any(|name| f.ends_with(name))) {
        let mut runner = Runner::new(|| async { Ok(ByPsql { port }) });
        runner.with_column_validator(types_agree);
        if let Err(error) = runner.run_file_async(file).await {
            failures.push(error.to_string());
        }
    }
    server.stop().await;
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

fn values(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        for i in 0..batch.num_rows() {
            rows.push(columns.iter().map(|c| c.value(i).to_string()).collect());
        }
    }
    rows
}

/// The rows as text.
pub(crate) fn rows(batches: &[RecordBatch]) -> Vec<String> {
    values(batches).into_iter().map(|row| row.join(" | ")).collect()
}
