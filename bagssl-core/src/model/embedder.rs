//! A model as the evaluation sees it.

use std::prelude::v1::*;

use core::marker::PhantomData;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use super::{Kernels, Model};
use crate::batch::{PatchBatch, SourceError};
use crate::embed::{Embed, Rows, Tap};

/// A model on a device that embeds batches of patches, some at a time.
#[derive(Debug)]
pub struct Embedder<B: Backend, K> {
    model: Model<B>,
    device: B::Device,
    rows: usize,
    kernels: PhantomData<K>,
}

impl<B: Backend, K: Kernels<B>> Embedder<B, K> {
    /// Embeds with `model`, at most `rows` patches at once (more need more memory).
    ///
    /// # Panics
    /// If `rows` is 0.
    pub fn new(model: Model<B>, device: B::Device, rows: usize) -> Self {
        assert!(rows > 0, "an embedder takes at least one patch at once");
        Embedder { model, device, rows, kernels: PhantomData }
    }

    /// The model.
    pub fn model(&self) -> &Model<B> {
        &self.model
    }
}

impl<B: Backend, K: Kernels<B>> Embed for Embedder<B, K> {
    fn embed(&self, batch: &PatchBatch, taps: &[Tap]) -> core::result::Result<Vec<Rows>, SourceError> {
        let shape = batch.shape();
        if shape.channels != 3 {
            return Err(format!("expected patches of 3 channels, got {}", shape.channels).into());
        }
        let size = [shape.height, shape.width];
        if self.model.encoder().plan().multiply_accumulates(size).is_none() {
            return Err(format!("expected patches that the encoder's windows fit into, got {size:?} pixels").into());
        }
        let mut features: Vec<Rows> = taps.iter().map(|_| Rows { values: Vec::new(), dim: 0 }).collect();
        for part in batch.data().chunks(self.rows * shape.patch_len()) {
            let dims = [part.len() / shape.patch_len(), shape.channels, shape.height, shape.width];
            let patches = Tensor::from_data(TensorData::new(part.to_vec(), dims), &self.device);
            for (rows, part) in features.iter_mut().zip(self.model.features::<K>(patches, taps)) {
                rows.dim = part.dims()[1];
                let values = part.into_data().convert::<f32>().into_vec::<f32>();
                rows.values.extend(values.map_err(|error| format!("{error:?}"))?);
            }
            K::check()?;
        }
        Ok(features)
    }
}
