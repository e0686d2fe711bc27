//! Recorded data through the whole path, and a power cut in the middle of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use host::Stopwatch;
use serde_json::Value;

use crate::support::{Node, eventually, has, program, recorded_air};

/// Column of the file and name of the attribute.
const AIR: [(&str, &str); 6] = [("PM2.5", "pm25"), ("PM10", "pm10"), ("SO2", "so2"), ("NO2", "no2"), ("CO", "co"), ("O3", "o3")];
const WEEK: [&str; 4] = ["--from", "2013-12-31T16:00:00Z", "--to", "2014-01-07T16:00:00Z"];

/// What the files say of the first week of January 2014 (local time, UTC+8): by station, attribute and instant.
fn week_of_files(air: &Path) -> BTreeMap<(String, String, String), f64> {
    let mut want = BTreeMap::new();
    for entry in std::fs::read_dir(air.join("beijing12")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "gz") {
            continue;
        }
        let mut reader = csv::Reader::from_reader(flate2::read::GzDecoder::new(std::fs::File::open(&path).unwrap()));
        for row in reader.deserialize() {
            let row: BTreeMap<String, String> = row.unwrap();
            let number = |name: &str| row[name].parse::<u32>().unwrap();
            if number("year") != 2014 || number("month") != 1 || number("day") > 7 {
                continue;
            }
            for (column, attribute) in AIR {
                if let Ok(value) = row[column].parse::<f64>() {
                    want.insert((row["station"].clone(), attribute.to_owned(), utc(number("day"), number("hour"))), value);
                }
            }
        }
    }
    want
}

/// January 2014, hour in UTC+8, as an instant.
fn utc(day: u32, hour: u32) -> String {
    match (day, hour) {
        (1, h) if h < 8 => format!("2013-12-31T{:02}:00:00Z", h + 16),
        (d, h) if h < 8 => format!("2014-01-{:02}T{:02}:00:00Z", d - 1, h + 16),
        (d, h) => format!("2014-01-{d:02}T{:02}:00:00Z", h - 8),
    }
}

fn replay(air: &Path, node: &Node, more: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.arg("replay").arg(air).args(["--data-set", "beijing12", "--mqtt", &node.mqtt]).args(more);
    command
}

/// What the node says, through NGSI-LD temporal queries.
fn week_of_node(node: &Node) -> BTreeMap<(String, String, String), f64> {
    let mut found = BTreeMap::new();
    let stations = node.get("/ngsi-ld/v1/entities?type=AirQualityObserved&limit=100&pick=id").expect(200).json();
    for station in stations.as_array().unwrap() {
        let id = station["id"].as_str().unwrap();
        let query = "attrs=pm25,pm10,so2,no2,co,o3&timerel=between&timeAt=2013-12-31T16:00:00Z&endTimeAt=2014-01-07T16:00:00Z&format=temporalValues";
        let past = node.get(&format!("/ngsi-ld/v1/temporal/entities/{id}?{query}")).expect(200).json();
        for (_, attribute) in AIR {
            for pair in past[attribute]["values"].as_array().into_iter().flatten() {
                let key = (id.rsplit(':').next().unwrap().to_owned(), attribute.to_owned(), pair[1].as_str().unwrap().to_owned());
                let twice = found.insert(key, pair[0].as_f64().unwrap());
                assert!(twice.is_none(), "{id} {attribute} {} is there twice", pair[1]);
            }
        }
    }
    found
}

/// What the node says, through SQL on the history.
fn week_of_sql(node: &Node) -> BTreeMap<(String, String, String), f64> {
    let mut found = BTreeMap::new();
    for (_, attribute) in AIR {
        let rows = node
            .psql(&format!(
                "select id, to_char(observed_at, '%Y-%m-%dT%H:%M:%SZ'), {attribute} from \"AirQualityObserved_history\" \
                 where {attribute} is not null and observed_at >= timestamp '2013-12-31T16:00:00Z' and observed_at < timestamp '2014-01-07T16:00:00Z'"
            ))
            .unwrap();
        for row in rows.lines() {
            let mut cells = row.split('|');
            let (id, at, value) = (cells.next().unwrap(), cells.next().unwrap(), cells.next().unwrap());
            let twice =
                found.insert((id.rsplit(':').next().unwrap().to_owned(), attribute.to_owned(), at.to_owned()), value.parse().unwrap());
            assert!(twice.is_none(), "{row} is there twice");
        }
    }
    found
}

