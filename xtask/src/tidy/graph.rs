//! Who may depend on whom, what is linked where, and under which licences.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Problem;

/// The arrows of the design: a crate and all own crates it may name in `[dependencies]`.
/// In tests and build scripts it may also use what it reaches through these.
const ARROWS: &[(&str, &[&str])] = &[
    ("entity", &[]),
    ("host", &[]),
    ("policy", &["entity"]),
    ("ngsi", &["entity"]),
    ("mqtt", &["entity"]),
    ("store", &["entity", "host"]),
    ("federation", &["entity", "policy", "host"]),
    ("feed", &["host", "mqtt"]),
    ("query", &["entity", "policy", "store"]),
    ("node", &["entity", "policy", "host", "store", "federation"]),
    // State and history reach the edge only through what `node` re-exports.
    ("serve", &["entity", "policy", "host", "ngsi", "mqtt", "node", "federation"]),
    ("conurb", &["entity", "policy", "host", "ngsi", "mqtt", "store", "query", "federation", "node", "serve", "feed"]),
    ("e2e", &["host"]),
    ("xtask", &[]),
];

/// A third-party crate and the only own crates that may name it in `[dependencies]`.
const NAMED_ONLY_BY: &[(&str, &[&str], &str)] = &[
    ("fjall", &["store"], "engines lie behind the traits of `store`"),
    ("parquet", &["store"], "engines lie behind the traits of `store`"),
    ("arrow", &["store", "query"], "columns are the language of history and SQL only"),
    ("mqtt-protocol-core", &["mqtt", "feed"], "packets are known to the codec and to the device player only"),
    ("reqwest", &["serve", "conurb"], "HTTP lives at the edge"),
    ("axum", &["serve"], "HTTP lives at the edge"),
    ("tokio", &["host", "store", "query", "feed", "node", "serve", "conurb"], "pure crates are fed with bytes, time and messages"),
    ("clap", &["conurb"], "the command line is the binary's"),
    ("anyhow", &["conurb", "xtask"], "libraries define their errors with thiserror"),
];

/// A third-party crate and the only own crates into which it may be linked, however indirectly.
const LINKED_ONLY_INTO: &[(&str, &[&str], &str)] = &[
    ("datafusion", &["query", "conurb"], "most builds and tests must not wait for the SQL engine"),
    ("pgwire", &["query", "conurb"], "most builds and tests must not wait for the SQL engine"),
    ("axum", &["serve", "query", "conurb"], "only the edge listens, and SQL by Flight, whose server stands on it"),
];

/// Crates that may not be linked into the binary.
const BANNED: &[(&str, &str)] = &[
    ("aws-lc-rs", "TLS and signatures are rustls with ring"),
    ("aws-lc-sys", "TLS and signatures are rustls with ring"),
    ("openssl", "TLS and signatures are rustls with ring"),
    ("openssl-sys", "TLS and signatures are rustls with ring"),
    ("native-tls", "TLS and signatures are rustls with ring"),
    ("rumqttd", "it keeps nothing on disk"),
    ("librocksdb-sys", "many minutes of C++"),
    ("libduckdb-sys", "many minutes of C++"),
    ("transit_model", "AGPL"),
    ("casbin", "it cannot evaluate partially"),
];

/// Two versions of one of these do not understand each other's types.
const ONE_VERSION: &[&str] = &["arrow", "arrow-array", "parquet", "object_store", "datafusion", "rustls", "tokio", "geo-types"];

/// Licences (SPDX) under which a crate may be linked into the binary: permissive ones.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "bzip2-1.0.6",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Single crates under another licence, each with its reason.
const LICENCE_EXCEPTIONS: &[(&str, &str, &str)] =
    &[("x509-certificate", "MPL-2.0", "weak copyleft per file, used unmodified; pgwire needs it for SCRAM channel binding")];

/// A crate of this workspace.
#[derive(Debug, Clone, Default)]
pub(super) struct OwnCrate {
    pub(super) name: String,
    /// Names in `[dependencies]`, own and foreign.
    pub(super) uses: BTreeSet<String>,
    /// Names in `[dev-dependencies]` and `[build-dependencies]`.
    pub(super) uses_beside: BTreeSet<String>,
    /// Everything that is linked into it, however indirectly.
    pub(super) links: BTreeSet<String>,
}

/// A crate that is linked into the binary.
#[derive(Debug, Clone)]
pub(super) struct Linked {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) licence: Option<String>,
}

