//! The operations on this city's own data.

use std::sync::Arc;

use entity::{Attribute, AttributeValue, Command, CommandError, Entity, Filter, Instant, Iri, Outcome, TypeSelector, Version};
use host::Stopwatch;
use policy::{Action, Agreement, Decision, Permit, Principal, Purpose, Request, term};
use store::history::{AttributeColumn, Deletion, Evolution, History, HistoryPolicy, TemporalQuery};
use store::state::{ColumnScan, Explanation, Latest, OrderBy, Page, PageRequest, Space};
use store::{Committed, Submission};
use tokio::sync::{broadcast, oneshot};

use crate::error::NodeError;
use crate::expiry;
use crate::metrics::Sort;
use crate::node::Node;
use crate::reactions::{Deliverer, Watched};
use crate::subscription::{DeliveryStatus, Subscription};

/// The most entities in one answer; pages beyond that are asked for by offset.
pub const QUERY_LIMIT_MAX: usize = 1_000;

/// Commands in one request.
const COMMANDS_MAX: usize = 10_000;

/// Entities that have expired and are looked at one by one when types are counted.
const EXPIRED_MAX: usize = 10_000;

/// Subscriptions of a node.
const SUBSCRIPTIONS_MAX: usize = 10_000;

/// A question about the present.
#[derive(Clone, PartialEq, Debug)]
pub struct Query {
    /// The condition.
    pub filter: Filter,
    /// Entities to skip, in the order of ids.
    pub offset: usize,
    /// Entities to return, at most [`QUERY_LIMIT_MAX`].
    pub limit: usize,
    /// Count all matches.
    pub count: bool,
    /// Another order than that of ids.
    pub order_by: Option<OrderBy>,
    /// Only entities with all words of this text in their names.
    pub text: Option<String>,
}

impl Query {
    /// The first entities that satisfy a condition.
    #[must_use]
    pub const fn of(filter: Filter, limit: usize) -> Self {
        Self { filter, offset: 0, limit, count: false, order_by: None, text: None }
    }

    /// What is visible at `now`.
    fn request(&self, now: Instant) -> PageRequest<'_> {
        PageRequest {
            filter: &self.filter,
            offset: self.offset,
            limit: self.limit,
            count: self.count,
            after: None,
            order_by: self.order_by.clone(),
            text: self.text.as_deref(),
            now: Some(now),
        }
    }
}

pub(crate) const SUBSCRIPTION_TYPE: &str = "https://uri.etsi.org/ngsi-ld/Subscription";
pub(crate) const DOCUMENT: &str = "https://conurb.org/ns#document";

impl Node {
    /// What `who` may see for `purpose`.
    pub fn permit(&self, who: &Principal, action: Action, purpose: Option<Purpose>) -> Result<Permit, NodeError> {
        let request = Request { principal: who.clone(), action, purpose, now: self.now() };
        match self.policy.read().unwrap_or_else(std::sync::PoisonError::into_inner).decide(&request) {
            Decision::Permit(permit) => Ok(permit),
            Decision::Deny(denial) => {
                tracing::info!(principal = %who, ?action, code = denial.code(), "denied");
                Err(NodeError::Denied { reason: denial.to_string() })
            }
        }
    }

    /// Changes entities. The commands are durable together when this returns; each has its own outcome.
    ///
    /// Errors: the policy's, a limit, an agreement that would not be valid, or that nothing could be made durable.
    pub async fn write(&self, who: &Principal, commands: Vec<Command>) -> Result<Vec<Result<Outcome, CommandError>>, NodeError> {
        self.permit(who, Action::Write, None)?;
        if commands.len() > COMMANDS_MAX {
            return Err(NodeError::Limit {
                what: format!("{} changes in one request are more than the limit of {COMMANDS_MAX}", commands.len()),
            });
        }
        let concerns_agreements = self.check_agreements(&commands)?;
        self.make_room_for(&commands).await?;
        let outcomes = self.submit(Space::City, commands)?.await?;
        if concerns_agreements {
            self.compile_policy();
        }
        Ok(outcomes)
    }

