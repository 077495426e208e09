//! The files given to `local`: manifests as `kubectl apply` takes them, or plain Beam YAML.
//!
//! Owns telling them apart, the API's rules on them, and where in a file a mistake is. Must not know how
//! anything is run, nor what is inside a Beam YAML document.
//!
//! Invariant: nothing is started before every document of every file is sound; all mistakes are said.

use pharos_beam::SourceName;
use pharos_crds::{Ensemble, Pipeline, PipelineSpec, Ruled, Violation, admit};
use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// What all files together ask for.
#[derive(Debug, Default)]
pub(crate) struct Manifests {
    /// Ensembles, by name.
    pub(crate) ensembles: Vec<LocalEnsemble>,
    /// Pipelines, by name.
    pub(crate) pipelines: Vec<LocalPipeline>,
}

/// An Ensemble of a manifest.
#[derive(Debug)]
pub(crate) struct LocalEnsemble {
    /// Its name.
    pub(crate) name: String,
    /// How many members it would have in Kubernetes.
    pub(crate) replicas: i32,
    /// The highest feature level to go to.
    pub(crate) max_feature_level: Option<u16>,
}

/// A Pipeline of a manifest, or a Beam YAML file.
#[derive(Debug)]
pub(crate) struct LocalPipeline {
    /// The manifest's name, or the file's without its ending.
    pub(crate) name: String,
    /// The Beam YAML document, verbatim.
    pub(crate) document: String,
    /// Where the document is, for messages.
    pub(crate) source: SourceName,
    /// The file it came from.
    pub(crate) file: PathBuf,
    /// The manifest's spec; none for a plain Beam YAML file.
    pub(crate) spec: Option<PipelineSpec>,
}

/// One mistake and where it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    file: PathBuf,
    /// From 1; none when it is the whole file's.
    line: Option<usize>,
    message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file.display(), self.message),
            None => write!(f, "{}: {}", self.file.display(), self.message),
        }
    }
}

/// Reads and checks all files.
pub(crate) fn read(files: &[PathBuf]) -> Result<Manifests, Vec<Mistake>> {
    let mut reading = Reading::default();
    for file in files {
        match std::fs::read_to_string(file) {
            Ok(text) => reading.file(file, &text),
            Err(error) => reading.mistake(file, None, format!("cannot read it: {error}")),
        }
    }
    reading.check_references();
    if reading.mistakes.is_empty() { Ok(reading.found) } else { Err(reading.mistakes) }
}

#[derive(Default)]
struct Reading {
    found: Manifests,
    mistakes: Vec<Mistake>,
    /// Kind and name of what has been seen.
    names: BTreeSet<(&'static str, String)>,
    /// Where each Pipeline names its Ensemble.
    references: Vec<(PathBuf, usize, String)>,
}

impl Reading {
    fn mistake(&mut self, file: &Path, line: Option<usize>, message: impl Into<String>) {
        self.mistakes.push(Mistake { file: file.to_owned(), line, message: message.into() });
    }

    fn file(&mut self, file: &Path, text: &str) {
        let places = match Places::find(text) {
            Ok(places) => places,
            Err((line, message)) => return self.mistake(file, Some(line), message),
        };
        let before = self.found.ensembles.len() + self.found.pipelines.len() + self.mistakes.len();
        for (document, places) in serde_yaml::Deserializer::from_str(text).zip(&places) {
            match Value::deserialize(document) {
                Ok(Value::Null) => {}
                Ok(value) => self.document(file, text, &value, places),
                Err(error) => {
                    let line = error.location().map_or(places.line(""), |location| location.line());
                    self.mistake(file, Some(line), error.to_string());
                }
            }
        }
        if before == self.found.ensembles.len() + self.found.pipelines.len() + self.mistakes.len() {
            self.mistake(file, None, "there is no document in it");
        }
    }

