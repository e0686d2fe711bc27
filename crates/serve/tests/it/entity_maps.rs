//! Entity maps: clauses 4.3.6.7, 5.5.9.3 and 5.14.

use serde_json::{Value, json};

use crate::city::{Answer, City};

const MAP: &str = "ngsild-entitymap";

fn lamps(city: &City, ids: &[usize]) {
    city.has(ids.iter().map(|i| json!({"id": format!("urn:x:{i}"), "type": "Lamp", "n": i})).collect());
}

fn ids(answer: &Answer) -> Vec<String> {
    answer.json().as_array().unwrap().iter().map(|e| e["id"].as_str().unwrap().rsplit(':').next().unwrap().to_owned()).collect()
}

fn with_map(city: &City, map: &str, path: &str) -> Answer {
    city.send("GET", path, &[(MAP, map)], None)
}

#[test]
fn clause_5_5_9_3_pages_of_a_map_are_of_one_result() {
    let city = City::start();
    lamps(&city, &[1, 2, 4, 5]);
    let first = city.get("entities?type=Lamp&limit=2&entityMap=true").expect(201);
    let map = first.header(MAP)[0].to_owned();
    assert_eq!(ids(&first), ["1", "2"]);
    // What comes later is not in it; what goes, or does not match any more, is left out, and the page is filled up.
    lamps(&city, &[3]);
    city.delete("entities/urn:x:4").expect(204);
    let second = with_map(&city, &map, "entities?type=Lamp&limit=2&offset=2").expect(200);
    assert_eq!((ids(&second), second.header(MAP)), (vec!["5".to_owned()], vec![map.as_str()]));
    let all = with_map(&city, &map, "entities?type=Lamp&count=true").expect(200);
    assert_eq!((ids(&all), all.header("ngsild-results-count")), (["1", "2", "5"].map(str::to_owned).to_vec(), vec!["3"]));
    assert_eq!(ids(&city.get("entities?type=Lamp")), ["1", "2", "3", "5"]);
}

#[test]
fn clause_5_14_entity_maps_are_made_shown_changed_and_deleted() {
    let city = City::start();
    lamps(&city, &[1, 2]);
    let made = city.get("entityMaps?type=Lamp&entityMapLifetime=PT1H").expect(201);
    let map = made.json();
    let id = map["id"].as_str().unwrap();
    assert_eq!(made.header(MAP), [id]);
    assert_eq!((&map["type"], &map["entityMap"]), (&json!("EntityMap"), &json!({"urn:x:1": ["@none"], "urn:x:2": ["@none"]})));
    let path = format!("entityMaps/{id}");
    assert_eq!(city.get(&path).expect(200).json(), map);
    let later = city.app.node.now().plus_micros(7_200_000_000).to_string();
    city.with_body("PATCH", &path, json!({"expiresAt": later, "entityMap": {}})).expect(204);
    assert_eq!(city.get(&path).json()["expiresAt"], later);
    city.with_body("PATCH", &path, json!({"expiresAt": "2020-01-01T00:00:00Z"})).problem(400, "BadRequestData");
    city.delete(&path).expect(204);
    city.get(&path).problem(404, "ResourceNotFound");
    city.get("entityMaps/none").problem(400, "BadRequestData");
    city.get("entityMaps").problem(400, "BadRequestData");
    let body = json!({"type": "Query", "entities": [{"type": "Lamp"}], "q": "n==2"});
    let by_body: Value = city.post("entityMaps", body).expect(201).json();
    assert_eq!(by_body["entityMap"], json!({"urn:x:2": ["@none"]}));
    // One that has gone is made anew: no error.
    let again = with_map(&city, id, "entities?type=Lamp").expect(201);
    assert_ne!(again.header(MAP), [id]);
}

#[test]
fn clause_4_3_6_7_a_map_says_which_source_has_what() {
    let (city, other) = (City::start(), City::start());
    lamps(&city, &[1]);
    lamps(&other, &[1, 2]);
    let registration = json!({"type": "ContextSourceRegistration", "id": "urn:x:source", "information": [{"entities": [{"type": "Lamp"}]}], "endpoint": other.url("")});
    city.post("csourceRegistrations", registration).expect(201);
    let map = city.get("entityMaps?type=Lamp").expect(201).json();
    assert_eq!(map["entityMap"], json!({"urn:x:1": ["@none", "urn:x:source"], "urn:x:2": ["urn:x:source"]}));
    lamps(&other, &[3]);
    assert_eq!(ids(&with_map(&city, map["id"].as_str().unwrap(), "entities?type=Lamp").expect(200)), ["1", "2"]);
}
