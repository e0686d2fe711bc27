//! Three cities, as bytes on a wire: Beijing shares a part of its air data with Guangzhou and nothing with Shanghai.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;

use entity::{Attribute, AttributeValue, CONURB_NS, Entity, Filter, Geometry, Instant, Iri, LOCATION};
use federation::signature::{self, MessageParts, NonceCache, Receiver, ResponseParts};
use federation::{
    Answer, CityKey, CityName, CityResult, Contribution, Kind, Member, Outcome, Peers, PublicKey, Question, SourceStatus, merge_entities,
};
use policy::{Action, Agreement, Decision, PolicySet, Principal, Request, Selection, Shared, Status};
use serde_json::json;

fn iri(s: &str) -> Iri {
    s.parse().unwrap()
}

fn city(s: &str) -> CityName {
    s.parse().unwrap()
}

/// A city's node, without the sockets.
struct Node {
    name: CityName,
    key: CityKey,
    clock: Instant,
    entities: Vec<Entity>,
    policies: PolicySet,
    peers: Peers,
    nonces: NonceCache,
    n_asked: u8,
    reachable: bool,
}

type Wire = (Vec<(String, String)>, Vec<u8>);

fn headers_of(wire: &Wire) -> Vec<(&str, &str)> {
    wire.0.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect()
}

fn seed_of(name: &str) -> [u8; 32] {
    let mut seed = [0; 32];
    seed[..name.len()].copy_from_slice(name.as_bytes());
    seed
}

fn public(name: &str) -> PublicKey {
    *CityKey::from_seed(&seed_of(name)).public()
}

const CITIES: [&str; 3] = ["beijing", "guangzhou", "shanghai"];

impl Node {
    fn new(name: &str, agreements: Vec<Agreement>, entities: Vec<Entity>) -> Self {
        let others =
            CITIES.iter().filter(|c| **c != name).map(|c| Member::new(city(c), &format!("http://{c}.example"), public(c)).unwrap());
        let clock = "2026-03-01T00:00:00Z".parse().unwrap();
        Self {
            name: city(name),
            key: CityKey::from_seed(&seed_of(name)),
            clock,
            entities,
            policies: PolicySet::compile(city(name), agreements),
            peers: Peers::new(&city(name), others, clock).unwrap(),
            nonces: NonceCache::new(),
            n_asked: 0,
            reachable: true,
        }
    }

    fn answer(&mut self, wire: &Wire) -> Result<Wire, String> {
        let body = &wire.1;
        let request = MessageParts { method: "POST", target: "/peer/v1/ask", authority: None, headers: headers_of(wire), body };
        let members = |k: &PublicKey| self.peers.city_of(k).cloned();
        let receiver = Receiver { city: &self.name, members: &members, now: self.clock };
        let asker = signature::verify_request(&request, &receiver, &mut self.nonces).map_err(|e| e.to_string())?;
        let question = Question::decode(body).map_err(|e| e.to_string())?;
        question.is_from(&asker.city).map_err(|e| e.to_string())?;
        let decision = self.policies.decide(&Request {
            principal: Principal::Peer { city: asker.city, key: asker.key },
            action: Action::Read,
            purpose: Some(question.purpose.clone()),
            now: self.clock,
        });
        let answer = match decision {
            Decision::Deny(denial) => Answer::denied(&question, self.name.clone(), self.clock, &denial),
            Decision::Permit(permit) => {
                let condition = question.condition();
                let entities: Vec<Shared> = self.entities.iter().filter_map(|e| permit.answer(&condition, e)).collect();
                let outcome = Outcome::Entities { agreements: permit.agreements(), entities, truncated: false };
                Answer { question: question.id, city: self.name.clone(), answered_at: self.clock, outcome }
            }
        };
        let body = answer.encode();
        let response = ResponseParts { status: 200, headers: Vec::new(), body: &body };
        let headers = signature::sign_response(&request, &response, &self.key, self.clock).map_err(|e| e.to_string())?;
        Ok((headers.into_iter().map(|(n, v)| (n.to_owned(), v)).collect(), body))
    }

