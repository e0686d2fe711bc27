//! Times as files write them.

use std::str::FromStr;

use entity::Instant;

/// Microseconds of a day.
const DAY_US: i64 = 86_400_000_000;

/// How far a local time is ahead of UTC, in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UtcOffset(pub i32);

impl FromStr for UtcOffset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = text.as_bytes();
        if text == "Z" || text == "UTC" {
            return Ok(Self(0));
        }
        offset_s(bytes).map(|s| Self(s as i32)).ok_or_else(|| format!("`{}` is not an offset such as `+08:00`", crate::quoted(text)))
    }
}

/// `+08:00`, `-0330`, `+08`.
fn offset_s(bytes: &[u8]) -> Option<i64> {
    let sign = match bytes.first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = match bytes.len() {
        3 => (two(bytes, 1)?, 0),
        5 => (two(bytes, 1)?, two(bytes, 3)?),
        6 if bytes[3] == b':' => (two(bytes, 1)?, two(bytes, 4)?),
        _ => return None,
    };
    (hours <= 18 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

fn two(bytes: &[u8], at: usize) -> Option<i64> {
    let digit = |i: usize| bytes.get(i).filter(|b| b.is_ascii_digit()).map(|b| i64::from(b - b'0'));
    Some(digit(at)? * 10 + digit(at + 1)?)
}

/// Days from 1970-01-01 to a day of the Gregorian calendar; none if there is no such day.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => return None,
    };
    if day < 1 || day > last {
        return None;
    }
    // Years from March on, so that the leap day is the last one (the usual arithmetic of eras of 400 years).
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// Microseconds from 1970 of `YYYY-MM-DD`, `YYYY-MM-DD hh:mm[:ss[.ffffff]]` (or with `T`), followed by `Z`, an offset or, if `local` says how far
/// local times are ahead of UTC, nothing. None if it is not a time.
pub(crate) fn parse(text: &str, local: Option<UtcOffset>) -> Option<i64> {
    let bytes = text.as_bytes();
    if bytes.len() < 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let day_us = days(two(bytes, 0)? * 100 + two(bytes, 2)?, two(bytes, 5)?, two(bytes, 8)?)? * DAY_US;
    let mut at = 10;
    let mut time_us = 0;
    if matches!(bytes.get(10), Some(b'T' | b't' | b' ')) {
        let (hours, minutes) = (two(bytes, 11)?, two(bytes, 14)?);
        if bytes[13] != b':' || hours > 23 || minutes > 59 {
            return None;
        }
        time_us = (hours * 3_600 + minutes * 60) * 1_000_000;
        at = 16;
        if bytes.get(at) == Some(&b':') {
            let seconds = two(bytes, at + 1)?;
            if seconds > 59 {
                return None;
            }
            time_us += seconds * 1_000_000;
            at += 3;
            if matches!(bytes.get(at), Some(b'.' | b',')) {
                let digits = bytes[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
                if digits == 0 || digits > 9 {
                    return None;
                }
                let mut unit = 100_000;
                for digit in &bytes[at + 1..=at + digits] {
                    time_us += i64::from(digit - b'0') * unit;
                    unit /= 10;
                }
                at += 1 + digits;
            }
        }
    }
    let offset_s = match &bytes[at..] {
        b"Z" | b"z" => 0,
        [] => i64::from(local?.0),
        rest => offset_s(rest)?,
    };
    let us = day_us + time_us - offset_s * 1_000_000;
    (us >= Instant::MIN.micros() && us <= Instant::MAX.micros()).then_some(us)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_in_the_forms_that_files_have() {
        check("2014-01-01T00:00:00Z", Some(1_388_534_400_000_000));
        check("2014-01-01T08:00:00+08:00", Some(1_388_534_400_000_000));
        check("2014-01-01 08:00:00.250+0800", Some(1_388_534_400_250_000));
        check("2013-12-31T20:30-03:30", Some(1_388_534_400_000_000));
        check("2014-01-01T00:00:00", None);
        check("2014-02-30T00:00:00Z", None);
        check("2014-01-01T24:00:00Z", None);
        check("2014-01-01T00:00:00Zx", None);
        check("2014-01-01", None);
        check("1/1/2014", None);
        assert_eq!(parse("2014-01-01 08:00", Some(UtcOffset(28_800))), Some(1_388_534_400_000_000));
        assert_eq!(parse("2014-01-01", Some(UtcOffset(0))), Some(1_388_534_400_000_000));
        assert_eq!("+05:30".parse(), Ok(UtcOffset(19_800)));
        assert!("8".parse::<UtcOffset>().is_err());

        #[track_caller]
        fn check(text: &str, want: Option<i64>) {
            assert_eq!(parse(text, None), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_date_times_of_ngsi_ld(us in Instant::from_secs(-50_000_000_000).micros()..Instant::MAX.micros()) {
            let text = Instant::from_micros(us).to_string();
            prop_assert_eq!(parse(&text, None), Some(us), "{}", text);
        }

        #[test]
        fn rubbish_is_refused_not_a_panic(text in "[0-9TZ:+. -]{0,40}|\\PC{0,40}") {
            let _ = parse(&text, Some(UtcOffset(0)));
            let _ = text.parse::<UtcOffset>();
        }
    }
}
