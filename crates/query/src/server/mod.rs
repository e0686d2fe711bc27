//! The PostgreSQL wire protocol.
//!
//! * [`serve`] accepts connections until it is told to stop.
//! * `connection` is the life of one connection: messages in, answers out, limits, the end.
//! * `session` is what a connection may ask: log in, simple and extended queries, COPY.
//! * `login` checks who somebody is; `answer` writes rows, `binding` binds parameters, `cursors` are named answers, `budget` bounds and cancels the work on them, `copy` reads rows.
//!
//! A connection has its own engine over its principal's source, so sessions share nothing but the limits of their role.
//! An error or a panic in one connection ends at most that connection.

mod answer;
mod binding;
mod budget;
mod connection;
mod copy;
mod cursors;
mod housekeeping;
mod login;
mod session;
mod sessions;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use datafusion_postgres::pgwire::api::RandomPidSecretKeyGenerator;
use datafusion_postgres::pgwire::tokio::TlsAcceptor;
use datafusion_postgres::pgwire::tokio::tokio_rustls::rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use self::sessions::OpenSessions;
use crate::engine::{Limits, Shared};
use crate::source::SourceFactory;
use crate::threads::Threads;

pub use self::login::{Auth, LoginError, PasswordCheck, Secret, SecretLookup};

/// How a server behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who may log in.
    pub auth: Auth,
    /// What statements and sessions may use, of users without a role of their own.
    pub limits: Limits,
    /// The same for users by their name: their sessions share a memory and a disk of their own.
    pub roles: BTreeMap<String, Limits>,
    /// Where statements put what does not fit their memory. The folder is the server's own: it is emptied at the start. None for no disk at all.
    pub spill_folder: Option<PathBuf>,
    /// Certificate and key; with them TLS is offered, and required for passwords from other machines. Without them there is no TLS.
    pub tls: Option<Arc<ServerConfig>>,
}

impl Settings {
    /// Default limits, no roles, no disk, no TLS.
    #[must_use]
    pub fn new(auth: Auth) -> Self {
        Self { auth, limits: Limits::default(), roles: BTreeMap::new(), spill_folder: None, tls: None }
    }
}

/// What the sessions of a role share.
struct Role {
    /// Its name; none for everybody without a role of their own.
    name: Option<String>,
    limits: Limits,
    shared: Shared,
    sessions: Arc<Semaphore>,
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
    everybody: Arc<Role>,
    roles: HashMap<String, Arc<Role>>,
    open: Arc<OpenSessions>,
    /// Counts up: two sessions never have the same process id.
    pids: RandomPidSecretKeyGenerator,
    tls: Option<TlsAcceptor>,
}

impl Server {
    fn new(sources: Arc<dyn SourceFactory>, settings: Settings, threads: &Arc<Threads>) -> io::Result<Self> {
        if let Some(folder) = &settings.spill_folder {
            empty(folder)?;
        }
        let role = |name: Option<&String>, limits: Limits| {
            let shared = Shared::new(&limits, settings.spill_folder.as_deref(), threads.clone()).map_err(io::Error::other)?;
            Ok::<_, io::Error>(Arc::new(Role {
                name: name.cloned(),
                limits,
                shared,
                sessions: Arc::new(Semaphore::new(limits.connections)),
            }))
        };
        let mut roles = HashMap::new();
        for (name, &limits) in &settings.roles {
            roles.insert(name.clone(), role(Some(name), limits)?);
        }
        Ok(Self {
            sources,
            auth: settings.auth,
            everybody: role(None, settings.limits)?,
            roles,
            open: Arc::default(),
            pids: RandomPidSecretKeyGenerator::default(),
            tls: settings.tls.map(TlsAcceptor::from),
        })
    }

    /// The role of a user.
    fn role(&self, user: &str) -> &Arc<Role> {
        self.roles.get(user).unwrap_or(&self.everybody)
    }
}

/// Makes a folder, or removes what is left in it from before.
pub(crate) fn empty(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(folder)
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
    let threads = Shared::threads().map_err(io::Error::other)?;
    let handle = threads.handle().clone();
    // Of all roles together; each has its own limit besides.
    let n_sessions = settings.roles.values().chain([&settings.limits]).map(|l| l.connections).sum::<usize>().min(Semaphore::MAX_PERMITS);
    let server = Arc::new(Server::new(sources, settings, &threads)?);
    let sessions = Arc::new(Semaphore::new(n_sessions));
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
