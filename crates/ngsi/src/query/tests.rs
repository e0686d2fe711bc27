use std::sync::LazyLock;

use entity::{Filter, GeoRelation, Instant, TypeSelector};
use serde_json::{Value, json};

use super::*;
use crate::view::{Member, Representation};
use crate::{ContextStore, ErrorKind};

static CONTEXTS: LazyLock<ContextStore> = LazyLock::new(|| ContextStore::new(None, None).unwrap());

fn pairs(text: &str) -> Vec<(String, String)> {
    text.split('&').filter(|p| !p.is_empty()).map(|p| p.split_once('=').unwrap()).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn ask(text: &str, endpoint: Endpoint) -> crate::Result<QueryParams> {
    QueryParams::from_pairs(&pairs(text), CONTEXTS.core_context(), endpoint)
}

#[test]
fn types_select_by_or_and_and() {
    check("A", &["A"], true);
    check("A,B", &["B"], true);
    check("A|B", &["C"], false);
    check("(A;B)", &["A", "B"], true);
    check("(A;B)", &["A"], false);
    check("(A;B)|C", &["C"], true);
    check("*", &[], true);

    #[track_caller]
    fn check(selector: &str, types: &[&str], want: bool) {
        let context = CONTEXTS.core_context();
        let types: Vec<_> = types.iter().map(|t| context.expand(t).unwrap()).collect();
        assert_eq!(parse_types(selector, context).unwrap().matches(&types), want, "{selector}");
    }
    for wrong in ["", "A,", "(A", "A)", "A;;B", "a b", "((((((((((((((((((((A))))))))))))))))))))"] {
        assert!(parse_types(wrong, CONTEXTS.core_context()).is_err(), "{wrong}");
    }
}

#[test]
fn scopes_select_by_pattern() {
    assert!(matches!(parse_scopes("/A/+/C,/B/#").unwrap(), Filter::Or(list) if list.len() == 2));
    assert!(matches!(parse_scopes("(/A;/B)").unwrap(), Filter::And(list) if list.len() == 2));
    assert!(parse_scopes("/A/#/B").unwrap_err().to_string().contains("is not a scope"));
}

#[test]
fn a_full_question_becomes_one_filter_and_one_view() {
    let p = ask(
        "type=Vehicle&q=speed>50&scopeQ=/CN/%23&id=urn:x:1,urn:x:2&idPattern=^urn&pick=id,speed&lang=zh,en;q=0.5&limit=7&offset=14&count=true\
         &format=simplified&options=sysAttrs&datasetId=@none,urn:d:1&georel=near;maxDistance==2000&geometry=Point&coordinates=[116.4,39.9]"
            .replace("%23", "#")
            .as_str(),
        Endpoint::QueryEntities,
    )
    .unwrap();
    assert_eq!(p.filter.conjuncts().count(), 6);
    assert!(p.filter.conjuncts().any(|f| matches!(f, Filter::Geo(g) if g.relation == GeoRelation::NearMax(2000.0))));
    assert_eq!(p.ids.len(), 2);
    assert_eq!((p.limit, p.offset, p.count, p.local), (7, 14, true, false));
    assert_eq!(p.view.representation, Representation::Simplified);
    assert!(p.view.sys_attrs);
    assert_eq!(p.view.pick.unwrap()[0], Member::Id);
    assert_eq!(p.view.dataset_ids.unwrap()[0], None);
    assert_eq!(p.types, Some(TypeSelector::Is(CONTEXTS.core_context().expand("Vehicle").unwrap())));
}

#[test]
fn questions_that_are_too_wide_are_refused() {
    for narrow in ["type=T", "attrs=a", "q=a", "georel=within&geometry=Point&coordinates=[1,2]", "local=true", "type=*"] {
        ask(narrow, Endpoint::QueryEntities).unwrap();
    }
    assert!(ask("type=*", Endpoint::QueryEntities).unwrap().local);
    for wide in ["", "id=urn:x:1", "idPattern=.*", "q=createdAt>2020-01-01T00:00:00Z", "scopeQ=/A"] {
        let error = ask(wide, Endpoint::QueryEntities).unwrap_err();
        assert!(error.to_string().contains("too wide"), "{wide}: {error}");
        assert_eq!(error.kind, ErrorKind::BadRequestData);
    }
}

#[test]
fn wrong_parameters_are_named() {
    use Endpoint::{AppendAttributes, Plain, QueryEntities, QueryTemporal, RetrieveEntity, RetrieveTemporal, Upsert};
    use ErrorKind::{BadRequestData, InvalidRequest};
    check("typ=T", QueryEntities, InvalidRequest, "parameter typ: is not a parameter here (did you mean `type`?)");
    check("somethingElse=T", RetrieveEntity, InvalidRequest, "expected attrs, pick");
    check("q=a", Plain, InvalidRequest, "there are none");
    check("type=T&type=U", QueryEntities, InvalidRequest, "parameter type: given twice");
    check("type=T&aggrMethods=sum", QueryEntities, InvalidRequest, "does not support");
    check("type=T&orderBy=a", QueryEntities, BadRequestData, "this node alone");
    check("type=T&limit=1001", QueryEntities, BadRequestData, "parameter limit: 1001 is more than the limit of 1000");
    check("type=T&limit=-1", QueryEntities, BadRequestData, "expected a number from 0 to 1000, found `-1`");
    check("type=T&limit=0", QueryEntities, BadRequestData, "only together with count");
    check("type=T&offset=99999999", QueryEntities, BadRequestData, "parameter offset");
    check("type=T&count=yes", QueryEntities, InvalidRequest, "expected `true` or `false`");
    check("type=T&format=xml", QueryEntities, InvalidRequest, "`xml` is not a format here");
    check("type=T&options=foo", QueryEntities, InvalidRequest, "`foo` is not an option here (expected sysAttrs");
    check("options=update", AppendAttributes, InvalidRequest, "expected noOverwrite");
    check("options=noOverwrite", Upsert, InvalidRequest, "expected replace, update");
    check("type=a b", QueryEntities, BadRequestData, "parameter type: `a b` is not a name");
    check("type=*&local=false", QueryEntities, BadRequestData, "contradicts");
    check("type=T&id=x", QueryEntities, BadRequestData, "parameter id: `x` is not an absolute URI");
    check("type=T&idPattern=(", QueryEntities, BadRequestData, "parameter idPattern");
    check("type=T&q=a=1", QueryEntities, BadRequestData, "parameter q: at character 2");
    check("type=T&attrs=id", QueryEntities, BadRequestData, "use pick");
    check("type=T&pick=a{b}", QueryEntities, BadRequestData, "joinLevel is 0");
    check("type=T&georel=within", QueryEntities, BadRequestData, "missing: geometry, coordinates");
    check("type=T&georel=near&geometry=Point&coordinates=[1,2]", QueryEntities, BadRequestData, "needs a distance");
    check("type=T&georel=near;maxDistance==0&geometry=Point&coordinates=[1,2]", QueryEntities, BadRequestData, "greater than 0");
    check("type=T&georel=within;x&geometry=Point&coordinates=[1,2]", QueryEntities, BadRequestData, "takes no modifier");
    check("type=T&georel=inside&geometry=Point&coordinates=[1,2]", QueryEntities, BadRequestData, "is not a relation");
    check("type=T&georel=within&geometry=Point&coordinates=[1,95]", QueryEntities, BadRequestData, "latitude");
    check("type=T&georel=within&geometry=Point&coordinates=x", QueryEntities, BadRequestData, "expected a JSON array");
    check("type=T", QueryTemporal, BadRequestData, "a temporal query needs");
    check("timeAt=2020-01-01T00:00:00Z", RetrieveTemporal, BadRequestData, "needs `timerel`");
    check("timerel=between&timeAt=2020-01-01T00:00:00Z", RetrieveTemporal, BadRequestData, "needs `endTimeAt`");
    check("timerel=during&timeAt=2020-01-01T00:00:00Z", RetrieveTemporal, BadRequestData, "is not a temporal relation");
    check("timerel=before&timeAt=yesterday", RetrieveTemporal, BadRequestData, "parameter timeAt");
    check("timerel=after&timeAt=2020-01-01T00:00:00Z&endTimeAt=2021-01-01T00:00:00Z", RetrieveTemporal, BadRequestData, "goes with");
    check("timeproperty=endedAt", RetrieveTemporal, BadRequestData, "is not a time property");
    check("lastN=0", RetrieveTemporal, BadRequestData, "expected a number from 1");
    check("type=T&timerel=after&timeAt=2020-01-01T00:00:00Z&format=aggregatedValues", QueryTemporal, BadRequestData, "need `aggrMethods`");
    check("asOf=yesterday", RetrieveEntity, BadRequestData, "parameter asOf");
    check(
        "type=T&timerel=after&timeAt=2020-01-01T00:00:00Z&asOf=2020-01-01T00:00:00Z",
        QueryTemporal,
        InvalidRequest,
        "is not a parameter here",
    );
    check("format=aggregatedValues", RetrieveTemporal, BadRequestData, "need `aggrMethods`");
    check("aggrMethods=avg", RetrieveTemporal, BadRequestData, "goes with format=aggregatedValues only");
    check("options=aggregatedValues&aggrMethods=avg&aggrPeriodDuration=1h", RetrieveTemporal, BadRequestData, "`1h` is not a duration");

    #[track_caller]
    fn check(text: &str, endpoint: Endpoint, kind: ErrorKind, want: &str) {
        let error = ask(text, endpoint).unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.to_string().contains(want), "{error}");
    }
}

