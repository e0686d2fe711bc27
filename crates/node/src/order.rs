//! Entities in an order that is asked for (ETSI GS CIM 009 V1.9.1, clause 4.23).

use std::cmp::Ordering;

use entity::{Attribute, AttributeValue, Entity, Instant, Iri, Path, SortBy, SortKey, SortOrder, distance_m};
use icu_collator::options::{CollatorOptions, Strength};
use icu_collator::{Collator, CollatorBorrowed, CollatorPreferences};
use icu_locale_core::Locale;
use policy::Principal;
use serde_json::Value;
use store::state::{Page, PageRequest, Space};

use crate::error::NodeError;
use crate::node::Node;
use crate::operations::Query;

/// Entities that are put in order for one answer.
pub const ORDERED_ENTITIES_MAX: usize = 1_000_000;

/// Entities that are read at a time.
const READ_TOGETHER: usize = 1_000;

impl Node {
    /// Entities that satisfy a condition, in an order.
    ///
    /// Errors: as [`Node::query`]; the collation is none; more than [`ORDERED_ENTITIES_MAX`] satisfy the condition.
    pub fn query_in_order(&self, who: &Principal, query: &Query, order: &SortOrder) -> Result<Page, NodeError> {
        self.may_query(who, query)?;
        let sorter = Sorter::new(order)?;
        let filter = self.follow_links(who, &query.filter)?;
        let now = self.now();
        let n_wanted = query.offset + query.limit;
        let mut best: Vec<(Vec<Key>, Iri)> = Vec::new();
        let (mut n_found, mut after) = (0, None::<Iri>);
        loop {
            let request = PageRequest {
                after: after.as_ref().map(Iri::as_str),
                text: query.text.as_deref(),
                now: Some(now),
                ..PageRequest::of(&filter, READ_TOGETHER)
            };
            let page = self.store.table(Space::City).try_page(&request)?;
            after = page.entities.last().map(|e| e.id.clone());
            n_found += page.entities.len();
            if n_found > ORDERED_ENTITIES_MAX {
                let what = format!("more than {ORDERED_ENTITIES_MAX} entities would have to be put in order: ask for fewer");
                return Err(NodeError::Limit { what });
            }
            best.extend(page.entities.iter().map(|e| (sorter.keys(e), e.id.clone())));
            // What cannot be on the page is forgotten now and then.
            if best.len() > 2 * n_wanted + READ_TOGETHER || !page.more {
                best.sort_by(|a, b| sorter.compare(a, b));
                best.truncate(n_wanted);
            }
            if !page.more {
                break;
            }
        }
        let shown = best.into_iter().skip(query.offset);
        // One that has gone since is left out.
        let entities = shown.filter_map(|(_, id)| self.entity(who, &id).ok()).collect();
        Ok(Page { entities, total: query.count.then_some(n_found), more: n_found > n_wanted })
    }
}

/// Compares what is put in order.
pub(crate) struct Sorter<'a> {
    order: &'a SortOrder,
    collator: CollatorBorrowed<'static>,
}

/// What an entity is compared by. The order of the variants is that of mixed values (clause 4.23).
#[derive(Debug, PartialEq)]
pub(crate) enum Key {
    Distance(f64),
    Number(f64),
    Text(String),
    Object,
    Array(usize),
    Bool(bool),
    Time(String),
    Date(String),
    Instant(Instant),
    Missing,
}

impl Key {
    const fn rank(&self) -> u8 {
        match self {
            Self::Distance(_) => 0,
            Self::Number(_) => 1,
            Self::Text(_) => 2,
            Self::Object => 3,
            Self::Array(_) => 4,
            Self::Bool(_) => 5,
            Self::Time(_) => 6,
            Self::Date(_) => 7,
            Self::Instant(_) => 8,
            Self::Missing => 9,
        }
    }

    fn of_text(text: &str) -> Self {
        if let Ok(at) = text.parse::<Instant>() {
            return Self::Instant(at);
        }
        let is_date = text.len() == 10 && format!("{text}T00:00:00Z").parse::<Instant>().is_ok();
        let is_time = text.ends_with('Z') && format!("2000-01-01T{text}").parse::<Instant>().is_ok();
        match (is_date, is_time) {
            (true, _) => Self::Date(text.to_owned()),
            (_, true) => Self::Time(text.trim_end_matches('Z').to_owned()),
            _ => Self::Text(text.to_owned()),
        }
    }

