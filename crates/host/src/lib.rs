//! The world outside: clock, randomness and disk, real and seeded for simulation.
//!
//! Everything that decides something takes these as arguments, so that any test can run on a seed and any failure can be replayed.
//!
//! * [`Clock`]: [`SystemClock`] and [`ManualClock`].
//! * [`Disk`]: [`RealDisk`] and [`sim::SimDisk`], which loses what was not synced, tears writes and runs full.
//! * [`random_bytes`]: from the operating system.
//! * [`pypi`]: programs from PyPI that tests talk to.
//!
//! **Invariant:** knows nothing of the domain.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod clock;
mod disk;
pub mod pypi;
pub mod sim;

pub use clock::{Clock, ManualClock, Stopwatch, SystemClock};
pub use disk::{AppendFile, Disk, RealDisk};

/// `N` bytes from the operating system's generator.
///
/// # Panics
/// If the operating system has no randomness to give: nothing secure can be done then.
#[must_use]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let generator = ring::rand::SystemRandom::new();
    ring::rand::generate(&generator).expect("the operating system gives randomness").expose()
}

/// `n_bytes` of randomness as lower-case hexadecimal text: for identifiers and tokens.
#[must_use]
pub fn random_hex<const N: usize>() -> String {
    random_bytes::<N>().iter().map(|b| format!("{b:02x}")).collect()
}

/// An error with all its causes, in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
