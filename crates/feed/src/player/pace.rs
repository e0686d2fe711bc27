//! When a message may be released.

use std::time::Duration;

use tokio::time::Instant;

use super::Speed;

/// Relates time stamps to the clock, from the first message on.
#[derive(Debug)]
pub(super) struct Pacer {
    speed: Speed,
    /// When the first message was asked for, and its time stamp.
    anchor: Option<(Instant, i64)>,
}

impl Pacer {
    pub(super) fn new(speed: Speed) -> Self {
        Self { speed, anchor: None }
    }

    /// When the message of time stamp `at_us` is due; `None` if at once.
    pub(super) fn due(&mut self, at_us: i64, now: Instant) -> Option<Instant> {
        let factor = match self.speed {
            Speed::FullSpeed => return None,
            Speed::Realtime => 1.0,
            Speed::Times(factor) => factor,
        };
        let (started, first_us) = *self.anchor.get_or_insert((now, at_us));
        // A late message is older than the first: due at once.
        let after_us = u64::try_from(at_us.saturating_sub(first_us)).ok()?;
        let after = Duration::try_from_secs_f64(after_us as f64 / 1e6 / factor).ok();
        // A due time beyond the clock's end is as good as never; a year is checked again.
        let due = after.and_then(|after| started.checked_add(after)).unwrap_or(now + Duration::from_secs(31_536_000));
        (due > now).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_by_their_distance_to_the_first() {
        check(Speed::Realtime, 90_000_000, Some(90_000));
        check(Speed::Times(60.0), 90_000_000, Some(1_500));
        check(Speed::Times(0.5), 1_000_000, Some(2_000));
        check(Speed::FullSpeed, 90_000_000, None);
        check(Speed::Realtime, 0, None);
        check(Speed::Realtime, -5_000_000, None); // late: older than the first
        check(Speed::Times(1e-300), i64::MAX / 2, Some(31_536_000_000));

        #[track_caller]
        fn check(speed: Speed, after_us: i64, want_ms: Option<u64>) {
            let first_us = 1_400_000_000_000_000;
            let now = Instant::now();
            let mut pacer = Pacer::new(speed);
            assert_eq!(pacer.due(first_us, now), None, "the first goes at once");
            let due = pacer.due(first_us + after_us, now);
            assert_eq!(due, want_ms.map(|ms| now + Duration::from_millis(ms)), "{speed:?} {after_us}");
        }
    }
}
