//! The `Link` header that names a context (ETSI GS CIM 009 V1.9.1, clause 6.3.5).

use crate::error::{Error, Result, shown};

const CONTEXT_RELATION: &str = "http://www.w3.org/ns/json-ld#context";

/// The URL of the JSON-LD context in a `Link` header's value, if it names one.
///
/// Other relations are passed over. Errors: [`crate::ErrorKind::BadRequestData`] if the header is malformed or names two contexts.
pub fn context_of_link_header(value: &str) -> Result<Option<String>> {
    let mut found = None;
    for link in split_outside(value, ',') {
        let link = link.trim();
        if link.is_empty() {
            continue;
        }
        let (target, parameters) = link
            .strip_prefix('<')
            .and_then(|rest| rest.split_once('>'))
            .ok_or_else(|| Error::bad(format!("`{}` is not a link (expected `<URL>; rel=\"…\"`)", shown(link))).within("header Link"))?;
        let is_context = split_outside(parameters, ';').into_iter().filter_map(|p| p.split_once('=')).any(|(key, value)| {
            key.trim().eq_ignore_ascii_case("rel")
                && value.trim().trim_matches('"').split_ascii_whitespace().any(|relation| relation == CONTEXT_RELATION)
        });
        if is_context && found.replace(target.trim().to_owned()).is_some() {
            return Err(Error::bad("only one link to a JSON-LD context is possible; host a context that refers to the others")
                .within("header Link"));
        }
    }
    Ok(found)
}

/// Splits at `separator` outside of `<…>` and `"…"`.
fn split_outside(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut in_url, mut in_quotes) = (Vec::new(), 0, false, false);
    for (i, c) in text.char_indices() {
        match c {
            '<' if !in_quotes => in_url = true,
            '>' if !in_quotes => in_url = false,
            '"' if !in_url => in_quotes = !in_quotes,
            c if c == separator && !in_url && !in_quotes => {
                parts.push(&text[start..i]);
                start = i + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}
