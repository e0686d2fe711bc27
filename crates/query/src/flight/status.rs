//! Errors as gRPC tells them.

use datafusion::error::DataFusionError;
use tonic::{Code, Status};

use crate::error::QueryError;
use crate::sink::SinkError;

/// Name of the trailer with the SQLSTATE of a failed statement.
const SQLSTATE_KEY: &str = "sqlstate";

/// What a client is told of a failed statement: the message, and the SQLSTATE beside it.
pub(super) fn of(error: &QueryError) -> Status {
    let sqlstate = error.sqlstate();
    let code = match sqlstate {
        // Waited in vain: for the engine, for memory.
        "57014" => Code::DeadlineExceeded,
        "53200" => Code::ResourceExhausted,
        "25006" | "42501" => Code::PermissionDenied,
        "42P01" => Code::NotFound,
        "0A000" => Code::Unimplemented,
        "58030" | "XX000" => Code::Internal,
        _ => Code::InvalidArgument,
    };
    if code == Code::Internal {
        tracing::error!(error = error as &dyn std::error::Error, "an SQL statement failed inside the engine");
    }
    let mut status = Status::new(code, error.to_string());
    if let Ok(value) = sqlstate.parse() {
        status.metadata_mut().insert(SQLSTATE_KEY, value);
    }
    status
}

/// The same of an error of the engine.
pub(super) fn of_engine(error: DataFusionError) -> Status {
    of(&QueryError::from(error))
}

/// What a client is told of rows that were not taken, and how many before them were.
pub(super) fn of_sink(error: &SinkError, n_rows_before: u64) -> Status {
    let code = match error {
        SinkError::Invalid { .. } => Code::InvalidArgument,
        SinkError::Denied { .. } => Code::PermissionDenied,
        SinkError::Unavailable { .. } => Code::Unavailable,
    };
    let place = match error {
        // Counted from one, over all rows of the call.
        SinkError::Invalid { row: Some(row), .. } => format!("row {}: ", n_rows_before + *row as u64 + 1),
        _ => String::new(),
    };
    Status::new(code, after_rows(&format!("{place}{error}"), n_rows_before))
}

/// The message with the number of rows that are kept all the same.
pub(super) fn after_rows(message: &str, n_rows_before: u64) -> String {
    match n_rows_before {
        0 => message.to_owned(),
        n => format!("{message} (the {n} rows before were written)"),
    }
}
