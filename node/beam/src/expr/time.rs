//! Points in time written as text.
//!
//! Owns the grammar that a watermark's timestamp may have. Must not know time zones by name. Invariant: what
//! is no date of the Gregorian calendar is refused, not rolled over.

use super::error::RowError;
use crate::schema::Micros;

/// Reads a date and time as ISO 8601 writes it: `2001-03-01T06:05:30.25+01:00`. The date's parts may be
/// joined by `/`, the time may follow a space, seconds and their fraction (cut after microseconds) may be
/// missing, so may the whole time (midnight) and the zone (UTC).
pub fn parse(text: &str) -> Result<Micros, RowError> {
    let mut reader = Reader { rest: text.as_bytes() };
    reader
        .timestamp()
        .filter(|_| reader.rest.is_empty())
        .map(Micros)
        .ok_or_else(|| RowError::new("ValueError", format!("no ISO 8601 date and time: '{text}'")))
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn digits(&mut self, count: usize) -> Option<i64> {
        let (digits, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        digits.iter().try_fold(0, |number, digit| {
            digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0'))
        })
    }

    fn accept(&mut self, any_of: &[u8]) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        any_of.contains(first).then(|| {
            self.rest = rest;
            *first
        })
    }

    fn timestamp(&mut self) -> Option<i64> {
        let year = self.digits(4)?;
        let joint = self.accept(b"-/")?;
        let month = self.digits(2)?;
        self.accept(&[joint])?;
        let day = self.digits(2)?;
        let seconds = days_since_1970(year, month, day)? * 86_400;
        if self.accept(b"T ").is_none() {
            return Some(seconds * 1_000_000);
        }
        let time = self.time()?;
        let zone = self.zone()?;
        Some((seconds - zone) * 1_000_000 + time)
    }

    /// Microseconds since midnight.
    fn time(&mut self) -> Option<i64> {
        let hour = self.digits(2).filter(|hour| *hour < 24)?;
        self.accept(b":")?;
        let minute = self.digits(2).filter(|minute| *minute < 60)?;
        let mut micros = (hour * 60 + minute) * 60_000_000;
        if self.accept(b":").is_some() {
            micros += self.digits(2).filter(|second| *second < 60)? * 1_000_000;
            if self.accept(b".").is_some() {
                micros += self.fraction()?;
            }
        }
        Some(micros)
    }

    fn fraction(&mut self) -> Option<i64> {
        let mut scale = 100_000;
        let mut micros = self.digits(1)? * scale;
        while self.rest.first().is_some_and(u8::is_ascii_digit) {
            scale /= 10;
            micros += self.digits(1)? * scale;
        }
        Some(micros)
    }

    /// Seconds east of Greenwich.
    fn zone(&mut self) -> Option<i64> {
        let sign = match self.accept(b"Z+-") {
            None | Some(b'Z') => return Some(0),
            Some(b'+') => 1,
            Some(_) => -1,
        };
        let hours = self.digits(2).filter(|hours| *hours < 24)?;
        self.accept(b":");
        let minutes = self.digits(2).filter(|minutes| *minutes < 60)?;
        Some(sign * (hours * 3600 + minutes * 60))
    }
}

fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // Years counted from March put the leap day at their end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_of_iso_8601_are_read() {
        for (text, seconds, micros) in [
            ("1970-01-01", 0, 0),
            ("2001-03-01 00:07", 983_405_220, 0),
            ("2001/03/01 00:07:09", 983_405_229, 0),
            ("2001-03-01T00:07:00.25Z", 983_405_220, 250_000),
            ("2001-03-01T01:07:00+01:00", 983_405_220, 0),
            ("2001-02-28T23:37-0030", 983_405_220, 0),
            ("1969-12-31T23:59:59.9999999", -1, 999_999),
            ("2000-02-29", 951_782_400, 0),
        ] {
            assert_eq!(parse(text), Ok(Micros(seconds * 1_000_000 + micros)), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "2001",
            "2001-02-29",
            "2001-13-01",
            "2001-03/01",
            "2001-03-01 24:00",
            "2001-03-01 0:07",
            "2001-03-01x",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
