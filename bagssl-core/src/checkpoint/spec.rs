//! The metadata of a checkpoint: its plans, its preprocessing and its origin.

use std::prelude::v1::*;

use serde::{Deserialize, Serialize};

use super::training::{SettingChange, Training};
use crate::bag::Views;
use crate::embed::FeatureLayer;
use crate::error::{Error, Result};
use crate::normalize::Normalization;
use crate::patch::{Filter, PatchSpec};
use crate::plan::{Kind, NamedTensor, Parameter, Plan};

/// The format version that this crate writes. It also reads version 1, which has no digest.
pub const FORMAT_VERSION: u32 = 2;
/// The metadata key that holds the spec.
pub(crate) const METADATA_KEY: &str = "bagssl";
/// The prefix of the names of the optimizer's tensors.
pub const OPTIMIZER_PREFIX: &str = "optimiser.";

/// The two networks of a model. The projector reads the encoder's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedModel", into = "UncheckedModel")]
pub struct ModelPlan {
    encoder: Plan,
    projector: Plan,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedModel {
    encoder: Plan,
    projector: Plan,
}

impl TryFrom<UncheckedModel> for ModelPlan {
    type Error = Error;

    fn try_from(plan: UncheckedModel) -> Result<Self> {
        ModelPlan::new(plan.encoder, plan.projector)
    }
}

impl From<ModelPlan> for UncheckedModel {
    fn from(plan: ModelPlan) -> Self {
        UncheckedModel { encoder: plan.encoder, projector: plan.projector }
    }
}

impl ModelPlan {
    /// Combines an encoder and a projector.
    ///
    /// # Errors
    /// [`Error::Plan`] if the encoder does not map RGB maps to rows, or the projector does not read
    /// rows of that length.
    pub fn new(encoder: Plan, projector: Plan) -> Result<Self> {
        if encoder.input() != Kind::Map(3) {
            return Err(Error::Plan(format!("encoder: expected input Map(3), got {:?}", encoder.input())));
        }
        let Kind::Rows(dim) = encoder.output() else {
            return Err(Error::Plan(format!("encoder: expected output Rows, got {:?}", encoder.output())));
        };
        if projector.input() != Kind::Rows(dim) {
            return Err(Error::Plan(format!("projector: expected input Rows({dim}), got {:?}", projector.input())));
        }
        Ok(ModelPlan { encoder, projector })
    }

    /// Returns the encoder `f`.
    pub fn encoder(&self) -> &Plan {
        &self.encoder
    }

    /// Returns the projector `g`.
    pub fn projector(&self) -> &Plan {
        &self.projector
    }

    /// Returns the length of the feature at a layer.
    pub fn dim(&self, layer: FeatureLayer) -> usize {
        match layer {
            FeatureLayer::Embedding => self.encoder.output_dim(),
            FeatureLayer::FirstLayer => match self.projector.kind(1) {
                Kind::Map(dim) | Kind::Rows(dim) => dim,
            },
            FeatureLayer::Projection => self.projector.output_dim(),
        }
    }

    /// Draws random values for all parameters and buffers, with their names in the checkpoint (see
    /// [`Plan::init_weights`]). The projector uses a different seed than the encoder, so their
    /// weights differ.
    pub fn init_weights(&self, seed: u64) -> Vec<NamedTensor> {
        let prefixed = |prefix: &'static str, plan: &Plan, seed| {
            let named = move |(name, shape, values)| (format!("{prefix}.{name}"), shape, values);
            plan.init_weights(seed).into_iter().map(named)
        };
        prefixed("encoder", &self.encoder, seed).chain(prefixed("projector", &self.projector, !seed)).collect()
    }

    /// Returns all parameters and buffers with their names in the checkpoint.
    pub fn parameters(&self) -> Vec<Parameter> {
        let prefixed = |prefix: &'static str, plan: &Plan| {
            plan.parameters()
                .into_iter()
                .map(move |parameter| Parameter { name: format!("{prefix}.{}", parameter.name), ..parameter })
        };
        prefixed("encoder", &self.encoder).chain(prefixed("projector", &self.projector)).collect()
    }
}

/// The origin of a model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// The program and its version.
    pub created_by: String,
    /// The preset or config used for training.
    pub preset: String,
    /// The fingerprint of the training images.
    pub data: String,
    /// The seed of the run.
    pub seed: u64,
    /// Number of epochs done.
    pub epochs: u32,
    /// Number of optimizer steps done.
    pub steps: u64,
    /// Settings that were changed during the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<SettingChange>,
}

/// Everything needed to use a model's weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The format version.
    pub format_version: u32,
    /// The networks.
    pub model: ModelPlan,
    /// The patches that represent an image.
    pub patch: PatchSpec,
    /// The filter that resamples a patch to the network's input size.
    pub filter: Filter,
    /// The normalization of colors that the network expects.
    #[serde(rename = "normalisation")]
    pub normalization: Normalization,
    /// The feature used as representation.
    #[serde(rename = "tap")]
    pub layer: FeatureLayer,
    /// The views used in training.
    pub views: Views,
    /// The origin of the model.
    pub provenance: Provenance,
    /// The training state, if the run is not finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Training>,
}

pub(super) fn scale_name(name: &str) -> String {
    format!("{name}.scale")
}
