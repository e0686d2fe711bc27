//! Retrieving and querying over sources (clauses 5.7.1.4, 5.7.2.4 and 6.3.17).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::http::{Method, StatusCode};
use entity::registration::{MissingMember, Mode, Operation, Registration};
use entity::{Entity, Filter, Iri};
use futures::future::join_all;
use ngsi::forward::{ask, from_source, merge, one_from_source, part_of, selection, specification};
use ngsi::query::QueryParams;
use node::{NodeError, Page, QUERY_LIMIT_MAX, Query, Registered};

use super::request::{Failure, Outgoing, Spoken, address, extra_headers, send};
use super::{SOURCES_MAX, Warning, checked_via, leads_back};
use crate::ngsi_ld::registrations::source_filter;
use crate::ngsi_ld::{Call, in_path};
use crate::problem::Problem;

/// Entities that a source is asked for at once.
const SOURCE_PAGE: usize = 1_000;

/// Entities that one source may contribute to the answer of a query; reaching it is told in a warning.
const SOURCE_ENTITIES_MAX: usize = 10_000;

/// What became of asking a source.
struct Contribution {
    registered: Arc<Registered>,
    result: Result<Vec<Entity>, Failure>,
    /// From the cache.
    is_stale: bool,
    is_cut: bool,
}

/// The sources of a request, and what is to be said of those that are not asked.
struct Chosen {
    sources: Vec<Arc<Registered>>,
    warnings: Vec<Warning>,
}

/// Are sources concerned at all?
fn is_local(call: &Call, params: &QueryParams) -> bool {
    params.local || !call.app.node.has_registrations()
}

fn choose(call: &Call, params: &QueryParams, operations: &[Operation]) -> Result<Chosen, Problem> {
    let passed = checked_via(call)?;
    let csf = source_filter(call)?;
    let asked = specification(params, MissingMember::Fits);
    let mut chosen = Chosen { sources: Vec::new(), warnings: Vec::new() };
    for registered in call.app.node.sources(&call.who, &asked)? {
        let fits =
            operations.iter().any(|o| registered.supported.has(*o)) && csf.as_ref().is_none_or(|f| f.matches(&registered.registration));
        if !fits {
            continue;
        }
        if leads_back(&registered, &passed) {
            chosen.warnings.push(Warning::new(199, &registered, "a loop: the request came from there"));
        } else if chosen.sources.len() < SOURCES_MAX {
            chosen.sources.push(registered);
        } else {
            chosen.warnings.push(Warning::new(199, &registered, &format!("not asked: more than {SOURCES_MAX} sources")));
        }
    }
    Ok(chosen)
}

/// One entity as this node and its sources know it, and what is to be said about sources.
pub(crate) async fn retrieve(call: &Call, id: &Iri, params: &QueryParams) -> Result<(Arc<Entity>, Vec<Warning>), Problem> {
    if is_local(call, params) {
        return Ok((call.app.node.entity(&call.who, id)?, Vec::new()));
    }
    let mut narrowed = params.clone();
    narrowed.filter = Filter::Id(vec![id.clone()]).and(narrowed.filter);
    let mut chosen = choose(call, &narrowed, &[Operation::RetrieveEntity])?;
    let local = match call.app.node.entity(&call.who, id) {
        Ok(found) => Some(found),
        Err(NodeError::NoEntity { .. }) => None,
        Err(e) => return Err(e.into()),
    };
    if chosen.sources.is_empty() {
        let found = local.ok_or_else(|| NodeError::NoEntity { id: id.clone() })?;
        return Ok((found, chosen.warnings));
    }
    let contributions = join_all(chosen.sources.iter().map(|r| retrieve_from(call, Arc::clone(r), id, &narrowed))).await;
    // Data that only one source may have: its failure is the answer (clause 6.3.17).
    if let ([only], None) = (contributions.as_slice(), &local)
        && only.registered.registration.mode.is_proxied()
        && let Err(failure) = &only.result
    {
        return Err(failure.problem(&only.registered));
    }
    let (versions, auxiliary) = gathered(contributions, &mut chosen.warnings);
    let mut all: Vec<Entity> = local.iter().map(|e| Entity::clone(e)).collect();
    all.extend(versions);
    match merge(all, auxiliary, call.app.node.now()) {
        Some(merged) => Ok((Arc::new(merged), chosen.warnings)),
        None => Err(NodeError::NoEntity { id: id.clone() }.into()),
    }
}

