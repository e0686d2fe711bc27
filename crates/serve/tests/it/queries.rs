//! Queries: clauses 4.5.23, 4.9 to 4.23 and 5.7.1 to 5.7.2.

use serde_json::{Value, json};

use crate::city::City;

fn ids(answer: &Value) -> Vec<&str> {
    answer.as_array().unwrap().iter().map(|e| e["id"].as_str().unwrap()).collect()
}

/// A city with a sensor on a lamp on a street in a district.
fn linked() -> City {
    let city = City::start();
    city.has(json!([
        {"id": "urn:x:sensor", "type": "Sensor", "humidity": 40, "on": {"type": "Relationship", "object": "urn:x:lamp"}},
        {"id": "urn:x:lamp", "type": "Lamp", "watts": 60, "in": {"type": "Relationship", "object": "urn:x:street", "objectType": "Street"},
            "carries": {"type": "ListRelationship", "objectList": ["urn:x:sensor", "urn:x:none"]}},
        {"id": "urn:x:street", "type": "Street", "name": "Hauptstraße", "in": {"type": "Relationship", "object": ["urn:x:east", "urn:x:west"]}},
        {"id": "urn:x:east", "type": "District", "name": "East"},
        {"id": "urn:x:west", "type": "District", "name": "West"},
    ]));
    city
}

#[test]
fn clause_4_5_23_linked_entities_inline() {
    let city = linked();
    let one = city.get("entities/urn:x:sensor?join=inline").expect(200).json();
    assert_eq!(one["on"]["object"], "urn:x:lamp");
    assert_eq!(one["on"]["entity"]["watts"]["value"], 60);
    assert!(one["on"]["entity"]["in"].get("entity").is_none(), "one level by default: {one}");
    let two = city.get("entities/urn:x:sensor?join=inline&joinLevel=3").json();
    let street = &two["on"]["entity"]["in"]["entity"];
    assert_eq!(street["name"]["value"], "Hauptstraße");
    assert_eq!(ids(&street["in"]["entity"]), ["urn:x:east", "urn:x:west"]);
    // What is shown already is not shown again.
    assert!(two["on"]["entity"]["carries"].get("entityList").is_none(), "{two}");
    let from_lamp = city.get("entities/urn:x:lamp?join=inline").json();
    assert_eq!(ids(&from_lamp["carries"]["entityList"]), ["urn:x:sensor"]);
    let contained = city.get("entities/urn:x:lamp?join=inline&containedBy=urn:x:sensor").json();
    assert!(contained["carries"].get("entityList").is_none(), "{contained}");
}

#[test]
fn clause_4_5_23_linked_entities_in_simplified_form() {
    let city = linked();
    let shown = city.get("entities/urn:x:lamp?join=inline&format=simplified").json();
    assert_eq!(shown["in"], json!({"id": "urn:x:street", "type": "Street", "name": "Hauptstraße", "in": ["urn:x:east", "urn:x:west"]}));
    assert_eq!(shown["carries"], json!([{"id": "urn:x:sensor", "type": "Sensor", "humidity": 40, "on": "urn:x:lamp"}, "urn:x:none"]));
}

#[test]
fn clause_4_5_23_linked_entities_flat() {
    let city = linked();
    let shown = city.get("entities/urn:x:sensor?join=flat&joinLevel=3").json();
    assert_eq!(ids(&shown), ["urn:x:sensor", "urn:x:lamp", "urn:x:street", "urn:x:east", "urn:x:west"]);
    // What comes back can go in as it is.
    city.post("entityOperations/upsert", shown).expect(204);
    let page = city.get("entities?type=Sensor&join=flat").json();
    assert_eq!(ids(&page), ["urn:x:sensor", "urn:x:lamp"]);
    let features = city.send("GET", "entities?type=Lamp&join=flat", &[("accept", "application/geo+json")], None).json();
    assert_eq!(features["features"].as_array().unwrap().len(), 3);
    let body = json!({"type": "Query", "entities": [{"type": "Lamp"}], "join": "flat", "joinLevel": 1});
    assert_eq!(ids(&city.post("entityOperations/query", body).expect(200).json()), ["urn:x:lamp", "urn:x:street", "urn:x:sensor"]);
}

