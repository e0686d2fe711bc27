use std::sync::LazyLock;

use entity::{Attribute, AttributeValue, Entity};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{ContextStore, decode};

static CONTEXTS: LazyLock<ContextStore> = LazyLock::new(|| ContextStore::new(None, None).unwrap());

fn parsed(text: &str) -> Result<Q> {
    parse_q(text, QOptions { context: CONTEXTS.core_context(), expand_values: &[], link_levels: 0 })
}

fn vehicle() -> Entity {
    let value = json!({
        "id": "urn:ngsi-ld:Vehicle:A", "type": "Vehicle",
        "speed": {"type": "Property", "value": 80, "unitCode": "KMH", "observedAt": "2024-01-02T03:04:05Z",
            "accuracy": {"type": "Property", "value": 0.5, "source": {"type": "Property", "value": "radar"}}},
        "brandName": {"type": "Property", "value": "Mercedes"},
        "tags": {"type": "Property", "value": ["red", "old"]},
        "address": {"type": "Property", "value": {"city": {"name": "上海"}, "number": 5}},
        "bought": {"type": "Property", "value": "2019-05-01"},
        "opens": {"type": "Property", "value": "08:00:00Z"},
        "seen": {"type": "Property", "value": {"@type": "DateTime", "@value": "2024-01-01T00:00:00Z"}},
        "electric": {"type": "Property", "value": false},
        "owner": {"type": "Relationship", "object": "urn:ngsi-ld:Person:Bob"},
        "title_": {"type": "LanguageProperty", "languageMap": {"en": "car", "zh": "汽车"}},
        "gender": {"type": "VocabProperty", "vocab": "Male"},
        "raw": {"type": "JsonProperty", "json": {"value": {"a": 1}}},
    });
    decode::entity(value, CONTEXTS.core_context()).unwrap()
}

#[test]
fn queries_match_as_clause_4_9_says() {
    check("speed", true);
    check("nothing", false);
    check("speed==80", true);
    check("speed==8e1", true);
    check("speed!=80", false);
    check("speed>50;speed<=80", true);
    check("speed>80|brandName==Mercedes", true);
    // "and" binds tighter than "or"; parentheses before both; they nest.
    check("nothing;nothing|speed", true);
    check("nothing;(nothing|speed)", false);
    check("((speed==1|(speed==80));brandName==\"Mercedes\")", true);
    check("speed==10..100", true);
    check("speed==10..20", false);
    check("speed!=10..20", true);
    check("speed==1,80,3", true);
    check("speed!=1,2", true);
    check("brandName==\"Volvo\",\"Mercedes\"", true);
    check("brandName!=Volvo", true);
    check("brandName==\"a;b|c\"", false);
    // Another type is unequal; a missing target satisfies nothing.
    check("brandName!=5", true);
    check("brandName>5", false);
    check("nothing!=5", false);
    check("nothing!~=x", false);
    check("brandName~=^Mer.*s$", true);
    check("brandName~=(Mer|Vol)", true);
    check("brandName~=(Vol|Fi[a|)]t);speed", false);
    check("(brandName~=Merc);speed==80", true);
    check("brandName!~=\"Vol|Fiat\"", true);
    check("speed~=8", false);
    check("tags==red", true);
    check("tags!=red", false);
    check("address[city.name]==\"上海\"", true);
    check("address[city.name]==上海", true);
    check("address[number]>4", true);
    check("address[street]", false);
    check("speed.unitCode==KMH", true);
    check("speed.observedAt>=2024-01-02T00:00:00Z", true);
    check("speed.observedAt==2024-01-01T00:00:00Z..2024-02-01T00:00:00Z", true);
    check("speed.accuracy==0.5", true);
    check("speed.accuracy.source==radar", true);
    check("speed.accuracy.missing", false);
    check("bought<2020-01-01", true);
    check("opens<09:30:00Z", true);
    check("seen==2024-01-01T00:00:00Z", true);
    check("electric==false", true);
    check("electric!=true", true);
    check("owner==urn:ngsi-ld:Person:Bob", true);
    check("owner==\"urn:ngsi-ld:Person:Bob\"", true);
    check("owner!=urn:ngsi-ld:Person:Eve", true);
    check("owner>urn:a", false);
    check("title_[zh]==汽车", true);
    check("title_[en]==汽车", false);
    check("title_[*]==汽车", true);
    check("title_==car", true);
    check("raw[value.a]==1", true);
    check("createdAt<2000-01-01T00:00:00Z", true);
    check("modifiedAt>2000-01-01T00:00:00Z", false);
    check("https://uri.etsi.org/ngsi-ld/default-context/speed==80", true);
    check("https://uri.etsi.org/ngsi-ld/default-context/speed.accuracy==0.5", true);
    check("ngsi-ld:default-context/speed>1", true);

    #[track_caller]
    fn check(q: &str, want: bool) {
        assert_eq!(parsed(q).unwrap().filter.matches(&vehicle()), want, "{q}");
    }
}

