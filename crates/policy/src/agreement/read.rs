//! Reading an agreement from its entity, strictly: what is not understood is not shared, and said.

use std::fmt::Display;
use std::str::FromStr;

use entity::{Attribute, AttributeValue, DEFAULT_CONTEXT_NS, Entity, Geometry, Instant, Iri, Value};
use geo::Validation;

use super::{Agreement, AgreementError, LEGAL_BASIS_CHARS_MAX, NAMES_MAX, POSITION_DECIMALS_MAX, Problem, Selection, Status};
use crate::{CITY_NAME_CHARS_MAX, PURPOSE_CHARS_MAX, term};

const A_TYPE_LIST: &str = "a list of entity types as full URIs (each named: `*` is not allowed here)";
const AN_ATTRIBUTE_LIST: &str = "a list of attribute names as full URIs, or [\"*\"] for all attributes";
const AN_INSTANT: &str = "a Property with a date-time such as `2026-01-01T00:00:00Z`";

pub(super) fn read(entity: &Entity) -> Result<Agreement, AgreementError> {
    let mut r = Reader { entity, problems: Vec::new() };
    if !Agreement::is_one(entity) {
        let found = entity.types.iter().map(|t| format!("`{t}`")).collect::<Vec<_>>().join(", ");
        r.problem("type", found, format!("`{}`", term::AGREEMENT));
    }
    r.refuse_unknown_members();
    let a_city = format!("a Property with a city's name (1 to {CITY_NAME_CHARS_MAX} of a-z, 0-9, `-`, `_`)");
    let provider = r.text(term::PROVIDER, &a_city);
    let consumer = r.text(term::CONSUMER, &a_city);
    let consumer_key = r.text(term::CONSUMER_KEY, "a Property with a public key, `ed25519:` and 43 characters of base64url");
    let types = r.types();
    let attributes = r.attributes();
    let area = r.area();
    let position_decimals = r.position_decimals();
    let purpose = r.text(term::PURPOSE, &format!("a Property with a purpose of 1 to {PURPOSE_CHARS_MAX} characters"));
    let valid_from: Option<Instant> = r.text(term::VALID_FROM, AN_INSTANT);
    let valid_until: Option<Instant> = r.text(term::VALID_UNTIL, AN_INSTANT);
    if let (Some(from), Some(until)) = (valid_from, valid_until)
        && until <= from
    {
        r.problem("validUntil", format!("`{until}`"), format!("an instant after validFrom `{from}`"));
    }
    if provider.is_some() && provider == consumer {
        r.problem("consumer", "the provider itself".into(), "another city".into());
    }
    let legal_basis = r.legal_basis();
    let status = r.text(term::STATUS, "a Property with `offered`, `active`, `suspended` or `revoked`");
    let agreement = (|| {
        Some(Agreement {
            id: entity.id.clone(),
            provider: provider?,
            consumer: consumer?,
            consumer_key: consumer_key?,
            types: types?,
            attributes: attributes?,
            area,
            position_decimals,
            purpose: purpose?,
            valid_from: valid_from?,
            valid_until: valid_until?,
            legal_basis: legal_basis?,
            status: status?,
        })
    })();
    match agreement {
        Some(a) if r.problems.is_empty() => Ok(a),
        _ => Err(AgreementError { id: entity.id.clone(), problems: r.problems }),
    }
}

impl FromStr for Status {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|x| x.as_str() == s).ok_or_else(|| format!("`{s}` is not a status"))
    }
}

struct Reader<'a> {
    entity: &'a Entity,
    problems: Vec<Problem>,
}

fn local(term: &str) -> &str {
    term.rsplit('#').next().unwrap_or(term)
}

fn quoted(value: &Value) -> String {
    let text: String = value.to_string().chars().take(80).collect();
    format!("`{text}`")
}

impl<'a> Reader<'a> {
    fn problem(&mut self, member: &str, found: String, expected: String) {
        self.problems.push(Problem { member: member.to_owned(), found, expected });
    }

    /// A typo in an optional restriction must not quietly mean "no restriction".
    fn refuse_unknown_members(&mut self) {
        for name in self.entity.attributes.keys() {
            let known = term::MEMBERS.contains(&name.as_str());
            if !known && !term::ANNOTATIONS.contains(&name.local_name()) {
                let members = term::MEMBERS.map(local).join(", ");
                self.problem(
                    name.local_name(),
                    format!("`{name}`, which is not part of an agreement and would not be enforced"),
                    format!("one of {members} of {}, or a description ({})", entity::CONURB_NS, term::ANNOTATIONS.join(", ")),
                );
            }
        }
    }

