//! The temporal form of an entity: each attribute a series of instances (ETSI GS CIM 009 V1.9.1, clauses 4.5.6 to 4.5.8).

use std::sync::Arc;

use entity::Entity;
use serde_json::Value;

use super::{Parts, Series, entity_parts};
use crate::context::Context;
use crate::error::{Error, Result};

/// The most instances in one document, all attributes together.
pub const INSTANCES_IN_EVOLUTION_MAX: usize = 100_000;

/// An entity over time, as somebody sends it.
#[derive(Debug, Clone, PartialEq)]
pub struct Evolution {
    /// Id, types and scopes; no attributes.
    pub entity: Entity,
    /// The instances of each attribute, in the order given.
    pub attributes: entity::Series,
}

/// Reads the temporal form (clause 5.6.11): id and type are mandatory.
///
/// Errors: as [`super::entity`]; more than [`INSTANCES_IN_EVOLUTION_MAX`] instances; an instance without `observedAt`, which would have
/// no place in time.
pub fn evolution(value: Value, context: &Context) -> Result<Evolution> {
    let mut parts = entity_parts(value, context, Series::Yes)?;
    let id = parts.id.take().ok_or_else(|| Error::bad("the mandatory member `id` is missing").within("entity"))?;
    if parts.types.is_empty() {
        return Err(Error::bad("the mandatory member `type` is missing").within("entity"));
    }
    let attributes = std::mem::take(&mut parts.attributes);
    let n_instances: usize = attributes.values().map(|i| i.len()).sum();
    if n_instances > INSTANCES_IN_EVOLUTION_MAX {
        return Err(Error::bad(format!("{n_instances} instances are more than the limit of {INSTANCES_IN_EVOLUTION_MAX}")));
    }
    for (name, instances) in &attributes {
        if let Some(i) = instances.iter().position(|a| a.observed_at.is_none()) {
            return Err(
                Error::bad("an instance of a series needs `observedAt`").within(&format!("attribute {}/{i}", context.compact(name)))
            );
        }
    }
    let attributes =
        attributes.into_iter().map(|(name, instances)| (name, instances.into_iter().map(Arc::unwrap_or_clone).collect())).collect();
    Ok(Evolution { entity: Entity { id, ..Entity::from(Parts { id: None, ..parts }) }, attributes })
}