/// What `cargo metadata` tells, as far as the rules ask.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) crates: Vec<OwnCrate>,
    pub(super) linked: Vec<Linked>,
}

impl Graph {
    /// Reads the answer of `cargo metadata --format-version 1`.
    /// (The crate `cargo_metadata` would switch on features of serde_json for the whole workspace: see [`one_build`].)
    pub(super) fn of(metadata: &Value) -> Self {
        let packages: BTreeMap<&str, &Value> = list(&metadata["packages"]).map(|package| (text(&package["id"]), package)).collect();
        let nodes: BTreeMap<&str, &Value> = list(&metadata["resolve"]["nodes"]).map(|node| (text(&node["id"]), node)).collect();
        let own: BTreeSet<&str> = list(&metadata["workspace_members"]).map(text).collect();
        let mut graph = Self { crates: Vec::new(), linked: Vec::new() };
        for id in &own {
            let package = packages[id];
            let names = |normal: bool| {
                let wanted = list(&package["dependencies"]).filter(|dependency| dependency["kind"].is_null() == normal);
                wanted.map(|dependency| text(&dependency["name"]).to_owned()).collect()
            };
            let reached = reached_from(id, &nodes);
            graph.crates.push(OwnCrate {
                name: text(&package["name"]).to_owned(),
                uses: names(true),
                uses_beside: names(false),
                links: reached.iter().map(|id| text(&packages[id]["name"]).to_owned()).collect(),
            });
            if package["name"] == "conurb" {
                let foreign = reached.iter().filter(|id| !own.contains(*id)).map(|id| packages[id]);
                graph.linked = foreign
                    .map(|package| Linked {
                        name: text(&package["name"]).to_owned(),
                        version: text(&package["version"]).to_owned(),
                        licence: package["license"].as_str().map(str::to_owned),
                    })
                    .collect();
            }
        }
        graph
    }
}

/// Everything that `from` links, by normal dependencies; not `from` itself.
fn reached_from<'a>(from: &'a str, nodes: &BTreeMap<&'a str, &'a Value>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(id) = open.pop() {
        for dependency in list(&nodes[id]["deps"]) {
            let normal = list(&dependency["dep_kinds"]).any(|kind| kind["kind"].is_null());
            let package = text(&dependency["pkg"]);
            if normal && reached.insert(package) {
                open.push(package);
            }
        }
    }
    reached
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Whether the binary alone and the whole workspace with its tests are built from the same dependencies with the same features;
/// otherwise `make test` compiles the heavy ones twice. Both arguments are what [`super::features`] lists.
pub(super) fn one_build(binary: &str, workspace: &str) -> Vec<Problem> {
    let there: BTreeSet<&str> = workspace.lines().collect();
    let differing: BTreeSet<&str> = binary.lines().filter(|line| line.contains(" v") && !there.contains(line)).collect();
    let problem = |line: &str| {
        let (package, features) = line.split_once(" [").unwrap_or((line, ""));
        let others: Vec<&str> = there.iter().copied().filter(|line| line.starts_with(&format!("{package} ["))).collect();
        let message = format!("the binary has it with features [{features}, the workspace with tests as {}", others.join(" and "));
        Problem::new(package, "one build", format!("{message}; declare the features in [workspace.dependencies]"))
    };
    differing.into_iter().map(problem).collect()
}

pub(super) fn arrows(crates: &[OwnCrate]) -> Vec<Problem> {
    const RULE: &str = "arrows";
    let own: BTreeSet<&str> = crates.iter().map(|one| one.name.as_str()).collect();
    let mut problems = Vec::new();
    for one in crates {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == one.name) else {
            problems.push(Problem::new(&one.name, RULE, "the crate is not in the table `ARROWS` of xtask/src/tidy/graph.rs"));
            continue;
        };
        let beside: BTreeSet<&str> = closure(allowed);
        for used in own.iter().filter(|name| one.uses.contains(**name) && !allowed.contains(name)) {
            let expected = if allowed.is_empty() { "no own crate".to_owned() } else { allowed.join(", ") };
            problems.push(Problem::new(&one.name, RULE, format!("may not depend on `{used}`; allowed: {expected}")));
        }
        for used in own.iter().filter(|name| one.uses_beside.contains(**name) && !beside.contains(*name)) {
            problems.push(Problem::new(&one.name, RULE, format!("may not use `{used}` in tests or build scripts: it is not below it")));
        }
    }
    problems
}

