//! What is in a notification (clauses 5.3.1, 5.8.6, 6.3.8).

use serde_json::{Value, json};

use crate::city::City;
use crate::receiver::{Received, Receiver};

/// A subscription to stations at the receiver, changed by `change`, and a place to write.
fn subscribed(change: impl FnOnce(&mut Value)) -> (City, Receiver) {
    let (city, receiver) = (City::start(), Receiver::start());
    let mut subscription = json!({
        "id": "urn:x:s", "type": "Subscription", "entities": [{"type": "Station"}],
        "notification": {"endpoint": {"uri": receiver.url()}},
    });
    change(&mut subscription);
    city.post("subscriptions", subscription).expect(201);
    (city, receiver)
}

fn station(attributes: Value) -> Value {
    let mut entity = json!({"id": "urn:x:1", "type": "Station"});
    entity.as_object_mut().unwrap().extend(attributes.as_object().unwrap().clone());
    entity
}

fn replace(city: &City, attributes: Value) {
    city.with_body("PUT", "entities/urn:x:1", station(attributes)).expect(204);
}

fn property(value: i64) -> Value {
    json!({"type": "Property", "value": value})
}

#[track_caller]
fn first(got: &[Received], n: usize) -> &Value {
    &got[n].body["data"][0]
}

/// Which change tells whom, by `notificationTrigger` (one city, a subscription for each).
#[test]
fn clause_5_8_6_notification_triggers() {
    let (city, receiver) = (City::start(), Receiver::start());
    let triggers = ["entityCreated", "entityUpdated", "entityDeleted", "attributeCreated", "attributeUpdated", "attributeDeleted"];
    for trigger in triggers.iter().map(Some).chain([None]) {
        let mut subscription = json!({
            "id": format!("urn:s:{}", trigger.unwrap_or(&"default")), "type": "Subscription", "entities": [{"type": "Station"}],
            "notification": {"endpoint": {"uri": receiver.url()}},
        });
        if let Some(trigger) = trigger {
            subscription["notificationTrigger"] = json!([trigger]);
        }
        city.post("subscriptions", subscription).expect(201);
    }
    let mut n = 0;
    let mut told = |want: &[&str]| {
        let got = receiver.gets(n + want.len());
        // Nobody else: what comes late would be seen with the next change.
        let mut who: Vec<_> = got[n..].iter().map(|r| r.body["subscriptionId"].as_str().unwrap()["urn:s:".len()..].to_owned()).collect();
        who.sort_unstable();
        assert_eq!(who, want);
        n = got.len();
    };
    city.has(station(json!({"pm25": property(1)})));
    told(&["attributeCreated", "default", "entityCreated", "entityUpdated"]);
    city.post("entities/urn:x:1/attrs", json!({"no2": property(1)})).expect(204);
    told(&["attributeCreated", "default", "entityUpdated"]);
    city.post("entities/urn:x:1/attrs", json!({"no2": property(2)})).expect(204);
    told(&["attributeUpdated", "default", "entityUpdated"]);
    city.post("entities/urn:x:1/attrs", json!({"no2": {"type": "Property", "value": 2, "unitCode": "GQ"}})).expect(204);
    told(&["attributeUpdated", "default", "entityUpdated"]);
    city.delete("entities/urn:x:1/attrs/no2").expect(204);
    told(&["attributeDeleted", "entityUpdated"]);
    city.delete("entities/urn:x:1").expect(204);
    told(&["entityDeleted"]);
}

