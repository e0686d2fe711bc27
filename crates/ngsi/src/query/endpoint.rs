//! Which parameters each resource takes.

/// What kind of request the parameters belong to: decides which are known (ETSI GS CIM 009 V1.9.1, clauses 6.4 to 6.28).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `GET /entities`.
    QueryEntities,
    /// `POST /entityOperations/query`: the rest is in the body.
    QueryByBody,
    /// `GET /entities/{id}`.
    RetrieveEntity,
    /// `GET /temporal/entities`.
    QueryTemporal,
    /// `POST /temporal/entityOperations/query`: the rest is in the body.
    QueryTemporalByBody,
    /// `GET /temporal/entities/{id}`.
    RetrieveTemporal,
    /// Writing below `/temporal`.
    WriteTemporal,
    /// `DELETE /temporal/…/attrs/{name}`.
    DeleteTemporal,
    /// Creating, replacing or deleting one entity.
    WriteEntity,
    /// `POST /entities/{id}/attrs` and `POST /entityOperations/update`: `options=noOverwrite`.
    AppendAttributes,
    /// `POST /entityOperations/upsert`: `options=replace` or `update`.
    Upsert,
    /// `DELETE …/attrs/{name}`.
    DeleteAttribute,
    /// `PATCH /entities/{id}`: form, time and language of what is merged.
    Merge,
    /// `DELETE /entities`: which entities, and which of their attributes.
    Purge,
    /// `GET /subscriptions` and other lists.
    List,
    /// `GET /csourceRegistrations`: discovery of sources.
    Registrations,
    /// `GET /types`, `/attributes` and below.
    Discovery,
    /// Full-text search, a query of this node alone that adds the words of names.
    Search,
    /// What answering a query takes.
    Explain,
    /// `GET /entityMaps`.
    EntityMap,
    /// Anything without parameters of its own.
    Plain,
}

/// How answers look.
const SHOWN: &[&str] = &["attrs", "pick", "omit", "format", "options", "lang", "datasetId", "local"];
/// Which entities.
const SELECTED: &[&str] =
    &["id", "type", "idPattern", "q", "scopeQ", "georel", "geometry", "coordinates", "geoproperty", "expandValues", "jsonKeys"];
const PAGED: &[&str] = &["limit", "offset", "count"];
const TIMED: &[&str] = &["timerel", "timeAt", "endTimeAt", "timeproperty", "lastN"];

/// Parameters of the standard that this node does not serve yet; named so that nobody thinks they took effect.
pub(super) const UNSUPPORTED: &[&str] = &["csf", "entityMap", "entityMapLifetime", "splitEntities", "aggrMethods", "aggrPeriodDuration"];

/// Their order.
const ORDERED: &[&str] = &["orderBy", "collation", "orderFrom", "orderGeometry"];

/// Linked entities.
const JOINED: &[&str] = &["join", "joinLevel", "containedBy"];

/// Our own extension: everything as it was known at this recorded time.
pub(super) const AS_OF: &str = "asOf";

/// Of an aggregated past.
const AGGREGATED: &[&str] = &["aggrMethods", "aggrPeriodDuration"];

impl Endpoint {
    /// The parameters it takes.
    #[must_use]
    pub fn parameters(self) -> Vec<&'static str> {
        let groups: &[&[&'static str]] = match self {
            Self::QueryEntities => &[
                SELECTED,
                SHOWN,
                PAGED,
                JOINED,
                ORDERED,
                &["geometryProperty", "csf", "splitEntities", "entityMap", "entityMapLifetime", AS_OF],
            ],
            Self::QueryByBody => &[PAGED, &["format", "options", "local", "geometryProperty"]],
            Self::RetrieveEntity => &[SHOWN, JOINED, &["type", "geometryProperty", AS_OF]],
            Self::QueryTemporal => &[SELECTED, SHOWN, PAGED, TIMED, AGGREGATED, &["orderBy", "collation"]],
            Self::QueryTemporalByBody => &[PAGED, &["format", "options", "local"]],
            Self::RetrieveTemporal => &[SHOWN, TIMED, AGGREGATED, &[AS_OF]],
            Self::WriteTemporal => &[&["local"]],
            Self::DeleteTemporal => &[&["local", "datasetId", "deleteAll"]],
            Self::WriteEntity => &[&["type", "local"]],
            Self::AppendAttributes | Self::Upsert => &[&["type", "local", "options"]],
            Self::DeleteAttribute => &[&["type", "local", "datasetId", "deleteAll"]],
            Self::Merge => &[&["type", "local", "format", "options", "observedAt", "lang"]],
            Self::Purge => &[SELECTED, &["local", "drop", "keep"]],
            Self::List => &[PAGED, &["options"]],
            Self::Registrations => &[SELECTED, PAGED, TIMED, &["attrs", "csf", "datasetId", "lang", "options"]],
            Self::Discovery => &[&["details", "local"]],
            Self::Search => &[&["text"], SELECTED, SHOWN, PAGED],
            Self::Explain => &[&["text"], SELECTED, PAGED, &["attrs", "local"]],
            Self::EntityMap => &[SELECTED, &["attrs", "csf", "local", "entityMapLifetime"]],
            Self::Plain => &[],
        };
        groups.concat()
    }

    /// The keywords that `options` takes.
    pub(super) const fn options(self) -> &'static [&'static str] {
        match self {
            Self::QueryEntities | Self::QueryByBody | Self::RetrieveEntity | Self::Search => {
                &["sysAttrs", "normalized", "concise", "simplified", "keyValues"]
            }
            Self::QueryTemporal | Self::QueryTemporalByBody | Self::RetrieveTemporal => &["sysAttrs", "temporalValues", "aggregatedValues"],
            Self::AppendAttributes => &["noOverwrite"],
            Self::Upsert => &["replace", "update"],
            Self::Merge => &["simplified", "keyValues"],
            Self::List | Self::Registrations => &["sysAttrs"],
            Self::WriteTemporal
            | Self::DeleteTemporal
            | Self::WriteEntity
            | Self::DeleteAttribute
            | Self::Purge
            | Self::Discovery
            | Self::Explain
            | Self::EntityMap
            | Self::Plain => &[],
        }
    }

    /// The keywords that `format` takes.
    pub(super) const fn formats(self) -> &'static [&'static str] {
        match self {
            Self::QueryTemporal | Self::QueryTemporalByBody | Self::RetrieveTemporal => {
                &["normalized", "temporalValues", "aggregatedValues"]
            }
            Self::Merge => &["simplified", "keyValues"],
            _ => &["normalized", "concise", "simplified", "keyValues"],
        }
    }

    /// Does it select entities, so that a question that is too wide is refused (clause 5.7.2)?
    pub(super) const fn selects(self) -> bool {
        matches!(self, Self::QueryEntities | Self::QueryTemporal | Self::Explain | Self::Purge | Self::Registrations | Self::EntityMap)
    }

    /// Is a question of any width answered, because it is about this node alone?
    pub(super) const fn is_local(self) -> bool {
        matches!(self, Self::Search | Self::Explain)
    }

    /// Is it about the past?
    pub(super) const fn is_temporal(self) -> bool {
        matches!(self, Self::QueryTemporal | Self::QueryTemporalByBody | Self::RetrieveTemporal)
    }

    /// Does it need a temporal query (clause 5.7.4)?
    pub(super) const fn needs_time(self) -> bool {
        matches!(self, Self::QueryTemporal)
    }
}
