//! Data-parallel training. Workers share each batch: every worker gets the same number of images,
//! and all take the same step. The step equals the step of a single worker on the entire batch.
//!
//! Workers exchange batch norm statistics ([`SyncBatchNorm`]), projections (the loss is computed
//! over all of them) and gradients. They communicate through a [`Collective`]: [`Threads`] for
//! workers that share memory, `bagssl_cuda::Nccl` for the GPUs of a machine.
//!
//! # Source
//! Batch norm across devices: Peng et al., *MegDet*, arXiv:1711.07240.

mod collective;
mod rendezvous;
mod sync_batch_norm;
mod shard;
mod threads;

pub use collective::{Collective, Rank};
pub use rendezvous::Rendezvous;
pub use shard::Shard;
pub use sync_batch_norm::SyncBatchNorm;
pub(crate) use sync_batch_norm::with_exchange;
pub use threads::Threads;