#[test]
fn wrong_queries_say_where_and_what() {
    check("", "at character 1: expected the name of an attribute, found the end");
    check("speed=80", "at character 6: expected `==`, found `=80`");
    check("speed==", "at character 8: expected a value, found the end");
    check("speed>1,2", "takes one value");
    check("speed>true", "needs a number");
    check("speed==1..abc", "the ends of a range");
    check("speed==1;", "expected the name");
    check("speed==1|;a", "expected the name");
    check("(speed==1", "expected `)`");
    check("speed==1)", "there is no `(`");
    check("address[a", "expected `]`");
    check("address[]", "expected a key");
    check("address[a..b]", "expected a key");
    check("a b==1", "is not a name");
    check("name==\"abc", "no closing quote");
    check("name==\"a\\qb\"", "not a JSON string");
    check("name~=(", "is not a usable regular expression");
    check("name~=", "expected a regular expression");
    check("owner{name}==1", "the path is too deep");
    check("id==urn:x:1", "use the parameters");
    check("观测;observedAt>2020-01-01T00:00:00Z", "at character 4: `observedAt` belongs to an attribute");
    check(&"(".repeat(Q_DEPTH_MAX + 1), "nested more than 32 deep");
    check(&"a".repeat(Q_BYTES_MAX + 1), "more than the limit of 8192");
    check(&format!("a=={}1", "1,".repeat(LIST_VALUES_MAX)), "at most 500 values");

    #[track_caller]
    fn check(q: &str, want: &str) {
        let error = parsed(q).unwrap_err();
        assert_eq!(error.kind, crate::ErrorKind::BadRequestData);
        assert!(error.to_string().contains(want), "{error}");
    }
}

#[test]
fn values_expand_where_it_is_asked() {
    let context = CONTEXTS.core_context();
    let gender = context.expand("gender").unwrap();
    let with = |names: &[Iri]| {
        parse_q("gender==Male", QOptions { context, expand_values: names, link_levels: 0 }).unwrap().filter.matches(&vehicle())
    };
    assert!(with(&[gender]));
    assert!(!with(&[]));
}

#[test]
fn only_attributes_make_a_query_narrow() {
    assert!(parsed("speed>1").unwrap().has_attribute);
    assert!(!parsed("createdAt>2020-01-01T00:00:00Z").unwrap().has_attribute);
}

/// A query over numbers with its meaning by another road: text and truth are made together.
fn oracle() -> impl Strategy<Value = (String, Vec<(usize, i32)>, Tree)> {
    let term = (0..3_usize, 0..6_usize, -3..3_i32).prop_map(|(attribute, op, n)| Tree::Term(attribute, op, n));
    let tree = term.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![prop::collection::vec(inner.clone(), 2..4).prop_map(Tree::All), prop::collection::vec(inner, 2..4).prop_map(Tree::Any),]
    });
    let values = prop::collection::vec((0..3_usize, -3..3_i32), 0..4);
    (tree, values).prop_map(|(tree, values)| (tree.text(), values, tree))
}

#[derive(Debug, Clone)]
enum Tree {
    Term(usize, usize, i32),
    All(Vec<Tree>),
    Any(Vec<Tree>),
}

const OPS: [&str; 6] = ["==", "!=", "<", "<=", ">", ">="];

impl Tree {
    fn text(&self) -> String {
        let joined = |list: &[Self], by: &str| format!("({})", list.iter().map(Self::text).collect::<Vec<_>>().join(by));
        match self {
            Self::Term(a, op, n) => format!("a{a}{}{n}", OPS[*op]),
            Self::All(list) => joined(list, ";"),
            Self::Any(list) => joined(list, "|"),
        }
    }

    fn holds(&self, values: &[Option<i32>; 3]) -> bool {
        match self {
            Self::Term(a, op, n) => values[*a].is_some_and(|v| [v == *n, v != *n, v < *n, v <= *n, v > *n, v >= *n][*op]),
            Self::All(list) => list.iter().all(|t| t.holds(values)),
            Self::Any(list) => list.iter().any(|t| t.holds(values)),
        }
    }
}

proptest! {
    #[test]
    fn queries_mean_what_an_independent_reading_says((text, values, tree) in oracle()) {
        let context = CONTEXTS.core_context();
        let mut entity = Entity::new(Iri::known("urn:x:1"), Iri::known("urn:x:T"));
        let mut by_index = [None; 3];
        for (i, v) in values {
            by_index[i] = Some(v);
            entity.put(context.expand(&format!("a{i}")).unwrap(), Attribute::new(AttributeValue::Property(Value::from(v))));
        }
        prop_assert_eq!(parsed(&text).unwrap().filter.matches(&entity), tree.holds(&by_index), "{}", text);
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "\\PC{0,60}") {
        let _ = parsed(&text);
    }

    #[test]
    fn any_text_of_the_language_s_own_signs_is_parsed_or_refused(text in "[a-c0-9.;|()\\[\\]{}=!~<>,\":\\\\ -]{0,40}") {
        let _ = parsed(&text);
    }
}