#[test]
fn clause_5_8_6_watched_attributes_conditions_and_selectors() {
    let (city, receiver) = subscribed(|s| {
        s["watchedAttributes"] = json!(["pm25"]);
        s["q"] = json!("pm25>10");
        s["entities"] = json!([{"type": "Station", "idPattern": "^urn:x:[12]$"}, {"type": "Mast", "id": "urn:m:1"}]);
        s["geoQ"] = json!({"georel": "near;maxDistance==1000", "geometry": "Point", "coordinates": [8, 40]});
    });
    let at = |id: &str, kind: &str, pm25: i64, lon: f64| json!({"id": id, "type": kind, "pm25": property(pm25), "location": {"type": "GeoProperty", "value": {"type": "Point", "coordinates": [lon, 40]}}});
    let write = |entities: Value| assert!([201, 204].contains(&city.post("entityOperations/upsert", entities).status));
    write(json!([at("urn:x:1", "Station", 5, 8.0)]));
    write(json!([at("urn:x:1", "Station", 11, 9.0)]));
    write(json!([at("urn:x:3", "Station", 11, 8.0)]));
    write(json!([at("urn:m:2", "Mast", 11, 8.0)]));
    write(json!([at("urn:x:2", "Station", 12, 8.0), at("urn:m:1", "Mast", 13, 8.0)]));
    city.post("entities/urn:x:2/attrs", json!({"no2": property(2)})).expect(204);
    city.post("entities/urn:x:2/attrs", json!({"pm25": property(14)})).expect(204);
    let got = receiver.gets(2);
    let told: Vec<Vec<(&str, i64)>> = got
        .iter()
        .map(|r| {
            let data = r.body["data"].as_array().unwrap();
            data.iter().map(|e| (e["id"].as_str().unwrap(), e["pm25"]["value"].as_i64().unwrap())).collect()
        })
        .collect();
    assert_eq!(told, [vec![("urn:x:2", 12), ("urn:m:1", 13)], vec![("urn:x:2", 14)]]);
}

#[test]
fn clause_5_8_6_show_changes() {
    let (city, receiver) = subscribed(|s| {
        s["notification"]["showChanges"] = json!(true);
        s["notificationTrigger"] = json!(["attributeCreated", "attributeUpdated", "attributeDeleted", "entityDeleted"]);
    });
    city.has(station(json!({
        "pm25": property(1),
        "name": {"type": "LanguageProperty", "languageMap": {"en": "a"}},
        "at": {"type": "Relationship", "object": "urn:x:2"},
    })));
    replace(
        &city,
        json!({
            "pm25": property(2),
            "name": {"type": "LanguageProperty", "languageMap": {"en": "b"}},
            "at": {"type": "Relationship", "object": "urn:x:3"},
        }),
    );
    city.delete("entities/urn:x:1/attrs/at").expect(204);
    city.delete("entities/urn:x:1").expect(204);
    let got = receiver.gets(4);
    // What is new has no value before.
    assert!(first(&got, 0)["pm25"].get("previousValue").is_none());
    let changed = first(&got, 1);
    assert_eq!((&changed["pm25"]["value"], &changed["pm25"]["previousValue"]), (&json!(2), &json!(1)));
    assert_eq!(changed["name"]["previousLanguageMap"], json!({"en": "a"}));
    assert_eq!(changed["at"]["previousObject"], "urn:x:2");
    let removed = first(&got, 2);
    assert_eq!((&removed["at"]["object"], &removed["at"]["previousObject"]), (&json!("urn:ngsi-ld:null"), &json!("urn:x:3")), "{removed}");
    assert!(removed["at"]["deletedAt"].is_string());
    let gone = first(&got, 3);
    assert!(gone["deletedAt"].is_string() && gone["type"] == "Station");
    assert_eq!((&gone["pm25"]["value"], &gone["pm25"]["previousValue"]), (&json!("urn:ngsi-ld:null"), &json!(2)), "{gone}");
    let city_says = |format: &str| {
        let mut s = json!({"id": "urn:x:t", "type": "Subscription", "entities": [{"type": "Station"}]});
        s["notification"] = json!({"endpoint": {"uri": receiver.url()}, "showChanges": true, "format": format});
        city.post("subscriptions", s)
    };
    city_says("keyValues").problem(400, "BadRequestData");
    city_says("simplified").problem(400, "BadRequestData");
}

