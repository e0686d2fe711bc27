//! The operations of a node: authorize, validate, commit, answer. The only way in, for every protocol and every application.
//!
//! * [`Node`]: opened on a folder; holds the store, the policy, the peers and the subscriptions. Its methods are the operations.
//! * [`Subscription`] and [`Notification`]: who wants to be told of what; matching and waiting are here ([`Recipient`]), delivery is the edge's ([`Deliverer`]).
//! * [`Registered`]: what other systems have; finding them is here, asking them is the edge's.
//! * [`PeerTransport`]: how questions reach other cities; the edge implements it.
//!
//! **Invariant:** knows no HTTP, no MQTT and no SQL engine.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod as_of;
mod backups;
mod bulk;
mod cluster;
mod contexts;
mod erase;
mod error;
mod expiry;
mod links;
mod maintenance;
mod metrics;
mod node;
mod operations;
mod order;
mod purge;
mod reactions;
mod registry;
mod subscription;
mod temporal;
mod temporal_known;
mod temporal_methods;
mod temporal_past;
mod temporal_search;
mod temporal_write;

pub use as_of::{AS_OF_ENTITIES_MAX, ObservedValue, VERSIONS_MAX};
pub use backups::{BackupFailed, BackupMade, BackupRunning, BackupSchedule, BackupStatus};
pub use bulk::{BULK_JOBS_MAX, BulkJob, BulkLease, BulkState};
pub use cluster::{AskFuture, ClusterQuery, PEER_ANSWER_WAIT, PeerTransport, TransportError};
pub use contexts::{ContextOrigin, HOSTED_CONTEXTS_MAX, IMPLICIT_CONTEXTS_MAX, StoredContext};
pub use erase::{EraseRequest, Erased};
pub use error::{Kind, NodeError};
pub use links::{LINK_TARGETS_MAX, LINKED_ENTITIES_MAX, LinkedEntity};
pub use maintenance::CHANGES_WAIT_MAX;
pub use metrics::{Metrics, Sort};
pub use node::{Node, NodeOptions, OpenNodeError};
pub use operations::{QUERY_LIMIT_MAX, Query};
pub use order::ORDERED_ENTITIES_MAX;
pub use purge::{PURGED_TOGETHER_MAX, PurgeOutcome, Purged};
pub use reactions::{
    Deliverer, ENTITIES_PER_NOTIFICATION_MAX, HELD_ENTITIES_MAX, Recipient, WAITING_BYTES_MAX, WAITING_BYTES_PER_SUBSCRIPTION_MAX,
    WAITING_PER_SUBSCRIPTION_MAX, Watched,
};
pub use registry::{Asked, FOLLOWERS_MAX, Follower, REGISTRATIONS_MAX, Registered, RegistryChange, RegistryEvent, SourceStatus};
pub use store::backup::{Keep, Pruned};
pub use store::history::{
    AS_OF_INSTANCES_MAX, AggregateQuery, Aggregates, AttributeColumn, Bucket, ColumnKind, Deletion, ErasedInstances, ErasedTimes,
    Evolution, History, HistoryError, HistoryPolicy, HistoryScan, Measure, RetentionRule, RollupRule, RollupWidth, TemporalQuery,
    TimeProperty,
};
pub use store::state::{
    ColumnScan, Direction, Explanation, Latest, MEMORY_BYTES_DEFAULT, MEMORY_BYTES_MIN, OrderBy, Page, ScanError, Space,
};
pub use store::{Change, Changes, Committed, RecordBatch, Stats, TakenRows};
pub use subscription::{Cause, DeliveryStatus, Notification, Subscription, Trigger};
pub use temporal::{PERIODS_MAX, PeriodQuery, PeriodSeries, PeriodValues, over_periods};
pub use temporal_known::ScopeSpan;
pub use temporal_past::{AskedTime, ENDS_MAX, Ended, Past, PastQuery};
pub use temporal_search::{
    Aggregated, PAGE_PERIODS_MAX, PAST_CONDITION_INSTANCES_MAX, PAST_ENTITIES_MAX, PastPage, PastSearch, PeriodPage,
};
pub use temporal_write::Correction;
