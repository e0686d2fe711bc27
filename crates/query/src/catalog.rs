//! Which tables there are: asked of the source for every statement, so that a type appears by itself.

use std::collections::BTreeSet;
use std::sync::Arc;

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

/// What is appended to a type's name for its history.
const HISTORY_SUFFIX: &str = "_history";

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
                listed.push(Listed { name: name.clone(), entity_type: entity_type.clone(), history: None });
            }
            if let Ok(i) = described.binary_search_by(|d| d.entity_type.cmp(entity_type)) {
                listed.push(Listed { name: history_name, entity_type: entity_type.clone(), history: Some(described[i].clone()) });
            }
        }
        listed
    }

    /// The history behind the name of a table, of either kind.
    pub(crate) fn history_of(&self, name: &str) -> Option<Described> {
        let listed = self.list();
        let entity_type = &listed.iter().find(|t| t.name == name)?.entity_type;
        listed.iter().filter(|t| t.entity_type == *entity_type).find_map(|t| t.history.clone())
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
