//! Workers on the GPUs of one machine.

use std::collections::BTreeSet;

use burn::tensor::{Tensor, TensorPrimitive};
use burn_backend::DeviceId;
use burn_backend::distributed::{DistributedBackend, ReduceOperation};
use burn_cuda::CudaDevice;
use cubecl_common::device::Device;

use crate::{Cuda, probe};
use bagssl_train::distributed::{Collective, Rank, Rendezvous};
use bagssl_train::error::{Error, Result};

/// A collective between the GPUs of one machine through NCCL. Each GPU has a thread of this
/// process.
///
/// All-reduces are queued on the GPUs, and the host does not wait for them. Each runs after all
/// work that its worker queued before it, and before all work queued later.
#[derive(Debug)]
pub struct Nccl {
    seat: Rendezvous<()>,
    devices: Vec<DeviceId>,
}

impl Nccl {
    /// Creates the handles of the workers on these GPUs, in order.
    ///
    /// # Errors
    /// [`Error::Cuda`] if a component of CUDA or NCCL is missing, a GPU does not exist, or a GPU is
    /// named twice.
    pub fn new(gpus: &[usize]) -> Result<Vec<Self>> {
        probe::require_nccl(gpus)?;
        if gpus.iter().collect::<BTreeSet<_>>().len() < gpus.len() {
            return Err(Error::Cuda(format!("expected different GPUs, got {gpus:?}")));
        }
        let devices: Vec<DeviceId> = gpus.iter().map(|&gpu| CudaDevice::new(gpu).to_id()).collect();
        Ok(Rendezvous::new(gpus.len()).into_iter().map(|seat| Nccl { seat, devices: devices.clone() }).collect())
    }
}

impl Collective<Cuda> for Nccl {
    fn rank(&self) -> Rank {
        self.seat.rank()
    }

    fn barrier(&self) -> Result<()> {
        self.seat.all_gather(()).map(|_| ())
    }

    fn all_reduce(&self, tensor: Tensor<Cuda, 1>) -> Result<Tensor<Cuda, 1>> {
        let own = tensor.into_primitive().tensor();
        // `resolve` makes the worker's stream wait for the sum.
        let sum = Cuda::all_reduce(own, ReduceOperation::Sum, self.devices.clone()).resolve();
        Ok(Tensor::from_primitive(TensorPrimitive::Float(sum)))
    }
}
