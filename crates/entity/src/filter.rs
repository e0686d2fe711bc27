//! The one condition tree.
//!
//! NGSI-LD `q`, geo-, scope- and type queries, subscription conditions and policy residuals all compile to [`Filter`]. Here is its
//! evaluator for one entity; semantics follow ETSI GS CIM 009 V1.9.1, clauses 4.9 (q), 4.10 (geo), 4.17 (types) and 4.19 (scopes).

use std::cmp::Ordering;
use std::sync::Arc;

use geo::{Distance, Euclidean, Haversine, MapCoords, Relate};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::{Attribute, AttributeValue, Entity, Geometry, Instant, Iri, ScopePattern};

/// A condition on an entity.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Filter {
    /// All of these hold; true if there are none.
    And(Vec<Self>),
    /// One of these holds; false if there are none.
    Or(Vec<Self>),
    /// This does not hold.
    Not(Box<Self>),
    /// The entity has the types.
    Type(TypeSelector),
    /// The id is one of these.
    Id(Vec<Iri>),
    /// The id is in the language of the pattern.
    IdPattern(Pattern),
    /// One of the entity's scopes satisfies the pattern.
    Scope(ScopePattern),
    /// The entity has at least one of the attributes.
    HasAnyOf(Vec<Iri>),
    /// A value stands in a relation to operands.
    Value(Target, Comparison),
    /// A place stands in a relation to a geometry.
    Geo(GeoCondition),
    /// Something holds of an entity that a relationship leads to. One entity does not tell: whoever has the others puts the targets in its
    /// place first ([`Filter::with_targets`]); until then it holds of nothing.
    Linked(Box<LinkedCondition>),
}

/// A condition on the other end of a relationship (clause 4.9).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LinkedCondition {
    /// The relationship.
    pub relationship: Iri,
    /// Which of its targets; none for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub types: Option<TypeSelector>,
    /// What must hold of one of them.
    pub condition: Filter,
}

/// A type selection (clause 4.17).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TypeSelector {
    /// Every type.
    Any,
    /// The entity has this type, possibly among others.
    Is(Iri),
    /// One of these.
    Or(Vec<Self>),
    /// All of these.
    And(Vec<Self>),
}

impl TypeSelector {
    /// Does an entity with these types fit?
    #[must_use]
    pub fn matches(&self, types: &[Iri]) -> bool {
        match self {
            Self::Any => true,
            Self::Is(t) => types.contains(t),
            Self::Or(list) => list.iter().any(|s| s.matches(types)),
            Self::And(list) => list.iter().all(|s| s.matches(types)),
        }
    }

    /// Every type that it names.
    #[must_use]
    pub fn names(&self) -> Vec<Iri> {
        match self {
            Self::Any => Vec::new(),
            Self::Is(t) => vec![t.clone()],
            Self::Or(list) | Self::And(list) => list.iter().flat_map(Self::names).collect(),
        }
    }
}

/// What a comparison looks at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Target {
    /// When the entity was first recorded.
    EntityCreatedAt,
    /// When the entity was last changed.
    EntityModifiedAt,
    /// An attribute, or something in it.
    Attribute(Path),
}

/// A way into an attribute: `attribute.sub.sub.member[json.key]`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Path {
    /// The attribute.
    pub attribute: Iri,
    /// Sub-attributes, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subs: Vec<Iri>,
    /// A plain member (`observedAt`, `unitCode`, `createdAt`, `modifiedAt`, `datasetId`) instead of the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// Keys inside the JSON value as written; for a language map the tag.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}

impl Path {
    /// The path of an attribute's own value.
    #[must_use]
    pub const fn of(attribute: Iri) -> Self {
        Self { attribute, subs: Vec::new(), member: None, keys: Vec::new() }
    }
}

/// Names of the plain members that a path may end in.
pub const PATH_MEMBERS: [&str; 5] = ["observedAt", "unitCode", "createdAt", "modifiedAt", "datasetId"];

/// How the target must stand to the operands. Every comparison but existence needs the target to exist (clause 4.9).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Comparison {
    /// It is there.
    Exists,
    /// It equals one of these.
    Equal(Vec<Operand>),
    /// It is there and equals none of these; another data type counts as unequal.
    NotEqual(Vec<Operand>),
    /// It lies between the two, both included.
    Between(Operand, Operand),
    /// It is there and does not lie between the two.
    NotBetween(Operand, Operand),
    /// It is ordered so; another data type does not match.
    Order(CompareOp, Operand),
    /// It is a string in the language of the pattern.
    Matches(Pattern),
    /// It is a string and not in the language of the pattern.
    NotMatches(Pattern),
}

