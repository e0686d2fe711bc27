//! Entities and their attributes (ETSI GS CIM 009 V1.9.1, clauses 4.5 and 5.2), names expanded.

use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{Geometry, Instances, Instant, Iri, Scope, SubAttributes};

/// Any JSON value.
pub type Value = serde_json::Value;

/// Attributes by expanded name; each has one instance per `datasetId`, at most one of them the default instance.
pub type Attributes = IndexMap<Iri, Instances, foldhash::fast::RandomState>;

/// What attributes were, by expanded name: instances of many times.
pub type Series = IndexMap<Iri, Vec<Attribute>>;

/// Attributes that are looked at one after the other when one is wanted.
const LOOKED_AT_MAX: usize = 16;

/// One thing of the city, as it is now.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Entity {
    /// Its identity; the id alone identifies.
    pub id: Iri,
    /// Its types, at least one, no duplicates.
    pub types: Vec<Iri>,
    /// The scopes it is in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<Scope>,
    /// Its attributes.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub attributes: Attributes,
    /// When the node first recorded it.
    #[serde(default)]
    pub created_at: Instant,
    /// When the node last recorded a change of it.
    #[serde(default)]
    pub modified_at: Instant,
    /// After this instant it is no longer valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Instant>,
}

/// One instance of an attribute.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Attribute {
    /// What it says.
    #[serde(rename = "v")]
    pub value: AttributeValue,
    /// Which of several instances it is; none for the default instance.
    #[serde(default, rename = "d", skip_serializing_if = "Option::is_none")]
    pub dataset_id: Option<Iri>,
    /// Since when (or: at which instant) the value is true in the world: valid time.
    #[serde(default, rename = "o", skip_serializing_if = "Option::is_none")]
    pub observed_at: Option<Instant>,
    /// UN/CEFACT common code of the unit, such as `GQ` for µg/m³.
    #[serde(default, rename = "u", skip_serializing_if = "Option::is_none")]
    pub unit_code: Option<SmolStr>,
    /// When the node first recorded this instance: recorded time.
    #[serde(default, rename = "c")]
    pub created_at: Instant,
    /// When the node recorded this value: recorded time.
    #[serde(default, rename = "m")]
    pub modified_at: Instant,
    /// Attributes of the attribute.
    #[serde(default, rename = "s", skip_serializing_if = "no_sub_attributes")]
    pub sub_attributes: SubAttributes,
    /// Members that few attributes have.
    #[serde(default, rename = "q", skip_serializing_if = "Option::is_none")]
    pub qualifiers: Option<Box<Qualifiers>>,
}

fn no_sub_attributes(all: &SubAttributes) -> bool {
    all.is_empty()
}

/// Members that few attributes have; boxed so that the others do not pay for them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Qualifiers {
    /// Types of a relationship's targets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub object_types: Vec<Iri>,
    /// Datatype of the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_type: Option<Iri>,
    /// After this instant the instance is no longer valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Instant>,
}

/// What an attribute says, by its kind (clause 4.5.2 and following).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum AttributeValue {
    /// `Property`: any JSON but null.
    #[serde(rename = "P")]
    Property(Value),
    /// `GeoProperty`: a geometry.
    #[serde(rename = "G")]
    Geo(Geometry),
    /// `Relationship`: one target, or several in no order.
    #[serde(rename = "R")]
    Relationship(Vec<Iri>),
    /// `LanguageProperty`: texts by BCP 47 tag (or `@none`); each a string or an array of strings.
    #[serde(rename = "L")]
    Language(IndexMap<SmolStr, Value>),
    /// `VocabProperty`: one or several expanded terms.
    #[serde(rename = "V")]
    Vocab(Vec<Iri>),
    /// `JsonProperty`: opaque JSON.
    #[serde(rename = "J")]
    Json(Value),
    /// `ListProperty`: an ordered array.
    #[serde(rename = "A")]
    List(Vec<Value>),
    /// `ListRelationship`: ordered targets.
    #[serde(rename = "O")]
    ListRelationship(Vec<Iri>),
}

impl AttributeValue {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> AttributeKind {
        match self {
            Self::Property(_) => AttributeKind::Property,
            Self::Geo(_) => AttributeKind::Geo,
            Self::Relationship(_) => AttributeKind::Relationship,
            Self::Language(_) => AttributeKind::Language,
            Self::Vocab(_) => AttributeKind::Vocab,
            Self::Json(_) => AttributeKind::Json,
            Self::List(_) => AttributeKind::List,
            Self::ListRelationship(_) => AttributeKind::ListRelationship,
        }
    }
}

/// The kinds of attributes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum AttributeKind {
    /// See [`AttributeValue::Property`], and so on.
    Property,
    /// A place.
    Geo,
    /// Targets in no order.
    Relationship,
    /// Texts by language.
    Language,
    /// Terms.
    Vocab,
    /// Opaque JSON.
    Json,
    /// Values in order.
    List,
    /// Targets in order.
    ListRelationship,
}

