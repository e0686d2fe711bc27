//! Arrow Flight SQL as its clients see it: the packages people use, unmodified, and a client for the edges of the protocol.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, TimestampMicrosecondType};
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    CommandGetCrossReference, CommandGetExportedKeys, CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetTables,
};
use arrow_flight::{Action, CancelFlightInfoRequest, CancelFlightInfoResult, FlightDescriptor, FlightInfo, Ticket};
use entity::{Entity, Instant, Iri};
use futures::TryStreamExt;
use futures::future::BoxFuture;
use prost::Message;
use query::{Auth, INGEST_BATCH_ROWS_MAX, Limits, LoginError, Settings, Sink, SinkError, Source, SourceFactory, serve_flight};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use store::history::History;
use tokio::sync::oneshot;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::city::{City, NS, city};
use crate::python::{python, said};

/// The city of the tests, in which names mean something before they are used, and rows are taken in.
struct Growing(Arc<City>);

impl Source for Growing {
    fn types(&self) -> Vec<Iri> {
        self.0.types()
    }

    fn entities(&self, entity_type: &Iri) -> Vec<Arc<Entity>> {
        self.0.entities(entity_type)
    }

    fn history(&self) -> &dyn History {
        self.0.history()
    }

    fn short_name(&self, name: &Iri) -> String {
        self.0.short_name(name)
    }

    fn full_name(&self, name: &str) -> Option<Iri> {
        format!("{NS}{name}").parse().ok().filter(|_| !name.contains(' '))
    }
}

/// Puts rows into the history of the city, and remembers how many came at a time.
struct CitySink {
    city: Arc<City>,
    pieces: Arc<Mutex<Vec<usize>>>,
}

impl Sink for CitySink {
    fn append<'s>(&'s self, entity_type: &'s Iri, batch: RecordBatch) -> BoxFuture<'s, Result<u64, SinkError>> {
        Box::pin(async move {
            if entity_type.local_name() == "Full" {
                return Err(SinkError::Unavailable { reason: "the disk is full".to_owned() });
            }
            self.pieces.lock().unwrap().push(batch.num_rows());
            let (ids, times) = (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<TimestampMicrosecondType>());
            for (field, column) in batch.schema().fields().iter().zip(batch.columns()).skip(2) {
                let name: Iri = field.name().parse().unwrap();
                for i in (0..batch.num_rows()).filter(|&i| column.is_valid(i)) {
                    let value = match column.data_type() {
                        DataType::Float64 => json!(column.as_primitive::<Float64Type>().value(i)),
                        DataType::Boolean => json!(column.as_boolean().value(i)),
                        _ => json!(column.as_string::<i32>().value(i)),
                    };
                    let at = Instant::from_micros(times.value(i)).to_string();
                    self.city.history.put(entity_type.local_name(), ids.value(i), name.local_name(), value, &at, &at);
                }
            }
            Ok(batch.num_rows() as u64)
        })
    }
}

struct GrowingCities {
    city: Arc<City>,
    pieces: Arc<Mutex<Vec<usize>>>,
}

impl SourceFactory for GrowingCities {
    fn source(&self, principal: &str) -> Arc<dyn Source> {
        if principal == "nobody" { Arc::new(City::default()) } else { Arc::new(Growing(self.city.clone())) }
    }

    fn sink(&self, principal: &str) -> Option<Arc<dyn Sink>> {
        (principal != "nobody").then(|| Arc::new(CitySink { city: self.city.clone(), pieces: self.pieces.clone() }) as Arc<dyn Sink>)
    }
}

struct Running {
    port: u16,
    pieces: Arc<Mutex<Vec<usize>>>,
    stop: Option<oneshot::Sender<()>>,
    ended: tokio::task::JoinHandle<std::io::Result<()>>,
}

/// `analyst` with password `s3cret` is the principal `conurb`, `guest` is `nobody`, the token `t0ken` is `robot`; `offline` cannot be checked.
fn passwords() -> Auth {
    Auth::Password(Arc::new(|user: &str, password: &str| match (user, password) {
        ("analyst", "s3cret") => Ok("conurb".to_owned()),
        ("guest", "guest") => Ok("nobody".to_owned()),
        (_, "t0ken") => Ok("robot".to_owned()),
        ("offline", _) => Err(LoginError::Unavailable { reason: "the directory does not answer".to_owned() }),
        _ => Err(LoginError::Refused),
    }))
}

impl Running {
    async fn start(auth: Auth, limits: Limits) -> Self {
        Self::start_with(Settings { limits, ..Settings::new(auth) }).await
    }

