//! From a question to what decides who is asked.

use entity::registration::{MissingMember, Registration, Selected, Specification, TimeAsked};
use entity::{Attribute, AttributeValue, Entity, Filter, Instant, Iri, NGSI_LD_NS, Target};
use serde_json::Value;

use crate::context::Context;
use crate::error::Result;
use crate::query::{QOptions, QueryParams, TimeProperty, parse_q};
use crate::view::Member;

/// What of a question decides which sources may have an answer (clauses 5.10.2 and 5.12): entities, attributes (those of `attrs`, `pick`, `q` and
/// the geo-query), instances, places, scopes and times.
#[must_use]
pub fn specification(params: &QueryParams, missing: MissingMember) -> Specification {
    let mut asked = Specification { dataset_ids: params.view.dataset_ids.clone(), missing, ..Specification::default() };
    let mut one = Selected::default();
    let mut scopes = Vec::new();
    for condition in params.filter.conjuncts() {
        match condition {
            Filter::Geo(geo) => {
                asked.attributes.push(geo.property.clone());
                asked.geo.push(geo.clone());
            }
            Filter::Or(branches) if !branches.is_empty() && branches.iter().all(is_selector) => {
                asked.entities = branches.iter().map(|b| selected(b, Selected::default())).collect();
            }
            selector if is_selector(selector) => one = selected(selector, one),
            scope if is_scope(scope) => scopes.push(scope.clone()),
            other => attributes_of(other, &mut asked.attributes),
        }
    }
    if asked.entities.is_empty() && one != Selected::default() {
        asked.entities = vec![one];
    }
    for member in params.view.pick.iter().flatten() {
        if let Member::Attribute(name) = member {
            asked.attributes.push(name.clone());
        }
    }
    asked.attributes.extend(params.view.attrs.iter().flatten().cloned());
    asked.attributes.sort();
    asked.attributes.dedup();
    asked.scope = (!scopes.is_empty()).then_some(Filter::And(scopes));
    asked.time = params.temporal.interval.as_ref().map(|interval| {
        // Of an open interval the given end decides (clause 5.10.2).
        let (start, end) = match (interval.start, interval.end) {
            (Instant::MIN, at) | (at, Instant::MAX) => (at, at),
            both => both,
        };
        TimeAsked { start, end, is_observed: params.temporal.time_property == TimeProperty::ObservedAt }
    });
    asked
}

/// What of a condition is about types and ids: what a source is asked of entities whose parts lie in several places (`splitEntities`).
#[must_use]
pub fn selection(filter: &Filter) -> Filter {
    let is_one = |f: &&Filter| match f {
        Filter::Or(branches) => !branches.is_empty() && branches.iter().all(is_selector),
        other => is_selector(other),
    };
    filter.conjuncts().filter(is_one).cloned().fold(Filter::all(), Filter::and)
}

/// A condition on type and id alone.
pub(super) fn is_selector(filter: &Filter) -> bool {
    match filter {
        Filter::Type(_) | Filter::Id(_) | Filter::IdPattern(_) => true,
        Filter::And(list) => !list.is_empty() && list.iter().all(is_selector),
        _ => false,
    }
}

/// A condition on scopes alone.
pub(super) fn is_scope(filter: &Filter) -> bool {
    match filter {
        Filter::Scope(_) => true,
        Filter::And(list) | Filter::Or(list) => !list.is_empty() && list.iter().all(is_scope),
        _ => false,
    }
}

pub(super) fn selected(filter: &Filter, mut so_far: Selected) -> Selected {
    match filter {
        Filter::Type(types) => so_far.types = Some(types.clone()),
        Filter::Id(ids) => so_far.ids.clone_from(ids),
        Filter::IdPattern(pattern) => so_far.id_pattern = Some(pattern.clone()),
        Filter::And(list) => return list.iter().fold(so_far, |s, f| selected(f, s)),
        _ => {}
    }
    so_far
}

pub(super) fn attributes_of(filter: &Filter, names: &mut Vec<Iri>) {
    match filter {
        Filter::And(list) | Filter::Or(list) => list.iter().for_each(|f| attributes_of(f, names)),
        Filter::Not(inner) => attributes_of(inner, names),
        Filter::HasAnyOf(list) => names.extend(list.iter().cloned()),
        Filter::Value(Target::Attribute(path), _) => names.push(path.attribute.clone()),
        Filter::Geo(geo) => names.push(geo.property.clone()),
        _ => {}
    }
}

