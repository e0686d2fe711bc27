//! Programs from PyPI that tests talk to: other people's clients, and servers that stand in for services.
//!
//! Each has an environment of its own below the target folder, made when it is first wanted. A machine without Python or a package index has
//! none; the reason is returned, and a test that then skips says it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::Stopwatch;

/// How long a server may take until it listens.
const START_WAIT: Duration = Duration::from_secs(60);

/// The folder of an environment with these packages (as pip takes them, with versions); the programs are in its folder `bin`.
///
/// Errors: why it cannot be made, in words.
pub fn environment(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = target_dir()?.join("pypi").join(name);
    // Written last, so that what was interrupted is made anew.
    let complete = dir.join("packages.txt");
    let wanted = packages.join("\n");
    if fs::read_to_string(&complete).is_ok_and(|found| found == wanted) {
        return Ok(dir);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&dir))?;
    run(Command::new(dir.join("bin/python")).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages))?;
    fs::write(&complete, wanted).map_err(|e| format!("cannot write `{}`: {e}", complete.display()))?;
    Ok(dir)
}

/// The target folder, which a test's program is three levels below.
fn target_dir() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|e| format!("cannot tell where this program is: {e}"))?;
    program.ancestors().nth(3).map(Path::to_owned).ok_or_else(|| format!("`{}` is in no target folder", program.display()))
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("cannot start `{name}`: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{name}` failed: {}", said.lines().last().unwrap_or("it says nothing")))
}

/// A `moto` server, which stands in for Amazon's S3, with the empty bucket `city`; it ends when this is dropped.
/// Any keys open it.
#[derive(Debug)]
pub struct Moto {
    server: Child,
    port: u16,
}

impl Moto {
    /// Starts it on a free port of this machine.
    ///
    /// Errors: why there is none, in words.
    pub fn start() -> Result<Self, String> {
        let program = environment("moto", &["moto[server]==5.2.5"])?.join("bin/moto_server");
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr());
        let port = free.map_err(|e| format!("there is no free port: {e}"))?.port();
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        let server = command.spawn().map_err(|e| format!("cannot start the S3 server: {e}"))?;
        let moto = Self { server, port };
        let watch = Stopwatch::start();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if watch.elapsed() > START_WAIT {
                return Err(format!("the S3 server does not listen after {} s", START_WAIT.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        moto.make_bucket().map_err(|e| format!("the S3 server makes no bucket: {e}"))?;
        Ok(moto)
    }

    /// Its address, `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn make_bucket(&self) -> std::io::Result<()> {
        const REQUEST: &str = "PUT /city HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: AWS4-HMAC-SHA256 \
                               Credential=k/20260101/us-east-1/s3/aws4_request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.write_all(REQUEST.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(std::io::Error::other(answer)) }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // One that has ended already is as good.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
