//! What a well-behaved client sees.

use super::*;
use crate::topic::TopicFilter;

#[test]
fn qos_0_is_handed_out_and_not_answered() {
    for version in BOTH {
        let mut peer = Peer::connected(version);
        let events = peer.events(&PUB.bytes(version));
        let [Event::Publish(p)] = &events[..] else { panic!("{events:?}") };
        assert_eq!((p.topic.as_str(), &p.payload[..], p.qos, p.packet_id), ("devices/air/d1", &b"{}"[..], Qos::AtMostOnce, None));
        assert_eq!(peer.got(), []);
    }
}

#[test]
fn qos_1_is_acknowledged_when_the_listener_says_so() {
    for version in BOTH {
        let mut peer = Peer::connected(version);
        let events = peer.events(&qos1(version, 7));
        let [Event::Publish(p)] = &events[..] else { panic!("{events:?}") };
        assert_eq!((p.qos, p.packet_id), (Qos::AtLeastOnce, Some(7)));
        assert_eq!(peer.got(), [], "nothing before the commit");
        assert_eq!(peer.server.acknowledge(7, Ok(())), []);
        assert_eq!(peer.got(), [Got::Puback(7, 0, String::new())]);
        assert_eq!(peer.server.acknowledge(7, Ok(())), [], "a second time nobody waits for it");
        assert_eq!(peer.got(), []);
    }
}

#[test]
fn acknowledgements_leave_in_the_order_of_arrival() {
    for version in BOTH {
        let mut peer = Peer::connected(version);
        for bytes in [qos1(version, 5), qos2(version, 3), qos1(version, 9)] {
            peer.send(&bytes);
        }
        peer.server.acknowledge(9, Ok(()));
        peer.server.acknowledge(3, Ok(()));
        assert_eq!(peer.got(), [], "the first message is not durable yet");
        peer.server.acknowledge(5, Ok(()));
        assert_eq!(peer.got(), [Got::Puback(5, 0, String::new()), Got::Pubrec(3, 0), Got::Puback(9, 0, String::new())]);
    }
}

#[test]
fn qos_2_is_handed_out_once() {
    for version in BOTH {
        let mut peer = Peer::connected(version);
        assert_eq!(peer.events(&qos2(version, 4)).len(), 1);
        let again = Pub { qos: core::Qos::ExactlyOnce, packet_id: Some(4), dup: true, ..PUB }.bytes(version);
        assert_eq!(peer.events(&again), [], "a repetition before the commit");
        assert_eq!(peer.got(), [], "which is not acknowledged before the commit either");
        peer.server.acknowledge(4, Ok(()));
        assert_eq!(peer.got(), [Got::Pubrec(4, 0)]);
        assert_eq!(peer.events(&again), [], "a repetition after the commit");
        assert_eq!(peer.got(), [Got::Pubrec(4, 0)]);
        assert_eq!(peer.events(&ack(6, 4)), []);
        assert_eq!(peer.got(), [Got::Pubcomp(4, 0)]);
        assert_eq!(peer.events(&qos2(version, 4)).len(), 1, "the identifier is free for a new message");
        assert_eq!(peer.server.counters().repeated, 2);
        assert_eq!(peer.server.counters().received, 2);
    }
}

#[test]
fn a_repeated_qos_1_message_is_handed_out_once_while_it_waits() {
    for version in BOTH {
        let mut peer = Peer::connected(version);
        assert_eq!(peer.events(&qos1(version, 4)).len(), 1);
        let again = Pub { qos: core::Qos::AtLeastOnce, packet_id: Some(4), dup: true, ..PUB }.bytes(version);
        assert_eq!(peer.events(&again), []);
        peer.server.acknowledge(4, Ok(()));
        assert_eq!(peer.got().len(), 1);
        assert_eq!(peer.events(&again).len(), 1, "after the acknowledgement it is another message");
    }
}

