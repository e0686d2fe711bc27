//! Who asks, and what is kept for them between two calls.
//!
//! Flight knows no connections: a client is known by the bearer token that the handshake gave it, or shows its password with every call.
//! Clients of the second kind with the same principal share one session; that shows only in its limits.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::answer::Work;
use crate::engine::{CATALOG, Engine, Limits, Shared};
use crate::error::QueryError;
use crate::server::{Auth, LoginError, Settings};
use crate::source::SourceFactory;
use crate::threads::Threads;

/// Sessions that are kept; beyond that the one unused for longest ends.
const SESSIONS_MAX: usize = 1_024;
/// How long a session is kept without being used.
const SESSION_IDLE_MAX: Duration = Duration::from_secs(60 * 60);
/// Tickets of one session that can be redeemed; beyond that the oldest expires.
const TICKETS_MAX: usize = 256;
/// How long a ticket can be redeemed.
const TICKET_AGE_MAX: Duration = Duration::from_secs(10 * 60);
/// Prepared statements of one session.
const PREPARED_MAX: usize = 256;
/// How long a prepared statement is kept without being used.
const PREPARED_IDLE_MAX: Duration = Duration::from_secs(60 * 60);

/// What the sessions of a role share.
struct Role {
    /// Empty for everybody without a role of their own.
    name: String,
    limits: Limits,
    shared: Shared,
    /// Places for statements at work.
    places: Arc<Semaphore>,
}

/// How a session is found again.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    /// By the token that the handshake gave.
    Token(String),
    /// By the principal and its role, of calls that carry their own credentials.
    Principal(String, String),
}

/// The sessions of a server.
pub(super) struct Sessions {
    sources: Arc<dyn SourceFactory>,
    auth: Auth,
    everybody: Arc<Role>,
    roles: HashMap<String, Arc<Role>>,
    open: Mutex<HashMap<Key, (Instant, Arc<Session>)>>,
}

impl Sessions {
    pub(super) fn new(sources: Arc<dyn SourceFactory>, settings: Settings, threads: &Arc<Threads>) -> Result<Self, QueryError> {
        let role = |name: &str, limits: Limits| -> Result<Arc<Role>, QueryError> {
            let shared = Shared::new(&limits, settings.spill_folder.as_deref(), threads.clone())?;
            Ok(Arc::new(Role { name: name.to_owned(), limits, shared, places: Arc::new(Semaphore::new(limits.connections)) }))
        };
        let mut roles = HashMap::new();
        for (name, &limits) in &settings.roles {
            roles.insert(name.clone(), role(name, limits)?);
        }
        let everybody = role("", settings.limits)?;
        Ok(Self { sources, auth: settings.auth, everybody, roles, open: Mutex::default() })
    }

    /// The session of a call, by its `authorization` header.
    pub(super) async fn of(&self, headers: &MetadataMap, peer: Option<SocketAddr>) -> Result<Arc<Session>, Status> {
        let credentials = Credentials::of(headers)?;
        if let Credentials::Bearer(token) = &credentials
            && let Some(session) = self.find(&Key::Token(token.clone()))
        {
            return Ok(session);
        }
        let (principal, role) = self.check(credentials, peer).await?;
        self.find_or_open(Key::Principal(principal.clone(), role.name.clone()), &principal, &role)
    }

    /// Opens a session for the credentials of a handshake and gives its token.
    pub(super) async fn log_in(
        &self,
        headers: &MetadataMap,
        payload: Option<(String, String)>,
        peer: Option<SocketAddr>,
    ) -> Result<String, Status> {
        let credentials = match (Credentials::of(headers)?, payload) {
            (Credentials::None, Some((user, password))) => Credentials::Basic { user, password },
            (found, _) => found,
        };
        let (principal, role) = self.check(credentials, peer).await?;
        let token = host::random_hex::<24>();
        self.find_or_open(Key::Token(token.clone()), &principal, &role)?;
        tracing::debug!(principal, "Flight SQL session opened");
        Ok(token)
    }

    /// Ends the session of a call: its tickets and prepared statements are gone, and its token opens nothing any more.
    pub(super) fn close(&self, session: &Arc<Session>) {
        self.open().retain(|_, (_, open)| !Arc::ptr_eq(open, session));
        session.forget();
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Key, (Instant, Arc<Session>)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: &Key) -> Option<Arc<Session>> {
        let mut open = self.open();
        let (used, session) = open.get_mut(key)?;
        if used.elapsed() > SESSION_IDLE_MAX {
            open.remove(key);
            return None;
        }
        *used = Instant::now();
        Some(session.clone())
    }

