//! Progress for people, on standard error.

use std::time::Duration;

use host::Stopwatch;

/// How often it is said.
const EVERY: Duration = Duration::from_secs(1);

/// What was done since when.
pub(super) struct Progress {
    name: String,
    stopwatch: Stopwatch,
    said_at: Duration,
    first_row: u64,
    n_values: u64,
}

impl Progress {
    pub(super) fn new(name: String, first_row: u64) -> Self {
        Self { name, stopwatch: Stopwatch::start(), said_at: Duration::ZERO, first_row, n_values: 0 }
    }

    /// Rows up to `rows` are durable; `share` of the file (0 to 1) is that, if it is known.
    pub(super) fn at(&mut self, rows: u64, n_values: u64, share: Option<f64>) {
        self.n_values += n_values;
        let now = self.stopwatch.elapsed();
        if now - self.said_at >= EVERY {
            self.said_at = now;
            crate::complain(&self.line(rows, share));
        }
    }

    pub(super) fn end(&self, rows: u64) {
        crate::complain(&self.line(rows, Some(1.0)));
    }

    fn line(&self, rows: u64, share: Option<f64>) -> String {
        let seconds = self.stopwatch.elapsed().as_secs_f64().max(1e-3);
        let n_rows = rows.saturating_sub(self.first_row);
        let rate = n_rows as f64 / seconds;
        let percent = share.map(|s| format!(" ({:.0} %)", s * 100.0)).unwrap_or_default();
        let left = match share {
            // What is left of the file at the rate so far, by rows.
            Some(s) if s > 0.0 && s < 1.0 && rate > 0.0 => {
                let rows_left = rows as f64 / s - rows as f64;
                format!(", {} left", duration(rows_left / rate))
            }
            _ => String::new(),
        };
        format!("{}: {rows} rows{percent}, {} values, {rate:.0} rows/s{left}", self.name, self.n_values)
    }
}

fn duration(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3_600, s / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        assert_eq!([0.4, 59.0, 61.0, 7_260.0].map(duration), ["0 s", "59 s", "1 min 1 s", "2 h 1 min"]);
    }
}
