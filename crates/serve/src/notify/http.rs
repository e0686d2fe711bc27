//! Notifications over HTTP (clause 6.3.8).

use ngsi::decode::Endpoint;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::wire::{Connections, WireTarget};
use super::{Failure, FailureSort};
use crate::{App, chain};

/// Headers that say how the request is carried, or what we know better.
const OWN_HEADERS: [&str; 10] =
    ["host", "content-length", "content-type", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect"];

/// The variables of the environment that send plain HTTP through a proxy.
const PROXIES: [&str; 4] = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];

/// Where notifications are posted, and with which headers.
pub(super) enum HttpTarget {
    Wire(WireTarget),
    /// HTTPS, and what goes through a proxy.
    General(Url, HeaderMap),
}

impl HttpTarget {
    /// Errors: a header cannot be sent.
    pub(super) fn new(url: Url, endpoint: &Endpoint, own: &[(&'static str, &str)]) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(endpoint.accept.media_type()));
        for (name, value) in own {
            let value = HeaderValue::from_str(value).map_err(|e| format!("{name} cannot be a header: {e}"))?;
            headers.insert(HeaderName::from_bytes(name.as_bytes()).map_err(|e| e.to_string())?, value);
        }
        for pair in &endpoint.receiver_info {
            let name = HeaderName::from_bytes(pair.key.as_bytes()).map_err(|e| format!("receiverInfo `{}`: {e}", pair.key))?;
            let value = HeaderValue::from_str(&pair.value).map_err(|e| format!("receiverInfo `{}`: {e}", pair.key))?;
            let is_own = own.iter().any(|(own, _)| name.as_str().eq_ignore_ascii_case(own));
            if !is_own && !OWN_HEADERS.contains(&name.as_str()) {
                headers.append(name, value);
            }
        }
        let has_proxy = PROXIES.iter().any(|p| std::env::var_os(p).is_some_and(|v| !v.is_empty()));
        match WireTarget::new(&url, &headers).filter(|_| !has_proxy) {
            Some(target) => Ok(Self::Wire(target)),
            None => Ok(Self::General(url, headers)),
        }
    }

    pub(super) async fn send(&self, app: &App, connections: &Connections, body: Vec<u8>) -> Result<(), Failure> {
        let status = match self {
            Self::Wire(target) => target.post(&app.outbound, connections, &body).await.map_err(|e| e.to_string()),
            Self::General(url, headers) => {
                let request = app.outbound.client().post(url.clone()).headers(headers.clone()).body(body);
                request.send().await.map(|r| r.status()).map_err(|e| chain(&e))
            }
        };
        let status = status.map_err(|e| Failure::new(FailureSort::Down, e))?;
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
