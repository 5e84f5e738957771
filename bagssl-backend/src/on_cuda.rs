//! NVIDIA GPUs.

use std::marker::PhantomData;
use std::sync::Arc;

use bagssl_core::model::Batching;
use bagssl_cuda::{
    Bf16, Cuda, CudaDevice, Cudnn, F32, FusedStep, Nccl, Plain, Precision as Numbers, Tf32, memory, panics, probe,
    self_check,
};

use crate::backend::Backend;
use crate::target::{Target, TrainerOn, WorkerOn};

/// The precision of GPU computations. Weights, statistics and losses are always in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Feature maps in bf16.
    Bf16,
    /// Feature maps in f32, matrix products in TF32.
    Tf32,
    /// Everything in f32.
    F32,
}

/// Returns the backend of NVIDIA GPUs.
///
/// # Errors
/// [`Error::Cuda`](bagssl_train::Error::Cuda) if this machine lacks a requirement. Burn's own
/// backend would panic.
pub fn cuda(precision: Precision) -> bagssl_train::Result<Box<dyn Backend>> {
    probe::require()?;
    panics::keep_quiet();
    Ok(match precision {
        Precision::Bf16 => Box::new(OnCuda::<Bf16>(PhantomData)),
        Precision::Tf32 => Box::new(OnCuda::<Tf32>(PhantomData)),
        Precision::F32 => Box::new(OnCuda::<F32>(PhantomData)),
    })
}

/// Compares each operation on this machine's GPU with the CPU. Calls
/// [`correct`](self_check::correct()) for Burn's CUDA backend.
///
/// # Errors
/// As [`cuda`].
pub fn check_cuda(
    parts: &[self_check::Part],
    report: &mut dyn FnMut(self_check::Told<'_>),
) -> bagssl_train::Result<self_check::Summary> {
    self_check::correct::<Plain, Cuda>(parts, report)
}

#[derive(Debug)]
struct OnCuda<P>(PhantomData<P>);

impl<P: Numbers> Target for OnCuda<P> {
    type Burn = Cuda;
    type Kernels = Cudnn<P>;
    type Training = Cudnn<P>;

    /// Batches of 2,048 patches of 32x32. Two batches are queued while the host waits for a third.
    const BATCHING: Batching = Batching { pixels: 1 << 21, in_flight: 3 };
    const MAP_VALUE_BYTES: u64 = if P::MAPS.is_some() { 2 } else { 4 };

    fn free_memory(devices: usize) -> Option<u64> {
        (0..devices).filter_map(|gpu| memory(gpu).ok()).map(|memory| memory.free).min()
    }

    fn memory_used() -> Option<u64> {
        memory(0).ok().map(|memory| memory.used())
    }

    fn workers(count: usize) -> bagssl_train::Result<Vec<WorkerOn<Self>>> {
        let ends = Nccl::new(&(0..count).collect::<Vec<_>>())?.into_iter().enumerate();
        let worker = |(gpu, end)| WorkerOn { device: CudaDevice::new(gpu), exchange: Arc::new(end) };
        Ok(ends.map(worker).collect())
    }

    fn prepare(trainer: &mut TrainerOn<Self>) {
        trainer.set_fused_optimizer(Box::new(FusedStep));
    }
}
