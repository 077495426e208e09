//! YAML text to a tree with a place on every node.
//!
//! Owns anchors, merge keys, duplicate keys and limits. Must not know Beam. Invariants: scalars mean
//! what PyYAML's `SafeLoader` makes of them (see [`scalar`]), keys of a map are distinct, one document
//! only, and neither depth nor aliases can exhaust memory.

mod scalar;

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span as YamlSpan, Tag};

use crate::diagnostic::{Diagnostic, Source, Span};
pub(crate) use scalar::Scalar;

/// How deep maps and lists may nest.
const MAX_DEPTH: usize = 64;
/// How many nodes a document may have, aliases expanded.
const MAX_NODES: usize = 200_000;
/// How long a document may be.
const MAX_BYTES: usize = 4 << 20;

/// A node and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Yaml {
    pub(crate) span: Span,
    pub(crate) data: Data,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    Scalar(Scalar),
    List(Vec<Yaml>),
    Map(Vec<(Key, Yaml)>),
}

/// A key of a map. Keys that are no text keep the text PyYAML's value prints as.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Key {
    pub(crate) span: Span,
    pub(crate) scalar: Scalar,
}

impl Key {
    /// The key as text; for a key that is no text, how Python prints it.
    pub(crate) fn name(&self) -> String {
        self.scalar.python_str()
    }
}

impl Yaml {
    /// The text, if it is a string.
    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar(Scalar::String(text)) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.data, Data::Scalar(Scalar::Null))
    }

    /// What to call it in a message.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.data {
            Data::Scalar(scalar) => scalar.kind(),
            Data::List(_) => "a list",
            Data::Map(_) => "a map",
        }
    }

    fn size(&self) -> usize {
        1 + match &self.data {
            Data::Scalar(_) => 0,
            Data::List(items) => items.iter().map(Yaml::size).sum(),
            Data::Map(entries) => entries.iter().map(|(_, value)| value.size()).sum(),
        }
    }
}

/// Reads the one document of the source.
pub(crate) fn parse(source: &Source<'_>) -> Result<Yaml, Box<Diagnostic>> {
    if source.text.len() > MAX_BYTES {
        let message = format!("the document is longer than {MAX_BYTES} bytes");
        return Err(Box::new(source.diagnostic(Span::new(0, 0), message)));
    }
    Builder::new(source).run()
}

/// A container that is not closed yet.
struct Open {
    span: Span,
    anchor: usize,
    data: OpenData,
}

enum OpenData {
    List(Vec<Yaml>),
    Map { entries: Vec<(Key, Yaml)>, merged: Vec<(Key, Yaml)>, key: Option<PendingKey> },
}

enum PendingKey {
    Plain(Key),
    Merge(Span),
}

struct Builder<'a> {
    source: &'a Source<'a>,
    /// The byte of each character, unless the text is ASCII.
    bytes: Option<Vec<usize>>,
    stack: Vec<Open>,
    anchors: BTreeMap<usize, Yaml>,
    nodes: usize,
    root: Option<Yaml>,
}

impl<'a> Builder<'a> {
    fn new(source: &'a Source<'a>) -> Self {
        let bytes = (!source.text.is_ascii())
            .then(|| source.text.char_indices().map(|(at, _)| at).chain([source.text.len()]).collect());
        Builder { source, bytes, stack: Vec::new(), anchors: BTreeMap::new(), nodes: 0, root: None }
    }

    fn byte(&self, character: usize) -> usize {
        match &self.bytes {
            None => character.min(self.source.text.len()),
            Some(bytes) => bytes.get(character).copied().unwrap_or(self.source.text.len()),
        }
    }

    fn span(&self, span: YamlSpan) -> Span {
        let start = self.byte(span.start.index());
        Span::new(start, self.byte(span.end.index()).max(start))
    }

    fn error(&self, span: Span, message: impl Into<String>) -> Box<Diagnostic> {
        Box::new(self.source.diagnostic(span, message.into()))
    }

