//! Cities together: identities, signed messages, peers, questions that travel.
//!
//! Each city keeps its data; questions travel. A [`Question`] goes to every member of the cluster in a message signed by the asking city's
//! [`CityKey`] ([`signature`]); each member decides by its own agreements (crate `policy`) and sends back a signed [`Answer`]; [`merge`] makes
//! one list of entities of the answers and tells of every city what it contributed, or why it did not. [`Peers`] remembers who answers, so
//! that a city that is down degrades an answer, visibly, and never holds it up.
//!
//! What comes from the network is bounded and checked here, down to each name and instant, before anything else sees it.
//!
//! **Invariant:** no sockets, no HTTP library, no clock: everything is fed with messages and the time. The one exception is
//! [`CityKey::generate`], which asks the operating system for randomness.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod key;
mod merge;
mod peers;
mod question;
pub mod signature;

pub use key::{CityKey, KeyFileError, verify};
pub use merge::{CityResult, Contribution, MergedEntities, MergedPast, PROVENANCE, Source, SourceStatus, merge_entities, merge_pasts};
pub use peers::{BACKOFF_FIRST_US, BACKOFF_MAX_US, Member, MemberError, NotAsked, Peer, PeerState, PeerStatus, Peers};
pub use policy::{CityName, PublicKey, PublicKeyError, Purpose};
pub use question::{
    ANSWER_BYTES_MAX, Answer, ENTITIES_MAX, Evolution, FILTER_DEPTH_MAX, FILTER_NODES_MAX, INSTANCES_MAX, Kind, MessageError,
    MismatchError, NAMES_MAX, Outcome, PATTERNS_MAX, Past, QUESTION_BYTES_MAX, Question, TEXT_CHARS_MAX, TimeProperty, VERSION,
};
