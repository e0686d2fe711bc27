//! How fast notifications come: from the commit of a change to the receiver's socket.
//!
//! `CONURB_NOTIFY="<subscriptions> <writers> <seconds> [<writes per second>]" cargo test --profile quick -p serve --test it -- notify_speed --ignored --nocapture`
//!
//! A node in this process, subscriptions to one entity each at one endpoint, writers that change entities at random, and a receiver that reads
//! HTTP/1.1 by itself so that it takes little of the processor. The time is from the answer of the write to the arrival at the receiver.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use entity::{Attribute, Command, Entity, Iri};
use host::{Clock, Stopwatch, SystemClock};
use policy::Principal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::city::City;

/// When each write was answered, by its value, µs.
struct Book {
    answered: Vec<AtomicI64>,
    n_received: AtomicUsize,
    took_us: Mutex<Vec<i64>>,
}

const WRITES_MAX: usize = 4_000_000;

#[test]
#[ignore = "a measurement"]
fn notify_speed() {
    let text = std::env::var("CONURB_NOTIFY").unwrap_or_else(|_| "1000 64 5".to_owned());
    let numbers: Vec<usize> = text.split(' ').map(|n| n.parse().unwrap()).collect();
    let [n_subscriptions, n_writers, seconds] = numbers[..3] else { panic!("three numbers are needed") };
    let city = City::start();
    city.runtime().block_on(measure(&city, n_subscriptions, n_writers, seconds, numbers.get(3).copied()));
}

#[expect(clippy::print_stdout, reason = "for the one at the keyboard")]
async fn measure(city: &City, n_subscriptions: usize, n_writers: usize, seconds: usize, rate: Option<usize>) {
    let app = &city.app;
    let book = Arc::new(Book {
        answered: (0..WRITES_MAX).map(|_| AtomicI64::new(0)).collect(),
        n_received: AtomicUsize::new(0),
        took_us: Mutex::default(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/n", listener.local_addr().unwrap());
    tokio::spawn(receive(listener, Arc::clone(&book)));
    let mut making = tokio::task::JoinSet::new();
    for i in 0..n_subscriptions {
        let (app, subscription) = (Arc::clone(app), subscription(i, &uri));
        making.spawn(async move { app.node.put_subscription(&operator(), subscription, false).await.unwrap() });
    }
    while making.join_next().await.is_some() {}
    let next = Arc::new(AtomicUsize::new(1));
    let stopwatch = Stopwatch::start();
    let mut writers = tokio::task::JoinSet::new();
    for w in 0..n_writers {
        let (app, book, next) = (Arc::clone(app), Arc::clone(&book), Arc::clone(&next));
        writers.spawn(async move {
            let mut n_own = 0_u32;
            while stopwatch.elapsed() < Duration::from_secs(seconds as u64) {
                if let Some(rate) = rate {
                    let due = Duration::from_secs_f64(f64::from(n_own) * n_writers as f64 / rate as f64);
                    tokio::time::sleep(due.saturating_sub(stopwatch.elapsed())).await;
                }
                n_own += 1;
                let value = next.fetch_add(1, Ordering::Relaxed);
                let id = (value * 7_919 + w) % n_subscriptions;
                let entity =
                    Entity::new(entity_id(id), Iri::known("urn:t:Station")).with(Iri::known("urn:a:n"), Attribute::property(value));
                app.node.write(&operator(), vec![Command::UpsertUpdate(entity)]).await.unwrap().remove(0).unwrap();
                book.answered[value].store(SystemClock.now_micros(), Ordering::Relaxed);
            }
        });
    }
    while writers.join_next().await.is_some() {}
    let (written, wrote_for) = (next.load(Ordering::Relaxed) - 1, stopwatch.elapsed());
    while book.n_received.load(Ordering::Relaxed) < written && stopwatch.elapsed() < wrote_for + Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let all_after = stopwatch.elapsed();
    let mut took = std::mem::take(&mut *book.took_us.lock().unwrap());
    took.sort_unstable();
    let at = |p: f64| took[((took.len() - 1) as f64 * p) as usize] as f64 / 1e3;
    println!(
        "{n_subscriptions} subscriptions, {n_writers} writers: {:.0} writes/s, {:.0} notifications/s ({} of {written}), ms to the receiver: p50 {:.2} p99 {:.2} max {:.2}",
        written as f64 / wrote_for.as_secs_f64(),
        took.len() as f64 / all_after.as_secs_f64(),
        took.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

fn operator() -> Principal {
    Principal::Operator { name: "bench".to_owned() }
}

fn entity_id(n: usize) -> Iri {
    Iri::known(&format!("urn:ngsi-ld:Station:{n}"))
}

fn subscription(i: usize, uri: &str) -> node::Subscription {
    let contexts = ngsi::ContextStore::new(None, None).unwrap();
    let context = contexts.default_context();
    let wished = json!({
        "id": format!("urn:ngsi-ld:Subscription:{i}"), "type": "Subscription", "entities": [{"type": "urn:t:Station", "id": entity_id(i).as_str()}],
        "notification": {"endpoint": {"uri": uri}},
    });
    let wished = ngsi::decode::subscription(wished, context).unwrap();
    node::Subscription {
        id: wished.id.as_ref().unwrap().to_string(),
        filter: wished.filter.clone(),
        watched: None,
        triggers: vec![node::Trigger::AttributeCreated, node::Trigger::AttributeUpdated],
        throttling_us: None,
        interval_us: None,
        endpoint: uri.to_owned(),
        expires_at: None,
        active: true,
        document: serde_json::to_value(&wished).unwrap(),
    }
}

async fn receive(listener: TcpListener, book: Arc<Book>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        tokio::spawn(receive_from(stream, Arc::clone(&book)));
    }
}

/// Reads requests with a `content-length`, and answers each with 204.
async fn receive_from(mut stream: TcpStream, book: Arc<Book>) {
    let find = |all: &[u8], what: &[u8]| all.windows(what.len()).position(|w| w.eq_ignore_ascii_case(what));
    let number = |bytes: &[u8]| -> usize {
        bytes.iter().skip_while(|b| !b.is_ascii_digit()).take_while(|b| b.is_ascii_digit()).fold(0, |n, b| n * 10 + usize::from(b - b'0'))
    };
    let mut all = Vec::new();
    loop {
        while let Some(end_of_head) = find(&all, b"\r\n\r\n") {
            let length = number(&all[find(&all[..end_of_head], b"content-length:").unwrap()..]);
            let end = end_of_head + 4 + length;
            if all.len() < end {
                break;
            }
            let body = &all[end_of_head + 4..end];
            let value = number(&body[find(body, b"\"value\":").unwrap()..]);
            let now = SystemClock.now_micros();
            let answered = match book.answered[value].load(Ordering::Relaxed) {
                // Before the writer had its answer.
                0 => now,
                at => at,
            };
            book.took_us.lock().unwrap().push(now - answered);
            book.n_received.fetch_add(1, Ordering::Relaxed);
            all.drain(..end);
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        }
        if stream.read_buf(&mut all).await.unwrap_or(0) == 0 {
            return;
        }
    }
}
