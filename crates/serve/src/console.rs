//! The console: the built UI, embedded in the binary.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use axum::body::{Body, Bytes};
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

use crate::problem::Problem;

#[derive(RustEmbed)]
#[folder = "../../ui/dist"]
struct Ui;

/// Everything comes from the node itself; MapLibre needs workers and inline styles, pictures may be made in the page.
const POLICY: &str = "default-src 'self'; script-src 'self' blob:; worker-src 'self' blob:; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

/// Shown when the program was built without the UI.
const NOT_BUILT: &str = "<!doctype html><title>conurb</title><p>This program was built without its console. Run <code>make ui</code>, then build again. The interfaces work all the same: see <a href=\"/openapi.json\">/openapi.json</a>.";

/// A file of the UI; the page itself for every path that is no file, so that the page's own addresses can be opened.
pub(crate) async fn page(uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().trim_start_matches('/');
    if let Some(file) = Ui::get(path) {
        return answer(path, file.data.into_owned(), &headers);
    }
    let is_file = path.rsplit('/').next().is_some_and(|last| last.contains('.'));
    if is_file || path.starts_with("api/") || path.starts_with("ngsi-ld/") || path.starts_with("cluster/") || path.starts_with("peer/") {
        return Problem::new(axum::http::StatusCode::NOT_FOUND, "ResourceNotFound", format!("there is nothing at `{}`", uri.path()))
            .into_response();
    }
    match Ui::get("index.html") {
        Some(file) => answer("index.html", file.data.into_owned(), &headers),
        None => answer("index.html", NOT_BUILT.into(), &headers),
    }
}

/// Files that were asked for, compressed once.
static COMPRESSED: Mutex<Option<HashMap<String, Bytes>>> = Mutex::new(None);

/// Smaller files gain nothing.
const COMPRESS_BYTES_MIN: usize = 1_024;

fn compressed(path: &str, data: &[u8]) -> Option<Bytes> {
    let mut files = COMPRESSED.lock().unwrap_or_else(PoisonError::into_inner);
    let files = files.get_or_insert_with(HashMap::new);
    if let Some(known) = files.get(path) {
        return Some(known.clone());
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).ok()?;
    let bytes = Bytes::from(encoder.finish().ok()?);
    files.insert(path.to_owned(), bytes.clone());
    Some(bytes)
}

fn answer(path: &str, data: Vec<u8>, asked: &HeaderMap) -> Response {
    let mime = mime_guess::from_path(path).first_or_octet_stream();
    let wanted = asked.get(ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains("gzip"));
    let is_text = mime.type_() == "text" || mime.subtype() == "javascript" || mime.subtype() == "json" || mime.suffix().is_some();
    let small = if wanted && is_text && data.len() >= COMPRESS_BYTES_MIN { compressed(path, &data) } else { None };
    let is_compressed = small.is_some();
    let mut response = Response::new(small.map_or_else(|| Body::from(data), Body::from));
    let headers = response.headers_mut();
    if is_compressed {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if let Ok(value) = HeaderValue::from_str(mime.as_ref()) {
        headers.insert(CONTENT_TYPE, value);
    }
    // Names of assets carry a hash of their content.
    let caching = if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(caching));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}
