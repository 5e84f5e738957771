//! Training batches: random, augmented views of shuffled images.

use std::ops::Range;
use std::sync::Arc;

use bagssl_core::bag::Views;
use bagssl_core::batch::{BatchShape, Batches, PatchBatch, PatchSource};
use bagssl_core::normalize::Normalization;
use bagssl_core::patch::{Crop, Filter, ImageSize, PatchSide, PatchSpec};
use bagssl_core::random::{Address, Purpose};

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::loading::image_cache::ImageCache;
use crate::loading::prefetch::{Job, PrefetchedBatches, Values, cores_if_zero};
use crate::loading::skip::{OnBadImage, Pending, Skip, SkipLog, Skipped};
use crate::memory::Decoded;
use crate::transform::augment::{Augment, CheckedAugment};
use crate::transform::resample::Resampler;
use crate::transform::to_tensor::ToTensor;

/// Settings of the training batches.
#[derive(Debug, Clone)]
pub struct LoaderConfig {
    /// How views are drawn.
    pub views: Views,
    /// The number of views per image.
    pub patches: usize,
    /// The number of images per batch.
    pub batch: usize,
    /// The seed of all random numbers.
    pub seed: u64,
    /// The number of threads that make batches; 0 for one per core.
    pub threads: usize,
    /// The augmentation of each patch.
    pub augment: Augment,
    /// The normalization that the network expects.
    pub normalization: Normalization,
    /// The filter for resampling crops.
    pub filter: Filter,
    /// The maximum size of the cache of decoded images in bytes. It persists across epochs. It is
    /// part of the data set's budget, of which it never takes more than split.
    pub cache_bytes: u64,
    /// How to handle unusable images.
    pub on_bad_image: OnBadImage,
}

impl Default for LoaderConfig {
    /// The defaults: 100 images per batch, two patches per image of half the image's side,
    /// resampled to 32 pixels, no augmentation, and at most 1 GiB of cache.
    fn default() -> Self {
        let spec = PatchSpec::new(PatchSide::AreaShare(0.25), 32).expect("a share in (0, 1]");
        LoaderConfig {
            views: Views::FixedScale(spec),
            patches: 2,
            batch: 100,
            seed: 0,
            threads: 0,
            augment: Augment::default(),
            normalization: Normalization::HALF,
            filter: Filter::Bilinear,
            cache_bytes: 1 << 30,
            on_bad_image: OnBadImage::Fail,
        }
    }
}

/// A source of training batches. An image is decoded once for all its views, and cached if there is
/// room.
///
/// Batches are bit-for-bit the same for any number of threads, and no matter which batch an epoch
/// starts from. An image that cannot be decoded or cropped either ends the epoch with an error that
/// names it, or is skipped. A skipped image is replaced by another image of the epoch: the one half
/// an epoch later, or one of those after it. So all batches keep their size, and all other patches
/// stay the same bit for bit. [`Loader::skipped`] lists the skipped images.
///
/// Memory: the data set's budget, for decoding and for the cache, and, besides the batch that the consumer
/// holds, at most `2 + ceil(threads / batch)` batches of `4 * batch * patches * 3 * input * input`
/// bytes.
#[derive(Debug, Clone)]
pub struct Loader {
    inner: Arc<Inner>,
    /// The positions of the images in each batch that this loader makes.
    part: Range<usize>,
}

#[derive(Debug)]
struct Inner {
    dataset: Arc<Dataset>,
    config: LoaderConfig,
    augment: CheckedAugment,
    levels: ToTensor,
    cache: ImageCache,
    skips: SkipLog,
}

impl Loader {
    /// Creates a loader, and checks the settings and the first image, and that no file of a list is
    /// missing.
    ///
    /// # Errors
    /// [`Error::Setting`] if a setting is out of range, or the data set has fewer images than a
    /// batch. [`Error::Image`] or [`Error::Patch`] if the first image cannot be used, and the errors of
    /// [`OnBadImage::check`].
    pub fn new(dataset: Arc<Dataset>, config: LoaderConfig) -> Result<Self> {
        let refuse = |name, expected: String, got: usize| Err(Error::Setting { name, expected, got: got.to_string() });
        if config.patches == 0 {
            return refuse("batch.patches", "at least 1".into(), 0);
        }
        if config.batch == 0 || config.batch > dataset.len() {
            return refuse("batch.images", format!("1 to {} (the number of images)", dataset.len()), config.batch);
        }
        let augment = config.augment.check()?;
        let cache = ImageCache::new(config.cache_bytes);
        let levels = ToTensor::new(config.normalization);
        let inner = Inner { dataset, config, augment, levels, cache, skips: SkipLog::default() };
        inner.config.on_bad_image.check(&inner.dataset)?;
        inner.check_first()?;
        let part = 0..inner.config.batch;
        Ok(Loader { inner: Arc::new(inner), part })
    }

    /// Returns a loader for one of several workers, which makes only these images of each batch.
    /// They are bit-for-bit the same as in the complete batch. The worker gets a proportional
    /// number of the threads. The cache and the list of skipped images are shared.
    ///
    /// # Panics
    /// If the range is empty or exceeds the batch.
    #[must_use]
    pub fn part(&self, part: Range<usize>) -> Self {
        let batch = self.inner.config.batch;
        assert!(!part.is_empty() && part.end <= batch, "expected images below {batch}, got {part:?}");
        Loader { inner: self.inner.clone(), part }
    }

    /// Returns the images skipped so far in the batches that the consumer has received, in the
    /// order of the data set.
    pub fn skipped(&self) -> Vec<Skipped> {
        self.inner.skips.list(&self.inner.dataset)
    }
}

impl PatchSource for Loader {
    fn shape(&self) -> BatchShape {
        self.inner.shape(self.part.len())
    }

