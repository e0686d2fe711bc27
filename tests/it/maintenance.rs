//! The change feed, backup, restore, verification and room on disk, as an operator uses them.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Moto, Node, eventually, program, request};

fn run(arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn answer(output: &Output) -> Value {
    assert!(output.status.success(), "{}", said(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn write_station(node: &Node, number: u32, value: u32) {
    let station =
        json!([{"id": format!("urn:ngsi-ld:Station:{number}"), "type": "Station", "level": {"type": "Property", "value": value}}]);
    assert!(node.post("/ngsi-ld/v1/entityOperations/upsert", &station).status < 300);
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_backup_of_a_running_node_is_restored_verified_and_accounted_for() {
    let dir = tempfile::tempdir().unwrap();
    let (data, backups, new) = (dir.path().join("data"), dir.path().join("backups"), dir.path().join("new"));
    let mut node = Node::start_in(&data, &["--dev"]);
    let url = node.url("");
    (0..5).for_each(|i| write_station(&node, i, i));
    let made = answer(&run(&["backup", "--to", text(&backups), "--url", &url, "--json"]));
    assert_eq!((made["nDocuments"].as_u64(), made["until"].as_u64()), (Some(5), Some(6)), "{made}");
    write_station(&node, 5, 5);

    let verified = run(&["verify", "--url", &url]);
    assert!(
        verified.status.success() && said(&verified).contains("6 documents") && said(&verified).contains("all is well"),
        "{}",
        said(&verified)
    );
    let space = answer(&run(&["space", "--url", &url, "--json"]));
    assert_eq!(space["types"][0]["nEntities"], 6, "{space}");
    assert!(space["totalBytes"].as_u64().unwrap() > 0);
    assert!(node.get("/metrics").expect(200).body.contains("conurb_history_rows{sort="));
    let in_use = run(&["verify", "--data", text(&data)]);
    assert!(!in_use.status.success() && said(&in_use).contains("in use"), "{}", said(&in_use));

    node.kill();
    let verified = run(&["verify", "--data", text(&data)]);
    assert!(verified.status.success(), "{}", said(&verified));
    let restored = run(&["restore", "--from", text(&backups), "--data", text(&new)]);
    assert!(restored.status.success() && said(&restored).contains("restored 5 documents"), "{}", said(&restored));
    let again = run(&["restore", "--from", text(&backups), "--data", text(&new)]);
    assert!(!again.status.success() && said(&again).contains("not empty"), "{}", said(&again));
    let node = Node::start_in(&new, &["--dev"]);
    assert_eq!(node.get("/ngsi-ld/v1/entities?type=Station&limit=100").expect(200).json().as_array().unwrap().len(), 5);
    drop(node);

    // Damage in a closed file is found, and the exit code says so.
    let history = data.join("history");
    let file = std::fs::read_dir(&history).unwrap().map(|e| e.unwrap().path()).next().unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let found = run(&["verify", "--data", text(&data)]);
    assert_eq!(found.status.code(), Some(1), "{}", said(&found));
    assert!(said(&found).contains("CRC-32C"), "{}", said(&found));
}

#[test]
fn the_changes_are_read_from_a_position_and_waited_for() {
    let node = Node::start();
    write_station(&node, 1, 1);
    let first = node.get("/api/v1/changes?from=1").expect(200).json();
    assert_eq!((first["next"].as_u64(), first["first"].as_u64()), (Some(2), Some(1)), "{first}");
    let change = &first["changes"][0];
    assert_eq!(change["position"], 1);
    assert_eq!(change["entities"][0]["id"], "urn:ngsi-ld:Station:1");
    assert_eq!(change["entities"][0]["set"]["level"]["value"], 1, "{first}");
    // One who waits is answered by the next change, long before the time is up.
    let waiting = {
        let url = node.url("/api/v1/changes?from=2&wait=30");
        std::thread::spawn(move || request("GET", &url, &[], None).expect(200).json())
    };
    std::thread::sleep(Duration::from_millis(300));
    assert!(!waiting.is_finished(), "there was nothing to answer yet");
    node.send("DELETE", "/ngsi-ld/v1/entities/urn:ngsi-ld:Station:1", &[], None).expect(204);
    let second = waiting.join().unwrap();
    assert_eq!(second["changes"][0]["entities"][0], json!({"id": "urn:ngsi-ld:Station:1", "deleted": true}), "{second}");
    assert_eq!(node.get("/api/v1/changes?from=3").expect(200).json()["changes"], json!([]));
    assert!(node.get("/api/v1/changes?from=99").expect(400).body.contains("not written yet"));
    assert!(node.get("/api/v1/changes").expect(400).body.contains("from=<position>"));
    assert!(node.get("/api/v1/changes?from=0").expect(410).body.contains("the oldest position is 1"));
}

/// What is wrong in the past is taken out: an attribute, a stretch of time, an entity; through a kill, and for good by a purge.
#[test]
fn the_past_is_erased_and_purged() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start_in(dir.path(), &["--dev"]);
    let path = "/ngsi-ld/v1/temporal/entities/urn:ngsi-ld:Station:1";
    for hour in 0..4 {
        let at = format!("2026-03-01T0{hour}:00:00Z");
        let property = |value: u32| json!({"type": "Property", "value": value, "observedAt": at});
        let station = json!([{"id": "urn:ngsi-ld:Station:1", "type": "Station", "level": property(hour), "flow": property(10 + hour)}]);
        assert!(node.post("/ngsi-ld/v1/entityOperations/upsert", &station).status < 300);
    }
    let values = |node: &Node, name: &str, more: &str| -> Vec<u64> {
        let answer = node.get(&format!("{path}{more}")).expect(200).json();
        let instances = answer[name].as_array().cloned().unwrap_or_else(|| answer.get(name).cloned().into_iter().collect());
        let mut values: Vec<u64> = instances.iter().map(|i| i["value"].as_u64().unwrap()).collect();
        values.sort_unstable();
        values
    };
    let next = node.get("/api/v1/changes?from=1&limit=100").expect(200).json()["next"].as_u64().unwrap();
    let before = node.get("/api/v1/changes?from=1&limit=100").json()["changes"].as_array().unwrap().last().unwrap()["recordedAt"].clone();

    // A stretch of time of one attribute.
    let stretch = "/api/v1/history/Station?id=urn:ngsi-ld:Station:1&attr=level&from=2026-03-01T01:00:00Z&to=2026-03-01T03:00:00Z";
    node.send("DELETE", stretch, &[], None).expect(204);
    assert_eq!((values(&node, "level", ""), values(&node, "flow", "")), (vec![0, 3], vec![10, 11, 12, 13]));
    let told = node.get(&format!("/api/v1/changes?from={next}")).expect(200).json();
    assert_eq!(told["changes"][0]["erased"]["attribute"], "level", "{told}");
    assert_eq!(told["changes"][0]["erased"]["observedAt"], json!(["2026-03-01T01:00:00Z", "2026-03-01T03:00:00Z"]));
    // SQL sees the same, and so does a node that was killed.
    assert_eq!(node.psql(r#"select count(level), count(flow) from "Station_history" where observed_at is not null"#).unwrap(), "2|4");
    node.kill();
    let node = Node::start_in(dir.path(), &["--dev"]);
    let as_of = format!("?asOf={}", before.as_str().unwrap());
    assert_eq!((values(&node, "level", ""), values(&node, "level", &as_of)), (vec![0, 3], vec![0, 1, 2, 3]));
    node.send("POST", "/api/v1/history/purge", &[], None).expect(204);
    assert_eq!(values(&node, "level", &as_of), [0, 3]);

    // One instance: of one time, of one data set.
    let instance = "/api/v1/history/Station?attr=level&from=2026-03-01T00:00:00Z&to=2026-03-01T00:00:00.000001Z&datasetId=";
    node.send("DELETE", &format!("{instance}urn:ngsi-ld:Dataset:other"), &[], None).expect(204);
    assert_eq!(values(&node, "level", ""), [0, 3]);
    node.send("DELETE", &format!("{instance}@none"), &[], None).expect(204);
    assert_eq!(values(&node, "level", ""), [3]);

    // An attribute, then the entity: its present stays.
    node.send("DELETE", &format!("{path}/attrs/flow?deleteAll=true"), &[], None).expect(204);
    assert_eq!(values(&node, "flow", ""), Vec::<u64>::new());
    node.send("DELETE", &format!("{path}/attrs/flow?deleteAll=true"), &[], None).expect(404);
    node.send("DELETE", path, &[], None).expect(204);
    node.get(path).expect(404);
    node.send("DELETE", path, &[], None).expect(404);
    let present = node.get("/ngsi-ld/v1/entities/urn:ngsi-ld:Station:1").expect(200).json();
    assert_eq!((&present["level"]["value"], &present["flow"]["value"]), (&json!(3), &json!(13)));

    for (path, wanted) in [
        ("/api/v1/history/Nothing", "there is no history"),
        ("/api/v1/history/Station?from=2026-03-02T00:00:00Z&to=2026-03-01T00:00:00Z", "is not after"),
        ("/api/v1/history/Station?from=yesterday", "parameter from"),
        ("/api/v1/history/Station?timeproperty=sometime", "expected `observedAt` or `recordedAt`"),
        ("/api/v1/history/Station?attrs=level", "unknown field"),
        ("/api/v1/history/Station?datasetId=@none", "needs parameter attr"),
    ] {
        let refused = node.send("DELETE", path, &[], None).expect(400);
        assert!(refused.body.contains(wanted), "{path}: {}", refused.body);
    }
}

/// History in a folder and in an object store, backups to both, with the real program: verified, accounted for and restored each time.
#[test]
fn backups_and_history_are_in_folders_or_in_an_object_store_in_every_combination() {
    let Some(server) = Moto::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let run = |arguments: &[&str]| server.command(&program()).args(arguments).output().unwrap();
    for (i, (far_history, far_backup)) in [(false, false), (false, true), (true, false), (true, true)].into_iter().enumerate() {
        let (data, new) = (path(&format!("data-{i}")), path(&format!("new-{i}")));
        let backups = if far_backup { format!("s3://city/backups-{i}") } else { path(&format!("backups-{i}")) };
        std::fs::create_dir(&data).unwrap();
        if far_history {
            std::fs::write(format!("{data}/conurb.toml"), format!("[store]\nhistory = \"s3://city/history-{i}\"\n")).unwrap();
        }
        let start = |dir: &str| {
            let mut command = server.command(&program());
            let any = "127.0.0.1:0";
            command.args(["serve", "--dev", "--data", dir, "--http", any, "--mqtt", any, "--sql", any, "--flight", any, "--log", "warn"]);
            Node::from_command(command, Path::new(dir))
        };
        let mut node = start(&data);
        (0..5).for_each(|n| write_station(&node, n, n));
        let online = answer(&run(&["backup", "--to", &backups, "--url", &node.url(""), "--json"]));
        assert_eq!(online["nSegments"], 1, "{online}");
        write_station(&node, 5, 5);
        node.terminate();
        drop(node);

        // The folder says where its history is; its configuration is not needed.
        let _ = std::fs::remove_file(format!("{data}/conurb.toml"));
        let verified = answer(&run(&["verify", "--data", &data, "--json"]));
        assert_eq!((verified["nSegments"].as_u64(), verified["nFindings"].as_u64()), (Some(2), Some(0)), "{verified}");
        assert_eq!(std::fs::read_dir(format!("{data}/history")).map_or(0, Iterator::count), if far_history { 0 } else { 2 });
        let space = answer(&run(&["space", "--data", &data, "--json"]));
        assert!(space["historyBytes"].as_u64().unwrap() > 0, "{space}");
        let stopped = answer(&run(&["backup", "--to", &backups, "--data", &data, "--json", "--keep", "1"]));
        assert_eq!((stopped["nSegments"].as_u64(), stopped["nSegmentsKnown"].as_u64()), (Some(2), Some(1)), "{stopped}");
        assert_eq!(stopped["pruned"]["nKept"], 1, "{stopped}");
        let listed = answer(&run(&["backup", "--to", &backups, "--list", "--json"]));
        assert_eq!((listed.as_array().unwrap().len(), &listed[0]["name"]), (1, &stopped["name"]), "{listed}");

        let far = format!("s3://city/restored-{i}");
        let mut restore = vec!["restore", "--from", &backups, "--data", &new];
        if far_history {
            restore.extend(["--history", &far]);
        }
        let restored = run(&restore);
        assert!(restored.status.success() && said(&restored).contains("restored 6 documents"), "{}", said(&restored));
        let verified = run(&["verify", "--data", &new]);
        assert!(verified.status.success() && said(&verified).contains("2 history files"), "{}", said(&verified));
        if far_history {
            // Without the place in its configuration the node says where the files are.
            let mut wrong = server.command(&program());
            let refused = wrong.args(["serve", "--dev", "--data", &new, "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"]);
            let refused = refused.args(["--sql", "127.0.0.1:0", "--flight", "127.0.0.1:0"]).output().unwrap();
            assert!(!refused.status.success() && said(&refused).contains(&far), "{}", said(&refused));
            // Nor is another store let into the place.
            let foreign = path(&format!("foreign-{i}"));
            std::fs::create_dir(&foreign).unwrap();
            std::fs::write(format!("{foreign}/conurb.toml"), format!("[store]\nhistory = \"{far}\"\n")).unwrap();
            let any = "127.0.0.1:0";
            let other = run(&["serve", "--data", &foreign, "--http", any, "--mqtt", any, "--sql", any, "--flight", any]);
            assert!(!other.status.success() && said(&other).contains("belongs to another store"), "{}", said(&other));
            std::fs::write(format!("{new}/conurb.toml"), format!("[store]\nhistory = \"{far}\"\n")).unwrap();
        }
        let node = start(&new);
        let past = node.get("/ngsi-ld/v1/temporal/entities/urn:ngsi-ld:Station:5").expect(200).json();
        assert_eq!(past["level"][0]["value"], 5, "{past}");
        assert_eq!(node.get("/ngsi-ld/v1/entities?type=Station&limit=100").expect(200).json().as_array().unwrap().len(), 6);
    }
}

/// A node with a schedule makes backups, keeps as many as it should and shows it; after a restart it waits for its next turn.
#[test]
fn a_node_makes_backups_by_itself_and_shows_the_last_one() {
    let dir = tempfile::tempdir().unwrap();
    let (data, backups) = (dir.path().join("data"), dir.path().join("backups"));
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("conurb.toml"), format!("[backup]\nto = \"{}\"\nevery_hours = 1\nkeep = 2\n", text(&backups))).unwrap();
    let mut node = Node::start_in(&data, &["--dev"]);
    let status = |node: &Node| node.get("/api/v1/backups").expect(200).json();
    eventually("the first backup is made at once", || status(&node)["last"].is_object());
    let first = status(&node);
    assert_eq!(
        (&first["last"]["to"], &first["running"], &first["lastError"]),
        (&json!(text(&backups)), &Value::Null, &Value::Null),
        "{first}"
    );
    assert!(first["nextAt"].is_string() && first["last"]["pruned"]["nKept"] == 1, "{first}");
    let metrics = node.get("/metrics").expect(200).body;
    assert!(metrics.contains("conurb_backups_total{sort=\"made\"} 1"), "{metrics}");
    let at = metrics.lines().find_map(|l| l.strip_prefix("conurb_backup_last_success_timestamp_seconds ")).unwrap();
    assert!(at.parse::<u64>().unwrap() > 1_700_000_000, "{at}");

    // By hand into the same place, with another wish.
    for _ in 0..3 {
        write_station(&node, 1, 1);
        node.post("/api/v1/backup", &json!({"to": text(&backups)})).expect(200);
    }
    let kept = node.post("/api/v1/backup", &json!({"to": text(&backups), "keep": 3})).expect(200).json();
    assert_eq!((kept["pruned"]["nKept"].as_u64(), kept["pruned"]["removed"].as_array().unwrap().len()), (Some(3), 2), "{kept}");
    assert!(node.post("/api/v1/backup", &json!({"to": text(&backups), "keep": 0})).expect(400).body.contains("at least 1"));
    assert!(node.post("/api/v1/backup", &json!({"to": "ftp://x"})).expect(400).body.contains("expected a folder or"));
    // One that fails is told.
    std::fs::write(dir.path().join("file"), "").unwrap();
    assert!(node.post("/api/v1/backup", &json!({"to": text(&dir.path().join("file/below"))})).status >= 400);
    node.terminate();
    drop(node);
    let node = Node::start_in(&data, &["--dev"]);
    eventually("the next turn is known", || status(&node)["nextAt"].is_string());
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(status(&node)["last"], Value::Null, "the last one is young enough");
    let listed = answer(&run(&["backup", "--to", text(&backups), "--list", "--json"]));
    assert_eq!(listed.as_array().unwrap().len(), 3);
}
