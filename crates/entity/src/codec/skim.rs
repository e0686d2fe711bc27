//! Reading the binary form of an entity without making the entity.
//!
//! At a start a node goes through millions of documents, of which its indexes need the plain values only. Making whole entities of them
//! costs three quarters of the time in allocations of what is thrown away at once; [`Skim`] allocates nothing. What it does not understand
//! it gives as it is, to be read in the ordinary way.
//!
//! **Invariant:** a skimmed entity says what the decoded one says (kept by the property tests of the codec).

use super::{CodecError, DEPTH_MAX, PREFIXES, Read, Reader, member};
use crate::{Instances, Instant, Iri, Scope};

/// The kind of a JSON value that is a text.
const TEXT: u8 = 6;

/// An entity in its binary form, read as far as one asks.
pub struct Skim<'a> {
    reader: Reader<'a>,
    id: Name<'a>,
    types: &'a [u8],
    scopes: &'a [u8],
    created_at: Instant,
    modified_at: Instant,
    expires_at: Option<Instant>,
    first_end: Option<Instant>,
    n_left: usize,
}

/// A name in two parts.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    prefix: &'static str,
    rest: &'a str,
}

impl Name<'_> {
    /// Appends the whole name to a text.
    pub fn push_to(&self, text: &mut String) {
        text.push_str(self.prefix);
        text.push_str(self.rest);
    }
}

/// An attribute with its instances.
pub struct SkimmedAttribute<'a> {
    /// The bytes of its name: attributes with the same bytes have the same name. (Not the other way round: the table of prefixes grows.)
    pub name_bytes: &'a [u8],
    /// Its only instance, if it has one.
    pub only: Option<SkimmedInstance<'a>>,
    /// All instances, behind their number.
    instances: &'a [u8],
    n_instances: usize,
    base: Instant,
}

/// An instance of an attribute.
#[derive(Clone, Copy, Debug)]
pub struct SkimmedInstance<'a> {
    /// What it says.
    pub value: SkimmedValue<'a>,
    /// Since when it is true.
    pub observed_at: Option<Instant>,
    /// Its unit.
    pub unit_code: Option<&'a str>,
    /// When it expires.
    expires_at: Option<Instant>,
}

/// What an instance says, if that is plain.
#[derive(Clone, Copy, Debug)]
pub enum SkimmedValue<'a> {
    /// A Property that is a number.
    Number(f64),
    /// A Property that is a truth value.
    Bool(bool),
    /// A Property that is a text.
    Text(&'a str),
    /// A GeoProperty whose GeoJSON is that of a point with these two coordinates and nothing else.
    Point([f64; 2]),
    /// A Relationship with one target.
    Target(Name<'a>),
    /// A LanguageProperty with one text per language.
    Texts(Texts<'a>),
    /// Any other Property or LanguageProperty, a JsonProperty or a ListProperty.
    Compound,
    /// Another GeoProperty, a VocabProperty, a Relationship with several targets or none, or a ListRelationship.
    Unusual,
}

/// The texts of a LanguageProperty.
#[derive(Clone, Copy, Debug)]
pub struct Texts<'a>(&'a [u8]);

impl<'a> Texts<'a> {
    /// The texts, without the languages.
    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        let mut reader = Reader { bytes: self.0, at: 0, seen: None };
        std::iter::from_fn(move || {
            let _language = reader.text().ok()?;
            let _kind = reader.byte("a value").ok()?;
            reader.text().ok()
        })
    }
}

impl<'a> Skim<'a> {
    /// Reads what stands before the attributes.
    ///
    /// Errors: [`CodecError`].
    pub fn of(bytes: &'a [u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::of(bytes)?;
        let id = reader.skim_name()?;
        let types = reader.skim_list(|r| r.skim_name().map(drop))?;
        let scopes = reader.skim_list(|r| r.text().map(drop))?;
        let modified_at = reader.instant(Instant::default())?;
        let created_at = reader.instant(modified_at)?;
        let expires_at = reader.optional_instant()?;
        let n_left = reader.count()?;
        Ok(Self { reader, id, types, scopes, created_at, modified_at, expires_at, first_end: expires_at, n_left })
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> Name<'a> {
        self.id
    }

