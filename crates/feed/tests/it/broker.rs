//! A scripted MQTT 5 broker in memory, to see what a real one does only at bad moments.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::Event;
use mqtt_protocol_core::mqtt::packet::{MaximumPacketSize, MaximumQos, Packet, Property, ReceiveMaximum, v5_0};
use mqtt_protocol_core::mqtt::prelude::*;
use mqtt_protocol_core::mqtt::result_code::{ConnectReasonCode, DisconnectReasonCode, PubackReasonCode};
use mqtt_protocol_core::mqtt::{Connection, Version, role};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

/// What the broker does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Ack,
    Refuse(PubackReasonCode),
    /// Closes the connection without acknowledging this message or any still held back.
    Cut,
    /// Sends DISCONNECT.
    Disconnect(DisconnectReasonCode),
    Silence,
}

/// A message as it arrived.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Received {
    pub(crate) connection: usize,
    pub(crate) topic: String,
    pub(crate) payload: String,
    pub(crate) after: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) received: Vec<Received>,
    pub(crate) n_connections: usize,
    pub(crate) n_pings: usize,
    pub(crate) n_goodbyes: usize,
    pub(crate) n_unacknowledged_max: usize,
    pub(crate) login: Option<(String, String)>,
}

/// The answer to a message, by its number among all received and its payload.
type Answering = dyn Fn(usize, &str) -> Answer + Send + Sync;

/// How the broker behaves.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) answer: Arc<Answering>,
    pub(crate) connack: ConnectReasonCode,
    pub(crate) properties: Vec<Property>,
    /// Acknowledgements are held back until nothing has come for this long.
    pub(crate) hold: Duration,
    pub(crate) answers_pings: bool,
    /// Connections (counted from 0) that cannot be made.
    pub(crate) unreachable: std::ops::Range<usize>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            answer: Arc::new(|_, _| Answer::Ack),
            connack: ConnectReasonCode::Success,
            properties: Vec::new(),
            hold: Duration::ZERO,
            answers_pings: true,
            unreachable: 0..0,
        }
    }
}

impl Script {
    pub(crate) fn answering(answer: impl Fn(usize, &str) -> Answer + Send + Sync + 'static) -> Self {
        Self { answer: Arc::new(answer), ..Self::default() }
    }
}

pub(crate) fn receive_maximum(n: u16) -> Property {
    ReceiveMaximum::new(n).unwrap().into()
}

pub(crate) fn maximum_packet_size(n: u32) -> Property {
    MaximumPacketSize::new(n).unwrap().into()
}

pub(crate) fn maximum_qos_0() -> Property {
    MaximumQos::new(0).unwrap().into()
}

/// The broker: something to connect with, and what it has seen.
#[derive(Clone)]
pub(crate) struct Broker {
    script: Script,
    seen: Arc<Mutex<Seen>>,
    started: Instant,
}

impl Broker {
    pub(crate) fn new(script: Script) -> Self {
        Self { script, seen: Arc::default(), started: Instant::now() }
    }

    pub(crate) fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// Waits for the DISCONNECT that ends a clean play; all that was sent before it has arrived then.
    pub(crate) async fn goodbye(&self) {
        let said = async {
            while self.seen().n_goodbyes == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), said).await.expect("the player says goodbye");
    }

    /// For [`feed::player::play_over`].
    pub(crate) fn connector(&self) -> impl FnMut() -> std::future::Ready<io::Result<DuplexStream>> + use<> {
        let broker = self.clone();
        move || {
            let number = broker.seen().n_connections;
            broker.seen().n_connections += 1;
            if broker.script.unreachable.contains(&number) {
                return std::future::ready(Err(io::Error::from(io::ErrorKind::ConnectionRefused)));
            }
            let (client, server) = tokio::io::duplex(4_096);
            tokio::spawn(Session::new(broker.clone(), number).serve(server));
            std::future::ready(Ok(client))
        }
    }
}

struct Session {
    broker: Broker,
    number: usize,
    mqtt: Connection<role::Server>,
    outbox: Vec<u8>,
    held: Vec<(u16, PubackReasonCode)>,
    closed: bool,
}

