//! Documents that people read, as snapshots.

use std::sync::LazyLock;

use entity::{Attribute, AttributeValue, Entity, Iri};
use indexmap::IndexMap;
use ngsi::encode::{self, AttributeInfo, BatchError, Change, Document, NotificationBody, Problem, TemporalEntity, TypeInfo};
use ngsi::query::TimeProperty;
use ngsi::{Context, ContextStore, LanguageRanges, Member, Representation, View, decode};
use serde_json::{Value, json};

static CONTEXTS: LazyLock<ContextStore> = LazyLock::new(|| ContextStore::new(Some(ngsi::context::DEFAULT_USER_CONTEXT_URL), None).unwrap());

fn context() -> &'static Context {
    CONTEXTS.default_context()
}

fn name(short: &str) -> Iri {
    context().expand(short).unwrap()
}

fn station() -> Entity {
    let mut e = decode::entity(
        json!({
            "id": "urn:ngsi-ld:AirQualityObserved:Beijing:Dongsi", "type": ["AirQualityObserved", "Station"], "scope": ["/CN/11", "/Air"],
            "location": {"type": "GeoProperty", "value": {"type": "Point", "coordinates": [116.417, 39.929]}},
            "name": {"type": "LanguageProperty", "languageMap": {"en": "Dongsi", "zh": "东四"}},
            "pm25": [
                {"type": "Property", "value": 35.5, "unitCode": "GQ", "observedAt": "2014-01-01T05:00:00Z",
                 "reliability": {"type": "Property", "value": 0.9}},
                {"type": "Property", "value": 36, "unitCode": "GQ", "observedAt": "2014-01-01T05:00:00Z", "datasetId": "urn:ngsi-ld:dataset:model"},
            ],
            "refDevice": {"type": "Relationship", "object": ["urn:ngsi-ld:Device:1", "urn:ngsi-ld:Device:2"], "objectType": "Device"},
            "category": {"type": "VocabProperty", "vocab": "residential"},
            "provenance": {"type": "JsonProperty", "json": {"city": "beijing", "agreement": null}},
            "address": {"type": "Property", "value": {"type": "PostalAddress", "addressLocality": "北京"}},
            "route": {"type": "ListRelationship", "objectList": [{"object": "urn:ngsi-ld:Stop:2"}, {"object": "urn:ngsi-ld:Stop:1"}]},
            "hours": {"type": "ListProperty", "valueList": [1, 2, 3]},
            "expiresAt": "2030-01-01T00:00:00Z",
        }),
        context(),
    )
    .unwrap();
    e.created_at = "2014-01-01T05:00:01Z".parse().unwrap();
    e.modified_at = "2014-01-01T06:00:01.25Z".parse().unwrap();
    for a in e.attributes.values_mut().flatten() {
        (a.created_at, a.modified_at) = (e.created_at, e.modified_at);
    }
    e
}