    fn find_or_open(&self, key: Key, principal: &str, role: &Arc<Role>) -> Result<Arc<Session>, Status> {
        if let Some(session) = self.find(&key) {
            return Ok(session);
        }
        let mut open = self.open();
        open.retain(|_, (used, _)| used.elapsed() <= SESSION_IDLE_MAX);
        if open.len() >= SESSIONS_MAX
            && let Some(oldest) = open.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone())
        {
            open.remove(&oldest);
        }
        // An engine is a principal's in a role: its sessions share it.
        let alike = |s: &Session| s.principal == principal && Arc::ptr_eq(&s.role, role);
        let engine = open.values().find(|(_, s)| alike(s)).map(|(_, s)| s.engine.clone());
        let engine = match engine {
            Some(engine) => engine,
            None => {
                let engine = Engine::sharing(self.sources.source(principal), principal, &role.shared);
                Arc::new(engine.map_err(|e| super::status::of(&e))?)
            }
        };
        let session = Arc::new(Session {
            principal: principal.to_owned(),
            role: role.clone(),
            engine,
            sources: self.sources.clone(),
            tickets: Mutex::default(),
            prepared: Mutex::default(),
        });
        open.insert(key, (Instant::now(), session.clone()));
        Ok(session)
    }

    /// The principal behind credentials, and its role.
    async fn check(&self, credentials: Credentials, peer: Option<SocketAddr>) -> Result<(String, Arc<Role>), Status> {
        let role = |user: &str| self.roles.get(user).unwrap_or(&self.everybody).clone();
        if matches!(self.auth, Auth::Trust) {
            // Everybody is who they say they are; a token says nothing.
            let user = match credentials {
                Credentials::Basic { user, .. } if !user.is_empty() => user,
                _ => CATALOG.to_owned(),
            };
            let role = role(&user);
            return Ok((user, role));
        }
        let (user, password) = match credentials {
            Credentials::Basic { user, password } => (user, password),
            Credentials::Bearer(token) => (CATALOG.to_owned(), token),
            Credentials::None => {
                return Err(Status::unauthenticated("credentials are needed: user and password, or `authorization: Bearer <token>`"));
            }
        };
        let (auth, asked) = (self.auth.clone(), user.clone());
        let checked = tokio::task::spawn_blocking(move || auth.check(&asked, &password)).await;
        match checked.unwrap_or_else(|e| Err(LoginError::Unavailable { reason: e.to_string() })) {
            Ok(principal) => Ok((principal, role(&user))),
            Err(error @ LoginError::Refused) => {
                tracing::warn!(user, ?peer, "Flight SQL login refused");
                Err(Status::unauthenticated(format!("{error}, or the session has ended: log in again")))
            }
            Err(error @ LoginError::Unavailable { .. }) => {
                tracing::warn!(user, ?peer, %error, "Flight SQL login impossible");
                Err(Status::unavailable(error.to_string()))
            }
        }
    }
}

/// What a call shows.
enum Credentials {
    None,
    Basic { user: String, password: String },
    Bearer(String),
}

impl Credentials {
    fn of(headers: &MetadataMap) -> Result<Self, Status> {
        let Some(value) = headers.get("authorization") else { return Ok(Self::None) };
        let malformed =
            || Status::unauthenticated("cannot read the header `authorization` (expected `Basic <base64>` or `Bearer <token>`)");
        let (scheme, rest) = value.to_str().ok().and_then(|v| v.split_once(' ')).ok_or_else(malformed)?;
        match scheme.to_ascii_lowercase().as_str() {
            "bearer" => Ok(Self::Bearer(rest.trim().to_owned())),
            // The Go client writes no padding, others do.
            "basic" => {
                let decoded = BASE64_STANDARD_NO_PAD
                    .decode(rest.trim().trim_end_matches('='))
                    .ok()
                    .and_then(|b| String::from_utf8(b).ok())
                    .ok_or_else(malformed)?;
                let (user, password) = decoded.split_once(':').ok_or_else(malformed)?;
                Ok(Self::Basic { user: user.to_owned(), password: password.to_owned() })
            }
            _ => Err(malformed()),
        }
    }
}

/// What is kept for a client between two calls.
pub(super) struct Session {
    pub(super) principal: String,
    role: Arc<Role>,
    pub(super) engine: Arc<Engine>,
    pub(super) sources: Arc<dyn SourceFactory>,
    /// In the order in which they were made.
    tickets: Mutex<VecDeque<Ticket>>,
    prepared: Mutex<HashMap<String, Prepared>>,
}

