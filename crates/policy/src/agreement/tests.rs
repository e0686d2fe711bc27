use super::*;
use entity::CONURB_NS;
use proptest::prelude::*;
use serde_json::json;

fn iri(s: &str) -> Iri {
    s.parse().unwrap()
}

fn sample() -> Agreement {
    Agreement {
        id: iri("urn:ngsi-ld:Agreement:beijing-guangzhou-air"),
        provider: "beijing".parse().unwrap(),
        consumer: "guangzhou".parse().unwrap(),
        consumer_key: PublicKey::from_bytes([7; 32]),
        types: vec![iri("https://smartdatamodels.org/dataModel.Environment/AirQualityObserved")],
        attributes: Selection::Only(vec![iri("https://smartdatamodels.org/pm25"), iri(entity::LOCATION)]),
        area: Some(square(115.0, 39.0, 118.0, 41.0)),
        position_decimals: Some(2),
        purpose: "regional-air".parse().unwrap(),
        valid_from: "2014-01-01T00:00:00Z".parse().unwrap(),
        valid_until: "2027-01-01T00:00:00Z".parse().unwrap(),
        legal_basis: "Memorandum on joint air control, 2013".into(),
        status: Status::Active,
    }
}

fn square(west: f64, south: f64, east: f64, north: f64) -> Geometry {
    Geometry::from_json(
        json!({"type": "Polygon", "coordinates": [[[west, south], [east, south], [east, north], [west, north], [west, south]]]}),
    )
    .unwrap()
}

#[test]
fn an_agreement_is_an_entity_and_back() {
    let agreement = sample();
    assert_eq!(Agreement::from_entity(&agreement.to_entity()), Ok(agreement.clone()));
    let open = Agreement { attributes: Selection::All, area: None, position_decimals: None, ..agreement };
    assert_eq!(Agreement::from_entity(&open.to_entity()), Ok(open));
}

#[test]
fn lists_of_names_come_in_several_forms() {
    let one = iri("urn:t:A");
    for value in [
        AttributeValue::Vocab(vec![one.clone()]),
        AttributeValue::Property(json!(["urn:t:A"])),
        AttributeValue::Property(json!("urn:t:A")),
        AttributeValue::Property(json!(["urn:t:A", "urn:t:A"])),
        AttributeValue::List(vec![json!("urn:t:A")]),
    ] {
        let e = sample().to_entity().with(Iri::known(term::DATA_TYPES), Attribute::new(value));
        assert_eq!(Agreement::from_entity(&e).unwrap().types, std::slice::from_ref(&one));
    }
    let star = format!("{}*", entity::DEFAULT_CONTEXT_NS);
    for value in [AttributeValue::Property(json!(["*"])), AttributeValue::Vocab(vec![iri(&star)])] {
        let e = sample().to_entity().with(Iri::known(term::DATA_ATTRIBUTES), Attribute::new(value));
        assert_eq!(Agreement::from_entity(&e).unwrap().attributes, Selection::All);
    }
}

