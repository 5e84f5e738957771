//! Several workers that share a batch: each has as many of its images as the others, and all take the same step, which is the
//! one that a single worker would take with the whole batch.
//!
//! What they exchange are the statistics of batch norms ([`SyncBatchNorm`]), projections (the loss is that of all of them) and
//! gradients. How is an [`Collective`]: [`Threads`] for workers that share memory,
//! `bagssl_cuda::Nccl` for a machine's GPUs.
//!
//! # Source
//! For norms over several devices: Peng et al., *MegDet*, arXiv:1711.07240.

mod collective;
mod meeting;
mod sync_batch_norm;
mod shard;
mod threads;

pub use collective::{Collective, Rank};
pub use meeting::Meeting;
pub use shard::Shard;
pub use sync_batch_norm::SyncBatchNorm;
pub(crate) use sync_batch_norm::with_exchange;
pub use threads::Threads;
