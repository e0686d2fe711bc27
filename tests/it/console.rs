//! The console in a real browser: the UI's own end-to-end test against the real binary.

use std::process::Command;

use crate::support::{Node, has, program, root, skip};

#[test]
fn the_console_works_in_a_browser() {
    let ui = root().join("ui");
    if !ui.join("node_modules").is_dir() || !ui.join("dist/index.html").exists() {
        skip("the console is not built (make ui)");
        return;
    }
    if !has("chromium") || !has("npm") {
        return;
    }
    let node = Node::start();
    // Two hours of a simulated city are on the map.
    let now = Command::new(program())
        .args([
            "simulate",
            "--city",
            "shanghai",
            "--seed",
            "3",
            "--start",
            "2024-06-03T00:00:00Z",
            "--end",
            "2024-06-03T02:00:00Z",
            "--mqtt",
            &node.mqtt,
        ])
        .output()
        .unwrap();
    assert!(now.status.success(), "{}", String::from_utf8_lossy(&now.stderr));
    let shots = root().join("target/screenshots");
    std::fs::create_dir_all(&shots).unwrap();
    let output = Command::new("npm")
        .args(["run", "e2e"])
        .current_dir(&ui)
        .env("CONURB_URL", node.url(""))
        .env("CONURB_SHOTS", &shots)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}
