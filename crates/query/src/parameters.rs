//! The parameters of a session: what `SHOW`, `current_setting` and `pg_settings` say, and what `SET` and `set_config` may change.
//!
//! A parameter changes how a client is answered, or nothing at all: clients set many that only mean something to PostgreSQL's planner.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::error::{DataFusionError, Result};
use datafusion::prelude::SessionContext;

use crate::catalog::functions::function;
use crate::error::QueryError;

/// The version of PostgreSQL whose catalogs are imitated, by which clients decide what to ask, and ours.
pub(crate) const SERVER_VERSION: &str = concat!("16.6 (conurb ", env!("CARGO_PKG_VERSION"), ")");

/// A parameter that clients know.
pub(crate) struct Parameter {
    /// In the spelling of PostgreSQL.
    pub(crate) name: &'static str,
    pub(crate) default: &'static str,
    pub(crate) settable: bool,
    pub(crate) about: &'static str,
}

const fn fixed(name: &'static str, default: &'static str, about: &'static str) -> Parameter {
    Parameter { name, default, settable: false, about }
}

const fn client(name: &'static str, default: &'static str, about: &'static str) -> Parameter {
    Parameter { name, default, settable: true, about }
}

/// All parameters, by name.
pub(crate) const PARAMETERS: [Parameter; 53] = [
    client("application_name", "", "Name of the program that is connected."),
    fixed("block_size", "8192", "Size of a disk block, as PostgreSQL has it."),
    client("bytea_output", "hex", "How bytes are written as text."),
    client("client_encoding", "UTF8", "Encoding of texts; always UTF-8."),
    client("client_min_messages", "notice", "Accepted, without effect."),
    client("DateStyle", "ISO, MDY", "How dates are written."),
    client("default_text_search_config", "pg_catalog.simple", "Accepted, without effect."),
    fixed("default_table_access_method", "heap", "As PostgreSQL has it."),
    fixed("default_tablespace", "", "As PostgreSQL has it."),
    client("default_transaction_deferrable", "off", "Accepted, without effect."),
    client("default_transaction_isolation", "read committed", "Accepted; every statement sees the present."),
    client("default_transaction_read_only", "on", "Statements only read; COPY FROM is the exception."),
    client("enable_hashagg", "on", "Accepted, without effect."),
    client("enable_mergejoin", "on", "Accepted, without effect."),
    client("enable_nestloop", "on", "Accepted, without effect."),
    client("enable_seqscan", "on", "Accepted, without effect."),
    client("escape_string_warning", "on", "Accepted, without effect."),
    client("extra_float_digits", "1", "How many digits numbers with a fraction have in answers; from 1 on all that are needed."),
    client("geqo", "on", "Accepted, without effect."),
    client("idle_in_transaction_session_timeout", "0", "Accepted, without effect."),
    client("idle_session_timeout", "0", "Accepted, without effect."),
    fixed("in_hot_standby", "off", "As PostgreSQL has it."),
    fixed("integer_datetimes", "on", "Times are whole microseconds."),
    client("IntervalStyle", "postgres", "How intervals are written."),
    fixed("is_superuser", "off", "Nobody is."),
    client("jit", "off", "Accepted, without effect."),
    fixed("lc_collate", "C", "Texts are compared byte by byte."),
    fixed("lc_ctype", "C.UTF-8", "Texts are Unicode."),
    client("lc_messages", "C", "Accepted, without effect."),
    client("lc_monetary", "C", "Accepted, without effect."),
    client("lc_numeric", "C", "Accepted, without effect."),
    client("lc_time", "C", "Accepted, without effect."),
    client("lock_timeout", "0", "Accepted; there are no locks."),
    fixed("max_identifier_length", "63", "What PostgreSQL cuts names to; here they are not cut."),
    fixed("max_index_keys", "32", "As PostgreSQL has it."),
    fixed("port", "5433", "The usual port."),
    client("row_security", "on", "Accepted; what may be seen is decided by the node's policy."),
    client("search_path", "\"$user\", public", "Where names are looked up; always in public."),
    fixed("server_encoding", "UTF8", "Encoding of texts."),
    fixed("server_version", SERVER_VERSION, "The version of PostgreSQL that is imitated, and the node's own."),
    fixed("server_version_num", "160006", "The version of PostgreSQL that is imitated, as a number."),
    client("session_authorization", "", "The principal; cannot be changed."),
    fixed("ssl", "off", "Whether the server talks TLS is told by the connection."),
    client("standard_conforming_strings", "on", "A backslash in a text is a backslash."),
    client("statement_timeout", "0", "Milliseconds that a statement may take; the server's own limit holds as well."),
    client("synchronous_commit", "on", "Accepted; what is acknowledged is always durable."),
    client("TimeZone", "UTC", "Accepted; times are written in UTC with their offset."),
    client("transaction_deferrable", "off", "Accepted, without effect."),
    client("transaction_isolation", "read committed", "Accepted; every statement sees the present."),
    client("transaction_read_only", "on", "Statements only read; COPY FROM is the exception."),
    client("vacuum_cost_delay", "0", "Accepted, without effect."),
    fixed("wal_level", "replica", "As PostgreSQL has it."),
    client("work_mem", "4096", "Accepted; memory is limited by the server."),
];

