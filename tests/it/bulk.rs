//! Import and export as an operator does them: the real binary on real files.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::{Node, eventually, has, program, write};

const TYPE: &str = "AirQualityObserved";

fn run(arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).output().unwrap()
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `conurb import FILE --type T` and more; gives what it says at the end.
#[track_caller]
fn import(node: &Node, file: &Path, more: &[&str]) -> Value {
    let url = node.url("");
    let mut arguments = vec!["import", file.to_str().unwrap(), "--type", TYPE, "--url", &url];
    arguments.extend(more);
    let output = run(&arguments);
    assert!(output.status.success(), "{}", said(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn import_in_background(url: &str, file: &Path) -> Child {
    let mut command = Command::new(program());
    command.args(["import", file.to_str().unwrap(), "--type", TYPE, "--url", url]);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

#[track_caller]
fn export(node: &Node, file: &Path, more: &[&str]) {
    let url = node.url("");
    let mut arguments = vec!["export", TYPE, "--to", file.to_str().unwrap(), "--url", &url];
    arguments.extend(more);
    let output = run(&arguments);
    assert!(output.status.success(), "{}", said(&output.stderr));
}

/// `n_hours` hours of 20 stations; whole numbers and halves, so that sums are exact.
fn csv_of(n_hours: usize) -> String {
    let mut text = String::from("id,observedAt,pm25,no2,note\n");
    for hour in 0..n_hours {
        for station in 0..20 {
            let (day, hour_of_day) = (1 + hour / 24 % 28, hour % 24);
            let (month, year) = (1 + hour / (24 * 28) % 12, 2000 + hour / (24 * 28 * 12));
            let no2 = if hour % 10 == 3 { String::new() } else { format!("{}.5", station + hour % 7) };
            writeln!(
                text,
                "urn:ngsi-ld:{TYPE}:s{station},{year}-{month:02}-{day:02}T{hour_of_day:02}:00:00Z,{},{no2},n{}",
                (hour * 7 + station) % 300,
                hour % 3
            )
            .unwrap();
        }
    }
    text
}

/// Rows, and the sums of the columns, as SQL sees them.
fn counted(node: &Node) -> String {
    node.psql(&format!("select count(*), sum(pm25), count(no2), sum(no2), count(note) from \"{TYPE}_history\"")).unwrap()
}

/// The same from the file.
fn expected(csv: &str) -> String {
    let (mut n, mut pm25, mut n_no2, mut no2) = (0, 0.0, 0, 0.0);
    for line in csv.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        n += 1;
        pm25 += fields[2].parse::<f64>().unwrap();
        if let Ok(v) = fields[3].parse::<f64>() {
            n_no2 += 1;
            no2 += v;
        }
    }
    // Whole numbers, as PostgreSQL writes them.
    format!("{n}|{pm25}|{n_no2}|{no2}|{n}")
}

fn sorted_lines(path: &Path) -> Vec<String> {
    let mut lines: Vec<String> = std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Columns of a CSV file by name, rows sorted: files that differ in the order of columns and rows only are the same.
fn table_of(path: &Path, columns: &[&str]) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let header = reader.headers().unwrap().clone();
    let at: Vec<usize> =
        columns.iter().map(|c| header.iter().position(|h| h == *c).unwrap_or_else(|| panic!("no `{c}` in {header:?}"))).collect();
    let mut rows: Vec<Vec<String>> = reader.records().map(|r| at.iter().map(|&i| r.as_ref().unwrap()[i].to_owned()).collect()).collect();
    rows.sort();
    rows
}

#[test]
fn a_table_goes_in_and_comes_out_the_same_in_every_format() {
    if !has("psql") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("air.csv");
    let csv = csv_of(500);
    write(&file, &csv);
    let first = Node::start();
    let done = import(&first, &file, &["--unit", "pm25=GQ"]);
    assert_eq!((&done["rows"], &done["values"], &done["already"]), (&json!(10_000), &json!(29_000), &json!(false)));
    assert_eq!(counted(&first), expected(&csv));
    let one = first.get(&format!("/ngsi-ld/v1/entities/urn:ngsi-ld:{TYPE}:s3")).expect(200).json();
    assert_eq!(one["pm25"]["value"].as_f64(), Some(f64::from((499 * 7 + 3) % 300)));
    assert_eq!((&one["pm25"]["unitCode"], &one["pm25"]["observedAt"]), (&json!("GQ"), &json!("2000-01-21T19:00:00Z")));
    let again = import(&first, &file, &["--unit", "pm25=GQ"]);
    assert_eq!(again["already"], true, "the same command does nothing");

    let columns = ["id", "observedAt", "pm25", "no2", "note"];
    let want = table_of(&file, &columns);
    for extension in ["csv", "parquet", "jsonl"] {
        let out = dir.path().join(format!("out.{extension}"));
        export(&first, &out, &[]);
        let second = Node::start();
        let done = import(&second, &out, &[]);
        assert_eq!(done["rows"], 10_000, "{extension}");
        assert_eq!(counted(&second), expected(&csv), "{extension}");
        let back = dir.path().join("back.csv");
        export(&second, &back, &[]);
        assert_eq!(table_of(&back, &columns), want, "{extension}");
        let unit = second.get(&format!("/ngsi-ld/v1/entities/urn:ngsi-ld:{TYPE}:s3")).expect(200).json()["pm25"]["unitCode"].clone();
        // CSV has no place for units; the others keep them.
        assert_eq!(unit, if extension == "csv" { Value::Null } else { json!("GQ") }, "{extension}");
    }
    let part = dir.path().join("part.csv");
    export(&first, &part, &["--from", "2000-01-02T00:00:00Z", "--until", "2000-01-02T02:00:00Z"]);
    assert_eq!(sorted_lines(&part).len(), 1 + 2 * 20);
    let latest = dir.path().join("latest.csv");
    export(&first, &latest, &["--what", "latest"]);
    assert_eq!(table_of(&latest, &["id", "pm25"]).len(), 20);
}

#[test]
fn entities_of_every_kind_go_in_and_out_as_json_lines() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("e.jsonl");
    let entity = |i: usize| {
        json!({
            "id": format!("urn:ngsi-ld:{TYPE}:e{i}"), "type": TYPE,
            "name": {"type": "LanguageProperty", "languageMap": {"en": format!("Station {i}"), "zh": "站"}},
            "location": {"type": "GeoProperty", "value": {"type": "Point", "coordinates": [120.5, 31.25]}},
            "refDevice": {"type": "Relationship", "object": "urn:ngsi-ld:Device:1"},
            "pm25": {"type": "Property", "value": i, "unitCode": "GQ", "observedAt": "2024-01-01T00:00:00Z"},
        })
    };
    let text: String = (0..2_500).map(|i| format!("{}\n", entity(i))).collect();
    write(&file, &text);
    let first = Node::start();
    assert_eq!(import(&first, &file, &[])["rows"], 2_500);
    let out = dir.path().join("out.jsonl");
    export(&first, &out, &["--what", "latest"]);
    let second = Node::start();
    assert_eq!(import(&second, &out, &[])["rows"], 2_500);
    for node in [&first, &second] {
        let one = node.get(&format!("/ngsi-ld/v1/entities/urn:ngsi-ld:{TYPE}:e1234")).expect(200).json();
        assert_eq!(one, entity(1_234));
    }
    let back = dir.path().join("back.jsonl");
    export(&second, &back, &["--what", "latest"]);
    assert_eq!(sorted_lines(&back), sorted_lines(&out));
}

#[test]
fn an_import_survives_the_death_of_the_node_and_of_itself() {
    if !has("psql") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("air.csv");
    let csv = csv_of(15_000);
    write(&file, &csv);
    let data: PathBuf = dir.path().join("data");
    let mut node = Node::start_in(&data, &["--dev"]);
    let (http, url) = (node.http.clone(), node.url(""));
    let rows = |node: &Node| node.get("/api/v1/bulk/jobs").json()[0]["rows"].as_u64().unwrap_or_default();

    // The node dies in the middle of it; the import waits and goes on by itself.
    let mut importing = import_in_background(&url, &file);
    eventually("some rows are in", || rows(&node) >= 50_000);
    node.kill();
    let mut node = Node::start_in(&data, &["--dev", "--http", &http]);
    let so_far = rows(&node);
    assert!(so_far >= 50_000, "what was acknowledged is there after a power cut, found {so_far}");
    eventually("it goes on", || rows(&node) > so_far || importing.try_wait().unwrap().is_some());

    // Then the import dies too; the same command goes on.
    if importing.try_wait().unwrap().is_none() {
        importing.kill().unwrap();
        importing.wait().unwrap();
    }
    node.kill();
    let node = Node::start_in(&data, &["--dev", "--http", &http]);
    let done = import(&node, &file, &[]);
    assert_eq!(done["rows"], 300_000);
    let job = &node.get("/api/v1/bulk/jobs").json()[0];
    assert_eq!((&job["rows"], &job["state"]), (&json!(300_000), &json!("done")));
    assert_eq!(counted(&node), expected(&csv));
}

#[test]
fn bad_rows_are_named_and_good_ones_before_them_are_in() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start();
    let url = node.url("");
    let check = |name: &str, text: &str, more: &[&str], want: &str| {
        let file = dir.path().join(name);
        write(&file, text);
        for dry in [true, false] {
            let mut arguments = vec!["import", file.to_str().unwrap(), "--type", TYPE, "--url", &url];
            arguments.extend(more);
            if dry {
                arguments.push("--dry-run");
            }
            let output = run(&arguments);
            assert!(!output.status.success());
            assert!(said(&output.stderr).contains(want), "{}\nwanted: {want}", said(&output.stderr));
        }
    };
    let mut late = csv_of(1_000);
    writeln!(late, "urn:ngsi-ld:{TYPE}:s1,2030-01-01T00:00:00Z,many,,").unwrap();
    check("late.csv", &late, &[], "row 20001, column `pm25`: found `many`, expected a number");
    let jobs = node.get("/api/v1/bulk/jobs").json();
    assert_eq!((&jobs[0]["rows"], &jobs[0]["state"]), (&json!(20_000), &json!("open")), "the rows before it are in");
    check("notime.csv", "id,pm25\nurn:a:1,3\n", &[], "column `observedAt`: expected as the column of the observed times");
    check("zone.csv", "id,observedAt,pm25\nurn:a:1,2024-01-01 00:00,3\n", &[], "row 1, column `observedAt`");
    check("broken.jsonl", &format!("{{\"id\":\"urn:a:9\",\"type\":\"{TYPE}\"}}\n{{\"id\":\n"), &[], "line 2");
    check("other.jsonl", "{\"id\":\"urn:a:9\",\"type\":\"Bus\"}\n", &[], "line 1");
    check("not.parquet", "no parquet", &[], "not a Parquet file");
    check("air.txt", "id\n", &[], "give --format");
}

#[test]
fn the_route_takes_tables_directly_and_refuses_what_it_cannot_read() {
    let node = Node::start();
    let path = format!("/api/v1/bulk/{TYPE}");
    let post = |query: &str, media_type: &str, body: &str| {
        node.send("POST", &format!("{path}{query}"), &[("content-type", media_type)], Some(body))
    };
    let csv = "id,observedAt,pm25\nurn:a:1,2024-01-01T00:00:00Z,3.5\nurn:a:2,2024-01-01T00:00:00Z,4\n";
    let done = post("?job=j1&complete=false", "text/csv", csv).expect(200).json();
    assert_eq!((&done["rows"], &done["accepted"], &done["values"]), (&json!(2), &json!(2), &json!(2)));
    // The same body again: what is in is passed over.
    assert_eq!(post("?job=j1&complete=false", "text/csv", csv).expect(200).json()["accepted"], 0);
    let more = format!("{csv}urn:a:3,2024-01-01T00:00:00Z,5\n");
    assert_eq!(post("?job=j1", "text/csv", &more).expect(200).json()["accepted"], 1);
    let job = node.get("/api/v1/bulk/jobs/j1").expect(200).json();
    assert_eq!((&job["rows"], &job["state"], &job["type"]), (&json!(3), &json!("done"), &json!(TYPE)));
    assert!(post("?job=j1&fromRow=9", "text/csv", csv).expect(409).body.contains("would leave a gap"));
    assert!(
        node.send("POST", "/api/v1/bulk/Other?job=j1", &[("content-type", "text/csv")], Some(csv))
            .expect(400)
            .body
            .contains("imports entities of type")
    );
    assert!(post("?job=a/b", "text/csv", csv).expect(400).body.contains("cannot name a job"));
    assert!(post("?jobs=1", "text/csv", csv).expect(400).body.contains("unknown parameter `jobs`"));
    assert!(post("", "text/plain", csv).expect(415).body.contains("expected text/csv"));
    let refused = post("", "text/csv", "id,observedAt,pm25\nurn:a:1,2024-01-01T00:00:00Z,3\nurn:a:1,then,3\n").expect(400).json();
    assert!(refused["detail"].as_str().unwrap().contains("row 2, column `observedAt`"), "{refused}");
    assert!(post("", "application/vnd.apache.arrow.stream", "rubbish").expect(400).body.contains("Arrow"));
    assert!(node.get("/api/v1/bulk/jobs/none").expect(404).body.contains("no import job"));
    assert!(node.get("/api/v1/export/Nothing").expect(404).body.contains("no entity of type"));
    assert!(node.get(&format!("/api/v1/export/{TYPE}?from=soon")).expect(400).body.contains("`from`"));
    let described = node.get("/openapi.json").expect(200).json();
    let names: Vec<_> =
        described["paths"]["/api/v1/bulk/{type}"]["post"]["parameters"].as_array().unwrap().iter().map(|p| p["name"].clone()).collect();
    assert!(names.contains(&json!("fromRow")), "{names:?}");
}

#[test]
fn without_a_token_nothing_goes_in_or_out() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_in(&dir.path().join("data"), &[]);
    let csv = "id,observedAt,pm25\nurn:a:1,2024-01-01T00:00:00Z,3.5\n";
    node.send("POST", &format!("/api/v1/bulk/{TYPE}"), &[("content-type", "text/csv")], Some(csv)).expect(401);
    node.get(&format!("/api/v1/export/{TYPE}")).expect(401);
    node.get("/api/v1/bulk/jobs").expect(401);
    let file = dir.path().join("a.csv");
    write(&file, csv);
    let token = dir.path().join("data/admin.token");
    assert_eq!(import(&node, &file, &["--token-file", token.to_str().unwrap()])["rows"], 1);
}
