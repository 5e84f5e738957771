//! Workers that are threads of one process.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::meeting::Meeting;
use super::{Collective, Rank};
use crate::error::{Error, Result};

/// An exchange through the memory of one process. A worker that ends early fails the others instead of leaving them waiting.
#[derive(Debug)]
pub struct Threads<B: Backend>(Meeting<Option<Tensor<B, 1>>>);

impl<B: Backend> Threads<B> {
    /// The ends of so many workers, in order.
    pub fn new(count: usize) -> Vec<Self> {
        Meeting::new(count).into_iter().map(Threads).collect()
    }
}

impl<B: Backend> Collective<B> for Threads<B> {
    fn rank(&self) -> Rank {
        self.0.rank()
    }

    fn barrier(&self) -> Result<()> {
        self.0.all(None).map(|_| ())
    }

    fn all_reduce(&self, tensor: Tensor<B, 1>) -> Result<Tensor<B, 1>> {
        let (device, [expected]) = (tensor.device(), tensor.dims());
        let all = self.0.all(Some(tensor))?.into_iter().map(|tensor| match tensor {
            Some(tensor) if tensor.dims() == [expected] => Ok(tensor.to_device(&device)),
            other => {
                let got = other.map_or(0, |tensor| tensor.dims()[0]);
                Err(Error::Workers(format!("expected {expected} values from each worker, got {got}")))
            }
        });
        // In the same order for each worker.
        let sum = all.reduce(|sum, tensor| Ok(sum? + tensor?));
        sum.expect("there is at least this worker's")
    }
}
