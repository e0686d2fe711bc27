//! What was true: clauses 5.6.11 to 5.6.16, 5.7.3, 5.7.4, 4.5.6 to 4.5.9, 4.5.19 and 4.11.

use serde_json::{Value, json};

use crate::city::{Answer, City};

const A: &str = "urn:ngsi-ld:Station:a";
const B: &str = "urn:ngsi-ld:Station:b";

/// 1 January 2024, some minutes after midnight.
fn at(minute: u32) -> String {
    format!("2024-01-01T{:02}:{:02}:00Z", minute / 60, minute % 60)
}

/// Instances of a Property, each with the minute at which it was observed.
fn series(values: &[(f64, u32)]) -> Value {
    values.iter().map(|(v, minute)| json!({"type": "Property", "value": v, "observedAt": at(*minute)})).collect()
}

/// Two stations with values at minutes 10 to 30.
fn two_stations(city: &City) {
    let place = |lon: f64| json!([{"type": "GeoProperty", "value": {"type": "Point", "coordinates": [lon, 31.0]}, "observedAt": at(10)}]);
    let a = json!({"id": A, "type": "Station", "t": series(&[(1.0, 10), (2.0, 20), (3.0, 30)]), "h": series(&[(50.0, 20)]), "location": place(121.0)});
    let b = json!({"id": B, "type": "Station", "t": series(&[(7.0, 20), (8.0, 30)]), "location": place(122.0)});
    city.post("temporal/entities", a).expect(201);
    city.post("temporal/entities", b).expect(201);
}

fn between(from: u32, to: u32) -> String {
    format!("timerel=between&timeAt={}&endTimeAt={}", at(from), at(to))
}

fn query(city: &City, rest: &str) -> Answer {
    city.get(&format!("temporal/entities?{rest}"))
}

fn ids(answer: &Answer) -> Vec<String> {
    answer.json().as_array().unwrap().iter().map(|e| e["id"].as_str().unwrap().to_owned()).collect()
}

/// The values of an attribute in the order of the answer.
fn values(entity: &Value, name: &str) -> Vec<Value> {
    entity[name].as_array().into_iter().flatten().map(|i| i["value"].clone()).collect()
}

fn floats(list: &[f64]) -> Vec<Value> {
    list.iter().map(|v| json!(v)).collect()
}

#[test]
fn clause_5_7_4_query_temporal_entities() {
    let city = City::start();
    two_stations(&city);
    let all = query(&city, &format!("type=Station&{}", between(0, 60))).expect(200);
    assert_eq!(ids(&all), [A, B]);
    assert_eq!(values(&all.json()[0], "t"), floats(&[1.0, 2.0, 3.0]));
    let first = &all.json()[0]["t"][0];
    assert_eq!((&first["type"], &first["observedAt"]), (&json!("Property"), &json!(at(10))));
    assert!(first["instanceId"].as_str().unwrap().starts_with("urn:ngsi-ld:instance:"), "{first}");
    // An entity without an instance in the interval is left out, and so are attributes.
    let early = query(&city, &format!("type=Station&{}", between(0, 15))).expect(200);
    assert_eq!(ids(&early), [A, B], "both have a location then");
    let early = query(&city, &format!("type=Station&attrs=t&{}", between(0, 15))).expect(200);
    assert_eq!(ids(&early), [A]);
    assert_eq!(early.json()[0].as_object().unwrap().keys().collect::<Vec<_>>(), ["id", "type", "t"]);
    assert!(ids(&query(&city, &format!("type=Station&{}", between(40, 50))).expect(200)).is_empty());
    assert!(ids(&query(&city, &format!("type=Other&{}", between(0, 60))).expect(200)).is_empty());
    assert_eq!(ids(&query(&city, &format!("type=Station&id={B}&{}", between(0, 60))).expect(200)), [B]);
    assert_eq!(ids(&query(&city, &format!("type=Station&idPattern=b$&{}", between(0, 60))).expect(200)), [B]);
    assert_eq!(ids(&query(&city, &format!("attrs=h&{}", between(0, 60))).expect(200)), [A]);
    assert_eq!(ids(&query(&city, &format!("local=true&{}", between(0, 60))).expect(200)), [A, B]);
}

