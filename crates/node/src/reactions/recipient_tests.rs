use super::*;
use crate::reactions::told::Told;
use entity::{Attribute, Delta, Entity, Filter, Iri};
use host::ManualClock;
use store::Committed;
use store::state::Space;

/// Notes who was woken.
#[derive(Default)]
struct Woken(Mutex<usize>);

impl Deliverer for Woken {
    fn wake(&self, _: Arc<Recipient>) {
        *lock(&self.0) += 1;
    }
}

struct Bench {
    shared: Arc<Shared>,
    woken: Arc<Woken>,
    recipient: Arc<Recipient>,
    clock: Arc<ManualClock>,
}

fn subscription(active: bool) -> Subscription {
    Subscription {
        id: "urn:s:1".into(),
        filter: Filter::all(),
        watched: None,
        triggers: Vec::new(),
        throttling_us: None,
        interval_us: None,
        endpoint: String::new(),
        expires_at: None,
        active,
        document: serde_json::Value::Null,
    }
}

fn bench(limits: Limits) -> Bench {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let shared = Arc::new(Shared::new(clock.clone(), Arc::default(), limits));
    let woken = Arc::new(Woken::default());
    *shared.deliverer.write().unwrap() = Some(woken.clone());
    let recipient = Arc::new(Recipient::new(Arc::new(Watched::new(subscription(true))), Instant::from_secs(0), Arc::clone(&shared)));
    Bench { shared, woken, recipient, clock }
}

fn told(position: u64, station: u32, value: u64) -> Told {
    let entity = Entity::new(Iri::known(&format!("urn:x:{station}")), Iri::known("urn:t:T"));
    let entity = entity.with(Iri::known("urn:a:v"), Attribute::property(value));
    let delta =
        Arc::new(entity::resolve(entity::Command::Create(entity.clone()), None).unwrap().delta.unwrap_or_else(|| -> Delta { panic!() }));
    Told::new(&Committed {
        position,
        space: Space::City,
        recorded_at: Instant::from_micros(position as i64),
        before: None,
        after: Some(Arc::new(entity)),
        delta,
    })
}

fn positions(recipient: &Recipient) -> Vec<u64> {
    recipient
        .waiting_before(u64::MAX)
        .iter()
        .map(|n| match n.cause {
            Cause::Change(p) => p,
            Cause::Interval(_) => panic!(),
        })
        .collect()
}

#[test]
fn a_full_queue_gives_up_the_oldest_but_not_the_one_under_way_and_says_so() {
    let b = bench(Limits { entries: 3, bytes: usize::MAX, total_bytes: usize::MAX });
    for position in 1..=3 {
        b.recipient.tell(told(position, 1, position), None);
    }
    assert_eq!(*lock(&b.woken.0), 1, "it is woken once until nothing waits");
    let (_, first) = b.recipient.next().unwrap();
    assert_eq!(first.cause, Cause::Change(1));
    b.recipient.tell(told(4, 1, 4), None);
    b.recipient.tell(told(5, 1, 5), None);
    assert_eq!(positions(&b.recipient), [1, 4, 5]);
    b.recipient.failed("no answer", Instant::from_secs(9));
    // Not under way any more.
    b.recipient.tell(told(6, 1, 6), None);
    assert_eq!(positions(&b.recipient), [4, 5, 6]);
    let status = b.recipient.status();
    assert_eq!((status.dropped, status.waiting, status.times_failed), (3, 3, 1));
    assert_eq!(status.last_dropped.as_deref(), Some("more than 3 notifications wait for this subscription"));
    assert_eq!(status.waiting_since, Some(Instant::from_micros(4)));
    assert!(b.shared.metrics.render(&store::Stats::default()).contains("conurb_notifications_total{sort=\"dropped\"} 3"));
    while b.recipient.next().is_some() {
        b.recipient.delivered();
    }
    let status = b.recipient.status();
    assert_eq!((status.waiting, status.waiting_bytes, status.times_sent), (0, 0, 4));
    assert_eq!(b.shared.bytes.load(Ordering::Relaxed), 0);
    b.recipient.tell(told(7, 1, 7), None);
    assert_eq!(*lock(&b.woken.0), 2);
}

#[test]
fn bytes_are_limited_for_one_and_for_all() {
    let weight = told(1, 1, 1).parts()[0].weight();
    for limits in [
        Limits { entries: 100, bytes: 2 * weight, total_bytes: usize::MAX },
        Limits { entries: 100, bytes: usize::MAX, total_bytes: 2 * weight },
    ] {
        let b = bench(limits);
        for position in 1..=5 {
            b.recipient.tell(told(position, 1, position), None);
        }
        assert_eq!(positions(&b.recipient), [4, 5]);
        assert_eq!(b.recipient.status().dropped, 3);
    }
}