/// What everybody gave, auxiliary sources apart; failures and old answers become warnings.
fn gathered(contributions: Vec<Contribution>, warnings: &mut Vec<Warning>) -> (Vec<Entity>, Vec<Entity>) {
    let (mut versions, mut auxiliary) = (Vec::new(), Vec::new());
    for c in contributions {
        if c.is_stale {
            warnings.push(Warning::new(110, &c.registered, "an earlier answer, within its cacheDuration"));
        }
        if c.is_cut {
            warnings.push(Warning::new(199, &c.registered, &format!("only its first {SOURCE_ENTITIES_MAX} entities are in the answer")));
        }
        match c.result {
            Ok(list) if c.registered.registration.mode == Mode::Auxiliary => auxiliary.extend(list),
            Ok(list) => versions.extend(list),
            Err(failure) => {
                let (code, why) = failure.warning();
                warnings.push(Warning::new(code, &c.registered, why));
            }
        }
    }
    (versions, auxiliary)
}

async fn retrieve_from(call: &Call, registered: Arc<Registered>, id: &Iri, params: &QueryParams) -> Contribution {
    let ask_it = async {
        let spoken = Spoken::of(call, &registered).await?;
        let asked = ask(params, &registered.registration, &spoken.context);
        // The id is in the path; a type that was not asked for would hide an entity that has another one, too.
        let has_types = params.types.is_some();
        let mut query: Vec<_> = asked.pairs.into_iter().filter(|(n, _)| *n != "id" && (*n != "type" || has_types)).collect();
        query.push(("options", "sysAttrs".to_owned()));
        let outgoing = Outgoing { method: Method::GET, path: format!("entities/{}", in_path(id.as_str())), query, body: None };
        cached(call, &registered, &outgoing, async {
            let reply = send(call, &registered, &spoken, &outgoing).await?;
            if reply.status == StatusCode::NOT_FOUND {
                return Ok(Vec::new());
            }
            let entity = one_from_source(reply.json, &reply.context).map_err(|e| unusable(&registered, call, &e))?;
            if entity.id != *id {
                return Err(Failure::Unusable(format!("it gave entity `{}` instead", entity.id)));
            }
            Ok(part_of(&entity, &registered.registration).into_iter().collect())
        })
        .await
    };
    let (result, is_stale) = match ask_it.await {
        Ok((list, is_stale)) => (Ok(list), is_stale),
        Err(failure) => (Err(failure), false),
    };
    Contribution { registered, result, is_stale, is_cut: false }
}

/// An answer that cannot be used counts as a failure of the source.
fn unusable(registered: &Registered, call: &Call, e: &ngsi::Error) -> Failure {
    registered.note(node::Asked::Failed, call.app.node.now());
    Failure::Unusable(format!("its answer is not NGSI-LD: {e}"))
}

/// The answer to a question, from the cache if the registration says that it counts for a while: true then.
async fn cached(
    call: &Call,
    registered: &Registered,
    outgoing: &Outgoing,
    ask_it: impl Future<Output = Result<Vec<Entity>, Failure>>,
) -> Result<(Vec<Entity>, bool), Failure> {
    let Some(age_us) = registered.registration.management.cache_us.filter(|us| *us > 0) else {
        return Ok((ask_it.await?, false));
    };
    let Registration { id, modified_at, .. } = &registered.registration;
    // What is told of the request at hand, such as who asks, may decide what the source answers.
    let key = format!("{id} {modified_at} {} {:?}", address(registered, outgoing), extra_headers(call, registered));
    let now = call.app.node.now();
    if let Some(known) = call.app.sources.cache.get(&key, now, age_us) {
        return Ok((known.to_vec(), true));
    }
    let fresh = ask_it.await?;
    call.app.sources.cache.put(key, now, &fresh);
    Ok((fresh, false))
}

