use std::collections::BTreeSet;

use super::graph::{self, Linked, OwnCrate};
use super::{FILE_BYTES_MAX, File, Problem, documents, sources, too_large};

fn own(name: &str, uses: &[&str]) -> OwnCrate {
    OwnCrate { name: name.to_owned(), uses: uses.iter().map(|name| (*name).to_owned()).collect(), ..OwnCrate::default() }
}

fn linked(name: &str, version: &str, licence: Option<&str>) -> Linked {
    Linked { name: name.to_owned(), version: version.to_owned(), licence: licence.map(str::to_owned) }
}

#[track_caller]
fn check(problems: impl IntoIterator<Item = Problem>, want: &[&str]) {
    let got: Vec<String> = problems.into_iter().map(|problem| problem.to_string()).collect();
    assert_eq!(got, want);
}

#[test]
fn a_lower_crate_may_not_depend_on_an_upper_one() {
    check(graph::arrows(&[own("entity", &["serde"]), own("policy", &["entity"])]), &[]);
    check(
        graph::arrows(&[own("entity", &["store"]), own("store", &["entity", "host"]), own("host", &[])]),
        &["entity: [arrows] may not depend on `store`; allowed: no own crate"],
    );
    check(
        graph::arrows(&[own("serve", &["node", "store"]), own("store", &[]), own("node", &[])]),
        &["serve: [arrows] may not depend on `store`; allowed: entity, policy, host, ngsi, mqtt, table, node, federation"],
    );
    check(graph::arrows(&[own("air", &[])]), &["air: [arrows] the crate is not in the table `ARROWS` of xtask/src/tidy/graph.rs"]);
}

#[test]
fn tests_may_use_what_lies_below() {
    let with_tests = |name: &str, beside: &str| OwnCrate { uses_beside: BTreeSet::from([beside.to_owned()]), ..own(name, &[]) };
    check(graph::arrows(&[with_tests("query", "host"), own("host", &[])]), &[]);
    check(
        graph::arrows(&[with_tests("store", "node"), own("node", &[])]),
        &["store: [arrows] may not use `node` in tests or build scripts: it is not below it"],
    );
}

#[test]
fn engines_and_sockets_are_linked_where_they_belong() {
    check(graph::links(&[own("store", &["fjall"]), own("serve", &["axum"])]), &[]);
    check(
        graph::links(&[own("node", &["fjall"])]),
        &["node: [links] may not depend on `fjall` (only store may): engines lie behind the traits of `store`"],
    );
    let indirect = OwnCrate { links: BTreeSet::from(["datafusion".to_owned()]), ..own("serve", &[]) };
    check(
        graph::links(&[indirect]),
        &["serve: [links] links `datafusion` (only query, conurb may): most builds and tests must not wait for the SQL engine"],
    );
}

#[test]
fn unwanted_crates_and_second_versions_are_found() {
    check(graph::banned(&[linked("ring", "0.17.14", None), linked("arrow", "59.3.2", None)]), &[]);
    check(
        graph::banned(&[linked("openssl", "0.10.0", None)]),
        &["openssl: [banned crate] TLS and signatures are rustls with ring; `cargo tree -i openssl` tells who brings it"],
    );
    check(
        graph::banned(&[linked("arrow", "59.3.2", None), linked("arrow", "60.0.0", None)]),
        &["arrow: [one version] linked in versions 59.3.2 and 60.0.0; one is allowed"],
    );
}

#[test]
fn a_dependency_is_built_once() {
    let binary = "conurb v0.1.0 (/here) [default,sql]\nserde_json v1.0.154 [default]\nring v0.17.14 []\n";
    check(graph::one_build(binary, &format!("{binary}proptest v1.12.0 []\n")), &[]);
    check(
        graph::one_build(binary, &binary.replace("[default]", "[default,unbounded_depth]")),
        &["serde_json v1.0.154: [one build] the binary has it with features [default], the workspace with tests as \
           serde_json v1.0.154 [default,unbounded_depth]; declare the features in [workspace.dependencies]"],
    );
}

