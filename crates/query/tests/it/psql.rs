//! `psql` as people use it, against a real server on a free port.

use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use query::{Auth, Limits, LoginError, Settings, SourceFactory, serve};
use tokio::sync::oneshot;

use crate::city::{Cities, City, city};

pub(crate) struct Running {
    pub(crate) port: u16,
    pub(crate) city: Arc<City>,
    stop: Option<oneshot::Sender<()>>,
    ended: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Running {
    pub(crate) async fn start(auth: Auth, limits: Limits) -> Self {
        Self::start_with(Settings { limits, ..Settings::new(auth) }).await
    }

    pub(crate) async fn start_with(settings: Settings) -> Self {
        let city = city();
        Self::start_over(settings, city.clone(), Arc::new(Cities(city))).await
    }

    pub(crate) async fn start_over(settings: Settings, city: Arc<City>, sources: Arc<dyn SourceFactory>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(serve(listener, sources, settings, async {
            let _ = stopped.await;
        }));
        Self { port, city, stop: Some(stop), ended }
    }

    /// Asks the server to stop and waits until it has.
    pub(crate) async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(10), self.ended).await.expect("the server stops").unwrap().unwrap();
    }

    pub(crate) async fn psql(&self, arguments: &[&str]) -> Output {
        self.psql_as("conurb", "", arguments).await
    }

    pub(crate) async fn psql_as(&self, user: &str, password: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new("psql");
        command.args(["-X", "-w", "-h", "127.0.0.1", "-U", user, "-p", &self.port.to_string()]);
        command.args(arguments).env("PGPASSWORD", password).env("PGDATABASE", "conurb").env("PGCONNECT_TIMEOUT", "10");
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    #[track_caller]
    pub(crate) fn text(output: &Output) -> String {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout.clone()).unwrap()
    }
}

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub(crate) fn psql_missing() -> bool {
    let missing = Command::new("psql").arg("--version").output().is_err();
    if missing {
        eprintln!("skipped: psql is not on this machine");
    }
    missing
}

/// `analyst` with password `s3cret` is the principal `conurb`; the user `offline` cannot be checked.
pub(crate) fn passwords() -> Auth {
    Auth::Password(Arc::new(|user: &str, password: &str| match (user, password) {
        ("analyst", "s3cret") => Ok("conurb".to_owned()),
        ("guest", "guest") => Ok("nobody".to_owned()),
        ("offline", _) => Err(LoginError::Unavailable { reason: "the directory does not answer".to_owned() }),
        _ => Err(LoginError::Refused),
    }))
}