#[test]
fn clause_4_21_pick_and_omit_reach_linked_entities() {
    let city = linked();
    let shown = city.get("entities/urn:x:sensor?join=inline&joinLevel=2&pick=id,on{watts,in{name}}").expect(200).json();
    assert_eq!(
        shown,
        json!({"id": "urn:x:sensor", "on": {"type": "Relationship", "object": "urn:x:lamp", "entity": {
            "in": {"type": "Relationship", "object": "urn:x:street", "objectType": "Street", "entity": {"name": {"type": "Property", "value": "Hauptstraße"}}},
            "watts": {"type": "Property", "value": 60}}}})
    );
    let shown = city.get("entities/urn:x:sensor?join=inline&format=simplified&omit=type,on{type,in,carries}").json();
    assert_eq!(shown, json!({"id": "urn:x:sensor", "humidity": 40, "on": {"id": "urn:x:lamp", "watts": 60}}));
    for wrong in [
        "pick=on{watts}",
        "join=inline&pick=on{in{name}}",
        "join=inline&pick=on{watts",
        "join=inline&pick=on}watts{",
        "join=flat&joinLevel=0",
        "join=sideways",
        "joinLevel=2",
    ] {
        city.get(&format!("entities/urn:x:sensor?{wrong}")).problem(400, "BadRequestData");
    }
}

#[test]
fn clause_4_9_conditions_on_linked_entities() {
    let city = linked();
    check(&city, "on{watts}==60&join=inline", &["urn:x:sensor"]);
    check(&city, "on{watts}>60&join=inline", &[]);
    check(&city, "on{Lamp:watts}==60&join=flat&pick=id,on", &["urn:x:sensor", "urn:x:lamp"]);
    check(&city, "on{Street:watts}==60&join=inline", &[]);
    check(&city, "on{in{name}}~=straße&join=inline&joinLevel=2", &["urn:x:sensor"]);
    check(&city, "in{District,Street:name}==\"East\"|humidity>39&join=inline", &["urn:x:sensor", "urn:x:street"]);
    city.get("entities?q=on{watts}==60").problem(400, "BadRequestData");
    city.get("entities?q=on{in{name}}==1&join=inline").problem(400, "BadRequestData");
    city.get("entities?q=on{watts==1&join=inline").problem(400, "BadRequestData");
    city.delete("entities?q=on{watts}==60").problem(400, "BadRequestData");

    #[track_caller]
    fn check(city: &City, q: &str, want: &[&str]) {
        assert_eq!(ids(&city.get(&format!("entities?q={q}")).expect(200).json()), want, "{q}");
    }
}

#[test]
fn clause_4_23_order() {
    let city = City::start();
    let place = |lon: f64| json!({"type": "Point", "coordinates": [lon, 0]});
    city.has(json!([
        {"id": "urn:x:1", "type": "Shop", "name": "Zahn", "n": {"value": 2, "accuracy": 1}, "location": place(3.0)},
        {"id": "urn:x:2", "type": "Shop", "name": "Öl", "n": {"value": 10, "accuracy": 2}, "location": place(1.0)},
        {"id": "urn:x:3", "type": "Shop", "name": "Ofen", "n": "text", "address": {"zip": 5}},
        {"id": "urn:x:4", "type": "Shop", "n": {"value": 2, "accuracy": 0}, "location": place(2.0), "address": {"zip": 4}},
    ]));
    check(&city, "n", &[1, 4, 2, 3]);
    check(&city, "n;desc", &[3, 2, 1, 4]);
    check(&city, "n,n.accuracy;desc", &[1, 4, 2, 3]);
    check(&city, "n,n.accuracy", &[4, 1, 2, 3]);
    check(&city, "id;desc", &[4, 3, 2, 1]);
    check(&city, "name&collation=de", &[3, 2, 1, 4]);
    check(&city, "name&collation=sv", &[3, 1, 2, 4]);
    check(&city, "address[zip]", &[4, 3, 1, 2]);
    check(&city, "location;dist-asc&orderFrom=[0,0]", &[2, 4, 1, 3]);
    check(&city, "location;dist-desc&orderFrom=[0,0]", &[1, 4, 2, 3]);
    check(&city, "n&limit=2&offset=1", &[4, 2]);
    let by_body =
        json!({"type": "Query", "entities": [{"type": "*"}], "ordering": {"orderBy": ["location;dist-asc"], "coordinates": [3, 0]}});
    assert_eq!(ids(&city.post("entityOperations/query", by_body).expect(200).json())[0], "urn:x:1");
    for wrong in [
        "type=Shop&orderBy=n",
        "type=*&orderBy=n;up",
        "type=*&orderBy=location;dist-asc",
        "type=*&orderBy=n&collation=de-u-ks-level9",
        "type=*&collation=de",
    ] {
        city.get(&format!("entities?{wrong}")).problem(400, "BadRequestData");
    }

    #[track_caller]
    fn check(city: &City, order: &str, want: &[usize]) {
        let answer = city.get(&format!("entities?type=Shop&local=true&orderBy={order}")).expect(200).json();
        assert_eq!(ids(&answer), want.iter().map(|i| format!("urn:x:{i}")).collect::<Vec<_>>(), "{order}");
    }
}