#[test]
fn a_pubrel_that_nobody_waits_for_is_completed() {
    for (version, code) in [(V3, 0), (V5, 0x92)] {
        let mut peer = Peer::connected(version);
        assert_eq!(peer.events(&ack(6, 11)), []);
        assert_eq!(peer.got(), [Got::Pubcomp(11, code)]);
    }
}

#[test]
fn a_refused_message_is_answered_with_reason_and_text_on_mqtt_5() {
    let mut peer = Peer::connected(V5);
    peer.send(&qos1(V5, 1));
    peer.send(&qos2(V5, 2));
    peer.send(&qos1(V5, 3));
    peer.server.acknowledge(1, Err(Refusal::new(Reason::PayloadFormatInvalid, "member `pm25`: \0")));
    peer.server.acknowledge(2, Err(Reason::QuotaExceeded.into()));
    // Not a code that PUBACK may carry.
    peer.server.acknowledge(3, Err(Reason::ServerBusy.into()));
    let text = "member `pm25`:  ".to_owned();
    assert_eq!(peer.got(), [Got::Puback(1, 0x99, text), Got::Pubrec(2, 0x97), Got::Puback(3, 0x80, "Server busy".into())]);
    assert_eq!(peer.events(&qos2(V5, 2)).len(), 1, "a refused PUBREC frees the identifier");
}

#[test]
fn a_refused_message_closes_the_connection_on_mqtt_3() {
    let mut peer = Peer::connected(V3);
    peer.send(&qos1(V3, 1));
    let events = peer.server.acknowledge(1, Err(Reason::PayloadFormatInvalid.into()));
    assert_eq!(refused(&events).reason, Reason::PayloadFormatInvalid);
    assert_eq!(peer.got(), []);
}

