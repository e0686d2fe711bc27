//! `time_bucket`: the start of the interval that a time lies in.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{ScalarValue, exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use entity::Instant;
use store::history::Bucket as Cut;

const DAY_US: i64 = 86_400_000_000;
/// Where buckets start when no origin is given, as in TimescaleDB: 2000-01-03, a Monday, so that weeks begin on Mondays.
const ORIGIN_US: i64 = 946_857_600_000_000;
/// The month that buckets of months start from: January 2000, counted from January of the year 0.
const ORIGIN_MONTH: i64 = 2_000 * 12;

/// How wide a bucket is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Debug)]
enum Width {
    Micros(i64),
    /// Calendar months in UTC.
    Months(i64),
}

/// A way to cut time into buckets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Debug)]
pub(crate) struct Bucket {
    width: Width,
    /// A time at which a bucket starts, or its month.
    origin: i64,
    /// Added to every start, in microseconds.
    offset_us: i64,
}

impl Bucket {
    /// Buckets of this width.
    pub(crate) fn new(width: IntervalMonthDayNano) -> Result<Self> {
        let micros = micros_of(width);
        match (width.months, micros) {
            (0, Some(us)) if us > 0 => Ok(Self { width: Width::Micros(us), origin: ORIGIN_US, offset_us: 0 }),
            (months, Some(0)) if months > 0 => Ok(Self { width: Width::Months(months.into()), origin: ORIGIN_MONTH, offset_us: 0 }),
            (months, Some(us)) if months != 0 && us != 0 => {
                exec_err!("a bucket is as wide as a number of months, or as a length of time; not both")
            }
            _ => exec_err!("a bucket has to be at least a microsecond wide"),
        }
    }

    /// The same with a bucket starting at this time.
    fn with_origin(self, origin_us: i64) -> Result<Self> {
        let origin = match self.width {
            Width::Micros(_) => origin_us,
            Width::Months(_) => {
                let month = month_of(origin_us);
                if start_of_month(month) != Some(origin_us) {
                    return exec_err!("the origin of buckets of months has to be the first of a month, at midnight UTC");
                }
                month
            }
        };
        Ok(Self { origin, ..self })
    }

    /// The start of the bucket that a time in microseconds lies in; none if it is beyond what can be counted.
    pub(crate) fn start_us(&self, time_us: i64) -> Option<i64> {
        let time_us = time_us.checked_sub(self.offset_us)?;
        let start = match self.width {
            Width::Micros(width) => {
                let since = i128::from(time_us) - i128::from(self.origin);
                let start = since.div_euclid(width.into()) * i128::from(width) + i128::from(self.origin);
                i64::try_from(start).ok()?
            }
            Width::Months(width) => start_of_month(self.origin + (month_of(time_us) - self.origin).div_euclid(width) * width)?,
        };
        start.checked_add(self.offset_us)
    }

    /// The start of the next bucket.
    pub(crate) fn next_us(&self, start_us: i64) -> Option<i64> {
        match self.width {
            Width::Micros(width) => start_us.checked_add(width),
            Width::Months(width) => start_of_month(month_of(start_us.checked_sub(self.offset_us)?) + width)?.checked_add(self.offset_us),
        }
    }
}

/// The same buckets as the history cuts time into: of a width, one of them starting at `origin_us`; none if that is beyond what can be counted.
pub(crate) fn of_width(width_us: i64, origin_us: i64) -> Option<Cut> {
    let origin_us = origin_us.rem_euclid(width_us);
    (origin_us <= Instant::MAX.micros()).then(|| Cut::Width { width_us, origin: Instant::from_micros(origin_us) })
}

/// The buckets and the time of a call of `time_bucket`, as the history cuts time, if everything but the time is constant.
pub(crate) fn of_call(arguments: &[Expr]) -> Option<(Cut, &Expr)> {
    let [Expr::Literal(wide, _), time, rest @ ..] = arguments else { return None };
    let bucket = Bucket::new(width(wide).ok()??).ok()?;
    let bucket = match rest {
        [] => bucket,
        [Expr::Literal(third, _)] => adjusted(bucket, third, Some(&"+00:00".into())).ok()??,
        _ => return None,
    };
    let cut = match bucket.width {
        Width::Micros(width_us) => {
            of_width(width_us, bucket.origin.rem_euclid(width_us).checked_add(bucket.offset_us.rem_euclid(width_us))?)?
        }
        Width::Months(months) if bucket.offset_us == 0 && (1..=MONTHS_MAX).contains(&months) => {
            let origin = Instant::from_micros(start_of_month(bucket.origin)?);
            Cut::Months { months: u32::try_from(months).ok()?, origin, offset_s: 0 }
        }
        Width::Months(_) => return None,
    };
    Some((cut, time))
}

