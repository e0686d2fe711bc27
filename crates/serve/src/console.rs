//! The console: the built UI, embedded in the binary.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Uri};
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
pub(crate) async fn page(uri: Uri) -> Response {
    let path = uri.path().trim_start_matches('/');
    if let Some(file) = Ui::get(path) {
        return answer(path, file.data.into_owned());
    }
    let is_file = path.rsplit('/').next().is_some_and(|last| last.contains('.'));
    if is_file || path.starts_with("api/") || path.starts_with("ngsi-ld/") || path.starts_with("cluster/") || path.starts_with("peer/") {
        return Problem::new(axum::http::StatusCode::NOT_FOUND, "ResourceNotFound", format!("there is nothing at `{}`", uri.path()))
            .into_response();
    }
    match Ui::get("index.html") {
        Some(file) => answer("index.html", file.data.into_owned()),
        None => answer("index.html", NOT_BUILT.into()),
    }
}

fn answer(path: &str, data: Vec<u8>) -> Response {
    let mime = mime_guess::from_path(path).first_or_octet_stream();
    let mut response = Response::new(Body::from(data));
    let headers = response.headers_mut();
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
