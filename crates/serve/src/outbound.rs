//! Requests that the node makes because somebody outside asked for it: notifications and JSON-LD contexts.
//!
//! Such a request must not reach what only the node can reach (RFC 1918 networks, loopback, link-local metadata services), unless the
//! configuration allows it: names are resolved here and private addresses are left out, redirects are not followed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use url::{Host, Url};

/// How long a connection may take to open.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// Idle connections that are kept for each host.
const IDLE_PER_HOST_MAX: usize = 64;

/// Which addresses may be called beside those of the public internet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    private: bool,
    networks: Vec<(IpAddr, u8)>,
    hosts: Vec<String>,
}

/// An entry of the list of allowed addresses is not one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{entry}` is neither `private` nor a network such as `10.0.0.0/8` nor an address nor the name of a host")]
pub struct AllowedError {
    /// The entry.
    pub entry: String,
}

impl Allowed {
    /// Everything.
    #[must_use]
    pub fn everything() -> Self {
        Self { private: true, ..Self::default() }
    }

    /// Reads a list of networks (`10.0.0.0/8`), addresses, host names, and `private` for all private networks.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, AllowedError> {
        let mut allowed = Self::default();
        for entry in entries {
            let wrong = || AllowedError { entry: entry.to_owned() };
            if entry == "private" {
                allowed.private = true;
            } else if let Ok(address) = entry.parse::<IpAddr>() {
                allowed.networks.push((address, if address.is_ipv4() { 32 } else { 128 }));
            } else if let Some((address, bits)) = entry.split_once('/') {
                let (address, bits): (IpAddr, u8) = address.parse().ok().zip(bits.parse().ok()).ok_or_else(wrong)?;
                if bits > if address.is_ipv4() { 32 } else { 128 } {
                    return Err(wrong());
                }
                allowed.networks.push((address, bits));
            } else {
                let is_label = |l: &str| !l.is_empty() && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
                if !entry.split('.').all(is_label) {
                    return Err(wrong());
                }
                allowed.hosts.push(entry.to_ascii_lowercase());
            }
        }
        Ok(allowed)
    }

    fn has_host(&self, name: &str) -> bool {
        self.hosts.iter().any(|h| h.eq_ignore_ascii_case(name))
    }

    fn has_address(&self, address: IpAddr) -> bool {
        let address = match address {
            IpAddr::V6(a) => a.to_ipv4_mapped().map_or(address, IpAddr::V4),
            IpAddr::V4(_) => address,
        };
        self.private || is_public(address) || self.networks.iter().any(|(network, bits)| is_in(address, *network, *bits))
    }
}

/// Is the address in the network?
fn is_in(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let same = |a: &[u8], n: &[u8]| {
        (0..usize::from(bits)).all(|i| {
            let mask = 0x80_u8 >> (i % 8);
            a[i / 8] & mask == n[i / 8] & mask
        })
    };
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => same(&a.octets(), &n.octets()),
        (IpAddr::V6(a), IpAddr::V6(n)) => same(&a.octets(), &n.octets()),
        _ => false,
    }
}

/// A client for foreign addresses.
#[derive(Clone)]
pub struct Outbound {
    client: reqwest::Client,
    allowed: Arc<Allowed>,
    tls: Arc<rustls::ClientConfig>,
}

/// Why an address is not asked.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// Another scheme.
    #[error("`{url}` cannot be asked: expected a URL of scheme {expected} with a host")]
    Scheme {
        /// The URL.
        url: String,
        /// The schemes that there are.
        expected: &'static str,
    },
    /// An address of the node's own network.
    #[error(
        "`{host}` is an address of a private network, which this node does not call (to allow it, name it in `allow` of [outbound] in conurb.toml; --dev allows all)"
    )]
    Private {
        /// The host.
        host: String,
    },
    /// A certificate that the operator named cannot be used.
    #[error("the certificates of authorities cannot be read: {0}")]
    Authorities(String),
    /// The client cannot be made.
    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
}

impl Outbound {
    /// A client; with `private_allowed` it calls every address.
    pub fn new(private_allowed: bool) -> Result<Self, OutboundError> {
        Self::with(if private_allowed { Allowed::everything() } else { Allowed::default() }, None)
    }