/// A parameter by its name, however it is spelled.
pub(crate) fn parameter(name: &str) -> Option<&'static Parameter> {
    PARAMETERS.iter().find(|p| p.name.eq_ignore_ascii_case(name))
}

/// What the parameters of one session are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parameters(Arc<Mutex<HashMap<&'static str, String>>>);

impl Parameters {
    fn lock(&self) -> MutexGuard<'_, HashMap<&'static str, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of a parameter; none if there is no such parameter.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let known = parameter(name)?;
        Some(self.lock().get(known.name).cloned().unwrap_or_else(|| known.default.to_owned()))
    }

    /// Changes a parameter that clients may change; `DEFAULT` or none makes it what it was.
    ///
    /// Errors: [`QueryError::Parameter`] for any other one.
    pub(crate) fn set(&self, name: &str, value: Option<String>) -> std::result::Result<(), QueryError> {
        let known = parameter(name).filter(|p| p.settable).ok_or_else(|| QueryError::Parameter { name: name.to_owned() })?;
        match value {
            Some(value) if !value.eq_ignore_ascii_case("default") => self.lock().insert(known.name, value),
            _ => self.lock().remove(known.name),
        };
        Ok(())
    }

    /// Makes all of them what they were.
    pub(crate) fn reset(&self) {
        self.lock().clear();
    }

    /// Makes `current_setting` and `set_config` known.
    pub(crate) fn register(&self, context: &SessionContext) {
        let parameters = self.clone();
        context.register_udf(function("current_setting", DataType::Utf8, move |args, n_rows| {
            let names = text_column(args.first(), "current_setting takes the name of a parameter")?;
            let may_miss = args.get(1).is_some_and(|a| a.data_type() == &DataType::Boolean && !a.is_empty() && a.as_boolean().value(0));
            let mut values = StringBuilder::new();
            for i in 0..n_rows {
                match names.is_valid(i).then(|| parameters.get(names.as_string::<i32>().value(i))) {
                    Some(None) if !may_miss => {
                        let name = names.as_string::<i32>().value(i);
                        return Err(DataFusionError::Execution(format!("unrecognized configuration parameter \"{name}\"")));
                    }
                    value => values.append_option(value.flatten()),
                }
            }
            Ok(Arc::new(values.finish()))
        }));
        let parameters = self.clone();
        context.register_udf(function("set_config", DataType::Utf8, move |args, n_rows| {
            let names = text_column(args.first(), "set_config takes a name, a value and whether it is for the transaction only")?;
            let values = text_column(args.get(1), "set_config takes a name, a value and whether it is for the transaction only")?;
            let (names, values) = (names.as_string::<i32>(), values.as_string::<i32>());
            let mut told = StringBuilder::new();
            for i in 0..n_rows {
                if names.is_null(i) {
                    told.append_null();
                    continue;
                }
                let value = values.is_valid(i).then(|| values.value(i).to_owned());
                parameters.set(names.value(i), value.clone())?;
                told.append_option(value.or_else(|| parameters.get(names.value(i))));
            }
            Ok(Arc::new(told.finish()))
        }));
    }
}

fn text_column(argument: Option<&ArrayRef>, expected: &str) -> Result<ArrayRef> {
    let argument = argument.ok_or_else(|| DataFusionError::Execution(expected.to_owned()))?;
    Ok(cast(argument, &DataType::Utf8)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_a_clients_affair_can_be_set() {
        let parameters = Parameters::default();
        assert_eq!(parameters.get("datestyle").as_deref(), Some("ISO, MDY"));
        parameters.set("DATESTYLE", Some("German".to_owned())).unwrap();
        assert_eq!(parameters.get("DateStyle").as_deref(), Some("German"));
        parameters.set("datestyle", Some("default".to_owned())).unwrap();
        assert_eq!(parameters.get("datestyle").as_deref(), Some("ISO, MDY"));
        assert!(matches!(parameters.set("server_version", Some("9".to_owned())), Err(QueryError::Parameter { .. })));
        assert!(matches!(parameters.set("datafusion.execution.batch_size", None), Err(QueryError::Parameter { .. })));
        assert_eq!(parameters.get("nonsense"), None);
    }

    #[test]
    fn parameters_are_in_the_order_of_their_names() {
        let names: Vec<String> = PARAMETERS.iter().map(|p| p.name.to_ascii_lowercase()).collect();
        let mut sorted = names.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(names.len(), sorted.len());
    }
}
