//! What is valid for a time only (ETSI GS CIM 009 V1.9.1, clause 4.22): hidden from the instant on, and removed soon after.

use std::sync::Arc;

use entity::{Attribute, Command, Entity, EntityPatch, InstancePatch, Instant, MergeOptions, PatchMode, Version};
use store::state::Space;

use crate::error::NodeError;
use crate::node::Node;

/// Entities that are cleared of what has expired in one change.
const REMOVED_TOGETHER_MAX: usize = 1_000;

/// The entity without the instances of attributes that have expired.
pub(crate) fn unexpired(entity: Arc<Entity>, now: Instant) -> Arc<Entity> {
    let has_ended = |a: &Attribute| a.expires_at().is_some_and(|at| at <= now);
    if !entity.attributes.values().flatten().any(has_ended) {
        return entity;
    }
    let mut shown = Arc::unwrap_or_clone(entity);
    shown.attributes.retain(|_, instances| {
        instances.retain(|a| !has_ended(a));
        !instances.is_empty()
    });
    Arc::new(shown)
}

impl Node {
    /// Removes entities and instances of attributes that have expired; how many entities were changed.
    ///
    /// Errors: nothing could be made durable.
    pub async fn remove_expired(&self) -> Result<usize, NodeError> {
        let mut n_changed = 0;
        loop {
            let now = self.now();
            let table = self.store.table(Space::City);
            let (mut commands, mut versions) = (Vec::new(), Vec::new());
            for id in table.due(now, REMOVED_TOGETHER_MAX) {
                let Some(entity) = table.try_get(id.as_str())? else { continue };
                // Whoever gives it a longer life meanwhile is not overruled.
                versions.push(Some(Version::of(Some(&entity))));
                commands.push(removal(&entity, now));
            }
            if commands.is_empty() {
                return Ok(n_changed);
            }
            let (n_due, outcomes) = (commands.len(), self.submit_if(Space::City, commands, versions)?.await?);
            n_changed += outcomes.iter().filter(|o| o.is_ok()).count();
            if n_due < REMOVED_TOGETHER_MAX {
                return Ok(n_changed);
            }
        }
    }

    /// The id of an entity that has expired can be given to a new one at once.
    pub(crate) async fn make_room_for(&self, commands: &[Command]) -> Result<(), NodeError> {
        let table = self.store.table(Space::City);
        let now = self.now();
        if table.due(now, 1).is_empty() || !commands.iter().any(|c| matches!(c, Command::Create(_))) {
            return Ok(());
        }
        self.remove_expired().await.map(drop)
    }
}

fn removal(entity: &Entity, now: Instant) -> Command {
    if entity.expires_at.is_some_and(|at| at <= now) {
        return Command::Delete(entity.id.clone());
    }
    let mut patch = EntityPatch::of(entity.id.clone());
    for (name, instances) in &entity.attributes {
        let ended = instances.iter().filter(|a| a.expires_at().is_some_and(|at| at <= now));
        patch.attributes.extend(ended.map(|a| (name.clone(), InstancePatch::Remove(a.dataset_id.clone()))));
    }
    Command::Patch { patch, mode: PatchMode::Merge(MergeOptions::default()) }
}
