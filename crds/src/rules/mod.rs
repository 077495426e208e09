//! Owns the shape of a rule and the engine that applies a table of them. Must not know what a rule is about (that is
//! in `ensemble` and `pipeline`), nor talk to an API server.
//!
//! Invariant: a rule is one row: the CEL expression of the CRD, the predicate of `local`, the message and both examples
//! stand side by side, and a test proves each example.

pub mod ensemble;
pub mod pipeline;

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Ensemble, Pipeline, schema};

/// One rule of the API.
pub struct Rule<K: 'static> {
    /// Name of the rule, unique in its table; tests are named after it.
    pub name: &'static str,
    /// Where the rule stands in the schema: empty for the object itself, or a path such as `spec.storage`.
    pub path: &'static str,
    /// The CEL expression, with `self` at `path`. A mention of `oldSelf` makes it a transition rule.
    pub cel: &'static str,
    /// What the user reads when the rule is broken.
    pub message: &'static str,
    /// The same rule in Rust, given the object and the object before the change, if any.
    pub holds: fn(&K, Option<&K>) -> bool,
    /// An object, or a change, that the rule accepts.
    pub accepts: Example,
    /// An object, or a change, that this rule alone refuses.
    pub refuses: Example,
}

/// A manifest as a user would write it and, for a transition rule, the manifest before the change.
#[derive(Clone, Copy, Debug)]
pub struct Example {
    /// The manifest before the change.
    pub before: Option<&'static str>,
    /// The manifest.
    pub manifest: &'static str,
}

impl Example {
    /// A manifest that is created.
    #[must_use]
    pub const fn create(manifest: &'static str) -> Self {
        Self { before: None, manifest }
    }

    /// A manifest that replaces another.
    #[must_use]
    pub const fn update(before: &'static str, manifest: &'static str) -> Self {
        Self { before: Some(before), manifest }
    }
}

/// A broken rule or bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field, such as `spec.replicas`; empty for the object itself.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.field, self.message)
        }
    }
}

/// A kind with a table of rules.
pub trait Ruled: Sized + DeserializeOwned + 'static {
    /// Name of the kind.
    const KIND: &'static str;
    /// The table.
    fn rules() -> &'static [Rule<Self>];
    /// The CRD with the rules of the table in it.
    fn definition()
    -> k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
}

impl Ruled for Ensemble {
    const KIND: &'static str = "Ensemble";
    fn rules() -> &'static [Rule<Self>] {
        ensemble::RULES
    }
    fn definition()
    -> k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition {
        schema::ensemble()
    }
}

impl Ruled for Pipeline {
    const KIND: &'static str = "Pipeline";
    fn rules() -> &'static [Rule<Self>] {
        pipeline::RULES
    }
    fn definition()
    -> k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition {
        schema::pipeline()
    }
}

/// Checks a new object against its table.
///
/// # Errors
/// Every broken rule.
pub fn validate<K: Ruled>(new: &K) -> Result<(), Vec<Violation>> {
    check(new, None)
}

/// Checks a change of an object against its table, transition rules included.
///
/// # Errors
/// Every broken rule.
pub fn validate_update<K: Ruled>(new: &K, old: &K) -> Result<(), Vec<Violation>> {
    check(new, Some(old))
}

fn check<K: Ruled>(new: &K, old: Option<&K>) -> Result<(), Vec<Violation>> {
    let broken: Vec<Violation> = K::rules()
        .iter()
        .filter(|rule| !(rule.holds)(new, old))
        .map(|rule| Violation { field: rule.path.to_owned(), message: rule.message.to_owned() })
        .collect();
    if broken.is_empty() { Ok(()) } else { Err(broken) }
}

/// Reads a manifest as an API server would: bounds and unknown fields by the schema, defaults, then the rules.
///
/// # Errors
/// Every violation found in the first stage that finds any.
pub fn admit<K: Ruled>(manifest: &Value) -> Result<K, Vec<Violation>> {
    schema::check(&K::definition(), manifest)?;
    let object: K = serde_json::from_value(manifest.clone())
        .map_err(|error| vec![Violation { field: String::new(), message: error.to_string() }])?;
    validate(&object)?;
    Ok(object)
}

