//! Features of a data set, computed by a network or read from the cache of an earlier call.

use std::path::Path;
use std::sync::Arc;

use bagssl_core::bag::Bag;
use bagssl_core::checkpoint::Spec;
use bagssl_core::color::Color;
use bagssl_core::embed::FeatureLayer;
use bagssl_core::memory;
use bagssl_core::normalize::Normalization;
use bagssl_core::patch::Filter;
use bagssl_data::{BagConfig, BagLoader, Dataset};
use bagssl_eval::fnv1a;
use bagssl_eval::{CacheEntry, FeatureCache, cached_features};
use bagssl_eval::{Features, extract};

use crate::error::{Error, Result};
use crate::eval_options::{EvalOptions, Event};
use crate::model::Model;

/// Images per batch of bags. Large patches reduce the number, and small bags increase it
/// ([`BagLoader::with_rows`]).
const BATCH: usize = 16;
/// The most bytes of patches in a batch, at `FEW` patches per image.
const MAX_BATCH_BYTES: u64 = 2 << 30;
const FEW: u64 = 25;

/// The input format of a network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input {
    pub(crate) side: u32,
    pub(crate) normalization: Normalization,
    pub(crate) filter: Filter,
}

impl Input {
    fn from_spec(spec: &Spec) -> Self {
        Input { side: spec.patch.input(), normalization: spec.normalization, filter: spec.filter }
    }
}

/// Returns the features of each image's bag, for each layer, in the order of `layers`. Features are read from
/// [`EvalOptions::feature_cache`] if they are there. Tells the number of images embedded, and which were skipped.
///
/// # Errors
/// [`Error::FeatureMemory`] if the features do not fit into memory; [`Error::CachedFeatures`] or [`Error::Eval`] if cached
/// features are damaged; [`Error::Data`] if the bag does not fit the data set; [`Error::Eval`] if an image cannot be used and
/// is not to be skipped, if images have different numbers of patches, or if the network fails.
pub fn extract_features(
    model: &Model<'_>,
    dataset: &Arc<Dataset>,
    bag: Bag,
    color: Color,
    layers: &[FeatureLayer],
    options: &EvalOptions<'_>,
) -> Result<Vec<Features>> {
    let input = Input::from_spec(model.spec);
    let side = input.side as usize;
    let loader = bags(input, dataset, bag, color, options)?.with_rows(model.network.rows([side, side]));
    let mut before = 0;
    let mut progress = |completed: usize| {
        options.report(Event::Embedded(completed.saturating_sub(before) as u64));
        before = completed;
    };
    let features = match options.feature_cache {
        None => {
            check_memory(model, &loader, layers)?;
            extract(model.network, loader.batches(), layers, &mut progress)?
        }
        Some(root) => {
            let (images, others) = (dataset.fingerprint(), describe(model, dataset, bag, color, options));
            let (identity, location) = (format!("images {images}; {others}"), dataset.location());
            let folder = root.join(fnv1a(identity.as_bytes()));
            if let Some(before) = latest_with_settings(&cached_features(root), &others, &location)
                && before.identity != identity
            {
                options.report(Event::ImagesChanged { location: &location, is_cached: folder.exists() });
            }
            let cache = FeatureCache { folder: &folder, identity: &identity, location: &location };
            if cache.is_in_use() {
                options.report(Event::Waiting { folder: &folder });
            }
            let features = cache.extract(model.network, |first| loader.batches_from(first), layers, &mut progress)?;
            check_classes(&features, dataset, &folder)?;
            features
        }
    };
    let skipped = loader.skipped();
    if !skipped.is_empty() {
        options.report(Event::Skipped(&skipped));
    }
    let with_features = features.first().map_or(0, Features::len);
    let earlier = dataset.len().saturating_sub(with_features + skipped.len());
    if earlier > 0 {
        options.report(Event::SkippedBefore(earlier));
    }
    Ok(features)
}

/// Fails early if the features do not fit in the available memory.
fn check_memory(model: &Model<'_>, loader: &BagLoader, layers: &[FeatureLayer]) -> Result<()> {
    let row: usize = layers.iter().map(|&layer| model.spec.model.dim(layer) * size_of::<f32>()).sum();
    let (images, patches) = (loader.images(), loader.patches());
    let needed = images as u64 * patches as u64 * row as u64;
    match memory::available() {
        Some(available) if needed > available => Err(Error::FeatureMemory { images, patches, available, needed }),
        _ => Ok(()),
    }
}

/// Describes everything that features depend on, except the images. The cache identifies features by this text, so it must not
/// change.
fn describe(model: &Model<'_>, dataset: &Dataset, bag: Bag, color: Color, options: &EvalOptions<'_>) -> String {
    let EvalOptions { seed, on_bad_image, .. } = options;
    let Input { side, normalization, filter } = Input::from_spec(model.spec);
    // Only random positions depend on the seed.
    let seed = if let Bag::Random { .. } = bag { format!("; seed {seed}") } else { String::new() };
    format!(
        "bagssl {}; {}; classes {}; {bag:?}{seed}; {}; input {side}; {filter:?}; {normalization:?}; bad images {on_bad_image:?}",
        env!("CARGO_PKG_VERSION"),
        model.cache_name,
        // A class index depends on all class names.
        fnv1a(dataset.classes().join("\n").as_bytes()),
        color.name()
    )
}

/// Returns the most recently used cache entry with the same location and settings, for any images.
fn latest_with_settings<'a>(entries: &'a [CacheEntry], others: &str, location: &str) -> Option<&'a CacheEntry> {
    let is_before = |entry: &&CacheEntry| {
        entry.location == location && entry.identity.split_once("; ").is_some_and(|(_, before)| before == others)
    };
    entries.iter().filter(is_before).max_by_key(|entry| entry.last_used)
}

/// Checks that the images and classes of features match the data set. Cached files may be damaged. All layers have the same
/// images.
fn check_classes(features: &[Features], dataset: &Dataset, folder: &Path) -> Result<()> {
    let Some(features) = features.first() else { return Ok(()) };
    let is_its =
        |(&image, &label): (&u32, &u32)| (image as usize) < dataset.len() && dataset.label(image as usize) == label;
    let rises = features.images().windows(2).all(|pair| pair[0] < pair[1]);
    if rises && features.images().iter().zip(features.labels()).all(is_its) {
        return Ok(());
    }
    Err(Error::CachedFeatures { folder: folder.into() })
}

/// Creates the loader of the bags of patches.
pub(crate) fn bags(
    input: Input,
    dataset: &Arc<Dataset>,
    bag: Bag,
    color: Color,
    options: &EvalOptions<'_>,
) -> Result<BagLoader> {
    // Large patches get fewer images per batch. The number of patches per image is unknown until an
    // image is decoded.
    let patch = 3 * 4 * u64::from(input.side) * u64::from(input.side);
    let batch = BATCH.min((MAX_BATCH_BYTES / (FEW * patch)).max(1) as usize);
    let config = BagConfig {
        bag,
        input: input.side,
        color,
        normalization: input.normalization,
        filter: input.filter,
        batch,
        seed: options.seed,
        threads: options.threads,
        on_bad_image: options.on_bad_image,
    };
    Ok(BagLoader::new(dataset.clone(), config)?)
}
