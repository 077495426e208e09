//! Checkpoints that a side has completed in its runs.
//!
//! Owns how they are counted and shown. Must not know how a side tells of them. Invariant: a run without any counts, too.

use std::fmt;

/// A side's, of all its measured runs.
#[derive(Default)]
pub(super) struct Checkpoints {
    runs: usize,
    /// How many bytes each one wrote.
    bytes: Vec<u64>,
}

impl Checkpoints {
    pub(super) fn add_run(&mut self, bytes: &[u64]) {
        self.runs += 1;
        self.bytes.extend(bytes);
    }
}

impl fmt::Display for Checkpoints {
    /// How many a run had and what one wrote, as means.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bytes.is_empty() {
            return f.write_str("–");
        }
        let (count, bytes) = (self.bytes.len() as f64, self.bytes.iter().sum::<u64>() as f64);
        write!(f, "{:.1} of {:.2} MB", count / self.runs as f64, bytes / count / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_shown_by_their_means() {
        let mut checkpoints = Checkpoints::default();
        checkpoints.add_run(&[1_000_000, 2_000_000]);
        checkpoints.add_run(&[3_000_000]);
        assert_eq!(checkpoints.to_string(), "1.5 of 2.00 MB");
        assert_eq!(Checkpoints::default().to_string(), "–");
    }
}