#[test]
fn licence_expressions_are_judged_by_their_parts() {
    check("MIT OR Apache-2.0", Ok(true));
    check("MIT/GPL-3.0", Ok(true));
    check("Apache-2.0 OR GPL-2.0-only", Ok(true));
    check("MIT AND GPL-3.0", Ok(false));
    check("(MIT OR GPL-3.0) AND Unicode-3.0", Ok(true));
    check("GPL-3.0 OR MIT AND AGPL-3.0", Ok(false));
    check("Apache-2.0 WITH LLVM-exception", Ok(true));
    check("GPL-2.0 WITH Classpath-exception-2.0", Ok(false));
    check("MIT OR", Err("a licence is missing at the end"));
    check("(MIT", Err("`)` is missing"));
    check("MIT Apache-2.0", Err("unexpected `Apache-2.0`"));
    check("AND MIT", Err("expected a licence, found `AND`"));

    #[track_caller]
    fn check(expression: &str, want: Result<bool, &str>) {
        let allowed = |name: &str| ["MIT", "Apache-2.0", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"].contains(&name);
        assert_eq!(graph::permits(expression, &allowed), want.map_err(str::to_owned), "{expression}");
    }
}

#[test]
fn a_licence_exception_holds_for_its_crate_only() {
    check(graph::licences(&[linked("x509-certificate", "0.25.0", Some("MPL-2.0"))]), &[]);
    check(
        graph::licences(&[linked("other", "1.0.0", Some("MPL-2.0")), linked("nothing", "1.0.0", None)]),
        &["other 1.0.0: [licence] `MPL-2.0` is not among the allowed licences", "nothing 1.0.0: [licence] the crate states no licence"],
    );
}

#[test]
fn unfinished_code_is_found_but_not_in_comments_and_strings() {
    let text = "//! Page.\n// todo!() later\nfn f() { g(\"dbg!\\\" todo!\"); } // dbg!\nfn g() { todo!() }\nfn h() { my_dbg!() }\n";
    check(sources::check("crates/store/src/lib.rs", text), &["crates/store/src/lib.rs:4: [unfinished] `todo!`: finish it or leave it out"]);
    assert_eq!(sources::code_only("a // b\n\"c // d\" e\n'\"' f // g"), "a \n\"\" e\n f \n");
}

#[test]
fn a_crate_opens_with_its_page() {
    let want = "crates/store/src/lib.rs: [opening page] a crate opens with a `//!` page: what it is for, its types, its invariants";
    check(sources::check("crates/store/src/lib.rs", "mod log;\n"), &[want]);
    check(sources::check("crates/store/src/log.rs", "struct Log;\n"), &[]);
}

#[test]
fn pure_crates_do_no_io_and_few_listen() {
    check(
        sources::check("crates/policy/src/agreement.rs", "use std::fs::File;\n#[cfg(test)]\nuse std::env;\n"),
        &["crates/policy/src/agreement.rs:1: [pure crate] `std::fs`: this crate does no I/O; the caller hands in what it needs"],
    );
    check(sources::check("crates/serve/src/http.rs", "use tokio::net::TcpListener;\n"), &[]);
    check(
        sources::check("crates/node/src/peers.rs", "use tokio::net::TcpListener;\n"),
        &["crates/node/src/peers.rs:1: [listeners] `TcpListener`: only serve, query and conurb open listeners"],
    );
    check(sources::check("crates/feed/src/player/tests.rs", "use tokio::net::TcpListener;\n"), &[]);
}

#[test]
fn long_files_are_said_and_longer_ones_refused() {
    let lines = |n: usize| "x\n".repeat(n);
    assert_eq!(sources::too_long("ui/src/map.tsx", &lines(800)), None);
    check(sources::too_long("ui/src/map.tsx", &lines(801)), &["ui/src/map.tsx: [length] 801 lines; about 800 is where to split"]);
    check(sources::check("ui/src/map.tsx", &lines(1_200)), &[]);
    check(sources::check("ui/src/map.tsx", &lines(1_201)), &["ui/src/map.tsx: [length] 1201 lines, at most 1200 are allowed"]);
    assert_eq!(sources::too_long("Cargo.lock", &lines(5_000)), None);
}

#[test]
fn large_files_stay_out() {
    let file = |bytes| File { path: "docs/film.mp4".to_owned(), bytes, text: None };
    assert_eq!(too_large(&file(FILE_BYTES_MAX)), None);
    check(too_large(&file(FILE_BYTES_MAX + 1)), &["docs/film.mp4: [file size] 1048577 bytes, at most 1048576 may be committed"]);
}

#[test]
fn the_map_names_every_crate_and_what_keeps_its_invariants() {
    check(documents::architecture("`store` keeps.\n**Invariant:** no loss (kept by test `t`).\n", &[own("store", &[])]), &[]);
    check(
        documents::architecture("nothing\n**Invariant:** no loss.\n", &[own("store", &[])]),
        &[
            "ARCHITECTURE.md: [map] does not name the crate `store`",
            "ARCHITECTURE.md:2: [map] an invariant says which check it is `kept by`",
        ],
    );
}

#[test]
fn tests_named_by_their_clause_are_in_the_table() {
    let source = "#[test]\nfn clause_5_6_1_create() {\n}\n#[test]\n    fn clause_5_6_2_update() {\nfn other() {";
    check(documents::conformance(("t.md", "| `clause_5_6_1_create` | `clause_5_6_2_update` |"), &[source]), &[]);
    check(
        documents::conformance(("t.md", "| `clause_5_6_1_create`, `clause_9_gone` |"), &[source]),
        &[
            "t.md: [conformance] does not name the test `clause_5_6_2_update`",
            "t.md: [conformance] names the test `clause_9_gone`, which does not exist",
        ],
    );
}

#[test]
fn both_readmes_have_the_same_parts() {
    let en = ("README.md", "# A\n```sh\n# a comment\n```\n## B\n");
    check(documents::same_headings(en, ("README.zh-CN.md", "# 甲\n## 乙\n")), &[]);
    check(
        documents::same_headings(en, ("README.zh-CN.md", "# 甲\n")),
        &["README.zh-CN.md: [both languages] has 1 headings, `README.md` has 2"],
    );
    check(
        documents::same_headings(en, ("README.zh-CN.md", "# 甲\n### 乙\n")),
        &["README.zh-CN.md: [both languages] heading 2 is of another level than in `README.md`"],
    );
    check(
        documents::same_headings(("README.md", ""), ("README.zh-CN.md", "")),
        &["README.zh-CN.md: [both languages] `README.md` is missing or has no headings"],
    );
}

#[test]
fn texts_have_the_same_keys_in_both_languages() {
    let en = ("en.json", r#"{"map":{"title":"Map","legend":"Legend"}}"#);
    check(documents::same_keys(en, ("zh.json", r#"{"map":{"legend":"图例","title":"地图"}}"#)), &[]);
    check(
        documents::same_keys(en, ("zh.json", r#"{"map":{"title":"地图","peer":"对等"}}"#)),
        &["zh.json: [both languages] text `map.legend` is missing", "en.json: [both languages] text `map.peer` is missing"],
    );
    check(documents::same_keys(en, ("zh.json", "")), &["zh.json: [both languages] not JSON: EOF while parsing a value at line 1 column 0"]);
}

#[test]
fn links_lead_somewhere() {
    let paths = BTreeSet::from(["README.md", "docs/glossary.md", "docs/guide/sql.md"]);
    let good = "[a](guide/sql.md#top) [b](../README.md) [c](https://example.org) [d](#here) [e](guide) [f](/docs/glossary.md)\n```\n[x](no.md)\n```\n";
    check(documents::links("docs/glossary.md", good, &paths), &[]);
    check(
        documents::links("docs/glossary.md", "\n[a](sql.md) and [b](../../shared/x.md)\n", &paths),
        &["docs/glossary.md:2: [links] `sql.md` leads to nothing", "docs/glossary.md:2: [links] `../../shared/x.md` leaves the project"],
    );
}

#[test]
fn the_changelog_has_room_for_what_comes() {
    check(documents::changelog("# Changelog\n\n## Unreleased\n"), &[]);
    check(documents::changelog("# Changelog\n"), &["CHANGELOG.md: [changelog] has no section `## Unreleased`"]);
}

#[test]
fn decisions_are_numbered_and_complete() {
    let file = |path: &str, text: &str| File { path: path.to_owned(), bytes: 0, text: Some(text.to_owned()) };
    let whole = "# 1\n## Context\n## Decision\n## Consequences\n## When to look again\n";
    let files =
        [file("docs/decisions/0001-a.md", whole), file("docs/decisions/second.md", "# 2\n## Context\n## Decision\n## Consequences\n")];
    let found = documents::check(&files, &BTreeSet::new(), &[]);
    let found = found.into_iter().filter(|problem| problem.rule == "decision");
    check(
        found,
        &[
            "docs/decisions/second.md: [decision] is not named NNNN-title.md",
            "docs/decisions/second.md: [decision] has no part `## When to look again`",
        ],
    );
}

#[test]
fn the_graph_of_this_workspace_is_read_as_cargo_tells_it() {
    let graph = graph::Graph::of(&super::metadata(&crate::root()).unwrap());
    let one = |name: &str| graph.crates.iter().find(|one| one.name == name).unwrap();
    assert!(one("policy").uses.contains("entity"));
    assert!(one("policy").uses_beside.contains("proptest") && !one("policy").uses.contains("proptest"));
    assert!(one("conurb").links.contains("datafusion") && !one("conurb").uses.contains("datafusion"));
    assert!(!one("serve").links.contains("datafusion"));
    let serde = graph.linked.iter().find(|one| one.name == "serde").unwrap();
    assert_eq!(serde.licence.as_deref(), Some("MIT OR Apache-2.0"));
    assert!(graph.linked.iter().all(|one| one.name != "entity"), "own crates are not foreign");
}
