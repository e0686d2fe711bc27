//! Rules for single source files.

use super::Problem;

/// Lines from which a file is worth splitting (said), and lines that no file may have (refused).
const LINES_GOOD: usize = 800;
const LINES_MAX: usize = 1_200;

/// Crates that turn values into values: what they need of the world is handed in.
const PURE: &[&str] = &["entity", "policy", "ngsi", "mqtt", "table", "federation"];

/// How a source file would reach for the world.
const WORLD: &[&str] = &["std::fs", "std::net", "std::process", "std::env", "std::thread", "tokio::"];

/// How a source file would open a door to the network, and the crates that may.
const DOORS: &[&str] = &["TcpListener", "UdpSocket", "UnixListener"];
const DOORKEEPERS: &[&str] = &["serve", "query", "conurb"];

/// What unfinished code looks like.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "dbg!"];

pub(super) fn too_long(path: &str, text: &str) -> Option<Problem> {
    let n_lines = text.lines().count();
    let long = is_source(path) && n_lines > LINES_GOOD && n_lines <= LINES_MAX;
    long.then(|| Problem::new(path, "length", format!("{n_lines} lines; about {LINES_GOOD} is where to split")))
}

pub(super) fn check(path: &str, text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let n_lines = text.lines().count();
    if is_source(path) && n_lines > LINES_MAX {
        problems.push(Problem::new(path, "length", format!("{n_lines} lines, at most {LINES_MAX} are allowed")));
    }
    if !path.ends_with(".rs") {
        return problems;
    }
    if (path.ends_with("/src/lib.rs") || path.ends_with("/src/main.rs")) && !text.starts_with("//!") {
        problems.push(Problem::new(path, "opening page", "a crate opens with a `//!` page: what it is for, its types, its invariants"));
    }
    let code = code_only(text);
    find(path, &code, UNFINISHED, "unfinished", "finish it or leave it out", &mut problems);
    if let Some(own) = path.strip_prefix("crates/").and_then(|rest| rest.split_once("/src/")).map(|(own, _)| own) {
        // Contract suites are modules of tests too.
        let is_test = ["tests.rs", "contract.rs"].iter().any(|name| path.ends_with(name));
        let shipped = if is_test { "" } else { code.split("#[cfg(test)]").next().unwrap_or_default() };
        if PURE.contains(&own) {
            find(path, shipped, WORLD, "pure crate", "this crate does no I/O; the caller hands in what it needs", &mut problems);
        }
        if !DOORKEEPERS.contains(&own) {
            find(path, shipped, DOORS, "listeners", "only serve, query and conurb open listeners", &mut problems);
        }
    }
    problems
}

fn is_source(path: &str) -> bool {
    [".rs", ".ts", ".tsx", ".sh"].iter().any(|ending| path.ends_with(ending))
}

fn find(path: &str, code: &str, words: &[&str], rule: &'static str, advice: &str, problems: &mut Vec<Problem>) {
    for (line_idx, line) in code.lines().enumerate() {
        for word in words.iter().filter(|word| holds_word(line, word)) {
            problems.push(Problem::new(format!("{path}:{}", line_idx + 1), rule, format!("`{word}`: {advice}")));
        }
    }
}

/// Whether `word` stands in `line` and is not the end of a longer identifier.
fn holds_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_'))
}

/// The code of a Rust file: comments and strings are taken out, line by line.
///
/// A string over several lines is not noticed; what stands in it is then judged as code, which is the safe side.
pub(super) fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    for line in text.lines() {
        let unescaped = line.replace("\\\\", "").replace("\\\"", "").replace("'\"'", "");
        for (part_idx, part) in unescaped.split('"').enumerate() {
            if part_idx % 2 == 1 {
                code.push_str("\"\"");
            } else if let Some((before, _)) = part.split_once("//") {
                code.push_str(before);
                break;
            } else {
                code.push_str(part);
            }
        }
        code.push('\n');
    }
    code
}
