//! What every engine must do, run over all of them.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use host::RealDisk;
use host::sim::SimDisk;
use object_store::local::LocalFileSystem;

use super::{Blobs, Bytes, DiskBlobs, MemoryBlobs, ObjectBlobs, S3Options};

#[test]
fn every_engine_keeps_the_contract() {
    contract(&MemoryBlobs::default());
    let dir = tempfile::tempdir().unwrap();
    contract(&DiskBlobs::open(Arc::new(RealDisk), &dir.path().join("blobs")).unwrap());
    contract(&DiskBlobs::open(Arc::new(SimDisk::new(1, 1 << 20)), Path::new("/blobs")).unwrap());
    contract(&ObjectBlobs::new(Arc::new(object_store::memory::InMemory::new()), "").unwrap());
    let local = LocalFileSystem::new_with_prefix(dir.path()).unwrap();
    contract(&ObjectBlobs::new(Arc::new(local), "objects/history").unwrap());
}

#[test]
fn s3_keeps_the_contract() {
    let Some(server) = Moto::start() else { return };
    contract(&server.blobs("history"));
    contract(&server.blobs(""));
    let nowhere = ObjectBlobs::s3(&S3Options { bucket: "absent".to_owned(), ..server.options("") }).unwrap();
    assert!(nowhere.put("a", Bytes::from_static(b"x")).is_err());
}

fn contract(blobs: &dyn Blobs) {
    let kind = |result: std::io::Result<Bytes>| result.map(|_| ()).unwrap_err().kind();
    assert_eq!(blobs.list().unwrap(), [""; 0]);
    assert_eq!(kind(blobs.get("a.parquet", 0..1)), ErrorKind::NotFound);
    assert_eq!(blobs.size("a.parquet").unwrap_err().kind(), ErrorKind::NotFound);
    blobs.delete("a.parquet").unwrap();

    let long: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
    blobs.put("b.parquet", Bytes::from(long.clone())).unwrap();
    blobs.put("a.parquet", Bytes::from_static(b"first")).unwrap();
    blobs.put("a.parquet", Bytes::from_static(b"second")).unwrap();
    blobs.put("empty", Bytes::new()).unwrap();
    assert_eq!(blobs.list().unwrap(), ["a.parquet", "b.parquet", "empty"]);
    assert_eq!((blobs.size("a.parquet").unwrap(), blobs.size("b.parquet").unwrap(), blobs.size("empty").unwrap()), (6, 100_000, 0));
    assert_eq!(blobs.get("a.parquet", 0..6).unwrap(), b"second".as_slice());
    assert_eq!(blobs.get("b.parquet", 99_000..100_000).unwrap(), long[99_000..]);
    assert_eq!(blobs.get("b.parquet", 5..6).unwrap(), long[5..6]);
    assert_eq!(blobs.get("b.parquet", 7..7).unwrap(), b"".as_slice());
    for range in [0..7, 6..7, 100..200] {
        assert_eq!(kind(blobs.get("a.parquet", range)), ErrorKind::UnexpectedEof);
    }
    blobs.delete("a.parquet").unwrap();
    blobs.delete("a.parquet").unwrap();
    assert_eq!(kind(blobs.get("a.parquet", 0..1)), ErrorKind::NotFound);
    assert_eq!(blobs.list().unwrap(), ["b.parquet", "empty"]);
    for name in ["b.parquet", "empty"] {
        blobs.delete(name).unwrap();
    }
}

#[test]
fn a_file_on_a_disk_that_crashes_is_there_completely_or_not_at_all() {
    let dir = Path::new("/blobs");
    let (old, new) = (Bytes::from(vec![1; 500]), Bytes::from(vec![2; 700]));
    for step in 1.. {
        let disk = SimDisk::new(step, 1 << 20);
        let open = || DiskBlobs::open(Arc::new(disk.clone()), dir).unwrap();
        let blobs = open();
        blobs.put("a", old.clone()).unwrap();
        disk.crash_after(step);
        let result = blobs.put("a", new.clone()).and_then(|()| blobs.put("b", new.clone()));
        disk.restart();
        let blobs = open();
        let is = |name: &str, want: &Bytes| blobs.size(name).is_ok_and(|n| blobs.get(name, 0..n).unwrap() == *want);
        let names = blobs.list().unwrap();
        assert!(is("a", &old) || is("a", &new), "step {step}");
        assert!(names == ["a"] || (is("a", &new) && is("b", &new)), "step {step}: {names:?}");
        if result.is_ok() {
            assert_eq!(names, ["a", "b"]);
            return;
        }
    }
}

#[test]
fn a_full_disk_keeps_what_it_has_and_no_rubbish() {
    let disk = SimDisk::new(3, 1_000);
    let blobs = DiskBlobs::open(Arc::new(disk), Path::new("/blobs")).unwrap();
    blobs.put("a", Bytes::from(vec![1; 600])).unwrap();
    assert_eq!(blobs.put("b", Bytes::from(vec![2; 600])).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(blobs.list().unwrap(), ["a"]);
    blobs.delete("a").unwrap();
    blobs.put("b", Bytes::from(vec![2; 600])).unwrap();
}

/// A `moto` server (a stand-in for Amazon's S3, from PyPI), ended when dropped.
pub(crate) struct Moto {
    server: Child,
    endpoint: String,
}

impl Moto {
    /// None where there is no Python or no package index, which is said.
    pub(crate) fn start() -> Option<Self> {
        let program = match moto_server() {
            Ok(program) => program,
            Err(why) => {
                eprintln!("SKIPPED, there is no S3 server to test against: {why}");
                return None;
            }
        };
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moto = Self { server, endpoint: format!("http://127.0.0.1:{port}") };
        for _ in 0..600 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                moto.make_bucket(port);
                return Some(moto);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the S3 server does not listen after a minute");
    }

    fn make_bucket(&self, port: u16) {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let request = "PUT /city HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: AWS4-HMAC-SHA256 Credential=k/20260101/us-east-1/s3/aws4_request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{} {answer}", self.endpoint);
    }

    pub(crate) fn options(&self, prefix: &str) -> S3Options {
        S3Options {
            bucket: "city".to_owned(),
            prefix: prefix.to_owned(),
            region: "us-east-1".to_owned(),
            endpoint: Some(self.endpoint.clone()),
            allow_http: true,
            access_key_id: "k".to_owned(),
            secret_access_key: "s".to_owned(),
        }
    }

    pub(crate) fn blobs(&self, prefix: &str) -> ObjectBlobs {
        ObjectBlobs::s3(&self.options(prefix)).unwrap()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The server's program, installed below the target folder if it is not there yet.
fn moto_server() -> Result<PathBuf, String> {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/moto-venv");
    let program = dir.join("bin/moto_server");
    if program.exists() {
        return Ok(program);
    }
    let run = |program: &Path, args: &[&str]| {
        let output = Command::new(program).args(args).output().map_err(|e| format!("cannot start `{}`: {e}", program.display()))?;
        let last = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
        if output.status.success() { Ok(()) } else { Err(format!("`{} {}` failed: {last}", program.display(), args.join(" "))) }
    };
    run(Path::new("python3"), &["-m", "venv", &dir.to_string_lossy()])?;
    run(&dir.join("bin/pip"), &["install", "--quiet", "moto[server]"])?;
    Ok(program)
}
