//! A node: opened on a folder, closed at the end.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use entity::{Entity, Instant};
use federation::signature::NonceCache;
use federation::{CityKey, Member, Peers};
use host::Clock;
use policy::{Agreement, CityName, PolicySet};
use store::state::Space;
use store::{Committed, Options, Store};
use tokio::sync::broadcast;

use crate::backups::Backups;
use crate::bulk::ActiveJobs;
use crate::metrics::Metrics;
use crate::reactions::Reactions;
use crate::registry::{Registry, load_followers, load_registrations};

/// Batches that a live feed may fall behind before it is told that it has lost some.
const LIVE_BATCHES: usize = 1_024;

/// How a node is opened.
pub struct NodeOptions {
    /// Its folder.
    pub dir: PathBuf,
    /// The city it belongs to.
    pub city: CityName,
    /// The city's key pair.
    pub key: CityKey,
    /// The other cities.
    pub peers: Vec<Member>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// How often a checkpoint is made when something has changed.
    pub checkpoint_every: Duration,
    /// Bytes of log that are kept beyond the last checkpoint, for readers of the changes.
    pub log_keep_bytes: u64,
    /// Where the history's files are: empty for the node's folder, otherwise `s3://bucket/prefix`.
    pub history_place: String,
    /// Memory that the present state may use, in bytes (see [`store::Options::memory_bytes`]).
    pub memory_bytes: usize,
}

/// Why a node cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenNodeError {
    /// The store refuses.
    #[error("cannot open the data")]
    Store(#[from] store::OpenError),
    /// The list of members is wrong.
    #[error("the list of peers cannot be used")]
    Peers(#[from] federation::MemberError),
    /// A thread cannot be started.
    #[error("cannot start the reactions")]
    Thread(#[source] std::io::Error),
    /// A stored registration does not read back.
    #[error("stored registration `{id}` is damaged")]
    Registration {
        /// Its id.
        id: String,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// What subscribers were to be told cannot be taken up.
    #[error("cannot take up the notifications")]
    Notifications(#[from] store::FollowerError),
}

/// One city's node.
pub struct Node {
    pub(crate) city: CityName,
    pub(crate) key: CityKey,
    pub(crate) store: Arc<Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) policy: Arc<RwLock<PolicySet>>,
    pub(crate) peers: RwLock<Peers>,
    pub(crate) nonces: std::sync::Mutex<NonceCache>,
    pub(crate) reactions: Arc<Reactions>,
    pub(crate) registry: Registry,
    pub(crate) live: broadcast::Sender<Arc<Vec<Committed>>>,
    pub(crate) active_jobs: ActiveJobs,
    pub(crate) backups: Backups,
    metrics: Arc<Metrics>,
    started_at: Instant,
}

impl Node {
    /// Opens the node: last checkpoint, then the log; agreements are compiled, subscriptions are active.
    pub fn open(options: NodeOptions) -> Result<Self, OpenNodeError> {
        let metrics = Arc::new(Metrics::default());
        let started_at = Instant::from_micros(options.clock.now_micros());
        let peers = Peers::new(&options.city, options.peers, started_at)?;
        let policy = Arc::new(RwLock::new(PolicySet::compile(options.city.clone(), [])));
        let (live, _) = broadcast::channel(LIVE_BATCHES);
        let clock = Arc::clone(&options.clock);
        let reactions = Reactions::start(clock, Arc::clone(&metrics), options.dir.join("notifications"), live.clone());
        let reactions = reactions.map_err(OpenNodeError::Thread)?;
        let store = Arc::new(Store::open(Options {
            dir: options.dir,
            clock: Arc::clone(&options.clock),
            observers: Vec::new(),
            followers: vec![Arc::clone(&reactions) as Arc<dyn store::Follower>],
            checkpoint_every: options.checkpoint_every,
            memory_bytes: options.memory_bytes,
            log_keep_bytes: options.log_keep_bytes,
            history_place: options.history_place,
        })?);
        let node = Self {
            started_at,
            peers: RwLock::new(peers),
            nonces: std::sync::Mutex::new(NonceCache::new()),
            city: options.city,
            key: options.key,
            store,
            clock: options.clock,
            policy,
            reactions,
            registry: Registry::default(),
            live,
            active_jobs: ActiveJobs::default(),
            backups: Backups::default(),
            metrics,
        };
        node.compile_policy();
        node.reactions.opened(node.store.table(Space::City).clone())?;
        load_registrations(&node)?;
        load_followers(&node)?;
        Ok(node)
    }

    /// The city.
    #[must_use]
    pub const fn city(&self) -> &CityName {
        &self.city
    }

    /// The city's key pair.
    #[must_use]
    pub const fn key(&self) -> &CityKey {
        &self.key
    }

    /// Counters and gauges.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Numbers about the store.
    #[must_use]
    pub fn stats(&self) -> store::Stats {
        self.store.stats()
    }

    /// When this node was opened.
    #[must_use]
    pub const fn started_at(&self) -> Instant {
        self.started_at
    }

    /// Now, by the node's clock.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::from_micros(self.clock.now_micros())
    }

    /// The agreements that this city takes part in, as provider or consumer, with those that are faulty left out.
    #[must_use]
    pub fn agreements(&self) -> Vec<Agreement> {
        self.agreement_entities().iter().filter_map(|e| Agreement::from_entity(e).ok()).collect()
    }

    fn agreement_entities(&self) -> Vec<Arc<Entity>> {
        self.store.table(Space::City).of_type(&entity::Iri::known(policy::term::AGREEMENT))
    }

    /// Compiles the agreements that are entities now. Runs after each change of one, before its writer is answered.
    pub(crate) fn compile_policy(&self) {
        let agreements = self.agreements();
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = PolicySet::compile(self.city.clone(), agreements);
    }

    /// Makes a last checkpoint and ends.
    pub fn close(&self) -> Result<(), store::CheckpointError> {
        let closed = self.store.close();
        self.reactions.end(true);
        closed
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // After `close` there is nothing left to end.
        self.reactions.end(false);
    }
}
