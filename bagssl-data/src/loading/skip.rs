//! Images that cannot be used: whether they end the work, or are left out and listed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard};

use crate::dataset::Dataset;
use crate::error::{Error, Result};

/// What becomes of an image that cannot be read, decoded or cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnBadImage {
    /// It ends the epoch, with an error that names it.
    #[default]
    Fail,
    /// It is left out, and listed.
    Skip,
}

/// An image that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its number in the data set.
    pub image: u32,
    /// Its name in the data set.
    pub name: String,
    /// Why, when it was left out first.
    pub reason: String,
    /// How often it was left out.
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

/// What happened to an image, at a place of a batch.
#[derive(Debug)]
pub(crate) struct Skip {
    pub(crate) image: u32,
    pub(crate) reason: String,
}

/// What happened in a batch: places whose image is another one (or none), and the images that were left out.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) places: BTreeMap<usize, Option<u32>>,
    pub(crate) skips: Vec<Skip>,
}

#[derive(Debug, Default)]
struct Log(BTreeMap<u32, (String, u64)>);

impl Error {
    /// Whether it is an image that is at fault, not a setting. One that has changed is not left out: all that was computed of the
    /// data set would be of other images than its fingerprint says.
    pub(crate) fn is_of_image(&self) -> bool {
        matches!(self, Error::Read { .. } | Error::Image { .. } | Error::Patch { .. })
    }
}

impl OnBadImage {
    /// The result of using an image, as far as it matters to others: the reason if it is left out.
    ///
    /// # Errors
    /// The image's own, if the work ends with it; any error that is of a setting, not of an image.
    pub fn judge<T>(self, used: Result<T>) -> Result<std::result::Result<T, String>> {
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

    /// The images that were left out, in the order of the data set.
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

/// The changes of batches that are being made.
#[derive(Debug, Default)]
pub(crate) struct Pending(Mutex<BTreeMap<usize, Changes>>);

impl Pending {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Changes>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Notes that the image at a place was left out, with those that were tried instead of it, and which one was taken.
    pub(crate) fn add(&self, batch: usize, place: usize, skips: Vec<Skip>, instead: Option<u32>) {
        if !skips.is_empty() {
            let mut all = self.lock();
            let changes = all.entry(batch).or_default();
            changes.places.insert(place, instead);
            changes.skips.extend(skips);
        }
    }

    /// The images of a batch, after the changes.
    pub(crate) fn apply(&self, batch: usize, images: impl Iterator<Item = u32>) -> Vec<u32> {
        let all = self.lock();
        let places = all.get(&batch).map(|changes| &changes.places);
        let now = |(place, image)| places.and_then(|places| places.get(&place)).copied().unwrap_or(Some(image));
        images.enumerate().filter_map(now).collect()
    }

    /// Lets go of what happened in the batches up to the one that is given out now.
    pub(crate) fn given_out(&self, batch: usize, log: &SkipLog) {
        let mut all = self.lock();
        let later = all.split_off(&(batch + 1));
        std::mem::replace(&mut *all, later).into_values().for_each(|changes| log.add(changes.skips));
    }
}
