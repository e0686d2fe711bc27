//! Whatever comes from the network: never a panic, never unbounded, an end at the first error.

use super::*;

/// A client that answers at random: valid packets in any order, some of them broken.
fn packet(version: Version) -> impl Strategy<Value = Vec<u8>> {
    let id = 1u16..4;
    prop_oneof![
        id.clone().prop_map(move |i| qos1(version, i)),
        id.clone().prop_map(move |i| qos2(version, i)),
        (prop::sample::select(vec![4u8, 5, 6, 7]), id.clone()).prop_map(|(t, i)| ack(t, i)),
        Just(PUB.bytes(version)),
        id.clone().prop_map(move |i| subscribe(version, i, &[("a/+", core::Qos::AtLeastOnce)])),
        id.prop_map(move |i| unsubscribe(version, i, &["a/+"])),
        Just(vec![0xc0, 0]),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Receive(Vec<u8>),
    Acknowledge(u16, bool),
    Answer(u16),
    Deliver(u8),
    Take,
}

fn step(version: Version) -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => packet(version).prop_map(Step::Receive),
        1 => (packet(version), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut p, at, value)| {
            let at = at.index(p.len());
            p[at] = value;
            Step::Receive(p)
        }),
        3 => (1u16..4, prop::bool::weighted(0.9)).prop_map(|(i, ok)| Step::Acknowledge(i, ok)),
        1 => (1u16..4).prop_map(Step::Answer),
        2 => (0u8..3).prop_map(Step::Deliver),
        2 => Just(Step::Take),
    ]
}

fn run(version: Version, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let limits = Limits { receive_max: 3, in_flight_max: 2, queue_messages_max: 2, output_bytes_max: 64, ..Limits::default() };
    let mut peer = Peer::connected_with(version, limits);
    let (mut events, mut handed_out, mut n_acks) = (Vec::new(), 0, 0);
    for step in steps {
        let new = match step {
            Step::Receive(bytes) => peer.send(&bytes),
            Step::Acknowledge(i, ok) => peer.server.acknowledge(i, if ok { Ok(()) } else { Err(Reason::QuotaExceeded.into()) }),
            Step::Answer(i) => {
                let mut new = peer.server.answer_unsubscribe(i, &[Ok(true)]);
                new.extend(peer.server.answer_subscribe(i, &[Ok(Qos::AtLeastOnce)]));
                new
            }
            Step::Deliver(q) => {
                let qos = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][usize::from(q)];
                peer.server.deliver(&topic(), &vec![q].into(), qos, false)
            }
            Step::Take => {
                let output = peer.server.take_output();
                peer.written.extend(output);
                vec![]
            }
        };
        let ended = events.iter().any(|e| matches!(e, Event::Ended(_)));
        prop_assert!(!ended || new.is_empty(), "after the end came {:?}", new);
        handed_out += new.iter().filter(|e| matches!(e, Event::Publish(p) if p.packet_id.is_some())).count();
        events.extend(new);
        for got in peer.got() {
            n_acks += usize::from(matches!(got, Got::Puback(..)));
        }
    }
    prop_assert!(n_acks <= handed_out, "{} acknowledgements for {} messages", n_acks, handed_out);
    Ok(())
}

/// Bytes of no meaning, or of as much as the first ones have.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    prop_oneof![
        bytes.clone(),
        // A header with the right length: the parser behind it has something to do.
        (any::<u8>(), prop::collection::vec(any::<u8>(), 0..120))
            .prop_map(|(first, body)| { [vec![first, u8::try_from(body.len()).unwrap()], body].concat() }),
        (prop::sample::select(vec![4u8, 5]), bytes).prop_map(|(level, body)| {
            let body: Vec<u8> = [b"\x00\x04MQTT".to_vec(), vec![level], body].concat();
            [vec![0x10, 0x80 | (body.len() % 128) as u8, (body.len() / 128) as u8], body].concat()
        }),
    ]
}

