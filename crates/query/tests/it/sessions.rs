//! Sessions that see and end each other: `pg_stat_activity`, `pg_cancel_backend`, `pg_terminate_backend`.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use query::{Auth, Limits, Settings, Source, SourceFactory};

use crate::city::{Cities, City, city};
use crate::psql::{Running, psql_missing};
use crate::wire::{Client, error, values};

/// A statement that never ends by itself.
const ENDLESS: &str = "select count(*) from generate_series(1, 1000000000000) a where a % 7 = 3";

/// The principal `chief` oversees the sessions of everybody.
struct Overseen(Arc<City>);

impl SourceFactory for Overseen {
    fn source(&self, principal: &str) -> Arc<dyn Source> {
        Cities(self.0.clone()).source(principal)
    }

    fn oversees(&self, principal: &str) -> bool {
        principal == "chief"
    }
}

async fn overseen() -> Running {
    let city = city();
    Running::start_over(Settings { limits: Limits::default(), ..Settings::new(Auth::Trust) }, city.clone(), Arc::new(Overseen(city))).await
}

/// The rows of a statement with one column.
async fn rows(client: &mut Client, sql: &str) -> Vec<String> {
    client.query(sql).await;
    let answer = client.until('Z').await;
    assert_eq!(error(&answer), None, "{sql}");
    values(&answer)
}

async fn one(client: &mut Client, sql: &str) -> String {
    client.query(sql).await;
    let answer = client.until('Z').await;
    assert_eq!(error(&answer), None, "{sql}");
    values(&answer).pop().unwrap_or_default()
}

