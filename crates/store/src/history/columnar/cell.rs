//! An attribute instance as up to three cells of a row, and back without loss.
//!
//! * the number, if the value is a Property that a 64-bit float holds exactly;
//! * the text, for every other value: its plain JSON;
//! * what is left, as JSON: kind, unit, sub-attributes, qualifiers, recorded times that differ from the row's.
//!
//! JSON tells `15` from `15.0`, a float does not. Each number column of a file says which of the two its whole numbers are, and the
//! exceptions say so in their third cell.

use entity::{Attribute, AttributeValue, Geometry, Instant, Iri, Qualifiers, Value};
use serde::de::IntoDeserializer;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::super::value::plain_of;

/// Every integer up to here is exact in a 64-bit float.
const EXACT_MAX: i64 = 1 << 53;

/// A value, taken apart. Just one of `number` and `text` is there.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Cell {
    pub(super) number: Option<f64>,
    pub(super) text: Option<String>,
    pub(super) meta: Option<String>,
}

/// The third cell, parsed.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Meta {
    #[serde(default, rename = "k", skip_serializing_if = "Kind::is_property")]
    kind: Kind,
    /// A whole number that is (true) or is not an integer, against the rule of its column.
    #[serde(default, rename = "n", skip_serializing_if = "Option::is_none")]
    integer: Option<bool>,
    #[serde(default, rename = "u", skip_serializing_if = "Option::is_none")]
    unit_code: Option<SmolStr>,
    #[serde(default, rename = "c", skip_serializing_if = "Option::is_none")]
    created_at: Option<Instant>,
    #[serde(default, rename = "m", skip_serializing_if = "Option::is_none")]
    modified_at: Option<Instant>,
    /// Sub-attributes as their own JSON, without the recorded times that equal the row's.
    #[serde(default, rename = "s", skip_serializing_if = "Option::is_none")]
    sub_attributes: Option<Value>,
    #[serde(default, rename = "q", skip_serializing_if = "Option::is_none")]
    qualifiers: Option<Box<Qualifiers>>,
}

/// The kinds of attribute, named as [`AttributeValue`] names them in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
enum Kind {
    #[default]
    #[serde(rename = "P")]
    Property,
    #[serde(rename = "G")]
    Geo,
    #[serde(rename = "R")]
    Relationship,
    #[serde(rename = "L")]
    Language,
    #[serde(rename = "V")]
    Vocab,
    #[serde(rename = "J")]
    Json,
    #[serde(rename = "A")]
    List,
    #[serde(rename = "O")]
    ListRelationship,
}

impl Kind {
    const fn is_property(&self) -> bool {
        matches!(self, Self::Property)
    }

    const fn of(value: &AttributeValue) -> Self {
        match value {
            AttributeValue::Property(_) => Self::Property,
            AttributeValue::Geo(_) => Self::Geo,
            AttributeValue::Relationship(_) => Self::Relationship,
            AttributeValue::Language(_) => Self::Language,
            AttributeValue::Vocab(_) => Self::Vocab,
            AttributeValue::Json(_) => Self::Json,
            AttributeValue::List(_) => Self::List,
            AttributeValue::ListRelationship(_) => Self::ListRelationship,
        }
    }
}

/// The whereabouts of a cell, which its instance repeats.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) dataset_id: Option<&'a Iri>,
    pub(super) observed_at: Option<Instant>,
    pub(super) recorded_at: Instant,
}

/// A number that a float holds exactly, and whether JSON writes it as an integer.
pub(super) fn exact_number(value: &AttributeValue) -> Option<(f64, bool)> {
    let AttributeValue::Property(Value::Number(n)) = value else { return None };
    if n.is_f64() {
        return n.as_f64().map(|f| (f, false));
    }
    let i = n.as_i64().filter(|i| (-EXACT_MAX..=EXACT_MAX).contains(i))?;
    Some((i as f64, true))
}

