//! Points and lengths of event time.
//!
//! Owns: the unit (microseconds) and the bounds of time.
//! Must not know: windows, clocks.
//! Invariant: a `Timestamp` lies within Beam's range, so sums of a timestamp and a span never wrap.

use std::fmt;

/// A point in event time, in microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Beam's smallest timestamp (it counts whole milliseconds), which stands for "before all time".
    pub const MIN: Self = Self(-9_223_372_036_854_775_000);
    /// Beam's largest timestamp, which stands for "after all time".
    pub const MAX: Self = Self(9_223_372_036_854_775_000);
    /// The last instant of the global window: one day before the end of time.
    pub const GLOBAL_WINDOW_MAX: Self = Self(9_223_371_950_454_775_000);

    /// The timestamp `micros` after the epoch, moved into the range if it lies outside.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        if micros < Self::MIN.0 {
            Self::MIN
        } else if micros > Self::MAX.0 {
            Self::MAX
        } else {
            Self(micros)
        }
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// This instant moved later by `span`, at most to `MAX`.
    #[must_use]
    pub const fn plus(self, span: Span) -> Self {
        Self::from_micros(self.0.saturating_add(span.0))
    }

    /// This instant moved earlier by `span`, at most to `MIN`.
    #[must_use]
    pub const fn minus(self, span: Span) -> Self {
        Self::from_micros(self.0.saturating_sub(span.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::MIN {
            return out.write_str("-inf");
        }
        if *self == Self::MAX {
            return out.write_str("+inf");
        }
        let (days, rest) = (self.0.div_euclid(86_400_000_000), self.0.rem_euclid(86_400_000_000));
        let (year, month, day) = civil_from_days(days);
        let (seconds, micros) = (rest / 1_000_000, rest % 1_000_000);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if micros != 0 {
            write!(out, ".{micros:06}")?;
        }
        out.write_str("Z")
    }
}

/// Year, month and day of the day that lies `days` after 1970-01-01, by the Gregorian calendar.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    // Counting from 1 March of year 0 puts the leap day at the end of each 400-year era.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// A length of event time in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(i64);

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);
    /// The smallest length: one microsecond.
    pub const TICK: Self = Self(1);

    /// A length of `micros` microseconds.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// A length of `seconds` seconds, at most what fits.
    #[must_use]
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// The length in microseconds.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_print_as_dates() {
        assert_eq!(Timestamp::from_micros(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Timestamp::from_micros(-1).to_string(), "1969-12-31T23:59:59.999999Z");
        assert_eq!(Timestamp::from_micros(951_782_400_000_000).to_string(), "2000-02-29T00:00:00Z");
        assert_eq!(Timestamp::MIN.to_string(), "-inf");
    }

    #[test]
    fn sums_stay_within_the_range() {
        assert_eq!(Timestamp::MAX.plus(Span::from_secs(1)), Timestamp::MAX);
        assert_eq!(Timestamp::MIN.minus(Span::from_micros(i64::MAX)), Timestamp::MIN);
        assert_eq!(Timestamp::from_micros(5).minus(Span::from_micros(7)), Timestamp::from_micros(-2));
    }
}