    fn of_json(value: &Value) -> Self {
        match value {
            Value::Null => Self::Missing,
            Value::Bool(b) => Self::Bool(*b),
            Value::Number(n) => n.as_f64().map_or(Self::Missing, Self::Number),
            Value::String(s) => Self::of_text(s),
            Value::Array(list) => Self::Array(list.len()),
            Value::Object(map) => map.get("@value").map_or(Self::Object, Self::of_json),
        }
    }

    /// One is itself, several are an array.
    fn of_texts<'t>(mut texts: impl ExactSizeIterator<Item = &'t str>) -> Self {
        match texts.len() {
            0 => Self::Missing,
            1 => texts.next().map_or(Self::Missing, |t| Self::Text(t.to_owned())),
            n => Self::Array(n),
        }
    }
}

impl<'a> Sorter<'a> {
    pub(crate) fn new(order: &'a SortOrder) -> Result<Self, NodeError> {
        let tag = order.collation.as_deref().unwrap_or("und");
        let wrong = || NodeError::Invalid {
            what: format!("`{tag}` is not a collation (expected e.g. `de`, `zh-u-co-pinyin` or `und-u-ks-level1`)"),
        };
        let locale = Locale::try_from_str(tag).map_err(|_| wrong())?;
        let mut options = CollatorOptions::default();
        options.strength = strength(&locale).ok_or_else(wrong)?;
        let collator = Collator::try_new(CollatorPreferences::from(&locale), options).map_err(|_| wrong())?;
        Ok(Self { order, collator })
    }

    pub(crate) fn keys(&self, entity: &Entity) -> Vec<Key> {
        self.order.keys.iter().map(|key| self.key(key, entity)).collect()
    }

    fn key(&self, key: &SortKey, entity: &Entity) -> Key {
        match &key.by {
            SortBy::Id => Key::Text(entity.id.as_str().to_owned()),
            SortBy::Type => Key::of_texts(entity.types.iter().map(Iri::as_str)),
            SortBy::Scope => Key::of_texts(entity.scopes.iter().map(entity::Scope::as_str)),
            SortBy::Value(path) => of_path(entity, path).unwrap_or(Key::Missing),
            SortBy::Distance(name) => match (first(entity.attributes.get(name)).map(|a| &a.value), &self.order.from) {
                (Some(AttributeValue::Geo(place)), Some(from)) => Key::Distance(distance_m(place, from)),
                (Some(value), _) => of_value(value, &[]).unwrap_or(Key::Missing),
                (None, _) => Key::Missing,
            },
        }
    }

    pub(crate) fn compare(&self, (a, a_id): &(Vec<Key>, Iri), (b, b_id): &(Vec<Key>, Iri)) -> Ordering {
        for ((a, b), key) in a.iter().zip(b).zip(&self.order.keys) {
            let order = self.compare_keys(a, b);
            // What is no place stands behind all places, whichever way they are ordered.
            let is_place = |k: &Key| matches!(k, Key::Distance(_));
            let turns = key.descending && (!matches!(key.by, SortBy::Distance(_)) || is_place(a) && is_place(b));
            let order = if turns { order.reverse() } else { order };
            if order.is_ne() {
                return order;
            }
        }
        a_id.as_str().cmp(b_id.as_str())
    }