#[tokio::test]
async fn psql_asks_and_is_answered() {
    if psql_missing() {
        return;
    }
    let server = Running::start(Auth::Trust, Limits::default()).await;
    let ask = async |sql: &str| Running::text(&server.psql(&["-At", "-c", sql]).await);
    assert_eq!(ask(r#"select count(*) from "AirQualityObserved" where pm25 > 40"#).await, "2\n");
    assert_eq!(
        ask(r#"select observed_at, pm25, calibrated from "AirQualityObserved" order by pm25 limit 2"#).await,
        "2014-01-02 01:00:00.000000+00|38|\n2014-01-01 23:00:00.000000+00|41|t\n"
    );
    assert_eq!(ask("select 1; select 2").await, "1\n2\n");
    // Numbers are written as PostgreSQL writes them, wherever they become texts.
    assert_eq!(
        ask("select 2e0, 1e20, 1e-5, arrow_cast(1.5e10, 'Float32'), array[1.0, null, 1e23], double precision 'infinity', 2.50::text || 'x', concat(1e15, '|')")
            .await,
        "2|1e+20|1e-05|1.5000001e+10|{1,NULL,9.999999999999999e+22}|Infinity|2.5x|1e+15|\n"
    );
    assert_eq!(ask("copy (select 38.0, 'NaN'::double precision, 1e-7) to stdout").await, "38\tNaN\t1e-07\n");
    let pm25 = r#"select pm25::text from "AirQualityObserved" where pm25::text in ('41', '38') order by 1"#;
    assert_eq!(ask(pm25).await, "38\n41\n");
    assert_eq!(
        ask(r#"select string_agg(id || '=' || pm25, ',' order by pm25) from "AirQualityObserved" where pm25 < 40"#).await,
        "urn:ngsi-ld:AirQualityObserved:tiantan=38\n"
    );
    assert_eq!(ask("set extra_float_digits = 0; select 0.1 + 0.2, 1 / 3e0").await, "SET\n0.3|0.333333333333333\n");
    let output = server.psql(&["-c", "set extra_float_digits = 4"]).await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("from -15 to 3"), "{output:?}");
    assert_eq!(ask("set extra_float_digits = 3; begin; show server_version; commit; discard all").await.lines().next(), Some("SET"));
    assert_eq!(
        ask("begin; declare c cursor for select value from generate_series(1, 5); fetch 2 from c; fetch 2 from c; close c; commit")
            .await
            .lines()
            .filter(|l| l.parse::<u8>().is_ok())
            .collect::<String>(),
        "1234"
    );
    assert_eq!(ask("show server_version").await, format!("16.6 (conurb {})\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(
        ask("show transaction_read_only; show client_encoding; show search_path; show timezone").await,
        "on\nUTF8\n\"$user\", public\nUTC\n"
    );
    assert_eq!(ask("set statement_timeout = '5s'; show statement_timeout; reset all").await, "SET\n5000ms\nRESET\n");
    let output = server.psql(&["-c", "show nonsense"]).await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("unrecognized configuration parameter \"nonsense\""));
    // Several statements may fail half-way; the session stays usable.
    let output = server.psql(&["-At", "-c", "select 1/0", "-c", "select 7"]).await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("Divide by zero"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "7\n");
    server.stop().await;
}

#[tokio::test]
async fn psql_describes_tables() {
    if psql_missing() {
        return;
    }
    let server = Running::start(Auth::Trust, Limits::default()).await;
    for command in ["\\d", "\\dt"] {
        let listing = Running::text(&server.psql(&["-c", command]).await);
        for table in ["AirQualityObserved", "AirQualityObserved_history", "Asset_history", "Gone_history", "Road"] {
            assert!(listing.contains(&format!("| {table} ")), "{command}:\n{listing}");
        }
        assert!(listing.contains("(7 rows)"), "{command}:\n{listing}");
    }
    let table = Running::text(&server.psql(&["-c", r#"\d "AirQualityObserved""#]).await);
    for (column, kind) in [("id", "text"), ("observed_at", "timestamp"), ("pm25", "double precision"), ("calibrated", "boolean")] {
        let line =
            table.lines().find(|l| l.trim_start().starts_with(&format!("{column} "))).unwrap_or_else(|| panic!("{column}:\n{table}"));
        assert!(line.contains(kind), "{line}");
    }
    let databases = Running::text(&server.psql(&["-At", "-c", "select datname from pg_database where datname = current_database()"]).await);
    assert_eq!(databases, "conurb\n");
    server.stop().await;
}

#[tokio::test]
async fn psql_can_change_nothing_and_reach_nothing() {
    if psql_missing() {
        return;
    }
    let server = Running::start(Auth::Trust, Limits::default()).await;
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&secret, "a,b\n1,2\n").unwrap();
    let path = secret.path().display();
    let out = tempfile::tempdir().unwrap();
    let refused = [
        (format!("create external table t stored as csv location '{path}'"), "ERROR"),
        (format!("create external table t (a text) location '{path}'"), "read-only"),
        (format!("select * from '{path}'"), "not found"),
        (format!("copy (select 1) to '{}/x.csv'", out.path().display()), "read-only"),
        (format!("copy \"Road\" from '{path}'"), "read-only"),
        ("drop table \"Road\"".to_owned(), "read-only"),
        ("delete from \"Road\"".to_owned(), "read-only"),
        ("create table t (a int)".to_owned(), "read-only"),
        ("declare c cursor for select 1 into t".to_owned(), "read-only"),
        ("set datafusion.catalog.location = '/'".to_owned(), "cannot be set"),
        ("set datafusion.runtime.memory_limit = '100G'".to_owned(), "cannot be set"),
        ("set client_encoding = 'GBK'".to_owned(), "expected UTF8"),
        ("select count(*) from AirQualityObserved".to_owned(), "did you mean \"AirQualityObserved\"?"),
    ];
    for (sql, want) in refused {
        let output = server.psql(&["-c", &sql]).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(want), "{sql}: {stderr}");
    }
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
    server.stop().await;
}

#[tokio::test]
async fn a_password_decides_who_sees_what() {
    if psql_missing() {
        return;
    }
    let server = Running::start(passwords(), Limits::default()).await;
    let ask = ["-At", "-c", r#"select count(*) from "Road""#];
    assert_eq!(Running::text(&server.psql_as("analyst", "s3cret", &ask).await), "2\n");
    for (user, password, want) in [
        ("analyst", "wrong", "password authentication failed for user \"analyst\""),
        ("stranger", "s3cret", "password authentication failed for user \"stranger\""),
        ("analyst", "", "no password supplied"),
        ("offline", "x", "the directory does not answer"),
        ("guest", "guest", "table 'conurb.public.Road' not found"),
    ] {
        let output = server.psql_as(user, password, &ask).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(want), "{user}: {stderr}");
    }
    let user = ["-At", "-c", "select current_user"];
    assert_eq!(Running::text(&server.psql_as("guest", "guest", &user).await), "nobody\n");
    server.stop().await;
}

#[tokio::test]
async fn passwords_travel_inside_tls() {
    if psql_missing() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (key, certificate) = (folder.path().join("key.pem"), folder.path().join("certificate.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost"]);
    match openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate).output() {
        Ok(made) => assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr)),
        Err(_) => return eprintln!("skipped: openssl is not on this machine"),
    }
    let chain = CertificateDer::pem_file_iter(&certificate).unwrap().map(|c| c.unwrap()).collect();
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(&key).unwrap())
        .unwrap();
    let server = Running::start_with(Settings { tls: Some(Arc::new(tls)), ..Settings::new(passwords()) }).await;
    let ask = ["-At", "-c", "select current_user", "sslmode=require dbname=conurb"];
    assert_eq!(Running::text(&server.psql_as("analyst", "s3cret", &ask).await), "conurb\n");
    server.stop().await;
}

