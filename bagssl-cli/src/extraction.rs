//! Features of a data set, computed by a network or read from the cache of an earlier call.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bagssl_core::bag::Bag;
use bagssl_core::checkpoint::ModelPlan;
use bagssl_core::color::Color;
use bagssl_core::embed::{Embed, FeatureLayer};
use bagssl_core::memory;
use bagssl_data::{BagConfig, BagLoader, Dataset};
use bagssl_eval::classify::protocol::fnv1a;
use bagssl_eval::features::cache::{self as cache, FeatureCache};
use bagssl_eval::features::{Features, extract};

use crate::backend::{CpuArgs, Name};
use crate::eval_settings::{EvalSettings, Input};
use crate::input::source::{fingerprint, tell_skipped};
use crate::memory::MIB;
use crate::terminal::output::{note, note_once, one_line};

/// Images per batch of bags. Large patches reduce the number, and small bags increase it
/// ([`BagLoader::with_rows`]).
pub(crate) const BATCH: usize = 16;
/// The most bytes of patches in a batch, at `FEW` patches per image.
const MOST_BATCH: u64 = 2 << 30;
const FEW: u64 = 25;

/// The location of the feature cache.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct FeatureArgs {
    /// Cache features in .npy files below this folder, and reuse them
    ///
    /// The features may exceed the memory. Interrupted extractions resume, later evaluations skip
    /// the embedding, and any program that reads .npy can load the files. Features of changed
    /// images are not reused.
    #[arg(long, value_name = "DIR")]
    features: Option<PathBuf>,
}

/// The cache of one network's features.
#[derive(Debug, Clone)]
pub(crate) struct CacheKey {
    folder: PathBuf,
    /// Describes the weights and the backend that computes with them.
    network: String,
}

impl FeatureArgs {
    /// Returns the cache for a checkpoint's features, or `None` without `--features`.
    pub(crate) fn of(&self, checkpoint: &[u8], backend: Name, cpu: CpuArgs) -> Option<CacheKey> {
        let kernels = match cpu {
            CpuArgs { exact: true, .. } => " exact",
            CpuArgs { bf16: true, .. } => " bf16",
            CpuArgs { .. } => "",
        };
        self.named(format!("checkpoint {}, backend {}{kernels}", fnv1a(checkpoint), backend.text()))
    }

    /// Returns the cache for features of random weights, or `None` without `--features`.
    pub(crate) fn of_random(&self, plan: &ModelPlan, seed: u64, backend: Name) -> Option<CacheKey> {
        let plan = fnv1a(format!("{plan:?}").as_bytes());
        self.named(format!("random weights of plan {plan}, seed {seed}, backend {}", backend.text()))
    }

    fn named(&self, network: String) -> Option<CacheKey> {
        self.features.clone().map(|folder| CacheKey { folder, network })
    }

    /// Returns the cache's folder, or `None` without `--features`.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.features.as_deref()
    }

    /// Checks, before the work begins, that `--features` names a folder or a path that does not
    /// exist.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(folder) = self.features.as_ref().filter(|folder| folder.exists() && !folder.is_dir()) {
            bail!("--features: expected a folder, got {}", folder.display());
        }
        Ok(())
    }
}

/// A network that embeds the bags of images.
pub(crate) struct Extraction<'a> {
    pub(crate) network: &'a dyn Embed,
    pub(crate) plan: &'a ModelPlan,
    pub(crate) input: Input,
    pub(crate) protocol: EvalSettings,
    /// The feature cache. `None` stores features in memory.
    pub(crate) kept: Option<CacheKey>,
    /// Receives the number of newly embedded images.
    pub(crate) progress: &'a dyn Fn(u64),
}

