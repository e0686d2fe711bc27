//! HTTP/1.1 for notifications: one POST after the other over connections that stay open.
//!
//! A general client spends more on a request than the whole rest of a notification costs: pools, redirects, bodies as streams. Here the head is
//! prepared once, one buffer is written, and of the answer only the status counts. What is not plain HTTP goes through the general one.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode_str;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use url::Url;

use crate::outbound::Outbound;

/// Open connections without a request that are kept for each host.
const IDLE_PER_HOST_MAX: usize = 64;
/// How long one is kept: many servers close theirs after 5 s or more.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// Bytes of the head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1_024;
/// Bytes of the body of an answer that are read so that the connection can be used again.
const BODY_BYTES_MAX: usize = 64 * 1_024;

/// Host and port.
type Place = (String, u16);

/// A connection that waits for the next request, and since when.
type Idle = (TcpStream, Instant);

/// Connections that wait for the next request.
#[derive(Default)]
pub(super) struct Connections(Mutex<HashMap<Place, Vec<Idle>>>);

/// Where to post, with everything that is the same each time.
pub(super) struct WireTarget {
    place: Place,
    head: Vec<u8>,
}

impl WireTarget {
    /// A target for a URL of plain HTTP; none for others.
    pub(super) fn new(url: &Url, headers: &HeaderMap) -> Option<Self> {
        let host = url.host_str().filter(|_| url.scheme() == "http")?;
        let port = url.port_or_known_default()?;
        let query = url.query().map(|q| format!("?{q}")).unwrap_or_default();
        let shown_port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
        let mut head = format!("POST {}{query} HTTP/1.1\r\nhost: {host}{shown_port}\r\n", url.path()).into_bytes();
        let has_login = !url.username().is_empty() || url.password().is_some();
        if has_login && !headers.contains_key("authorization") {
            let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
            let login = format!("{}:{}", decoded(url.username()), decoded(url.password().unwrap_or_default()));
            head.extend(format!("authorization: Basic {}\r\n", BASE64_STANDARD.encode(login)).into_bytes());
        }
        for (name, value) in headers {
            head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        head.extend(b"content-length: ");
        let place = (host.trim_start_matches('[').trim_end_matches(']').to_owned(), port);
        Some(Self { place, head })
    }

    /// Posts a body and gives the status of the answer.
    pub(super) async fn post(&self, outbound: &Outbound, connections: &Connections, body: &[u8]) -> io::Result<StatusCode> {
        let mut request = Vec::with_capacity(self.head.len() + 16 + body.len());
        request.extend_from_slice(&self.head);
        request.extend_from_slice(body.len().to_string().as_bytes());
        request.extend_from_slice(b"\r\n\r\n");
        request.extend_from_slice(body);
        // The server may have closed it while it was idle; then there is a new one. A notification that comes twice has the same id.
        if let Some(mut idle) = connections.take(&self.place)
            && let Ok(answer) = exchange(&mut idle, &request).await
        {
            return Ok(self.done(connections, idle, answer));
        }
        let mut stream = outbound.connect(&self.place.0, self.place.1).await?;
        let answer = exchange(&mut stream, &request).await?;
        Ok(self.done(connections, stream, answer))
    }

    fn done(&self, connections: &Connections, stream: TcpStream, answer: Answer) -> StatusCode {
        if answer.is_reusable {
            connections.keep(&self.place, stream);
        }
        answer.status
    }
}

impl Connections {
    fn take(&self, place: &Place) -> Option<TcpStream> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = all.get_mut(place)?;
        // The newest last: if that one is too old, all are.
        let (stream, since) = idle.pop()?;
        if since.elapsed() < IDLE_MAX {
            return Some(stream);
        }
        idle.clear();
        None
    }

    fn keep(&self, place: &Place, stream: TcpStream) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(place) {
            Some(idle) if idle.len() >= IDLE_PER_HOST_MAX => {}
            Some(idle) => idle.push((stream, Instant::now())),
            None => {
                // Where nothing has gone to lately need not be remembered.
                all.retain(|_, idle| idle.last().is_some_and(|(_, since)| since.elapsed() < IDLE_MAX));
                all.insert(place.clone(), vec![(stream, Instant::now())]);
            }
        }
    }
}

struct Answer {
    status: StatusCode,
    is_reusable: bool,
}

async fn exchange(stream: &mut TcpStream, request: &[u8]) -> io::Result<Answer> {
    stream.write_all(request).await?;
    let mut bytes = Vec::with_capacity(512);
    loop {
        while let Some(end) = find(&bytes, b"\r\n\r\n") {
            let head = Head::read(&bytes[..end])?;
            bytes.drain(..end + 4);
            // Not the answer yet: 100 Continue and the like.
            if !head.status.is_informational() {
                return finish(stream, head, bytes.len()).await;
            }
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(io::Error::other(format!("the head of the answer is longer than {HEAD_BYTES_MAX} bytes")));
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed before an answer"));
        }
    }
}

