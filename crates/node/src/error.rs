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
    /// The id is taken.
    #[error("subscription `{id}` already exists")]
    SubscriptionExists {
        /// The id.
        id: String,
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
    /// The history cannot be read, or not be asked this.
    #[error("the history cannot answer")]
    History(#[source] Arc<store::history::HistoryError>),
}

impl NodeError {
    /// Too many writes are waiting: the same request may be taken a moment later.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        matches!(self, Self::Submit(store::SubmitError::Busy { .. }))
    }

    /// What sort of error it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Command(CommandError::AlreadyExists { .. }) | Self::SubscriptionExists { .. } => Kind::Conflict,
            Self::Command(CommandError::NoEntity { .. } | CommandError::NoAttribute { .. })
            | Self::NoEntity { .. }
            | Self::NoSubscription { .. } => Kind::NotFound,
            Self::Invalid { .. } => Kind::Invalid,
            Self::Denied { .. } => Kind::Denied,
            Self::Limit { .. } => Kind::Limit,
            Self::Submit(_) => Kind::Unavailable,
            Self::History(e) => match **e {
                store::history::HistoryError::Refused { .. } => Kind::Invalid,
                _ => Kind::Bug,
            },
        }
    }
}

impl From<store::history::HistoryError> for NodeError {
    fn from(e: store::history::HistoryError) -> Self {
        Self::History(Arc::new(e))
    }
}
