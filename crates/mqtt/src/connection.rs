//! The server's side of one client: MQTT 3.1.1 and 5, from bytes to events and back.
//!
//! [`ServerConnection`] is a state machine. A listener owns the socket and the clock and does four things, in any interleaving:
//!
//! * feeds bytes from the socket to [`ServerConnection::receive`] and does what the [`Event`]s say;
//! * answers them: [`accept`](ServerConnection::accept) or [`refuse`](ServerConnection::refuse) a connect,
//!   [`acknowledge`](ServerConnection::acknowledge) a message **after its durable commit**, answer a subscribe or unsubscribe;
//! * gives messages for the client to [`deliver`](ServerConnection::deliver);
//! * after each call writes what [`take_output`](ServerConnection::take_output) gives, and calls it again after the write, until it is empty.
//!
//! Every call may end the connection; then [`Event::Ended`] is its last event, and the listener writes the last output and closes.
//!
//! ```
//! use mqtt::connection::{Event, Limits, ServerConnection};
//!
//! let mut connection = ServerConnection::new(Limits::default(), "conurb-7f3a".into());
//! // An MQTT 5 CONNECT of client `d1`, keep-alive 60 s, as it comes from a socket.
//! let connect = b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x02d1";
//! let [Event::Connect(request)] = &connection.receive(connect)[..] else { panic!() };
//! assert_eq!(request.client_id, "d1");
//! connection.accept();
//! assert_eq!(connection.take_output()[0], 0x20, "a CONNACK to write to the socket");
//! ```
//!
//! What is not promised, and therefore announced to MQTT 5 clients in CONNACK: sessions end with their connection (Session Expiry
//! Interval 0, Session Present 0; an MQTT 3.1.1 client that asks for a kept session learns from Session Present 0 that there is none),
//! no retained messages, no shared subscriptions, no subscription identifiers, no extended authentication.
//! A message of QoS 2 that is repeated on a new connection is handed out again; observing the same value twice changes nothing.
//! A will is handed out as soon as the connection ends abnormally: its delay is treated as 0. A password without a user name,
//! which MQTT 5 allows, is refused by the codec.

mod encode;
mod events;
mod inbound;
mod outbound;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::HashMap;
use std::time::Duration;

use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::{PacketBuildResult, PacketBuilder, RawPacket};
use mqtt_protocol_core::mqtt::packet::{
    AssignedClientIdentifier, MaximumPacketSize, Properties, Property, ReceiveMaximum, RetainAvailable, ServerKeepAlive,
    SessionExpiryInterval, SharedSubscriptionAvailable, SubscriptionIdentifierAvailable, TopicAliasMaximum,
};
use mqtt_protocol_core::mqtt::result_code::MqttError;

use self::inbound::{Arrival, Inbound};
use self::outbound::{Outbound, Queued, Received};
use self::wire::{Hello, Incoming, IncomingConnect, IncomingFilter, IncomingPublish, OutgoingPublish};
use crate::topic::{Qos, SubscriptionFilter, TopicName};
use crate::{Reason, Refusal};

pub use self::events::{
    Cause, ConnectRequest, Counters, Ended, Event, FilterRequest, Limits, Publish, SubscribeRequest, UnsubscribeRequest, Will,
};
pub use self::wire::{Payload, Version};

/// The longest client identifier, in bytes; MQTT demands 23, devices use up to 128.
pub const CLIENT_ID_BYTES_MAX: usize = 256;

/// The largest packet that MQTT can express, in bytes.
const MQTT_PACKET_BYTES_MAX: usize = 268_435_455;

/// The server's side of one client; see the [module](self).
pub struct ServerConnection {
    limits: Limits,
    state: State,
    /// Known after the first packet.
    version: Option<Version>,
    spare_client_id: String,
    builder: PacketBuilder,
    first_byte_seen: bool,
    /// Bytes that came after CONNECT while it is being decided.
    held: Vec<u8>,
    output: Vec<u8>,
    /// The largest packet that the client takes, in bytes.
    client_bytes_max: usize,
    wants_problem_text: bool,
    assigned: bool,
    asked_session_expiry: bool,
    keep_alive_s: u16,
    keep_alive_imposed: bool,
    will: Option<Will>,
    aliases: HashMap<u16, TopicName>,
    inbound: Inbound,
    outbound: Outbound,
    requests: HashMap<u16, Request>,
    counters: Counters,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    AwaitsConnect,
    Deciding,
    Connected,
    Ended,
}