#[test]
fn every_wrong_member_is_named_with_found_and_expected() {
    let p = |v: Value| Attribute::property(v);
    check(term::PROVIDER, Some(p(json!("Beijing"))), "`provider` is wrong: `Beijing` is not a city name");
    check(term::PROVIDER, Some(p(json!(4))), "`provider` is a Property with `4`, expected a Property with a city's name");
    check(term::CONSUMER, None, "`consumer` is missing, expected a Property with a city's name");
    check(term::CONSUMER, Some(p(json!("beijing"))), "`consumer` is the provider itself");
    check(term::CONSUMER_KEY, Some(p(json!("ed25519:AAAA"))), "has 3 bytes (expected 32)");
    check(term::DATA_TYPES, Some(p(json!([]))), "`dataTypes` is an empty list");
    check(term::DATA_TYPES, Some(p(json!(["AirQualityObserved"]))), "`AirQualityObserved` is not an absolute URI");
    check(term::DATA_TYPES, Some(p(json!(["*"]))), "`*` is not an absolute URI");
    check(term::DATA_TYPES, Some(p(json!([1]))), "`dataTypes` is a Property with `[1]`");
    check(term::DATA_TYPES, Some(Attribute::new(AttributeValue::Relationship(vec![iri("urn:t:A")]))), "`dataTypes` is a Relationship");
    check(term::DATA_ATTRIBUTES, None, "`dataAttributes` is missing, expected a list of attribute names as full URIs, or [\"*\"]");
    check(term::DATA_ATTRIBUTES, Some(p(json!(["*", "urn:t:pm25"]))), "`*` beside 1 other names");
    check(term::DATA_ATTRIBUTES, Some(p(Value::from(vec!["urn:t:x"; NAMES_MAX + 1]))), "a list of 257 names, expected at most 256");
    check(term::AREA, Some(Attribute::new(AttributeValue::Geo(Geometry::point(1.0, 1.0)))), "`area` is a Point");
    let bow = json!({"type": "Polygon", "coordinates": [[[0, 0], [2, 2], [2, 0], [0, 2], [0, 0]]]});
    check(term::AREA, Some(Attribute::new(AttributeValue::Geo(Geometry::from_json(bow).unwrap()))), "`area` is");
    check(term::AREA, Some(p(json!("everywhere"))), "`area` is a Property");
    check(
        term::POSITION_DECIMALS,
        Some(p(json!(9))),
        "`positionDecimals` is a Property with `9`, expected a Property with a whole number from 0 to 8",
    );
    check(term::POSITION_DECIMALS, Some(p(json!(-1))), "`positionDecimals`");
    check(term::POSITION_DECIMALS, Some(p(json!(1.5))), "`positionDecimals`");
    check(term::PURPOSE, Some(p(json!("  "))), "`purpose` is wrong");
    check(term::VALID_FROM, Some(p(json!("2014-01-01"))), "`validFrom` is wrong: `2014-01-01` is not a date-time");
    check(term::VALID_UNTIL, Some(p(json!("2014-01-01T00:00:00Z"))), "expected an instant after validFrom");
    check(term::LEGAL_BASIS, Some(p(json!(""))), "`legalBasis` is a text of 0 characters");
    check(term::STATUS, Some(p(json!("on"))), "`on` is not a status");
    let typo = format!("{}positionDecimal", entity::DEFAULT_CONTEXT_NS);
    check(
        &typo,
        Some(p(json!(1))),
        "`positionDecimal` is `https://uri.etsi.org/ngsi-ld/default-context/positionDecimal`, which is not part of",
    );

    #[track_caller]
    fn check(member: &str, attribute: Option<Attribute>, want: &str) {
        let mut e = sample().to_entity();
        match attribute {
            Some(a) => e.put(iri(member), a),
            None => drop(e.attributes.shift_remove(member)),
        }
        let error = Agreement::from_entity(&e).unwrap_err();
        assert_eq!(error.problems.len(), 1, "{error}");
        assert!(error.to_string().contains(want), "{error}");
    }
}

#[test]
fn a_second_instance_is_ambiguous_and_refused() {
    let mut second = Attribute::property("traffic");
    second.dataset_id = Some(iri("urn:d:2"));
    let e = sample().to_entity().with(iri(term::PURPOSE), second);
    assert!(Agreement::from_entity(&e).unwrap_err().to_string().contains("`purpose` is 2 instances"));
}

#[test]
fn all_problems_are_told_at_once() {
    let e = Entity::new(iri("urn:x:1"), iri("urn:t:Car"));
    let error = Agreement::from_entity(&e).unwrap_err();
    let members: Vec<_> = error.problems.iter().map(|p| p.member.as_str()).collect();
    let want = "type provider consumer consumerKey dataTypes dataAttributes purpose validFrom validUntil legalBasis agreementStatus";
    assert_eq!(members.join(" "), want);
    assert!(
        error.to_string().starts_with("entity `urn:x:1` is not a usable agreement: `type` is `urn:t:Car`, expected `https://conurb.org")
    );
}

#[test]
fn descriptions_may_be_in_any_namespace() {
    let e = sample().to_entity().with(iri("https://schema.org/description"), Attribute::property("air"));
    assert_eq!(Agreement::from_entity(&e), Ok(sample()));
}

#[test]
fn typed_values_stand_for_their_value() {
    let typed = json!({"@type": "DateTime", "@value": "2014-01-01T00:00:00Z"});
    let e = sample().to_entity().with(iri(&format!("{CONURB_NS}validFrom")), Attribute::property(typed));
    assert_eq!(Agreement::from_entity(&e), Ok(sample()));
}