#[test]
fn clause_5_8_6_deletions_in_the_simple_form() {
    let (city, receiver) = subscribed(|s| s["notificationTrigger"] = json!(["attributeDeleted", "entityDeleted"]));
    city.has(station(json!({"pm25": property(1), "no2": [property(1), {"type": "Property", "value": 2, "datasetId": "urn:d:1"}]})));
    city.delete("entities/urn:x:1/attrs/pm25").expect(204);
    city.delete("entities/urn:x:1/attrs/no2?deleteAll=true").expect(204);
    city.delete("entities/urn:x:1").expect(204);
    let got = receiver.gets(3);
    assert_eq!(first(&got, 0)["pm25"], "urn:ngsi-ld:null");
    let of_no2 = serde_json::to_string(&first(&got, 1)["no2"]).unwrap();
    assert!(of_no2.contains("urn:d:1") && of_no2.contains("urn:ngsi-ld:null"), "{of_no2}");
    let gone = first(&got, 2).as_object().unwrap();
    assert_eq!(gone.keys().map(String::as_str).collect::<Vec<_>>(), ["id", "type", "deletedAt"]);
}

#[test]
fn clause_5_2_14_formats_and_projection() {
    let of = |change: Value| {
        let (city, receiver) = subscribed(|s| s["notification"].as_object_mut().unwrap().extend(change.as_object().unwrap().clone()));
        city.has(station(json!({"pm25": {"type": "Property", "value": 1, "unitCode": "GQ"}, "no2": property(2)})));
        receiver.gets(1)[0].body["data"][0].clone()
    };
    let whole = json!({"id": "urn:x:1", "type": "Station"});
    let and = |more: Value| {
        let mut e = whole.clone();
        e.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        e
    };
    assert_eq!(of(json!({"format": "keyValues"})), and(json!({"pm25": 1, "no2": 2})));
    assert_eq!(of(json!({"format": "concise"})), and(json!({"pm25": {"value": 1, "unitCode": "GQ"}, "no2": 2})));
    assert_eq!(of(json!({"format": "simplified", "pick": ["id", "no2"]})), json!({"id": "urn:x:1", "no2": 2}));
    assert_eq!(of(json!({"format": "simplified", "omit": ["no2"]})), and(json!({"pm25": 1})));
    assert_eq!(of(json!({"format": "simplified", "attributes": ["pm25"]})), and(json!({"pm25": 1})));
    let with_times = of(json!({"sysAttrs": true}));
    assert!(with_times["createdAt"].is_string() && with_times["pm25"]["modifiedAt"].is_string(), "{with_times}");
}

#[test]
fn clause_5_2_12_dataset_id_and_lang() {
    let (city, receiver) = subscribed(|s| {
        s["datasetId"] = json!(["urn:d:1"]);
        s["lang"] = json!("zh,en;q=0.5");
    });
    city.has(station(json!({
        "pm25": [property(1), {"type": "Property", "value": 2, "datasetId": "urn:d:1"}, {"type": "Property", "value": 3, "datasetId": "urn:d:2"}],
        "no2": property(4),
        "name": {"type": "LanguageProperty", "languageMap": {"en": "Old Town", "zh": "古城"}, "datasetId": "urn:d:1"},
    })));
    let got = receiver.gets(1);
    let told = first(&got, 0);
    assert_eq!((&told["pm25"]["value"], &told["pm25"]["datasetId"]), (&json!(2), &json!("urn:d:1")));
    assert!(told.get("no2").is_none());
    assert_eq!((&told["name"]["value"], &told["name"]["lang"]), (&json!("古城"), &json!("zh")), "{told}");
}

