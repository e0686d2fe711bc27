//! Entities and their attributes: clauses 5.6.1 to 5.6.6, 5.6.17 to 5.6.19.

use serde_json::{Value, json};

use crate::city::City;

const ID: &str = "urn:ngsi-ld:Station:1";

fn station() -> Value {
    json!({"id": ID, "type": "Station", "t": {"type": "Property", "value": 1, "unitCode": "CEL"}, "in": {"type": "Relationship", "object": "urn:ngsi-ld:City:a"}})
}

#[test]
fn clause_5_6_1_create_entity() {
    let city = City::start();
    let created = city.post("entities", station()).expect(201);
    assert_eq!(created.header("location"), [format!("/ngsi-ld/v1/entities/{ID}")]);
    assert_eq!(created.body, "");
    city.post("entities", station()).problem(409, "AlreadyExists");
    city.post("entities", json!({"id": "no uri", "type": "Station"})).problem(400, "BadRequestData");
    city.send("POST", "entities", &[("content-type", "application/json")], Some("{")).problem(400, "InvalidRequest");
    assert_eq!(city.simplified(ID)["t"], 1);
}
