//! Why a statement has no answer.

use std::time::Duration;

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use store::history::HistoryError;

use crate::SinkError;

/// Why a statement has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// It would change something, or is of a kind that is not served.
    #[error("this interface is read-only: `{statement}` is not allowed (expected SELECT, WITH, VALUES, EXPLAIN or SHOW)")]
    ReadOnly {
        /// Its first words.
        statement: String,
    },
    /// A SET of something other than a parameter of the client.
    #[error("this interface is read-only: parameter `{name}` cannot be set")]
    Parameter {
        /// The parameter.
        name: String,
    },
    /// A SET of the client encoding to something other than UTF-8.
    #[error("client_encoding `{found}` is not supported (expected UTF8)")]
    Encoding {
        /// The value as found.
        found: String,
    },
    /// Not SQL.
    #[error("{reason}")]
    Syntax {
        /// What the parser says.
        reason: String,
    },
    /// A name that exists with other capitals.
    #[error("table `{asked}` does not exist; did you mean \"{meant}\"? Names keep their case: write them in double quotes")]
    TableCase {
        /// The name as the statement was understood.
        asked: String,
        /// The table that differs in case only.
        meant: String,
    },
    /// The data took another type between planning and execution.
    #[error("cached plan must not change result type: {what}; run or prepare the statement again")]
    ColumnChanged {
        /// What changed.
        what: String,
    },
    /// The history cannot be read.
    #[error("the history cannot be read")]
    History(#[source] HistoryError),
    /// It took longer than the limit.
    #[error("statement cancelled: it took longer than the limit of {} s", limit.as_secs_f64())]
    Timeout {
        /// The limit in force: the server's, or a shorter one that the client set.
        limit: Duration,
    },
    /// It is longer, wider or deeper than the limit.
    #[error("the statement has {found} {unit}; the limit is {max}")]
    TooLarge {
        /// How many.
        found: usize,
        /// Of what.
        unit: &'static str,
        /// The limit.
        max: usize,
    },
    /// A COPY that cannot be started: a column, an option, the target.
    #[error("COPY: {reason}")]
    Copy {
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// A row of a COPY cannot be recorded.
    #[error("{}", describe_row(*line, column.as_deref(), reason, *n_recorded))]
    CopyRow {
        /// The line it starts on, from 1; 0 if it is not known.
        line: u64,
        /// The column, if it is one.
        column: Option<String>,
        /// What is wrong.
        reason: String,
        /// How many rows before it are recorded and durable.
        n_recorded: u64,
    },
    /// The rows of a COPY are not taken.
    #[error("COPY: {error}; {}", recorded(*n_recorded))]
    CopySink {
        /// Why.
        #[source]
        error: SinkError,
        /// How many rows before are recorded and durable.
        n_recorded: u64,
    },
    /// A way to ask for the past that is not served.
    #[error("FOR SYSTEM_TIME: {reason}")]
    SystemTime {
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// A session of somebody else is to be ended, or its statement.
    #[error("permission denied to {what}: session {pid} belongs to somebody else")]
    NotYours {
        /// Its process id.
        pid: i64,
        /// What was to be done, in PostgreSQL's words.
        what: &'static str,
    },
    /// The engine refused or failed; also the memory limit.
    #[error("{}", describe(.0))]
    Engine(#[source] Box<DataFusionError>),
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        match error {
            DataFusionError::External(inner) => match inner.downcast::<Self>() {
                Ok(own) => *own,
                Err(other) => Self::Engine(Box::new(DataFusionError::External(other))),
            },
            other => Self::Engine(Box::new(other)),
        }
    }
}

impl From<QueryError> for DataFusionError {
    fn from(error: QueryError) -> Self {
        Self::External(Box::new(error))
    }
}

impl QueryError {
    /// The SQLSTATE, by which a program tells errors apart.
    /// Source: PostgreSQL 16, appendix A.
    #[must_use]
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::ReadOnly { .. } => "25006",
            Self::Parameter { .. } => "42501",
            Self::Encoding { .. } => "22023",
            Self::Syntax { .. } => "42601",
            Self::TableCase { .. } => "42P01",
            // The state by which drivers know that they have to prepare again.
            Self::ColumnChanged { .. } => "0A000",
            // The value of a parameter – the time – is one that cannot be answered for.
            Self::History(HistoryError::NotKept { .. } | HistoryError::Refused { .. }) => "22023",
            Self::History(_) => "58030",
            Self::Timeout { .. } => "57014",
            Self::TooLarge { .. } => "54000",
            Self::Copy { .. } => "0A000",
            Self::CopyRow { .. } => "22P04",
            Self::CopySink { error: SinkError::Denied { .. }, .. } => "42501",
            Self::CopySink { error: SinkError::Invalid { .. }, .. } => "22000",
            Self::CopySink { error: SinkError::Unavailable { .. }, .. } => "57P03",
            Self::SystemTime { .. } => "0A000",
            Self::NotYours { .. } => "42501",
            Self::Engine(error) => engine_sqlstate(error),
        }
    }
}

fn describe_row(line: u64, column: Option<&str>, reason: &str, n_recorded: u64) -> String {
    let at = column.map(|c| format!(", column {c}")).unwrap_or_default();
    format!("COPY line {line}{at}: {reason}; {}", recorded(n_recorded))
}

fn recorded(n_rows: u64) -> String {
    match n_rows {
        0 => "nothing is recorded".to_owned(),
        n => format!("the first {n} rows are recorded, nothing after them"),
    }
}

/// The engine's error as one sentence: its root, without the engine's prefixes.
fn describe(error: &DataFusionError) -> String {
    let root = error.find_root();
    if is_spill_limit(root) {
        return "the statement needs more disk than the limit for what does not fit its memory".to_owned();
    }
    match root {
        DataFusionError::External(own) => own.to_string(),
        DataFusionError::ResourcesExhausted(reason) => format!("the statement needs more memory than the limit: {reason}"),
        other => other.message().split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or_default().to_owned(),
    }
}

/// The engine names its own option when the disk for spilling is used up, wrapped into one error or another.
fn is_spill_limit(error: &DataFusionError) -> bool {
    error.to_string().contains("max_temp_directory_size")
}

fn engine_sqlstate(error: &DataFusionError) -> &'static str {
    if is_spill_limit(error) {
        return "53200";
    }
    match error.find_root() {
        DataFusionError::External(own) => own.downcast_ref::<QueryError>().map_or("XX000", QueryError::sqlstate),
        DataFusionError::SQL(..) => "42601",
        DataFusionError::SchemaError(schema, _) => match **schema {
            SchemaError::FieldNotFound { .. } => "42703",
            SchemaError::AmbiguousReference { .. } => "42702",
            _ => "42701",
        },
        DataFusionError::Plan(reason) if reason.starts_with("table '") => "42P01",
        DataFusionError::Plan(reason) if ["Invalid function", "table function '"].iter().any(|p| reason.starts_with(p)) => "42883",
        DataFusionError::Plan(_) | DataFusionError::Configuration(_) => "42000",
        DataFusionError::NotImplemented(_) => "0A000",
        DataFusionError::ResourcesExhausted(_) => "53200",
        DataFusionError::ArrowError(arrow, _) => match **arrow {
            ArrowError::DivideByZero => "22012",
            ArrowError::ArithmeticOverflow(_) => "22003",
            ArrowError::CastError(_) | ArrowError::ParseError(_) => "22P02",
            _ => "22000",
        },
        DataFusionError::Execution(_) => "22000",
        _ => "XX000",
    }
}
