//! The messages of both sources through the real decoder and the profiles that come with conurb.

use entity::{AttributeValue, Entity, Instant, Iri};
use feed::recorded::{Recorded, RecordedOptions};
use feed::simulated::{Simulation, SimulationOptions};
use feed::{Message, Timestamp};
use mqtt::profile::Profiles;

use crate::shared;

const NS: &str = "https://example.org/";

fn profiles() -> Profiles {
    Profiles::built_in(&|name| match name {
        "location" => Ok(Iri::known(entity::LOCATION)),
        other => Ok(Iri::known(&format!("{NS}{other}"))),
    })
    .unwrap()
}

fn decode(profiles: &Profiles, message: &Message) -> Entity {
    let at = Instant::from_micros(message.at);
    profiles
        .decode(&message.topic.parse().unwrap(), &message.payload, at)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&message.payload)))
}

#[test]
fn every_simulated_message_becomes_an_entity_marked_as_simulated() {
    let profiles = profiles();
    let start: Timestamp = "2024-03-10T16:00:00Z".parse().unwrap();
    let end = Some("2024-03-11T16:00:00Z".parse().unwrap());
    for message in Simulation::new("shenzhen", 4, start, &SimulationOptions { end, ..SimulationOptions::default() }).unwrap() {
        let entity = decode(&profiles, &message);
        assert!(entity.attribute(&format!("{}provenance", entity::CONURB_NS)).is_some(), "{}", entity.id);
        assert!(entity.location().is_some(), "{}", entity.id);
    }
}

#[test]
fn every_recorded_message_of_a_week_becomes_an_entity_with_its_values_and_time() {
    let Some(air) = shared("data/air") else { return };
    let profiles = profiles();
    let options = RecordedOptions {
        from: Some("2014-01-05T16:00:00Z".parse().unwrap()),
        to: Some("2014-01-12T16:00:00Z".parse().unwrap()),
        ..RecordedOptions::default()
    };
    let mut n_messages = 0;
    for message in Recorded::open(air, &options).unwrap() {
        let message = message.unwrap();
        let json: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
        let entity = decode(&profiles, &message);
        for (member, attribute) in [("pm25", "pm25"), ("pressure", "atmosphericPressure"), ("windDirection", "windDirection")] {
            let attribute = entity.attribute(&format!("{NS}{attribute}"));
            assert_eq!(attribute.is_some(), json.get(member).is_some(), "{member}: {json}");
            if let Some(attribute) = attribute {
                assert_eq!(attribute.observed_at, Some(Instant::from_micros(message.at)));
                assert!(matches!(&attribute.value, AttributeValue::Property(value) if value == &json[member]), "{json}");
            }
        }
        n_messages += 1;
    }
    assert!(n_messages > 168 * (9 + 9 + 10 + 4) * 9 / 10, "{n_messages}");
}
