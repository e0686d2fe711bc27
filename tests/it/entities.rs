//! NGSI-LD over HTTP.

use serde_json::{Value, json};

use crate::support::Node;

fn station(i: u32, pm25: f64) -> Value {
    json!({
        "id": format!("urn:ngsi-ld:AirQualityObserved:t:{i}"),
        "type": "AirQualityObserved",
        "pm25": {"type": "Property", "value": pm25, "unitCode": "GQ", "observedAt": "2014-01-01T00:00:00Z"},
        "location": {"type": "GeoProperty", "value": {"type": "Point", "coordinates": [116.0 + f64::from(i) * 0.1, 40.0]}},
    })
}

#[test]
fn an_entity_is_created_changed_found_and_removed() {
    let node = Node::start();
    let created = node.post("/ngsi-ld/v1/entities", &station(1, 35.0)).expect(201);
    let location = created.header("location")[0].to_owned();
    node.post("/ngsi-ld/v1/entities", &station(1, 35.0)).expect(409);

    let found = node.get(&location).expect(200).json();
    assert_eq!(found["pm25"]["value"], 35.0);
    assert_eq!(found["pm25"]["unitCode"], "GQ");
    let simple = node.get(&format!("{location}?format=keyValues")).expect(200).json();
    assert_eq!(simple["pm25"], 35.0);

    node.post(&format!("{location}/attrs"), &json!({"no2": {"type": "Property", "value": 7}})).expect(204);
    let left = node.post(&format!("{location}/attrs?options=noOverwrite"), &json!({"no2": 9, "so2": 1})).expect(207).json();
    assert_eq!(left["notUpdated"].as_array().unwrap().len(), 1, "{left}");
    assert_eq!(node.get(&format!("{location}?format=keyValues&attrs=no2,so2")).expect(200).json()["no2"], 7);

    node.send("DELETE", &format!("{location}/attrs/so2"), &[], None).expect(204);
    node.send("DELETE", &location, &[], None).expect(204);
    node.get(&location).expect(404);
    node.send("DELETE", &location, &[], None).expect(404);
}

#[test]
fn queries_select_by_type_value_place_and_page() {
    let node = Node::start();
    let all: Vec<Value> = (0..10).map(|i| station(i, f64::from(i) * 10.0)).collect();
    let created = node.post("/ngsi-ld/v1/entityOperations/create", &json!(all)).expect(201);
    assert_eq!(created.json().as_array().unwrap().len(), 10);

    check(&node, "type=AirQualityObserved", 10);
    check(&node, "type=AirQualityObserved&q=pm25%3E40", 5);
    check(&node, "type=AirQualityObserved&q=pm25==0..20", 3);
    check(&node, "type=AirQualityObserved&q=pm25%3E80%7Cpm25==0", 2);
    check(&node, "q=no2", 0);
    check(&node, "type=AirQualityObserved&georel=near;maxDistance==9000&geometry=Point&coordinates=%5B116.0,40.0%5D", 2);
    let polygon = "%5B%5B%5B116.05,39%5D,%5B116.35,39%5D,%5B116.35,41%5D,%5B116.05,41%5D,%5B116.05,39%5D%5D%5D";
    check(&node, &format!("type=AirQualityObserved&georel=within&geometry=Polygon&coordinates={polygon}"), 3);
    check(&node, "id=urn:ngsi-ld:AirQualityObserved:t:3&type=AirQualityObserved", 1);

    let page = node.get("/ngsi-ld/v1/entities?type=AirQualityObserved&limit=4&offset=4&count=true").expect(200);
    assert_eq!(page.json().as_array().unwrap().len(), 4);
    assert_eq!(page.header("ngsild-results-count"), ["10"]);
    let links = page.header("link").join(",");
    assert!(links.contains("rel=\"next\"") && links.contains("rel=\"prev\"") && links.contains("offset=8"), "{links}");

    let features = node
        .send("GET", "/ngsi-ld/v1/entities?type=AirQualityObserved&limit=2", &[("accept", "application/geo+json")], None)
        .expect(200)
        .json();
    assert_eq!(features["type"], "FeatureCollection");
    assert_eq!(features["features"][1]["geometry"]["coordinates"], json!([116.1, 40.0]));

    #[track_caller]
    fn check(node: &Node, query: &str, want: usize) {
        let answer = node.get(&format!("/ngsi-ld/v1/entities?{query}")).expect(200);
        assert_eq!(answer.json().as_array().unwrap().len(), want, "{query}: {}", answer.body);
    }
}

#[test]
fn a_batch_that_partly_fails_says_which_items_and_why() {
    let node = Node::start();
    let mut wrong = station(2, 1.0);
    wrong["location"]["value"]["coordinates"] = json!([200.0, 40.0]);
    let result = node.post("/ngsi-ld/v1/entityOperations/upsert", &json!([station(1, 1.0), wrong])).expect(207).json();
    assert_eq!(result["success"], json!(["urn:ngsi-ld:AirQualityObserved:t:1"]));
    assert_eq!(result["errors"][0]["entityId"], "urn:ngsi-ld:AirQualityObserved:t:2");
    assert!(result["errors"][0]["error"]["detail"].as_str().unwrap().contains("longitude"), "{result}");
    node.post("/ngsi-ld/v1/entityOperations/upsert", &json!([station(1, 2.0)])).expect(204);
    node.post("/ngsi-ld/v1/entityOperations/delete", &json!(["urn:ngsi-ld:AirQualityObserved:t:1"])).expect(204);
}

