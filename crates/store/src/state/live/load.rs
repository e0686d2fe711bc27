//! A start: all documents become rows, ids and indexes, without being made into entities.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use entity::codec::{CodecError, Skim};

use super::columns::{FoundBy, Known, Pending};
use super::inner::Inner;
use super::packed::joined;
use super::words::WORDS_MAX;
use crate::hash::Seeded;
use crate::state::documents::damaged;
use crate::state::{Document, Documents, DocumentsError, Space};

/// Bytes of documents that go from the thread that reads them to the one that takes them in at once.
const BATCH_BYTES: usize = 256 << 10;
/// Batches that have been read and wait, and as many that are empty and wait to be filled.
const BATCHES_WAITING: usize = 4;

/// Takes documents in.
struct Loader<'a> {
    inner: &'a mut Inner,
    types: HashMap<Box<[u8]>, OfTypes, Seeded>,
    scopes: HashMap<Box<[u8]>, u32, Seeded>,
    /// By the number of the table.
    known: Vec<Known>,
    id: String,
    scratch: String,
    pending: Vec<Pending>,
    hashes: Hashes,
}

/// What a list of types is to the tables.
struct OfTypes {
    set: u32,
    numbers: Vec<u32>,
}

/// Hashes of what an entity is found by.
struct Hashes {
    hasher: Seeded,
    links: Vec<u32>,
    words: Vec<u32>,
    n_words: usize,
}

impl FoundBy for Hashes {
    fn target(&mut self, id: &str) {
        self.links.push(self.hash(id));
    }

    fn word(&mut self, word: &str) {
        self.n_words += 1;
        if self.n_words <= WORDS_MAX {
            self.words.push(self.hash(word));
        }
    }
}

impl Hashes {
    // Truncated as the indexes do.
    fn hash(&self, text: &str) -> u32 {
        self.hasher.hash_one(text) as u32
    }
}

/// Documents in their bytes, one behind the other, each behind its id.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Where each id and each document ends.
    ends: Vec<(usize, usize)>,
}

impl Batch {
    fn push(&mut self, id: &[u8], document: &[u8]) {
        self.bytes.extend_from_slice(id);
        let id_end = self.bytes.len();
        self.bytes.extend_from_slice(document);
        self.ends.push((id_end, self.bytes.len()));
    }

    fn each(&self, mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), DocumentsError>) -> Result<(), DocumentsError> {
        let mut from = 0;
        for (id_end, end) in &self.ends {
            visit(&self.bytes[from..*id_end], &self.bytes[*id_end..*end])?;
            from = *end;
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

impl Inner {
    /// Takes in all documents of a space; nothing is there yet.
    ///
    /// One thread reads and decompresses them, this one makes indexes of them. Bytes go from one to the other in a few buffers that are used
    /// again: what one thread allocates and another one frees costs more than a second thread wins.
    ///
    /// Errors: the documents', and a document that does not read back.
    pub(super) fn load(&mut self, space: Space, documents: &dyn Documents) -> Result<(), DocumentsError> {
        self.begin_load();
        let mut loader = Loader::new(self);
        let (filled, to_take) = sync_channel::<Batch>(BATCHES_WAITING);
        let (empty, to_fill) = sync_channel::<Batch>(BATCHES_WAITING);
        for _ in 0..BATCHES_WAITING {
            empty.send(Batch::default()).expect("its receiver is in this function");
        }
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || read(space, documents, &to_fill, &filled));
            let mut taken = Ok(());
            for mut batch in &to_take {
                taken = batch.each(|id, bytes| loader.take(id, bytes));
                if taken.is_err() {
                    break;
                }
                batch.clear();
                // The reader has ended; what it has sent is still taken.
                let _ = empty.send(batch);
            }
            // Dropped, so that a reader that waits ends.
            drop((to_take, empty));
            let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            taken.and(read)
        })?;
        self.finish_load();
        Ok(())
    }
}