/// Three stations and a lamp.
fn stations() -> City {
    let city = City::start();
    city.has(json!([
        {"id": "urn:x:1", "type": "Station", "scope": "/cn/bj", "pm25": {"value": 12.5, "unitCode": "GQ", "observedAt": "2026-01-01T00:00:00Z", "qc": {"value": "ok"}},
            "name": {"languageMap": {"zh": "北京", "en": "Beijing"}}, "tags": ["a", "b"], "since": "2020-05-01", "address": {"city": {"name": "Beijing"}},
            "on": true, "kind": {"vocab": "urban"}, "in": {"object": "urn:x:c"}, "location": {"type": "Point", "coordinates": [116.4, 39.9]}},
        {"id": "urn:x:2", "type": "Station", "scope": ["/cn/sh", "/cn/east"], "pm25": [{"value": 80}, {"value": 5, "datasetId": "urn:x:d"}],
            "name": {"languageMap": {"en": "Shanghai"}}, "tags": "c", "since": "2021-05-01", "on": false, "location": {"type": "Point", "coordinates": [121.5, 31.2]}},
        {"id": "urn:x:3", "type": ["Station", "Lamp"], "pm25": "broken"},
        {"id": "urn:x:4", "type": "Lamp", "on": true, "raw": {"json": {"value": {"n": 7}}}},
    ]));
    city
}

#[test]
fn clause_4_9_query_language() {
    let city = stations();
    for (q, want) in [
        ("pm25", vec![1, 2, 3]),
        ("pm25>10", vec![1, 2]),
        ("pm25<10", vec![2]),
        ("pm25==12.5", vec![1]),
        ("pm25==10..13", vec![1]),
        ("pm25==5,12.5", vec![1, 2]),
        ("pm25==\"broken\"", vec![3]),
        ("pm25!=80", vec![1, 2, 3]),
        ("tags==\"a\"", vec![1]),
        ("tags!=\"a\"", vec![2]),
        ("name[en]==\"Beijing\"", vec![1]),
        ("name[*]~=ang", vec![2]),
        ("name~=北", vec![1]),
        ("name[en]!~=Bei", vec![2]),
        ("since>2020-12-31", vec![2]),
        ("pm25.observedAt==2026-01-01T00:00:00Z", vec![1]),
        ("pm25.unitCode==\"GQ\"", vec![1]),
        ("pm25.qc==\"ok\"", vec![1]),
        ("address[city.name]==\"Beijing\"", vec![1]),
        ("on==true", vec![1, 4]),
        ("on!=true", vec![2]),
        ("in==urn:x:c", vec![1]),
        ("in>urn:x:a", vec![]),
        ("nothing!=1", vec![]),
        ("pm25>10;on==true|tags==\"c\"", vec![1, 2]),
        ("pm25>10;(on==true|tags==\"c\")", vec![1, 2]),
        ("(pm25>10|on);on==false", vec![2]),
        ("kind==urban&expandValues=kind", vec![1]),
        ("kind==urban", vec![]),
        ("raw[value.n]==7&jsonKeys=raw", vec![4]),
    ] {
        let answer = city.get(&format!("entities?local=true&q={q}")).expect(200).json();
        assert_eq!(ids(&answer), want.iter().map(|i| format!("urn:x:{i}")).collect::<Vec<_>>(), "{q}");
    }
    for wrong in ["pm25>", "pm25>>1", "(pm25", "pm25)", "pm25==1..\"a\"", "~=a", "pm25~=[", "name[en", ""] {
        city.get(&format!("entities?local=true&q={wrong}")).problem(400, "BadRequestData");
    }
}

