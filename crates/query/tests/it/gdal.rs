//! GDAL, through which QGIS and many others read: `ogrinfo` (Debian: gdal-bin) with its driver for PostgreSQL and PostGIS.

use std::process::Command;

use query::{Auth, Limits};

use crate::psql::Running;
use crate::python::said;

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn ogrinfo_missing() -> bool {
    let formats = Command::new("ogrinfo").arg("--formats").output();
    let missing = !formats.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains("PostgreSQL -vector-"));
    if missing {
        eprintln!("SKIPPED: no ogrinfo with the driver PostgreSQL on this machine (Debian: gdal-bin)");
    }
    missing
}

#[tokio::test]
async fn ogr_lists_layers_and_reads_them_with_filters() {
    if ogrinfo_missing() {
        return;
    }
    let server = Running::start(Auth::Trust, Limits::default()).await;
    let source = format!("PG:host=127.0.0.1 port={} dbname=conurb user=conurb", server.port);
    let ask = async |arguments: &[&str]| {
        let mut command = Command::new("ogrinfo");
        command.args(["-ro", "-nomd"]).args(arguments).env("PGCONNECT_TIMEOUT", "10");
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = said(&output);
        assert!(output.status.success() && !text.contains("ERROR"), "{text}");
        text
    };
    // Only tables with a place are layers by themselves.
    let layers = ask(&[&source]).await;
    assert!(layers.contains(": Road") && layers.contains(": AirQualityObserved") && !layers.contains("Gone_history"), "{layers}");
    let road = ask(&["-al", "-so", &source, "Road"]).await;
    for part in
        ["Feature Count: 2", "Extent: (116.000000, 39.000000) - (116.200000, 39.000000)", "ID[\"EPSG\",4326]", "Geometry Column = location"]
    {
        assert!(road.contains(part), "{part}: {road}");
    }
    let stations = ask(&["-spat", "116", "39", "116.3", "41", &source, "AirQualityObserved"]).await;
    for part in ["Feature Count: 1", "pm25 (Real) = 120.5", "POINT (116.2 39.9)", "observed_at (DateTime) = 2014/01/02 00:00:00+00"] {
        assert!(stations.contains(part), "{part}: {stations}");
    }
    // Places are asked for by their box, not all of them.
    assert!(!server.city.boxes.lock().unwrap().is_empty());
    let filtered = ask(&["-where", "pm25 < 40", &source, "AirQualityObserved"]).await;
    assert!(filtered.contains("Feature Count: 1") && filtered.contains("POINT (116.4 39.8)"), "{filtered}");
    let sql = "select id, location, pm25 * 2 as twice from \"AirQualityObserved\" where location is not null order by pm25";
    let selected = ask(&[&source, "-sql", sql]).await;
    assert!(selected.contains("Feature Count: 2") && selected.contains("twice (Real) = 241"), "{selected}");
    server.stop().await;
}