    fn batches_per_epoch(&self) -> usize {
        self.inner.dataset.len() / self.inner.config.batch
    }

    fn epoch(&self, epoch: u32, first: usize) -> Batches<'_> {
        let (inner, part) = (self.inner.clone(), self.part.clone());
        let address = Address { seed: inner.config.seed, epoch, ..Address::default() };
        let order = address.stream(Purpose::Shuffle).permutation(inner.dataset.len() as u32);
        let threads = (cores_if_zero(inner.config.threads) * part.len()).div_ceil(inner.config.batch);
        Box::new(PrefetchedBatches::new(
            first..self.batches_per_epoch(),
            threads,
            Epoch { inner, part, epoch, order, pending: Pending::default() },
        ))
    }
}

/// The batches of one epoch.
struct Epoch {
    inner: Arc<Inner>,
    part: Range<usize>,
    epoch: u32,
    order: Vec<u32>,
    pending: Pending,
}

/// The maximum number of images tried at one position. After that, the fault is not in single
/// images.
const MAX_ATTEMPTS: usize = 16;

impl Epoch {
    /// Returns the position in the epoch's order of an image in this part of a batch.
    fn epoch_position(&self, batch: usize, position: usize) -> usize {
        batch * self.inner.config.batch + self.part.start + position
    }

    fn images(&self, batch: usize) -> &[u32] {
        &self.order[self.epoch_position(batch, 0)..][..self.part.len()]
    }

    /// Returns the image to try at a position of the epoch's order. Attempt 0 is the position's own
    /// image.
    fn candidate(&self, epoch_position: usize, attempt: usize) -> u32 {
        let images = self.order.len();
        let step = if attempt == 0 { 0 } else { images / 2 + attempt - 1 };
        self.order[(epoch_position + step) % images]
    }
}

impl Job for Epoch {
    type Scratch = (Resampler, Image);

    fn scratch(&self) -> Self::Scratch {
        let side = self.inner.config.views.input();
        (Resampler::new(self.inner.config.filter), Image::black(ImageSize { height: side, width: side }))
    }

    fn images(&self, _batch: usize) -> usize {
        self.part.len()
    }

    fn values(&self, batch: usize, position: usize, scratch: &mut Self::Scratch) -> Values {
        let epoch_position = self.epoch_position(batch, position);
        let mut skips = Vec::new();
        for attempt in 0..MAX_ATTEMPTS.min(self.order.len()) {
            let image = self.candidate(epoch_position, attempt);
            match self.inner.config.on_bad_image.skip_or_fail(self.inner.views(image, self.epoch, scratch))? {
                Ok(values) => {
                    self.pending.add(batch, position, skips, Some(image));
                    return Ok(values);
                }
                Err(reason) => skips.push(Skip { image, reason }),
            }
        }
        let last = skips.last().map_or_else(String::new, |skip| skip.reason.clone());
        let error = format!("expected a usable image, got none in {} tries; the last: {last}", skips.len());
        self.pending.add(batch, position, skips, None);
        Err(error.into())
    }

    fn join(&self, batch: usize, values: Vec<f32>) -> Option<PatchBatch> {
        let images = self.pending.apply(batch, self.images(batch).iter().copied());
        let labels = images.iter().map(|&image| self.inner.dataset.label(image as usize)).collect();
        Some(
            PatchBatch::new(self.inner.shape(self.part.len()), values, images, labels)
                .expect("as many values as the shape says"),
        )
    }

    fn delivered(&self, batch: usize) {
        self.pending.delivered(batch, &self.inner.skips);
    }
}

impl Inner {
    fn shape(&self, images: usize) -> BatchShape {
        let LoaderConfig { patches, views, .. } = self.config;
        let side = views.input() as usize;
        BatchShape { images, patches, channels: 3, height: side, width: side }
    }

    /// Returns the values of all views of an image.
    fn views(&self, image: u32, epoch: u32, (resampler, view): &mut (Resampler, Image)) -> Result<Vec<f32>> {
        let decoded = self.decoded(image as usize)?;
        let mut values = Vec::with_capacity(self.shape(1).rows() * self.shape(1).patch_len());
        for patch in 0..self.config.patches as u32 {
            let address = Address { seed: self.config.seed, epoch, image, patch };
            resampler.fill(&decoded, self.crop(image as usize, decoded.size(), address)?, view);
            self.augment.apply(view, &mut address.stream(Purpose::Augment));
            self.levels.append(view, &mut values);
        }
        Ok(values)
    }

    /// Checks that the first image can be used, or, if unusable images are skipped, one of the
    /// first few.
    fn check_first(&self) -> Result<()> {
        let usable = |image: usize| self.crop(image, self.decoded(image)?.size(), Address::default()).map(|_| ());
        let tries = match self.config.on_bad_image {
            OnBadImage::Fail => 1,
            OnBadImage::Skip => MAX_ATTEMPTS.min(self.dataset.len()),
        };
        (1..tries).fold(usable(0), |first, image| first.or_else(|error| usable(image).map_err(|_| error)))
    }

    fn crop(&self, image: usize, size: ImageSize, address: Address) -> Result<Crop> {
        let named = |error| Error::Patch { name: self.dataset.name(image).into(), error };
        self.config.views.crop(size, address).map_err(named)
    }

    /// Returns a decoded image, from the cache if possible. Adds it to the cache if there is room.
    fn decoded(&self, image: usize) -> Result<Arc<Decoded>> {
        if let Some(decoded) = self.cache.get(image) {
            return Ok(decoded);
        }
        let decoded = self.dataset.decode_before(image, &|| self.cache.close())?;
        Ok(self.cache.add(image, decoded))
    }
}