    fn run(mut self) -> Result<Yaml, Box<Diagnostic>> {
        let mut parser = Parser::new_from_str(self.source.text);
        let mut documents = 0;
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| {
                let at = self.byte(error.marker().index());
                self.error(Span::new(at, at + 1), format!("invalid YAML: {}", error.info()))
            })?;
            let span = self.span(span);
            if matches!(event, Event::DocumentStart(_)) {
                documents += 1;
                if documents > 1 {
                    return Err(self.error(span, "expected one document, found a second"));
                }
            }
            self.event(event, span)?;
        }
        let empty = Span::new(0, 0);
        self.root.take().ok_or_else(|| self.error(empty, "the document is empty"))
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Box<Diagnostic>> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let scalar = self.scalar(&text, style, tag.as_deref(), span)?;
                self.add(Yaml { span, data: Data::Scalar(scalar) }, anchor, style)
            }
            Event::SequenceStart(anchor, tag) => {
                self.container_tag(tag.as_deref(), "seq", span)?;
                self.open(Open { span, anchor, data: OpenData::List(Vec::new()) })
            }
            Event::MappingStart(anchor, tag) => {
                self.container_tag(tag.as_deref(), "map", span)?;
                let data = OpenData::Map { entries: Vec::new(), merged: Vec::new(), key: None };
                self.open(Open { span, anchor, data })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::Alias(anchor) => self.alias(anchor, span),
            _ => Ok(()),
        }
    }

    fn scalar(
        &self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        span: Span,
    ) -> Result<Scalar, Box<Diagnostic>> {
        let plain = style == ScalarStyle::Plain;
        let resolved = match tag {
            None if plain => scalar::resolve(text),
            None => Ok(Scalar::String(text.to_owned())),
            Some(tag)
                if tag.handle.is_empty() && tag.suffix == "!"
                    || tag.handle == "!" && tag.suffix.is_empty() =>
            {
                Ok(Scalar::String(text.to_owned()))
            }
            Some(tag) if tag.is_yaml_core_schema() => scalar::resolve_as(text, &tag.suffix),
            Some(tag) => Err(format!("the tag `{tag}` is not supported")),
        };
        resolved.map_err(|message| self.error(span, message))
    }

    fn container_tag(&self, tag: Option<&Tag>, wanted: &str, span: Span) -> Result<(), Box<Diagnostic>> {
        match tag {
            Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == wanted) => {
                Err(self.error(span, format!("the tag `{tag}` is not supported here")))
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, open: Open) -> Result<(), Box<Diagnostic>> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(self.error(open.span, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        if let Some(Open { data: OpenData::Map { key: None, .. }, .. }) = self.stack.last() {
            return Err(self.error(open.span, "a map or list cannot be a key"));
        }
        self.stack.push(open);
        Ok(())
    }

    fn close(&mut self, end: Span) -> Result<(), Box<Diagnostic>> {
        let open = self.stack.pop().expect("the parser balances its events");
        let span = Span::new(open.span.start, end.end.max(open.span.end));
        let data = match open.data {
            OpenData::List(items) => Data::List(items),
            OpenData::Map { entries, merged, .. } => Data::Map(merge(entries, merged)),
        };
        self.add(Yaml { span, data }, open.anchor, ScalarStyle::Plain)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Box<Diagnostic>> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            return Err(self.error(span, "an alias inside the node it stands for"));
        };
        self.nodes += node.size();
        self.add(node, 0, ScalarStyle::SingleQuoted)
    }

    fn add(&mut self, node: Yaml, anchor: usize, style: ScalarStyle) -> Result<(), Box<Diagnostic>> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(self.error(node.span, format!("more than {MAX_NODES} nodes")));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(mut open) = self.stack.pop() else {
            self.root = Some(node);
            return Ok(());
        };
        let added = match &mut open.data {
            OpenData::List(items) => {
                items.push(node);
                Ok(())
            }
            OpenData::Map { entries, merged, key } => match key.take() {
                None => self.key(&node, style, entries).map(|new| *key = Some(new)),
                Some(PendingKey::Plain(name)) => {
                    entries.push((name, node));
                    Ok(())
                }
                Some(PendingKey::Merge(at)) => self.merged(node, at).map(|more| {
                    merged.extend(more);
                }),
            },
        };
        self.stack.push(open);
        added
    }

    fn key(
        &self,
        node: &Yaml,
        style: ScalarStyle,
        entries: &[(Key, Yaml)],
    ) -> Result<PendingKey, Box<Diagnostic>> {
        let Data::Scalar(scalar) = &node.data else {
            return Err(self.error(node.span, "a map or list cannot be a key"));
        };
        if style == ScalarStyle::Plain && *scalar == Scalar::Merge {
            return Ok(PendingKey::Merge(node.span));
        }
        if let Some((first, _)) = entries.iter().find(|(key, _)| key.scalar.same_key(scalar)) {
            let (line, _) = self.source.position(first.span.start);
            let message = format!("duplicate key `{}`, first on line {line}", scalar.python_str());
            return Err(self.error(node.span, message));
        }
        Ok(PendingKey::Plain(Key { span: node.span, scalar: scalar.clone() }))
    }

    /// The entries that a value of `<<` brings in.
    fn merged(&self, node: Yaml, at: Span) -> Result<Vec<(Key, Yaml)>, Box<Diagnostic>> {
        let maps = match node.data {
            Data::Map(entries) => return Ok(entries),
            Data::List(items) => items,
            Data::Scalar(_) => return Err(self.error(at, "`<<` takes a map or a list of maps")),
        };
        let mut all = Vec::new();
        for item in maps.into_iter().rev() {
            match item.data {
                Data::Map(entries) => all.extend(entries),
                _ => return Err(self.error(at, "`<<` takes a map or a list of maps")),
            }
        }
        Ok(all)
    }
}

/// Merged entries come first, as in PyYAML; later ones take the place of earlier ones.
fn merge(own: Vec<(Key, Yaml)>, merged: Vec<(Key, Yaml)>) -> Vec<(Key, Yaml)> {
    if merged.is_empty() {
        return own;
    }
    let mut entries: Vec<(Key, Yaml)> = Vec::new();
    for (key, value) in merged.into_iter().chain(own) {
        match entries.iter_mut().find(|(existing, _)| existing.scalar.same_key(&key.scalar)) {
            Some(place) => *place = (key, value),
            None => entries.push((key, value)),
        }
    }
    entries
}
