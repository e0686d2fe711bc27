//! Which tables there are: asked of the source for every statement, so that a type appears by itself.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::TableType;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::catalog_info::CatalogInfo;
use entity::Iri;
use store::history::HistoryTable as Described;
use tokio::time::Instant;

use crate::engine::SCHEMA;
use crate::error::QueryError;
use crate::history::HistoryTable;
use crate::latest::LatestTable;
use crate::{Source, names};

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

/// How long what `pg_catalog` shows may be out of date. Describing a table takes a dozen statements that each ask for the columns of every
/// table, and finding those out means looking at every entity.
const LISTING_AGE_MAX: Duration = Duration::from_secs(2);

/// What `pg_catalog` shows: everything in the catalogs, tables and columns a little out of date.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    list: Arc<dyn CatalogProviderList>,
    seen: Arc<Mutex<Seen>>,
}

/// When the tables, and the columns of each, were found out, and what they were.
#[derive(Default, Debug)]
struct Seen {
    tables: Option<(Instant, Option<Vec<String>>)>,
    columns: HashMap<String, (Instant, Option<SchemaRef>)>,
}

impl Directory {
    pub(crate) fn new(list: Arc<dyn CatalogProviderList>) -> Self {
        Self { list, seen: Arc::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fresh<T: Clone>(seen: Option<&(Instant, T)>) -> Option<T> {
    seen.filter(|(at, _)| at.elapsed() < LISTING_AGE_MAX).map(|(_, what)| what.clone())
}

#[async_trait]
impl CatalogInfo for Directory {
    async fn catalog_names(&self) -> Result<Vec<String>> {
        CatalogInfo::catalog_names(&self.list).await
    }

    async fn schema_names(&self, catalog: &str) -> Result<Option<Vec<String>>> {
        self.list.schema_names(catalog).await
    }

    async fn table_names(&self, catalog: &str, schema: &str) -> Result<Option<Vec<String>>> {
        if schema != SCHEMA {
            return self.list.table_names(catalog, schema).await;
        }
        if let Some(names) = fresh(self.seen().tables.as_ref()) {
            return Ok(names);
        }
        let names = self.list.table_names(catalog, schema).await?;
        self.seen().tables = Some((Instant::now(), names.clone()));
        Ok(names)
    }

    async fn table_schema(&self, catalog: &str, schema: &str, table: &str) -> Result<Option<SchemaRef>> {
        if schema != SCHEMA {
            return self.list.table_schema(catalog, schema, table).await;
        }
        if let Some(columns) = fresh(self.seen().columns.get(table)) {
            return Ok(columns);
        }
        let columns = self.list.table_schema(catalog, schema, table).await?;
        let mut seen = self.seen();
        seen.columns.retain(|_, (at, _)| at.elapsed() < LISTING_AGE_MAX);
        seen.columns.insert(table.to_owned(), (Instant::now(), columns.clone()));
        Ok(columns)
    }

    async fn table_type(&self, catalog: &str, schema: &str, table: &str) -> Result<Option<TableType>> {
        // Asked of tables that were just listed.
        if schema == SCHEMA { Ok(Some(TableType::Base)) } else { self.list.table_type(catalog, schema, table).await }
    }
}
