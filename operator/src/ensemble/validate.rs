//! Owns the check of a spec against its rules and against what runs. Pure. Must not know how objects are built.
//!
//! Invariant: what leaves here can be built without a further question.

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::ResourceExt;
use pharos_crds::{Ensemble, EnsembleSpec};

use crate::pods::Image;

/// A spec that was checked.
#[derive(Clone, Debug)]
pub struct Validated {
    /// Name of the Ensemble.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
    /// Its generation.
    pub generation: Option<i64>,
    /// Number of voters wanted.
    pub replicas: u32,
    /// Image of the members.
    pub image: Image,
    /// The image that they ran when they were last seen whole.
    pub kept_image: Option<String>,
    /// Size in the StatefulSet's claim template, which can never change after the first apply.
    pub template_size: String,
    /// The rest of the spec.
    pub spec: EnsembleSpec,
}

/// Why a spec cannot be built.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpec {
    /// Rules are broken.
    #[error("{0}")]
    Rules(String),
    /// Its members would not start.
    #[error(
        "spec.maxFeatureLevel is {wanted}, but feature level {in_force} is in force, which never falls: raise it to \
         {in_force} or take it away"
    )]
    FeatureLevel {
        /// What the spec says.
        wanted: i32,
        /// What the members say.
        in_force: i32,
    },
    /// The object is not as the API server makes it.
    #[error("metadata.{0} is missing")]
    Metadata(&'static str),
}

/// Checks an Ensemble with the status it has, given the StatefulSet that runs, if any, and the operator's default image.
///
/// # Errors
/// The first stage that refuses it.
pub fn validate(
    ensemble: &Ensemble,
    running: Option<&StatefulSet>,
    default_image: &Image,
) -> Result<Validated, InvalidSpec> {
    pharos_crds::validate(ensemble).map_err(|broken| {
        InvalidSpec::Rules(broken.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    })?;
    let spec = ensemble.spec.clone();
    let running_spec = running.and_then(|one| one.spec.as_ref());
    let running_pod = running_spec.and_then(|one| one.template.spec.as_ref());
    let status = ensemble.status.clone().unwrap_or_default();
    if let (Some(wanted), Some(in_force)) = (spec.max_feature_level, status.feature_level)
        && wanted < in_force
    {
        return Err(InvalidSpec::FeatureLevel { wanted, in_force });
    }
    let kept_image = Image::kept(status.image.as_deref(), !status.conditions.is_empty(), running_pod);
    Ok(Validated {
        name: ensemble.name_any(),
        namespace: ensemble.namespace().ok_or(InvalidSpec::Metadata("namespace"))?,
        uid: ensemble.uid().ok_or(InvalidSpec::Metadata("uid"))?,
        generation: ensemble.metadata.generation,
        replicas: u32::try_from(spec.replicas).expect("the rules allow 1, 3, 5 and 7"),
        image: Image::choose(spec.image.as_ref(), kept_image.as_deref(), running_pod, default_image),
        kept_image,
        template_size: running.and_then(template_size).unwrap_or_else(|| spec.storage.size.clone()),
        spec,
    })
}

fn template_size(running: &StatefulSet) -> Option<String> {
    let claim = running.spec.as_ref()?.volume_claim_templates.as_ref()?.first()?;
    Some(claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")?.0.clone())
}
