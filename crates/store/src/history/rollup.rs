//! What is kept besides the values: their aggregates, and for how long both stay.
//!
//! A **roll-up** is a file with the aggregates of one type: a row per entity and bucket of 5 minutes, an hour or a day, of whole UTC days that
//! are over. It knows until which recorded time it knows everything; what is learned later about one of its days makes it stale for that
//! entity and day, and the raw values are asked there until it is built anew. So an answer from roll-ups is the answer of the raw values.
//!
//! **Retention** removes raw values, and later roll-ups, by age. Raw values of a day are removed only after everything that the policy wants
//! to keep of that day is rolled up. A roll-up of removed values is final: what is learned about such a day later is not in it.

use entity::{Instant, Iri};
use serde::{Deserialize, Serialize};

use super::HistoryError;

pub(super) const DAY_US: i64 = 86_400_000_000;

/// Rules of a policy.
pub const RULES_MAX: usize = 1_000;

/// The width of a roll-up's buckets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum RollupWidth {
    /// Five minutes.
    #[serde(rename = "5m")]
    FiveMinutes,
    /// An hour.
    #[serde(rename = "1h")]
    Hour,
    /// A day, in UTC.
    #[serde(rename = "1d")]
    Day,
}

impl RollupWidth {
    /// From the widest on.
    pub const ALL: [Self; 3] = [Self::Day, Self::Hour, Self::FiveMinutes];

    /// In µs; a day is a multiple of each.
    #[must_use]
    pub const fn micros(self) -> i64 {
        match self {
            Self::FiveMinutes => 300_000_000,
            Self::Hour => 3_600_000_000,
            Self::Day => DAY_US,
        }
    }
}

/// Which roll-ups are kept of some attributes. Of each attribute the first rule that names it counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RollupRule {
    /// Of this type; none for every type.
    pub entity_type: Option<Iri>,
    /// Of these attributes; none for every one.
    pub attributes: Option<Vec<Iri>>,
    /// Which; empty for none.
    pub widths: Vec<RollupWidth>,
}

/// How long values are kept. Of each type the first rule that names it (and no attributes) counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RetentionRule {
    /// Of this type; none for every type.
    pub entity_type: Option<Iri>,
    /// Only these attributes; their values leave a file when all of it is old enough. None for whole rows.
    pub attributes: Option<Vec<Iri>>,
    /// Days for which the values are kept, by observed time (recorded time where there is none); none for ever.
    pub raw_days: Option<u32>,
    /// Days for which roll-ups are kept; none for ever.
    pub rollup_days: Option<u32>,
}

/// What a node keeps of the past.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistoryPolicy {
    /// Which roll-ups there are, where a rule says so.
    pub rollups: Vec<RollupRule>,
    /// Attributes that no rule names have roll-ups of an hour and a day if their type has at least so many rows.
    pub rollup_rows_min: u64,
    /// How long after its end a day is rolled up: late values are usually there by then.
    pub rollup_after_hours: u32,
    /// How long values are kept; for ever if no rule says otherwise.
    pub retention: Vec<RetentionRule>,
}

impl Default for HistoryPolicy {
    /// Hours and days of every type with 100,000 rows, two hours after the end of each day; everything is kept for ever.
    fn default() -> Self {
        Self { rollups: Vec::new(), rollup_rows_min: 100_000, rollup_after_hours: 2, retention: Vec::new() }
    }
}

impl HistoryPolicy {
    /// Errors: [`HistoryError::Refused`] naming the first rule that makes no sense.
    pub fn check(&self) -> Result<(), HistoryError> {
        let refused = |what: String| Err(HistoryError::Refused { what });
        if self.rollups.len() > RULES_MAX || self.retention.len() > RULES_MAX {
            return refused(format!("a history has at most {RULES_MAX} rules for roll-ups and as many for retention"));
        }
        if self.rollup_after_hours > 24 * 366 {
            return refused(format!(
                "a roll-up {} hours after the end of its day is too late; at most a year is possible",
                self.rollup_after_hours
            ));
        }
        for (i, rule) in self.rollups.iter().enumerate() {
            if rule.attributes.as_ref().is_some_and(Vec::is_empty) {
                return refused(format!("rule {} for roll-ups names no attribute; leave the list out for all of them", i + 1));
            }
        }
        for (i, rule) in self.retention.iter().enumerate() {
            let n = i + 1;
            match (rule.raw_days, rule.rollup_days) {
                (None, None) => return refused(format!("retention rule {n} says neither raw_days nor rollup_days")),
                (Some(0), _) | (_, Some(0)) => return refused(format!("retention rule {n}: at least 1 day is kept")),
                (Some(raw), Some(rollup)) if rollup < raw => {
                    return refused(format!(
                        "retention rule {n} keeps roll-ups for {rollup} days, which is less than the {raw} days of the values"
                    ));
                }
                _ => {}
            }
            if rule.attributes.as_ref().is_some_and(Vec::is_empty) {
                return refused(format!("retention rule {n} names no attribute; leave the list out for all of them"));
            }
            if rule.attributes.is_some() && (rule.raw_days.is_none() || rule.rollup_days.is_some()) {
                return refused(format!("retention rule {n} is about attributes: only raw_days is possible there"));
            }
        }
        Ok(())
    }

