//! Owns the check of a spec against its rules, and of its document. Pure. Must not know how objects are built.
//!
//! Invariant: what leaves here can be built without a further question; nothing of a document that has mistakes does.

use std::fmt::Write as _;

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::ResourceExt;
use pharos_beam::StateSchema;
use pharos_crds::names::reason;
use pharos_crds::{Pipeline, PipelineSpec, names};
use sha2::{Digest, Sha256};

use super::check::check;
use crate::pods::Image;

/// Mistakes shown in a condition; the rest is counted.
const SHOWN: usize = 5;

/// A spec that was checked, with its document.
#[derive(Clone, Debug)]
pub struct Validated {
    /// Name of the Pipeline.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
    /// Its generation.
    pub generation: Option<i64>,
    /// The document.
    pub document: String,
    /// SHA-256 of the document, in hexadecimal digits.
    pub hash: String,
    /// What state its pipeline keeps, as far as the document tells.
    pub state: StateSchema,
    /// Image of the workers.
    pub image: Image,
    /// The image that they ran when they were last seen to run.
    pub kept_image: Option<String>,
    /// URL of the checkpoints, if there are any.
    pub checkpoint: Option<Checkpoint>,
    /// The rest of the spec.
    pub spec: PipelineSpec,
}

/// Where checkpoints go, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// URL of the directory.
    pub url: String,
    /// Seconds between them.
    pub seconds: u64,
}

/// Why a Pipeline cannot be built.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Rules are broken.
    #[error("{0}")]
    Rules(String),
    /// The object is not as the API server makes it.
    #[error("metadata.{0} is missing")]
    Metadata(&'static str),
    /// The document has mistakes.
    #[error("{0}")]
    Document(String),
    /// The document is not there.
    #[error("{0}")]
    NoDocument(String),
}

impl Invalid {
    /// Reason of the condition.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Rules(_) | Self::Metadata(_) => reason::INVALID_SPEC,
            Self::Document(_) => reason::INVALID_PIPELINE,
            Self::NoDocument(_) => reason::DOCUMENT_NOT_FOUND,
        }
    }

    /// Whether only a change of the spec can help.
    #[must_use]
    pub fn lasts(&self) -> bool {
        !matches!(self, Self::NoDocument(_))
    }
}

/// Checks a Pipeline, given what its `pipelineFrom` holds, the StatefulSet that runs, and the operator's default image.
///
/// # Errors
/// The first stage that refuses it.
pub fn validate(
    pipeline: &Pipeline,
    referred: Option<&str>,
    running: Option<&StatefulSet>,
    default_image: &Image,
) -> Result<Validated, Invalid> {
    pharos_crds::validate(pipeline).map_err(|broken| {
        Invalid::Rules(broken.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    })?;
    let spec = pipeline.spec.clone();
    let document = document(&spec, referred)?;
    let state =
        check(&document, &source(&spec)).map_err(|problems| Invalid::Document(describe(&problems)))?;
    let running_pod = running.and_then(|set| set.spec.as_ref()).and_then(|one| one.template.spec.as_ref());
    let status = pipeline.status.clone().unwrap_or_default();
    let kept_image = Image::kept(status.image.as_deref(), !status.conditions.is_empty(), running_pod);
    Ok(Validated {
        name: pipeline.name_any(),
        namespace: pipeline.namespace().ok_or(Invalid::Metadata("namespace"))?,
        uid: pipeline.uid().ok_or(Invalid::Metadata("uid"))?,
        generation: pipeline.metadata.generation,
        hash: hex::encode(Sha256::digest(document.as_bytes())),
        document,
        state,
        image: Image::choose(spec.image.as_ref(), kept_image.as_deref(), running_pod, default_image),
        kept_image,
        checkpoint: checkpoint(&spec),
        spec,
    })
}

fn document(spec: &PipelineSpec, referred: Option<&str>) -> Result<String, Invalid> {
    match (&spec.pipeline, &spec.pipeline_from, referred) {
        (Some(inline), _, _) => Ok(inline.clone()),
        (None, _, Some(referred)) => Ok(referred.to_owned()),
        (None, Some(from), None) => {
            let reference = &from.config_map_key_ref;
            let (name, key) = (&reference.name, &reference.key);
            Err(Invalid::NoDocument(format!("ConfigMap {name} does not exist or has no key {key}")))
        }
        (None, None, None) => {
            Err(Invalid::Rules("exactly one of pipeline and pipelineFrom must be given".into()))
        }
    }
}

/// What the document is called in messages.
fn source(spec: &PipelineSpec) -> String {
    spec.pipeline_from.as_ref().map_or_else(
        || "spec.pipeline".to_owned(),
        |from| format!("ConfigMap {} key {}", from.config_map_key_ref.name, from.config_map_key_ref.key),
    )
}

fn describe(problems: &[String]) -> String {
    let shown = problems.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>();
    let mut text = shown.join("; ");
    if problems.len() > SHOWN {
        write!(text, "; and {} more", problems.len() - SHOWN).expect("writing to a string does not fail");
    }
    text
}

fn checkpoint(spec: &PipelineSpec) -> Option<Checkpoint> {
    let wanted = spec.checkpoint.as_ref()?;
    let url = match (&wanted.location, &wanted.volume_claim) {
        (Some(location), _) => location.clone(),
        (None, _) => format!("file://{}", names::CHECKPOINT_DIR),
    };
    Some(Checkpoint { url, seconds: wanted.interval_seconds().unwrap_or(10) })
}