/// A page of a query over this node and its sources, ordered by id, and what is to be said about sources.
pub(crate) async fn page(call: &Call, params: &QueryParams, query: &Query) -> Result<(Page, Vec<Warning>), Problem> {
    page_from(call, params, query, None).await
}

/// The same over this node and these sources only (none: all that fit).
pub(crate) async fn page_from(
    call: &Call,
    params: &QueryParams,
    query: &Query,
    sources: Option<&[Iri]>,
) -> Result<(Page, Vec<Warning>), Problem> {
    let is_split = is_split(call)?;
    if is_local(call, params) || query.text.is_some() {
        return Ok((call.app.node.query(&call.who, query)?, Vec::new()));
    }
    let is_batch = call.path.contains("/entityOperations/");
    let operations: &[Operation] = if is_batch { &[Operation::QueryBatch, Operation::QueryEntity] } else { &[Operation::QueryEntity] };
    let narrowed = is_split.then(|| {
        let mut narrowed = params.clone();
        narrowed.filter = selection(&params.filter);
        narrowed.view.attrs = None;
        narrowed.view.pick = None;
        narrowed
    });
    let params = narrowed.as_ref().unwrap_or(params);
    let mut chosen = choose(call, params, operations)?;
    if let Some(sources) = sources {
        chosen.sources.retain(|r| sources.contains(&r.registration.id));
    }
    if chosen.sources.is_empty() {
        return Ok((call.app.node.query(&call.who, query)?, chosen.warnings));
    }
    let contributions = join_all(chosen.sources.iter().map(|r| query_source(call, Arc::clone(r), params))).await;
    let (versions, auxiliary) = gathered(contributions, &mut chosen.warnings);
    let mut found: BTreeMap<Iri, Found> = BTreeMap::new();
    for e in versions {
        found.entry(e.id.clone()).or_default().versions.push(e);
    }
    for e in auxiliary {
        found.entry(e.id.clone()).or_default().auxiliary.push(e);
    }
    let excluded = if is_split { exclude(call, query, &mut found)? } else { BTreeSet::new() };
    Ok((put_together(call, query, found, &excluded)?, chosen.warnings))
}

/// `splitEntities`: parts of an entity lie in several places, and conditions hold of the whole.
fn is_split(call: &Call) -> Result<bool, Problem> {
    match call.pairs.iter().find(|(n, _)| n == "splitEntities").map(|(_, v)| v.as_str()) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Problem::invalid_request("parameter splitEntities: expected `true` or `false`")),
    }
}

/// Takes out the entities that as a whole do not satisfy the conditions; returns those of them whose part here does by itself.
fn exclude(call: &Call, query: &Query, found: &mut BTreeMap<Iri, Found>) -> Result<BTreeSet<Iri>, Problem> {
    let (now, mut failing, mut excluded) = (call.app.node.now(), Vec::new(), BTreeSet::new());
    for (id, parts) in found.iter() {
        let local = here(call, id)?;
        let mut all: Vec<Entity> = local.iter().map(|e| Entity::clone(e)).collect();
        all.extend(parts.versions.iter().cloned());
        let fits = merge(all, parts.auxiliary.clone(), now).is_some_and(|e| query.filter.matches(&e));
        if !fits {
            failing.push(id.clone());
            if local.is_some_and(|e| query.filter.matches(&e)) {
                excluded.insert(id.clone());
            }
        }
    }
    for id in &failing {
        found.remove(id);
    }
    Ok(excluded)
}