#[test]
fn temporal_relations_are_half_open() {
    let at = |s: &str| s.parse::<Instant>().unwrap();
    let (a, b) = ("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z");
    let interval = |text: &str| ask(text, Endpoint::RetrieveTemporal).unwrap().temporal.interval;
    assert_eq!(interval(&format!("timerel=before&timeAt={a}")), Some(Instant::MIN..at(a)));
    assert_eq!(interval(&format!("timerel=after&timeAt={a}")), Some(at(a)..Instant::MAX));
    assert_eq!(interval(&format!("timerel=between&timeAt={a}&endTimeAt={b}")), Some(at(a)..at(b)));
    assert_eq!(interval("lastN=5"), None);
    let p = ask("lastN=5&timeproperty=modifiedAt&format=temporalValues", Endpoint::RetrieveTemporal).unwrap();
    assert_eq!(p.temporal.last_n, Some(5));
    assert_eq!(p.temporal.time_property, TimeProperty::ModifiedAt);
    assert!(p.view.temporal_values);
}

#[test]
fn options_of_writing_requests_are_read() {
    assert!(ask("options=noOverwrite", Endpoint::AppendAttributes).unwrap().no_overwrite);
    assert!(ask("options=update", Endpoint::Upsert).unwrap().update);
    assert!(!ask("options=replace", Endpoint::Upsert).unwrap().update);
    assert!(ask("deleteAll=true", Endpoint::DeleteAttribute).unwrap().delete_all);
    assert!(ask("details=true", Endpoint::Discovery).unwrap().details);
}

