//! A client that publishes, MQTT 3.1.1 and 5, from bytes to events and back: for notifications to somebody else's broker.
//!
//! Like the server's side it moves no bytes and keeps no time: whoever has the socket feeds it, writes what [`Client::take_output`] gives, and calls
//! [`Client::ping`] every half of the keep-alive time.

use mqtt_protocol_core::mqtt;
use mqtt_protocol_core::mqtt::Connection;
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::Event;
use mqtt_protocol_core::mqtt::packet::{Packet, Property, Qos as WireQos, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::prelude::*;
use mqtt_protocol_core::mqtt::result_code::{ConnectReasonCode, ConnectReturnCode, MqttError};
use mqtt_protocol_core::mqtt::role;

use crate::connection::Version;
use crate::topic::{Qos, TopicName};

/// Messages that may be unacknowledged at a time, if the broker allows as many.
pub const CLIENT_IN_FLIGHT_MAX: u16 = 16;

/// How a client introduces itself. Without `Debug`: the password stays out of logs.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientOptions {
    /// The version that it speaks.
    pub version: Version,
    /// Its id, different from every other client's of the broker.
    pub client_id: String,
    /// User name and password.
    pub login: Option<(String, String)>,
    /// The broker may end the connection when it has heard nothing for half as long again, seconds.
    pub keep_alive_s: u16,
}

/// Something that a client wants to send does not fit the protocol, or the broker's limits.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{what}")]
pub struct ClientError {
    /// What does not fit.
    pub what: String,
}

/// What the broker said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientEvent {
    /// It has accepted the client.
    Connected,
    /// It has taken a message of QoS 1 or 2.
    Acknowledged {
        /// Which.
        packet_id: u16,
    },
    /// It does not want a message.
    Refused {
        /// Which.
        packet_id: u16,
        /// Why.
        reason: String,
    },
    /// The connection is over, or did not come about.
    Ended {
        /// Why.
        reason: String,
    },
}

/// A connection to a broker.
pub struct Client {
    mqtt: Connection<role::Client>,
    version: Version,
    output: Vec<u8>,
    events: Vec<ClientEvent>,
    qos_max: u8,
    in_flight_max: u16,
}

impl Client {
    /// A client whose first bytes are in the output.
    ///
    /// Errors: the options do not fit in a CONNECT packet.
    pub fn new(options: &ClientOptions) -> Result<Self, ClientError> {
        let wire = match options.version {
            Version::V3 => mqtt::Version::V3_1_1,
            Version::V5 => mqtt::Version::V5_0,
        };
        let mut mqtt = Connection::<role::Client>::new(wire);
        mqtt.set_auto_pub_response(true);
        let mut client = Self {
            mqtt,
            version: options.version,
            output: Vec::new(),
            events: Vec::new(),
            qos_max: 2,
            in_flight_max: CLIENT_IN_FLIGHT_MAX,
        };
        match connect(options).map_err(wrong)? {
            Connect::V3(packet) => client.send(packet)?,
            Connect::V5(packet) => client.send(packet)?,
        }
        Ok(client)
    }

    /// Messages of QoS 1 or 2 that may be unacknowledged at a time; known once the client is connected.
    #[must_use]
    pub const fn in_flight_max(&self) -> u16 {
        self.in_flight_max
    }

    /// Puts a message into the output; returns its packet id, none for QoS 0.
    ///
    /// Errors: it does not fit the protocol or the broker's limits; nothing was put there.
    pub fn publish(&mut self, topic: &TopicName, payload: &[u8], qos: Qos) -> Result<Option<u16>, ClientError> {
        if qos as u8 > self.qos_max {
            return Err(ClientError { what: format!("the broker takes no messages of QoS {}, at most {}", qos as u8, self.qos_max) });
        }
        let packet_id = match qos {
            Qos::AtMostOnce => None,
            Qos::AtLeastOnce | Qos::ExactlyOnce => Some(self.mqtt.acquire_packet_id().map_err(wrong)?),
        };
        let wire = match qos {
            Qos::AtMostOnce => WireQos::AtMostOnce,
            Qos::AtLeastOnce => WireQos::AtLeastOnce,
            Qos::ExactlyOnce => WireQos::ExactlyOnce,
        };
        macro_rules! publish {
            ($version:ident) => {{
                let built = $version::Publish::builder().topic_name(topic.as_str()).and_then(|b| {
                    let b = b.payload(payload).qos(wire);
                    match packet_id {
                        Some(id) => b.packet_id(id).build(),
                        None => b.build(),
                    }
                });
                built.map_err(wrong).and_then(|packet| self.send(packet))
            }};
        }
        let sent = match self.version {
            Version::V3 => publish!(v3_1_1),
            Version::V5 => publish!(v5_0),
        };
        if let (Err(_), Some(id)) = (&sent, packet_id) {
            let events = self.mqtt.release_packet_id(id);
            self.take(events);
        }
        sent.map(|()| packet_id)
    }