    fn document(&mut self, file: &Path, text: &str, value: &Value, places: &Places) {
        if value.get("apiVersion").is_none() && value.get("kind").is_none() && value.get("pipeline").is_some()
        {
            return self.beam_yaml(file, text, places);
        }
        let version = value.get("apiVersion").and_then(Value::as_str);
        match (version, value.get("kind").and_then(Value::as_str)) {
            (Some("pharos.dev/v1alpha1"), Some("Ensemble")) => self.ensemble(file, value, places),
            (Some("pharos.dev/v1alpha1"), Some("Pipeline")) => self.pipeline(file, value, places),
            (version, kind) => {
                let what = format!("{} {}", version.unwrap_or("no apiVersion"), kind.unwrap_or("no kind"));
                let message = format!(
                    "neither an Ensemble nor a Pipeline of pharos.dev/v1alpha1, nor a Beam YAML document with the key `pipeline`, but {what}"
                );
                self.mistake(file, Some(places.line("")), message);
            }
        }
    }

    fn ensemble(&mut self, file: &Path, value: &Value, places: &Places) {
        let Some((name, ensemble)) = self.admit::<Ensemble>(file, value, places) else { return };
        let max_feature_level = ensemble.spec.max_feature_level.and_then(|level| level.try_into().ok());
        let replicas = ensemble.spec.replicas;
        self.found.ensembles.push(LocalEnsemble { name, replicas, max_feature_level });
    }

    fn pipeline(&mut self, file: &Path, value: &Value, places: &Places) {
        let Some((name, pipeline)) = self.admit::<Pipeline>(file, value, places) else { return };
        let reference = pipeline.spec.ensemble_ref.name.clone();
        self.references.push((file.to_owned(), places.line("spec.ensembleRef.name"), reference));
        let Some(document) = pipeline.spec.pipeline.clone() else {
            let line = places.line("spec.pipelineFrom");
            let message = "spec.pipelineFrom needs a cluster that has the ConfigMap; give the document in spec.pipeline";
            return self.mistake(file, Some(line), message);
        };
        self.found.pipelines.push(LocalPipeline {
            name,
            document,
            source: places.block("spec.pipeline", file),
            file: file.to_owned(),
            spec: Some(pipeline.spec),
        });
    }

    fn beam_yaml(&mut self, file: &Path, text: &str, places: &Places) {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !self.names.insert(("Pipeline", name.clone())) {
            return self.mistake(file, Some(places.line("")), format!("there are two Pipelines {name}"));
        }
        self.found.pipelines.push(LocalPipeline {
            name,
            document: text.to_owned(),
            source: SourceName::new(file.display().to_string()),
            file: file.to_owned(),
            spec: None,
        });
    }

    /// The API's own rules, each mistake at its line.
    fn admit<K: Ruled>(&mut self, file: &Path, value: &Value, places: &Places) -> Option<(String, K)> {
        let name = value.pointer("/metadata/name").and_then(Value::as_str);
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            self.mistake(file, Some(places.line("metadata")), "metadata.name: is required");
            return None;
        };
        if !self.names.insert((K::KIND, name.to_owned())) {
            let line = places.line("metadata.name");
            self.mistake(file, Some(line), format!("there are two {}s {name}", K::KIND));
        }
        match admit::<K>(value) {
            Ok(object) => Some((name.to_owned(), object)),
            Err(violations) => {
                let at = |violation: &Violation| Some(places.line(&violation.field));
                for violation in violations {
                    self.mistake(file, at(&violation), violation.to_string());
                }
                None
            }
        }
    }

    fn check_references(&mut self) {
        for (file, line, name) in std::mem::take(&mut self.references) {
            if !self.names.contains(&("Ensemble", name.clone())) {
                let message =
                    format!("spec.ensembleRef.name: there is no Ensemble {name} in the files given");
                self.mistake(&file, Some(line), message);
            }
        }
    }
}

