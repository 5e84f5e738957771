//! Batches of patches, loaded on threads: for training and for evaluation.

pub(crate) mod skip;
mod prefetch;
pub(crate) mod loader;
pub(crate) mod bags;
