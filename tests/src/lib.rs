//! What the tests across the crates share: a small run on the embedded photographs.

use std::sync::Arc;

use bagssl_core::model::{CpuFast, Differentiable};
use bagssl_data::dataset::{Dataset, Split};
use bagssl_data::loader::{Loader, LoaderConfig};
use bagssl_train::backend::NdArray;
use bagssl_train::config::{CheckedConfig, TrainConfig};
use bagssl_train::preset::PRESETS;
use bagssl_train::trainer::{RunInfo, Trainer};
use burn::backend::Autodiff;

/// A run on the CPU.
pub type Run = Trainer<Autodiff<NdArray>, Differentiable<CpuFast>>;

/// The default preset made small: 3 epochs of the embedded photographs, 5 steps each.
pub fn config() -> CheckedConfig {
    let mut table: toml::Table = PRESETS[0].toml.parse().expect("a preset is TOML");
    table.remove("augment");
    let mut config: TrainConfig = table.try_into().expect("a preset is a config");
    config.batch.images = 180;
    config.batch.patches = 2;
    config.schedule.epochs = 3;
    config.model.projector = vec![16, 8];
    config.check().expect("the settings fit each other")
}

/// The loader of that run.
pub fn loader(threads: usize) -> Loader {
    let checked = config();
    let config = checked.config();
    let dataset = Arc::new(Dataset::embedded(Split::Train).expect("the embedded photographs are sound"));
    let settings = LoaderConfig {
        views: config.views,
        patches: config.batch.patches,
        batch: config.batch.images,
        seed: config.seed,
        threads,
        normalisation: config.normalisation,
        filter: config.filter,
        ..LoaderConfig::default()
    };
    Loader::new(dataset, settings).expect("the settings fit the photographs")
}

/// How that run is called.
pub fn info() -> RunInfo {
    RunInfo { preset: "test".into(), data: "photo-tiles-mini".into(), settings: String::new() }
}
