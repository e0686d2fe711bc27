//! A disk that fails the way disks do, on a seed.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{AppendFile, Disk};

/// A disk in memory. Bytes appended and not synced are lost, kept or torn at a crash, as the seed decides.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Inner>>);

struct Inner {
    files: BTreeMap<PathBuf, SimFile>,
    random: ChaCha8Rng,
    n_steps: u64,
    crash_at_step: Option<u64>,
    crashed: bool,
    capacity_bytes: usize,
}

#[derive(Default, Clone)]
struct SimFile {
    durable: Vec<u8>,
    pending: Vec<u8>,
}

impl SimDisk {
    /// An empty disk of `capacity_bytes`.
    #[must_use]
    pub fn new(seed: u64, capacity_bytes: usize) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            files: BTreeMap::new(),
            random: ChaCha8Rng::seed_from_u64(seed),
            n_steps: 0,
            crash_at_step: None,
            crashed: false,
            capacity_bytes,
        })))
    }

    /// The machine dies at the `step`-th operation from now; every operation after it fails.
    pub fn crash_after(&self, steps: u64) {
        let mut inner = self.inner();
        inner.crash_at_step = Some(inner.n_steps + steps);
    }

    /// How many operations there have been: what a test that crashes at each of them counts to.
    #[must_use]
    pub fn n_steps(&self) -> u64 {
        self.inner().n_steps
    }

    /// More or less room from now on.
    pub fn set_capacity(&self, bytes: usize) {
        self.inner().capacity_bytes = bytes;
    }

    /// Flips one bit of a file: damage that no crash explains.
    pub fn flip_bit(&self, path: &Path, byte_idx: usize) {
        if let Some(b) = self.inner().files.get_mut(path).and_then(|f| f.durable.get_mut(byte_idx)) {
            *b ^= 1;
        }
    }

    /// The machine starts again: of what was not synced, a prefix chosen by the seed has survived.
    pub fn restart(&self) {
        let mut inner = self.inner();
        inner.crashed = false;
        inner.crash_at_step = None;
        let Inner { files, random, .. } = &mut *inner;
        for file in files.values_mut() {
            let n_kept = random.random_range(0..=file.pending.len());
            file.durable.extend_from_slice(&file.pending[..n_kept]);
            file.pending.clear();
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn step(&mut self) -> io::Result<()> {
        self.n_steps += 1;
        if self.crash_at_step.is_some_and(|at| self.n_steps >= at) {
            self.crashed = true;
        }
        if self.crashed { Err(io::Error::other("the simulated machine has crashed")) } else { Ok(()) }
    }

    fn used_bytes(&self) -> usize {
        self.files.values().map(|f| f.durable.len() + f.pending.len()).sum()
    }
}

impl Disk for SimDisk {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut inner = self.inner();
        inner.step()?;
        let names = inner.files.keys().filter(|p| p.parent() == Some(dir));
        Ok(names.filter_map(|p| Some(p.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut inner = self.inner();
        inner.step()?;
        let file = inner.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok([file.durable.as_slice(), &file.pending].concat())
    }

    fn read_range(&self, path: &Path, range: Range<u64>) -> io::Result<Vec<u8>> {
        let mut inner = self.inner();
        inner.step()?;
        let file = inner.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        let byte_at = |idx: u64| usize::try_from(idx).unwrap_or(usize::MAX);
        let (start, end) = (byte_at(range.start), byte_at(range.end));
        let n_durable = file.durable.len();
        if start > end || end > n_durable + file.pending.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = file.durable[start.min(n_durable)..end.min(n_durable)].to_vec();
        bytes.extend_from_slice(&file.pending[start.saturating_sub(n_durable)..end.saturating_sub(n_durable)]);
        Ok(bytes)
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        let mut inner = self.inner();
        inner.step()?;
        let file = inner.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok((file.durable.len() + file.pending.len()) as u64)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        // A dying machine may have done it.
        let died = inner.step();
        let just_died = died.is_err() && inner.crash_at_step == Some(inner.n_steps);
        if died.is_ok() || (just_died && inner.random.random()) {
            let file = inner.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
            inner.files.insert(to.to_owned(), file);
        }
        died
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        let mut inner = self.inner();
        inner.step()?;
        inner.files.entry(path.to_owned()).or_default();
        Ok(Box::new(SimAppend { disk: self.clone(), path: path.to_owned() }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.step()?;
        inner.files.remove(path).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

struct SimAppend {
    disk: SimDisk,
    path: PathBuf,
}

impl AppendFile for SimAppend {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let died = inner.step().is_err();
        let room = inner.capacity_bytes.saturating_sub(inner.used_bytes());
        // A dying machine writes any prefix; a full disk as much as fits.
        let n_written = if died { inner.random.random_range(0..=bytes.len()) } else { bytes.len() }.min(room);
        let file = inner.files.get_mut(&self.path).ok_or(io::ErrorKind::NotFound)?;
        file.pending.extend_from_slice(&bytes[..n_written]);
        if died {
            Err(io::Error::other("the simulated machine has crashed"))
        } else if n_written < bytes.len() {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.step()?;
        let file = inner.files.get_mut(&self.path).ok_or(io::ErrorKind::NotFound)?;
        let pending = std::mem::take(&mut file.pending);
        file.durable.extend(pending);
        Ok(())
    }

    fn truncate(&mut self, len_bytes: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.step()?;
        let file = inner.files.get_mut(&self.path).ok_or(io::ErrorKind::NotFound)?;
        let mut all = [file.durable.as_slice(), &file.pending].concat();
        all.truncate(usize::try_from(len_bytes).unwrap_or(usize::MAX));
        *file = SimFile { durable: all, pending: Vec::new() };
        Ok(())
    }
}
