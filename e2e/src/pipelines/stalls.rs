//! How long barriers kept tasks from their work, as workers say it.
//!
//! Must not know what a barrier is.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Context;

const METRIC: &str = "pharos_barrier_stall_seconds_bucket";

/// How many of a transform were no longer than each bound, in microseconds; the last bound is above all.
type Bounds = BTreeMap<u64, u64>;

/// Those of each transform.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stalls(BTreeMap<String, Bounds>);

impl Stalls {
    /// What is on a page of metrics.
    pub(super) fn read(page: &str) -> anyhow::Result<Self> {
        let mut all = Self::default();
        for line in page.lines().filter(|line| line.starts_with(METRIC)) {
            let part = |start: &str, end: &str| {
                let (_, rest) = line.split_once(start).with_context(|| format!("no `{start}` in {line}"))?;
                let (part, _) = rest.split_once(end).with_context(|| format!("no `{end}` in {line}"))?;
                anyhow::Ok(part)
            };
            let bound = match part("le=\"", "\"")? {
                "+Inf" => u64::MAX,
                bound => {
                    let seconds: f64 = bound.parse().with_context(|| format!("no bound in {line}"))?;
                    (seconds * 1e6).round() as u64
                }
            };
            let (_, count) = line.rsplit_once(' ').with_context(|| format!("no count in {line}"))?;
            let count: u64 = count.parse().with_context(|| format!("no count in {line}"))?;
            let transform = all.0.entry(part("transform=\"", "\"")?.to_owned()).or_default();
            *transform.entry(bound).or_default() += count;
        }
        Ok(all)
    }

    /// Adds those that others say.
    pub(super) fn add(&mut self, other: &Self) {
        for (transform, bounds) in &other.0 {
            let mine = self.0.entry(transform.clone()).or_default();
            bounds.iter().for_each(|(bound, count)| *mine.entry(*bound).or_default() += count);
        }
    }
}

fn times(bounds: &Bounds) -> u64 {
    bounds.values().next_back().copied().unwrap_or_default()
}

/// The bound that so many of a thousand do not exceed.
fn most(bounds: &Bounds, of_thousand: u64) -> u64 {
    let wanted = (times(bounds) * of_thousand).div_ceil(1000);
    bounds.iter().find(|(_, count)| **count >= wanted).map_or(0, |(bound, _)| *bound)
}

impl fmt::Display for Stalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = Bounds::new();
        for bounds in self.0.values() {
            bounds.iter().for_each(|(bound, count)| *all.entry(*bound).or_default() += count);
        }
        for (transform, bounds) in self.0.iter().map(|(name, of)| (name.as_str(), of)).chain([("all", &all)])
        {
            let [half, most, longest] = [500, 990, 1000].map(|of_thousand| match most(bounds, of_thousand) {
                u64::MAX => "more".to_owned(),
                micros => (micros as f64 / 1e3).to_string(),
            });
            writeln!(f, "  {transform:<28}{:>12}{half:>14}{most:>14}{longest:>14}", times(bounds))?;
        }
        Ok(())
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
        all.add(&Stalls::read(page).unwrap());
        let said = all.to_string();
        let lines: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["a", "198", "0.1", "more", "more"]);
        assert_eq!(lines[1], ["b", "2", "5", "5", "5"]);
        assert_eq!(lines[2], ["all", "200", "0.1", "5", "more"]);
        assert!(Stalls::read("pharos_barrier_stall_seconds_bucket{transform=\"a\",le=\"x\"} 1").is_err());
    }
}
