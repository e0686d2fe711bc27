//! Notifications over HTTP (clause 6.3.8).

use ngsi::decode::Endpoint;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::{Failure, FailureSort};
use crate::{App, chain};

/// Where notifications are posted, and with which headers.
pub(super) struct HttpTarget {
    url: Url,
    headers: HeaderMap,
}

impl HttpTarget {
    /// Errors: a header cannot be sent.
    pub(super) fn new(url: Url, endpoint: &Endpoint, link: Option<&str>) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(endpoint.accept.media_type()));
        if let Some(link) = link {
            headers.insert("link", HeaderValue::from_str(link).map_err(|e| format!("the URL of the context cannot be in a header: {e}"))?);
        }
        for pair in &endpoint.receiver_info {
            let name = HeaderName::from_bytes(pair.key.as_bytes()).map_err(|e| format!("receiverInfo `{}`: {e}", pair.key))?;
            let value = HeaderValue::from_str(&pair.value).map_err(|e| format!("receiverInfo `{}`: {e}", pair.key))?;
            headers.append(name, value);
        }
        Ok(Self { url, headers })
    }

    pub(super) async fn send(&self, app: &App, body: Vec<u8>) -> Result<(), Failure> {
        let request = app.outbound.client().post(self.url.clone()).headers(self.headers.clone()).body(body);
        let response = request.send().await.map_err(|e| Failure::new(FailureSort::Down, chain(&e)))?;
        let status = response.status();
        if status.is_success() { Ok(()) } else { Err(Failure::new(sort_of(status), format!("the endpoint answered {status}"))) }
    }
}

/// What an answer says of the next attempt: only some say that the notification itself is at fault.
fn sort_of(status: StatusCode) -> FailureSort {
    match status {
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => FailureSort::Down,
        StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::NOT_FOUND
        | StatusCode::PROXY_AUTHENTICATION_REQUIRED
        | StatusCode::REQUEST_TIMEOUT
        | StatusCode::TOO_EARLY
        | StatusCode::TOO_MANY_REQUESTS => FailureSort::Failed,
        s if s.is_client_error() => FailureSort::Refused,
        _ => FailureSort::Failed,
    }
}
