//! The description of the interface, judged by others' programs: it is valid, and requests made from it find no 500.

use std::process::Command;

use crate::city::City;

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn program(name: &'static str, packages: &[&str]) -> Option<std::path::PathBuf> {
    let made = host::pypi::environment(name, packages);
    made.map(|dir| dir.join("bin")).map_err(|why| eprintln!("SKIPPED, no Python with {packages:?}: {why}")).ok()
}

#[test]
fn the_description_is_valid() {
    let Some(bin) = program("openapi", &["openapi-spec-validator==0.9.0"]) else { return };
    let city = City::start();
    let description = city.get("/openapi.json").expect(200);
    let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    std::fs::write(file.path(), description.body).unwrap();
    let output = Command::new(bin.join("openapi-spec-validator")).arg(file.path()).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
}

/// Hundreds of requests that the description allows, and as many that it does not: none ends in a 500, and nothing hangs.
#[test]
fn requests_made_from_the_description_find_no_server_error() {
    let Some(bin) = program("schemathesis", &["schemathesis==4.32.5"]) else { return };
    let city = City::start();
    let mut command = Command::new(bin.join("schemathesis"));
    command.args(["run", &city.url("/openapi.json"), "--checks", "not_a_server_error", "--include-path-regex", "^/ngsi-ld/"]);
    command.args([
        "--phases",
        "examples,coverage,fuzzing",
        "--max-examples",
        "3",
        "--seed",
        "1",
        "--request-timeout",
        "10",
        "--max-time",
        "20",
        "--no-color",
    ]);
    let output = command.current_dir(std::env::temp_dir()).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("generated"), "it has tested something: {said}");
}
