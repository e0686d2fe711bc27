//! Which tables there are: asked of the source for every statement, so that a type appears by itself.
//!
//! * [`directory`] is what the catalogs show of them, and how things are numbered.
//! * [`system`] are the schemas `pg_catalog` and `information_schema`, made of [`relations`], [`information`] and [`spatial`].
//! * [`activity`] is `pg_stat_activity`.
//! * [`functions`] are the functions that clients ask about the catalogs.

mod activity;
mod columns;
mod directory;
pub(crate) mod functions;
mod information;
mod relations;
mod spatial;
pub(crate) mod system;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::TableType;
use entity::Iri;
use store::history::HistoryTable as Described;

use crate::error::QueryError;
use crate::history::HistoryTable;
use crate::latest::LatestTable;
use crate::{Source, names};

pub(crate) use activity::{Activities, Activity, State};
pub(crate) use directory::{Directory, GEOGRAPHY_OID, GEOMETRY_OID};

/// What is appended to a type's name for its history.
pub(crate) const HISTORY_SUFFIX: &str = "_history";

/// The schema `public` over a source.
pub(crate) struct Tables {
    pub(crate) source: Arc<dyn Source>,
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tables").finish_non_exhaustive()
    }
}

/// A table by name.
struct Listed {
    name: String,
    /// The name of its type: its own, or that of the table it is the history of.
    type_name: String,
    entity_type: Iri,
    /// Its history, or none for what is now.
    history: Option<Described>,
}

impl Tables {
    fn list(&self) -> Vec<Listed> {
        let current: BTreeSet<Iri> = self.source.types().into_iter().collect();
        let mut described = self.source.history().tables();
        described.sort_by(|a, b| a.entity_type.cmp(&b.entity_type));
        // Named over both, so that a type keeps its name when its last entity or its history goes.
        let all: BTreeSet<&Iri> = current.iter().chain(described.iter().map(|d| &d.entity_type)).collect();
        let wanted = all.into_iter().map(|t| (t.clone(), self.source.short_name(t))).collect();
        let named = names::assign(wanted, &[]);
        let taken: Vec<&str> = named.iter().map(|(_, name)| name.as_str()).collect();
        let wanted = named.iter().map(|(t, name)| (t.clone(), format!("{name}{HISTORY_SUFFIX}"))).collect();
        let histories = names::assign(wanted, &taken);

        let mut listed = Vec::new();
        for ((entity_type, name), (_, history_name)) in named.iter().zip(histories) {
            if current.contains(entity_type) {
                listed.push(Listed { name: name.clone(), type_name: name.clone(), entity_type: entity_type.clone(), history: None });
            }
            if let Ok(i) = described.binary_search_by(|d| d.entity_type.cmp(entity_type)) {
                listed.push(Listed {
                    name: history_name,
                    type_name: name.clone(),
                    entity_type: entity_type.clone(),
                    history: Some(described[i].clone()),
                });
            }
        }
        listed
    }

    /// All tables with their columns: name, type, whether it is a history. Cost: that of [`Source::columns`] for each type.
    fn described_all(&self) -> Vec<(String, Iri, bool, SchemaRef)> {
        let described = |Listed { name, entity_type, history, .. }: Listed| {
            let (source, of) = (self.source.clone(), entity_type.clone());
            let (is_history, schema) = match history {
                Some(described) => (true, HistoryTable::new(source, described, None).schema()),
                None => (false, LatestTable::of(source, of)?.schema()),
            };
            Some((name, entity_type, is_history, schema))
        };
        self.list().into_iter().filter_map(described).collect()
    }

    /// The history behind a history table.
    pub(crate) fn described(&self, name: &str) -> Option<Described> {
        self.list().into_iter().filter(|t| t.name == name).find_map(|t| t.history)
    }

    /// The history of a type by its name, or by that of its history table.
    pub(crate) fn history_of(&self, name: &str) -> Option<Described> {
        self.list().into_iter().filter(|t| t.type_name == name || t.name == name).find_map(|t| t.history)
    }

    /// Is this the name of a history table, and not that of a type?
    pub(crate) fn is_history(&self, name: &str) -> bool {
        self.list().iter().any(|t| t.name == name && t.history.is_some())
    }

    /// The type and the table that rows of a history table belong to.
    ///
    /// Errors: [`QueryError::Copy`] if it is no history table.
    pub(crate) fn history_table(&self, name: &str) -> std::result::Result<(Iri, HistoryTable), QueryError> {
        let listed = self.list();
        match listed.iter().find(|t| t.name == name) {
            Some(Listed { entity_type, history: Some(described), .. }) => {
                Ok((entity_type.clone(), HistoryTable::new(self.source.clone(), described.clone(), None)))
            }
            Some(_) => {
                let reason = format!("rows are observations: they are written to \"{name}{HISTORY_SUFFIX}\", not to \"{name}\"");
                Err(QueryError::Copy { reason })
            }
            None => Err(match listed.iter().find(|t| t.name.eq_ignore_ascii_case(name)) {
                Some(t) => QueryError::TableCase { asked: name.to_owned(), meant: t.name.clone() },
                None => QueryError::Copy { reason: format!("there is no table \"{name}\"") },
            }),
        }
    }
}

#[async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        self.list().into_iter().map(|t| t.name).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let mut listed = self.list();
        let Some(i) = listed.iter().position(|t| t.name == name) else {
            let other_case = listed.iter().find(|t| t.name.eq_ignore_ascii_case(name));
            return match other_case {
                Some(t) => Err(QueryError::TableCase { asked: name.to_owned(), meant: t.name.clone() }.into()),
                None => Ok(None),
            };
        };
        let Listed { entity_type, history, .. } = listed.swap_remove(i);
        let source = self.source.clone();
        if let Some(described) = history {
            return Ok(Some(Arc::new(HistoryTable::new(source, described, None))));
        }
        // Looks at every entity of the type: not on a thread that answers sockets.
        let table = tokio::task::spawn_blocking(move || LatestTable::of(source, entity_type)).await;
        let table = table.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))?;
        Ok(table.map(|t| Arc::new(t) as Arc<dyn TableProvider>))
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        Ok(self.table_exist(name).then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.list().iter().any(|t| t.name == name)
    }
}
