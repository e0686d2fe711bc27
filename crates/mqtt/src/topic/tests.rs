use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[test]
fn filters_match_as_section_4_7_says() {
    check("sport/tennis/player1/#", "sport/tennis/player1", true);
    check("sport/tennis/player1/#", "sport/tennis/player1/ranking", true);
    check("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true);
    check("sport/#", "sport", true);
    check("#", "sport/a/b", true);
    check("#", "/", true);
    check("sport/tennis/+", "sport/tennis/player1", true);
    check("sport/tennis/+", "sport/tennis/player1/ranking", false);
    check("sport/+", "sport", false);
    check("sport/+", "sport/", true);
    check("+/+", "/finance", true);
    check("/+", "/finance", true);
    check("+", "/finance", false);
    check("+/tennis/#", "sport/tennis/x", true);
    check("ACCOUNTS", "Accounts", false);
    check("#", "$SYS/monitor", false);
    check("+/monitor/Clients", "$SYS/monitor/Clients", false);
    check("$SYS/#", "$SYS/monitor/Clients", true);
    check("$SYS/monitor/+", "$SYS/monitor/Clients", true);
    check("$SYS/#", "$SYS", true);
    check("a/$b/#", "a/$b/c", true);
    check("a/+", "a/$b", true);

    #[track_caller]
    fn check(filter: &str, name: &str, want: bool) {
        let (filter, name) = (filter.parse::<TopicFilter>().unwrap(), name.parse::<TopicName>().unwrap());
        assert_eq!(filter.matches(&name), want, "{filter} on {name}");
        let mut trie = Subscriptions::new();
        trie.subscribe((), &filter, Qos::AtLeastOnce);
        assert_eq!(!trie.matches(&name).is_empty(), want, "trie: {filter} on {name}");
    }
}

#[test]
fn impossible_topics_are_refused_with_the_reason() {
    check::<TopicName>("", "empty");
    check::<TopicName>("a/+/b", "wildcard");
    check::<TopicName>("a/#", "wildcard");
    check::<TopicName>("a\0b", "control character");
    check::<TopicName>(&"a".repeat(TOPIC_BYTES_MAX + 1), "1025 bytes is longer than the limit of 1024");
    check::<TopicName>(&"a/".repeat(TOPIC_LEVELS_MAX), "33 levels, more than the limit of 32");
    check::<TopicFilter>("sport/tennis#", "wrong place");
    check::<TopicFilter>("sport/#/ranking", "wrong place");
    check::<TopicFilter>("sport+", "wrong place");
    check::<TopicFilter>("+a", "wrong place");
    check::<SubscriptionFilter>("$share/g", "$share/group/filter");
    check::<SubscriptionFilter>("$share//f", "$share/group/filter");
    check::<SubscriptionFilter>("$share/g+/f", "$share/group/filter");
    check::<SubscriptionFilter>("$share/g/", "$share/group/filter");
    check::<SubscriptionFilter>("$share/g/a#", "wrong place");

    #[track_caller]
    fn check<T: FromStr<Err = TopicError> + fmt::Debug>(text: &str, want: &str) {
        let error = text.parse::<T>().unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn the_limits_themselves_are_allowed() {
    assert!("a".repeat(TOPIC_BYTES_MAX).parse::<TopicName>().is_ok());
    assert!(vec!["a"; TOPIC_LEVELS_MAX].join("/").parse::<TopicName>().is_ok());
}

#[test]
fn shared_subscriptions_are_taken_apart() {
    let s: SubscriptionFilter = "$share/consumer1//finance/#".parse().unwrap();
    assert_eq!((s.share_group.as_deref(), s.filter.as_str()), (Some("consumer1"), "/finance/#"));
    let s: SubscriptionFilter = "sport/+".parse().unwrap();
    assert_eq!((s.share_group, s.filter.as_str()), (None, "sport/+"));
}

#[test]
fn a_subscriber_gets_a_message_once_at_its_highest_qos() {
    let mut s = Subscriptions::new();
    s.subscribe(1, &"a/#".parse().unwrap(), Qos::AtMostOnce);
    s.subscribe(1, &"a/+".parse().unwrap(), Qos::ExactlyOnce);
    s.subscribe(1, &"a/b".parse().unwrap(), Qos::AtLeastOnce);
    assert_eq!(s.matches(&"a/b".parse().unwrap()), [(1, Qos::ExactlyOnce)]);
    assert_eq!(s.subscribe(1, &"a/+".parse().unwrap(), Qos::AtMostOnce), Some(Qos::ExactlyOnce));
    assert_eq!(s.matches(&"a/b".parse().unwrap()), [(1, Qos::AtLeastOnce)]);
    assert_eq!((s.len(), s.count_of(&1), s.count_of(&2)), (3, 3, 0));
}

#[test]
fn nothing_is_left_of_a_subscriber_that_is_gone() {
    let mut s = Subscriptions::new();
    for f in ["a/b/c/#", "+/b/+", "#", "x"] {
        s.subscribe(1, &f.parse().unwrap(), Qos::AtLeastOnce);
        s.subscribe(2, &f.parse().unwrap(), Qos::AtLeastOnce);
    }
    assert!(s.unsubscribe(&1, &"x".parse().unwrap()));
    assert!(!s.unsubscribe(&1, &"x".parse().unwrap()));
    assert_eq!(s.remove(&1), 3);
    assert_eq!(s.len(), 4);
    assert_eq!(s.remove(&2), 4);
    assert!(s.is_empty());
    assert_eq!(s.n_nodes(), 1, "only the root is left");
}

#[test]
fn ten_thousand_filters_do_not_slow_a_match_down() {
    let mut s = Subscriptions::new();
    for i in 0..10_000 {
        s.subscribe(i, &format!("devices/+/station-{i}/#").parse().unwrap(), Qos::AtLeastOnce);
    }
    for i in (0..10_000).step_by(97) {
        let name = format!("devices/air/station-{i}/pm25").parse().unwrap();
        assert_eq!(s.matches(&name), [(i, Qos::AtLeastOnce)]);
        // The root, `devices`, `+` and `station-…`.
        assert_eq!(s.cost_of(&name), 4);
    }
}

fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "", "$s"])
}

