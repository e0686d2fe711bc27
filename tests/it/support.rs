//! A node, and the clients of the tests.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) use crate::client::{Answer, eventually, request};

/// The binary under test, built by `make test` before.
pub(crate) fn program() -> PathBuf {
    let mut dir = std::env::current_exe().unwrap();
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    let program = dir.join("conurb");
    assert!(program.exists(), "build the program first: cargo build --profile quick -p conurb (looked for {})", program.display());
    program
}

/// The root of the project.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// The recorded data beside the project; none (said aloud) where they are not.
pub(crate) fn recorded_air() -> Option<PathBuf> {
    let shared = std::env::var_os("CONURB_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from);
    let air = shared.join("data/air");
    if air.join("beijing12").is_dir() {
        return Some(air);
    }
    skip(&format!("there are no recorded data at {}", air.display()));
    None
}

/// Is this program on the machine? If not, says aloud that a test is skipped.
pub(crate) fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap().status.success();
    if !found {
        skip(&format!("`{program}` is not installed (scripts/setup.sh --for test installs it)"));
    }
    found
}

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub(crate) fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
}

/// A running node.
pub(crate) struct Node {
    pub(crate) child: Child,
    pub(crate) http: String,
    pub(crate) mqtt: String,
    pub(crate) sql: String,
    pub(crate) dir: PathBuf,
    _own: Option<TempDir>,
}

impl Node {
    /// A node in development mode on an empty folder of its own.
    pub(crate) fn start() -> Self {
        let own = tempfile::tempdir().unwrap();
        let mut node = Self::start_in(own.path(), &["--dev"]);
        node._own = Some(own);
        node
    }

    /// A node on this folder, with more arguments.
    pub(crate) fn start_in(dir: &Path, arguments: &[&str]) -> Self {
        let any = "127.0.0.1:0";
        let mut given = vec!["--http", any, "--mqtt", any, "--sql", any, "--flight", any, "--log", "warn"];
        given.extend(arguments);
        // Later flags of the same name win; clap refuses repetition, so a default that is given is left out.
        let mut command = Command::new(program());
        command.arg("serve").arg("--data").arg(dir).args(without_repetition(&given));
        Self::from_command(command, dir)
    }

    /// A node that was prepared in another way.
    pub(crate) fn from_command(mut command: Command, dir: &Path) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("the node said `{line}`: {e}"));
        assert_eq!(ready["ready"], true);
        let text = |key: &str| ready[key].as_str().unwrap().to_owned();
        Self { child, http: text("http"), mqtt: text("mqtt"), sql: text("sql"), dir: dir.to_owned(), _own: None }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// As a power cut would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// As an operator would; it must end by itself and in order.
    pub(crate) fn terminate(&mut self) {
        let sent = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
        assert!(self.child.wait().unwrap().success(), "the node ends with success");
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        request("GET", &self.url(path), &[], None)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        request("POST", &self.url(path), &[("content-type", "application/json")], Some(&body.to_string()))
    }

    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
        request(method, &self.url(path), headers, body)
    }

    pub(crate) fn mqtt_port(&self) -> &str {
        self.mqtt.rsplit(':').next().unwrap()
    }

    /// `mosquitto_pub` with these arguments.
    pub(crate) fn publish(&self, arguments: &[&str]) -> Output {
        Command::new("mosquitto_pub").args(["-h", "127.0.0.1", "-p", self.mqtt_port()]).args(arguments).output().unwrap()
    }

    /// Plain `psql`, one statement, rows as text with `|`.
    pub(crate) fn psql(&self, statement: &str) -> Result<String, String> {
        let port = self.sql.rsplit(':').next().unwrap();
        let output = Command::new("psql")
            .args(["-U", "conurb", "-d", "conurb", "-h", "127.0.0.1", "-p", port, "-X", "-A", "-t", "-c", statement])
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

/// Of flags with a value that come twice, the last.
fn without_repetition<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let mut kept: Vec<&str> = Vec::new();
    let mut i = 0;
    while i < arguments.len() {
        let has_value = arguments.get(i + 1).is_some_and(|a| !a.starts_with("--"));
        let n = if has_value { 2 } else { 1 };
        if !arguments[i + n..].contains(&arguments[i]) {
            kept.extend(&arguments[i..i + n]);
        }
        i += n;
    }
    kept
}

impl Drop for Node {
    fn drop(&mut self) {
        // Already gone if the test ended it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that stands in for Amazon's S3.
pub(crate) struct Moto(host::pypi::Moto);

impl Moto {
    /// None where there is no Python or no package index, which is said.
    pub(crate) fn start() -> Option<Self> {
        host::pypi::Moto::start().map(Self).map_err(|why| skip(&format!("there is no S3 server to test against: {why}"))).ok()
    }

    /// A program that reaches it by the usual variables.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.envs([("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_REGION", "us-east-1"), ("AWS_ALLOW_HTTP", "true")]);
        command.env("AWS_ENDPOINT", self.0.endpoint());
        command
    }
}

/// The public key of the city whose node keeps its data in `dir`.
pub(crate) fn key_of(dir: &Path) -> String {
    let output = Command::new(program()).args(["key", "--data"]).arg(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Writes a file.
pub(crate) fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
}
