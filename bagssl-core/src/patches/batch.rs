//! Batches of patches: the input of training and evaluation.

use std::prelude::v1::*;
use std::sync::Arc;

use crate::error::{Error, Result};

/// The shape of a batch, in the axis order that the entire project uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchShape {
    /// Number of images.
    pub images: usize,
    /// Patches per image.
    pub patches: usize,
    /// Color channels.
    pub channels: usize,
    /// Height of a patch.
    pub height: usize,
    /// Width of a patch.
    pub width: usize,
}

impl BatchShape {
    /// Returns the number of values of one patch.
    pub fn patch_len(self) -> usize {
        self.channels * self.height * self.width
    }

    /// Returns the number of patches of all images.
    pub fn rows(self) -> usize {
        self.images * self.patches
    }
}

/// Normalized patches of several images.
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
    /// Creates a batch. `images` holds the index of each image in the data set, `labels` its class.
    ///
    /// # Errors
    /// [`Error::Length`] if a length does not match the shape, [`Error::Setting`] if the shape
    /// contains a 0.
    pub fn new(shape: BatchShape, data: Vec<f32>, images: Vec<u32>, labels: Vec<u32>) -> Result<Self> {
        let expect = |name, expected, got| {
            if expected == got { Ok(()) } else { Err(Error::Length { name, expected, got }) }
        };
        if shape.rows() * shape.patch_len() == 0 {
            return Err(Error::Setting {
                name: "patch batch shape",
                expected: "no dimension of 0",
                got: format!("{shape:?}"),
            });
        }
        expect("patch batch values", shape.rows() * shape.patch_len(), data.len())?;
        expect("patch batch image indices", shape.images, images.len())?;
        expect("patch batch labels", shape.images, labels.len())?;
        Ok(PatchBatch { shape, data: Arc::new(data), images, labels })
    }

    /// Returns the shape of the values.
    pub fn shape(&self) -> BatchShape {
        self.shape
    }

    /// Returns the values, `[batch, patch, channel, height, width]`.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// Returns the values. Copies them only if a clone shares them.
    pub fn into_data(self) -> Vec<f32> {
        Arc::unwrap_or_clone(self.data)
    }

    /// Returns whether a clone shares the values. A source that caches its batches may then return
    /// the same batch again.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.data) > 1
    }

    /// Returns whether the two batches share their values, that is, whether one is a clone of the
    /// other.
    pub fn shares_with(&self, other: &PatchBatch) -> bool {
        self.shape == other.shape && Arc::ptr_eq(&self.data, &other.data)
    }

    /// Returns the index of each image in the data set.
    pub fn images(&self) -> &[u32] {
        &self.images
    }

    /// Returns the class of each image.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Returns one patch, `[channel, height, width]`.
    ///
    /// # Panics
    /// If `image` or `patch` is out of range.
    pub fn patch(&self, image: usize, patch: usize) -> &[f32] {
        assert!(image < self.shape.images && patch < self.shape.patches, "patch {patch} of image {image}");
        let len = self.shape.patch_len();
        &self.data[(image * self.shape.patches + patch) * len..][..len]
    }
}

/// The error of a source of batches. Each source has its own kinds of failure.
pub type SourceError = Box<dyn core::error::Error + Send + Sync>;

/// The batches of one epoch, in order.
pub type Batches<'a> = Box<dyn Iterator<Item = core::result::Result<PatchBatch, SourceError>> + Send + 'a>;

/// A source of training batches: a loader, or synthetic patches.
pub trait PatchSource {
    /// Returns the shape of every batch. Smaller batches are dropped.
    fn shape(&self) -> BatchShape;

    /// Returns the number of batches per epoch.
    fn batches_per_epoch(&self) -> usize;

    /// Returns the batches of an epoch, starting at number `first`. Their content depends only on
    /// the source's seed, the epoch and the batch number, so a resumed run sees the same batches as
    /// an uninterrupted one.
    fn epoch(&self, epoch: u32, first: usize) -> Batches<'_>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patch_index_is_image_then_patch() {
        let shape = BatchShape { images: 2, patches: 3, channels: 1, height: 1, width: 2 };
        let data = (0..12).map(|value| value as f32).collect();
        let batch = PatchBatch::new(shape, data, vec![5, 9], vec![0, 1]).unwrap();
        assert_eq!(batch.patch(1, 2), [10.0, 11.0]);
        assert_eq!(batch.patch(0, 2), [4.0, 5.0]);
    }

    #[test]
    fn clones_share_values_but_equal_batches_do_not() {
        let shape = BatchShape { images: 1, patches: 1, channels: 1, height: 1, width: 2 };
        let batch = || PatchBatch::new(shape, vec![1.0, 2.0], vec![0], vec![0]).unwrap();
        let (batch_a, other) = (batch(), batch());
        assert!(!batch_a.is_shared() && batch_a == other && !batch_a.shares_with(&other));
        let clone = batch_a.clone();
        assert!(clone.is_shared() && clone.shares_with(&batch_a));
        assert_eq!(clone.into_data(), [1.0, 2.0]);
        assert!(!batch_a.is_shared());
    }

    #[test]
    fn batch_of_wrong_lengths_is_refused() {
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