/// Reads what is left of the answer, if that is worth while.
async fn finish(stream: &mut TcpStream, head: Head, n_read: usize) -> io::Result<Answer> {
    let Head { status, body_bytes, is_last } = head;
    let left = match body_bytes.map(|n| n.checked_sub(n_read)) {
        Some(Some(left)) if !is_last && left <= BODY_BYTES_MAX => left,
        _ => return Ok(Answer { status, is_reusable: false }),
    };
    let mut left = left;
    let mut rest = [0; 4_096];
    while left > 0 {
        let n = rest.len().min(left);
        match stream.read(&mut rest[..n]).await {
            Ok(n) if n > 0 => left -= n,
            // The answer is known all the same.
            _ => return Ok(Answer { status, is_reusable: false }),
        }
    }
    Ok(Answer { status, is_reusable: true })
}

/// What counts of the head of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: StatusCode,
    /// None if only the end of the connection, or chunks, say how long the body is.
    body_bytes: Option<usize>,
    /// The connection ends with this answer.
    is_last: bool,
}

impl Head {
    fn read(bytes: &[u8]) -> io::Result<Self> {
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("the answer is not HTTP/1.1: {what}"));
        let text = std::str::from_utf8(bytes).map_err(|_| wrong("its head is not text"))?;
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let (version, rest) = first.split_once(' ').ok_or_else(|| wrong("its first line has no status"))?;
        if !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
            return Err(wrong("it is of another version"));
        }
        let code = rest.split(' ').next().and_then(|c| c.parse::<u16>().ok());
        let status = code.and_then(|c| StatusCode::from_u16(c).ok()).ok_or_else(|| wrong("its first line has no status"))?;
        let has_no_body = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let mut head = Self { status, body_bytes: has_no_body.then_some(0), is_last: version == "HTTP/1.0" };
        let mut is_chunked = false;
        for (name, value) in lines.filter_map(|l| l.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") && !has_no_body {
                head.body_bytes = Some(value.parse().map_err(|_| wrong("its content-length is no number"))?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                is_chunked = true;
            } else if name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close") {
                head.is_last = true;
            }
        }
        if is_chunked && !has_no_body {
            head.body_bytes = None;
        }
        Ok(head)
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|w| w == what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn target(url: &str) -> WireTarget {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        WireTarget::new(&url.parse().unwrap(), &headers).unwrap()
    }

    /// Gives these answers, one for each connection and request in it, and what was asked.
    async fn server(answers: Vec<Vec<&'static str>>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/n?a=b", listener.local_addr().unwrap());
        let work = async move {
            let mut asked = Vec::new();
            for of_connection in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                for answer in of_connection {
                    let mut request = Vec::new();
                    while !request.ends_with(b"END") {
                        assert!(stream.read_buf(&mut request).await.unwrap() > 0);
                    }
                    asked.push(String::from_utf8(request).unwrap());
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
            asked
        };
        (url, tokio::spawn(work))
    }

    #[tokio::test]
    async fn requests_share_connections_as_long_as_the_answers_allow() {
        let (url, asked) = server(vec![
            vec![
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
                "HTTP/1.1 204 No Content\r\n\r\n",
                "HTTP/1.1 201 Made\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            ],
            vec!["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
            vec!["HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"],
            // Closed while it is idle: the next request takes another connection.
            vec!["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"],
            vec!["HTTP/1.1 400 Bad\r\nContent-Length: 2\r\n\r\nno"],
        ])
        .await;
        let (outbound, connections, target) = (Outbound::new(true).unwrap(), Connections::default(), target(&url));
        for want in [200, 204, 201, 503, 200, 200, 400] {
            assert_eq!(target.post(&outbound, &connections, b"{}END").await.unwrap().as_u16(), want);
        }
        let asked = asked.await.unwrap();
        let host = url.trim_start_matches("http://").trim_end_matches("/n?a=b");
        assert_eq!(
            asked[0],
            format!("POST /n?a=b HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: 5\r\n\r\n{{}}END")
        );
        assert_eq!(asked.len(), 7);
    }

    #[tokio::test]
    async fn what_is_no_answer_is_an_error() {
        let long: &'static str = Box::leak(format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_BYTES_MAX)).into_boxed_str());
        for answer in
            ["", "nonsense\r\n\r\n", "HTTP/2 200\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", long]
        {
            let (url, _asked) = server(vec![vec![answer]]).await;
            let result = target(&url).post(&Outbound::new(true).unwrap(), &Connections::default(), b"END").await;
            assert!(result.is_err(), "{answer}: {result:?}");
        }
    }

    #[test]
    fn logins_and_other_schemes() {
        let head = String::from_utf8(target("http://me:s%3Aecret@[::1]:81/").head).unwrap();
        assert!(head.contains("\r\nhost: [::1]:81\r\n") && head.contains("authorization: Basic bWU6czplY3JldA==\r\n"), "{head}");
        assert_eq!(target("http://me@[::1]:81/").place, ("::1".to_owned(), 81));
        assert_eq!(target("http://a.example/").place, ("a.example".to_owned(), 80));
        assert!(WireTarget::new(&"https://a.example/".parse().unwrap(), &HeaderMap::new()).is_none());
    }
}