/// Seconds of a time as the API writes it: a whole number and one of `s`, `m`, `h`.
#[must_use]
pub fn seconds(text: &str) -> Option<u64> {
    let (number, factor) = [("s", 1), ("m", 60), ("h", 3600)]
        .into_iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit).map(|number| (number, factor)))?;
    digits(number)?.checked_mul(factor)
}

/// Bytes of a size as the API writes it: a whole number and one of `Mi`, `Gi`, `Ti`.
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    let (number, factor) = [("Mi", 1 << 20), ("Gi", 1 << 30), ("Ti", 1 << 40)]
        .into_iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit).map(|number| (number, factor)))?;
    digits(number)?.checked_mul(factor)
}

fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) { None } else { text.parse().ok() }
}

/// Whether a name can begin the names of Services and Pods: a DNS label that starts with a letter.
#[must_use]
pub(crate) fn is_dns_label(name: &str) -> bool {
    let bytes = name.as_bytes();
    let word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.last().is_some_and(word)
        && bytes.iter().all(|byte| word(byte) || *byte == b'-')
}

/// Whether an image names exactly one of tag and digest.
#[must_use]
pub(crate) fn image_is_exact(image: Option<&crate::ImageSpec>) -> bool {
    image.is_none_or(|image| image.tag.is_some() != image.digest.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(manifest: &str) -> Value {
        serde_yaml::from_str(manifest).expect("an example is YAML")
    }

    fn verdict<K: Ruled>(example: &Example) -> Result<(), Vec<Violation>> {
        let Some(before) = example.before else {
            return admit::<K>(&value(example.manifest)).map(|_| ());
        };
        let old = admit::<K>(&value(before)).expect("the manifest before a change is itself valid");
        schema::check(&K::definition(), &value(example.manifest))?;
        let new: K =
            serde_json::from_value(value(example.manifest)).expect("an example has the shape of its kind");
        validate_update(&new, &old)
    }

    fn examples_agree<K: Ruled>() {
        for rule in K::rules() {
            assert_eq!(verdict::<K>(&rule.accepts), Ok(()), "{} {} accepts", K::KIND, rule.name);
            let broken = vec![Violation { field: rule.path.into(), message: rule.message.into() }];
            assert_eq!(verdict::<K>(&rule.refuses), Err(broken), "{} {} refuses", K::KIND, rule.name);
            assert_eq!(
                rule.cel.contains("oldSelf"),
                rule.refuses.before.is_some(),
                "{} is of one sort",
                rule.name
            );
        }
    }

    #[test]
    fn every_ensemble_rule_accepts_and_refuses_its_examples() {
        examples_agree::<Ensemble>();
    }

    #[test]
    fn every_pipeline_rule_accepts_and_refuses_its_examples() {
        examples_agree::<Pipeline>();
    }

    #[test]
    fn rule_names_are_unique() {
        let mut names: Vec<_> = Ensemble::rules().iter().map(|rule| rule.name).collect();
        names.extend(Pipeline::rules().iter().map(|rule| rule.name));
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn sizes_and_times_are_whole_numbers_with_a_unit() {
        assert_eq!(bytes("10Gi"), Some(10 << 30));
        assert_eq!(
            (bytes("10G"), bytes("Gi"), bytes("+1Gi"), bytes("99999999999999999Ti")),
            (None, None, None, None)
        );
        assert_eq!((seconds("10s"), seconds("2m"), seconds("1h")), (Some(10), Some(120), Some(3600)));
        assert_eq!((seconds("10"), seconds("1m30s"), seconds("-1s")), (None, None, None));
    }

    #[test]
    fn an_unknown_field_and_a_broken_bound_are_named() {
        let manifest = value(
            "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: a}, spec: {replicas: 9, storge: {}}}",
        );
        let found: Vec<String> = admit::<Ensemble>(&manifest)
            .expect_err("two mistakes")
            .iter()
            .map(Violation::to_string)
            .collect();
        assert_eq!(found, ["spec.replicas: 9 is greater than 7", "spec.storge: unknown field"]);
    }
}
