//! Problems and the results of operations that partly fail (ETSI GS CIM 009 V1.9.1, clauses 5.2.16 to 5.2.19 and 5.5.3).

use entity::Iri;

use super::writer::Writer;
use crate::error::Error;

/// Namespace of the problem types (clause 5.5.2).
const ERRORS_NS: &str = "https://uri.etsi.org/ngsi-ld/errors/";

/// What went wrong, as the answer tells it. Names in it are full IRIs (clause 6.3.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem<'a> {
    /// The problem type without its namespace: `ResourceNotFound`, `AlreadyExists`, ...
    pub name: &'a str,
    /// A short text, the same for all problems of the type.
    pub title: &'a str,
    /// This very problem.
    pub detail: String,
    /// The status of the answer; the edge knows it.
    pub status: Option<u16>,
}

impl Problem<'_> {
    /// The problem that an error of this crate is.
    #[must_use]
    pub fn of(error: &Error, status: Option<u16>) -> Self {
        Self { name: error.kind.name(), title: error.kind.title(), detail: error.to_string(), status }
    }
}

/// A problem as a document of its own.
#[must_use]
pub fn problem(p: &Problem<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write_problem(&mut Writer::new(&mut out), p);
    out
}

fn write_problem(w: &mut Writer<'_>, p: &Problem<'_>) {
    w.open(b'{');
    w.member("type", &format!("{ERRORS_NS}{}", p.name));
    w.member("title", p.title);
    w.member("detail", &p.detail);
    if let Some(status) = p.status {
        w.key("status");
        w.number(usize::from(status));
    }
    w.close(b'}');
}

/// An item of a batch that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchError<'a> {
    /// The entity; none if its id could not be read.
    pub entity_id: Option<Iri>,
    /// What went wrong.
    pub problem: Problem<'a>,
}

/// `BatchOperationResult`.
#[must_use]
pub fn batch_result(success: &[Iri], errors: &[BatchError<'_>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let mut w = Writer::new(&mut out);
    w.open(b'{');
    w.key("success");
    w.open(b'[');
    for id in success {
        w.string(id.as_str());
    }
    w.close(b']');
    w.key("errors");
    w.open(b'[');
    for e in errors {
        w.open(b'{');
        if let Some(id) = &e.entity_id {
            w.member("entityId", id.as_str());
        }
        w.key("error");
        write_problem(&mut w, &e.problem);
        w.close(b'}');
    }
    w.close(b']');
    w.close(b'}');
    out
}

/// `UpdateResult`: names written, and names left each with the reason; full IRIs, as the standard wants in bodies of status 207.
#[must_use]
pub fn update_result(updated: &[Iri], left: &[(Iri, String)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let mut w = Writer::new(&mut out);
    w.open(b'{');
    w.key("updated");
    w.open(b'[');
    for name in updated {
        w.string(name.as_str());
    }
    w.close(b']');
    w.key("notUpdated");
    w.open(b'[');
    for (name, reason) in left {
        w.open(b'{');
        w.member("attributeName", name.as_str());
        w.member("reason", reason);
        w.close(b'}');
    }
    w.close(b']');
    w.close(b'}');
    out
}
