//! Somebody to be notified: an HTTP server that keeps what it gets, and can be slow, refuse, or be away.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::routing::any;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::city::eventually;

/// What it gives who asks for something: a context.
const CONTEXT: &str = r#"{"@context": {"fine": "https://uri.etsi.org/ngsi-ld/default-context/pm25"}}"#;

/// What was received.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Value,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect()
    }

    /// The value of an attribute of the first entity, simplified or normalized.
    pub(crate) fn value(&self, attribute: &str) -> Value {
        let a = &self.body["data"][0][attribute];
        a.get("value").unwrap_or(a).clone()
    }

    pub(crate) fn id(&self) -> &str {
        self.body["id"].as_str().unwrap()
    }
}

#[derive(Default)]
struct Book {
    received: Mutex<Vec<Received>>,
    answer: Mutex<(u16, Duration)>,
    n_asked: Mutex<usize>,
}

/// An HTTP server.
pub(crate) struct Receiver {
    pub(crate) address: String,
    book: Arc<Book>,
    runtime: Option<Runtime>,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0")
    }

    pub(crate) fn start_at(address: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let book = Arc::new(Book::default());
        *book.answer.lock().unwrap() = (200, Duration::ZERO);
        let listener = runtime.block_on(TcpListener::bind(address)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = Router::new().fallback(any(take)).with_state(Arc::clone(&book));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { address, book, runtime: Some(runtime) }
    }

    /// The same over TLS, with a certificate for 127.0.0.1.
    pub(crate) fn start_secure(certificate_pem: &[u8], key_pem: &[u8]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let chain = CertificateDer::pem_slice_iter(certificate_pem).collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(key_pem).unwrap();
        let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let book = Arc::new(Book::default());
        *book.answer.lock().unwrap() = (200, Duration::ZERO);
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = Router::new().fallback(any(take)).with_state(Arc::clone(&book));
        let listener = Secure(listener, TlsAcceptor::from(Arc::new(config)));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { address, book, runtime: Some(runtime) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/notify", self.address)
    }

    /// From now on answers with this status after this time; what is not answered with 200 is not kept.
    pub(crate) fn answers(&self, status: u16, after: Duration) {
        *self.book.answer.lock().unwrap() = (status, after);
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.book.received.lock().unwrap().clone()
    }

    /// Requests, those that were refused included.
    pub(crate) fn n_asked(&self) -> usize {
        *self.book.n_asked.lock().unwrap()
    }

    /// Waits for so many and gives them.
    #[track_caller]
    pub(crate) fn gets(&self, n: usize) -> Vec<Received> {
        eventually(&format!("{n} notifications arrive"), || self.book.received.lock().unwrap().len() >= n);
        self.received()
    }
}

/// Connections over TLS; those that do not come about are passed over.
struct Secure(TcpListener, TlsAcceptor);

impl axum::serve::Listener for Secure {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, from) = self.0.accept().await.unwrap();
            if let Ok(stream) = self.1.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

async fn take(State(book): State<Arc<Book>>, method: Method, headers: HeaderMap, body: Bytes) -> (StatusCode, &'static str) {
    if method == Method::GET {
        return (StatusCode::OK, CONTEXT);
    }
    let (status, after) = *book.answer.lock().unwrap();
    *book.n_asked.lock().unwrap() += 1;
    tokio::time::sleep(after).await;
    if status == 200 {
        let headers = headers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect();
        book.received.lock().unwrap().push(Received { headers, body: serde_json::from_slice(&body).unwrap() });
    }
    (StatusCode::from_u16(status).unwrap(), "")
}
