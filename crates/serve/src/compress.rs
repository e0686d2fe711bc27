//! Compression on the wire: answers by `Accept-Encoding`, bodies by `Content-Encoding` (RFC 9110, sections 8.4 and 12.5.3).

use std::io::{self, Read, Write};

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;

use crate::binding::empty;

/// Shorter answers fit into a packet: compressing them costs more than it saves.
const ANSWER_BYTES_MIN: u64 = 1_200;
/// Longer ones are not compressed: they would be twice in memory.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// From this size on the work is given to a thread that serves no sockets.
const INLINE_BYTES_MAX: usize = 64 << 10;
/// Of 9: the quickest that pays, measured on lists of entities.
const GZIP_LEVEL: u32 = 3;
/// Of 11, the same.
const BROTLI_LEVEL: i32 = 3;
const BROTLI_WINDOW: i32 = 20;
const BUFFER_BYTES: usize = 4096;

/// A content coding that we write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Coding {
    Brotli,
    Gzip,
}

impl Coding {
    const fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// What the client likes best of what we write; none if it wants the answer as it is.
pub(crate) fn wanted(headers: &HeaderMap) -> Option<Coding> {
    let value = headers.get(ACCEPT_ENCODING)?.to_str().ok()?;
    let weight = |name: &str| {
        value.split(',').find_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            if !parts.next()?.eq_ignore_ascii_case(name) {
                return None;
            }
            Some(parts.find_map(|p| p.strip_prefix("q=")).and_then(|q| q.parse().ok()).unwrap_or(1.0_f32))
        })
    };
    let (brotli, gzip) = (weight("br").unwrap_or(0.0), weight("gzip").or_else(|| weight("*")).unwrap_or(0.0));
    let best = if brotli >= gzip { (Coding::Brotli, brotli) } else { (Coding::Gzip, gzip) };
    (best.1 > 0.0).then_some(best.0)
}

/// The answer compressed, if it is one that gains by it: text of a known length that nobody has compressed yet.
pub(crate) async fn answer(response: Response, coding: Coding) -> Response {
    let Some(length) = response.body().size_hint().exact() else { return response };
    let headers = response.headers();
    let is_text = headers.get(CONTENT_TYPE).and_then(|t| t.to_str().ok()).is_some_and(|t| t.starts_with("text/") || t.contains("json"));
    if !is_text || headers.contains_key(CONTENT_ENCODING) || !(ANSWER_BYTES_MIN..=ANSWER_BYTES_MAX).contains(&length) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // A body of a known length is in memory already, and cannot fail.
    let Ok(bytes) = to_bytes(body, usize::MAX).await else { return empty(StatusCode::INTERNAL_SERVER_ERROR) };
    let compressed = if bytes.len() <= INLINE_BYTES_MAX {
        compressed(&bytes, coding)
    } else {
        let shared = bytes.clone();
        tokio::task::spawn_blocking(move || compressed(&shared, coding)).await.unwrap_or_else(|e| Err(io::Error::other(e)))
    };
    parts.headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    match compressed {
        Ok(shorter) if shorter.len() < bytes.len() => {
            parts.headers.remove(CONTENT_LENGTH);
            parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
            Response::from_parts(parts, Body::from(shorter))
        }
        _ => Response::from_parts(parts, Body::from(bytes)),
    }
}

fn compressed(bytes: &[u8], coding: Coding) -> io::Result<Vec<u8>> {
    let out = Vec::with_capacity(bytes.len() / 4);
    match coding {
        Coding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::new(GZIP_LEVEL));
            encoder.write_all(bytes)?;
            encoder.finish()
        }
        Coding::Brotli => {
            let parameters = brotli::enc::BrotliEncoderParams {
                quality: BROTLI_LEVEL,
                lgwin: BROTLI_WINDOW,
                size_hint: bytes.len(),
                ..Default::default()
            };
            let mut encoder = brotli::CompressorWriter::with_params(out, BUFFER_BYTES, &parameters);
            encoder.write_all(bytes)?;
            Ok(encoder.into_inner())
        }
    }
}

/// A body that came as gzip; never longer than `bytes_max`.
///
/// Errors: it is no gzip, is cut short, or is longer.
pub(crate) fn unzipped(bytes: &[u8], bytes_max: usize) -> io::Result<Bytes> {
    let mut out = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    flate2::read::MultiGzDecoder::new(bytes).take(limit).read_to_end(&mut out)?;
    if out.len() > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than the limit when unpacked"));
    }
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_chooses() {
        check(None, None);
        check(Some(""), None);
        check(Some("identity"), None);
        check(Some("gzip"), Some(Coding::Gzip));
        check(Some("gzip, deflate, br"), Some(Coding::Brotli));
        check(Some("GZIP;q=0.5, br;q=0.1"), Some(Coding::Gzip));
        check(Some("br;q=0, gzip;q=0"), None);
        check(Some("*"), Some(Coding::Gzip));
        check(Some("gzip;q=0, *"), None);

        #[track_caller]
        fn check(value: Option<&str>, want: Option<Coding>) {
            let headers = value.map(|v| (ACCEPT_ENCODING, v.parse().unwrap())).into_iter().collect();
            assert_eq!(wanted(&headers), want, "{value:?}");
        }
    }

    #[test]
    fn what_is_packed_is_unpacked_up_to_a_limit() {
        let text = "urn:ngsi-ld:Station:".repeat(1_000);
        let packed = compressed(text.as_bytes(), Coding::Gzip).unwrap();
        assert!(packed.len() < text.len() / 10);
        assert_eq!(unzipped(&packed, text.len()).unwrap(), text);
        assert!(unzipped(&packed, text.len() - 1).is_err());
        assert!(unzipped(&packed[..packed.len() / 2], text.len()).is_err(), "cut short");
        assert!(unzipped(b"no gzip", 100).is_err());
        let mut unpacked = String::new();
        let packed = compressed(text.as_bytes(), Coding::Brotli).unwrap();
        brotli::Decompressor::new(packed.as_slice(), BUFFER_BYTES).read_to_string(&mut unpacked).unwrap();
        assert_eq!(unpacked, text);
    }
}