    /// The only instance of a member; reports if there are several. Missing is none without a report.
    fn optional(&mut self, name: &str, expected: &str) -> Option<&'a Attribute> {
        match self.entity.attributes.get(name)?.as_slice() {
            [one] if one.dataset_id.is_none() => Some(one),
            [one] => {
                let found = format!("an instance with datasetId `{}`", one.dataset_id.as_ref().map_or("", Iri::as_str));
                self.problem(local(name), found, format!("{expected}, without datasetId"));
                None
            }
            several => {
                self.problem(local(name), format!("{} instances", several.len()), format!("one instance: {expected}"));
                None
            }
        }
    }

    fn required(&mut self, name: &str, expected: &str) -> Option<&'a Attribute> {
        if !self.entity.attributes.contains_key(name) {
            self.problem(local(name), "missing".into(), format!("{expected} (attribute `{name}`)"));
            return None;
        }
        self.optional(name, expected)
    }

    fn wrong_kind(&mut self, name: &str, attribute: &Attribute, expected: &str) {
        let found = match &attribute.value {
            AttributeValue::Property(v) => format!("a Property with {}", quoted(v)),
            other => format!("a {}", other.kind().name()),
        };
        self.problem(local(name), found, expected.to_owned());
    }

    fn text<T: FromStr<Err: Display>>(&mut self, name: &str, expected: &str) -> Option<T> {
        let attribute = self.required(name, expected)?;
        // A typed value, {"@type": "DateTime", "@value": ...}, stands for its value.
        let text = match &attribute.value {
            AttributeValue::Property(v) => v.as_str().or_else(|| v.get("@value")?.as_str()),
            _ => None,
        };
        let Some(text) = text else {
            self.wrong_kind(name, attribute, expected);
            return None;
        };
        text.parse().map_err(|e: T::Err| self.problem(local(name), format!("wrong: {e}"), expected.to_owned())).ok()
    }

    fn legal_basis(&mut self) -> Option<String> {
        let expected = format!("a Property with a text of 1 to {LEGAL_BASIS_CHARS_MAX} characters");
        let text: String = self.text(term::LEGAL_BASIS, &expected)?;
        let n = text.trim().chars().count();
        if n == 0 || n > LEGAL_BASIS_CHARS_MAX {
            self.problem("legalBasis", format!("a text of {n} characters"), expected);
            return None;
        }
        Some(text.trim().to_owned())
    }

    /// The items of a list of names, as texts.
    fn items(&mut self, name: &str, expected: &str) -> Option<Vec<String>> {
        let attribute = self.required(name, expected)?;
        let texts = |list: &[Value]| list.iter().map(|v| v.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
        let items = match &attribute.value {
            AttributeValue::Vocab(iris) => Some(iris.iter().map(ToString::to_string).collect()),
            AttributeValue::Property(Value::Array(list)) => texts(list),
            AttributeValue::Property(one) => texts(std::slice::from_ref(one)),
            AttributeValue::List(list) => texts(list),
            _ => None,
        };
        let Some(items) = items else {
            self.wrong_kind(name, attribute, expected);
            return None;
        };
        if items.is_empty() {
            self.problem(local(name), "an empty list".into(), expected.to_owned());
            return None;
        }
        if items.len() > NAMES_MAX {
            self.problem(local(name), format!("a list of {} names", items.len()), format!("at most {NAMES_MAX}"));
            return None;
        }
        Some(items)
    }

    fn iris(&mut self, name: &str, items: &[String], expected: &str) -> Option<Vec<Iri>> {
        let mut iris: Vec<Iri> = Vec::with_capacity(items.len());
        let n_problems = self.problems.len();
        for item in items {
            match item.parse::<Iri>() {
                Ok(_) if is_star(item) => self.problem(local(name), "a list that contains `*`".into(), expected.to_owned()),
                Ok(iri) if iris.contains(&iri) => {}
                Ok(iri) => iris.push(iri),
                Err(e) => self.problem(local(name), format!("a list that contains a wrong name: {e}"), expected.to_owned()),
            }
        }
        (self.problems.len() == n_problems).then_some(iris)
    }

    fn types(&mut self) -> Option<Vec<Iri>> {
        let items = self.items(term::DATA_TYPES, A_TYPE_LIST)?;
        self.iris(term::DATA_TYPES, &items, A_TYPE_LIST)
    }

    fn attributes(&mut self) -> Option<Selection> {
        let items = self.items(term::DATA_ATTRIBUTES, AN_ATTRIBUTE_LIST)?;
        if let [one] = items.as_slice()
            && is_star(one)
        {
            return Some(Selection::All);
        }
        if items.iter().any(|i| is_star(i)) {
            self.problem("dataAttributes", format!("`*` beside {} other names", items.len() - 1), AN_ATTRIBUTE_LIST.to_owned());
            return None;
        }
        Some(Selection::Only(self.iris(term::DATA_ATTRIBUTES, &items, AN_ATTRIBUTE_LIST)?))
    }

    fn area(&mut self) -> Option<Geometry> {
        const EXPECTED: &str = "a GeoProperty with a Polygon or MultiPolygon whose rings do not cross themselves";
        let attribute = self.optional(term::AREA, EXPECTED)?;
        let AttributeValue::Geo(area) = &attribute.value else {
            self.wrong_kind(term::AREA, attribute, EXPECTED);
            return None;
        };
        let reason = match area.shape() {
            geo::Geometry::Polygon(p) => p.check_validation().err().map(|e| e.to_string()),
            geo::Geometry::MultiPolygon(p) => p.check_validation().err().map(|e| e.to_string()),
            _ => Some(format!("a {}", area.json()["type"].as_str().unwrap_or("geometry"))),
        };
        match reason {
            None => Some(area.clone()),
            Some(reason) => {
                self.problem("area", reason, EXPECTED.to_owned());
                None
            }
        }
    }

    fn position_decimals(&mut self) -> Option<u8> {
        let expected = format!("a Property with a whole number from 0 to {POSITION_DECIMALS_MAX}");
        let attribute = self.optional(term::POSITION_DECIMALS, &expected)?;
        let decimals = match &attribute.value {
            // 2.0 is as good as 2: JSON does not tell them apart.
            AttributeValue::Property(v) => v.as_f64().filter(|n| n.fract() == 0.0 && (0.0..=f64::from(POSITION_DECIMALS_MAX)).contains(n)),
            _ => None,
        };
        if decimals.is_none() {
            self.wrong_kind(term::POSITION_DECIMALS, attribute, &expected);
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be within 0 to 8")]
        decimals.map(|n| n as u8)
    }
}

/// `*`, also as a VocabProperty expands it.
fn is_star(item: &str) -> bool {
    item == "*" || item.strip_prefix(DEFAULT_CONTEXT_NS) == Some("*")
}
