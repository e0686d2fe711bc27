//! How an answer is to look: what of an entity is shown, and in which form.

use entity::{Attribute, Iri};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use smol_str::SmolStr;

use crate::DEFAULT_INSTANCE;
use crate::error::{Error, Result, shown};

/// How much is said about each attribute (ETSI GS CIM 009 V1.9.1, clauses 4.5.2 and 4.5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Representation {
    /// Everything, with the kind of each attribute.
    #[default]
    Normalized,
    /// Everything, in the shortest form.
    Concise,
    /// Only values; also called `keyValues`.
    Simplified,
}

/// One member of an entity, as `pick` and `omit` name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Member {
    /// The id.
    Id,
    /// The types.
    Type,
    /// The scopes.
    Scope,
    /// An attribute.
    Attribute(Iri),
    /// A relationship, and members of the entities that it leads to.
    Linked(Iri, Vec<Self>),
}

impl Member {
    /// How many relationships it goes along.
    #[must_use]
    pub fn link_depth(&self) -> usize {
        match self {
            Self::Linked(_, inner) => 1 + inner.iter().map(Self::link_depth).max().unwrap_or_default(),
            _ => 0,
        }
    }
}

/// Linked entities are shown, too (clause 4.5.23).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Where.
    pub style: JoinStyle,
    /// How many relationships are followed one behind the other.
    pub levels: usize,
    /// Entities that are known to the reader already.
    pub contained_by: Vec<Iri>,
}

/// Where linked entities are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum JoinStyle {
    /// Behind the others, each once.
    Flat,
    /// In the relationships that lead to them.
    Inline,
}

/// One instance as a request names it: none is the default instance.
pub type DatasetId = Option<Iri>;

/// How an answer is to look.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct View {
    /// The form.
    pub representation: Representation,
    /// `createdAt`, `modifiedAt` and `expiresAt` are shown.
    pub sys_attrs: bool,
    /// Exactly these members, id and type included only if listed; none for all (clause 4.21).
    pub pick: Option<Vec<Member>>,
    /// All but these.
    pub omit: Vec<Member>,
    /// Only these attributes, beside id, type and scope (parameter `attrs`, deprecated); none for all.
    pub attrs: Option<Vec<Iri>>,
    /// Which language of LanguageProperties is shown; none for all (clause 4.15).
    pub lang: Option<LanguageRanges>,
    /// Only these instances; none for all (clause 4.5.5.1).
    pub dataset_ids: Option<Vec<DatasetId>>,
    /// The GeoProperty that is the geometry of a GeoJSON feature; none for `location`.
    pub geometry_property: Option<Iri>,
    /// Linked entities are shown.
    pub join: Option<Join>,
    /// In answers about time: arrays of values and times instead of instances (`temporalValues`, clause 4.5.9).
    pub temporal_values: bool,
}

impl View {
    /// Everything in one form.
    #[must_use]
    pub fn of(representation: Representation) -> Self {
        Self { representation, ..Self::default() }
    }

    /// Is the plain member shown?
    #[must_use]
    pub fn shows(&self, member: &Member) -> bool {
        self.pick.as_ref().is_none_or(|list| list.contains(member)) && !self.omit.contains(member)
    }

    /// Is the attribute shown?
    #[must_use]
    pub fn shows_attribute(&self, name: &Iri) -> bool {
        let is_it = |member: &Member| matches!(member, Member::Attribute(n) if n == name);
        let leads_on = |member: &Member| matches!(member, Member::Linked(n, _) if n == name);
        self.attrs.as_ref().is_none_or(|list| list.contains(name))
            && self.pick.as_ref().is_none_or(|list| list.iter().any(|m| is_it(m) || leads_on(m)))
            && !self.omit.iter().any(is_it)
    }

    /// How entities are shown that a relationship leads to: with the members that are named for them, otherwise like the others
    /// (clauses 4.21 and 5.7.1.5).
    #[must_use]
    pub fn of_linked(&self, relationship: &Iri) -> Self {
        let inner = |list: &[Member]| {
            let nested = list.iter().find_map(|m| match m {
                Member::Linked(name, inner) if name == relationship => Some(inner.clone()),
                _ => None,
            });
            nested.unwrap_or_else(|| list.to_vec())
        };
        Self { pick: self.pick.as_deref().map(inner), omit: inner(&self.omit), attrs: None, dataset_ids: None, ..self.clone() }
    }

    /// Is this instance shown?
    #[must_use]
    pub fn shows_instance(&self, attribute: &Attribute) -> bool {
        self.dataset_ids.as_ref().is_none_or(|list| list.contains(&attribute.dataset_id))
    }
}

/// The languages that a reader wants, best first: an HTTP `Accept-Language` list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LanguageRanges {
    source: String,
    /// Ranges in lower case by falling weight; `*` for any.
    ranges: Vec<String>,
}

