use mqtt_protocol_core::mqtt::packet::{self as core, SubEntry, SubOpts, v3_1_1, v5_0};
use proptest::prelude::*;

use super::*;

mod flows;
mod garbage;
mod refusals;

const V3: Version = Version::V3;
const V5: Version = Version::V5;
const BOTH: [Version; 2] = [V3, V5];

/// A client in a box: the connection under test, and what it wrote that is not looked at yet.
struct Peer {
    version: Version,
    server: ServerConnection,
    written: Vec<u8>,
}

/// A packet from the server, as far as the tests look at it.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Got {
    Connack { code: u8, text: String },
    Publish { topic: String, payload: Vec<u8>, qos: u8, packet_id: u16 },
    Puback(u16, u8, String),
    Pubrec(u16, u8),
    Pubrel(u16, u8),
    Pubcomp(u16, u8),
    Suback(u16, Vec<u8>),
    Unsuback(u16, Vec<u8>),
    Pingresp,
    Disconnect { code: u8, text: String },
}

impl Peer {
    fn new(version: Version, limits: Limits) -> Self {
        Self { version, server: ServerConnection::new(limits, "spare-1".into()), written: Vec::new() }
    }

    /// A client that is accepted.
    fn connected(version: Version) -> Self {
        Self::connected_with(version, Limits::default())
    }

    fn connected_with(version: Version, limits: Limits) -> Self {
        let mut peer = Self::new(version, limits);
        let events = peer.send(&connect(version));
        assert!(matches!(&events[..], [Event::Connect(_)]), "{events:?}");
        peer.server.accept();
        assert!(matches!(&peer.got()[..], [Got::Connack { code: 0, .. }]));
        peer
    }

    fn send(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.server.receive(bytes)
    }

    /// The events but those that only set the timer.
    fn events(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.send(bytes).into_iter().filter(|e| !matches!(e, Event::SetTimer(_))).collect()
    }

    /// What the server wrote since the last time.
    fn got(&mut self) -> Vec<Got> {
        loop {
            let output = self.server.take_output();
            if output.is_empty() {
                break;
            }
            self.written.extend(output);
        }
        let written = std::mem::take(&mut self.written);
        read(self.version, &written)
    }
}

/// Decodes what the server wrote with the codec in the client's role.
fn read(version: Version, bytes: &[u8]) -> Vec<Got> {
    let mut builder = PacketBuilder::new();
    let mut cursor = Cursor::new(bytes);
    let mut got = Vec::new();
    loop {
        match builder.feed(&mut cursor) {
            PacketBuildResult::Complete(raw) => got.push(match version {
                V3 => read_v3(&raw),
                V5 => read_v5(&raw),
            }),
            PacketBuildResult::Incomplete => {
                assert_eq!(usize::try_from(cursor.position()).unwrap(), bytes.len());
                return got;
            }
            PacketBuildResult::Error(e) => panic!("the server wrote no packet: {e}"),
        }
    }
}

fn read_v3(raw: &RawPacket) -> Got {
    match raw.packet_type() {
        2 => Got::Connack { code: raw.parse_exact(v3_1_1::Connack::parse).unwrap().return_code() as u8, text: String::new() },
        3 => {
            let p = v3_1_1::Publish::parse(raw.flags(), raw.data_as_slice().into()).unwrap().0;
            let (topic, payload) = (p.topic_name().into(), p.payload().as_slice().into());
            Got::Publish { topic, payload, qos: p.qos() as u8, packet_id: p.packet_id().unwrap_or(0) }
        }
        4 => Got::Puback(raw.parse_exact(v3_1_1::Puback::parse).unwrap().packet_id(), 0, String::new()),
        5 => Got::Pubrec(raw.parse_exact(v3_1_1::Pubrec::parse).unwrap().packet_id(), 0),
        6 => Got::Pubrel(raw.parse_exact(v3_1_1::Pubrel::parse).unwrap().packet_id(), 0),
        7 => Got::Pubcomp(raw.parse_exact(v3_1_1::Pubcomp::parse).unwrap().packet_id(), 0),
        9 => {
            let p = raw.parse_exact(v3_1_1::Suback::parse).unwrap();
            Got::Suback(p.packet_id(), p.return_codes().iter().map(|c| *c as u8).collect())
        }
        11 => Got::Unsuback(raw.parse_exact(v3_1_1::Unsuback::parse).unwrap().packet_id(), vec![]),
        13 => Got::Pingresp,
        other => panic!("the server must not write packet type {other}"),
    }
}

