//! The config of a run: a preset or a file, and what the command line overrides.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bagssl_core::architecture::Architecture;
use bagssl_data::Augment;
use bagssl_train::config::{OnNotFinite, TrainConfig};
use bagssl_train::preset::{PRESETS, Preset, names, preset};
use serde::Serialize;

use crate::input::files;

/// Everything that a run's weights depend on, but for the images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct RunConfig {
    /// What the run is called: the preset, or the file's stem.
    #[serde(skip)]
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) train: TrainConfig,
    pub(crate) augment: Augment,
}

impl RunConfig {
    /// Reads a config from its text; `origin` is what errors name.
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

    /// A preset of this project.
    pub(crate) fn preset(preset: Preset) -> Self {
        Self::parse(preset.name, preset.toml, preset.name).expect("presets are tested")
    }

    /// The config as a file that `--config` reads.
    pub(crate) fn to_toml(&self) -> Result<String> {
        Ok(toml::to_string(self)?)
    }
}

/// Where a config comes from, and what of the patches is changed in it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RecipeArgs {
    /// Recipe to begin with: bagssl, bagssl-vicreg, bagssl-spectral (patches of one scale); multi-scale, vicreg, simclr
    /// (multi-scale crops); emp-ssl-cifar [default: bagssl]
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    preset: Option<String>,
    /// TOML file to begin with; `bagssl train --print-config` shows its form
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Seed of all random draws
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Patches of each image
    #[arg(long, value_name = "N")]
    patches: Option<usize>,
}

impl RecipeArgs {
    /// Reads and overrides.
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

/// Where a config comes from, and what is changed in it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ConfigArgs {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Epochs
    #[arg(long, value_name = "N")]
    epochs: Option<u32>,
    /// Encoder: resnet-small; resnet18, resnet34, resnet50, these also with -cifar or -cifar-pad2; bagnet9, bagnet17, bagnet33
    #[arg(long, value_name = "NAME")]
    arch: Option<String>,
    /// Sizes of the projector's layers, for instance 2048,2048,256
    #[arg(long, value_name = "SIZES", value_delimiter = ',')]
    projector: Option<Vec<usize>>,
    /// Images in a batch
    #[arg(long, value_name = "N")]
    images: Option<usize>,
    /// Patches of each image that go through the network together: fewer take less memory and more time; the loss is still
    /// that of the whole batch, batch norms see a part
    #[arg(long, alias = "micro", value_name = "N")]
    micro_batch: Option<usize>,
    /// What to do with a step whose loss or gradient is not finite
    #[arg(long, value_name = "POLICY", value_parser = ["stop", "skip"])]
    on_not_finite: Option<String>,
    /// Highest learning rate
    #[arg(long, alias = "rate", value_name = "RATE")]
    lr: Option<f64>,
}

impl ConfigArgs {
    /// Reads and overrides.
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
