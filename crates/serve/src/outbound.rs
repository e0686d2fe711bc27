//! Requests that the node makes because somebody outside asked for it: notifications and JSON-LD contexts.
//!
//! Such a request must not reach what only the node can reach (RFC 1918 networks, loopback, link-local metadata services), unless the node
//! runs with `--dev`: names are resolved here and private addresses are left out, redirects are not followed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// How long a connection may take to open.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// An HTTP client for foreign addresses.
#[derive(Clone)]
pub struct Outbound {
    client: reqwest::Client,
    private_allowed: bool,
}

/// Why an address is not asked.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// Not http or https.
    #[error("`{url}` cannot be asked: expected a URL of scheme http or https with a host")]
    Scheme {
        /// The URL.
        url: String,
    },
    /// An address of the node's own network.
    #[error("`{host}` is an address of a private network, which this node does not call (start it with --dev to allow that for trying)")]
    Private {
        /// The host.
        host: String,
    },
    /// The client cannot be made.
    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
}

impl Outbound {
    /// A client; with `private_allowed` it calls every address.
    pub fn new(private_allowed: bool) -> Result<Self, OutboundError> {
        let mut builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).connect_timeout(CONNECT_WAIT);
        if !private_allowed {
            builder = builder.dns_resolver(Arc::new(PublicOnly));
        }
        Ok(Self { client: builder.build().map_err(OutboundError::Client)?, private_allowed })
    }

    /// Checks a URL that somebody gave us.
    pub fn check(&self, url: &str) -> Result<Url, OutboundError> {
        let scheme = || OutboundError::Scheme { url: url.chars().take(200).collect() };
        let parsed = Url::parse(url).map_err(|_| scheme())?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(scheme());
        }
        let address = match parsed.host().ok_or_else(scheme)? {
            Host::Ipv4(a) => Some(IpAddr::V4(a)),
            Host::Ipv6(a) => Some(IpAddr::V6(a)),
            Host::Domain(d) if d.eq_ignore_ascii_case("localhost") => Some(IpAddr::from([127, 0, 0, 1])),
            Host::Domain(_) => None,
        };
        match address {
            Some(a) if !self.private_allowed && !is_public(a) => Err(OutboundError::Private { host: a.to_string() }),
            _ => Ok(parsed),
        }
    }

    /// The client, for URLs that were checked.
    #[must_use]
    pub const fn client(&self) -> &reqwest::Client {
        &self.client
    }
}

/// Resolves names to public addresses only.
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.filter(|a| is_public(a.ip())).collect();
            if found.is_empty() {
                return Err(format!("`{}` has no public address", name.as_str()).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Is this an address of the public internet? (IANA special-purpose registries.)
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            let [b0, b1, ..] = a.octets();
            let shared = b0 == 100 && (64..128).contains(&b1);
            let benchmarking = b0 == 198 && (18..20).contains(&b1);
            !(a.is_private()
                || a.is_loopback()
                || a.is_link_local()
                || a.is_unspecified()
                || a.is_multicast()
                || a.is_broadcast()
                || a.is_documentation())
                && b0 != 0
                && b0 < 240
                && !shared
                && !benchmarking
        }
        IpAddr::V6(a) => match a.to_ipv4_mapped() {
            Some(v4) => is_public(IpAddr::V4(v4)),
            None => a.segments()[0] & 0xe000 == 0x2000 && a.segments()[..2] != [0x2001, 0xdb8],
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_refused_unless_allowed() {
        for url in [
            "http://127.0.0.1/x",
            "http://localhost:80",
            "http://10.1.2.3",
            "http://169.254.169.254/latest",
            "http://[::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://100.64.0.1",
            "http://0.0.0.0",
        ] {
            assert!(
                matches!(Outbound { client: reqwest_client(), private_allowed: false }.check(url), Err(OutboundError::Private { .. })),
                "{url}"
            );
            assert!(Outbound { client: reqwest_client(), private_allowed: true }.check(url).is_ok(), "{url}");
        }
        let outbound = Outbound { client: reqwest_client(), private_allowed: false };
        assert!(outbound.check("https://93.184.215.14/").is_ok());
        for url in ["ftp://a.example/", "file:///etc/passwd", "nonsense", "http://"] {
            assert!(matches!(outbound.check(url), Err(OutboundError::Scheme { .. })), "{url}");
        }
    }

    fn reqwest_client() -> reqwest::Client {
        // Whoever installs it first wins; it is the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::new()
    }
}
