//! Errors that point into the source.
//!
//! Owns positions, the text of messages and the search for the nearest known name. Must not know
//! what is being checked. Invariant: a [`Diagnostics`] is never empty and is sorted by position.

use std::fmt;

/// A stretch of the source, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

impl Span {
    /// From the first byte up to the byte after the last.
    #[must_use]
    pub fn new(start: usize, end: usize) -> Span {
        Span { start, end }
    }
}

/// Where a text comes from, as its errors name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceName {
    name: String,
    first_line: u32,
    indent: u32,
}

impl SourceName {
    /// A file, or a field of a resource such as `spec.pipeline`: lines and columns count from 1
    /// within the text.
    pub fn new(name: impl Into<String>) -> SourceName {
        SourceName { name: name.into(), first_line: 1, indent: 0 }
    }

    /// A block inside a file: its first line is this line of the file, and each of its lines is
    /// indented there by so many columns. Errors then name the file's lines and columns.
    #[must_use]
    pub fn embedded(self, first_line: u32, indent: u32) -> SourceName {
        SourceName { first_line, indent, ..self }
    }
}

/// A text with its name and its lines.
#[derive(Clone, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) text: &'a str,
    name: SourceName,
    line_starts: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(text: &'a str, name: SourceName) -> Source<'a> {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Source { text, name, line_starts }
    }

    /// The 1-based line and column of a byte, columns in characters.
    pub(crate) fn position(&self, byte: usize) -> (u32, u32) {
        let line = self.line_starts.partition_point(|&start| start <= byte).saturating_sub(1);
        let start = self.line_starts[line];
        let mut end = byte.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let column = self.text[start.min(end)..end].chars().count();
        (line as u32 + self.name.first_line, column as u32 + 1 + self.name.indent)
    }

    fn line_of(&self, byte: usize) -> (usize, &'a str) {
        let line = self.line_starts.partition_point(|&start| start <= byte).saturating_sub(1);
        let start = self.line_starts[line];
        let end = self.line_starts.get(line + 1).map_or(self.text.len(), |next| next - 1);
        (start, self.text[start..end].trim_end_matches('\r'))
    }

    pub(crate) fn diagnostic(&self, span: Span, message: String) -> Diagnostic {
        let (line, column) = self.position(span.start);
        let (start, text) = self.line_of(span.start);
        let visible_end = span.end.clamp(span.start, start + text.len());
        let width =
            self.text.get(span.start..visible_end).map_or(1, |marked| marked.trim_end().chars().count());
        Diagnostic {
            source: self.name.name.clone(),
            line,
            column,
            width: width.max(1) as u32,
            caret: column - self.name.indent,
            text: text.to_owned(),
            message,
            suggestion: None,
            help: None,
        }
    }
}

/// One error: what is wrong, where, and what was perhaps meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    source: String,
    line: u32,
    column: u32,
    width: u32,
    caret: u32,
    text: String,
    message: String,
    suggestion: Option<String>,
    help: Option<String>,
}

impl Diagnostic {
    /// The file, or the field of a resource.
    #[must_use]
    pub fn source_name(&self) -> &str {
        &self.source
    }

    /// The line, from 1.
    #[must_use]
    pub fn line(&self) -> u32 {
        self.line
    }

    /// The column in characters, from 1.
    #[must_use]
    pub fn column(&self) -> u32 {
        self.column
    }

    /// How many characters of the line are meant.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// The line itself.
    #[must_use]
    pub fn line_text(&self) -> &str {
        &self.text
    }

    /// What is wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The nearest known name.
    #[must_use]
    pub fn suggestion(&self) -> Option<&str> {
        self.suggestion.as_deref()
    }