#[test]
fn names_mean_the_smart_data_models_and_the_context_is_linked() {
    let node = Node::start();
    node.post("/ngsi-ld/v1/entities", &station(1, 1.0)).expect(201);
    let core = "<https://uri.etsi.org/ngsi-ld/v1/ngsi-ld-core-context-v1.9.jsonld>; rel=\"http://www.w3.org/ns/json-ld#context\"; type=\"application/ld+json\"";
    let with_core = node.send("GET", "/ngsi-ld/v1/entities/urn:ngsi-ld:AirQualityObserved:t:1", &[("link", core)], None).expect(200).json();
    assert_eq!(with_core["type"], "https://uri.fiware.org/ns/data-models#AirQualityObserved");
    // What the answer links to can be fetched from the node itself.
    let linked = node.get("/ngsi-ld/v1/entities/urn:ngsi-ld:AirQualityObserved:t:1").expect(200);
    let link = linked.header("link")[0].split(['<', '>']).nth(1).unwrap().to_owned();
    let path = link.strip_prefix(&format!("http://{}", node.http)).unwrap();
    assert!(node.get(path).expect(200).json()["@context"].is_array());
    let body = json!({"@context": {"rain": "https://example.org/rain"}, "id": "urn:x:y:1", "type": "Gauge", "rain": 3}).to_string();
    node.send("POST", "/ngsi-ld/v1/entities", &[("content-type", "application/ld+json")], Some(&body)).expect(201);
    assert_eq!(node.get("/ngsi-ld/v1/entities/urn:x:y:1").expect(200).json()["https://example.org/rain"]["value"], 3);
    let types = node.get("/ngsi-ld/v1/types").expect(200).json();
    assert_eq!(types["typeList"].as_array().unwrap().len(), 2, "{types}");
}

#[test]
fn what_was_answered_is_there_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start_in(dir.path(), &["--dev"]);
    for i in 0..20 {
        node.post("/ngsi-ld/v1/entities", &station(i, f64::from(i))).expect(201);
    }
    node.kill();
    let mut node = Node::start_in(dir.path(), &["--dev"]);
    assert_eq!(
        node.get("/ngsi-ld/v1/entities?type=AirQualityObserved&limit=0&count=true").expect(200).header("ngsild-results-count"),
        ["20"]
    );
    node.terminate();
    let node = Node::start_in(dir.path(), &["--dev"]);
    assert_eq!(node.get("/ngsi-ld/v1/entities/urn:ngsi-ld:AirQualityObserved:t:19").expect(200).json()["pm25"]["value"], 19.0);
}

#[test]
fn entities_are_found_by_the_words_of_their_names() {
    let node = Node::start();
    let park = |i: u32, en: &str, zh: &str| {
        json!({"id": format!("urn:ngsi-ld:Park:{i}"), "type": "Park", "name": {"type": "LanguageProperty", "languageMap": {"en": en, "zh": zh}}})
    };
    let parks = json!([park(1, "Old Town Park", "古城公园"), park(2, "New Town Park", "新城公园"), park(3, "River Bank", "河岸")]);
    node.post("/ngsi-ld/v1/entityOperations/create", &parks).expect(201);
    let found = |query: &str| -> Vec<String> {
        let answer = node.get(&format!("/api/v1/search?{query}")).expect(200).json();
        answer.as_array().unwrap().iter().map(|e| e["id"].as_str().unwrap().rsplit(':').next().unwrap().to_owned()).collect()
    };
    assert_eq!(found("text=town"), ["1", "2"]);
    assert_eq!(found("text=TOWN%20old"), ["1"]);
    assert_eq!(found("text=%E5%9F%8E%E5%85%AC"), ["1", "2"], "城公");
    assert_eq!(found("text=park&type=Station"), [] as [&str; 0]);
    assert_eq!(found("text=park&limit=1"), ["1"]);
    node.get("/api/v1/search?text=%20").expect(400);
    node.get("/api/v1/search").expect(400);
}

#[test]
fn queries_are_explained_to_operators() {
    let node = Node::start();
    let all: Vec<Value> = (0..50).map(|i| station(i, f64::from(i))).collect();
    node.post("/ngsi-ld/v1/entityOperations/create", &json!(all)).expect(201);
    let told = node.get("/api/v1/explain?type=AirQualityObserved&q=pm25%3E45&limit=20").expect(200).json();
    assert_eq!((told["returned"].as_u64(), told["documentsRead"].as_u64(), told["lookedAt"].as_u64()), (Some(4), Some(4), Some(50)), "{told}");
    assert_eq!(told["conditions"][1]["decidedOnColumns"], 50, "{told}");
    let near = "georel=near;maxDistance==1000&geometry=Point&coordinates=%5B116.0,40.0%5D";
    let told = node.get(&format!("/api/v1/explain?{near}")).expect(200).json();
    assert!(told["source"].as_str().unwrap().starts_with("place index"), "{told}");
    assert_eq!(told["lookedAt"], 1);

    let run = |arguments: &[&str]| std::process::Command::new(crate::support::program()).arg("explain").args(arguments).output().unwrap();
    let url = node.url("");
    let output = run(&["--type", "AirQualityObserved", "--q", "pm25>45", "--url", &url]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("documents read: 4") && text.contains("automatic indexes: none"), "{output:?}");
    let output = run(&["--type", "AirQualityObserved", "--q", "pm25>45", "--url", &url, "--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["returned"], 4);
    let output = run(&["--type", "AirQualityObserved", "--q", "pm25>", "--url", &url]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("parameter q"), "{output:?}");
}
