//! Programs that speak to PostgreSQL, unmodified: SQLAlchemy, pandas and GeoPandas from PyPI, and the JDBC driver on which DBeaver is built.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use query::{Auth, Limits};

use crate::psql::Running;

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Python with the packages of the clients, in an environment of its own in the target folder; none where it cannot be made.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn make_python() -> Option<PathBuf> {
    const PACKAGES: [&str; 7] = [
        "sqlalchemy==2.1.9",
        "pandas==3.1.1",
        "geopandas==1.2.0",
        "shapely==2.2.0",
        "geoalchemy2==0.20.0",
        "psycopg2-binary==2.9.13",
        "psycopg[binary]==3.3.9",
    ];
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-sqlalchemy");
    let python = folder.join("bin/python");
    let has_packages = || Command::new(&python).args(["-c", "import geoalchemy2, geopandas, psycopg, psycopg2, sqlalchemy"]).output();
    if has_packages().is_ok_and(|o| o.status.success()) {
        return Some(python);
    }
    let steps = [
        Command::new("python3").args(["-m", "venv"]).arg(&folder).output(),
        Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES).output(),
        has_packages(),
    ];
    for step in steps {
        match step {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                eprintln!("skipped: no Python with {PACKAGES:?}: {}", said(&output));
                return None;
            }
            Err(error) => {
                eprintln!("skipped: no Python 3: {error}");
                return None;
            }
        }
    }
    Some(python)
}

#[tokio::test]
async fn sqlalchemy_pandas_and_geopandas_find_their_way() {
    let Some(python) = tokio::task::spawn_blocking(make_python).await.unwrap() else { return };
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
