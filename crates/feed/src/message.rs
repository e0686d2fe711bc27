//! The message every source yields, and the writer of its flat JSON payload.

use jiff::Timestamp;

/// Microseconds in a second.
pub(crate) const SECOND_US: i64 = 1_000_000;

/// One reading of one device, ready to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// MQTT topic, `devices/<profile>/<device>`.
    pub topic: String,
    /// Flat JSON object in UTF-8.
    pub payload: Vec<u8>,
    /// When the reading was taken: microseconds since 1970-01-01T00:00:00Z.
    pub at: i64,
    /// Number of this reading within its device, counted from 0 in the order of measuring.
    ///
    /// A device's keys have no gaps; a late message arrives after messages with higher keys.
    pub key: u64,
}

/// What a device says about itself in each message, serialised once.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// Full topic of the device.
    pub(crate) topic: String,
    /// `"city":…,"station":…,…,"lat":…` without braces.
    members: Vec<u8>,
    /// The source text as a JSON string.
    source: Vec<u8>,
}

/// The parts an [`Identity`] is made of.
#[derive(Debug, Clone)]
pub(crate) struct IdentityParts<'a> {
    pub(crate) profile: &'a str,
    pub(crate) city: &'a str,
    pub(crate) station: &'a str,
    pub(crate) name_en: &'a str,
    pub(crate) name_zh: &'a str,
    pub(crate) lon: &'a str,
    pub(crate) lat: &'a str,
    pub(crate) source: &'a str,
}

impl Identity {
    /// Device `<city>-<station>` of `parts.profile`. `lon` and `lat` are JSON numbers as text.
    pub(crate) fn new(parts: &IdentityParts<'_>) -> Self {
        let mut members = Vec::with_capacity(128);
        for (name, value) in [("city", parts.city), ("station", parts.station), ("name_en", parts.name_en), ("name_zh", parts.name_zh)] {
            push_name(&mut members, name);
            push_text(&mut members, value);
            members.push(b',');
        }
        push_name(&mut members, "lon");
        members.extend_from_slice(parts.lon.as_bytes());
        members.push(b',');
        push_name(&mut members, "lat");
        members.extend_from_slice(parts.lat.as_bytes());
        let mut source = Vec::new();
        push_text(&mut source, parts.source);
        Self { topic: format!("devices/{}/{}-{}", parts.profile, parts.city, parts.station), members, source }
    }
}

/// Writer of one payload. Member names are ours and need no escaping; numbers are written as given.
#[derive(Debug)]
pub(crate) struct Payload {
    json: Vec<u8>,
    n_values: u32,
}

impl Payload {
    /// Starts with the time and the identity.
    pub(crate) fn new(at: Timestamp, identity: &Identity) -> Self {
        let mut json = Vec::with_capacity(512);
        json.push(b'{');
        push_name(&mut json, "time");
        push_text(&mut json, &at.to_string());
        json.push(b',');
        json.extend_from_slice(&identity.members);
        Self { json, n_values: 0 }
    }

    /// A measured number, written exactly as `text`, which must be a JSON number.
    pub(crate) fn number(&mut self, name: &str, text: &str) {
        self.member(name);
        self.json.extend_from_slice(text.as_bytes());
        self.n_values += 1;
    }

    /// A measured number, rounded to `decimals`.
    pub(crate) fn rounded(&mut self, name: &str, value: f64, decimals: usize) {
        assert!(value.is_finite(), "a simulated {name} is finite");
        let text = format!("{value:.decimals$}");
        // -0.0 is a number nobody measured.
        let text = if text.trim_start_matches(['-', '0', '.']).is_empty() { "0" } else { &text };
        self.number(name, text);
    }

    /// A measured count.
    pub(crate) fn integer(&mut self, name: &str, value: u64) {
        self.number(name, &value.to_string());
    }

    /// A member that describes rather than measures.
    pub(crate) fn text(&mut self, name: &str, value: &str) {
        self.member(name);
        push_text(&mut self.json, value);
    }

    /// Marks the reading as simulated.
    pub(crate) fn simulated(&mut self) {
        self.member("simulated");
        self.json.extend_from_slice(b"true");
    }

    /// How many measured numbers the payload carries.
    pub(crate) fn n_values(&self) -> u32 {
        self.n_values
    }

    /// Ends with the source text.
    pub(crate) fn finish(mut self, identity: &Identity) -> Vec<u8> {
        self.member("source");
        self.json.extend_from_slice(&identity.source);
        self.json.push(b'}');
        self.json
    }

    fn member(&mut self, name: &str) {
        self.json.push(b',');
        push_name(&mut self.json, name);
    }
}

fn push_name(json: &mut Vec<u8>, name: &str) {
    json.push(b'"');
    json.extend_from_slice(name.as_bytes());
    json.extend_from_slice(b"\":");
}

fn push_text(json: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(json, text).expect("a string is written to memory without error");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_is_flat_json_and_numbers_keep_their_text() {
        let identity = Identity::new(&IdentityParts {
            profile: "air-quality",
            city: "beijing",
            station: "Gucheng",
            name_en: "Gu \"cheng\"",
            name_zh: "古城",
            lon: "116.225",
            lat: "39.90",
            source: "a\nb",
        });
        let mut payload = Payload::new(Timestamp::from_second(1_388_534_400).unwrap(), &identity);
        payload.number("pm25", "7.10");
        payload.rounded("temperature", -0.04, 1);
        payload.integer("n", 3);
        assert_eq!(payload.n_values(), 3);
        let json = String::from_utf8(payload.finish(&identity)).unwrap();
        assert_eq!(
            json,
            "{\"time\":\"2014-01-01T00:00:00Z\",\"city\":\"beijing\",\"station\":\"Gucheng\",\"name_en\":\"Gu \\\"cheng\\\"\",\
             \"name_zh\":\"古城\",\"lon\":116.225,\"lat\":39.90,\"pm25\":7.10,\"temperature\":0,\"n\":3,\"source\":\"a\\nb\"}"
        );
        assert_eq!(identity.topic, "devices/air-quality/beijing-Gucheng");
    }
}
