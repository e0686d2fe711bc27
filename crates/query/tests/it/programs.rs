//! Programs that speak to PostgreSQL, unmodified: SQLAlchemy, pandas and GeoPandas from PyPI, and the JDBC driver on which DBeaver is built.

use std::path::Path;
use std::process::Command;

use query::{Auth, Limits};

use crate::psql::Running;
use crate::python::{python, said};

/// What the Python client needs.
const PACKAGES: &[&str] = &[
    "sqlalchemy==2.1.9",
    "pandas==3.1.1",
    "geopandas==1.2.0",
    "shapely==2.2.0",
    "geoalchemy2==0.20.0",
    "psycopg2-binary==2.9.13",
    "psycopg[binary]==3.3.9",
];

#[tokio::test]
async fn sqlalchemy_pandas_and_geopandas_find_their_way() {
    let Some(python) = python("sqlalchemy", PACKAGES).await else { return };
    let server = Running::start(Auth::Trust, Limits::default()).await;
    for driver in ["psycopg2", "psycopg"] {
        let mut command = Command::new(&python);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/sqlalchemy_client.py")).args([&server.port.to_string(), driver]);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = said(&output);
        assert!(output.status.success() && text.contains(&format!("ok {driver}")), "{text}");
    }
    server.stop().await;
}

#[tokio::test]
async fn psycopg_binds_prepares_and_repeats() {
    let Some(python) = python("sqlalchemy", PACKAGES).await else { return };
    let server = Running::start(Auth::Trust, Limits::default()).await;
    let mut command = Command::new(&python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/psycopg_client.py")).arg(server.port.to_string());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = said(&output);
    assert!(output.status.success() && text.contains("ok psycopg"), "{text}");
    server.stop().await;
}

/// Where Debian's `libpostgresql-jdbc-java` puts the driver.
const DRIVER: &str = "/usr/share/java/postgresql.jar";

#[tokio::test]
async fn the_jdbc_driver_finds_its_way() {
    if !Path::new(DRIVER).exists() || Command::new("java").arg("-version").output().is_err() {
        eprintln!("skipped: no java or no {DRIVER} on this machine (Debian: default-jdk-headless, libpostgresql-jdbc-java)");
        return;
    }
    let server = Running::start(Auth::Trust, Limits::default()).await;
    let mut command = Command::new("java");
    // A single source file is compiled when it is run.
    command.args(["-cp", DRIVER]).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/JdbcClient.java")).arg(server.port.to_string());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = said(&output);
    assert!(output.status.success() && text.contains("ok jdbc"), "{text}");
    server.stop().await;
}