/// Where the fields of one document are.
#[derive(Debug, Default)]
struct Places {
    lines: BTreeMap<String, usize>,
    /// Block scalars: the line of their first line of text, and its indentation.
    blocks: BTreeMap<String, (usize, usize)>,
}

impl Places {
    /// One for each document of the text.
    fn find(text: &str) -> Result<Vec<Self>, (usize, String)> {
        let mut finder = Finder { text, documents: Vec::new(), open: Vec::new() };
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| (error.marker().line(), error.info().to_owned()))?;
            finder.event(&event, span);
        }
        Ok(finder.documents)
    }

    /// The line of the field, or of the nearest thing around it.
    fn line(&self, path: &str) -> usize {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return *line;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return self.lines.get("").copied().unwrap_or(1),
            }
        }
    }

    /// How messages name what is inside a block of text.
    fn block(&self, path: &str, file: &Path) -> SourceName {
        let file = file.display();
        match self.blocks.get(path) {
            Some((line, indent)) => {
                let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                SourceName::new(file.to_string()).embedded(number(*line), number(*indent))
            }
            None => SourceName::new(format!("{file}: {path}")),
        }
    }
}

/// A collection that is not closed yet.
enum Open {
    Map { path: String, key: Option<String> },
    List { path: String, index: usize },
}

struct Finder<'a> {
    text: &'a str,
    documents: Vec<Places>,
    open: Vec<Open>,
}

