//! Evaluation batches: the bag of patches of each image, in order and without augmentation.

mod grid;

pub use grid::common_grid;

use std::sync::Arc;

use bagssl_core::bag::Bag;
use bagssl_core::batch::{BatchShape, Batches, PatchBatch};
use bagssl_core::normalize::Normalization;
use bagssl_core::patch::{Crop, Filter, ImageSize};
use bagssl_core::random::Address;

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::loading::prefetch::{Job, PrefetchedBatches, Values};
use crate::loading::skip::{OnBadImage, Pending, Skip, SkipLog, Skipped};
use crate::memory::Decoded;
use crate::transform::resample::Resampler;
use crate::transform::to_tensor::ToTensor;
use bagssl_core::color::Color;

/// Settings of the evaluation batches.
#[derive(Debug, Clone)]
pub struct BagConfig {
    /// Which patches of an image form its bag.
    pub bag: Bag,
    /// The side of the network's input in pixels.
    pub input: u32,
    /// Whether to convert the image to grey before cropping.
    pub color: Color,
    /// The normalization that the network expects.
    pub normalization: Normalization,
    /// The filter for resampling crops.
    pub filter: Filter,
    /// The number of images per batch.
    pub batch: usize,
    /// The seed of random bags.
    pub seed: u64,
    /// The number of threads that make batches; 0 for one per core.
    pub threads: usize,
    /// How to handle unusable images.
    pub on_bad_image: OnBadImage,
}

impl Default for BagConfig {
    /// The defaults: whole images in color, resampled to 32 pixels, 32 images per batch.
    fn default() -> Self {
        BagConfig {
            bag: Bag::Whole,
            input: 32,
            color: Color::Rgb,
            normalization: Normalization::HALF,
            filter: Filter::Bilinear,
            batch: 32,
            seed: 0,
            threads: 0,
            on_bad_image: OnBadImage::Fail,
        }
    }
}

/// A source of the bags of all images of a data set.
#[derive(Debug, Clone)]
pub struct BagLoader {
    dataset: Arc<Dataset>,
    config: BagConfig,
    patches: usize,
    skips: Arc<SkipLog>,
}

impl BagLoader {
    /// Creates a loader, and checks the settings. The first image determines the number of patches
    /// per bag.
    ///
    /// # Errors
    /// [`Error::Setting`] if the batch size or the input size is 0. [`Error::Image`] or
    /// [`Error::Patch`] if the first image cannot be used, and the errors of [`OnBadImage::check`].
    pub fn new(dataset: Arc<Dataset>, config: BagConfig) -> Result<Self> {
        for (name, value) in [("batch", config.batch), ("input", config.input as usize)] {
            if value == 0 {
                return Err(Error::Setting { name, expected: "at least 1".into(), got: "0".into() });
            }
        }
        config.on_bad_image.check(&dataset)?;
        let mut loader = BagLoader { dataset, config, patches: 0, skips: Arc::default() };
        loader.patches = loader.first_bag()?;
        Ok(loader)
    }

    /// Returns the number of patches of the first usable image.
    fn first_bag(&self) -> Result<usize> {
        for image in 0..self.images() {
            let bag = self.dataset.decode(image).and_then(|decoded| self.crops(image, &decoded));
            if let Ok(bag) = self.config.on_bad_image.skip_or_fail(bag)? {
                return Ok(bag.len());
            }
        }
        let (expected, got) = ("a usable image".into(), format!("none of {}", self.images()));
        Err(Error::Image { name: self.dataset.origin().display().to_string(), expected, got })
    }

    /// Returns the images skipped so far in the batches that the consumer has received, in the
    /// order of the data set.
    pub fn skipped(&self) -> Vec<Skipped> {
        self.skips.list(&self.dataset)
    }

    /// The number of patches per bag.
    pub fn patches(&self) -> usize {
        self.patches
    }

    /// Increases the number of images per batch so that a batch has about `rows` patches. Never
    /// decreases it.
    #[must_use]
    pub fn with_rows(mut self, rows: usize) -> Self {
        self.config.batch = self.config.batch.max(rows / self.patches);
        self
    }

    /// The number of images.
    pub fn images(&self) -> usize {
        self.dataset.len()
    }

