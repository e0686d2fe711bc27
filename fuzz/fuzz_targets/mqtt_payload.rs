//! Payloads of devices, through the built-in profiles; and profiles themselves.
#![no_main]

use entity::Instant;
use libfuzzer_sys::fuzz_target;
use mqtt::profile::{ProfileSpec, Profiles};
use mqtt::topic::TopicName;

fuzz_target!(|data: &[u8]| {
    thread_local!(static PROFILES: Profiles = Profiles::built_in(&|n| format!("https://example.org/{n}").parse().map_err(|_| "no".to_owned())).expect("built-in profiles compile"));
    PROFILES.with(|profiles| {
        for profile in ["air-quality", "weather", "traffic", "parking", "meter"] {
            let topic: TopicName = format!("devices/{profile}/x").parse().expect("a topic");
            let _ = profiles.decode(&topic, data, Instant::from_secs(1_700_000_000));
        }
    });
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = ProfileSpec::parse(text);
        let _ = text.parse::<TopicName>();
    }
});
