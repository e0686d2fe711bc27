//! Who is asking.
//!
//! One operator's token and one devices' token per node, made at the first start; with `--dev` nobody is asked. Accounts, roles and
//! certificates come with the identity work; the policy behind decides on [`Principal`]s all the same.

use std::io;
use std::path::Path;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::request::Parts;
use policy::Principal;

use crate::App;
use crate::problem::Problem;

/// Checks credentials.
pub enum Authenticator {
    /// `--dev`: on loopback only, everybody is the operator.
    Dev,
    /// Tokens.
    Tokens {
        /// The operator's: HTTP bearer, SQL password.
        admin: String,
        /// The devices': MQTT password.
        device: String,
    },
}

/// Names of the token files in the node's folder.
pub const ADMIN_TOKEN_FILE: &str = "admin.token";
/// See [`ADMIN_TOKEN_FILE`].
pub const DEVICE_TOKEN_FILE: &str = "device.token";

impl Authenticator {
    /// Reads the tokens in a node's folder, making them at the first start; readable by the owner only.
    pub fn from_dir(dir: &Path) -> io::Result<Self> {
        Ok(Self::Tokens { admin: read_or_make(&dir.join(ADMIN_TOKEN_FILE))?, device: read_or_make(&dir.join(DEVICE_TOKEN_FILE))? })
    }

    /// Nobody is asked.
    #[must_use]
    pub const fn is_dev(&self) -> bool {
        matches!(self, Self::Dev)
    }

    /// The principal behind an HTTP request's headers; anonymous if there are no credentials.
    fn of_headers(&self, headers: &HeaderMap) -> Result<Principal, Problem> {
        match self {
            Self::Dev => {
                // A web page of somebody else must not drive the node through the operator's browser.
                let text = |name| headers.get(name).and_then(|v: &axum::http::HeaderValue| v.to_str().ok());
                if let (Some(origin), Some(host)) = (text(ORIGIN), text(HOST))
                    && origin.split_once("://").map(|(_, o)| o) != Some(host)
                {
                    return Err(Problem::denied(format!("a page of `{origin}` may not use a node in development mode")));
                }
                Ok(Principal::Operator { name: "dev".to_owned() })
            }
            Self::Tokens { admin, .. } => match headers.get(AUTHORIZATION) {
                None => Ok(Principal::Anonymous),
                Some(value) => match value.to_str().ok().and_then(|v| v.strip_prefix("Bearer ")) {
                    Some(token) if same(token.trim(), admin) => Ok(Principal::Operator { name: "admin".to_owned() }),
                    Some(_) => Err(Problem::unauthorized("the access token is not valid")),
                    None => Err(Problem::unauthorized("expected `Authorization: Bearer <token>`")),
                },
            },
        }
    }

    /// May a device connect with this user name and password?
    pub fn device(&self, user_name: Option<&str>, password: Option<&str>) -> Result<(), &'static str> {
        match self {
            Self::Dev => Ok(()),
            Self::Tokens { admin, device } => match (user_name, password) {
                (Some(_), Some(p)) if same(p, device) || same(p, admin) => Ok(()),
                (_, None) => Err("a user name and a password (the content of device.token) are needed"),
                _ => Err("the password is not valid"),
            },
        }
    }

    /// May somebody open an SQL session? Gives the principal.
    pub fn sql(&self, password: Option<&str>) -> Option<Principal> {
        match self {
            Self::Dev => Some(Principal::Operator { name: "dev".to_owned() }),
            Self::Tokens { admin, .. } => password.filter(|p| same(p, admin)).map(|_| Principal::Operator { name: "admin".to_owned() }),
        }
    }
}

fn read_or_make(path: &Path) -> io::Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let token = host::random_hex::<24>();
    let mut options = std::fs::OpenOptions::new();
    options.create(true).write(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    io::Write::write_all(&mut options.open(path)?, format!("{token}\n").as_bytes())?;
    Ok(token)
}

/// Compares without telling by the time how much of it was right: the digests are compared, not the texts.
fn same(a: &str, b: &str) -> bool {
    let digest = |s: &str| ring::digest::digest(&ring::digest::SHA256, s.as_bytes());
    digest(a).as_ref() == digest(b).as_ref()
}

/// The principal of a request.
pub(crate) struct Caller(pub(crate) Principal);

impl FromRequestParts<std::sync::Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &std::sync::Arc<App>) -> Result<Self, Problem> {
        match app.auth.of_headers(&parts.headers)? {
            Principal::Anonymous => {
                Err(Problem::unauthorized("this needs an access token: `Authorization: Bearer <content of admin.token>`"))
            }
            known => Ok(Self(known)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_made_once_and_only_the_right_one_opens() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authenticator::from_dir(dir.path()).unwrap();
        let again = Authenticator::from_dir(dir.path()).unwrap();
        let (Authenticator::Tokens { admin, device }, Authenticator::Tokens { admin: admin_again, .. }) = (&first, &again) else {
            panic!()
        };
        assert_eq!(admin, admin_again);
        assert!(first.sql(Some(admin)).is_some());
        assert!(first.sql(Some(device)).is_none(), "a device is no operator");
        assert!(first.sql(None).is_none());
        assert!(first.device(Some("d1"), Some(device)).is_ok());
        assert!(first.device(Some("d1"), Some("guess")).is_err());
        assert!(first.device(None, None).is_err());
    }

    #[test]
    fn in_development_mode_foreign_pages_are_refused() {
        let headers = |origin: &str| {
            let mut h = HeaderMap::new();
            h.insert(HOST, "127.0.0.1:1026".parse().unwrap());
            h.insert(ORIGIN, origin.parse().unwrap());
            h
        };
        assert!(Authenticator::Dev.of_headers(&headers("http://127.0.0.1:1026")).is_ok());
        assert!(Authenticator::Dev.of_headers(&headers("https://evil.example")).is_err());
    }
}
