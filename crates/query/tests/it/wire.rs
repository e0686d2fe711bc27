//! Byte by byte: prepared statements, cancelling, limits, and a client that does not play by the rules.

use std::time::Duration;

use query::{Auth, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::city::station;
use crate::engine::deep_statements;
use crate::psql::{Running, passwords};

/// A client that says exactly what it is told to.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    /// Process id and key, for cancelling.
    key: Vec<u8>,
}

/// A message: its type and body.
pub(crate) type Message = (char, Vec<u8>);

impl Client {
    pub(crate) async fn connect(port: u16) -> Self {
        Self { stream: TcpStream::connect(("127.0.0.1", port)).await.unwrap(), key: Vec::new() }
    }

    pub(crate) async fn log_in(port: u16) -> Self {
        let mut client = Self::connect(port).await;
        client.startup("conurb").await;
        let messages = client.until('Z').await;
        client.key = messages.into_iter().find(|(kind, _)| *kind == 'K').unwrap().1;
        client
    }

    /// Its process id as the server has told it.
    pub(crate) fn pid(&self) -> i32 {
        i32::from_be_bytes(self.key[..4].try_into().unwrap())
    }

    pub(crate) async fn startup(&mut self, user: &str) {
        let body = [&196_608_u32.to_be_bytes()[..], b"user\0", user.as_bytes(), b"\0database\0conurb\0\0"].concat();
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        self.stream.write_all(&[&length[..], &body].concat()).await.unwrap();
    }

    pub(crate) async fn send(&mut self, kind: char, body: &[u8]) {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        self.stream.write_all(&[&[kind as u8][..], &length, body].concat()).await.unwrap();
    }

    pub(crate) async fn query(&mut self, sql: &str) {
        self.send('Q', &[sql.as_bytes(), b"\0"].concat()).await;
    }