fn body(value: Value) -> crate::Result<QueryParams> {
    query_body(value, &pairs("limit=5&options=concise"), CONTEXTS.core_context(), Endpoint::QueryByBody)
}

#[test]
fn a_query_body_asks_the_same_as_parameters() {
    let p = body(json!({"type": "Query", "entities": [{"type": "A", "id": "urn:x:1"}, {"type": "B", "idPattern": "^urn"}], "q": "speed>5",
        "geoQ": {"georel": "within", "geometry": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}, "scopeQ": "/A",
        "attrs": ["speed"], "datasetId": ["@none"], "lang": "en"}))
    .unwrap();
    assert_eq!(p.filter.conjuncts().count(), 5);
    assert_eq!((p.limit, p.view.representation), (5, Representation::Concise));
    assert_eq!(p.view.attrs.as_ref().map(Vec::len), Some(1));
    let one = body(json!({"type": "Query", "entities": [{"type": "A", "id": ["urn:x:1", "urn:x:2"]}]})).unwrap();
    assert_eq!(one.ids.len(), 2);
}

#[test]
fn wrong_query_bodies_are_named() {
    check(json!([]), "expected a Query");
    check(json!({"type": "Query", "q": 5}), "q: expected a string");
    check(json!({"q": "a"}), "type: expected `Query`");
    check(json!({"type": "Query"}), "too wide");
    check(json!({"type": "Query", "qq": "a"}), "did you mean `q`?");
    check(json!({"type": "Query", "splitEntities": true}), "does not support");
    check(json!({"type": "Query", "entities": []}), "expected 1 to");
    check(json!({"type": "Query", "entities": [{"id": "urn:x:1"}]}), "entities/0: the mandatory member `type`");
    check(json!({"type": "Query", "entities": [{"type": "A", "id": 5}]}), "entities/0/id");
    check(json!({"type": "Query", "q": "a", "temporalQ": {}}), "goes to /temporal");
    check(json!({"type": "Query", "q": "a", "geoQ": {"georel": "within"}}), "missing: geometry");

    #[track_caller]
    fn check(value: Value, want: &str) {
        let error = body(value).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
    }
}

#[test]
fn a_temporal_query_body_needs_its_interval() {
    let ask = |temporal: Value| {
        let value = json!({"type": "Query", "entities": [{"type": "A"}], "temporalQ": temporal});
        query_body(value, &[], CONTEXTS.core_context(), Endpoint::QueryTemporalByBody)
    };
    let p = ask(json!({"timerel": "after", "timeAt": "2020-01-01T00:00:00Z", "lastN": 3})).unwrap();
    assert_eq!(p.temporal.last_n, Some(3));
    assert!(ask(json!({})).unwrap_err().to_string().contains("needs `timerel`"));
    assert!(ask(json!({"timeRel": "after"})).unwrap_err().to_string().contains("did you mean `timerel`?"));
}
