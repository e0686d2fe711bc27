//! Who wants to be told of what (ETSI GS CIM 009 V1.9.1, clauses 5.2.12 and 5.8.6).

use std::sync::Arc;

use entity::{Entity, Filter, Instances, Instant, Iri};
use serde::{Deserialize, Serialize};
use store::Committed;

/// What sort of change a subscription is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Trigger {
    /// An entity is new.
    EntityCreated,
    /// Something of an entity changed.
    EntityUpdated,
    /// An entity is gone.
    EntityDeleted,
    /// An attribute is new.
    AttributeCreated,
    /// An attribute has another value.
    AttributeUpdated,
    /// An attribute is gone.
    AttributeDeleted,
}

/// A subscription, as the node needs it. How notifications are rendered and delivered is the edge's business and kept in `document`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Subscription {
    /// Its identity.
    pub id: String,
    /// Which entities, after the change.
    pub filter: Filter,
    /// Which attributes; none for any.
    pub watched: Option<Vec<Iri>>,
    /// Which sorts of change.
    pub triggers: Vec<Trigger>,
    /// At least so long between two notifications, µs; what happens meanwhile is told together at its end.
    pub throttling_us: Option<i64>,
    /// Tell of everything that matches every so long, µs, instead of on change.
    #[serde(default)]
    pub interval_us: Option<i64>,
    /// Where to: the address as the edge knows it.
    #[serde(default)]
    pub endpoint: String,
    /// No notifications after this instant.
    pub expires_at: Option<Instant>,
    /// Paused if not.
    pub active: bool,
    /// The edge's own description: endpoint, format, projection.
    pub document: serde_json::Value,
}

/// How delivery is going.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct DeliveryStatus {
    /// Attempts.
    pub times_sent: u64,
    /// Attempts that failed.
    pub times_failed: u64,
    /// Notifications given up because the queue was full or the endpoint refused them.
    pub dropped: u64,
    /// The last attempt.
    pub last_notification: Option<Instant>,
    /// The last success.
    pub last_success: Option<Instant>,
    /// The last failure.
    pub last_failure: Option<Instant>,
    /// What the last failure said; none once a delivery succeeded after it.
    pub last_error: Option<String>,
    /// Why the last notification was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_dropped: Option<String>,
    /// Notifications that wait.
    #[serde(skip)]
    pub waiting: usize,
    /// Memory that they take, about, in bytes.
    #[serde(skip)]
    pub waiting_bytes: usize,
    /// When what the oldest of them tells was recorded.
    #[serde(skip)]
    pub waiting_since: Option<Instant>,
    /// When delivery is tried again after a failure.
    #[serde(skip)]
    pub next_attempt: Option<Instant>,
}

/// What a notification follows from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The change at a position of the log, the last one if several were held back and are told together.
    Change(u64),
    /// The time has come for it.
    Interval(Instant),
}

/// Something to tell a subscriber.
#[derive(Clone, Debug)]
pub struct Notification {
    /// What it follows from.
    pub cause: Cause,
    /// Which part it is if there is more to tell than one notification holds; the first is 0.
    pub part: u32,
    /// No further part follows.
    pub is_last_part: bool,
    /// Entities that changed and match, each in its state after the change and before it.
    pub entities: Vec<(Arc<Entity>, Option<Arc<Entity>>)>,
    /// Entities that are gone, with when.
    pub deleted: Vec<(Arc<Entity>, Instant)>,
    /// When the first of what it tells was recorded.
    pub since: Instant,
    /// Position of the first change that it tells; 0 if it tells of none.
    pub(crate) first_position: u64,
}

impl Notification {
    /// Its id: the same whenever the same is told again, so that a receiver recognises what it has already.
    ///
    /// `urn:ngsi-ld:Notification:<hash of the subscription's id>:<position>`, for intervals `:t<µs since 1970>`; parts add `:<part>`.
    #[must_use]
    pub fn id(&self, subscription_id: &str) -> String {
        let mut id = format!("urn:ngsi-ld:Notification:{:016x}:", fnv1a(subscription_id.as_bytes()));
        match self.cause {
            Cause::Change(position) => id.push_str(&position.to_string()),
            Cause::Interval(at) => id.push_str(&format!("t{}", at.micros())),
        }
        if self.part > 0 {
            id.push_str(&format!(":{}", self.part));
        }
        id
    }
}

/// A hash that is the same in every version of the program (Fowler, Noll, Vo; 64 bits).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

impl Subscription {
    /// Does this change concern the subscriber? Rewriting the same value is no change.
    #[must_use]
    pub fn concerns(&self, change: &Committed) -> bool {
        let Some(state) = change.after.as_ref().or(change.before.as_ref()) else { return false };
        self.triggers.iter().any(|t| self.is_triggered(*t, change)) && self.filter.matches(state)
    }

    fn is_triggered(&self, trigger: Trigger, change: &Committed) -> bool {
        match trigger {
            Trigger::EntityCreated => change.before.is_none() && change.after.as_deref().is_some_and(|e| self.watches(e)),
            Trigger::EntityDeleted => change.after.is_none() && change.before.as_deref().is_some_and(|e| self.watches(e)),
            Trigger::EntityUpdated => [Trigger::AttributeCreated, Trigger::AttributeUpdated, Trigger::AttributeDeleted]
                .iter()
                .any(|t| self.is_triggered(*t, change)),
            Trigger::AttributeCreated => self.touched(change).any(|(before, after)| before.is_none() && after.is_some()),
            Trigger::AttributeUpdated => self.touched(change).any(|(before, after)| match (before, after) {
                (Some(b), Some(a)) => b.len() != a.len() || b.iter().zip(a).any(|(x, y)| !x.says_the_same_as(y)),
                _ => false,
            }),
            // Of an entity that is gone only those are told who asked for that (clause 5.8.6), or who watch an attribute that went with it.
            Trigger::AttributeDeleted if change.after.is_none() => {
                self.watched.is_some() && change.before.as_deref().is_some_and(|e| self.watches(e))
            }
            Trigger::AttributeDeleted => self.touched(change).any(|(before, after)| before.is_some() && after.is_none()),
        }
    }