    /// The next message; none at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        let read = async {
            let mut head = [0; 5];
            self.stream.read_exact(&mut head).await.ok()?;
            let mut body = vec![0; u32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4];
            self.stream.read_exact(&mut body).await.ok()?;
            Some((head[0] as char, body))
        };
        tokio::time::timeout(Duration::from_secs(20), read).await.expect("the server answers")
    }

    /// All messages up to one of this type, or the end.
    pub(crate) async fn until(&mut self, last: char) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(message) = self.next().await {
            let kind = message.0;
            messages.push(message);
            if kind == last {
                break;
            }
        }
        messages
    }

    pub(crate) async fn prepare(&mut self, name: &str, sql: &str) {
        self.send('P', &[name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"].concat()).await;
    }

    /// Binds one text parameter, executes, synchronises.
    pub(crate) async fn execute(&mut self, name: &str, parameter: &str) {
        let length = u32::try_from(parameter.len()).unwrap().to_be_bytes();
        self.send('B', &[b"\0", name.as_bytes(), b"\0\0\0\0\x01", &length, parameter.as_bytes(), b"\0\0"].concat()).await;
        self.send('E', b"\0\0\0\0\0").await;
        self.send('S', b"").await;
    }
}

/// Rows of one column as text.
pub(crate) fn values(messages: &[Message]) -> Vec<String> {
    messages.iter().filter(|(kind, _)| *kind == 'D').map(|(_, body)| String::from_utf8(body[6..].to_vec()).unwrap()).collect()
}

/// The fields of the first error: severity, SQLSTATE, message.
pub(crate) fn error(messages: &[Message]) -> Option<[String; 3]> {
    let (_, body) = messages.iter().find(|(kind, _)| *kind == 'E')?;
    let field = |code: u8| {
        let found = body.split(|&b| b == 0).find(|f| f.first() == Some(&code));
        String::from_utf8(found.unwrap_or(b"??")[1..].to_vec()).unwrap()
    };
    Some([field(b'S'), field(b'C'), field(b'M')])
}

#[tokio::test]
async fn a_prepared_statement_sees_the_present() {
    let server = Running::start(Auth::Trust, Limits::default()).await;
    let mut client = Client::log_in(server.port).await;
    client.prepare("s", r#"select count(*) from "AirQualityObserved" where pm25 > $1"#).await;
    client.execute("s", "40").await;
    let answer = client.until('Z').await;
    assert_eq!((values(&answer), error(&answer)), (vec!["2".to_owned()], None));
    server.city.put(station("new", 99.0, "2014-01-03T00:00:00Z"));
    client.execute("s", "40").await;
    assert_eq!(values(&client.until('Z').await), ["3"]);
    // The column becomes something else: the driver is told to prepare again, by the state it knows.
    let odd = station("odd", 0.0, "2014-01-03T00:00:00Z").with(crate::city::iri("pm25"), entity::Attribute::property("high"));
    server.city.put(odd);
    client.execute("s", "40").await;
    let [_, state, message] = error(&client.until('Z').await).unwrap();
    assert_eq!(state, "0A000");
    assert!(message.starts_with("cached plan must not change result type: column `pm25` was Float64"), "{message}");
    server.stop().await;
}

#[tokio::test]
async fn prepared_statements_pass_the_same_gates() {
    let server = Running::start(Auth::Trust, Limits::default()).await;
    let mut client = Client::log_in(server.port).await;
    for (sql, want) in [
        ("drop table \"Road\"", "25006"),
        ("copy (select 1) to '/tmp/x'", "25006"),
        ("insert into \"Road\" (id) values ($1)", "25006"),
        ("select 1 into t", "25006"),
        ("set datafusion.execution.batch_size = 1", "42501"),
        ("select * from '/etc/passwd'", "42P01"),
        ("select 1; drop table \"Road\"", "42601"),
        ("declare c cursor for select 1 into t", "25006"),
    ] {
        client.prepare("", sql).await;
        client.send('S', b"").await;
        let [_, state, message] = error(&client.until('Z').await).unwrap_or_else(|| panic!("{sql}"));
        assert_eq!(state, want, "{sql}: {message}");
    }
    for sql in ["begin", "deallocate all", "discard all", "set application_name = 'x'", "show server_version", "commit"] {
        client.prepare("", sql).await;
        client.send('B', b"\0\0\0\0\0\0\0\0").await;
        client.send('E', b"\0\0\0\0\0").await;
        client.send('S', b"").await;
        assert_eq!(error(&client.until('Z').await), None, "{sql}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_running_statement_can_be_cancelled() {
    let server = Running::start(Auth::Trust, Limits::default()).await;
    let mut client = Client::log_in(server.port).await;
    client.query("select count(*) from generate_series(1, 1000000000000)").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut other = Client::connect(server.port).await;
    let request = [&16_u32.to_be_bytes()[..], &80_877_102_u32.to_be_bytes(), &client.key].concat();
    other.stream.write_all(&request).await.unwrap();
    assert_eq!(other.next().await, None);
    let answer = client.until('Z').await;
    assert_eq!(error(&answer).unwrap()[1], "57014");
    client.query("select 1").await;
    assert_eq!(values(&client.until('Z').await), ["1"]);
    server.stop().await;
}

#[tokio::test]
async fn a_statement_has_a_time_limit_and_a_client_may_ask_for_less() {
    let server = Running::start(Auth::Trust, Limits { statement_time: Duration::from_secs(1), ..Limits::default() }).await;
    let mut client = Client::log_in(server.port).await;
    let endless = "select count(*) from generate_series(1, 1000000000000)";
    for (set, want) in
        [("", "limit of 1 s"), ("set statement_timeout = 100", "limit of 0.1 s"), ("set statement_timeout = 0", "limit of 1 s")]
    {
        if !set.is_empty() {
            client.query(set).await;
            assert_eq!(error(&client.until('Z').await), None);
        }
        client.query(endless).await;
        let [severity, state, message] = error(&client.until('Z').await).unwrap();
        assert_eq!((severity.as_str(), state.as_str()), ("ERROR", "57014"));
        assert!(message.contains(want), "{message}");
    }
    server.stop().await;
}

#[tokio::test]
async fn sessions_are_counted() {
    let server = Running::start(Auth::Trust, Limits { connections: 2, ..Limits::default() }).await;
    let first = Client::log_in(server.port).await;
    let _second = Client::log_in(server.port).await;
    let mut third = Client::connect(server.port).await;
    third.startup("conurb").await;
    let answer = third.until('Z').await;
    assert_eq!(error(&answer).unwrap(), ["FATAL", "53300", "too many connections: the limit is 2"]);
    drop(first);
    // The server notices the lost connection in its own time.
    for _ in 0..100 {
        let mut again = Client::connect(server.port).await;
        again.startup("conurb").await;
        if error(&again.until('Z').await).is_none() {
            return server.stop().await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the place of a lost connection was never free again");
}

#[tokio::test]
async fn who_is_not_logged_in_gets_nothing() {
    let server = Running::start(passwords(), Limits::default()).await;
    // Asks without answering the question for the password.
    let mut hasty = Client::connect(server.port).await;
    hasty.startup("analyst").await;
    assert_eq!(hasty.next().await.unwrap().0, 'R');
    hasty.query("select 1").await;
    let answer = hasty.until('!').await;
    assert_eq!(error(&answer).unwrap()[0], "FATAL");
    assert!(values(&answer).is_empty());
    // Goes on after the wrong password, in the same packet.
    let mut stubborn = Client::connect(server.port).await;
    stubborn.startup("analyst").await;
    assert_eq!(stubborn.next().await.unwrap().0, 'R');
    stubborn.send('p', b"wrong\0").await;
    stubborn.query("select 1").await;
    let answer = stubborn.until('!').await;
    assert_eq!(error(&answer).unwrap()[..2], ["FATAL", "28P01"]);
    assert!(values(&answer).is_empty());
    server.stop().await;
}

#[tokio::test]
async fn a_panic_ends_one_connection_and_nothing_else() {
    let server = Running::start(Auth::Trust, Limits::default()).await;
    let mut bystander = Client::log_in(server.port).await;
    let mut client = Client::log_in(server.port).await;
    // The test source panics on being asked for the short name of this type.
    let bomb = entity::Entity::new(entity::Iri::known("urn:x:1"), entity::Iri::known("urn:x:panic"));
    server.city.put(bomb);
    client.query(r#"select * from "Road""#).await;
    let [severity, state, _] = error(&client.until('!').await).unwrap();
    assert_eq!((severity.as_str(), state.as_str()), ("FATAL", "XX000"));
    server.city.entities.lock().unwrap().retain(|e| e.id.as_str() != "urn:x:1");
    bystander.query(r#"select count(*) from "Road""#).await;
    assert_eq!(values(&bystander.until('Z').await), ["2"]);
    server.stop().await;
}

#[tokio::test]
async fn rubbish_ends_the_connection_only() {
    let server = Running::start(Auth::Trust, Limits::default()).await;
    for rubbish in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[0xff; 64], b"\0\0\0\x08\x04\xd2\x16\x2f rubbish"] {
        let mut client = Client::connect(server.port).await;
        client.stream.write_all(rubbish).await.unwrap();
        client.stream.shutdown().await.unwrap();
        client.until('!').await;
    }
    let mut client = Client::log_in(server.port).await;
    client.send('!', b"what").await;
    client.until('!').await;
    Client::log_in(server.port).await;
    server.stop().await;
}

#[tokio::test]
async fn the_widest_and_deepest_statements_that_are_let_in_do_no_harm() {
    let server = Running::start(Auth::Trust, Limits::default()).await;
    let mut client = Client::log_in(server.port).await;
    for sql in deep_statements() {
        client.query(&sql).await;
        let answer = client.until('Z').await;
        // Answered or refused in words, but still there.
        assert_eq!(answer.last().unwrap().0, 'Z', "{}", &sql[..40]);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_stopping_server_says_so_and_lets_a_statement_finish() {
    let server = Running::start(Auth::Trust, Limits::default()).await;
    let mut idle = Client::log_in(server.port).await;
    let mut busy = Client::log_in(server.port).await;
    busy.query("select count(*) from generate_series(1, 100000000)").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.stop().await;
    assert_eq!(error(&idle.until('!').await).unwrap()[..2], ["FATAL", "57P01"]);
    assert_eq!(values(&busy.until('Z').await), ["100000000"]);
}