    /// Changes one entity if it is at a version (none for whatever it is at); durable when this returns.
    ///
    /// Errors: those of [`Node::write`]; [`CommandError::Changed`] inside the outcome if it is at another version.
    pub async fn write_if(
        &self,
        who: &Principal,
        command: Command,
        version: Option<Version>,
    ) -> Result<Result<Outcome, CommandError>, NodeError> {
        self.permit(who, Action::Write, None)?;
        let concerns_agreements = self.check_agreements(std::slice::from_ref(&command))?;
        let outcomes = self.submit_if(Space::City, vec![command], vec![version])?.await?;
        if concerns_agreements {
            self.compile_policy();
        }
        Ok(outcomes.into_iter().next().expect("one command has one outcome"))
    }

    /// May a device report this? An agreement is not something that a device observes, under whatever type it is named.
    pub fn check_observation(&self, observation: &Entity) -> Result<(), NodeError> {
        let table = self.store.table(Space::City);
        let is_one = || table.has_entities_of(term::AGREEMENT) && table.has_type(observation.id.as_str(), term::AGREEMENT);
        if Agreement::is_one(observation) || is_one() {
            return Err(NodeError::Denied { reason: "an agreement is not something that a device observes".to_owned() });
        }
        Ok(())
    }

    /// Takes in what devices report, recorded at one time. It is in line for the log when this returns, in the order of the calls, and
    /// durable when the future is.
    ///
    /// Errors: the policy's, those of [`Self::check_observation`], or that too many writes are waiting; then none of it was taken.
    pub fn observe(
        &self,
        who: &Principal,
        observations: Vec<Entity>,
    ) -> Result<impl Future<Output = Result<Vec<Result<Outcome, CommandError>>, NodeError>> + Send + use<>, NodeError> {
        self.permit(who, Action::Write, None)?;
        observations.iter().try_for_each(|o| self.check_observation(o))?;
        self.submit(Space::City, observations.into_iter().map(Command::Observe).collect())
    }

    /// Puts commands in line for the log at once; the future says what came of them.
    pub(crate) fn submit(
        &self,
        space: Space,
        commands: Vec<Command>,
    ) -> Result<impl Future<Output = Result<Vec<Result<Outcome, CommandError>>, NodeError>> + Send + use<>, NodeError> {
        self.submit_if(space, commands, Vec::new())
    }

    /// The same for commands that are for one version of their entity only.
    pub(crate) fn submit_if(
        &self,
        space: Space,
        commands: Vec<Command>,
        versions: Vec<Option<Version>>,
    ) -> Result<impl Future<Output = Result<Vec<Result<Outcome, CommandError>>, NodeError>> + Send + use<>, NodeError> {
        let stopwatch = Stopwatch::start();
        let metrics = Arc::clone(self.metrics());
        let (sender, receiver) = oneshot::channel();
        let submitted = self.store.submit_if(Submission { space, commands }, versions, move |answer| {
            // The asker may have gone; the change is made all the same.
            let _ = sender.send(answer);
        });
        if let Err(e) = submitted {
            let sort = if e.is_busy() { "busy" } else { "closed" };
            metrics.writes_refused.get_or_create(&Sort::of(sort)).inc();
            return Err(NodeError::Submit(e));
        }
        Ok(async move {
            let answer = receiver.await.unwrap_or(Err(store::SubmitError::Closed));
            metrics.commit_seconds.observe(stopwatch.elapsed().as_secs_f64());
            answer.map_err(|e| {
                metrics.writes_refused.get_or_create(&Sort::of("log")).inc();
                NodeError::Submit(e)
            })
        })
    }

