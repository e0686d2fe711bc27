//! Versions of entities on the wire: `ETag` says which one was read, `If-Match` for which one a change is (RFC 9110, sections 8.8.3 and 13.1.1).
//!
//! The tag is the recorded time of the entity's last change. It is the same for every representation of the entity, since what a writer
//! has seen is what he means, in whatever form.

use axum::http::header::IF_MATCH;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use entity::{Entity, Instant, Iri, Version};
use node::NodeError;

use super::Call;
use crate::problem::Problem;

/// Tags of one `If-Match`, at most.
const TAGS_MAX: usize = 100;

/// The tag of an entity.
pub(super) fn tag_of(entity: &Entity) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{:x}\"", entity.modified_at.micros())).expect("a number in quotes is a header's value")
}

/// All lines of `If-Match`. Errors: one of them is no text.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let lines = headers.get_all(IF_MATCH).iter().map(|v| v.to_str());
    let lines: Vec<&str> =
        lines.collect::<Result<_, _>>().map_err(|_| Problem::invalid_request("header if-match: expected visible ASCII"))?;
    Ok((!lines.is_empty()).then(|| lines.join(", ")))
}

/// The version that a change of an entity is for; none for any.
///
/// Errors: `If-Match` is none; it is `*` and there is no such entity; none of its tags can be one of this node's (412).
pub(super) fn expected(call: &Call, id: &Iri) -> Result<Option<Version>, Problem> {
    let Some(text) = call.if_match.as_deref() else { return Ok(None) };
    let present = match call.app.node.entity(&call.who, id) {
        Ok(entity) => Some(entity),
        Err(NodeError::NoEntity { .. }) => None,
        Err(e) => return Err(e.into()),
    };
    if text.trim() == "*" {
        return if present.is_some() { Ok(None) } else { Err(failed(&format!("entity `{id}` does not exist"))) };
    }
    let versions = versions(text)?;
    // Of several the one that is there now, if it is among them; the store decides whether it still is when the change is made.
    let now = Version::of(present.as_deref());
    let chosen = versions.iter().find(|v| **v == now).or(versions.first());
    chosen.copied().map(Some).ok_or_else(|| failed(&format!("no tag of if-match, `{text}`, is one of entity `{id}`")))
}

fn failed(detail: &str) -> Problem {
    Problem::new(StatusCode::PRECONDITION_FAILED, "PreconditionFailed", detail)
}

/// The versions that tags name. A weak tag never matches, nor does one that this node did not make.
fn versions(text: &str) -> Result<Vec<Version>, Problem> {
    let wrong = |found: &str| {
        let found: String = found.chars().take(40).collect();
        Problem::invalid_request(format!("header if-match: expected `*` or tags in quotes, as ETag gives them, found `{found}`"))
    };
    let mut versions = Vec::new();
    let mut rest = text.trim();
    for _ in 0..TAGS_MAX {
        let (is_weak, tag) = rest.strip_prefix("W/").map_or((false, rest), |tag| (true, tag));
        let (tag, after) = tag.strip_prefix('"').and_then(|tag| tag.split_once('"')).ok_or_else(|| wrong(rest))?;
        if let Some(micros) = i64::from_str_radix(tag, 16).ok().filter(|_| !is_weak) {
            versions.push(Version::RecordedAt(Instant::from_micros(micros)));
        }
        rest = after.trim_start();
        if rest.is_empty() {
            return Ok(versions);
        }
        rest = rest.strip_prefix(',').ok_or_else(|| wrong(rest))?.trim_start();
    }
    Err(Problem::invalid_request(format!("header if-match: more than {TAGS_MAX} tags")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_name_versions() {
        let version = |us| Version::RecordedAt(Instant::from_micros(us));
        check("\"ff\"", Some(vec![version(255)]));
        check(" \"ff\" , \"10\",W/\"1\",\"other, one\"", Some(vec![version(255), version(16)]));
        for wrong in ["ff", "\"ff", "\"ff\" \"10\"", "\"ff\",", "W/", "*, \"ff\"", ""] {
            check(wrong, None);
        }
        check(&vec!["\"1\""; TAGS_MAX + 1].join(","), None);

        #[track_caller]
        fn check(text: &str, want: Option<Vec<Version>>) {
            assert_eq!(versions(text).ok(), want, "{text}");
        }
    }

    #[test]
    fn a_tag_is_what_it_is_read_as() {
        let mut entity = Entity::new("urn:a:b".parse().unwrap(), "urn:t:t".parse().unwrap());
        entity.modified_at = "2026-03-01T01:00:00.000001Z".parse().unwrap();
        assert_eq!(versions(tag_of(&entity).to_str().unwrap()).ok(), Some(vec![Version::of(Some(&entity))]));
    }
}
