//! Arrow Flight SQL: the same tables for programs that take columns, such as `adbc_driver_flightsql`.
//!
//! * [`serve_flight`] accepts connections until it is told to stop; `listener` are the connections, inside TLS if there is a certificate.
//! * `session` is who asks, and what is kept for them: tickets, prepared statements.
//! * `service` is one method per call of the protocol; `answer` computes rows while they are fetched; `describe` tells what there is;
//!   `ingest` takes rows in, `target` is the table they are for; `parameters` are the `?` and `$1` of statements.
//!
//! # What is understood
//! * Log in by handshake (user and password, answered by a bearer token), or show `authorization: Basic ...` or `Bearer ...` with every call.
//! * Statements, prepared statements with parameters (`$1`, or `?` as ADBC writes them; each row of parameters is answered in turn).
//!   A ticket may be redeemed more than once, for ten minutes.
//! * Catalogs, schemas, tables with their columns (unit code and IRI are in the metadata of a field), types, and what the server can do.
//! * `CancelFlightInfo`, `CancelQuery`, and calls that their client breaks off: the work ends.
//! * Bulk ingestion (`adbc_ingest`) into history tables: columns `id` and `observed_at`, the others attributes, by the names that queries use.
//!   Rows are kept in pieces of at most [`INGEST_BATCH_ROWS_MAX`]; the call is answered when the last one is durable.
//! * No transactions, no Substrait, and nothing else that changes anything.
//!
//! The limits are those of SQL over the PostgreSQL wire protocol, by role and counted apart; [`crate::Limits::connections`] is the limit of
//! statements at work in a role, and the sum over the roles that of connections.

mod answer;
mod describe;
mod ingest;
mod listener;
mod parameters;
mod service;
mod session;
mod status;
mod target;

pub use ingest::INGEST_BATCH_ROWS_MAX;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::engine::Shared;
use crate::server::{Settings, empty};
use crate::source::SourceFactory;

/// How long running statements may go on after the end of the server was asked for.
const GRACE: Duration = Duration::from_secs(5);
/// How long connections may take to close after what they answer was cut off.
const FAREWELL: Duration = Duration::from_secs(1);
/// Size of one message of a client. Clients send a batch of rows as one message.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Calls at a time in one connection.
const CALLS_PER_CONNECTION_MAX: u32 = 128;
/// How long nothing may be heard of a connection before it is asked for a sign of life, and how long that may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));

/// Serves Arrow Flight SQL until `shutdown` completes. With a certificate in `settings` connections are inside TLS, and only those.
///
/// Then no new connection is taken, and running statements have five seconds to finish.
/// Errors: if the threads or the engine cannot be set up, or the listener fails.
pub async fn serve_flight(
    listener: TcpListener,
    sources: Arc<dyn SourceFactory>,
    settings: Settings,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    if let Some(folder) = &settings.spill_folder {
        empty(folder)?;
    }
    let threads = Shared::threads().map_err(io::Error::other)?;
    let address = listener.local_addr().ok();
    let listener = listener.into_std()?;
    let (stop, mut stopped) = watch::channel(false);
    let (cut, was_cut) = watch::channel(false);
    tracing::info!(?address, auth = ?settings.auth, tls = settings.tls.is_some(), "Flight SQL is served");

    let mut serving = JoinSet::new();
    serving.spawn_on(
        {
            let threads = threads.clone();
            async move {
                // Of all roles together; each has its own limit of statements besides.
                let n_connections = settings.roles.values().chain([&settings.limits]).map(|l| l.connections).sum::<usize>();
                let (limits, tls) = (settings.limits, settings.tls.clone());
                let sessions = session::Sessions::new(sources, settings, &threads).map_err(io::Error::other)?;
                let service = service::Service::new(sessions, &limits, was_cut).map_err(io::Error::other)?;
                let service = FlightServiceServer::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX);
                let incoming = listener::connections(TcpListener::from_std(listener)?, tls, n_connections.min(Semaphore::MAX_PERMITS));
                let stopped = async move {
                    // An error means that the sender is gone: the same as stop.
                    let _ = stopped.wait_for(|stop| *stop).await.is_ok();
                };
                tonic::transport::Server::builder()
                    .max_concurrent_streams(CALLS_PER_CONNECTION_MAX)
                    .http2_keepalive_interval(Some(KEEPALIVE.0))
                    .http2_keepalive_timeout(Some(KEEPALIVE.1))
                    .add_service(service)
                    .serve_with_incoming_shutdown(incoming, stopped)
                    .await
                    .map_err(io::Error::other)
            }
        },
        threads.handle(),
    );
    tokio::select! {
        () = shutdown => {}
        // Before it is told to stop it ends only by an error.
        Some(ended) = serving.join_next() => return ended.unwrap_or_else(|e| Err(io::Error::other(e))),
    }

    stop.send_replace(true);
    if tokio::time::timeout(GRACE, serving.join_next()).await.is_err() {
        tracing::warn!("Flight SQL statements were cut off at shutdown");
        cut.send_replace(true);
        let _ = tokio::time::timeout(FAREWELL, serving.join_next()).await.is_ok();
    }
    tracing::info!("Flight SQL is no longer served");
    Ok(())
}
