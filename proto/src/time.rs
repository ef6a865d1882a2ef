//! Points in time, as pure types see them: they are handed `now` and never ask a clock.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// A point on a clock that never goes back and runs on while the machine is suspended.
///
/// The zero is arbitrary: only differences and order mean anything. Resolution: one microsecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The point that lies `us` microseconds after the clock's zero.
    pub const fn from_micros(us: u64) -> Self {
        Self(us)
    }

    /// Microseconds since the clock's zero.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`; zero if `earlier` is in fact later.
    #[inline]
    pub const fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The point `duration` before this one, or the clock's zero.
    #[inline]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    #[inline]
    fn add(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(micros(duration)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}us", self.0)
    }
}

/// The earlier of two deadlines, where `None` means 'never'.
#[inline]
pub fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// A duration as whole milliseconds for the wire; what does not fit becomes the largest value.
pub fn wire_ms(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// A duration as whole microseconds for the wire; what does not fit becomes the largest value.
pub fn wire_us(duration: Duration) -> u64 {
    micros(duration)
}

// Nearly every deadline is a sum: 64 bits do, where `Duration::as_micros` reckons in 128.
#[inline]
fn micros(duration: Duration) -> u64 {
    let whole = duration.as_secs().saturating_mul(1_000_000);
    whole.saturating_add(u64::from(duration.subsec_micros()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_never_go_below_zero() {
        let (early, late) = (Timestamp::from_micros(5), Timestamp::from_micros(9));
        assert_eq!(late.since(early), Duration::from_micros(4));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(early.before(Duration::from_secs(1)), Timestamp::default());
    }

    #[test]
    fn additions_saturate() {
        let end = Timestamp::from_micros(u64::MAX);
        assert_eq!(end + Duration::MAX, end);
        assert_eq!(wire_ms(Duration::MAX), u32::MAX);
    }

    #[test]
    fn the_earliest_deadline_ignores_never() {
        let t = Timestamp::from_micros;
        assert_eq!(earliest(None, Some(t(3))), Some(t(3)));
        assert_eq!(earliest(Some(t(2)), Some(t(3))), Some(t(2)));
        assert_eq!(earliest(None, None), None);
    }
}
