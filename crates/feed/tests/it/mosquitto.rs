//! The player against mosquitto, if it is installed.

use std::future::pending;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use feed::Timestamp;
use feed::player::{Login, PlayError, PlayOptions, play};
use feed::simulated::{Simulation, SimulationOptions};
use tokio::time::sleep;

use crate::{messages, source};

const PASSWORD: &str = "f33d";

fn program(name: &str) -> Option<PathBuf> {
    let found = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/sbin", "/opt/homebrew/bin"]
        .into_iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: `{name}` is not installed");
    }
    found
}

/// A broker process of our own, ended with the test.
struct Mosquitto {
    folder: tempfile::TempDir,
    port: u16,
    process: Child,
}

impl Mosquitto {
    /// Starts a broker that lets user `feeder` write to `devices/#` but not to `devices/meter/#`.
    fn start() -> Option<Self> {
        let broker = program("mosquitto")?;
        let passwd = program("mosquitto_passwd")?;
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let passwords = folder.path().join("passwords");
        let made = Command::new(passwd).args(["-b", "-c"]).arg(&passwords).args(["feeder", PASSWORD]).status().unwrap();
        assert!(made.success());
        let acl = folder.path().join("acl");
        let writable = ["weather", "traffic", "air-quality", "parking"].map(|kind| format!("topic readwrite devices/{kind}/#\n"));
        std::fs::write(&acl, format!("user feeder\n{}", writable.concat())).unwrap();
        let mut config = std::fs::File::create(folder.path().join("mosquitto.conf")).unwrap();
        writeln!(config, "listener {port} 127.0.0.1\nallow_anonymous false\npersistence false").unwrap();
        // The log tells when a subscriber is in place; with room in its queue none of its messages is dropped.
        writeln!(config, "log_dest file {}\nlog_type subscribe", folder.path().join("log").display()).unwrap();
        writeln!(config, "max_queued_messages 100000").unwrap();
        writeln!(config, "user {}", if cfg!(unix) { "root" } else { "" }).unwrap();
        writeln!(config, "password_file {}\nacl_file {}", passwords.display(), acl.display()).unwrap();
        let process = Self::spawn(&broker, folder.path());
        Some(Self { folder, port, process })
    }

    fn spawn(broker: &Path, folder: &Path) -> Child {
        Command::new(broker).arg("-c").arg(folder.join("mosquitto.conf")).stderr(Stdio::null()).spawn().unwrap()
    }

    async fn ready(&self) {
        eventually("the broker's port", || TcpStream::connect(("127.0.0.1", self.port)).is_ok()).await;
    }

    fn restart(&mut self) {
        self.kill();
        self.process = Self::spawn(&program("mosquitto").unwrap(), self.folder.path());
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn options(&self) -> PlayOptions {
        let mut options = PlayOptions::new(format!("127.0.0.1:{}", self.port), "feed-test");
        options.login = Some(Login { username: "feeder".to_owned(), password: PASSWORD.to_owned() });
        options.offline_max = Duration::from_secs(20);
        options
    }

    /// A subscriber that prints `n` messages and ends.
    async fn subscriber(&self, n: usize) -> Option<Child> {
        let child = Command::new(program("mosquitto_sub")?)
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-u", "feeder", "-P", PASSWORD])
            .args(["-V", "5", "-q", "1", "-t", "devices/#", "-C", &n.to_string(), "-W", "60"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let log = self.folder.path().join("log");
        eventually("the subscriber's line in the log", || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("devices/#"))).await;
        Some(child)
    }
}

/// Waits up to 20 seconds.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..400 {
        if holds() {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("waited in vain for {what}");
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn mosquitto_passes_every_message_on() {
    let Some(broker) = Mosquitto::start() else { return };
    broker.ready().await;
    let n = 5_000;
    let Some(subscriber) = broker.subscriber(n).await else { return };
    let list = messages(n as u64, 1_000_000);
    let summary = play(source(&list), broker.options(), pending(), |_| {}).await.unwrap();
    assert_eq!((summary.progress.acknowledged, summary.progress.rejected), (n as u64, 0));
    let output = tokio::task::spawn_blocking(|| subscriber.wait_with_output().unwrap()).await.unwrap();
    let lines: Vec<_> = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), n);
    assert!(lines.iter().zip(&list).all(|(line, message)| *line == message.payload.as_slice()), "in the order of the source");
}

#[tokio::test]
async fn mosquitto_refuses_what_the_access_list_forbids() {
    let Some(broker) = Mosquitto::start() else { return };
    broker.ready().await;
    let start: Timestamp = "2024-03-10T16:00:00Z".parse().unwrap();
    let simulation_options = SimulationOptions {
        end: Some("2024-03-10T16:10:00Z".parse().unwrap()),
        silences_per_device_day: 0.0,
        ..SimulationOptions::default()
    };
    let simulation = Simulation::new("suzhou", 1, start, &simulation_options).unwrap();
    let summary = play(simulation.map(Ok::<_, std::io::Error>), broker.options(), pending(), |_| {}).await.unwrap();
    let n_meters = 20 * 10;
    assert_eq!(summary.progress.rejected, n_meters);
    assert_eq!(summary.progress.acknowledged, (12 + 4) * 2 + (40 + 15) * 10);
    assert!(summary.progress.rejections.iter().all(|r| r.reason_code == 0x87 && r.topic.starts_with("devices/meter/")));

    let mut options = broker.options();
    options.login = Some(Login { username: "feeder".to_owned(), password: "wrong".to_owned() });
    let error = play(source(&messages(1, 0)), options, pending(), |_| {}).await.unwrap_err();
    assert!(matches!(error, PlayError::Refused { reason_code: 0x86 | 0x87, .. }), "{error}");
}

#[tokio::test]
async fn a_killed_mosquitto_is_awaited() {
    let Some(mut broker) = Mosquitto::start() else { return };
    broker.ready().await;
    let mut options = broker.options();
    options.speed = feed::player::Speed::Times(10.0);
    options.progress_every = Duration::from_millis(50);
    // 40 messages in four seconds; the broker dies after one and is back after another.
    let list = messages(40, 1_000_000);
    let player = tokio::spawn(async move { play(source(&list), options, pending(), |_| {}).await });
    sleep(Duration::from_millis(1_500)).await;
    broker.kill();
    sleep(Duration::from_millis(500)).await;
    broker.restart();
    let summary = player.await.unwrap().unwrap();
    assert_eq!((summary.finished, summary.progress.acknowledged, summary.progress.published), (true, 40, 40));
    assert!(summary.progress.connections_lost >= 1, "{:?}", summary.progress);
}