#[test]
fn the_contract_reads_well_in_both_languages() {
    let key = sample().consumer_key;
    let en = format!(
        "beijing lets guangzhou read AirQualityObserved for the purpose \"regional-air\".\n\
         Only these attributes are shared: pm25, location.\n\
         Only what lies wholly within the agreed area is shared (115.000..118.000°E, 39.000..41.000°N).\n\
         Positions are rounded to 2 decimals of a degree (a grid of about 1.1 km).\n\
         In force from 2014-01-01 until 2027-01-01 (UTC, end excluded).\n\
         It is active.\n\
         Legal basis: Memorandum on joint air control, 2013.\n\
         Only questions signed with the key {key} are answered."
    );
    assert_eq!(sample().describe(Lang::En), en);
    let zh = format!(
        "beijing 允许 guangzhou 读取 AirQualityObserved，用途为“regional-air”。\n\
         仅共享以下属性：pm25、location。\n\
         仅共享完全位于约定区域内的对象（115.000..118.000°E, 39.000..41.000°N）。\n\
         位置四舍五入到 2 位小数（度），网格约 1.1 km。\n\
         有效期自 2014-01-01 起至 2027-01-01 止（UTC，不含终点）。\n\
         状态：生效中。\n\
         法律依据：Memorandum on joint air control, 2013。\n\
         只回答由密钥 {key} 签名的询问。"
    );
    assert_eq!(sample().describe(Lang::Zh), zh);
}

#[test]
fn the_contract_names_what_is_not_limited() {
    let a = Agreement { attributes: Selection::All, area: None, position_decimals: None, status: Status::Suspended, ..sample() };
    let en = a.describe(Lang::En);
    for part in ["All attributes", "The place does not matter.", "Positions are exact.", "suspended: guangzhou sees nothing"] {
        assert!(en.contains(part), "{en}");
    }
    let zh = a.describe(Lang::Zh);
    for part in ["全部属性", "不限地点", "精确值", "已中止"] {
        assert!(zh.contains(part), "{zh}");
    }
}

fn any_names() -> impl Strategy<Value = Vec<Iri>> {
    proptest::collection::btree_set("urn:t:[a-z]{1,8}", 1..6).prop_map(|s| s.iter().map(|t| iri(t)).collect())
}

prop_compose! {
    fn any_agreement()(
        types in any_names(),
        attributes in proptest::option::of(any_names()),
        key: [u8; 32],
        decimals in proptest::option::of(0..=8u8),
        from in 0i64..2_000_000_000,
        length_s in 1i64..2_000_000_000,
        west in proptest::option::of(-170.0..170.0f64),
        status in prop_oneof![Just(Status::Offered), Just(Status::Active), Just(Status::Suspended), Just(Status::Revoked)],
        purpose in "[a-z][a-z ]{0,20}[a-z]",
        legal in "[\\p{Han}a-z][\\p{Han}a-z ]{0,20}[\\p{Han}a-z]",
    ) -> Agreement {
        Agreement {
            types,
            attributes: attributes.map_or(Selection::All, Selection::Only),
            consumer_key: PublicKey::from_bytes(key),
            position_decimals: decimals,
            valid_from: Instant::from_secs(from),
            valid_until: Instant::from_secs(from + length_s),
            area: west.map(|w| square(w, -10.0, w + 5.0, 10.0)),
            status,
            purpose: purpose.parse().unwrap(),
            legal_basis: legal,
            ..sample()
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_as_an_entity_is_read_back(agreement in any_agreement()) {
        prop_assert_eq!(Agreement::from_entity(&agreement.to_entity()), Ok(agreement));
    }

    #[test]
    fn any_value_of_any_member_gives_an_answer_not_a_panic(member in 0..12usize, text in "\\PC{0,30}", n in any::<f64>(), form in 0..4) {
        let value = match form {
            0 => json!(text),
            1 => json!([text, n]),
            2 => json!(n),
            _ => json!({"@value": text}),
        };
        let e = sample().to_entity().with(iri(term::MEMBERS[member]), Attribute::property(value));
        if let Ok(read) = Agreement::from_entity(&e) {
            prop_assert_eq!(Agreement::from_entity(&read.to_entity()), Ok(read));
        }
    }
}