fn closure(from: &[&'static str]) -> BTreeSet<&'static str> {
    let mut reached = BTreeSet::new();
    let mut open = from.to_vec();
    while let Some(name) = open.pop() {
        if reached.insert(name) {
            open.extend(ARROWS.iter().filter(|(from, _)| *from == name).flat_map(|(_, to)| to.iter().copied()));
        }
    }
    reached
}

pub(super) fn links(crates: &[OwnCrate]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for one in crates {
        for (foreign, only, why) in
            NAMED_ONLY_BY.iter().filter(|(foreign, only, _)| one.uses.contains(*foreign) && !only.contains(&one.name.as_str()))
        {
            problems.push(Problem::new(&one.name, "links", format!("may not depend on `{foreign}` (only {} may): {why}", only.join(", "))));
        }
        for (foreign, only, why) in
            LINKED_ONLY_INTO.iter().filter(|(foreign, only, _)| one.links.contains(*foreign) && !only.contains(&one.name.as_str()))
        {
            problems.push(Problem::new(&one.name, "links", format!("links `{foreign}` (only {} may): {why}", only.join(", "))));
        }
    }
    problems
}

pub(super) fn banned(linked: &[Linked]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, why) in BANNED.iter().filter(|(name, _)| linked.iter().any(|one| one.name == *name)) {
        problems.push(Problem::new(*name, "banned crate", format!("{why}; `cargo tree -i {name}` tells who brings it")));
    }
    for name in ONE_VERSION {
        let versions: Vec<&str> = linked.iter().filter(|one| one.name == *name).map(|one| one.version.as_str()).collect();
        if versions.len() > 1 {
            problems.push(Problem::new(*name, "one version", format!("linked in versions {}; one is allowed", versions.join(" and "))));
        }
    }
    problems
}

pub(super) fn licences(linked: &[Linked]) -> Vec<Problem> {
    const RULE: &str = "licence";
    let mut problems = Vec::new();
    for one in linked {
        let excepted = |licence: &str| LICENCE_EXCEPTIONS.iter().any(|(name, allowed, _)| *name == one.name && *allowed == licence);
        let allowed = |licence: &str| LICENCES.contains(&licence) || excepted(licence);
        let place = format!("{} {}", one.name, one.version);
        match &one.licence {
            None => problems.push(Problem::new(place, RULE, "the crate states no licence")),
            Some(text) => match permits(text, &allowed) {
                Ok(true) => {}
                Ok(false) => problems.push(Problem::new(place, RULE, format!("`{text}` is not among the allowed licences"))),
                Err(reason) => problems.push(Problem::new(place, RULE, format!("`{text}` is not an SPDX expression: {reason}"))),
            },
        }
    }
    problems
}

/// Whether an SPDX expression can be fulfilled by allowed licences alone. The old `A/B` means `A OR B`.
pub(super) fn permits(expression: &str, allowed: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let permitted = any_of(&mut rest, allowed)?;
    if rest.is_empty() { Ok(permitted) } else { Err(format!("unexpected `{}`", rest[0])) }
}

fn any_of(words: &mut &[&str], allowed: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    let mut permitted = all_of(words, allowed)?;
    while take(words, "OR") {
        permitted |= all_of(words, allowed)?;
    }
    Ok(permitted)
}

fn all_of(words: &mut &[&str], allowed: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    let mut permitted = licence(words, allowed)?;
    while take(words, "AND") {
        permitted &= licence(words, allowed)?;
    }
    Ok(permitted)
}

fn licence(words: &mut &[&str], allowed: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    if take(words, "(") {
        let permitted = any_of(words, allowed)?;
        return if take(words, ")") { Ok(permitted) } else { Err("`)` is missing".to_owned()) };
    }
    let name = next(words)?;
    if take(words, "WITH") {
        let exception = next(words)?;
        return Ok(allowed(&format!("{name} WITH {exception}")));
    }
    Ok(allowed(name))
}

fn next<'a>(words: &mut &[&'a str]) -> Result<&'a str, String> {
    match words.split_first() {
        Some((word, rest)) if !matches!(*word, "OR" | "AND" | "WITH" | ")" | "(") => {
            *words = rest;
            Ok(word)
        }
        Some((word, _)) => Err(format!("expected a licence, found `{word}`")),
        None => Err("a licence is missing at the end".to_owned()),
    }
}

fn take(words: &mut &[&str], word: &str) -> bool {
    let found = words.first() == Some(&word);
    if found {
        *words = &words[1..];
    }
    found
}
