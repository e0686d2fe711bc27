//! Messages to the client that wait to be sent or acknowledged.

use std::collections::{HashMap, VecDeque};

use super::wire::Payload;
use crate::topic::{Qos, TopicName};

/// Packet identifiers of the server that are in use, and messages that wait for a free place among them.
///
/// Nothing is sent twice on one connection, so a message is forgotten as soon as it is sent.
pub(super) struct Outbound {
    /// How many may be unacknowledged: the client's Receive Maximum and our own limit.
    in_flight_max: usize,
    in_flight: HashMap<u16, Stage>,
    queue: VecDeque<Queued>,
    queue_bytes: usize,
    last_packet_id: u16,
}

/// Which answer of the client a message waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Puback,
    Pubrec,
    Pubcomp,
}

pub(super) struct Queued {
    pub(super) topic: TopicName,
    pub(super) payload: Payload,
    pub(super) qos: Qos,
    pub(super) retain: bool,
}

impl Queued {
    fn bytes(&self) -> usize {
        self.topic.as_str().len() + self.payload.len()
    }
}

/// What PUBREC answers to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Received {
    /// Answer PUBREL.
    Release,
    /// The client refused the message: it is done.
    Done,
    /// No message of QoS 2 waits under this identifier.
    Unknown,
}

impl Outbound {
    pub(super) fn new(in_flight_max: u16) -> Self {
        Self {
            in_flight_max: usize::from(in_flight_max),
            in_flight: HashMap::new(),
            queue: VecDeque::new(),
            queue_bytes: 0,
            last_packet_id: 0,
        }
    }

    /// Puts a message of QoS 1 or 2 at the end; gives it back if the queue is full.
    pub(super) fn enqueue(&mut self, message: Queued, messages_max: usize, bytes_max: usize) -> Result<(), Queued> {
        let bytes = message.bytes();
        if self.queue.len() >= messages_max || (!self.queue.is_empty() && self.queue_bytes + bytes > bytes_max) {
            return Err(message);
        }
        self.queue_bytes += bytes;
        self.queue.push_back(message);
        Ok(())
    }

    /// The next message that may be sent, with its packet identifier.
    pub(super) fn next(&mut self) -> Option<(u16, Queued)> {
        if self.in_flight.len() >= self.in_flight_max {
            return None;
        }
        let message = self.queue.pop_front()?;
        self.queue_bytes -= message.bytes();
        let packet_id = self.free_packet_id();
        let stage = if message.qos == Qos::ExactlyOnce { Stage::Pubrec } else { Stage::Puback };
        self.in_flight.insert(packet_id, stage);
        Some((packet_id, message))
    }

    /// At most 65,535 tries, and there is a free one: `in_flight_max` is below the number of identifiers or all of them, and one place is free.
    fn free_packet_id(&mut self) -> u16 {
        loop {
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            if !self.in_flight.contains_key(&self.last_packet_id) {
                return self.last_packet_id;
            }
        }
    }

    /// PUBACK arrived. Says whether it was waited for.
    pub(super) fn acknowledged(&mut self, packet_id: u16) -> bool {
        self.finish(packet_id, Stage::Puback)
    }

    /// PUBREC arrived.
    pub(super) fn received(&mut self, packet_id: u16, refused: bool) -> Received {
        match self.in_flight.get_mut(&packet_id) {
            Some(Stage::Pubrec) if refused => {
                self.in_flight.remove(&packet_id);
                Received::Done
            }
            // A repeated PUBREC is answered again.
            Some(stage @ (Stage::Pubrec | Stage::Pubcomp)) => {
                *stage = Stage::Pubcomp;
                Received::Release
            }
            _ => Received::Unknown,
        }
    }

    /// PUBCOMP arrived. Says whether it was waited for.
    pub(super) fn completed(&mut self, packet_id: u16) -> bool {
        self.finish(packet_id, Stage::Pubcomp)
    }

    fn finish(&mut self, packet_id: u16, want: Stage) -> bool {
        let waited_for = self.in_flight.get(&packet_id) == Some(&want);
        if waited_for {
            self.in_flight.remove(&packet_id);
        }
        waited_for
    }

    /// Messages of QoS 1 and 2 that the client has not fully acknowledged.
    pub(super) fn n_undelivered(&self) -> usize {
        self.in_flight.len() + self.queue.len()
    }

    pub(super) fn n_queued(&self) -> usize {
        self.queue.len()
    }
}