/// Asks again until it is so: what a session does is known a moment after its client knows it.
async fn comes_to(client: &mut Client, sql: &str, want: &str) {
    let mut got = String::new();
    for _ in 0..200 {
        got = one(client, sql).await;
        if got == want {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{sql}: got {got}, want {want}");
}

#[tokio::test]
async fn what_a_session_does_is_seen_from_another() {
    let server = overseen().await;
    let mut busy = Client::log_in(server.port).await;
    let mut other = Client::log_in(server.port).await;
    let pid = one(&mut busy, "select pg_backend_pid()").await;
    assert_eq!(busy.pid().to_string(), pid);
    let of = |what: &str| format!("select {what} from pg_stat_activity where pid = {pid}");
    comes_to(&mut other, &of("state || '|' || wait_event || '|' || query"), "idle|ClientRead|select pg_backend_pid()").await;
    assert_eq!(one(&mut other, &of("(xact_start is null)::text")).await, "true");

    one(&mut busy, "set application_name = 'dash'").await;
    busy.query("begin").await;
    busy.until('Z').await;
    comes_to(&mut other, &of("application_name || '|' || state"), "dash|idle in transaction").await;
    assert_eq!(one(&mut other, &of("(xact_start <= now() and backend_start <= xact_start)::text")).await, "true");
    busy.query("select nonsense").await;
    busy.until('Z').await;
    comes_to(&mut other, &of("state"), "idle in transaction (aborted)").await;
    busy.query("rollback").await;
    busy.until('Z').await;
    comes_to(&mut other, &of("state"), "idle").await;

    busy.query(ENDLESS).await;
    comes_to(&mut other, &of("state || '|' || query"), &format!("active|{ENDLESS}")).await;
    let whole = "usename || '|' || datname || '|' || client_addr || '|' || backend_type";
    assert_eq!(one(&mut other, &of(whole)).await, "conurb|conurb|127.0.0.1|client backend");
    let port = busy.stream.local_addr().unwrap().port();
    assert_eq!(one(&mut other, &of("client_port")).await, port.to_string());
    let own = "select query from pg_catalog.pg_stat_activity where pid = pg_backend_pid()";
    assert_eq!(one(&mut other, own).await, own);
    assert_eq!(rows(&mut other, "select state || count(*) from pg_stat_activity group by state").await, ["active2"]);

    // What the list says is what is cancelled.
    let cancel = "select pg_cancel_backend(pid)::text from pg_stat_activity where query like 'select count%' and state = 'active'";
    assert_eq!(one(&mut other, cancel).await, "true");
    assert_eq!(error(&busy.until('Z').await).unwrap()[1], "57014");
    comes_to(&mut other, &of("state"), "idle").await;
    // A long statement is cut off.
    one(&mut busy, &format!("select 1 /* {} */", "天".repeat(2000))).await;
    let shown: usize = one(&mut other, &of("octet_length(query)")).await.parse().unwrap();
    assert!((1020..=1024).contains(&shown), "{shown}");

    // Prepared statements are seen in the client's words.
    busy.prepare("p", "select   count(*) from generate_series(1, 1000000000000) a where a % 7 = $1").await;
    busy.execute("p", "3").await;
    comes_to(&mut other, &of("state || '|' || substr(query, 1, 17)"), "active|select   count(*)").await;
    one(&mut other, &format!("select pg_cancel_backend({pid})")).await;
    assert_eq!(error(&busy.until('Z').await).unwrap()[1], "57014");
    drop(busy);
    comes_to(&mut other, "select count(*) from pg_stat_activity", "1").await;
    server.stop().await;
}

#[tokio::test]
async fn a_session_ends_another() {
    let server = overseen().await;
    let mut other = Client::log_in(server.port).await;
    for statement in [None, Some(ENDLESS)] {
        let mut ended = Client::log_in(server.port).await;
        if let Some(statement) = statement {
            ended.query(statement).await;
        }
        let pid = ended.pid();
        let state = if statement.is_some() { "active" } else { "idle" };
        comes_to(&mut other, &format!("select state from pg_stat_activity where pid = {pid}"), state).await;
        assert_eq!(one(&mut other, &format!("select pg_terminate_backend({pid})")).await, "t");
        let [severity, state, message] = error(&ended.until('!').await).unwrap();
        let want = ("FATAL", "57P01", "terminating connection due to administrator command");
        assert_eq!((&severity[..], &state[..], &message[..]), want);
        comes_to(&mut other, &format!("select count(*) from pg_stat_activity where pid = {pid}"), "0").await;
        // Nobody of this number any more: a warning, and false.
        other.query(&format!("select pg_terminate_backend({pid}), pg_cancel_backend(null)")).await;
        let answer = other.until('Z').await;
        let (_, notice) = answer.iter().find(|(kind, _)| *kind == 'N').expect("a warning");
        let warning = format!("PID {pid} is not a PostgreSQL backend process");
        assert!(String::from_utf8_lossy(notice).contains(&warning), "{notice:?}");
        let (_, row) = answer.iter().find(|(kind, _)| *kind == 'D').unwrap();
        assert_eq!(row[2..], [0, 0, 0, 1, b'f', 0xff, 0xff, 0xff, 0xff]);
    }
    // One's own session as well.
    other.query("select pg_terminate_backend(pg_backend_pid())").await;
    assert_eq!(error(&other.until('!').await).unwrap()[1], "57P01");
    server.stop().await;
}

#[tokio::test]
async fn sessions_of_others_are_for_those_who_oversee_them() {
    let server = overseen().await;
    let mut clients = Vec::new();
    for user in ["ann", "bob", "chief"] {
        let mut client = Client::connect(server.port).await;
        client.startup(user).await;
        client.until('Z').await;
        clients.push(client);
    }
    let names = "select usename from pg_stat_activity order by usename";
    for (client, want) in clients.iter_mut().zip([&["ann"][..], &["bob"], &["ann", "bob", "chief"]]) {
        assert_eq!(rows(client, names).await, want);
    }
    let bob = one(&mut clients[1], "select pg_backend_pid()").await;
    for (function, what) in [("pg_cancel_backend", "cancel query"), ("pg_terminate_backend", "terminate process")] {
        clients[0].query(&format!("select {function}({bob})")).await;
        let [_, state, message] = error(&clients[0].until('Z').await).unwrap();
        assert_eq!((&state[..], message), ("42501", format!("permission denied to {what}: session {bob} belongs to somebody else")));
    }
    assert_eq!(one(&mut clients[1], "select 1").await, "1");
    assert_eq!(one(&mut clients[2], &format!("select pg_terminate_backend({bob})")).await, "t");
    assert_eq!(error(&clients[1].until('!').await).unwrap()[1], "57P01");
    server.stop().await;
}

#[tokio::test]
async fn psql_sees_and_ends_sessions() {
    if psql_missing() {
        return;
    }
    let server = overseen().await;
    let start = |sql: &'static str| {
        let mut command = Command::new("psql");
        command.args(["-X", "-w", "-h", "127.0.0.1", "-U", "conurb", "-d", "conurb", "-p", &server.port.to_string(), "-c", sql]);
        command.env("PGAPPNAME", "long one").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    for (function, want) in [
        ("pg_cancel_backend", "ERROR:  canceling statement due to user request"),
        ("pg_terminate_backend", "FATAL:  terminating connection due to administrator command"),
    ] {
        let long = start(ENDLESS);
        let end = format!("select {function}(pid) from pg_stat_activity where application_name = 'long one' and state = 'active'");
        let mut said = String::new();
        for _ in 0..100 {
            said = Running::text(&server.psql(&["-At", "-c", &end]).await);
            if !said.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(said, "t\n");
        let output = tokio::task::spawn_blocking(move || long.wait_with_output().unwrap()).await.unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(want), "{stderr}");
    }
    let output = server.psql(&["-At", "-c", "select pg_cancel_backend(1)"]).await;
    assert_eq!(Running::text(&output), "f\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("WARNING:  PID 1 is not a PostgreSQL backend process"), "{output:?}");
    server.stop().await;
}