#[test]
fn clause_5_7_4_a_temporal_query_is_mandatory_and_a_question_not_too_wide() {
    let city = City::start();
    query(&city, "type=Station").problem(400, "BadRequestData");
    query(&city, &between(0, 60)).problem(400, "BadRequestData");
    query(&city, &format!("id={A}&{}", between(0, 60))).problem(400, "BadRequestData");
    query(&city, &format!("type=Station&timerel=between&timeAt={}", at(0))).problem(400, "BadRequestData");
    query(&city, &format!("type=Station&timeAt={}", at(0))).problem(400, "BadRequestData");
    query(&city, &format!("type=Station&pick=a{{b}}&{}", between(0, 60))).problem(400, "BadRequestData");
    city.post("temporal/entityOperations/query", json!({"type": "Query", "entities": [{"type": "Station"}]}))
        .problem(400, "BadRequestData");
    let path = format!("temporal/entities?type=Station&{}", between(0, 60));
    city.send("GET", &path, &[("accept", "application/geo+json")], None).problem(406, "InvalidRequest");
}

#[test]
fn clause_5_7_4_conditions_are_tried_on_the_instances_in_the_interval() {
    let city = City::start();
    two_stations(&city);
    let of = |q: &str, from, to| ids(&query(&city, &format!("type=Station&q={q}&{}", between(from, to))).expect(200));
    assert_eq!(of("t%3E2", 0, 60), [A, B]);
    assert_eq!(of("t%3E2", 0, 30), [B], "3 was observed at 30, which is not in the interval");
    assert_eq!(of("t==1;h==50", 0, 60), [A], "each may be satisfied by another instance");
    assert!(of("t==1;h==50", 15, 60).is_empty());
    assert_eq!(of("h", 0, 60), [A]);
    // What is returned is all of the interval, not only what satisfies the condition.
    let found = query(&city, &format!("type=Station&q=t==1&{}", between(0, 60))).expect(200);
    assert_eq!(values(&found.json()[0], "t"), floats(&[1.0, 2.0, 3.0]));
    let near = |from, to| {
        let geo = "georel=near;maxDistance==1000&geometry=Point&coordinates=[121,31]";
        ids(&query(&city, &format!("type=Station&{geo}&{}", between(from, to))).expect(200))
    };
    assert_eq!(near(0, 60), [A]);
    assert!(near(15, 60).is_empty(), "no place was observed then");
}

#[test]
fn clause_4_11_temporal_relations_and_time_properties() {
    let city = City::start();
    two_stations(&city);
    let of = |time: &str| {
        let answer = query(&city, &format!("type=Station&attrs=t&id={A}&{time}")).expect(200).json();
        answer.get(0).map_or_else(Vec::new, |e| values(e, "t"))
    };
    assert_eq!(of(&format!("timerel=before&timeAt={}", at(20))), floats(&[1.0]));
    assert_eq!(of(&format!("timerel=after&timeAt={}", at(20))), floats(&[2.0, 3.0]));
    assert_eq!(of(&between(10, 30)), floats(&[1.0, 2.0]));
    assert_eq!(of(&format!("{}&lastN=2", between(0, 60))), floats(&[3.0, 2.0]), "the newest first");
    assert!(of(&format!("timeproperty=modifiedAt&{}", between(0, 60))).is_empty(), "nothing was recorded then");
    for property in ["modifiedAt", "createdAt"] {
        assert_eq!(of(&format!("timeproperty={property}&timerel=after&timeAt={}", at(0))), floats(&[1.0, 2.0, 3.0]), "{property}");
    }
    let shown = query(&city, &format!("type=Station&timeproperty=modifiedAt&timerel=after&timeAt={}", at(0))).expect(200).json();
    assert!(shown[0]["t"][0]["modifiedAt"].is_string(), "{shown}");
}