    fn compare_keys(&self, a: &Key, b: &Key) -> Ordering {
        match (a, b) {
            (Key::Distance(a), Key::Distance(b)) | (Key::Number(a), Key::Number(b)) => a.total_cmp(b),
            (Key::Text(a), Key::Text(b)) => self.collator.compare(a, b),
            (Key::Bool(a), Key::Bool(b)) => a.cmp(b),
            (Key::Array(a), Key::Array(b)) => a.cmp(b),
            (Key::Time(a), Key::Time(b)) | (Key::Date(a), Key::Date(b)) => a.cmp(b),
            (Key::Instant(a), Key::Instant(b)) => a.cmp(b),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }
}

/// How fine differences count (`-u-ks-`, Unicode Technical Standard 35); none if the locale asks for something that there is not.
fn strength(locale: &Locale) -> Option<Option<Strength>> {
    let key = icu_locale_core::extensions::unicode::key!("ks");
    let Some(value) = locale.extensions.unicode.keywords.get(&key) else { return Some(None) };
    Some(Some(match value.to_string().as_str() {
        "level1" => Strength::Primary,
        "level2" => Strength::Secondary,
        "level3" => Strength::Tertiary,
        "level4" => Strength::Quaternary,
        "identic" => Strength::Identical,
        _ => return None,
    }))
}

/// The default instance, or otherwise the first.
fn first(instances: Option<&entity::Instances>) -> Option<&Attribute> {
    let all = instances?;
    all.iter().find(|a| a.dataset_id.is_none()).or_else(|| all.first())
}

fn of_path(entity: &Entity, path: &Path) -> Option<Key> {
    let mut attribute = first(entity.attributes.get(&path.attribute))?;
    for sub in &path.subs {
        attribute = first(attribute.sub_attributes.get(sub))?;
    }
    match path.member.as_deref() {
        None => of_value(&attribute.value, &path.keys),
        Some("observedAt") => attribute.observed_at.map(Key::Instant),
        Some("createdAt") => Some(Key::Instant(attribute.created_at)),
        Some("modifiedAt") => Some(Key::Instant(attribute.modified_at)),
        Some("unitCode") => attribute.unit_code.as_ref().map(|u| Key::Text(u.to_string())),
        Some(_) => attribute.dataset_id.as_ref().map(|d| Key::Text(d.as_str().to_owned())),
    }
}

fn of_value(value: &AttributeValue, keys: &[String]) -> Option<Key> {
    let at_keys = |v: &Value| keys.iter().try_fold(v, |v, k| v.get(k)).map(Key::of_json);
    match value {
        AttributeValue::Property(v) | AttributeValue::Json(v) => at_keys(v),
        AttributeValue::Geo(g) => at_keys(g.json()),
        AttributeValue::List(list) => Some(Key::Array(list.len())),
        AttributeValue::Language(map) => {
            let text = match keys.first() {
                Some(tag) => map.get(tag.as_str()),
                None => map.get("@none").or_else(|| map.values().next()),
            };
            text.map(Key::of_json)
        }
        AttributeValue::Vocab(iris) | AttributeValue::Relationship(iris) => Some(Key::of_texts(iris.iter().map(Iri::as_str))),
        AttributeValue::ListRelationship(iris) => Some(Key::Array(iris.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn mixed_values_are_ordered_by_their_kind_first() {
        let sorted = [
            json!(-1),
            json!(2.5),
            json!("a"),
            json!("b"),
            json!({"x": 1}),
            json!([1]),
            json!(false),
            json!(true),
            json!("10:00:00Z"),
            json!("2026-01-01"),
            json!("2026-01-01T00:00:00Z"),
            Value::Null,
        ];
        let order = SortOrder::default();
        let sorter = Sorter::new(&order).unwrap();
        let keys: Vec<Key> = sorted.iter().map(Key::of_json).collect();
        for (i, pair) in keys.windows(2).enumerate() {
            assert_eq!(sorter.compare_keys(&pair[0], &pair[1]), Ordering::Less, "{} before {}", sorted[i], sorted[i + 1]);
        }
    }

    #[test]
    fn texts_are_ordered_by_the_collation_that_is_asked_for() {
        check(None, &["a", "B", "c"]);
        check(Some("de"), &["Ofen", "Öl", "Zahn"]);
        check(Some("sv"), &["Ofen", "Zahn", "Öl"]);
        check(Some("de-u-co-phonebk"), &["Ada", "Ärger", "Afrika"]);
        check(Some("zh-u-co-pinyin"), &["北京", "上海", "天津"]);

        #[track_caller]
        fn check(collation: Option<&str>, want: &[&str]) {
            let order = SortOrder { collation: collation.map(str::to_owned), ..SortOrder::default() };
            let sorter = Sorter::new(&order).unwrap();
            let mut found = want.to_vec();
            found.reverse();
            found.sort_by(|a, b| sorter.collator.compare(a, b));
            assert_eq!(found, want, "{collation:?}");
        }
    }

    #[test]
    fn what_is_no_collation_is_refused() {
        for wrong in ["", "deutsch-zu-lang-x", "de-u-ks-level9"] {
            let order = SortOrder { collation: Some(wrong.to_owned()), ..SortOrder::default() };
            assert!(Sorter::new(&order).is_err(), "{wrong}");
        }
    }
}
