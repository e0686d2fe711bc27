//! A city in a process of its own, which is killed: what was acknowledged is told all the same.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::city::{City, eventually};
use crate::receiver::Receiver;

const DIR: &str = "CONURB_TEST_KILLED_DIR";
const ENDPOINT: &str = "CONURB_TEST_KILLED_ENDPOINT";
const FIRST: &str = "CONURB_TEST_KILLED_FIRST";

/// Acknowledged writes after which the process is killed, round by round.
const ROUNDS: [usize; 4] = [30, 71, 12, 55];

/// Writes until it is killed, and says what was acknowledged.
#[test]
#[ignore = "the process that clause_5_8_6_a_process_killed_at_work_loses_nothing starts and kills"]
fn city_that_is_killed() {
    let (Ok(dir), Ok(endpoint), Ok(first)) = (std::env::var(DIR), std::env::var(ENDPOINT), std::env::var(FIRST)) else {
        panic!("{DIR}, {ENDPOINT} and {FIRST} must be set: this is not a test by itself");
    };
    let city = City::start_in(Path::new(&dir));
    // Another answer than 201: it is there already.
    city.post(
        "subscriptions",
        json!({
            "id": "urn:x:s", "type": "Subscription", "watchedAttributes": ["n"], "notification": {"endpoint": {"uri": endpoint}}
        }),
    );
    let mut n: u64 = first.parse().unwrap();
    loop {
        let entity = json!({"id": "urn:x:1", "type": "T", "n": {"type": "Property", "value": n}});
        let answer = city.post("entityOperations/upsert", json!([entity]));
        assert!([201, 204].contains(&answer.status), "{answer:?}");
        let mut out = std::io::stdout().lock();
        writeln!(out, "acknowledged {n}").unwrap();
        out.flush().unwrap();
        if n.is_multiple_of(23) {
            // Makes a checkpoint.
            city.send("POST", "/api/v1/verify", &[], None).expect(200);
        }
        n += 1;
    }
}

/// Starts the process, kills it after so many writes, and gives the last one that was acknowledged.
fn kill_after(n_writes: usize, dir: &Path, endpoint: &str, first: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["killed::city_that_is_killed", "--exact", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .env(ENDPOINT, endpoint)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let acknowledged = lines.map_while(Result::ok).filter_map(|l| l.strip_prefix("acknowledged ")?.parse().ok());
    let last = acknowledged.take(n_writes).last();
    // SIGKILL.
    child.kill().unwrap();
    child.wait().unwrap();
    last.expect("the process has written")
}

#[test]
fn clause_5_8_6_a_process_killed_at_work_loses_nothing() {
    let (dir, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let mut last = 0;
    for (round, n_writes) in ROUNDS.into_iter().enumerate() {
        // In every other round nothing gets through, so that what waits has to outlive several processes.
        receiver.answers(if round % 2 == 0 { 200 } else { 503 }, Duration::ZERO);
        last = kill_after(n_writes, dir.path(), &receiver.url(), last + 1);
    }
    receiver.answers(200, Duration::ZERO);
    let _city = City::start_in(dir.path());
    let told = || -> Vec<(u64, u64)> {
        let position = |id: &str| id.rsplit_once(':').unwrap().1.parse().unwrap();
        receiver.received().iter().map(|r| (r.value("n").as_u64().unwrap(), position(r.id()))).collect()
    };
    eventually("the last one is told", || told().iter().any(|(n, _)| *n >= last));
    let mut seen = told();
    seen.sort_unstable();
    seen.dedup();
    let wanted: Vec<u64> = (1..=last).collect();
    let found: Vec<u64> = seen.iter().map(|(n, _)| *n).filter(|n| *n <= last).collect();
    // Each once: a repeated one has the same id.
    assert_eq!(found, wanted);
    assert!(seen.is_sorted_by_key(|(_, position)| *position), "in the order of the log: {seen:?}");
}