/// A SUBSCRIBE or UNSUBSCRIBE that waits: per filter the answer that is known, or none where the listener decides.
enum Request {
    Subscribe(Vec<Option<Reason>>),
    Unsubscribe(Vec<Option<Result<bool, Reason>>>),
}

impl ServerConnection {
    /// A connection that was just opened. `spare_client_id` is for a client that gives none: unique and unguessable.
    ///
    /// # Panics
    /// If `spare_client_id` is empty or longer than [`CLIENT_ID_BYTES_MAX`], or a limit is 0 that MQTT does not allow to be 0.
    #[must_use]
    pub fn new(limits: Limits, spare_client_id: String) -> Self {
        assert!((1..=CLIENT_ID_BYTES_MAX).contains(&spare_client_id.len()), "a spare client identifier has 1 to 256 bytes");
        assert!(limits.receive_max > 0 && limits.in_flight_max > 0, "a Receive Maximum is at least 1");
        assert!(limits.packet_bytes_max > 0 && limits.connect_bytes_max > 0, "a Maximum Packet Size is at least 1");
        assert!(limits.keep_alive_s_max > 0, "a Server Keep Alive of 0 is no limit");
        Self {
            limits,
            state: State::AwaitsConnect,
            version: None,
            spare_client_id,
            builder: PacketBuilder::with_maximum_packet_size(limits.connect_bytes_max.min(limits.packet_bytes_max)),
            first_byte_seen: false,
            held: Vec::new(),
            output: Vec::new(),
            client_bytes_max: MQTT_PACKET_BYTES_MAX,
            wants_problem_text: false,
            assigned: false,
            asked_session_expiry: false,
            keep_alive_s: 0,
            keep_alive_imposed: false,
            will: None,
            aliases: HashMap::new(),
            inbound: Inbound::new(limits.receive_max),
            outbound: Outbound::new(limits.in_flight_max),
            requests: HashMap::new(),
            counters: Counters::default(),
        }
    }

    /// Takes bytes from the socket, cut anywhere.
    pub fn receive(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        self.consume(bytes, &mut events);
        events
    }

    /// The client may connect. Does nothing if no decision is pending (the client may be gone by now).
    pub fn accept(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        if self.state != State::Deciding {
            return events;
        }
        let connack = match self.version {
            Some(Version::V5) => encode::connack_v5(self.connack_properties()),
            _ => encode::connack_v3(None),
        };
        if connack.len() > self.client_bytes_max {
            let text = format!("the client takes no packet over {} bytes, not even CONNACK", self.client_bytes_max);
            self.fail(Refusal::new(Reason::PacketTooLarge, text), &mut events);
            return events;
        }
        self.output.extend(connack);
        self.state = State::Connected;
        self.builder.set_maximum_packet_size(self.limits.packet_bytes_max);
        events.push(Event::SetTimer(self.timeout()));
        let held = std::mem::take(&mut self.held);
        self.consume(&held, &mut events);
        events
    }

    /// The client may not connect. Does nothing if no decision is pending.
    pub fn refuse(&mut self, refusal: impl Into<Refusal>) -> Vec<Event> {
        let mut events = Vec::new();
        if self.state == State::Deciding {
            self.fail(refusal.into(), &mut events);
        }
        events
    }

