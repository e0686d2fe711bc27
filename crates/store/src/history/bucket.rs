//! How time is cut for aggregates: into buckets of a fixed width, of calendar months, or not at all.

use std::ops::Range;

use entity::Instant;

const DAY_US: i64 = 86_400_000_000;

/// How time is cut. Buckets are half-open, `[start, end)`, and follow each other without gap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bucket {
    /// Not at all: one bucket, which starts where the interval of the question does (at [`Instant::MIN`] if it has none).
    Whole,
    /// Every so many microseconds, one of them starting at `origin`.
    Width {
        /// Its length in µs, at least 1.
        width_us: i64,
        /// Where one of them starts.
        origin: Instant,
    },
    /// Every so many calendar months, one of them starting at `origin`: the same day and time of day so many months later (the last day
    /// of a month that has no such day).
    Months {
        /// How many, at least 1.
        months: u32,
        /// Where one of them starts.
        origin: Instant,
        /// By which local time months are counted: seconds east of UTC.
        offset_s: i32,
    },
}

impl Bucket {
    /// Fixed widths, counted from 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn width(width_us: i64) -> Self {
        Self::Width { width_us, origin: Instant::EPOCH }
    }

    /// Days of a local time, given by its seconds east of UTC.
    #[must_use]
    pub fn day(offset_s: i32) -> Self {
        Self::Width { width_us: DAY_US, origin: local_epoch(offset_s) }
    }

    /// Calendar months of a local time.
    #[must_use]
    pub fn month(offset_s: i32) -> Self {
        Self::Months { months: 1, origin: local_epoch(offset_s), offset_s }
    }

    /// Calendar years of a local time.
    #[must_use]
    pub fn year(offset_s: i32) -> Self {
        Self::Months { months: 12, origin: local_epoch(offset_s), offset_s }
    }

    /// The bucket that `at_us` is in, in µs since 1970; `interval` is the question's.
    ///
    /// # Panics
    /// If the bucket is one of zero length, which every question with it is refused for.
    #[must_use]
    pub fn of(self, at_us: i64, interval: Option<&Range<Instant>>) -> Range<i64> {
        match self {
            Self::Whole => {
                let (start, end) = interval.map_or((Instant::MIN, Instant::MAX), |i| (i.start, i.end));
                // The last instant that can be written is in it, too.
                start.micros()..end.micros().saturating_add(i64::from(end == Instant::MAX))
            }
            Self::Width { width_us, origin } => {
                let start = at_us - (at_us - origin.micros()).rem_euclid(width_us);
                start..start.saturating_add(width_us)
            }
            Self::Months { months, origin, offset_s } => {
                let offset_us = i64::from(offset_s) * 1_000_000;
                let (local, origin) = (at_us + offset_us, Local::of(origin.micros() + offset_us));
                let now = Local::of(local);
                let step = i64::from(months);
                // Within one step of the truth, whatever the days are.
                let mut n = (now.month - origin.month).div_euclid(step);
                if origin.plus_months(n * step) > local {
                    n -= 1;
                }
                origin.plus_months(n * step) - offset_us..origin.plus_months((n + 1) * step) - offset_us
            }
        }
    }

    /// Is each of its buckets a whole number of the `width_us` long ones that are counted from 1970 in UTC? Only then can it be put
    /// together from those.
    pub(super) const fn is_made_of(self, width_us: i64) -> bool {
        match self {
            Self::Whole => true,
            Self::Width { width_us: mine, origin } => mine % width_us == 0 && origin.micros().rem_euclid(width_us) == 0,
            // Months begin at the time of day of the origin.
            Self::Months { origin, .. } => DAY_US % width_us == 0 && origin.micros().rem_euclid(width_us) == 0,
        }
    }

    /// What is wrong with it, in words; none if nothing.
    pub(super) fn fault(self) -> Option<String> {
        match self {
            Self::Width { width_us, .. } if width_us < 1 => Some(format!("a bucket of {width_us} µs is not possible; at least 1 µs is")),
            Self::Months { months: 0, .. } => Some("a bucket of 0 months is not possible; at least 1 is".to_owned()),
            Self::Months { months, .. } if months > MONTHS_MAX => {
                Some(format!("a bucket of {months} months is longer than the limit of {MONTHS_MAX}"))
            }
            Self::Months { offset_s, .. } if offset_s.abs() > OFFSET_S_MAX => {
                Some(format!("an offset of {offset_s} s from UTC is not possible; at most {OFFSET_S_MAX} is"))
            }
            _ => None,
        }
    }
}

/// The longest bucket in months: ten thousand years.
const MONTHS_MAX: u32 = 120_000;
/// Local times are less than a day from UTC.
const OFFSET_S_MAX: i32 = 86_399;

fn local_epoch(offset_s: i32) -> Instant {
    Instant::from_secs(-i64::from(offset_s))
}

/// A local date and time: months since year 0, day of the month from 1, µs since midnight.
#[derive(Clone, Copy)]
struct Local {
    month: i64,
    day: i64,
    time_us: i64,
}

impl Local {
    fn of(local_us: i64) -> Self {
        let (days, time_us) = (local_us.div_euclid(DAY_US), local_us.rem_euclid(DAY_US));
        // Years that begin in March have their leap day last, so that a month's first day is a linear function of its number.
        let days = days + DAYS_FROM_0000_03_01_TO_EPOCH;
        let (cycle, day_of_cycle) = (days.div_euclid(DAYS_PER_400_YEARS), days.rem_euclid(DAYS_PER_400_YEARS));
        let year_of_cycle = (day_of_cycle - day_of_cycle / 1_460 + day_of_cycle / 36_524 - day_of_cycle / (DAYS_PER_400_YEARS - 1)) / 365;
        let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        Self { month: (cycle * 400 + year_of_cycle) * 12 + month_from_march + 2, day, time_us }
    }