#[test]
fn a_pause_keeps_what_waits_and_its_end_wakes() {
    let b = bench(Limits::default());
    b.recipient.set(Arc::new(Watched::new(subscription(false))));
    b.recipient.tell(told(1, 1, 1), None);
    assert!(b.recipient.next().is_none());
    assert_eq!((positions(&b.recipient), *lock(&b.woken.0)), (vec![1], 0));
    b.recipient.set(Arc::new(Watched::new(subscription(true))));
    assert_eq!(*lock(&b.woken.0), 1);
    assert!(b.recipient.next().is_some());
}

#[test]
fn what_expires_is_forgotten() {
    let b = bench(Limits::default());
    b.recipient.set(Arc::new(Watched::new(Subscription { expires_at: Some(Instant::from_secs(2)), ..subscription(true) })));
    b.recipient.tell(told(1, 1, 1), None);
    assert!(b.recipient.next().is_some());
    b.recipient.failed("no answer", Instant::from_secs(9));
    b.clock.advance(std::time::Duration::from_secs(5));
    assert!(b.recipient.next().is_none());
    assert_eq!(b.recipient.status().waiting, 0);
}

#[test]
fn throttling_holds_back_and_tells_the_last_state_of_each_entity() {
    let b = bench(Limits::default());
    let gap = Some(100);
    assert_eq!(b.recipient.tell(told(1, 1, 1), gap), None);
    assert_eq!(b.recipient.tell(told(2, 1, 2), gap), Some(Instant::from_micros(101)));
    assert_eq!(b.recipient.tell(told(3, 2, 3), gap), None);
    assert_eq!(b.recipient.tell(told(4, 1, 4), gap), None);
    assert_eq!(positions(&b.recipient), [1, 4], "what is held back is kept as well");
    assert!(b.recipient.waiting_before(2).len() == 1 && b.recipient.waiting_before(3).len() == 2);
    b.recipient.release_held(Instant::from_micros(101));
    let last = b.recipient.waiting_before(u64::MAX).pop().unwrap();
    let shown: Vec<_> = last.entities.iter().map(|(e, _)| e.attribute("urn:a:v").unwrap().value.clone()).collect();
    assert_eq!(shown, [4, 3].map(|v| entity::AttributeValue::Property(v.into())));
    assert_eq!((last.cause, last.since), (Cause::Change(4), Instant::from_micros(2)));
}

#[test]
fn what_is_held_back_does_not_come_behind_what_is_later() {
    let b = bench(Limits::default());
    b.recipient.tell(told(1, 1, 1), Some(100));
    b.recipient.tell(told(2, 2, 2), Some(100));
    // Not throttled any more.
    b.recipient.tell(told(3, 3, 3), None);
    assert_eq!(positions(&b.recipient), [1, 3]);
    let last = b.recipient.waiting_before(u64::MAX).pop().unwrap();
    assert_eq!((last.entities.len(), last.first_position), (2, 2));
}

#[test]
fn only_the_last_part_finishes_a_change() {
    let b = bench(Limits::default());
    let mut all = told(7, 0, 0);
    (1..=ENTITIES_PER_NOTIFICATION_MAX as u32).for_each(|n| all.append(told(7, n, 0)));
    b.recipient.tell(all, None);
    assert!(b.recipient.next().is_some());
    b.recipient.delivered();
    assert!(!b.recipient.has_heard_of(7));
    assert!(b.recipient.next().is_some());
    b.recipient.delivered();
    assert!(b.recipient.has_heard_of(7) && !b.recipient.has_heard_of(8));
}

#[test]
fn what_is_refused_for_good_is_counted_and_the_next_one_follows() {
    let b = bench(Limits::default());
    b.recipient.tell(told(1, 1, 1), None);
    b.recipient.tell(told(2, 1, 2), None);
    assert!(b.recipient.next().is_some());
    b.recipient.refused("the endpoint answered 400");
    let (_, next) = b.recipient.next().unwrap();
    assert_eq!(next.cause, Cause::Change(2));
    let status = b.recipient.status();
    assert_eq!((status.dropped, status.last_dropped.as_deref()), (1, Some("the endpoint answered 400")));
    assert!(b.recipient.has_heard_of(1));
}