/// The most languages in one list.
const RANGES_MAX: usize = 50;

impl LanguageRanges {
    /// Parses e.g. `zh-Hans,zh;q=0.9,en;q=0.5,*;q=0.1`.
    ///
    /// Errors: [`crate::ErrorKind::BadRequestData`] naming the part that is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let mut weighted: Vec<(f64, String)> = Vec::new();
        for part in text.split(',') {
            let wrong = || Error::bad(format!("`{}` is not a language (expected e.g. `zh-Hans,en;q=0.5,*;q=0.1`)", shown(part)));
            let (range, weight) = match part.split_once(';') {
                None => (part.trim(), 1.0),
                Some((range, q)) => {
                    let q = q.trim().strip_prefix("q=").and_then(|q| q.parse::<f64>().ok()).filter(|q| (0.0..=1.0).contains(q));
                    (range.trim(), q.ok_or_else(wrong)?)
                }
            };
            let ok = matches!(range, "*" | DEFAULT_INSTANCE)
                || range.starts_with(|c: char| c.is_ascii_alphabetic()) && range.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
            if !ok {
                return Err(wrong());
            }
            if weight > 0.0 {
                weighted.push((weight, range.to_ascii_lowercase()));
            }
        }
        if weighted.len() > RANGES_MAX {
            return Err(Error::bad(format!("{} languages are more than the limit of {RANGES_MAX}", weighted.len())));
        }
        // Stable: of equal weight, the first named comes first.
        weighted.sort_by(|a, b| b.0.total_cmp(&a.0));
        Ok(Self { source: text.to_owned(), ranges: weighted.into_iter().map(|(_, range)| range).collect() })
    }

    /// The list as given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// The one language of a list that names one, as given.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        let is_tag = self.ranges.len() == 1 && self.source.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        is_tag.then_some(self.source.as_str())
    }

    /// The best entry of a language map: for each wanted range the same tag, then a narrower one (`en` finds `en-GB`), then a broader one
    /// (`en-GB` finds `en`, RFC 4647 lookup); otherwise `@none`, otherwise the first. None if the map is empty.
    #[must_use]
    pub fn best<'a>(&self, map: &'a IndexMap<SmolStr, Value>) -> Option<(&'a str, &'a Value)> {
        let find = |fits: &dyn Fn(&str) -> bool| map.iter().find(|(tag, _)| fits(&tag.to_ascii_lowercase()));
        for range in &self.ranges {
            let found = if range == "*" {
                map.iter().next()
            } else {
                find(&|tag| tag == range)
                    .or_else(|| find(&|tag| tag.strip_prefix(range.as_str()).is_some_and(|rest| rest.starts_with('-'))))
                    .or_else(|| {
                        let mut broader = range.as_str();
                        while let Some((shorter, _)) = broader.rsplit_once('-') {
                            if let Some(found) = find(&|tag| tag == shorter) {
                                return Some(found);
                            }
                            broader = shorter;
                        }
                        None
                    })
            };
            if let Some((tag, text)) = found {
                return Some((tag, text));
            }
        }
        map.get_key_value(DEFAULT_INSTANCE).or_else(|| map.iter().next()).map(|(tag, text)| (tag.as_str(), text))
    }
}

impl TryFrom<String> for LanguageRanges {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<LanguageRanges> for String {
    fn from(ranges: LanguageRanges) -> Self {
        ranges.source
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_best_language_is_exact_then_narrower_then_broader_then_none() {
        check("en", json!({"zh": "1", "en": "2"}), "en");
        check("EN", json!({"zh": "1", "en": "2"}), "en");
        check("en", json!({"zh": "1", "en-GB": "2"}), "en-GB");
        check("en-GB-oed", json!({"zh": "1", "en": "2"}), "en");
        check("fr;q=0.5,zh", json!({"fr": "1", "zh": "2"}), "zh");
        check("fr,zh", json!({"zh": "1", "fr": "2"}), "fr");
        check("de,*", json!({"zh": "1", "@none": "2"}), "zh");
        check("de", json!({"zh": "1", "@none": "2"}), "@none");
        check("de", json!({"zh": "1", "fr": "2"}), "zh");
        check("zh;q=0,fr", json!({"zh": "1", "fr": "2"}), "fr");

        #[track_caller]
        fn check(wanted: &str, map: Value, want: &str) {
            let map: IndexMap<SmolStr, Value> = serde_json::from_value(map).unwrap();
            assert_eq!(LanguageRanges::parse(wanted).unwrap().best(&map).unwrap().0, want, "{wanted}");
        }
    }

    #[test]
    fn wrong_language_lists_name_the_part() {
        for wrong in ["", "en,", "en;q=2", "en;x=1", "e n", "1a"] {
            assert!(LanguageRanges::parse(wrong).unwrap_err().to_string().contains("is not a language"), "{wrong}");
        }
    }
}