fn read(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn shown(view: &View, document: Document) -> Value {
    read(&encode::entity(&station(), view, context(), document))
}

#[test]
fn an_entity_in_each_form() {
    insta::assert_json_snapshot!("normalized", shown(&View::default(), Document::Json));
    insta::assert_json_snapshot!("concise", shown(&View::of(Representation::Concise), Document::LdJson));
    insta::assert_json_snapshot!("simplified", shown(&View::of(Representation::Simplified), Document::Json));
    insta::assert_json_snapshot!("feature", shown(&View::of(Representation::Simplified), Document::GeoJson));
}

#[test]
fn system_attributes_show_when_asked() {
    let shown = shown(&View { sys_attrs: true, ..View::default() }, Document::Json);
    assert_eq!(shown["createdAt"], "2014-01-01T05:00:01Z");
    assert_eq!(shown["modifiedAt"], "2014-01-01T06:00:01.250Z");
    assert_eq!(shown["expiresAt"], "2030-01-01T00:00:00Z");
    assert_eq!(shown["hours"]["modifiedAt"], "2014-01-01T06:00:01.250Z");
}

#[test]
fn a_projection_shows_exactly_what_it_says() {
    let keys = |view: View| -> Vec<String> { shown(&view, Document::Json).as_object().unwrap().keys().cloned().collect() };
    let pm25 = || Member::Attribute(name("pm25"));
    assert_eq!(keys(View { pick: Some(vec![Member::Id, pm25()]), ..View::default() }), ["id", "pm25"]);
    assert_eq!(keys(View { pick: Some(vec![pm25()]), omit: vec![pm25()], ..View::default() }), [""; 0]);
    assert_eq!(keys(View { attrs: Some(vec![name("pm25")]), ..View::default() }), ["id", "type", "scope", "pm25"]);
    let without = keys(View { omit: vec![Member::Type, Member::Scope, pm25()], ..View::default() });
    assert!(!without.iter().any(|k| ["type", "scope", "pm25"].contains(&k.as_str())), "{without:?}");
    assert_eq!(without[0], "id");
}

#[test]
fn instances_are_selected_by_dataset() {
    let with = |ids| shown(&View { dataset_ids: Some(ids), ..View::default() }, Document::Json);
    let model = Some(Iri::known("urn:ngsi-ld:dataset:model"));
    assert_eq!(with(vec![model.clone()])["pm25"]["value"], 36);
    assert_eq!(with(vec![None])["pm25"]["value"], 35.5);
    assert_eq!(with(vec![None])["pm25"]["reliability"]["value"], 0.9, "attributes of attributes stay");
    assert!(with(vec![model]).get("name").is_none(), "an attribute without a selected instance disappears");
}

#[test]
fn a_language_filter_makes_texts_plain() {
    let lang = || Some(LanguageRanges::parse("zh-CN").unwrap());
    let normalized = shown(&View { lang: lang(), ..View::default() }, Document::Json);
    assert_eq!(normalized["name"], json!({"type": "Property", "value": "东四", "lang": "zh"}));
    let simplified = shown(&View { lang: lang(), ..View::of(Representation::Simplified) }, Document::Json);
    assert_eq!(simplified["name"], "东四");
}

#[test]
fn lists_carry_the_context_where_the_media_type_says() {
    let list = [station(), station()];
    let ld = read(&encode::entities(&list, &View::default(), context(), Document::LdJson));
    assert_eq!(ld[1]["@context"], context().json());
    let geo = read(&encode::entities(&list, &View::of(Representation::Simplified), context(), Document::GeoJson));
    assert_eq!(geo["type"], "FeatureCollection");
    assert_eq!(geo["@context"], context().json());
    assert!(geo["features"][0].get("@context").is_none());
    assert_eq!(read(&encode::entities(&[], &View::default(), context(), Document::Json)), json!([]));
    let empty = read(&encode::entities(&[], &View::default(), context(), Document::GeoJsonLink));
    assert_eq!(empty, json!({"type": "FeatureCollection", "features": []}));
}

#[test]
fn a_feature_without_its_geometry_has_null() {
    let view = View { geometry_property: Some(name("pm25")), ..View::default() };
    assert_eq!(shown(&view, Document::GeoJson)["geometry"], Value::Null);
}

fn series() -> IndexMap<Iri, Vec<Attribute>> {
    let at = |hour: u8, value: i32| {
        let mut a = Attribute::property(value).observed(format!("2014-01-01T{hour:02}:00:00Z").parse().unwrap());
        a.modified_at = format!("2014-01-02T{hour:02}:00:00Z").parse().unwrap();
        a
    };
    let mut model = at(1, 12);
    model.dataset_id = Some(Iri::known("urn:ngsi-ld:dataset:model"));
    let owner = Attribute::new(AttributeValue::Relationship(vec![Iri::known("urn:x:1")])).observed("2014-01-01T00:00:00Z".parse().unwrap());
    IndexMap::from([(name("pm25"), vec![at(0, 10), at(1, 11), model]), (name("owner"), vec![owner]), (name("none"), vec![])])
}

#[test]
fn an_evolution_in_each_form() {
    let (id, types, attributes) = (Iri::known("urn:x:1"), [name("AirQualityObserved")], series());
    let e = TemporalEntity {
        id: &id,
        types: &types,
        attributes: &attributes,
        removals: &[],
        deleted_at: None,
        created_at: None,
        modified_at: None,
        scopes: &[],
    };
    insta::assert_json_snapshot!("evolution", read(&encode::evolution(e, TimeProperty::ObservedAt, &View::default(), context(), true)));
    let values = View { temporal_values: true, ..View::default() };
    insta::assert_json_snapshot!("temporal_values", read(&encode::evolution(e, TimeProperty::ObservedAt, &values, context(), false)));
    let recorded = read(&encode::evolutions([e], TimeProperty::ModifiedAt, &View::default(), context(), false));
    assert_eq!(recorded[0]["pm25"][1]["modifiedAt"], "2014-01-02T01:00:00Z", "the time that was asked about is shown");
}

#[test]
fn notifications_show_changes_and_deletions() {
    let now = station();
    let mut before = station();
    before.put(name("category"), Attribute::new(AttributeValue::Vocab(vec![name("traffic")])));
    let gone = Attribute::property(5);
    let old = name("oldThing");
    let data = [
        Change::Present { entity: &now, before: Some(&before), removed: vec![(&old, &gone)] },
        Change::Deleted { entity: &before, at: "2014-01-01T07:00:00Z".parse().unwrap() },
    ];
    let (id, subscription_id) = (Iri::known("urn:ngsi-ld:Notification:1"), Iri::known("urn:ngsi-ld:Subscription:1"));
    let body = |show_changes| NotificationBody {
        id: &id,
        subscription_id: &subscription_id,
        notified_at: "2014-01-01T06:00:02Z".parse().unwrap(),
        data: &data,
        show_changes,
    };
    let view = View {
        pick: Some(vec![Member::Id, Member::Type, Member::Attribute(name("category")), Member::Attribute(name("oldThing"))]),
        ..View::default()
    };
    insta::assert_json_snapshot!("notification", read(&encode::notification(&body(true), &view, context(), Document::LdJson)));
    let plain = read(&encode::notification(&body(false), &View::of(Representation::Simplified), context(), Document::Json));
    assert_eq!(plain["data"][0]["oldThing"], "urn:ngsi-ld:null");
    assert_eq!(plain["data"][1].as_object().unwrap().len(), 3, "id, type and deletedAt only");
    let geo = read(&encode::notification(&body(false), &View::default(), context(), Document::GeoJson));
    assert_eq!(geo["data"]["features"].as_array().unwrap().len(), 1);
}

#[test]
fn an_instance_that_goes_away_stands_beside_those_that_stay() {
    let mut now = station();
    let all = now.attributes.insert(name("pm25"), Vec::new().into()).unwrap();
    now.attributes.insert(name("pm25"), all[0].clone().into());
    let pm25 = name("pm25");
    let data = [Change::Present { entity: &now, before: None, removed: vec![(&pm25, &all[1])] }];
    let (id, subscription_id) = (Iri::known("urn:ngsi-ld:Notification:1"), Iri::known("urn:ngsi-ld:Subscription:1"));
    let body =
        NotificationBody { id: &id, subscription_id: &subscription_id, notified_at: all[0].modified_at, data: &data, show_changes: false };
    let normalized = read(&encode::notification(&body, &View::default(), context(), Document::Json));
    assert_eq!(normalized["data"][0]["pm25"][0]["value"], 35.5);
    assert_eq!(normalized["data"][0]["pm25"][1]["value"], "urn:ngsi-ld:null");
    assert_eq!(normalized["data"][0]["pm25"][1]["datasetId"], "urn:ngsi-ld:dataset:model");
    let simplified = read(&encode::notification(&body, &View::of(Representation::Simplified), context(), Document::Json));
    assert_eq!(simplified["data"][0]["pm25"]["dataset"], json!({"@none": 35.5, "urn:ngsi-ld:dataset:model": "urn:ngsi-ld:null"}));
}

#[test]
fn problems_and_partial_results() {
    let error = decode::entity(json!({"type": "T"}), context()).unwrap_err();
    insta::assert_json_snapshot!("problem", read(&encode::problem(&Problem::of(&error, Some(400)))));
    let errors = [BatchError { entity_id: Some(Iri::known("urn:x:2")), problem: Problem::of(&error, None) }];
    insta::assert_json_snapshot!("batch_result", read(&encode::batch_result(&[Iri::known("urn:x:1")], &errors)));
    let left = [(name("pm25"), "the attribute exists and noOverwrite was asked".to_owned())];
    insta::assert_json_snapshot!("update_result", read(&encode::update_result(&[name("name")], &left)));
}

#[test]
fn types_and_attributes_are_listed() {
    let id = Iri::known("urn:ngsi-ld:EntityTypeList:1");
    let info = TypeInfo { entity_type: name("Station"), n_entities: 7, attributes: vec![(name("pm25"), vec!["Property", "ListProperty"])] };
    let attribute = AttributeInfo { name: name("pm25"), n_entities: 7, kinds: vec!["Property"], types: vec![name("Station")] };
    insta::assert_json_snapshot!(
        "discovery",
        json!([
            read(&encode::type_list(&id, &[name("Station")], context())),
            read(&encode::types(std::slice::from_ref(&info), context())),
            read(&encode::type_info(&info, context())),
            read(&encode::attribute_list(&id, &[name("pm25")], context())),
            read(&encode::attributes(std::slice::from_ref(&attribute), context())),
            read(&encode::attribute_info(&attribute, context())),
        ])
    );
}
