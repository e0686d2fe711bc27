//! Programs from PyPI that tests talk to: other people's clients, and servers that stand in for services.
//!
//! Each has an environment of its own below the target folder, made when it is first wanted. A machine without Python or a package index has
//! none; the reason is returned, and a test that then skips says it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

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
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", "0"]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut moto = Self { server: command.spawn().map_err(|e| format!("cannot start the S3 server: {e}"))?, port: 0 };
        let mut said = BufReader::new(moto.server.stderr.take().ok_or("the S3 server has no output")?);
        // It takes a free port and says which one when it listens.
        while moto.port == 0 {
            let mut line = String::new();
            let read = said.read_line(&mut line).map_err(|e| format!("cannot read what the S3 server says: {e}"))?;
            if read == 0 {
                return Err("the S3 server ended before it listened".to_owned());
            }
            if let Some((_, port)) = line.trim_end().rsplit_once("Running on http://127.0.0.1:") {
                moto.port = port.parse().map_err(|_| format!("the S3 server names no port: `{port}`"))?;
            }
        }
        // A line per request follows: unread, they would stop it when the pipe is full.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
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
