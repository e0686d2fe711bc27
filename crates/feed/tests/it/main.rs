//! Integration tests of the feeds: recorded archives, device profiles, the player against brokers.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod broker;
mod decoding;
mod mosquitto;
mod player;
mod profiles;
mod recorded;

use std::path::PathBuf;

use feed::Message;

/// The folder of shared data, if it is there; says so if it is not.
fn shared(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("CONURB_SHARED")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")), PathBuf::from);
    let path = root.join(folder);
    if !path.is_dir() {
        eprintln!("SKIPPED: `{}` is absent (set CONURB_SHARED)", path.display());
        return None;
    }
    Some(path)
}

/// `n` messages of one device, `step_us` apart.
fn messages(n: u64, step_us: i64) -> Vec<Message> {
    (0..n)
        .map(|key| Message {
            topic: "devices/weather/test-1".to_owned(),
            payload: format!("{{\"n\":{key}}}").into_bytes(),
            at: 1_400_000_000_000_000 + i64::try_from(key).unwrap() * step_us,
            key,
        })
        .collect()
}

/// As a source that never fails.
fn source(messages: &[Message]) -> impl Iterator<Item = Result<Message, std::io::Error>> {
    messages.iter().cloned().map(Ok)
}