#[test]
fn a_recorded_week_comes_out_exactly_as_the_files_say() {
    let Some(air) = recorded_air() else { return };
    let want = week_of_files(&air);
    assert!(want.len() > 8000, "nine stations, six pollutants, a week: {}", want.len());
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start_in(dir.path(), &["--dev", "--city", "beijing"]);
    let output = replay(&air, &node, &WEEK).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_equal(&week_of_node(&node), &want);
    if has("psql") {
        assert_equal(&week_of_sql(&node), &want);
        let n_high = node.psql("select count(*) from \"AirQualityObserved\" where pm25 > 40").unwrap();
        let simple = node.get("/ngsi-ld/v1/entities?type=AirQualityObserved&q=pm25%3E40&limit=0&count=true").expect(200);
        assert_eq!(simple.header("ngsild-results-count"), [n_high.as_str()]);
    }
    // The same from sealed segments, after an orderly stop.
    node.terminate();
    let node = Node::start_in(dir.path(), &["--dev", "--city", "beijing"]);
    assert_equal(&week_of_node(&node), &want);
    if has("psql") {
        assert_equal(&week_of_sql(&node), &want);
    }
}

#[track_caller]
fn assert_equal(found: &BTreeMap<(String, String, String), f64>, want: &BTreeMap<(String, String, String), f64>) {
    let missing: Vec<_> = want.iter().filter(|(k, v)| found.get(*k) != Some(v)).take(5).collect();
    let more: Vec<_> = found.iter().filter(|(k, _)| !want.contains_key(*k)).take(5).collect();
    assert!(
        missing.is_empty() && more.is_empty(),
        "{} found, {} wanted; missing or different: {missing:?}; too many: {more:?}",
        found.len(),
        want.len()
    );
}

#[test]
fn a_power_cut_during_the_replay_loses_nothing_acknowledged_and_doubles_nothing() {
    let Some(air) = recorded_air() else { return };
    let dir = tempfile::tempdir().unwrap();
    let position = dir.path().join("replay.position");
    let data = dir.path().join("data");
    let quarter = ["--from", "2013-12-31T16:00:00Z", "--to", "2014-03-31T16:00:00Z", "--resume", position.to_str().unwrap()];
    let mut node = Node::start_in(&data, &["--dev", "--city", "beijing"]);
    let mut player = replay(&air, &node, &quarter).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    // In the middle: a good part is in, and the player still plays.
    let stopwatch = Stopwatch::start();
    eventually("some thousand messages are in", || metric(&node, "conurb_mqtt_publications_total{sort=\"accepted\"}") > 4000.0);
    assert!(player.try_wait().unwrap().is_none(), "the replay ended within {:?}, before the power cut", stopwatch.elapsed());
    node.kill();
    std::thread::sleep(Duration::from_millis(300));
    player.kill().unwrap();
    player.wait().unwrap();
    let acknowledged = acknowledged_rows(&position);

    let node = Node::start_in(&data, &["--dev", "--city", "beijing"]);
    let n_after_cut = n_history_rows(&node);
    assert!(n_after_cut >= acknowledged, "{acknowledged} messages were acknowledged, {n_after_cut} rows are there");
    let output = replay(&air, &node, &quarter).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(summary["resumed"].as_u64().unwrap() > 0, "it went on where it was: {summary}");
    assert_equal(&week_of_node(&node), &week_of_files(&air));
    // 9 stations, an air and a weather message each hour, 90 days: each exactly once. An hour in which everything is missing has no message.
    let total = n_history_rows(&node);
    let played = summary["resumed"].as_u64().unwrap() + summary["acknowledged"].as_u64().unwrap();
    assert_eq!(total, played, "rows in the history and messages of the files");
}

fn metric(node: &Node, name: &str) -> f64 {
    let text = node.get("/metrics").body;
    text.lines().find_map(|l| l.strip_prefix(name)).and_then(|v| v.trim().parse().ok()).unwrap_or(0.0)
}

/// How many messages, from the first on, are all acknowledged, as the player wrote it down.
fn acknowledged_rows(position: &Path) -> u64 {
    let text = std::fs::read_to_string(position).unwrap();
    let digits: String = text.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    serde_json::from_str::<Value>(&text)
        .ok()
        .and_then(|v| v.as_object()?.values().find_map(Value::as_u64))
        .or_else(|| digits.parse().ok())
        .unwrap()
}

/// Rows with an observed time in the two histories: one per message.
fn n_history_rows(node: &Node) -> u64 {
    ["AirQualityObserved", "WeatherObserved"]
        .iter()
        .map(|t| node.psql(&format!("select count(*) from \"{t}_history\" where observed_at is not null")).unwrap().parse::<u64>().unwrap())
        .sum()
}