#[test]
fn clause_5_7_4_temporal_query_by_document() {
    let city = City::start();
    two_stations(&city);
    let ask = |rest: &str, more: Value| {
        let mut body = json!({"type": "Query", "entities": [{"type": "Station"}], "temporalQ": {"timerel": "between", "timeAt": at(0), "endTimeAt": at(60)}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        city.post(&format!("temporal/entityOperations/query{rest}"), body)
    };
    assert_eq!(ids(&ask("", json!({})).expect(200)), [A, B]);
    assert_eq!(ids(&ask("", json!({"q": "t>5"})).expect(200)), [B]);
    let last = ask("", json!({"temporalQ": {"timerel": "after", "timeAt": at(0), "lastN": 1}, "attrs": ["t"]})).expect(200).json();
    assert_eq!(values(&last[0], "t"), floats(&[3.0]));
    let sums =
        ask("?format=aggregatedValues", json!({"aggrParams": {"aggrMethods": ["sum"], "aggrPeriodDuration": "PT20M"}, "attrs": ["t"]}));
    let sums = sums.expect(200).json();
    assert_eq!(sums[0]["t"], json!({"type": "Property", "sum": [[1, at(0), at(20)], [5, at(20), at(40)]]}));
    ask("", json!({"aggrParams": {"aggrMethods": ["sum"]}})).problem(400, "BadRequestData");
    ask("?format=aggregatedValues", json!({})).problem(400, "BadRequestData");
    ask("", json!({"temporalQ": {"timerel": "between", "timeAt": at(0)}})).problem(400, "BadRequestData");
    assert_eq!(ask("?count=true&limit=1", json!({})).expect(200).header("ngsild-results-count"), ["2"]);
}

#[test]
fn clause_5_5_9_pages_of_temporal_entities() {
    let city = City::start();
    two_stations(&city);
    let page = |rest: &str| query(&city, &format!("type=Station&{}&{rest}", between(0, 60)));
    let first = page("limit=1&count=true").expect(200);
    assert_eq!((ids(&first), first.header("ngsild-results-count")), (vec![A.to_owned()], vec!["2"]));
    let next = first.header("link").into_iter().find(|l| l.contains("rel=\"next\"")).unwrap();
    let target = &next[1..next.find('>').unwrap()];
    let second = city.get(target).expect(200);
    assert_eq!(ids(&second), [B]);
    let links = second.header("link");
    assert!(links.iter().any(|l| l.contains("rel=\"prev\"")) && !links.iter().any(|l| l.contains("rel=\"next\"")), "{links:?}");
    let counted = page("limit=0&count=true").expect(200);
    assert_eq!((counted.body.as_str(), counted.header("ngsild-results-count")), ("[]", vec!["2"]));
    page("limit=0").problem(400, "BadRequestData");
}

#[test]
fn clause_6_3_10_temporal_pages_cut_all_entities_at_one_instant() {
    let city = City::start();
    let second = |s: usize| format!("2024-01-01T{:02}:{:02}:{:02}Z", s / 3600, s / 60 % 60, s % 60);
    for id in [A, B] {
        let list: Vec<Value> = (0..30_000).map(|s| json!([s, second(s)])).collect();
        city.post("temporal/entities", json!({"id": id, "type": "Station", "t": {"type": "Property", "values": list}})).expect(201);
    }
    let ask = |from: String, rest: &str| {
        query(&city, &format!("type=Station&format=temporalValues&timerel=between&timeAt={from}&endTimeAt=2024-01-01T12:00:00Z{rest}"))
    };
    let first = ask(second(0), "").expect(206);
    assert_eq!(first.header("content-range"), [format!("DateTime {}-{}/*", second(0), second(24_999))]);
    let pairs = |answer: &Answer| -> Vec<usize> {
        answer.json().as_array().unwrap().iter().map(|e| e["t"]["values"].as_array().unwrap().len()).collect()
    };
    assert_eq!(pairs(&first), [25_000, 25_000]);
    let rest = ask(second(24_999), "").expect(200);
    assert_eq!(pairs(&rest), [5_001, 5_001]);
    assert!(rest.header("content-range").is_empty());
    // With lastN backwards: the end of the interval is not in it, so that nothing comes twice.
    let last = ask(second(0), "&lastN=30000").expect(206);
    assert_eq!(last.header("content-range"), [format!("DateTime 2024-01-01T12:00:00Z-{}/30000", second(5_000))]);
    assert_eq!(pairs(&last), [25_000, 25_000]);
}

#[test]
fn clause_4_5_19_aggregated_queries() {
    let city = City::start();
    two_stations(&city);
    let ask = |rest: &str| query(&city, &format!("type=Station&format=aggregatedValues&{}&{rest}", between(0, 60)));
    let sums = ask("aggrMethods=sum,max&aggrPeriodDuration=PT20M&attrs=t").expect(200).json();
    let want =
        |id: &str, sums: Value, maxima: Value| json!({"id": id, "type": "Station", "t": {"type": "Property", "sum": sums, "max": maxima}});
    let a = want(A, json!([[1, at(0), at(20)], [5, at(20), at(40)]]), json!([[1, at(0), at(20)], [3, at(20), at(40)]]));
    let b = want(B, json!([[15, at(20), at(40)]]), json!([[8, at(20), at(40)]]));
    assert_eq!(sums, json!([a, b]));
    let whole = ask("aggrMethods=totalCount&attrs=t&aggrPeriodDuration=PT0S").expect(200).json();
    assert_eq!(whole[0]["t"]["totalCount"], json!([[3, at(0), at(60)]]));
    // An attribute that was asked for and has no method is an error; others are left out.
    ask("aggrMethods=sum&attrs=location").problem(400, "InvalidRequest");
    let sums = ask("aggrMethods=sum").expect(200).json();
    assert!(sums[0]["location"].is_null() && sums[0]["t"]["sum"].is_array(), "{sums}");
    ask("attrs=t").problem(400, "BadRequestData");
    ask("aggrMethods=mean&attrs=t").problem(400, "BadRequestData");
    ask("aggrMethods=sum&aggrPeriodDuration=P0001-01-01T00:00:00").problem(400, "BadRequestData");
    let both = format!("type=Station&options=temporalValues,aggregatedValues&aggrMethods=sum&{}", between(0, 60));
    query(&city, &both).problem(400, "InvalidRequest");
    let retrieved = city.get(&format!("temporal/entities/{A}?options=aggregatedValues&aggrMethods=avg&attrs=t&{}", between(0, 60)));
    assert_eq!(retrieved.expect(200).json()["t"]["avg"], json!([[2, at(0), at(60)]]));
    city.get(&format!("temporal/entities/{A}?format=aggregatedValues&aggrMethods=avg&attrs=location")).problem(400, "InvalidRequest");
}

#[test]
fn clause_4_23_temporal_queries_are_ordered_by_id_only() {
    let city = City::start();
    two_stations(&city);
    let ask = |rest: &str| query(&city, &format!("type=Station&{}&{rest}", between(0, 60)));
    assert_eq!(ids(&ask("orderBy=id;desc&local=true").expect(200)), [B, A]);
    assert_eq!(ids(&ask("orderBy=id;desc&local=true&limit=1").expect(200)), [B]);
    assert_eq!(ids(&ask("orderBy=id&local=true&collation=de").expect(200)), [A, B]);
    ask("orderBy=t&local=true").problem(400, "BadRequestData");
    ask("orderBy=id").problem(400, "BadRequestData");
    ask("orderBy=id&local=true&collation=-").problem(400, "BadRequestData");
    // Linked entities are not part of the past (clause 4.5.23).
    ask("join=inline").problem(400, "InvalidRequest");
    ask("q=near{t}==1").problem(400, "BadRequestData");
}
