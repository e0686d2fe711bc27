//! Bulk export over HTTP: the present or the history of a type as a file, written while it is read, so that memory stays bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, LINK};
use axum::response::{IntoResponse, Response};
use entity::{AttributeValue, Entity, Filter, Instant, Iri, TypeSelector};
use ngsi::encode::{self, Document};
use ngsi::{Context, Representation, View};
use node::{AttributeColumn, ColumnKind, HistoryScan, NodeError, QUERY_LIMIT_MAX, TemporalQuery, TimeProperty};
use policy::Principal;
use serde::Deserialize;
use table::{Cell, ColumnType, ExportColumn, Format, HistoryExport, LatestExport, WriteError};
use tokio::sync::mpsc;

use crate::App;
use crate::auth::Caller;
use crate::problem::Problem;

/// Entities whose history is exported, at most: their ids are in memory.
const ENTITIES_MAX: usize = 10_000_000;
/// Entities whose history is read at once.
const ENTITIES_AT_ONCE: usize = 100;
/// Instances of one entity that are read at once.
const INSTANCES_AT_ONCE: usize = 20_000;
/// Pieces of the answer that wait for the client.
const PIECES_WAITING_MAX: usize = 4;
/// A piece is sent when it has grown to so many bytes.
const PIECE_BYTES: usize = 256 << 10;

/// The parameters, in the URL's query.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Parameters {
    #[serde(default)]
    format: ExportFormat,
    #[serde(default)]
    what: What,
    from: Option<String>,
    to: Option<String>,
    as_of: Option<String>,
}

/// The names, for OpenAPI.
pub(crate) const NAMES: [&str; 5] = ["format", "what", "from", "to", "asOf"];

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "lowercase")]
enum ExportFormat {
    #[default]
    Csv,
    Parquet,
    Arrow,
    Jsonl,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "lowercase")]
enum What {
    Latest,
    #[default]
    History,
}

/// An export under way, on a thread of its own.
struct Export {
    app: Arc<App>,
    who: Principal,
    context: Arc<Context>,
    entity_type: Iri,
    interval: Range<Instant>,
    as_of: Option<Instant>,
    out: mpsc::Sender<io::Result<Bytes>>,
    waiting: Vec<u8>,
}

/// Why an export ends before its end.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error("cannot read the history")]
    History(#[from] node::HistoryError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("the client is gone")]
    Gone,
}

/// `GET /api/v1/export/{type}`: observations (what=history) or the present (what=latest) as CSV, Parquet, an Arrow stream or JSON lines.
pub(crate) async fn export(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    headers: HeaderMap,
    Path(type_name): Path<String>,
    Query(parameters): Query<Parameters>,
) -> Result<Response, Problem> {
    let link = headers.get(LINK).and_then(|v| v.to_str().ok()).map(ngsi::context::context_of_link_header).transpose()?.flatten();
    let context = app.contexts.of_url(link.as_deref()).await?;
    let entity_type = context.expand(&type_name)?;
    let instant = |name: &str, text: &Option<String>| -> Result<Option<Instant>, Problem> {
        text.as_deref().map(|t| t.parse::<Instant>().map_err(|e| Problem::invalid_request(format!("parameter `{name}`: {e}")))).transpose()
    };
    let from = instant("from", &parameters.from)?.unwrap_or(Instant::MIN);
    let to = instant("to", &parameters.to)?.unwrap_or(Instant::MAX);
    let as_of = instant("asOf", &parameters.as_of)?;
    if parameters.what == What::Latest && (parameters.from.is_some() || parameters.to.is_some() || as_of.is_some()) {
        return Err(Problem::invalid_request("`from`, `to` and `asOf` are for what=history"));
    }
    let is_present = app.node.types(&who)?.iter().any(|(t, _)| *t == entity_type);
    // The history outlives the entities.
    let is_past = || Ok::<_, NodeError>(app.node.history(&who)?.tables().iter().any(|t| t.entity_type == entity_type));
    if !is_present && (parameters.what == What::Latest || !is_past()?) {
        let detail = format!("there is no entity of type `{type_name}`");
        return Err(Problem::new(axum::http::StatusCode::NOT_FOUND, "ResourceNotFound", detail));
    }
    let (out, mut pieces) = mpsc::channel(PIECES_WAITING_MAX);
    let mut export = Export { app, who, context, entity_type, interval: from..to, as_of, out, waiting: Vec::new() };
    tokio::task::spawn_blocking(move || match export.run(parameters.format, parameters.what) {
        Ok(()) | Err(ExportError::Gone) => {}
        Err(e) => {
            let text = crate::chain(&e);
            tracing::error!(error = text, "an export broke off");
            // The client sees that the answer is cut off; nothing else can be said after the status.
            let _ = export.out.blocking_send(Err(io::Error::other(text)));
        }
    });
    let (media_type, extension) = match parameters.format {
        ExportFormat::Csv => (Format::Csv.media_type(), "csv"),
        ExportFormat::Parquet => (Format::Parquet.media_type(), "parquet"),
        ExportFormat::Arrow => (Format::Arrow.media_type(), "arrows"),
        ExportFormat::Jsonl => ("application/x-ndjson", "jsonl"),
    };
    let name: String = type_name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    let stream = futures::stream::poll_fn(move |cx| pieces.poll_recv(cx));
    let disposition = format!("attachment; filename=\"{name}.{extension}\"");
    Ok(([(CONTENT_TYPE, media_type.to_owned()), (CONTENT_DISPOSITION, disposition)], Body::from_stream(stream)).into_response())
}

