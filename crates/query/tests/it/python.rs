//! Clients that are written in Python.

use std::path::PathBuf;
use std::process::Output;

/// Python with these packages; none where it cannot be had, which is said.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub(crate) async fn python(name: &'static str, packages: &'static [&'static str]) -> Option<PathBuf> {
    let made = tokio::task::spawn_blocking(move || host::pypi::environment(name, packages)).await.unwrap();
    made.map(|dir| dir.join("bin/python")).map_err(|why| eprintln!("SKIPPED, no Python with {packages:?}: {why}")).ok()
}

/// All that a program has said.
pub(crate) fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