#[test]
fn clause_4_10_geo_queries() {
    let city = stations();
    for (geo, want) in [
        ("near;maxDistance==10000&geometry=Point&coordinates=[116.4,39.95]", vec![1]),
        ("near;minDistance==10000&geometry=Point&coordinates=[116.4,39.95]", vec![2]),
        ("within&geometry=Polygon&coordinates=[[[116,39],[117,39],[117,41],[116,41],[116,39]]]", vec![1]),
        ("disjoint&geometry=Polygon&coordinates=[[[116,39],[117,39],[117,41],[116,41],[116,39]]]", vec![2]),
        ("intersects&geometry=LineString&coordinates=[[121,31.2],[122,31.2]]", vec![2]),
        ("equals&geometry=Point&coordinates=[121.5,31.2]", vec![2]),
        ("contains&geometry=Point&coordinates=[121.5,31.2]", vec![2]),
    ] {
        let answer = city.get(&format!("entities?georel={geo}")).expect(200).json();
        assert_eq!(ids(&answer), want.iter().map(|i| format!("urn:x:{i}")).collect::<Vec<_>>(), "{geo}");
    }
    for wrong in [
        "georel=within",
        "georel=near&geometry=Point&coordinates=[1,1]",
        "georel=near;maxDistance==-1&geometry=Point&coordinates=[1,1]",
        "georel=beside&geometry=Point&coordinates=[1,1]",
        "georel=within&geometry=Point&coordinates=[1",
    ] {
        city.get(&format!("entities?type=Station&{wrong}")).problem(400, "BadRequestData");
    }
}

#[test]
fn clause_4_17_and_4_19_types_and_scopes() {
    let city = stations();
    for (query, want) in [
        ("type=Station", vec![1, 2, 3]),
        ("type=Station,Lamp", vec![1, 2, 3, 4]),
        ("type=Station|Lamp", vec![1, 2, 3, 4]),
        ("type=(Station;Lamp)", vec![3]),
        ("type=*", vec![1, 2, 3, 4]),
        ("type=https://uri.etsi.org/ngsi-ld/default-context/Lamp", vec![3, 4]),
        ("type=Station&scopeQ=/cn/bj", vec![1]),
        ("type=Station&scopeQ=/cn/%2B", vec![1, 2]),
        ("type=Station&scopeQ=/cn/%23", vec![1, 2]),
        ("type=Station&scopeQ=/%23", vec![1, 2]),
        ("type=Station&scopeQ=(/cn/sh;/cn/east)", vec![2]),
        ("type=Station&scopeQ=cn/bj,/cn/sh", vec![1, 2]),
        ("type=Station&id=urn:x:2,urn:x:4", vec![2]),
        ("type=Station&idPattern=x:[12]", vec![1, 2]),
        ("attrs=on", vec![1, 2, 4]),
    ] {
        assert_eq!(
            ids(&city.get(&format!("entities?{query}")).expect(200).json()),
            want.iter().map(|i| format!("urn:x:{i}")).collect::<Vec<_>>(),
            "{query}"
        );
    }
}

#[test]
fn clause_5_7_2_a_question_must_be_narrow() {
    let city = stations();
    for wide in [
        "entities",
        "entities?id=urn:x:1",
        "entities?idPattern=x",
        "entities?q=createdAt>2020-01-01T00:00:00Z",
        "entities?type=*&local=false",
    ] {
        city.get(wide).problem(400, "BadRequestData");
    }
    assert_eq!(ids(&city.get("entities?id=urn:x:1&local=true").expect(200).json()), ["urn:x:1"]);
    city.get("entities?type=Station&limit=-1").problem(400, "BadRequestData");
    city.get("entities?type=Station&limit=0").problem(400, "BadRequestData");
    city.get("entities?type=Station&geometryProperty=location").problem(400, "BadRequestData");
    city.get("entities?type=Station&format=pretty").problem(400, "InvalidRequest");
    city.get("entities?id=no+uri&type=Station").problem(400, "BadRequestData");
}

#[test]
fn clause_6_3_10_pages_and_count() {
    let city = stations();
    let first = city.get("entities?type=Station&limit=2&count=true&q=pm25&pick=id").expect(200);
    assert_eq!(first.header("ngsild-results-count"), ["3"]);
    let link = |answer: &crate::city::Answer, rel: &str| {
        let links: Vec<String> = answer.header("link").iter().map(|l| (*l).to_owned()).collect();
        let found = links.iter().find(|l| l.contains(&format!("rel=\"{rel}\""))).cloned();
        found.map(|l| l[l.find('<').unwrap() + 1..l.find('>').unwrap()].to_owned())
    };
    assert_eq!(link(&first, "prev"), None);
    let second = city.get(&link(&first, "next").unwrap()).expect(200);
    assert_eq!(ids(&second.json()), ["urn:x:3"]);
    assert_eq!(link(&second, "next"), None);
    assert_eq!(ids(&city.get(&link(&second, "prev").unwrap()).json()), ["urn:x:1", "urn:x:2"]);
    let none = city.get("entities?type=Station&limit=0&count=true").expect(200);
    assert_eq!((none.json(), none.header("ngsild-results-count")), (json!([]), vec!["3"]));
}