/// An order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum CompareOp {
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
}

/// A literal, typed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Operand {
    /// A number.
    Number(f64),
    /// A string.
    Text(String),
    /// A truth value.
    Bool(bool),
    /// A DateTime.
    Instant(Instant),
    /// A Date, `YYYY-MM-DD`.
    Date(String),
    /// A Time, `hh:mm:ss[.f]Z`.
    Time(String),
    /// A URI.
    Uri(String),
}

/// A regular expression, compiled once.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: String,
    compiled: Arc<regex::Regex>,
}

/// Why a regular expression cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is not a usable regular expression: {reason}")]
pub struct PatternError {
    /// The expression.
    pub pattern: String,
    /// What the compiler said.
    pub reason: String,
}

/// The compiled size a pattern may have, in bytes; the engine runs in linear time, so size is the only danger.
const PATTERN_COMPILED_BYTES_MAX: usize = 1 << 20;

impl Pattern {
    /// Compiles an expression.
    pub fn new(source: &str) -> Result<Self, PatternError> {
        regex::RegexBuilder::new(source)
            .size_limit(PATTERN_COMPILED_BYTES_MAX)
            .build()
            .map(|r| Self { source: source.to_owned(), compiled: Arc::new(r) })
            .map_err(|e| PatternError { pattern: source.to_owned(), reason: e.to_string() })
    }

    /// Does it occur in the text?
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        self.compiled.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.source)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// A geo-query (clause 4.10): the entity's place on the left, `reference` on the right.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct GeoCondition {
    /// Which GeoProperty.
    pub property: Iri,
    /// How it must stand to the reference.
    pub relation: GeoRelation,
    /// The geometry to compare with.
    pub reference: Geometry,
}

/// Spatial relations (OGC Simple Features).
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub enum GeoRelation {
    /// At most so many metres away.
    NearMax(f64),
    /// At least so many metres away.
    NearMin(f64),
    /// Inside the reference.
    Within,
    /// Contains the reference.
    Contains,
    /// Has a point in common.
    Intersects,
    /// Is the same set of points.
    Equals,
    /// Has no point in common.
    Disjoint,
    /// Overlaps, neither containing the other.
    Overlaps,
}

/// A plain value, as a column holds it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scalar<'a> {
    /// A number.
    Number(f64),
    /// A truth value.
    Bool(bool),
    /// A string, an IRI or a term.
    Text(&'a str),
    /// A point in time that is not a string in the document: a plain member or a recorded time.
    Instant(Instant),
}

impl Comparison {
    /// Does a plain value stand so? The same answer as for the value in its entity.
    #[must_use]
    pub fn holds(&self, value: Scalar<'_>) -> bool {
        match value {
            Scalar::Number(n) => compare(&Found::Json(&Value::from(n)), self),
            Scalar::Bool(b) => compare(&Found::Json(&Value::Bool(b)), self),
            Scalar::Text(t) => compare(&Found::Text(t), self),
            Scalar::Instant(i) => compare(&Found::Time(i), self),
        }
    }
}

impl Filter {
    /// True of everything.
    #[must_use]
    pub const fn all() -> Self {
        Self::And(Vec::new())
    }

    /// True of nothing.
    #[must_use]
    pub const fn none() -> Self {
        Self::Or(Vec::new())
    }

