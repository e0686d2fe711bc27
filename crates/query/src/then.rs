//! The entities of a type as they were known at an earlier time: a source that says of the past what another one says of the present.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use entity::{Entity, Filter, Instant, Iri};
use store::history::{AttributeColumn, ColumnKind, History};

use crate::source::{Rows, SourceError};
use crate::{Source, walk};

/// Entities that one table of an earlier time looks at.
pub(crate) const AS_OF_ENTITIES_MAX: usize = 1_000_000;
/// Entities that are put together before they are handed on.
const ENTITIES_AT_ONCE: usize = 256;

/// Columns that follow the attributes: the types and scopes that the entity had, as JSON.
pub(crate) const EXTRAS: [&str; 2] = ["types", "scopes"];

/// A source as it was.
pub(crate) struct Then {
    source: Arc<dyn Source>,
    at: Instant,
}

impl Then {
    pub(crate) fn new(source: Arc<dyn Source>, at: Instant) -> Self {
        Self { source, at }
    }
}

impl Source for Then {
    fn types(&self) -> Vec<Iri> {
        self.source.history().tables().into_iter().map(|t| t.entity_type).collect()
    }

    /// Not asked: entities are read a part at a time.
    fn entities(&self, _entity_type: &Iri) -> Vec<Arc<Entity>> {
        Vec::new()
    }

    /// What any entity of the type has had: that of the table, and of those that are of the type now and have their values in another one.
    fn columns(&self, entity_type: &Iri) -> Option<Vec<AttributeColumn>> {
        let known = self.source.history().tables().into_iter().find(|t| t.entity_type == *entity_type);
        let mut columns = known?.columns;
        for more in self.source.columns(entity_type).into_iter().flatten() {
            match columns.iter_mut().find(|c| c.name == more.name) {
                None => columns.push(more),
                Some(c) if c.kind != more.kind => c.kind = ColumnKind::Json,
                Some(_) => {}
            }
        }
        columns.sort_by(|a, b| a.name.cmp(&b.name));
        Some(columns)
    }

    /// The same columns as of the present, and those of [`EXTRAS`].
    fn scan(&self, entity_type: &Iri, attributes: &[Iri], filter: &Filter) -> Rows {
        let ids = filter.conjuncts().find_map(|c| if let Filter::Id(ids) = c { Some(ids.clone()) } else { None });
        let ids = match ids {
            Some(mut ids) => {
                ids.sort();
                ids.dedup();
                Ok(ids)
            }
            None => self.source.ids_as_of(entity_type, self.at, AS_OF_ENTITIES_MAX),
        };
        let ids = match ids {
            Ok(ids) => ids,
            Err(e) => return Box::new(std::iter::once(Err(e))),
        };
        let known = self.columns(entity_type).unwrap_or_default();
        let kind = |name: &Iri| known.iter().find(|c| c.name == *name).map_or(ColumnKind::Text, |c| c.kind);
        let attributes: Vec<(Iri, ColumnKind)> = attributes.iter().map(|a| (a.clone(), kind(a))).collect();
        let (source, at, entity_type, filter) = (Arc::clone(&self.source), self.at, entity_type.clone(), filter.clone());
        let starts = (0..ids.len()).step_by(ENTITIES_AT_ONCE);
        Box::new(starts.map(move |start| {
            let mut entities = Vec::new();
            for id in &ids[start..(start + ENTITIES_AT_ONCE).min(ids.len())] {
                let is_wanted =
                    |e: &Arc<Entity>| e.types.contains(&entity_type) && e.expires_at.is_none_or(|end| end > at) && filter.matches(e);
                entities.extend(source.entity_as_of(id, at)?.filter(is_wanted));
            }
            let batch = walk::batch(&walk::schema(&attributes), &attributes, &entities)?;
            with_extras(&batch, &entities, &*source)
        }))
    }

    fn history(&self) -> &dyn History {
        self.source.history()
    }

    fn short_name(&self, name: &Iri) -> String {
        self.source.short_name(name)
    }
}

fn with_extras(batch: &RecordBatch, entities: &[Arc<Entity>], source: &dyn Source) -> Result<RecordBatch, SourceError> {
    let json = |list: Vec<String>| serde_json::Value::from(list).to_string();
    let types = |e: &Arc<Entity>| json(e.types.iter().map(|t| source.short_name(t)).collect());
    let scopes = |e: &Arc<Entity>| json(e.scopes.iter().map(|s| s.as_str().to_owned()).collect());
    let extras: [ArrayRef; 2] = [
        Arc::new(entities.iter().map(|e| Some(types(e))).collect::<StringArray>()),
        Arc::new(entities.iter().map(|e| Some(scopes(e))).collect::<StringArray>()),
    ];
    let fields = batch.schema_ref().fields().iter().map(|f| f.as_ref().clone());
    let schema = Schema::new(fields.chain(EXTRAS.map(|name| Field::new(name, DataType::Utf8, false))).collect::<Vec<_>>());
    let arrays = batch.columns().iter().cloned().chain(extras).collect();
    RecordBatch::try_new(Arc::new(schema), arrays).map_err(|e| SourceError::Unreadable(Box::new(e)))
}