    async fn start_with(settings: Settings) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let pieces = Arc::default();
        let factory = Arc::new(GrowingCities { city: city(), pieces: Arc::clone(&pieces) });
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(serve_flight(listener, factory, settings, async {
            let _ = stopped.await;
        }));
        Self { port, pieces, stop: Some(stop), ended }
    }

    /// Asks the server to stop and waits until it has.
    async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(10), self.ended).await.expect("the server stops").unwrap().unwrap();
    }

    async fn client(&self) -> FlightSqlServiceClient<Channel> {
        let channel = Channel::from_shared(format!("http://127.0.0.1:{}", self.port)).unwrap().connect().await.unwrap();
        FlightSqlServiceClient::new(channel)
    }

    /// Runs a check of the Python client against this server.
    async fn python(&self, check: &str, arguments: &[&Path]) {
        let Some(python) = python("adbc", &["adbc_driver_flightsql==1.13.0", "pyarrow==26.0.1"]).await else { return };
        let mut command = Command::new(python);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/flight_client.py")).arg(self.port.to_string()).arg(check);
        command.args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = said(&output);
        assert!(output.status.success() && text.contains(&format!("ok {check}")), "{text}");
    }
}

#[tokio::test]
async fn adbc_asks_and_is_answered() {
    let server = Running::start(passwords(), Limits::default()).await;
    for check in ["query", "errors", "metadata", "prepared", "passwords"] {
        server.python(check, &[]).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn adbc_ingests_rows() {
    let server = Running::start(passwords(), Limits::default()).await;
    server.python("ingest", &[]).await;
    let pieces = server.pieces.lock().unwrap().clone();
    assert!(pieces.iter().all(|&n| n <= INGEST_BATCH_ROWS_MAX), "{pieces:?}");
    server.stop().await;
}

#[tokio::test]
async fn adbc_cancels_a_statement() {
    let server = Running::start(passwords(), Limits { connections: 2, ..Limits::default() }).await;
    server.python("cancel", &[]).await;
    server.stop().await;
}

#[tokio::test]
async fn adbc_takes_two_million_rows() {
    // They are never all in memory: the limit is far below their size.
    let server = Running::start(passwords(), Limits { memory_bytes: 8 << 20, ..Limits::default() }).await;
    server.python("stream", &[]).await;
    server.stop().await;
}

#[tokio::test]
async fn adbc_talks_inside_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (key, certificate) = (folder.path().join("key.pem"), folder.path().join("certificate.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost"]);
    openssl.args(["-addext", "subjectAltName=DNS:localhost"]);
    match openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate).output() {
        Ok(made) => assert!(made.status.success(), "{}", said(&made)),
        Err(_) => return eprintln!("skipped: openssl is not on this machine"),
    }
    let chain = CertificateDer::pem_file_iter(&certificate).unwrap().map(|c| c.unwrap()).collect();
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(&key).unwrap())
        .unwrap();
    let settings = Settings { tls: Some(Arc::new(tls)), ..Settings::new(passwords()) };
    let server = Running::start_with(settings).await;
    server.python("tls", &[&certificate]).await;
    server.stop().await;
}

/// All rows of the only endpoint.
async fn fetch(client: &mut FlightSqlServiceClient<Channel>, info: &FlightInfo) -> Result<Vec<RecordBatch>, Status> {
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let rows = client.do_get(ticket).await.map_err(Status::from)?;
    rows.try_collect().await.map_err(Status::from)
}

async fn ask(client: &mut FlightSqlServiceClient<Channel>, sql: &str) -> Result<Vec<RecordBatch>, Status> {
    let info = client.execute(sql.to_owned(), None).await.map_err(Status::from)?;
    fetch(client, &info).await
}