impl Export {
    fn run(&mut self, format: ExportFormat, what: What) -> Result<(), ExportError> {
        let format = match format {
            ExportFormat::Csv => Some(Format::Csv),
            ExportFormat::Parquet => Some(Format::Parquet),
            ExportFormat::Arrow => Some(Format::Arrow),
            ExportFormat::Jsonl => None,
        };
        match (what, format) {
            (What::Latest, Some(format)) => self.latest_table(format)?,
            (What::Latest, None) => self.latest_lines()?,
            (What::History, Some(format)) => self.history_table(format)?,
            (What::History, None) => self.history_lines()?,
        }
        self.send()
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= PIECE_BYTES { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), ExportError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.waiting));
        self.out.blocking_send(Ok(piece)).map_err(|_| ExportError::Gone)
    }

    fn push_line(&mut self, entity: &Entity) -> Result<(), ExportError> {
        let mut line = encode::entity(entity, &View::of(Representation::Normalized), &self.context, Document::Json);
        line.push(b'\n');
        self.push(&line)
    }

    /// The present entities, page by page; what changes meanwhile is seen or not.
    fn each_entity(&mut self, mut visit: impl FnMut(&mut Self, &Entity) -> Result<(), ExportError>) -> Result<(), ExportError> {
        let filter = Filter::Type(TypeSelector::Is(self.entity_type.clone()));
        let mut offset = 0;
        loop {
            let query = node::Query { offset, ..node::Query::of(filter.clone(), QUERY_LIMIT_MAX) };
            let page = self.app.node.query(&self.who, &query)?;
            for entity in &page.entities {
                visit(self, entity)?;
            }
            if page.entities.len() < QUERY_LIMIT_MAX {
                return Ok(());
            }
            offset += QUERY_LIMIT_MAX;
        }
    }

    /// All entities that have or had the type, also those that are gone.
    fn ids(&mut self) -> Result<Vec<Iri>, ExportError> {
        let mut ids = BTreeSet::new();
        // Of those from before the history kept what an entity is, only the present knows further types.
        self.each_entity(|_, entity| {
            ids.insert(entity.id.clone());
            Ok(())
        })?;
        ids.extend(self.app.node.history(&self.who)?.entity_ids(&self.entity_type, self.as_of, ENTITIES_MAX + 1)?);
        if ids.len() > ENTITIES_MAX {
            let what = format!("the history of more than {ENTITIES_MAX} entities is not exported at once");
            return Err(NodeError::Limit { what }.into());
        }
        Ok(ids.into_iter().collect())
    }

    fn columns(&self) -> Result<Vec<AttributeColumn>, ExportError> {
        let tables = self.app.node.history(&self.who)?.tables();
        Ok(tables.into_iter().find(|t| t.entity_type == self.entity_type).map(|t| t.columns).unwrap_or_default())
    }

    fn export_columns(&self, columns: &[AttributeColumn]) -> Vec<ExportColumn> {
        let one = |c: &AttributeColumn| ExportColumn {
            name: self.context.compact(&c.name).into_owned(),
            kind: match c.kind {
                ColumnKind::Number => ColumnType::Number,
                ColumnKind::Bool => ColumnType::Bool,
                ColumnKind::Text | ColumnKind::Json => ColumnType::Text,
            },
            unit_code: c.unit_code.clone(),
        };
        columns.iter().map(one).collect()
    }

    fn latest_lines(&mut self) -> Result<(), ExportError> {
        self.each_entity(Self::push_line)
    }

    fn latest_table(&mut self, format: Format) -> Result<(), ExportError> {
        let columns = self.columns()?;
        let mut table = LatestExport::new(format, &self.export_columns(&columns))?;
        self.each_entity(|export, entity| {
            table.push(entity.id.as_str(), columns.iter().map(|c| cell_of(entity, &c.name)))?;
            let bytes = table.take()?;
            export.push(&bytes)
        })?;
        self.push(&table.finish()?)
    }

    fn history_table(&mut self, format: Format) -> Result<(), ExportError> {
        // Untimed attributes have no rows in a table of observations.
        let columns = self.columns()?;
        let mut table = HistoryExport::new(format, &self.export_columns(&columns))?;
        for entities in self.ids()?.chunks(ENTITIES_AT_ONCE) {
            let scan = HistoryScan {
                entity_type: self.entity_type.clone(),
                attributes: columns.iter().map(|c| c.name.clone()).collect(),
                entities: Some(entities.to_vec()),
                observed: Some(self.interval.clone()),
                as_of: self.as_of,
            };
            let batches = self.app.node.history(&self.who)?.scan(&scan)?;
            for batch in batches {
                table.push(&batch)?;
                let bytes = table.take()?;
                self.push(&bytes)?;
            }
        }
        self.push(&table.finish()?)
    }

    /// One line per entity and observed time.
    fn history_lines(&mut self) -> Result<(), ExportError> {
        for id in self.ids()? {
            let mut interval = Some(self.interval.clone());
            while let Some(now) = interval.take() {
                let query = TemporalQuery {
                    entity: id.clone(),
                    attributes: None,
                    interval: Some(now.clone()),
                    time_property: TimeProperty::ObservedAt,
                    last_n: None,
                    as_of: self.as_of,
                    instances_max: INSTANCES_AT_ONCE,
                };
                let evolution = match self.app.node.evolution(&self.who, &query) {
                    Ok(evolution) => evolution,
                    // It has no past, or has been removed meanwhile.
                    Err(NodeError::NoEntity { .. }) => break,
                    Err(e) => return Err(e.into()),
                };
                let mut by_time: BTreeMap<Instant, Entity> = BTreeMap::new();
                for (name, instances) in evolution.attributes {
                    for instance in instances {
                        let Some(at) = instance.observed_at else { continue };
                        by_time.entry(at).or_insert_with(|| Entity::new(id.clone(), self.entity_type.clone())).put(name.clone(), instance);
                    }
                }
                for entity in by_time.values() {
                    self.push_line(entity)?;
                }
                interval = evolution.cut_at.map(|at| at.plus_micros(1)..now.end).filter(|i| i.start < i.end);
            }
        }
        Ok(())
    }
}

