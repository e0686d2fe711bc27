//! Publishes a source to an MQTT 5 broker: paced, acknowledged, re-sent after a cut, resumable.
//!
//! [`play`] keeps up to [`PlayOptions::in_flight_max`] messages unacknowledged (fewer if the broker's Receive Maximum says so),
//! reconnects with growing pauses, and sends again what was not acknowledged: at least once, in the order of the source.
//! Each connection starts a clean session: the messages to repeat are kept here, not in the broker.
//! Exactly-once delivery (QoS 2) is left out on purpose: a reading is named by its device and time, so a repeated one changes nothing.
//!
//! A message that the broker refuses (a PUBACK with an error) is counted and listed, and not sent again.
//!
//! With [`PlayOptions::resume`], a file holds how many leading messages are settled; a later run over the same source skips them.

mod link;
mod pace;
mod position;
mod run;
mod window;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

pub use position::PositionError;

use crate::Message;

/// Refused messages that are listed; further ones are only counted.
pub const REJECTIONS_KEPT_MAX: usize = 1_000;

/// How fast messages are released.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// As their time stamps say, relative to the first.
    Realtime,
    /// So many times faster (or, below 1, slower) than their time stamps.
    Times(f64),
    /// As fast as the broker acknowledges.
    FullSpeed,
}

/// Quality of service of the published messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos {
    /// QoS 0: a message counts as acknowledged when it is handed to the connection; a cut may lose some.
    AtMostOnce,
    /// QoS 1: a message counts as acknowledged with the broker's PUBACK.
    AtLeastOnce,
}

/// User name and password for the broker.
#[derive(Clone)]
pub struct Login {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Where and how to play.
#[derive(Debug, Clone)]
pub struct PlayOptions {
    /// `host:port` of the broker.
    pub address: String,
    /// User name and password, if the broker asks for them.
    pub login: Option<Login>,
    /// How fast messages are released.
    pub speed: Speed,
    /// Quality of service.
    pub qos: Qos,
    /// Most unacknowledged messages at a time, 1 to 65,535.
    pub in_flight_max: u16,
    /// MQTT client id.
    pub client_id: String,
    /// File that keeps the position for a later run.
    pub resume: Option<PathBuf>,
    /// MQTT keep-alive, seconds; 0 switches it off.
    pub keep_alive_s: u16,
    /// How long the broker may stay unreachable before the play gives up.
    pub offline_max: Duration,
    /// How often progress is reported and the position file written.
    pub progress_every: Duration,
}

impl PlayOptions {
    /// Full speed, QoS 1, 256 in flight, no login, no position file, keep-alive 30 s, ten minutes of patience.
    pub fn new(address: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            login: None,
            speed: Speed::FullSpeed,
            qos: Qos::AtLeastOnce,
            in_flight_max: 256,
            client_id: client_id.into(),
            resume: None,
            keep_alive_s: 30,
            offline_max: Duration::from_secs(600),
            progress_every: Duration::from_secs(1),
        }
    }
}

/// A message the broker refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Topic of the message.
    pub topic: String,
    /// Time stamp of the message, microseconds since 1970.
    pub at: i64,
    /// Key of the message.
    pub key: u64,
    /// MQTT 5 reason code, 0x80 or above.
    pub reason_code: u8,
    /// Name of the reason code.
    pub reason: String,
}

/// State of a play.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Progress {
    /// Whether the broker is connected at present.
    pub connected: bool,
    /// Messages skipped because an earlier run had settled them.
    pub resumed: u64,
    /// Messages sent for the first time.
    pub published: u64,
    /// Messages sent again after a cut.
    pub repeated: u64,
    /// Messages acknowledged by the broker.
    pub acknowledged: u64,
    /// Messages refused by the broker.
    pub rejected: u64,
    /// The first [`REJECTIONS_KEPT_MAX`] refusals.
    pub rejections: Vec<Rejection>,
    /// Connections lost so far.
    pub connections_lost: u64,
    /// Settled (acknowledged or refused) messages per second since the last report.
    pub rate_per_s: f64,
    /// Time stamp of the newest message sent, microseconds since 1970.
    pub position: Option<i64>,
}

