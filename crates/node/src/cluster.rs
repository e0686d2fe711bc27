//! Questions to and from other cities.

use std::sync::PoisonError;
use std::time::Duration;

use entity::{Filter, Iri, TypeSelector};
use federation::signature::{MessageParts, NonceCache, Receiver, SignatureError, Verified, verify_request};
use federation::{
    Answer, CityResult, Contribution, Evolution as AskedEvolution, Kind as Asked, Member, MergedEntities, MergedPast, Outcome, Past, Peer,
    Question, merge_entities, merge_pasts,
};
use futures::future::join_all;
use host::Stopwatch;
use policy::{Action, Agreement, CityName, Decision, Permit, Principal, Purpose, Request, Shared};
use store::history::{TemporalQuery, TimeProperty};
use store::state::{PageRequest, Space};

use crate::error::NodeError;
use crate::metrics::Sort;
use crate::node::Node;
use crate::operations::of_types;

/// How long another city may take; then the answer goes without it and says so.
pub const PEER_ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Entities looked at to answer another city's question: what an agreement hides is found and left out.
const CANDIDATES_PER_ROUND: usize = 1_000;

/// How questions reach other cities; the edge implements it. Bounded by [`PEER_ANSWER_WAIT`] here, whatever the implementation does.
pub trait PeerTransport: Send + Sync {
    /// Sends the question to a member and returns its answer, whose signature has been checked.
    fn ask<'a>(&'a self, node: &'a Node, member: &'a Member, question: &'a Question) -> AskFuture<'a>;
}

/// An answer on its way.
pub type AskFuture<'a> = std::pin::Pin<Box<dyn Future<Output = Result<Answer, TransportError>> + Send + 'a>>;

/// Why a question got no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Nobody answered.
    #[error("{reason}")]
    Unreachable {
        /// Why.
        reason: String,
    },
    /// Somebody answered, but not in a way that can be used: wrong key, wrong version, refused.
    #[error("{reason}")]
    Unusable {
        /// Why.
        reason: String,
    },
}

/// What is asked of the whole cluster.
#[derive(Clone, Debug)]
pub struct ClusterQuery {
    /// The condition.
    pub filter: Filter,
    /// The types in it.
    pub types: Option<TypeSelector>,
    /// At most so many entities of each city.
    pub limit: u32,
    /// What for; none: for each city what is agreed with it.
    pub purpose: Option<Purpose>,
}

/// Said when neither the asker nor an agreement names a purpose.
const NO_PURPOSE: &str = "unspecified";

impl Node {
    /// The other cities and whether they answer.
    #[must_use]
    pub fn peers(&self) -> Vec<Peer> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// The purpose of questions whose asker names none: that of the agreements under which this city receives, if they agree on one.
    #[must_use]
    pub fn usual_purpose(&self, provider: &CityName) -> Option<Purpose> {
        let received: Vec<Agreement> =
            self.agreements().into_iter().filter(|a| a.consumer == self.city && a.provider == *provider).collect();
        received.first().map(|a| a.purpose.clone()).filter(|p| received.iter().all(|a| a.purpose == *p))
    }

    /// Entities of all cities that let us see them, within [`PEER_ANSWER_WAIT`], with where each came from and which city did not answer.
    pub async fn cluster_query(
        &self,
        who: &Principal,
        query: &ClusterQuery,
        transport: &dyn PeerTransport,
    ) -> Result<MergedEntities, NodeError> {
        let permit = self.permit(who, Action::Read, None)?;
        let question = self.question(query.filter.clone(), query.types.clone(), query.limit, Asked::Entities);
        let local = self.local_contribution(&permit, &question)?;
        let mut contributions = self.ask_all(&question, query.purpose.as_ref(), transport).await;
        contributions.push(local);
        Ok(merge_entities(contributions, self.now()))
    }

    /// One entity's past, from every city that knows it and lets us see it.
    pub async fn cluster_evolution(
        &self,
        who: &Principal,
        query: &TemporalQuery,
        purpose: Option<Purpose>,
        transport: &dyn PeerTransport,
    ) -> Result<MergedPast, NodeError> {
        let permit = self.permit(who, Action::Read, None)?;
        let clamp = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let asked = AskedEvolution {
            entity: query.entity.clone(),
            interval: query.interval.clone(),
            time_property: match query.time_property {
                TimeProperty::ObservedAt => federation::TimeProperty::ObservedAt,
                TimeProperty::ModifiedAt => federation::TimeProperty::ModifiedAt,
                TimeProperty::CreatedAt => federation::TimeProperty::CreatedAt,
            },
            last_n: query.last_n.map(clamp),
            as_of: query.as_of,
            instances_max: clamp(query.instances_max).min(federation::INSTANCES_MAX),
        };
        let mut question = self.question(Filter::all(), None, 1, Asked::Evolution(asked.clone()));
        question.attributes.clone_from(&query.attributes);
        let local = self.local_contribution(&permit, &question)?;
        let mut contributions = self.ask_all(&question, purpose.as_ref(), transport).await;
        contributions.push(local);
        Ok(merge_pasts(contributions, &asked))
    }

