//! Executors: run a plan with the kernels.

pub(crate) mod threads;
pub(crate) mod executor;
pub(crate) mod dense;
pub(crate) mod arena;
#[cfg(feature = "std")]
pub(crate) mod embedder;