    /// So many months later, as local µs since 1970.
    fn plus_months(self, n: i64) -> i64 {
        let month = self.month + n;
        let day = self.day.min(days_in(month));
        (first_day_of(month) + day - 1) * DAY_US + self.time_us
    }
}

const DAYS_PER_400_YEARS: i64 = 146_097;
const DAYS_FROM_0000_03_01_TO_EPOCH: i64 = 719_468;

/// Days from 1970-01-01 to the first day of a month, counted from January of year 0.
const fn first_day_of(month: i64) -> i64 {
    let from_march = month - 2;
    let (year, month_from_march) = (from_march.div_euclid(12), from_march.rem_euclid(12));
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + (153 * month_from_march + 2) / 5 - DAYS_FROM_0000_03_01_TO_EPOCH
}

const fn days_in(month: i64) -> i64 {
    first_day_of(month + 1) - first_day_of(month)
}

/// The first instant of the month, in UTC, that is `n` months after the one of `at`.
pub(super) fn month_start(at: Instant, n: i64) -> Instant {
    Instant::from_micros(first_day_of(Local::of(at.micros()).month + n).saturating_mul(DAY_US))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn us(text: &str) -> i64 {
        text.parse::<Instant>().unwrap().micros()
    }

    #[test]
    fn a_moment_is_in_the_bucket_that_the_calendar_says() {
        let china = 8 * 3_600;
        let quarter = Bucket::Width { width_us: 900_000_000, origin: "2024-01-01T00:05:00Z".parse().unwrap() };
        check(quarter, "2024-01-01T00:19:59.999999Z", "2024-01-01T00:05:00Z", "2024-01-01T00:20:00Z");
        check(quarter, "2023-12-31T23:59:00Z", "2023-12-31T23:50:00Z", "2024-01-01T00:05:00Z");
        check(Bucket::day(0), "1969-12-31T23:00:00Z", "1969-12-31T00:00:00Z", "1970-01-01T00:00:00Z");
        check(Bucket::day(china), "2024-02-29T16:00:00Z", "2024-02-29T16:00:00Z", "2024-03-01T16:00:00Z");
        check(Bucket::month(0), "2024-02-29T23:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z");
        check(Bucket::month(china), "2024-02-29T16:00:00Z", "2024-02-29T16:00:00Z", "2024-03-31T16:00:00Z");
        check(Bucket::year(0), "1900-03-01T00:00:00Z", "1900-01-01T00:00:00Z", "1901-01-01T00:00:00Z");
        check(Bucket::year(china), "2000-12-31T15:59:59Z", "1999-12-31T16:00:00Z", "2000-12-31T16:00:00Z");
        let from_the_31st = Bucket::Months { months: 1, origin: "2023-12-31T12:00:00Z".parse().unwrap(), offset_s: 0 };
        check(from_the_31st, "2024-02-29T11:00:00Z", "2024-01-31T12:00:00Z", "2024-02-29T12:00:00Z");
        check(from_the_31st, "2024-02-29T12:00:00Z", "2024-02-29T12:00:00Z", "2024-03-31T12:00:00Z");

        #[track_caller]
        fn check(bucket: Bucket, at: &str, start: &str, end: &str) {
            assert_eq!(bucket.of(us(at), None), us(start)..us(end), "{bucket:?} at {at}");
        }
    }

    #[test]
    fn coarse_buckets_are_made_of_fine_ones_only_if_their_edges_meet() {
        let hour = 3_600_000_000;
        assert!(Bucket::width(hour).is_made_of(hour) && Bucket::width(24 * hour).is_made_of(hour) && Bucket::Whole.is_made_of(hour));
        assert!(!Bucket::width(hour / 2).is_made_of(hour) && !Bucket::width(hour + 1).is_made_of(hour));
        assert!(!Bucket::Width { width_us: hour, origin: Instant::from_secs(60) }.is_made_of(hour));
        assert!(Bucket::month(8 * 3_600).is_made_of(hour) && !Bucket::month(5 * 3_600 + 1_800).is_made_of(hour));
        assert!(Bucket::month(0).is_made_of(24 * hour) && !Bucket::month(8 * 3_600).is_made_of(24 * hour));
    }

    proptest! {
        #[test]
        fn buckets_follow_each_other_without_gap(
            at in Instant::MIN.micros() / 2..Instant::MAX.micros() / 2,
            origin in 0_i64..4_000_000_000,
            months in 1_u32..30,
            offset_s in -50_000_i32..50_000,
        ) {
            let origin = Instant::from_secs(origin);
            for bucket in [Bucket::Months { months, origin, offset_s }, Bucket::Width { width_us: i64::from(months) * 1_000_003, origin }, Bucket::month(offset_s)] {
                let range = bucket.of(at, None);
                prop_assert!(range.contains(&at), "{bucket:?} {range:?}");
                prop_assert_eq!(bucket.of(range.start, None), range.clone());
                prop_assert_eq!(bucket.of(range.end - 1, None), range.clone());
                prop_assert_eq!(bucket.of(range.end, None).start, range.end);
            }
        }

        #[test]
        fn the_calendar_is_the_one_that_dates_are_written_in(at in Instant::MIN.micros()..Instant::MAX.micros()) {
            let start = Instant::from_micros(Bucket::month(0).of(at, None).start);
            let (written, at) = (start.to_string(), Instant::from_micros(at).to_string());
            prop_assert_eq!(&written[..8], &at[..8]);
            prop_assert_eq!(&written[8..], "01T00:00:00Z");
        }
    }
}