/// The default instance of an attribute as a cell.
fn cell_of(entity: &Entity, name: &Iri) -> Cell {
    let Some(attribute) = entity.instance(name.as_str(), None) else { return Cell::Null };
    let text = |iris: &[Iri]| match iris {
        [one] => Cell::Text(one.to_string()),
        many => Cell::Text(serde_json::json!(many.iter().map(Iri::as_str).collect::<Vec<_>>()).to_string()),
    };
    match &attribute.value {
        AttributeValue::Property(v) => match v {
            serde_json::Value::Number(n) => n.as_f64().map_or(Cell::Null, Cell::Number),
            serde_json::Value::Bool(b) => Cell::Bool(*b),
            serde_json::Value::String(s) => Cell::Text(s.clone()),
            other => Cell::Text(other.to_string()),
        },
        AttributeValue::Json(v) => Cell::Text(v.to_string()),
        AttributeValue::Geo(g) => Cell::Text(g.json().to_string()),
        AttributeValue::Relationship(iris) | AttributeValue::Vocab(iris) => text(iris),
        AttributeValue::ListRelationship(iris) => {
            Cell::Text(serde_json::json!(iris.iter().map(Iri::as_str).collect::<Vec<_>>()).to_string())
        }
        AttributeValue::Language(texts) => Cell::Text(serde_json::json!(texts).to_string()),
        AttributeValue::List(items) => Cell::Text(serde_json::json!(items).to_string()),
    }
}
