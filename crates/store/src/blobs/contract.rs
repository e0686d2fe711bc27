//! What every engine must do, run over all of them.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

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

/// A server that stands in for Amazon's S3.
pub(crate) struct Moto(host::pypi::Moto);

impl Moto {
    /// None where there is no Python or no package index, which is said.
    pub(crate) fn start() -> Option<Self> {
        host::pypi::Moto::start().map(Self).map_err(|why| eprintln!("SKIPPED, there is no S3 server to test against: {why}")).ok()
    }

    pub(crate) fn options(&self, prefix: &str) -> S3Options {
        S3Options {
            bucket: "city".to_owned(),
            prefix: prefix.to_owned(),
            region: "us-east-1".to_owned(),
            endpoint: Some(self.0.endpoint()),
            allow_http: true,
            access_key_id: "k".to_owned(),
            secret_access_key: "s".to_owned(),
        }
    }

    pub(crate) fn blobs(&self, prefix: &str) -> ObjectBlobs {
        ObjectBlobs::s3(&self.options(prefix)).unwrap()
    }
}