    /// Both must hold; flattens, so that conjunctions stay shallow.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::And(mut a), Self::And(b)) => {
                a.extend(b);
                Self::And(a)
            }
            (Self::And(mut a), b) => {
                a.push(b);
                Self::And(a)
            }
            (a, Self::And(mut b)) => {
                b.insert(0, a);
                Self::And(b)
            }
            (a, b) => Self::And(vec![a, b]),
        }
    }

    /// How many relationships it follows one behind the other.
    #[must_use]
    pub fn link_depth(&self) -> usize {
        match self {
            Self::And(list) | Self::Or(list) => list.iter().map(Self::link_depth).max().unwrap_or_default(),
            Self::Not(f) => f.link_depth(),
            Self::Linked(linked) => 1 + linked.condition.link_depth(),
            _ => 0,
        }
    }

    /// The same condition without [`Filter::Linked`]: `targets` tells, innermost first, of which entities the inner condition holds.
    ///
    /// Errors: those of `targets`.
    pub fn with_targets<E>(self, targets: &mut dyn FnMut(&LinkedCondition) -> Result<Vec<Iri>, E>) -> Result<Self, E> {
        let each = |list: Vec<Self>, targets: &mut dyn FnMut(&LinkedCondition) -> Result<Vec<Iri>, E>| {
            list.into_iter().map(|f| f.with_targets(targets)).collect::<Result<Vec<_>, E>>()
        };
        Ok(match self {
            Self::And(list) => Self::And(each(list, targets)?),
            Self::Or(list) => Self::Or(each(list, targets)?),
            Self::Not(f) => Self::Not(Box::new(f.with_targets(targets)?)),
            Self::Linked(linked) => {
                let condition = linked.condition.with_targets(targets)?;
                let linked = LinkedCondition { condition, ..*linked };
                let found = targets(&linked)?;
                let operands = found.into_iter().map(|id| Operand::Uri(id.as_str().to_owned())).collect();
                Self::Value(Target::Attribute(Path::of(linked.relationship)), Comparison::Equal(operands))
            }
            other => other,
        })
    }

    /// Does `entity` satisfy the condition?
    #[must_use]
    pub fn matches(&self, entity: &Entity) -> bool {
        match self {
            Self::And(list) => list.iter().all(|f| f.matches(entity)),
            Self::Or(list) => list.iter().any(|f| f.matches(entity)),
            Self::Not(f) => !f.matches(entity),
            Self::Type(selector) => selector.matches(&entity.types),
            Self::Id(ids) => ids.contains(&entity.id),
            Self::IdPattern(p) => p.is_match(entity.id.as_str()),
            Self::Scope(p) => entity.scopes.iter().any(|s| p.matches(s)),
            Self::HasAnyOf(names) => names.iter().any(|n| entity.attributes.contains_key(n)),
            Self::Value(target, comparison) => value_matches(entity, target, comparison),
            Self::Geo(condition) => condition.matches(entity),
            Self::Linked(_) => false,
        }
    }

    /// The conditions that must all hold, one by one.
    pub fn conjuncts(&self) -> impl Iterator<Item = &Self> {
        match self {
            Self::And(list) => list.as_slice(),
            other => std::slice::from_ref(other),
        }
        .iter()
    }
}

/// A value that a target names in an entity.
enum Found<'a> {
    Json(&'a Value),
    Text(&'a str),
    Time(Instant),
}

fn value_matches(entity: &Entity, target: &Target, comparison: &Comparison) -> bool {
    match target {
        Target::EntityCreatedAt => compare(&Found::Time(entity.created_at), comparison),
        Target::EntityModifiedAt => compare(&Found::Time(entity.modified_at), comparison),
        Target::Attribute(path) => {
            // Any of several instances may satisfy.
            entity
                .attributes
                .get(&path.attribute)
                .is_some_and(|instances| instances.iter().any(|i| path_matches(i, &path.subs, path, comparison)))
        }
    }
}

fn path_matches(attribute: &Attribute, subs: &[Iri], path: &Path, comparison: &Comparison) -> bool {
    if let [first, rest @ ..] = subs {
        return attribute.sub_attributes.get(first).is_some_and(|list| list.iter().any(|a| path_matches(a, rest, path, comparison)));
    }
    if let Some(member) = &path.member {
        let found = match member.as_str() {
            "observedAt" => attribute.observed_at.map(Found::Time),
            "createdAt" => Some(Found::Time(attribute.created_at)),
            "modifiedAt" => Some(Found::Time(attribute.modified_at)),
            "unitCode" => attribute.unit_code.as_deref().map(Found::Text),
            "datasetId" => attribute.dataset_id.as_ref().map(|d| Found::Text(d.as_str())),
            _ => None,
        };
        return found.is_some_and(|f| compare(&f, comparison));
    }
    match &attribute.value {
        AttributeValue::Property(v) | AttributeValue::Json(v) => {
            at_keys(v, &path.keys).is_some_and(|v| compare(&Found::Json(v), comparison))
        }
        AttributeValue::Geo(g) => at_keys(g.json(), &path.keys).is_some_and(|v| compare(&Found::Json(v), comparison)),
        AttributeValue::List(list) => path.keys.is_empty() && any_or_all(comparison, list.iter().map(Found::Json)),
        AttributeValue::Language(map) => {
            let wanted = path.keys.first().filter(|k| *k != "*");
            let texts = map.iter().filter(|(tag, _)| wanted.is_none_or(|w| w == tag.as_str())).flat_map(|(_, v)| match v {
                Value::Array(list) => list.as_slice(),
                one => std::slice::from_ref(one),
            });
            any_or_all(comparison, texts.map(Found::Json))
        }
        AttributeValue::Vocab(iris) => any_or_all(comparison, iris.iter().map(|i| Found::Text(i.as_str()))),
        AttributeValue::Relationship(iris) | AttributeValue::ListRelationship(iris) => {
            // Relationships can only be asked for, equal or unequal (clause 4.9).
            matches!(comparison, Comparison::Exists | Comparison::Equal(_) | Comparison::NotEqual(_))
                && any_or_all(comparison, iris.iter().map(|i| Found::Text(i.as_str())))
        }
    }
}

fn at_keys<'a>(value: &'a Value, keys: &[String]) -> Option<&'a Value> {
    keys.iter().try_fold(value, |v, k| v.get(k))
}

