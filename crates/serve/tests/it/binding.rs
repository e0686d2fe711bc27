//! The HTTP binding: clauses 4.14, 5.5 and 6.3.

use serde_json::json;

use crate::city::{Answer, City};

fn of_tenant(city: &City, tenant: &str, method: &str, path: &str, body: Option<serde_json::Value>) -> Answer {
    let body = body.map(|b| b.to_string());
    let mut headers = vec![("ngsild-tenant", tenant)];
    if body.is_some() {
        headers.push(("content-type", "application/json"));
    }
    city.send(method, path, &headers, body.as_deref())
}

#[test]
fn clause_4_14_tenants_see_nothing_of_one_another() {
    let city = City::start();
    let lamp = |watts: i64| json!({"id": "urn:x:1", "type": "Lamp", "watts": watts});
    city.has(lamp(1));
    let watts = |tenant: Option<&str>| {
        let answer = match tenant {
            None => city.get("entities/urn:x:1?format=simplified"),
            Some(t) => of_tenant(&city, t, "GET", "entities/urn:x:1?format=simplified", None),
        };
        answer.expect(200).json()["watts"].clone()
    };
    // Only what creates makes a tenant.
    of_tenant(&city, "water", "GET", "entities?type=Lamp", None).problem(404, "NonexistentTenant");
    of_tenant(&city, "water", "POST", "entityOperations/upsert", Some(json!([lamp(5)]))).problem(404, "NonexistentTenant");
    let created = of_tenant(&city, "water", "POST", "entities", Some(lamp(2))).expect(201);
    assert_eq!(created.header("ngsild-tenant"), ["water"]);
    of_tenant(&city, "roads", "POST", "entityOperations/create", Some(json!([lamp(3), {"id": "urn:x:2", "type": "Post"}]))).expect(201);
    assert_eq!((watts(None), watts(Some("water")), watts(Some("roads"))), (json!(1), json!(2), json!(3)));
    of_tenant(&city, "roads", "DELETE", "entities/urn:x:1", None).expect(204);
    assert_eq!((watts(None), watts(Some("water"))), (json!(1), json!(2)));
    assert_eq!(of_tenant(&city, "water", "GET", "types", None).json()["typeList"], json!(["Lamp"]));
    assert_eq!(city.get("entities?type=Post").json(), json!([]));
    of_tenant(&city, "../evil", "POST", "entities", Some(lamp(1))).problem(400, "BadRequestData");
    // They are there after a restart.
    let city = city.restarted();
    assert_eq!(city.get("/api/v1/tenants").json(), json!([{"name": "roads"}, {"name": "water"}]));
    assert_eq!(of_tenant(&city, "water", "GET", "entities/urn:x:1?format=simplified", None).json()["watts"], 2);
    assert_eq!(of_tenant(&city, "roads", "GET", "entities?type=*&pick=id", None).json(), json!([{"id": "urn:x:2"}]));
}

#[test]
fn clause_4_14_subscriptions_are_of_their_tenant() {
    let city = City::start();
    let subscription =
        json!({"type": "Subscription", "entities": [{"type": "Lamp"}], "notification": {"endpoint": {"uri": "http://127.0.0.1:9/"}}});
    of_tenant(&city, "water", "POST", "subscriptions", Some(subscription)).expect(201);
    assert_eq!(city.get("subscriptions").json(), json!([]));
    assert_eq!(of_tenant(&city, "water", "GET", "subscriptions", None).json().as_array().unwrap().len(), 1);
}

#[test]
fn the_public_address_is_tried_after_the_start() {
    let city = City::start();
    crate::city::eventually("it is tried", || city.get("/api/v1/info").json()["publicUrl"]["reached"] == true);
    assert_eq!(city.get("/api/v1/info").json()["publicUrl"]["url"], city.url(""));
}

#[test]
fn what_one_node_answers_is_refused_over_all_cities() {
    let city = City::start();
    for parameter in ["join=inline", "orderBy=n&local=true", "entityMap=true", "csf=alias==1", "asOf=2026-01-01T00:00:00Z"] {
        city.get(&format!("/cluster/ngsi-ld/v1/entities?type=Lamp&{parameter}")).problem(400, "InvalidRequest");
    }
    city.get("/cluster/ngsi-ld/v1/entities?type=Lamp").expect(200);
}