/// A condition on registrations themselves (parameter `csf`, clause 4.9): the language of `q` over the members of a registration.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceFilter(Filter);

impl SourceFilter {
    /// Parses it. Errors: as for `q`.
    pub fn parse(text: &str, context: &Context) -> Result<Self> {
        parse_q(text, QOptions { context, expand_values: &[], link_levels: 0 })
            .map(|q| Self(q.filter))
            .map_err(|e| e.within("parameter csf"))
    }

    /// Does the registration satisfy it?
    #[must_use]
    pub fn matches(&self, registration: &Registration) -> bool {
        self.0.matches(&as_entity(registration))
    }
}

/// The members of a registration as Properties, so that conditions can be asked of them.
fn as_entity(r: &Registration) -> Entity {
    let mut e = Entity::new(r.id.clone(), Iri::known("https://uri.etsi.org/ngsi-ld/ContextSourceRegistration"));
    (e.created_at, e.modified_at) = (r.created_at, r.modified_at);
    let texts = [
        ("registrationName", r.name.as_deref()),
        ("description", r.description.as_deref()),
        ("tenant", r.tenant.as_deref()),
        ("endpoint", Some(r.endpoint.as_str())),
        ("mode", Some(r.mode.name())),
        ("refreshRate", r.refresh_rate.as_deref()),
        ("contextSourceAlias", r.alias.as_deref()),
    ];
    let mut put = |name: Iri, value: Value| e.put(name, Attribute::new(AttributeValue::Property(value)));
    for (name, text) in texts {
        if let Some(text) = text {
            put(Iri::known(&format!("{NGSI_LD_NS}{name}")), text.into());
        }
    }
    put(Iri::known(&format!("{NGSI_LD_NS}operations")), r.operations.iter().cloned().collect());
    for (name, value) in &r.more {
        if let Ok(name) = name.parse() {
            put(name, value.clone());
        }
    }
    e
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ContextStore;
    use crate::query::Endpoint;
    use serde_json::json;

    fn asked(pairs: &[(&str, &str)]) -> Specification {
        let contexts = ContextStore::new(None, None).unwrap();
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        specification(&QueryParams::from_pairs(&pairs, contexts.core_context(), Endpoint::Registrations).unwrap(), MissingMember::Fits)
    }

    fn iri(name: &str) -> Iri {
        Iri::known(&format!("{}{name}", entity::DEFAULT_CONTEXT_NS))
    }

    #[test]
    fn everything_that_restricts_is_found() {
        let s = asked(&[
            ("type", "A,B"),
            ("id", "urn:x:2,urn:x:1"),
            ("attrs", "p"),
            ("q", "s.t>1|r"),
            ("scopeQ", "/A,/B"),
            ("georel", "near;maxDistance==5"),
            ("geometry", "Point"),
            ("coordinates", "[1,2]"),
            ("timerel", "before"),
            ("timeAt", "2026-01-01T00:00:00Z"),
        ]);
        assert_eq!(s.entities.len(), 1);
        assert_eq!(s.entities[0].ids.len(), 2);
        assert_eq!(s.entities[0].types.as_ref().unwrap().names(), [iri("A"), iri("B")]);
        assert_eq!(s.attributes, [iri("p"), iri("r"), iri("s"), Iri::known(entity::LOCATION)]);
        assert!(s.scope.is_some() && s.geo.len() == 1);
        let time = s.time.unwrap();
        assert_eq!((time.start, time.end, time.is_observed), (time.end, time.start, true));
        assert_eq!(asked(&[("type", "A")]).attributes, []);
    }

    #[test]
    fn registrations_are_asked_like_entities() {
        let contexts = ContextStore::new(None, None).unwrap();
        let r = crate::decode::registration(
            json!({
                "type": "ContextSourceRegistration", "information": [{"entities": [{"type": "A"}]}], "endpoint": "http://a.example",
                "registrationName": "north", "owner": "city", "level": 3,
            }),
            contexts.core_context(),
            || Iri::known("urn:r:1"),
        )
        .unwrap();
        for (csf, want) in [
            ("owner==\"city\"", true),
            ("owner==\"x\"", false),
            ("level>2;registrationName~=^no", true),
            ("mode==\"inclusive\"", true),
            ("absent", false),
        ] {
            assert_eq!(SourceFilter::parse(csf, contexts.core_context()).unwrap().matches(&r), want, "{csf}");
        }
        assert!(SourceFilter::parse("a=", contexts.core_context()).unwrap_err().to_string().starts_with("parameter csf"));
    }
}
