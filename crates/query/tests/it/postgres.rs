//! What PostgreSQL's users expect besides plain queries: geometry as PostGIS sends it, COPY, SCRAM, roles, spilling, cancelling.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use entity::Iri;
use futures::FutureExt;
use futures::future::BoxFuture;
use query::{Auth, Limits, LoginError, Secret, Settings, Sink, SinkError, Source, SourceFactory};

use crate::city::{Cities, City, city, iri};
use crate::psql::{Running, psql_missing};
use crate::wire::{Client, error, values};

/// A token per user, as a node has them.
fn scram() -> Auth {
    Auth::Scram(Arc::new(|user: &str| match user {
        "analyst" => Ok(Secret { principal: "conurb".to_owned(), password: "s3cret".to_owned() }),
        "offline" => Err(LoginError::Unavailable { reason: "the directory does not answer".to_owned() }),
        _ => Err(LoginError::Refused),
    }))
}

/// Keeps what it is given; refuses the value 666.
#[derive(Default)]
struct MemorySink {
    batches: Mutex<Vec<(Iri, RecordBatch)>>,
}

impl Sink for MemorySink {
    fn append<'s>(&'s self, entity_type: &'s Iri, rows: RecordBatch) -> BoxFuture<'s, Result<u64, SinkError>> {
        async move {
            if let Some(numbers) = rows.column(2).as_primitive_opt::<Float64Type>()
                && let Some(row) = numbers.iter().position(|n| n == Some(666.0))
            {
                let column = Some(rows.schema().field(2).name().clone());
                return Err(SinkError::Invalid { row: Some(row), column, reason: "nobody wants this".to_owned() });
            }
            let n_rows = rows.num_rows() as u64;
            self.batches.lock().unwrap().push((entity_type.clone(), rows));
            Ok(n_rows)
        }
        .boxed()
    }
}

/// A city that can be written to.
struct Writable(Arc<City>, Arc<MemorySink>);

impl SourceFactory for Writable {
    fn source(&self, principal: &str) -> Arc<dyn Source> {
        Cities(self.0.clone()).source(principal)
    }

    fn sink(&self, _principal: &str) -> Option<Arc<dyn Sink>> {
        Some(self.1.clone())
    }
}

async fn writable() -> (Running, Arc<MemorySink>) {
    let (city, sink) = (city(), Arc::new(MemorySink::default()));
    let server = Running::start_over(Settings::new(Auth::Trust), city.clone(), Arc::new(Writable(city, sink.clone()))).await;
    (server, sink)
}

