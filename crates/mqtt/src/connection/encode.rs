//! Answers and messages to the client, as bytes.

use mqtt_protocol_core::mqtt::packet::{Properties, Property, ReasonString, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code as rc;

use super::wire::{OutgoingPublish, Version, qos_to};
use crate::topic::Qos;
use crate::{Reason, Refusal};

/// The longest Reason String that is sent, in bytes.
pub(super) const REASON_TEXT_BYTES_MAX: usize = 512;

/// Why building cannot fail: each field is checked before.
const BUILT: &str = "a packet of checked fields can be built";

fn code<C: TryFrom<u8>>(reason: Reason, otherwise: C) -> C {
    C::try_from(reason.code()).unwrap_or(otherwise)
}

fn reason_text(text: &str) -> Properties {
    if text.is_empty() {
        return Properties::new();
    }
    // What a client sent may be quoted in the text, and MQTT strings must not hold U+0000 (MQTT-1.5.4-2).
    let printable = text.replace(char::is_control, " ");
    let end = printable.floor_char_boundary(REASON_TEXT_BYTES_MAX);
    vec![Property::ReasonString(ReasonString::new(&printable[..end]).expect(BUILT))]
}

pub(super) fn connack_v3(refused: Option<Reason>) -> Vec<u8> {
    use rc::ConnectReturnCode as C;
    let return_code = match refused {
        None => C::Accepted,
        Some(Reason::UnsupportedProtocolVersion) => C::UnacceptableProtocolVersion,
        Some(Reason::ClientIdentifierNotValid) => C::IdentifierRejected,
        Some(Reason::BadUserNameOrPassword) => C::BadUserNameOrPassword,
        Some(Reason::NotAuthorized | Reason::Banned | Reason::BadAuthenticationMethod | Reason::TopicNameInvalid) => C::NotAuthorized,
        Some(_) => C::ServerUnavailable,
    };
    v3_1_1::Connack::builder().session_present(false).return_code(return_code).build().expect(BUILT).to_continuous_buffer()
}

pub(super) fn connack_v5(props: Properties) -> Vec<u8> {
    let connack = v5_0::Connack::builder().session_present(false).reason_code(rc::ConnectReasonCode::Success).props(props);
    connack.build().expect(BUILT).to_continuous_buffer()
}

pub(super) fn connack_v5_refused(refusal: &Refusal, with_text: bool) -> Vec<u8> {
    let connack = v5_0::Connack::builder()
        .session_present(false)
        .reason_code(code(refusal.reason, rc::ConnectReasonCode::UnspecifiedError))
        .props(reason_text(if with_text { &refusal.text } else { "" }));
    connack.build().expect(BUILT).to_continuous_buffer()
}

pub(super) fn disconnect_v5(refusal: &Refusal, with_text: bool) -> Vec<u8> {
    let disconnect = v5_0::Disconnect::builder()
        .reason_code(code(refusal.reason, rc::DisconnectReasonCode::UnspecifiedError))
        .props(reason_text(if with_text { &refusal.text } else { "" }));
    disconnect.build().expect(BUILT).to_continuous_buffer()
}

pub(super) fn pingresp() -> Vec<u8> {
    v3_1_1::Pingresp::new().to_continuous_buffer()
}

/// PUBACK for QoS 1, PUBREC for QoS 2. A refusal exists on MQTT 5 only.
pub(super) fn first_ack(version: Version, qos: Qos, packet_id: u16, refusal: Option<&Refusal>, with_text: bool) -> Vec<u8> {
    if version == Version::V3 {
        return if qos == Qos::ExactlyOnce {
            v3_1_1::Pubrec::builder().packet_id(packet_id).build().expect(BUILT).to_continuous_buffer()
        } else {
            v3_1_1::Puback::builder().packet_id(packet_id).build().expect(BUILT).to_continuous_buffer()
        };
    }
    let props = reason_text(refusal.filter(|_| with_text).map_or("", |r| &r.text));
    if qos == Qos::ExactlyOnce {
        let mut pubrec = v5_0::Pubrec::builder().packet_id(packet_id);
        if let Some(r) = refusal {
            pubrec = pubrec.reason_code(code(r.reason, rc::PubrecReasonCode::UnspecifiedError)).props(props);
        }
        pubrec.build().expect(BUILT).to_continuous_buffer()
    } else {
        let mut puback = v5_0::Puback::builder().packet_id(packet_id);
        if let Some(r) = refusal {
            puback = puback.reason_code(code(r.reason, rc::PubackReasonCode::UnspecifiedError)).props(props);
        }
        puback.build().expect(BUILT).to_continuous_buffer()
    }
}

pub(super) fn pubrel(version: Version, packet_id: u16, known: bool) -> Vec<u8> {
    if version == Version::V3 {
        return v3_1_1::Pubrel::builder().packet_id(packet_id).build().expect(BUILT).to_continuous_buffer();
    }
    let mut pubrel = v5_0::Pubrel::builder().packet_id(packet_id);
    if !known {
        pubrel = pubrel.reason_code(rc::PubrelReasonCode::PacketIdentifierNotFound);
    }
    pubrel.build().expect(BUILT).to_continuous_buffer()
}

pub(super) fn pubcomp(version: Version, packet_id: u16, known: bool) -> Vec<u8> {
    if version == Version::V3 {
        return v3_1_1::Pubcomp::builder().packet_id(packet_id).build().expect(BUILT).to_continuous_buffer();
    }
    let mut pubcomp = v5_0::Pubcomp::builder().packet_id(packet_id);
    if !known {
        pubcomp = pubcomp.reason_code(rc::PubcompReasonCode::PacketIdentifierNotFound);
    }
    pubcomp.build().expect(BUILT).to_continuous_buffer()
}

pub(super) fn suback(version: Version, packet_id: u16, answers: &[Result<Qos, Reason>]) -> Vec<u8> {
    match version {
        Version::V3 => {
            use rc::SubackReturnCode as C;
            let codes = answers.iter().map(|a| match a {
                Ok(Qos::AtMostOnce) => C::SuccessMaximumQos0,
                Ok(Qos::AtLeastOnce) => C::SuccessMaximumQos1,
                Ok(Qos::ExactlyOnce) => C::SuccessMaximumQos2,
                Err(_) => C::Failure,
            });
            v3_1_1::Suback::builder().packet_id(packet_id).return_codes(codes.collect()).build().expect(BUILT).to_continuous_buffer()
        }
        Version::V5 => {
            use rc::SubackReasonCode as C;
            let codes = answers.iter().map(|a| match a {
                Ok(Qos::AtMostOnce) => C::GrantedQos0,
                Ok(Qos::AtLeastOnce) => C::GrantedQos1,
                Ok(Qos::ExactlyOnce) => C::GrantedQos2,
                Err(reason) => code(*reason, C::UnspecifiedError),
            });
            v5_0::Suback::builder().packet_id(packet_id).reason_codes(codes.collect()).build().expect(BUILT).to_continuous_buffer()
        }
    }
}

/// `answers`: whether there was such a subscription, or why it cannot be ended. MQTT 3.1.1 has one answer to all.
pub(super) fn unsuback(version: Version, packet_id: u16, answers: &[Result<bool, Reason>]) -> Vec<u8> {
    match version {
        Version::V3 => v3_1_1::Unsuback::builder().packet_id(packet_id).build().expect(BUILT).to_continuous_buffer(),
        Version::V5 => {
            use rc::UnsubackReasonCode as C;
            let codes = answers.iter().map(|a| match a {
                Ok(true) => C::Success,
                Ok(false) => C::NoSubscriptionExisted,
                Err(reason) => code(*reason, C::UnspecifiedError),
            });
            v5_0::Unsuback::builder().packet_id(packet_id).reason_codes(codes.collect()).build().expect(BUILT).to_continuous_buffer()
        }
    }
}

pub(super) fn publish(version: Version, p: &OutgoingPublish<'_>) -> Vec<u8> {
    let packet_id = (p.qos != Qos::AtMostOnce).then_some(p.packet_id);
    match version {
        Version::V3 => {
            let b = v3_1_1::Publish::builder().topic_name(p.topic.as_str()).expect(BUILT);
            let b = b.qos(qos_to(p.qos)).retain(p.retain).packet_id(packet_id).payload(&p.payload[..]);
            b.build().expect(BUILT).to_continuous_buffer()
        }
        Version::V5 => {
            let b = v5_0::Publish::builder().topic_name(p.topic.as_str()).expect(BUILT);
            let b = b.qos(qos_to(p.qos)).retain(p.retain).packet_id(packet_id).payload(&p.payload[..]);
            b.build().expect(BUILT).to_continuous_buffer()
        }
    }
}
