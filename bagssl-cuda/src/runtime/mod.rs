//! The runtime of operations: jobs on the thread that owns the GPU, its stream, compiled kernels,
//! plans and transfers.

pub(crate) mod job;
pub(crate) mod context;
pub(crate) mod driver;
pub(crate) mod cudnn;
pub(crate) mod transfer;
pub(crate) mod memory;
pub(crate) mod clock;
pub(crate) mod nccl;
#[cfg(test)]
mod compiled;
