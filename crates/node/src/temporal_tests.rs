use proptest::prelude::*;
use serde_json::json;
use store::history::memory::MemoryHistory;
use store::history::{Fact, History, What};

use super::*;

fn at(s: i64) -> Instant {
    Instant::from_secs(s)
}

fn iri(short: &str) -> Iri {
    Iri::known(&format!("https://example.org/{short}"))
}

fn entity() -> Iri {
    Iri::known("urn:ngsi-ld:Station:a")
}

fn fact(name: &str, observed_s: Option<i64>, recorded_s: i64, value: AttributeValue) -> Fact {
    let recorded_at = at(recorded_s);
    let instance =
        Attribute { observed_at: observed_s.map(at), created_at: recorded_at, modified_at: recorded_at, ..Attribute::new(value) };
    Fact { entity_type: iri("Station"), entity: entity(), recorded_at, what: What::Value { name: iri(name), instance: instance.into() } }
}

fn property(name: &str, observed_s: i64, value: impl Into<Value>) -> Fact {
    fact(name, Some(observed_s), observed_s, AttributeValue::Property(value.into()))
}

fn query(methods: &[Method], period: Period, interval: Option<Range<Instant>>) -> PeriodQuery {
    PeriodQuery {
        temporal: TemporalQuery {
            entity: entity(),
            attributes: None,
            interval,
            time_property: TimeProperty::ObservedAt,
            last_n: None,
            as_of: None,
            instances_max: 10_000,
        },
        datasets: None,
        methods: methods.to_vec(),
        period,
    }
}

/// Value, start and end in seconds.
type Shown = Vec<(Value, i64, i64)>;

fn shown(values: &[PeriodValues], name: &str, method: Method) -> Shown {
    let of_name = values.iter().filter(|v| v.name == iri(name)).flat_map(|v| &v.series);
    let secs = |at: Instant| at.micros() / 1_000_000;
    of_name.filter(|(m, _)| *m == method).flat_map(|(_, list)| list).map(|(v, a, b)| (v.clone(), secs(*a), secs(*b))).collect()
}

fn from_instances(history: &MemoryHistory, query: &PeriodQuery) -> Result<Vec<PeriodValues>, NodeError> {
    over_periods(query, &history.evolution(&query.temporal).unwrap().unwrap())
}

fn from_columns(history: &MemoryHistory, query: &PeriodQuery, names: &[&str]) -> Vec<PeriodValues> {
    let names = names.iter().map(|n| iri(n)).collect();
    columns_over_periods(query, &iri("Station"), names, &|q| Ok(history.aggregate(q)?)).unwrap()
}

#[test]
fn periods_begin_with_the_interval_and_end_with_it() {
    let history = MemoryHistory::default();
    history.append(vec![property("t", 100, 4), property("t", 130, 2), property("t", 330, 1.5), property("t", 400, 9)]);
    let four_minutes = Period::Micros(120_000_000);
    check(four_minutes, Some(at(90)..at(400)), &[(json!(6), 90, 210), (json!(1.5), 330, 400)]);
    check(four_minutes, Some(Instant::MIN..at(350)), &[(json!(6), 100, 220), (json!(1.5), 220, 340)]);
    check(four_minutes, Some(at(120)..Instant::MAX), &[(json!(2), 120, 240), (json!(1.5), 240, 360), (json!(9), 360, 480)]);
    check(Period::Whole, Some(at(90)..at(400)), &[(json!(7.5), 90, 400)]);
    check(Period::Whole, None, &[(json!(16.5), 100, 400)]);
    check(Period::Months(1), None, &[(json!(16.5), 100, 100 + 31 * 86_400)]);

    #[track_caller]
    fn check(period: Period, interval: Option<Range<Instant>>, want: &[(Value, i64, i64)]) {
        let history = MemoryHistory::default();
        history.append(vec![property("t", 100, 4), property("t", 130, 2), property("t", 330, 1.5), property("t", 400, 9)]);
        let query = query(&[Method::Sum], period, interval);
        assert_eq!(shown(&from_columns(&history, &query, &["t"]), "t", Method::Sum), want, "columns");
        assert_eq!(shown(&from_instances(&history, &query).unwrap(), "t", Method::Sum), want, "instances");
    }
}

