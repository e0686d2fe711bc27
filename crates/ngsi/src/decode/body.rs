//! The body of a request and the context that goes with it (ETSI GS CIM 009 V1.9.1, clause 6.3.5).

use std::sync::Arc;

use serde_json::Value;

use crate::context::{Context, ContextStore};
use crate::error::{Error, Result, described};

/// The most items in a batch.
pub const BATCH_ITEMS_MAX: usize = 10_000;

/// What a body says it is. `application/merge-patch+json` counts as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    /// `application/json`: the context comes with the `Link` header.
    Json,
    /// `application/ld+json`: the context is in the body.
    LdJson,
}

/// A body that was read, with its context.
#[derive(Debug, Clone)]
pub enum Body {
    /// One document.
    One(Value, Arc<Context>),
    /// Several; each with its own context if they were JSON-LD. An item whose context is wrong is an error item: its id as far as it
    /// could be read, and the mistake.
    Many(Vec<BodyItem>),
}

/// One document of a body.
pub type BodyItem = std::result::Result<(Value, Arc<Context>), (Option<String>, Error)>;

/// Reads JSON. Errors: [`crate::ErrorKind::InvalidRequest`] with line and column.
pub fn json(bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes).map_err(|e| Error::invalid(format!("the body is not JSON: {e}")))
}

/// Reads a body and finds its context: `link` is the URL in the `Link` header.
///
/// Errors: [`crate::ErrorKind::InvalidRequest`] if it is not JSON; [`crate::ErrorKind::BadRequestData`] if the context is in the wrong place or
/// wrong; [`crate::ErrorKind::LdContextNotAvailable`].
pub fn body(bytes: &[u8], media_type: MediaType, link: Option<&str>, contexts: &ContextStore) -> Result<Body> {
    let value = json(bytes)?;
    if media_type == MediaType::LdJson && link.is_some() {
        return Err(Error::bad("a body of type application/ld+json has its context inside; a Link header to another one is not possible"));
    }
    let shared = match media_type {
        MediaType::Json => Some(contexts.resolve_url(link)?),
        MediaType::LdJson => None,
    };
    match value {
        Value::Array(list) => Ok(Body::Many(list.into_iter().map(|item| with_context(item, shared.as_ref(), contexts)).collect())),
        one => with_context(one, shared.as_ref(), contexts).map(|(value, context)| Body::One(value, context)).map_err(|(_, e)| e),
    }
}

fn with_context(mut value: Value, shared: Option<&Arc<Context>>, contexts: &ContextStore) -> BodyItem {
    let own = value.as_object_mut().and_then(|map| map.shift_remove("@context"));
    let context = match (shared, own) {
        (Some(_), Some(_)) => {
            Err(Error::bad("a body of type application/json has no context inside (use application/ld+json, or a Link header)")
                .within("@context"))
        }
        (Some(shared), None) => Ok(Arc::clone(shared)),
        (None, Some(own)) => contexts.resolve(&own),
        // An item that is no object is judged by whoever wanted an object.
        (None, None) if !value.is_object() => Ok(Arc::clone(contexts.default_context())),
        (None, None) => Err(Error::bad("a body of type application/ld+json needs the member `@context`").within("@context")),
    };
    match context {
        Ok(context) => Ok((value, context)),
        Err(e) => Err((value.get("id").or_else(|| value.get("@id")).and_then(Value::as_str).map(str::to_owned), e)),
    }
}

impl Body {
    /// The one document. Errors: it is an array.
    pub fn into_one(self) -> Result<(Value, Arc<Context>)> {
        match self {
            Self::One(value, context) => Ok((value, context)),
            Self::Many(list) => Err(Error::bad(format!("expected a JSON object, found an array of {}", list.len()))),
        }
    }

    /// The items of a batch. Errors: not an array, empty, longer than [`BATCH_ITEMS_MAX`], or with a null item.
    pub fn into_items(self) -> Result<Vec<BodyItem>> {
        let list = match self {
            Self::One(value, _) => return Err(Error::bad(format!("expected an array of entities, found {}", described(&value)))),
            Self::Many(list) => list,
        };
        if list.is_empty() {
            return Err(Error::bad("the array of entities is empty"));
        }
        if list.len() > BATCH_ITEMS_MAX {
            return Err(Error::bad(format!("{} items are more than the limit of {BATCH_ITEMS_MAX}", list.len())));
        }
        if let Some(i) = list.iter().position(|item| item.as_ref().is_ok_and(|(value, _)| value.is_null())) {
            return Err(Error::bad("null is not an entity").within(&format!("item {i}")));
        }
        Ok(list)
    }
}