    /// Which widths are kept of an attribute of a type with so many rows.
    pub(super) fn widths(&self, entity_type: &Iri, attribute: &Iri, n_rows: u64) -> &[RollupWidth] {
        let applies = |rule: &&RollupRule| {
            rule.entity_type.as_ref().is_none_or(|t| t == entity_type)
                && rule.attributes.as_ref().is_none_or(|list| list.contains(attribute))
        };
        match self.rollups.iter().find(applies) {
            Some(rule) => &rule.widths,
            None if n_rows >= self.rollup_rows_min => &[RollupWidth::Hour, RollupWidth::Day],
            None => &[],
        }
    }

    /// The rule for whole rows of a type.
    pub(super) fn retention_of(&self, entity_type: &Iri) -> Option<&RetentionRule> {
        self.retention.iter().find(|r| r.attributes.is_none() && r.entity_type.as_ref().is_none_or(|t| t == entity_type))
    }

    /// Attributes of a type that have a time of their own, with their days.
    pub(super) fn attribute_days(&self, entity_type: &Iri) -> Vec<(&Iri, u32)> {
        let rules = self.retention.iter().filter(|r| r.entity_type.as_ref().is_none_or(|t| t == entity_type));
        let mut days: Vec<(&Iri, u32)> = Vec::new();
        for rule in rules {
            for name in rule.attributes.iter().flatten() {
                if let Some(raw_days) = rule.raw_days
                    && days.iter().all(|(known, _)| *known != name)
                {
                    days.push((name, raw_days));
                }
            }
        }
        days
    }
}

/// What the manifest says of a file with aggregates.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rollup {
    /// Width of its buckets.
    pub width: RollupWidth,
    /// The days it covers, counted from 1970-01-01: from, and up to but not including.
    pub days: (i64, i64),
    /// The attributes it has.
    pub attributes: Vec<Iri>,
    /// It says how many rows each bucket has, of whatever attributes; those of earlier versions do not, and are built anew in time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub counts_rows: bool,
    /// Everything recorded until then about these days and attributes is in it.
    pub recorded_to: Instant,
    /// Entities and days of which something was learned later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stale: Vec<(Iri, Vec<i64>)>,
    /// So much was learned later that none of it can be used.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_stale: bool,
    /// So much was erased that nothing of it may be used again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_erased: bool,
    /// The values of the days before this one were removed: what it says of them stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_to: Option<i64>,
}

/// What a pass of [`History::maintain`](super::History::maintain) did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Maintained {
    /// Files of roll-ups written.
    pub n_rollups_built: usize,
    /// Files of values removed or written anew by retention.
    pub n_files_rewritten: usize,
    /// Rows of values removed by retention.
    pub n_rows_dropped: u64,
    /// Files of roll-ups removed by retention.
    pub n_rollups_dropped: usize,
    /// There is more to do than one pass does.
    pub more: bool,
}

impl Maintained {
    /// Is there anything that the manifest does not say yet?
    #[must_use]
    pub const fn changed(&self) -> bool {
        self.n_rollups_built > 0 || self.n_files_rewritten > 0 || self.n_rollups_dropped > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iri(short: &str) -> Iri {
        Iri::known(&format!("https://example.org/{short}"))
    }

    #[test]
    fn the_first_rule_that_names_an_attribute_says_its_roll_ups() {
        let policy = HistoryPolicy {
            rollups: vec![
                RollupRule { entity_type: Some(iri("Station")), attributes: Some(vec![iri("t")]), widths: vec![RollupWidth::FiveMinutes] },
                RollupRule { entity_type: Some(iri("Meter")), attributes: None, widths: Vec::new() },
            ],
            ..HistoryPolicy::default()
        };
        assert_eq!(policy.widths(&iri("Station"), &iri("t"), 0), [RollupWidth::FiveMinutes]);
        assert_eq!(policy.widths(&iri("Station"), &iri("u"), 100_000), [RollupWidth::Hour, RollupWidth::Day]);
        assert!(policy.widths(&iri("Station"), &iri("u"), 99_999).is_empty());
        assert!(policy.widths(&iri("Meter"), &iri("t"), u64::MAX).is_empty());
    }

    #[test]
    fn a_policy_that_makes_no_sense_is_refused() {
        let rule = RetentionRule { entity_type: None, attributes: None, raw_days: Some(30), rollup_days: None };
        check(&rule, None);
        check(&RetentionRule { rollup_days: Some(29), ..rule.clone() }, Some("29 days, which is less than the 30 days"));
        check(&RetentionRule { raw_days: Some(0), ..rule.clone() }, Some("at least 1 day"));
        check(&RetentionRule { raw_days: None, ..rule.clone() }, Some("rule 1 says neither"));
        check(&RetentionRule { attributes: Some(Vec::new()), ..rule.clone() }, Some("names no attribute"));
        check(&RetentionRule { attributes: Some(vec![iri("t")]), rollup_days: Some(60), ..rule }, Some("only raw_days"));

        #[track_caller]
        fn check(rule: &RetentionRule, want: Option<&str>) {
            let result = HistoryPolicy { retention: vec![rule.clone()], ..HistoryPolicy::default() }.check();
            match want {
                None => result.unwrap(),
                Some(text) => assert!(result.as_ref().unwrap_err().to_string().contains(text), "{result:?}"),
            }
        }
    }
}