    /// The node is done with the message under `packet_id`: it is durable, or it is refused. In any order: the
    /// acknowledgements leave in the order of arrival (MQTT-4.6.0-2).
    ///
    /// MQTT 3.1.1 cannot refuse a message: there a refusal closes the connection, and the client will send the message again.
    /// Who wants to be rid of a hopeless message records that and acknowledges it.
    pub fn acknowledge(&mut self, packet_id: u16, outcome: Result<(), Refusal>) -> Vec<Event> {
        let mut events = Vec::new();
        if self.state != State::Connected {
            return events;
        }
        if !self.inbound.complete(packet_id, outcome) {
            tracing::debug!(packet_id, "acknowledged a message that nobody waits for");
            return events;
        }
        while let Some(due) = self.inbound.next_due() {
            let refusal = due.outcome.err();
            match (self.version(), refusal) {
                (Version::V3, Some(refusal)) => {
                    self.fail(refusal, &mut events);
                    return events;
                }
                (version, refusal) => {
                    let with_text = self.wants_problem_text;
                    let ack = |text| encode::first_ack(version, due.qos, due.packet_id, refusal.as_ref(), text && with_text);
                    if let Err(refusal) = self.answer(ack) {
                        self.fail(refusal, &mut events);
                        return events;
                    }
                }
            }
        }
        events
    }

    /// Answers a [`SubscribeRequest`]: for each of its filters the granted QoS or why not.
    ///
    /// # Panics
    /// If there are not as many answers as filters were handed out.
    pub fn answer_subscribe(&mut self, packet_id: u16, answers: &[Result<Qos, Reason>]) -> Vec<Event> {
        let mut events = Vec::new();
        if self.state != State::Connected {
            return events;
        }
        let Some(Request::Subscribe(known)) = self.take_request(packet_id, |r| matches!(r, Request::Subscribe(_))) else { return events };
        let mut given = answers.iter().copied();
        let all: Vec<_> =
            known.iter().map(|k| k.map_or_else(|| given.next().expect("one answer for each filter that was handed out"), Err)).collect();
        assert!(given.next().is_none(), "one answer for each filter that was handed out");
        self.send_or_fail(&encode::suback(self.version(), packet_id, &all), &mut events);
        events
    }

    /// Answers an [`UnsubscribeRequest`]: for each of its filters whether there was such a subscription, or why it cannot be ended.
    ///
    /// # Panics
    /// If there are not as many answers as filters were handed out.
    pub fn answer_unsubscribe(&mut self, packet_id: u16, answers: &[Result<bool, Reason>]) -> Vec<Event> {
        let mut events = Vec::new();
        if self.state != State::Connected {
            return events;
        }
        let Some(Request::Unsubscribe(known)) = self.take_request(packet_id, |r| matches!(r, Request::Unsubscribe(_))) else {
            return events;
        };
        let mut given = answers.iter().copied();
        let all: Vec<_> =
            known.iter().map(|k| k.unwrap_or_else(|| given.next().expect("one answer for each filter that was handed out"))).collect();
        assert!(given.next().is_none(), "one answer for each filter that was handed out");
        self.send_or_fail(&encode::unsuback(self.version(), packet_id, &all), &mut events);
        events
    }

    /// A message for the client. Dropped and counted if it is of QoS 0 and the client reads too slowly, or if the client does not take
    /// so large ones (MQTT-3.1.2-25); if the queue of the others is full, the connection ends with [`Reason::QuotaExceeded`].
    pub fn deliver(&mut self, topic: &TopicName, payload: &Payload, qos: Qos, retain: bool) -> Vec<Event> {
        let mut events = Vec::new();
        if self.state != State::Connected {
            return events;
        }
        let version = self.version();
        let bytes = wire::publish_bytes(version, topic, payload, qos);
        if bytes > self.client_bytes_max {
            self.counters.dropped_too_large += 1;
            return events;
        }
        if qos == Qos::AtMostOnce {
            if !self.output.is_empty() && self.output.len() + bytes > self.limits.output_bytes_max {
                self.counters.dropped_slow += 1;
            } else {
                let p = OutgoingPublish { topic, payload, qos, retain, packet_id: 0 };
                self.output.extend(encode::publish(version, &p));
                self.counters.sent += 1;
            }
            return events;
        }
        self.pump();
        let message = Queued { topic: topic.clone(), payload: payload.clone(), qos, retain };
        if self.outbound.enqueue(message, self.limits.queue_messages_max, self.limits.queue_bytes_max).is_err() {
            self.counters.refused_full += 1;
            let text = format!("{} messages wait for this client, more than it may leave unread", self.outbound.n_queued());
            self.fail(Refusal::new(Reason::QuotaExceeded, text), &mut events);
            return events;
        }
        self.pump();
        events
    }

