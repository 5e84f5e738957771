//! Turns images into batches of patches.

pub mod patch;
pub mod bag;
pub mod color;
pub mod normalize;
pub mod batch;
