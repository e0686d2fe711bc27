//! The player against the scripted broker; time is tokio's paused clock, so waiting costs nothing.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use feed::Message;
use feed::player::{Login, PlayError, PlayOptions, Progress, Qos, Speed, Summary, play_over};
use mqtt_protocol_core::mqtt::result_code::{ConnectReasonCode, DisconnectReasonCode, PubackReasonCode};
use tokio::time::sleep;

use crate::broker::{Answer, Broker, Script, maximum_packet_size, maximum_qos_0, receive_maximum};
use crate::{messages, source};

const SECOND_US: i64 = 1_000_000;

fn options() -> PlayOptions {
    PlayOptions::new("test-broker:1883", "feed-test")
}

async fn play_all(broker: &Broker, messages: &[Message], options: PlayOptions) -> Result<Summary, PlayError> {
    play_over(broker.connector(), source(messages), options, pending(), |_| {}).await
}

/// The numbers in the payloads, in the order of arrival.
fn arrived(broker: &Broker) -> Vec<u64> {
    let seen = broker.seen();
    seen.received
        .iter()
        .map(|received| serde_json::from_str::<serde_json::Value>(&received.payload).unwrap()["n"].as_u64().unwrap())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_play_publishes_each_message_once_and_says_goodbye() {
    let broker = Broker::new(Script::default());
    let mut login_options = options();
    login_options.login = Some(Login { username: "feeder".to_owned(), password: "s3cret".to_owned() });
    let summary = play_all(&broker, &messages(1_000, SECOND_US), login_options).await.unwrap();
    assert!(summary.finished);
    assert_eq!((summary.progress.published, summary.progress.acknowledged), (1_000, 1_000));
    assert_eq!((summary.progress.rejected, summary.progress.repeated, summary.unacknowledged), (0, 0, 0));
    assert_eq!(summary.progress.position, Some(1_400_000_000_000_000 + 999 * SECOND_US));
    assert_eq!(arrived(&broker), (0..1_000).collect::<Vec<_>>());
    broker.goodbye().await;
    assert_eq!(broker.seen().n_connections, 1);
    assert_eq!(broker.seen().login, Some(("feeder".to_owned(), "s3cret".to_owned())));
    assert!(!format!("{:?}", Login { username: String::new(), password: "s3cret".to_owned() }).contains("s3cret"));
}

#[tokio::test(start_paused = true)]
async fn messages_in_flight_stay_within_our_limit_and_the_brokers() {
    for (ours, brokers, want) in [(5, None, 5), (300, Some(7), 7), (3, Some(7), 3)] {
        let properties = brokers.map(receive_maximum).into_iter().collect();
        let broker = Broker::new(Script { properties, hold: Duration::from_millis(20), ..Script::default() });
        let mut options = options();
        options.in_flight_max = ours;
        let summary = play_all(&broker, &messages(100, SECOND_US), options).await.unwrap();
        assert_eq!(summary.progress.acknowledged, 100);
        assert_eq!(broker.seen().n_unacknowledged_max, want, "ours {ours}, the broker's {brokers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn messages_are_released_by_their_time_stamps() {
    for (speed, want_s) in [(Speed::Realtime, [0.0, 60.0, 120.0]), (Speed::Times(60.0), [0.0, 1.0, 2.0]), (Speed::FullSpeed, [0.0; 3])] {
        let broker = Broker::new(Script::default());
        let mut options = options();
        options.speed = speed;
        play_all(&broker, &messages(3, 60 * SECOND_US), options).await.unwrap();
        for (received, want_s) in broker.seen().received.iter().zip(want_s) {
            let after_s = received.after.as_secs_f64();
            assert!((after_s - want_s).abs() < 0.1, "{speed:?}: {after_s} s, expected {want_s} s");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn late_messages_go_at_once_and_keep_their_place() {
    let broker = Broker::new(Script::default());
    let mut list = messages(4, 10 * SECOND_US);
    let late = list.remove(1);
    list.insert(2, late);
    let mut options = options();
    options.speed = Speed::Realtime;
    let summary = play_all(&broker, &list, options).await.unwrap();
    assert_eq!(arrived(&broker), [0, 2, 1, 3]);
    let after: Vec<_> = broker.seen().received.iter().map(|received| received.after.as_secs()).collect();
    assert_eq!(after, [0, 20, 20, 30]);
    assert_eq!(summary.progress.position, list.last().map(|message| message.at));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_kept_alive() {
    let broker = Broker::new(Script::default());
    let mut options = options();
    options.speed = Speed::Realtime;
    options.keep_alive_s = 30;
    let summary = play_all(&broker, &messages(3, 300 * SECOND_US), options).await.unwrap();
    assert!((18..=20).contains(&broker.seen().n_pings), "{} pings in ten minutes", broker.seen().n_pings);
    assert_eq!(summary.progress.connections_lost, 0);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_answers_no_ping_is_left_and_connected_again() {
    let broker = Broker::new(Script { answers_pings: false, ..Script::default() });
    let mut options = options();
    options.speed = Speed::Realtime;
    let summary = play_all(&broker, &messages(2, 120 * SECOND_US), options).await.unwrap();
    assert!(summary.progress.connections_lost >= 1);
    assert_eq!(summary.progress.acknowledged, 2);
}

#[tokio::test(start_paused = true)]
async fn what_a_cut_left_unacknowledged_is_sent_again_in_order() {
    // Messages 5 and 23 (in the order of arrival) cut the connection.
    let script = Script::answering(|number, _| if matches!(number, 5 | 23) { Answer::Cut } else { Answer::Ack });
    let broker = Broker::new(Script { hold: Duration::from_millis(1), ..script });
    let mut options = options();
    options.in_flight_max = 8;
    let mut states = Vec::new();
    let list = messages(50, SECOND_US);
    let summary = play_over(broker.connector(), source(&list), options, pending(), |progress: &Progress| states.push(progress.connected))
        .await
        .unwrap();
    let arrived = arrived(&broker);
    assert_eq!(arrived.iter().copied().collect::<BTreeSet<_>>(), (0..50).collect(), "none is lost");
    assert_eq!(summary.progress.acknowledged, 50);
    assert_eq!(summary.progress.connections_lost, 2);
    assert!(summary.progress.repeated > 0);
    assert_eq!(summary.progress.published, 50, "a repeated message is not counted as new");
    for connection in 0..3 {
        let seen = broker.seen();
        let of: Vec<_> = seen.received.iter().zip(&arrived).filter(|(r, _)| r.connection == connection).map(|(_, n)| n).collect();
        assert!(of.is_sorted(), "connection {connection}: {of:?}");
    }
    assert_eq!(states.iter().filter(|connected| **connected).count(), 3, "{states:?}");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_away_is_awaited_and_given_up_after_a_while() {
    let broker = Broker::new(Script { unreachable: 0..5, ..Script::default() });
    let summary = play_all(&broker, &messages(3, SECOND_US), options()).await.unwrap();
    assert_eq!((summary.progress.acknowledged, broker.seen().n_connections), (3, 6));

    let broker = Broker::new(Script { unreachable: 0..usize::MAX, ..Script::default() });
    let mut options = options();
    options.offline_max = Duration::from_secs(60);
    let error = play_all(&broker, &messages(3, SECOND_US), options).await.unwrap_err().to_string();
    assert!(error.starts_with("broker `test-broker:1883` was not reachable for 6") && error.contains("cannot connect"), "{error}");
    assert!(broker.seen().n_connections < 15, "pauses grow: {} attempts", broker.seen().n_connections);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_takes_connections_and_settles_nothing_is_given_up() {
    let broker = Broker::new(Script::answering(|_, _| Answer::Cut));
    let mut options = options();
    options.offline_max = Duration::from_secs(60);
    let error = play_all(&broker, &messages(3, SECOND_US), options).await.unwrap_err();
    assert!(matches!(error, PlayError::Unreachable { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn refused_messages_are_listed_and_not_sent_again() {
    let broker = Broker::new(Script::answering(|_, payload| match payload {
        "{\"n\":3}" => Answer::Refuse(PubackReasonCode::NotAuthorized),
        "{\"n\":4}" => Answer::Refuse(PubackReasonCode::NoMatchingSubscribers),
        _ => Answer::Ack,
    }));
    let mut list = messages(10, SECOND_US);
    list[7].topic = "devices/+/wild".to_owned();
    let summary = play_all(&broker, &list, options()).await.unwrap();
    assert_eq!((summary.progress.acknowledged, summary.progress.rejected), (8, 2));
    assert!(summary.finished);
    let rejections: Vec<_> =
        summary.progress.rejections.iter().map(|r| (r.key, r.reason_code, r.topic.as_str(), r.reason.as_str())).collect();
    // The topic that MQTT does not allow is refused here, before the broker would drop the connection for it.
    assert!(rejections.contains(&(3, 0x87, "devices/weather/test-1", "NotAuthorized")), "{rejections:?}");
    assert!(rejections.contains(&(7, 0x90, "devices/+/wild", "TopicNameInvalid")), "{rejections:?}");
    assert_eq!(arrived(&broker).len(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_message_larger_than_the_broker_allows_is_rejected() {
    let broker = Broker::new(Script { properties: vec![maximum_packet_size(200)], ..Script::default() });
    let mut list = messages(5, SECOND_US);
    list[2].payload = vec![b'x'; 500];
    let summary = play_all(&broker, &list, options()).await.unwrap();
    assert_eq!((summary.progress.acknowledged, summary.progress.rejected), (4, 1));
    assert_eq!(summary.progress.rejections[0].reason_code, 0x95);
}

#[tokio::test(start_paused = true)]
async fn refusals_of_the_client_end_the_play_with_the_reason() {
    let broker = Broker::new(Script { connack: ConnectReasonCode::BadUserNameOrPassword, ..Script::default() });
    let error = play_all(&broker, &messages(3, SECOND_US), options()).await.unwrap_err().to_string();
    assert_eq!(error, "broker `test-broker:1883` refuses client `feed-test`: BadUserNameOrPassword (reason code 0x86)");
    assert_eq!(broker.seen().n_connections, 1);

    let broker = Broker::new(Script::answering(|_, _| Answer::Disconnect(DisconnectReasonCode::SessionTakenOver)));
    let error = play_all(&broker, &messages(3, SECOND_US), options()).await.unwrap_err();
    assert!(matches!(error, PlayError::Refused { reason_code: 0x8e, .. }), "{error}");

    let broker = Broker::new(Script { properties: vec![maximum_qos_0()], ..Script::default() });
    let error = play_all(&broker, &messages(3, SECOND_US), options()).await.unwrap_err();
    assert!(matches!(error, PlayError::QosNotSupported { .. }), "{error}");
    let mut options = options();
    options.qos = Qos::AtMostOnce;
    let summary = play_all(&broker, &messages(300, SECOND_US), options).await.unwrap();
    assert_eq!(summary.progress.acknowledged, 300);
    broker.goodbye().await;
    assert_eq!(arrived(&broker).len(), 300);
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_clean_and_a_later_play_goes_on_without_doubling() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("position.json");
    let list = messages(100, SECOND_US);
    let broker = Broker::new(Script::default());
    let mut options = options();
    options.speed = Speed::Realtime;
    options.resume = Some(path.clone());
    let stop = sleep(Duration::from_millis(40_500));
    let summary = play_over(broker.connector(), source(&list), options.clone(), stop, |_| {}).await.unwrap();
    assert!(!summary.finished);
    assert_eq!((summary.progress.published, summary.unacknowledged), (41, 0));
    broker.goodbye().await;

    let rest = play_all(&broker, &list, options.clone()).await.unwrap();
    assert!(rest.finished);
    assert_eq!((rest.progress.resumed, rest.progress.published), (41, 59));
    assert_eq!(arrived(&broker), (0..100).collect::<Vec<_>>(), "each message once");

    let again = play_all(&broker, &list, options.clone()).await.unwrap();
    assert_eq!((again.finished, again.progress.resumed, again.progress.published), (true, 100, 0));

    let other = messages(100, 2 * SECOND_US).split_off(1);
    let error = play_all(&broker, &other, options.clone()).await.unwrap_err().to_string();
    assert!(error.contains("belongs to another source"), "{error}");
    let error = play_all(&broker, &list[..50], options).await.unwrap_err().to_string();
    assert!(error.contains("says 100 messages, but the source ends after 50"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_position_counts_leading_messages_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("position.json");
    // Message 4 is never acknowledged.
    let broker = Broker::new(Script::answering(|_, payload| if payload == "{\"n\":4}" { Answer::Silence } else { Answer::Ack }));
    let mut options = options();
    options.resume = Some(path.clone());
    options.in_flight_max = 4;
    let summary =
        play_over(broker.connector(), source(&messages(100, SECOND_US)), options, sleep(Duration::from_secs(30)), |_| {}).await.unwrap();
    assert!(!summary.finished);
    assert_eq!(summary.unacknowledged, 1);
    // The window lets four times the limit pass a missing acknowledgement, no more.
    assert_eq!(summary.progress.acknowledged, 4 + 15);
    let position: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(position["n_settled"], 4);
}

#[tokio::test(start_paused = true)]
async fn a_failing_source_is_played_up_to_its_error_and_the_position_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options();
    options.resume = Some(folder.path().join("position.json"));
    let broker = Broker::new(Script::default());
    let failing = messages(5, SECOND_US).into_iter().map(Ok).chain([Err(std::io::Error::other("line 7 is torn"))]);
    let error = play_over(broker.connector(), failing, options.clone(), pending(), |_| {}).await.unwrap_err();
    assert!(matches!(&error, PlayError::Source(cause) if cause.to_string() == "line 7 is torn"), "{error}");
    assert_eq!(arrived(&broker), [0, 1, 2, 3, 4]);
    let position: serde_json::Value = serde_json::from_slice(&std::fs::read(options.resume.unwrap()).unwrap()).unwrap();
    assert_eq!(position["n_settled"], 5);
}

#[tokio::test(start_paused = true)]
async fn a_stop_before_the_first_connection_ends_at_once() {
    let broker = Broker::new(Script { unreachable: 0..usize::MAX, ..Script::default() });
    let endless = (0u64..).map(|key| Ok::<_, Infallible>(messages(1, 0).remove(0)).map(|message| Message { key, ..message }));
    let summary = play_over(broker.connector(), endless, options(), sleep(Duration::from_secs(5)), |_| {}).await.unwrap();
    assert!(!summary.finished);
    assert_eq!(summary.progress.published, 0);
}

#[tokio::test]
async fn options_out_of_range_are_named() {
    let broker = Broker::new(Script::default());
    for (change, want) in [
        ((|o| o.speed = Speed::Times(0.0)) as fn(&mut PlayOptions), "option `speed`: expected a factor above 0, found `0`"),
        (|o| o.speed = Speed::Times(f64::NAN), "found `NaN`"),
        (|o| o.in_flight_max = 0, "option `in_flight_max`: expected 1 to 65535, found `0`"),
        (|o| o.client_id = String::new(), "option `client_id`"),
        (|o| o.progress_every = Duration::ZERO, "option `progress_every`"),
    ] {
        let mut options = options();
        change(&mut options);
        let error = play_all(&broker, &[], options).await.unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}