    fn signed(&self, question: &Question, to: &CityName) -> Wire {
        let body = question.encode();
        let request = MessageParts { method: "POST", target: "/peer/v1/ask", authority: None, headers: Vec::new(), body: &body };
        let headers = signature::sign_request(&request, &self.key, to, self.clock, &[self.n_asked; 16]);
        (headers.into_iter().map(|(n, v)| (n.to_owned(), v)).collect(), body)
    }

    fn read(&self, question: &Question, sent: &Wire, got: &Wire, from: &Member) -> Result<Outcome, String> {
        let request = MessageParts { method: "POST", target: "/peer/v1/ask", authority: None, headers: headers_of(sent), body: &sent.1 };
        let response = ResponseParts { status: 200, headers: headers_of(got), body: &got.1 };
        signature::verify_response(&request, &response, &from.key, self.clock).map_err(|e| e.to_string())?;
        let answer = Answer::decode(&got.1).map_err(|e| e.to_string())?;
        answer.fits(question, &from.name).map_err(|e| e.to_string())?;
        Ok(answer.outcome)
    }
}

struct Cluster(BTreeMap<CityName, Node>);

impl Cluster {
    fn new(agreements: &[Agreement]) -> Self {
        let with = |name: &str, entities: Vec<Entity>| {
            let own = agreements.iter().filter(|a| a.provider.as_str() == name).cloned().collect();
            (city(name), Node::new(name, own, entities))
        };
        Self(BTreeMap::from([
            with(
                "beijing",
                vec![
                    station("Gucheng", 116.2254, 39.9279, 35),
                    station("Daxing", 116.4046, 39.7181, 80),
                    station("Miyun", 118.9, 40.3, 20),
                ],
            ),
            with("guangzhou", vec![station("Tianhe", 113.3612, 23.1246, 44)]),
            with("shanghai", vec![station("Pudong", 121.5447, 31.2216, 51)]),
        ]))
    }

    /// Asks all cities, as the node of `from` does when its own user asks.
    fn ask(&mut self, from: &str, filter: &Filter) -> federation::MergedEntities {
        let from = city(from);
        let asker = self.0.get_mut(&from).unwrap();
        asker.n_asked += 1;
        let now = asker.clock;
        let question = Question {
            id: format!("q-{}", asker.n_asked),
            from: from.clone(),
            purpose: "regional-air".parse().unwrap(),
            filter: filter.clone(),
            types: None,
            attributes: None,
            limit: 100,
            kind: Kind::Entities,
        };
        let local: Vec<Shared> =
            asker.entities.iter().filter(|e| filter.matches(e)).map(|e| Shared { entity: e.clone(), agreements: vec![] }).collect();
        let outcome = Outcome::Entities { agreements: vec![], entities: local, truncated: false };
        let contribution =
            |city: &CityName, result| Contribution { city: city.clone(), local: *city == from, received_at: now, latency_us: None, result };
        let mut all = vec![contribution(&from, CityResult::Answered(outcome))];
        let others: Vec<CityName> = asker.peers.iter().map(|p| p.member.name.clone()).collect();
        for other in others {
            let result = match self.0.get_mut(&from).unwrap().peers.ask(&other, now).unwrap() {
                Err(not_asked) => CityResult::Unreachable { reason: not_asked.to_string() },
                Ok(member) => self.exchange(&from, &member, &question),
            };
            all.push(contribution(&other, result));
        }
        merge_entities(all, now)
    }

