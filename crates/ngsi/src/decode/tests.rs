use std::sync::LazyLock;

use entity::{Attribute, AttributeValue, CONURB_NS, DEFAULT_CONTEXT_NS};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{ContextStore, ErrorKind};

static CONTEXTS: LazyLock<ContextStore> = LazyLock::new(|| ContextStore::new(None, None).unwrap());

fn decoded(value: Value) -> Result<Entity> {
    entity(value, CONTEXTS.core_context())
}

fn one_attribute(value: Value) -> Result<Attribute> {
    decoded(json!({"id": "urn:x:1", "type": "T", "a": value})).map(|e| e.attributes[&iri_of("a")][0].clone())
}

fn iri_of(name: &str) -> Iri {
    Iri::known(&format!("{DEFAULT_CONTEXT_NS}{name}"))
}

#[test]
fn every_kind_is_read_normalized_and_concise() {
    use AttributeValue::{Geo, Json, Language, List, ListRelationship, Property, Relationship, Vocab};
    let point = json!({"type": "Point", "coordinates": [1.5, 2]});
    let (x, y) = (Iri::known("urn:x:1"), Iri::known("urn:x:2"));
    check(json!({"type": "Property", "value": 5}), json!(5), Property(json!(5)));
    check(json!({"type": "Property", "value": {"b": [1]}}), json!({"b": [1]}), Property(json!({"b": [1]})));
    check(json!({"type": "Property", "value": ["p"]}), json!(["p"]), Property(json!(["p"])));
    check(json!({"type": "GeoProperty", "value": point}), point.clone(), Geo(entity::Geometry::from_json(point.clone()).unwrap()));
    check(
        json!({"type": "GeoProperty", "value": point.to_string()}),
        json!({"value": point}),
        Geo(entity::Geometry::from_json(point).unwrap()),
    );
    check(json!({"type": "Relationship", "object": "urn:x:1"}), json!({"object": ["urn:x:1"]}), Relationship(vec![x.clone()]));
    check(
        json!({"type": "LanguageProperty", "languageMap": {"en": "car", "zh": ["车"]}}),
        json!({"languageMap": {"en": "car", "zh": ["车"]}}),
        Language(IndexMapOf::from_iter([("en".into(), json!("car")), ("zh".into(), json!(["车"]))])),
    );
    check(json!({"type": "VocabProperty", "vocab": "Male"}), json!({"vocab": ["Male"]}), Vocab(vec![iri_of("Male")]));
    check(json!({"type": "JsonProperty", "json": {"a": null}}), json!({"json": {"a": null}}), Json(json!({"a": null})));
    check(
        json!({"type": "ListProperty", "valueList": [2, 1, 2]}),
        json!({"valueList": [2, 1, 2]}),
        List(vec![json!(2), json!(1), json!(2)]),
    );
    check(
        json!({"type": "ListRelationship", "objectList": [{"object": "urn:x:2"}, {"object": "urn:x:1"}]}),
        json!({"objectList": ["urn:x:2", "urn:x:1"]}),
        ListRelationship(vec![y, x]),
    );

    #[track_caller]
    fn check(normalized: Value, concise: Value, want: AttributeValue) {
        assert_eq!(one_attribute(normalized.clone()).unwrap(), Attribute::new(want.clone()), "{normalized}");
        assert_eq!(one_attribute(concise.clone()).unwrap(), Attribute::new(want), "{concise}");
    }
}

type IndexMapOf = indexmap::IndexMap<smol_str::SmolStr, Value>;

#[test]
fn typed_values_and_addresses_stay_as_they_are() {
    for value in [
        json!({"@type": "DateTime", "@value": "2020-01-01T00:00:00Z"}),
        json!({"type": "DateTime", "@value": "2020-01-01T00:00:00Z"}),
        json!({"type": "PostalAddress", "addressLocality": "上海"}),
        json!({"@type": "@json", "@value": null}),
        json!([{"value_": 1}]),
        json!([]),
    ] {
        assert_eq!(one_attribute(value.clone()).unwrap().value, AttributeValue::Property(value.clone()), "{value}");
        assert_eq!(one_attribute(json!({"type": "Property", "value": value})).unwrap().value, AttributeValue::Property(value));
    }
}

