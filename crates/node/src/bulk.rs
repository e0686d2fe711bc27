//! Bulk import: observations by the ten thousand, and jobs that know how far they have come.
//!
//! A **job** is one import of one source, named by whoever runs it. It remembers how many rows of the source are durable, in the node's own space,
//! so that an import that was interrupted (by the network, by Ctrl-C, by a power cut) goes on where it was. A crash may forget the last note
//! of it but never the rows: rows that come twice say the same thing about the same moment and change nothing.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use entity::{Attribute, AttributeValue, Command, Entity, Instant, Iri};
use host::Stopwatch;
use policy::{Action, Principal};
use serde::{Deserialize, Serialize};
use store::state::Space;
use store::{RecordBatch, TakenRows};
use tokio::sync::oneshot;

use crate::error::NodeError;
use crate::metrics::Sort;
use crate::node::Node;

/// Jobs that a node remembers; beyond them the one that has been finished longest is forgotten.
pub const BULK_JOBS_MAX: usize = 1_000;
/// Characters of a job's name.
const JOB_NAME_CHARS_MAX: usize = 100;
const JOB_TYPE: &str = "https://conurb.org/ns#BulkJob";
const DOCUMENT: &str = "https://conurb.org/ns#document";
const JOB_ID_PREFIX: &str = "urn:conurb:bulk-job:";

/// How a job stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BulkState {
    /// More is expected.
    Open,
    /// The source is in, whole.
    Done,
}

/// One import.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BulkJob {
    /// Its name, chosen by whoever runs it.
    pub job: String,
    /// Type of the entities.
    #[serde(rename = "type")]
    pub entity_type: Iri,
    /// Rows of the source that are durable: the first row that is missing, counted from 0.
    pub rows: u64,
    /// How it stands.
    pub state: BulkState,
    /// When it began, microseconds since 1970.
    pub started_us: i64,
    /// When it was last heard of, microseconds since 1970.
    pub updated_us: i64,
}

/// Jobs that a request is working on.
#[derive(Default)]
pub(crate) struct ActiveJobs(Mutex<HashSet<String>>);

/// The right to work on a job; it ends with this value.
pub struct BulkLease<'a> {
    active: &'a ActiveJobs,
    /// The job as it stood when the lease began.
    pub job: BulkJob,
}

impl Drop for BulkLease<'_> {
    fn drop(&mut self) {
        self.active.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.job.job);
    }
}

impl Node {
    /// Takes in observations of entities of one type: columns `entity_id`, `observed_at`, then attributes by IRI. In line for the log when this
    /// returns, in the order of the calls, and durable when the future is.
    ///
    /// Errors: the policy's, or what [`store::Store::submit_rows`] says of the batch.
    pub fn observe_rows(
        &self,
        who: &Principal,
        entity_type: &Iri,
        batch: RecordBatch,
    ) -> Result<impl Future<Output = Result<TakenRows, NodeError>> + Send + use<>, NodeError> {
        self.may_import(who, entity_type)?;
        let stopwatch = Stopwatch::start();
        let metrics = std::sync::Arc::clone(self.metrics());
        let (sender, receiver) = oneshot::channel();
        let submitted = self.store.submit_rows(entity_type.clone(), batch, move |answer| {
            // The asker may have gone; the rows are in all the same.
            let _ = sender.send(answer);
        });
        if let Err(e) = submitted {
            metrics.writes_refused.get_or_create(&Sort::of("bulk")).inc();
            return Err(e.into());
        }
        Ok(async move {
            let answer = receiver.await.unwrap_or(Err(store::SubmitRowsError::Submit(store::SubmitError::Closed)));
            metrics.commit_seconds.observe(stopwatch.elapsed().as_secs_f64());
            answer.map_err(|e| {
                metrics.writes_refused.get_or_create(&Sort::of("bulk")).inc();
                NodeError::Rows(e)
            })
        })
    }

    /// May this principal import entities of this type?
    pub fn may_import(&self, who: &Principal, entity_type: &Iri) -> Result<(), NodeError> {
        self.permit(who, Action::Write, None)?;
        if entity_type.as_str() == policy::term::AGREEMENT {
            return Err(NodeError::Denied { reason: "agreements are made one by one, not in bulk".to_owned() });
        }
        Ok(())
    }

