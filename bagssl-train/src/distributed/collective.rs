//! What workers tell each other.

use std::fmt::Debug;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::error::{Error, Result};

/// A worker's place among the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    /// Its number, from 0.
    pub rank: usize,
    /// The workers in all.
    pub world_size: usize,
}

impl Rank {
    /// The images of a worker, of a batch of so many: as many for each.
    ///
    /// # Errors
    /// [`Error::Setting`] if they cannot be divided evenly, or each would have fewer than one.
    pub fn share(self, images: usize) -> Result<std::ops::Range<usize>> {
        let each = images / self.world_size;
        if each == 0 || each * self.world_size != images {
            return Err(Error::Setting {
                name: "batch.images",
                expected: format!("a multiple of the {} workers", self.world_size),
                got: images.to_string(),
            });
        }
        Ok(self.rank * each..(self.rank + 1) * each)
    }
}

/// A worker's end of what it shares with the others. Every worker makes the same calls in the same order, with tensors of
/// the same shape. Where tensors are read, the others' have come; whether a call waits for that is the exchange's choice.
pub trait Collective<B: Backend>: Debug + Send + Sync {
    /// The worker's place.
    fn rank(&self) -> Rank;

    /// Waits until all workers have come as far.
    ///
    /// # Errors
    /// [`Error::Workers`] if another worker has ended.
    fn barrier(&self) -> Result<()>;

    /// The sum of all workers' tensors, bit for bit the same for each of them.
    ///
    /// # Errors
    /// [`Error::Workers`] if another worker has ended, or the tensors do not fit each other.
    fn all_reduce(&self, tensor: Tensor<B, 1>) -> Result<Tensor<B, 1>>;

    /// All workers' tensors, in the order of their numbers.
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