/// `psql` with something on its standard input.
async fn psql_with(port: u16, sql: &str, input: Vec<u8>) -> (bool, String, String) {
    let mut command = Command::new("psql");
    command.args(["-X", "-w", "-h", "127.0.0.1", "-U", "conurb", "-d", "conurb", "-p", &port.to_string(), "-c", sql]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let work = move || {
        let mut child = command.spawn().unwrap();
        // A server that stops reading breaks the pipe: what it says is in the output.
        let _ = child.stdin.take().unwrap().write_all(&input);
        child.wait_with_output().unwrap()
    };
    let output = tokio::task::spawn_blocking(work).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn geometries_go_out_as_postgis_sends_them() {
    let server = Running::start(Auth::Trust, Limits::default()).await;
    let mut client = Client::log_in(server.port).await;
    client.query(r#"select location from "AirQualityObserved" where "stationName" = 'gucheng'"#).await;
    let answer = client.until('Z').await;
    assert_eq!(values(&answer), ["0101000020E6100000CDCCCCCCCC0C5D403333333333F34340"]);
    // The field is of a type of its own, not text (25) and not bytea (17).
    let (_, fields) = answer.iter().find(|(kind, _)| *kind == 'T').unwrap();
    let oid = u32::from_be_bytes(fields[2 + "location\0".len() + 6..][..4].try_into().unwrap());
    assert_eq!(oid, 90_001);
    // The binary format of a prepared statement holds the bytes themselves.
    client.send('P', b"\0select location from \"AirQualityObserved\" where lon > 116.3\0\0\0").await;
    client.send('B', b"\0\0\0\0\0\0\0\x01\0\x01").await;
    client.send('E', b"\0\0\0\0\0").await;
    client.send('S', b"").await;
    let answer = client.until('Z').await;
    let (_, row) = answer.iter().find(|(kind, _)| *kind == 'D').unwrap();
    assert_eq!((row.len(), &row[2..11]), (2 + 4 + 25, &[0, 0, 0, 25, 1, 1, 0, 0, 0x20][..]));
    server.stop().await;
}

#[tokio::test]
async fn rows_are_copied_out() {
    if psql_missing() {
        return;
    }
    let server = Running::start(Auth::Trust, Limits::default()).await;
    let ask = async |sql: &str| Running::text(&server.psql(&["-c", sql]).await);
    let csv = ask(r#"copy (select id, lanes, "refDevice", lon from "Road" order by id) to stdout with (format csv, header)"#).await;
    assert_eq!(
        csv,
        "id,lanes,refDevice,lon\nurn:ngsi-ld:Road:1,2,\"[\"\"urn:d:1\"\",\"\"urn:d:2\"\"]\",116.1\nurn:ngsi-ld:Road:2,\"\"\"two\"\"\",,\n"
    );
    let text = ask(r#"copy (select 'a' || chr(9) || 'b\', null, true) to stdout"#).await;
    assert_eq!(text, "a\\tb\\\\\t\\N\tt\n");
    let table = ask(r#"copy "Gone_history" (id, x) to stdout delimiter '|' null '-'"#).await;
    assert_eq!(table, "urn:ngsi-ld:Gone:1|1\n");
    let many = ask(r#"\copy (select value from generate_series(1, 200000)) to pstdout csv"#).await;
    assert_eq!(many.lines().count(), 200_000);
    for (sql, want) in [
        ("copy (select 1/0) to stdout", "Divide by zero"),
        ("copy \"Road\" to stdout with (format binary)", "expected text or csv"),
        ("copy \"Road\" (id, lanes) from stdin", "read-only"),
        ("copy (select 1) to stdout; select 2", "by itself"),
    ] {
        let output = server.psql(&["-c", sql]).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(want), "{sql}: {stderr}");
    }
    server.stop().await;
}

#[tokio::test]
async fn observations_are_copied_in() {
    if psql_missing() {
        return;
    }
    let (server, sink) = writable().await;
    let copy = r#"copy "AirQualityObserved_history" (observed_at, id, pm25) from stdin csv header"#;
    let rows = "observed_at,id,pm25\n2014-02-01T00:00:00Z,urn:ngsi-ld:AirQualityObserved:gucheng,1.5\n2014-02-01 08:00:00+08,urn:x:new,\n";
    let (ok, stdout, stderr) = psql_with(server.port, copy, rows.into()).await;
    assert!(ok && stdout == "COPY 2\n", "{stdout}{stderr}");
    {
        let mut batches = sink.batches.lock().unwrap();
        let (entity_type, batch) = batches.pop().unwrap();
        assert_eq!(entity_type, iri("AirQualityObserved"));
        let schema = batch.schema();
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names, ["entity_id", "observed_at", "https://example.org/pm25"]);
        assert_eq!(schema.field(2).metadata()["unit_code"], "GQ");
        assert_eq!(batch.column(0).as_string::<i32>().value(1), "urn:x:new");
        let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
        assert_eq!(times.value(0), times.value(1));
        let numbers = batch.column(2).as_primitive::<Float64Type>();
        assert_eq!(numbers.iter().collect::<Vec<_>>(), [Some(1.5), None]);
    }

    // Large data are recorded in batches; the row that fails is named, and what is before its batch is recorded.
    let line = |i: u32, value: &str| format!("2014-02-01T00:00:00Z,urn:x:{i},{value}\n");
    let large = |bad: &str| (0..25_000).map(|i| line(i, if i == 20_123 { bad } else { "2" })).collect::<String>().into_bytes();
    let plain = r#"copy "AirQualityObserved_history" (observed_at, id, pm25) from stdin csv"#;
    for (bad, want) in [
        ("high", "COPY line 20124, column pm25: `high` is not a number; the first 20000 rows are recorded, nothing after them"),
        ("666", "COPY line 20124, column pm25: nobody wants this; the first 20000 rows are recorded, nothing after them"),
        ("1,2", "COPY line 20124: 4 values (expected 3); the first 20000 rows are recorded"),
    ] {
        let (ok, _, stderr) = psql_with(server.port, plain, large(bad)).await;
        assert!(!ok && stderr.contains(want), "{bad}: {stderr}");
        let recorded: usize = sink.batches.lock().unwrap().drain(..).map(|(_, b)| b.num_rows()).sum();
        assert_eq!(recorded, 20_000);
    }
    let (ok, stdout, stderr) = psql_with(server.port, plain, large("3")).await;
    assert!(ok && stdout == "COPY 25000\n", "{stdout}{stderr}");
    sink.batches.lock().unwrap().clear();

    for (sql, want) in [
        (r#"copy "AirQualityObserved" (id, observed_at, pm25) from stdin"#, "they are written to \"AirQualityObserved_history\""),
        (r#"copy "AirQualityObserved_history" (id, pm25) from stdin"#, "columns id and observed_at are needed"),
        (
            r#"copy "AirQualityObserved_history" (id, observed_at, pm10) from stdin"#,
            "column \"pm10\" does not exist (expected id, observed_at, \"note\", \"pm25\")",
        ),
        (r#"copy "AirQualityObserved_history" (id, observed_at, note) from stdin"#, "cannot be written by COPY"),
        (r#"copy "AirQualityObserved_history" (id, observed_at, recorded_at) from stdin"#, "the node fills it in"),
        (r#"copy "AirQualityObserved_history" from stdin"#, "name the columns"),
        ("copy nothing (id, observed_at, x) from stdin", "there is no table \"nothing\""),
        ("copy \"Road\" from '/etc/passwd'", "read-only"),
    ] {
        let (ok, _, stderr) = psql_with(server.port, sql, Vec::new()).await;
        assert!(!ok && stderr.contains(want), "{sql}: {stderr}");
    }
    assert!(sink.batches.lock().unwrap().is_empty());
    // The session is usable after a COPY that failed.
    let output = server.psql(&["-At", "-c", "copy nothing (id) from stdin", "-c", "select 7"]).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "7\n");
    server.stop().await;
}

#[tokio::test]
async fn tokens_are_proved_and_do_not_travel() {
    let server = Running::start_with(Settings::new(scram())).await;
    // What the server asks for is SCRAM-SHA-256 (10), not a password in clear text (3).
    let mut client = Client::connect(server.port).await;
    client.startup("analyst").await;
    let (kind, body) = client.next().await.unwrap();
    assert_eq!((kind, &body[..]), ('R', &b"\0\0\0\x0aSCRAM-SHA-256\0\0"[..]));
    // A password in clear text is no answer to that.
    client.send('p', b"s3cret\0").await;
    let answer = client.until('!').await;
    assert_eq!(error(&answer).unwrap()[0], "FATAL");
    if psql_missing() {
        return server.stop().await;
    }
    let ask = ["-At", "-c", "select current_user"];
    assert_eq!(Running::text(&server.psql_as("analyst", "s3cret", &ask).await), "conurb\n");
    for (user, password, want) in [
        ("analyst", "wrong", "password authentication failed for user \"analyst\""),
        ("stranger", "s3cret", "password authentication failed for user \"stranger\""),
        ("offline", "x", "the directory does not answer"),
    ] {
        let output = server.psql_as(user, password, &ask).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(want), "{user}: {stderr}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_role_has_limits_of_its_own() {
    let tight = Limits { statement_time: Duration::from_millis(300), memory_bytes: 4 << 20, connections: 1, spill_bytes: 0 };
    let settings = Settings { roles: [("tight".to_owned(), tight)].into(), ..Settings::new(Auth::Trust) };
    let server = Running::start_with(settings).await;
    let mut client = Client::connect(server.port).await;
    client.startup("tight").await;
    client.until('Z').await;
    // A client may ask for less time than its role has, not for more.
    client.query("set statement_timeout = 60000").await;
    client.until('Z').await;
    client.query("select count(*) from generate_series(1, 1000000000000)").await;
    let [_, state, message] = error(&client.until('Z').await).unwrap();
    assert!(state == "57014" && message.contains("limit of 0.3 s"), "{state} {message}");
    client.query("select value, count(*) from generate_series(1, 2000000) group by value order by 2").await;
    let state = error(&client.until('Z').await).unwrap()[1].clone();
    assert!(state == "53200" || state == "57014", "{state}");
    let mut second = Client::connect(server.port).await;
    second.startup("tight").await;
    assert_eq!(error(&second.until('Z').await).unwrap(), ["FATAL", "53300", "too many connections for role \"tight\": the limit is 1"]);
    let mut other = Client::log_in(server.port).await;
    other.query("select 1").await;
    assert_eq!(values(&other.until('Z').await), ["1"]);
    server.stop().await;
}

#[tokio::test]
async fn what_does_not_fit_the_memory_goes_to_the_disk_within_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    let spill = folder.path().join("sql-spill");
    std::fs::create_dir(&spill).unwrap();
    std::fs::write(spill.join("left-over"), "from a node that was killed").unwrap();
    let large = "select max(r) from (select value, row_number() over (order by value % 1000, value) as r from generate_series(1, 1500000))";
    let roomy = Limits { memory_bytes: 12 << 20, statement_time: Duration::from_secs(120), ..Limits::default() };
    let roles = [("small".to_owned(), Limits { spill_bytes: 1 << 20, ..roomy }), ("none".to_owned(), Limits { spill_bytes: 0, ..roomy })];
    let settings = Settings { limits: roomy, roles: roles.into(), spill_folder: Some(spill.clone()), ..Settings::new(Auth::Trust) };
    let server = Running::start_with(settings).await;
    let mut client = Client::log_in(server.port).await;
    assert!(!spill.join("left-over").exists());
    client.query(large).await;
    let answer = client.until('Z').await;
    assert_eq!((values(&answer), error(&answer)), (vec!["1500000".to_owned()], None));
    for role in ["small", "none"] {
        let mut client = Client::connect(server.port).await;
        client.startup(role).await;
        client.until('Z').await;
        client.query(large).await;
        let [_, state, message] = error(&client.until('Z').await).unwrap();
        assert_eq!(state, "53200", "{role}: {message}");
    }
    server.stop().await;
}

#[tokio::test]
async fn one_session_ends_the_statement_of_another() {
    let server = Running::start(Auth::Trust, Limits::default()).await;
    let mut busy = Client::log_in(server.port).await;
    let mut other = Client::log_in(server.port).await;
    busy.query("select pg_backend_pid()").await;
    let pid = values(&busy.until('Z').await).pop().unwrap();
    busy.query("select count(*) from generate_series(1, 1000000000000) a where a % 7 = 3").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    other.query(&format!("select pg_cancel_backend({pid}), pg_cancel_backend(-1)")).await;
    assert_eq!(error(&other.until('Z').await), None);
    assert_eq!(error(&busy.until('Z').await).unwrap()[1], "57014");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_is_gone_costs_nothing_more() {
    let server = Running::start(Auth::Trust, Limits { connections: 1, ..Limits::default() }).await;
    let mut client = Client::log_in(server.port).await;
    client.query("select count(*) from generate_series(1, 1000000000000) a where a % 7 = 3").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(client);
    // Its only place is free again only when the statement has ended.
    for _ in 0..200 {
        let mut again = Client::connect(server.port).await;
        again.startup("conurb").await;
        if error(&again.until('Z').await).is_none() {
            return server.stop().await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the statement of a client that is gone goes on");
}

#[tokio::test]
async fn a_copy_that_waits_for_rows_can_be_cancelled() {
    let (server, sink) = writable().await;
    let mut copying = Client::log_in(server.port).await;
    let mut other = Client::log_in(server.port).await;
    copying.query(r#"copy "AirQualityObserved_history" (observed_at, id, pm25) from stdin csv"#).await;
    copying.until('G').await;
    copying.send('d', b"2014-02-01T00:00:00Z,urn:x:1,2\n").await;
    other.query(&format!("select pg_cancel_backend({})", copying.pid())).await;
    assert_eq!(values(&other.until('Z').await), ["t"]);
    assert_eq!(error(&copying.until('Z').await).unwrap()[1], "57014");
    // The session goes on, and a cancellation that comes too late has no effect on the next statement.
    other.query(&format!("select pg_cancel_backend({})", copying.pid())).await;
    other.until('Z').await;
    copying.query("select 7").await;
    assert_eq!(values(&copying.until('Z').await), ["7"]);
    assert!(sink.batches.lock().unwrap().is_empty());
    server.stop().await;
}
