//! The API server itself holds the rules of the API.

use pharos_crds::rules::{Example, Rule, Ruled};
use pharos_crds::{Ensemble, Pipeline};
use pharos_e2e::sandbox::Sandbox;
use serde_json::Value;

use super::installed;

#[test]
fn the_api_server_accepts_and_refuses_the_examples_of_every_ensemble_rule() {
    prove_rules::<Ensemble>();
}

#[test]
fn the_api_server_accepts_and_refuses_the_examples_of_every_pipeline_rule() {
    prove_rules::<Pipeline>();
}

#[test]
fn explain_has_text_for_every_field() {
    let cluster = &installed().cluster;
    for kind in ["ensembles", "pipelines"] {
        let crd = cluster.get([&format!("customresourcedefinition/{kind}.pharos.dev")]).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut silent = Vec::new();
        for part in ["spec", "status"] {
            find_silent(&schema["properties"][part], &format!("{kind}.{part}"), &mut silent);
        }
        assert_eq!(silent, Vec::<String>::new());
        let text = cluster.kubectl(["explain", &format!("{kind}.spec")]).unwrap();
        assert!(!text.contains("<empty>"), "{text}");
    }
}

fn find_silent(schema: &Value, path: &str, silent: &mut Vec<String>) {
    if schema["description"].as_str().is_none_or(str::is_empty) {
        silent.push(path.to_owned());
    }
    for inner in [schema, &schema["items"]] {
        for (name, field) in inner["properties"].as_object().into_iter().flatten() {
            find_silent(field, &format!("{path}.{name}"), silent);
        }
    }
}

fn prove_rules<K: Ruled>() {
    let sandbox = Sandbox::new(&installed().cluster, "api").unwrap();
    for rule in K::rules() {
        let accepted = submit(&sandbox, &rule.accepts);
        assert!(accepted.is_ok(), "{}: its accepted example: {accepted:?}", rule.name);
        refuses(&sandbox, rule);
    }
}

fn refuses<K>(sandbox: &Sandbox<'_>, rule: &Rule<K>) {
    let error = format!("{:#}", submit(sandbox, &rule.refuses).expect_err(rule.name));
    assert!(error.contains(rule.message), "{}: {error}", rule.name);
    let broken = error.matches("Invalid value").count();
    assert!(broken <= 1, "{}: more than this rule refuses its example: {error}", rule.name);
}

/// Creates the example, or changes what was there before into it, without keeping either.
fn submit(sandbox: &Sandbox<'_>, example: &Example) -> anyhow::Result<String> {
    let namespace = ["--namespace", &sandbox.name];
    let Some(before) = example.before else {
        let create = ["create", "--dry-run=server", "-f", "-"];
        return sandbox.cluster.kubectl_with_input(namespace.iter().chain(&create), example.manifest);
    };
    sandbox.apply(before)?;
    let replace = ["replace", "--dry-run=server", "-f", "-"];
    let result = sandbox.cluster.kubectl_with_input(namespace.iter().chain(&replace), example.manifest);
    let delete = ["delete", "--wait", "-f", "-"];
    sandbox.cluster.kubectl_with_input(namespace.iter().chain(&delete), before)?;
    result
}