impl Session {
    fn new(broker: Broker, number: usize) -> Self {
        let mut mqtt = Connection::new(Version::V5_0);
        mqtt.set_auto_ping_response(broker.script.answers_pings);
        Self { broker, number, mqtt, outbox: Vec::new(), held: Vec::new(), closed: false }
    }

    async fn serve(mut self, mut stream: DuplexStream) {
        let mut inbox = [0; 2_048];
        while !self.closed {
            let quiet = tokio::time::sleep(self.broker.script.hold);
            tokio::select! {
                biased;
                read = stream.read(&mut inbox) => match read {
                    Ok(n) if n > 0 => self.received(&inbox[..n]),
                    _ => return,
                },
                () = quiet, if !self.held.is_empty() => self.acknowledge(),
            }
            if stream.write_all(&std::mem::take(&mut self.outbox)).await.is_err() {
                return;
            }
        }
    }

    fn received(&mut self, bytes: &[u8]) {
        let mut cursor = Cursor::new(bytes);
        while cursor.position() < bytes.len() as u64 && !self.closed {
            let events = self.mqtt.recv(&mut cursor);
            self.handle(events);
        }
    }

    fn acknowledge(&mut self) {
        for (packet_id, code) in std::mem::take(&mut self.held) {
            let puback = v5_0::Puback::builder().packet_id(packet_id).reason_code(code).build().unwrap();
            let events = self.mqtt.checked_send(puback);
            self.handle(events);
        }
    }

    fn handle(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::RequestSendPacket { packet, .. } => self.outbox.extend(packet.to_continuous_buffer()),
                Event::NotifyPacketReceived(packet) => self.packet(packet),
                Event::NotifyError(error) => panic!("the client broke the protocol: {error}"),
                Event::RequestClose => self.closed = true,
                _ => {}
            }
        }
    }

    fn packet(&mut self, packet: Packet) {
        match packet {
            Packet::V5_0Connect(connect) => {
                let login = connect.user_name().zip(connect.password());
                self.broker.seen().login = login.map(|(name, password)| (name.to_owned(), String::from_utf8(password.to_vec()).unwrap()));
                let connack = v5_0::Connack::builder()
                    .session_present(false)
                    .reason_code(self.broker.script.connack)
                    .props(self.broker.script.properties.clone())
                    .build()
                    .unwrap();
                let events = self.mqtt.checked_send(connack);
                self.handle(events);
            }
            Packet::V5_0Publish(publish) => self.publish(&publish),
            Packet::V5_0Pingreq(_) => self.broker.seen().n_pings += 1,
            Packet::V5_0Disconnect(_) => {
                self.broker.seen().n_goodbyes += 1;
                self.closed = true;
            }
            other => panic!("unexpected packet {other}"),
        }
    }

    fn publish(&mut self, publish: &v5_0::Publish) {
        let payload = String::from_utf8(publish.payload().as_slice().to_vec()).unwrap();
        let number = {
            let mut seen = self.broker.seen();
            let after = self.broker.started.elapsed();
            let received = Received { connection: self.number, topic: publish.topic_name().to_owned(), payload: payload.clone(), after };
            seen.received.push(received);
            seen.received.len() - 1
        };
        let answer = (self.broker.script.answer)(number, &payload);
        match (publish.packet_id(), answer) {
            (_, Answer::Cut) => self.closed = true,
            (_, Answer::Disconnect(code)) => {
                let disconnect = v5_0::Disconnect::builder().reason_code(code).build().unwrap();
                let events = self.mqtt.checked_send(disconnect);
                self.handle(events);
            }
            (None, _) | (_, Answer::Silence) => {}
            (Some(packet_id), Answer::Ack) => self.held.push((packet_id, PubackReasonCode::Success)),
            (Some(packet_id), Answer::Refuse(code)) => self.held.push((packet_id, code)),
        }
        let mut seen = self.broker.seen();
        seen.n_unacknowledged_max = seen.n_unacknowledged_max.max(self.held.len());
    }
}