    /// The bytes of its types: the same bytes are the same types.
    #[must_use]
    pub const fn types_bytes(&self) -> &'a [u8] {
        self.types
    }

    /// Its types.
    ///
    /// Errors: [`CodecError`].
    pub fn types(&self) -> Result<Vec<Iri>, CodecError> {
        Reader { bytes: self.types, at: 0, seen: None }.terms()
    }

    /// The bytes of its scopes: the same bytes are the same scopes.
    #[must_use]
    pub const fn scopes_bytes(&self) -> &'a [u8] {
        self.scopes
    }

    /// Its scopes.
    ///
    /// Errors: [`CodecError`].
    pub fn scopes(&self) -> Result<Vec<Scope>, CodecError> {
        Reader { bytes: self.scopes, at: 0, seen: None }.scopes()
    }

    /// When it was first recorded.
    #[must_use]
    pub const fn created_at(&self) -> Instant {
        self.created_at
    }

    /// When it last changed.
    #[must_use]
    pub const fn modified_at(&self) -> Instant {
        self.modified_at
    }

    /// When it expires.
    #[must_use]
    pub const fn expires_at(&self) -> Option<Instant> {
        self.expires_at
    }

    /// When the entity, or the first of the instances that were read so far, expires.
    #[must_use]
    pub const fn first_end(&self) -> Option<Instant> {
        self.first_end
    }

    /// The next attribute; none behind the last one.
    ///
    /// Errors: [`CodecError`], also when bytes are left over behind the last attribute.
    pub fn next_attribute(&mut self) -> Result<Option<SkimmedAttribute<'a>>, CodecError> {
        if self.n_left == 0 {
            return self.reader.end().map(|()| None);
        }
        self.n_left -= 1;
        let (bytes, base) = (self.reader.bytes, self.modified_at);
        let from = self.reader.at;
        self.reader.skim_name()?;
        let name_bytes = &bytes[from..self.reader.at];
        let n_instances = self.reader.count()?;
        let from = self.reader.at;
        let mut only = None;
        for _ in 0..n_instances {
            let instance = self.reader.skim_instance(base, 0)?;
            self.first_end = [self.first_end, instance.expires_at].into_iter().flatten().min();
            only = Some(instance);
        }
        let instances = &bytes[from..self.reader.at];
        let only = only.filter(|_| n_instances == 1);
        Ok(Some(SkimmedAttribute { name_bytes, only, instances, n_instances, base }))
    }
}

impl SkimmedAttribute<'_> {
    /// Its name.
    ///
    /// Errors: [`CodecError`].
    pub fn name(&self) -> Result<Iri, CodecError> {
        Reader { bytes: self.name_bytes, at: 0, seen: None }.term()
    }

    /// All of its instances as they are in a decoded entity.
    ///
    /// Errors: [`CodecError`].
    pub fn instances(&self) -> Result<Instances, CodecError> {
        let mut reader = Reader { bytes: self.instances, at: 0, seen: None };
        (0..self.n_instances).map(|_| reader.attribute(self.base, 0)).collect()
    }
}

