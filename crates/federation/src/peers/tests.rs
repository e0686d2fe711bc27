use super::*;
use proptest::prelude::*;

fn city(s: &str) -> CityName {
    s.parse().unwrap()
}

fn member(name: &str, n: u8) -> Member {
    Member::new(city(name), &format!("http://127.0.0.1:{}", 1026 + u16::from(n)), PublicKey::from_bytes([n; 32])).unwrap()
}

fn at(ms: i64) -> Instant {
    Instant::from_micros(ms * 1_000)
}

#[test]
fn addresses_are_checked() {
    assert_eq!(member("beijing", 1).url, "http://127.0.0.1:1027");
    let good = |url: &str| Member::new(city("beijing"), url, PublicKey::from_bytes([0; 32])).map(|m| m.url).map_err(|e| e.to_string());
    assert_eq!(good("https://node.example/conurb/"), Ok("https://node.example/conurb".into()));
    for (bad, want) in [
        ("node.example:1026", "neither http nor https"),
        ("", "cannot be used"),
        ("ftp://node.example", "neither http nor https"),
        ("https://u:p@node.example", "user name or password"),
        ("https://node.example/?a=b", "query or fragment"),
        ("http://", "cannot be used"),
    ] {
        let error = good(bad).unwrap_err();
        assert!(error.contains(want) && error.contains("`beijing`"), "{error}");
    }
}

#[test]
fn names_and_keys_are_unique() {
    let own = city("guangzhou");
    let error = |members: Vec<Member>| Peers::new(&own, members, at(0)).unwrap_err().to_string();
    assert_eq!(error(vec![member("beijing", 1), member("beijing", 2)]), "`beijing` is listed twice as a member");
    assert_eq!(error(vec![member("beijing", 1), member("beijing", 1)]), "`beijing` is listed twice as a member");
    assert_eq!(error(vec![member("beijing", 1), member("tianjin", 1)]), "members `beijing` and `tianjin` have the same key");
    assert_eq!(error(vec![member("guangzhou", 1)]), "`guangzhou` is this city itself and cannot be its own peer");
    let peers = Peers::new(&own, vec![member("beijing", 1), member("tianjin", 2)], at(0)).unwrap();
    assert_eq!(peers.city_of(&PublicKey::from_bytes([2; 32])), Some(&city("tianjin")));
    assert_eq!(peers.city_of(&PublicKey::from_bytes([3; 32])), None);
    assert_eq!(peers.iter().count(), 2);
}

#[test]
fn a_failed_peer_is_down_at_once_and_asked_again_after_growing_pauses() {
    let mut s = PeerState::new(at(0));
    assert_eq!(s.status, PeerStatus::Unknown);
    assert!(s.may_ask(at(0)));
    s.on_failure(at(100), "connection refused");
    assert_eq!((s.status, s.since, s.n_failures, s.last_error.as_deref()), (PeerStatus::Down, at(100), 1, Some("connection refused")));
    assert!(!s.may_ask(at(1_099)));
    assert!(s.may_ask(at(1_100)), "after one second");
    s.on_failure(at(1_200), "connection refused");
    assert_eq!(s.since, at(100), "down since the first failure");
    assert!(!s.may_ask(at(3_199)));
    assert!(s.may_ask(at(3_200)), "after two more");
    let pauses: Vec<i64> = (1..=9).map(|n| PeerState::backoff_us(n) / 1_000_000).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30, 30]);
    assert_eq!(PeerState::backoff_us(u32::MAX), BACKOFF_MAX_US);
}

#[test]
fn an_answer_makes_it_up_again() {
    let mut s = PeerState::new(at(0));
    s.on_failure(at(1), "x");
    s.on_answer(at(50), 3_200);
    let up = PeerState {
        status: PeerStatus::Up,
        since: at(50),
        last_seen: Some(at(50)),
        latency_us: Some(3_200),
        n_failures: 0,
        last_error: None,
        retry_at: None,
    };
    assert_eq!(s, up);
    s.on_answer(at(90), 100);
    assert_eq!((s.since, s.last_seen), (at(50), Some(at(90))), "up since the first answer");
    s.on_failure(at(100), "y");
    assert_eq!((s.last_seen, s.n_failures), (Some(at(90)), 1), "when it was last seen stays");
    assert!(s.may_ask(at(1_100)), "the pauses begin anew");
}

#[test]
fn one_request_at_a_time_tries_a_dead_peer() {
    let mut s = PeerState::new(at(0));
    s.on_failure(at(0), "x");
    assert!(s.may_ask(at(1_000)));
    assert!(!s.may_ask(at(1_001)), "while that one waits, the others do not");
    assert!(s.may_ask(at(2_000)), "if it never comes back, the next one tries");
}

#[test]
fn a_clock_set_back_does_not_silence_a_peer() {
    let mut s = PeerState::new(at(0));
    s.on_failure(at(3_600_000), "x");
    assert!(s.may_ask(at(0)));
}

#[test]
fn who_is_not_asked_is_told_with_the_reason() {
    let mut peers = Peers::new(&city("guangzhou"), [member("beijing", 1)], at(0)).unwrap();
    assert_eq!(peers.ask(&city("nowhere"), at(0)), None);
    assert_eq!(peers.ask(&city("beijing"), at(0)), Some(Ok(member("beijing", 1))));
    peers.on_failure(&city("beijing"), at(0), "connection refused");
    let error = peers.ask(&city("beijing"), at(10)).unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "`beijing` does not answer since 1970-01-01T00:00:00Z (connection refused); it is asked again at 1970-01-01T00:00:01Z"
    );
    peers.on_answer(&city("beijing"), at(20), 5);
    assert_eq!(peers.get(&city("beijing")).unwrap().state.status, PeerStatus::Up);
    peers.on_answer(&city("gone"), at(20), 5);
    peers.on_failure(&city("gone"), at(20), "x");
    assert_eq!(peers.iter().count(), 1);
}

proptest! {
    #[test]
    fn whatever_happens_a_peer_is_asked_again_within_the_longest_pause(steps in proptest::collection::vec((0..40_000i64, 0..3u8), 1..60)) {
        let mut s = PeerState::new(at(0));
        let mut now_ms = 0;
        for (wait_ms, what) in steps {
            now_ms += wait_ms;
            match what {
                0 => s.on_answer(at(now_ms), 1),
                1 => s.on_failure(at(now_ms), "x"),
                _ => { let _ = s.may_ask(at(now_ms)); }
            }
            prop_assert_eq!(s.status == PeerStatus::Down, s.retry_at.is_some());
            prop_assert_eq!(s.status == PeerStatus::Down, s.n_failures > 0);
            prop_assert!(s.since <= at(now_ms));
            prop_assert!(s.clone().may_ask(at(now_ms).plus_micros(BACKOFF_MAX_US)));
            if s.status != PeerStatus::Down {
                prop_assert!(s.clone().may_ask(at(now_ms)), "who is not down is always asked");
            }
        }
    }
}
