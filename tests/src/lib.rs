//! What the tests across the crates share: a small run on the embedded photographs.

use std::sync::Arc;

use bagssl_backend::{AnyTrainer, CpuOptions, ndarray};
use bagssl_data::{Dataset, Loader, LoaderConfig, Split};
use bagssl_train::config::CheckedConfig;
use bagssl_train::preset::PRESETS;
use bagssl_train::trainer::RunInfo;

/// The Rust of the book is tested here.
#[cfg(doctest)]
mod book {
    #[doc = include_str!("../../docs/book/src/deploy.md")]
    mod deploy {}
    #[doc = include_str!("../../docs/book/src/loss.md")]
    mod loss {}
    #[doc = include_str!("../../docs/book/src/encoder.md")]
    mod encoder {}
    #[doc = include_str!("../../docs/book/src/data-set.md")]
    mod data_set {}
}

/// So is that of the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}

/// A run on the CPU: from its first step, or with the state that another one saved.
pub fn run(state: Option<&[u8]>) -> bagssl_train::Result<Box<dyn AnyTrainer>> {
    ndarray(CpuOptions::default()).trainer(config(), info(), state)
}

/// The default preset made small: 3 epochs of the embedded photographs, 5 steps each.
pub fn config() -> CheckedConfig {
    let mut config = PRESETS[0].config();
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
        normalization: config.normalization,
        filter: config.filter,
        ..LoaderConfig::default()
    };
    Loader::new(dataset, settings).expect("the settings fit the photographs")
}

/// How that run is called.
pub fn info() -> RunInfo {
    RunInfo { preset: "test".into(), data: "photo-tiles-mini".into(), ..RunInfo::default() }
}

/// The tile of the golden bag: the first validation tile of class 07-seeding, which is CC0.
pub const GOLDEN_TILE: usize = 210;

/// The golden bag: the 16 patches of 16x16 pixels that cover a tile of 64x64, as they are, and their mean embedding.
pub mod golden {
    use bagssl_core::Result;
    use bagssl_core::aggregate::RunningMean;
    use bagssl_core::bag::Bag;
    use bagssl_core::batch::{BatchShape, PatchBatch, SourceError};
    use bagssl_core::checkpoint::Checkpoint;
    use bagssl_core::embed::{Embed, FeatureLayer};
    use bagssl_core::patch::{ImageSize, PatchSide, PatchSpec};
    use bagssl_core::random::Address;

    /// Side of a patch, in pixels.
    pub const SIDE: usize = 16;
    const SIZE: ImageSize = ImageSize { height: 64, width: 64 };

    /// The bag as a batch, from the tile's pixels `[row, column, color]`.
    pub fn bag(checkpoint: &Checkpoint<'_>, rgb: &[u8]) -> Result<PatchBatch> {
        let spec = PatchSpec::new(PatchSide::Pixels(SIDE as u32), SIDE as u32)?;
        let crops = Bag::Grid { spec, stride: SIDE as u32 }.crops(SIZE, Address::default())?;
        let normalization = checkpoint.spec().normalization;
        let mut data = Vec::new();
        for crop in &crops {
            for color in 0..3 {
                for row in crop.top..crop.top + crop.height {
                    for column in crop.left..crop.left + crop.width {
                        let value = rgb[((row * SIZE.width + column) * 3) as usize + color];
                        data.push(normalization.apply(color, f32::from(value) / 255.0));
                    }
                }
            }
        }
        let shape = BatchShape { images: 1, patches: crops.len(), channels: 3, height: SIDE, width: SIDE };
        PatchBatch::new(shape, data, vec![0], vec![0])
    }

    /// The mean of the patches' embeddings.
    pub fn mean(network: &dyn Embed, bag: &PatchBatch) -> std::result::Result<Vec<f32>, SourceError> {
        let rows = network.embed(bag, &[FeatureLayer::Embedding])?.remove(0);
        let mut mean = RunningMean::new(rows.dim);
        rows.values.chunks(rows.dim).try_for_each(|row| mean.push(row))?;
        Ok(mean.mean().unwrap_or_default())
    }

    /// The golden embedding: Burn's operations on the backend that shares nothing with this project's kernels.
    #[cfg(feature = "candle")]
    pub fn by_definition(checkpoint: &Checkpoint<'_>, rgb: &[u8]) -> std::result::Result<Vec<f32>, SourceError> {
        let network = bagssl_backend::candle().trained(checkpoint, &[FeatureLayer::Embedding])?;
        mean(&*network, &bag(checkpoint, rgb)?)
    }
}
