//! Automation of the project, in Rust so that it runs wherever the project builds.
//!
//! * `cargo xtask tidy` keeps the rules that neither the compiler nor clippy knows ([`tidy`]).
//! * `cargo xtask ci` runs format check, tidy, clippy and tests, the quickest to fail first.
//!
//! **Invariant:** nothing here changes a tracked file.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program: what it prints is its result")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

mod tidy;

const USAGE: &str = "\
usage: cargo xtask <command>

  tidy   check dependency arrows, licences, sources and documents
  ci     format check, tidy, clippy and all tests, in the order that fails fastest";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["tidy"] => tidy_and_report(&root()),
        ["ci"] => ci(&root()),
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => Err(anyhow::anyhow!("unknown command `{}`\n\n{USAGE}", words.join(" "))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace: xtask is always started by cargo, whose manifest folder is one below it.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask lies in a folder of the workspace").to_path_buf()
}

fn tidy_and_report(root: &Path) -> Result<()> {
    let report = tidy::check(root)?;
    for warning in &report.warnings {
        println!("warning: {warning}");
    }
    for problem in &report.problems {
        println!("error: {problem}");
    }
    println!(
        "tidy: {} files, {} crates linked, {} problems, {} warnings",
        report.n_files,
        report.n_linked,
        report.problems.len(),
        report.warnings.len()
    );
    if report.problems.is_empty() { Ok(()) } else { bail!("the tree is not tidy") }
}

fn ci(root: &Path) -> Result<()> {
    cargo(root, &["fmt", "--all", "--check"])?;
    tidy_and_report(root)?;
    cargo(root, &["clippy", "--profile", "quick", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    cargo(root, &["test", "--profile", "quick", "--workspace"])
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    let shown = format!("cargo {}", arguments.join(" "));
    println!("ci: {shown}");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(arguments)
        .current_dir(root)
        .status()
        .with_context(|| format!("cannot start `{shown}`"))?;
    if status.success() { Ok(()) } else { bail!("`{shown}` failed ({status})") }
}