/// Positive comparisons hold if any element satisfies them, negative ones if every element does; nothing satisfies none.
fn any_or_all<'a>(comparison: &Comparison, mut found: impl Iterator<Item = Found<'a>>) -> bool {
    if is_negative(comparison) {
        let mut n_found = 0;
        found.all(|f| {
            n_found += 1;
            compare(&f, comparison)
        }) && n_found > 0
    } else {
        found.any(|f| compare(&f, comparison))
    }
}

const fn is_negative(comparison: &Comparison) -> bool {
    matches!(comparison, Comparison::NotEqual(_) | Comparison::NotBetween(..) | Comparison::NotMatches(_))
}

fn compare(found: &Found<'_>, comparison: &Comparison) -> bool {
    if let Found::Json(Value::Array(list)) = found
        && !matches!(comparison, Comparison::Exists)
    {
        return any_or_all(comparison, list.iter().map(Found::Json));
    }
    match comparison {
        Comparison::Exists => true,
        Comparison::Equal(list) => list.iter().any(|o| order(found, o) == Some(Ordering::Equal)),
        Comparison::NotEqual(list) => list.iter().all(|o| order(found, o) != Some(Ordering::Equal)),
        Comparison::Between(low, high) => is_between(found, low, high),
        Comparison::NotBetween(low, high) => !is_between(found, low, high),
        Comparison::Order(op, operand) => order(found, operand).is_some_and(|o| match op {
            CompareOp::Lt => o.is_lt(),
            CompareOp::Le => o.is_le(),
            CompareOp::Gt => o.is_gt(),
            CompareOp::Ge => o.is_ge(),
        }),
        Comparison::Matches(p) => text_of(found).is_some_and(|t| p.is_match(t)),
        Comparison::NotMatches(p) => text_of(found).is_some_and(|t| !p.is_match(t)),
    }
}

fn is_between(found: &Found<'_>, low: &Operand, high: &Operand) -> bool {
    order(found, low).is_some_and(Ordering::is_ge) && order(found, high).is_some_and(Ordering::is_le)
}

fn text_of<'a>(found: &'a Found<'_>) -> Option<&'a str> {
    match found {
        Found::Text(t) => Some(t),
        // A typed value, {"@type": ..., "@value": ...}, stands for its value.
        Found::Json(v) => v.as_str().or_else(|| v.get("@value")?.as_str()),
        Found::Time(_) => None,
    }
}

/// How the found value stands to the operand; none if they are of different data types.
fn order(found: &Found<'_>, operand: &Operand) -> Option<Ordering> {
    match operand {
        Operand::Number(n) => match found {
            Found::Json(v) => v.as_f64().or_else(|| v.get("@value")?.as_f64())?.partial_cmp(n),
            _ => None,
        },
        Operand::Bool(b) => match found {
            Found::Json(v) => Some(v.as_bool()?.cmp(b)),
            _ => None,
        },
        Operand::Instant(i) => match found {
            Found::Time(t) => Some(t.cmp(i)),
            _ => Some(text_of(found)?.parse::<Instant>().ok()?.cmp(i)),
        },
        Operand::Date(d) => text_of(found).filter(|t| t.len() == 10 && is_date_like(t)).map(|t| t.cmp(d.as_str())),
        Operand::Time(w) => text_of(found)
            .filter(|t| t.ends_with('Z') && t.as_bytes().get(2) == Some(&b':'))
            .map(|t| t.trim_end_matches('Z').cmp(w.trim_end_matches('Z'))),
        Operand::Text(s) | Operand::Uri(s) => text_of(found).map(|t| t.cmp(s.as_str())),
    }
}

fn is_date_like(t: &str) -> bool {
    t.bytes().enumerate().all(|(i, b)| if i == 4 || i == 7 { b == b'-' } else { b.is_ascii_digit() })
}

impl GeoCondition {
    fn matches(&self, entity: &Entity) -> bool {
        entity.attributes.get(&self.property).is_some_and(|instances| {
            instances.iter().any(|i| match &i.value {
                AttributeValue::Geo(g) => self.holds(g),
                _ => false,
            })
        })
    }

