//! What a query answers, and whether two sides answer the same.
//!
//! Invariant: the order of rows does not matter, how often each is there does.

use anyhow::ensure;
use serde_json::Value;

/// How many rows of a difference are shown.
const SHOWN: usize = 3;

/// Rows in order, each the text of a JSON array.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer(Vec<String>);

impl Answer {
    pub(super) fn of(rows: impl IntoIterator<Item = Value>) -> Self {
        let mut rows: Vec<String> = rows.into_iter().map(|row| row.to_string()).collect();
        rows.sort_unstable();
        Self(rows)
    }

    pub(super) fn rows(&self) -> usize {
        self.0.len()
    }

    /// Whether this, which is right, is what another side answers too.
    ///
    /// # Errors
    /// If not; it shows the first rows that differ.
    pub(super) fn ensure_is(&self, other: &Self) -> anyhow::Result<()> {
        let lost = without(&self.0, &other.0);
        let wrong = without(&other.0, &self.0);
        ensure!(
            lost.is_empty() && wrong.is_empty(),
            "{} rows instead of {}: {} are lost, the first {:?}; {} are wrong, the first {:?}",
            other.rows(),
            self.rows(),
            lost.len(),
            &lost[..lost.len().min(SHOWN)],
            wrong.len(),
            &wrong[..wrong.len().min(SHOWN)],
        );
        Ok(())
    }
}

/// Those of `rows` that `others` does not have, or not as often; both are in order.
fn without<'a>(rows: &'a [String], others: &[String]) -> Vec<&'a str> {
    let mut others = others.iter().peekable();
    let mut missing = Vec::new();
    for row in rows {
        while others.next_if(|other| *other < row).is_some() {}
        if others.next_if_eq(&row).is_none() {
            missing.push(row.as_str());
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_count_as_often_as_they_are_there() {
        let right = Answer::of([json!([1, "a"]), json!([2, "b"]), json!([2, "b"])]);
        right.ensure_is(&Answer::of([json!([2, "b"]), json!([1, "a"]), json!([2, "b"])])).unwrap();
        let error = right.ensure_is(&Answer::of([json!([1, "a"]), json!([2, "b"]), json!([3, "b"])]));
        assert_eq!(
            error.unwrap_err().to_string(),
            r#"3 rows instead of 3: 1 are lost, the first ["[2,\"b\"]"]; 1 are wrong, the first ["[3,\"b\"]"]"#
        );
    }
}
