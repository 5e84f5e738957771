//! Loading of batches of patches on several threads, for training and for evaluation.

pub(crate) mod skip;
mod prefetch;
mod image_cache;
pub(crate) mod loader;
pub(crate) mod bags;
