//! Messages from the client that are not yet fully acknowledged.

use std::collections::{HashMap, VecDeque};

use crate::topic::Qos;
use crate::{Reason, Refusal};

/// Which packet identifiers of the client are in use, and which acknowledgements are due.
///
/// The node finishes messages in any order; acknowledgements leave in the order in which the messages came,
/// because MQTT-4.6.0-2 and -3 demand it. At most the Receive Maximum of messages is in here.
pub(super) struct Inbound {
    receive_max: usize,
    stages: HashMap<u16, Stage>,
    /// Handed out and not yet answered, in the order of arrival.
    waiting: VecDeque<Waiting>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Handed out; the first acknowledgement is not sent.
    Waiting(Qos),
    /// QoS 2, PUBREC sent; the identifier is free again after PUBREL.
    Recorded,
}

struct Waiting {
    packet_id: u16,
    qos: Qos,
    outcome: Option<Result<(), Refusal>>,
}

/// What a PUBLISH with a packet identifier is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arrival {
    /// A message to hand out.
    New,
    /// The repetition of one that is still being worked on: its acknowledgement answers this one too.
    Repeated,
    /// The repetition of one that is recorded: PUBREC again.
    RepeatedRecorded,
}

/// An acknowledgement that is due.
pub(super) struct Due {
    pub(super) packet_id: u16,
    pub(super) qos: Qos,
    pub(super) outcome: Result<(), Refusal>,
}

impl Inbound {
    pub(super) fn new(receive_max: u16) -> Self {
        Self { receive_max: usize::from(receive_max), stages: HashMap::new(), waiting: VecDeque::new() }
    }

    pub(super) fn arrived(&mut self, packet_id: u16, qos: Qos, dup: bool) -> Result<Arrival, Refusal> {
        match (self.stages.get(&packet_id), qos) {
            (None, _) => {}
            (Some(Stage::Recorded), Qos::ExactlyOnce) => return Ok(Arrival::RepeatedRecorded),
            // Between PUBLISH and PUBREL any message of QoS 2 with this identifier is the same one (MQTT-4.3.3-10).
            (Some(Stage::Waiting(Qos::ExactlyOnce)), Qos::ExactlyOnce) => return Ok(Arrival::Repeated),
            (Some(Stage::Waiting(Qos::AtLeastOnce)), Qos::AtLeastOnce) if dup => return Ok(Arrival::Repeated),
            (Some(_), _) => {
                let text = format!("PUBLISH: packet identifier {packet_id} is in use by a message that is not yet acknowledged");
                return Err(Refusal::new(Reason::ProtocolError, text));
            }
        }
        if self.stages.len() >= self.receive_max {
            let text = format!("more than {} messages without acknowledgement (Receive Maximum)", self.receive_max);
            return Err(Refusal::new(Reason::ReceiveMaximumExceeded, text));
        }
        self.stages.insert(packet_id, Stage::Waiting(qos));
        self.waiting.push_back(Waiting { packet_id, qos, outcome: None });
        Ok(Arrival::New)
    }

    /// The node is done with a message. Says whether it was waited for.
    pub(super) fn complete(&mut self, packet_id: u16, outcome: Result<(), Refusal>) -> bool {
        // At most the Receive Maximum long, and the oldest is usually done first.
        match self.waiting.iter_mut().find(|w| w.packet_id == packet_id && w.outcome.is_none()) {
            Some(w) => {
                w.outcome = Some(outcome);
                true
            }
            None => false,
        }
    }

    /// The next acknowledgement that may leave.
    pub(super) fn next_due(&mut self) -> Option<Due> {
        let outcome = self.waiting.front_mut()?.outcome.take()?;
        let Waiting { packet_id, qos, .. } = self.waiting.pop_front()?;
        if qos == Qos::ExactlyOnce && outcome.is_ok() {
            self.stages.insert(packet_id, Stage::Recorded);
        } else {
            self.stages.remove(&packet_id);
        }
        Some(Due { packet_id, qos, outcome })
    }

    /// PUBREL arrived. Says whether the identifier was in use.
    pub(super) fn released(&mut self, packet_id: u16) -> Result<bool, Refusal> {
        match self.stages.get(&packet_id) {
            Some(Stage::Recorded) => {
                self.stages.remove(&packet_id);
                Ok(true)
            }
            Some(Stage::Waiting(_)) => {
                Err(Refusal::new(Reason::ProtocolError, format!("PUBREL for packet identifier {packet_id} before its PUBREC")))
            }
            None => Ok(false),
        }
    }
}
