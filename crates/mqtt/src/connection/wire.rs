//! Packets of both versions as one: decoding what the codec takes, checking what it leaves unchecked, encoding answers.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use mqtt_protocol_core::mqtt;
use mqtt_protocol_core::mqtt::ArcPayload;
use mqtt_protocol_core::mqtt::connection::{PacketData, RawPacket};
use mqtt_protocol_core::mqtt::packet::{Property, SubEntry, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code as rc;

use crate::topic::{Qos, TopicName};
use crate::{Reason, Refusal};

/// The versions of MQTT that are spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// MQTT 3.1.1 (protocol level 4).
    V3,
    /// MQTT 5.0 (protocol level 5).
    V5,
}

/// The bytes of a message; shares the packet that they came in. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(pub(super) ArcPayload);

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        let n = bytes.len();
        Self(ArcPayload::new(Arc::from(bytes), 0, n))
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        Self(ArcPayload::new(Arc::from(bytes), 0, bytes.len()))
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self))
    }
}

/// The packet types that a client may send, as they are numbered (section 2.1.2).
pub(super) const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const PUBREC: u8 = 5;
const PUBREL: u8 = 6;
const PUBCOMP: u8 = 7;
const SUBSCRIBE: u8 = 8;
const UNSUBSCRIBE: u8 = 10;
const PINGREQ: u8 = 12;
const DISCONNECT: u8 = 14;
const AUTH: u8 = 15;

/// A packet from a client that is connected.
pub(super) enum Incoming {
    Publish(IncomingPublish),
    Puback { packet_id: u16, refused: bool },
    Pubrec { packet_id: u16, refused: bool },
    Pubrel { packet_id: u16 },
    Pubcomp { packet_id: u16 },
    Subscribe { packet_id: u16, entries: Vec<IncomingFilter>, identified: bool },
    Unsubscribe { packet_id: u16, filters: Vec<String> },
    Pingreq,
    Disconnect { with_will: bool },
}

pub(super) struct IncomingPublish {
    /// Empty if only the alias is given.
    pub(super) topic: String,
    pub(super) alias: Option<u16>,
    pub(super) payload: Payload,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) dup: bool,
    /// 0 for QoS 0.
    pub(super) packet_id: u16,
}

pub(super) struct IncomingFilter {
    pub(super) filter: String,
    pub(super) qos: Qos,
    pub(super) no_local: bool,
}

/// What a CONNECT says, in both versions.
pub(super) struct IncomingConnect {
    pub(super) client_id: String,
    pub(super) clean_start: bool,
    pub(super) keep_alive_s: u16,
    pub(super) user_name: Option<String>,
    pub(super) password: Option<Vec<u8>>,
    pub(super) will: Option<IncomingWill>,
    pub(super) session_expiry_s: u32,
    pub(super) receive_max: u16,
    pub(super) packet_bytes_max: Option<u32>,
    pub(super) wants_problem_text: bool,
    pub(super) auth_method: Option<String>,
}

pub(super) struct IncomingWill {
    pub(super) topic: String,
    pub(super) payload: Payload,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) delay_s: u32,
}

/// What the first packet's header says about the version (section 3.1.2.1).
pub(super) enum Hello {
    Speaks(Version),
    /// MQTT, but another version; refuse in the form of 3.1.1 or of 5.
    Other {
        level: u8,
        form: Version,
    },
    NotMqtt,
}