#[test]
fn mqtt_5_clients_hear_what_is_offered() {
    let mut peer = Peer::new(V5, Limits::default());
    let expiry = Property::SessionExpiryInterval(SessionExpiryInterval::new(3600).unwrap());
    let bytes = v5_0::Connect::builder().client_id("").unwrap().props(vec![expiry]).build().unwrap().to_continuous_buffer();
    let events = peer.send(&bytes);
    let [Event::Connect(request)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((request.client_id.as_str(), request.client_id_assigned, request.session_expiry_s), ("spare-1", true, 3600));
    peer.server.accept();
    let output = peer.server.take_output();
    let mut builder = PacketBuilder::new();
    let PacketBuildResult::Complete(raw) = builder.feed(&mut Cursor::new(&output[..])) else { panic!() };
    let connack = raw.parse_exact(v5_0::Connack::parse).unwrap();
    assert!(!connack.session_present());
    let mut said: Vec<String> = connack.props().iter().map(|p| format!("{}={}", p.id().as_str(), value_of(p))).collect();
    said.sort();
    let want = [
        "assigned_client_identifier=spare-1",
        "maximum_packet_size=1048576",
        "receive_maximum=256",
        "retain_available=0",
        "server_keep_alive=3600",
        "session_expiry_interval=0",
        "shared_subscription_available=0",
        "subscription_identifier_available=0",
        "topic_alias_maximum=64",
    ];
    assert_eq!(said, want);

    fn value_of(p: &Property) -> String {
        match p {
            Property::AssignedClientIdentifier(v) => v.val().to_owned(),
            Property::MaximumPacketSize(v) => v.val().to_string(),
            Property::ReceiveMaximum(v) => v.val().to_string(),
            Property::RetainAvailable(v) => v.val().to_string(),
            Property::ServerKeepAlive(v) => v.val().to_string(),
            Property::SessionExpiryInterval(v) => v.val().to_string(),
            Property::SharedSubscriptionAvailable(v) => v.val().to_string(),
            Property::SubscriptionIdentifierAvailable(v) => v.val().to_string(),
            Property::TopicAliasMaximum(v) => v.val().to_string(),
            other => panic!("unexpected property {other:?}"),
        }
    }
}

#[test]
fn credentials_are_handed_out_and_stay_out_of_debug_texts() {
    for version in BOTH {
        let bytes = match version {
            V3 => {
                let b = v3_1_1::Connect::builder().client_id("d1").unwrap().user_name("station-1").unwrap().password(b"s3cret").unwrap();
                b.build().unwrap().to_continuous_buffer()
            }
            V5 => {
                let b = v5_0::Connect::builder().client_id("d1").unwrap().user_name("station-1").unwrap().password(b"s3cret").unwrap();
                b.build().unwrap().to_continuous_buffer()
            }
        };
        let mut peer = Peer::new(version, Limits::default());
        let events = peer.send(&bytes);
        let [Event::Connect(request)] = &events[..] else { panic!("{events:?}") };
        assert_eq!(
            (request.version, request.user_name.as_deref(), request.password.as_deref()),
            (version, Some("station-1"), Some(&b"s3cret"[..]))
        );
        assert!(!format!("{request:?}").contains("s3cret"));
    }
}

#[test]
fn what_comes_before_connack_waits_for_it() {
    for version in BOTH {
        let mut peer = Peer::new(version, Limits::default());
        let bytes = [connect(version), qos1(version, 1), qos1(version, 2)].concat();
        // Cut anywhere: each byte alone.
        let events: Vec<_> = bytes.iter().flat_map(|b| peer.send(&[*b])).collect();
        assert!(matches!(&events[..], [Event::Connect(_)]), "{events:?}");
        assert_eq!(peer.got(), []);
        let events = peer.server.accept();
        assert_eq!(events.iter().filter(|e| matches!(e, Event::Publish(_))).count(), 2, "{events:?}");
    }
}

#[test]
fn keep_alive_is_one_and_a_half_times_what_the_client_said() {
    for version in BOTH {
        let mut peer = Peer::new(version, Limits::default());
        assert_eq!(peer.server.timeout(), Some(Duration::from_secs(10)));
        peer.send(&connect(version));
        assert_eq!(peer.server.accept(), [Event::SetTimer(Some(Duration::from_secs(90)))]);
        peer.got();
        assert_eq!(peer.send(&[0xc0, 0]), [Event::SetTimer(Some(Duration::from_secs(90)))]);
        assert_eq!(peer.got(), [Got::Pingresp]);
        assert_eq!(peer.send(&[0xc0]), [], "half a packet is no sign of life");
        assert_eq!(refused(&peer.server.timed_out()).reason, Reason::KeepAliveTimeout);
        let said = peer.got();
        match version {
            V3 => assert_eq!(said, []),
            V5 => assert!(matches!(said[..], [Got::Disconnect { code: 0x8d, .. }]), "{said:?}"),
        }
    }
}

#[test]
fn a_client_without_keep_alive_gets_one_on_mqtt_5() {
    let without = |version| match version {
        V3 => v3_1_1::Connect::builder().client_id("d1").unwrap().build().unwrap().to_continuous_buffer(),
        V5 => v5_0::Connect::builder().client_id("d1").unwrap().build().unwrap().to_continuous_buffer(),
    };
    for (version, want) in [(V3, None), (V5, Some(Duration::from_secs(5_400)))] {
        let mut peer = Peer::new(version, Limits::default());
        peer.send(&without(version));
        assert_eq!(peer.server.accept(), [Event::SetTimer(want)]);
    }
}

#[test]
fn subscriptions_are_decided_by_the_listener_and_impossible_ones_at_once() {
    for (version, failures) in [(V3, [0x80, 0x80, 0x80]), (V5, [0x87, 0x8f, 0x9e])] {
        let mut peer = Peer::connected(version);
        let filters = [
            ("a/#", core::Qos::ExactlyOnce),
            ("secret", core::Qos::AtMostOnce),
            ("a#", core::Qos::AtMostOnce),
            ("$share/g/a", core::Qos::AtMostOnce),
        ];
        let events = peer.events(&subscribe(version, 21, &filters));
        let [Event::Subscribe(request)] = &events[..] else { panic!("{events:?}") };
        let asked: Vec<_> = request.filters.iter().map(|f| (f.filter.as_str(), f.qos)).collect();
        assert_eq!(asked, [("a/#", Qos::ExactlyOnce), ("secret", Qos::AtMostOnce)]);
        assert_eq!(peer.got(), []);
        peer.server.answer_subscribe(21, &[Ok(Qos::AtLeastOnce), Err(Reason::NotAuthorized)]);
        assert_eq!(peer.got(), [Got::Suback(21, vec![1, failures[0], failures[1], failures[2]])]);
        assert_eq!(peer.events(&subscribe(version, 22, &filters[3..])), [], "nothing to decide");
        assert_eq!(peer.got(), [Got::Suback(22, vec![failures[2]])]);
    }
}

#[test]
fn subscriptions_are_ended_by_the_listener() {
    for version in BOTH {
        let mut peer = Peer::connected(version);
        let events = peer.events(&unsubscribe(version, 5, &["a/#", "b", "$share/g/a"]));
        let [Event::Unsubscribe(request)] = &events[..] else { panic!("{events:?}") };
        assert_eq!(request.filters.iter().map(TopicFilter::as_str).collect::<Vec<_>>(), ["a/#", "b"]);
        peer.server.answer_unsubscribe(5, &[Ok(true), Ok(false)]);
        let codes = if version == V5 { vec![0, 0x11, 0x11] } else { vec![] };
        assert_eq!(peer.got(), [Got::Unsuback(5, codes)]);
    }
}

#[test]
fn messages_are_delivered_at_each_quality_of_service() {
    for version in BOTH {
        let mut peer = Peer::connected(version);
        let payload = Payload::from(&b"red"[..]);
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            assert_eq!(peer.server.deliver(&topic(), &payload, qos, false), []);
        }
        let want = |qos, packet_id| Got::Publish { topic: "alerts/air".into(), payload: b"red".into(), qos, packet_id };
        assert_eq!(peer.got(), [want(0, 0), want(1, 1), want(2, 2)]);
        assert_eq!(peer.events(&ack(4, 1)), []);
        assert_eq!(peer.events(&ack(5, 2)), []);
        assert_eq!(peer.got(), [Got::Pubrel(2, 0)]);
        assert_eq!(peer.events(&ack(7, 2)), []);
        let events = peer.server.lost();
        assert_eq!(ended(&events).n_undelivered, 0);
        assert_eq!(peer.server.counters().sent, 3);
    }
}

