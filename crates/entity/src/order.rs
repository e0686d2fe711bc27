//! In which order entities are wanted (ETSI GS CIM 009 V1.9.1, clauses 4.23 and 5.2.43).

use crate::{Geometry, Iri, Path};

/// In which order.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SortOrder {
    /// What decides first, then second, and so on; what is the same in all of them is ordered by id.
    pub keys: Vec<SortKey>,
    /// How texts are compared: a BCP 47 tag with its `-u-` extension; none for the root collation of Unicode.
    pub collation: Option<String>,
    /// From where distances are measured.
    pub from: Option<Geometry>,
}

/// One of the things that decide.
#[derive(Clone, PartialEq, Debug)]
pub struct SortKey {
    /// What is compared.
    pub by: SortBy,
    /// The largest first.
    pub descending: bool,
}

/// What is compared.
#[derive(Clone, PartialEq, Debug)]
pub enum SortBy {
    /// The id.
    Id,
    /// The types.
    Type,
    /// The scopes.
    Scope,
    /// A value, or a plain member of an attribute.
    Value(Path),
    /// How far away a GeoProperty is, in metres.
    Distance(Iri),
}