#[test]
fn all_members_of_an_entity_are_read() {
    let e = decoded(json!({
        "@id": "urn:x:1", "@type": ["A", "B", "A"], "scope": ["/CN/31", "x"], "expiresAt": "2030-01-01T00:00:00Z",
        "createdAt": "nonsense is ignored", "modifiedAt": 5, "@context": "ignored",
        "pm25": [
            {"type": "Property", "value": 1, "observedAt": "2020-01-01T00:00:00Z", "unitCode": "GQ", "datasetId": "@none", "instanceId": "urn:x:i"},
            {"value": 2, "datasetId": "urn:d:2", "valueType": "ngsi-ld:x", "expiresAt": "2031-01-01T00:00:00Z",
             "accuracy": {"value": 0.1, "method": "laser"}},
        ],
        "near_": {"object": "urn:x:2", "objectType": ["A"], "previousObject": "urn:x:old", "entity": {"id": "urn:x:2"}},
    }))
    .unwrap();
    assert_eq!(e.types, [iri_of("A"), iri_of("B")]);
    assert_eq!(e.scopes.iter().map(entity::Scope::as_str).collect::<Vec<_>>(), ["/CN/31", "/x"]);
    assert_eq!(e.expires_at.unwrap().to_string(), "2030-01-01T00:00:00Z");
    let pm25 = &e.attributes[&iri_of("pm25")];
    assert_eq!((pm25[0].dataset_id.as_ref(), pm25[0].unit_code.as_deref()), (None, Some("GQ")));
    assert_eq!(pm25[0].observed_at.unwrap().to_string(), "2020-01-01T00:00:00Z");
    assert_eq!(pm25[1].qualifiers.as_ref().unwrap().value_type.as_ref().unwrap().as_str(), "https://uri.etsi.org/ngsi-ld/x");
    let accuracy = &pm25[1].sub_attributes[&iri_of("accuracy")][0];
    assert_eq!(accuracy.sub_attributes[&iri_of("method")][0].value, AttributeValue::Property(json!("laser")));
    let near = &e.attributes[&iri_of("near_")][0];
    assert_eq!(near.qualifiers.as_ref().unwrap().object_types, [iri_of("A")]);
    assert!(near.sub_attributes.is_empty(), "output-only members are passed over");
}