#[test]
fn clause_5_7_1_retrieve_entity() {
    let city = stations();
    let path = "entities/urn:x:1";
    city.get("entities/urn:x:none").problem(404, "ResourceNotFound");
    city.get("entities/none").problem(400, "BadRequestData");
    city.get(&format!("{path}?attrs=nothing")).problem(404, "ResourceNotFound");
    city.get(&format!("{path}?type=Lamp")).problem(404, "ResourceNotFound");
    assert_eq!(city.get(&format!("{path}?pick=nothing")).expect(200).json(), json!({}));
    assert_eq!(city.get(&format!("{path}?pick=type,on&format=simplified")).json(), json!({"type": "Station", "on": true}));
    assert_eq!(
        city.get(&format!("{path}?attrs=on&format=simplified")).json(),
        json!({"id": "urn:x:1", "type": "Station", "scope": "/cn/bj", "on": true})
    );
    let omitted = city.get(&format!("{path}?omit=id,type,scope,pm25,name,tags,since,address,kind,in,location&options=concise")).json();
    assert_eq!(omitted, json!({"on": true}));
    // A language.
    assert_eq!(
        city.get(&format!("{path}?pick=name&lang=en")).json(),
        json!({"name": {"type": "Property", "value": "Beijing", "lang": "en"}})
    );
    assert_eq!(city.get(&format!("{path}?pick=name&lang=fr,zh;q=0.5&format=simplified")).json(), json!({"name": "北京"}));
    // Instances by datasetId.
    let of = |ids: &str| city.get(&format!("entities/urn:x:2?pick=pm25&datasetId={ids}")).expect(200).json();
    assert_eq!(of("urn:x:d"), json!({"pm25": {"type": "Property", "value": 5, "datasetId": "urn:x:d"}}));
    assert_eq!(of("@none"), json!({"pm25": {"type": "Property", "value": 80}}));
    assert_eq!(of("urn:x:other"), json!({}));
    let system = city.get(&format!("{path}?options=sysAttrs&pick=on,createdAt")).expect(200).json();
    assert!(system["on"]["createdAt"].is_string(), "{system}");
}

#[test]
fn clause_4_5_16_geojson() {
    let city = stations();
    let geo = |path: &str| city.send("GET", path, &[("accept", "application/geo+json")], None);
    let feature = geo("entities/urn:x:1?attrs=on").expect(200);
    assert_eq!(feature.header("content-type"), ["application/geo+json"]);
    let feature = feature.json();
    assert_eq!(
        (&feature["type"], &feature["id"], &feature["properties"]["type"]),
        (&json!("Feature"), &json!("urn:x:1"), &json!("Station"))
    );
    assert!(feature["@context"].is_string() || feature["@context"].is_array(), "{feature}");
    let collection = geo("entities?type=Lamp&format=simplified").expect(200).json();
    assert_eq!(collection["type"], "FeatureCollection");
    assert_eq!(collection["features"][0]["geometry"], Value::Null);
    assert_eq!(collection["features"][1]["properties"]["on"], true);
    let linked = city.send("GET", "entities/urn:x:1", &[("accept", "application/geo+json"), ("prefer", "body=json")], None).expect(200);
    assert!(linked.json().get("@context").is_none() && linked.header("link").len() == 1);
    assert_eq!(geo("entities?type=Nothing").json()["features"], json!([]));
}

#[test]
fn clause_5_7_2_query_by_a_document() {
    let city = stations();
    let query = json!({"type": "Query", "entities": [{"type": "Station", "idPattern": "x:[12]"}, {"type": "Lamp", "id": "urn:x:4"}], "q": "on", "pick": ["id", "on"]});
    let answer = city.post("entityOperations/query?format=simplified&count=true&limit=2", query).expect(200);
    assert_eq!(answer.json(), json!([{"id": "urn:x:1", "on": true}, {"id": "urn:x:2", "on": false}]));
    assert_eq!(answer.header("ngsild-results-count"), ["3"]);
    let geo = json!({"type": "Query", "geoQ": {"georel": "near;maxDistance==1000", "geometry": "Point", "coordinates": [121.5, 31.2]}});
    assert_eq!(ids(&city.post("entityOperations/query", geo).expect(200).json()), ["urn:x:2"]);
    for wrong in [
        json!({"entities": [{"type": "Station"}]}),
        json!({"type": "Query"}),
        json!({"type": "Query", "entities": []}),
        json!({"type": "Query", "entities": [{"id": "urn:x:1"}]}),
        json!({"type": "Query", "entities": [{"type": "A"}], "pick": []}),
        json!({"type": "Query", "entities": [{"type": "A"}], "wrong": 1}),
    ] {
        city.post("entityOperations/query", wrong).problem(400, "BadRequestData");
    }
}