/// The widest bucket in months that the history is asked for.
const MONTHS_MAX: i64 = 12_000;

/// Without the months; none if it is too long.
fn micros_of(interval: IntervalMonthDayNano) -> Option<i64> {
    i64::from(interval.days).checked_mul(DAY_US)?.checked_add(interval.nanoseconds / 1_000)
}

/// The month of a time, counted from January of the year 0.
fn month_of(time_us: i64) -> i64 {
    // Days since 0000-03-01, in eras of 400 years, years that begin in March.
    // Source: Howard Hinnant, chrono-compatible low-level date algorithms, civil_from_days.
    let days = time_us.div_euclid(DAY_US) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    (era * 400 + year_of_era) * 12 + month_from_march + 2
}

/// When a month starts, in microseconds.
fn start_of_month(month: i64) -> Option<i64> {
    // Source: the same, days_from_civil.
    let from_march = month.checked_sub(2)?;
    let (year, month_from_march) = (from_march.div_euclid(12), from_march.rem_euclid(12));
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * month_from_march + 2) / 5;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era.checked_mul(146_097)?.checked_add(day_of_era - 719_468)?.checked_mul(DAY_US)
}

/// The types that the first two arguments of the functions over buckets are brought to.
pub(super) fn coerced(name: &str, types: &[DataType]) -> Result<Vec<DataType>> {
    let [width, time, ..] = types else {
        return plan_err!("{name} takes a width and a time, as in {name}('15 minutes', observed_at)");
    };
    let width = match width {
        DataType::Interval(_) | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => interval(),
        other => return plan_err!("{name}: the width is {other} (expected an interval such as '15 minutes')"),
    };
    let time = match time {
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Date32 | DataType::Date64 => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => crate::latest::timestamp(),
        other => return plan_err!("{name}: the time is {other} (expected a timestamp or a date)"),
    };
    Ok(vec![width, time])
}

pub(super) fn interval() -> DataType {
    DataType::Interval(IntervalUnit::MonthDayNano)
}

/// The width that an argument gives.
pub(crate) fn width(value: &ScalarValue) -> Result<Option<IntervalMonthDayNano>> {
    match value.cast_to(&interval())? {
        ScalarValue::IntervalMonthDayNano(width) => Ok(width),
        other => exec_err!("a width of {other}"),
    }
}

/// `time_bucket(width, time [, origin or offset])`.
///
/// A third argument that is a time is the origin, at which a bucket starts; one that is an interval is the offset, by which all buckets are shifted.
/// A text is read as an interval if it is one, else as a time.
#[derive(PartialEq, Eq, Hash, Debug)]
pub(crate) struct TimeBucket {
    signature: Signature,
}

impl TimeBucket {
    pub(crate) fn udf() -> ScalarUDF {
        ScalarUDF::from(Self { signature: Signature::user_defined(Volatility::Immutable) })
    }
}

/// The third argument.
fn adjusted(bucket: Bucket, third: &ScalarValue, zone: Option<&Arc<str>>) -> Result<Option<Bucket>> {
    let time = DataType::Timestamp(TimeUnit::Microsecond, zone.cloned());
    let value = match third {
        text if text.try_as_str().is_some() => text.cast_to(&interval()).or_else(|_| text.cast_to(&time))?,
        other => other.clone(),
    };
    if value.is_null() {
        return Ok(None);
    }
    match value.data_type() {
        DataType::Interval(_) => match width(&value)? {
            Some(offset) if offset.months == 0 => match micros_of(offset) {
                Some(offset_us) => Ok(Some(Bucket { offset_us, ..bucket })),
                None => exec_err!("time_bucket: the offset is too long"),
            },
            _ => exec_err!("time_bucket: an offset is a length of time, without months"),
        },
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => match value.cast_to(&time)? {
            ScalarValue::TimestampMicrosecond(Some(origin_us), _) => bucket.with_origin(origin_us).map(Some),
            _ => Ok(None),
        },
        other => exec_err!("time_bucket: the third argument is {other} (expected a time as origin, or an interval as offset)"),
    }
}

/// The starts of the buckets of a column of times.
pub(crate) fn starts(bucket: &Bucket, times: &ArrayRef) -> Result<ArrayRef> {
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let mut starts = Vec::with_capacity(times.len());
    for time in times {
        starts.push(match time.map(|t| (t, bucket.start_us(t))) {
            None => None,
            Some((_, Some(start))) => Some(start),
            Some((t, None)) => return exec_err!("time_bucket: the time {t} µs is out of range"),
        });
    }
    Ok(Arc::new(TimestampMicrosecondArray::from(starts).with_data_type(times.data_type().clone())))
}