    fn exchange(&mut self, from: &CityName, member: &Member, question: &Question) -> CityResult {
        let sent = self.0[from].signed(question, &member.name);
        let peer = self.0.get_mut(&member.name).unwrap();
        if !peer.reachable {
            let now = self.0[from].clock;
            self.0.get_mut(from).unwrap().peers.on_failure(&member.name, now, "connection refused");
            return CityResult::Unreachable { reason: "connection refused".into() };
        }
        let got = peer.answer(&sent);
        let asker = self.0.get_mut(from).unwrap();
        match got.and_then(|got| asker.read(question, &sent, &got, member)) {
            Ok(outcome) => {
                asker.peers.on_answer(&member.name, asker.clock, 1_000);
                CityResult::Answered(outcome)
            }
            Err(reason) => CityResult::Unusable { reason },
        }
    }
}

fn station(name: &str, lon: f64, lat: f64, pm25: i64) -> Entity {
    Entity::new(iri(&format!("urn:ngsi-ld:AirQualityObserved:{name}")), iri("urn:t:AirQualityObserved"))
        .with(iri("urn:p:pm25"), Attribute::property(pm25))
        .with(iri("urn:p:operatorPhone"), Attribute::property("010-1234"))
        .with(iri(LOCATION), Attribute::new(AttributeValue::Geo(Geometry::point(lon, lat))))
}

fn agreement() -> Agreement {
    let square = json!({"type": "Polygon", "coordinates": [[[115.4, 39.4], [117.6, 39.4], [117.6, 41.1], [115.4, 41.1], [115.4, 39.4]]]});
    let agreement = Agreement {
        id: iri("urn:ngsi-ld:Agreement:beijing-guangzhou"),
        provider: city("beijing"),
        consumer: city("guangzhou"),
        consumer_key: public("guangzhou"),
        types: vec![iri("urn:t:AirQualityObserved")],
        attributes: Selection::Only(vec![iri("urn:p:pm25"), iri(LOCATION)]),
        area: Some(Geometry::from_json(square).unwrap()),
        position_decimals: Some(1),
        purpose: "regional-air".parse().unwrap(),
        valid_from: "2026-01-01T00:00:00Z".parse().unwrap(),
        valid_until: "2027-01-01T00:00:00Z".parse().unwrap(),
        legal_basis: "memorandum".into(),
        status: Status::Active,
    };
    // As the node does it: the agreement comes from an entity.
    Agreement::from_entity(&agreement.to_entity()).unwrap()
}

fn status_of(merged: &federation::MergedEntities, name: &str) -> (SourceStatus, usize, String) {
    let s = merged.sources.iter().find(|s| s.city.as_str() == name).unwrap();
    (s.status, s.count, s.detail.clone().unwrap_or_default())
}

#[test]
fn guangzhou_sees_beijings_permitted_part_with_its_origin() {
    let merged = Cluster::new(&[agreement()]).ask("guangzhou", &Filter::all());
    assert_eq!(status_of(&merged, "beijing"), (SourceStatus::Ok, 2, String::new()));
    assert_eq!(status_of(&merged, "guangzhou"), (SourceStatus::Ok, 1, String::new()));
    let denied = "no agreement in force lets `guangzhou` read from `shanghai`".to_owned();
    assert_eq!(status_of(&merged, "shanghai"), (SourceStatus::Denied, 0, denied));
    let ids: Vec<_> = merged.entities.iter().map(|e| e.id.local_name()).collect();
    assert_eq!(ids, ["Daxing", "Gucheng", "Tianhe"], "Miyun lies outside the area");
    let gucheng = &merged.entities[1];
    assert_eq!(gucheng.location().unwrap().json()["coordinates"], json!([116.2, 39.9]), "rounded");
    assert!(gucheng.attribute("urn:p:operatorPhone").is_none());
    let provenance = gucheng.attribute(&format!("{CONURB_NS}provenance")).unwrap();
    let want = json!({"city": "beijing", "agreement": "urn:ngsi-ld:Agreement:beijing-guangzhou", "receivedAt": "2026-03-01T00:00:00Z"});
    assert_eq!(provenance.value, AttributeValue::Json(want));
}