pub(super) fn hello(connect: &RawPacket) -> Hello {
    match connect.data_as_slice() {
        [0, 4, b'M', b'Q', b'T', b'T', 4, ..] => Hello::Speaks(Version::V3),
        [0, 4, b'M', b'Q', b'T', b'T', 5, ..] => Hello::Speaks(Version::V5),
        [0, 4, b'M', b'Q', b'T', b'T', level, ..] => {
            Hello::Other { level: *level, form: if *level > 5 { Version::V5 } else { Version::V3 } }
        }
        [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', level, ..] => Hello::Other { level: *level, form: Version::V3 },
        _ => Hello::NotMqtt,
    }
}

pub(super) fn decode_connect(version: Version, raw: &RawPacket) -> Result<IncomingConnect, Refusal> {
    check_flags(raw, 0)?;
    // The codec does not look at combinations of the connect flags; MQTT-3.1.2-3 and -11 to -15 make them errors.
    let flags = raw.data_as_slice().get(7).copied().unwrap_or_default();
    let (will, will_qos, will_retain) = (flags & 0b100 != 0, (flags >> 3) & 0b11, flags & 0b10_0000 != 0);
    if flags & 1 != 0 || will_qos == 3 || (!will && (will_qos != 0 || will_retain)) {
        return Err(Refusal::new(Reason::MalformedPacket, format!("CONNECT: the flags 0b{flags:08b} are not allowed")));
    }
    let connect = match version {
        Version::V3 => connect_v3(&raw.parse_exact(v3_1_1::Connect::parse).map_err(|e| malformed("CONNECT", e))?),
        Version::V5 => connect_v5(&raw.parse_exact(v5_0::Connect::parse).map_err(|e| malformed("CONNECT", e))?),
    };
    for (what, text) in [("client identifier", Some(&connect.client_id)), ("user name", connect.user_name.as_ref())] {
        if text.is_some_and(|t| t.chars().any(char::is_control)) {
            return Err(Refusal::new(Reason::MalformedPacket, format!("CONNECT: the {what} has a control character")));
        }
    }
    Ok(connect)
}

fn connect_v3(p: &v3_1_1::Connect) -> IncomingConnect {
    IncomingConnect {
        client_id: p.client_id().to_owned(),
        clean_start: p.clean_session(),
        keep_alive_s: p.keep_alive(),
        user_name: p.user_name().map(str::to_owned),
        password: p.password().map(<[u8]>::to_vec),
        will: p.will_topic().zip(p.will_payload()).map(|(topic, payload)| IncomingWill {
            topic: topic.to_owned(),
            payload: payload.into(),
            qos: qos_from(p.will_qos()),
            retain: p.will_retain(),
            delay_s: 0,
        }),
        // A session that outlives the connection is what clean session 0 asks for; see `Limits` for the answer.
        session_expiry_s: if p.clean_session() { 0 } else { u32::MAX },
        receive_max: u16::MAX,
        packet_bytes_max: None,
        wants_problem_text: false,
        auth_method: None,
    }
}

fn connect_v5(p: &v5_0::Connect) -> IncomingConnect {
    let mut connect = IncomingConnect {
        client_id: p.client_id().to_owned(),
        clean_start: p.clean_start(),
        keep_alive_s: p.keep_alive(),
        user_name: p.user_name().map(str::to_owned),
        password: p.password().map(<[u8]>::to_vec),
        will: p.will_topic().zip(p.will_payload()).map(|(topic, payload)| IncomingWill {
            topic: topic.to_owned(),
            payload: payload.into(),
            qos: qos_from(p.will_qos()),
            retain: p.will_retain(),
            delay_s: p
                .will_props()
                .iter()
                .find_map(|p| if let Property::WillDelayInterval(v) = p { Some(v.val()) } else { None })
                .unwrap_or(0),
        }),
        session_expiry_s: 0,
        receive_max: u16::MAX,
        packet_bytes_max: None,
        wants_problem_text: true,
        auth_method: None,
    };
    for property in p.props() {
        match property {
            Property::SessionExpiryInterval(v) => connect.session_expiry_s = v.val(),
            Property::ReceiveMaximum(v) => connect.receive_max = v.val(),
            Property::MaximumPacketSize(v) => connect.packet_bytes_max = Some(v.val()),
            Property::RequestProblemInformation(v) => connect.wants_problem_text = v.val() != 0,
            Property::AuthenticationMethod(v) => connect.auth_method = Some(v.val().to_owned()),
            // We send no topic aliases and no response information; user properties are the client's own affair.
            _ => {}
        }
    }
    connect
}

pub(super) fn decode(version: Version, raw: &RawPacket) -> Result<Incoming, Refusal> {
    match raw.packet_type() {
        CONNECT => Err(Refusal::new(Reason::ProtocolError, "a second CONNECT on the same connection")),
        PUBLISH => publish(version, raw).map(Incoming::Publish),
        PUBACK | PUBREC | PUBREL | PUBCOMP => acknowledgement(version, raw),
        SUBSCRIBE => subscribe(version, raw),
        UNSUBSCRIBE => unsubscribe(version, raw),
        PINGREQ => {
            check_flags(raw, 0)?;
            check_empty(raw, "PINGREQ")?;
            Ok(Incoming::Pingreq)
        }
        DISCONNECT => disconnect(version, raw),
        AUTH if version == Version::V5 => {
            Err(Refusal::new(Reason::ProtocolError, "AUTH without an authentication method in CONNECT (none is offered)"))
        }
        other => Err(Refusal::new(Reason::ProtocolError, format!("a client must not send packet type {other}"))),
    }
}

fn publish(version: Version, raw: &RawPacket) -> Result<IncomingPublish, Refusal> {
    let PacketData::Publish(data) = &raw.data else {
        return Err(Refusal::new(Reason::MalformedPacket, "PUBLISH without data"));
    };
    let refuse = |e| malformed("PUBLISH", e);
    let mut publish = match version {
        Version::V3 => {
            let (p, _) = v3_1_1::Publish::parse(raw.flags(), data.clone()).map_err(refuse)?;
            IncomingPublish {
                topic: p.topic_name().to_owned(),
                alias: None,
                payload: Payload(p.payload().clone()),
                qos: qos_from(p.qos()),
                retain: p.retain(),
                dup: p.dup(),
                packet_id: p.packet_id().unwrap_or(0),
            }
        }
        Version::V5 => {
            let (p, _) = v5_0::Publish::parse(raw.flags(), data.clone()).map_err(refuse)?;
            if p.props().iter().any(|p| matches!(p, Property::SubscriptionIdentifier(_))) {
                return Err(Refusal::new(Reason::ProtocolError, "PUBLISH: a client must not send a Subscription Identifier"));
            }
            IncomingPublish {
                topic: p.topic_name().to_owned(),
                alias: p.props().iter().find_map(|p| if let Property::TopicAlias(v) = p { Some(v.val()) } else { None }),
                payload: Payload(p.payload().clone()),
                qos: qos_from(p.qos()),
                retain: p.retain(),
                dup: p.dup(),
                packet_id: p.packet_id().unwrap_or(0),
            }
        }
    };
    if publish.qos == Qos::AtMostOnce {
        if publish.dup {
            return Err(Refusal::new(Reason::MalformedPacket, "PUBLISH: DUP is set on a message of QoS 0"));
        }
        publish.packet_id = 0;
    } else {
        check_packet_id("PUBLISH", publish.packet_id)?;
    }
    Ok(publish)
}

fn acknowledgement(version: Version, raw: &RawPacket) -> Result<Incoming, Refusal> {
    let (name, flags) = match raw.packet_type() {
        PUBACK => ("PUBACK", 0),
        PUBREC => ("PUBREC", 0),
        PUBREL => ("PUBREL", 0b0010),
        _ => ("PUBCOMP", 0),
    };
    check_flags(raw, flags)?;
    let refuse = |e| malformed(name, e);
    if version == Version::V3 {
        let [hi, lo] = *raw.data_as_slice() else {
            return Err(Refusal::new(Reason::MalformedPacket, format!("{name}: expected 2 bytes, found {}", raw.remaining_length())));
        };
        let packet_id = u16::from_be_bytes([hi, lo]);
        check_packet_id(name, packet_id)?;
        return Ok(match raw.packet_type() {
            PUBACK => Incoming::Puback { packet_id, refused: false },
            PUBREC => Incoming::Pubrec { packet_id, refused: false },
            PUBREL => Incoming::Pubrel { packet_id },
            _ => Incoming::Pubcomp { packet_id },
        });
    }
    Ok(match raw.packet_type() {
        PUBACK => {
            let p = raw.parse_exact(v5_0::Puback::parse).map_err(refuse)?;
            Incoming::Puback { packet_id: p.packet_id(), refused: p.reason_code().is_some_and(|c| c.is_failure()) }
        }
        PUBREC => {
            let p = raw.parse_exact(v5_0::Pubrec::parse).map_err(refuse)?;
            Incoming::Pubrec { packet_id: p.packet_id(), refused: p.reason_code().is_some_and(|c| c.is_failure()) }
        }
        PUBREL => Incoming::Pubrel { packet_id: raw.parse_exact(v5_0::Pubrel::parse).map_err(refuse)?.packet_id() },
        _ => Incoming::Pubcomp { packet_id: raw.parse_exact(v5_0::Pubcomp::parse).map_err(refuse)?.packet_id() },
    })
}

fn subscribe(version: Version, raw: &RawPacket) -> Result<Incoming, Refusal> {
    check_flags(raw, 0b0010)?;
    let refuse = |e| malformed("SUBSCRIBE", e);
    let (packet_id, entries, identified) = match version {
        Version::V3 => {
            let p = raw.parse_exact(v3_1_1::Subscribe::parse).map_err(refuse)?;
            if p.entries().iter().any(|e| e.sub_opts().to_buffer()[0] > 2) {
                return Err(Refusal::new(Reason::MalformedPacket, "SUBSCRIBE: reserved bits are set beside a QoS"));
            }
            (p.packet_id(), p.entries().iter().map(filter_from).collect(), false)
        }
        Version::V5 => {
            let p = raw.parse_exact(v5_0::Subscribe::parse).map_err(refuse)?;
            let identified = p.props().iter().any(|p| matches!(p, Property::SubscriptionIdentifier(_)));
            (p.packet_id(), p.entries().iter().map(filter_from).collect(), identified)
        }
    };
    check_packet_id("SUBSCRIBE", packet_id)?;
    Ok(Incoming::Subscribe { packet_id, entries, identified })
}

fn filter_from(e: &SubEntry) -> IncomingFilter {
    IncomingFilter { filter: e.topic_filter().to_owned(), qos: qos_from(e.sub_opts().qos()), no_local: e.sub_opts().nl() }
}

fn unsubscribe(version: Version, raw: &RawPacket) -> Result<Incoming, Refusal> {
    check_flags(raw, 0b0010)?;
    let refuse = |e| malformed("UNSUBSCRIBE", e);
    let (packet_id, filters) = match version {
        Version::V3 => {
            let p = raw.parse_exact(v3_1_1::Unsubscribe::parse).map_err(refuse)?;
            (p.packet_id(), p.entries().iter().map(|e| e.as_str().to_owned()).collect())
        }
        Version::V5 => {
            let p = raw.parse_exact(v5_0::Unsubscribe::parse).map_err(refuse)?;
            (p.packet_id(), p.entries().iter().map(|e| e.as_str().to_owned()).collect())
        }
    };
    check_packet_id("UNSUBSCRIBE", packet_id)?;
    Ok(Incoming::Unsubscribe { packet_id, filters })
}

fn disconnect(version: Version, raw: &RawPacket) -> Result<Incoming, Refusal> {
    check_flags(raw, 0)?;
    if version == Version::V3 {
        check_empty(raw, "DISCONNECT")?;
        return Ok(Incoming::Disconnect { with_will: false });
    }
    let p = raw.parse_exact(v5_0::Disconnect::parse).map_err(|e| malformed("DISCONNECT", e))?;
    // Any other code than 0 leaves the will in force (section 3.14.4).
    let with_will = p.reason_code().is_some_and(|c| c != rc::DisconnectReasonCode::NormalDisconnection);
    Ok(Incoming::Disconnect { with_will })
}

fn check_flags(raw: &RawPacket, want: u8) -> Result<(), Refusal> {
    if raw.flags() == want {
        return Ok(());
    }
    let text = format!("packet type {}: expected the header flags 0b{want:04b}, found 0b{:04b}", raw.packet_type(), raw.flags());
    Err(Refusal::new(Reason::MalformedPacket, text))
}

fn check_empty(raw: &RawPacket, name: &str) -> Result<(), Refusal> {
    match raw.remaining_length() {
        0 => Ok(()),
        n => Err(Refusal::new(Reason::MalformedPacket, format!("{name}: expected no data, found {n} bytes"))),
    }
}

fn check_packet_id(name: &str, packet_id: u16) -> Result<(), Refusal> {
    if packet_id == 0 { Err(Refusal::new(Reason::ProtocolError, format!("{name}: packet identifier 0 is not allowed"))) } else { Ok(()) }
}

/// What the codec found wrong with a packet.
pub(super) fn malformed(name: &str, e: rc::MqttError) -> Refusal {
    use rc::MqttError as E;
    let (reason, what) = match e {
        E::ProtocolError => (Reason::ProtocolError, "not allowed by the protocol"),
        E::ClientIdentifierNotValid => (Reason::ClientIdentifierNotValid, "the client identifier is cut off or not UTF-8"),
        E::BadUserNameOrPassword => (Reason::BadUserNameOrPassword, "user name or password is cut off or not UTF-8"),
        E::UnsupportedProtocolVersion => (Reason::UnsupportedProtocolVersion, "the protocol level is not supported"),
        E::PacketTooLarge => (Reason::PacketTooLarge, "the packet is too large"),
        _ => (Reason::MalformedPacket, "the packet is cut off, has bytes left over, or a field has an impossible value"),
    };
    Refusal::new(reason, format!("{name}: {what}"))
}

pub(super) const fn qos_from(qos: mqtt::packet::Qos) -> Qos {
    match qos {
        mqtt::packet::Qos::AtMostOnce => Qos::AtMostOnce,
        mqtt::packet::Qos::AtLeastOnce => Qos::AtLeastOnce,
        mqtt::packet::Qos::ExactlyOnce => Qos::ExactlyOnce,
    }
}

pub(super) const fn qos_to(qos: Qos) -> mqtt::packet::Qos {
    match qos {
        Qos::AtMostOnce => mqtt::packet::Qos::AtMostOnce,
        Qos::AtLeastOnce => mqtt::packet::Qos::AtLeastOnce,
        Qos::ExactlyOnce => mqtt::packet::Qos::ExactlyOnce,
    }
}

/// A message to the client.
pub(super) struct OutgoingPublish<'a> {
    pub(super) topic: &'a TopicName,
    pub(super) payload: &'a Payload,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    /// 0 for QoS 0.
    pub(super) packet_id: u16,
}

/// The size of a PUBLISH on the wire, in bytes.
pub(super) fn publish_bytes(version: Version, topic: &TopicName, payload: &Payload, qos: Qos) -> usize {
    let body =
        2 + topic.as_str().len() + if qos == Qos::AtMostOnce { 0 } else { 2 } + if version == Version::V5 { 1 } else { 0 } + payload.len();
    let length_bytes = match body {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    };
    1 + length_bytes + body
}