/// A statement that waits to be fetched, or is.
struct Ticket {
    handle: String,
    made: Instant,
    promised: Promised,
    cancel: watch::Sender<bool>,
}

/// A planned statement and the columns that its client was told.
#[derive(Clone)]
pub(super) struct Promised {
    pub(super) work: Work,
    pub(super) schema: SchemaRef,
}

/// A prepared statement.
#[derive(Clone)]
pub(super) struct Prepared {
    pub(super) work: Work,
    /// How many parameters it has.
    pub(super) n_parameters: usize,
    used: Instant,
}

impl Session {
    /// A place for a statement at work, among those of its role.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        let place = self.role.places.clone().try_acquire_owned();
        place.map_err(|_| {
            Status::resource_exhausted(format!("too many statements at a time: the limit is {}", self.role.limits.connections))
        })
    }

    /// Keeps a statement to be fetched and gives its handle.
    pub(super) fn promise(&self, promised: Promised) -> String {
        let handle = host::random_hex::<16>();
        let mut tickets = self.tickets();
        tickets.retain(|t| t.made.elapsed() <= TICKET_AGE_MAX);
        if tickets.len() >= TICKETS_MAX {
            tickets.pop_front();
        }
        tickets.push_back(Ticket { handle: handle.clone(), made: Instant::now(), promised, cancel: watch::Sender::new(false) });
        handle
    }

    /// The statement behind a handle, and what tells that it was cancelled.
    pub(super) fn redeem(&self, handle: &str) -> Result<(Promised, watch::Receiver<bool>), Status> {
        let tickets = self.tickets();
        let ticket = tickets.iter().find(|t| t.handle == handle && t.made.elapsed() <= TICKET_AGE_MAX);
        ticket.map(|t| (t.promised.clone(), t.cancel.subscribe())).ok_or_else(|| {
            Status::not_found(format!(
                "there is no such ticket in this session, or it has expired (after {} minutes, or {TICKETS_MAX} later ones): ask again",
                TICKET_AGE_MAX.as_secs() / 60
            ))
        })
    }

    /// Takes a statement back; whoever fetches it is stopped. False if there is none.
    pub(super) fn cancel(&self, handle: &str) -> bool {
        let mut tickets = self.tickets();
        let Some(i) = tickets.iter().position(|t| t.handle == handle) else { return false };
        if let Some(ticket) = tickets.remove(i) {
            // It stays true for those that listen, though the sender goes.
            ticket.cancel.send_replace(true);
        }
        true
    }

    /// Keeps a prepared statement and gives its handle.
    pub(super) fn prepare(&self, work: Work, n_parameters: usize) -> Result<String, Status> {
        let mut prepared = self.prepared_statements();
        prepared.retain(|_, p| p.used.elapsed() <= PREPARED_IDLE_MAX);
        if prepared.len() >= PREPARED_MAX {
            return Err(Status::resource_exhausted(format!(
                "too many prepared statements in this session: the limit is {PREPARED_MAX}; close some"
            )));
        }
        let handle = host::random_hex::<16>();
        prepared.insert(handle.clone(), Prepared { work, n_parameters, used: Instant::now() });
        Ok(handle)
    }

    /// A prepared statement with the parameters bound last.
    pub(super) fn prepared(&self, handle: &[u8]) -> Result<Prepared, Status> {
        let mut prepared = self.prepared_statements();
        let found = str::from_utf8(handle).ok().and_then(|handle| prepared.get_mut(handle)).ok_or_else(unknown_statement)?;
        found.used = Instant::now();
        Ok(found.clone())
    }

    /// Gives a prepared statement other parameters.
    pub(super) fn bind(&self, handle: &[u8], work: Work) -> Result<(), Status> {
        let mut prepared = self.prepared_statements();
        let found = str::from_utf8(handle).ok().and_then(|handle| prepared.get_mut(handle)).ok_or_else(unknown_statement)?;
        found.work = work;
        Ok(())
    }

    /// Forgets a prepared statement; what is being fetched goes on.
    pub(super) fn close(&self, handle: &[u8]) -> Result<(), Status> {
        let removed = str::from_utf8(handle).ok().and_then(|handle| self.prepared_statements().remove(handle));
        removed.map(drop).ok_or_else(unknown_statement)
    }

    fn forget(&self) {
        self.tickets().clear();
        self.prepared_statements().clear();
    }

    fn tickets(&self) -> MutexGuard<'_, VecDeque<Ticket>> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn prepared_statements(&self) -> MutexGuard<'_, HashMap<String, Prepared>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown_statement() -> Status {
    Status::not_found("there is no such prepared statement in this session: prepare it again")
}
