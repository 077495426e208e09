//! Reading maps of the document: known keys, expected kinds, errors collected.
//!
//! Owns the collection of errors. Must not know transforms.

use std::cell::RefCell;

use crate::diagnostic::{Diagnostic, Source, Span};
use crate::yaml::{Data, Key, Scalar, Yaml};

/// The source, and what has been found wrong in it.
pub(crate) struct Context<'a> {
    pub(crate) source: Source<'a>,
    found: RefCell<Vec<Diagnostic>>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(source: Source<'a>) -> Self {
        Context { source, found: RefCell::new(Vec::new()) }
    }

    pub(crate) fn at(&self, span: Span, message: impl Into<String>) -> Diagnostic {
        self.source.diagnostic(span, message.into())
    }

    pub(crate) fn report(&self, diagnostic: Diagnostic) {
        self.found.borrow_mut().push(diagnostic);
    }

    pub(crate) fn error(&self, span: Span, message: impl Into<String>) {
        self.report(self.at(span, message));
    }

    pub(crate) fn count(&self) -> usize {
        self.found.borrow().len()
    }

    pub(crate) fn into_found(self) -> Vec<Diagnostic> {
        self.found.into_inner()
    }

    /// The entries of a map; anything else is an error.
    pub(crate) fn map<'y>(&self, yaml: &'y Yaml, what: &str) -> Option<Entries<'y>> {
        match &yaml.data {
            Data::Map(entries) => Some(Entries { entries }),
            _ => {
                self.error(yaml.span, format!("{what} must be a map, not {}", yaml.kind()));
                None
            }
        }
    }

    pub(crate) fn list<'y>(&self, yaml: &'y Yaml, what: &str) -> Option<&'y [Yaml]> {
        match &yaml.data {
            Data::List(items) => Some(items),
            _ => {
                self.error(yaml.span, format!("{what} must be a list, not {}", yaml.kind()));
                None
            }
        }
    }

    pub(crate) fn text<'y>(&self, yaml: &'y Yaml, what: &str) -> Option<&'y str> {
        let text = yaml.as_str();
        if text.is_none() {
            let error = self.at(yaml.span, format!("{what} must be a string, not {}", yaml.kind()));
            self.report(match &yaml.data {
                Data::Scalar(Scalar::Bool(_) | Scalar::Int(_) | Scalar::Float(_) | Scalar::Timestamp(_)) => {
                    error.with_help("YAML 1.1 reads this as another type: quote it")
                }
                _ => error,
            });
        }
        text
    }

    pub(crate) fn boolean(&self, yaml: &Yaml, what: &str) -> Option<bool> {
        match yaml.data {
            Data::Scalar(Scalar::Bool(value)) => Some(value),
            _ => {
                self.error(yaml.span, format!("{what} must be true or false, not {}", yaml.kind()));
                None
            }
        }
    }

    /// A string, or a list of strings.
    pub(crate) fn texts<'y>(&self, yaml: &'y Yaml, what: &str) -> Option<Vec<(&'y str, Span)>> {
        if let Some(text) = yaml.as_str() {
            return Some(vec![(text, yaml.span)]);
        }
        let items = self.list(yaml, what)?;
        items
            .iter()
            .map(|item| self.text(item, "an item of the list").map(|text| (text, item.span)))
            .collect()
    }
}

/// The entries of a map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entries<'y> {
    pub(crate) entries: &'y [(Key, Yaml)],
}

impl<'y> Entries<'y> {
    pub(crate) fn empty() -> Entries<'y> {
        Entries { entries: &[] }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'y Yaml> {
        self.entry(name).map(|(_, value)| value)
    }

    pub(crate) fn entry(&self, name: &str) -> Option<(&'y Key, &'y Yaml)> {
        let is = |key: &Key| matches!(&key.scalar, Scalar::String(text) if text == name);
        self.entries.iter().find(|(key, _)| is(key)).map(|(key, value)| (key, value))
    }

    /// The value of a key that must be there; `owner` is where its absence is reported.
    pub(crate) fn required(&self, cx: &Context<'_>, name: &str, owner: Span, what: &str) -> Option<&'y Yaml> {
        let value = self.get(name);
        if value.is_none() {
            cx.error(owner, format!("{what} lacks `{name}`"));
        }
        value
    }

    /// Refuses keys that are not known.
    pub(crate) fn only(&self, cx: &Context<'_>, known: &[&str], what: &str) {
        for (key, _) in self.entries {
            let name = key.name();
            if !known.contains(&name.as_str()) {
                let error = cx.at(key.span, format!("unknown key `{name}` of {what}"));
                let error = error.suggest(&name, known.iter().copied());
                cx.report(if error.suggestion().is_none() && !known.is_empty() {
                    error.with_help(format!("known keys: {}", known.join(", ")))
                } else {
                    error
                });
            }
        }
    }
}
