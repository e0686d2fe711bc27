//! The binary form of entities and deltas, as log and documents keep them.
//!
//! Compact and quick to read rather than readable: about a third of the JSON form. A first byte says the format; JSON begins with `{`, so a
//! reader can tell the two apart. Numbers are little-endian base-128 varints (signed ones zigzag), texts have their length before them, and
//! texts that begin with a well-known namespace have that replaced by its number in a table that only ever grows.
//! Recorded times of attributes are written as differences from the entity's. Changes that are written together name a type or an attribute
//! once: where it comes again, a number says which one it was.
//!
//! **Invariant:** what is read back is what was written; no bytes make the decoder panic (kept by property tests and a fuzz target).

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use serde_json::{Map, Number, Value};
use smol_str::SmolStr;

use crate::change::Delta;
use crate::entity::{Attribute, AttributeValue, Attributes, Entity, Qualifiers};
use crate::{Geometry, Instances, Instant, Iri, Scope, SubAttributes};

mod skim;

pub use skim::{Name, Skim, SkimmedAttribute, SkimmedInstance, SkimmedValue, Texts};

/// First byte of everything that this version writes.
pub const FORMAT: u8 = 1;
/// Names of types and attributes that one thread remembers.
const TERMS_MAX: usize = 8_192;
/// Instances of an attribute for which room is made before they are read.
const INSTANCES_RESERVED: usize = 16;
/// Deltas for which room is made before they are read.
const DELTAS_RESERVED: usize = 4_096;
/// Names that a writer of deltas, and their reader, remembers; further ones are written in full each time.
const SEEN_MAX: usize = 256;
/// Smaller numbers before a name are those of prefixes, larger ones say which of the names seen it is.
const SEEN_BASE: usize = 64;
const _: () = assert!(PREFIXES.len() <= SEEN_BASE, "the numbers of prefixes are below those of names");
/// Deepest nesting of values and sub-attributes that is read.
const DEPTH_MAX: usize = 200;

/// Beginnings of texts that are kept as a number. Only ever add at the end: the place in the list is the format.
const PREFIXES: &[&str] = &[
    "",
    "urn:ngsi-ld:",
    "https://uri.etsi.org/ngsi-ld/",
    "https://uri.etsi.org/ngsi-ld/default-context/",
    "https://smartdatamodels.org/",
    "https://smartdatamodels.org/dataModel.Environment/",
    "https://smartdatamodels.org/dataModel.Transportation/",
    "https://smartdatamodels.org/dataModel.Weather/",
    "https://smartdatamodels.org/dataModel.Parking/",
    "https://smartdatamodels.org/dataModel.Energy/",
    "https://uri.fiware.org/ns/data-models#",
    "https://conurb.org/ns#",
    "https://schema.org/",
    "http://www.w3.org/2001/XMLSchema#",
    "https://",
    "http://",
    "urn:",
];

/// The prefixes but the empty one with their numbers, the longest first: those that begin with [`HTTPS`], and the others.
static BY_LENGTH: LazyLock<[Vec<(usize, &'static str)>; 2]> = LazyLock::new(|| {
    let mut all: Vec<_> = PREFIXES.iter().copied().enumerate().skip(1).collect();
    all.sort_by_key(|(_, prefix)| std::cmp::Reverse(prefix.len()));
    let (https, others) = all.into_iter().partition(|(_, prefix)| prefix.starts_with(HTTPS));
    [https, others]
});

/// What most names begin with.
const HTTPS: &str = "https://";

/// The number of the longest prefix that a text begins with; the empty one fits everything.
fn longest_prefix(text: &str) -> usize {
    let bytes = text.as_bytes();
    // Looking at the last byte first spares nearly all comparisons.
    let fits = |prefix: &str| bytes.get(prefix.len() - 1) == prefix.as_bytes().last() && text.starts_with(prefix);
    BY_LENGTH[usize::from(!text.starts_with(HTTPS))].iter().find(|(_, prefix)| fits(prefix)).map_or(0, |(i, _)| *i)
}

