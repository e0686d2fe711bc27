//! Removing many entities, or attributes of many, by a condition (ETSI GS CIM 009 V1.9.1, clause 5.6.21).

use entity::{Command, CommandError, Filter, Iri};
use policy::Principal;
use store::state::{PageRequest, Space};

use crate::error::NodeError;
use crate::node::Node;

/// Entities that are changed together, with one recorded time: a purge of more is several changes.
pub const PURGED_TOGETHER_MAX: usize = 10_000;

/// What is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purged {
    /// The entities.
    Entities,
    /// Attributes of theirs.
    Attributes {
        /// Their names.
        names: Vec<Iri>,
        /// These stay, and all others go.
        others: bool,
    },
}

/// What came of a purge.
#[derive(Debug, Default)]
pub struct PurgeOutcome {
    /// Entities of which everything was removed that should be.
    pub done: Vec<Iri>,
    /// The others.
    pub failed: Vec<(Iri, CommandError)>,
}

impl Node {
    /// Removes what a condition holds of. Entities that come to satisfy it meanwhile may stay.
    ///
    /// Errors: those of [`Node::write`]; what was removed before stays removed.
    pub async fn purge(&self, who: &Principal, filter: &Filter, what: &Purged) -> Result<PurgeOutcome, NodeError> {
        self.may_see_everything(who)?;
        let mut outcome = PurgeOutcome::default();
        let mut after: Option<Iri> = None;
        loop {
            let request = PageRequest { after: after.as_ref().map(Iri::as_str), ..PageRequest::of(filter, PURGED_TOGETHER_MAX) };
            let page = self.store.table(Space::City).try_page(&request)?;
            let ids: Vec<Iri> = page.entities.iter().map(|e| e.id.clone()).collect();
            after = ids.last().cloned();
            let command = |id: &Iri| match what {
                Purged::Entities => Command::Delete(id.clone()),
                Purged::Attributes { names, others } => Command::RemoveAttributes { id: id.clone(), names: names.clone(), others: *others },
            };
            let commands: Vec<Command> = ids.iter().map(command).collect();
            if !commands.is_empty() {
                for (id, result) in ids.into_iter().zip(self.write(who, commands).await?) {
                    match result {
                        // Somebody else was quicker.
                        Ok(_) | Err(CommandError::NoEntity { .. }) => outcome.done.push(id),
                        Err(e) => outcome.failed.push((id, e)),
                    }
                }
            }
            if !page.more {
                return Ok(outcome);
            }
        }
    }
}