impl AttributeKind {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Property, Self::Geo, Self::Relationship, Self::Language, Self::Vocab, Self::Json, Self::List, Self::ListRelationship];

    /// The name as NGSI-LD writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Property => "Property",
            Self::Geo => "GeoProperty",
            Self::Relationship => "Relationship",
            Self::Language => "LanguageProperty",
            Self::Vocab => "VocabProperty",
            Self::Json => "JsonProperty",
            Self::List => "ListProperty",
            Self::ListRelationship => "ListRelationship",
        }
    }

    /// The member that holds the value of such an attribute.
    #[must_use]
    pub const fn value_member(self) -> &'static str {
        match self {
            Self::Property | Self::Geo => "value",
            Self::Relationship => "object",
            Self::Language => "languageMap",
            Self::Vocab => "vocab",
            Self::Json => "json",
            Self::List => "valueList",
            Self::ListRelationship => "objectList",
        }
    }

    /// Has it targets?
    #[must_use]
    pub const fn is_relationship(self) -> bool {
        matches!(self, Self::Relationship | Self::ListRelationship)
    }
}

impl Attribute {
    /// A default instance with nothing but its value; the times are set when it is recorded.
    #[inline]
    #[must_use]
    pub fn new(value: AttributeValue) -> Self {
        Self {
            value,
            dataset_id: None,
            observed_at: None,
            unit_code: None,
            created_at: Instant::default(),
            modified_at: Instant::default(),
            sub_attributes: SubAttributes::default(),
            qualifiers: None,
        }
    }

    /// A Property.
    #[inline]
    #[must_use]
    pub fn property(value: impl Into<Value>) -> Self {
        Self::new(AttributeValue::Property(value.into()))
    }

    /// The same, observed at `at`.
    #[must_use]
    pub fn observed(mut self, at: Instant) -> Self {
        self.observed_at = Some(at);
        self
    }

    /// After this instant it is no longer valid.
    #[must_use]
    pub fn expires_at(&self) -> Option<Instant> {
        self.qualifiers.as_ref()?.expires_at
    }

    /// Sets the members that few attributes have.
    pub fn set_qualifiers(&mut self, qualifiers: Qualifiers) {
        self.qualifiers = (qualifiers != Qualifiers::default()).then(|| Box::new(qualifiers));
    }

    /// Says the same thing about the same time: only the recorded times may differ.
    #[must_use]
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        self.value == other.value
            && self.dataset_id == other.dataset_id
            && self.observed_at == other.observed_at
            && self.unit_code == other.unit_code
            && self.qualifiers == other.qualifiers
            && self.sub_attributes.len() == other.sub_attributes.len()
            && self.sub_attributes.iter().all(|(name, mine)| {
                other
                    .sub_attributes
                    .get(name)
                    .is_some_and(|theirs| mine.len() == theirs.len() && mine.iter().zip(theirs).all(|(a, b)| a.says_the_same_as(b)))
            })
    }
}

impl Entity {
    /// An entity of one type without attributes; the times are set when it is recorded.
    #[must_use]
    pub fn new(id: Iri, entity_type: Iri) -> Self {
        Self {
            id,
            types: vec![entity_type],
            scopes: Vec::new(),
            attributes: Attributes::default(),
            created_at: Instant::default(),
            modified_at: Instant::default(),
            expires_at: None,
        }
    }

    /// When it, or the first of its attributes' instances, expires.
    #[must_use]
    pub fn first_end(&self) -> Option<Instant> {
        self.attributes.values().flatten().filter_map(Attribute::expires_at).chain(self.expires_at).min()
    }

    /// Adds or replaces the instance with the same name and `datasetId`.
    pub fn put(&mut self, name: Iri, attribute: impl Into<Arc<Attribute>>) {
        self.attributes.entry(name).or_default().put(attribute);
    }

    /// The same entity with one more attribute, for building in one expression.
    #[must_use]
    pub fn with(mut self, name: Iri, attribute: impl Into<Arc<Attribute>>) -> Self {
        self.put(name, attribute);
        self
    }

    /// Where an attribute is in the list of them.
    pub(crate) fn idx_of(&self, name: &Iri) -> Option<usize> {
        // There are few, and their names are mostly interned: a look at each is quicker than a hash.
        let at = self.attributes.keys().take(LOOKED_AT_MAX).position(|n| n.is_same_text(name));
        at.or_else(|| self.attributes.get_index_of(name))
    }

    /// The same as [`Self::instance`] for who has the name as it is in other entities, too: quicker.
    #[must_use]
    pub fn instance_named(&self, name: &Iri, dataset_id: Option<&Iri>) -> Option<&Attribute> {
        self.attributes[self.idx_of(name)?].iter().find(|a| a.dataset_id.as_ref() == dataset_id)
    }

    /// The default instance of an attribute.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.get(name)?.iter().find(|a| a.dataset_id.is_none())
    }

    /// The instance of an attribute with this `datasetId` (none: the default one).
    #[must_use]
    pub fn instance(&self, name: &str, dataset_id: Option<&Iri>) -> Option<&Attribute> {
        self.attributes.get(name)?.iter().find(|a| a.dataset_id.as_ref() == dataset_id)
    }

    /// The geometry of the default instance of GeoProperty `location`.
    #[must_use]
    pub fn location(&self) -> Option<&Geometry> {
        match &self.attribute(crate::LOCATION)?.value {
            AttributeValue::Geo(g) => Some(g),
            _ => None,
        }
    }
}