fn read_v5(raw: &RawPacket) -> Got {
    let text = |props: &Properties| {
        let found = props.iter().find_map(|p| if let Property::ReasonString(s) = p { Some(s.val().to_owned()) } else { None });
        found.unwrap_or_default()
    };
    match raw.packet_type() {
        2 => {
            let p = raw.parse_exact(v5_0::Connack::parse).unwrap();
            Got::Connack { code: p.reason_code() as u8, text: text(p.props()) }
        }
        3 => {
            let p = v5_0::Publish::parse(raw.flags(), raw.data_as_slice().into()).unwrap().0;
            let (topic, payload) = (p.topic_name().into(), p.payload().as_slice().into());
            Got::Publish { topic, payload, qos: p.qos() as u8, packet_id: p.packet_id().unwrap_or(0) }
        }
        4 => {
            let p = raw.parse_exact(v5_0::Puback::parse).unwrap();
            Got::Puback(p.packet_id(), p.reason_code().map_or(0, |c| c as u8), p.props().as_ref().map(text).unwrap_or_default())
        }
        5 => {
            let p = raw.parse_exact(v5_0::Pubrec::parse).unwrap();
            Got::Pubrec(p.packet_id(), p.reason_code().map_or(0, |c| c as u8))
        }
        6 => {
            let p = raw.parse_exact(v5_0::Pubrel::parse).unwrap();
            Got::Pubrel(p.packet_id(), p.reason_code().map_or(0, |c| c as u8))
        }
        7 => {
            let p = raw.parse_exact(v5_0::Pubcomp::parse).unwrap();
            Got::Pubcomp(p.packet_id(), p.reason_code().map_or(0, |c| c as u8))
        }
        9 => {
            let p = raw.parse_exact(v5_0::Suback::parse).unwrap();
            Got::Suback(p.packet_id(), p.reason_codes().iter().map(|c| *c as u8).collect())
        }
        11 => {
            let p = raw.parse_exact(v5_0::Unsuback::parse).unwrap();
            Got::Unsuback(p.packet_id(), p.reason_codes().iter().map(|c| *c as u8).collect())
        }
        13 => Got::Pingresp,
        14 => {
            let p = raw.parse_exact(v5_0::Disconnect::parse).unwrap();
            Got::Disconnect { code: p.reason_code().map_or(0, |c| c as u8), text: p.props().as_ref().map(text).unwrap_or_default() }
        }
        other => panic!("the server must not write packet type {other}"),
    }
}

/// A CONNECT of client `d1`, keep-alive 60 s.
fn connect(version: Version) -> Vec<u8> {
    match version {
        V3 => v3_1_1::Connect::builder().client_id("d1").unwrap().keep_alive(60).build().unwrap().to_continuous_buffer(),
        V5 => connect_v5(vec![]),
    }
}

fn connect_v5(props: Properties) -> Vec<u8> {
    v5_0::Connect::builder().client_id("d1").unwrap().keep_alive(60).props(props).build().unwrap().to_continuous_buffer()
}

/// A CONNECT with a will.
fn connect_with_will(version: Version, topic: &str) -> Vec<u8> {
    let qos = core::Qos::AtLeastOnce;
    match version {
        V3 => {
            let b = v3_1_1::Connect::builder().client_id("d1").unwrap().will_message(topic, b"gone", qos, false).unwrap();
            b.build().unwrap().to_continuous_buffer()
        }
        V5 => {
            let b = v5_0::Connect::builder().client_id("d1").unwrap().will_message(topic, b"gone", qos, false).unwrap();
            b.build().unwrap().to_continuous_buffer()
        }
    }
}

