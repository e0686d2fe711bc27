//! Points in time.

use std::fmt;
use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::Offset;
use serde::{Deserialize, Serialize};

/// A point in time: microseconds since 1970-01-01T00:00:00Z, UTC.
///
/// Microseconds because NGSI-LD allows up to six fractional digits (ETSI GS CIM 009 V1.9.1, clause 4.6.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Instant(i64);

/// Why a text is not an NGSI-LD DateTime.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstantError {
    /// The text has another form.
    #[error("`{found}` is not a date-time of the form `YYYY-MM-DDThh:mm:ss[.ffffff]Z` in UTC")]
    Form {
        /// The text as found.
        found: String,
    },
    /// The form is right but there is no such day or hour.
    #[error("`{found}` does not exist: {reason}")]
    Impossible {
        /// The text as found.
        found: String,
        /// What is out of range.
        reason: String,
    },
}

impl Instant {
    /// 0001-01-01T00:00:00Z, the earliest instant that can be written.
    pub const MIN: Self = Self(-62_135_596_800_000_000);
    /// 9999-12-30T22:00:00Z, the latest instant that can be written.
    pub const MAX: Self = Self(253_402_207_200_000_000);

    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// From microseconds since the epoch, clamped to [`Instant::MIN`] and [`Instant::MAX`].
    #[must_use]
    pub fn from_micros(us: i64) -> Self {
        Self(us.clamp(Self::MIN.0, Self::MAX.0))
    }

