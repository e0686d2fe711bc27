//! Who wants which messages.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mqtt::connection::Payload;
use mqtt::topic::{Qos, Subscriptions, TopicFilter, TopicName};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Messages that may wait for a connection's task before it counts as slow.
pub(super) const WAITING_MAX: usize = 1_024;

/// A message for a subscriber.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) topic: TopicName,
    pub(super) payload: Payload,
    pub(super) qos: Qos,
}

/// What a connection's task is told by others.
#[derive(Debug)]
pub(super) enum Note {
    /// Deliver this.
    Deliver(Delivery),
    /// Another connection has the same client identifier.
    TakenOver,
}

/// The connected clients and their subscriptions.
#[derive(Default)]
pub struct Hub(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    next_key: u64,
    subscriptions: Subscriptions<u64>,
    clients: HashMap<u64, Client>,
    by_id: HashMap<String, u64>,
}

struct Client {
    id: String,
    notes: mpsc::Sender<Note>,
    /// Set when a message could not be handed over: the client is ended, never silently skipped.
    too_slow: bool,
}

impl Hub {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client has connected; one with the same identifier is told to go (MQTT-3.1.4-3).
    pub(super) fn enter(&self, client_id: &str, notes: mpsc::Sender<Note>) -> u64 {
        let mut inner = self.inner();
        let key = inner.next_key;
        inner.next_key += 1;
        if let Some(old) = inner.by_id.insert(client_id.to_owned(), key)
            && let Some(old) = inner.clients.get(&old)
        {
            // If its queue is full it is about to be ended anyway.
            let _ = old.notes.try_send(Note::TakenOver);
        }
        inner.clients.insert(key, Client { id: client_id.to_owned(), notes, too_slow: false });
        key
    }

    pub(super) fn leave(&self, key: u64) {
        let mut inner = self.inner();
        inner.subscriptions.remove(&key);
        if let Some(client) = inner.clients.remove(&key)
            && inner.by_id.get(&client.id) == Some(&key)
        {
            inner.by_id.remove(&client.id);
        }
    }

    pub(super) fn subscribe(&self, key: u64, filter: &TopicFilter, qos: Qos) {
        self.inner().subscriptions.subscribe(key, filter, qos);
    }

    pub(super) fn n_filters(&self, key: u64) -> usize {
        self.inner().subscriptions.count_of(&key)
    }

    pub(super) fn unsubscribe(&self, key: u64, filter: &TopicFilter) -> bool {
        self.inner().subscriptions.unsubscribe(&key, filter)
    }

    /// True once for a client whose messages could not be handed over.
    pub(super) fn is_too_slow(&self, key: u64) -> bool {
        self.inner().clients.get(&key).is_some_and(|c| c.too_slow)
    }

    /// Hands a message to everybody who subscribed to its topic; returns how many it reached and for how many QoS 0 clients it was dropped.
    pub(super) fn publish(&self, topic: &TopicName, payload: &Payload, qos: Qos, not_to: Option<u64>) -> (usize, usize) {
        let mut inner = self.inner();
        let (mut n_reached, mut n_dropped) = (0, 0);
        for (key, granted) in inner.subscriptions.matches(topic) {
            if not_to == Some(key) {
                continue;
            }
            let Some(client) = inner.clients.get_mut(&key) else { continue };
            let qos = qos.min(granted);
            match client.notes.try_send(Note::Deliver(Delivery { topic: topic.clone(), payload: payload.clone(), qos })) {
                Ok(()) => n_reached += 1,
                Err(TrySendError::Full(_)) if qos == Qos::AtMostOnce => n_dropped += 1,
                Err(TrySendError::Full(_)) => client.too_slow = true,
                Err(TrySendError::Closed(_)) => {}
            }
        }
        (n_reached, n_dropped)
    }
}
