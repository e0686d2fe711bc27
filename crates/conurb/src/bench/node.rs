//! A node of its own for each measurement.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use host::Stopwatch;
use serde_json::Value;

use super::process::cpu_seconds;

/// A folder that goes away with its owner. On the disk of the current folder: /tmp may be memory, which syncs for nothing.
pub(super) struct WorkDir(PathBuf);

impl WorkDir {
    pub(super) fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // Nothing can be done about a folder that stays.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn work_dir() -> anyhow::Result<WorkDir> {
    let path = std::env::current_dir()?.join(format!(".bench-{}", host::random_hex::<6>()));
    std::fs::create_dir(&path).with_context(|| format!("cannot make `{}`", path.display()))?;
    Ok(WorkDir(path))
}

pub(super) struct BenchNode {
    child: Child,
    dir: Option<WorkDir>,
    /// Address of HTTP.
    pub(super) http: String,
    /// Address of MQTT.
    pub(super) mqtt: String,
    /// Address of SQL; none where it is built out.
    pub(super) sql: Option<String>,
    /// From the start of the process to its ready line.
    pub(super) started_in: Duration,
}

impl BenchNode {
    /// Starts this program on a folder (none: an empty one).
    pub(super) fn start(dir: Option<WorkDir>) -> anyhow::Result<Self> {
        Self::from_command(Command::new(std::env::current_exe()?), dir)
    }

    /// Starts this program on an empty folder, on one core only.
    pub(super) fn start_on(core: &str) -> anyhow::Result<Self> {
        let mut command = Command::new("taskset");
        command.args(["-c", core]).arg(std::env::current_exe()?);
        Self::from_command(command, None)
    }

    fn from_command(mut command: Command, dir: Option<WorkDir>) -> anyhow::Result<Self> {
        let dir = match dir {
            Some(dir) => dir,
            None => work_dir()?,
        };
        let any = "127.0.0.1:0";
        let stopwatch = Stopwatch::start();
        let mut child = command
            .args([
                "serve", "--dev", "--city", "bench", "--log", "error", "--http", any, "--mqtt", any, "--sql", any, "--flight", any,
                "--data",
            ])
            .arg(dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a node")?;
        let stdout = child.stdout.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let started_in = stopwatch.elapsed();
        let ready: Value =
            serde_json::from_str(&line).with_context(|| format!("the node said `{}` instead of being ready", line.trim()))?;
        let address = |key: &str| ready[key].as_str().map(str::to_owned);
        let http = address("http").context("the ready line has no HTTP address")?;
        let mqtt = address("mqtt").context("the ready line has no MQTT address")?;
        Ok(Self { child, dir: Some(dir), http, mqtt, sql: address("sql"), started_in })
    }

    /// CPU seconds used so far.
    pub(super) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        cpu_seconds(self.pid())
    }

    /// Of the process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory, MB.
    pub(super) fn resident_mb(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kb: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kb / 1024.0)
    }

    /// Stops the node in an orderly way and gives back its folder.
    pub(super) fn stop(mut self) -> anyhow::Result<WorkDir> {
        let status = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status()?;
        if !status.success() || !self.child.wait()?.success() {
            bail!("the node did not stop in an orderly way");
        }
        self.dir.take().context("the folder was given away")
    }
}

impl Drop for BenchNode {
    fn drop(&mut self) {
        // Already gone if it was stopped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
