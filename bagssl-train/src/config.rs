//! The settings of a run, as stored in a TOML file.

use bagssl_core::architecture::{Architecture, mlp};
use bagssl_core::bag::Views;
use bagssl_core::checkpoint::ModelPlan;
use bagssl_core::embed::FeatureLayer;
use bagssl_core::normalize::Normalization;
use bagssl_core::patch::{Filter, PatchSpec};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::loss::{CheckedLoss, Loss, check_batch};
use crate::optimizer::OptimizerConfig;
use crate::schedule::Schedule;

/// The model, data and training settings of a run. Settings that only affect how images are loaded
/// are not included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The seed of all random draws of the run.
    pub seed: u64,
    /// The encoder and projector.
    pub model: ModelConfig,
    /// How to draw views of an image.
    pub views: Views,
    /// The patches that represent an image when the trained model is used.
    pub patch: PatchSpec,
    /// The filter for resampling crops.
    #[serde(default)]
    pub filter: Filter,
    /// The color normalization that the network expects.
    #[serde(alias = "normalisation")]
    pub normalization: Normalization,
    /// The number of images in a batch and of views of each image.
    pub batch: BatchConfig,
    /// The loss.
    pub loss: Loss,
    /// The optimizer.
    #[serde(alias = "optimiser")]
    pub optimizer: OptimizerConfig,
    /// The length of the run and its learning rate schedule.
    pub schedule: Schedule,
    /// The policy for steps with a non-finite loss or gradient.
    #[serde(default, skip_serializing_if = "is_stop")]
    pub on_not_finite: OnNotFinite,
}

/// Flattens a config into pairs of name and value, sorted by name. A name is the setting's path in
/// TOML, such as `optimizer.adamw.learning_rate`.
///
/// # Panics
/// If the config cannot be represented in TOML.
pub fn flatten(config: &impl Serialize) -> Vec<(String, String)> {
    fn add(name: &str, value: &toml::Value, to: &mut Vec<(String, String)>) {
        match value {
            toml::Value::Table(table) => {
                let name = if name.is_empty() { String::new() } else { format!("{name}.") };
                table.iter().for_each(|(key, value)| add(&format!("{name}{key}"), value, to));
            }
            value => to.push((name.into(), value.to_string())),
        }
    }
    let text = toml::to_string(config).expect("a config is plain data");
    let table = text.parse().expect("what was written is read");
    let mut settings = Vec::new();
    add("", &toml::Value::Table(table), &mut settings);
    settings.sort();
    settings
}

fn is_stop(policy: &OnNotFinite) -> bool {
    *policy == OnNotFinite::Stop
}

/// The encoder and projector of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The encoder's architecture.
    pub arch: Architecture,
    /// The layer sizes of the projector.
    pub projector: Vec<usize>,
    /// The layer whose features are the representation.
    #[serde(rename = "tap", default = "embedding")]
    pub layer: FeatureLayer,
}

fn embedding() -> FeatureLayer {
    FeatureLayer::Embedding
}

/// The size of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchConfig {
    /// The number of images.
    pub images: usize,
    /// The number of views per image.
    pub patches: usize,
    /// The number of views per image in one forward pass; all of them by default. A smaller number
    /// needs less memory and more time (a second forward pass). The loss is still computed over the
    /// entire batch, but batch norm statistics are computed per micro-batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(alias = "micro")]
    pub micro_batch: Option<usize>,
}

impl BatchConfig {
    /// Returns the number of views per image in one forward pass.
    pub fn micro_batch(&self) -> usize {
        self.micro_batch.unwrap_or(self.patches)
    }
}

/// The policy for an infinite or NaN loss or gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnNotFinite {
    /// Ends the run with an error.
    #[default]
    Stop,
    /// Skips the update and reports the step.
    Skip,
}

/// A validated config.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedConfig {
    config: TrainConfig,
    plan: ModelPlan,
    loss: CheckedLoss,
}

impl TrainConfig {
    /// Checks that the settings are valid and consistent.
    ///
    /// # Errors
    /// [`Error::Setting`] names the first invalid setting.
    pub fn check(self) -> Result<CheckedConfig> {
        let encoder = self.model.arch.plan();
        let projector = mlp(encoder.output_dim(), &self.model.projector).map_err(|error| Error::Setting {
            name: "model.projector",
            expected: "at least one layer size".into(),
            got: format!("{:?}: {error}", self.model.projector),
        })?;
        if self.views.input() != self.patch.input() {
            return Err(Error::Setting {
                name: "patch.input",
                expected: format!("{} (the input size of the views)", self.views.input()),
                got: self.patch.input().to_string(),
            });
        }
        let side = self.patch.input() as usize;
        if encoder.multiply_accumulates([side; 2]).is_none() {
            return Err(Error::Setting {
                name: "patch.input",
                expected: format!("an input large enough for the kernels of {}", self.model.arch.name()),
                got: format!("{side} pixels"),
            });
        }
        check_batch(self.batch.images, self.batch.patches)?;
        if i64::try_from(self.seed).is_err() {
            // TOML has no larger integers, so the run's config could not be read back.
            let expected = format!("0 to {} (the largest TOML integer)", i64::MAX);
            return Err(Error::Setting { name: "seed", expected, got: self.seed.to_string() });
        }
        let (patches, together) = (self.batch.patches, self.batch.micro_batch());
        if together == 0 || !patches.is_multiple_of(together) {
            let expected = format!("a divisor of the {patches} patches");
            return Err(Error::Setting { name: "batch.micro_batch", expected, got: together.to_string() });
        }
        self.optimizer.check()?;
        self.schedule.check(1)?;
        let loss = self.loss.check()?;
        Ok(CheckedConfig { plan: ModelPlan::new(encoder, projector)?, loss, config: self })
    }
}

impl CheckedConfig {
    /// Returns the settings.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// Returns the encoder and projector.
    pub fn plan(&self) -> &ModelPlan {
        &self.plan
    }

    /// Returns the loss.
    pub fn loss(&self) -> CheckedLoss {
        self.loss
    }
}
