//! The integration with Burn: the kernel types, autodiff, and Burn's fusion.

pub(crate) mod kernels;
pub(crate) mod autodiff;
pub(crate) mod fusion;
#[cfg(test)]
pub(crate) mod recorded;