#[test]
fn wrong_entities_say_where_and_what() {
    let with = |value: Value| json!({"id": "urn:x:1", "type": "T", "a": value});
    check(json!([]), "expected an entity (a JSON object), found an array of 0");
    check(json!({"type": "T"}), "entity: the mandatory member `id` is missing");
    check(json!({"id": "urn:x:1"}), "entity: the mandatory member `type` is missing");
    check(json!({"id": "x", "type": "T"}), "id: `x` is not an absolute URI");
    check(json!({"id": 5, "type": "T"}), "id: expected a URI, found the number `5`");
    check(json!({"id": "urn:x:1", "@id": "urn:x:1", "type": "T"}), "id: given twice");
    check(json!({"id": "urn:x:1", "type": []}), "type: the array is empty");
    check(json!({"id": "urn:x:1", "type": "a b"}), "type: `a b` is not a name");
    check(json!({"id": "urn:x:1", "type": "T", "scope": "a b"}), "scope: `a b` is not a scope");
    check(json!({"id": "urn:x:1", "type": "T", "expiresAt": "soon"}), "expiresAt: `soon` is not a date-time");
    check(json!({"id": "urn:x:1", "type": "T", "a b": 1}), "attribute a b: `a b` is not a name");
    check(json!({"id": "urn:x:1", "type": "T", "unitCode": "GQ"}), "attribute unitCode: `unitCode` is a member of attributes");
    check(json!({"id": "urn:x:1", "type": "T", "@graph": []}), "attribute @graph: `@graph` is a JSON-LD keyword");
    check(json!({"id": "urn:x:1", "type": "T", "a": 1, (DEFAULT_CONTEXT_NS.to_owned() + "a"): 2}), "given twice under different names");
    check(with(json!(null)), "attribute a: null is not an attribute");
    check(with(json!("urn:ngsi-ld:null")), "attribute a: `urn:ngsi-ld:null` (remove this) is allowed in patch operations only");
    check(with(json!({"type": "Property"})), "attribute a: a Property needs the member `value`");
    check(with(json!({"type": "Property", "value": null})), "attribute a/value: null cannot be stored");
    check(with(json!({"value": {"b": [1, null]}})), "attribute a/value/b/1: null cannot be stored");
    check(with(json!({"type": "Property", "value": 1, "object": "urn:x:2"})), "attribute a/object: a Property holds `value`, not `object`");
    check(with(json!({"value": 1, "object": "urn:x:2"})), "attribute a/object: a Property holds `value`");
    check(
        with(json!({"type": "string", "value": 1})),
        "attribute a/type: the string `string` is not a kind of attribute (expected Property, ",
    );
    check(with(json!({"type": "GeoProperty", "value": {"type": "Point", "coordinates": [1, 95]}})), "attribute a/value: position [1, 95]");
    check(with(json!({"type": "GeoProperty", "value": "here"})), "expected a GeoJSON geometry");
    check(with(json!({"type": "Point", "coordinates": []})), "attribute a: not a GeoJSON geometry");
    check(with(json!({"object": "x"})), "attribute a/object: `x` is not an absolute URI");
    check(with(json!({"object": ["urn:x:1", 5]})), "attribute a/object/1: expected a URI, found the number `5`");
    check(with(json!({"object": []})), "attribute a/object: the array is empty");
    check(with(json!({"objectList": "urn:x:1"})), "attribute a/objectList: expected an array");
    check(with(json!({"valueList": 5})), "attribute a/valueList: expected an array");
    check(with(json!({"languageMap": "x"})), "attribute a/languageMap: expected an object of texts");
    check(with(json!({"languageMap": {}})), "expected at least one text");
    check(with(json!({"languageMap": {"e n": "x"}})), "attribute a/languageMap/e n: not a language tag");
    check(with(json!({"languageMap": {"en": 5}})), "attribute a/languageMap/en: expected a string");
    check(with(json!({"languageMap": {"@none": "urn:ngsi-ld:null"}})), "attribute a/languageMap/@none: `urn:ngsi-ld:null`");
    check(with(json!({"vocab": 5})), "attribute a/vocab: expected a string or an array");
    check(with(json!({"vocab": "two words"})), "attribute a/vocab: `two words` is not a name");
    check(
        with(json!({"value": 1, "observedAt": "2020-01-01T00:00:00+08:00"})),
        "attribute a/observedAt: `2020-01-01T00:00:00+08:00` is not",
    );
    check(with(json!({"value": 1, "unitCode": 5})), "attribute a/unitCode: expected a UN/CEFACT unit code");
    check(with(json!({"object": "urn:x:2", "unitCode": "GQ"})), "a Relationship has no unit");
    check(with(json!({"object": "urn:x:2", "valueType": "x"})), "a Relationship has no `valueType`");
    check(with(json!({"value": 1, "objectType": "x"})), "a Property has no `objectType`");
    check(with(json!({"value": 1, "datasetId": "x"})), "attribute a/datasetId: `x` is not an absolute URI");
    check(with(json!({"value": 1, "@context": {}})), "only possible at the top");
    check(with(json!([{"value": 1}, {"value": 2}])), "attribute a/1: two instances have no datasetId");
    check(
        with(json!([{"value": 1, "datasetId": "urn:d:1"}, {"value": 2, "datasetId": "urn:d:1"}])),
        "two instances have the datasetId `urn:d:1`",
    );
    check(with(json!([{"type": "Property", "value": 1}, {"type": "Property"}])), "attribute a/1: a Property needs the member `value`");
    check(with(json!({"value": 1, "b": {"value": 1, "c": {"object": 5}}})), "attribute a/b/c/object: expected a URI");

    #[track_caller]
    fn check(value: Value, want: &str) {
        let error = decoded(value).unwrap_err();
        assert_eq!(error.kind, ErrorKind::BadRequestData);
        assert!(error.to_string().contains(want), "{error}");
    }
}

