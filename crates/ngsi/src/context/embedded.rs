//! The contexts that every node carries with it; their origins and licences are in `contexts/SOURCES.md`.

macro_rules! at {
    ($path:literal) => {
        (concat!("https://", $path), include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/contexts/", $path)))
    };
}

/// `(URL, document)`.
pub(super) const EMBEDDED: &[(&str, &str)] = &[
    at!("conurb.org/ns/context.jsonld"),
    at!("smartdatamodels.org/context.jsonld"),
    at!("fiware.github.io/data-models/context.jsonld"),
    at!("fiware.github.io/NGSI-LD_TestSuite/ldContext/testContext.jsonld"),
    at!("w3id.org/security/data-integrity/v2"),
    at!("uri.etsi.org/ngsi-ld/v1/ngsi-ld-core-context-v1.3.jsonld"),
    at!("uri.etsi.org/ngsi-ld/v1/ngsi-ld-core-context-v1.4.jsonld"),
    at!("uri.etsi.org/ngsi-ld/v1/ngsi-ld-core-context-v1.6.jsonld"),
    at!("uri.etsi.org/ngsi-ld/v1/ngsi-ld-core-context-v1.7.jsonld"),
    at!("uri.etsi.org/ngsi-ld/v1/ngsi-ld-core-context-v1.8.jsonld"),
    at!("uri.etsi.org/ngsi-ld/v1/ngsi-ld-core-context-v1.9.jsonld"),
    at!("uri.etsi.org/ngsi-ld/v1/ngsi-ld-core-context.jsonld"),
    at!("smart-data-models.github.io/dataModel.Alert/context.jsonld"),
    at!("smart-data-models.github.io/dataModel.Building/context.jsonld"),
    at!("smart-data-models.github.io/dataModel.Device/context.jsonld"),
    at!("smart-data-models.github.io/dataModel.Energy/context.jsonld"),
    at!("smart-data-models.github.io/dataModel.Environment/context.jsonld"),
    at!("smart-data-models.github.io/dataModel.GreenEnergy/context.jsonld"),
    at!("smart-data-models.github.io/dataModel.IssueTracking/context.jsonld"),
    at!("smart-data-models.github.io/dataModel.KeyPerformanceIndicator/context.jsonld"),
    at!("smart-data-models.github.io/dataModel.Parking/context.jsonld"),
    at!("smart-data-models.github.io/dataModel.Transportation/context.jsonld"),
    at!("smart-data-models.github.io/dataModel.UrbanMobility/context.jsonld"),
    at!("smart-data-models.github.io/dataModel.Weather/context.jsonld"),
];

/// The core context that is in force.
pub(super) const CORE: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/contexts/uri.etsi.org/ngsi-ld/v1/ngsi-ld-core-context-v1.9.jsonld"));

/// The embedded document at `url`; `http` counts as `https`, every core context that is not here is the one in force, and a Smart Data Models context is known under its address at GitHub too.
pub(super) fn find(url: &str) -> Option<&'static str> {
    let path = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let path = path.strip_prefix("www.").unwrap_or(path);
    let at_pages = path
        .strip_prefix("raw.githubusercontent.com/smart-data-models/")
        .and_then(|rest| rest.strip_suffix("/context.jsonld")?.strip_suffix("/master"))
        .map(|repository| match repository {
            // The organisation's common context lives in its repository `data-models`.
            "data-models" => "smartdatamodels.org/context.jsonld".to_owned(),
            model => format!("smart-data-models.github.io/{model}/context.jsonld"),
        });
    let path = match path {
        "smart-data-models.github.io/data-models/context.jsonld" => "smartdatamodels.org/context.jsonld",
        other => at_pages.as_deref().unwrap_or(other),
    };
    EMBEDDED
        .iter()
        .find(|(known, _)| known.strip_prefix("https://") == Some(path))
        .map(|(_, text)| *text)
        .or_else(|| is_core(url).then_some(CORE))
}

/// Does `url` name the core context, in whatever version?
pub(super) fn is_core(url: &str) -> bool {
    let path = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or(url);
    let file = path.rsplit('/').next().unwrap_or(path);
    // ETSI's file has been served from several folders and mirrors, and editions had suffixes of their own; the name is the mark.
    file.starts_with("ngsi-ld-core-context") && file.ends_with(".jsonld")
}

/// The addresses of all embedded contexts.
pub fn embedded_urls() -> impl Iterator<Item = &'static str> {
    EMBEDDED.iter().map(|(url, _)| *url)
}
