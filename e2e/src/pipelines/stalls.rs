//! How long barriers kept tasks from their work, as workers say it.
//!
//! Must not know what a barrier is.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Context;

const METRIC: &str = "pharos_barrier_stall_seconds_bucket";

/// How many were no longer than each bound, in microseconds; the last bound is above all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stalls(BTreeMap<u64, u64>);

impl Stalls {
    /// What is on a page of metrics, of all transforms together.
    pub(super) fn read(page: &str) -> anyhow::Result<Self> {
        let mut all = Self::default();
        for line in page.lines().filter(|line| line.starts_with(METRIC)) {
            let (_, rest) = line.rsplit_once("le=\"").with_context(|| format!("no bound in {line}"))?;
            let (bound, count) = rest.split_once("\"} ").with_context(|| format!("no count in {line}"))?;
            let bound = match bound {
                "+Inf" => u64::MAX,
                bound => {
                    let seconds: f64 = bound.parse().with_context(|| format!("no bound in {line}"))?;
                    (seconds * 1e6).round() as u64
                }
            };
            let count: u64 = count.parse().with_context(|| format!("no count in {line}"))?;
            *all.0.entry(bound).or_default() += count;
        }
        Ok(all)
    }

    /// Adds those that others say.
    pub(super) fn add(&mut self, other: &Self) {
        other.0.iter().for_each(|(bound, count)| *self.0.entry(*bound).or_default() += count);
    }

    fn count(&self) -> u64 {
        self.0.values().next_back().copied().unwrap_or_default()
    }

    /// The bound that so many of a thousand do not exceed.
    fn most(&self, of_thousand: u64) -> u64 {
        let wanted = (self.count() * of_thousand).div_ceil(1000);
        self.0.iter().find(|(_, count)| **count >= wanted).map_or(0, |(bound, _)| *bound)
    }
}

impl fmt::Display for Stalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [half, most, longest] = [500, 990, 1000].map(|of_thousand| match self.most(of_thousand) {
            u64::MAX => "longer than all bounds".to_owned(),
            micros => format!("at most {} ms", micros as f64 / 1e3),
        });
        write!(f, "{} times; half {half}, 99 % {most}, all {longest}", self.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_several_transforms_and_workers_are_added() {
        let page = "# TYPE pharos_barrier_stall_seconds histogram\n\
            pharos_barrier_stall_seconds_bucket{transform=\"a\",le=\"0.0001\"} 60\n\
            pharos_barrier_stall_seconds_bucket{transform=\"a\",le=\"0.005\"} 98\n\
            pharos_barrier_stall_seconds_bucket{transform=\"a\",le=\"+Inf\"} 99\n\
            pharos_barrier_stall_seconds_sum{transform=\"a\"} 1\n\
            pharos_barrier_stall_seconds_bucket{transform=\"b\",le=\"0.0001\"} 0\n\
            pharos_barrier_stall_seconds_bucket{transform=\"b\",le=\"0.005\"} 1\n\
            pharos_barrier_stall_seconds_bucket{transform=\"b\",le=\"+Inf\"} 1\n";
        let mut all = Stalls::read(page).unwrap();
        let said = all.to_string();
        assert_eq!(said, "100 times; half at most 0.1 ms, 99 % at most 5 ms, all longer than all bounds");
        all.add(&Stalls::read(page).unwrap());
        assert_eq!(all.count(), 200);
        assert!(Stalls::read("pharos_barrier_stall_seconds_bucket{le=\"x\"} 1").is_err());
    }
}