/// Could this float have been an integer?
pub(super) fn is_whole(f: f64) -> bool {
    let max = EXACT_MAX as f64;
    f.fract() == 0.0 && f.abs() <= max
}

/// Takes an instance apart. `integers` is the rule of its column.
pub(super) fn encode(attribute: &Attribute, recorded_at: Instant, integers: bool) -> Cell {
    let exact = exact_number(&attribute.value);
    let number = exact.map(|(f, _)| f);
    let text = if exact.is_some() { None } else { Some(plain_of(&attribute.value).to_string()) };
    let exception = exact.filter(|&(f, is_integer)| is_whole(f) && is_integer != integers).map(|(_, is_integer)| is_integer);
    let meta = Meta {
        kind: Kind::of(&attribute.value),
        integer: exception,
        unit_code: attribute.unit_code.clone(),
        created_at: Some(attribute.created_at).filter(|at| *at != recorded_at),
        modified_at: Some(attribute.modified_at).filter(|at| *at != recorded_at),
        sub_attributes: (!attribute.sub_attributes.is_empty()).then(|| {
            let mut json = serde_json::to_value(&attribute.sub_attributes).expect("attributes are JSON");
            drop_times(&mut json, recorded_at);
            json
        }),
        qualifiers: attribute.qualifiers.clone(),
    };
    Cell { number, text, meta: meta.text() }
}

/// Puts an instance together again. Errors: what does not fit, in words.
pub(super) fn decode(number: Option<f64>, text: Option<&str>, meta: &Meta, integers: bool, place: Place<'_>) -> Result<Attribute, String> {
    let value = match (number, text) {
        (Some(f), _) => AttributeValue::Property(number_json(f, meta, integers)?),
        (None, Some(text)) => value_of(meta.kind, serde_json::from_str(text).map_err(|e| format!("value `{}`: {e}", shown(text)))?)?,
        (None, None) => return Err("a value without number and text".to_owned()),
    };
    let sub_attributes = match &meta.sub_attributes {
        None => entity::SubAttributes::default(),
        Some(json) => {
            let mut json = json.clone();
            restore_times(&mut json, place.recorded_at);
            serde_json::from_value(json).map_err(|e| format!("sub-attributes: {e}"))?
        }
    };
    Ok(Attribute {
        value,
        dataset_id: place.dataset_id.cloned(),
        observed_at: place.observed_at,
        unit_code: meta.unit_code.clone(),
        created_at: meta.created_at.unwrap_or(place.recorded_at),
        modified_at: meta.modified_at.unwrap_or(place.recorded_at),
        sub_attributes,
        qualifiers: meta.qualifiers.clone(),
    })
}

/// The number as it was written, integer or not.
pub(super) fn number_json(f: f64, meta: &Meta, integers: bool) -> Result<Value, String> {
    if is_whole(f) && meta.integer.unwrap_or(integers) {
        return Ok(Value::from(f as i64));
    }
    serde_json::Number::from_f64(f).map(Value::Number).ok_or_else(|| format!("the number {f}, which JSON does not have"))
}

impl Meta {
    /// The third cell of a value with a unit and nothing else.
    pub(super) fn unit_only(unit_code: &str) -> String {
        Self { unit_code: Some(unit_code.into()), ..Self::default() }.text().expect("a unit is something")
    }

    /// The same value, a whole number, in a column of another rule.
    pub(super) fn moved(&self, from_integers: bool, to_integers: bool) -> Self {
        let is_integer = self.integer.unwrap_or(from_integers);
        Self { integer: (is_integer != to_integers).then_some(is_integer), ..self.clone() }
    }

    /// The third cell; none if nothing is left to say.
    pub(super) fn text(&self) -> Option<String> {
        (*self != Self::default()).then(|| serde_json::to_string(self).expect("a meta cell is JSON"))
    }

    /// Parses the third cell. Errors: what is wrong, in words.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|e| format!("meta `{}`: {e}", shown(text)))
    }
}

