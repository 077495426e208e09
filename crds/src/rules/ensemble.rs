//! Owns the rules of an `Ensemble`. Must not know how they are applied.
//!
//! Invariant: each row refuses its refusing example alone, so that a user reads one message for one mistake.

use super::{Example, Rule, bytes, image_is_exact, is_dns_label};
use crate::{Ensemble, EnsembleSpec, names};

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
];

fn survivor(new: &Ensemble) -> bool {
    let Some(recovery) = &new.spec.recovery else { return true };
    let name = new.metadata.name.as_deref().unwrap_or_default();
    (0..7).any(|ordinal| recovery.survivor == names::ensemble::pod(name, ordinal))
}

fn image(spec: &EnsembleSpec) -> bool {
    image_is_exact(spec.image.as_ref())
}
