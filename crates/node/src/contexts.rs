//! JSON-LD contexts that this node serves to others, kept like everything else (ETSI GS CIM 009 V1.9.1, clause 5.13).
//!
//! What a context means is the edge's business; here it is a document with a name.

use entity::{Attribute, AttributeValue, Command, Entity, Instant, Iri};
use policy::{Action, Principal};
use serde::{Deserialize, Serialize};
use store::state::Space;

use crate::error::NodeError;
use crate::node::Node;

/// Contexts that clients may host at one node.
pub const HOSTED_CONTEXTS_MAX: usize = 1_000;

/// Contexts that a node keeps because answers and notifications linked to them; beyond it the oldest goes.
pub const IMPLICIT_CONTEXTS_MAX: usize = 10_000;

const HOSTED_TYPE: &str = "https://conurb.org/ns#HostedContext";
const IMPLICIT_TYPE: &str = "https://conurb.org/ns#ImplicitContext";
const ID_PREFIX: &str = "urn:conurb:context:";
const DOCUMENT: &str = "https://conurb.org/ns#document";

/// How a context came to be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ContextOrigin {
    /// A client gave it to us.
    Hosted,
    /// The node made it, so that an answer could link to it.
    ImplicitlyCreated,
}

/// A context that is kept.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StoredContext {
    /// Its name in this node: letters and digits.
    pub id: String,
    /// How it came to be.
    pub origin: ContextOrigin,
    /// Since when it is kept, µs since 1970.
    pub created_us: i64,
    /// The value of its member `@context`.
    pub context: serde_json::Value,
}

impl StoredContext {
    /// Since when it is kept.
    #[must_use]
    pub fn created_at(&self) -> Instant {
        Instant::from_micros(self.created_us)
    }
}

impl Node {
    /// All contexts that are kept, for the edge when it starts. One that does not read back is left out and reported in the log.
    #[must_use]
    pub fn stored_contexts(&self) -> Vec<StoredContext> {
        let table = self.store.table(Space::Node);
        let stored = [HOSTED_TYPE, IMPLICIT_TYPE].into_iter().flat_map(|t| table.of_type(&Iri::known(t)));
        stored.filter_map(|entity| document_of(&entity)).collect()
    }

    /// Keeps a context that a client gives us; durable when this returns.
    ///
    /// Errors: the policy's; there are [`HOSTED_CONTEXTS_MAX`]; it could not be made durable.
    pub async fn host_context(&self, who: &Principal, context: &StoredContext) -> Result<(), NodeError> {
        self.permit(who, Action::Write, None)?;
        if self.store.table(Space::Node).of_type(&Iri::known(HOSTED_TYPE)).len() >= HOSTED_CONTEXTS_MAX {
            return Err(NodeError::Limit { what: format!("there are {HOSTED_CONTEXTS_MAX} hosted contexts, which is the limit") });
        }
        self.submit(Space::Node, vec![Command::UpsertReplace(entity_of(context, HOSTED_TYPE))])?.await?;
        Ok(())
    }

    /// Keeps a context that the node itself made; durable when this returns. Gives the ids of older ones that had to go.
    ///
    /// Errors: it could not be made durable.
    pub async fn keep_context(&self, context: &StoredContext) -> Result<Vec<String>, NodeError> {
        let mut kept: Vec<StoredContext> = Vec::new();
        let stored = self.store.table(Space::Node).of_type(&Iri::known(IMPLICIT_TYPE));
        if stored.len() >= IMPLICIT_CONTEXTS_MAX {
            kept.extend(stored.iter().filter_map(|e| document_of(e)));
        }
        // A tenth at once: making room reads all of them.
        kept.sort_by_key(|c| c.created_us);
        let gone: Vec<String> = kept.into_iter().take(IMPLICIT_CONTEXTS_MAX / 10).map(|c| c.id).collect();
        let mut commands: Vec<Command> = gone.iter().map(|id| Command::Delete(iri_of(id))).collect();
        commands.push(Command::UpsertReplace(entity_of(context, IMPLICIT_TYPE)));
        self.submit(Space::Node, commands)?.await?;
        Ok(gone)
    }

    /// Forgets a context that was kept; durable when this returns. It is no error if there is none.
    ///
    /// Errors: the policy's; it could not be made durable.
    pub async fn delete_context(&self, who: &Principal, id: &str) -> Result<(), NodeError> {
        self.permit(who, Action::Write, None)?;
        self.submit(Space::Node, vec![Command::Delete(iri_of(id))])?.await?;
        Ok(())
    }
}

fn iri_of(id: &str) -> Iri {
    Iri::known(&format!("{ID_PREFIX}{id}"))
}

fn entity_of(context: &StoredContext, entity_type: &str) -> Entity {
    let document = serde_json::to_value(context).expect("a context is JSON");
    Entity::new(iri_of(&context.id), Iri::known(entity_type)).with(Iri::known(DOCUMENT), Attribute::new(AttributeValue::Json(document)))
}

fn document_of(stored: &Entity) -> Option<StoredContext> {
    let AttributeValue::Json(document) = &stored.attribute(DOCUMENT)?.value else { return None };
    serde_json::from_value(document.clone())
        .inspect_err(|e| tracing::warn!(id = %stored.id, error = %e, "a stored context is damaged"))
        .ok()
}