    /// From seconds since the epoch.
    #[must_use]
    pub fn from_secs(s: i64) -> Self {
        Self::from_micros(s.saturating_mul(1_000_000))
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// This instant moved by `us` microseconds.
    #[must_use]
    pub fn plus_micros(self, us: i64) -> Self {
        Self::from_micros(self.0.saturating_add(us))
    }

    /// Microseconds from `earlier` to `self`; negative if it is later.
    #[must_use]
    pub const fn micros_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl FromStr for Instant {
    type Err = InstantError;

    /// Parses an NGSI-LD DateTime: full form, UTC, `Z` mandatory, `,` accepted as decimal mark.
    fn from_str(s: &str) -> Result<Self, InstantError> {
        let form = || InstantError::Form { found: s.chars().take(64).collect() };
        let b = s.as_bytes();
        let digit = |i: usize| b.get(i).filter(|c| c.is_ascii_digit()).map(|c| i16::from(c - b'0'));
        let shape_ok = b.len() >= 20
            && b.len() <= 27
            && [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')].iter().all(|&(i, c)| b[i] == c)
            && b[b.len() - 1] == b'Z';
        if !shape_ok {
            return Err(form());
        }
        let number = |from: usize, n: usize| (from..from + n).try_fold(0_i16, |sum, i| Some(sum * 10 + digit(i)?)).ok_or_else(form);
        // Each of two digits, so none is cut.
        let two = |from: usize| number(from, 2).map(|n| n as i8);
        let (year, month, day) = (number(0, 4)?, two(5)?, two(8)?);
        let (hour, minute, second) = (two(11)?, two(14)?, two(17)?);
        let mut us = 0;
        if b.len() > 20 {
            if b[19] != b'.' && b[19] != b',' || b.len() == 21 {
                return Err(form());
            }
            let mut unit = 100_000;
            for i in 20..b.len() - 1 {
                us += i64::from(digit(i).ok_or_else(form)?) * unit;
                unit /= 10;
            }
        } else if b[19] != b'Z' {
            return Err(form());
        }
        // A leap second is the one before it, as for most clocks.
        let whole = DateTime::new(year, month, day, hour, minute, if second == 60 { 59 } else { second }, 0)
            .and_then(|civil| Offset::UTC.to_timestamp(civil))
            .map_err(|e| InstantError::Impossible { found: s.to_owned(), reason: e.to_string() })?;
        Ok(Self(whole.as_second() * 1_000_000 + us))
    }
}

/// How an instant is written: without allocation, and without the machinery of formatting.
#[derive(Clone, Copy, Debug)]
pub struct InstantText {
    text: [u8; 27],
    n_bytes: usize,
}

impl InstantText {
    /// The text, of ASCII characters only.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..self.n_bytes]
    }
}

impl Instant {
    /// `YYYY-MM-DDThh:mm:ss[.fff[fff]]Z`, as short as possible; what [`fmt::Display`] writes.
    #[must_use]
    pub fn text(self) -> InstantText {
        // By hand: an answer may have thousands of times, and a formatter for every form costs several times as much.
        let t = Offset::UTC
            .to_datetime(jiff::Timestamp::from_microsecond(self.0.clamp(Self::MIN.0, Self::MAX.0)).expect("these can be written"));
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let mut put = |at: usize, n_digits: usize, mut n: u32| {
            for digit in text[at..at + n_digits].iter_mut().rev() {
                *digit = b'0' + (n % 10) as u8;
                n /= 10;
            }
        };
        // From 1 to 9999, see MIN and MAX.
        put(0, 4, u32::from(t.year().unsigned_abs()));
        let parts = [(5, t.month()), (8, t.day()), (11, t.hour()), (14, t.minute()), (17, t.second())];
        parts.into_iter().for_each(|(at, n)| put(at, 2, u32::from(n.unsigned_abs())));
        // Less than a million.
        let frac = self.0.rem_euclid(1_000_000) as u32;
        put(20, 6, frac);
        let n_bytes = match frac {
            0 => "0000-00-00T00:00:00Z".len(),
            _ if frac.is_multiple_of(1000) => "0000-00-00T00:00:00.000Z".len(),
            _ => text.len(),
        };
        text[n_bytes - 1] = b'Z';
        InstantText { text, n_bytes }
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(self.text().as_bytes()).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn date_times_follow_clause_4_6_3() {
        check("2014-01-01T00:00:00Z", Some("2014-01-01T00:00:00Z"));
        check("2014-01-01T00:00:00.5Z", Some("2014-01-01T00:00:00.500Z"));
        check("2014-01-01T00:00:00,000001Z", Some("2014-01-01T00:00:00.000001Z"));
        check("1969-12-31T23:59:59.25Z", Some("1969-12-31T23:59:59.250Z"));
        check("2014-01-01T00:00:00+08:00", None);
        check("2014-01-01T00:00:00", None);
        check("2014-01-01", None);
        check("2014-13-01T00:00:00Z", None);
        check("2014-02-30T00:00:00Z", None);
        check("2014-01-01T25:00:00Z", None);
        check("2016-12-31T23:59:60Z", Some("2016-12-31T23:59:59Z"));
        check("0001-01-01T00:00:00Z", Some("0001-01-01T00:00:00Z"));
        check("9999-12-30T22:00:00Z", Some("9999-12-30T22:00:00Z"));
        check("2016-12-31T23:59:61Z", None);
        check("2014-01-01T00:00:00.Z", None);
        check("2014-01-01T00:00:00.1234567Z", None);
        check("２014-01-01T00:00:00Z", None);

        #[track_caller]
        fn check(text: &str, want: Option<&str>) {
            assert_eq!(text.parse::<Instant>().ok().map(|i| i.to_string()).as_deref(), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn it_is_written_as_by_the_library(
            us in Instant::MIN.micros()..Instant::MAX.micros(),
            (unit, digits) in prop::sample::select(vec![(1_000_000, 0), (1_000, 3), (1, 6)]),
        ) {
            let us = us - us.rem_euclid(unit);
            // What can be written shorter is.
            prop_assume!(digits == 0 || us % 1_000_000 != 0 && (digits == 3 || us % 1_000 != 0));
            let t = jiff::Timestamp::from_microsecond(us).unwrap();
            prop_assert_eq!(Instant::from_micros(us).to_string(), format!("{t:.digits$}"));
        }

        #[test]
        fn what_is_written_is_read_back(us in Instant::MIN.micros()..Instant::MAX.micros()) {
            let i = Instant::from_micros(us);
            prop_assert_eq!(i.to_string().parse::<Instant>(), Ok(i));
        }

        #[test]
        fn rubbish_is_refused_not_a_panic(s in "\\PC{0,40}") {
            let _ = s.parse::<Instant>();
        }
    }
}