#[test]
fn a_question_cannot_probe_what_is_hidden() {
    let mut cluster = Cluster::new(&[agreement()]);
    let merged = cluster.ask("guangzhou", &Filter::HasAnyOf(vec![iri("urn:p:operatorPhone")]));
    assert_eq!(status_of(&merged, "beijing"), (SourceStatus::Ok, 0, String::new()));
    assert_eq!(status_of(&merged, "guangzhou").1, 1, "of its own city a user sees all");
}

#[test]
fn shanghai_is_denied_with_the_reason() {
    let merged = Cluster::new(&[agreement()]).ask("shanghai", &Filter::all());
    let reason = "no agreement in force lets `shanghai` read from `beijing`".to_owned();
    assert_eq!(status_of(&merged, "beijing"), (SourceStatus::Denied, 0, reason));
    assert_eq!(merged.entities.len(), 1);
}

#[test]
fn an_agreement_that_ended_ends_the_sharing() {
    for (change, want) in [
        (Agreement { status: Status::Revoked, ..agreement() }, "is revoked"),
        (Agreement { valid_until: "2026-02-01T00:00:00Z".parse().unwrap(), ..agreement() }, "expired at 2026-02-01T00:00:00Z"),
    ] {
        let (status, count, detail) = status_of(&Cluster::new(&[change]).ask("guangzhou", &Filter::all()), "beijing");
        assert_eq!((status, count), (SourceStatus::Denied, 0));
        assert!(detail.contains(want), "{detail}");
    }
}

#[test]
fn a_city_that_is_down_degrades_the_answer_and_comes_back() {
    let mut cluster = Cluster::new(&[agreement()]);
    cluster.0.get_mut(&city("beijing")).unwrap().reachable = false;
    let merged = cluster.ask("guangzhou", &Filter::all());
    assert_eq!(status_of(&merged, "beijing"), (SourceStatus::Unreachable, 0, "connection refused".into()));
    assert_eq!(merged.entities.len(), 1, "the own data are there");
    cluster.0.get_mut(&city("beijing")).unwrap().reachable = true;
    let (status, _, detail) = status_of(&cluster.ask("guangzhou", &Filter::all()), "beijing");
    assert_eq!(status, SourceStatus::Unreachable, "not asked again at once");
    assert!(detail.contains("does not answer since 2026-03-01T00:00:00Z (connection refused)"), "{detail}");
    for node in cluster.0.values_mut() {
        node.clock = node.clock.plus_micros(1_000_000);
    }
    assert_eq!(status_of(&cluster.ask("guangzhou", &Filter::all()), "beijing").0, SourceStatus::Ok);
}

#[test]
fn a_received_question_cannot_be_passed_on_or_replayed() {
    let mut cluster = Cluster::new(&[agreement()]);
    let question = Question {
        id: "q".into(),
        from: city("guangzhou"),
        purpose: "regional-air".parse().unwrap(),
        filter: Filter::all(),
        types: None,
        attributes: None,
        limit: 100,
        kind: Kind::Entities,
    };
    let for_shanghai = cluster.0[&city("guangzhou")].signed(&question, &city("shanghai"));
    let beijing = cluster.0.get_mut(&city("beijing")).unwrap();
    assert_eq!(beijing.answer(&for_shanghai).unwrap_err(), "the request is meant for `shanghai`, this is `beijing`");
    let for_beijing = cluster.0[&city("guangzhou")].signed(&question, &city("beijing"));
    let in_anothers_name = cluster.0[&city("shanghai")].signed(&question, &city("beijing"));
    let beijing = cluster.0.get_mut(&city("beijing")).unwrap();
    assert!(beijing.answer(&for_beijing).is_ok());
    assert!(beijing.answer(&for_beijing).unwrap_err().contains("replay"));
    assert_eq!(beijing.answer(&in_anothers_name).unwrap_err(), "`shanghai` asks in the name of `guangzhou`");
    beijing.clock = beijing.clock.plus_micros(3_600_000_000);
    assert!(beijing.answer(&for_beijing).unwrap_err().contains("the peer's clock is 3,600 s behind ours"));
}