    /// Has the entity a watched attribute? One that is watched for every attribute has.
    fn watches(&self, entity: &Entity) -> bool {
        self.watched.as_ref().is_none_or(|w| w.iter().any(|name| entity.attributes.contains_key(name)))
    }

    /// The watched attributes that the change names, before and after.
    fn touched<'a>(&'a self, change: &'a Committed) -> impl Iterator<Item = (Option<&'a Instances>, Option<&'a Instances>)> {
        let delta = &change.delta;
        let before = change.before.as_ref();
        let cleared = before.filter(|_| delta.clear).into_iter().flat_map(|b| b.attributes.keys());
        let named = delta.put.iter().map(|(n, _)| n).chain(delta.remove.iter().map(|(n, _)| n)).chain(cleared);
        named
            .filter(|n| self.watched.as_ref().is_none_or(|w| w.contains(n)))
            .map(move |n| (before.and_then(|e| e.attributes.get(n)), change.after.as_ref().and_then(|e| e.attributes.get(n))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use entity::{Attribute, Command, Delta, resolve};
    use store::state::Space;

    fn iri(s: &str) -> Iri {
        Iri::known(&format!("https://example.org/{s}"))
    }

    fn station(pm25: f64) -> Entity {
        Entity::new(Iri::known("urn:x:1"), iri("Station"))
            .with(iri("pm25"), Attribute::property(pm25))
            .with(iri("no2"), Attribute::property(1))
    }

    fn change(command: Command, before: Option<Entity>) -> Committed {
        let resolved = resolve(command, before.as_ref()).unwrap();
        let mut delta: Delta = resolved.delta.unwrap();
        let at = Instant::from_secs(1);
        let after = delta.apply(before.clone(), at).unwrap().map(Arc::new);
        Committed { position: 1, space: Space::City, recorded_at: at, before: before.map(Arc::new), after, delta: Arc::new(delta) }
    }

    fn subscription(watched: Option<&str>, triggers: &[Trigger]) -> Subscription {
        Subscription {
            id: "urn:s:1".into(),
            filter: Filter::Type(entity::TypeSelector::Is(iri("Station"))),
            watched: watched.map(|w| vec![iri(w)]),
            triggers: triggers.to_vec(),
            throttling_us: None,
            interval_us: None,
            endpoint: String::new(),
            expires_at: None,
            active: true,
            document: serde_json::Value::Null,
        }
    }

    const DEFAULT: [Trigger; 2] = [Trigger::AttributeCreated, Trigger::AttributeUpdated];

    #[test]
    fn triggers_follow_clause_5_8_6() {
        let update = |v| Command::Append {
            fragment: Entity { attributes: station(v).attributes.into_iter().take(1).collect(), ..station(v) },
            overwrite: true,
        };
        let delete = Command::Delete(Iri::known("urn:x:1"));
        let remove = Command::DeleteAttribute { id: Iri::known("urn:x:1"), name: iri("pm25"), dataset_id: None, all: false };
        check(subscription(None, &DEFAULT), Command::Create(station(1.0)), None, true);
        check(subscription(Some("pm25"), &DEFAULT), update(2.0), Some(station(1.0)), true);
        check(subscription(Some("pm25"), &DEFAULT), update(1.0), Some(station(1.0)), false);
        check(subscription(Some("no2"), &DEFAULT), update(2.0), Some(station(1.0)), false);
        check(subscription(None, &DEFAULT), delete.clone(), Some(station(1.0)), false);
        check(subscription(None, &[Trigger::EntityDeleted]), delete.clone(), Some(station(1.0)), true);
        check(subscription(Some("pm10"), &[Trigger::EntityDeleted]), delete.clone(), Some(station(1.0)), false);
        check(subscription(Some("pm25"), &[Trigger::AttributeDeleted]), delete.clone(), Some(station(1.0)), true);
        check(subscription(None, &[Trigger::AttributeDeleted]), delete, Some(station(1.0)), false);
        check(subscription(Some("pm25"), &[Trigger::EntityCreated]), Command::Create(station(1.0)), None, true);
        check(subscription(Some("pm10"), &[Trigger::EntityCreated]), Command::Create(station(1.0)), None, false);
        check(subscription(Some("pm25"), &[Trigger::AttributeDeleted]), remove.clone(), Some(station(1.0)), true);
        check(subscription(None, &[Trigger::EntityUpdated]), remove, Some(station(1.0)), true);
        check(subscription(None, &[Trigger::EntityCreated]), update(2.0), Some(station(1.0)), false);
        check(subscription(Some("no2"), &[Trigger::AttributeUpdated]), Command::Replace(station(2.0)), Some(station(1.0)), false);

        #[track_caller]
        fn check(s: Subscription, command: Command, before: Option<Entity>, want: bool) {
            assert_eq!(s.concerns(&change(command.clone(), before)), want, "{:?} on {command:?}", s.triggers);
        }
    }
}
