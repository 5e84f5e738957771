//! From an image to the values of a patch: crop and resize, augment, normalize.

pub(crate) mod resample;
pub(crate) mod augment;
mod color;
mod blur;
pub(crate) mod to_tensor;

#[cfg(test)]
mod reference;
