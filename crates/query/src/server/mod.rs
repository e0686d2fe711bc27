//! The PostgreSQL wire protocol.
//!
//! * [`serve`] accepts connections until it is told to stop.
//! * `connection` is the life of one connection: messages in, answers out, limits, the end.
//! * `session` is what a connection may ask: log in, simple and extended queries.
//!
//! A connection has its own engine over its principal's source, so sessions share nothing but memory limits.
//! An error or a panic in one connection ends at most that connection.

mod connection;
mod housekeeping;
mod session;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use datafusion_postgres::pgwire::api::ConnectionManager;
use datafusion_postgres::pgwire::tokio::TlsAcceptor;
use datafusion_postgres::pgwire::tokio::tokio_rustls::rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::engine::{Limits, Shared};
use crate::source::SourceFactory;

/// Who may log in.
#[derive(Clone)]
pub enum Auth {
    /// Everybody is who they say they are. For development on one machine.
    Trust,
    /// A password is asked for, in clear text as far as the protocol is concerned: use it inside TLS, or on the same machine.
    Password(Arc<PasswordCheck>),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Trust => "Trust",
            Self::Password(_) => "Password",
        })
    }
}

/// Checks a user and a password and gives the principal. It may take its time: it runs on a thread of its own.
pub type PasswordCheck = dyn Fn(&str, &str) -> Result<String, LoginError> + Send + Sync;

/// Why somebody is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// Wrong password, or no such user: nobody is told which.
    #[error("wrong user or password")]
    Refused,
    /// The check cannot be made now.
    #[error("the password cannot be checked: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
}

/// How a server behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who may log in.
    pub auth: Auth,
    /// What statements and sessions may use.
    pub limits: Limits,
    /// Certificate and key; with them TLS is offered, and required for passwords from other machines. Without them there is no TLS.
    pub tls: Option<Arc<ServerConfig>>,
}

/// Connections beyond the limit of sessions: they are told so, or cancel a statement of another session, and go.
const CONNECTIONS_BEYOND: usize = 32;
/// How long running statements may go on after the end of the server was asked for.
const GRACE: Duration = Duration::from_secs(5);
/// How long to wait when the machine has no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the connections of a server share.
struct Server {
    sources: Arc<dyn SourceFactory>,
    auth: Auth,
    limits: Limits,
    shared: Shared,
    manager: Arc<ConnectionManager>,
    tls: Option<TlsAcceptor>,
}

/// Serves SQL to clients such as `psql`, JDBC or Grafana until `shutdown` completes.
///
/// Then no new connection is taken, idle ones are told and closed, and running statements have five seconds to finish.
/// Errors: if the threads or the engine cannot be set up.
pub async fn serve(
    listener: TcpListener,
    sources: Arc<dyn SourceFactory>,
    settings: Settings,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let server = Arc::new(Server {
        sources,
        auth: settings.auth,
        limits: settings.limits,
        shared: Shared::new(&settings.limits).map_err(io::Error::other)?,
        manager: Arc::new(ConnectionManager::new()),
        tls: settings.tls.map(TlsAcceptor::from),
    });
    let handle = server.shared.threads().handle().clone();
    let sessions = Arc::new(Semaphore::new(settings.limits.connections));
    let beyond = Arc::new(Semaphore::new(CONNECTIONS_BEYOND));
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    tracing::info!(address = ?listener.local_addr().ok(), auth = ?server.auth, "SQL is served");

    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            // Collects the ended ones.
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "an SQL connection ended with a panic");
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an SQL connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let session_permit = sessions.clone().try_acquire_owned().ok();
        let Ok(permit) = session_permit.map_or_else(|| beyond.clone().try_acquire_owned().map(|p| (p, false)), |p| Ok((p, true))) else {
            tracing::warn!(%peer, "an SQL connection far beyond the limit was dropped");
            continue;
        };
        let (server, stopped) = (server.clone(), stopped.clone());
        connections.spawn_on(
            async move {
                let (_permit, admitted) = permit;
                let ended = match stream.into_std().and_then(TcpStream::from_std) {
                    Ok(stream) => connection::converse(stream, server, admitted, stopped).await,
                    Err(error) => Err(error),
                };
                match ended {
                    Ok(()) => tracing::debug!(%peer, "SQL connection closed"),
                    Err(error) => tracing::debug!(%peer, %error, "SQL connection lost"),
                }
            },
            &handle,
        );
    }

    drop(listener);
    stop.send_replace(true);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all_ended).await.is_err() {
        tracing::warn!(n_connections = connections.len(), "SQL statements were cut off at shutdown");
        connections.abort_all();
    }
    tracing::info!("SQL is no longer served");
    Ok(())
}
