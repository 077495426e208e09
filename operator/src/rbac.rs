//! Owns the list of what the operator may do in a namespace. Must not know whether it is bound by a Role or a
//! ClusterRole (the chart does).
//!
//! Invariant: the chart's rules are made from this list (`files/rbac.yaml`; a test fails on drift), and end-to-end tests
//! run under them.

use std::fmt::Write as _;

/// What may be done to some resources.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// API group.
    pub group: &'static str,
    /// Resources of the group.
    pub resources: &'static [&'static str],
    /// What may be done to them.
    pub verbs: &'static [&'static str],
    /// Why.
    pub why: &'static str,
}

/// Everything the operator may do.
pub const RULES: &[Rule] = &[
    Rule {
        group: "pharos.dev",
        resources: &["ensembles", "pipelines"],
        verbs: &["get", "list", "watch"],
        why: "the resources themselves; their specs are never written",
    },
    Rule {
        group: "pharos.dev",
        resources: &["ensembles/status", "pipelines/status"],
        verbs: &["get", "patch"],
        why: "their status",
    },
    Rule {
        group: "pharos.dev",
        resources: &["ensembles/finalizers", "pipelines/finalizers"],
        verbs: &["update"],
        why: "owner references that block deletion, where OwnerReferencesPermissionEnforcement is on",
    },
    Rule {
        group: "apps",
        resources: &["statefulsets"],
        verbs: &["create", "get", "list", "patch", "watch"],
        why: "members and workers",
    },
    Rule {
        group: "",
        resources: &["serviceaccounts", "services"],
        verbs: &["create", "get", "patch"],
        why: "their accounts and addresses",
    },
    Rule {
        group: "",
        resources: &["configmaps"],
        verbs: &["create", "delete", "get", "list", "patch", "watch"],
        why: "peers files, permits and documents; documents that pipelines refer to are watched",
    },
    Rule {
        group: "",
        resources: &["secrets"],
        verbs: &["create", "get"],
        why: "the token of each Ensemble, made once; Secrets are not listed",
    },
    Rule {
        group: "",
        resources: &["pods"],
        verbs: &["create", "delete", "get", "list", "patch", "watch"],
        why: "roll-outs; an annotation makes the kubelet read a permit at once; a pod that reads a backup",
    },
    Rule { group: "", resources: &["pods/eviction"], verbs: &["create"], why: "roll-outs within the budget" },
    Rule {
        group: "",
        resources: &["persistentvolumeclaims"],
        verbs: &["create", "delete", "get", "patch"],
        why: "larger volumes, where the storage class allows it; volumes of members that were removed; one for a backup",
    },
    Rule {
        group: "networking.k8s.io",
        resources: &["networkpolicies"],
        verbs: &["create", "get", "patch"],
        why: "who may reach members and workers",
    },
    Rule {
        group: "policy",
        resources: &["poddisruptionbudgets"],
        verbs: &["create", "get", "patch"],
        why: "how many members may go at once",
    },
    Rule {
        group: "events.k8s.io",
        resources: &["events"],
        verbs: &["create", "patch"],
        why: "what the operator does and waits for",
    },
];

/// The rules as the chart includes them.
#[must_use]
pub fn yaml() -> String {
    let mut text =
        String::from("# Generated from operator/src/rbac.rs by `pharos-operator rbac`. Do not edit.\n");
    for rule in RULES {
        let list =
            |items: &[&str]| items.iter().map(|item| format!("{item:?}")).collect::<Vec<_>>().join(", ");
        writeln!(
            text,
            "# {}\n- apiGroups: [{:?}]\n  resources: [{}]\n  verbs: [{}]",
            rule.why,
            rule.group,
            list(rule.resources),
            list(rule.verbs)
        )
        .expect("writing to a string does not fail");
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_charts_rules_are_made_from_this_list() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/pharos/files/rbac.yaml");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == super::yaml(),
            "charts/pharos/files/rbac.yaml is stale: write `pharos-operator rbac` to it"
        );
    }

    #[test]
    fn nothing_is_granted_wholesale() {
        for rule in super::RULES {
            assert!(!rule.verbs.contains(&"*") && !rule.resources.contains(&"*") && !rule.verbs.is_empty());
        }
    }
}
