//! The operations behind Burn: the marker types of their kernels, autodiff, and Burn's fusion.

pub(crate) mod kernels;
pub(crate) mod autodiff;
pub(crate) mod fusion;
#[cfg(test)]
pub(crate) mod recorded;