/// Names of types and attributes that a thread has read: a city has thousands, its entities have millions, and share them.
#[derive(Default)]
struct Terms {
    by_rest: [HashMap<Box<str>, Iri, foldhash::fast::RandomState>; PREFIXES.len()],
    n: usize,
}

thread_local! {
    static TERMS: RefCell<Terms> = RefCell::default();
}

impl Terms {
    fn get(&mut self, prefix: usize, rest: &str) -> Iri {
        if let Some(known) = self.by_rest[prefix].get(rest) {
            return known.clone();
        }
        let name = name_of(PREFIXES[prefix], rest).interned();
        if self.n == TERMS_MAX {
            *self = Self::default();
        }
        self.by_rest[prefix].insert(rest.into(), name.clone());
        self.n += 1;
        name
    }
}

fn name_of(prefix: &str, rest: &str) -> Iri {
    Iri::stored(if prefix.is_empty() { SmolStr::new(rest) } else { smol_str::format_smolstr!("{prefix}{rest}") })
}

/// Why bytes are not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end too early.
    #[error("ends at byte {at_byte}, in the middle of {what}")]
    Short {
        /// Where.
        at_byte: usize,
        /// What was being read.
        what: &'static str,
    },
    /// A form that this program does not know.
    #[error("has format {found}, this program knows {FORMAT}")]
    Format {
        /// The first byte.
        found: u8,
    },
    /// Something impossible.
    #[error("byte {at_byte}: {what}")]
    Wrong {
        /// Where.
        at_byte: usize,
        /// What is wrong.
        what: &'static str,
    },
}

/// The binary form of an entity.
#[must_use]
pub fn encode_entity(entity: &Entity) -> Vec<u8> {
    let mut out = Writer::default();
    out.0.push(FORMAT);
    out.entity(entity);
    out.0
}

/// Reads what [`encode_entity`] wrote.
///
/// Errors: [`CodecError`], also when bytes are left over.
pub fn decode_entity(bytes: &[u8]) -> Result<Entity, CodecError> {
    let mut input = Reader::of(bytes)?;
    let entity = input.entity()?;
    input.end()?;
    Ok(entity)
}

/// Appends the binary form of deltas to `out`, without the format's byte and without how many there are.
pub fn encode_deltas(deltas: &[&Delta], out: &mut Vec<u8>) {
    let mut writer = Writer(std::mem::take(out), Some(SeenTerms::default()));
    deltas.iter().for_each(|delta| writer.delta(delta));
    *out = writer.0;
}

/// How names stand in deltas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TermForm {
    /// Each in full: records of stores up to format 2.
    Full,
    /// Once, as [`encode_deltas`] writes them.
    Once,
}

/// Reads `n` deltas from the beginning of `bytes`; returns them and how many bytes they took.
///
/// Errors: which delta cannot be read, and why; positions are counted from the beginning of `bytes`.
pub fn decode_deltas(bytes: &[u8], n: usize, form: TermForm) -> Result<(Vec<Delta>, usize), (usize, CodecError)> {
    let mut input = Reader { bytes, at: 0, seen: (form == TermForm::Once).then(Vec::new) };
    // What is claimed is not believed before it is there.
    let mut deltas = Vec::with_capacity(n.min(DELTAS_RESERVED));
    for idx in 0..n {
        deltas.push(input.delta().map_err(|e| (idx, e))?);
    }
    Ok((deltas, input.at))
}

/// Attributes' members that are there.
mod member {
    pub(super) const DATASET: u8 = 1;
    pub(super) const OBSERVED: u8 = 2;
    pub(super) const UNIT: u8 = 4;
    pub(super) const SUB_ATTRIBUTES: u8 = 8;
    pub(super) const QUALIFIERS: u8 = 16;
    /// Created and modified at the base time.
    pub(super) const AT_BASE: u8 = 32;
}

