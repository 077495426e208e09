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