impl Finder<'_> {
    fn event(&mut self, event: &Event<'_>, span: Span) {
        match event {
            Event::DocumentStart(_) => self.documents.push(Places::default()),
            Event::MappingStart(..) => {
                let path = self.enter(span);
                self.open.push(Open::Map { path, key: None });
            }
            Event::SequenceStart(..) => {
                let path = self.enter(span);
                self.open.push(Open::List { path, index: 0 });
            }
            Event::MappingEnd | Event::SequenceEnd => {
                self.open.pop();
            }
            Event::Scalar(text, style, ..) => self.scalar(text, *style, span),
            Event::Alias(_) => {
                self.enter(span);
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, span: Span) {
        if let Some(Open::Map { path, key: key @ None }) = self.open.last_mut() {
            *key = Some(text.to_owned());
            // A field is where its key is: a value may begin lines later.
            let path = join(path, text);
            self.note(path, span.start.line());
            return;
        }
        let path = self.enter(span);
        if style == ScalarStyle::Literal {
            // The text begins on the line after the indicator, which stands on the key's line.
            let after = self.documents.last().map_or(0, |document| document.line(&path));
            let lines = self.text.lines().enumerate().skip(after);
            let first = lines.map(|(index, line)| (index + 1, line.len() - line.trim_start().len(), line));
            let filled = first.clone().find(|(_, _, line)| !line.trim().is_empty());
            if let (Some((line, ..)), Some((_, indent, _))) = (first.clone().next(), filled)
                && let Some(document) = self.documents.last_mut()
            {
                document.blocks.insert(path, (line, indent));
            }
        }
    }

    /// The path of the value that begins here.
    fn enter(&mut self, span: Span) -> String {
        let path = match self.open.last_mut() {
            None => String::new(),
            Some(Open::Map { path, key }) => join(path, &key.take().unwrap_or_default()),
            Some(Open::List { path, index }) => {
                *index += 1;
                format!("{path}[{}]", *index - 1)
            }
        };
        self.note(path.clone(), span.start.line());
        path
    }

    fn note(&mut self, path: String, line: usize) {
        if let Some(document) = self.documents.last_mut() {
            document.lines.entry(path).or_insert(line);
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENSEMBLE: &str =
        "apiVersion: pharos.dev/v1alpha1\nkind: Ensemble\nmetadata:\n  name: main\nspec:\n  replicas: 3\n";
    const PIPELINE: &str = "apiVersion: pharos.dev/v1alpha1\nkind: Pipeline\nmetadata:\n  name: clicks\nspec:\n  \
                            ensembleRef:\n    name: main\n  upgradeMode: Stateless\n  pipeline: |\n    # first\n    \
                            pipeline:\n      type: chain\n";

    fn read_text(files: &[(&str, &str)]) -> Result<Manifests, Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        let paths = files.iter().map(|(name, text)| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        });
        let paths: Vec<PathBuf> = paths.collect();
        let prefix = format!("{}/", dir.path().display());
        read(&paths).map_err(|mistakes| {
            mistakes.iter().map(|mistake| mistake.to_string().replace(&prefix, "")).collect()
        })
    }

    #[test]
    fn what_kubectl_takes_is_taken_and_the_document_is_verbatim() {
        let found = read_text(&[("all.yaml", &format!("{ENSEMBLE}---\n{PIPELINE}"))]).unwrap();
        assert_eq!((found.ensembles[0].name.as_str(), found.ensembles[0].replicas), ("main", 3));
        assert_eq!(found.pipelines[0].document, "# first\npipeline:\n  type: chain\n");
        assert_eq!(found.pipelines[0].name, "clicks");
    }

    #[test]
    fn a_block_is_named_by_the_line_and_column_of_the_file() {
        let found = read_text(&[("all.yaml", &format!("{ENSEMBLE}---\n{PIPELINE}"))]).unwrap();
        let name = found.pipelines[0].file.display().to_string();
        assert_eq!(found.pipelines[0].source, SourceName::new(name).embedded(17, 4));
    }

    #[test]
    fn a_plain_beam_yaml_file_is_a_pipeline_of_its_name() {
        let text = "pipeline:\n  type: chain\n";
        let found = read_text(&[("words.yaml", text)]).unwrap();
        assert_eq!((found.pipelines[0].name.as_str(), found.pipelines[0].document.as_str()), ("words", text));
        assert!(found.pipelines[0].spec.is_none());
    }

    #[test]
    fn every_mistake_is_told_with_file_and_line() {
        let even = ENSEMBLE.replace('3', "4");
        let lost = PIPELINE.replace("    name: main", "    name: other");
        let mistakes = read_text(&[("e.yaml", &even), ("p.yaml", &lost)]).unwrap_err();
        assert_eq!(mistakes.len(), 2, "{mistakes:?}");
        assert!(mistakes[0].starts_with("e.yaml:5: spec: replicas must be 1, 3, 5 or 7"), "{mistakes:?}");
        assert!(mistakes[1].starts_with("p.yaml:7: spec.ensembleRef.name: there is no Ensemble other"));
    }

    #[test]
    fn unknown_fields_kinds_and_broken_yaml_are_told_with_their_line() {
        let unknown = format!("{ENSEMBLE}  replica: 3\n");
        let mistakes = read_text(&[("e.yaml", &unknown)]).unwrap_err();
        assert!(mistakes[0].starts_with("e.yaml:7: spec.replica"), "{mistakes:?}");
        let mistakes = read_text(&[("c.yaml", "apiVersion: v1\nkind: ConfigMap\n")]).unwrap_err();
        assert!(mistakes[0].starts_with("c.yaml:1: neither an Ensemble"), "{mistakes:?}");
        let mistakes = read_text(&[("b.yaml", "a: b\nc: [\n")]).unwrap_err();
        assert!(mistakes[0].starts_with("b.yaml:"), "{mistakes:?}");
        assert_eq!(
            read_text(&[("n.yaml", "# nothing\n")]).unwrap_err(),
            ["n.yaml: there is no document in it"]
        );
        let twice = format!("{ENSEMBLE}---\n{ENSEMBLE}");
        assert_eq!(
            read_text(&[("t.yaml", &twice)]).unwrap_err(),
            ["t.yaml:11: there are two Ensembles main"]
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let mistakes = read(&[PathBuf::from("/no/such.yaml")]).unwrap_err();
        assert!(mistakes[0].to_string().starts_with("/no/such.yaml: cannot read it"), "{mistakes:?}");
    }
}