impl<'a> Reader<'a> {
    fn skim_name(&mut self) -> Read<Name<'a>> {
        let (prefix, rest) = self.parts_of_name()?;
        Ok(Name { prefix: PREFIXES[prefix], rest })
    }

    /// The bytes of a list, its number of items included.
    fn skim_list(&mut self, mut item: impl FnMut(&mut Self) -> Read<()>) -> Read<&'a [u8]> {
        let from = self.at;
        for _ in 0..self.count()? {
            item(self)?;
        }
        Ok(&self.bytes[from..self.at])
    }

    fn skim_instance(&mut self, base: Instant, depth: usize) -> Read<SkimmedInstance<'a>> {
        let members = self.byte("an attribute")?;
        let has = |member: u8| members & member != 0;
        let value = self.skim_attribute_value()?;
        if has(member::DATASET) {
            self.skim_name()?;
        }
        let observed_at = if has(member::OBSERVED) { Some(self.instant(Instant::default())?) } else { None };
        let unit_code = if has(member::UNIT) { Some(self.text()?) } else { None };
        if !has(member::AT_BASE) {
            let modified_at = self.instant(base)?;
            self.instant(modified_at)?;
        }
        if has(member::SUB_ATTRIBUTES) {
            self.skim_attributes(base, depth + 1)?;
        }
        let mut expires_at = None;
        if has(member::QUALIFIERS) {
            self.skim_list(|r| r.skim_name().map(drop))?;
            if self.is_there()? {
                self.skim_name()?;
            }
            expires_at = self.optional_instant()?;
        }
        Ok(SkimmedInstance { value, observed_at, unit_code, expires_at })
    }

    fn skim_attributes(&mut self, base: Instant, depth: usize) -> Read<()> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("nested too deeply"));
        }
        for _ in 0..self.count()? {
            self.skim_name()?;
            for _ in 0..self.count()? {
                self.skim_instance(base, depth)?;
            }
        }
        Ok(())
    }

    fn skim_attribute_value(&mut self) -> Read<SkimmedValue<'a>> {
        Ok(match self.byte("the kind of a value")? {
            b'P' => self.skim_property()?,
            b'p' => {
                let (lon, lat) = (self.float()?, self.float()?);
                if !(-180.0..=180.0).contains(&lon) || !(-90.0..=90.0).contains(&lat) {
                    return Err(self.wrong("a point off the Earth"));
                }
                SkimmedValue::Point([lon, lat])
            }
            b'R' => match self.count()? {
                1 => SkimmedValue::Target(self.skim_name()?),
                n => {
                    (0..n).try_for_each(|_| self.skim_name().map(drop))?;
                    SkimmedValue::Unusual
                }
            },
            b'L' => {
                let n = self.count()?;
                let (from, mut are_texts) = (self.at, true);
                for _ in 0..n {
                    self.text()?;
                    are_texts &= self.bytes.get(self.at) == Some(&TEXT);
                    self.skim_value(0)?;
                }
                if are_texts { SkimmedValue::Texts(Texts(&self.bytes[from..self.at])) } else { SkimmedValue::Compound }
            }
            b'J' => {
                self.skim_value(0)?;
                SkimmedValue::Compound
            }
            b'A' => {
                self.skim_list(|r| r.skim_value(0))?;
                SkimmedValue::Compound
            }
            b'G' => {
                self.skim_value(0)?;
                SkimmedValue::Unusual
            }
            b'V' | b'O' => {
                self.skim_list(|r| r.skim_name().map(drop))?;
                SkimmedValue::Unusual
            }
            _ => return Err(self.wrong("an unknown kind of value")),
        })
    }

    fn skim_property(&mut self) -> Read<SkimmedValue<'a>> {
        let from = self.at;
        Ok(match self.byte("a value")? {
            1 => SkimmedValue::Bool(false),
            2 => SkimmedValue::Bool(true),
            // As `serde_json::Number::as_f64` has it.
            3 => SkimmedValue::Number(self.signed()? as f64),
            4 => SkimmedValue::Number(self.number()? as f64),
            5 => match self.float()? {
                n if n.is_finite() => SkimmedValue::Number(n),
                _ => return Err(self.wrong("a number that JSON does not have")),
            },
            TEXT => SkimmedValue::Text(self.text()?),
            _ => {
                self.at = from;
                self.skim_value(0)?;
                SkimmedValue::Compound
            }
        })
    }

    fn skim_value(&mut self, depth: usize) -> Read<()> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("nested too deeply"));
        }
        match self.byte("a value")? {
            0..=2 => {}
            3 | 4 => drop(self.number()?),
            5 => drop(self.float()?),
            TEXT => drop(self.text()?),
            7 => drop(self.skim_list(|r| r.skim_value(depth + 1))?),
            8 => {
                for _ in 0..self.count()? {
                    self.text()?;
                    self.skim_value(depth + 1)?;
                }
            }
            _ => return Err(self.wrong("an unknown kind of JSON value")),
        }
        Ok(())
    }
}