struct Pub<'a> {
    topic: &'a str,
    payload: &'a [u8],
    qos: core::Qos,
    packet_id: Option<u16>,
    dup: bool,
    retain: bool,
    alias: Option<u16>,
}

const PUB: Pub<'static> =
    Pub { topic: "devices/air/d1", payload: b"{}", qos: core::Qos::AtMostOnce, packet_id: None, dup: false, retain: false, alias: None };

impl Pub<'_> {
    fn bytes(&self, version: Version) -> Vec<u8> {
        match version {
            V3 => {
                let b = v3_1_1::Publish::builder().topic_name(self.topic).unwrap().qos(self.qos).retain(self.retain).dup(self.dup);
                b.packet_id(self.packet_id).payload(self.payload).build().unwrap().to_continuous_buffer()
            }
            V5 => {
                let props = self.alias.map(|a| Property::TopicAlias(core::TopicAlias::new(a).unwrap())).into_iter().collect::<Vec<_>>();
                let b = v5_0::Publish::builder().topic_name(self.topic).unwrap().qos(self.qos).retain(self.retain).dup(self.dup);
                b.packet_id(self.packet_id).payload(self.payload).props(props).build().unwrap().to_continuous_buffer()
            }
        }
    }
}

fn qos1(version: Version, packet_id: u16) -> Vec<u8> {
    Pub { qos: core::Qos::AtLeastOnce, packet_id: Some(packet_id), ..PUB }.bytes(version)
}

fn qos2(version: Version, packet_id: u16) -> Vec<u8> {
    Pub { qos: core::Qos::ExactlyOnce, packet_id: Some(packet_id), ..PUB }.bytes(version)
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP without reason code: the same bytes in both versions.
fn ack(packet_type: u8, packet_id: u16) -> Vec<u8> {
    let flags = if packet_type == 6 { 2 } else { 0 };
    let [hi, lo] = packet_id.to_be_bytes();
    vec![packet_type << 4 | flags, 2, hi, lo]
}

fn subscribe(version: Version, packet_id: u16, filters: &[(&str, core::Qos)]) -> Vec<u8> {
    let entries: Vec<_> = filters.iter().map(|(f, q)| SubEntry::new(*f, SubOpts::new().set_qos(*q)).unwrap()).collect();
    match version {
        V3 => v3_1_1::Subscribe::builder().packet_id(packet_id).entries(entries).build().unwrap().to_continuous_buffer(),
        V5 => v5_0::Subscribe::builder().packet_id(packet_id).entries(entries).build().unwrap().to_continuous_buffer(),
    }
}

fn unsubscribe(version: Version, packet_id: u16, filters: &[&str]) -> Vec<u8> {
    match version {
        V3 => {
            let b = v3_1_1::Unsubscribe::builder().packet_id(packet_id).entries(filters.to_vec()).unwrap();
            b.build().unwrap().to_continuous_buffer()
        }
        V5 => {
            let b = v5_0::Unsubscribe::builder().packet_id(packet_id).entries(filters.to_vec()).unwrap();
            b.build().unwrap().to_continuous_buffer()
        }
    }
}

/// How it ended; panics if it did not, or if something came after.
#[track_caller]
fn ended(events: &[Event]) -> &Ended {
    match events.iter().filter(|e| matches!(e, Event::Ended(_))).count() {
        1 => {}
        n => panic!("expected one end, found {n}: {events:?}"),
    }
    match events.last() {
        Some(Event::Ended(ended)) => ended,
        other => panic!("expected the end to be the last event, found {other:?}"),
    }
}

#[track_caller]
fn refused(events: &[Event]) -> &Refusal {
    match &ended(events).cause {
        Cause::Refused(refusal) => refusal,
        other => panic!("expected a refusal, found {other:?}"),
    }
}

fn topic() -> TopicName {
    "alerts/air".parse().unwrap()
}
