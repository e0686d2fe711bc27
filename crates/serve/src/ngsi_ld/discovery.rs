//! `/types` and `/attributes` (clauses 5.7.5 to 5.7.10, 6.25 to 6.28).
//!
//! Names come from the indexes. Which kinds an attribute has and how many entities have it is seen by visiting entities, at most
//! [`VISITED_MAX`] of a type: beyond that the number is how many there are at least, as clause 5.7.11 allows.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use entity::{Entity, Iri};
use ngsi::encode::{self, AttributeInfo, TypeInfo};
use ngsi::query::Endpoint;
use node::{Node, NodeError};
use policy::Principal;

use super::Call;
use super::entities::past;
use super::forward::names::{Names, with_sources};
use super::forward::{Warning, add_warnings};
use crate::problem::Problem;

/// Entities of a type that are visited for the details of one type or attribute.
const VISITED_MAX: usize = 100_000;

/// `GET /types`.
pub(crate) async fn types(call: Call) -> Result<Response, Problem> {
    let params = call.params(Endpoint::Discovery)?;
    let document = call.document(false)?;
    let types = call.app.node.types(&call.who)?;
    let mut warnings: Vec<Warning> = Vec::new();
    let body = if params.details {
        let infos: Result<Vec<TypeInfo>, NodeError> = types
            .into_iter()
            .map(|(entity_type, n_entities)| {
                let attributes = names(&call.app.node, &call.who, &entity_type)?.into_iter().map(|name| (name, Vec::new())).collect();
                Ok(TypeInfo { entity_type, n_entities, attributes })
            })
            .collect();
        encode::types(&infos?, &call.context)
    } else {
        let types: Vec<Iri> = types.into_iter().map(|(t, _)| t).collect();
        let (types, said) = with_sources(&call, &params, Names::Types, types).await?;
        warnings = said;
        encode::type_list(&list_id("EntityTypeList"), &types, &call.context)
    };
    let mut response = call.answer(body, document);
    add_warnings(&call, &mut response, &warnings);
    Ok(response)
}

/// `GET /types/{type}`.
pub(crate) async fn type_info(call: Call, Path(name): Path<String>) -> Result<Response, Problem> {
    call.params(Endpoint::Discovery)?;
    let document = call.document(false)?;
    let entity_type = call.context.expand(&name)?;
    let Some((_, n_entities)) = call.app.node.types(&call.who)?.into_iter().find(|(t, _)| *t == entity_type) else {
        return Err(nothing(format!("there is no entity of type `{entity_type}`")));
    };
    let asked = entity_type.clone();
    let attributes = past(&call, move |node, who| {
        let mut kinds: BTreeMap<Iri, Vec<&'static str>> = BTreeMap::new();
        visit(node, who, &asked, |entity| {
            for (name, instances) in &entity.attributes {
                let known = kinds.entry(name.clone()).or_default();
                for kind in instances.iter().map(|i| i.value.kind().name()) {
                    if !known.contains(&kind) {
                        known.push(kind);
                    }
                }
            }
        })?;
        Ok(kinds.into_iter().collect())
    })
    .await?;
    Ok(call.answer(encode::type_info(&TypeInfo { entity_type, n_entities, attributes }, &call.context), document))
}

/// `GET /attributes`.
pub(crate) async fn attributes(call: Call) -> Result<Response, Problem> {
    let params = call.params(Endpoint::Discovery)?;
    let document = call.document(false)?;
    let mut types_of: BTreeMap<Iri, Vec<Iri>> = BTreeMap::new();
    let mut warnings: Vec<Warning> = Vec::new();
    for (entity_type, _) in call.app.node.types(&call.who)? {
        for name in names(&call.app.node, &call.who, &entity_type)? {
            types_of.entry(name).or_default().push(entity_type.clone());
        }
    }
    let body = if params.details {
        let info = |(name, types)| AttributeInfo { name, n_entities: 0, kinds: Vec::new(), types };
        let infos: Vec<AttributeInfo> = types_of.into_iter().map(info).collect();
        encode::attributes(&infos, &call.context)
    } else {
        let (names, said) = with_sources(&call, &params, Names::Attributes, types_of.into_keys().collect()).await?;
        warnings = said;
        encode::attribute_list(&list_id("AttributeList"), &names, &call.context)
    };
    let mut response = call.answer(body, document);
    add_warnings(&call, &mut response, &warnings);
    Ok(response)
}

/// `GET /attributes/{attrId}`.
pub(crate) async fn attribute_info(call: Call, Path(name): Path<String>) -> Result<Response, Problem> {
    call.params(Endpoint::Discovery)?;
    let document = call.document(false)?;
    let name = call.context.expand(&name)?;
    let asked = name.clone();
    let info = past(&call, move |node, who| {
        let (mut kinds, mut types, mut seen, mut n_single) = (Vec::new(), BTreeSet::new(), BTreeSet::new(), 0);
        for (entity_type, _) in node.types(who)? {
            if !names(node, who, &entity_type)?.contains(&asked) {
                continue;
            }
            visit(node, who, &entity_type, |entity| {
                let Some(instances) = entity.attributes.get(&asked) else { return };
                types.insert(entity_type.clone());
                // One of several types is visited once for each of them.
                if entity.types.len() > 1 && !seen.insert(entity.id.clone()) {
                    return;
                }
                if entity.types.len() == 1 {
                    n_single += 1;
                }
                for kind in instances.iter().map(|i| i.value.kind().name()) {
                    if !kinds.contains(&kind) {
                        kinds.push(kind);
                    }
                }
            })?;
        }
        Ok(AttributeInfo { name: asked, n_entities: n_single + seen.len(), kinds, types: types.into_iter().collect() })
    })
    .await?;
    if info.n_entities == 0 {
        return Err(nothing(format!("there is no attribute `{name}`")));
    }
    Ok(call.answer(encode::attribute_info(&info, &call.context), document))
}

fn list_id(kind: &str) -> Iri {
    Iri::known(&format!("urn:ngsi-ld:{kind}:{}", host::random_hex::<8>()))
}

fn nothing(detail: String) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "ResourceNotFound", detail)
}

/// The names of the attributes that entities of a type have, by the counts of its table.
fn names(node: &Node, who: &Principal, entity_type: &Iri) -> Result<Vec<Iri>, NodeError> {
    Ok(node.columns(who, entity_type)?.into_iter().map(|c| c.name).collect())
}

/// Shows the entities of a type that have not expired, with what of them has not.
fn visit(node: &Node, who: &Principal, entity_type: &Iri, mut see: impl FnMut(&Entity)) -> Result<(), NodeError> {
    let (now, mut n_visited) = (node.now(), 0);
    for part in node.latest(who, entity_type)? {
        let part = part?;
        for entity in part.iter().filter(|e| e.expires_at.is_none_or(|at| at > now)) {
            see(entity);
        }
        n_visited += part.len();
        if n_visited >= VISITED_MAX {
            break;
        }
    }
    Ok(())
}
