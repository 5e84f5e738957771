//! The batches of training: random views of shuffled images, augmented.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bagssl_core::bag::Views;
use bagssl_core::batch::{BatchShape, Batches, PatchBatch, PatchSource};
use bagssl_core::normalise::Normalisation;
use bagssl_core::patch::{Filter, PatchSide, PatchSpec};
use bagssl_core::random::{Address, Purpose};

use crate::augment::{Augment, CheckedAugment};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::ordered::Ordered;
use crate::resample::Resampler;

/// How batches are made.
#[derive(Debug, Clone)]
pub struct LoaderConfig {
    /// How views are drawn.
    pub views: Views,
    /// Views of each image.
    pub patches: usize,
    /// Images in a batch.
    pub batch: usize,
    /// The seed of all draws.
    pub seed: u64,
    /// Threads that make batches; 0 for as many as there are cores.
    pub threads: usize,
    /// What is done to a patch.
    pub augment: Augment,
    /// What the network expects of colours.
    pub normalisation: Normalisation,
    /// How a crop is resampled.
    pub filter: Filter,
    /// Decoded images that are kept from one epoch to the next, in bytes.
    pub cache_bytes: u64,
}

impl Default for LoaderConfig {
    /// Two patches of half the side of 100 images, resampled to 32 pixels, without augmentation; 1 GiB of cache.
    fn default() -> Self {
        let spec = PatchSpec::new(PatchSide::AreaShare(0.25), 32).expect("a share in (0, 1]");
        LoaderConfig {
            views: Views::FixedScale(spec),
            patches: 2,
            batch: 100,
            seed: 0,
            threads: 0,
            augment: Augment::default(),
            normalisation: Normalisation::HALF,
            filter: Filter::Bilinear,
            cache_bytes: 1 << 30,
        }
    }
}

/// A source of training batches. An image is decoded once for all its views, and kept if there is room.
///
/// Batches hold the same bits for any number of threads and from any batch on. Memory: the cache, and at most
/// `2 * threads` batches of `4 * batch * patches * 3 * input * input` bytes.
#[derive(Debug, Clone)]
pub struct Loader(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dataset: Arc<Dataset>,
    config: LoaderConfig,
    augment: CheckedAugment,
    cache: Vec<OnceLock<Arc<Image>>>,
    room: AtomicU64,
}

impl Loader {
    /// Checks the settings against the images.
    ///
    /// # Errors
    /// [`Error::Setting`] if a setting lies outside its range or there are fewer images than one batch holds;
    /// [`Error::Image`] or [`Error::Patch`] if the first image cannot be used.
    pub fn new(dataset: Arc<Dataset>, config: LoaderConfig) -> Result<Self> {
        let refuse = |name, expected: String, got: usize| Err(Error::Setting { name, expected, got: got.to_string() });
        if config.patches == 0 {
            return refuse("batch.patches", "at least 1".into(), 0);
        }
        if config.batch == 0 || config.batch > dataset.len() {
            return refuse("batch.images", format!("1 to {}, the number of images", dataset.len()), config.batch);
        }
        let augment = config.augment.check()?;
        let cache = (0..dataset.len()).map(|_| OnceLock::new()).collect();
        let room = AtomicU64::new(config.cache_bytes);
        let inner = Inner { dataset, config, augment, cache, room };
        inner.crop(0, inner.decoded(0)?.size(), Address::default())?;
        Ok(Loader(Arc::new(inner)))
    }
}

impl PatchSource for Loader {
    fn shape(&self) -> BatchShape {
        let LoaderConfig { batch, patches, views, .. } = self.0.config;
        let side = views.input() as usize;
        BatchShape { images: batch, patches, channels: 3, height: side, width: side }
    }

    fn batches_per_epoch(&self) -> usize {
        self.0.dataset.len() / self.0.config.batch
    }

    fn epoch(&self, epoch: u32, first: usize) -> Batches<'_> {
        let inner = self.0.clone();
        let shape = self.shape();
        let address = Address { seed: inner.config.seed, epoch, ..Address::default() };
        let order = address.stream(Purpose::Shuffle).permutation(inner.dataset.len() as u32);
        let threads = inner.config.threads;
        let make = move |number: usize| {
            let images = &order[number * shape.images..][..shape.images];
            inner.batch(images, epoch, shape).map_err(Into::into)
        };
        Box::new(Ordered::new(first..self.batches_per_epoch(), threads, make))
    }
}

impl Inner {
    fn batch(&self, images: &[u32], epoch: u32, shape: BatchShape) -> Result<PatchBatch> {
        let mut resampler = Resampler::new(self.config.filter);
        let mut values = Vec::with_capacity(shape.rows() * shape.patch_len());
        for &image in images {
            let decoded = self.decoded(image as usize)?;
            for patch in 0..shape.patches as u32 {
                let address = Address { seed: self.config.seed, epoch, image, patch };
                let crop = self.crop(image as usize, decoded.size(), address)?;
                let mut view = resampler.patch(&decoded, crop, self.config.views.input());
                self.augment.apply(&mut view, &mut address.stream(Purpose::Augment));
                view.normalised(self.config.normalisation, &mut values);
            }
        }
        let labels = images.iter().map(|&image| self.dataset.label(image as usize)).collect();
        Ok(PatchBatch::new(shape, values, images.to_vec(), labels).expect("as many values as the shape says"))
    }

    fn crop(
        &self,
        image: usize,
        size: bagssl_core::patch::ImageSize,
        address: Address,
    ) -> Result<bagssl_core::patch::Crop> {
        let named = |error| Error::Patch { name: self.dataset.name(image).into(), error };
        self.config.views.crop(size, address).map_err(named)
    }

    fn decoded(&self, image: usize) -> Result<Arc<Image>> {
        if let Some(decoded) = self.cache[image].get() {
            return Ok(decoded.clone());
        }
        let decoded = Arc::new(self.dataset.decode(image)?);
        let bytes = decoded.rgb().len() as u64;
        let fits = self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(bytes));
        if fits.is_ok() && self.cache[image].set(decoded.clone()).is_err() {
            // Another thread was first.
            self.room.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(decoded)
    }
}
