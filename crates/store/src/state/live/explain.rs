//! What answering a query took, for people.

use std::fmt;

use entity::{Filter, Iri, Target};
use serde::Serialize;

use super::LiveTable;
use super::inner::Inner;
use super::page::PageRequest;
use crate::state::DocumentsError;

/// How a query was answered. It was carried out to find out.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Where the candidates came from.
    pub source: String,
    /// Candidates expected there.
    pub estimated: usize,
    /// Every source considered, with the candidates expected of it.
    pub considered: Vec<(String, usize)>,
    /// Entities judged on columns.
    pub looked_at: u64,
    /// Entities read whole, from memory or disk.
    pub documents_read: u64,
    /// The conditions that must all hold, in the order in which they were judged.
    pub conditions: Vec<ConditionReport>,
    /// The order of the answer.
    pub order: String,
    /// Entities returned.
    pub returned: usize,
    /// Are there more?
    pub more: bool,
    /// The ordered indexes that were made by themselves, of all types.
    pub automatic_indexes: Vec<AutoReport>,
    /// Bytes of memory that all indexes take, about.
    pub index_bytes: usize,
}

/// How one condition was judged.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConditionReport {
    /// The condition.
    pub condition: String,
    /// Entities of which the columns told.
    pub decided_on_columns: u64,
    /// Entities whose documents had to be asked.
    pub asked_documents: u64,
}

/// An index that was made by itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AutoReport {
    /// The type.
    #[serde(rename = "type")]
    pub entity_type: Iri,
    /// The attribute whose values are ordered.
    pub attribute: Iri,
    /// Entities in it.
    pub entries: usize,
}

impl LiveTable {
    /// Answers a query and tells what that took.
    ///
    /// Errors: a document cannot be read.
    pub fn explain(&self, request: &PageRequest<'_>) -> Result<Explanation, DocumentsError> {
        let (page, trace) = self.core.run(request)?;
        let conditions = request.filter.conjuncts().zip(&trace.tallies).map(|(f, t)| ConditionReport {
            condition: describe(f),
            decided_on_columns: t.n_decided,
            asked_documents: t.n_asked,
        });
        let (automatic_indexes, index_bytes) = self.core.read(|inner| (auto_reports(inner), inner.memory_bytes()));
        Ok(Explanation {
            source: trace.source,
            estimated: trace.estimated,
            considered: trace.considered,
            looked_at: trace.n_looked_at,
            documents_read: trace.n_documents,
            conditions: conditions.collect(),
            order: match &request.order_by {
                None => "id".to_owned(),
                Some(o) => format!("{} {:?}, id", o.attribute.local_name(), o.direction).to_lowercase(),
            },
            returned: page.entities.len(),
            more: page.more,
            automatic_indexes,
            index_bytes,
        })
    }

    /// The ordered indexes that were made by themselves.
    #[must_use]
    pub fn automatic_indexes(&self) -> Vec<AutoReport> {
        self.core.read(auto_reports)
    }
}

fn auto_reports(inner: &Inner) -> Vec<AutoReport> {
    let reports = inner
        .types
        .iter()
        .flat_map(|t| t.autos.iter().map(|a| AutoReport { entity_type: t.name.clone(), attribute: a.attribute.clone(), entries: a.len() }));
    reports.collect()
}

/// A condition in a few words; names are shortened.
fn describe(filter: &Filter) -> String {
    let list = |l: &[Filter], word: &str| format!("({})", l.iter().map(describe).collect::<Vec<_>>().join(word));
    match filter {
        Filter::And(l) => list(l, " and "),
        Filter::Or(l) => list(l, " or "),
        Filter::Not(f) => format!("not {}", describe(f)),
        Filter::Type(s) => format!("type {}", s.names().iter().map(Iri::local_name).collect::<Vec<_>>().join(", ")),
        Filter::Id(ids) => format!("one of {} ids", ids.len()),
        Filter::IdPattern(_) => "id in a pattern".to_owned(),
        Filter::Linked(l) => format!("{} leads to ({})", l.relationship.local_name(), describe(&l.condition)),
        Filter::Scope(_) => "scope in a pattern".to_owned(),
        Filter::HasAnyOf(names) => format!("has {}", names.iter().map(Iri::local_name).collect::<Vec<_>>().join(" or ")),
        Filter::Value(target, comparison) => {
            let target = match target {
                Target::EntityCreatedAt => "createdAt".to_owned(),
                Target::EntityModifiedAt => "modifiedAt".to_owned(),
                Target::Attribute(path) => {
                    let subs = path.subs.iter().map(Iri::local_name);
                    let parts = std::iter::once(path.attribute.local_name()).chain(subs).chain(path.member.as_deref());
                    let keys: String = path.keys.iter().map(|k| format!("[{k}]")).collect();
                    parts.collect::<Vec<_>>().join(".") + &keys
                }
            };
            format!("{target} {comparison:?}")
        }
        Filter::Geo(g) => format!("{} {:?}", g.property.local_name(), g.relation),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "source: {} (about {} candidates)", self.source, self.estimated)?;
        for (source, n) in &self.considered {
            writeln!(f, "  considered: {source} (about {n})")?;
        }
        writeln!(f, "order: {}", self.order)?;
        writeln!(f, "looked at on columns: {}", self.looked_at)?;
        for c in &self.conditions {
            writeln!(f, "  {}: {} decided, {} left to documents", c.condition, c.decided_on_columns, c.asked_documents)?;
        }
        writeln!(f, "documents read: {}", self.documents_read)?;
        writeln!(f, "returned: {}{}", self.returned, if self.more { ", and there are more" } else { "" })?;
        if self.automatic_indexes.is_empty() {
            writeln!(f, "automatic indexes: none")?;
        }
        for a in &self.automatic_indexes {
            writeln!(f, "automatic index: {} of {}, {} entries", a.attribute.local_name(), a.entity_type.local_name(), a.entries)?;
        }
        write!(f, "memory of all indexes: {} bytes", self.index_bytes)
    }
}
