//! Queries as documents: `POST /entityOperations/query` (ETSI GS CIM 009 V1.9.1, clauses 5.2.23 and 6.23).

use entity::{Filter, TypeSelector};
use serde_json::Value;

use super::order::OrderText;
use super::params::{JoinText, Selection, check_reach, dataset_ids, lifetime_us, member_list, name_list, wants_aggregation};
use super::select::GeoParameters;
use super::temporal::TemporalText;
use super::{Aggregation, Endpoint, QueryParams};
use crate::context::Context;
use crate::decode::{list_of_strings, object, selector, string};
use crate::error::{Error, Result, described, shown};
use crate::view::LanguageRanges;

/// The most selectors in `entities`.
const SELECTORS_MAX: usize = 500;

const MEMBERS: [&str; 22] = [
    "type",
    "entities",
    "q",
    "geoQ",
    "scopeQ",
    "attrs",
    "pick",
    "omit",
    "lang",
    "datasetId",
    "expandValues",
    "jsonKeys",
    "temporalQ",
    "aggrParams",
    "join",
    "joinLevel",
    "containedBy",
    "ordering",
    "csf",
    "entityMap",
    "entityMapLifetime",
    "id",
];

const UNSUPPORTED: [&str; 2] = ["splitEntities", "ngsildConformance"];

/// Reads a query body and the URL parameters beside it (paging and form).
///
/// `endpoint` is [`Endpoint::QueryByBody`] or [`Endpoint::QueryTemporalByBody`]. Errors: as [`QueryParams::from_pairs`], with the member.
pub fn query_body(value: Value, pairs: &[(String, String)], context: &Context, endpoint: Endpoint) -> Result<QueryParams> {
    let mut params = QueryParams::from_pairs(pairs, context, endpoint)?;
    let map = object(value, "a Query")?;
    let mut selection = Selection::default();
    let mut is_query = false;
    let (mut temporal, mut aggregation) = (None, None);
    let mut order = OrderText::default();
    let mut join = JoinText { join: None, level: None, contained_by: None };
    for (key, value) in &map {
        let at = |e: Error| e.within(&shown(key));
        match key.as_str() {
            "type" => is_query = value.as_str() == Some("Query"),
            "id" | "@context" => {}
            "entities" => entities(&mut selection, value, context).map_err(at)?,
            "q" => selection.q = Some(string(value).map_err(at)?.to_owned()),
            "scopeQ" => selection.scope_q = Some(string(value).map_err(at)?.to_owned()),
            "geoQ" => selection.geo = GeoParameters::from_json(value).map_err(at)?,
            "attrs" => selection.attrs = Some(name_list(list_of_strings(value).map_err(at)?.into_iter(), context).map_err(at)?),
            "pick" => params.view.pick = Some(member_list(list_of_strings(value).map_err(at)?.into_iter(), context).map_err(at)?),
            "omit" => params.view.omit = member_list(list_of_strings(value).map_err(at)?.into_iter(), context).map_err(at)?,
            "lang" => params.view.lang = Some(LanguageRanges::parse(string(value).map_err(at)?).map_err(at)?),
            "datasetId" => params.view.dataset_ids = Some(dataset_ids(list_of_strings(value).map_err(at)?.into_iter()).map_err(at)?),
            "expandValues" => selection.expand_values = names(value, context).map_err(at)?,
            "jsonKeys" => {
                // As in the URL: bracket paths address raw keys always.
                names(value, context).map_err(at)?;
            }
            "join" | "joinLevel" | "containedBy" if endpoint == Endpoint::QueryTemporalByBody => {
                return Err(at(Error::bad("linked entities are not part of temporal answers")));
            }
            "csf" => params.csf = Some(string(value).map_err(at)?.to_owned()),
            "entityMap" => {
                let expected = || at(Error::bad(format!("expected true or false, found {}", described(value))));
                params.entity_map = value.as_bool().ok_or_else(expected)?;
            }
            "entityMapLifetime" => params.entity_map_lifetime_us = Some(lifetime_us(string(value).map_err(at)?).map_err(at)?),
            "ordering" => order = OrderText::from_json(value).map_err(at)?,
            "join" => join.join = Some(string(value).map_err(at)?.to_owned()),
            "joinLevel" => join.level = Some(value.to_string()),
            "containedBy" => join.contained_by = Some(list_of_strings(value).map_err(at)?.into_iter().map(str::to_owned).collect()),
            "temporalQ" if endpoint == Endpoint::QueryTemporalByBody => temporal = Some(temporal_q(value).map_err(at)?),
            "temporalQ" => return Err(at(Error::bad("a temporal query goes to /temporal/entityOperations/query"))),
            "aggrParams" if endpoint == Endpoint::QueryTemporalByBody => aggregation = Some(aggr_params(value).map_err(at)?),
            "aggrParams" => return Err(at(Error::bad("an aggregation goes to /temporal/entityOperations/query"))),
            other => return Err(at(unknown_member(other, &MEMBERS, &UNSUPPORTED))),
        }
    }
    if !is_query {
        return Err(Error::bad("expected `Query`").within("type"));
    }
    if endpoint == Endpoint::QueryTemporalByBody {
        let temporal = temporal.ok_or_else(|| Error::bad("a temporal query needs the member `temporalQ`"))?;
        params.temporal = temporal.params().map_err(|e| e.within("temporalQ"))?;
        if params.temporal.interval.is_none() {
            return Err(Error::bad("a temporal query needs `timerel` and `timeAt`").within("temporalQ"));
        }
        let text = |name: &str| pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        params.temporal.aggregation = match (wants_aggregation(&text, endpoint)?, aggregation) {
            (true, None) => return Err(Error::bad("aggregated values need the methods").within("aggrParams")),
            (false, Some(_)) => return Err(Error::bad("goes with format=aggregatedValues only").within("aggrParams")),
            (_, found) => found,
        };
    }
    if endpoint != Endpoint::QueryTemporalByBody {
        params.view.join = join.join()?;
    }
    check_reach(&params.view)?;
    selection.link_levels = params.view.join.as_ref().map_or(0, |j| j.levels);
    params.view.attrs.clone_from(&selection.attrs);
    params.local |= selection.types == Some(TypeSelector::Any);
    params.finish(&selection, context, true)?;
    params.order(order.order(context).map_err(|e| e.within("ordering"))?)?;
    Ok(params)
}

