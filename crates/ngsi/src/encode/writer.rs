//! JSON straight into bytes: an answer is written once, without a tree in between.

use entity::{Instant, Iri};
use serde_json::Value;

/// Writes JSON. Objects and arrays are opened and closed by hand; commas come by themselves.
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// The next member or item needs a comma before it.
    comma: bool,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, comma: false }
    }

    fn before(&mut self) {
        if self.comma {
            self.out.push(b',');
        }
        self.comma = true;
    }

    pub(super) fn open(&mut self, bracket: u8) {
        self.before();
        self.out.push(bracket);
        self.comma = false;
    }

    pub(super) fn close(&mut self, bracket: u8) {
        self.out.push(bracket);
        self.comma = true;
    }

    /// The key of the next member.
    pub(super) fn key(&mut self, key: &str) {
        self.before();
        self.quoted(key);
        self.out.push(b':');
        self.comma = false;
    }

    fn quoted(&mut self, text: &str) {
        // Nearly all strings need no escaping; serde_json does the rest.
        if text.bytes().any(|b| b < 0x20 || b == b'"' || b == b'\\') {
            serde_json::to_writer(&mut *self.out, text).expect("a string is written to memory");
        } else {
            self.out.push(b'"');
            self.out.extend_from_slice(text.as_bytes());
            self.out.push(b'"');
        }
    }

    pub(super) fn string(&mut self, text: &str) {
        self.before();
        self.quoted(text);
    }

    pub(super) fn value(&mut self, value: &Value) {
        self.before();
        serde_json::to_writer(&mut *self.out, value).expect("a JSON value is written to memory");
    }

    pub(super) fn instant(&mut self, at: Instant) {
        self.before();
        self.out.push(b'"');
        self.out.extend_from_slice(at.text().as_bytes());
        self.out.push(b'"');
    }

    pub(super) fn number(&mut self, n: usize) {
        use std::io::Write as _;
        self.before();
        write!(self.out, "{n}").expect("a number is written to memory");
    }

    pub(super) fn member(&mut self, key: &str, text: &str) {
        self.key(key);
        self.string(text);
    }

    pub(super) fn instant_member(&mut self, key: &str, at: Instant) {
        self.key(key);
        self.instant(at);
    }

    /// One IRI as a string, several as an array; `text` says how each is written.
    pub(super) fn one_or_many<'t>(&mut self, iris: &'t [Iri], text: impl Fn(&'t Iri) -> std::borrow::Cow<'t, str>) {
        match iris {
            [one] => self.string(&text(one)),
            many => {
                self.open(b'[');
                for iri in many {
                    self.string(&text(iri));
                }
                self.close(b']');
            }
        }
    }
}