    /// The bytes to write to the socket now; empty if there is nothing to write.
    pub fn take_output(&mut self) -> Vec<u8> {
        if self.state == State::Connected {
            self.pump();
        }
        std::mem::take(&mut self.output)
    }

    /// How long the client may be silent now: until it is accepted, [`Limits::connect_timeout`] in all; then one and a half
    /// keep-alive times between packets, or forever.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        match self.state {
            State::AwaitsConnect | State::Deciding => Some(self.limits.connect_timeout),
            State::Connected => (self.keep_alive_s > 0).then(|| Duration::from_millis(u64::from(self.keep_alive_s) * 1_500)),
            State::Ended => None,
        }
    }

    /// The timer fired.
    pub fn timed_out(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let refusal = match self.state {
            State::Ended => return events,
            State::AwaitsConnect | State::Deciding => {
                let text = format!("the client was not connected within {} s", self.limits.connect_timeout.as_secs());
                Refusal::new(Reason::MaximumConnectTime, text)
            }
            State::Connected => {
                Refusal::new(Reason::KeepAliveTimeout, format!("nothing was heard for 1.5 times the keep-alive of {} s", self.keep_alive_s))
            }
        };
        self.fail(refusal, &mut events);
        events
    }

    /// The socket is closed or broken.
    pub fn lost(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        self.end(Cause::Lost, &mut events);
        events
    }

    /// The server ends the connection: it stops, another connection takes over, an operator wants it.
    pub fn disconnect(&mut self, refusal: impl Into<Refusal>) -> Vec<Event> {
        let mut events = Vec::new();
        self.fail(refusal.into(), &mut events);
        events
    }

    /// What happened so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    fn version(&self) -> Version {
        self.version.expect("the version is known from CONNECT on")
    }

    fn consume(&mut self, bytes: &[u8], events: &mut Vec<Event>) {
        if let (false, Some(first)) = (self.first_byte_seen, bytes.first()) {
            self.first_byte_seen = true;
            // At once, before a length from a stranger makes the builder keep anything: HTTP and TLS end here.
            if *first != wire::CONNECT << 4 {
                let text = format!("expected a CONNECT packet (first byte 0x10), found the byte 0x{first:02X}");
                return self.fail(Refusal::new(Reason::ProtocolError, text), events);
            }
        }
        let mut cursor = Cursor::new(bytes);
        let mut heard = false;
        loop {
            match self.state {
                State::Ended => return,
                State::Deciding => {
                    let rest = &bytes[usize::try_from(cursor.position()).unwrap_or(bytes.len()).min(bytes.len())..];
                    return self.hold(rest, events);
                }
                State::AwaitsConnect | State::Connected => {}
            }
            match self.builder.feed(&mut cursor) {
                PacketBuildResult::Incomplete => break,
                PacketBuildResult::Complete(raw) => {
                    heard = true;
                    if let Err(refusal) = self.packet(&raw, events) {
                        self.fail(refusal, events);
                    }
                }
                PacketBuildResult::Error(MqttError::PacketTooLarge) => {
                    let text = format!("a packet over {} bytes (Maximum Packet Size)", self.builder.maximum_packet_size());
                    self.fail(Refusal::new(Reason::PacketTooLarge, text), events);
                }
                PacketBuildResult::Error(e) => self.fail(wire::malformed("packet header", e), events),
            }
        }
        if heard && self.keep_alive_s > 0 {
            events.push(Event::SetTimer(self.timeout()));
        }
    }

    fn hold(&mut self, bytes: &[u8], events: &mut Vec<Event>) {
        if self.held.len() + bytes.len() > self.limits.packet_bytes_max as usize {
            let text = format!("more than {} bytes before CONNACK", self.limits.packet_bytes_max);
            return self.fail(Refusal::new(Reason::QuotaExceeded, text), events);
        }
        self.held.extend_from_slice(bytes);
    }

    fn packet(&mut self, raw: &RawPacket, events: &mut Vec<Event>) -> Result<(), Refusal> {
        if self.state == State::AwaitsConnect {
            return self.on_connect(raw, events);
        }
        let version = self.version();
        match wire::decode(version, raw)? {
            Incoming::Publish(p) => self.on_publish(p, events),
            Incoming::Puback { packet_id, refused } => {
                let known = self.outbound.acknowledged(packet_id);
                self.acknowledged("PUBACK", packet_id, known, refused)
            }
            Incoming::Pubrec { packet_id, refused } => match self.outbound.received(packet_id, refused) {
                Received::Release => self.answer(|_| encode::pubrel(version, packet_id, true)),
                Received::Done => self.acknowledged("PUBREC", packet_id, true, true),
                Received::Unknown if version == Version::V5 => self.answer(|_| encode::pubrel(version, packet_id, false)),
                Received::Unknown => self.acknowledged("PUBREC", packet_id, false, refused),
            },
            Incoming::Pubcomp { packet_id } => {
                let known = self.outbound.completed(packet_id);
                self.acknowledged("PUBCOMP", packet_id, known, false)
            }
            Incoming::Pubrel { packet_id } => {
                let known = self.inbound.released(packet_id)?;
                self.answer(|_| encode::pubcomp(version, packet_id, known))
            }
            Incoming::Subscribe { packet_id, entries, identified } => self.on_subscribe(packet_id, &entries, identified, events),
            Incoming::Unsubscribe { packet_id, filters } => self.on_unsubscribe(packet_id, &filters, events),
            Incoming::Pingreq => self.answer(|_| encode::pingresp()),
            Incoming::Disconnect { with_will } => {
                self.end(if with_will { Cause::LeftWithWill } else { Cause::Left }, events);
                Ok(())
            }
        }
    }

    fn on_connect(&mut self, raw: &RawPacket, events: &mut Vec<Event>) -> Result<(), Refusal> {
        let version = match wire::hello(raw) {
            Hello::Speaks(version) => version,
            Hello::Other { level, form } => {
                self.version = Some(form);
                let text = format!("expected MQTT 3.1.1 (protocol level 4) or 5, found protocol level {level}");
                return Err(Refusal::new(Reason::UnsupportedProtocolVersion, text));
            }
            Hello::NotMqtt => return Err(Refusal::new(Reason::MalformedPacket, "CONNECT: expected the protocol name `MQTT`")),
        };
        self.version = Some(version);
        let c = wire::decode_connect(version, raw)?;
        self.client_bytes_max = c.packet_bytes_max.map_or(MQTT_PACKET_BYTES_MAX, |b| b as usize).min(MQTT_PACKET_BYTES_MAX);
        let will = check_connect(version, &c)?;
        self.wants_problem_text = c.wants_problem_text;
        self.asked_session_expiry = c.session_expiry_s > 0;
        self.outbound = Outbound::new(self.limits.in_flight_max.min(c.receive_max));
        self.keep_alive_s = match (version, c.keep_alive_s) {
            (Version::V5, asked) if asked == 0 || asked > self.limits.keep_alive_s_max => self.limits.keep_alive_s_max,
            (_, asked) => asked,
        };
        self.keep_alive_imposed = self.keep_alive_s != c.keep_alive_s;
        self.assigned = c.client_id.is_empty();
        self.will.clone_from(&will);
        self.state = State::Deciding;
        events.push(Event::Connect(ConnectRequest {
            version,
            client_id: if self.assigned { self.spare_client_id.clone() } else { c.client_id },
            client_id_assigned: self.assigned,
            clean_start: c.clean_start,
            session_expiry_s: c.session_expiry_s,
            user_name: c.user_name,
            password: c.password,
            will,
        }));
        Ok(())
    }

    /// What is announced to an MQTT 5 client (section 3.2.2.3): nothing is promised that is not done.
    fn connack_properties(&self) -> Properties {
        const CHECKED: &str = "the limits are checked in `new`";
        let mut props: Properties = vec![
            Property::ReceiveMaximum(ReceiveMaximum::new(self.limits.receive_max).expect(CHECKED)),
            Property::MaximumPacketSize(MaximumPacketSize::new(self.limits.packet_bytes_max).expect(CHECKED)),
            Property::TopicAliasMaximum(TopicAliasMaximum::new(self.limits.topic_alias_max).expect(CHECKED)),
            Property::RetainAvailable(RetainAvailable::new(0).expect(CHECKED)),
            Property::SharedSubscriptionAvailable(SharedSubscriptionAvailable::new(0).expect(CHECKED)),
            Property::SubscriptionIdentifierAvailable(SubscriptionIdentifierAvailable::new(0).expect(CHECKED)),
        ];
        if self.assigned {
            props.push(Property::AssignedClientIdentifier(AssignedClientIdentifier::new(self.spare_client_id.as_str()).expect(CHECKED)));
        }
        if self.asked_session_expiry {
            props.push(Property::SessionExpiryInterval(SessionExpiryInterval::new(0).expect(CHECKED)));
        }
        if self.keep_alive_imposed {
            props.push(Property::ServerKeepAlive(ServerKeepAlive::new(self.keep_alive_s).expect(CHECKED)));
        }
        props
    }

    fn on_publish(&mut self, p: IncomingPublish, events: &mut Vec<Event>) -> Result<(), Refusal> {
        let version = self.version();
        if p.retain && version == Version::V5 {
            return Err(Refusal::new(Reason::RetainNotSupported, "PUBLISH: retained messages are not kept (Retain Available 0)"));
        }
        let topic = self.topic_of(&p)?;
        let mut publish = Publish { topic, payload: p.payload, qos: p.qos, retain: p.retain, dup: p.dup, packet_id: None };
        if p.qos != Qos::AtMostOnce {
            publish.packet_id = Some(p.packet_id);
            match self.inbound.arrived(p.packet_id, p.qos, p.dup)? {
                Arrival::New => {}
                Arrival::Repeated => {
                    self.counters.repeated += 1;
                    return Ok(());
                }
                Arrival::RepeatedRecorded => {
                    self.counters.repeated += 1;
                    return self.answer(|_| encode::first_ack(version, Qos::ExactlyOnce, p.packet_id, None, false));
                }
            }
        }
        self.counters.received += 1;
        events.push(Event::Publish(publish));
        Ok(())
    }

    fn topic_of(&mut self, p: &IncomingPublish) -> Result<TopicName, Refusal> {
        let Some(alias) = p.alias else {
            return p.topic.parse().map_err(|e| Refusal::new(Reason::TopicNameInvalid, format!("PUBLISH: {e}")));
        };
        if alias == 0 || alias > self.limits.topic_alias_max {
            let text = format!("PUBLISH: expected a topic alias of 1 to {}, found {alias}", self.limits.topic_alias_max);
            return Err(Refusal::new(Reason::TopicAliasInvalid, text));
        }
        if p.topic.is_empty() {
            return self.aliases.get(&alias).cloned().ok_or_else(|| {
                Refusal::new(Reason::TopicAliasInvalid, format!("PUBLISH: topic alias {alias} was not set on this connection"))
            });
        }
        let topic: TopicName = p.topic.parse().map_err(|e| Refusal::new(Reason::TopicNameInvalid, format!("PUBLISH: {e}")))?;
        self.aliases.insert(alias, topic.clone());
        Ok(topic)
    }

    fn on_subscribe(
        &mut self,
        packet_id: u16,
        entries: &[IncomingFilter],
        identified: bool,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        if identified {
            let text = "SUBSCRIBE: subscription identifiers are not offered (Subscription Identifier Available 0)";
            return Err(Refusal::new(Reason::SubscriptionIdentifiersNotSupported, text));
        }
        let mut filters = Vec::new();
        let mut known = Vec::with_capacity(entries.len());
        for e in entries {
            known.push(match e.filter.parse() {
                Ok(SubscriptionFilter { share_group: None, filter }) => {
                    filters.push(FilterRequest { filter, qos: e.qos, no_local: e.no_local });
                    None
                }
                Ok(_) => Some(Reason::SharedSubscriptionsNotSupported),
                Err(_) => Some(Reason::TopicFilterInvalid),
            });
        }
        if filters.is_empty() {
            let all: Vec<_> = known.into_iter().flatten().map(Err).collect();
            let suback = encode::suback(self.version(), packet_id, &all);
            return self.answer(|_| suback.clone());
        }
        self.put_request("SUBSCRIBE", packet_id, Request::Subscribe(known))?;
        events.push(Event::Subscribe(SubscribeRequest { packet_id, filters }));
        Ok(())
    }

    fn on_unsubscribe(&mut self, packet_id: u16, texts: &[String], events: &mut Vec<Event>) -> Result<(), Refusal> {
        let mut filters = Vec::new();
        let mut known = Vec::with_capacity(texts.len());
        for text in texts {
            known.push(match text.parse() {
                Ok(SubscriptionFilter { share_group: None, filter }) => {
                    filters.push(filter);
                    None
                }
                Ok(_) => Some(Ok(false)),
                Err(_) => Some(Err(Reason::TopicFilterInvalid)),
            });
        }
        if filters.is_empty() {
            let all: Vec<_> = known.into_iter().flatten().collect();
            let unsuback = encode::unsuback(self.version(), packet_id, &all);
            return self.answer(|_| unsuback.clone());
        }
        self.put_request("UNSUBSCRIBE", packet_id, Request::Unsubscribe(known))?;
        events.push(Event::Unsubscribe(UnsubscribeRequest { packet_id, filters }));
        Ok(())
    }

    fn put_request(&mut self, name: &str, packet_id: u16, request: Request) -> Result<(), Refusal> {
        if self.requests.len() >= self.limits.requests_max {
            let text = format!("{name}: {} requests wait for their answer already", self.limits.requests_max);
            return Err(Refusal::new(Reason::QuotaExceeded, text));
        }
        if self.requests.insert(packet_id, request).is_some() {
            let text = format!("{name}: packet identifier {packet_id} is in use by a request that is not yet answered");
            return Err(Refusal::new(Reason::ProtocolError, text));
        }
        Ok(())
    }

    fn take_request(&mut self, packet_id: u16, is_it: impl Fn(&Request) -> bool) -> Option<Request> {
        if self.requests.get(&packet_id).is_some_and(is_it) { self.requests.remove(&packet_id) } else { None }
    }

    fn acknowledged(&mut self, name: &str, packet_id: u16, known: bool, refused: bool) -> Result<(), Refusal> {
        if !known {
            return Err(Refusal::new(
                Reason::ProtocolError,
                format!("{name} for packet identifier {packet_id}, under which nothing was sent"),
            ));
        }
        if refused {
            self.counters.refused_by_client += 1;
        }
        self.pump();
        Ok(())
    }

    /// Moves waiting messages to the output as far as the client's Receive Maximum and the output's size allow.
    fn pump(&mut self) {
        let version = self.version();
        while self.output.len() < self.limits.output_bytes_max {
            let Some((packet_id, m)) = self.outbound.next() else { return };
            let p = OutgoingPublish { topic: &m.topic, payload: &m.payload, qos: m.qos, retain: m.retain, packet_id };
            self.output.extend(encode::publish(version, &p));
            self.counters.sent += 1;
        }
    }

    /// Puts an answer into the output, without its text if the client does not take so large packets (MQTT-3.4.2-2).
    fn answer(&mut self, packet: impl Fn(bool) -> Vec<u8>) -> Result<(), Refusal> {
        let mut bytes = packet(true);
        if bytes.len() > self.client_bytes_max {
            bytes = packet(false);
        }
        if bytes.len() > self.client_bytes_max {
            let text = format!("an answer of {} bytes is larger than the client takes ({})", bytes.len(), self.client_bytes_max);
            return Err(Refusal::new(Reason::PacketTooLarge, text));
        }
        // Messages stop at `output_bytes_max`; a client that goes on asking without ever reading answers must not fill the memory either.
        if self.output.len() + bytes.len()
            > self.limits.output_bytes_max.saturating_mul(2).saturating_add(self.limits.packet_bytes_max as usize)
        {
            return Err(Refusal::new(Reason::QuotaExceeded, format!("{} bytes of answers were not read", self.output.len())));
        }
        self.output.extend(bytes);
        Ok(())
    }

    fn send_or_fail(&mut self, packet: &[u8], events: &mut Vec<Event>) {
        if let Err(refusal) = self.answer(|_| packet.to_vec()) {
            self.fail(refusal, events);
        }
    }

    /// Ends the connection with a reason, said to the client as far as its version can hear it now.
    fn fail(&mut self, refusal: Refusal, events: &mut Vec<Event>) {
        let notice = |with_text: bool| match (self.state, self.version) {
            (State::Connected, Some(Version::V5)) => Some(encode::disconnect_v5(&refusal, with_text)),
            (State::AwaitsConnect | State::Deciding, Some(Version::V5)) => Some(encode::connack_v5_refused(&refusal, with_text)),
            (State::Deciding, Some(Version::V3)) => Some(encode::connack_v3(Some(refusal.reason))),
            // A CONNECT that is malformed gets no answer in MQTT 3.1.1; one that is refused for what it says does (section 3.2.2.3).
            (State::AwaitsConnect, Some(Version::V3)) => {
                let said = matches!(
                    refusal.reason,
                    Reason::UnsupportedProtocolVersion
                        | Reason::ClientIdentifierNotValid
                        | Reason::BadUserNameOrPassword
                        | Reason::TopicNameInvalid
                );
                said.then(|| encode::connack_v3(Some(refusal.reason)))
            }
            _ => None,
        };
        let fits = |bytes: &Vec<u8>| bytes.len() <= self.client_bytes_max;
        if let Some(bytes) = notice(true).filter(fits).or_else(|| notice(false).filter(fits)) {
            self.output.extend(bytes);
        }
        self.end(Cause::Refused(refusal), events);
    }

    fn end(&mut self, cause: Cause, events: &mut Vec<Event>) {
        if self.state == State::Ended {
            return;
        }
        // A client that was never accepted has no will.
        let will = self.will.take().filter(|_| self.state == State::Connected && cause != Cause::Left);
        self.state = State::Ended;
        self.held = Vec::new();
        events.push(Event::Ended(Ended { cause, will, n_undelivered: self.outbound.n_undelivered() }));
    }
}

