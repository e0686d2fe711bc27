//! What a client sees that asks for too much or breaks the rules.

use super::*;

#[test]
fn credentials_can_be_refused() {
    for (version, reason, want) in [
        (V3, Reason::BadUserNameOrPassword, 4),
        (V3, Reason::NotAuthorized, 5),
        (V3, Reason::ConnectionRateExceeded, 3),
        (V5, Reason::BadUserNameOrPassword, 0x86),
        (V5, Reason::NotAuthorized, 0x87),
        (V5, Reason::ConnectionRateExceeded, 0x9f),
        (V5, Reason::TopicFilterInvalid, 0x80),
    ] {
        let mut peer = Peer::new(version, Limits::default());
        peer.send(&connect(version));
        assert_eq!(refused(&peer.server.refuse(reason)).reason, reason);
        assert!(matches!(peer.got()[..], [Got::Connack { code, .. }] if code == want), "{reason}");
    }
}

#[test]
fn the_first_packet_must_be_connect() {
    for first in [&b"GET / HTTP/1.1\r\n"[..], &[0x16, 3, 1], &PUB.bytes(V5), &[0]] {
        let mut peer = Peer::new(V5, Limits::default());
        let events = peer.send(first);
        assert_eq!(refused(&events).reason, Reason::ProtocolError);
        assert!(refused(&events).text.contains("CONNECT"), "{}", refused(&events).text);
        assert_eq!(peer.got(), []);
    }
}

#[test]
fn other_versions_hear_so() {
    check(b"\x10\x0d\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x00", &[0x20, 2, 0, 1]);
    check(b"\x10\x0c\x00\x04MQTT\x03\x02\x00\x3c\x00\x00", &[0x20, 2, 0, 1]);

    let mut peer = Peer::new(V5, Limits::default());
    let events = peer.send(b"\x10\x0d\x00\x04MQTT\x06\x02\x00\x3c\x00\x00\x00");
    assert_eq!(refused(&events).reason, Reason::UnsupportedProtocolVersion);
    assert!(matches!(&peer.got()[..], [Got::Connack { code: 0x84, text }] if text.contains("level 6")));

    let mut peer = Peer::new(V5, Limits::default());
    assert_eq!(refused(&peer.send(b"\x10\x0d\x00\x04AMQP\x05\x02\x00\x3c\x00\x00\x00")).reason, Reason::MalformedPacket);
    assert_eq!(peer.got(), []);

    #[track_caller]
    fn check(connect: &[u8], want: &[u8]) {
        let mut server = ServerConnection::new(Limits::default(), "s".into());
        assert_eq!(refused(&server.receive(connect)).reason, Reason::UnsupportedProtocolVersion);
        assert_eq!(server.take_output(), want);
    }
}