    fn question(&self, filter: Filter, types: Option<TypeSelector>, limit: u32, kind: Asked) -> Question {
        let id = host::random_hex::<16>();
        let purpose = NO_PURPOSE.parse().expect("a plain word is a purpose");
        Question {
            id,
            from: self.city.clone(),
            purpose,
            filter,
            types,
            attributes: None,
            limit: limit.clamp(1, federation::ENTITIES_MAX),
            kind,
        }
    }

    fn local_contribution(&self, permit: &Permit, question: &Question) -> Result<Contribution, NodeError> {
        let stopwatch = Stopwatch::start();
        let outcome = self.outcome(permit, question)?;
        let latency_us = u64::try_from(stopwatch.elapsed().as_micros()).ok();
        Ok(Contribution {
            city: self.city.clone(),
            local: true,
            received_at: self.now(),
            latency_us,
            result: CityResult::Answered(outcome),
        })
    }

    async fn ask_all(&self, question: &Question, purpose: Option<&Purpose>, transport: &dyn PeerTransport) -> Vec<Contribution> {
        let cities: Vec<CityName> = self.peers().into_iter().map(|p| p.member.name).collect();
        let asked = cities.into_iter().map(|city| {
            let mut question = question.clone();
            if let Some(purpose) = purpose.cloned().or_else(|| self.usual_purpose(&city)) {
                question.purpose = purpose;
            }
            async move { self.ask_one(city, &question, transport).await }
        });
        join_all(asked).await
    }

    async fn ask_one(&self, city: CityName, question: &Question, transport: &dyn PeerTransport) -> Contribution {
        let asked = self.peers.write().unwrap_or_else(PoisonError::into_inner).ask(&city, self.now());
        let contribution =
            |latency_us, result| Contribution { city: city.clone(), local: false, received_at: self.now(), latency_us, result };
        let member = match asked {
            Some(Ok(member)) => member,
            Some(Err(not_asked)) => return contribution(None, CityResult::Unreachable { reason: not_asked.to_string() }),
            None => return contribution(None, CityResult::Unreachable { reason: format!("`{city}` is no member any more") }),
        };
        let stopwatch = Stopwatch::start();
        let answer = tokio::time::timeout(PEER_ANSWER_WAIT, transport.ask(self, &member, question)).await.unwrap_or_else(|_| {
            Err(TransportError::Unreachable { reason: format!("no answer within {} s", PEER_ANSWER_WAIT.as_secs_f64()) })
        });
        let latency_us = u64::try_from(stopwatch.elapsed().as_micros()).unwrap_or(u64::MAX);
        let answer = answer.and_then(|a| match a.fits(question, &city) {
            Ok(()) => Ok(a),
            Err(e) => Err(TransportError::Unusable { reason: e.to_string() }),
        });
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        let (sort, result) = match answer {
            Ok(answer) => {
                peers.on_answer(&city, self.now(), latency_us);
                ("asked_answered", CityResult::Answered(answer.outcome))
            }
            Err(TransportError::Unreachable { reason }) => {
                peers.on_failure(&city, self.now(), &reason);
                ("asked_unreachable", CityResult::Unreachable { reason })
            }
            Err(TransportError::Unusable { reason }) => {
                peers.on_failure(&city, self.now(), &reason);
                ("asked_unusable", CityResult::Unusable { reason })
            }
        };
        self.metrics().peer_questions.get_or_create(&Sort::of(sort)).inc();
        contribution(Some(latency_us), result)
    }

    /// Checks that a request is signed by a member, for us, now, and for the first time.
    pub fn verify_peer(&self, request: &MessageParts<'_>) -> Result<Verified, SignatureError> {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        let members = |key: &policy::PublicKey| peers.city_of(key).cloned();
        let receiver = Receiver { city: &self.city, members: &members, now: self.now() };
        let mut nonces: std::sync::MutexGuard<'_, NonceCache> = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
        verify_request(request, &receiver, &mut nonces)
    }

    /// Answers another city's question, by the agreements in force with it, at once.
    #[must_use]
    pub fn answer_peer(&self, from: &Verified, question: &Question) -> Answer {
        let outcome = self.peer_outcome(from, question);
        let sort = match &outcome {
            Outcome::Denied { .. } => "answered_denied",
            Outcome::Failed { .. } => "answered_failed",
            Outcome::Entities { .. } | Outcome::Evolution { .. } => "answered",
        };
        self.metrics().peer_questions.get_or_create(&Sort::of(sort)).inc();
        tracing::info!(city = %from.city, question = question.id, purpose = %question.purpose, outcome = sort, "question from another city");
        Answer { question: question.id.clone(), city: self.city.clone(), answered_at: self.now(), outcome }
    }

