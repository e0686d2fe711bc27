//! Rules for documents and texts that people read.

use std::collections::BTreeSet;

use serde_json::Value;

use super::graph::OwnCrate;
use super::{File, Problem};

/// Parts that each decision record has.
const DECISION_PARTS: &[&str] = &["## Context", "## Decision", "## Consequences", "## When to look again"];

/// Which test shows which clause.
const CONFORMANCE: &str = "docs/conformance/ngsi-ld.md";

pub(super) fn check(files: &[File], paths: &BTreeSet<&str>, crates: &[OwnCrate]) -> Vec<Problem> {
    let text = |path: &str| files.iter().find(|file| file.path == path).and_then(|file| file.text.as_deref()).unwrap_or_default();
    let mut problems = architecture(text("ARCHITECTURE.md"), crates);
    problems.extend(same_headings(("README.md", text("README.md")), ("README.zh-CN.md", text("README.zh-CN.md"))));
    problems.extend(same_keys(("ui/src/i18n/en.json", text("ui/src/i18n/en.json")), ("ui/src/i18n/zh.json", text("ui/src/i18n/zh.json"))));
    problems.extend(changelog(text("CHANGELOG.md")));
    let tests = files.iter().filter(|file| file.path.starts_with("crates/") && file.path.ends_with(".rs"));
    let tests: Vec<&str> = tests.filter_map(|file| file.text.as_deref()).collect();
    problems.extend(conformance((CONFORMANCE, text(CONFORMANCE)), &tests));
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        let text = file.text.as_deref().unwrap_or_default();
        problems.extend(links(&file.path, text, paths));
        if file.path.starts_with("docs/decisions/") {
            problems.extend(decision(&file.path, text));
        }
    }
    problems
}

/// The map names every crate, and every invariant says what keeps it.
pub(super) fn architecture(text: &str, crates: &[OwnCrate]) -> Vec<Problem> {
    const PLACE: &str = "ARCHITECTURE.md";
    let unnamed = crates.iter().filter(|one| !text.contains(&format!("`{}`", one.name)));
    let mut problems: Vec<Problem> =
        unnamed.map(|one| Problem::new(PLACE, "map", format!("does not name the crate `{}`", one.name))).collect();
    for (line_idx, line) in text.lines().enumerate() {
        if line.contains("**Invariant:**") && !line.contains("kept by") {
            let place = format!("{PLACE}:{}", line_idx + 1);
            problems.push(Problem::new(place, "map", "an invariant says which check it is `kept by`"));
        }
    }
    problems
}

/// Each test that is named by its clause is in the table, and each that is in the table exists.
pub(super) fn conformance((path, table): (&str, &str), sources: &[&str]) -> Vec<Problem> {
    let named: BTreeSet<&str> = table.split('`').filter(|word| word.starts_with("clause_")).collect();
    let names = |source| -> Vec<&str> {
        let lines = str::lines(source).map(str::trim_start).filter_map(|line| line.strip_prefix("fn clause_").map(|_| &line[3..]));
        lines.map(|line| &line[..line.find('(').unwrap_or(line.len())]).collect()
    };
    let there: BTreeSet<&str> = sources.iter().flat_map(|source| names(source)).collect();
    let problem = |message: String| Problem::new(path, "conformance", message);
    let unlisted = there.difference(&named).map(|test| problem(format!("does not name the test `{test}`")));
    unlisted.chain(named.difference(&there).map(|test| problem(format!("names the test `{test}`, which does not exist")))).collect()
}

pub(super) fn same_headings(english: (&str, &str), chinese: (&str, &str)) -> Option<Problem> {
    let levels = |text: &str| -> Vec<usize> {
        prose(text)
            .filter(|(_, line)| line.starts_with('#'))
            .map(|(_, line)| line.bytes().take_while(|byte| *byte == b'#').count())
            .collect()
    };
    let (en, zh) = (levels(english.1), levels(chinese.1));
    let message = if en.is_empty() {
        format!("`{}` is missing or has no headings", english.0)
    } else if en.len() != zh.len() {
        format!("has {} headings, `{}` has {}", zh.len(), english.0, en.len())
    } else {
        let differs = en.iter().zip(&zh).position(|(en, zh)| en != zh)?;
        format!("heading {} is of another level than in `{}`", differs + 1, english.0)
    };
    Some(Problem::new(chinese.0, "both languages", message))
}

/// Two files of texts have the same keys.
pub(super) fn same_keys(english: (&str, &str), chinese: (&str, &str)) -> Vec<Problem> {
    const RULE: &str = "both languages";
    let mut keys = [BTreeSet::new(), BTreeSet::new()];
    for ((path, text), found) in [english, chinese].into_iter().zip(&mut keys) {
        match serde_json::from_str::<Value>(text) {
            Ok(value) => paths_of(&value, String::new(), found),
            Err(error) => return vec![Problem::new(path, RULE, format!("not JSON: {error}"))],
        }
    }
    let missing = |from: &BTreeSet<String>, here: &BTreeSet<String>, path: &str| -> Vec<Problem> {
        from.difference(here).map(|key| Problem::new(path, RULE, format!("text `{key}` is missing"))).collect()
    };
    let mut problems = missing(&keys[0], &keys[1], chinese.0);
    problems.extend(missing(&keys[1], &keys[0], english.0));
    problems
}

fn paths_of(value: &Value, prefix: String, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                paths_of(member, path, found);
            }
        }
        _ => {
            found.insert(prefix);
        }
    }
}

pub(super) fn changelog(text: &str) -> Option<Problem> {
    let found = text.lines().any(|line| matches!(line.trim(), "## Unreleased" | "## [Unreleased]"));
    (!found).then(|| Problem::new("CHANGELOG.md", "changelog", "has no section `## Unreleased`"))
}

fn decision(path: &str, text: &str) -> Vec<Problem> {
    let name = path.trim_start_matches("docs/decisions/");
    if name == "README.md" {
        return Vec::new();
    }
    let numbered = name.len() > 5 && name.as_bytes()[..4].iter().all(u8::is_ascii_digit) && name.as_bytes()[4] == b'-';
    let mut problems = Vec::new();
    if !numbered {
        problems.push(Problem::new(path, "decision", "is not named NNNN-title.md"));
    }
    for part in DECISION_PARTS.iter().filter(|part| !text.lines().any(|line| line == **part)) {
        problems.push(Problem::new(path, "decision", format!("has no part `{part}`")));
    }
    problems
}

/// Links to files lead to a file or folder of the project.
pub(super) fn links(path: &str, text: &str, paths: &BTreeSet<&str>) -> Vec<Problem> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut problems = Vec::new();
    for (line_idx, line) in prose(text) {
        for target in line.split("](").skip(1).filter_map(|after| after.split([')', ' ']).next()) {
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains(':') {
                continue; // an anchor in the same file, or another address
            }
            let Some(full) = joined(folder, target) else {
                problems.push(Problem::new(format!("{path}:{}", line_idx + 1), "links", format!("`{target}` leaves the project")));
                continue;
            };
            let inside = format!("{full}/");
            if !paths.contains(full.as_str()) && !paths.range(inside.as_str()..).next().is_some_and(|next| next.starts_with(&inside)) {
                problems.push(Problem::new(format!("{path}:{}", line_idx + 1), "links", format!("`{target}` leads to nothing")));
            }
        }
    }
    problems
}

/// `target` seen from `folder`, relative to the root; `None` where it leaves the root.
fn joined(folder: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> =
        if target.starts_with('/') { Vec::new() } else { folder.split('/').filter(|part| !part.is_empty()).collect() };
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Lines outside fenced code, with their index.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}
