//! Handling of unusable images: fail, or skip and report them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard};

use crate::dataset::Dataset;
use crate::error::{Error, Result};

/// How to handle an image that cannot be read, decoded or cropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnBadImage {
    /// End the epoch with an error that names the image.
    #[default]
    Fail,
    /// Skip the image, and report it.
    Skip,
}

/// A skipped image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The image's index in the data set.
    pub image: u32,
    /// The image's name in the data set.
    pub name: String,
    /// The reason when it was first skipped.
    pub reason: String,
    /// The number of times it was skipped.
    pub times: u64,
}

impl fmt::Display for Skipped {
    /// The reason, with the image's name.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Most reasons contain the name.
        match self.reason.contains(&self.name) {
            true => out.write_str(&self.reason),
            false => write!(out, "{}: {}", self.name, self.reason),
        }
    }
}

/// The images of a data set that were left out of the batches that were given out.
#[derive(Debug, Default)]
pub(crate) struct SkipLog(Mutex<Log>);

/// An image that was skipped at a position of a batch.
#[derive(Debug)]
pub(crate) struct Skip {
    pub(crate) image: u32,
    pub(crate) reason: String,
}

/// The changes of a batch: the positions with another image (or none), and the skipped images.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) positions: BTreeMap<usize, Option<u32>>,
    pub(crate) skips: Vec<Skip>,
}

#[derive(Debug, Default)]
struct Log(BTreeMap<u32, (String, u64)>);

impl Error {
    /// Returns whether the error is caused by an image and not by a setting.
    pub(crate) fn is_of_image(&self) -> bool {
        matches!(self, Error::Read { .. } | Error::Image { .. } | Error::Patch { .. })
    }
}

impl OnBadImage {
    /// Checks that all files that a list names are there, unless unusable images are skipped. So a
    /// long run does not end at the first missing file.
    ///
    /// # Errors
    /// The error of the first image whose file is missing.
    pub fn check(self, dataset: &Dataset) -> Result<()> {
        match self {
            OnBadImage::Fail => dataset.check_listed(),
            OnBadImage::Skip => Ok(()),
        }
    }

    /// Decides about the result of using an image. Returns the reason as an inner error if the
    /// image is to be skipped.
    ///
    /// # Errors
    /// The error of the image if unusable images are not skipped, and any error that is not caused
    /// by an image.
    pub fn skip_or_fail<T>(self, used: Result<T>) -> Result<std::result::Result<T, String>> {
        match used {
            Ok(used) => Ok(Ok(used)),
            Err(error) if self == OnBadImage::Skip && error.is_of_image() => Ok(Err(error.to_string())),
            Err(error) => Err(error),
        }
    }
}

impl SkipLog {
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn add(&self, skips: Vec<Skip>) {
        let mut log = self.lock();
        for Skip { image, reason } in skips {
            log.0.entry(image).or_insert((reason, 0)).1 += 1;
        }
    }

    /// Returns the skipped images, in the order of the data set.
    pub(crate) fn list(&self, dataset: &Dataset) -> Vec<Skipped> {
        let skipped = |(&image, (reason, times)): (&u32, &(String, u64))| Skipped {
            image,
            name: dataset.name(image as usize).into(),
            reason: reason.clone(),
            times: *times,
        };
        self.lock().0.iter().map(skipped).collect()
    }
}

/// The changes of batches that the consumer has not received yet.
#[derive(Debug, Default)]
pub(crate) struct Pending(Mutex<BTreeMap<usize, Changes>>);

impl Pending {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Changes>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Records that the image at a position was skipped, along with any replacements that were
    /// tried and skipped. `replacement` is the image that is used.
    pub(crate) fn add(&self, batch: usize, position: usize, skips: Vec<Skip>, replacement: Option<u32>) {
        if !skips.is_empty() {
            let mut all = self.lock();
            let changes = all.entry(batch).or_default();
            changes.positions.insert(position, replacement);
            changes.skips.extend(skips);
        }
    }

    /// Returns the images of a batch after the changes.
    pub(crate) fn apply(&self, batch: usize, images: impl Iterator<Item = u32>) -> Vec<u32> {
        let all = self.lock();
        let positions = all.get(&batch).map(|changes| &changes.positions);
        let now = |(position, image)| {
            positions.and_then(|positions| positions.get(&position)).copied().unwrap_or(Some(image))
        };
        images.enumerate().filter_map(now).collect()
    }

    /// Moves the skipped images of all batches up to `batch` to the log.
    pub(crate) fn delivered(&self, batch: usize, log: &SkipLog) {
        let mut all = self.lock();
        let later = all.split_off(&(batch + 1));
        std::mem::replace(&mut *all, later).into_values().for_each(|changes| log.add(changes.skips));
    }
}
