//! Embeds batches of patches with a model on a Burn backend.

use std::prelude::v1::*;

use core::marker::PhantomData;

use burn::tensor::backend::Backend;

use super::{FoldedModel, Kernels, Model, Reading};
use crate::batch::{PatchBatch, SourceError};
use crate::embed::{Embed, FeatureLayer, Pending, Rows};

/// The amount of work in flight on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// Maximum number of pixels of the patches in one forward pass. Larger values need more memory.
    pub pixels: usize,
    /// Number of batches in flight.
    pub in_flight: usize,
}

/// Maximum number of patches in one forward pass, whatever their size.
const MAX_ROWS: usize = 4096;

impl Batching {
    /// Returns the number of patches of `[height, width]` pixels in one forward pass.
    fn rows(self, [height, width]: [usize; 2]) -> usize {
        (self.pixels / (height * width).max(1)).clamp(1, MAX_ROWS)
    }
}

/// Embeds batches of patches with a model on a device, with several batches in flight.
#[derive(Debug)]
pub struct Embedder<B: Backend, K> {
    model: FoldedModel<B>,
    device: B::Device,
    batching: Batching,
    kernels: PhantomData<K>,
}

impl<B: Backend, K: Kernels<B>> Embedder<B, K> {
    /// Creates an embedder with the current weights of `model`.
    pub fn new(model: &Model<B>, device: B::Device, batching: Batching) -> Self {
        Embedder { model: FoldedModel::new(model), device, batching, kernels: PhantomData }
    }
}

impl<B: Backend, K: Kernels<B>> Embed for Embedder<B, K> {
    fn embed(&self, batch: &PatchBatch, layers: &[FeatureLayer]) -> core::result::Result<Vec<Rows>, SourceError> {
        self.begin(batch, layers)?.wait()
    }

    fn begin(&self, batch: &PatchBatch, layers: &[FeatureLayer]) -> core::result::Result<Pending, SourceError> {
        let shape = batch.shape();
        if shape.channels != 3 {
            return Err(format!("expected patches with 3 channels, got {}", shape.channels).into());
        }
        let size = [shape.height, shape.width];
        if self.model.encoder().multiply_accumulates(size).is_none() {
            return Err(format!("expected patches large enough for the encoder's kernels, got {size:?} pixels").into());
        }
        // For each layer, the length of its rows and the pending copies to the host.
        let mut pending: Vec<(usize, Vec<Reading>)> = layers.iter().map(|_| (0, Vec::new())).collect();
        for part in batch.data().chunks(self.batching.rows(size) * shape.patch_len()) {
            let dims = [part.len() / shape.patch_len(), shape.channels, shape.height, shape.width];
            let patches = K::upload(part.to_vec(), dims, &self.device);
            for ((dim, readings), rows) in pending.iter_mut().zip(self.model.features::<K>(patches, layers)) {
                *dim = rows.dims()[1];
                readings.push(K::read_later(rows.flatten(0, 1)));
            }
        }
        Ok(Pending::new(move || {
            let mut features = Vec::with_capacity(pending.len());
            for (dim, readings) in pending {
                let mut values = Vec::new();
                for reading in readings {
                    let part = reading.wait();
                    // The device's error is more informative than the failed read, so report it
                    // first.
                    K::check()?;
                    values.append(&mut part?);
                }
                features.push(Rows { values, dim });
            }
            Ok(features)
        }))
    }

    fn in_flight(&self) -> usize {
        self.batching.in_flight
    }

    fn rows(&self, size: [usize; 2]) -> usize {
        self.batching.rows(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batching_by_pixels() {
        let batching = Batching { pixels: 1 << 12, in_flight: 1 };
        assert_eq!(
            [[16, 32], [64, 64], [65, 64], [1, 1], [0, 3]].map(|size| batching.rows(size)),
            [8, 1, 1, 4096, 4096]
        );
    }
}
