//! Batches of patches: what a loader hands to training and evaluation.

use std::prelude::v1::*;
use std::sync::Arc;

use crate::error::{Error, Result};

/// The shape of a batch, in the one axis order of this project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchShape {
    /// Images.
    pub images: usize,
    /// Patches of each image.
    pub patches: usize,
    /// Color channels.
    pub channels: usize,
    /// Rows of a patch.
    pub height: usize,
    /// Columns of a patch.
    pub width: usize,
}

impl BatchShape {
    /// Values of one patch.
    pub fn patch_len(self) -> usize {
        self.channels * self.height * self.width
    }

    /// Patches of all images.
    pub fn rows(self) -> usize {
        self.images * self.patches
    }
}

/// Patches of some images, normalized and ready for a network.
///
/// # Shapes
/// `data` is `[batch, patch, channel, height, width]`, row-major. Clones share it.
#[derive(Debug, Clone, PartialEq)]
pub struct PatchBatch {
    shape: BatchShape,
    data: Arc<Vec<f32>>,
    images: Vec<u32>,
    labels: Vec<u32>,
}

impl PatchBatch {
    /// Joins values to the images they come from: `images` holds each image's index in its data set, `labels` its
    /// class.
    ///
    /// # Errors
    /// [`Error::Length`] if a length does not fit the shape, [`Error::Setting`] if the shape has a 0.
    pub fn new(shape: BatchShape, data: Vec<f32>, images: Vec<u32>, labels: Vec<u32>) -> Result<Self> {
        let expect = |what, expected, got| {
            if expected == got { Ok(()) } else { Err(Error::Length { what, expected, got }) }
        };
        if shape.rows() * shape.patch_len() == 0 {
            return Err(Error::Setting {
                name: "shape of a patch batch",
                expected: "no 0 in it",
                got: format!("{shape:?}"),
            });
        }
        expect("values of a patch batch", shape.rows() * shape.patch_len(), data.len())?;
        expect("images of a patch batch", shape.images, images.len())?;
        expect("labels of a patch batch", shape.images, labels.len())?;
        Ok(PatchBatch { shape, data: Arc::new(data), images, labels })
    }

    /// The shape of the values.
    pub fn shape(&self) -> BatchShape {
        self.shape
    }

    /// The values, `[batch, patch, channel, height, width]`.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The values, without a copy unless a clone has them too.
    pub fn into_data(self) -> Vec<f32> {
        Arc::unwrap_or_clone(self.data)
    }

    /// Whether a clone has the values too: where a source keeps its batch, it may give them again.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.data) > 1
    }

    /// Whether this is a clone of `other`, or the other way round.
    pub fn shares_with(&self, other: &PatchBatch) -> bool {
        self.shape == other.shape && Arc::ptr_eq(&self.data, &other.data)
    }

    /// Each image's index in its data set.
    pub fn images(&self) -> &[u32] {
        &self.images
    }

    /// Each image's class.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// One patch, `[channel, height, width]`.
    ///
    /// # Panics
    /// If there is no such image or patch.
    pub fn patch(&self, image: usize, patch: usize) -> &[f32] {
        assert!(image < self.shape.images && patch < self.shape.patches, "patch {patch} of image {image}");
        let len = self.shape.patch_len();
        &self.data[(image * self.shape.patches + patch) * len..][..len]
    }
}

/// What a source of batches may fail with: the kind of failure belongs to the source.
pub type SourceError = Box<dyn core::error::Error + Send + Sync>;

/// The batches of one epoch, in order.
pub type Batches<'a> = Box<dyn Iterator<Item = core::result::Result<PatchBatch, SourceError>> + Send + 'a>;

/// Where training takes its batches from: a loader, or synthetic patches.
pub trait PatchSource {
    /// The shape of every batch: batches that would be smaller are dropped.
    fn shape(&self) -> BatchShape;

    /// Batches of an epoch.
    fn batches_per_epoch(&self) -> usize;

    /// The batches of an epoch from number `first` on. What they hold is a function of the source's seed, the epoch
    /// and the batch's number alone, so that a resumed run sees what the uninterrupted one sees.
    fn epoch(&self, epoch: u32, first: usize) -> Batches<'_>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_is_found_by_image_then_patch() {
        let shape = BatchShape { images: 2, patches: 3, channels: 1, height: 1, width: 2 };
        let data = (0..12).map(|value| value as f32).collect();
        let batch = PatchBatch::new(shape, data, vec![5, 9], vec![0, 1]).unwrap();
        assert_eq!(batch.patch(1, 2), [10.0, 11.0]);
        assert_eq!(batch.patch(0, 2), [4.0, 5.0]);
    }

    #[test]
    fn clones_share_their_values_and_equal_batches_do_not() {
        let shape = BatchShape { images: 1, patches: 1, channels: 1, height: 1, width: 2 };
        let batch = || PatchBatch::new(shape, vec![1.0, 2.0], vec![0], vec![0]).unwrap();
        let (kept, other) = (batch(), batch());
        assert!(!kept.is_shared() && kept == other && !kept.shares_with(&other));
        let given = kept.clone();
        assert!(given.is_shared() && given.shares_with(&kept));
        assert_eq!(given.into_data(), [1.0, 2.0]);
        assert!(!kept.is_shared());
    }

    #[test]
    fn lengths_must_fit() {
        let shape = BatchShape { images: 1, patches: 1, channels: 3, height: 2, width: 1 };
        let make = |data: usize, images: usize, labels: usize| {
            PatchBatch::new(shape, vec![0.0; data], vec![0; images], vec![0; labels])
        };
        assert!(make(6, 1, 1).is_ok());
        for (data, images, labels) in [(5, 1, 1), (6, 0, 1), (6, 1, 2)] {
            assert!(make(data, images, labels).is_err());
        }
    }
}
