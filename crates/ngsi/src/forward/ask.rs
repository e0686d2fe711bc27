//! A question as a source is asked it: in the names of a context, and limited to what the source registered (clauses 4.3.6.1 and 6.3.18).

use entity::registration::{EntityInfo, Information, Registration, Selected};
use entity::{CompareOp, Comparison, Filter, GeoCondition, GeoRelation, Iri, LOCATION, Operand, Path, Pattern, Target, TypeSelector};

use super::specification::{is_scope, is_selector, selected, specification};
use crate::context::{Context, is_name};
use crate::query::{Q_BYTES_MAX, QOptions, QueryParams, parse_q, parse_scopes};
use entity::registration::MissingMember;

/// The most ids that are named to a source; it is asked for more than is wanted if there were more, and the rest is left out here.
const IDS_NAMED_MAX: usize = 100;

/// What a source is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// Parameters of the URL, not percent-encoded.
    pub pairs: Vec<(&'static str, String)>,
    /// What could not be said in them, and holds of the answer all the same: true of everything if nothing is left.
    pub residual: Filter,
}

/// The question for one source, with names as `context` has them.
#[must_use]
pub fn ask(params: &QueryParams, registration: &Registration, context: &Context) -> Ask {
    let asked = specification(params, MissingMember::Fits);
    let parts: Vec<&Information> =
        registration.matches(&asked).map(|w| w.information.into_iter().map(|(_, i)| i).collect()).unwrap_or_default();
    let mut pairs: Vec<(&'static str, String)> = Vec::new();
    let mut rest = Vec::new();
    let mut one = Selected::default();
    let mut q: Vec<(String, bool)> = Vec::new();
    let mut has_geo = false;
    let mut has_scope = false;
    for condition in params.filter.conjuncts() {
        match condition {
            selector if is_selector(selector) => one = selected(selector, one),
            Filter::HasAnyOf(names) if params.view.attrs.as_ref() == Some(names) => {}
            Filter::Geo(geo) if !has_geo => {
                has_geo = true;
                pairs.extend(geo_pairs(geo, context));
            }
            scope if is_scope(scope) && !has_scope && scope_text(scope, true).is_some() => {
                has_scope = true;
                pairs.extend(scope_text(scope, true).map(|t| ("scopeQ", t)));
            }
            other => match q_text(other, context) {
                Some(text) => q.push((text, matches!(other, Filter::Or(_)))),
                None => rest.push(other.clone()),
            },
        }
    }
    if !q.is_empty() {
        // One alone needs no parentheses, which not every receiver reads.
        let bare = |t: &String| t.strip_prefix('(').and_then(|t| t.strip_suffix(')')).map_or_else(|| t.clone(), str::to_owned);
        let text =
            if let [(one, true)] = q.as_slice() { bare(one) } else { q.iter().map(|(t, _)| t.as_str()).collect::<Vec<_>>().join(";") };
        if text.len() <= Q_BYTES_MAX {
            pairs.push(("q", text));
        } else {
            rest.extend(
                params.filter.conjuncts().filter(|f| q_text(f, context).is_some_and(|t| q.iter().any(|(known, _)| *known == t))).cloned(),
            );
        }
    }
    // Several selectors in one question have no form in a URL: their types do, and the rest is looked at in the answer.
    let several = asked.entities.len() > 1;
    let types = if several { types_of_all(&asked.entities) } else { one.types.clone() };
    if let Some(text) = type_text(types.as_ref(), &parts, context) {
        pairs.insert(0, ("type", text));
    }
    if !several {
        pairs.extend(id_pairs(&one, &parts));
    }
    let residual = rest.into_iter().fold(Filter::all(), Filter::and);
    pairs.extend(attrs_text(params.view.attrs.as_deref(), &parts, &residual, context).map(|t| ("attrs", t)));
    if let Some(list) = &params.view.dataset_ids {
        let texts: Vec<&str> = list.iter().map(|d| d.as_ref().map_or(crate::DEFAULT_INSTANCE, Iri::as_str)).collect();
        pairs.push(("datasetId", texts.join(",")));
    }
    Ask { pairs, residual }
}

fn types_of_all(entities: &[Selected]) -> Option<TypeSelector> {
    let all: Option<Vec<TypeSelector>> = entities.iter().map(|s| s.types.clone()).collect();
    all.map(TypeSelector::Or)
}

/// The types asked for as far as they are registered; the registered ones if none are asked for.
fn type_text(asked: Option<&TypeSelector>, parts: &[&Information], context: &Context) -> Option<String> {
    let limited = !parts.is_empty() && parts.iter().all(|p| !p.entities.is_empty());
    let mut registered: Vec<&Iri> = parts.iter().flat_map(|p| &p.entities).flat_map(|e| &e.types).collect();
    registered.sort();
    registered.dedup();
    let or = |list: Vec<TypeSelector>| if list.len() == 1 { list.into_iter().next() } else { Some(TypeSelector::Or(list)) };
    let narrowed = match asked {
        None | Some(TypeSelector::Any) if limited => or(registered.into_iter().cloned().map(TypeSelector::Is).collect()),
        None | Some(TypeSelector::Any) => None,
        Some(TypeSelector::Or(list)) if limited && list.iter().all(|t| matches!(t, TypeSelector::Is(_))) => {
            let kept: Vec<TypeSelector> =
                list.iter().filter(|t| matches!(t, TypeSelector::Is(name) if registered.contains(&name))).cloned().collect();
            if kept.is_empty() { asked.cloned() } else { or(kept) }
        }
        other => other.cloned(),
    };
    narrowed.map(|t| selector_text(&t, context, true))
}

/// A type selection as the parameter `type` has it, with names as `context` has them.
#[must_use]
pub fn types_text(types: &TypeSelector, context: &Context) -> String {
    selector_text(types, context, true)
}

/// A list of names is written with commas, which every version of the standard knows.
fn selector_text(types: &TypeSelector, context: &Context, top: bool) -> String {
    let join = |list: &[TypeSelector], by: &str| list.iter().map(|t| selector_text(t, context, false)).collect::<Vec<_>>().join(by);
    match types {
        TypeSelector::Any => "*".to_owned(),
        TypeSelector::Is(name) => context.compact(name).into_owned(),
        TypeSelector::Or(list) if top && list.iter().all(|t| matches!(t, TypeSelector::Is(_))) => join(list, ","),
        TypeSelector::Or(list) => format!("({})", join(list, "|")),
        TypeSelector::And(list) => format!("({})", join(list, ";")),
    }
}

/// Ids in the order in which they were asked for.
fn id_pairs(asked: &Selected, parts: &[&Information]) -> Vec<(&'static str, String)> {
    let infos: Vec<&EntityInfo> = parts.iter().flat_map(|p| &p.entities).collect();
    let anything = infos.is_empty() || parts.iter().any(|p| p.entities.is_empty());
    let text = |ids: &[&Iri]| ids.iter().map(|i| i.as_str()).collect::<Vec<_>>().join(",");
    if !asked.ids.is_empty() {
        let wanted: Vec<&Iri> = asked.ids.iter().filter(|id| anything || infos.iter().any(|e| e.has_id(id))).collect();
        return vec![("id", text(&wanted))];
    }
    let registered: Vec<&Iri> = infos.iter().filter_map(|e| e.id.as_ref()).collect();
    if let Some(pattern) = &asked.id_pattern {
        return vec![("idPattern", pattern_text(pattern))];
    }
    if !anything && registered.len() == infos.len() && registered.len() <= IDS_NAMED_MAX {
        return vec![("id", text(&registered))];
    }
    match infos.as_slice() {
        [one] if !anything => one.id_pattern_text.iter().map(|p| ("idPattern", p.clone())).collect(),
        _ => Vec::new(),
    }
}

/// The attributes asked for as far as they are registered; the registered ones if none are asked for. What is still to be looked at comes along.
fn attrs_text(asked: Option<&[Iri]>, parts: &[&Information], residual: &Filter, context: &Context) -> Option<String> {
    let limited = !parts.is_empty() && parts.iter().all(|p| !p.has_all_attributes());
    let is_registered = |name: &&Iri| !limited || parts.iter().any(|p| p.has_attribute(name));
    let mut names: Vec<Iri> = match asked {
        Some(list) => list.iter().filter(is_registered).cloned().collect(),
        None if limited => parts.iter().flat_map(|p| p.attributes()).cloned().collect(),
        None => return None,
    };
    super::specification::attributes_of(residual, &mut names);
    let mut texts: Vec<String> = Vec::new();
    for name in &names {
        let text = context.compact(name).into_owned();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    (!texts.is_empty()).then(|| texts.join(","))
}

fn geo_pairs(geo: &GeoCondition, context: &Context) -> Vec<(&'static str, String)> {
    let georel = match geo.relation {
        GeoRelation::NearMax(m) => format!("near;maxDistance=={}", number(m)),
        GeoRelation::NearMin(m) => format!("near;minDistance=={}", number(m)),
        GeoRelation::Within => "within".to_owned(),
        GeoRelation::Contains => "contains".to_owned(),
        GeoRelation::Intersects => "intersects".to_owned(),
        GeoRelation::Equals => "equals".to_owned(),
        GeoRelation::Disjoint => "disjoint".to_owned(),
        GeoRelation::Overlaps => "overlaps".to_owned(),
    };
    let json = geo.reference.json();
    let mut pairs = vec![
        ("georel", georel),
        ("geometry", json["type"].as_str().unwrap_or_default().to_owned()),
        ("coordinates", json["coordinates"].to_string()),
    ];
    if geo.property.as_str() != LOCATION {
        pairs.push(("geoproperty", context.compact(&geo.property).into_owned()));
    }
    pairs
}

fn scope_text(filter: &Filter, top: bool) -> Option<String> {
    let join = |list: &[Filter], by: &str| list.iter().map(|f| scope_text(f, false)).collect::<Option<Vec<_>>>().map(|l| l.join(by));
    let text = match filter {
        Filter::Scope(pattern) => serde_json::to_value(pattern).ok()?.as_str()?.to_owned(),
        Filter::Or(list) if top => join(list, "|")?,
        Filter::Or(list) => format!("({})", join(list, "|")?),
        Filter::And(list) => format!("({})", join(list, ";")?),
        _ => return None,
    };
    (!top || parse_scopes(&text).is_ok_and(|back| back == *filter)).then_some(text)
}

/// A condition in the language of `q`; none if it cannot be said with the names that the context has. What is returned reads back the same.
fn q_text(filter: &Filter, context: &Context) -> Option<String> {
    let text = q_part(filter, context, Around::Nothing)?;
    let back = parse_q(&text, QOptions { context, expand_values: &[], link_levels: 0 }).ok()?;
    (back.filter == *filter).then(|| if matches!(filter, Filter::Or(_)) { format!("({text})") } else { text })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Around {
    Nothing,
    Or,
    And,
}

fn q_part(filter: &Filter, context: &Context, around: Around) -> Option<String> {
    let join = |list: &[Filter], by: &str, inside| {
        let texts: Option<Vec<String>> = list.iter().map(|f| q_part(f, context, inside)).collect();
        texts.filter(|t| t.len() > 1).map(|t| t.join(by))
    };
    match filter {
        Filter::Or(list) => join(list, "|", Around::Or).map(|t| if around == Around::Nothing { t } else { format!("({t})") }),
        Filter::And(list) => join(list, ";", Around::And).map(|t| if around == Around::And { format!("({t})") } else { t }),
        Filter::Value(target, comparison) => Some(format!("{}{}", target_text(target, context)?, comparison_text(comparison))),
        _ => None,
    }
}

fn target_text(target: &Target, context: &Context) -> Option<String> {
    let Target::Attribute(Path { attribute, subs, member, keys }) = target else {
        return Some(if *target == Target::EntityCreatedAt { "createdAt" } else { "modifiedAt" }.to_owned());
    };
    let mut text = String::new();
    for name in std::iter::once(attribute).chain(subs) {
        let short = context.compact(name);
        // A full IRI has the characters that separate the parts of a path.
        if !is_name(&short) {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(&short);
    }
    if let Some(member) = member {
        text.push('.');
        text.push_str(member);
    }
    if !keys.is_empty() {
        text.push_str(&format!("[{}]", keys.join(".")));
    }
    Some(text)
}

fn comparison_text(comparison: &Comparison) -> String {
    let list = |operands: &[Operand]| operands.iter().map(operand_text).collect::<Vec<_>>().join(",");
    match comparison {
        Comparison::Exists => String::new(),
        Comparison::Equal(operands) => format!("=={}", list(operands)),
        Comparison::NotEqual(operands) => format!("!={}", list(operands)),
        Comparison::Between(low, high) => format!("=={}..{}", operand_text(low), operand_text(high)),
        Comparison::NotBetween(low, high) => format!("!={}..{}", operand_text(low), operand_text(high)),
        Comparison::Order(op, operand) => {
            let sign = match op {
                CompareOp::Lt => "<",
                CompareOp::Le => "<=",
                CompareOp::Gt => ">",
                CompareOp::Ge => ">=",
            };
            format!("{sign}{}", operand_text(operand))
        }
        Comparison::Matches(pattern) => format!("~={}", pattern_text(pattern)),
        Comparison::NotMatches(pattern) => format!("!~={}", pattern_text(pattern)),
    }
}

fn operand_text(operand: &Operand) -> String {
    match operand {
        Operand::Number(n) => number(*n),
        Operand::Bool(b) => b.to_string(),
        Operand::Instant(at) => at.to_string(),
        Operand::Date(text) | Operand::Time(text) | Operand::Uri(text) => text.clone(),
        Operand::Text(text) => serde_json::to_string(text).expect("a string is JSON"),
    }
}

/// Whole numbers without a fraction.
fn number(n: f64) -> String {
    if n.fract() == 0.0 && n.abs() < 1e15 { format!("{n:.0}") } else { n.to_string() }
}

fn pattern_text(pattern: &Pattern) -> String {
    serde_json::to_value(pattern).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ContextStore;
    use crate::query::Endpoint;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn params(pairs: &[(&str, &str)]) -> QueryParams {
        let contexts = ContextStore::new(None, None).unwrap();
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        QueryParams::from_pairs(&pairs, contexts.core_context(), Endpoint::QueryEntities).unwrap()
    }

    fn registration(information: Value) -> Registration {
        let contexts = ContextStore::new(None, None).unwrap();
        let r = json!({"type": "ContextSourceRegistration", "endpoint": "http://a.example", "information": information});
        crate::decode::registration(r, contexts.core_context(), || Iri::known("urn:r:1")).unwrap()
    }

    fn asked(pairs: &[(&str, &str)], information: Value) -> Vec<(&'static str, String)> {
        let contexts = ContextStore::new(None, None).unwrap();
        ask(&params(pairs), &registration(information), contexts.core_context()).pairs
    }

    #[test]
    fn a_source_is_asked_for_what_it_registered() {
        let check = |pairs: &[(&str, &str)], information: Value, want: &[(&'static str, &str)]| {
            let want: Vec<_> = want.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
            assert_eq!(asked(pairs, information), want);
        };
        let rooms = json!([{"entities": [{"type": "Room"}]}]);
        check(&[("type", "Room")], rooms.clone(), &[("type", "Room")]);
        check(&[("type", "Car,Room")], rooms.clone(), &[("type", "Room")]);
        check(&[("attrs", "t")], rooms.clone(), &[("type", "Room"), ("attrs", "t")]);
        check(&[("type", "Room"), ("id", "urn:x:2,urn:x:1")], rooms.clone(), &[("type", "Room"), ("id", "urn:x:2,urn:x:1")]);
        let one = json!([{"entities": [{"type": "Room", "id": "urn:x:1"}], "propertyNames": ["t", "h"]}]);
        check(&[("type", "Room")], one.clone(), &[("type", "Room"), ("id", "urn:x:1"), ("attrs", "t,h")]);
        check(&[("type", "Room"), ("attrs", "h,z")], one.clone(), &[("type", "Room"), ("id", "urn:x:1"), ("attrs", "h")]);
        check(&[("type", "Room"), ("id", "urn:x:2,urn:x:1")], one, &[("type", "Room"), ("id", "urn:x:1"), ("attrs", "t,h")]);
        check(
            &[("type", "(Room;Hall)"), ("q", "t>20;a.b[c.d]~=^x|h"), ("scopeQ", "/A/#,(/B;/C)"), ("datasetId", "@none,urn:d:1")],
            json!([{"entities": [{"type": ["Room", "Hall"], "idPattern": "^urn"}]}]),
            &[
                ("type", "(Room;Hall)"),
                ("scopeQ", "/A/#|(/B;/C)"),
                ("q", "t>20;a.b[c.d]~=^x|h"),
                ("idPattern", "^urn"),
                ("datasetId", "@none,urn:d:1"),
            ],
        );
        check(
            &[
                ("type", "Room"),
                ("georel", "near;maxDistance==2000"),
                ("geometry", "Point"),
                ("coordinates", "[1,2.5]"),
                ("geoproperty", "p"),
            ],
            rooms,
            &[
                ("type", "Room"),
                ("georel", "near;maxDistance==2000"),
                ("geometry", "Point"),
                ("coordinates", "[1,2.5]"),
                ("geoproperty", "p"),
            ],
        );
    }

    #[test]
    fn what_the_names_of_a_context_cannot_say_is_left_for_the_answer() {
        let contexts = ContextStore::new(None, None).unwrap();
        let mut asked = params(&[("type", "Room"), ("q", "t>20")]);
        let odd = Filter::Value(Target::Attribute(Path::of(Iri::known("https://a.example/x.y/t"))), Comparison::Exists);
        asked.filter = asked.filter.and(odd.clone());
        let found = ask(&asked, &registration(json!([{"propertyNames": ["t"]}])), contexts.core_context());
        assert_eq!(found.residual, Filter::all().and(odd));
        let pairs: Vec<_> = found.pairs.iter().map(|(n, v)| (*n, v.as_str())).collect();
        assert_eq!(pairs, [("type", "Room"), ("q", "t>20"), ("attrs", "t,https://a.example/x.y/t")]);
    }

    proptest! {
        /// What a source is asked means the same as what was asked here.
        #[test]
        fn a_query_reads_back_the_same(
            terms in proptest::collection::vec((0..9_usize, any::<bool>(), -50..50_i32, "[a-z;|\"(), ]{0,6}"), 1..6), grouped in any::<bool>(),
        ) {
            let text = |(kind, not, n, s): &(usize, bool, i32, String)| {
                let quoted = serde_json::to_string(s).unwrap();
                let eq = if *not { "!=" } else { "==" };
                match kind {
                    0 => format!("a{eq}{n}"),
                    1 => format!("a.b{eq}{quoted}"),
                    2 => format!("a[k.l]{eq}{n}..99"),
                    3 => "a.observedAt>=2026-01-01T00:00:00Z".to_owned(),
                    4 => format!("r{eq}urn:x:{}", n.abs()),
                    5 => format!("a{eq}{quoted},{n},true"),
                    6 => "modifiedAt<2026-01-01T00:00:00Z".to_owned(),
                    7 => format!("a{}~=^x[;|].*$", if *not { "!" } else { "" }),
                    _ => "a".to_owned(),
                }
            };
            let parts: Vec<String> = terms.iter().map(text).collect();
            let q = if grouped && parts.len() > 1 { format!("{};({})", parts[0], parts[1..].join("|")) } else { parts.join("|") };
            let before = params(&[("type", "Room"), ("q", &q)]);
            let contexts = ContextStore::new(None, None).unwrap();
            let found = ask(&before, &registration(json!([{"entities": [{"type": "Room"}]}])), contexts.core_context());
            prop_assert_eq!(&found.residual, &Filter::all());
            let pairs: Vec<(&str, &str)> = found.pairs.iter().map(|(n, v)| (*n, v.as_str())).collect();
            prop_assert_eq!(params(&pairs).filter, before.filter);
        }
    }
}