impl ScalarUDFImpl for TimeBucket {
    fn name(&self) -> &str {
        "time_bucket"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let mut wanted = coerced("time_bucket", types)?;
        match types.get(2..).unwrap_or_default() {
            [] => {}
            [third] => wanted.push(third.clone()),
            more => return plan_err!("time_bucket takes two or three arguments, not {}", more.len() + 2),
        }
        Ok(wanted)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(coerced("time_bucket", types)?.swap_remove(1))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let return_type = args.return_type().clone();
        let null = || ScalarValue::try_from(&return_type).map(ColumnarValue::Scalar);
        let [width_argument, time, rest @ ..] = args.args.as_slice() else { return exec_err!("time_bucket without arguments") };
        let ColumnarValue::Scalar(wide) = width_argument else {
            return exec_err!("time_bucket: the width has to be the same for all rows");
        };
        let Some(wide) = width(wide)? else { return null() };
        let mut bucket = Bucket::new(wide)?;
        if let Some(third) = rest.first() {
            let ColumnarValue::Scalar(third) = third else {
                return exec_err!("time_bucket: the origin or offset has to be the same for all rows");
            };
            let DataType::Timestamp(_, zone) = &return_type else { return exec_err!("time_bucket of no time") };
            match adjusted(bucket, third, zone.as_ref())? {
                Some(b) => bucket = b,
                None => return null(),
            }
        }
        match time {
            ColumnarValue::Array(times) => Ok(ColumnarValue::Array(starts(&bucket, &cast(times, &return_type)?)?)),
            ColumnarValue::Scalar(time) => {
                let start = starts(&bucket, &cast(&time.to_array()?, &return_type)?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&start, 0)?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn us(text: &str) -> i64 {
        text.parse::<Instant>().unwrap().micros()
    }

    fn bucket(months: i32, days: i32, seconds: i64) -> Bucket {
        Bucket::new(IntervalMonthDayNano::new(months, days, seconds * 1_000_000_000)).unwrap()
    }

    #[test]
    fn buckets_start_as_in_timescaledb() {
        check(bucket(0, 0, 900), "2014-01-01T10:14:59.999Z", "2014-01-01T10:00:00Z");
        check(bucket(0, 0, 900), "2014-01-01T10:15:00Z", "2014-01-01T10:15:00Z");
        // Weeks begin on Mondays.
        check(bucket(0, 7, 0), "2014-01-01T10:15:00Z", "2013-12-30T00:00:00Z");
        check(bucket(0, 7, 0), "1969-07-20T20:17:00Z", "1969-07-14T00:00:00Z");
        check(bucket(1, 0, 0), "2016-02-29T23:59:59Z", "2016-02-01T00:00:00Z");
        check(bucket(3, 0, 0), "2014-12-31T00:00:00Z", "2014-10-01T00:00:00Z");
        check(bucket(12, 0, 0), "1999-12-31T00:00:00Z", "1999-01-01T00:00:00Z");
        let shifted = Bucket { offset_us: 8 * 3_600_000_000, ..bucket(0, 1, 0) };
        check(shifted, "2014-01-01T07:59:00Z", "2013-12-31T08:00:00Z");
        let since = bucket(0, 5, 0).with_origin(us("2014-01-02T00:00:00Z")).unwrap();
        check(since, "2014-01-06T23:00:00Z", "2014-01-02T00:00:00Z");

        #[track_caller]
        fn check(bucket: Bucket, time: &str, want: &str) {
            assert_eq!(bucket.start_us(us(time)), Some(us(want)), "{bucket:?} {time}");
        }
    }

    #[test]
    fn widths_are_checked() {
        let refused = |months, days, nanos| Bucket::new(IntervalMonthDayNano::new(months, days, nanos)).unwrap_err().to_string();
        assert!(refused(0, 0, 0).contains("at least a microsecond"));
        assert!(refused(0, -1, 0).contains("at least a microsecond"));
        assert!(refused(1, 1, 0).contains("not both"));
        assert!(bucket(1, 0, 0).with_origin(us("2014-01-02T00:00:00Z")).is_err());
    }

    proptest! {
        #[test]
        fn a_time_lies_in_its_bucket(
            time in -60_000_000_000_000_000_i64..60_000_000_000_000_000,
            (months, days) in prop_oneof![(1..15_i32).prop_map(|m| (m, 0)), (1..40_i32).prop_map(|d| (0, d))],
            offset_us in 0..DAY_US,
        ) {
            let bucket = Bucket { offset_us, ..bucket(months, days, 0) };
            let start = bucket.start_us(time).unwrap();
            let next = bucket.next_us(start).unwrap();
            prop_assert!(start <= time && time < next, "{start} {time} {next}");
            prop_assert_eq!(bucket.start_us(start), Some(start));
            prop_assert_eq!(bucket.start_us(next), Some(next));
            prop_assert_eq!(bucket.start_us(next - 1), Some(start));
        }
    }
}