    /// A client that calls what is allowed, and trusts the system's authorities and those in `authorities_pem`.
    pub fn with(allowed: Allowed, authorities_pem: Option<&[u8]>) -> Result<Self, OutboundError> {
        let authorities = match authorities_pem {
            None => Vec::new(),
            Some(pem) => {
                CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|e| OutboundError::Authorities(e.to_string()))?
            }
        };
        if authorities_pem.is_some() && authorities.is_empty() {
            return Err(OutboundError::Authorities("there is no certificate in the file".to_owned()));
        }
        let allowed = Arc::new(allowed);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            rustls_platform_verifier::Verifier::new_with_extra_roots(authorities, Arc::clone(&provider)).map_err(OutboundError::Tls)?;
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(OutboundError::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_WAIT)
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .tls_backend_preconfigured(tls.clone())
            .dns_resolver(Arc::new(OnlyAllowed(Arc::clone(&allowed))))
            .build()
            .map_err(OutboundError::Client)?;
        Ok(Self { client, allowed, tls: Arc::new(tls) })
    }

    /// Checks a URL of HTTP that somebody gave us.
    pub fn check(&self, url: &str) -> Result<Url, OutboundError> {
        self.check_of(url, &["http", "https"], "http or https")
    }

    /// Checks the address of somebody who wants to be notified.
    pub fn check_endpoint(&self, url: &str) -> Result<Url, OutboundError> {
        self.check_of(url, &["http", "https", "mqtt", "mqtts"], "http, https, mqtt or mqtts")
    }

    fn check_of(&self, url: &str, schemes: &[&str], expected: &'static str) -> Result<Url, OutboundError> {
        let scheme = || OutboundError::Scheme { url: url.chars().take(200).collect(), expected };
        let parsed = Url::parse(url).map_err(|_| scheme())?;
        if !schemes.contains(&parsed.scheme()) {
            return Err(scheme());
        }
        let host = parsed.host_str().filter(|h| !h.is_empty()).ok_or_else(scheme)?;
        let name = host.trim_start_matches('[').trim_end_matches(']');
        // In URLs of other schemes than HTTP's an address is not recognised as one.
        let address = match parsed.host().ok_or_else(scheme)? {
            Host::Ipv4(a) => Some(IpAddr::V4(a)),
            Host::Ipv6(a) => Some(IpAddr::V6(a)),
            Host::Domain(d) if d.eq_ignore_ascii_case("localhost") => Some(IpAddr::from([127, 0, 0, 1])),
            Host::Domain(d) => d.parse().ok(),
        };
        match address {
            Some(a) if !self.allowed.has_address(a) && !self.allowed.has_host(name) => {
                Err(OutboundError::Private { host: name.to_owned() })
            }
            _ => Ok(parsed),
        }
    }

    /// The client, for URLs that were checked.
    #[must_use]
    pub const fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// How connections are secured.
    #[must_use]
    pub fn tls(&self) -> Arc<rustls::ClientConfig> {
        Arc::clone(&self.tls)
    }

    /// Opens a connection to the first address of a host that may be called and answers.
    ///
    /// Errors: none may, or none does.
    pub(crate) async fn connect(&self, host: &str, port: u16) -> std::io::Result<tokio::net::TcpStream> {
        let connect = async {
            let addresses = resolve(&self.allowed, host, port).await?;
            let stream = tokio::net::TcpStream::connect(&addresses[..]).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no connection within {} s", CONNECT_WAIT.as_secs()));
        tokio::time::timeout(CONNECT_WAIT, connect).await.unwrap_or_else(|_| Err(late()))
    }
}

/// The addresses of a host that may be called, at least one.
async fn resolve(allowed: &Allowed, host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    let is_known = allowed.has_host(host);
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.filter(|a| is_known || allowed.has_address(a.ip())).collect();
    if found.is_empty() {
        return Err(std::io::Error::other(format!("`{host}` has no address that this node may call")));
    }
    Ok(found)
}

/// Resolves names to allowed addresses only.
struct OnlyAllowed(Arc<Allowed>);

impl Resolve for OnlyAllowed {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = Arc::clone(&self.0);
        Box::pin(async move { Ok(Box::new(resolve(&allowed, name.as_str(), 0).await?.into_iter()) as Addrs) })
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

    fn outbound(allow: &[&str]) -> Outbound {
        Outbound::with(Allowed::parse(allow.iter().copied()).unwrap(), None).unwrap()
    }

    #[test]
    fn private_addresses_are_refused_unless_allowed() {
        let (closed, open) = (outbound(&[]), outbound(&["private"]));
        for url in [
            "http://127.0.0.1/x",
            "http://localhost:80",
            "http://10.1.2.3",
            "http://169.254.169.254/latest",
            "http://[::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://100.64.0.1",
            "http://0.0.0.0",
            "mqtt://127.0.0.1/topic",
            "mqtts://user:secret@[::1]:8883/topic",
            "mqtt://localhost/topic",
        ] {
            assert!(matches!(closed.check_endpoint(url), Err(OutboundError::Private { .. })), "{url}");
            assert!(open.check_endpoint(url).is_ok(), "{url}");
        }
        assert!(closed.check("https://93.184.215.14/").is_ok());
        for url in ["ftp://a.example/", "file:///etc/passwd", "nonsense", "http://", "mqtt://", "mqtt:///topic"] {
            assert!(matches!(closed.check_endpoint(url), Err(OutboundError::Scheme { .. })), "{url}");
        }
        assert!(matches!(open.check("mqtt://127.0.0.1/topic"), Err(OutboundError::Scheme { .. })));
    }

    #[test]
    fn networks_addresses_and_hosts_can_be_allowed_one_by_one() {
        let o = outbound(&["10.0.0.0/8", "192.168.1.7", "fd00::/8", "sensors.internal"]);
        for url in
            ["http://10.255.0.1/", "http://192.168.1.7/", "http://[fd12::1]/", "http://[::ffff:10.0.0.1]/", "http://sensors.internal/"]
        {
            assert!(o.check(url).is_ok(), "{url}");
        }
        for url in ["http://11.0.0.1/", "http://172.16.0.1/", "http://8.8.8.8/"] {
            assert_eq!(o.check(url).is_ok(), !url.contains("172"), "{url}");
        }
        for url in ["http://192.168.1.8/", "http://[fe80::1]/", "http://127.0.0.1/"] {
            assert!(matches!(o.check(url), Err(OutboundError::Private { .. })), "{url}");
        }
        for entry in ["10.0.0.0/33", "10.0.0/8", "a b", "", "http://x", "fd00::/129"] {
            assert_eq!(Allowed::parse([entry]), Err(AllowedError { entry: entry.to_owned() }));
        }
    }

    #[tokio::test]
    async fn names_lead_to_allowed_addresses_only() {
        let error = outbound(&[]).connect("localhost", 9).await.unwrap_err().to_string();
        assert!(error.contains("no address that this node may call"), "{error}");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for allow in ["localhost", "127.0.0.0/8", "private"] {
            outbound(&[allow]).connect("localhost", port).await.unwrap();
        }
    }

    #[test]
    fn authorities_must_be_certificates() {
        for pem in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(Outbound::with(Allowed::default(), Some(pem.as_bytes())).is_err(), "{pem}");
        }
    }
}