/// A delta's members that are there.
mod part {
    pub(super) const DELETE: u8 = 1;
    pub(super) const CLEAR: u8 = 2;
    pub(super) const SCOPES: u8 = 4;
    pub(super) const EXPIRES: u8 = 8;
    pub(super) const LATE: u8 = 16;
    pub(super) const REMOVE: u8 = 32;
}

/// The bytes, and the names that were written already if they are not to be written again.
#[derive(Default)]
struct Writer(Vec<u8>, Option<SeenTerms>);

/// The names of types and attributes that were written, in their order.
#[derive(Default)]
struct SeenTerms {
    names: Vec<Iri>,
    /// The one behind that which came last: entities of a type have the same attributes in the same order.
    next: usize,
}

impl SeenTerms {
    /// Which one it is; none if it was not written yet, and is from now on.
    fn idx_of(&mut self, name: &Iri) -> Option<usize> {
        let is_next = self.names.get(self.next).is_some_and(|n| n == name);
        let idx = if is_next { Some(self.next) } else { self.names.iter().position(|n| n == name) };
        if idx.is_none() && self.names.len() < SEEN_MAX {
            self.names.push(name.clone());
        }
        self.next = idx.map_or(self.names.len(), |idx| idx + 1);
        idx
    }
}

impl Writer {
    fn number(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push((n as u8) | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    fn signed(&mut self, n: i64) {
        self.number(((n << 1) ^ (n >> 63)) as u64);
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn name(&mut self, name: &str) {
        let i = longest_prefix(name);
        self.number(i as u64);
        self.text(&name[PREFIXES[i].len()..]);
    }

    /// A name that many entities share.
    fn term(&mut self, name: &Iri) {
        match self.1.as_mut().and_then(|seen| seen.idx_of(name)) {
            Some(idx) => self.number((SEEN_BASE + idx) as u64),
            None => self.name(name.as_str()),
        }
    }

    fn names(&mut self, names: &[Iri]) {
        self.number(names.len() as u64);
        names.iter().for_each(|n| self.name(n.as_str()));
    }

    fn terms(&mut self, names: &[Iri]) {
        self.number(names.len() as u64);
        names.iter().for_each(|n| self.term(n));
    }

    fn scopes(&mut self, scopes: &[Scope]) {
        self.number(scopes.len() as u64);
        scopes.iter().for_each(|s| self.text(s.as_str()));
    }

    fn instant(&mut self, at: Instant, base: Instant) {
        self.signed(at.micros().wrapping_sub(base.micros()));
    }

    fn optional_instant(&mut self, at: Option<Instant>) {
        self.0.push(u8::from(at.is_some()));
        if let Some(at) = at {
            self.signed(at.micros());
        }
    }

    fn optional_name(&mut self, name: Option<&Iri>) {
        self.0.push(u8::from(name.is_some()));
        if let Some(name) = name {
            self.name(name.as_str());
        }
    }

    fn entity(&mut self, e: &Entity) {
        self.name(e.id.as_str());
        self.terms(&e.types);
        self.scopes(&e.scopes);
        self.signed(e.modified_at.micros());
        self.instant(e.created_at, e.modified_at);
        self.optional_instant(e.expires_at);
        self.attributes(&e.attributes, Some(e.modified_at));
    }

    /// `base` as for [`Self::attribute`].
    fn attributes(&mut self, attributes: &Attributes, base: Option<Instant>) {
        self.number(attributes.len() as u64);
        for (name, instances) in attributes {
            self.term(name);
            self.number(instances.len() as u64);
            instances.iter().for_each(|a| self.attribute(a, base));
        }
    }

    /// `base`: what the recorded times are told from; without it they are left out, for they will be set by whoever applies the change.
    fn attribute(&mut self, a: &Attribute, base: Option<Instant>) {
        let told_from = base.filter(|base| a.created_at != *base || a.modified_at != *base);
        let mut members = 0;
        let mut set = |there: bool, member: u8| members |= if there { member } else { 0 };
        set(a.dataset_id.is_some(), member::DATASET);
        set(a.observed_at.is_some(), member::OBSERVED);
        set(a.unit_code.is_some(), member::UNIT);
        set(!a.sub_attributes.is_empty(), member::SUB_ATTRIBUTES);
        set(a.qualifiers.is_some(), member::QUALIFIERS);
        set(told_from.is_none(), member::AT_BASE);
        self.0.push(members);
        self.attribute_value(&a.value);
        if let Some(d) = &a.dataset_id {
            self.name(d.as_str());
        }
        if let Some(o) = a.observed_at {
            self.signed(o.micros());
        }
        if let Some(u) = &a.unit_code {
            self.text(u);
        }
        if let Some(base) = told_from {
            self.instant(a.modified_at, base);
            self.instant(a.created_at, a.modified_at);
        }
        if !a.sub_attributes.is_empty() {
            self.attributes(&a.sub_attributes, base);
        }
        if let Some(q) = &a.qualifiers {
            self.terms(&q.object_types);
            self.optional_name(q.value_type.as_ref());
            self.optional_instant(q.expires_at);
        }
    }

    fn attribute_value(&mut self, value: &AttributeValue) {
        match value {
            AttributeValue::Property(v) => {
                self.0.push(b'P');
                self.value(v);
            }
            AttributeValue::Geo(g) => {
                if let Some([lon, lat]) = g.plain_point() {
                    self.0.push(b'p');
                    self.0.extend_from_slice(&lon.to_le_bytes());
                    self.0.extend_from_slice(&lat.to_le_bytes());
                } else {
                    self.0.push(b'G');
                    self.value(g.json());
                }
            }
            AttributeValue::Relationship(targets) => {
                self.0.push(b'R');
                self.names(targets);
            }
            AttributeValue::Language(texts) => {
                self.0.push(b'L');
                self.number(texts.len() as u64);
                for (tag, text) in texts {
                    self.text(tag);
                    self.value(text);
                }
            }
            AttributeValue::Vocab(terms) => {
                self.0.push(b'V');
                self.names(terms);
            }
            AttributeValue::Json(v) => {
                self.0.push(b'J');
                self.value(v);
            }
            AttributeValue::List(values) => {
                self.0.push(b'A');
                self.number(values.len() as u64);
                values.iter().for_each(|v| self.value(v));
            }
            AttributeValue::ListRelationship(targets) => {
                self.0.push(b'O');
                self.names(targets);
            }
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.0.push(0),
            Value::Bool(b) => self.0.push(1 + u8::from(*b)),
            Value::Number(n) => {
                if let Some(i) = n.as_i64() {
                    self.0.push(3);
                    self.signed(i);
                } else if let Some(u) = n.as_u64() {
                    self.0.push(4);
                    self.number(u);
                } else {
                    self.0.push(5);
                    self.0.extend_from_slice(&n.as_f64().expect("a JSON number is one of three kinds").to_le_bytes());
                }
            }
            Value::String(s) => {
                self.0.push(6);
                self.text(s);
            }
            Value::Array(values) => {
                self.0.push(7);
                self.number(values.len() as u64);
                values.iter().for_each(|v| self.value(v));
            }
            Value::Object(members) => {
                self.0.push(8);
                self.number(members.len() as u64);
                for (name, v) in members {
                    self.text(name);
                    self.value(v);
                }
            }
        }
    }

    fn delta(&mut self, d: &Delta) {
        let mut parts = 0;
        let mut set = |there: bool, part: u8| parts |= if there { part } else { 0 };
        set(d.delete, part::DELETE);
        set(d.clear, part::CLEAR);
        set(d.scopes.is_some(), part::SCOPES);
        set(d.expires_at.is_some(), part::EXPIRES);
        set(!d.late.is_empty(), part::LATE);
        set(!d.remove.is_empty(), part::REMOVE);
        self.0.push(parts);
        self.name(d.id.as_str());
        self.terms(&d.types);
        if let Some(scopes) = &d.scopes {
            self.scopes(scopes);
        }
        if let Some(expires_at) = d.expires_at {
            self.optional_instant(expires_at);
        }
        self.instances(&d.put, None);
        if !d.late.is_empty() {
            // A correction keeps the time at which what it corrects was created.
            self.instances(&d.late, Some(Instant::default()));
        }
        if !d.remove.is_empty() {
            self.number(d.remove.len() as u64);
            for (name, dataset_id) in &d.remove {
                self.term(name);
                self.optional_name(dataset_id.as_ref());
            }
        }
    }

    /// `corrected`: what the times are told from of those that were created before they were recorded.
    fn instances(&mut self, instances: &[(Iri, Arc<Attribute>)], corrected: Option<Instant>) {
        self.number(instances.len() as u64);
        for (name, attribute) in instances {
            self.term(name);
            self.attribute(attribute, corrected.filter(|_| attribute.created_at != attribute.modified_at));
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The names that were read already, if they are not written again.
    seen: Option<Vec<Iri>>,
}

type Read<T> = Result<T, CodecError>;

impl<'a> Reader<'a> {
    /// A reader behind the format's byte.
    fn of(bytes: &'a [u8]) -> Read<Self> {
        match bytes.first() {
            None => Err(CodecError::Short { at_byte: 0, what: "the format" }),
            Some(&FORMAT) => Ok(Self { bytes, at: 1, seen: None }),
            Some(&found) => Err(CodecError::Format { found }),
        }
    }

    fn end(&self) -> Read<()> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.wrong("bytes are left over")) }
    }

    const fn wrong(&self, what: &'static str) -> CodecError {
        CodecError::Wrong { at_byte: self.at, what }
    }

    fn take(&mut self, n: usize, what: &'static str) -> Read<&'a [u8]> {
        let end = self.at.checked_add(n).filter(|e| *e <= self.bytes.len());
        let end = end.ok_or(CodecError::Short { at_byte: self.bytes.len(), what })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self, what: &'static str) -> Read<u8> {
        Ok(self.take(1, what)?[0])
    }

    fn number(&mut self) -> Read<u64> {
        let mut n = 0;
        for shift in (0..64).step_by(7) {
            let b = self.byte("a number")?;
            if shift == 63 && b > 1 {
                break;
            }
            n |= u64::from(b & 0x7f) << shift;
            if b < 0x80 {
                return Ok(n);
            }
        }
        Err(self.wrong("a number is too long"))
    }

    fn signed(&mut self) -> Read<i64> {
        let n = self.number()?;
        Ok(((n >> 1) as i64) ^ -((n & 1) as i64))
    }

    /// How many follow; each takes at least a byte, so that a wrong count cannot make anything large.
    fn count(&mut self) -> Read<usize> {
        let n = self.number()?;
        let left = self.bytes.len() - self.at;
        usize::try_from(n).ok().filter(|n| *n <= left).ok_or_else(|| self.wrong("a count is larger than what follows"))
    }

    fn text(&mut self) -> Read<&'a str> {
        let n = self.count()?;
        let bytes = self.take(n, "a text")?;
        std::str::from_utf8(bytes).map_err(|_| self.wrong("a text is not UTF-8"))
    }

    /// The number of a prefix, and what follows it.
    fn parts_of_name(&mut self) -> Read<(usize, &'a str)> {
        let i = self.number()?;
        self.parts_behind(i)
    }

    fn parts_behind(&mut self, i: u64) -> Read<(usize, &'a str)> {
        let prefix = usize::try_from(i).ok().filter(|i| *i < PREFIXES.len()).ok_or_else(|| self.wrong("an unknown prefix"))?;
        Ok((prefix, self.text()?))
    }

    fn name(&mut self) -> Read<Iri> {
        let (prefix, rest) = self.parts_of_name()?;
        Ok(name_of(PREFIXES[prefix], rest))
    }

    /// A name that many entities share.
    fn term(&mut self) -> Read<Iri> {
        let i = self.number()?;
        let seen_idx = usize::try_from(i).ok().and_then(|i| i.checked_sub(SEEN_BASE));
        if let (Some(idx), Some(seen)) = (seen_idx, &self.seen) {
            return seen.get(idx).cloned().ok_or_else(|| self.wrong("a name that did not come before"));
        }
        let (prefix, rest) = self.parts_behind(i)?;
        let name = TERMS.with_borrow_mut(|terms| terms.get(prefix, rest));
        if let Some(seen) = self.seen.as_mut().filter(|seen| seen.len() < SEEN_MAX) {
            seen.push(name.clone());
        }
        Ok(name)
    }

    fn names(&mut self) -> Read<Vec<Iri>> {
        (0..self.count()?).map(|_| self.name()).collect()
    }

    fn terms(&mut self) -> Read<Vec<Iri>> {
        (0..self.count()?).map(|_| self.term()).collect()
    }

    fn scopes(&mut self) -> Read<Vec<Scope>> {
        (0..self.count()?).map(|_| Ok(Scope::stored(SmolStr::new(self.text()?)))).collect()
    }

    fn micros(&self, us: i64) -> Read<Instant> {
        let at = Instant::from_micros(us);
        if at.micros() == us { Ok(at) } else { Err(self.wrong("an instant is out of range")) }
    }

    fn instant(&mut self, base: Instant) -> Read<Instant> {
        let us = self.signed()?.wrapping_add(base.micros());
        self.micros(us)
    }

    fn is_there(&mut self) -> Read<bool> {
        match self.byte("whether something is there")? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.wrong("neither there nor not")),
        }
    }

