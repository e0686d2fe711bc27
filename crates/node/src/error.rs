//! Why an operation was not carried out.

use std::sync::Arc;

use entity::{CommandError, Iri};

/// What sort of error it is; each protocol maps kinds to its own codes in one place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The request is wrong.
    Invalid,
    /// What it is about is not there, or not for this principal.
    NotFound,
    /// Policy says no.
    Denied,
    /// It contradicts the present state.
    Conflict,
    /// A limit is reached.
    Limit,
    /// Not now: busy, shutting down, or the disk refuses.
    Unavailable,
    /// A defect of this program.
    Bug,
}

/// Why an operation was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The present state does not allow it.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Something in the request is wrong.
    #[error("{what}")]
    Invalid {
        /// What, where, expected and found.
        what: String,
    },
    /// Policy says no.
    #[error("{reason}")]
    Denied {
        /// In the user's terms.
        reason: String,
    },
    /// No such entity, or none that this principal may see.
    #[error("entity `{id}` does not exist")]
    NoEntity {
        /// The id.
        id: Iri,
    },
    /// No such subscription.
    #[error("subscription `{id}` does not exist")]
    NoSubscription {
        /// The id.
        id: String,
    },
    /// No such import.
    #[error("there is no import job `{name}`")]
    NoJob {
        /// Its name.
        name: String,
    },
    /// No such instance in the past of an attribute.
    #[error("the past of `{name}` of entity `{entity}` has no instance `{instance}`")]
    NoInstance {
        /// The entity.
        entity: Iri,
        /// The attribute.
        name: Iri,
        /// The instance.
        instance: String,
    },
    /// None of the aggregation methods that were asked for makes sense for an attribute.
    #[error("none of the aggregation methods makes sense for the values of `{name}`")]
    NoMethod {
        /// The attribute.
        name: Iri,
    },
    /// What cannot be done, whoever asks.
    #[error("{what}")]
    Unsupported {
        /// What, and why.
        what: String,
    },
    /// Rows of an import would be missing.
    #[error("{what}")]
    Gap {
        /// Which.
        what: String,
        /// Rows that the job has.
        rows: u64,
    },
    /// Somebody else is at it.
    #[error("{what}")]
    Busy {
        /// What, and what to do.
        what: String,
    },
    /// The id is taken.
    #[error("subscription `{id}` already exists")]
    SubscriptionExists {
        /// The id.
        id: String,
    },
    /// No such registration.
    #[error("registration `{id}` does not exist")]
    NoRegistration {
        /// The id.
        id: String,
    },
    /// The id is taken.
    #[error("registration `{id}` already exists")]
    RegistrationExists {
        /// The id.
        id: Iri,
    },
    /// A proxied registration would be about what another one, or this node, has.
    #[error("registration `{id}` is not possible: {what}")]
    RegistrationClash {
        /// The id.
        id: Iri,
        /// With what.
        what: String,
    },
    /// A named limit.
    #[error("{what}")]
    Limit {
        /// Which limit and how it was exceeded.
        what: String,
    },
    /// Not durable, so not done.
    #[error(transparent)]
    Submit(#[from] store::SubmitError),
    /// The change feed cannot be read from there.
    #[error(transparent)]
    Changes(Arc<store::ChangesError>),
    /// No backup was made.
    #[error("no backup was made")]
    Backup(#[source] Arc<store::backup::BackupError>),
    /// Something else that the operator asked for failed.
    #[error("cannot {what}: {reason}")]
    Maintenance {
        /// What.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// Rows were not taken.
    #[error(transparent)]
    Rows(#[from] store::SubmitRowsError),
    /// The history cannot be read, or not be asked this.
    #[error("the history cannot answer")]
    History(#[source] Arc<store::history::HistoryError>),
    /// The present state cannot be read.
    #[error("cannot read the documents")]
    Documents(#[source] Arc<store::state::DocumentsError>),
}

impl NodeError {
    /// Too many writes are waiting: the same request may be taken a moment later.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        matches!(
            self,
            Self::Submit(e) | Self::Rows(store::SubmitRowsError::Submit(e)) if e.is_busy()
        )
    }

    /// The position of the change feed, or the history of the time asked for, is not kept any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Changes(e) => matches!(**e, store::ChangesError::Gone { .. }),
            Self::History(e) => matches!(**e, store::history::HistoryError::NotKept { .. }),
            _ => false,
        }
    }

    /// The disk is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Submit(e) | Self::Rows(store::SubmitRowsError::Submit(e)) if e.is_disk_full())
    }

    /// What sort of error it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Command(CommandError::AlreadyExists { .. } | CommandError::Changed { .. })
            | Self::SubscriptionExists { .. }
            | Self::RegistrationExists { .. }
            | Self::RegistrationClash { .. }
            | Self::Gap { .. }
            | Self::Busy { .. } => Kind::Conflict,
            Self::Command(CommandError::NoEntity { .. } | CommandError::NoAttribute { .. })
            | Self::NoEntity { .. }
            | Self::NoInstance { .. }
            | Self::NoSubscription { .. }
            | Self::NoRegistration { .. }
            | Self::NoJob { .. } => Kind::NotFound,
            Self::Command(CommandError::Misfit { .. }) | Self::Invalid { .. } | Self::NoMethod { .. } | Self::Unsupported { .. } => {
                Kind::Invalid
            }
            Self::Denied { .. } => Kind::Denied,
            Self::Limit { .. } => Kind::Limit,
            Self::Submit(_) | Self::Rows(store::SubmitRowsError::Submit(_)) => Kind::Unavailable,
            Self::Rows(store::SubmitRowsError::TooLarge { .. }) => Kind::Limit,
            Self::Rows(store::SubmitRowsError::Record(_)) => Kind::Bug,
            Self::Rows(_) => Kind::Invalid,
            Self::Changes(e) => match **e {
                store::ChangesError::Gone { .. } => Kind::NotFound,
                store::ChangesError::Ahead { .. } => Kind::Invalid,
                store::ChangesError::Log(_) | store::ChangesError::Record { .. } => Kind::Bug,
            },
            Self::Backup(e) => match **e {
                store::backup::BackupError::OtherStore { .. } => Kind::Conflict,
                _ => Kind::Unavailable,
            },
            Self::Maintenance { .. } => Kind::Unavailable,
            Self::History(e) => match **e {
                store::history::HistoryError::Refused { .. } => Kind::Invalid,
                store::history::HistoryError::NotKept { .. } => Kind::NotFound,
                store::history::HistoryError::TooManyErasures { .. } | store::history::HistoryError::TooLong { .. } => Kind::Limit,
                _ => Kind::Bug,
            },
            Self::Documents(_) => Kind::Bug,
        }
    }
}

impl From<store::state::DocumentsError> for NodeError {
    fn from(e: store::state::DocumentsError) -> Self {
        Self::Documents(Arc::new(e))
    }
}

impl From<store::EraseError> for NodeError {
    fn from(e: store::EraseError) -> Self {
        match e {
            store::EraseError::History(e) => Self::History(e),
            store::EraseError::Submit(e) => Self::Submit(e),
        }
    }
}

impl From<store::history::HistoryError> for NodeError {
    fn from(e: store::history::HistoryError) -> Self {
        Self::History(Arc::new(e))
    }
}