/// The part of an entity that this node has.
fn here(call: &Call, id: &Iri) -> Result<Option<Arc<Entity>>, Problem> {
    match call.app.node.entity(&call.who, id) {
        Ok(e) => Ok(Some(e)),
        Err(NodeError::NoEntity { .. }) => Ok(None),
        Err(e) => Err(Problem::from(e)),
    }
}

/// Where entities are, ordered by id: in sources, by the ids of their registrations, and here (none).
pub(crate) type Locations = BTreeMap<Iri, Vec<Option<Iri>>>;

/// The most entities of one [`Locations`].
const LOCATED_ENTITIES_MAX: usize = 100_000;

/// Where the entities are that a query is about, and what is to be said about sources.
pub(crate) async fn locations(call: &Call, params: &QueryParams, query: &Query) -> Result<(Locations, Vec<Warning>), Problem> {
    let too_many = || {
        let what = format!("the query finds more than {LOCATED_ENTITIES_MAX} entities, which is the limit of an entity map");
        Problem::from(NodeError::Limit { what })
    };
    let mut found = Locations::new();
    let mut local = Query { offset: 0, limit: QUERY_LIMIT_MAX, count: false, ..query.clone() };
    loop {
        let page = call.app.node.query(&call.who, &local)?;
        local.offset += page.entities.len();
        found.extend(page.entities.iter().map(|e| (e.id.clone(), vec![None])));
        if found.len() > LOCATED_ENTITIES_MAX {
            return Err(too_many());
        }
        if !page.more {
            break;
        }
    }
    if is_local(call, params) {
        return Ok((found, Vec::new()));
    }
    let mut chosen = choose(call, params, &[Operation::QueryEntity])?;
    let contributions = join_all(chosen.sources.iter().map(|r| query_source(call, Arc::clone(r), params))).await;
    for c in &contributions {
        for e in c.result.iter().flatten() {
            found.entry(e.id.clone()).or_default().push(Some(c.registered.registration.id.clone()));
        }
    }
    if found.len() > LOCATED_ENTITIES_MAX {
        return Err(too_many());
    }
    gathered(contributions, &mut chosen.warnings);
    Ok((found, chosen.warnings))
}

/// What sources gave of one entity.
#[derive(Default)]
struct Found {
    versions: Vec<Entity>,
    auxiliary: Vec<Entity>,
}

async fn query_source(call: &Call, registered: Arc<Registered>, params: &QueryParams) -> Contribution {
    let mut is_cut = false;
    let ask_it = async {
        let mut spoken = Spoken::of(call, &registered).await?;
        let mut asked = ask(params, &registered.registration, &spoken.context);
        if asked.residual != Filter::all() && registered.registration.info("jsonldContext").is_none() {
            // The names of the request may say what those of the core context cannot.
            let of_request = Spoken::of_request(call);
            let other = ask(params, &registered.registration, &of_request.context);
            if other.residual == Filter::all() {
                (spoken, asked) = (of_request, other);
            }
        }
        let mut query = asked.pairs;
        query.push(("options", "sysAttrs".to_owned()));
        query.push(("limit", SOURCE_PAGE.to_string()));
        let mut outgoing = Outgoing { method: Method::GET, path: "entities".to_owned(), query, body: None };
        let key = Outgoing { method: Method::GET, path: "entities".to_owned(), query: outgoing.query.clone(), body: None };
        cached(call, &registered, &key, async {
            let mut all = Vec::new();
            loop {
                let reply = send(call, &registered, &spoken, &outgoing).await?;
                if reply.status == StatusCode::NOT_FOUND {
                    break;
                }
                let list = from_source(reply.json, &reply.context).map_err(|e| unusable(&registered, call, &e))?;
                let n_given = list.len();
                let fits = |e: &Entity| asked.residual.matches(e);
                all.extend(list.into_iter().filter(fits).filter_map(|e| part_of(&e, &registered.registration)));
                if n_given < SOURCE_PAGE {
                    break;
                }
                if all.len() >= SOURCE_ENTITIES_MAX {
                    is_cut = true;
                    break;
                }
                let offset = outgoing.query.iter_mut().find(|(n, _)| *n == "offset");
                match offset {
                    Some((_, at)) => *at = (at.parse::<usize>().unwrap_or_default() + SOURCE_PAGE).to_string(),
                    None => outgoing.query.push(("offset", SOURCE_PAGE.to_string())),
                }
            }
            Ok(all)
        })
        .await
    };
    let (result, is_stale) = match ask_it.await {
        Ok((list, is_stale)) => (Ok(list), is_stale),
        Err(failure) => (Err(failure), false),
    };
    Contribution { registered, result, is_stale, is_cut }
}