    /// Begins or goes on with a job, so that nobody else works on it meanwhile. The rows that follow begin with row `from_row` of the source.
    ///
    /// Errors: a name that is none; another type than the job began with; rows between the job's and `from_row` would be missing; another
    /// request is working on it.
    pub async fn lease_bulk_job(&self, who: &Principal, name: &str, entity_type: &Iri, from_row: u64) -> Result<BulkLease<'_>, NodeError> {
        self.may_import(who, entity_type)?;
        check_name(name)?;
        if !self.active_jobs.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned()) {
            return Err(NodeError::Busy { what: format!("another request is working on job `{name}`; try again when it has ended") });
        }
        let now_us = self.now().micros();
        let fresh = BulkJob {
            job: name.to_owned(),
            entity_type: entity_type.clone(),
            rows: 0,
            state: BulkState::Open,
            started_us: now_us,
            updated_us: now_us,
        };
        // From here on the lease gives the name back, whatever happens.
        let mut lease = BulkLease { active: &self.active_jobs, job: fresh };
        match self.stored_job(name) {
            Some(job) if job.entity_type != *entity_type => {
                let what = format!("job `{name}` imports entities of type `{}`, not of `{entity_type}`", job.entity_type);
                return Err(NodeError::Invalid { what });
            }
            Some(job) => lease.job = job,
            None => {
                self.forget_old_jobs().await?;
                self.store_job(&lease.job).await?;
            }
        }
        if from_row > lease.job.rows {
            let what = format!("job `{name}` has {} rows; rows from {from_row} on would leave a gap", lease.job.rows);
            return Err(NodeError::Gap { what, rows: lease.job.rows });
        }
        Ok(lease)
    }

    /// Notes how far a job has come; durable when this returns.
    pub async fn note_bulk_progress(&self, lease: &mut BulkLease<'_>, rows: u64, state: BulkState) -> Result<(), NodeError> {
        lease.job.rows = lease.job.rows.max(rows);
        lease.job.state = state;
        lease.job.updated_us = self.now().micros();
        self.store_job(&lease.job).await
    }

    /// How a job stands.
    pub fn bulk_job(&self, who: &Principal, name: &str) -> Result<BulkJob, NodeError> {
        self.permit(who, Action::Read, None)?;
        self.stored_job(name).ok_or_else(|| NodeError::NoJob { name: name.chars().take(JOB_NAME_CHARS_MAX).collect() })
    }

    /// All jobs that the node remembers, the newest first.
    pub fn bulk_jobs(&self, who: &Principal) -> Result<Vec<BulkJob>, NodeError> {
        self.permit(who, Action::Read, None)?;
        let mut jobs = self.stored_jobs();
        jobs.sort_by_key(|j| std::cmp::Reverse((j.updated_us, j.job.clone())));
        Ok(jobs)
    }

    fn stored_job(&self, name: &str) -> Option<BulkJob> {
        let stored = self.store.table(Space::Node).get(&format!("{JOB_ID_PREFIX}{name}"))?;
        document_of(&stored)
    }

    fn stored_jobs(&self) -> Vec<BulkJob> {
        self.store.table(Space::Node).of_type(&Iri::known(JOB_TYPE)).iter().filter_map(|e| document_of(e)).collect()
    }

    async fn store_job(&self, job: &BulkJob) -> Result<(), NodeError> {
        let document = serde_json::to_value(job).expect("a job is JSON");
        let stored =
            Entity::new(job_id(&job.job), Iri::known(JOB_TYPE)).with(Iri::known(DOCUMENT), Attribute::new(AttributeValue::Json(document)));
        self.submit(Space::Node, vec![Command::UpsertReplace(stored)])?.await?;
        Ok(())
    }

    /// Makes room for one more job.
    async fn forget_old_jobs(&self) -> Result<(), NodeError> {
        let mut jobs = self.stored_jobs();
        if jobs.len() < BULK_JOBS_MAX {
            return Ok(());
        }
        jobs.retain(|j| j.state == BulkState::Done);
        let oldest = jobs.into_iter().min_by_key(|j| j.updated_us).ok_or_else(|| NodeError::Limit {
            what: format!("there are {BULK_JOBS_MAX} imports that are not finished, which is the limit"),
        })?;
        self.submit(Space::Node, vec![Command::Delete(job_id(&oldest.job))])?.await?;
        Ok(())
    }
}

fn job_id(name: &str) -> Iri {
    Iri::known(&format!("{JOB_ID_PREFIX}{name}"))
}

fn document_of(stored: &Entity) -> Option<BulkJob> {
    match &stored.attribute(DOCUMENT)?.value {
        AttributeValue::Json(document) => serde_json::from_value(document.clone()).ok(),
        _ => None,
    }
}

fn check_name(name: &str) -> Result<(), NodeError> {
    let fits = !name.is_empty()
        && name.chars().count() <= JOB_NAME_CHARS_MAX
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':'));
    if fits {
        return Ok(());
    }
    let found: String = name.chars().take(JOB_NAME_CHARS_MAX).collect();
    let what = format!("`{found}` cannot name a job: expected 1 to {JOB_NAME_CHARS_MAX} letters, digits, `-`, `_`, `.` or `:`");
    Err(NodeError::Invalid { what })
}

impl BulkJob {
    /// When it began.
    #[must_use]
    pub fn started_at(&self) -> Instant {
        Instant::from_micros(self.started_us)
    }

    /// When it was last heard of.
    #[must_use]
    pub fn updated_at(&self) -> Instant {
        Instant::from_micros(self.updated_us)
    }
}