#[test]
fn limits_are_errors_that_name_them() {
    let mut deep = json!({"value": 1});
    for _ in 0..=SUB_ATTRIBUTE_DEPTH_MAX {
        deep = json!({"value": 1, "s": deep});
    }
    check(json!({"id": "urn:x:1", "type": "T", "a": deep}), "nested more than 16 deep");
    let mut many = json!({"id": "urn:x:1", "type": "T"});
    for i in 0..=ATTRIBUTES_MAX {
        many[format!("a{i}")] = json!(i);
    }
    check(many, "more than 1000 attributes");
    let instances: Vec<Value> = (0..=INSTANCES_MAX).map(|i| json!({"value": 1, "datasetId": format!("urn:d:{i}")})).collect();
    check(json!({"id": "urn:x:1", "type": "T", "a": instances}), "1001 instances are more than the limit of 1000");
    let types: Vec<String> = (0..=TYPES_MAX).map(|i| format!("T{i}")).collect();
    check(json!({"id": "urn:x:1", "type": types}), "101 names are more than the limit of 100");

    #[track_caller]
    fn check(value: Value, want: &str) {
        let error = decoded(value).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn a_fragment_needs_no_type_and_its_id_must_agree() {
    let id = Iri::known("urn:x:1");
    let f = fragment(json!({"speed": 5}), &id, CONTEXTS.core_context()).unwrap();
    assert_eq!((f.id.as_str(), f.types.len(), f.attributes.len()), ("urn:x:1", 0, 1));
    fragment(json!({"id": "urn:x:1", "type": "T"}), &id, CONTEXTS.core_context()).unwrap();
    let error = fragment(json!({"id": "urn:x:2"}), &id, CONTEXTS.core_context()).unwrap_err();
    assert_eq!(error.to_string(), "id: `urn:x:2` is not the entity that the request is about, `urn:x:1`");
}

#[test]
fn one_attribute_is_read_by_its_name() {
    let (name, instances) =
        attribute("speed", json!([{"value": 1}, {"value": 2, "datasetId": "urn:d:2"}]), CONTEXTS.core_context()).unwrap();
    assert_eq!((name, instances.len()), (iri_of("speed"), 2));
    assert!(attribute("unitCode", json!(1), CONTEXTS.core_context()).is_err());
}

#[test]
fn the_context_is_where_the_media_type_says() {
    let link = Some("https://conurb.org/ns/context.jsonld");
    let entity = br#"{"id": "urn:x:1", "type": "Agreement"}"#;
    let ld = br#"{"id": "urn:x:1", "type": "Peer", "@context": "https://conurb.org/ns/context.jsonld"}"#;
    let (value, context) = body(entity, MediaType::Json, link, &CONTEXTS).unwrap().into_one().unwrap();
    assert_eq!(super::entity(value, &context).unwrap().types[0].as_str(), format!("{CONURB_NS}Agreement"));
    let (value, context) = body(ld, MediaType::LdJson, None, &CONTEXTS).unwrap().into_one().unwrap();
    assert_eq!(super::entity(value, &context).unwrap().types[0].as_str(), format!("{CONURB_NS}Peer"));
    check(ld, MediaType::Json, None, ErrorKind::BadRequestData, "has no context inside");
    check(entity, MediaType::LdJson, None, ErrorKind::BadRequestData, "needs the member `@context`");
    check(ld, MediaType::LdJson, link, ErrorKind::BadRequestData, "Link header");
    check(b"{\"id\": ", MediaType::Json, None, ErrorKind::InvalidRequest, "line 1 column 7");
    check(b"\xff", MediaType::Json, None, ErrorKind::InvalidRequest, "not JSON");
    check(br#"{"@context": "https://nowhere.example/c"}"#, MediaType::LdJson, None, ErrorKind::LdContextNotAvailable, "nowhere.example");

    #[track_caller]
    fn check(bytes: &[u8], media_type: MediaType, link: Option<&str>, kind: ErrorKind, want: &str) {
        let error = body(bytes, media_type, link, &CONTEXTS).unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.to_string().contains(want), "{error}");
    }
}

#[test]
fn a_batch_reports_each_item_for_itself() {
    let text = br#"[{"id": "urn:x:1", "type": "T", "@context": []}, {"id": "urn:x:2", "type": "T"}, {"id": "urn:x:3", "@context": []}, 5,
        {"id": "urn:x:5", "type": "T", "@context": "https://nowhere.example/c"}]"#;
    let items = batch(body(text, MediaType::LdJson, None, &CONTEXTS).unwrap()).unwrap();
    assert!(items[0].is_ok());
    let failed = |i: usize| items[i].as_ref().unwrap_err();
    assert!(failed(1).1.to_string().contains("needs the member `@context`"));
    assert_eq!(failed(1).0, Some(Iri::known("urn:x:2")));
    assert!(failed(2).1.to_string().contains("`type` is missing"));
    assert_eq!(failed(2).0, Some(Iri::known("urn:x:3")));
    assert!(failed(3).1.to_string().contains("expected an entity"));
    assert_eq!(failed(4).1.kind, ErrorKind::LdContextNotAvailable);
}

#[test]
fn batches_that_are_wrong_as_a_whole_are_refused() {
    check(b"{}", "expected an array of entities");
    check(b"[]", "is empty");
    check(br#"[{"id": "urn:x:1", "type": "T"}, null]"#, "item 1: null is not an entity");
    check(format!("[{}1]", "1,".repeat(BATCH_ITEMS_MAX)).as_bytes(), "10001 items are more than the limit of 10000");
    assert_eq!(batch_ids(json!(["urn:x:1", "urn:x:2"])).unwrap().len(), 2);
    for wrong in [json!([]), json!({}), json!([5]), json!(["x"])] {
        assert!(batch_ids(wrong).is_err());
    }

    #[track_caller]
    fn check(bytes: &[u8], want: &str) {
        let error = batch(body(bytes, MediaType::Json, None, &CONTEXTS).unwrap()).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn evolutions_are_series_with_times() {
    let context = CONTEXTS.core_context();
    let e = evolution(
        json!({"id": "urn:x:1", "type": "T",
            "scope": [{"type": "Property", "value": "/A", "observedAt": "2020-01-01T00:00:00Z"}, {"type": "Property", "value": ["/B"], "observedAt": "2020-01-02T00:00:00Z"}],
            "speed": [{"type": "Property", "value": 1, "observedAt": "2020-01-01T00:00:00Z"}, {"type": "Property", "value": 2, "observedAt": "2020-01-02T00:00:00Z"}],
            "near_": {"object": "urn:x:2", "observedAt": "2020-01-01T00:00:00Z"}}),
        context,
    )
    .unwrap();
    assert_eq!(e.attributes[&iri_of("speed")].len(), 2);
    assert_eq!(e.scopes[0].as_str(), "/B");
    let read = |a: Value| evolution(json!({"id": "urn:x:1", "type": "T", "a": a}), context);
    let e =
        read(json!([{"value": 2}, {"value": 1, "observedAt": "2020-01-02T00:00:00Z"}, {"value": 0, "observedAt": "2020-01-01T00:00:00Z"}]))
            .unwrap();
    let in_order: Vec<_> = e.attributes[&iri_of("a")].iter().map(|a| a.value.clone()).collect();
    assert_eq!(in_order, [0, 1, 2].map(|n| AttributeValue::Property(n.into())), "in the order of time, what has none last");
    let wrong = |a: Value, want: &str| {
        let error = read(a).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    };
    wrong(json!([{"value": 1}, {"value": 2}]), "attribute a/1: a second instance has no `observedAt`");
    let twice = json!({"value": 1, "observedAt": "2020-01-02T00:00:00Z"});
    wrong(json!([twice, twice]), "attribute a/1: a second instance is observed at 2020-01-02T00:00:00Z");
}

#[test]
fn simplified_evolutions_say_the_same_as_series() {
    let context = CONTEXTS.core_context();
    let read = |a: Value| evolution(json!({"id": "urn:x:1", "type": "T", "a": a}), context);
    let at = ["2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z"];
    for (kind, plural, member, wrapped, values) in [
        ("Property", "values", "value", false, [json!(1), json!([1, 2])]),
        (
            "GeoProperty",
            "values",
            "value",
            false,
            [json!({"type": "Point", "coordinates": [1, 2]}), json!({"type": "Point", "coordinates": [3, 4]})],
        ),
        ("Relationship", "objects", "object", false, [json!("urn:x:2"), json!(["urn:x:2", "urn:x:3"])]),
        ("LanguageProperty", "languageMaps", "languageMap", true, [json!({"en": "a"}), json!({"fr": "b"})]),
        ("VocabProperty", "vocabs", "vocab", true, [json!("a"), json!(["a", "b"])]),
        ("JsonProperty", "jsons", "json", true, [json!({"json": 1}), json!(null)]),
        ("ListProperty", "valueLists", "valueList", false, [json!([1, 2]), json!([])]),
        ("ListRelationship", "objectLists", "objectList", false, [json!(["urn:x:2"]), json!([])]),
    ] {
        let [a, b] = &values;
        let raw = |v: &Value| if wrapped { json!({member: v}) } else { v.clone() };
        let simplified = json!({"type": kind, "datasetId": "urn:d:1", plural: [[raw(a), at[0]], [raw(b), at[1]]]});
        let instance = |v: &Value, at: &str| json!({"type": kind, "datasetId": "urn:d:1", member: v, "observedAt": at});
        let series = json!([instance(a, at[0]), instance(b, at[1])]);
        assert_eq!(read(simplified).unwrap(), read(series).unwrap(), "{kind}");
    }
    for (wrong, want) in [
        (json!({"type": "Relationship", "values": [[1, at[0]]]}), "a Relationship does not have `values`"),
        (json!({"type": "Property", "values": [[1]]}), "expected a value and a time"),
        (json!({"type": "Property", "values": [[1, 2]]}), "expected a value and a time"),
        (json!({"type": "Property", "values": [[1, "now"]]}), "observedAt"),
    ] {
        let error = read(wrong).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("type"),
        Just("id"),
        Just("value"),
        Just("object"),
        Just("Property"),
        Just("Relationship"),
        Just("urn:x:1"),
        Just("datasetId"),
        Just("languageMap"),
        Just("@context"),
        Just("Point"),
        Just("coordinates"),
        Just("observedAt"),
        Just("urn:ngsi-ld:null"),
        Just("2020-01-01T00:00:00Z"),
        Just("scope"),
        Just("@none"),
        Just("ListProperty"),
        Just("valueList"),
        Just("Subscription"),
        Just("notification"),
        Just("endpoint"),
        Just("uri"),
        Just("https://a.example"),
        Just("entities"),
        Just("q"),
        Just("a>1"),
    ]
    .prop_map(str::to_owned);
    let text = prop_oneof![4 => word, 1 => "\\PC{0,8}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        text.clone().prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((text.clone(), inner), 0..6).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(body) = body(&bytes, MediaType::LdJson, None, &CONTEXTS) {
            let _ = batch(body);
        }
    }

    #[test]
    fn any_json_is_read_or_refused(value in any_json()) {
        let context = CONTEXTS.core_context();
        let _ = entity(value.clone(), context);
        let _ = evolution(value.clone(), context);
        let _ = fragment(value.clone(), &Iri::known("urn:x:1"), context);
        let _ = subscription(value.clone(), context);
        let _ = crate::query::query_body(value.clone(), &[], context, crate::query::Endpoint::QueryByBody);
        let _ = CONTEXTS.resolve(&value);
    }
}