/// The page that was asked for out of what is here and what came.
///
/// Both are ordered by id. Of what is here only as much is read as the page can reach into: an entity here stands at most as many places further
/// behind in the whole as there are entities that only sources have.
fn put_together(call: &Call, query: &Query, mut found: BTreeMap<Iri, Found>, excluded: &BTreeSet<Iri>) -> Result<Page, Problem> {
    let node = &call.app.node;
    let local_of = |id: &Iri| here(call, id);
    let mut only_there = Vec::new();
    for id in found.keys() {
        if !local_of(id)?.is_some_and(|e| query.filter.matches(&e)) {
            only_there.push(id.clone());
        }
    }
    let n_only_there = only_there.len();
    let first = query.offset.saturating_sub(n_only_there);
    let wanted = query.offset - first + query.limit + 1 + excluded.len();
    let mut near: Vec<Arc<Entity>> = Vec::new();
    let (mut total, mut more_here) = (0, true);
    while more_here && near.len() < wanted {
        let limit = (wanted - near.len()).min(QUERY_LIMIT_MAX);
        let part =
            node.query(&call.who, &Query { offset: first + near.len(), limit, order_by: None, count: query.count, ..query.clone() })?;
        more_here = part.more && !part.entities.is_empty();
        total = part.total.unwrap_or_default();
        near.extend(part.entities);
    }
    // Places before the first one of `near` are taken by what comes earlier in the whole, without what is excluded.
    let (mut at, mut there) = (first, only_there.into_iter().peekable());
    if let Some(start) = near.first().filter(|_| first > 0) {
        at -= excluded.range(..start.id.clone()).count();
        while there.next_if(|id| *id < start.id).is_some() {
            at += 1;
        }
    }
    let mut ids: Vec<(Iri, Option<Arc<Entity>>)> = Vec::new();
    let mut own = near.into_iter().filter(|e| !excluded.contains(&e.id)).peekable();
    let mut more = false;
    loop {
        let next = match (own.peek(), there.peek()) {
            (Some(e), Some(id)) if e.id < *id => own.next().map(|e| (e.id.clone(), Some(e))),
            (_, Some(_)) => there.next().map(|id| (id, None)),
            (_, None) => own.next().map(|e| (e.id.clone(), Some(e))),
        };
        let Some(next) = next else { break };
        if at >= query.offset + query.limit {
            more = true;
            break;
        }
        if at >= query.offset {
            ids.push(next);
        }
        at += 1;
    }
    let mut entities = Vec::with_capacity(ids.len());
    let now = node.now();
    for (id, own) in ids {
        let Some(Found { versions, auxiliary }) = found.remove(&id) else {
            entities.extend(own);
            continue;
        };
        // What does not match by itself is part of the entity all the same.
        let own = match own {
            Some(e) => Some(e),
            None => local_of(&id)?,
        };
        let mut all: Vec<Entity> = own.iter().map(|e| Entity::clone(e)).collect();
        all.extend(versions);
        entities.extend(merge(all, auxiliary, now).map(Arc::new));
    }
    Ok(Page { entities, more, total: query.count.then_some(total + n_only_there - excluded.len()) })
}
