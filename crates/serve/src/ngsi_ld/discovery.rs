//! `/types` (clauses 5.7.5 to 5.7.7, 6.25, 6.26).

use std::collections::BTreeMap;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use entity::Iri;
use ngsi::encode::{self, TypeInfo};
use ngsi::query::Endpoint;

use super::Call;
use crate::problem::Problem;

pub(crate) async fn types(call: Call) -> Result<Response, Problem> {
    let params = call.params(Endpoint::Discovery)?;
    let document = call.document(false)?;
    let types: Vec<Iri> = call.app.node.types(&call.who)?.into_iter().map(|(t, _)| t).collect();
    let body = if params.details {
        let infos = types.iter().map(|t| info(&call, t)).collect::<Result<Vec<_>, _>>()?;
        encode::types(&infos, &call.context)
    } else {
        let id = Iri::known(&format!("urn:ngsi-ld:EntityTypeList:{}", host::random_hex::<8>()));
        encode::type_list(&id, &types, &call.context)
    };
    Ok(call.answer(body, document))
}

pub(crate) async fn type_info(call: Call, Path(name): Path<String>) -> Result<Response, Problem> {
    call.params(Endpoint::Discovery)?;
    let document = call.document(false)?;
    let info = info(&call, &call.context.expand(&name)?)?;
    if info.n_entities == 0 {
        return Err(Problem::new(StatusCode::NOT_FOUND, "ResourceNotFound", format!("there is no entity of type `{}`", info.entity_type)));
    }
    Ok(call.answer(encode::type_info(&info, &call.context), document))
}

fn info(call: &Call, entity_type: &Iri) -> Result<TypeInfo, Problem> {
    let mut attributes: BTreeMap<Iri, Vec<&'static str>> = BTreeMap::new();
    let mut n_entities = 0;
    for part in call.app.node.latest(&call.who, entity_type)? {
        let part = part.map_err(node::NodeError::from)?;
        n_entities += part.len();
        for (name, instances) in part.iter().flat_map(|e| &e.attributes) {
            if !attributes.contains_key(name) {
                attributes.insert(name.clone(), Vec::new());
            }
            let kinds = attributes.get_mut(name).expect("it was just put in");
            for kind in instances.iter().map(|i| i.value.kind().name()) {
                if !kinds.contains(&kind) {
                    kinds.push(kind);
                }
            }
        }
    }
    Ok(TypeInfo { entity_type: entity_type.clone(), n_entities, attributes: attributes.into_iter().collect() })
}