/// What the codec does not check in a CONNECT; gives the will.
fn check_connect(version: Version, c: &IncomingConnect) -> Result<Option<Will>, Refusal> {
    if let Some(method) = &c.auth_method {
        return Err(Refusal::new(
            Reason::BadAuthenticationMethod,
            format!("authentication method `{}` is not offered", method.escape_debug()),
        ));
    }
    if c.client_id.len() > CLIENT_ID_BYTES_MAX {
        let text = format!("a client identifier of {} bytes is longer than the limit of {CLIENT_ID_BYTES_MAX}", c.client_id.len());
        return Err(Refusal::new(Reason::ClientIdentifierNotValid, text));
    }
    if version == Version::V3 && c.client_id.is_empty() && !c.clean_start {
        // MQTT-3.1.3-8.
        return Err(Refusal::new(Reason::ClientIdentifierNotValid, "a client without identifier must ask for a clean session"));
    }
    let Some(will) = &c.will else { return Ok(None) };
    let topic = will.topic.parse().map_err(|e| Refusal::new(Reason::TopicNameInvalid, format!("will: {e}")))?;
    if will.retain && version == Version::V5 {
        return Err(Refusal::new(Reason::RetainNotSupported, "will: retained messages are not kept"));
    }
    Ok(Some(Will { topic, payload: will.payload.clone(), qos: will.qos, retain: will.retain, delay_s: will.delay_s }))
}