#[test]
fn each_kind_of_value_has_the_methods_that_make_sense_for_it() {
    let relationship = |targets: &[&str]| AttributeValue::Relationship(targets.iter().map(|t| Iri::known(&format!("urn:{t}"))).collect());
    let history = MemoryHistory::default();
    history.append(vec![
        property("text", 1, "b"),
        property("text", 2, "a"),
        property("text", 3, "b"),
        property("open", 1, true),
        property("open", 2, false),
        property("list", 1, json!([1, 2, 3])),
        property("object", 1, json!({"a": 1})),
        fact("near", Some(1), 1, relationship(&["x"])),
        fact("near", Some(2), 2, relationship(&["x", "y"])),
        // Never matches: it was not observed.
        fact("text", None, 4, AttributeValue::Property(json!("z"))),
    ]);
    let all =
        [Method::TotalCount, Method::DistinctCount, Method::Sum, Method::Avg, Method::Min, Method::Max, Method::StdDev, Method::SumSq];
    let answer = from_instances(&history, &query(&all, Period::Whole, None)).unwrap();
    let check = |name: &str, want: &[(Method, Value)]| {
        let found: Vec<(Method, Value)> =
            all.iter().filter_map(|m| shown(&answer, name, *m).first().map(|(v, ..)| (*m, v.clone()))).collect();
        assert_eq!(found, want, "{name}");
    };
    check(
        "text",
        &[(Method::TotalCount, json!(3)), (Method::DistinctCount, json!(2)), (Method::Min, json!("a")), (Method::Max, json!("b"))],
    );
    let open = [(1, 2), (1, 2)].map(|(a, b)| f64::from(a) / f64::from(b));
    check(
        "open",
        &[
            (Method::TotalCount, json!(2)),
            (Method::DistinctCount, json!(2)),
            (Method::Sum, json!(1)),
            (Method::Avg, json!(open[0])),
            (Method::Min, json!(0)),
            (Method::Max, json!(1)),
            (Method::StdDev, json!(0.5)),
            (Method::SumSq, json!(1)),
        ],
    );
    let sizes = [Method::Sum, Method::Avg, Method::Min, Method::Max].map(|m| (m, json!(3)));
    check("list", &[vec![(Method::TotalCount, json!(1)), (Method::DistinctCount, json!(1))], sizes.to_vec()].concat());
    check("object", &[(Method::TotalCount, json!(1)), (Method::DistinctCount, json!(1))]);
    check("near", &[(Method::TotalCount, json!(2)), (Method::DistinctCount, json!(2))]);
    assert!(answer.iter().all(|v| v.is_relationship == (v.name == iri("near"))));
    let answer = from_instances(&history, &query(&[Method::StdDev], Period::Whole, None)).unwrap();
    assert_eq!(answer.iter().map(|v| v.name.clone()).collect::<Vec<_>>(), [iri("open")], "what makes no sense is left out");
    let named = |name: &str| PeriodQuery {
        temporal: TemporalQuery { attributes: Some(vec![iri(name)]), ..query(&[], Period::Whole, None).temporal },
        ..query(&[Method::StdDev], Period::Whole, None)
    };
    let error = from_instances(&history, &named("text")).unwrap_err();
    assert!(error.to_string().contains("none of the aggregation methods makes sense"), "{error}");
}

#[test]
fn limits_are_errors() {
    let history = MemoryHistory::default();
    history.append((0..20).map(|s| property("t", s, s)).collect());
    let cut = PeriodQuery {
        temporal: TemporalQuery { instances_max: 5, ..query(&[], Period::Whole, None).temporal },
        ..query(&[Method::Sum], Period::Whole, None)
    };
    assert!(from_instances(&history, &cut).unwrap_err().to_string().contains("more than 5 instances"));
    assert!(PeriodQuery::check_periods(PERIODS_MAX + 1).is_err() && PeriodQuery::check_periods(PERIODS_MAX).is_ok());
}

proptest! {
    #[test]
    fn columns_and_instances_agree(
        values in prop::collection::vec((0_i64..500, any::<bool>(), -100_i32..100), 1..60),
        (from, length) in (0_i64..400, 1_i64..300),
        ends in 0_u8..4,
        width in prop::option::of(1_i64..100),
    ) {
        let history = MemoryHistory::default();
        let fact = |(i, (s, first, v)): (usize, &(i64, bool, i32))| {
            fact(if *first { "t" } else { "u" }, Some(*s), 1_000 + i as i64, AttributeValue::Property(json!(f64::from(*v) / 4.0)))
        };
        history.append(values.iter().enumerate().map(fact).collect());
        let interval = match ends {
            0 => None,
            1 => Some(Instant::MIN..at(from)),
            2 => Some(at(from)..Instant::MAX),
            _ => Some(at(from)..at(from + length)),
        };
        let methods = [Method::TotalCount, Method::Sum, Method::Avg, Method::Min, Method::Max, Method::SumSq];
        let query = query(&methods, width.map_or(Period::Whole, |w| Period::Micros(w * 1_000_000)), interval);
        prop_assert_eq!(from_columns(&history, &query, &["t", "u"]), from_instances(&history, &query).unwrap());
    }
}
