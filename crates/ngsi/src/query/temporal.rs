//! Temporal queries (ETSI GS CIM 009 V1.9.1, clause 4.11).

use std::ops::Range;

use entity::Instant;

use super::Aggregation;
use crate::error::{Error, Result, shown};

/// The most instances per attribute that `lastN` may ask for.
pub const LAST_N_MAX: usize = 100_000;

/// Which time an interval speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeProperty {
    /// Valid time; values without it never match.
    #[default]
    ObservedAt,
    /// When the instance was first recorded.
    CreatedAt,
    /// When the instance was recorded.
    ModifiedAt,
    /// When the attribute or the entity was removed; only markers of removals have it.
    DeletedAt,
}

impl TimeProperty {
    /// The name of the member.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ObservedAt => "observedAt",
            Self::CreatedAt => "createdAt",
            Self::ModifiedAt => "modifiedAt",
            Self::DeletedAt => "deletedAt",
        }
    }
}

/// A question about time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TemporalParams {
    /// `[start, end)`; none for all time.
    pub interval: Option<Range<Instant>>,
    /// Which time the interval speaks of.
    pub time_property: TimeProperty,
    /// Only the newest so many instances of each attribute, newest first.
    pub last_n: Option<usize>,
    /// The answer is aggregated over periods (`aggregatedValues`).
    pub aggregation: Option<Aggregation>,
}

/// The members of a temporal query as text.
#[derive(Debug, Clone, Default)]
pub(super) struct TemporalText {
    pub(super) timerel: Option<String>,
    pub(super) time_at: Option<String>,
    pub(super) end_time_at: Option<String>,
    pub(super) timeproperty: Option<String>,
    pub(super) last_n: Option<String>,
}

impl TemporalText {
    pub(super) fn params(&self) -> Result<TemporalParams> {
        let instant = |name: &str, text: &Option<String>| -> Result<Option<Instant>> {
            text.as_ref().map(|t| t.parse().map_err(|e: entity::InstantError| Error::bad(e.to_string()).within(name))).transpose()
        };
        let (time_at, end_time_at) = (instant("timeAt", &self.time_at)?, instant("endTimeAt", &self.end_time_at)?);
        let needs = |what: &str| Error::bad(format!("a temporal query needs {what}")).within("timerel");
        let only_between = || Error::bad("`endTimeAt` goes with timerel `between` only").within("endTimeAt");
        let interval = match (self.timerel.as_deref(), time_at, end_time_at) {
            (None, None, None) => None,
            (None, ..) => return Err(needs("`timerel` beside `timeAt`")),
            (Some("before" | "after"), _, Some(_)) => return Err(only_between()),
            (Some("before"), Some(at), None) => Some(Instant::MIN..at),
            (Some("after"), Some(at), None) => Some(at..Instant::MAX),
            (Some("between"), Some(at), Some(end)) if at < end => Some(at..end),
            (Some("between"), Some(at), Some(end)) => {
                return Err(Error::bad(format!("`{end}` is not after timeAt, `{at}`")).within("endTimeAt"));
            }
            (Some("between"), Some(_), None) => return Err(needs("`endTimeAt` with timerel `between`")),
            (Some("before" | "after" | "between"), None, _) => return Err(needs("`timeAt` beside `timerel`")),
            (Some(other), ..) => {
                return Err(Error::bad(format!("`{}` is not a temporal relation (expected before, after or between)", shown(other)))
                    .within("timerel"));
            }
        };
        Ok(TemporalParams { interval, time_property: self.time_property()?, last_n: self.last_n()?, aggregation: None })
    }

    fn time_property(&self) -> Result<TimeProperty> {
        match self.timeproperty.as_deref() {
            None | Some("observedAt") => Ok(TimeProperty::ObservedAt),
            Some("createdAt") => Ok(TimeProperty::CreatedAt),
            Some("modifiedAt") => Ok(TimeProperty::ModifiedAt),
            Some("deletedAt") => Ok(TimeProperty::DeletedAt),
            Some(other) => Err(Error::bad(format!(
                "`{}` is not a time property (expected observedAt, createdAt, modifiedAt or deletedAt)",
                shown(other)
            ))
            .within("timeproperty")),
        }
    }

    fn last_n(&self) -> Result<Option<usize>> {
        let Some(text) = &self.last_n else { return Ok(None) };
        match text.parse::<usize>() {
            Ok(n) if (1..=LAST_N_MAX).contains(&n) => Ok(Some(n)),
            _ => Err(Error::bad(format!("expected a number from 1 to {LAST_N_MAX}, found `{}`", shown(text))).within("lastN")),
        }
    }
}