/// How a play ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The final state.
    pub progress: Progress,
    /// `true` if the source was played to its end, `false` if it was stopped before.
    pub finished: bool,
    /// Messages left unacknowledged when the play was stopped.
    pub unacknowledged: u64,
}

/// Why a play failed.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// An option is out of its range.
    #[error("option `{option}`: expected {expected}, found `{found}`")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Its range.
        expected: &'static str,
        /// The value given.
        found: String,
    },
    /// The broker refuses this client; trying again would not help.
    #[error("broker `{address}` refuses client `{client_id}`: {reason} (reason code {reason_code:#04x})")]
    Refused {
        /// Address of the broker.
        address: String,
        /// Client id used.
        client_id: String,
        /// Name of the reason code.
        reason: String,
        /// MQTT 5 reason code.
        reason_code: u8,
    },
    /// The broker does not accept the quality of service.
    #[error("broker `{address}` accepts no more than QoS 0, expected QoS 1")]
    QosNotSupported {
        /// Address of the broker.
        address: String,
    },
    /// The broker stayed unreachable.
    #[error("broker `{address}` was not reachable for {} s: {reason}", offline.as_secs())]
    Unreachable {
        /// Address of the broker.
        address: String,
        /// How long it was tried.
        offline: Duration,
        /// Last reason.
        reason: String,
    },
    /// The source failed. What it had yielded before was played.
    #[error("the source of messages failed")]
    Source(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The position file cannot be used.
    #[error(transparent)]
    Position(#[from] PositionError),
}

/// Plays `messages` to the broker at [`PlayOptions::address`] over TCP until they end or `stop` completes.
///
/// On `stop` no further message is released, the outstanding acknowledgements are awaited for a few seconds, and the connection
/// is closed in order. `on_progress` is called every [`PlayOptions::progress_every`], when the connection comes or goes, and at the end.
///
/// The source is read on the calling task; reading a row of a file there takes microseconds.
///
/// Errors: see [`PlayError`]. In every case the position file holds what was settled.
pub async fn play<I, E>(
    messages: I,
    options: PlayOptions,
    stop: impl Future<Output = ()>,
    on_progress: impl FnMut(&Progress),
) -> Result<Summary, PlayError>
where
    I: Iterator<Item = Result<Message, E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let address = options.address.clone();
    let connect = move || {
        let address = address.clone();
        async move {
            let stream = TcpStream::connect(&address).await?;
            // Acknowledgements make the pace; they must not wait for more bytes.
            stream.set_nodelay(true)?;
            Ok(stream)
        }
    };
    play_over(connect, messages, options, stop, on_progress).await
}

/// As [`play`], over connections of the caller's making (TLS, a proxy, memory).
///
/// `connect` is called for each new connection; [`PlayOptions::address`] then only names the broker in messages.
///
/// Errors: as [`play`].
pub async fn play_over<C, F, S, I, E>(
    connect: C,
    messages: I,
    options: PlayOptions,
    stop: impl Future<Output = ()>,
    on_progress: impl FnMut(&Progress),
) -> Result<Summary, PlayError>
where
    C: FnMut() -> F,
    F: Future<Output = io::Result<S>>,
    S: AsyncRead + AsyncWrite,
    I: Iterator<Item = Result<Message, E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    check_options(&options)?;
    run::run(connect, messages, options, stop, on_progress).await
}

fn check_options(options: &PlayOptions) -> Result<(), PlayError> {
    let error = |option, expected, found: &dyn ToString| Err(PlayError::Option { option, expected, found: found.to_string() });
    match options.speed {
        Speed::Times(factor) if !(factor.is_finite() && factor > 0.0) => {
            return error("speed", "a factor above 0", &factor);
        }
        _ => {}
    }
    if options.in_flight_max == 0 {
        return error("in_flight_max", "1 to 65535", &0);
    }
    if options.client_id.is_empty() || options.client_id.len() > 65_535 {
        return error("client_id", "1 to 65535 bytes", &options.client_id);
    }
    if options.progress_every.is_zero() {
        return error("progress_every", "a duration above 0", &"0");
    }
    Ok(())
}
