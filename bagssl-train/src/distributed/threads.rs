//! Workers on threads of one process.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::rendezvous::Rendezvous;
use super::{Collective, Rank};
use crate::error::{Error, Result};

/// A collective through shared memory. A worker that exits early makes the others' calls fail
/// instead of blocking forever.
#[derive(Debug)]
pub struct Threads<B: Backend>(Rendezvous<Option<Tensor<B, 1>>>);

impl<B: Backend> Threads<B> {
    /// Creates the handles of `count` workers, ordered by rank.
    pub fn new(count: usize) -> Vec<Self> {
        Rendezvous::new(count).into_iter().map(Threads).collect()
    }
}

impl<B: Backend> Collective<B> for Threads<B> {
    fn rank(&self) -> Rank {
        self.0.rank()
    }

    fn barrier(&self) -> Result<()> {
        self.0.all_gather(None).map(|_| ())
    }

    fn all_reduce(&self, tensor: Tensor<B, 1>) -> Result<Tensor<B, 1>> {
        let (device, [expected]) = (tensor.device(), tensor.dims());
        let all = self.0.all_gather(Some(tensor))?.into_iter().map(|tensor| match tensor {
            Some(tensor) if tensor.dims() == [expected] => Ok(tensor.to_device(&device)),
            other => {
                let got = other.map_or(0, |tensor| tensor.dims()[0]);
                Err(Error::Workers(format!("expected {expected} values from each worker, got {got}")))
            }
        });
        // Every worker adds in the same order, so the sums are bitwise identical.
        let sum = all.reduce(|sum, tensor| Ok(sum? + tensor?));
        sum.expect("there is at least this worker's")
    }
}
