//! Errors on HTTP: kinds become status codes and NGSI-LD ProblemDetails here (ETSI GS CIM 009 V1.9.1, clauses 5.5.2, 5.5.3, 6.3.2).

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use entity::CommandError;
use node::{Kind, NodeError};
use serde_json::json;

use crate::chain;

/// An error answer.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    /// Name after `https://uri.etsi.org/ngsi-ld/errors/`.
    pub(crate) name: &'static str,
    pub(crate) detail: String,
}

/// The name of problems that the standard answers without a body (clause 6.3.2).
const NO_BODY: &str = "";

impl Problem {
    /// A status that the standard answers without a body: 411 and 415.
    pub(crate) fn without_body(status: StatusCode) -> Self {
        Self::new(status, NO_BODY, "")
    }

    pub(crate) fn new(status: StatusCode, name: &'static str, detail: impl Into<String>) -> Self {
        Self { status, name, detail: detail.into() }
    }

    pub(crate) fn invalid_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidRequest", detail)
    }

    pub(crate) fn bad_data(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequestData", detail)
    }

    pub(crate) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "AccessDenied", detail)
    }

    pub(crate) fn denied(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "AccessDenied", detail)
    }

    /// The document, also used for the single errors of a batch.
    pub(crate) fn title(&self) -> &'static str {
        title(self.name)
    }

    /// The document.
    pub(crate) fn json(&self) -> serde_json::Value {
        json!({
            "type": format!("https://uri.etsi.org/ngsi-ld/errors/{}", self.name),
            "title": self.title(),
            "detail": self.detail,
            "status": self.status.as_u16(),
        })
    }
}

fn title(name: &str) -> &'static str {
    match name {
        "InvalidRequest" => "the request is not valid",
        "BadRequestData" => "the request's data are not valid",
        "AlreadyExists" => "it exists already",
        "Conflict" => "it contradicts what is registered",
        "ResourceNotFound" => "it does not exist",
        "OperationNotSupported" => "this operation is not supported",
        "AccessDenied" => "access denied",
        "NonexistentTenant" => "there is no such tenant",
        "PreconditionFailed" => "it is not at the version that the request is for",
        "TooManyResults" => "the request is larger than a limit",
        "LdContextNotAvailable" => "a JSON-LD context cannot be had",
        "ServiceUnavailable" => "not possible at the moment",
        _ => "internal error",
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        if self.name == NO_BODY {
            return crate::binding::empty(self.status);
        }
        let mut response = (self.status, Json(self.json())).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert("www-authenticate", axum::http::HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert("retry-after", axum::http::HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<NodeError> for Problem {
    fn from(e: NodeError) -> Self {
        let detail = chain(&e);
        let (status, name) = match e.kind() {
            _ if matches!(e, NodeError::Command(CommandError::Changed { .. })) => (StatusCode::PRECONDITION_FAILED, "PreconditionFailed"),
            _ if matches!(e, NodeError::RegistrationClash { .. }) => (StatusCode::CONFLICT, "Conflict"),
            _ if e.is_gone() => (StatusCode::GONE, "ResourceNotFound"),
            _ if e.is_disk_full() => (StatusCode::INSUFFICIENT_STORAGE, "ServiceUnavailable"),
            _ if matches!(e, NodeError::NoMethod { .. }) => (StatusCode::BAD_REQUEST, "InvalidRequest"),
            _ if matches!(e, NodeError::Unsupported { .. }) => (StatusCode::UNPROCESSABLE_ENTITY, "OperationNotSupported"),
            Kind::Invalid => (StatusCode::BAD_REQUEST, "BadRequestData"),
            Kind::NotFound => (StatusCode::NOT_FOUND, "ResourceNotFound"),
            Kind::Denied => (StatusCode::FORBIDDEN, "AccessDenied"),
            Kind::Conflict => (StatusCode::CONFLICT, "AlreadyExists"),
            Kind::Limit => (StatusCode::FORBIDDEN, "TooManyResults"),
            Kind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
            Kind::Bug => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        };
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = detail, "an operation failed");
        }
        Self::new(status, name, detail)
    }
}

impl From<CommandError> for Problem {
    fn from(e: CommandError) -> Self {
        NodeError::from(e).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_is_not_kept_is_gone_and_says_since_when_it_is_kept() {
        let instant = |text: &str| text.parse().unwrap();
        let error = node::HistoryError::NotKept {
            entity_type: "https://example.org/Station".parse().unwrap(),
            attribute: None,
            since: instant("2026-03-01T00:00:00Z"),
            at: instant("2026-02-01T00:00:00Z"),
        };
        let problem = Problem::from(NodeError::from(error));
        assert_eq!(problem.status, StatusCode::GONE);
        assert!(problem.detail.contains("`https://example.org/Station` is kept since 2026-03-01T00:00:00Z"), "{}", problem.detail);
    }
}