    /// An agreement must be valid as a whole before it becomes policy: true if the commands touch any.
    fn check_agreements(&self, commands: &[Command]) -> Result<bool, NodeError> {
        let mut any = false;
        let table = self.store.table(Space::City);
        let has_agreements = table.has_entities_of(term::AGREEMENT);
        for command in commands {
            let mut brings_agreement = false;
            let brought = match command {
                Command::Create(e) | Command::UpsertReplace(e) | Command::UpsertUpdate(e) | Command::Replace(e) | Command::Observe(e) => {
                    Some(e)
                }
                Command::Append { fragment, .. } => Some(fragment),
                // A patch cannot make an agreement of something else but by its types.
                Command::Patch { patch, .. } if patch.types.iter().any(|t| t.as_str() == term::AGREEMENT) => {
                    brings_agreement = true;
                    None
                }
                Command::Patch { .. } | Command::RemoveAttributes { .. } | Command::Delete(_) | Command::DeleteAttribute { .. } => None,
            };
            let is_one = has_agreements && table.has_type(command.id().as_str(), term::AGREEMENT);
            if !is_one && !brings_agreement && !brought.is_some_and(Agreement::is_one) {
                continue;
            }
            any |= is_one;
            let resulting = match command {
                Command::Create(e) | Command::UpsertReplace(e) | Command::Replace(e) => Some(e.clone()),
                _ => after(command, table.try_get(command.id().as_str())?.as_deref()),
            };
            if let Some(e) = resulting.filter(Agreement::is_one) {
                any = true;
                let agreement = Agreement::from_entity(&e).map_err(|e| NodeError::Invalid { what: e.to_string() })?;
                if agreement.provider != self.city && agreement.consumer != self.city {
                    let what = format!(
                        "agreement `{}` is between `{}` and `{}`; this node is `{}`'s",
                        agreement.id, agreement.provider, agreement.consumer, self.city
                    );
                    return Err(NodeError::Invalid { what });
                }
            }
        }
        Ok(any)
    }

    /// One entity.
    pub fn entity(&self, who: &Principal, id: &Iri) -> Result<Arc<Entity>, NodeError> {
        let permit = self.permit(who, Action::Read, None)?;
        let missing = || NodeError::NoEntity { id: id.clone() };
        let found = self.store.table(Space::City).try_get(id.as_str())?.ok_or_else(missing)?;
        see(&permit, found, self.now()).ok_or_else(missing)
    }

    /// Entities that satisfy a condition.
    pub fn query(&self, who: &Principal, query: &Query) -> Result<Page, NodeError> {
        self.may_query(who, query)?;
        if query.filter.link_depth() > 0 {
            return self.query(who, &Query { filter: self.follow_links(who, &query.filter)?, ..query.clone() });
        }
        let now = self.now();
        let mut page = self.store.table(Space::City).try_page(&query.request(now))?;
        for entity in &mut page.entities {
            if entity.first_end().is_some_and(|at| at <= now) {
                *entity = expiry::unexpired(Arc::clone(entity), now);
            }
        }
        Ok(page)
    }

    /// The same, with what answering it took.
    pub fn explain(&self, who: &Principal, query: &Query) -> Result<Explanation, NodeError> {
        self.may_query(who, query)?;
        Ok(self.store.table(Space::City).explain(&query.request(self.now()))?)
    }

    pub(crate) fn may_query(&self, who: &Principal, query: &Query) -> Result<(), NodeError> {
        if query.limit > QUERY_LIMIT_MAX {
            return Err(NodeError::Limit {
                what: format!("limit {} is more than the {QUERY_LIMIT_MAX} entities that one page may have", query.limit),
            });
        }
        self.may_see_everything(who)
    }

    /// A peer asks through the exchange, where the question says its purpose.
    pub(crate) fn may_see_everything(&self, who: &Principal) -> Result<(), NodeError> {
        match self.permit(who, Action::Read, None)? {
            Permit::Everything => Ok(()),
            Permit::Granted(_) => {
                Err(NodeError::Denied { reason: "another city's questions come through the exchange between nodes".to_owned() })
            }
        }
    }

    /// The entities that have a relationship to `target`, ordered by id; at most `limit`, and at most [`QUERY_LIMIT_MAX`].
    pub fn referrers(&self, who: &Principal, target: &Iri, limit: usize) -> Result<Vec<Arc<Entity>>, NodeError> {
        self.may_see_everything(who)?;
        let now = self.now();
        let found = self.store.table(Space::City).referrers(target, limit.min(QUERY_LIMIT_MAX))?;
        Ok(found.into_iter().filter(|e| e.expires_at.is_none_or(|at| at > now)).collect())
    }