#[test]
fn the_clients_receive_maximum_holds_messages_back() {
    let mut peer = Peer::new(V5, Limits::default());
    peer.send(&connect_v5(vec![Property::ReceiveMaximum(ReceiveMaximum::new(2).unwrap())]));
    peer.server.accept();
    peer.got();
    for i in 0..5u8 {
        peer.server.deliver(&topic(), &vec![i].into(), Qos::AtLeastOnce, false);
    }
    let payloads = |got: Vec<Got>| -> Vec<(u16, u8)> {
        got.into_iter()
            .map(|g| if let Got::Publish { packet_id, payload, .. } = g { (packet_id, payload[0]) } else { panic!("{g:?}") })
            .collect()
    };
    assert_eq!(payloads(peer.got()), [(1, 0), (2, 1)]);
    // In any order.
    peer.send(&ack(4, 2));
    assert_eq!(payloads(peer.got()), [(3, 2)]);
    peer.send(&[ack(4, 1), ack(4, 3)].concat());
    assert_eq!(payloads(peer.got()), [(4, 3), (5, 4)]);
    assert_eq!(ended(&peer.server.lost()).n_undelivered, 2);
}

#[test]
fn a_message_that_the_client_refuses_is_done_and_counted() {
    let mut peer = Peer::connected(V5);
    peer.server.deliver(&topic(), &vec![1].into(), Qos::AtLeastOnce, false);
    peer.server.deliver(&topic(), &vec![2].into(), Qos::ExactlyOnce, false);
    peer.got();
    assert_eq!(peer.events(&[0x40, 3, 0, 1, 0x87]), []);
    assert_eq!(peer.events(&[0x50, 3, 0, 2, 0x97]), []);
    assert_eq!(peer.got(), [], "no PUBREL for a refused message");
    assert_eq!(peer.server.counters().refused_by_client, 2);
    assert_eq!(ended(&peer.server.lost()).n_undelivered, 0);
}

