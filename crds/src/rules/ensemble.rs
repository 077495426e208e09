//! Owns the rules of an `Ensemble`. Must not know how they are applied.
//!
//! Invariant: each row refuses its refusing example alone, so that a user reads one message for one mistake.

use super::{Example, Rule, bytes, image_is_exact, is_dns_label};
use crate::{Ensemble, EnsembleSpec, RestoreSpec, names};

const PLAIN: &str =
    "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: main}, spec: {replicas: 3}}";

/// The rules of an Ensemble.
pub const RULES: &[Rule<Ensemble>] = &[
    Rule {
        name: "ensemble-name-length",
        path: "",
        cel: "size(self.metadata.name) <= 40",
        message: "metadata.name must have at most 40 characters, since the names of pods and services derive from it",
        holds: |new, _| new.metadata.name.as_ref().is_none_or(|name| name.len() <= names::MAX_NAME_LENGTH),
        accepts: Example::create(PLAIN),
        refuses: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: \
             a2345678901234567890123456789012345678901}, spec: {replicas: 3}}",
        ),
    },
    Rule {
        name: "ensemble-name-label",
        path: "",
        cel: "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        message: "metadata.name must start with a letter and have only lower-case letters, digits and '-', since the \
                  names of services derive from it",
        holds: |new, _| new.metadata.name.as_deref().is_none_or(is_dns_label),
        accepts: Example::create(PLAIN),
        refuses: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: a.b}, spec: {replicas: 3}}",
        ),
    },
    Rule {
        name: "ensemble-replicas-odd",
        path: "spec",
        cel: "self.replicas in [1, 3, 5, 7]",
        message: "replicas must be 1, 3, 5 or 7: an even number of voters survives no more failures than one fewer",
        holds: |new, _| [1, 3, 5, 7].contains(&new.spec.replicas),
        accepts: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: main}, spec: {replicas: 5}}",
        ),
        refuses: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: main}, spec: {replicas: 4}}",
        ),
    },
    Rule {
        name: "ensemble-storage-size-format",
        path: "spec.storage",
        cel: "self.size.matches('^[0-9]+(Mi|Gi|Ti)$') && quantity(self.size).compareTo(quantity('64Mi')) >= 0",
        message: "size must be a whole number with one of the units Mi, Gi, Ti, and at least 64Mi",
        holds: |new, _| bytes(&new.spec.storage.size).is_some_and(|size| size >= 64 << 20),
        accepts: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: main}, spec: {storage: {size: 64Mi}}}",
        ),
        refuses: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: main}, spec: {storage: {size: 10G}}}",
        ),
    },
    Rule {
        name: "ensemble-storage-never-shrinks",
        path: "spec.storage",
        cel: "!isQuantity(self.size) || !isQuantity(oldSelf.size) || \
              quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
        message: "size must not become smaller: a volume cannot shrink",
        holds: |new, old| {
            old.is_none_or(|old| match (bytes(&new.spec.storage.size), bytes(&old.spec.storage.size)) {
                (Some(new), Some(old)) => new >= old,
                _ => true,
            })
        },
        accepts: Example::update(
            PLAIN,
            "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: main}, spec: {storage: {size: 20Gi}}}",
        ),
        refuses: Example::update(
            PLAIN,
            "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: main}, spec: {storage: {size: 5Gi}}}",
        ),
    },
    Rule {
        // On the parent: a rule on an optional field does not run when the field is taken away.
        name: "ensemble-storage-class-fixed",
        path: "spec.storage",
        cel: "has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || \
              self.storageClassName == oldSelf.storageClassName)",
        message: "storageClassName cannot be changed: a volume keeps its class",
        holds: |new, old| {
            old.is_none_or(|old| new.spec.storage.storage_class_name == old.spec.storage.storage_class_name)
        },
        accepts: Example::update(
            "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: main}, \
             spec: {storage: {storageClassName: fast}}}",
            "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: main}, \
             spec: {storage: {storageClassName: fast}}}",
        ),
        refuses: Example::update(
            "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: main}, \
             spec: {storage: {storageClassName: fast}}}",
            PLAIN,
        ),
    },
    Rule {
        name: "ensemble-image-exact",
        path: "spec",
        cel: "!has(self.image) || has(self.image.tag) != has(self.image.digest)",
        message: "image must have exactly one of tag and digest",
        holds: |new, _| image(&new.spec),
        accepts: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: main}, \
             spec: {image: {repository: pharos-node, tag: '1'}}}",
        ),
        refuses: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: main}, \
             spec: {image: {repository: pharos-node}}}",
        ),
    },
    Rule {
        name: "ensemble-recovery-survivor",
        path: "",
        cel: "!has(self.spec) || !has(self.spec.recovery) || \
              (self.spec.recovery.survivor.startsWith(self.metadata.name + '-ensemble-') && \
              self.spec.recovery.survivor.matches('-ensemble-[0-6]$') && \
              size(self.spec.recovery.survivor) == size(self.metadata.name) + 11)",
        message: "recovery.survivor must be a pod of this Ensemble, as in status.members: its name, '-ensemble-' and \
                  an ordinal",
        holds: |new, _| survivor(new),
        accepts: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: main}, \
             spec: {recovery: {generation: 2, survivor: main-ensemble-1, acknowledge: AcceptLostWrites}}}",
        ),
        refuses: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: main}, \
             spec: {recovery: {generation: 2, survivor: other-ensemble-1, acknowledge: AcceptLostWrites}}}",
        ),
    },
    Rule {
        name: "ensemble-restore-location",
        path: "spec.restore",
        cel: "self.from.matches('^(s3://[^/]+/.+|file:///[^/]+)')",
        message: "from must be the URL of a backup: s3://bucket/prefix/NAME, or file:///path/NAME",
        holds: |new, _| restore(new, |restore| is_backup(&restore.from)),
        accepts: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: main}, \
             spec: {restore: {from: 's3://bucket/main/one'}}}",
        ),
        refuses: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: main}, \
             spec: {restore: {from: 's3://bucket'}}}",
        ),
    },
    Rule {
        name: "ensemble-restore-acknowledged",
        path: "spec.restore",
        cel: "has(self.generation) == has(self.acknowledge)",
        message: "generation and acknowledge belong together: who names the generation of an Ensemble that exists gives \
                  up what it holds",
        holds: |new, _| restore(new, |restore| restore.generation.is_some() == restore.acknowledge.is_some()),
        accepts: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: main}, \
             spec: {restore: {from: 's3://bucket/one', generation: 2, acknowledge: AcceptLostData}}}",
        ),
        refuses: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: main}, \
             spec: {restore: {from: 's3://bucket/one', generation: 2}}}",
        ),
    },
    Rule {
        name: "ensemble-restore-or-recovery",
        path: "spec",
        cel: "!has(self.recovery) || !has(self.restore) || !has(self.restore.generation) || \
              self.restore.generation != self.recovery.generation",
        message: "recovery and restore must not name the same generation: it begins from a survivor or from a backup",
        holds: |new, _| {
            let recovered = new.spec.recovery.as_ref().map(|recovery| recovery.generation);
            restore(new, |restore| restore.generation.is_none() || restore.generation != recovered)
        },
        accepts: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: main}, \
             spec: {restore: {from: 's3://bucket/one', generation: 3, acknowledge: AcceptLostData}, \
             recovery: {generation: 2, survivor: main-ensemble-1, acknowledge: AcceptLostWrites}}}",
        ),
        refuses: Example::create(
            "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: main}, \
             spec: {restore: {from: 's3://bucket/one', generation: 2, acknowledge: AcceptLostData}, \
             recovery: {generation: 2, survivor: main-ensemble-1, acknowledge: AcceptLostWrites}}}",
        ),
    },
    Rule {
        // On the parent: a rule on what is not there yet does not run.
        name: "ensemble-restore-of-what-exists",
        path: "spec",
        cel: "has(oldSelf.restore) || !has(self.restore) || has(self.restore.generation)",
        message: "restore must name the generation that begins, and acknowledge it, when the Ensemble exists already",
        holds: |new, old| {
            old.is_none_or(|old| old.spec.restore.is_some())
                || restore(new, |restore| restore.generation.is_some())
        },
        accepts: Example::update(
            PLAIN,
            "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: main}, \
             spec: {restore: {from: 's3://bucket/one', generation: 2, acknowledge: AcceptLostData}}}",
        ),
        refuses: Example::update(
            PLAIN,
            "{apiVersion: pharos.dev/v1alpha1, kind: Ensemble, metadata: {name: main}, \
             spec: {restore: {from: 's3://bucket/one'}}}",
        ),
    },
];

fn restore(new: &Ensemble, holds: impl FnOnce(&RestoreSpec) -> bool) -> bool {
    new.spec.restore.as_ref().is_none_or(holds)
}

fn is_backup(location: &str) -> bool {
    let object =
        |rest: &str| rest.split_once('/').is_some_and(|(bucket, key)| !bucket.is_empty() && !key.is_empty());
    location.strip_prefix("s3://").is_some_and(object)
        || location.strip_prefix("file:///").is_some_and(|path| !path.is_empty() && !path.starts_with('/'))
}

fn survivor(new: &Ensemble) -> bool {
    let Some(recovery) = &new.spec.recovery else { return true };
    let name = new.metadata.name.as_deref().unwrap_or_default();
    (0..7).any(|ordinal| recovery.survivor == names::ensemble::pod(name, ordinal))
}

fn image(spec: &EnsembleSpec) -> bool {
    image_is_exact(spec.image.as_ref())
}