#[tokio::test]
async fn another_database_does_not_exist() {
    if psql_missing() {
        return;
    }
    let server = Running::start(Auth::Trust, Limits::default()).await;
    let output = server.psql(&["-d", "postgres", "-c", "select 1"]).await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("database \"postgres\" does not exist (expected \"conurb\")"));
    server.stop().await;
}

/// Each command that psql has for looking around is answered without an error.
#[tokio::test]
async fn psql_looks_around() {
    const COMMANDS: [&str; 44] = [
        "\\d",
        "\\d+",
        "\\dt+",
        "\\d \"AirQualityObserved_history\"",
        "\\d+ \"Road\"",
        "\\d pg_class",
        "\\df st_x",
        "\\df+ st_x",
        "\\da",
        "\\du",
        "\\du+",
        "\\dg",
        "\\dn",
        "\\dn+",
        "\\l",
        "\\l+",
        "\\dv",
        "\\di",
        "\\di+",
        "\\dT",
        "\\dT+",
        "\\ds",
        "\\dm",
        "\\dp",
        "\\z",
        "\\db",
        "\\dx",
        "\\dy",
        "\\dD",
        "\\dL",
        "\\do",
        "\\dC",
        "\\ddp",
        "\\drds",
        "\\det",
        "\\dE",
        "\\dRp",
        "\\dRs",
        "\\dX",
        "\\dconfig",
        "\\conninfo",
        "\\encoding",
        "\\x",
        "\\timing",
    ];
    if psql_missing() {
        return;
    }
    let server = Running::start(Auth::Trust, Limits::default()).await;
    for command in COMMANDS {
        let output = server.psql(&["-v", "ON_ERROR_STOP=1", "-c", command]).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("ERROR"), "{command}: {said}");
    }
    let shows = async |command: &str, texts: &[&str]| {
        let listing = Running::text(&server.psql(&["-c", command]).await);
        for text in texts {
            assert!(listing.contains(text), "{command} does not show {text}:\n{listing}");
        }
    };
    let table = "\\d+ \"AirQualityObserved\"";
    shows(table, &["geometry(Geometry,4326)", "unit GQ; https://example.org/pm25", "\"AirQualityObserved_pkey\" PRIMARY KEY, btree (id)"])
        .await;
    shows("\\d \"Road_pkey\"", &["primary key, btree, for table \"public.Road\""]).await;
    shows("\\di", &["AirQualityObserved_pkey", "Road_pkey"]).await;
    shows("\\df st_dwithin", &["geometry, geometry, double precision, boolean", "| func"]).await;
    shows("\\dT geometry", &["| geometry"]).await;
    shows("\\l", &["conurb", "UTF8"]).await;
    shows("\\dn", &["public"]).await;
    shows("\\du", &["conurb"]).await;
    shows("\\dt+", &["entities of type https://example.org/Road"]).await;
    shows("\\dv", &[]).await;
    server.stop().await;
}

#[tokio::test]
async fn parameters_are_kept_for_the_session() {
    if psql_missing() {
        return;
    }
    let server = Running::start(Auth::Trust, Limits::default()).await;
    let ask = async |sql: &str| Running::text(&server.psql(&["-At", "-c", sql]).await);
    assert_eq!(
        ask("set application_name = 'mine'; show application_name; select current_setting('application_name')").await,
        "SET\nmine\nmine\n"
    );
    let steps = [
        "-At",
        "-c",
        "select set_config('search_path', 'public', false)",
        "-c",
        "show search_path",
        "-c",
        "reset all",
        "-c",
        "show search_path",
    ];
    assert_eq!(Running::text(&server.psql(&steps).await), "public\npublic\nRESET\n\"$user\", public\n");
    assert!(ask("show all").await.lines().any(|l| l.starts_with("server_version|16.6 (conurb ")));
    let output = server.psql(&["-c", "set server_version = '9'"]).await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be set"), "{output:?}");
    server.stop().await;
}