#[test]
fn clause_6_3_8_content_types_contexts_and_headers() {
    let of = |change: fn(&mut Value)| {
        let (city, receiver) = subscribed(|s| {
            s["notification"]["endpoint"]["receiverInfo"] =
                json!([{"key": "Authorization", "value": "Bearer x"}, {"key": "X-Y", "value": "z"}]);
            change(s);
        });
        city.has(station(
            json!({"location": {"type": "GeoProperty", "value": {"type": "Point", "coordinates": [1, 2]}}, "no2": property(1)}),
        ));
        receiver.gets(1).remove(0)
    };
    let json = of(|_| {});
    assert_eq!(
        (json.header("content-type"), json.header("authorization"), json.header("x-y")),
        (vec!["application/json"], vec!["Bearer x"], vec!["z"])
    );
    assert!(json.header("link")[0].contains("rel=\"http://www.w3.org/ns/json-ld#context\"") && json.body.get("@context").is_none());
    let ld = of(|s| s["notification"]["endpoint"]["accept"] = json!("application/ld+json"));
    assert_eq!(ld.header("content-type"), ["application/ld+json"]);
    assert!(ld.header("link").is_empty() && ld.body.get("@context").is_some());
    let geo = of(|s| s["notification"]["endpoint"]["accept"] = json!("application/geo+json"));
    assert_eq!(geo.header("content-type"), ["application/geo+json"]);
    assert!(geo.header("link").is_empty() && geo.body.get("@context").is_some());
    assert_eq!(
        (&geo.body["data"]["type"], &geo.body["data"]["features"][0]["geometry"]["type"]),
        (&json!("FeatureCollection"), &json!("Point"))
    );
    let geo = of(|s| {
        s["notification"]["endpoint"]["accept"] = json!("application/geo+json");
        s["notification"]["endpoint"]["receiverInfo"] = json!([{"key": "Prefer", "value": "body=json"}]);
    });
    assert_eq!((geo.header("prefer"), geo.header("link").len()), (vec!["body=json"], 1));
    assert!(geo.body.get("@context").is_none());
}

/// The context that was asked for, not that of the request; it is fetched again after a start.
#[test]
fn clause_5_8_1_jsonld_context() {
    let receiver = Receiver::start();
    let url = format!("http://{}/context.jsonld", receiver.address);
    let (mut city, _) = subscribed(|s| {
        s["jsonldContext"] = json!(url);
        s["notification"]["endpoint"]["uri"] = json!(receiver.url());
    });
    for n in 1..=2 {
        let status = city.post("entityOperations/upsert", json!([station(json!({"pm25": property(n)}))])).status;
        assert!([201, 204].contains(&status));
        let got = receiver.gets(n as usize);
        assert!(got.last().unwrap().header("link")[0].starts_with(&format!("<{url}>;")), "{got:?}");
        assert_eq!(first(&got, n as usize - 1)["fine"]["value"], n, "{got:?}");
        city = city.restarted();
    }
    let of = |context: Value| {
        let notification = json!({"endpoint": {"uri": "http://127.0.0.1:9/"}});
        let s = json!({"type": "Subscription", "entities": [{"type": "Station"}], "notification": notification, "jsonldContext": context});
        city.post("subscriptions", s)
    };
    of(json!("http://127.0.0.1:9/context")).problem(504, "LdContextNotAvailable");
    of(json!("nonsense")).problem(400, "BadRequestData");
}

#[test]
fn clause_5_8_1_what_is_not_served_is_refused_by_name() {
    let city = City::start();
    for (member, value) in [("csf", json!("a==1")), ("temporalQ", json!({"timerel": "before", "timeAt": "2020-01-01T00:00:00Z"}))] {
        let mut s = json!({"type": "Subscription", "entities": [{"type": "Station"}], "notification": {"endpoint": {"uri": "http://127.0.0.1:9/"}}});
        s[member] = value;
        let problem = city.post("subscriptions", s).problem(400, "BadRequestData");
        assert!(problem.json()["detail"].as_str().unwrap().contains(member), "{}", problem.body);
    }
}

/// The entities of the first notification, simplified, when a station is written that is linked to a street, which is linked to a town.
fn joined(change: Value) -> Value {
    let (city, receiver) = subscribed(|s| {
        s["notification"]["format"] = json!("simplified");
        s["notification"].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    });
    let link = |to: &str| json!({"type": "Relationship", "object": to});
    city.has(json!([
        {"id": "urn:x:street", "type": "Street", "in": link("urn:x:town"), "lanes": property(2)},
        {"id": "urn:x:town", "type": "Town", "people": property(9)},
    ]));
    city.has(station(json!({"at": link("urn:x:street"), "elsewhere": link("urn:x:unknown")})));
    receiver.gets(1)[0].body["data"].clone()
}