    fn peer_outcome(&self, from: &Verified, question: &Question) -> Outcome {
        if let Err(e) = question.is_from(&from.city) {
            return Answer::failed(question, self.city.clone(), self.now(), &e.to_string()).outcome;
        }
        let principal = Principal::Peer { city: from.city.clone(), key: from.key };
        let request = Request { principal, action: Action::Read, purpose: Some(question.purpose.clone()), now: self.now() };
        let decision = self.policy.read().unwrap_or_else(PoisonError::into_inner).decide(&request);
        match decision {
            Decision::Deny(denial) => Answer::denied(question, self.city.clone(), self.now(), &denial).outcome,
            Decision::Permit(permit) => self
                .outcome(&permit, question)
                .unwrap_or_else(|e| Answer::failed(question, self.city.clone(), self.now(), &e.to_string()).outcome),
        }
    }

    /// What a permit lets of the answer to a question.
    fn outcome(&self, permit: &Permit, question: &Question) -> Result<Outcome, NodeError> {
        match &question.kind {
            Asked::Entities => self.entities_outcome(permit, question),
            Asked::Evolution(asked) => self.evolution_outcome(permit, question, asked),
        }
    }

    fn entities_outcome(&self, permit: &Permit, question: &Question) -> Result<Outcome, NodeError> {
        let wanted = of_types(question.types.clone(), question.filter.clone());
        // What nobody but the true entity could satisfy is not tested on it: only the permit's own condition finds candidates, and of the
        // question what can be judged by type and id alone. The rest is judged by what may be seen.
        let candidates = match permit {
            Permit::Everything => wanted.clone(),
            Permit::Granted(_) => permit.residual().and(of_types(question.types.clone(), Filter::all())),
        };
        let table = self.store.table(Space::City);
        let limit = question.limit as usize;
        let mut entities: Vec<Shared> = Vec::new();
        let mut after: Option<Iri> = None;
        let mut truncated = false;
        'rounds: loop {
            let page = table.try_page(&PageRequest {
                after: after.as_ref().map(Iri::as_str),
                now: Some(self.now()),
                ..PageRequest::of(&candidates, CANDIDATES_PER_ROUND)
            })?;
            for entity in &page.entities {
                if let Some(mut shared) = permit.answer(&wanted, entity) {
                    if entities.len() == limit {
                        truncated = true;
                        break 'rounds;
                    }
                    if let Some(names) = &question.attributes {
                        shared.entity.attributes.retain(|n, _| names.contains(n));
                    }
                    entities.push(shared);
                }
            }
            after = page.entities.last().map(|e| e.id.clone());
            if !page.more || after.is_none() {
                break;
            }
        }
        Ok(Outcome::Entities { agreements: permit.agreements(), entities, truncated })
    }

    fn evolution_outcome(&self, permit: &Permit, question: &Question, asked: &AskedEvolution) -> Result<Outcome, NodeError> {
        let agreements = permit.agreements();
        let Some(present) = self.store.table(Space::City).try_get(asked.entity.as_str())? else {
            return Ok(Outcome::Evolution { agreements, past: None });
        };
        let query = TemporalQuery {
            entity: asked.entity.clone(),
            attributes: question.attributes.clone(),
            interval: asked.interval.clone(),
            time_property: match asked.time_property {
                federation::TimeProperty::ObservedAt => TimeProperty::ObservedAt,
                federation::TimeProperty::ModifiedAt => TimeProperty::ModifiedAt,
                federation::TimeProperty::CreatedAt => TimeProperty::CreatedAt,
            },
            last_n: asked.last_n.map(|n| n as usize),
            as_of: asked.as_of,
            instances_max: asked.instances_max as usize,
        };
        let Some(evolution) = self.store.history().evolution(&query)? else {
            return Ok(Outcome::Evolution { agreements, past: None });
        };
        let wanted = of_types(question.types.clone(), question.filter.clone());
        let seen = permit.past(&wanted, &present, &evolution.attributes);
        let past = seen.map(|seen| {
            let types = permit.apply(&present).map_or_else(Vec::new, |s| s.entity.types);
            Past { id: evolution.id, types, attributes: seen.attributes, cut_at: evolution.cut_at }
        });
        Ok(Outcome::Evolution { agreements, past })
    }

    /// Asks the members that have not been heard of for a while whether they are there, by a question that nothing satisfies.
    pub async fn probe_peers(&self, transport: &dyn PeerTransport, quiet_for: Duration) {
        let quiet_us = i64::try_from(quiet_for.as_micros()).unwrap_or(i64::MAX);
        let now = self.now();
        let quiet = |p: &Peer| p.state.last_seen.is_none_or(|seen| now.micros_since(seen) >= quiet_us);
        let cities: Vec<CityName> = self.peers().into_iter().filter(quiet).map(|p| p.member.name).collect();
        let question = self.question(Filter::none(), None, 1, Asked::Entities);
        join_all(cities.into_iter().map(|city| self.ask_one(city, &question, transport))).await;
    }
}