/// An IRI that was one when it was written.
pub(super) fn iri(text: &str) -> Result<Iri, String> {
    Iri::deserialize(IntoDeserializer::<serde::de::value::Error>::into_deserializer(text)).map_err(|e| e.to_string())
}

fn value_of(kind: Kind, json: Value) -> Result<AttributeValue, String> {
    let iris = |json: Value| match json {
        Value::String(one) => iri(&one).map(|one| vec![one]),
        several => serde_json::from_value(several).map_err(|e| e.to_string()),
    };
    Ok(match kind {
        Kind::Property => AttributeValue::Property(json),
        Kind::Json => AttributeValue::Json(json),
        Kind::Geo => AttributeValue::Geo(Geometry::from_json(json).map_err(|e| e.to_string())?),
        Kind::Relationship => AttributeValue::Relationship(iris(json)?),
        Kind::Vocab => AttributeValue::Vocab(iris(json)?),
        Kind::ListRelationship => AttributeValue::ListRelationship(iris(json)?),
        Kind::Language => AttributeValue::Language(serde_json::from_value(json).map_err(|e| e.to_string())?),
        Kind::List => match json {
            Value::Array(items) => AttributeValue::List(items),
            other => return Err(format!("a ListProperty whose value is `{}`", shown(&other.to_string()))),
        },
    })
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Recorded times of sub-attributes are nearly always the row's; leaving these out makes the cell the same in every row, which the
/// dictionary then holds once.
fn drop_times(attributes: &mut Value, recorded_at: Instant) {
    for_each_instance(attributes, &mut |instance| {
        for key in ["c", "m"] {
            if instance.get(key).and_then(Value::as_i64) == Some(recorded_at.micros()) {
                instance.shift_remove(key);
            }
        }
    });
}

fn restore_times(attributes: &mut Value, recorded_at: Instant) {
    for_each_instance(attributes, &mut |instance| {
        for key in ["c", "m"] {
            if !instance.contains_key(key) {
                instance.insert(key.to_owned(), Value::from(recorded_at.micros()));
            }
        }
    });
}

fn for_each_instance(attributes: &mut Value, f: &mut dyn FnMut(&mut serde_json::Map<String, Value>)) {
    let instances = attributes.as_object_mut().into_iter().flat_map(|names| names.values_mut()).filter_map(Value::as_array_mut).flatten();
    for instance in instances.filter_map(Value::as_object_mut) {
        f(instance);
        if let Some(inner) = instance.get_mut("s") {
            for_each_instance(inner, f);
        }
    }
}

#[cfg(test)]
mod tests {
    use entity::Attributes;
    use serde_json::json;

    use super::*;

    const AT: Instant = Instant::MIN;

    #[test]
    fn what_is_taken_apart_is_put_together_again() {
        let at = Instant::from_secs(1_700_000_000);
        let urn = |s: &str| Iri::known(s);
        for integers in [false, true] {
            for number in [json!(15), json!(15.0), json!(0), json!(-0.0), json!(0.1), json!(-3), json!(1e300), json!(f64::MIN_POSITIVE)] {
                check(AttributeValue::Property(number), integers);
            }
            for number in [json!(9_007_199_254_740_992_i64), json!(9_007_199_254_740_993_i64), json!(i64::MIN), json!(u64::MAX)] {
                check(AttributeValue::Property(number), integers);
            }
            for json in [json!("text"), json!(true), json!(null), json!([1, 2.0]), json!({"a": {"b": [null]}}), json!("\u{0}站")] {
                check(AttributeValue::Property(json.clone()), integers);
                check(AttributeValue::Json(json), integers);
            }
            check(AttributeValue::Json(json!(5)), integers);
            check(AttributeValue::Geo(Geometry::point(116.4, 39.9)), integers);
            for iris in [vec![], vec![urn("urn:a:1")], vec![urn("urn:a:1"), urn("urn:a:2")]] {
                check(AttributeValue::Relationship(iris.clone()), integers);
                check(AttributeValue::Vocab(iris.clone()), integers);
                check(AttributeValue::ListRelationship(iris), integers);
            }
            check(AttributeValue::Language([("zh".into(), json!("站")), ("en".into(), json!(["a", "b"]))].into_iter().collect()), integers);
            check(AttributeValue::List(vec![json!(1), json!("x")]), integers);
        }

        #[track_caller]
        fn check(value: AttributeValue, integers: bool) {
            let bare = Attribute { created_at: AT, modified_at: AT, ..Attribute::new(value) };
            round_trip(&bare, AT, integers);
        }
        let mut sub = Attributes::default();
        let inner = Attribute { created_at: at, modified_at: Instant::default(), ..Attribute::property(json!({"c": 1, "s": {"m": [1]}})) };
        let outer = Attribute {
            created_at: at,
            modified_at: at,
            sub_attributes: [(urn("urn:x:inner"), vec![inner])].into_iter().collect(),
            ..Attribute::property(json!(1.0))
        };
        sub.insert(urn("urn:x:outer"), vec![outer.clone(), Attribute { created_at: Instant::default(), ..outer }].into());
        let full = Attribute {
            dataset_id: Some(urn("urn:d:1")),
            observed_at: Some(Instant::from_secs(5)),
            unit_code: Some("GQ".into()),
            created_at: Instant::from_secs(1),
            modified_at: Instant::from_secs(2),
            sub_attributes: sub.into(),
            qualifiers: Some(Box::new(Qualifiers { object_types: vec![urn("urn:t:1")], value_type: None, expires_at: Some(at) })),
            ..Attribute::property(json!(3))
        };
        round_trip(&full, at, false);
        round_trip(&full, at, true);
        round_trip(&Attribute { qualifiers: Some(Box::default()), ..full }, at, true);
    }

    #[track_caller]
    fn round_trip(attribute: &Attribute, recorded_at: Instant, integers: bool) {
        let cell = encode(attribute, recorded_at, integers);
        assert!(cell.number.is_some() != cell.text.is_some(), "{cell:?}");
        let meta = cell.meta.as_deref().map_or(Ok(Meta::default()), Meta::parse).unwrap();
        let place = Place { dataset_id: attribute.dataset_id.as_ref(), observed_at: attribute.observed_at, recorded_at };
        let back = decode(cell.number, cell.text.as_deref(), &meta, integers, place).unwrap();
        assert_eq!(&back, attribute, "{cell:?}");
        assert_eq!(serde_json::to_string(&back).unwrap(), serde_json::to_string(attribute).unwrap());
    }

    #[test]
    fn times_of_sub_attributes_do_not_make_every_cell_different() {
        let cell_at = |at: Instant| {
            let sub = Attribute { created_at: at, modified_at: at, ..Attribute::property(json!("valid")) };
            let sub_attributes = [(Iri::known("urn:x:flag"), vec![sub])].into_iter().collect();
            encode(&Attribute { created_at: at, modified_at: at, sub_attributes, ..Attribute::property(json!(1)) }, at, true).meta
        };
        assert_eq!(cell_at(Instant::from_secs(1)), cell_at(Instant::from_secs(2)));
    }

    #[test]
    fn nonsense_cells_are_errors_in_words() {
        let place = Place { dataset_id: None, observed_at: None, recorded_at: AT };
        let error = |number, text, meta: &str| decode(number, text, &Meta::parse(meta).unwrap(), false, place).unwrap_err();
        assert_eq!(error(None, None, "{}"), "a value without number and text");
        assert_eq!(error(Some(f64::NAN), None, "{}"), "the number NaN, which JSON does not have");
        assert!(error(None, Some("{"), "{}").starts_with("value `{`: "));
        assert!(error(None, Some("5"), r#"{"k":"G"}"#).contains("GeoJSON"));
        assert_eq!(error(None, Some("5"), r#"{"k":"A"}"#), "a ListProperty whose value is `5`");
        assert!(Meta::parse("[").unwrap_err().starts_with("meta `[`: "));
    }
}