    /// The attributes of a type with the kinds of column that their values fit (see [`store::state::LiveTable::columns`]).
    pub fn columns(&self, who: &Principal, entity_type: &Iri) -> Result<Vec<AttributeColumn>, NodeError> {
        self.may_see_everything(who)?;
        Ok(self.store.table(Space::City).columns(entity_type))
    }

    /// The present values of a type as batches of columns (see [`store::state::LiveTable::scan_columns`]).
    pub fn scan_columns(&self, who: &Principal, entity_type: &Iri, attributes: &[Iri], filter: &Filter) -> Result<ColumnScan, NodeError> {
        self.may_see_everything(who)?;
        Ok(self.store.table(Space::City).scan_columns(entity_type, attributes, filter))
    }

    /// All entities of a type in the order of ids, a part at a time.
    pub fn latest(&self, who: &Principal, entity_type: &Iri) -> Result<Latest, NodeError> {
        self.may_see_everything(who)?;
        Ok(self.store.table(Space::City).latest(entity_type))
    }

    /// The types that have entities, with how many; what has expired does not count, even if it is not removed yet.
    pub fn types(&self, who: &Principal) -> Result<Vec<(Iri, usize)>, NodeError> {
        self.permit(who, Action::Read, None)?;
        let (table, now) = (self.store.table(Space::City), self.now());
        let mut types = table.types();
        // Nearly always there are none: they are removed within moments.
        for id in table.due(now, EXPIRED_MAX) {
            let expired = table.try_get(id.as_str())?.filter(|e| e.expires_at.is_some_and(|at| at <= now));
            for gone in expired.iter().flat_map(|e| &e.types) {
                if let Some((_, n)) = types.iter_mut().find(|(t, _)| t == gone) {
                    *n = n.saturating_sub(1);
                }
            }
        }
        types.retain(|(_, n)| *n > 0);
        Ok(types)
    }

    /// All entities of a type at once: for types with few; see [`Node::latest`].
    pub fn of_type(&self, who: &Principal, entity_type: &Iri) -> Result<Vec<Arc<Entity>>, NodeError> {
        self.permit(who, Action::Read, None)?;
        Ok(self.store.table(Space::City).of_type(entity_type))
    }

    /// An entity's past.
    pub fn evolution(&self, who: &Principal, query: &TemporalQuery) -> Result<Evolution, NodeError> {
        self.permit(who, Action::Read, None)?;
        let missing = || NodeError::NoEntity { id: query.entity.clone() };
        self.store.history().evolution(query)?.ok_or_else(missing)
    }

    /// The ends of an entity and of its attributes as known at a recorded time (none for now), in the order of time.
    pub fn deletions(&self, who: &Principal, id: &Iri, as_of: Option<Instant>) -> Result<Vec<Deletion>, NodeError> {
        self.permit(who, Action::Read, None)?;
        Ok(self.store.history().deletions(id, as_of)?)
    }

    /// The whole history, for the city's own analysts.
    pub fn history(&self, who: &Principal) -> Result<&dyn History, NodeError> {
        self.permit(who, Action::Read, None)?;
        Ok(self.store.history())
    }

    /// Rolls up and removes, every so often from now on, what the policy says.
    pub fn keep_history(&self, policy: HistoryPolicy, every: std::time::Duration) -> Result<(), NodeError> {
        Ok(self.store.keep_history(policy, Arc::clone(&self.clock), every)?)
    }

    /// The changes from now on. A receiver that falls behind is told how many batches it has lost.
    pub fn live(&self, who: &Principal) -> Result<broadcast::Receiver<Arc<Vec<Committed>>>, NodeError> {
        self.permit(who, Action::Read, None)?;
        Ok(self.live.subscribe())
    }

