//! Rules of the project that neither the compiler nor clippy keeps.
//!
//! * [`graph`]: who may depend on whom, what is linked where, under which licences, and built only once (from `cargo metadata` and `cargo tree`).
//! * [`sources`]: size and opening page of source files, no unfinished code, no I/O in pure crates.
//! * [`documents`]: the map names every crate, links lead somewhere, both languages have the same parts.
//!
//! Every check is a pure function from texts to [`Problem`]s; only this file reads the disk and starts programs.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

mod documents;
mod graph;
mod sources;
#[cfg(test)]
mod tests;

/// One broken rule at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// File (with a line where there is one), crate or package.
    pub(crate) place: String,
    /// Short name of the rule.
    pub(crate) rule: &'static str,
    /// What is wrong and what would be right.
    pub(crate) message: String,
}

impl Problem {
    fn new(place: impl Into<String>, rule: &'static str, message: impl Into<String>) -> Self {
        Self { place: place.into(), rule, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: [{}] {}", self.place, self.rule, self.message)
    }
}

/// What a whole run found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// These fail the run.
    pub(crate) problems: Vec<Problem>,
    /// These are only said.
    pub(crate) warnings: Vec<Problem>,
    pub(crate) n_files: usize,
    pub(crate) n_linked: usize,
}

/// A file of the project: tracked, or new and not ignored.
#[derive(Debug, Clone, Default)]
struct File {
    /// Relative to the root, with `/`.
    path: String,
    bytes: u64,
    /// `None` where the file is not UTF-8 text.
    text: Option<String>,
}

/// Largest file that may be committed; a bigger one slows every clone for ever.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Files that may be bigger, each with its reason.
const LARGE_FILES: &[(&str, &str)] = &[];

/// Checks the whole tree below `root`. Errors: cargo, rustc or git cannot be run, or a file cannot be read.
pub(crate) fn check(root: &Path) -> Result<Report> {
    let graph = graph::Graph::of(&metadata(root)?);
    let files = files(root)?;
    let mut report = Report { n_files: files.len(), n_linked: graph.linked.len(), ..Report::default() };
    report.problems.extend(graph::arrows(&graph.crates));
    report.problems.extend(graph::links(&graph.crates));
    report.problems.extend(graph::banned(&graph.linked));
    report.problems.extend(graph::licences(&graph.linked));
    let binary = features(root, &["--package", "conurb", "--edges", "normal,build"])?;
    let workspace = features(root, &["--workspace", "--edges", "normal,build,dev"])?;
    report.problems.extend(graph::one_build(&binary, &workspace));
    for file in &files {
        report.problems.extend(too_large(file));
        if let Some(text) = &file.text {
            report.problems.extend(sources::check(&file.path, text));
            report.warnings.extend(sources::too_long(&file.path, text));
        }
    }
    let paths: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    report.problems.extend(documents::check(&files, &paths, &graph.crates));
    Ok(report)
}

fn too_large(file: &File) -> Option<Problem> {
    if file.bytes <= FILE_BYTES_MAX || LARGE_FILES.iter().any(|(path, _)| *path == file.path) {
        return None;
    }
    Some(Problem::new(&file.path, "file size", format!("{} bytes, at most {FILE_BYTES_MAX} may be committed", file.bytes)))
}

fn metadata(root: &Path) -> Result<serde_json::Value> {
    // Without the filter cargo would download the crates of every platform.
    let version = run(root, "rustc", &["-vV"])?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("`rustc -vV` names no host")?;
    let told = run(root, "cargo", &["metadata", "--format-version", "1", "--locked", "--filter-platform", host])?;
    serde_json::from_str(&told).context("`cargo metadata` answered something that is not JSON")
}

/// Packages with their features, one a line, as they are built with these arguments.
fn features(root: &Path, arguments: &[&str]) -> Result<String> {
    // With no indentation each package comes once a line; a repeated one is marked with (*).
    let always = ["tree", "--locked", "--prefix", "none", "--format", "{p} [{f}]"];
    let told = run(root, "cargo", &[&always, arguments].concat())?;
    Ok(told.lines().map(|line| line.trim_end_matches(" (*)")).collect::<Vec<_>>().join("\n"))
}

fn files(root: &Path) -> Result<Vec<File>> {
    let listed = run(root, "git", &["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
    let mut files = Vec::new();
    for path in listed.split('\0').filter(|path| !path.is_empty()) {
        let full = root.join(path);
        if !full.is_file() {
            continue; // deleted and not yet committed
        }
        let bytes = std::fs::read(&full).with_context(|| format!("cannot read `{path}`"))?;
        files.push(File { path: path.to_owned(), bytes: bytes.len() as u64, text: String::from_utf8(bytes).ok() });
    }
    Ok(files)
}

fn run(root: &Path, program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).current_dir(root).output().with_context(|| format!("cannot start `{program}`"))?;
    if !output.status.success() {
        bail!("`{program} {}` failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{program}` answered something that is not UTF-8"))
}
