//! From an image to a batch of patches.

pub mod patch;
pub mod bag;
pub mod color;
pub mod normalize;
pub mod batch;
