//! The configuration of a run: a preset or a file, with overrides from the command line.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bagssl_core::architecture::Architecture;
use bagssl_data::Augment;
use bagssl_train::config::{OnNotFinite, TrainConfig};
use bagssl_train::preset::{PRESETS, Preset, names, preset};
use serde::Serialize;

use crate::input::files;

/// All settings that determine a run's weights, except the images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct RunConfig {
    /// The name of the run: the preset's name, or the file's stem.
    #[serde(skip)]
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) train: TrainConfig,
    pub(crate) augment: Augment,
}

impl RunConfig {
    /// Parses a configuration from TOML. Error messages name `origin`.
    pub(crate) fn parse(name: &str, text: &str, origin: &str) -> Result<Self> {
        let one_line = |error: toml::de::Error| {
            let line = error.span().map(|span| text[..span.start].lines().count().max(1));
            let place = line.map_or_else(String::new, |line| format!(" line {line}"));
            anyhow::anyhow!("{origin}{place}: {}", error.message())
        };
        let mut table: toml::Table = text.parse().map_err(one_line)?;
        let augment = match table.remove("augment") {
            Some(augment) => {
                augment.try_into().map_err(|error| anyhow::anyhow!("{origin}: [augment] {}", error.message()))?
            }
            None => Augment::default(),
        };
        let train =
            table.try_into().map_err(|error: toml::de::Error| anyhow::anyhow!("{origin}: {}", error.message()))?;
        Ok(RunConfig { name: name.into(), train, augment })
    }

    /// Returns the configuration of a preset.
    pub(crate) fn preset(preset: Preset) -> Self {
        Self::parse(preset.name, preset.toml, preset.name).expect("presets are tested")
    }

    /// Returns the configuration as TOML, in the format that `--config` reads.
    pub(crate) fn to_toml(&self) -> Result<String> {
        Ok(toml::to_string(self)?)
    }
}

/// The source of the configuration, with overrides of the seed and the number of patches.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RecipeArgs {
    /// Preset to start from: bagssl, bagssl-vicreg, bagssl-spectral (single-scale patches);
    /// multi-scale, vicreg, simclr (multi-scale crops); emp-ssl-cifar [default: bagssl]
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    preset: Option<String>,
    /// TOML file to start from; `bagssl train --print-config` prints the format
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Seed of the random number generators
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Patches per image
    #[arg(long, value_name = "N")]
    patches: Option<usize>,
}

impl RecipeArgs {
    /// Reads the configuration and applies the overrides.
    pub(crate) fn resolve(&self) -> Result<RunConfig> {
        let mut run = match (&self.config, &self.preset) {
            (Some(path), _) => read(path)?,
            (None, name) => {
                let name = name.as_deref().unwrap_or(PRESETS[0].name);
                let Some(found) = preset(name) else {
                    bail!("--preset: expected one of {}, got {name:?}", names());
                };
                RunConfig::preset(found)
            }
        };
        replace(&mut run.train.seed, self.seed);
        replace(&mut run.train.batch.patches, self.patches);
        Ok(run)
    }
}

/// The source of the configuration, with all overrides.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ConfigArgs {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Epochs to train
    #[arg(long, value_name = "N")]
    epochs: Option<u32>,
    /// Encoder: resnet-small; resnet18, resnet34 or resnet50, each also with -cifar or -cifar-pad2;
    /// bagnet9, bagnet17 or bagnet33
    #[arg(long, value_name = "NAME")]
    arch: Option<String>,
    /// Layer sizes of the projector, for example 2048,2048,256
    #[arg(long, value_name = "SIZES", value_delimiter = ',')]
    projector: Option<Vec<usize>>,
    /// Images per batch
    #[arg(long, value_name = "N")]
    images: Option<usize>,
    /// Patches per image in one forward pass
    ///
    /// Fewer patches take less memory and more time. The loss is still computed over the entire
    /// batch, but batch norm statistics are computed per micro-batch.
    #[arg(long, alias = "micro", value_name = "N")]
    micro_batch: Option<usize>,
    /// What to do if a step's loss or gradient is not finite
    #[arg(long, value_name = "POLICY", value_parser = ["stop", "skip"])]
    on_not_finite: Option<String>,
    /// Peak learning rate
    #[arg(long, alias = "rate", value_name = "RATE")]
    lr: Option<f64>,
}

impl ConfigArgs {
    /// Reads the configuration and applies the overrides.
    pub(crate) fn resolve(&self) -> Result<RunConfig> {
        let mut run = self.recipe.resolve()?;
        let train = &mut run.train;
        if let Some(arch) = &self.arch {
            train.model.arch = arch.parse::<Architecture>()?;
        }
        if let Some(rate) = self.lr {
            train.optimizer = train.optimizer.with_learning_rate(rate);
        }
        replace(&mut train.schedule.epochs, self.epochs);
        replace(&mut train.model.projector, self.projector.clone());
        replace(&mut train.batch.images, self.images);
        if self.micro_batch.is_some() {
            train.batch.micro_batch = self.micro_batch;
        }
        let policy = |name: &String| if name == "skip" { OnNotFinite::Skip } else { OnNotFinite::Stop };
        replace(&mut train.on_not_finite, self.on_not_finite.as_ref().map(policy));
        Ok(run)
    }
}

fn replace<T>(value: &mut T, new: Option<T>) {
    if let Some(new) = new {
        *value = new;
    }
}

fn read(path: &Path) -> Result<RunConfig> {
    let origin = path.display().to_string();
    let text =
        String::from_utf8(files::read_text(path)?).with_context(|| format!("{origin}: expected text in UTF-8"))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    RunConfig::parse(&name, &text, &origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_survives_its_file() {
        for preset in PRESETS {
            let run = RunConfig::preset(preset);
            let again = RunConfig::parse(preset.name, &run.to_toml().unwrap(), "file").unwrap();
            assert_eq!(run, again);
        }
    }

    #[test]
    fn unknown_keys_are_named() {
        let text = |line: &str| format!("{line}\n{}", PRESETS[0].toml);
        let error = RunConfig::parse("x", &text("sede = 1"), "x.toml").unwrap_err().to_string();
        assert!(error.contains("sede") && error.starts_with("x.toml") && !error.contains('\n'), "{error}");
        let error = RunConfig::parse("x", &format!("{}\nfilp = 1.0", PRESETS[0].toml), "x.toml").unwrap_err();
        assert!(error.to_string().contains("filp"), "{error}");
        let error = RunConfig::parse("x", "seed = = 1", "x.toml").unwrap_err().to_string();
        assert!(error.contains("line 1"), "{error}");
    }
}
