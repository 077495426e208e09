//! Owns the rules of a `Pipeline`. Must not know how they are applied, nor what is inside the document.
//!
//! Invariant: each row refuses its refusing example alone, so that a user reads one message for one mistake.

use super::{Example, Rule, image_is_exact, is_dns_label, seconds};
use crate::{CheckpointSpec, Pipeline, UpgradeMode, Variable, names};

const PLAIN: &str = "{apiVersion: pharos.dev/v1alpha1, kind: Pipeline, metadata: {name: clicks}, \
                     spec: {ensembleRef: {name: main}, upgradeMode: Stateless, pipeline: 'pipeline: {}'}}";

/// The rules of a Pipeline.
pub const RULES: &[Rule<Pipeline>] = &[
    Rule {
        name: "pipeline-name-length",
        path: "",
        cel: "size(self.metadata.name) <= 40",
        message: "metadata.name must have at most 40 characters, since the names of pods and services derive from it",
        holds: |new, _| new.metadata.name.as_ref().is_none_or(|name| name.len() <= names::MAX_NAME_LENGTH),
        accepts: Example::create(PLAIN),
        refuses: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Pipeline, metadata: {name: \
             a2345678901234567890123456789012345678901}, \
             spec: {ensembleRef: {name: main}, upgradeMode: Stateless, pipeline: 'pipeline: {}'}}",
        ),
    },
    Rule {
        name: "pipeline-name-label",
        path: "",
        cel: "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        message: "metadata.name must start with a letter and have only lower-case letters, digits and '-', since the \
                  names of services derive from it",
        holds: |new, _| new.metadata.name.as_deref().is_none_or(is_dns_label),
        accepts: Example::create(PLAIN),
        refuses: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Pipeline, metadata: {name: 1a}, \
             spec: {ensembleRef: {name: main}, upgradeMode: Stateless, pipeline: 'pipeline: {}'}}",
        ),
    },
    Rule {
        name: "pipeline-one-document",
        path: "spec",
        cel: "has(self.pipeline) != has(self.pipelineFrom)",
        message: "exactly one of pipeline and pipelineFrom must be given",
        holds: |new, _| new.spec.pipeline.is_some() != new.spec.pipeline_from.is_some(),
        accepts: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Pipeline, metadata: {name: clicks}, \
             spec: {ensembleRef: {name: main}, upgradeMode: Stateless, \
             pipelineFrom: {configMapKeyRef: {name: documents, key: clicks.yaml}}}}",
        ),
        refuses: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Pipeline, metadata: {name: clicks}, \
             spec: {ensembleRef: {name: main}, upgradeMode: Stateless}}",
        ),
    },
    Rule {
        // On the parent, as for every field that must not be taken away either.
        name: "pipeline-ensemble-fixed",
        path: "spec",
        cel: "self.ensembleRef == oldSelf.ensembleRef",
        message: "ensembleRef cannot be changed: progress and completion are recorded in that Ensemble",
        holds: |new, old| old.is_none_or(|old| new.spec.ensemble_ref == old.spec.ensemble_ref),
        accepts: Example::update(PLAIN, PLAIN),
        refuses: Example::update(
            PLAIN,
            "{apiVersion: pharos.dev/v1alpha1, kind: Pipeline, metadata: {name: clicks}, \
             spec: {ensembleRef: {name: other}, upgradeMode: Stateless, pipeline: 'pipeline: {}'}}",
        ),
    },
    Rule {
        name: "pipeline-checkpoint-required",
        path: "spec",
        cel: "has(self.checkpoint) || self.upgradeMode == 'Stateless'",
        message: "checkpoint is required unless upgradeMode is Stateless",
        holds: |new, _| new.spec.checkpoint.is_some() || new.spec.upgrade_mode == UpgradeMode::Stateless,
        accepts: Example::create(PLAIN),
        refuses: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Pipeline, metadata: {name: clicks}, \
             spec: {ensembleRef: {name: main}, pipeline: 'pipeline: {}'}}",
        ),
    },
    Rule {
        name: "pipeline-checkpoint-one-place",
        path: "spec.checkpoint",
        cel: "has(self.location) != has(self.volumeClaim)",
        message: "exactly one of location and volumeClaim must be given",
        holds: |new, _| {
            checkpoint(new, |checkpoint| checkpoint.location.is_some() != checkpoint.volume_claim.is_some())
        },
        accepts: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Pipeline, metadata: {name: clicks}, \
             spec: {ensembleRef: {name: main}, checkpoint: {volumeClaim: {claimName: checkpoints}}, \
             pipeline: 'pipeline: {}'}}",
        ),
        refuses: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Pipeline, metadata: {name: clicks}, \
             spec: {ensembleRef: {name: main}, checkpoint: {interval: 10s}, pipeline: 'pipeline: {}'}}",
        ),
    },
    Rule {
        name: "pipeline-checkpoint-scheme",
        path: "spec.checkpoint",
        cel: "!has(self.location) || self.location.matches('^(s3://[^/]+|file:///[^/]+)')",
        message: "location must be a URL: s3://bucket/prefix, or file:///path",
        holds: |new, _| checkpoint(new, |checkpoint| checkpoint.location.as_deref().is_none_or(is_location)),
        accepts: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Pipeline, metadata: {name: clicks}, \
             spec: {ensembleRef: {name: main}, checkpoint: {location: 's3://bucket/prefix'}, \
             pipeline: 'pipeline: {}'}}",
        ),
        refuses: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Pipeline, metadata: {name: clicks}, \
             spec: {ensembleRef: {name: main}, checkpoint: {location: /checkpoints}, pipeline: 'pipeline: {}'}}",
        ),
    },
    Rule {
        name: "pipeline-checkpoint-interval",
        path: "spec.checkpoint",
        cel: "self.interval.matches('^[0-9]+(s|m|h)$') && duration(self.interval) >= duration('1s') && \
              duration(self.interval) <= duration('24h')",
        message: "interval must be a whole number with one of the units s, m, h, from 1s to 24h",
        holds: |new, _| {
            checkpoint(new, |checkpoint| {
                seconds(&checkpoint.interval).is_some_and(|s| (1..=86_400).contains(&s))
            })
        },
        accepts: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Pipeline, metadata: {name: clicks}, \
             spec: {ensembleRef: {name: main}, checkpoint: {interval: 24h, location: 's3://bucket'}, \
             pipeline: 'pipeline: {}'}}",
        ),
        refuses: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Pipeline, metadata: {name: clicks}, \
             spec: {ensembleRef: {name: main}, checkpoint: {interval: 0s, location: 's3://bucket'}, \
             pipeline: 'pipeline: {}'}}",
        ),
    },
    Rule {
        name: "pipeline-run-grows",
        path: "spec",
        cel: "self.runId >= oldSelf.runId",
        message: "runId must not become smaller: a greater number runs a completed pipeline again",
        holds: |new, old| old.is_none_or(|old| new.spec.run_id >= old.spec.run_id),
        accepts: Example::update(PLAIN, RUN_TWO),
        refuses: Example::update(RUN_TWO, PLAIN),
    },
    Rule {
        name: "pipeline-variable-one-value",
        path: "spec.variables[]",
        cel: "has(self.value) != has(self.valueFrom)",
        message: "exactly one of value and valueFrom must be given",
        holds: |new, _| variables(new, |variable| variable.value.is_some() != variable.value_from.is_some()),
        accepts: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Pipeline, metadata: {name: clicks}, \
             spec: {ensembleRef: {name: main}, upgradeMode: Stateless, pipeline: 'pipeline: {}', \
             variables: [{name: key, valueFrom: {secretKeyRef: {name: keys, key: key}}}]}}",
        ),
        refuses: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Pipeline, metadata: {name: clicks}, \
             spec: {ensembleRef: {name: main}, upgradeMode: Stateless, pipeline: 'pipeline: {}', \
             variables: [{name: key}]}}",
        ),
    },
    Rule {
        name: "pipeline-variable-name",
        path: "spec.variables[]",
        cel: "self.name.matches('^[A-Za-z_][A-Za-z0-9_]*$')",
        message: "name must be a letter or '_', then letters, digits and '_'",
        holds: |new, _| variables(new, |variable| is_identifier(&variable.name)),
        accepts: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Pipeline, metadata: {name: clicks}, \
             spec: {ensembleRef: {name: main}, upgradeMode: Stateless, pipeline: 'pipeline: {}', \
             variables: [{name: key_1, value: v}]}}",
        ),
        refuses: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Pipeline, metadata: {name: clicks}, \
             spec: {ensembleRef: {name: main}, upgradeMode: Stateless, pipeline: 'pipeline: {}', \
             variables: [{name: key-1, value: v}]}}",
        ),
    },
    Rule {
        name: "pipeline-image-exact",
        path: "spec",
        cel: "!has(self.image) || has(self.image.tag) != has(self.image.digest)",
        message: "image must have exactly one of tag and digest",
        holds: |new, _| image_is_exact(new.spec.image.as_ref()),
        accepts: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Pipeline, metadata: {name: clicks}, \
             spec: {ensembleRef: {name: main}, upgradeMode: Stateless, pipeline: 'pipeline: {}', \
             image: {repository: pharos-node, digest: 'sha256:00'}}}",
        ),
        refuses: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Pipeline, metadata: {name: clicks}, \
             spec: {ensembleRef: {name: main}, upgradeMode: Stateless, pipeline: 'pipeline: {}', \
             image: {repository: pharos-node, tag: '1', digest: 'sha256:00'}}}",
        ),
    },
];

const RUN_TWO: &str = "{apiVersion: pharos.dev/v1alpha1, kind: Pipeline, metadata: {name: clicks}, \
                       spec: {ensembleRef: {name: main}, upgradeMode: Stateless, runId: 2, pipeline: 'pipeline: {}'}}";

fn checkpoint(pipeline: &Pipeline, holds: impl Fn(&CheckpointSpec) -> bool) -> bool {
    pipeline.spec.checkpoint.as_ref().is_none_or(holds)
}

fn variables(pipeline: &Pipeline, holds: impl Fn(&Variable) -> bool) -> bool {
    pipeline.spec.variables.iter().all(holds)
}

fn is_location(location: &str) -> bool {
    let rest = location.strip_prefix("s3://").or_else(|| location.strip_prefix("file:///"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
}

fn is_identifier(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_')
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}
