//! Collective operations between workers.

use std::fmt::Debug;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::error::{Error, Result};

/// A worker's rank and the number of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    /// The index of the worker, from 0.
    pub rank: usize,
    /// The number of workers.
    pub world_size: usize,
}

impl Rank {
    /// Returns the indices of this worker's images in a batch of `images`. Every worker gets the
    /// same number.
    ///
    /// # Errors
    /// [`Error::Setting`] if `images` is not a positive multiple of the number of workers.
    pub fn share(self, images: usize) -> Result<std::ops::Range<usize>> {
        let each = images / self.world_size;
        if each == 0 || each * self.world_size != images {
            return Err(Error::Setting {
                name: "batch.images",
                expected: format!("a multiple of the number of workers ({})", self.world_size),
                got: images.to_string(),
            });
        }
        Ok(self.rank * each..(self.rank + 1) * each)
    }
}

/// A worker's handle for communicating with the others. Every worker must make the same calls in
/// the same order, with tensors of the same shape. A call may return before the others have
/// contributed: the returned tensor is complete when it is read.
pub trait Collective<B: Backend>: Debug + Send + Sync {
    /// Returns the worker's rank.
    fn rank(&self) -> Rank;

    /// Blocks until all workers have reached this call.
    ///
    /// # Errors
    /// [`Error::Workers`] if another worker has exited.
    fn barrier(&self) -> Result<()>;

    /// Returns the sum of all workers' tensors. The result is bitwise identical on every worker.
    ///
    /// # Errors
    /// [`Error::Workers`] if another worker has exited, or the shapes differ. NCCL detects neither:
    /// there, a worker that has exited is noticed by [`Collective::barrier`].
    fn all_reduce(&self, tensor: Tensor<B, 1>) -> Result<Tensor<B, 1>>;

    /// Returns all workers' tensors, ordered by rank.
    ///
    /// # Shapes
    /// - `tensor`: `[value]`
    /// - returns: `[worker, value]`
    ///
    /// # Errors
    /// As [`Collective::all_reduce`].
    fn all_gather(&self, tensor: Tensor<B, 1>) -> Result<Tensor<B, 2>> {
        let (Rank { rank: number, world_size: count }, [length], device) =
            (self.rank(), tensor.dims(), tensor.device());
        let zeros = |workers: usize| Tensor::<B, 1>::zeros([workers * length], &device);
        let mut parts = Vec::new();
        if number > 0 {
            parts.push(zeros(number));
        }
        parts.push(tensor);
        if number + 1 < count {
            parts.push(zeros(count - number - 1));
        }
        Ok(self.all_reduce(Tensor::cat(parts, 0))?.reshape([count, length]))
    }
}