/// Fills batches with all documents; ends early if nobody wants them any more.
fn read(space: Space, documents: &dyn Documents, to_fill: &Receiver<Batch>, filled: &SyncSender<Batch>) -> Result<(), DocumentsError> {
    let Ok(mut batch) = to_fill.recv() else { return Ok(()) };
    let mut is_wanted = true;
    documents.scan_bytes(space, &mut |id, bytes| {
        batch.push(id, bytes);
        if batch.bytes.len() >= BATCH_BYTES && is_wanted {
            is_wanted = match to_fill.recv() {
                Ok(next) => filled.send(std::mem::replace(&mut batch, next)).is_ok(),
                Err(_) => false,
            };
        }
        if is_wanted {
            Ok(())
        } else {
            // Some error ends the scan; the one that counts is that of who has gone.
            Err(DocumentsError::Missing { id: String::from_utf8_lossy(id).into_owned() })
        }
    })?;
    // Nobody takes it if an earlier one was wrong.
    let _ = filled.send(batch);
    Ok(())
}

impl<'a> Loader<'a> {
    fn new(inner: &'a mut Inner) -> Self {
        let hashes = Hashes { hasher: inner.hasher.clone(), links: Vec::new(), words: Vec::new(), n_words: 0 };
        Self {
            inner,
            types: HashMap::default(),
            scopes: HashMap::default(),
            known: Vec::new(),
            id: String::new(),
            scratch: String::new(),
            pending: Vec::new(),
            hashes,
        }
    }

    fn take(&mut self, id: &[u8], bytes: &[u8]) -> Result<(), DocumentsError> {
        if bytes.first() == Some(&b'{') {
            // Of the first format.
            let key = String::from_utf8_lossy(id);
            let entity = Document::Packed(bytes.into()).entity(&key)?;
            self.inner.replace(&entity.id, None, Some(&entity));
            return Ok(());
        }
        self.skim(bytes).map_err(|e| damaged(&String::from_utf8_lossy(id), e))
    }

    fn skim(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        let mut skim = Skim::of(bytes)?;
        self.id.clear();
        skim.id().push_to(&mut self.id);
        let scopes = match self.scopes.get(skim.scopes_bytes()) {
            Some(&set) => {
                self.inner.scope_sets.take_again(set);
                set
            }
            None => {
                let set = self.inner.scope_sets.take(&skim.scopes()?);
                self.scopes.insert(skim.scopes_bytes().into(), set);
                set
            }
        };
        match self.types.get(skim.types_bytes()) {
            Some(known) => self.inner.type_sets.take_again(known.set),
            None => {
                let names = skim.types()?;
                if names.is_empty() {
                    return Err(CodecError::Wrong { at_byte: 0, what: "an entity without a type" });
                }
                let of_types = OfTypes { set: self.inner.type_sets.take(&names), numbers: self.inner.numbers_of_types(&names) };
                self.types.insert(skim.types_bytes().into(), of_types);
            }
        }
        let OfTypes { set, numbers } = &self.types[skim.types_bytes()];
        let times = [skim.created_at().micros(), skim.modified_at().micros()];
        let (slot, row) = self.inner.add_slot(&self.id, numbers, (*set, scopes), times);
        let table = numbers[0] as usize;
        if self.known.len() <= table {
            self.known.resize_with(table + 1, Known::default);
        }
        let known = &mut self.known[table];
        known.rewind();
        while let Some(attribute) = skim.next_attribute()? {
            if !known.has(&attribute) {
                let roomy = self.inner.memory_bytes() < self.inner.columns_until_bytes;
                self.inner.types[table].table.learn(known, &attribute, roomy)?;
            }
            let table = &mut self.inner.types[table].table;
            self.pending.push(table.load_attribute(row, known, &attribute, &mut self.scratch, &mut self.hashes)?);
        }
        self.inner.types[table].table.load_row(row, &self.pending);
        self.pending.clear();
        self.inner.note_scopes(slot, true);
        self.inner.note_place(slot, None);
        if let Some(at) = skim.expires_at() {
            self.inner.expires.insert(slot, at.micros());
        }
        self.inner.due.set(slot, skim.first_end());
        self.stage_hashes(slot);
        Ok(())
    }

    fn stage_hashes(&mut self, slot: u32) {
        let staged = self.inner.staged.as_mut().expect("a load is under way");
        for (hashes, staged) in [(&mut self.hashes.links, &mut staged.links), (&mut self.hashes.words, &mut staged.words)] {
            hashes.sort_unstable();
            hashes.dedup();
            staged.extend(hashes.drain(..).map(|h| joined(h, slot)));
        }
        self.hashes.n_words = 0;
    }
}
