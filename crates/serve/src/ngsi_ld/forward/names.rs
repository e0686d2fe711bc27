//! The types and attributes that sources have (clauses 5.7.5.4 and 5.7.8.4).

use std::collections::BTreeSet;

use axum::http::{Method, StatusCode};
use entity::Iri;
use entity::registration::{Operation, Registration, Specification};
use futures::future::join_all;
use ngsi::query::QueryParams;
use node::Registered;

use super::request::{Failure, Outgoing, Spoken, send};
use super::{Warning, checked_via, leads_back};
use crate::ngsi_ld::Call;
use crate::problem::Problem;

/// The most names of one source.
const NAMES_MAX: usize = 10_000;

/// A list of names that sources are asked for.
#[derive(Clone, Copy)]
pub(crate) enum Names {
    Types,
    Attributes,
}

impl Names {
    /// The operation, the path and the member of the answer.
    const fn parts(self) -> (Operation, &'static str, &'static str) {
        match self {
            Self::Types => (Operation::RetrieveEntityTypes, "types", "typeList"),
            Self::Attributes => (Operation::RetrieveAttrTypes, "attributes", "attributeList"),
        }
    }

    /// Did the source register something of this name?
    fn is_registered(self, name: &Iri, registration: &Registration) -> bool {
        registration.information.iter().any(|i| match self {
            Self::Types => i.entities.is_empty() || i.entities.iter().any(|e| e.types.contains(name)),
            Self::Attributes => i.has_attribute(name),
        })
    }
}

/// The names that are here together with those that sources have, in the order of their IRIs, and what is to be said about sources.
pub(crate) async fn with_sources(
    call: &Call,
    params: &QueryParams,
    names: Names,
    here: Vec<Iri>,
) -> Result<(Vec<Iri>, Vec<Warning>), Problem> {
    let mut warnings = Vec::new();
    if params.local || !call.app.node.has_registrations() {
        return Ok((here, warnings));
    }
    let passed = checked_via(call)?;
    let (operation, ..) = names.parts();
    let mut sources = call.app.node.sources(&call.who, &Specification::default())?;
    sources.retain(|r| r.supported.has(operation) && !leads_back(r, &passed));
    let answers = join_all(sources.iter().map(|r| ask_one(call, r, names))).await;
    let mut all: BTreeSet<Iri> = here.into_iter().collect();
    for (registered, answer) in sources.iter().zip(answers) {
        match answer {
            Ok(list) => all.extend(list.into_iter().filter(|n| names.is_registered(n, &registered.registration))),
            Err(failure) => {
                let (code, why) = failure.warning();
                warnings.push(Warning::new(code, registered, why));
            }
        }
    }
    Ok((all.into_iter().collect(), warnings))
}

async fn ask_one(call: &Call, registered: &Registered, names: Names) -> Result<Vec<Iri>, Failure> {
    let (_, path, member) = names.parts();
    let spoken = Spoken::of(call, registered).await?;
    let outgoing = Outgoing { method: Method::GET, path: path.to_owned(), query: Vec::new(), body: None };
    let reply = send(call, registered, &spoken, &outgoing).await?;
    if reply.status == StatusCode::NOT_FOUND {
        return Ok(Vec::new());
    }
    let list = reply.json[member].as_array().filter(|l| l.len() <= NAMES_MAX);
    let list = list.ok_or_else(|| Failure::Unusable(format!("its answer has no `{member}` of at most {NAMES_MAX} names")))?;
    Ok(list.iter().filter_map(|n| reply.context.expand(n.as_str()?).ok()).collect())
}
