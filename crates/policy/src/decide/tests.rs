use super::*;
use crate::Selection;

const KEY: PublicKey = PublicKey::from_bytes([1; 32]);
const OTHER_KEY: PublicKey = PublicKey::from_bytes([2; 32]);

fn city(s: &str) -> CityName {
    s.parse().unwrap()
}

fn at(s: &str) -> Instant {
    s.parse().unwrap()
}

fn agreement(n: u32) -> Agreement {
    Agreement {
        id: format!("urn:a:{n}").parse().unwrap(),
        provider: city("beijing"),
        consumer: city("guangzhou"),
        consumer_key: KEY,
        types: vec!["urn:t:Air".parse().unwrap()],
        attributes: Selection::All,
        area: None,
        position_decimals: None,
        purpose: "air".parse().unwrap(),
        valid_from: at("2025-01-01T00:00:00Z"),
        valid_until: at("2026-01-01T00:00:00Z"),
        legal_basis: "memorandum".into(),
        status: Status::Active,
    }
}

fn request() -> Request {
    Request {
        principal: Principal::Peer { city: city("guangzhou"), key: KEY },
        action: Action::Read,
        purpose: Some("air".parse().unwrap()),
        now: at("2025-06-01T00:00:00Z"),
    }
}

fn decide(agreements: Vec<Agreement>, request: &Request) -> Decision {
    PolicySet::compile(city("beijing"), agreements).decide(request)
}

#[track_caller]
fn denied(agreements: Vec<Agreement>, request: &Request) -> Denial {
    match decide(agreements, request) {
        Decision::Deny(denial) => denial,
        Decision::Permit(p) => panic!("permitted: {p:?}"),
    }
}

#[track_caller]
fn check(agreements: Vec<Agreement>, request: &Request, code: &str, want: &str) {
    let denial = denied(agreements, request);
    assert_eq!((denial.code(), denial.to_string().as_str()), (code, want));
    let zh = denial.explain(Lang::Zh);
    assert!(zh.contains("beijing") && zh.contains(|c: char| ('\u{4e00}'..'\u{9fff}').contains(&c)), "{zh}");
}

#[test]
fn an_agreement_in_force_permits() {
    let Decision::Permit(permit) = decide(vec![agreement(2), agreement(1)], &request()) else { panic!("denied") };
    assert_eq!(permit.agreements(), ["urn:a:1".parse().unwrap(), "urn:a:2".parse::<Iri>().unwrap()]);
}

#[test]
fn operators_may_do_everything_and_nobody_nothing() {
    for action in [Action::Read, Action::Write, Action::Administer] {
        let operator = Request { principal: Principal::Operator { name: "duty".into() }, action, purpose: None, ..request() };
        assert_eq!(decide(vec![], &operator), Decision::Permit(Permit::Everything));
        let nobody = Request { principal: Principal::Anonymous, action, ..request() };
        assert_eq!(denied(vec![agreement(1)], &nobody).code(), "anonymous");
    }
}

#[test]
fn without_an_agreement_the_peer_is_told_so() {
    const WANT: &str = "no agreement in force lets `guangzhou` read from `beijing`";
    check(vec![], &request(), "no-agreement", WANT);
    check(vec![Agreement { consumer: city("shenzhen"), ..agreement(1) }], &request(), "no-agreement", WANT);
    // What another city provides is not ours to give.
    check(vec![Agreement { provider: city("shanghai"), ..agreement(1) }], &request(), "no-agreement", WANT);
    let peer = Request { action: Action::Write, ..request() };
    check(
        vec![agreement(1)],
        &peer,
        "only-reading",
        "no agreement can let `guangzhou` write to `beijing`: agreements between cities are about reading",
    );
}

