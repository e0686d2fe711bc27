//! `pg_stat_activity`: the sessions that are open, and what they do; and its relatives, of which nothing is known.

use std::net::SocketAddr;

use arrow::record_batch::RecordBatch;
use datafusion::error::Result;

use super::columns::Columns;
use super::directory::{DATABASE_OID, role_number};
use crate::engine::CATALOG;

/// What a session is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// It works on a statement.
    Active,
    /// It waits for its client, outside of a transaction.
    Idle,
    /// The same inside of one.
    InTransaction,
    /// The same inside of one that has failed.
    InFailedTransaction,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Idle => "idle",
            Self::InTransaction => "idle in transaction",
            Self::InFailedTransaction => "idle in transaction (aborted)",
        }
    }
}

/// An open session. Times are microseconds since 1970, UTC.
#[derive(Clone, Debug)]
pub(crate) struct Activity {
    pub(crate) pid: i32,
    /// Who it has logged in as.
    pub(crate) user: String,
    /// What its client calls itself.
    pub(crate) application: String,
    pub(crate) address: SocketAddr,
    pub(crate) began_us: i64,
    /// When the transaction began; none outside of one.
    pub(crate) transaction_us: Option<i64>,
    /// When the last statement began; none if there was none.
    pub(crate) statement_us: Option<i64>,
    pub(crate) state_us: i64,
    pub(crate) state: State,
    /// The last statement, cut off where it is long.
    pub(crate) statement: String,
}

/// The sessions of a server as one of them sees them.
pub(crate) trait Activities: Send + Sync + std::fmt::Debug {
    /// Those that it may see, by their process ids.
    fn visible(&self) -> Vec<Activity>;
}

pub(super) fn pg_stat_activity(rows: &[Activity]) -> Result<RecordBatch> {
    let waits = |name: &'static str| rows.iter().map(move |r| (r.state != State::Active).then_some(name));
    Columns::new(rows.len())
        .all_oid("datid", DATABASE_OID)
        .all_text("datname", CATALOG)
        .int("pid", rows.iter().map(|r| r.pid))
        .no_int("leader_pid")
        .oid("usesysid", rows.iter().map(|r| role_number(&r.user)))
        .text("usename", rows.iter().map(|r| &r.user))
        .text("application_name", rows.iter().map(|r| &r.application))
        .text("client_addr", rows.iter().map(|r| r.address.ip().to_canonical().to_string()))
        .no_text("client_hostname")
        .int("client_port", rows.iter().map(|r| i32::from(r.address.port())))
        .time("backend_start", rows.iter().map(|r| Some(r.began_us)))
        .time("xact_start", rows.iter().map(|r| r.transaction_us))
        .time("query_start", rows.iter().map(|r| r.statement_us))
        .time("state_change", rows.iter().map(|r| Some(r.state_us)))
        .maybe_text("wait_event_type", waits("Client"))
        .maybe_text("wait_event", waits("ClientRead"))
        .text("state", rows.iter().map(|r| r.state.name()))
        .no_int("backend_xid")
        .no_int("backend_xmin")
        .long("query_id", rows.iter().map(|_| None))
        .text("query", rows.iter().map(|r| &r.statement))
        .all_text("backend_type", "client backend")
        .finish()
}

/// There are no locks that a client could see.
pub(super) fn pg_locks() -> Result<RecordBatch> {
    let none =
        Columns::new(0).no_text("locktype").no_int("database").no_int("relation").no_int("page").no_int("tuple").no_text("virtualxid");
    let none =
        none.no_int("transactionid").no_int("classid").no_int("objid").no_int("objsubid").no_text("virtualtransaction").no_int("pid");
    none.no_text("mode").all_flag("granted", true).all_flag("fastpath", true).time("waitstart", []).finish()
}

/// No transaction is ever prepared.
pub(super) fn pg_prepared_xacts() -> Result<RecordBatch> {
    Columns::new(0).no_int("transaction").no_text("gid").time("prepared", []).no_text("owner").no_text("database").finish()
}

/// Transactions, rows and blocks are not counted: there are no numbers.
pub(super) fn pg_stat_database() -> Result<RecordBatch> {
    let columns = Columns::new(1).all_oid("datid", DATABASE_OID).all_text("datname", CATALOG).no_int("numbackends");
    let counted = [
        "xact_commit",
        "xact_rollback",
        "blks_read",
        "blks_hit",
        "tup_returned",
        "tup_fetched",
        "tup_inserted",
        "tup_updated",
        "tup_deleted",
        "conflicts",
        "temp_files",
        "temp_bytes",
        "deadlocks",
    ];
    counted.into_iter().fold(columns, |columns, name| columns.long(name, [None])).time("stats_reset", [None]).finish()
}
