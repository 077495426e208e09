//! Owns the CRDs: what the derive makes of the types, put right, with the rules of the tables in their places; their
//! YAML; and a check of a manifest against them. Must not know what any field means.
//!
//! Invariant: the same types give the same bytes, and the YAML in `generated/` is those bytes.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_core::CustomResourceExt;
use serde_json::{Map, Value, json};

use crate::rules::{Rule, Violation};
use crate::{Ensemble, Pipeline, rules};

/// The CRD of `Ensemble`, with its rules.
#[must_use]
pub fn ensemble() -> CustomResourceDefinition {
    finish(Ensemble::crd(), rules::ensemble::RULES)
}

/// The CRD of `Pipeline`, with its rules.
#[must_use]
pub fn pipeline() -> CustomResourceDefinition {
    finish(Pipeline::crd(), rules::pipeline::RULES)
}

/// Each committed file: its name and its text.
#[must_use]
pub fn files() -> [(&'static str, String); 2] {
    [("pharos.dev_ensembles.yaml", yaml(&ensemble())), ("pharos.dev_pipelines.yaml", yaml(&pipeline()))]
}

fn yaml(crd: &CustomResourceDefinition) -> String {
    let mut value = serde_json::to_value(crd).expect("a CRD is plain data");
    normalise(&mut value);
    let text = serde_yaml::to_string(&value).expect("a CRD is plain data");
    format!("# Generated from the types in crds/src by `./x codegen`. Do not edit.\n---\n{text}")
}

fn finish<K>(crd: CustomResourceDefinition, rules: &[Rule<K>]) -> CustomResourceDefinition {
    let mut value = serde_json::to_value(crd).expect("a CRD is plain data");
    let root = value
        .pointer_mut("/spec/versions/0/schema/openAPIV3Schema")
        .expect("the derive makes one version with a schema");
    normalise(root);
    describe_root(root);
    for rule in rules {
        insert(root, rule);
    }
    serde_json::from_value(value).expect("what was put right is still a CRD")
}

/// The derive leaves unsigned bounds as floats, line breaks of the source in descriptions, and
/// `additionalProperties: false`, which a structural schema must not have.
fn normalise(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.get("additionalProperties") == Some(&Value::Bool(false)) {
                map.remove("additionalProperties");
            }
            if let Some(Value::String(text)) = map.get_mut("description") {
                *text = text.split("\n\n").map(join_lines).collect::<Vec<_>>().join("\n\n");
            }
            map.values_mut().for_each(normalise);
        }
        Value::Array(items) => items.iter_mut().for_each(normalise),
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0) {
                // Bounds are far below 2^53, where every whole float is exact.
                #[expect(clippy::cast_possible_truncation, reason = "the fraction is zero")]
                let whole = float as i64;
                *schema = json!(whole);
            }
        }
        _ => {}
    }
}

fn join_lines(paragraph: &str) -> String {
    paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `kubectl explain` shows these beside `spec`, and the derive leaves them out or bare.
fn describe_root(root: &mut Value) {
    let texts = [
        ("apiVersion", "API group and version: `pharos.dev/v1alpha1`."),
        ("kind", "The kind of this object."),
        ("status", "What the operator has seen. Written by the operator alone."),
    ];
    let properties =
        root.pointer_mut("/properties").and_then(Value::as_object_mut).expect("the root has fields");
    for (field, text) in texts {
        let schema = properties.entry(field).or_insert_with(|| json!({"type": "string"}));
        schema["description"] = json!(text);
    }
    // The API server describes it, and refuses a description of ours.
    properties.insert("metadata".into(), json!({"type": "object"}));
}

fn insert<K>(root: &mut Value, rule: &Rule<K>) {
    let schema = at_mut(root, rule.path).expect("a rule stands at a field that exists");
    let list = schema.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
    let list = list.as_array_mut().expect("the key holds a list");
    list.push(json!({"rule": rule.cel, "message": rule.message}));
}

fn at_mut<'a>(root: &'a mut Value, path: &str) -> Option<&'a mut Map<String, Value>> {
    let mut schema = root;
    for step in path.split('.').filter(|step| !step.is_empty()) {
        schema = schema.get_mut("properties")?.get_mut(step.trim_end_matches("[]"))?;
        if step.ends_with("[]") {
            schema = schema.get_mut("items")?;
        }
    }
    schema.as_object_mut()
}

/// Checks a manifest against the schema of a CRD: types, required and unknown fields, bounds and enumerations.
///
/// # Errors
/// Every violation, in the order of the manifest.
pub fn check(crd: &CustomResourceDefinition, manifest: &Value) -> Result<(), Vec<Violation>> {
    let mut value = serde_json::to_value(crd).expect("a CRD is plain data");
    normalise(&mut value);
    let root = value
        .pointer("/spec/versions/0/schema/openAPIV3Schema")
        .expect("the derive makes one version with a schema");
    let mut found = Vec::new();
    check_at(root, manifest, "", &mut found);
    if found.is_empty() { Ok(()) } else { Err(found) }
}

