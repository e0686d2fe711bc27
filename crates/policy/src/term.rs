//! The words of an agreement as an entity: IRIs in conurb's own namespace.

/// Type of an agreement.
pub const AGREEMENT: &str = "https://conurb.org/ns#Agreement";
/// Name of the city whose data are shared.
pub const PROVIDER: &str = "https://conurb.org/ns#provider";
/// Name of the city that may read them.
pub const CONSUMER: &str = "https://conurb.org/ns#consumer";
/// Public key that the consumer signs its questions with.
pub const CONSUMER_KEY: &str = "https://conurb.org/ns#consumerKey";
/// Entity types that are shared.
pub const DATA_TYPES: &str = "https://conurb.org/ns#dataTypes";
/// Attributes that are shared; `["*"]` for all.
pub const DATA_ATTRIBUTES: &str = "https://conurb.org/ns#dataAttributes";
/// Only what lies in this area is shared.
pub const AREA: &str = "https://conurb.org/ns#area";
/// Positions are rounded to so many decimals of a degree.
pub const POSITION_DECIMALS: &str = "https://conurb.org/ns#positionDecimals";
/// What the data may be used for.
pub const PURPOSE: &str = "https://conurb.org/ns#purpose";
/// Start of the period in force.
pub const VALID_FROM: &str = "https://conurb.org/ns#validFrom";
/// End of the period in force, excluded.
pub const VALID_UNTIL: &str = "https://conurb.org/ns#validUntil";
/// Law or contract that the agreement rests on.
pub const LEGAL_BASIS: &str = "https://conurb.org/ns#legalBasis";
/// `offered`, `active`, `suspended` or `revoked`.
pub const STATUS: &str = "https://conurb.org/ns#agreementStatus";

/// Every member that an agreement is made of.
pub const MEMBERS: [&str; 12] = [
    PROVIDER,
    CONSUMER,
    CONSUMER_KEY,
    DATA_TYPES,
    DATA_ATTRIBUTES,
    AREA,
    POSITION_DECIMALS,
    PURPOSE,
    VALID_FROM,
    VALID_UNTIL,
    LEGAL_BASIS,
    STATUS,
];

/// Local names of attributes that only describe an agreement to people; in any namespace. Everything else unknown is refused, because a
/// restriction that nobody enforces is worse than none.
pub const ANNOTATIONS: [&str; 6] = ["name", "alternateName", "description", "source", "seeAlso", "provenance"];

/// The core word `scope`: naming it among the shared attributes shares the entity's scopes.
pub const SCOPE: &str = "https://uri.etsi.org/ngsi-ld/scope";

#[cfg(test)]
mod tests {
    #[test]
    fn the_words_are_in_conurbs_namespace() {
        for term in super::MEMBERS.iter().chain([&super::AGREEMENT]) {
            assert!(term.starts_with(entity::CONURB_NS), "{term}");
        }
        assert!(super::SCOPE.starts_with(entity::NGSI_LD_NS));
    }
}