    /// Advice other than a name.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// The error in one line, for a condition or a log.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut line = format!("{}:{}:{}: {}", self.source, self.line, self.column, self.message);
        if let Some(name) = &self.suggestion {
            line.push_str(&format!(" (did you mean `{name}`?)"));
        } else if let Some(help) = &self.help {
            line.push_str(&format!(" ({help})"));
        }
        line
    }

    pub(crate) fn suggest<'a>(mut self, found: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        self.suggestion = nearest(found, known).map(str::to_owned);
        self
    }

    pub(crate) fn with_suggestion(mut self, suggestion: Option<String>) -> Self {
        self.suggestion = suggestion;
        self
    }

    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        writeln!(f, "error: {}", self.message)?;
        writeln!(f, "{margin}--> {}:{}:{}", self.source, self.line, self.column)?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {}", self.text)?;
        let before: String = self
            .text
            .chars()
            .take(self.caret as usize - 1)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        write!(f, "{margin} | {before}{}", "^".repeat(self.width as usize))?;
        if let Some(name) = &self.suggestion {
            write!(f, "\n{margin} = help: did you mean `{name}`?")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n{margin} = help: {help}")?;
        }
        Ok(())
    }
}

/// All errors found, at least one, in the order of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// How many errors are kept; one mistake seldom explains more.
    pub const LIMIT: usize = 50;

    pub(crate) fn new(mut found: Vec<Diagnostic>) -> Diagnostics {
        assert!(!found.is_empty(), "a refusal has a reason");
        found.sort_by(|a, b| (a.line, a.column, &a.message).cmp(&(b.line, b.column, &b.message)));
        found.dedup();
        found.truncate(Self::LIMIT);
        Diagnostics(found)
    }

    /// The errors.
    #[must_use]
    pub fn as_slice(&self) -> &[Diagnostic] {
        &self.0
    }

    /// The first error in one line, and how many more there are.
    #[must_use]
    pub fn summary(&self) -> String {
        match self.0.as_slice() {
            [only] => only.summary(),
            [first, rest @ ..] => format!("{} (and {} more)", first.summary(), rest.len()),
            [] => String::new(),
        }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, diagnostic) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str("\n\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// The known name closest to what was written, if it is close enough to have been meant.
pub(crate) fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (found.chars().count() / 3).max(1);
    let lower = found.to_lowercase();
    known
        .into_iter()
        .filter(|name| *name != found)
        .map(|name| (distance(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= limit && *distance < name.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Edits between two words, a swap of neighbours counted once (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (above[j] + 1).min(row[j - 1] + 1).min(above[j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_shows_the_line_with_a_caret() {
        let source = Source::new("a: 1\nbc: dé fg\n", SourceName::new("spec.pipeline"));
        let found = source.diagnostic(Span::new(13, 15), "no".into()).suggest("fg", ["fgh", "x"]);
        assert_eq!(
            found.to_string(),
            "error: no\n --> spec.pipeline:2:8\n  |\n2 | bc: dé fg\n  |        ^^\n  = help: did you mean `fgh`?"
        );
        assert_eq!(found.summary(), "spec.pipeline:2:8: no (did you mean `fgh`?)");
    }

    #[test]
    fn an_embedded_block_is_named_by_the_lines_of_its_file() {
        let source = Source::new("a: 1\nb: 2\n", SourceName::new("p.yaml").embedded(8, 4));
        let found = source.diagnostic(Span::new(8, 9), "no".into());
        assert_eq!((found.line(), found.column()), (9, 8));
        assert!(found.to_string().ends_with("9 | b: 2\n  |    ^"));
    }

    #[test]
    fn only_near_names_are_suggested() {
        assert_eq!(nearest("Combin", ["Combine", "Create"]), Some("Combine"));
        assert_eq!(nearest("mapToFields", ["MapToFields"]), Some("MapToFields"));
        assert_eq!(nearest("pth", ["path", "delimiter"]), Some("path"));
        assert_eq!(nearest("fiexd", ["fixed", "global"]), Some("fixed"));
        assert_eq!(nearest("zzz", ["path", "delimiter"]), None);
        assert_eq!(nearest("x", ["y"]), None);
    }
}