fn check_at(schema: &Value, value: &Value, path: &str, found: &mut Vec<Violation>) {
    if value.is_null() && (schema["nullable"] == true || path.is_empty()) {
        return;
    }
    if let Some(expected) = wrong_type(schema, value) {
        return found.push(violation(path, format!("must be of type {expected}")));
    }
    if let Some(options) = schema["enum"].as_array().filter(|options| !options.contains(value)) {
        let names: Vec<String> = options.iter().filter(|option| !option.is_null()).map(plain).collect();
        found.push(violation(path, format!("{} is not one of {}", plain(value), names.join(", "))));
    }
    match value {
        Value::Object(fields) => check_object(schema, fields, path, found),
        Value::Array(items) => {
            bound(&schema["maxItems"], items.len(), "items", path, found);
            for (index, item) in items.iter().enumerate() {
                check_at(&schema["items"], item, &format!("{path}[{index}]"), found);
            }
        }
        Value::String(text) => {
            let length = text.chars().count();
            bound(&schema["maxLength"], length, "characters", path, found);
            if schema["minLength"].as_u64().is_some_and(|least| (length as u64) < least) {
                found.push(violation(path, format!("must have at least {} characters", schema["minLength"])));
            }
        }
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or(f64::NAN);
            if schema["minimum"].as_f64().is_some_and(|least| number < least) {
                found.push(violation(path, format!("{value} is less than {}", schema["minimum"])));
            }
            if schema["maximum"].as_f64().is_some_and(|most| number > most) {
                found.push(violation(path, format!("{value} is greater than {}", schema["maximum"])));
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn check_object(schema: &Value, fields: &Map<String, Value>, path: &str, found: &mut Vec<Violation>) {
    bound(&schema["maxProperties"], fields.len(), "entries", path, found);
    let known = schema["properties"].as_object();
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            found.push(violation(&join(path, name), "required field is missing".into()));
        }
    }
    for (name, value) in fields {
        let path = join(path, name);
        match (known.and_then(|known| known.get(name)), &schema["additionalProperties"]) {
            (Some(field), _) => check_at(field, value, &path, found),
            (None, Value::Object(_)) => check_at(&schema["additionalProperties"], value, &path, found),
            (None, _) if known.is_some() && schema["x-kubernetes-preserve-unknown-fields"] != true => {
                found.push(violation(&path, "unknown field".into()));
            }
            (None, _) => {}
        }
    }
}

fn wrong_type<'a>(schema: &'a Value, value: &Value) -> Option<&'a str> {
    let expected = schema["type"].as_str()?;
    let right = match expected {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => true,
    };
    (!right).then_some(expected)
}

fn bound(most: &Value, length: usize, unit: &str, path: &str, found: &mut Vec<Violation>) {
    if most.as_u64().is_some_and(|most| length as u64 > most) {
        found.push(violation(path, format!("must have at most {most} {unit}")));
    }
}

fn violation(path: &str, message: String) -> Violation {
    Violation { field: path.to_owned(), message }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn bare(schema: &Value, path: &str, found: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = join(path, name);
            if field["description"].as_str().is_none_or(|text| text.trim().is_empty()) {
                found.push(path.clone());
            }
            for below in [field, &field["items"], &field["additionalProperties"]] {
                bare(below, &path, found);
            }
        }
    }

    #[test]
    fn every_field_has_a_description() {
        for crd in [ensemble(), pipeline()] {
            let value = serde_json::to_value(&crd).expect("a CRD is plain data");
            let mut found = Vec::new();
            bare(&value["spec"]["versions"][0]["schema"]["openAPIV3Schema"], "", &mut found);
            assert_eq!(found, ["metadata"], "the API server describes metadata itself");
        }
    }

    #[test]
    fn the_committed_yaml_is_what_the_types_give() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (name, text) in files() {
            for directory in ["generated", "../charts/pharos/files/crds"] {
                let committed = std::fs::read_to_string(here.join(directory).join(name)).unwrap_or_default();
                assert!(committed == text, "{directory}/{name} is stale: run ./x codegen");
            }
        }
    }

    #[test]
    fn kubectl_scales_a_pipeline_by_fields_that_exist_and_no_ensemble() {
        let subresources = |crd: &CustomResourceDefinition| {
            let found = crd.spec.versions[0].subresources.clone().expect("a status subresource");
            assert!(found.status.is_some());
            found.scale
        };
        // Of an Ensemble, only odd numbers of members make sense.
        assert_eq!(subresources(&ensemble()), None);
        let scale = subresources(&pipeline()).expect("a scale subresource");
        let selector = scale.label_selector_path.expect("who scales by use asks for the pods");
        let crd = serde_json::to_value(pipeline()).expect("a CRD is plain data");
        let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let paths = [(scale.spec_replicas_path, "integer"), (scale.status_replicas_path, "integer")];
        for (path, kind) in paths.into_iter().chain([(selector, "string")]) {
            let field = path.split('.').skip(1).fold(root, |schema, step| &schema["properties"][step]);
            assert_eq!(field["type"], kind, "{path}");
        }
    }

    #[test]
    fn every_own_string_list_and_map_is_bounded() {
        // The API server estimates the cost of CEL from bounds; Kubernetes' own types carry none and have no rules.
        fn unbounded(schema: &Value, path: &str, found: &mut Vec<String>) {
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                let path = join(path, name);
                let bounded = match field["type"].as_str() {
                    Some("string") => field["maxLength"].is_u64() || field["enum"].is_array(),
                    Some("array") => field["maxItems"].is_u64(),
                    Some("object") if field["properties"].is_null() => field["maxProperties"].is_u64(),
                    Some("integer") => field["maximum"].is_number(),
                    _ => true,
                };
                if !bounded {
                    found.push(path.clone());
                }
                if !path.starts_with("spec.pods.") {
                    unbounded(field, &path, found);
                    unbounded(&field["items"], &path, found);
                }
            }
        }
        for crd in [ensemble(), pipeline()] {
            let value = serde_json::to_value(&crd).expect("a CRD is plain data");
            let mut found = Vec::new();
            let spec = &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
            unbounded(spec, "spec", &mut found);
            found.retain(|path| path != "spec.pods.resources" && path != "spec.pods.affinity");
            assert_eq!(found, Vec::<String>::new());
        }
    }
}
