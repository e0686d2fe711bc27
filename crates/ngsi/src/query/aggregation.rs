//! What is asked of a past that is aggregated over periods (ETSI GS CIM 009 V1.9.1, clause 4.5.19).

use entity::{AggregationMethod, AggregationPeriod};

use crate::error::{Error, Result, shown};

/// An aggregation of a past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aggregation {
    /// What is computed, each once.
    pub methods: Vec<AggregationMethod>,
    /// Over which periods.
    pub period: AggregationPeriod,
}

/// The longest period: ten thousand years.
const MONTHS_MAX: u64 = 120_000;
const DAYS_MAX: u64 = 3_660_000;

impl Aggregation {
    /// Reads `aggrMethods` and `aggrPeriodDuration`.
    pub(super) fn parse<'a>(methods: impl Iterator<Item = &'a str>, period: Option<&str>) -> Result<Self> {
        let mut known: Vec<AggregationMethod> = Vec::new();
        for name in methods {
            let at = |e: Error| e.within("aggrMethods");
            let Some(method) = AggregationMethod::ALL.into_iter().find(|m| m.name() == name) else {
                let expected: Vec<&str> = AggregationMethod::ALL.iter().map(|m| m.name()).collect();
                return Err(at(Error::bad(format!("`{}` is not a method (expected {})", shown(name), expected.join(", ")))));
            };
            if known.contains(&method) {
                return Err(at(Error::bad(format!("`{name}` is given twice"))));
            }
            known.push(method);
        }
        let period = period.map_or(Ok(AggregationPeriod::Whole), |text| {
            duration(text).map_err(|what| {
                Error::bad(format!("`{}` {what} (expected e.g. PT1H, P1D, P1W or P1M)", shown(text))).within("aggrPeriodDuration")
            })
        })?;
        Ok(Self { methods: known, period })
    }
}

/// An ISO 8601 duration with designators. Errors: what is wrong, in words.
pub(crate) fn duration(text: &str) -> std::result::Result<AggregationPeriod, &'static str> {
    const WRONG: &str = "is not a duration";
    let rest = text.strip_prefix('P').ok_or(WRONG)?;
    let (date, time) = match rest.split_once('T') {
        Some((_, "")) => return Err(WRONG),
        Some((date, time)) => (date, time),
        None => (rest, ""),
    };
    let (mut months, mut seconds, mut micros) = (0_u64, 0_u64, 0_u64);
    let mut n_parts = 0;
    for (part, designators) in [(date, "YMWD"), (time, "HMS")] {
        let mut rest = part;
        let mut allowed = designators;
        while !rest.is_empty() {
            let end = rest.find(|c: char| c.is_ascii_alphabetic()).ok_or(WRONG)?;
            let designator = rest.as_bytes()[end] as char;
            let place = allowed.find(designator).ok_or(WRONG)?;
            let is_seconds = designators == "HMS" && designator == 'S';
            let (whole, fraction) = match rest[..end].split_once(['.', ',']) {
                Some((whole, fraction)) if is_seconds => (whole, fraction),
                Some(_) => return Err("has a fraction of something else than seconds"),
                None => (&rest[..end], ""),
            };
            let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
            if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 6 {
                return Err(WRONG);
            }
            let n: u64 = whole.parse().ok().filter(|n| *n <= DAYS_MAX * 86_400).ok_or("is too long")?;
            match (designators, designator) {
                (_, 'Y') => months += n * 12,
                ("YMWD", 'M') => months += n,
                (_, 'W') => seconds += n * 7 * 86_400,
                (_, 'D') => seconds += n * 86_400,
                (_, 'H') => seconds += n * 3_600,
                (_, 'M') => seconds += n * 60,
                _ => {
                    seconds += n;
                    micros = format!("{fraction:0<6}").parse().map_err(|_| WRONG)?;
                }
            }
            allowed = &allowed[place + 1..];
            rest = &rest[end + 1..];
            n_parts += 1;
        }
    }
    if n_parts == 0 {
        return Err(WRONG);
    }
    if months > MONTHS_MAX || seconds > DAYS_MAX * 86_400 {
        return Err("is too long");
    }
    match (months, seconds * 1_000_000 + micros) {
        (0, 0) => Ok(AggregationPeriod::Whole),
        (0, micros) => i64::try_from(micros).map(AggregationPeriod::Micros).map_err(|_| "is too long"),
        (months, 0) => u32::try_from(months).map(AggregationPeriod::Months).map_err(|_| "is too long"),
        _ => Err("mixes years or months with shorter parts, which have no fixed relation"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_follow_iso_8601() {
        use AggregationPeriod::{Micros, Months, Whole};
        check("PT4M", Ok(Micros(240_000_000)));
        check("P1DT12H", Ok(Micros(129_600_000_000)));
        check("PT0.5S", Ok(Micros(500_000)));
        check("P0Y0M0DT1H0M0S", Ok(Micros(3_600_000_000)));
        check("P2W", Ok(Micros(1_209_600_000_000)));
        check("P1Y6M", Ok(Months(18)));
        check("PT0S", Ok(Whole));
        check("P0D", Ok(Whole));
        for wrong in ["", "P", "PT", "P1", "1H", "PT1D", "P1H", "PT1M1H", "P0001-01-01T00:00:00", "P-1D", "PT1.5H", "PT1.1234567S", "P1D1D"]
        {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        check("P1M1D", Err("mixes years or months with shorter parts, which have no fixed relation"));
        check("P99999999999999999999Y", Err("is too long"));
        check("P200001M", Err("is too long"));

        #[track_caller]
        fn check(text: &str, want: std::result::Result<AggregationPeriod, &'static str>) {
            assert_eq!(duration(text), want, "{text}");
        }
    }

    #[test]
    fn methods_are_those_of_the_standard() {
        let read = Aggregation::parse("avg,totalCount".split(','), Some("PT1H")).unwrap();
        assert_eq!(read.methods, [AggregationMethod::Avg, AggregationMethod::TotalCount]);
        for (wrong, want) in [("mean", "`mean` is not a method (expected totalCount"), ("avg,avg", "given twice"), ("", "is not a method")]
        {
            let error = Aggregation::parse(wrong.split(','), None).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