    /// Takes in what came from the broker.
    pub fn receive(&mut self, bytes: &[u8]) -> Vec<ClientEvent> {
        let mut cursor = Cursor::new(bytes);
        while cursor.position() < bytes.len() as u64 {
            let before = cursor.position();
            let events = self.mqtt.recv(&mut cursor);
            self.take(events);
            let is_over = self.events.iter().any(|e| matches!(e, ClientEvent::Ended { .. }));
            if is_over || cursor.position() == before {
                break;
            }
        }
        std::mem::take(&mut self.events)
    }

    /// What is to be written to the broker.
    #[must_use]
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Puts a sign of life into the output.
    pub fn ping(&mut self) {
        let sent = match self.version {
            Version::V3 => v3_1_1::Pingreq::builder().build().map_err(wrong).and_then(|p| self.send(p)),
            Version::V5 => v5_0::Pingreq::builder().build().map_err(wrong).and_then(|p| self.send(p)),
        };
        // Before the broker has accepted the client there is nothing to keep alive.
        drop(sent);
    }

    /// Puts a goodbye into the output.
    pub fn disconnect(&mut self) {
        let sent = match self.version {
            Version::V3 => v3_1_1::Disconnect::builder().build().map_err(wrong).and_then(|p| self.send(p)),
            Version::V5 => v5_0::Disconnect::builder().build().map_err(wrong).and_then(|p| self.send(p)),
        };
        // The connection ends in any case.
        drop(sent);
    }

    fn send<T>(&mut self, packet: T) -> Result<(), ClientError>
    where
        T: Sendable<role::Client, u16>,
    {
        let events = self.mqtt.checked_send(packet);
        let error = events.iter().find_map(|e| match e {
            Event::NotifyError(e) => Some(wrong(*e)),
            _ => None,
        });
        if let Some(error) = error {
            return Err(error);
        }
        self.take(events);
        Ok(())
    }

    /// Carries out what the protocol machine asks for. Its timers are ours: see [`Self::ping`].
    fn take(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::RequestSendPacket { packet, .. } => self.output.extend_from_slice(&packet.to_continuous_buffer()),
                Event::NotifyPacketReceived(packet) => self.take_packet(packet),
                Event::NotifyError(e) => self.ended(format!("protocol error: {e}")),
                Event::RequestClose => self.ended("the connection was closed".to_owned()),
                Event::NotifyPacketIdReleased(_) | Event::RequestTimerReset { .. } | Event::RequestTimerCancel(_) => {}
            }
        }
    }

    /// The first reason is the right one; the others follow from it.
    fn ended(&mut self, reason: String) {
        if !self.events.iter().any(|e| matches!(e, ClientEvent::Ended { .. })) {
            self.events.push(ClientEvent::Ended { reason });
        }
    }

    fn take_packet(&mut self, packet: Packet) {
        match packet {
            Packet::V3_1_1Connack(p) => match p.return_code() {
                ConnectReturnCode::Accepted => self.events.push(ClientEvent::Connected),
                code => self.ended(format!("the broker does not accept the client: {code}")),
            },
            Packet::V5_0Connack(p) => match p.reason_code() {
                ConnectReasonCode::Success => {
                    for property in p.props() {
                        match property {
                            Property::ReceiveMaximum(max) => self.in_flight_max = self.in_flight_max.min(max.val()),
                            Property::MaximumQos(max) => self.qos_max = max.val(),
                            _ => {}
                        }
                    }
                    self.events.push(ClientEvent::Connected);
                }
                code => self.ended(format!("the broker does not accept the client: {code}")),
            },
            Packet::V3_1_1Puback(p) => self.events.push(ClientEvent::Acknowledged { packet_id: p.packet_id() }),
            Packet::V3_1_1Pubcomp(p) => self.events.push(ClientEvent::Acknowledged { packet_id: p.packet_id() }),
            Packet::V5_0Puback(p) => {
                let refusal = p.reason_code().filter(|c| c.is_failure()).map(|c| c.to_string());
                self.answered(p.packet_id(), refusal);
            }
            Packet::V5_0Pubrec(p) => {
                if let Some(code) = p.reason_code().filter(|c| c.is_failure()) {
                    self.answered(p.packet_id(), Some(code.to_string()));
                }
            }
            Packet::V5_0Pubcomp(p) => {
                let refusal = p.reason_code().filter(|c| c.is_failure()).map(|c| c.to_string());
                self.answered(p.packet_id(), refusal);
            }
            Packet::V5_0Disconnect(p) => {
                let code = p.reason_code().map(|c| format!(": {c}")).unwrap_or_default();
                self.ended(format!("the broker ended the connection{code}"));
            }
            _ => {}
        }
    }

    fn answered(&mut self, packet_id: u16, refusal: Option<String>) {
        self.events.push(match refusal {
            None => ClientEvent::Acknowledged { packet_id },
            Some(reason) => ClientEvent::Refused { packet_id, reason },
        });
    }
}

