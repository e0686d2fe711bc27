//! Local time of day, week and year.

use jiff::Timestamp;
use jiff::tz::{self, Offset};

/// China Standard Time.
const LOCAL: Offset = tz::offset(8);

/// A local time as the models see it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct LocalTime {
    /// Hours since local midnight, 0 to below 24.
    pub(super) hour: f64,
    /// 1 to 366.
    pub(super) day_of_year: f64,
    /// Monday to Friday and no fixed holiday.
    pub(super) working_day: bool,
}

impl LocalTime {
    pub(super) fn at(at: Timestamp) -> Self {
        let local = LOCAL.to_datetime(at);
        let weekend = local.date().weekday().to_monday_zero_offset() >= 5;
        let holiday = matches!((local.month(), local.day()), (1, 1) | (5, 1..=3) | (10, 1..=3));
        Self {
            hour: f64::from(local.hour()) + f64::from(local.minute()) / 60.0 + f64::from(local.second()) / 3600.0,
            day_of_year: f64::from(local.date().day_of_year()),
            working_day: !weekend && !holiday,
        }
    }

    /// A bell of height 1 around an hour of the day, in the round of 24 hours.
    pub(super) fn bell(&self, peak_hour: f64, width_hours: f64) -> f64 {
        let off = (self.hour - peak_hour).abs();
        let off = off.min(24.0 - off) / width_hours;
        (-0.5 * off * off).exp()
    }

    /// Cosine over the day, 1 at `peak_hour`, −1 twelve hours away.
    pub(super) fn daily(&self, peak_hour: f64) -> f64 {
        (std::f64::consts::TAU * (self.hour - peak_hour) / 24.0).cos()
    }

    /// Cosine over the year, 1 at `peak_day`, −1 half a year away.
    pub(super) fn yearly(&self, peak_day: f64) -> f64 {
        (std::f64::consts::TAU * (self.day_of_year - peak_day) / 365.25).cos()
    }

    /// Smooth 0 → 1 around `from_hour` and 1 → 0 around `to_hour`, each within about an hour.
    pub(super) fn between(&self, from_hour: f64, to_hour: f64) -> f64 {
        let rise = |hour: f64| 1.0 / (1.0 + (-(self.hour - hour) * 3.0).exp());
        (rise(from_hour) - rise(to_hour)).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn working_days_are_local_weekdays_without_fixed_holidays() {
        check("2024-03-11T00:00:00Z", 8.0, true); // a Monday
        check("2024-03-09T15:59:00Z", 23.0 + 59.0 / 60.0, false); // Saturday, one minute before local Sunday
        check("2024-03-10T16:00:00Z", 0.0, true); // Sunday in UTC, Monday here
        check("2024-05-01T04:00:00Z", 12.0, false); // a Wednesday, Labour Day

        #[track_caller]
        fn check(at: &str, hour: f64, working_day: bool) {
            let local = LocalTime::at(at.parse().unwrap());
            assert!((local.hour - hour).abs() < 1e-9, "{at}: {}", local.hour);
            assert_eq!(local.working_day, working_day, "{at}");
        }
    }
}