    /// Who brings notifications to where they belong, from now on.
    pub fn deliver_notifications_by(&self, deliverer: Arc<dyn Deliverer>) {
        self.reactions.deliver_by(deliverer);
    }

    /// Makes or (if `replace`) changes a subscription; durable when this returns, and every later change is matched with it.
    pub async fn put_subscription(&self, who: &Principal, subscription: Subscription, replace: bool) -> Result<(), NodeError> {
        self.permit(who, Action::Write, None)?;
        match self.reactions.get(&subscription.id) {
            Some(_) if !replace => return Err(NodeError::SubscriptionExists { id: subscription.id }),
            None if replace => return Err(NodeError::NoSubscription { id: subscription.id }),
            None if self.reactions.len() >= SUBSCRIPTIONS_MAX => {
                return Err(NodeError::Limit { what: format!("there are {SUBSCRIPTIONS_MAX} subscriptions, which is the limit") });
            }
            _ => {}
        }
        let id: Iri = subscription.id.parse().map_err(|e: entity::IriError| NodeError::Invalid { what: e.to_string() })?;
        let document = serde_json::to_value(&subscription).expect("a subscription is JSON");
        let stored =
            Entity::new(id, Iri::known(SUBSCRIPTION_TYPE)).with(Iri::known(DOCUMENT), Attribute::new(AttributeValue::Json(document)));
        let command = if replace { Command::Replace(stored) } else { Command::Create(stored) };
        match self.submit(Space::Node, vec![command])?.await?.pop() {
            Some(Err(CommandError::AlreadyExists { .. })) => Err(NodeError::SubscriptionExists { id: subscription.id }),
            Some(Err(CommandError::NoEntity { .. })) => Err(NodeError::NoSubscription { id: subscription.id }),
            Some(Err(e)) => Err(e.into()),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// Ends a subscription.
    pub async fn delete_subscription(&self, who: &Principal, id: &str) -> Result<(), NodeError> {
        self.permit(who, Action::Write, None)?;
        let missing = || NodeError::NoSubscription { id: id.to_owned() };
        self.reactions.get(id).ok_or_else(missing)?;
        let iri = id.parse().map_err(|_| missing())?;
        match self.submit(Space::Node, vec![Command::Delete(iri)])?.await?.pop() {
            Some(Err(CommandError::NoEntity { .. })) => Err(missing()),
            Some(Err(e)) => Err(e.into()),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// A subscription and how its delivery is going.
    pub fn subscription(&self, who: &Principal, id: &str) -> Result<(Arc<Watched>, DeliveryStatus), NodeError> {
        self.permit(who, Action::Read, None)?;
        let found = self.reactions.get(id).ok_or_else(|| NodeError::NoSubscription { id: id.to_owned() })?;
        Ok((found.watched(), found.status()))
    }

    /// All subscriptions, ordered by id.
    pub fn subscriptions(&self, who: &Principal) -> Result<Vec<(Arc<Watched>, DeliveryStatus)>, NodeError> {
        self.permit(who, Action::Read, None)?;
        Ok(self.reactions.all().into_iter().map(|r| (r.watched(), r.status())).collect())
    }
}

/// The entity as a command would leave it; none if the command fails or removes it.
fn after(command: &Command, current: Option<&Entity>) -> Option<Entity> {
    let mut delta = entity::resolve(command.clone(), current).ok()?.delta?;
    delta.apply(current.cloned(), Instant::default()).ok()?
}

fn see(permit: &Permit, entity: Arc<Entity>, now: Instant) -> Option<Arc<Entity>> {
    if entity.expires_at.is_some_and(|e| e <= now) {
        return None;
    }
    let entity = expiry::unexpired(entity, now);
    match permit {
        Permit::Everything => Some(entity),
        Permit::Granted(_) => permit.apply(&entity).map(|shared| Arc::new(shared.entity)),
    }
}

/// A filter that also leaves out nothing: every entity of these types.
#[must_use]
pub(crate) fn of_types(selector: Option<TypeSelector>, filter: Filter) -> Filter {
    match selector {
        Some(s) => Filter::Type(s).and(filter),
        None => filter,
    }
}