/// Valid packets with every property that the codec knows for them, then broken in a few places.
fn broken() -> impl Strategy<Value = Vec<u8>> {
    let user = || Property::UserProperty(core::UserProperty::new("k", "v").unwrap());
    let will = vec![
        Property::WillDelayInterval(core::WillDelayInterval::new(5).unwrap()),
        Property::ContentType(core::ContentType::new("text/plain").unwrap()),
        user(),
    ];
    let said = vec![
        Property::SessionExpiryInterval(SessionExpiryInterval::new(9).unwrap()),
        Property::ReceiveMaximum(ReceiveMaximum::new(9).unwrap()),
        Property::MaximumPacketSize(MaximumPacketSize::new(900).unwrap()),
        Property::TopicAliasMaximum(TopicAliasMaximum::new(9).unwrap()),
        user(),
    ];
    let connect = v5_0::Connect::builder().client_id("d").unwrap().user_name("u").unwrap().password(b"p").unwrap().props(said);
    let connect = connect.will_message("w", b"x", core::Qos::ExactlyOnce, false).unwrap().will_props(will).build().unwrap();
    let about = vec![
        Property::PayloadFormatIndicator(core::PayloadFormatIndicator::new(core::PayloadFormat::String).unwrap()),
        Property::MessageExpiryInterval(core::MessageExpiryInterval::new(9).unwrap()),
        Property::TopicAlias(core::TopicAlias::new(3).unwrap()),
        Property::ResponseTopic(core::ResponseTopic::new("r").unwrap()),
        Property::CorrelationData(core::CorrelationData::new(b"c").unwrap()),
        user(),
    ];
    let publish = v5_0::Publish::builder().topic_name("a").unwrap().qos(core::Qos::AtLeastOnce).packet_id(1u16);
    let publish = publish.props(about).payload("x").build().unwrap();
    let whole = prop::sample::select(vec![
        connect.to_continuous_buffer(),
        super::connect(V3),
        connect_with_will(V3, "w"),
        publish.to_continuous_buffer(),
        subscribe(V5, 1, &[("a", core::Qos::AtMostOnce), ("$share/g/b", core::Qos::AtMostOnce)]),
        unsubscribe(V5, 1, &["a", "b"]),
        b"\x40\x09\x00\x01\x97\x05\x1f\x00\x02no".to_vec(),
        b"\xe0\x07\x98\x05\x1f\x00\x02no".to_vec(),
    ]);
    (whole, prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)).prop_map(|(mut bytes, changes)| {
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn noise_before_connect_is_an_error_not_a_panic(chunks in prop::collection::vec(noise(), 1..4)) {
        let mut server = ServerConnection::new(Limits::default(), "s".into());
        let mut events: Vec<_> = chunks.iter().flat_map(|c| server.receive(c)).collect();
        events.extend(server.accept());
        let _ = server.take_output();
        events.extend(server.lost());
        ended(&events);
    }

    #[test]
    fn noise_after_connect_is_an_error_not_a_panic(v5: bool, chunks in prop::collection::vec(noise(), 1..6)) {
        let mut peer = Peer::connected(if v5 { V5 } else { V3 });
        let mut events: Vec<_> = chunks.iter().flat_map(|c| peer.send(c)).collect();
        peer.got();
        events.extend(peer.server.lost());
        ended(&events);
    }

    #[test]
    fn broken_packets_are_errors_not_panics(v5: bool, first in broken(), then in prop::collection::vec(broken(), 0..4)) {
        let mut stranger = ServerConnection::new(Limits::default(), "s".into());
        let mut events = stranger.receive(&first);
        events.extend(stranger.accept());
        events.extend(then.iter().flat_map(|b| stranger.receive(b)));
        events.extend(stranger.lost());
        ended(&events);
        prop_assert!(events.iter().filter(|e| matches!(e, Event::Connect(_))).count() <= 1, "{:?}", events);

        let mut peer = Peer::connected(if v5 { V5 } else { V3 });
        let mut events: Vec<_> = then.iter().flat_map(|b| peer.send(b)).collect();
        peer.got();
        events.extend(peer.server.lost());
        ended(&events);
        prop_assert!(!events.iter().any(|e| matches!(e, Event::Connect(_))), "{:?}", events);
    }

    #[test]
    fn where_the_bytes_are_cut_does_not_matter(
        v5: bool,
        packets in prop::collection::vec(packet(V3), 0..8),
        cuts in prop::collection::vec(1usize..9, 1..8),
    ) {
        // Packets of 3.1.1 are valid and broken ones of 5.
        let version = if v5 { V5 } else { V3 };
        let bytes = packets.concat();
        let is_news = |e: &Event| !matches!(e, Event::SetTimer(_));
        let mut whole = Peer::connected(version);
        let want: Vec<_> = whole.send(&bytes).into_iter().filter(is_news).collect();
        let mut pieces = Peer::connected(version);
        let (mut rest, mut got) = (&bytes[..], Vec::new());
        for n in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*n).min(rest.len()));
            got.extend(pieces.send(now).into_iter().filter(is_news));
            rest = later;
        }
        prop_assert_eq!(got, want);
        prop_assert_eq!(pieces.got(), whole.got());
    }

    #[test]
    fn any_interleaving_keeps_the_rules(
        v5: bool,
        v3_steps in prop::collection::vec(step(V3), 0..40),
        v5_steps in prop::collection::vec(step(V5), 0..40),
    ) {
        if v5 { run(V5, v5_steps)? } else { run(V3, v3_steps)? }
    }
}
