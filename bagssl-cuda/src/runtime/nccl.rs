//! Workers on the GPUs of one machine.

use std::collections::BTreeSet;

use burn::tensor::{Tensor, TensorPrimitive};
use burn_backend::DeviceId;
use burn_backend::distributed::{DistributedBackend, ReduceOperation};
use burn_cuda::CudaDevice;
use cubecl_common::device::Device;

use crate::{Cuda, probe};
use bagssl_train::distributed::{Collective, Meeting, Rank};
use bagssl_train::error::{Error, Result};

/// An exchange between GPUs of one machine, each of which has a thread of this process, through NCCL.
///
/// Sums are queued on the GPUs, and nothing waits for them on the host. Each is made after all that its worker has queued
/// before, and before all that comes after.
#[derive(Debug)]
pub struct Nccl {
    seat: Meeting<()>,
    devices: Vec<DeviceId>,
}

impl Nccl {
    /// The ends of the workers on these GPUs, in their order.
    ///
    /// # Errors
    /// [`Error::Cuda`] if something of CUDA or NCCL is missing, there are fewer GPUs, or one is named twice.
    pub fn new(gpus: &[usize]) -> Result<Vec<Self>> {
        probe::require_nccl(gpus)?;
        if gpus.iter().collect::<BTreeSet<_>>().len() < gpus.len() {
            return Err(Error::Cuda(format!("expected different GPUs, got {gpus:?}")));
        }
        let devices: Vec<DeviceId> = gpus.iter().map(|&gpu| CudaDevice::new(gpu).to_id()).collect();
        Ok(Meeting::new(gpus.len()).into_iter().map(|seat| Nccl { seat, devices: devices.clone() }).collect())
    }
}

impl Collective<Cuda> for Nccl {
    fn rank(&self) -> Rank {
        self.seat.rank()
    }

    fn barrier(&self) -> Result<()> {
        self.seat.all(()).map(|_| ())
    }

    fn all_reduce(&self, tensor: Tensor<Cuda, 1>) -> Result<Tensor<Cuda, 1>> {
        let own = tensor.into_primitive().tensor();
        // `resolve` queues that the worker's stream waits for the sum.
        let sum = Cuda::all_reduce(own, ReduceOperation::Sum, self.devices.clone()).resolve();
        Ok(Tensor::from_primitive(TensorPrimitive::Float(sum)))
    }
}
