//! The batches of training: random views of shuffled images, augmented.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bagssl_core::bag::Views;
use bagssl_core::batch::{BatchShape, Batches, PatchBatch, PatchSource};
use bagssl_core::normalise::Normalisation;
use bagssl_core::patch::{Crop, Filter, ImageSize, PatchSide, PatchSpec};
use bagssl_core::random::{Address, Purpose};

use crate::augment::{Augment, CheckedAugment};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::levels::Levels;
use crate::ordered::{Job, Ordered, Values};
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
/// Batches hold the same bits for any number of threads and from any batch on. An image that cannot be decoded or cut
/// ends the epoch with an error that names it.
///
/// Memory: the cache, one image for each thread, and besides the batch that the consumer has at most
/// `2 + ceil(threads / batch)` batches of `4 * batch * patches * 3 * input * input` bytes.
#[derive(Debug, Clone)]
pub struct Loader(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dataset: Arc<Dataset>,
    config: LoaderConfig,
    augment: CheckedAugment,
    levels: Levels,
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
        let levels = Levels::new(config.normalisation);
        let inner = Inner { dataset, config, augment, levels, cache, room };
        inner.crop(0, inner.decoded(0)?.size(), Address::default())?;
        Ok(Loader(Arc::new(inner)))
    }
}

impl PatchSource for Loader {
    fn shape(&self) -> BatchShape {
        self.0.shape()
    }

    fn batches_per_epoch(&self) -> usize {
        self.0.dataset.len() / self.0.config.batch
    }

    fn epoch(&self, epoch: u32, first: usize) -> Batches<'_> {
        let inner = self.0.clone();
        let address = Address { seed: inner.config.seed, epoch, ..Address::default() };
        let order = address.stream(Purpose::Shuffle).permutation(inner.dataset.len() as u32);
        let threads = inner.config.threads;
        Box::new(Ordered::new(first..self.batches_per_epoch(), threads, Epoch { inner, epoch, order }))
    }
}

/// The batches of one epoch.
struct Epoch {
    inner: Arc<Inner>,
    epoch: u32,
    order: Vec<u32>,
}

impl Epoch {
    fn images(&self, batch: usize) -> &[u32] {
        let images = self.inner.config.batch;
        &self.order[batch * images..][..images]
    }
}

impl Job for Epoch {
    type Scratch = (Resampler, Image);

    fn scratch(&self) -> Self::Scratch {
        let side = self.inner.config.views.input();
        (Resampler::new(self.inner.config.filter), Image::black(ImageSize { height: side, width: side }))
    }

    fn images(&self, _batch: usize) -> usize {
        self.inner.config.batch
    }

    fn values(&self, batch: usize, place: usize, scratch: &mut Self::Scratch) -> Values {
        Ok(self.inner.views(self.images(batch)[place], self.epoch, scratch)?)
    }

    fn join(&self, batch: usize, values: Vec<f32>) -> PatchBatch {
        let images = self.images(batch).to_vec();
        let labels = images.iter().map(|&image| self.inner.dataset.label(image as usize)).collect();
        PatchBatch::new(self.inner.shape(), values, images, labels).expect("as many values as the shape says")
    }
}

impl Inner {
    fn shape(&self) -> BatchShape {
        let LoaderConfig { batch, patches, views, .. } = self.config;
        let side = views.input() as usize;
        BatchShape { images: batch, patches, channels: 3, height: side, width: side }
    }

    /// All views of an image, one after the other.
    fn views(&self, image: u32, epoch: u32, (resampler, view): &mut (Resampler, Image)) -> Result<Vec<f32>> {
        let decoded = self.decoded(image as usize)?;
        let mut values = Vec::with_capacity(self.shape().patches * self.shape().patch_len());
        for patch in 0..self.config.patches as u32 {
            let address = Address { seed: self.config.seed, epoch, image, patch };
            resampler.fill(&decoded, self.crop(image as usize, decoded.size(), address)?, view);
            self.augment.apply(view, &mut address.stream(Purpose::Augment));
            self.levels.append(view, &mut values);
        }
        Ok(values)
    }

    fn crop(&self, image: usize, size: ImageSize, address: Address) -> Result<Crop> {
        let named = |error| Error::Patch { name: self.dataset.name(image).into(), error };
        self.config.views.crop(size, address).map_err(named)
    }

    /// A decoded image, kept if there is room.
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