#[test]
fn a_topic_alias_stands_for_its_topic() {
    let mut peer = Peer::connected(V5);
    peer.send(&Pub { topic: "devices/air/d7", alias: Some(64), ..PUB }.bytes(V5));
    let events = peer.events(&Pub { topic: "", alias: Some(64), ..PUB }.bytes(V5));
    assert!(matches!(&events[..], [Event::Publish(p)] if p.topic.as_str() == "devices/air/d7"), "{events:?}");
    peer.send(&Pub { topic: "devices/air/d8", alias: Some(64), ..PUB }.bytes(V5));
    let events = peer.events(&Pub { topic: "", alias: Some(64), ..PUB }.bytes(V5));
    assert!(matches!(&events[..], [Event::Publish(p)] if p.topic.as_str() == "devices/air/d8"), "{events:?}");
}

#[test]
fn the_will_is_handed_out_unless_the_client_takes_its_leave() {
    for version in BOTH {
        let accepted = || {
            let mut peer = Peer::new(version, Limits::default());
            let events = peer.send(&connect_with_will(version, "devices/air/d1/state"));
            let [Event::Connect(request)] = &events[..] else { panic!("{events:?}") };
            assert!(request.will.is_some(), "to be authorized");
            peer.server.accept();
            peer.got();
            peer
        };
        let leaves = ended(&accepted().events(&[0xe0, 0])).clone();
        assert_eq!((leaves.cause, leaves.will), (Cause::Left, None));
        let lost = ended(&accepted().server.lost()).clone();
        assert_eq!(lost.cause, Cause::Lost);
        let will = lost.will.unwrap();
        assert_eq!((will.topic.as_str(), &will.payload[..], will.qos), ("devices/air/d1/state", &b"gone"[..], Qos::AtLeastOnce));
        assert!(ended(&accepted().server.timed_out()).will.is_some());
        assert!(ended(&accepted().events(b"\xf0\x00")).will.is_some(), "a protocol error");
        assert!(ended(&accepted().server.disconnect(Reason::ServerShuttingDown)).will.is_some());
    }
    let mut peer = Peer::new(V5, Limits::default());
    peer.send(&connect_with_will(V5, "w"));
    peer.server.accept();
    let end = ended(&peer.events(&[0xe0, 1, 4])).clone();
    assert_eq!((end.cause, end.will.is_some()), (Cause::LeftWithWill, true));
}

#[test]
fn a_client_that_is_not_accepted_has_no_will() {
    for version in BOTH {
        let mut peer = Peer::new(version, Limits::default());
        peer.send(&connect_with_will(version, "w"));
        let end = ended(&peer.server.refuse(Reason::NotAuthorized)).clone();
        assert_eq!(end.will, None);
        let code = if version == V5 { 0x87 } else { 5 };
        assert!(matches!(peer.got()[..], [Got::Connack { code: c, .. }] if c == code));
    }
}

#[test]
fn after_the_end_nothing_happens() {
    for version in BOTH {
        let mut peer = Peer::connected(version);
        peer.send(&qos1(version, 1));
        peer.server.lost();
        assert_eq!(peer.server.acknowledge(1, Ok(())), []);
        assert_eq!(peer.send(&qos1(version, 2)), []);
        assert_eq!(peer.server.deliver(&topic(), &vec![1].into(), Qos::ExactlyOnce, false), []);
        assert_eq!(peer.server.timed_out(), []);
        assert_eq!(peer.server.lost(), []);
        assert_eq!(peer.server.accept(), []);
        assert_eq!(peer.server.answer_subscribe(1, &[Ok(Qos::AtMostOnce)]), []);
        assert_eq!(peer.server.timeout(), None);
        assert_eq!(peer.got(), []);
    }
}