    fn optional_instant(&mut self) -> Read<Option<Instant>> {
        if self.is_there()? { Ok(Some(self.instant(Instant::default())?)) } else { Ok(None) }
    }

    fn optional_name(&mut self) -> Read<Option<Iri>> {
        if self.is_there()? { Ok(Some(self.name()?)) } else { Ok(None) }
    }

    fn entity(&mut self) -> Read<Entity> {
        let id = self.name()?;
        let types = self.terms()?;
        let scopes = self.scopes()?;
        let modified_at = self.instant(Instant::default())?;
        let created_at = self.instant(modified_at)?;
        let expires_at = self.optional_instant()?;
        let attributes = self.attributes(modified_at, 0)?;
        Ok(Entity { id, types, scopes, attributes, created_at, modified_at, expires_at })
    }

    fn attributes(&mut self, base: Instant, depth: usize) -> Read<Attributes> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("nested too deeply"));
        }
        let n = self.count()?;
        let mut attributes = Attributes::with_capacity_and_hasher(n, Default::default());
        for _ in 0..n {
            let name = self.term()?;
            let instances = match self.count()? {
                1 => self.attribute(base, depth)?.into(),
                n_instances => {
                    let mut instances = Vec::with_capacity(n_instances.min(INSTANCES_RESERVED));
                    for _ in 0..n_instances {
                        instances.push(self.attribute(base, depth)?);
                    }
                    Instances::from(instances)
                }
            };
            attributes.insert(name, instances);
        }
        Ok(attributes)
    }

    fn attribute(&mut self, base: Instant, depth: usize) -> Read<Attribute> {
        let members = self.byte("an attribute")?;
        let has = |member: u8| members & member != 0;
        let value = self.attribute_value()?;
        let dataset_id = if has(member::DATASET) { Some(self.name()?) } else { None };
        let observed_at = if has(member::OBSERVED) { Some(self.instant(Instant::default())?) } else { None };
        let unit_code = if has(member::UNIT) { Some(SmolStr::new(self.text()?)) } else { None };
        let (mut created_at, mut modified_at) = (base, base);
        if !has(member::AT_BASE) {
            modified_at = self.instant(base)?;
            created_at = self.instant(modified_at)?;
        }
        let sub_attributes = if has(member::SUB_ATTRIBUTES) { self.attributes(base, depth + 1)?.into() } else { SubAttributes::default() };
        let qualifiers = if has(member::QUALIFIERS) {
            let object_types = self.terms()?;
            let value_type = self.optional_name()?;
            Some(Box::new(Qualifiers { object_types, value_type, expires_at: self.optional_instant()? }))
        } else {
            None
        };
        Ok(Attribute { value, dataset_id, observed_at, unit_code, created_at, modified_at, sub_attributes, qualifiers })
    }

    fn attribute_value(&mut self) -> Read<AttributeValue> {
        Ok(match self.byte("the kind of a value")? {
            b'P' => AttributeValue::Property(self.value(0)?),
            b'p' => {
                let (lon, lat) = (self.float()?, self.float()?);
                AttributeValue::Geo(Geometry::of_plain_point([lon, lat]).ok_or_else(|| self.wrong("a point off the Earth"))?)
            }
            b'G' => {
                let json = self.value(0)?;
                AttributeValue::Geo(Geometry::from_json(json).map_err(|_| self.wrong("not a geometry"))?)
            }
            b'R' => AttributeValue::Relationship(self.names()?),
            b'L' => {
                let texts = (0..self.count()?).map(|_| Ok((SmolStr::new(self.text()?), self.value(0)?)));
                AttributeValue::Language(texts.collect::<Read<_>>()?)
            }
            b'V' => AttributeValue::Vocab(self.names()?),
            b'J' => AttributeValue::Json(self.value(0)?),
            b'A' => AttributeValue::List((0..self.count()?).map(|_| self.value(0)).collect::<Read<_>>()?),
            b'O' => AttributeValue::ListRelationship(self.names()?),
            _ => return Err(self.wrong("an unknown kind of value")),
        })
    }

    fn float(&mut self) -> Read<f64> {
        let bytes = self.take(8, "a floating-point number")?;
        Ok(f64::from_le_bytes(bytes.try_into().expect("eight bytes were taken")))
    }

    fn value(&mut self, depth: usize) -> Read<Value> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("nested too deeply"));
        }
        Ok(match self.byte("a value")? {
            0 => Value::Null,
            1 => Value::Bool(false),
            2 => Value::Bool(true),
            3 => Value::Number(self.signed()?.into()),
            4 => Value::Number(self.number()?.into()),
            5 => {
                let f = self.float()?;
                Value::Number(Number::from_f64(f).ok_or_else(|| self.wrong("a number that JSON does not have"))?)
            }
            6 => Value::String(self.text()?.to_owned()),
            7 => Value::Array((0..self.count()?).map(|_| self.value(depth + 1)).collect::<Read<_>>()?),
            8 => {
                let members = (0..self.count()?).map(|_| Ok((self.text()?.to_owned(), self.value(depth + 1)?)));
                Value::Object(members.collect::<Read<Map<_, _>>>()?)
            }
            _ => return Err(self.wrong("an unknown kind of JSON value")),
        })
    }

    fn delta(&mut self) -> Read<Delta> {
        let parts = self.byte("a change")?;
        let has = |part: u8| parts & part != 0;
        let id = self.name()?;
        let types = self.terms()?;
        let scopes = if has(part::SCOPES) { Some(self.scopes()?) } else { None };
        let expires_at = if has(part::EXPIRES) { Some(self.optional_instant()?) } else { None };
        let put = self.instances()?;
        let late = if has(part::LATE) { self.instances()? } else { Vec::new() };
        let remove = if has(part::REMOVE) {
            (0..self.count()?).map(|_| Ok((self.term()?, self.optional_name()?))).collect::<Read<_>>()?
        } else {
            Vec::new()
        };
        Ok(Delta { id, delete: has(part::DELETE), clear: has(part::CLEAR), types, scopes, put, late, remove, expires_at })
    }

    fn instances(&mut self) -> Read<Vec<(Iri, Arc<Attribute>)>> {
        (0..self.count()?).map(|_| Ok((self.term()?, Arc::new(self.attribute(Instant::default(), 0)?)))).collect()
    }
}

#[cfg(test)]
mod tests;