#[test]
fn each_obstacle_is_told_apart() {
    let base = "no agreement in force lets `guangzhou` read from `beijing`: ";
    let one = |a: Agreement, r: &Request, code: &str, why: &str| check(vec![a], r, code, &format!("{base}{why}"));
    let r = request();
    let later = Request { now: at("2026-01-01T00:00:00Z"), ..r.clone() };
    let earlier = Request { now: at("2024-12-31T23:59:59Z"), ..r.clone() };
    one(agreement(1), &later, "expired", "agreement `urn:a:1` expired at 2026-01-01T00:00:00Z");
    one(agreement(1), &earlier, "not-yet-valid", "agreement `urn:a:1` is in force only from 2025-01-01T00:00:00Z");
    one(Agreement { status: Status::Suspended, ..agreement(1) }, &r, "suspended", "agreement `urn:a:1` is suspended");
    one(Agreement { status: Status::Revoked, ..agreement(1) }, &r, "revoked", "agreement `urn:a:1` is revoked");
    one(Agreement { status: Status::Offered, ..agreement(1) }, &r, "not-accepted", "agreement `urn:a:1` is offered, but not accepted yet");
    let traffic = Request { purpose: Some("traffic".parse().unwrap()), ..r.clone() };
    one(agreement(1), &traffic, "other-purpose", "agreement `urn:a:1` is for the purpose `air`, the question says `traffic`");
    let none = Request { purpose: None, ..r.clone() };
    one(agreement(1), &none, "no-purpose", "agreement `urn:a:1` is for the purpose `air`, the question states none");
    one(
        Agreement { consumer_key: OTHER_KEY, ..agreement(1) },
        &r,
        "other-key",
        "the question is signed with another key than the agreements with `guangzhou` name",
    );
}

#[test]
fn the_period_is_half_open() {
    let on = |s: &str| matches!(decide(vec![agreement(1)], &Request { now: at(s), ..request() }), Decision::Permit(_));
    assert!(on("2025-01-01T00:00:00Z") && on("2025-12-31T23:59:59.999999Z"));
    assert!(!on("2024-12-31T23:59:59.999999Z") && !on("2026-01-01T00:00:00Z"));
}

#[test]
fn the_nearest_obstacle_comes_first_and_one_good_agreement_is_enough() {
    let revoked = Agreement { status: Status::Revoked, ..agreement(1) };
    let traffic = Agreement { purpose: "traffic".parse().unwrap(), ..agreement(2) };
    let denial = denied(vec![revoked.clone(), traffic.clone()], &request());
    assert_eq!(denial.code(), "other-purpose");
    assert!(
        denial
            .to_string()
            .ends_with("agreement `urn:a:2` is for the purpose `traffic`, the question says `air`; agreement `urn:a:1` is revoked")
    );
    let Decision::Permit(permit) = decide(vec![revoked, traffic, agreement(3)], &request()) else { panic!("denied") };
    assert_eq!(permit.agreements(), ["urn:a:3".parse::<Iri>().unwrap()]);
}

#[test]
fn who_has_another_key_learns_no_purpose_and_no_id() {
    let a = Agreement { consumer_key: OTHER_KEY, purpose: "secret-purpose".parse().unwrap(), ..agreement(1) };
    let denial = denied(vec![a.clone()], &request());
    let text = denial.to_string() + &denial.explain(Lang::Zh);
    assert!(!text.contains("secret-purpose") && !text.contains("urn:a:1"), "{text}");
    let mixed = denied(vec![a, Agreement { status: Status::Revoked, ..agreement(2) }], &request()).to_string();
    assert!(!mixed.contains("urn:a:1") && mixed.contains("`urn:a:2` is revoked"), "{mixed}");
}

#[test]
fn decisions_explain_themselves() {
    assert_eq!(decide(vec![agreement(1)], &request()).explain(Lang::En), "permitted by `urn:a:1`");
    assert!(decide(vec![agreement(1)], &request()).explain(Lang::Zh).contains("urn:a:1"));
    assert!(decide(vec![], &request()).explain(Lang::En).contains("no agreement in force"));
}
