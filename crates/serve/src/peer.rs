//! Questions to and from other cities over HTTP: `POST /peer/v1/ask`, signed both ways (RFC 9421; see crate `federation`).

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use federation::signature::{MessageParts, ResponseParts, sign_request, sign_response, verify_response};
use federation::{ANSWER_BYTES_MAX, Answer, Member, Question};
use node::{AskFuture, Node, PEER_ANSWER_WAIT, PeerTransport, TransportError};
use serde_json::Value;

use crate::problem::Problem;
use crate::{App, chain};

/// Where nodes ask each other.
pub const ASK_PATH: &str = "/peer/v1/ask";

/// Sends questions over HTTP.
pub struct HttpTransport {
    client: reqwest::Client,
}

impl HttpTransport {
    /// A transport with its own connections.
    pub fn new() -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(PEER_ANSWER_WAIT)
            .timeout(PEER_ANSWER_WAIT)
            .build()?;
        Ok(Self { client })
    }

    async fn send(&self, node: &Node, member: &Member, question: &Question) -> Result<Answer, TransportError> {
        let unusable = |e: &dyn std::error::Error| TransportError::Unusable { reason: chain(e) };
        let body = question.encode();
        let unsigned = MessageParts { method: "POST", target: ASK_PATH, authority: None, headers: Vec::new(), body: &body };
        let signature = sign_request(&unsigned, node.key(), &member.name, node.now(), &host::random_bytes());
        let mut request =
            self.client.post(format!("{}{ASK_PATH}", member.url)).header("content-type", "application/json").body(body.clone());
        for (name, value) in &signature {
            request = request.header(*name, value);
        }
        let mut response = request.send().await.map_err(|e| TransportError::Unreachable { reason: chain(&e) })?;
        let status = response.status();
        let headers = response.headers().clone();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| TransportError::Unreachable { reason: chain(&e) })? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(TransportError::Unusable { reason: format!("the answer is larger than {ANSWER_BYTES_MAX} bytes") });
            }
        }
        if !status.is_success() {
            return Err(TransportError::Unusable { reason: refusal(&member.name, status, &bytes) });
        }
        let sent = MessageParts { headers: signature.iter().map(|(n, v)| (*n, v.as_str())).collect(), ..unsigned };
        let received = ResponseParts { status: status.as_u16(), headers: pairs(&headers), body: &bytes };
        verify_response(&sent, &received, &member.key, node.now()).map_err(|e| unusable(&e))?;
        Answer::decode(&bytes).map_err(|e| unusable(&e))
    }
}

/// What a node says that does not answer; it is not signed and only told to people.
fn refusal(city: &federation::CityName, status: StatusCode, bytes: &[u8]) -> String {
    let said: String = serde_json::from_slice::<Value>(bytes)
        .ok()
        .and_then(|v| Some(v.get("detail")?.as_str()?.chars().take(500).collect()))
        .unwrap_or_default();
    format!("`{city}` refused the question with status {}: {said}", status.as_u16())
}

impl PeerTransport for HttpTransport {
    fn ask<'a>(&'a self, node: &'a Node, member: &'a Member, question: &'a Question) -> AskFuture<'a> {
        Box::pin(self.send(node, member, question))
    }
}

fn pairs(headers: &HeaderMap) -> Vec<(&str, &str)> {
    headers.iter().filter_map(|(n, v)| Some((n.as_str(), v.to_str().ok()?))).collect()
}

/// `POST /peer/v1/ask`.
pub(crate) async fn ask(
    State(app): State<Arc<App>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let target = uri.path_and_query().map_or(ASK_PATH, |p| p.as_str());
    let request = MessageParts { method: method.as_str(), target, authority: None, headers: pairs(&headers), body: &body };
    let from = app.node.verify_peer(&request).map_err(|e| {
        tracing::warn!(error = %chain(&e), "a question between cities was refused");
        Problem::unauthorized(chain(&e))
    })?;
    let question = Question::decode(&body).map_err(|e| Problem::bad_data(chain(&e)))?;
    let node = Arc::clone(&app.node);
    // A large answer is worked out beside the network's threads.
    let answer = tokio::task::spawn_blocking(move || node.answer_peer(&from, &question).encode())
        .await
        .map_err(|e| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", e.to_string()))?;
    let unsigned = ResponseParts { status: 200, headers: Vec::new(), body: &answer };
    let signature = sign_response(&request, &unsigned, app.node.key(), app.node.now())
        .map_err(|e| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", chain(&e)))?;
    let mut response = Body::from(answer.clone()).into_response();
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    for (name, value) in signature {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}