    /// Iterates over all bags in the order of the images. The last batch may be smaller, as may
    /// batches with skipped images. A batch without any image left is omitted. A bag with a
    /// different number of patches than the first image's is an error that names the image.
    /// [`common_grid`] checks that all images have the same grid.
    pub fn batches(&self) -> Batches<'static> {
        self.batches_from(0)
    }

    /// Iterates over the bags from image `first` on. The bags do not depend on `first`.
    pub fn batches_from(&self, first: usize) -> Batches<'static> {
        let count = self.images().saturating_sub(first).div_ceil(self.config.batch);
        let levels = ToTensor::new(self.config.normalization);
        let job = Bags { levels, loader: self.clone(), first, pending: Pending::default() };
        Box::new(PrefetchedBatches::new(0..count, self.config.threads, job))
    }

    fn crops(&self, image: usize, decoded: &Image) -> Result<Vec<Crop>> {
        let address = Address { seed: self.config.seed, image: image as u32, ..Address::default() };
        let named = |error| Error::Patch { name: self.dataset.name(image).into(), error };
        self.config.bag.crops(decoded.size(), address).map_err(named)
    }

    /// Returns one patch of a bag as an image, before resampling.
    ///
    /// # Errors
    /// The errors of decoding, and [`Error::Setting`] if the bag has no such patch.
    ///
    /// # Panics
    /// If the image's index is out of range.
    pub fn picture(&self, image: usize, patch: usize) -> Result<Image> {
        let mut decoded = self.dataset.decode(image)?;
        let crops = self.crops(image, &decoded)?;
        let Some(&crop) = crops.get(patch) else {
            let expected = format!("a patch index below {}", crops.len());
            return Err(Error::Setting { name: "patch", expected, got: patch.to_string() });
        };
        decoded.set_color(self.config.color);
        Ok(decoded.crop(crop))
    }
}

/// Cuts patches out of images, one at a time.
#[derive(Debug)]
pub struct Cutter {
    resampler: Resampler,
    levels: ToTensor,
    patch: Image,
}

impl Cutter {
    /// Creates a cutter of normalized patches with `input` pixels per side.
    pub fn new(input: u32, filter: Filter, normalization: Normalization) -> Self {
        let patch = Image::black(ImageSize { height: input, width: input });
        Cutter { resampler: Resampler::new(filter), levels: ToTensor::new(normalization), patch }
    }

    /// Appends the values of a patch, `[channel, height, width]`.
    ///
    /// # Panics
    /// If the crop is not inside the image.
    pub fn cut(&mut self, image: &Image, crop: Crop, values: &mut Vec<f32>) {
        self.resampler.fill(image, crop, &mut self.patch);
        self.levels.append(&self.patch, values);
    }
}

/// The job that makes the batches of bags.
struct Bags {
    loader: BagLoader,
    /// The first image of the first batch.
    first: usize,
    levels: ToTensor,
    pending: Pending,
}

impl Job for Bags {
    type Scratch = (Resampler, Image);

    fn scratch(&self) -> Self::Scratch {
        let side = self.loader.config.input;
        (Resampler::new(self.loader.config.filter), Image::black(ImageSize { height: side, width: side }))
    }

    fn images(&self, batch: usize) -> usize {
        self.images_of(batch).len()
    }

    fn values(&self, batch: usize, position: usize, scratch: &mut Self::Scratch) -> Values {
        let image = self.images_of(batch).start + position;
        let used = self.loader.config.on_bad_image.skip_or_fail(self.usable(image))?;
        match used {
            Ok((decoded, crops)) => Ok(self.bag(image, decoded, &crops, scratch)?),
            Err(reason) => {
                self.pending.add(batch, position, vec![Skip { image: image as u32, reason }], None);
                Ok(Vec::new())
            }
        }
    }

    fn join(&self, batch: usize, values: Vec<f32>) -> Option<PatchBatch> {
        let BagLoader { dataset, config, patches, .. } = &self.loader;
        let side = config.input as usize;
        let images = self.pending.apply(batch, self.images_of(batch).map(|image| image as u32));
        let shape = BatchShape { images: images.len(), patches: *patches, channels: 3, height: side, width: side };
        let labels = images.iter().map(|&image| dataset.label(image as usize)).collect();
        let is_empty = images.is_empty();
        (!is_empty).then(|| PatchBatch::new(shape, values, images, labels).expect("as many values as the shape says"))
    }

    fn delivered(&self, batch: usize) {
        self.pending.delivered(batch, &self.loader.skips);
    }
}

impl Bags {
    /// Returns the images of a batch.
    fn images_of(&self, batch: usize) -> std::ops::Range<usize> {
        let first = self.first + batch * self.loader.config.batch;
        first..self.loader.images().min(first + self.loader.config.batch)
    }

    /// Decodes an image and returns it with its crops.
    fn usable(&self, image: usize) -> Result<(Decoded, Vec<Crop>)> {
        let decoded = self.loader.dataset.decode(image)?;
        let crops = self.loader.crops(image, &decoded)?;
        Ok((decoded, crops))
    }

    /// Returns the values of all patches of an image.
    fn bag(
        &self,
        image: usize,
        mut decoded: Decoded,
        crops: &[Crop],
        (resampler, patch): &mut (Resampler, Image),
    ) -> Result<Vec<f32>> {
        let loader = &self.loader;
        if crops.len() != loader.patches {
            let (name, size) = (loader.dataset.name(image).into(), decoded.size());
            let expected = format!(
                "a bag of {} patches, as for the first image (for images of different sizes, use random bags)",
                loader.patches
            );
            let got = format!("{} in an image of {}x{} (height x width)", crops.len(), size.height, size.width);
            return Err(Error::Image { name, expected, got });
        }
        decoded.set_color(loader.config.color);
        let mut values = Vec::with_capacity(crops.len() * patch.rgb().len());
        for &crop in crops {
            resampler.fill(&decoded, crop, patch);
            self.levels.append(patch, &mut values);
        }
        Ok(values)
    }
}
