//! A page of metrics in Prometheus' text format.
//!
//! Owns: how families, labels and numbers are written.
//! Must not know: what any metric means.
//! Invariant: whatever is in a label, the page can be read.

use std::fmt::Write as _;

/// The name of a label and its value.
pub(crate) type Label = (&'static str, String);
/// The labels of one value.
pub(crate) type Labels = Vec<Label>;

/// What was written so far.
#[derive(Debug, Default)]
pub(crate) struct Page(String);

impl Page {
    /// Writes all values of one metric.
    pub(crate) fn family(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
        for (labels, value) in values {
            let labels: Vec<String> =
                labels.iter().map(|(label, text)| format!("{label}=\"{}\"", escaped(text))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            self.line(format_args!("{name}{labels} {}", number(value)));
        }
    }

    /// Writes a distribution for each of several labels: how many values were no greater than each bound, and greater
    /// than the one before, in the end how many were greater than all; and their sum.
    pub(crate) fn distribution<'a>(
        &mut self,
        name: &str,
        help: &str,
        bounds: &[f64],
        values: impl IntoIterator<Item = (Label, &'a [u64], f64)>,
    ) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} histogram"));
        for ((label, text), counts, sum) in values {
            let text = escaped(&text);
            let mut all = 0;
            for (bound, count) in bounds.iter().copied().chain([f64::INFINITY]).zip(counts) {
                all += count;
                let bound = number(bound);
                self.line(format_args!("{name}_bucket{{{label}=\"{text}\",le=\"{bound}\"}} {all}"));
            }
            self.line(format_args!("{name}_sum{{{label}=\"{text}\"}} {}", number(sum)));
            self.line(format_args!("{name}_count{{{label}=\"{text}\"}} {all}"));
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a string takes everything");
    }

    /// The page.
    pub(crate) fn text(self) -> String {
        self.0
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// What Rust writes as `inf` is `+Inf` here.
fn number(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_counts_up_to_each_bound() {
        let mut page = Page::default();
        page.distribution("a", "Of a.", &[0.5, 2.0], [(("x", "y\"".to_owned()), &[1, 0, 3][..], 9.5)]);
        let expected = [
            "# HELP a Of a.",
            "# TYPE a histogram",
            r#"a_bucket{x="y\"",le="0.5"} 1"#,
            r#"a_bucket{x="y\"",le="2"} 1"#,
            r#"a_bucket{x="y\"",le="+Inf"} 4"#,
            r#"a_sum{x="y\""} 9.5"#,
            r#"a_count{x="y\""} 4"#,
        ];
        assert_eq!(page.text().lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn every_label_can_be_read_back_and_every_number_is_one() {
        let mut page = Page::default();
        page.family("a", "gauge", "Of a.", [(vec![("x", "q\"\\\n".to_owned()), ("y", "ü".to_owned())], 1.5)]);
        page.family("b", "counter", "Of b.", [(Vec::new(), f64::INFINITY), (Vec::new(), f64::NEG_INFINITY)]);
        assert_eq!(
            page.text(),
            "# HELP a Of a.\n# TYPE a gauge\na{x=\"q\\\"\\\\\\n\",y=\"ü\"} 1.5\n# HELP b Of b.\n# TYPE b counter\nb +Inf\nb -Inf\n"
        );
    }
}
