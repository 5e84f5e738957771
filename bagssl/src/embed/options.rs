//! How images are embedded.

use std::fmt;
use std::time::Duration;

use bagssl_core::anytime::StopRule;
use bagssl_core::bag::Bag;
use bagssl_core::embed::FeatureLayer;
use bagssl_core::patch::{ImageSize, PatchSide, PatchSpec};
use bagssl_data::{Dataset, OnBadImage};
use bagssl_eval::Classifier;

use crate::error::{Error, Result};

/// The most random patches per image.
pub const MAX_PATCHES: u32 = 1_000_000;

/// Which patches of an image are embedded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patches {
    /// All patches of a grid.
    Grid {
        /// Pixels from one patch to the next; a quarter of the patch's side if `None`.
        stride: Option<u32>,
    },
    /// So many patches at random places, which depend on the image's pixels alone: 1 to [`MAX_PATCHES`].
    Random(u32),
    /// The whole image, once.
    Whole,
}

impl Default for Patches {
    /// A grid with the default stride.
    fn default() -> Self {
        Patches::Grid { stride: None }
    }
}

impl Patches {
    /// Refuses numbers out of range.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check(self) -> Result<()> {
        let refuse = |name, expected: String, got: u32| Err(Error::Setting { name, expected, got: got.to_string() });
        match self {
            Patches::Random(count) if !(1..=MAX_PATCHES).contains(&count) => {
                refuse("random", format!("1 to {MAX_PATCHES} patches"), count)
            }
            Patches::Grid { stride: Some(0) } => refuse("stride", "at least 1 pixel".into(), 0),
            _ => Ok(()),
        }
    }

    /// The patches of an image of this size.
    ///
    /// # Errors
    /// [`bagssl_core::Error::PatchTooLarge`] if the default stride is asked for, and the patch does not fit into the image.
    pub fn bag(self, spec: &PatchSpec, size: ImageSize) -> bagssl_core::Result<Bag> {
        Ok(match self {
            Patches::Whole => Bag::Whole,
            Patches::Random(patches) => Bag::Random { spec: *spec, patches },
            Patches::Grid { stride: Some(stride) } => Bag::Grid { spec: *spec, stride },
            Patches::Grid { stride: None } => Bag::Grid { spec: *spec, stride: (spec.side_in(size)? / 4).max(1) },
        })
    }

    /// Returns the bag for all images of a data set. The default stride of patches that are a share of the area is that of the
    /// first image.
    ///
    /// # Errors
    /// [`Error::Setting`] if a number is out of range; [`Error::Data`] if the first image's size is needed, and no image can be
    /// decoded; [`Error::Core`] if its patch does not fit into it.
    pub fn bag_for(self, spec: &PatchSpec, dataset: &Dataset) -> Result<Bag> {
        self.check()?;
        let size = match (self, spec.side()) {
            (Patches::Grid { stride: None }, PatchSide::AreaShare(_)) => dataset.first_size()?,
            (_, PatchSide::Pixels(side)) => ImageSize { height: side, width: side },
            _ => ImageSize { height: 1, width: 1 },
        };
        Ok(self.bag(spec, size)?)
    }
}

/// When the patches embedded so far are enough. With any of these, patches are taken in random order.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StopOptions {
    /// Stop when the standard error of the mean is below this share of its length: at least 0.
    pub tolerance: Option<f64>,
    /// Stop after so many patches: at least 2.
    pub max_patches: Option<u64>,
    /// Stop when an image has taken so long since its decoding began.
    pub deadline: Option<Duration>,
}

impl StopOptions {
    /// Stops after so many patches.
    pub fn at_most(patches: u64) -> Self {
        StopOptions { max_patches: Some(patches), ..StopOptions::default() }
    }

    /// Refuses numbers out of range.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check(&self) -> Result<()> {
        let refuse = |name, expected: &str, got: String| Err(Error::Setting { name, expected: expected.into(), got });
        match (self.tolerance, self.max_patches) {
            (Some(tolerance), _) if !(tolerance.is_finite() && tolerance >= 0.0) => {
                refuse("tolerance", "a number of at least 0", tolerance.to_string())
            }
            (_, Some(few @ 0..=1)) => refuse("max_patches", "at least 2", few.to_string()),
            _ => Ok(()),
        }
    }

    /// The rule and the deadline, if there is an early stop.
    pub(super) fn rule(&self) -> Option<(StopRule, Option<Duration>)> {
        if *self == StopOptions::default() {
            return None;
        }
        let max = self.max_patches.unwrap_or(u64::MAX);
        let least = StopRule::default().min_patches.min(max);
        let rule = StopRule { tolerance: self.tolerance.unwrap_or(0.0), min_patches: least, max_patches: max };
        Some((rule, self.deadline))
    }
}

/// How the images of a data set are embedded.
#[derive(Clone, Copy, Default)]
pub struct EmbedOptions<'a> {
    /// Which patches of an image.
    pub patches: Patches,
    /// When the patches embedded so far are enough.
    pub stop: StopOptions,
    /// Stop when this classifier is so confident of an image's class, as a probability.
    pub decide: Option<(&'a Classifier, f64)>,
    /// The layer whose features are embedded; the checkpoint's own if `None`.
    pub feature: Option<FeatureLayer>,
    /// Whether to return the embedding of each patch too.
    pub keep_patches: bool,
    /// Threads that decode and cut images; one per core if 0.
    pub threads: usize,
    /// What to do with images that cannot be read, decoded or cut.
    pub on_bad_image: OnBadImage,
    /// The most bytes of memory that the process may use. If `None`, only images that are being decoded are limited: by the data
    /// set's budget, 512 MiB by default ([`Dataset::with_budget`](bagssl_data::Dataset::with_budget)).
    pub memory_limit: Option<u64>,
    /// Bytes of the memory limit that are left to the caller, for what it does with the embeddings.
    pub reserved: u64,
    /// Called with the number of images done.
    pub progress: Option<&'a (dyn Fn(usize) + Sync)>,
}

impl EmbedOptions<'_> {
    /// Refuses numbers out of range.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check(&self) -> Result<()> {
        self.patches.check()?;
        self.stop.check()
    }
}

impl fmt::Debug for EmbedOptions<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("EmbedOptions")
            .field("patches", &self.patches)
            .field("stop", &self.stop)
            .field("feature", &self.feature)
            .field("keep_patches", &self.keep_patches)
            .field("threads", &self.threads)
            .field("on_bad_image", &self.on_bad_image)
            .field("memory_limit", &self.memory_limit)
            .field("reserved", &self.reserved)
            .finish_non_exhaustive()
    }
}