enum Connect {
    V3(v3_1_1::Connect),
    V5(v5_0::Connect),
}

fn connect(options: &ClientOptions) -> Result<Connect, MqttError> {
    macro_rules! connect {
        ($version:ident) => {{
            let mut b =
                $version::Connect::builder().client_id(options.client_id.as_str())?.clean_start(true).keep_alive(options.keep_alive_s);
            if let Some((user, password)) = &options.login {
                b = b.user_name(user.as_str())?.password(password.as_str())?;
            }
            b.build()?
        }};
    }
    Ok(match options.version {
        Version::V3 => Connect::V3(connect!(v3_1_1)),
        Version::V5 => Connect::V5(connect!(v5_0)),
    })
}

fn wrong(e: MqttError) -> ClientError {
    ClientError { what: e.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{Event as ServerEvent, Limits, ServerConnection};

    fn options(version: Version) -> ClientOptions {
        ClientOptions { version, client_id: "me".to_owned(), login: Some(("user".to_owned(), "secret".to_owned())), keep_alive_s: 60 }
    }

    /// Moves bytes until nobody says anything more; acknowledges or refuses what the server gets.
    fn talk(client: &mut Client, server: &mut ServerConnection, refuse: bool) -> (Vec<ClientEvent>, Vec<ServerEvent>) {
        let (mut of_client, mut of_server) = (Vec::new(), Vec::new());
        loop {
            let to_server = client.take_output();
            let mut events = server.receive(&to_server);
            for i in 0..events.len() {
                match &events[i] {
                    ServerEvent::Connect(_) => events.extend(server.accept()),
                    ServerEvent::Publish(p) => {
                        if let Some(id) = p.packet_id {
                            let outcome = if refuse { Err(crate::Reason::NotAuthorized.into()) } else { Ok(()) };
                            events.extend(server.acknowledge(id, outcome));
                        }
                    }
                    _ => {}
                }
            }
            of_server.extend(events);
            let to_client = server.take_output();
            if to_server.is_empty() && to_client.is_empty() {
                return (of_client, of_server);
            }
            of_client.extend(client.receive(&to_client));
        }
    }

    #[test]
    fn messages_of_every_quality_and_version_arrive_and_are_acknowledged() {
        for version in [Version::V3, Version::V5] {
            let mut server = ServerConnection::new(Limits::default(), "spare".to_owned());
            let mut client = Client::new(&options(version)).unwrap();
            let (events, at_server) = talk(&mut client, &mut server, false);
            assert_eq!(events, [ClientEvent::Connected], "{version:?}");
            let login = at_server.iter().find_map(|e| match e {
                ServerEvent::Connect(c) => Some((c.user_name.clone(), c.password.clone())),
                _ => None,
            });
            assert_eq!(login.unwrap(), (Some("user".to_owned()), Some(b"secret".to_vec())));
            for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
                let id = client.publish(&"a/b".parse().unwrap(), b"text", qos).unwrap();
                let (events, at_server) = talk(&mut client, &mut server, false);
                let got: Vec<_> = at_server
                    .iter()
                    .filter_map(|e| match e {
                        ServerEvent::Publish(p) => Some((p.topic.as_str().to_owned(), p.payload.to_vec())),
                        _ => None,
                    })
                    .collect();
                assert_eq!(got, [("a/b".to_owned(), b"text".to_vec())], "{version:?} {qos:?}");
                let want: Vec<_> = id.map(|packet_id| ClientEvent::Acknowledged { packet_id }).into_iter().collect();
                assert_eq!(events, want, "{version:?} {qos:?}");
            }
            client.ping();
            assert!(talk(&mut client, &mut server, false).0.is_empty());
        }
    }

    #[test]
    fn what_the_broker_refuses_is_known_in_version_5() {
        let mut server = ServerConnection::new(Limits::default(), "spare".to_owned());
        let mut client = Client::new(&options(Version::V5)).unwrap();
        talk(&mut client, &mut server, false);
        for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
            let id = client.publish(&"a/b".parse().unwrap(), b"text", qos).unwrap().unwrap();
            let (events, _) = talk(&mut client, &mut server, true);
            assert!(matches!(&events[..], [ClientEvent::Refused { packet_id, .. }] if *packet_id == id), "{qos:?} {events:?}");
        }
    }

    #[test]
    fn garbage_ends_the_connection() {
        for version in [Version::V3, Version::V5] {
            let mut client = Client::new(&options(version)).unwrap();
            let events = client.receive(&[0xff; 64]);
            assert!(matches!(&events[..], [ClientEvent::Ended { .. }]), "{events:?}");
        }
    }
}