    /// Does a place satisfy the condition?
    #[must_use]
    pub fn holds(&self, place: &Geometry) -> bool {
        self.holds_of(place.shape(), place.bbox())
    }

    /// Does a position satisfy the condition? The same answer as for the point as a geometry.
    #[must_use]
    pub fn holds_at(&self, lon: f64, lat: f64) -> bool {
        self.holds_of(&geo::Geometry::Point(geo::Point::new(lon, lat)), [lon, lat, lon, lat])
    }

    fn holds_of(&self, place: &geo::Geometry<f64>, bbox: [f64; 4]) -> bool {
        if let GeoRelation::NearMax(m) = self.relation {
            return distance_of(place, &self.reference) <= m;
        }
        if let GeoRelation::NearMin(m) = self.relation {
            return distance_of(place, &self.reference) >= m;
        }
        if boxes_are_apart(bbox, self.reference.bbox()) {
            return self.relation == GeoRelation::Disjoint;
        }
        if let (geo::Geometry::Point(point), geo::Geometry::Polygon(polygon)) = (place, self.reference.shape()) {
            return self.holds_for_point(*point, polygon);
        }
        let Some(matrix) = relate(place, self.reference.shape()) else { return false };
        match self.relation {
            GeoRelation::Within => matrix.is_within(),
            GeoRelation::Contains => matrix.is_contains(),
            GeoRelation::Intersects => matrix.is_intersects(),
            GeoRelation::Equals => matrix.is_equal_topo(),
            GeoRelation::Disjoint => matrix.is_disjoint(),
            GeoRelation::Overlaps => matrix.is_overlaps(),
            GeoRelation::NearMax(_) | GeoRelation::NearMin(_) => false,
        }
    }
}

impl GeoCondition {
    /// The commonest question by far, which needs no topology: a fiftieth of the time.
    fn holds_for_point(&self, point: geo::Point<f64>, polygon: &geo::Polygon<f64>) -> bool {
        use geo::coordinate_position::{CoordPos, CoordinatePosition};
        let position = polygon.coordinate_position(&point.0);
        match self.relation {
            // A point on the edge has no part in the inside.
            GeoRelation::Within => position == CoordPos::Inside,
            GeoRelation::Intersects => position != CoordPos::Outside,
            GeoRelation::Disjoint => position == CoordPos::Outside,
            // A point has no room for a polygon, nor is it of its kind.
            GeoRelation::Contains | GeoRelation::Equals | GeoRelation::Overlaps | GeoRelation::NearMax(_) | GeoRelation::NearMin(_) => {
                false
            }
        }
    }
}

/// How two shapes lie to one another; none if the library gives up.
///
/// `geo` 0.33 asserts while it builds the topology of some self-crossing polygons. A strange polygon must not end the thread that meets it.
fn relate(a: &geo::Geometry<f64>, b: &geo::Geometry<f64>) -> Option<geo::relate::IntersectionMatrix> {
    std::panic::catch_unwind(|| a.relate(b)).ok()
}

fn boxes_are_apart(a: [f64; 4], b: [f64; 4]) -> bool {
    a[0] > b[2] || b[0] > a[2] || a[1] > b[3] || b[1] > a[3]
}

/// How far two places are apart, in metres, as geo-queries measure it.
#[must_use]
pub fn distance_m(place: &Geometry, reference: &Geometry) -> f64 {
    distance_of(place.shape(), reference)
}

/// Distance in metres: great-circle between points; between other shapes in a plane laid around the reference's middle
/// (within 0.5 % up to some 200 km, which is as far as a city asks).
fn distance_of(a: &geo::Geometry<f64>, b: &Geometry) -> f64 {
    if let (geo::Geometry::Point(p), Some(q)) = (a, b.as_point()) {
        return Haversine.distance(*p, q);
    }
    // Metres per degree on the sphere that Haversine uses (mean radius 6,371,008.8 m, IUGG).
    const METRES_PER_DEGREE: f64 = 6_371_008.8 * std::f64::consts::PI / 180.0;
    let [west, south, east, north] = b.bbox();
    let (lon0, lat0) = (west.midpoint(east), south.midpoint(north));
    let k = lat0.to_radians().cos();
    let flat = |g: &geo::Geometry<f64>| {
        g.map_coords(|c| geo::Coord { x: (c.x - lon0) * k * METRES_PER_DEGREE, y: (c.y - lat0) * METRES_PER_DEGREE })
    };
    Euclidean.distance(&flat(a), &flat(b.shape()))
}

#[cfg(test)]
mod tests;
