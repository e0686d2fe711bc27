//! Names of instances in the past of an attribute (ETSI GS CIM 009 V1.9.1, clauses 4.5.7 and 4.5.8).

use std::fmt;
use std::str::FromStr;

use crate::{Attribute, Instant, Iri};

const PREFIX: &str = "urn:ngsi-ld:instance:";

/// The name of an instance in the past of an attribute: a URI that follows from what makes the instance the one it is – entity, attribute,
/// `datasetId`, and the moment that it speaks of. So it is the same whenever it is made, and a correction of the value keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InstanceId {
    /// The moment.
    pub moment: Moment,
    digest: u64,
}

/// The moment that an instance speaks of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// When it was observed.
    Observed(Instant),
    /// When it was recorded, if nothing else is known.
    Recorded(Instant),
}

impl Moment {
    /// That of an instance.
    #[must_use]
    pub fn of(instance: &Attribute) -> Self {
        instance.observed_at.map_or(Self::Recorded(instance.modified_at), Self::Observed)
    }
}

/// Why a text names no instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not the name of an instance (expected e.g. `{PREFIX}o1767225600000000:0123456789abcdef`)")]
pub struct InstanceIdError {
    /// The text as found, shortened.
    pub found: String,
}

impl InstanceId {
    /// The name of an instance of attribute `name`.
    #[must_use]
    pub fn of(entity: &Iri, name: &Iri, instance: &Attribute) -> Self {
        let dataset_id = instance.dataset_id.as_ref().map_or("", Iri::as_str);
        Self { moment: Moment::of(instance), digest: digest([entity.as_str(), name.as_str(), dataset_id]) }
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (letter, at) = match self.moment {
            Moment::Observed(at) => ('o', at),
            Moment::Recorded(at) => ('r', at),
        };
        write!(f, "{PREFIX}{letter}{}:{:016x}", at.micros(), self.digest)
    }
}

impl FromStr for InstanceId {
    type Err = InstanceIdError;

    fn from_str(text: &str) -> Result<Self, InstanceIdError> {
        let read = || {
            let (moment, digest) = text.strip_prefix(PREFIX)?.split_once(':')?;
            let at = |us: &str| us.parse().ok().map(Instant::from_micros);
            let moment = match (moment.strip_prefix('o'), moment.strip_prefix('r')) {
                (Some(us), _) => Moment::Observed(at(us)?),
                (_, Some(us)) => Moment::Recorded(at(us)?),
                (None, None) => return None,
            };
            let id = Self { moment, digest: u64::from_str_radix(digest, 16).ok()? };
            // There is one way to write each.
            (id.to_string() == text).then_some(id)
        };
        read().ok_or_else(|| InstanceIdError { found: text.chars().take(80).collect() })
    }
}

/// FNV-1a, 64 bits: small, and the same for ever. It only has to tell the few instances of one moment apart.
fn digest(parts: [&str; 3]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn iri(text: &str) -> Iri {
        Iri::known(text)
    }

    #[test]
    fn names_follow_from_what_an_instance_is_and_are_the_same_for_ever() {
        let (entity, name) = (iri("urn:e:1"), iri("https://example.org/t"));
        let a = Attribute::property(1).observed(Instant::from_secs(10));
        let id = InstanceId::of(&entity, &name, &a);
        assert_eq!(id.to_string(), "urn:ngsi-ld:instance:o10000000:c34f21167c341c54");
        let corrected = Attribute { modified_at: Instant::from_secs(99), ..Attribute::property(2).observed(Instant::from_secs(10)) };
        assert_eq!(InstanceId::of(&entity, &name, &corrected), id);
        let other = Attribute { dataset_id: Some(iri("urn:d:1")), ..a.clone() };
        assert_ne!(InstanceId::of(&entity, &name, &other), id);
        assert_ne!(InstanceId::of(&iri("urn:e:2"), &name, &a), id);
        let unobserved = Attribute { modified_at: Instant::from_secs(10), ..Attribute::property(1) };
        assert_eq!(InstanceId::of(&entity, &name, &unobserved).moment, Moment::Recorded(Instant::from_secs(10)));
    }

    #[test]
    fn other_texts_name_no_instance() {
        for wrong in [
            "",
            "urn:x",
            "urn:ngsi-ld:instance:o1",
            "urn:ngsi-ld:instance:x1:0123456789abcdef",
            "urn:ngsi-ld:instance:o01:0123456789abcdef",
        ] {
            let error = wrong.parse::<InstanceId>().unwrap_err();
            assert!(error.to_string().contains("is not the name of an instance"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn names_are_read_as_they_are_written(us in any::<i64>(), observed in any::<bool>(), d in any::<u64>()) {
            let at = Instant::from_micros(us);
            let id = InstanceId { moment: if observed { Moment::Observed(at) } else { Moment::Recorded(at) }, digest: d };
            prop_assert_eq!(id.to_string().parse::<InstanceId>().unwrap(), id);
        }
    }
}