/// A list of names, or one string of names with commas.
fn names(value: &Value, context: &Context) -> Result<Vec<entity::Iri>> {
    name_list(list_of_strings(value)?.into_iter().flat_map(|s| s.split(',')), context)
}

fn entities(selection: &mut Selection, value: &Value, context: &Context) -> Result<()> {
    let Value::Array(list) = value else { return Err(Error::bad(format!("expected an array, found {}", described(value)))) };
    if list.is_empty() || list.len() > SELECTORS_MAX {
        return Err(Error::bad(format!("expected 1 to {SELECTORS_MAX} entity selectors, found {}", list.len())));
    }
    let (mut filters, mut types) = (Vec::new(), Vec::new());
    for (i, item) in list.iter().enumerate() {
        let at = |e: Error| e.within(&i.to_string());
        let found = selector(item, context).map_err(at)?;
        filters.push(found.filter());
        types.push(found.types);
        if list.len() == 1 {
            selection.ids = found.ids;
        }
    }
    selection.types = Some(match types.len() {
        1 => types.remove(0),
        _ if types.contains(&TypeSelector::Any) => TypeSelector::Any,
        _ => TypeSelector::Or(types),
    });
    selection.entities = Some(if filters.len() == 1 { filters.remove(0) } else { Filter::Or(filters) });
    Ok(())
}

fn aggr_params(value: &Value) -> Result<Aggregation> {
    let map = value.as_object().ok_or_else(|| Error::bad(format!("expected an object, found {}", described(value))))?;
    let (mut methods, mut period) = (None, None);
    for (key, value) in map {
        let at = |e: Error| e.within(&shown(key));
        match key.as_str() {
            "aggrMethods" => methods = Some(list_of_strings(value).map_err(at)?),
            "aggrPeriodDuration" => period = Some(string(value).map_err(at)?),
            other => return Err(at(unknown_member(other, &["aggrMethods", "aggrPeriodDuration"], &[]))),
        }
    }
    let methods = methods.ok_or_else(|| Error::bad("the mandatory member `aggrMethods` is missing"))?;
    Aggregation::parse(methods.into_iter().flat_map(|m| m.split(',')), period)
}

fn temporal_q(value: &Value) -> Result<TemporalText> {
    let map = value.as_object().ok_or_else(|| Error::bad(format!("expected an object, found {}", described(value))))?;
    let mut text = TemporalText::default();
    for (key, value) in map {
        let at = |e: Error| e.within(&shown(key));
        let owned = || string(value).map(|s| Some(s.to_owned())).map_err(at);
        match key.as_str() {
            "timerel" => text.timerel = owned()?,
            "timeAt" => text.time_at = owned()?,
            "endTimeAt" => text.end_time_at = owned()?,
            "timeproperty" => text.timeproperty = owned()?,
            "lastN" => text.last_n = Some(value.to_string()),
            other => {
                return Err(at(unknown_member(other, &["timerel", "timeAt", "endTimeAt", "timeproperty", "lastN"], &[])));
            }
        }
    }
    Ok(text)
}

/// A member that is not known, or known and not supported.
pub(crate) fn unknown_member(name: &str, known: &[&str], unsupported: &[&str]) -> Error {
    if unsupported.contains(&name) {
        return Error::bad("is a member of NGSI-LD that this node does not support");
    }
    match known.iter().map(|k| (strsim::damerau_levenshtein(k, name), k)).min().filter(|(distance, _)| *distance <= 3) {
        Some((_, k)) => Error::bad(format!("is not a member here (did you mean `{k}`?)")),
        None => Error::bad(format!("is not a member here (expected {})", known.join(", "))),
    }
}