#[test]
fn impossible_connects_are_refused() {
    let v5 = |props| connect_v5(props);
    let auth = Property::AuthenticationMethod(core::AuthenticationMethod::new("SCRAM").unwrap());
    check(V5, &v5(vec![auth]), Reason::BadAuthenticationMethod, Some(0x8c));
    let long_id = |n| v5_0::Connect::builder().client_id("i".repeat(n)).unwrap().build().unwrap().to_continuous_buffer();
    check(V5, &long_id(257), Reason::ClientIdentifierNotValid, Some(0x85));
    let nameless = v3_1_1::Connect::builder().client_id("").unwrap().clean_session(false).build().unwrap().to_continuous_buffer();
    check(V3, &nameless, Reason::ClientIdentifierNotValid, Some(2));
    check(V3, &connect_with_will(V3, "a/+"), Reason::TopicNameInvalid, Some(5));
    check(V5, &connect_with_will(V5, "a/+"), Reason::TopicNameInvalid, Some(0x90));
    let keeps = v5_0::Connect::builder().client_id("d").unwrap().will_message("w", b"", core::Qos::AtMostOnce, true).unwrap();
    check(V5, &keeps.build().unwrap().to_continuous_buffer(), Reason::RetainNotSupported, Some(0x9a));
    check(V3, b"\x10\x0e\x00\x04MQTT\x04\x03\x00\x3c\x00\x02d1", Reason::MalformedPacket, None);
    check(V5, b"\x10\x0f\x00\x04MQTT\x05\x1a\x00\x3c\x00\x00\x02d1", Reason::MalformedPacket, Some(0x81));
    check(V3, b"\x11\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02d1", Reason::ProtocolError, None);
    check(V3, b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02d\0", Reason::MalformedPacket, None);
    check(V3, b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x02d1\0", Reason::MalformedPacket, None);

    #[track_caller]
    fn check(version: Version, bytes: &[u8], want: Reason, code: Option<u8>) {
        let mut peer = Peer::new(version, Limits::default());
        let events = peer.send(bytes);
        assert_eq!(refused(&events).reason, want, "{}", refused(&events).text);
        let said = peer.got();
        match code {
            None => assert_eq!(said, []),
            Some(want) => assert!(matches!(said[..], [Got::Connack { code, .. }] if code == want), "{said:?}"),
        }
    }
}

#[test]
fn rules_are_enforced_with_a_reason() {
    let sub_id = Property::SubscriptionIdentifier(core::SubscriptionIdentifier::new(7).unwrap());
    let entry = || vec![SubEntry::new("a", SubOpts::new()).unwrap()];
    let identified = v5_0::Subscribe::builder().packet_id(1).entries(entry()).props(vec![sub_id]).build().unwrap();
    check(V5, &identified.to_continuous_buffer(), Reason::SubscriptionIdentifiersNotSupported);
    check(V5, &Pub { retain: true, ..PUB }.bytes(V5), Reason::RetainNotSupported);
    check(V5, &Pub { alias: Some(65), ..PUB }.bytes(V5), Reason::TopicAliasInvalid);
    check(V5, &Pub { topic: "", alias: Some(3), ..PUB }.bytes(V5), Reason::TopicAliasInvalid);
    check(V5, b"\xf0\x00", Reason::ProtocolError);
    check(V5, b"\x30\x03\x00\x00\x00", Reason::TopicNameInvalid);
    for version in BOTH {
        check(version, &connect(version), Reason::ProtocolError);
        check(version, b"\x20\x02\x00\x00", Reason::ProtocolError);
        check(version, b"\x00\x00", Reason::ProtocolError);
        check(version, b"\x36\x05\x00\x01a\x00\x01", Reason::MalformedPacket);
        check(version, b"\x38\x04\x00\x01a\x00", Reason::MalformedPacket);
        check(version, b"\x32\x06\x00\x01a\x00\x00\x00", Reason::ProtocolError);
        check(version, b"\x30\x04\x00\x01+\x00", Reason::TopicNameInvalid);
        check(version, b"\x30\x04\x00\x01\x00\x00", Reason::TopicNameInvalid);
        check(version, b"\x80\x06\x00\x01\x00\x01a\x00", Reason::MalformedPacket);
        check(version, b"\xc1\x00", Reason::MalformedPacket);
        check(version, b"\xc0\x01\x00", Reason::MalformedPacket);
        check(version, b"\xc0\xff\xff\xff\xff\x01", Reason::MalformedPacket);
        check(version, &ack(4, 5), Reason::ProtocolError);
        check(version, &ack(7, 5), Reason::ProtocolError);
        check(version, &[qos1(version, 9), qos1(version, 9)].concat(), Reason::ProtocolError);
        check(version, &[qos1(version, 9), qos2(version, 9)].concat(), Reason::ProtocolError);
        check(version, &[qos2(version, 9), ack(6, 9)].concat(), Reason::ProtocolError);
        let twice = subscribe(version, 1, &[("a", core::Qos::AtMostOnce)]).repeat(2);
        check(version, &twice, Reason::ProtocolError);
    }
    check(V3, &ack(5, 5), Reason::ProtocolError);
    check(V3, b"\x82\x06\x00\x01\x00\x01a\x04", Reason::MalformedPacket);
    check(V3, b"\x40\x03\x00\x01\x00", Reason::MalformedPacket);
    check(V3, b"\xf0\x00", Reason::ProtocolError);

    #[track_caller]
    fn check(version: Version, bytes: &[u8], want: Reason) {
        let mut peer = Peer::connected(version);
        let events = peer.send(bytes);
        let refusal = refused(&events).clone();
        assert_eq!(refusal.reason, want, "{}", refusal.text);
        let said = peer.got();
        match version {
            V3 => assert_eq!(said, [], "{}", refusal.text),
            V5 => assert_eq!(said, [Got::Disconnect { code: want.code(), text: refusal.text }]),
        }
    }
}

#[test]
fn an_unknown_pubrec_is_answered_on_mqtt_5() {
    let mut peer = Peer::connected(V5);
    assert_eq!(peer.events(&ack(5, 5)), []);
    assert_eq!(peer.got(), [Got::Pubrel(5, 0x92)]);
}

#[test]
fn too_large_packets_end_the_connection_before_they_are_kept() {
    for version in BOTH {
        let mut peer = Peer::connected(version);
        let payload = vec![b'x'; 1024 * 1024];
        let bytes = Pub { payload: &payload, ..PUB }.bytes(version);
        let events = peer.send(&bytes[..8]);
        assert_eq!(refused(&events).reason, Reason::PacketTooLarge, "the header is enough");
        let said = peer.got();
        match version {
            V3 => assert_eq!(said, []),
            V5 => assert!(matches!(&said[..], [Got::Disconnect { code: 0x95, text }] if text.contains("1048576")), "{said:?}"),
        }
        let mut peer = Peer::connected(version);
        let overhead = bytes.len() - payload.len();
        let largest = Pub { payload: &payload[overhead..], ..PUB }.bytes(version);
        assert_eq!(largest.len(), 1024 * 1024);
        assert!(matches!(&peer.events(&largest)[..], [Event::Publish(_)]), "the limit itself is allowed");
    }
    let mut peer = Peer::new(V5, Limits::default());
    assert_eq!(refused(&peer.send(&[0x10, 0x80, 0x80, 0x04])).reason, Reason::PacketTooLarge, "a stranger gets less");
}

#[test]
fn the_receive_maximum_is_enforced_for_both_versions() {
    for version in BOTH {
        let mut peer = Peer::connected_with(version, Limits { receive_max: 2, ..Limits::default() });
        assert_eq!(peer.events(&[qos1(version, 1), qos2(version, 2)].concat()).len(), 2);
        peer.server.acknowledge(1, Ok(()));
        assert_eq!(peer.events(&qos1(version, 3)).len(), 1, "one place is free again");
        peer.server.acknowledge(2, Ok(()));
        peer.got();
        // PUBREC is sent, but the message of QoS 2 counts until PUBCOMP.
        let events = peer.send(&qos1(version, 4));
        assert_eq!(refused(&events).reason, Reason::ReceiveMaximumExceeded);
        assert_eq!(peer.got().len(), usize::from(version == V5));
    }
}

#[test]
fn more_before_connack_than_allowed_ends_the_connection() {
    for version in BOTH {
        let mut peer = Peer::new(version, Limits { packet_bytes_max: 200, ..Limits::default() });
        peer.send(&connect(version));
        assert_eq!(peer.send(&[0; 200]), []);
        let code = if version == V5 { 0x97 } else { 3 };
        assert_eq!(refused(&peer.send(&[0])).reason, Reason::QuotaExceeded);
        assert!(matches!(peer.got()[..], [Got::Connack { code: c, .. }] if c == code));
    }
}

#[test]
fn a_full_queue_ends_the_connection_and_is_counted() {
    for version in BOTH {
        let limits = Limits { in_flight_max: 2, queue_messages_max: 3, ..Limits::default() };
        let mut peer = Peer::connected_with(version, limits);
        for _ in 0..5 {
            assert_eq!(peer.server.deliver(&topic(), &vec![1].into(), Qos::AtLeastOnce, false), []);
        }
        let events = peer.server.deliver(&topic(), &vec![1].into(), Qos::AtLeastOnce, false);
        assert_eq!(refused(&events).reason, Reason::QuotaExceeded);
        assert_eq!(ended(&events).n_undelivered, 5);
        assert_eq!(peer.server.counters().refused_full, 1);
        let got = peer.got();
        assert_eq!(got.len(), if version == V5 { 3 } else { 2 }, "{got:?}");
    }
}

#[test]
fn a_full_queue_is_also_a_matter_of_bytes() {
    let limits = Limits { in_flight_max: 1, queue_bytes_max: 100, ..Limits::default() };
    let mut peer = Peer::connected_with(V5, limits);
    let payload = Payload::from(vec![0; 60]);
    for _ in 0..2 {
        assert_eq!(peer.server.deliver(&topic(), &payload, Qos::AtLeastOnce, false), []);
    }
    assert_eq!(refused(&peer.server.deliver(&topic(), &payload, Qos::AtLeastOnce, false)).reason, Reason::QuotaExceeded);
}

#[test]
fn a_slow_reader_loses_qos_0_and_keeps_qos_1() {
    for version in BOTH {
        let mut peer = Peer::connected_with(version, Limits { output_bytes_max: 100, ..Limits::default() });
        let payload = Payload::from(vec![b'x'; 60]);
        for _ in 0..3 {
            peer.server.deliver(&topic(), &payload, Qos::AtMostOnce, false);
        }
        for _ in 0..3 {
            peer.server.deliver(&topic(), &payload, Qos::AtLeastOnce, false);
        }
        assert_eq!(peer.server.counters().dropped_slow, 2);
        // The listener writes piece by piece.
        let first = peer.server.take_output();
        assert!(first.len() < 200, "{} bytes at once", first.len());
        peer.written.extend(first);
        assert_eq!(peer.got().len(), 4);
    }
}

#[test]
fn what_is_too_large_for_the_client_is_dropped_and_counted() {
    let mut peer = Peer::new(V5, Limits::default());
    peer.send(&connect_v5(vec![Property::MaximumPacketSize(MaximumPacketSize::new(50).unwrap())]));
    peer.server.accept();
    peer.got();
    // Fixed header 2, topic 2 + 10, identifier 2, property length 1.
    for (n, want) in [(33, 1), (34, 0)] {
        peer.server.deliver(&topic(), &vec![0; n].into(), Qos::ExactlyOnce, false);
        assert_eq!(peer.got().len(), want, "{n} bytes");
    }
    assert_eq!(peer.server.counters().dropped_too_large, 1);
    peer.send(&qos1(V5, 1));
    peer.server.acknowledge(1, Err(Refusal::new(Reason::PayloadFormatInvalid, "x".repeat(100))));
    assert_eq!(peer.got(), [Got::Puback(1, 0x99, String::new())], "without its text it fits");
}

#[test]
fn a_client_that_takes_no_connack_is_not_connected() {
    let mut peer = Peer::new(V5, Limits::default());
    peer.send(&connect_v5(vec![Property::MaximumPacketSize(MaximumPacketSize::new(4).unwrap())]));
    assert_eq!(refused(&peer.server.accept()).reason, Reason::PacketTooLarge);
    assert_eq!(peer.got(), []);
}

#[test]
fn a_client_that_wants_no_texts_gets_none_with_acknowledgements() {
    let mut peer = Peer::new(V5, Limits::default());
    let wish = Property::RequestProblemInformation(core::RequestProblemInformation::new(0).unwrap());
    peer.send(&connect_v5(vec![wish]));
    peer.server.accept();
    peer.got();
    peer.send(&qos1(V5, 1));
    peer.server.acknowledge(1, Err(Reason::NotAuthorized.into()));
    assert_eq!(peer.got(), [Got::Puback(1, 0x87, String::new())]);
}

#[test]
fn a_client_that_never_reads_answers_is_ended() {
    let limits = Limits { output_bytes_max: 100, packet_bytes_max: 1_000, ..Limits::default() };
    let mut peer = Peer::connected_with(V3, limits);
    let events: Vec<_> = (0..1_000).flat_map(|_| peer.events(&[0xc0, 0])).collect();
    assert_eq!(refused(&events).reason, Reason::QuotaExceeded);
}

#[test]
fn unanswered_requests_are_limited() {
    for version in BOTH {
        let mut peer = Peer::connected(version);
        let events: Vec<_> = (1..=17).flat_map(|i| peer.events(&subscribe(version, i, &[("a", core::Qos::AtMostOnce)]))).collect();
        assert_eq!(refused(&events).reason, Reason::QuotaExceeded);
        assert_eq!(events.len(), 17);
    }
}

#[test]
fn a_client_that_does_not_connect_in_time_is_ended() {
    let mut peer = Peer::new(V5, Limits::default());
    assert_eq!(refused(&peer.server.timed_out()).reason, Reason::MaximumConnectTime);
    assert_eq!(peer.got(), []);
    let mut peer = Peer::new(V5, Limits::default());
    peer.send(&connect(V5));
    peer.server.timed_out();
    assert!(matches!(&peer.got()[..], [Got::Connack { code: 0x80, text }] if text.contains("within 10 s")));
}

#[test]
fn the_server_can_end_a_connection() {
    for version in BOTH {
        let mut peer = Peer::connected(version);
        let events = peer.server.disconnect(Refusal::new(Reason::SessionTakenOver, "another connection is `d1`"));
        assert_eq!(refused(&events).reason, Reason::SessionTakenOver);
        let want = Got::Disconnect { code: 0x8e, text: "another connection is `d1`".into() };
        assert_eq!(peer.got(), if version == V5 { vec![want] } else { vec![] });
    }
}
