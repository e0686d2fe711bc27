//! What aggregation methods give for values of each kind (ETSI GS CIM 009 V1.9.1, clause 4.5.19).

use std::collections::HashSet;

use entity::{AggregationMethod as Method, Attribute, AttributeValue, Instant, Iri, Value};

/// Seconds of a day.
const DAY_S: f64 = 86_400.0;

/// A value as the methods see it.
enum Seen<'a> {
    /// A number, or a truth value as 1 or 0.
    Number(f64),
    /// How many items an array has.
    Size(f64),
    Text(&'a str),
    /// A DateTime or Date: ordered in time, shown as it is written.
    Moment(Instant, &'a str),
    /// A time of day in seconds, and how it is written.
    Time(f64, &'a str),
    /// What can only be counted: objects, places, texts in languages, URIs, relationships.
    Other,
}

impl<'a> Seen<'a> {
    fn of(a: &'a Attribute) -> Self {
        let value = match &a.value {
            AttributeValue::Property(v) | AttributeValue::Json(v) => v,
            AttributeValue::List(items) => return Self::Size(items.len() as f64),
            AttributeValue::Geo(_)
            | AttributeValue::Relationship(_)
            | AttributeValue::Language(_)
            | AttributeValue::Vocab(_)
            | AttributeValue::ListRelationship(_) => return Self::Other,
        };
        match value {
            Value::Number(n) => n.as_f64().map_or(Self::Other, Self::Number),
            Value::Bool(b) => Self::Number(f64::from(u8::from(*b))),
            Value::Array(items) => Self::Size(items.len() as f64),
            Value::String(text) => Self::typed(a.qualifiers.as_ref().and_then(|q| q.value_type.as_ref()).map(Iri::local_name), text),
            // A value with its type, as JSON-LD writes it.
            Value::Object(map) => match (map.get("@type").and_then(Value::as_str), map.get("@value").and_then(Value::as_str)) {
                (Some(datatype), Some(text)) => Self::typed(Some(datatype.rsplit(['/', '#', ':']).next().unwrap_or(datatype)), text),
                _ => Self::Other,
            },
            Value::Null => Self::Other,
        }
    }

    fn typed(datatype: Option<&str>, text: &'a str) -> Self {
        let found = match datatype {
            Some("DateTime" | "dateTime") => text.parse().ok().map(|at| Self::Moment(at, text)),
            Some("Date" | "date") => format!("{text}T00:00:00Z").parse().ok().map(|at| Self::Moment(at, text)),
            Some("Time" | "time") => seconds_of(text).map(|s| Self::Time(s, text)),
            Some("URI" | "anyURI" | "@id") => Some(Self::Other),
            _ => None,
        };
        found.unwrap_or(Self::Text(text))
    }

    const fn scalar(&self) -> Option<f64> {
        match self {
            Self::Number(n) => Some(*n),
            _ => None,
        }
    }

    const fn size(&self) -> Option<f64> {
        match self {
            Self::Number(n) | Self::Size(n) => Some(*n),
            _ => None,
        }
    }
}

/// The time of day `hh:mm:ss[.f]Z` in seconds.
fn seconds_of(text: &str) -> Option<f64> {
    let at: Instant = format!("1970-01-01T{text}").parse().ok()?;
    Some(at.micros() as f64 / 1e6)
}

fn time_of_day(seconds: f64) -> Option<Value> {
    let us = (seconds.clamp(0.0, DAY_S) * 1e6).round() as i64;
    let text = Instant::from_micros(us).to_string();
    text.split_once('T').map(|(_, time)| Value::from(time))
}

/// What a method gives for the values of a period; none if it makes no sense for any of them.
pub(crate) fn compute(method: Method, values: &[&Attribute]) -> Option<Value> {
    let seen = || values.iter().map(|a| Seen::of(a));
    let some = |list: Vec<f64>| (!list.is_empty()).then_some(list);
    let mean = |list: &[f64]| list.iter().sum::<f64>() / list.len() as f64;
    let sizes = || some(seen().filter_map(|v| v.size()).collect());
    let scalars = || some(seen().filter_map(|v| v.scalar()).collect());
    match method {
        Method::TotalCount => Some(Value::from(values.len())),
        Method::DistinctCount => {
            let targets = |a: &&Attribute| match &a.value {
                AttributeValue::Relationship(list) | AttributeValue::ListRelationship(list) => {
                    list.iter().map(ToString::to_string).collect()
                }
                other => vec![format!("{other:?}")],
            };
            Some(Value::from(values.iter().flat_map(targets).collect::<HashSet<String>>().len()))
        }
        Method::Sum => sizes().map(|list| number(list.iter().sum())),
        Method::Avg => {
            let times = || some(seen().filter_map(|v| if let Seen::Time(s, _) = v { Some(s) } else { None }).collect());
            sizes().map(|list| number(mean(&list))).or_else(|| times().and_then(|list| time_of_day(mean(&list))))
        }
        Method::SumSq => scalars().map(|list| number(list.iter().map(|x| x * x).sum())),
        Method::StdDev => scalars().map(|list| {
            let mean = mean(&list);
            number((list.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / list.len() as f64).sqrt())
        }),
        Method::Min | Method::Max => {
            let is_min = method == Method::Min;
            let extreme = sizes().and_then(|list| list.into_iter().reduce(|a, b| if is_min { a.min(b) } else { a.max(b) })).map(number);
            let moments = seen().filter_map(|v| if let Seen::Moment(at, text) = v { Some((at, text)) } else { None });
            let times = seen()
                .filter_map(|v| if let Seen::Time(s, text) = v { Some((Instant::from_micros((s * 1e6) as i64), text)) } else { None });
            let texts = seen().filter_map(|v| if let Seen::Text(text) = v { Some(text) } else { None });
            let moment = if is_min { moments.min() } else { moments.max() };
            let time = if is_min { times.min() } else { times.max() };
            let text = if is_min { texts.min() } else { texts.max() };
            extreme.or_else(|| moment.or(time).map(|(_, text)| text).or(text).map(Value::from))
        }
    }
}

/// A whole number without a fraction, as people write it.
pub(crate) fn number(x: f64) -> Value {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if x.fract() == 0.0 && x.abs() <= EXACT_MAX { Value::from(x as i64) } else { Value::from(x) }
}

#[cfg(test)]
mod tests {
    use entity::Qualifiers;
    use serde_json::json;

    use super::*;

    const ALL: [Method; 8] =
        [Method::TotalCount, Method::DistinctCount, Method::Max, Method::Min, Method::Avg, Method::Sum, Method::SumSq, Method::StdDev];

    /// The table of clause 4.5.19.1: what each method gives, none where it has no dash.
    #[track_caller]
    fn check(values: Vec<AttributeValue>, want: [Value; 8]) {
        check_typed(None, values, want);
    }

    #[track_caller]
    fn check_typed(datatype: Option<&str>, values: Vec<AttributeValue>, want: [Value; 8]) {
        let value_type = datatype.map(|name| Iri::known(&format!("https://uri.etsi.org/ngsi-ld/{name}")));
        let qualifiers = value_type.map(|t| Box::new(Qualifiers { value_type: Some(t), ..Qualifiers::default() }));
        let list: Vec<Attribute> = values.into_iter().map(|v| Attribute { qualifiers: qualifiers.clone(), ..Attribute::new(v) }).collect();
        let found = ALL.map(|m| compute(m, &list.iter().collect::<Vec<_>>()).unwrap_or_default());
        assert_eq!(found, want);
    }

    fn properties(values: Value) -> Vec<AttributeValue> {
        values.as_array().unwrap().iter().cloned().map(AttributeValue::Property).collect()
    }

    fn urns(names: &[&str]) -> Vec<Iri> {
        names.iter().map(|n| Iri::known(&format!("urn:{n}"))).collect()
    }

    #[test]
    fn each_kind_has_the_methods_of_the_table() {
        let none = || json!(null);
        let counted = |n: usize, distinct: usize| [json!(n), json!(distinct), none(), none(), none(), none(), none(), none()];
        check(properties(json!(["b", "a", "b"])), [json!(3), json!(2), json!("b"), json!("a"), none(), none(), none(), none()]);
        check(properties(json!([1, 3])), [json!(2), json!(2), json!(3), json!(1), json!(2), json!(4), json!(10), json!(1)]);
        check(properties(json!([true, false])), [json!(2), json!(2), json!(1), json!(0), json!(0.5), json!(1), json!(1), json!(0.5)]);
        check(properties(json!([{"a": 1}, {"a": 2}])), counted(2, 2));
        check(properties(json!([[1, 2], [1, 2, 3]])), [json!(2), json!(2), json!(3), json!(2), json!(2.5), json!(5), none(), none()]);
        let list = |n: usize| AttributeValue::List(vec![json!(1); n]);
        check(vec![list(2), list(4)], [json!(2), json!(2), json!(4), json!(2), json!(3), json!(6), none(), none()]);
        check(
            vec![AttributeValue::Json(json!(2)), AttributeValue::Json(json!(2))],
            [json!(2), json!(1), json!(2), json!(2), json!(2), json!(4), json!(8), json!(0)],
        );
        let texts = ["2024-01-01T00:00:00Z", "2024-01-01T00:00:00.5Z"];
        let [first, last] = texts.map(|t| json!(t));
        let moments = || [json!(2), json!(2), last.clone(), first.clone(), none(), none(), none(), none()];
        check_typed(Some("DateTime"), properties(json!(texts)), moments());
        let typed: Vec<Value> = texts.iter().map(|t| json!({"@type": "DateTime", "@value": t})).collect();
        check(properties(json!(typed)), moments());
        check_typed(
            Some("Date"),
            properties(json!(["2024-02-01", "2024-01-09"])),
            [json!(2), json!(2), json!("2024-02-01"), json!("2024-01-09"), none(), none(), none(), none()],
        );
        check_typed(
            Some("Time"),
            properties(json!(["10:00:00Z", "11:00:01Z"])),
            [json!(2), json!(2), json!("11:00:01Z"), json!("10:00:00Z"), json!("10:30:00.500Z"), none(), none(), none()],
        );
        check(vec![AttributeValue::Vocab(urns(&["a"])), AttributeValue::Vocab(urns(&["b"]))], counted(2, 2));
        check_typed(Some("URI"), properties(json!(["urn:a", "urn:b"])), counted(2, 2));
        check(vec![AttributeValue::Relationship(urns(&["a", "b"])), AttributeValue::Relationship(urns(&["a"]))], counted(2, 2));
        check(vec![AttributeValue::ListRelationship(urns(&["a", "b", "c"]))], counted(1, 3));
        let language = || AttributeValue::Language([("en".into(), json!("a"))].into_iter().collect());
        check(vec![language(), language()], counted(2, 1));
        let point = entity::Geometry::from_json(json!({"type": "Point", "coordinates": [1, 2]})).unwrap();
        check(vec![AttributeValue::Geo(point)], counted(1, 1));
    }
}