#[test]
fn clause_5_2_14_join() {
    let station = |at: Value| json!({"id": "urn:x:1", "type": "Station", "at": at, "elsewhere": "urn:x:unknown"});
    let street = |town: Value| json!({"id": "urn:x:street", "type": "Street", "in": town, "lanes": 2});
    let town = json!({"id": "urn:x:town", "type": "Town", "people": 9});
    assert_eq!(joined(json!({})), json!([station(json!("urn:x:street"))]));
    assert_eq!(joined(json!({"join": "inline"})), json!([station(street(json!("urn:x:town")))]));
    assert_eq!(joined(json!({"join": "inline", "joinLevel": 2})), json!([station(street(town.clone()))]));
    let flat = json!([station(json!("urn:x:street")), street(json!("urn:x:town"))]);
    assert_eq!(joined(json!({"join": "flat", "joinLevel": 1})), flat);
    let flat = json!([station(json!("urn:x:street")), street(json!("urn:x:town")), town]);
    assert_eq!(joined(json!({"join": "flat", "joinLevel": 2})), flat);
    // It is shown, and can be changed.
    let (city, _) = subscribed(|s| s["notification"]["join"] = json!("flat"));
    let notification = |city: &City| city.get("subscriptions/urn:x:s").json()["notification"].clone();
    assert_eq!((&notification(&city)["join"], &notification(&city)["joinLevel"]), (&json!("flat"), &json!(1)));
    city.with_body("PATCH", "subscriptions/urn:x:s", json!({"notification": {"join": "inline", "joinLevel": 3}})).expect(204);
    assert_eq!((&notification(&city)["join"], &notification(&city)["joinLevel"]), (&json!("inline"), &json!(3)));
    city.with_body("PATCH", "subscriptions/urn:x:s", json!({"notification": {"joinLevel": 0}})).problem(400, "BadRequestData");
}

/// Receivers of earlier versions of the standard get what they understand (clause 4.3.6.8).
#[test]
fn clause_5_2_12_ngsild_conformance() {
    let of = |version: &str| {
        let (city, receiver) = subscribed(|s| s["ngsildConformance"] = json!(version));
        assert_eq!(city.get("subscriptions/urn:x:s").json()["ngsildConformance"], version);
        city.has(station(json!({
            "kind": {"type": "VocabProperty", "vocab": "urn:v:a"},
            "pm25": [{"type": "Property", "value": 1, "unitCode": "GQ"}, {"type": "Property", "value": 2, "datasetId": "urn:d:1"}],
        })));
        receiver.gets(1)[0].body["data"][0].clone()
    };
    let new = of("1.9");
    assert_eq!((&new["kind"]["type"], new["pm25"].as_array().unwrap().len()), (&json!("VocabProperty"), 2));
    let middle = of("1.6");
    assert_eq!((&middle["kind"]["type"], middle["pm25"].as_array().unwrap().len()), (&json!("Property"), 2));
    let old = of("1.2");
    assert_eq!(old["pm25"], json!({"type": "Property", "value": 1}));
}

#[test]
fn clause_6_3_8_the_tenant_is_named() {
    let (city, receiver) = (City::start(), Receiver::start());
    let tenant = [("content-type", "application/json"), ("ngsild-tenant", "north")];
    let subscription = json!({
        "id": "urn:x:s", "type": "Subscription", "entities": [{"type": "Station"}], "notification": {"endpoint": {"uri": receiver.url()}},
    });
    let write = |n: i64| json!([{"id": format!("urn:x:{n}"), "type": "Station", "pm25": property(n)}]).to_string();
    // It makes the tenant.
    city.send("POST", "subscriptions", &tenant, Some(&subscription.to_string())).expect(201);
    city.post("subscriptions", subscription).expect(201);
    city.send("POST", "entityOperations/upsert", &tenant, Some(&write(2))).expect(201);
    let got = receiver.gets(1);
    assert_eq!((got[0].header("ngsild-tenant"), first(&got, 0)["id"].as_str()), (vec!["north"], Some("urn:x:2")));
    city.post("entityOperations/upsert", json!([{"id": "urn:x:3", "type": "Station", "pm25": property(3)}])).expect(201);
    let got = receiver.gets(2);
    assert!(got[1].header("ngsild-tenant").is_empty(), "{got:?}");
}
