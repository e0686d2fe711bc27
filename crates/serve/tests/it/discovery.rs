//! Which types and attributes there are: clauses 5.7.5 to 5.7.10.

use serde_json::{Value, json};

use crate::city::City;

const DEFAULT: &str = "https://uri.etsi.org/ngsi-ld/default-context/";

fn city() -> City {
    let city = City::start();
    city.has(json!([
        {"id": "urn:x:1", "type": "Lamp", "power": {"type": "Property", "value": 7}, "in": {"type": "Relationship", "object": "urn:x:9"}},
        {"id": "urn:x:2", "type": "Lamp", "power": {"type": "LanguageProperty", "languageMap": {"en": "much"}}},
        {"id": "urn:x:3", "type": ["Lamp", "Post"], "height": {"type": "Property", "value": 3}},
        {"id": "urn:x:4", "type": "https://example.org/Tram", "power": {"type": "Property", "value": 1}},
    ]));
    city
}

fn with_context(city: &City, path: &str) -> Value {
    let context = json!({"@context": {"Tram": "https://example.org/Tram", "watts": format!("{DEFAULT}power")}});
    let location = city.post("jsonldContexts", context).expect(201).header("location")[0].to_owned();
    let link = format!("<{}>; rel=\"http://www.w3.org/ns/json-ld#context\"", city.url(&location));
    city.send("GET", path, &[("link", &link)], None).expect(200).json()
}

fn sorted(list: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = list.as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn clause_5_7_5_types() {
    let city = city();
    let list = city.get("types").expect(200).json();
    assert_eq!(list["type"], "EntityTypeList");
    assert!(list["id"].as_str().unwrap().starts_with("urn:"), "{list}");
    assert_eq!(sorted(&list["typeList"]), ["Lamp", "Post", "https://example.org/Tram"]);
    assert_eq!(sorted(&with_context(&city, "types")["typeList"]), ["Lamp", "Post", "Tram"]);
    let none = City::start().get("types").expect(200).json();
    assert_eq!(none["typeList"], json!([]));
}

#[test]
fn clause_5_7_6_types_with_their_attributes() {
    let city = city();
    let details = city.get("types?details=true").expect(200).json();
    let lamp = details.as_array().unwrap().iter().find(|t| t["typeName"] == "Lamp").unwrap();
    assert_eq!((&lamp["id"], &lamp["type"]), (&json!(format!("{DEFAULT}Lamp")), &json!("EntityType")));
    assert_eq!(sorted(&lamp["attributeNames"]), ["height", "in", "power"]);
}

#[test]
fn clause_5_7_7_one_type() {
    let city = city();
    let lamp = city.get("types/Lamp").expect(200).json();
    assert_eq!((&lamp["typeName"], &lamp["type"], &lamp["entityCount"]), (&json!("Lamp"), &json!("EntityTypeInfo"), &json!(3)));
    let of = |name: &str| lamp["attributeDetails"].as_array().unwrap().iter().find(|a| a["attributeName"] == name).unwrap().clone();
    assert_eq!(sorted(&of("power")["attributeTypes"]), ["LanguageProperty", "Property"]);
    assert_eq!(
        of("in"),
        json!({"id": format!("{DEFAULT}in"), "type": "Attribute", "attributeName": "in", "attributeTypes": ["Relationship"]})
    );
    // By its full name, percent-encoded, or by that of a context.
    let tram = city.get("types/https%3A%2F%2Fexample.org%2FTram").expect(200).json();
    assert_eq!((&tram["id"], &tram["entityCount"]), (&json!("https://example.org/Tram"), &json!(1)));
    assert_eq!(with_context(&city, "types/Tram")["attributeDetails"][0]["attributeName"], "watts");
    city.get("types/Ship").problem(404, "ResourceNotFound");
}

#[test]
fn clause_5_7_8_attributes() {
    let city = city();
    let list = city.get("attributes").expect(200).json();
    assert_eq!(list["type"], "AttributeList");
    assert_eq!(sorted(&list["attributeList"]), ["height", "in", "power"]);
    let details = with_context(&city, "attributes?details=true");
    let power = details.as_array().unwrap().iter().find(|a| a["attributeName"] == "watts").unwrap();
    assert_eq!(power["id"], format!("{DEFAULT}power"));
    assert!(sorted(&power["typeNames"]).contains(&"Lamp") && sorted(&power["typeNames"]).contains(&"Tram"), "{power}");
}

#[test]
fn clause_5_7_10_one_attribute() {
    let city = city();
    let power = city.get("attributes/power").expect(200).json();
    assert_eq!((&power["type"], &power["attributeName"], &power["attributeCount"]), (&json!("Attribute"), &json!("power"), &json!(3)));
    assert_eq!(sorted(&power["attributeTypes"]), ["LanguageProperty", "Property"]);
    assert_eq!(sorted(&power["typeNames"]), ["Lamp", "https://example.org/Tram"]);
    // An entity of two types counts once.
    let height = city.get("attributes/height").expect(200).json();
    assert_eq!((&height["attributeCount"], sorted(&height["typeNames"])), (&json!(1), vec!["Lamp", "Post"]));
    city.get("attributes/width").problem(404, "ResourceNotFound");
    city.get("attributes/a(b").problem(400, "BadRequestData");
}

#[test]
fn clause_5_7_5_what_has_expired_is_not_discovered() {
    let city = City::start();
    let soon = |millis: i64| city.app.node.now().plus_micros(millis * 1000).to_string();
    city.has(json!([
        {"id": "urn:x:1", "type": "Lamp", "power": 1, "expiresAt": soon(200)},
        {"id": "urn:x:2", "type": "Post", "height": 1},
    ]));
    std::thread::sleep(std::time::Duration::from_millis(210));
    assert_eq!(city.get("types").json()["typeList"], json!(["Post"]));
    city.get("types/Lamp").problem(404, "ResourceNotFound");
    city.get("attributes/power").problem(404, "ResourceNotFound");
    assert_eq!(city.get("attributes").json()["attributeList"], json!(["height"]));
}