fn name() -> impl Strategy<Value = TopicName> {
    prop::collection::vec(level(), 1..5).prop_filter_map("empty", |l| l.join("/").parse().ok())
}

fn filter() -> impl Strategy<Value = TopicFilter> {
    (prop::collection::vec(prop_oneof![3 => level(), 2 => Just("+")], 0..5), any::<bool>()).prop_filter_map("empty", |(mut l, hash)| {
        if hash {
            l.push("#");
        }
        l.join("/").parse().ok()
    })
}

fn qos() -> impl Strategy<Value = Qos> {
    prop::sample::select(vec![Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce])
}

proptest! {
    #[test]
    fn the_trie_agrees_with_comparing_every_filter(
        wishes in prop::collection::vec((0u8..4, filter(), qos()), 0..30),
        withdrawn in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        names in prop::collection::vec(name(), 1..10),
    ) {
        let mut trie = Subscriptions::new();
        let mut naive: HashMap<(u8, TopicFilter), Qos> = HashMap::new();
        for (k, f, q) in &wishes {
            prop_assert_eq!(trie.subscribe(*k, f, *q), naive.insert((*k, f.clone()), *q));
        }
        for i in withdrawn.iter().filter(|_| !wishes.is_empty()) {
            let (k, f, _) = i.get(&wishes);
            prop_assert_eq!(trie.unsubscribe(k, f), naive.remove(&(*k, f.clone())).is_some());
        }
        prop_assert_eq!(trie.len(), naive.len());
        for name in &names {
            let mut got = trie.matches(name);
            got.sort_unstable();
            let mut want: HashMap<u8, Qos> = HashMap::new();
            for ((k, _), q) in naive.iter().filter(|((_, f), _)| f.matches(name)) {
                let highest = want.entry(*k).or_insert(*q);
                *highest = (*highest).max(*q);
            }
            let mut want: Vec<_> = want.into_iter().collect();
            want.sort_unstable();
            prop_assert_eq!(got, want, "on {}", name);
        }
    }

    #[test]
    fn any_text_is_a_topic_or_an_error(s in "\\PC{0,60}|[+#/$a]{0,12}") {
        let _ = s.parse::<TopicName>();
        let _ = s.parse::<SubscriptionFilter>();
        if let Ok(f) = s.parse::<TopicFilter>() {
            prop_assert_eq!(f.as_str(), s);
        }
    }
}