impl Extraction<'_> {
    /// Returns the features of each image's bag, for each layer.
    pub(crate) fn features(
        &self,
        dataset: &Arc<Dataset>,
        bag: Bag,
        color: Color,
        taps: &[FeatureLayer],
    ) -> Result<Vec<Features>> {
        let side = self.input.side as usize;
        let loader = bags(self.input, dataset, bag, color, self.protocol)?.with_rows(self.network.rows([side, side]));
        let mut before = 0;
        let mut hear = |done: usize| {
            (self.progress)(done.saturating_sub(before) as u64);
            before = done;
        };
        let features = match &self.kept {
            None => {
                self.check_memory(&loader, taps)?;
                extract(self.network, loader.batches(), taps, &mut hear)?
            }
            Some(kept) => {
                let (images, others) = (fingerprint(dataset), self.describe(kept, dataset, bag, color));
                let (of, at) = (format!("images {images}; {others}"), dataset.place());
                let folder = kept.folder.join(fnv1a(of.as_bytes()));
                if let Some(before) = last_before(&cache::kept(&kept.folder), &others, &at)
                    && before.of != of
                {
                    let what = if folder.exists() { "were extracted earlier" } else { "are extracted anew" };
                    note_once(&format!("{}: other images than before: their features {what}", one_line(&at)));
                }
                let store = FeatureCache { folder: &folder, of: &of, at: &at };
                if store.is_in_use() {
                    note!("{}: others are at work on these features; they are waited for", folder.display());
                }
                let batches = |first| loader.batches_from(first);
                let features = store.extract(self.network, batches, taps, &mut hear)?;
                check_classes(&features[0], dataset).with_context(|| folder.display().to_string())?;
                features
            }
        };
        let skipped = loader.skipped();
        tell_skipped(&skipped);
        let earlier = dataset.len().saturating_sub(features[0].len() + skipped.len());
        if earlier > 0 {
            note!("{earlier} images left out, as an earlier call has said");
        }
        Ok(features)
    }

    /// Fails early if the features do not fit in the available memory.
    fn check_memory(&self, loader: &BagLoader, taps: &[FeatureLayer]) -> Result<()> {
        let row: usize = taps.iter().map(|&tap| self.plan.dim(tap) * size_of::<f32>()).sum();
        let needed = loader.images() as u64 * loader.patches() as u64 * row as u64;
        match memory::available() {
            Some(available) if needed > available => bail!(
                "features of {} images x {} patches: expected at most the {} MiB of memory that are free, got {}; --features \
                 DIR keeps them on disk",
                loader.images(),
                loader.patches(),
                available / MIB,
                needed.div_ceil(MIB)
            ),
            _ => Ok(()),
        }
    }

    /// Describes everything that features depend on, except the images.
    fn describe(&self, kept: &CacheKey, dataset: &Dataset, bag: Bag, color: Color) -> String {
        let EvalSettings { seed, on_bad_image, .. } = self.protocol;
        let Input { side, normalization, filter } = self.input;
        // Only random positions depend on the seed.
        let seed = if let Bag::Random { .. } = bag { format!("; seed {seed}") } else { String::new() };
        format!(
            "bagssl {}; {}; classes {}; {bag:?}{seed}; {}; input {side}; {filter:?}; {normalization:?}; bad images {on_bad_image:?}",
            env!("CARGO_PKG_VERSION"),
            kept.network,
            // A class index depends on all class names.
            fnv1a(dataset.classes().join("\n").as_bytes()),
            color.name()
        )
    }
}

/// Returns the most recently used cache entry with the same location and settings, for any images.
fn last_before<'a>(kept: &'a [cache::CacheEntry], others: &str, at: &str) -> Option<&'a cache::CacheEntry> {
    let is_before = |kept: &&cache::CacheEntry| {
        kept.at == at && kept.of.split_once("; ").is_some_and(|(_, before)| before == others)
    };
    kept.iter().filter(is_before).max_by_key(|kept| kept.used)
}

/// Checks that the images and classes of features match the data set. Cached files may be damaged.
fn check_classes(features: &Features, dataset: &Dataset) -> Result<()> {
    let is_its =
        |(&image, &label): (&u32, &u32)| (image as usize) < dataset.len() && dataset.label(image as usize) == label;
    let rises = features.images().windows(2).all(|pair| pair[0] < pair[1]);
    if rises && features.images().iter().zip(features.labels()).all(is_its) {
        return Ok(());
    }
    bail!("expected features of the images and classes of the data set, got others; remove what is kept there")
}

/// Creates the loader of the bags of patches.
pub(crate) fn bags(
    input: Input,
    dataset: &Arc<Dataset>,
    bag: Bag,
    color: Color,
    protocol: EvalSettings,
) -> Result<BagLoader> {
    // Large patches get fewer images per batch. The number of patches per image is unknown until an
    // image is decoded.
    let patch = 3 * 4 * u64::from(input.side) * u64::from(input.side);
    let batch = BATCH.min((MOST_BATCH / (FEW * patch)).max(1) as usize);
    let config = BagConfig {
        bag,
        input: input.side,
        color,
        normalization: input.normalization,
        filter: input.filter,
        batch,
        seed: protocol.seed,
        threads: protocol.threads,
        on_bad_image: protocol.on_bad_image,
    };
    Ok(BagLoader::new(dataset.clone(), config)?)
}
