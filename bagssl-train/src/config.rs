//! The settings of a run, as a TOML file holds them.

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

/// What is trained, on what, and how. What only concerns the loading of images is not here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The seed that all draws of the run depend on.
    pub seed: u64,
    /// The networks.
    pub model: ModelConfig,
    /// How views of an image are drawn.
    pub views: Views,
    /// The patches that stand for an image when the trained model is used.
    pub patch: PatchSpec,
    /// How a crop is resampled.
    #[serde(default)]
    pub filter: Filter,
    /// What the network expects of colors.
    #[serde(alias = "normalisation")]
    pub normalization: Normalization,
    /// Images in a batch and views of each.
    pub batch: BatchConfig,
    /// The loss.
    pub loss: Loss,
    /// The optimizer.
    #[serde(alias = "optimiser")]
    pub optimizer: OptimizerConfig,
    /// The run's length and the learning rate over it.
    pub schedule: Schedule,
    /// What is done with a step whose loss or gradient is not finite.
    #[serde(default, skip_serializing_if = "is_stop")]
    pub on_not_finite: OnNotFinite,
}

/// The settings of a config one by one, each under its name in TOML (`optimizer.adamw.learning_rate`), in the order of the names.
///
/// # Panics
/// If TOML cannot hold them.
pub fn flat(config: &impl Serialize) -> Vec<(String, String)> {
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

/// The networks of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The encoder.
    pub arch: Architecture,
    /// The sizes of the projector's layers.
    pub projector: Vec<usize>,
    /// The feature that is the representation.
    #[serde(default = "embedding")]
    pub tap: FeatureLayer,
}

fn embedding() -> FeatureLayer {
    FeatureLayer::Embedding
}

/// The size of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchConfig {
    /// Images.
    pub images: usize,
    /// Views of each image.
    pub patches: usize,
    /// Views of each image that go through the network together; all, if nothing is said. Fewer take less memory and more time
    /// (a second forward pass): the loss is still that of the whole batch, but batch norms take the statistics of such a part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(alias = "micro")]
    pub micro_batch: Option<usize>,
}

impl BatchConfig {
    /// Views of each image that go through the network together.
    pub fn micro_batch(&self) -> usize {
        self.micro_batch.unwrap_or(self.patches)
    }
}

/// What is done when a loss or a gradient is infinite or not a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnNotFinite {
    /// The run ends with an error.
    #[default]
    Stop,
    /// The step changes nothing, and is reported.
    Skip,
}

/// A config that has been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedConfig {
    config: TrainConfig,
    plan: ModelPlan,
    loss: CheckedLoss,
}

impl TrainConfig {
    /// Checks that the settings fit each other.
    ///
    /// # Errors
    /// [`Error::Setting`] names the setting that does not.
    pub fn check(self) -> Result<CheckedConfig> {
        let encoder = self.model.arch.plan();
        let projector = mlp(encoder.output_dim(), &self.model.projector).map_err(|error| Error::Setting {
            name: "model.projector",
            expected: "the sizes of at least one layer".into(),
            got: format!("{:?}: {error}", self.model.projector),
        })?;
        if self.views.input() != self.patch.input() {
            return Err(Error::Setting {
                name: "patch.input",
                expected: format!("{}, the input of the views", self.views.input()),
                got: self.patch.input().to_string(),
            });
        }
        let side = self.patch.input() as usize;
        if encoder.multiply_accumulates([side; 2]).is_none() {
            return Err(Error::Setting {
                name: "patch.input",
                expected: format!("an input that the windows of {} fit into", self.model.arch.name()),
                got: format!("{side} pixels"),
            });
        }
        check_batch(self.batch.images, self.batch.patches)?;
        if i64::try_from(self.seed).is_err() {
            // TOML has no larger numbers, so that the run's config could not be read again.
            let expected = format!("0 to {}, the largest number of TOML", i64::MAX);
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
    /// The settings.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// The networks.
    pub fn plan(&self) -> &ModelPlan {
        &self.plan
    }

    /// The loss.
    pub fn loss(&self) -> CheckedLoss {
        self.loss
    }
}