fn n_rows(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

#[tokio::test]
async fn a_ticket_may_be_redeemed_again_by_its_session_until_too_many_followed() {
    let server = Running::start(passwords(), Limits::default()).await;
    let mut client = server.client().await;
    client.handshake("analyst", "s3cret").await.unwrap();
    let info = client.execute(r#"select id from "Road""#.to_owned(), None).await.unwrap();
    for _ in 0..2 {
        assert_eq!(n_rows(&fetch(&mut client, &info).await.unwrap()), 2);
    }
    // Another session of the same principal knows nothing of it.
    let mut other = server.client().await;
    other.handshake("analyst", "s3cret").await.unwrap();
    assert_eq!(fetch(&mut other, &info).await.unwrap_err().code(), Code::NotFound);
    for _ in 0..256 {
        client.execute("select 1".to_owned(), None).await.unwrap();
    }
    let error = fetch(&mut client, &info).await.unwrap_err();
    assert!(error.code() == Code::NotFound && error.message().contains("expired"), "{error:?}");
    server.stop().await;
}

#[tokio::test]
async fn tickets_of_others_and_rubbish_are_refused_in_words() {
    let server = Running::start(Auth::Trust, Limits::default()).await;
    let mut client = server.client().await;
    for rubbish in [&b"rubbish"[..], b"", &[0xff; 100]] {
        let error = client.do_get(Ticket::new(rubbish.to_vec())).await.map(drop).unwrap_err();
        let status = Status::from(error);
        assert!(matches!(status.code(), Code::InvalidArgument | Code::Unimplemented), "{status:?}");
        let error = client.inner_mut().get_flight_info(FlightDescriptor::new_cmd(rubbish.to_vec())).await.unwrap_err();
        assert!(matches!(error.code(), Code::InvalidArgument | Code::Unimplemented), "{error:?}");
    }
    let error = client.inner_mut().get_flight_info(FlightDescriptor::new_path(vec!["x".to_owned()])).await.unwrap_err();
    assert!(matches!(error.code(), Code::InvalidArgument | Code::Unimplemented), "{error:?}");
    let error = Status::from(client.do_action(Action::new("Explode", "")).await.map(drop).unwrap_err());
    assert!(error.message().contains("unknown action `Explode` (expected one of CreatePreparedStatement"), "{error:?}");
    assert!(client.begin_transaction().await.is_err());
    let error = Status::from(client.execute_update(r#"delete from "Road""#.to_owned(), None).await.unwrap_err());
    assert_eq!((error.code(), error.metadata().get("sqlstate").unwrap().to_str().unwrap()), (Code::PermissionDenied, "25006"));
    server.stop().await;
}

#[tokio::test]
async fn a_statement_is_prepared_bound_asked_and_closed() {
    let server = Running::start(Auth::Trust, Limits::default()).await;
    let mut client = server.client().await;
    let sql = r#"select pm25 from "AirQualityObserved" where "stationName" = $1"#;
    let mut statement = client.prepare(sql.to_owned(), None).await.unwrap();
    assert_eq!(statement.parameter_schema().unwrap().field(0).data_type(), &DataType::Utf8);
    assert_eq!(statement.dataset_schema().unwrap().field(0).metadata()["unit_code"], "GQ");
    let error = Status::from(statement.execute().await.unwrap_err());
    assert!(error.message().contains("1 parameters, none are bound"), "{error:?}");
    for (name, want) in [("gucheng", vec![120.5]), ("tiantan", vec![38.0]), ("nowhere", vec![])] {
        let names = Arc::new(StringArray::from(vec![name]));
        statement.set_parameters(RecordBatch::try_from_iter([("x", names as _)]).unwrap()).unwrap();
        let info = statement.execute().await.unwrap();
        let batches = fetch(&mut client, &info).await.unwrap();
        let got: Vec<f64> = batches.iter().flat_map(|b| b.column(0).as_primitive::<Float64Type>().values().to_vec()).collect();
        assert_eq!(got, want, "{name}");
    }
    let mut closed = statement.clone();
    statement.close().await.unwrap();
    assert_eq!(Status::from(closed.execute().await.unwrap_err()).code(), Code::NotFound);
    // A session has so many, and says so.
    for _ in 0..256 {
        client.prepare("select 1".to_owned(), None).await.unwrap();
    }
    let error = Status::from(client.prepare("select 1".to_owned(), None).await.unwrap_err());
    assert!(error.code() == Code::ResourceExhausted && error.message().contains("the limit is 256"), "{error:?}");
    server.stop().await;
}

#[tokio::test]
async fn parameters_have_limits() {
    let server = Running::start(Auth::Trust, Limits::default()).await;
    let mut client = server.client().await;
    let error = Status::from(client.prepare("select $1001".to_owned(), None).await.unwrap_err());
    assert!(error.message().contains("1001 parameters; the limit is 1000"), "{error:?}");
    let mut statement = client.prepare("select $1 + 1 as n".to_owned(), None).await.unwrap();
    for (n, fits) in [(1_024, true), (1_025, false)] {
        let numbers = Arc::new(Int64Array::from_iter_values(0..n));
        statement.set_parameters(RecordBatch::try_from_iter([("x", numbers as _)]).unwrap()).unwrap();
        match statement.execute().await {
            Ok(info) if fits => assert_eq!(n_rows(&fetch(&mut client, &info).await.unwrap()), 1_024),
            Err(error) if !fits => assert!(Status::from(error).message().contains("1025 rows of parameters; the limit is 1024")),
            other => panic!("{n}: {other:?}"),
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn statements_at_work_are_counted_timed_and_cancelled() {
    let limits = Limits { connections: 2, statement_time: Duration::from_secs(2), ..Limits::default() };
    let server = Running::start(Auth::Trust, limits).await;
    let mut client = server.client().await;
    let endless = "select count(*) from generate_series(1, 1000000000000)";
    let mut working = Vec::new();
    for _ in 0..2 {
        let info = client.execute(endless.to_owned(), None).await.unwrap();
        let mut second = client.clone();
        let asked = info.clone();
        working.push((info, tokio::spawn(async move { fetch(&mut second, &asked).await })));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let error = ask(&mut client, "select 1").await.unwrap_err();
    assert!(error.code() == Code::ResourceExhausted && error.message().contains("the limit is 2"), "{error:?}");
    // One is taken back ...
    let (info, work) = working.remove(0);
    let request = Action::new("CancelFlightInfo", CancelFlightInfoRequest::new(info.clone()).encode_to_vec());
    let answers: Vec<_> = client.do_action(request.clone()).await.unwrap().try_collect().await.unwrap();
    let cancelled = CancelFlightInfoResult::decode(answers[0].body.as_ref()).unwrap();
    assert_eq!(cancelled.status(), arrow_flight::CancelStatus::Cancelled);
    let error = work.await.unwrap().unwrap_err();
    assert!(error.code() == Code::Cancelled && error.message().contains("cancelled by its client"), "{error:?}");
    assert_eq!(fetch(&mut client, &info).await.unwrap_err().code(), Code::NotFound);
    let answers: Vec<_> = client.do_action(request).await.unwrap().try_collect().await.unwrap();
    let again = CancelFlightInfoResult::decode(answers[0].body.as_ref()).unwrap();
    assert_eq!(again.status(), arrow_flight::CancelStatus::NotCancellable);
    // ... which leaves its place to the next one, and the other comes to its limit of time.
    assert_eq!(n_rows(&ask(&mut client, "select 1").await.unwrap()), 1);
    let error = working.remove(0).1.await.unwrap().unwrap_err();
    assert!(error.code() == Code::DeadlineExceeded && error.message().contains("limit of 2 s"), "{error:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_call_that_is_broken_off_ends_the_work() {
    let server = Running::start(Auth::Trust, Limits { connections: 1, ..Limits::default() }).await;
    let mut client = server.client().await;
    let rows = client.execute("select value from generate_series(1, 1000000000000)".to_owned(), None).await.unwrap();
    let mut rows = client.do_get(rows.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    assert!(rows.try_next().await.unwrap().unwrap().num_rows() > 0);
    let error = ask(&mut client, "select 1").await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error:?}");
    drop(rows);
    for _ in 0..100 {
        if ask(&mut client, "select 1").await.is_ok() {
            return server.stop().await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the place of a statement that nobody waits for was never free again");
}

#[tokio::test]
async fn statements_have_a_memory_limit() {
    let server = Running::start(Auth::Trust, Limits { memory_bytes: 4 << 20, ..Limits::default() }).await;
    let mut client = server.client().await;
    let error = ask(&mut client, "select value, count(*) from generate_series(1, 2000000) group by value order by 2").await.unwrap_err();
    assert!(error.code() == Code::ResourceExhausted && error.message().contains("more memory than the limit"), "{error:?}");
    assert_eq!(n_rows(&ask(&mut client, "select 1").await.unwrap()), 1);
    server.stop().await;
}

#[tokio::test]
async fn keys_are_empty_and_well_formed() {
    let server = Running::start(Auth::Trust, Limits::default()).await;
    let mut client = server.client().await;
    let table = || "Road".to_owned();
    let keys = client.get_primary_keys(CommandGetPrimaryKeys { catalog: None, db_schema: None, table: table() }).await.unwrap();
    let exported = client.get_exported_keys(CommandGetExportedKeys { catalog: None, db_schema: None, table: table() }).await.unwrap();
    let imported = client.get_imported_keys(CommandGetImportedKeys { catalog: None, db_schema: None, table: table() }).await.unwrap();
    let reference = CommandGetCrossReference { pk_table: table(), fk_table: table(), ..CommandGetCrossReference::default() };
    let crossed = client.get_cross_reference(reference).await.unwrap();
    for (info, n_columns) in [(keys, 6), (exported, 13), (imported, 13), (crossed, 13)] {
        let rows = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
        let schema = info.try_decode_schema().unwrap();
        assert_eq!(schema.fields().len(), n_columns);
        let batches: Vec<RecordBatch> = rows.try_collect().await.unwrap();
        assert_eq!(n_rows(&batches), 0);
        assert!(batches.iter().all(|b| *b.schema() == schema));
    }
    let wanted = CommandGetTables { table_name_filter_pattern: Some("R%".to_owned()), include_schema: true, ..CommandGetTables::default() };
    let info = client.get_tables(wanted).await.unwrap();
    let tables = fetch(&mut client, &info).await.unwrap();
    assert_eq!(tables[0].column_by_name("table_name").unwrap().as_string::<i32>().value(0), "Road");
    server.stop().await;
}

#[tokio::test]
async fn a_closed_session_opens_nothing_any_more() {
    let server = Running::start(passwords(), Limits::default()).await;
    let mut client = server.client().await;
    client.handshake("analyst", "s3cret").await.unwrap();
    let info = client.execute("select 1".to_owned(), None).await.unwrap();
    let answers: Vec<_> = client.do_action(Action::new("CloseSession", "")).await.unwrap().try_collect().await.unwrap();
    assert_eq!(answers[0].body.as_ref(), [8, 1]);
    let error = fetch(&mut client, &info).await.unwrap_err();
    assert!(error.code() == Code::Unauthenticated && error.message().contains("log in again"), "{error:?}");
    server.stop().await;
}

#[tokio::test]
async fn what_was_ingested_before_an_error_is_said() {
    let server = Running::start(Auth::Trust, Limits::default()).await;
    let mut client = server.client().await;
    let command = |table: &str| arrow_flight::sql::CommandStatementIngest {
        table_definition_options: Some(arrow_flight::sql::TableDefinitionOptions {
            if_not_exist: arrow_flight::sql::TableNotExistOption::Create as i32,
            if_exists: arrow_flight::sql::TableExistsOption::Append as i32,
        }),
        table: table.to_owned(),
        ..arrow_flight::sql::CommandStatementIngest::default()
    };
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, true),
        Field::new("observed_at", DataType::Utf8, true),
        Field::new("pm25", DataType::Float64, true),
    ]));
    let batch = |ids: Vec<Option<&str>>| {
        let times = StringArray::from(vec!["2014-03-01T00:00:00Z"; ids.len()]);
        let values = arrow::array::Float64Array::from(vec![1.0; ids.len()]);
        RecordBatch::try_new(schema.clone(), vec![Arc::new(StringArray::from(ids)), Arc::new(times), Arc::new(values)]).unwrap()
    };
    let rows = [Ok(batch(vec![Some("urn:x:1"), Some("urn:x:2")])), Ok(batch(vec![Some("urn:x:3"), None]))];
    let error = client.execute_ingest(command("AirQualityObserved_history"), futures::stream::iter(rows)).await.unwrap_err();
    let error = Status::from(error);
    assert_eq!(error.message(), "row 4: column `id` is null (the 2 rows before were written)");
    let kept = ask(&mut client, r#"select id from "AirQualityObserved_history" where id like 'urn:x:%'"#).await.unwrap();
    assert_eq!(n_rows(&kept), 2);
    let rows = [Ok(batch(vec![Some("urn:x:1")]))];
    let error = Status::from(client.execute_ingest(command("Full_history"), futures::stream::iter(rows)).await.unwrap_err());
    assert!(error.code() == Code::Unavailable && error.message().contains("the disk is full"), "{error:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_stopping_server_lets_a_statement_finish_and_waits_no_longer_than_it_says() {
    let server = Running::start(Auth::Trust, Limits::default()).await;
    let mut client = server.client().await;
    let finite = client.execute("select count(*) from generate_series(1, 30000000)".to_owned(), None).await.unwrap();
    let endless = client.execute("select count(*) from generate_series(1, 1000000000000)".to_owned(), None).await.unwrap();
    let work: Vec<_> = [finite, endless]
        .into_iter()
        .map(|info| {
            let mut client = client.clone();
            tokio::spawn(async move { fetch(&mut client, &info).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop().await;
    let mut answers = Vec::new();
    for work in work {
        answers.push(work.await.unwrap());
    }
    assert_eq!(n_rows(answers[0].as_ref().unwrap()), 1);
    assert!(answers[1].is_err());
}
